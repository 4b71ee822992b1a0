//! A table that is cheap to clone, and to change then: it is spread over many small ones, of which a change copies one.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::RandomState;

/// The small tables. With a hundred thousand entries each has about a hundred.
const SHARDS: usize = 1024;

/// A map.
///
/// Published as a snapshot, it is changed by copying it, changing the copy and publishing that.
#[derive(Clone)]
pub struct Shards<K, V> {
    shards: Vec<Arc<HashMap<K, V, RandomState>>>,
    spread: RandomState,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Shards<K, V> {
        Shards { shards: (0..SHARDS).map(|_| Arc::default()).collect(), spread: RandomState::default() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    /// The value of a key.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards.get(self.place(key))?.get(key)
    }

    /// Puts a value in the place of that of its key, and answers that one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let place = self.place(&key);
        self.shards.get_mut(place).and_then(|shard| Arc::make_mut(shard).insert(key, value))
    }

    /// Takes the value of a key out.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let place = self.place(key);
        Arc::make_mut(self.shards.get_mut(place)?).remove(key)
    }

    /// The value of a key, to be changed; made if there is none.
    pub fn entry(&mut self, key: &K) -> Option<&mut V>
    where
        V: Default,
    {
        let place = self.place(key);
        Some(Arc::make_mut(self.shards.get_mut(place)?).entry(key.clone()).or_default())
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// The values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
    fn place<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        self.spread.hash_one(key) as usize % SHARDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_not_changed_with_what_it_is_a_copy_of() {
        let mut shards: Shards<String, usize> = Shards::default();
        (0..5000).for_each(|number| assert_eq!(shards.insert(number.to_string(), number), None));
        let before = shards.clone();
        *shards.entry(&"7".to_owned()).unwrap() += 1;
        assert_eq!((shards.remove("8"), shards.remove("x")), (Some(8), None));
        shards.insert("new".to_owned(), 1);
        assert_eq!((shards.get("7"), shards.get("8"), shards.get("new")), (Some(&8), None, Some(&1)));
        assert_eq!((before.get("7"), before.get("8"), before.get("new")), (Some(&7), Some(&8), None));
        assert_eq!(before.values().sum::<usize>(), 5000 * 4999 / 2);
        // A change copies little.
        let copied = shards.shards.iter().zip(&before.shards).filter(|(one, other)| !Arc::ptr_eq(one, other)).count();
        assert!((1..=4).contains(&copied), "{copied}");
    }
}
