//! Random numbers from a seed, so that a printed seed is enough to repeat a test.

/// Numbers that look random and follow from a seed (the generator known as `SplitMix64`).
#[derive(Debug, Clone)]
pub(crate) struct Seeded(u64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap();
        usize::try_from(self.next() % end).unwrap()
    }

    /// A random one of `all`, which is not empty.
    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A random one of `all` other than `this`.
    pub(crate) fn pick_other<'a, T: PartialEq>(&mut self, all: &'a [T], this: &T) -> &'a T {
        let others: Vec<&T> = all.iter().filter(|one| *one != this).collect();
        others[self.below(others.len())]
    }
}
