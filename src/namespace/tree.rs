//! Which namespaces there are, each with its mounts, and what a request's path addresses among them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::model::{Mount, Namespace};

/// The mounts of a namespace by path, each ending in `/`.
pub(super) type MountTable = BTreeMap<String, Arc<Mount>>;

/// Tables that the namespaces are spread over: a change copies one of them, so that ten thousand changes of ten thousand
/// namespaces cost little.
const SHARDS: usize = 128;
/// What the API's own paths begin with in every namespace, none of which is called so.
const OF_THE_API: [&str; 2] = ["sys/", "auth/"];

/// Every namespace that is served. The root always is, and with a namespace all those it lies in. Cheap to clone, and to
/// change then.
#[derive(Clone)]
pub(super) struct Tree {
    shards: Vec<Arc<Shard>>,
    spread: RandomState,
    count: usize,
    locked: Arc<BTreeSet<Namespace>>,
}

type Shard = HashMap<Namespace, Space, RandomState>;

/// One namespace. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Space {
    pub(super) mounts: Arc<MountTable>,
    pub(super) about: Arc<About>,
}

/// What is known of a namespace beside what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct About {
    /// Short and unique. Empty until the store was read.
    pub(super) id: String,
    /// The operator's notes.
    pub(super) custom_metadata: BTreeMap<String, String>,
    /// Whether a stanza makes it, or one below it.
    pub(super) configured: bool,
}

impl Tree {
    /// The root, these, and those they lie in; without mounts yet.
    pub(super) fn of(configured: &[Namespace]) -> Tree {
        let shards = (0..SHARDS).map(|_| Arc::default()).collect();
        let mut tree = Tree { shards, spread: RandomState::default(), count: 0, locked: Arc::default() };
        let above = configured.iter().flat_map(Namespace::ancestors);
        let about = About { configured: true, ..About::default() };
        for namespace in std::iter::once(Namespace::root()).chain(above).chain(configured.iter().cloned()) {
            tree.describe(&namespace, about.clone());
        }
        tree
    }

    /// Every namespace, sorted by its path: those above come before those below.
    pub(super) fn all(&self) -> Vec<Namespace> {
        let mut all: Vec<Namespace> = self.keys().cloned().collect();
        all.sort_unstable();
        all
    }

