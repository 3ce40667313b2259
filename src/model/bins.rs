//! The bins of the index: which bin a name belongs to, and how many bins there are (The Update Framework, section 5.6.7, calls
//! this hashed bins).

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Invalid, Map, Name, Sha256Digest};

/// The most bins of an index.
const MAX_BINS: usize = 1 << (4 * MAX_DIGITS);
/// The digits of the names of that many bins.
const MAX_DIGITS: u8 = 3;
/// The most entries that a bin has on average. With more, a publication that changes one document writes too much.
const MAX_AVERAGE_ENTRIES: usize = 1500;

/// How many bins an index has: 1, 16, 256 or 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BinCount {
    digits: u8,
}

/// A bin: the first digits of the hashes of its names. Its text is these hexadecimal digits, or `all` where there is one bin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BinId {
    count: BinCount,
    number: u16,
}

impl BinCount {
    /// One bin.
    pub const ONE: Self = Self { digits: 0 };

    /// Every count, the lowest first.
    pub fn every() -> impl Iterator<Item = Self> {
        (0..=MAX_DIGITS).map(|digits| Self { digits })
    }

    /// The number.
    pub fn get(self) -> usize {
        1 << (4 * self.digits)
    }

    /// The count for an index with so many entries, which has had `self` bins until now. It grows as soon as it has to, and shrinks
    /// only when the lower count is far from its limit: a fleet at the limit is not moved back and forth.
    #[must_use]
    pub fn for_entries(self, entries: usize) -> Self {
        let holds = |count: Self, on_average: usize| entries <= count.get() * on_average;
        let lower = Self::every().find(|count| *count < self && holds(*count, MAX_AVERAGE_ENTRIES / 4));
        let enough = || Self::every().find(|count| *count >= self && holds(*count, MAX_AVERAGE_ENTRIES));
        lower.or_else(enough).unwrap_or(Self { digits: MAX_DIGITS })
    }

    /// The next higher count.
    pub fn next(self) -> Option<Self> {
        Self::every().find(|count| *count > self)
    }

    /// The bin of a name: the first digits of the SHA-256 of the name in lower case, so that two names that differ in case alone
    /// meet in one bin.
    pub fn bin_of(self, name: &Name) -> BinId {
        let digest = Sha256Digest::of(name.folded());
        let [first, second, ..] = *digest.bytes();
        let number = u16::from_be_bytes([first, second]).checked_shr(16 - 4 * u32::from(self.digits)).unwrap_or(0);
        BinId { count: self, number }
    }

    /// All bins, in their order.
    pub fn bins(self) -> impl Iterator<Item = BinId> {
        (0..=u16::MAX).take(self.get()).map(move |number| BinId { count: self, number })
    }
}

impl BinId {
    /// How many bins there are.
    pub fn count(self) -> BinCount {
        self.count
    }
}

impl fmt::Display for BinId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            BinCount::ONE => f.pad("all"),
            BinCount { digits } => write!(f, "{:0width$x}", self.number, width = digits.into()),
        }
    }
}

impl FromStr for BinId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = || Invalid::new("a bin", text, "it has to be `all`, or one to three lower-case hexadecimal digits");
        if text == "all" {
            return Ok(Self { count: BinCount::ONE, number: 0 });
        }
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let digits =
            u8::try_from(text.len()).ok().filter(|digits| (1..=MAX_DIGITS).contains(digits)).ok_or_else(bad)?;
        let number = Some(text).filter(|text| text.bytes().all(is_digit)).ok_or_else(bad)?;
        let number = u16::from_str_radix(number, 16).map_err(|_| bad())?;
        Ok(Self { count: BinCount { digits }, number })
    }
}

super::text::as_text!(BinId, pattern: "^(all|[0-9a-f]{1,3})$", about: "A bin of the index");

/// The digest and the length of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct FileDigest {
    /// Its length in bytes.
    #[serde(deserialize_with = "super::number::integer")]
    pub length: u64,
    /// Its SHA-256.
    pub sha256: Sha256Digest,
}

impl FileDigest {
    /// That of a file with these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { length: bytes.len() as u64, sha256: Sha256Digest::of(bytes) }
    }
}

/// The digest of every bin. In JSON it is an object with an entry for each bin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinDigests {
    count: BinCount,
    digests: Vec<FileDigest>,
}

impl BinDigests {
    /// The digests of all bins of `count`, in their order.
    pub fn of(count: BinCount, digest: impl FnMut(BinId) -> FileDigest) -> Self {
        Self { count, digests: count.bins().map(digest).collect() }
    }

    /// How many bins there are.
    pub fn count(&self) -> BinCount {
        self.count
    }

    /// The digest of a bin; none for a bin of another count.
    pub fn get(&self, bin: BinId) -> Option<&FileDigest> {
        Some(bin).filter(|bin| bin.count == self.count).and_then(|bin| self.digests.get(usize::from(bin.number)))
    }
}

