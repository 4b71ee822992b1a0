//! How many of something there are, for bounds that hold for a tenant as a whole.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::fast::RandomState;

use super::Namespace;

/// Counts by namespace, and their sums by [`Namespace::tenant`]. Each look and each change costs the same however many there
/// are.
///
/// One limit holds for every namespace with all that lie in it. So of those that a namespace lies in, the highest below the
/// root is reached first, and no other need be looked at. The root is the operator's: its own alone are counted for it.
#[derive(Debug, Default)]
pub struct Tally {
    namespaces: HashMap<Namespace, usize, RandomState>,
    tenants: HashMap<Namespace, usize, RandomState>,
}

impl Tally {
    /// How many there are in all that is this namespace's tenant's.
    pub fn of_tenant(&self, namespace: &Namespace) -> usize {
        self.tenants.get(&namespace.tenant()).copied().unwrap_or_default()
    }

    /// How many there are in the namespace itself.
    pub fn of(&self, namespace: &Namespace) -> usize {
        self.namespaces.get(namespace).copied().unwrap_or_default()
    }

    /// There are so many in the namespace now.
    pub fn set(&mut self, namespace: &Namespace, count: usize) {
        let before = put(&mut self.namespaces, namespace.clone(), |_| count);
        put(&mut self.tenants, namespace.tenant(), |all| all.saturating_sub(before).saturating_add(count));
    }

    /// There are so many more.
    pub fn add(&mut self, namespace: &Namespace, more: usize) {
        self.set(namespace, self.of(namespace).saturating_add(more));
    }

    /// There are so many fewer.
    pub fn take(&mut self, namespace: &Namespace, fewer: usize) {
        self.set(namespace, self.of(namespace).saturating_sub(fewer));
    }
}

/// Changes a count, and answers what it was. What comes to nothing is not kept.
fn put(
    counts: &mut HashMap<Namespace, usize, RandomState>,
    of: Namespace,
    change: impl FnOnce(usize) -> usize,
) -> usize {
    let before = counts.get(&of).copied().unwrap_or_default();
    match (change(before), counts.entry(of)) {
        (0, Entry::Occupied(count)) => drop(count.remove()),
        (0, Entry::Vacant(_)) => {}
        (now, entry) => drop(entry.insert_entry(now)),
    }
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_count_is_that_of_all_its_namespaces() {
        let [root, a, below, other] = ["", "a", "a/b/c", "ab"].map(Namespace::from_path);
        let mut tally = Tally::default();
        tally.set(&root, 7);
        tally.add(&a, 2);
        tally.add(&below, 3);
        tally.add(&other, 1);
        let all = |tally: &Tally| [&root, &a, &below, &other].map(|namespace| tally.of_tenant(namespace));
        assert_eq!(all(&tally), [7, 5, 5, 1]);
        tally.take(&below, 2);
        assert_eq!((all(&tally), tally.of(&below)), ([7, 3, 3, 1], 1));
        tally.set(&below, 0);
        tally.take(&a, 9);
        assert_eq!(all(&tally), [7, 0, 0, 1]);
        assert_eq!((tally.namespaces.len(), tally.tenants.len()), (2, 2), "nothing is kept of who has none");
    }
}
