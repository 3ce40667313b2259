//! Maps that have a most, an order, and no key twice.

use std::borrow::Borrow;
use std::collections::{BTreeMap, btree_map};
use std::fmt::Display;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::Invalid;

/// At most `MOST` entries in the order of their keys; a key twice is an error, not the last one's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Map<K: Ord, V, const MOST: usize>(BTreeMap<K, V>);

impl<K: Ord, V, const MOST: usize> Default for Map<K, V, MOST> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Display, V, const MOST: usize> Map<K, V, MOST> {
    /// What stands under `key`.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(key)
    }

    /// All entries, in the order of their keys.
    pub fn iter(&self) -> btree_map::Iter<'_, K, V> {
        self.0.iter()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds an entry; one that is there already, or one too many, is an error.
    pub fn insert(&mut self, key: K, value: V) -> Result<(), Invalid> {
        if self.0.len() == MOST {
            return Err(too_many::<MOST>(&key));
        }
        match self.0.entry(key) {
            btree_map::Entry::Vacant(place) => {
                place.insert(value);
                Ok(())
            }
            btree_map::Entry::Occupied(there) => Err(there_already(there.key())),
        }
    }
}

fn too_many<const MOST: usize>(key: &impl Display) -> Invalid {
    Invalid::new("a key that can be added", &key.to_string(), format!("at most {MOST} entries are allowed"))
}

fn there_already(key: &impl Display) -> Invalid {
    Invalid::new("a key that can be added", &key.to_string(), "it is there already")
}

impl<'a, K: Ord, V, const MOST: usize> IntoIterator for &'a Map<K, V, MOST> {
    type Item = (&'a K, &'a V);
    type IntoIter = btree_map::Iter<'a, K, V>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'de, K: Ord + Display + Deserialize<'de>, V: Deserialize<'de>, const MOST: usize> Deserialize<'de>
    for Map<K, V, MOST>
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<K, V, const MOST: usize>(std::marker::PhantomData<(K, V)>);
        impl<'de, K: Ord + Display + Deserialize<'de>, V: Deserialize<'de>, const MOST: usize> Visitor<'de>
            for Entries<K, V, MOST>
        {
            type Value = Map<K, V, MOST>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "a map of at most {MOST} entries")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = entries.next_entry::<K, V>()? {
                    if all.len() == MOST {
                        return Err(A::Error::custom(too_many::<MOST>(&entry.0)));
                    }
                    all.push(entry);
                }
                // What is in order already, as it is on a branch, costs a look at each; a tree that is made of all at once
                // is half the size of one that grew.
                all.sort_by(|a, b| a.0.cmp(&b.0));
                match all.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                    Some(pair) => Err(A::Error::custom(there_already(&pair[0].0))),
                    None => Ok(Map(all.into_iter().collect())),
                }
            }
        }
        deserializer.deserialize_map(Entries(std::marker::PhantomData))
    }
}

impl<K: Ord + schemars::JsonSchema, V: schemars::JsonSchema, const MOST: usize> schemars::JsonSchema
    for Map<K, V, MOST>
{
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("MapOf{}", V::schema_name()).into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "object",
            "maxProperties": MOST,
            "propertyNames": generator.subschema_for::<K>(),
            "additionalProperties": generator.subschema_for::<V>(),
        })
    }
}
