//! The rules of several policies, compiled to be judged by.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::parse::Policy;
use super::pattern::Pattern;
use super::permissions::Permissions;

/// What the policies of a token say, as tables.
///
/// An exact path is looked up. The rules with wildcards stand by their heads (what comes before the first wildcard), sorted;
/// each head knows the longest other one it begins with. The heads that a path begins with are found by one search: the last
/// head that is not after the path begins with all of them.
#[derive(Debug, Default)]
pub struct Acl {
    exact: HashMap<Box<str>, Arc<Permissions>, RandomState>,
    heads: Vec<Head>,
    rules: usize,
    /// What rules without `+` that grant something begin with, or all of it: whether one lies below a mount is one look.
    granting: BTreeSet<Box<str>>,
    /// Rules with `+` that grant something.
    with_parts: Vec<Pattern>,
    /// Rules with `+`.
    parts: usize,
}

#[derive(Debug)]
struct Head {
    text: Box<str>,
    /// The index of the longest head it begins with.
    above: Option<usize>,
    /// The first that fits counts.
    rules: Vec<(Pattern, Arc<Permissions>)>,
}

impl Acl {
    /// Compiles policies. Where several have a rule of one path, these are one.
    pub fn new<'p>(policies: impl IntoIterator<Item = &'p Policy>) -> Acl {
        let mut merged: BTreeMap<String, (&Pattern, Arc<Permissions>)> = BTreeMap::new();
        for rule in policies.into_iter().flat_map(Policy::rules) {
            match merged.get_mut(&rule.pattern.written()) {
                Some((_, known)) => Arc::make_mut(known).merge(&rule.permissions),
                None => drop(merged.insert(rule.pattern.written(), (&rule.pattern, Arc::clone(&rule.permissions)))),
            }
        }
        let rules = merged.len();
        let mut granting = BTreeSet::new();
        let mut with_parts = Vec::new();
        for (pattern, _) in merged.values().filter(|(_, known)| known.capabilities.is_something()) {
            match pattern.has_parts() {
                true => with_parts.push((*pattern).clone()),
                false => drop(granting.insert(pattern.head().into())),
            }
        }
        let parts = merged.values().filter(|(pattern, _)| pattern.has_parts()).count();
        let mut exact = HashMap::default();
        let mut by_head: BTreeMap<&str, Vec<(Pattern, Arc<Permissions>)>> = BTreeMap::new();
        for (pattern, permissions) in merged.into_values() {
            match pattern.exact() {
                Some(path) => drop(exact.insert(path.into(), permissions)),
                None => by_head.entry(pattern.head()).or_default().push((pattern.clone(), permissions)),
            }
        }
        let mut heads: Vec<Head> = Vec::with_capacity(by_head.len());
        for (text, mut rules) in by_head {
            rules.sort_by(|(one, _), (other, _)| other.rank().cmp(&one.rank()));
            // Sorted: what this one begins with is the last one, or what the last one begins with.
            let mut above = heads.len().checked_sub(1);
            while let Some(head) =
                above.and_then(|index| heads.get(index)).filter(|head| !text.starts_with(&*head.text))
            {
                above = head.above;
            }
            heads.push(Head { text: text.into(), above, rules });
        }
        Acl { exact, heads, rules, granting, with_parts, parts }
    }

    /// How many rules it has.
    pub fn rules(&self) -> usize {
        self.rules
    }

    /// How many of them have a `+`.
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// What is granted at a path: by the one rule that fits it best. `is_list`: the path is that of a list, which may end in
    /// `/` or not.
    pub fn find(&self, path: &str, is_list: bool) -> Option<&Arc<Permissions>> {
        if let Some(found) = self.exact.get(path) {
            return Some(found);
        }
        if is_list && let Some(bare) = path.strip_suffix('/') {
            return self.exact.get(bare).or_else(|| self.wild(bare)).or_else(|| self.wild(path));
        }
        self.wild(path)
    }

    fn wild(&self, path: &str) -> Option<&Arc<Permissions>> {
        let mut next = self.heads.partition_point(|head| *head.text <= *path).checked_sub(1);
        let last = next.and_then(|index| self.heads.get(index))?;
        let common = last.text.bytes().zip(path.bytes()).take_while(|(one, other)| one == other).count();
        while let Some(head) = next.and_then(|index| self.heads.get(index)) {
            if head.text.len() <= common
                && let Some((_, found)) = head.rules.iter().find(|(pattern, _)| pattern.fits(path))
            {
                return Some(found);
            }
            next = head.above;
        }
        None
    }

    /// Whether anything is granted below a mount, whose path ends in `/`.
    pub fn reaches(&self, mount: &str) -> bool {
        if let Some(direct) = self.find(mount, false)
            && direct.capabilities.is_something()
        {
            return true;
        }
        let next = self.granting.range::<str, _>((Bound::Included(mount), Bound::Unbounded)).next();
        next.is_some_and(|path| path.starts_with(mount))
            || self.with_parts.iter().any(|pattern| pattern.reaches_below(mount))
    }

    /// Every rule: its path as policies write it, whether it has wildcards, and what is granted.
    pub fn all(&self) -> Vec<(String, bool, &Permissions)> {
        let exact = self.exact.iter().map(|(path, permissions)| (path.to_string(), false, &**permissions));
        let wild = self.heads.iter().flat_map(|head| &head.rules);
        exact.chain(wild.map(|(pattern, permissions)| (pattern.written(), true, &**permissions))).collect()
    }
}