impl Serialize for BinDigests {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.count.bins().zip(&self.digests))
    }
}

impl<'de> Deserialize<'de> for BinDigests {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all = Map::<BinId, FileDigest, MAX_BINS>::deserialize(deserializer)?;
        let Some(count) = all.iter().next().map(|(bin, _)| bin.count) else {
            return Err(D::Error::custom("an index has at least one bin"));
        };
        // The order of the numbers is that of the texts, because all of them have as many digits.
        if all.len() != count.get() || !all.iter().map(|(bin, _)| *bin).eq(count.bins()) {
            return Err(D::Error::custom("an index has 1, 16, 256 or 4096 bins, and it has to name each of them"));
        }
        Ok(Self { count, digests: all.iter().map(|(_, digest)| *digest).collect() })
    }
}

impl JsonSchema for BinDigests {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "BinDigests".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Map::<BinId, FileDigest, MAX_BINS>::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts() -> Vec<BinCount> {
        BinCount::every().collect()
    }

    fn digests(count: BinCount) -> BinDigests {
        BinDigests::of(count, |bin| FileDigest::of(bin.to_string().as_bytes()))
    }

    #[test]
    fn a_bin_has_one_text() {
        let texts: Vec<String> = counts().iter().map(|c| c.bins().last().unwrap().to_string()).collect();
        assert_eq!(texts, ["all", "f", "ff", "fff"]);
        assert_eq!(counts()[2].bins().nth(10).unwrap().to_string(), "0a");
        for count in counts() {
            assert_eq!(count.bins().count(), count.get());
            assert!(count.bins().all(|bin| bin.to_string().parse() == Ok(bin)));
        }
        for bad in ["", "A", "0x1", "+1", "0000", "g", "ALL", " 1"] {
            assert!(bad.parse::<BinId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_is_in_the_bin_of_its_hash_whatever_its_case() {
        // `printf web-1 | sha256sum` begins with c47.
        let bins =
            |name: &str| counts().iter().map(|c| c.bin_of(&name.parse().unwrap()).to_string()).collect::<Vec<_>>();
        assert_eq!(bins("web-1"), ["all", "c", "c4", "c47"]);
        assert_eq!(bins("WEB-1"), bins("web-1"));
    }

    #[test]
    fn the_count_grows_with_the_entries_and_shrinks_late() {
        let one = BinCount::ONE;
        let of = |from: BinCount, entries| from.for_entries(entries).get();
        assert_eq!(
            [0, 1500, 1501, 24_000, 24_001, 384_001, 10_000_000].map(|n| of(one, n)),
            [1, 1, 16, 16, 256, 4096, 4096]
        );
        let many = one.for_entries(24_001);
        assert_eq!([24_001, 6_001, 6_000, 376, 375].map(|n| of(many, n)), [256, 256, 16, 16, 1]);
    }

    #[test]
    fn every_bin_has_to_be_named_once() {
        for count in counts() {
            let json = serde_json::to_string(&digests(count)).unwrap();
            assert_eq!(serde_json::from_str::<BinDigests>(&json).unwrap(), digests(count));
        }
        let with = |change: fn(&mut serde_json::Map<String, serde_json::Value>)| {
            let mut json = serde_json::to_value(digests(counts()[1])).unwrap();
            change(json.as_object_mut().unwrap());
            serde_json::from_value::<BinDigests>(json)
        };
        assert!(with(|_| {}).is_ok());
        assert!(with(serde_json::Map::clear).is_err());
        assert!(with(|all| drop(all.remove("3"))).is_err());
        assert!(with(|all| drop(all.insert("00".to_owned(), all["0"].clone()))).is_err());
        assert!(with(|all| drop(all.insert("all".to_owned(), all["0"].clone()))).is_err());
    }

    #[test]
    fn a_bin_of_another_count_has_no_digest() {
        let [one, sixteen] = [counts()[0], counts()[1]].map(digests);
        let (all, zero) = ("all".parse().unwrap(), "0".parse().unwrap());
        assert!(one.get(all).is_some() && sixteen.get(zero).is_some());
        assert!(one.get(zero).is_none() && sixteen.get(all).is_none());
    }

    proptest! {
        #[test]
        fn the_bin_of_a_higher_count_begins_with_that_of_a_lower_one(name in "[A-Za-z0-9_@][A-Za-z0-9._@-]{0,20}") {
            let name: Name = name.parse().unwrap();
            let texts: Vec<String> = counts()[1..].iter().map(|count| count.bin_of(&name).to_string()).collect();
            prop_assert!(texts.windows(2).all(|pair| pair[1].starts_with(&pair[0])), "{:?}", texts);
        }
    }
}