    /// Every namespace, in no order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Namespace> {
        self.shards.iter().flat_map(|shard| shard.keys())
    }

    /// Namespaces, the root among them.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The namespace of this path, if there is one.
    pub(super) fn get(&self, path: &str) -> Option<(&Namespace, &Space)> {
        self.shards.get(self.place(path))?.get_key_value(path)
    }

    /// The mounts of a namespace; `None` if there is no such namespace.
    pub(super) fn mounts(&self, namespace: &Namespace) -> Option<&Arc<MountTable>> {
        self.get(namespace.as_str()).map(|(_, space)| &space.mounts)
    }

    /// How many mounts there are in all namespaces of a namespace's tenant. Looks at every namespace.
    pub(super) fn mounts_of_tenant(&self, namespace: &Namespace) -> usize {
        let tenant = namespace.tenant();
        let is_within = |known: &Namespace| *known == tenant || (!tenant.is_root() && known.is_below(&tenant));
        let spaces = self.shards.iter().flat_map(|shard| shard.iter());
        spaces.filter(|(known, _)| is_within(known)).map(|(_, space)| space.mounts.len()).sum()
    }

    /// What is known of a namespace.
    pub(super) fn about(&self, namespace: &Namespace) -> Option<&Arc<About>> {
        self.get(namespace.as_str()).map(|(_, space)| &space.about)
    }

    /// Gives a namespace that exists other mounts.
    pub(super) fn replace(&mut self, namespace: &Namespace, mounts: MountTable) {
        if let Some(space) = self.shard(namespace.as_str()).and_then(|shard| shard.get_mut(namespace)) {
            space.mounts = Arc::new(mounts);
        }
    }

    /// Says what is known of a namespace; makes it, if there is none.
    pub(super) fn describe(&mut self, namespace: &Namespace, about: About) {
        let Some(shard) = self.shard(namespace.as_str()) else { return };
        let before = shard.len();
        shard.entry(namespace.clone()).or_default().about = Arc::new(about);
        self.count += usize::from(shard.len() > before);
    }

    /// Takes a namespace out.
    pub(super) fn remove(&mut self, namespace: &Namespace) {
        let gone = self.shard(namespace.as_str()).and_then(|shard| shard.remove(namespace));
        self.count -= usize::from(gone.is_some());
        self.unlock(namespace);
    }

    /// Whether this one is locked itself.
    pub(super) fn is_locked(&self, namespace: &Namespace) -> bool {
        self.locked.contains(namespace)
    }

    /// The highest one that is locked among a namespace and those it lies in.
    pub(super) fn lock_over(&self, namespace: &Namespace) -> Option<&Namespace> {
        if self.locked.is_empty() {
            return None;
        }
        let path = namespace.as_str();
        path.match_indices('/').find_map(|(slash, _)| self.locked.get(path.get(..=slash)?))
    }

    /// Locks one.
    pub(super) fn lock(&mut self, namespace: &Namespace) {
        Arc::make_mut(&mut self.locked).insert(namespace.clone());
    }

    /// Unlocks one.
    pub(super) fn unlock(&mut self, namespace: &Namespace) {
        Arc::make_mut(&mut self.locked).remove(namespace);
    }

    fn shard(&mut self, path: &str) -> Option<&mut Shard> {
        let place = self.place(path);
        self.shards.get_mut(place).map(Arc::make_mut)
    }

    #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
    fn place(&self, path: &str) -> usize {
        self.spread.hash_one(path) as usize % SHARDS
    }

    /// Splits `path`, which is asked below the namespace `below`, into the deepest namespace it begins with and the rest.
    /// Compares whole parts, byte by byte: nothing is decoded, folded or resolved here.
    ///
    /// What leads to the API's own paths through a namespace that does not exist is of that namespace, as it would be if the
    /// header named it: else `team-a/sys/health` would tell anyone that `team-a` exists.
    pub(super) fn locate<'p>(&self, below: &Namespace, path: &'p str) -> (Namespace, &'p str) {
        if !path.contains('/') {
            return (below.clone(), path);
        }
        let (found, rest) = self.deepest(below, path);
        self.of_none(&found, rest).unwrap_or((found, rest))
    }

    fn deepest<'p>(&self, below: &Namespace, path: &'p str) -> (Namespace, &'p str) {
        let (mut found, mut rest) = (below.clone(), path);
        if self.count == 1 {
            return (found, rest);
        }
        let mut name = below.as_str().to_owned();
        // All namespaces above one that exists do exist, so the first part that leads to none ends the search.
        while let Some((part, tail)) = rest.split_once('/') {
            name.push_str(part);
            name.push('/');
            let Some((deeper, _)) = self.get(&name) else { break };
            (found, rest) = (deeper.clone(), tail);
        }
        (found, rest)
    }

    /// The namespace that does not exist, and the rest, of a path below `above` that leads through neither a namespace nor a
    /// mount to a part that no namespace may be called.
    fn of_none<'p>(&self, above: &Namespace, path: &'p str) -> Option<(Namespace, &'p str)> {
        let is_api = |rest: &str| OF_THE_API.iter().any(|name| rest.starts_with(name));
        let mut starts = path.match_indices('/').map(|(slash, _)| path.split_at(slash + 1));
        let (through, rest) = starts.find(|(_, rest)| is_api(rest))?;
        let is_mount = || self.mounts(above).is_some_and(|mounts| mounts.keys().any(|mount| path.starts_with(mount)));
        if is_api(path) || through.contains("//") || is_mount() {
            return None;
        }
        Some((above.child(through), rest))
    }

    /// The namespace below `namespace` whose paths begin as this mount's path does: requests for the mount would go there.
    pub(super) fn namespace_at(&self, namespace: &Namespace, mount: &str) -> Option<Namespace> {
        let first = mount.split('/').next().unwrap_or_default();
        let child = format!("{}{first}/", namespace.as_str());
        self.get(&child).map(|(child, _)| child.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(below: &str, path: &str) -> (String, String) {
        let configured = ["team-a", "team-a/ci/x", "team-b"].map(Namespace::from_path);
        let (namespace, rest) = Tree::of(&configured).locate(&Namespace::from_path(below), path);
        (namespace.as_str().to_owned(), rest.to_owned())
    }

    fn is(namespace: &str, rest: &str) -> (String, String) {
        (namespace.to_owned(), rest.to_owned())
    }

    #[test]
    fn those_above_a_namespace_exist_with_it() {
        let tree = Tree::of(&["a/b/c", "d"].map(Namespace::from_path));
        let all: Vec<String> = tree.all().iter().map(|namespace| namespace.as_str().to_owned()).collect();
        assert_eq!(all, ["", "a/", "a/b/", "a/b/c/", "d/"]);
    }

    #[test]
    fn header_and_prefix_mix_and_the_longest_prefix_wins() {
        for (below, path, namespace, rest) in [
            ("", "transit/sign/k", "", "transit/sign/k"),
            ("", "team-a/transit/sign/k", "team-a/", "transit/sign/k"),
            ("", "team-a/ci/transit/sign/k", "team-a/ci/", "transit/sign/k"),
            ("", "team-a/ci/x/sys/mounts", "team-a/ci/x/", "sys/mounts"),
            ("team-a", "ci/transit/sign/k", "team-a/ci/", "transit/sign/k"),
            ("team-a/ci", "x/transit/sign/k", "team-a/ci/x/", "transit/sign/k"),
            ("team-a", "transit/sign/k", "team-a/", "transit/sign/k"),
        ] {
            assert_eq!(located(below, path), is(namespace, rest), "{below} + {path}");
        }
    }

    #[test]
    fn a_path_leads_down_and_never_up_or_aside() {
        for (below, path) in [
            ("team-a", "team-b/transit"),
            ("team-a", "team-a/transit"),
            ("team-a", "../team-b/transit"),
            ("team-a", "./ci/transit"),
            ("team-a", "/team-b/transit"),
            ("team-a", "//ci/transit"),
            ("team-a", "root/transit"),
            ("team-a", "CI/transit"),
            ("team-a", "c/i/transit"),
            ("team-a", "ci%2Ftransit"),
            ("team-a", "ci"),
            ("", "Team-A/transit"),
            ("", "team-a"),
            ("", "team-/transit"),
            ("", "team-ab/transit"),
            ("", " team-a/transit"),
            ("", "/team-a/transit"),
            ("", ""),
            ("", "/"),
        ] {
            let there = Namespace::from_path(below);
            assert_eq!(located(below, path), is(there.as_str(), path), "{below} + {path}");
        }
        // What is a path of the API's is of the namespace that its beginning names, be it there or not.
        for (below, path, namespace, rest) in [
            ("", "nobody/sys/health", "nobody/", "sys/health"),
            ("", "team-a/nobody/deep/auth/token/create", "team-a/nobody/deep/", "auth/token/create"),
            ("team-a", "team-b/sys/mounts/sys/tune", "team-a/team-b/", "sys/mounts/sys/tune"),
            ("", "sys/mounts/a/sys/b", "", "sys/mounts/a/sys/b"),
            ("", "nobody/system/health", "", "nobody/system/health"),
            ("", "nobody/sys", "", "nobody/sys"),
            ("", "no//body/sys/health", "", "no//body/sys/health"),
        ] {
            assert_eq!(located(below, path), is(namespace, rest), "{below} + {path}");
        }
        // A namespace that is not there has none below it.
        assert_eq!(located("team-c", "team-a/transit"), is("team-c/", "team-a/transit"));
        assert_eq!(located("team-a/c", "i/transit"), is("team-a/c/", "i/transit"));
    }

    #[test]
    fn where_a_namespace_is_no_mount_can_be() {
        let tree = Tree::of(&["a/b/c"].map(Namespace::from_path));
        let at = |namespace: &str, mount: &str| tree.namespace_at(&Namespace::from_path(namespace), mount);
        for (namespace, mount, taken) in
            [("", "a/", "a/"), ("", "a/pki/", "a/"), ("a", "b/", "a/b/"), ("a", "b/c/d/", "a/b/")]
        {
            assert_eq!(at(namespace, mount), Some(Namespace::from_path(taken)), "{namespace} {mount}");
        }
        for (namespace, mount) in [("", "ab/"), ("", "b/"), ("a", "a/"), ("a/b/c", "c/"), ("d", "a/")] {
            assert_eq!(at(namespace, mount), None, "{namespace} {mount}");
        }
    }
}
