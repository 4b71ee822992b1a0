//! What is seen of the members from outside: all of them, or what concerns some keys. A tenant sees no more than that.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::pool::Member;
use super::route::{KeyRoute, MemberId};
use super::supervisor::Supervisor;
use crate::model::{KeySetStatus, MemberStatus, Namespace, Status, TokenSelector};

/// A managed key, as it is asked about.
pub struct KeyPlace<'a> {
    /// The namespace it is bound to.
    pub namespace: &'a Namespace,
    /// Its name.
    pub name: &'a str,
    /// The name of its KMS library, or of its pool.
    pub library: &'a str,
    /// Its token; `None` where `library` names a pool.
    pub token: Option<&'a TokenSelector>,
    /// Its route, once there was a first use.
    pub route: Option<&'a Arc<KeyRoute>>,
}

impl Supervisor {
    /// Every member, as it stands.
    pub fn members(&self) -> Vec<MemberStatus> {
        self.shared.pools.members().iter().map(|member| member.status()).collect()
    }

    /// What concerns these keys, as if there were no others: the members that hold one of them or are to, the libraries, and
    /// for each key that was used how many members hold it.
    pub fn status_of<'a>(&self, keys: impl Iterator<Item = KeyPlace<'a>>) -> Status {
        let mut homes = HashMap::new();
        let mut held: HashMap<MemberId, usize> = HashMap::new();
        let mut libraries = HashSet::new();
        let mut key_sets = Vec::new();
        for KeyPlace { namespace, name, library, token, route } in keys {
            libraries.insert(library.to_lowercase());
            let home = homes.entry((library, token)).or_insert_with(|| {
                self.shared.pools.find(library, token).map(|(_, members)| members).unwrap_or_default()
            });
            let holders = route.map(KeyRoute::holding).unwrap_or_default();
            for member in home.iter() {
                *held.entry(member.id).or_default() += usize::from(holders.contains(&member.id));
            }
            if route.is_some() {
                let (namespace, key) = (namespace.clone(), name.to_owned());
                key_sets.push(KeySetStatus { namespace, key, members: home.len(), holders: holders.len() });
            }
        }
        let members = self.shared.pools.members();
        let of_these = |member: &Member| Some(MemberStatus { keys: *held.get(&member.id)?, ..member.status() });
        Status {
            members: members.iter().filter_map(|member| of_these(member)).collect(),
            libraries: self.library_names(|name| libraries.contains(&name.to_lowercase())),
            key_sets,
        }
    }

    /// The names of the libraries and pools configured for which `wanted` says so.
    pub fn library_names(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let libraries = self.libraries();
        let own = libraries.iter().filter(|library| library.service.is_none());
        own.map(|library| library.name.clone()).filter(|name| wanted(name)).collect()
    }
}
