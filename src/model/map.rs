//! Maps with a maximum length, sorted by their keys, and without duplicate keys.

use std::borrow::Borrow;
use std::fmt::Display;
use std::slice;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Invalid;

/// At most `MAX` entries, sorted by their keys. A duplicate key is an error; the last value does not win.
///
/// It is a sorted list, which needs half the memory of a tree. That matters to an agent whose branch has thirty thousand
/// documents.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Map<K: Ord, V, const MAX: usize>(Vec<(K, V)>);

impl<K: Ord, V, const MAX: usize> Default for Map<K, V, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord + Display, V, const MAX: usize> Map<K, V, MAX> {
    /// The value of `key`.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let at = self.0.binary_search_by(|(there, _)| there.borrow().cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// All entries, in the order of their keys.
    pub fn iter(&self) -> Entries<'_, K, V> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same keys with other values.
    pub fn map<W>(self, value: impl Fn(V) -> W) -> Map<K, W, MAX> {
        Map(self.0.into_iter().map(|(key, found)| (key, value(found))).collect())
    }

    /// Itself with more entries. A duplicate key or one entry too many is an error.
    pub fn with(self, mut more: Vec<(K, V)>) -> Result<Self, Invalid> {
        more.extend(self.0);
        more.try_into()
    }

    /// Adds an entry. A duplicate key or one entry too many is an error. Use `TryFrom` to add many entries at once.
    pub fn insert(&mut self, key: K, value: V) -> Result<(), Invalid> {
        if self.0.len() == MAX {
            return Err(too_many::<MAX>(&key));
        }
        match self.0.binary_search_by(|(there, _)| there.cmp(&key)) {
            Ok(_) => Err(duplicate(&key)),
            Err(place) => {
                self.0.insert(place, (key, value));
                Ok(())
            }
        }
    }
}

impl<K: Ord + Display, V, const MAX: usize> TryFrom<Vec<(K, V)>> for Map<K, V, MAX> {
    type Error = Invalid;

    /// Sorts the entries. A duplicate key or one entry too many is an error.
    fn try_from(mut entries: Vec<(K, V)>) -> Result<Self, Invalid> {
        if let Some((key, _)) = entries.get(MAX) {
            return Err(too_many::<MAX>(key));
        }
        // The entries on a branch are sorted already, and then one comparison for each is enough.
        if !entries.is_sorted_by(|(before, _), (after, _)| before < after) {
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            if let Some(pair) = entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                return Err(duplicate(&pair[0].0));
            }
        }
        Ok(Self(entries))
    }
}

fn too_many<const MAX: usize>(key: &impl Display) -> Invalid {
    Invalid::new("a key that can be added", &key.to_string(), format!("at most {MAX} entries are allowed"))
}

fn duplicate(key: &impl Display) -> Invalid {
    Invalid::new("a key that can be added", &key.to_string(), "it is there already")
}

/// The entries of a [`Map`].
type Entries<'a, K, V> = std::iter::Map<slice::Iter<'a, (K, V)>, fn(&(K, V)) -> (&K, &V)>;

impl<'a, K: Ord + Display, V, const MAX: usize> IntoIterator for &'a Map<K, V, MAX> {
    type Item = (&'a K, &'a V);
    type IntoIter = Entries<'a, K, V>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: Ord + Serialize, V: Serialize, const MAX: usize> Serialize for Map<K, V, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de, K: Ord + Display + Deserialize<'de>, V: Deserialize<'de>, const MAX: usize> Deserialize<'de>
    for Map<K, V, MAX>
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<K, V, const MAX: usize>(std::marker::PhantomData<(K, V)>);
        impl<'de, K: Ord + Display + Deserialize<'de>, V: Deserialize<'de>, const MAX: usize> Visitor<'de>
            for Reader<K, V, MAX>
        {
            type Value = Map<K, V, MAX>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "a map of at most {MAX} entries")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = entries.next_entry::<K, V>()? {
                    if all.len() == MAX {
                        return Err(A::Error::custom(too_many::<MAX>(&entry.0)));
                    }
                    all.push(entry);
                }
                all.try_into().map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_map(Reader(std::marker::PhantomData))
    }
}

impl<K: Ord + schemars::JsonSchema, V: schemars::JsonSchema, const MAX: usize> schemars::JsonSchema for Map<K, V, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("MapOf{}", V::schema_name()).into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "object",
            "maxProperties": MAX,
            "propertyNames": generator.subschema_for::<K>(),
            "additionalProperties": generator.subschema_for::<V>(),
        })
    }
}
