//! Pure work on many things, divided among the processors.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::thread;

/// From how many things on more threads are worth their start.
pub(crate) const MANY: usize = 64;

/// Gives `work` the `things` in parts, in their order: one part where they are fewer than [`MANY`], or as many as there are processors,
/// each in a thread of its own. Returns the results in the same order.
pub(crate) fn in_parts<T: Sync, R: Send>(things: &[T], work: impl Fn(&[T]) -> R + Sync) -> Vec<R> {
    if things.len() < MANY {
        return vec![work(things)];
    }
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut parts = things.chunks(things.len().div_ceil(processors));
    // This thread has a part too.
    let first = parts.next().unwrap_or_default();
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
        let first = work(first);
        let others = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        [first].into_iter().chain(others).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thing_is_in_one_part_and_the_order_stays() {
        for count in [0, 1, MANY - 1, MANY, MANY + 1, 10 * MANY + 7] {
            let things: Vec<usize> = (0..count).collect();
            let parts = in_parts(&things, <[usize]>::to_vec);
            assert_eq!(parts.concat(), things, "{count}");
            assert!(count >= MANY || parts.len() == 1, "{count}");
        }
    }

    #[test]
    #[should_panic(expected = "the last one")]
    fn a_panic_of_a_part_is_that_of_the_caller() {
        let things: Vec<usize> = (0..MANY * 4).collect();
        in_parts(&things, |part| assert!(!part.contains(&(MANY * 4 - 1)), "the last one"));
    }
}
