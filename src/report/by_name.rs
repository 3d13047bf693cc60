//! JSON objects with a value for each name of a closed set.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::model::Named;

/// An object whose keys are a closed set of names, in their declared order.
#[derive(Clone, PartialEq, Debug)]
pub struct ByName<T>(Vec<(String, T)>);

impl<T> ByName<T> {
    pub(super) fn new(pairs: impl Iterator<Item = (impl Into<String>, T)>) -> ByName<T> {
        ByName(pairs.map(|(name, value)| (name.into(), value)).collect())
    }

    /// The value of each name of a closed set.
    pub(super) fn each<E: Named>(value: impl Fn(E) -> T) -> ByName<T> {
        ByName::new(E::VALUES.iter().map(|name| (name.name(), value(*name))))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&T> {
        self.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
    }
}

impl<T: Serialize> Serialize for ByName<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
