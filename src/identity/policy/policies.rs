//! The policies of every namespace, in memory and in the store, and what is compiled of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::acl::Acl;
use super::parse::Policy;
use crate::apart;
use crate::config::Limits;
use crate::model::{Fault, Namespace, Shards, Tally};
use crate::store::{Changes, RecordKey, Store, Versioned, Write};

const COLLECTION: &str = "policies";
/// Policies of one namespace, whatever the limit was when they were made.
const POLICIES_MAX: usize = 50_000;
/// Longest name of a policy, in bytes.
const NAME_BYTES: usize = 256;
/// Rules of all policies of one token.
const RULES_MAX: usize = 100_000;
/// Of those, rules with `+`: they are compared one by one with what is asked for.
pub(super) const PARTS_MAX: usize = 1_000;
/// Rules of all that is kept compiled for a namespace; beyond, what is kept is forgotten.
const COMPILED_RULES_MAX: usize = 1_000_000;
/// Sets of policies that are kept compiled for a namespace.
const COMPILED_MAX: usize = 4_096;
/// Namespaces in the store.
const NAMESPACES_MAX: usize = 200_000;
/// May everything, has no text, and is never written.
const ROOT: &str = "root";
/// Names of Vault's that nobody gives a text: tokens that only hold an answer have the second.
const RESERVED: [&str; 3] = [ROOT, "response-wrapping", "control-group"];
/// What tokens have beside what they are given.
const DEFAULT: &str = "default";
/// What the policy `default` says until somebody writes it.
const DEFAULT_TEXT: &str = include_str!("default.hcl");

/// A policy as it is stored.
#[derive(Serialize, Deserialize)]
struct PolicyRecord {
    text: String,
}

impl Versioned for PolicyRecord {
    const VERSION: u16 = 1;
}

/// The policies of every namespace. Cheap to clone.
#[derive(Clone)]
pub struct Policies(Arc<Inner>);

struct Inner {
    store: Store,
    /// Policies of one namespace and all below it, and bytes of their texts.
    most: usize,
    bytes_max: usize,
    default: Arc<Policy>,
    namespaces: ArcSwap<Shards<Namespace, Arc<Table>>>,
    /// How many there are, and of how many bytes. Changed by `changes` only.
    counted: Mutex<Counted>,
    changes: Changes,
}

#[derive(Default)]
struct Counted {
    policies: Tally,
    bytes: Tally,
}

impl Counted {
    fn set(&mut self, namespace: &Namespace, written: &BTreeMap<String, Arc<Policy>>) {
        self.policies.set(namespace, written.len());
        self.bytes.set(namespace, bytes(written));
    }
}

fn bytes(written: &BTreeMap<String, Arc<Policy>>) -> usize {
    written.values().map(|policy| policy.text().len()).sum()
}

/// The policies of one namespace. Whatever changes makes another table: what was compiled of the old one goes with it.
#[derive(Default)]
struct Table {
    written: BTreeMap<String, Arc<Policy>>,
    compiled: ArcSwap<Compiled>,
}

#[derive(Clone, Default)]
struct Compiled {
    by_names: HashMap<Arc<[String]>, Arc<Acl>, RandomState>,
    rules: usize,
}

impl Policies {
    /// The policies of this store. Nothing is read before [`Policies::load`].
    pub fn new(store: Store, limits: &Limits) -> Policies {
        // A test reads it; what could not be read would grant nothing.
        let default = Arc::new(Policy::parse(DEFAULT_TEXT).unwrap_or_default());
        let (most, bytes_max) = (limits.policies_per_namespace, limits.policy_bytes_per_namespace);
        let (namespaces, counted, changes) = (ArcSwap::default(), Mutex::default(), Changes::default());
        Policies(Arc::new(Inner { store, most, bytes_max, default, namespaces, counted, changes }))
    }

    /// Reads the policies from the store.
    ///
    /// # Errors
    ///
    /// Also if one cannot be read any more: without it tokens could do what it denies.
    pub fn load(&self) -> Result<(), Fault> {
        let (mut namespaces, mut counted) = (Shards::default(), Counted::default());
        for namespace in self.0.store.namespaces(NAMESPACES_MAX)? {
            let records = self.0.store.read_all::<PolicyRecord>(&namespace, COLLECTION, None, POLICIES_MAX)?;
            let read = |(name, record): (String, PolicyRecord)| match Policy::parse(&record.text) {
                Ok(policy) => Ok((name, Arc::new(policy))),
                Err(fault) => Err(Fault::Unavailable {
                    what: format!(
                        "policy {name:?} of namespace {namespace} cannot be read: {fault}; run the version that wrote it"
                    ),
                }),
            };
            let written = records.into_iter().map(read).collect::<Result<BTreeMap<_, _>, Fault>>()?;
            if !written.is_empty() {
                counted.set(&namespace, &written);
                namespaces.insert(namespace, Arc::new(Table { written, compiled: ArcSwap::default() }));
            }
        }
        *self.0.counted.lock() = counted;
        self.0.namespaces.store(Arc::new(namespaces));
        Ok(())
    }

    /// The names of a namespace's policies, sorted.
    pub fn names(&self, namespace: &Namespace) -> Vec<String> {
        let table = self.table(namespace);
        let root = namespace.is_root().then(|| ROOT.to_owned());
        let mut names: Vec<String> = table.written.keys().cloned().chain(root).collect();
        if !table.written.contains_key(DEFAULT) {
            names.push(DEFAULT.to_owned());
        }
        names.sort_unstable();
        names
    }

    /// The text of a policy; empty for `root`, which may everything.
    pub fn text(&self, namespace: &Namespace, name: &str) -> Option<String> {
        if name == ROOT {
            return namespace.is_root().then(String::new);
        }
        self.table(namespace).get(name, &self.0.default).map(|policy| policy.text().to_owned())
    }

    /// Whether there is such a policy.
    pub fn exists(&self, namespace: &Namespace, name: &str) -> bool {
        if name == ROOT { namespace.is_root() } else { self.table(namespace).get(name, &self.0.default).is_some() }
    }

    /// Makes or replaces a policy. It counts once it is durable.
    ///
    /// # Errors
    ///
    /// If the text cannot be read, with the place; then nothing changes.
    pub async fn write(&self, namespace: &Namespace, name: &str, text: &str) -> Result<(), Fault> {
        let name = self.changeable(name, "update")?;
        let text = text.to_owned();
        let parse = move || {
            let policy = Policy::parse(&text)?;
            policy.check_parts().map(|()| policy)
        };
        // One of many rules takes long to read.
        let policy = Arc::new(apart::run(namespace, parse).await??);
        let (this, own) = (self.clone(), namespace.clone());
        let change = move || {
            let mut written = this.table(&own).written.clone();
            let old = written.insert(name.clone(), Arc::clone(&policy));
            this.check_room(&own, old.as_deref(), &policy)?;
            let record = PolicyRecord { text: policy.text().to_owned() };
            this.commit(&own, Write::put_record(key(&own, &name), &record)?, written)
        };
        self.0.changes.run(namespace, change).await
    }

    /// Deletes a policy; absent is fine.
    pub async fn delete(&self, namespace: &Namespace, name: &str) -> Result<(), Fault> {
        let name = self.changeable(name, "delete")?;
        if name == DEFAULT {
            return Err(Fault::invalid("cannot delete default policy"));
        }
        let (this, own) = (self.clone(), namespace.clone());
        let change = move || {
            let mut written = this.table(&own).written.clone();
            match written.remove(&name) {
                None => Ok(()),
                Some(_) => this.commit(&own, Write::Delete { key: key(&own, &name) }, written),
            }
        };
        self.0.changes.run(namespace, change).await
    }

    /// What the policies of these names grant together; a name without a policy grants nothing.
    ///
    /// # Errors
    ///
    /// [`Fault::PermissionDenied`] if there are more rules than are compiled for one token.
    pub fn acl(&self, namespace: &Namespace, names: &[String]) -> Result<Arc<Acl>, Fault> {
        let namespaces = self.0.namespaces.load();
        let Some(table) = namespaces.get(namespace) else {
            self.add_table(namespace);
            return self.compile(&self.table(namespace), namespace, names);
        };
        match table.compiled.load().by_names.get(names) {
            Some(acl) => Ok(Arc::clone(acl)),
            None => self.compile(table, namespace, names),
        }
    }

    /// Waits for the changes that are under way in a namespace that was deleted, so that none comes after its records are gone.
    pub async fn settle(&self, namespace: &Namespace) -> Result<(), Fault> {
        self.0.changes.run(namespace, || Ok(())).await
    }

    /// Forgets the policies of a namespace that was deleted, with its records.
    pub fn forget(&self, namespace: &Namespace) {
        self.change_tables(|tables| drop(tables.remove(namespace)));
        self.0.counted.lock().set(namespace, &BTreeMap::new());
    }

    /// Refuses a policy in the place of `old` where its tenant has as many as it may. Part of a change.
    fn check_room(&self, namespace: &Namespace, old: Option<&Policy>, new: &Policy) -> Result<(), Fault> {
        let (most, bytes_max, tenant) = (self.0.most, self.0.bytes_max, namespace.tenant());
        let counted = self.0.counted.lock();
        if old.is_none() && counted.policies.of_tenant(namespace) >= most {
            return Err(Fault::invalid(format!(
                "namespace {tenant} and those below it have {most} policies together, as limits {{ policies_per_namespace }} \
                 allows: delete one, or have the operator raise it"
            )));
        }
        let grown = new.text().len().saturating_sub(old.map_or(0, |old| old.text().len()));
        if grown > 0 && counted.bytes.of_tenant(namespace).saturating_add(grown) > bytes_max {
            let what = format!(
                "the texts of the policies of namespace {tenant} and those below it: at most {bytes_max} bytes together, as \
                 limits {{ policy_bytes_per_namespace }} says"
            );
            return Err(Fault::TooLarge { what });
        }
        Ok(())
    }

    fn compile(&self, table: &Table, namespace: &Namespace, names: &[String]) -> Result<Arc<Acl>, Fault> {
        let policies: Vec<&Policy> = names.iter().filter_map(|name| table.get(name, &self.0.default)).collect();
        let rules: usize = policies.iter().map(|policy| policy.rules().len()).sum();
        if rules > RULES_MAX {
            tracing::warn!(%namespace, rules, RULES_MAX, "a token's policies have too many rules together: it is refused");
            return Err(Fault::PermissionDenied);
        }
        let acl = Acl::new(policies);
        if acl.parts() > PARTS_MAX {
            let rules = acl.parts();
            tracing::warn!(%namespace, rules, PARTS_MAX, "a token's policies have too many rules with '+' together: it is refused");
            return Err(Fault::PermissionDenied);
        }
        let acl = Arc::new(acl);
        let names: Arc<[String]> = names.into();
        table.compiled.rcu(|compiled| {
            let full = compiled.by_names.len() >= COMPILED_MAX || compiled.rules + acl.rules() > COMPILED_RULES_MAX;
            let mut compiled = if full { Compiled::default() } else { Compiled::clone(compiled) };
            compiled.rules += acl.rules();
            compiled.by_names.insert(Arc::clone(&names), Arc::clone(&acl));
            compiled
        });
        Ok(acl)
    }

    fn table(&self, namespace: &Namespace) -> Arc<Table> {
        self.0.namespaces.load().get(namespace).cloned().unwrap_or_default()
    }

    /// A table for what is compiled in a namespace where nothing was written.
    fn add_table(&self, namespace: &Namespace) {
        self.change_tables(|tables| {
            tables.entry(namespace);
        });
    }

    /// Stores a change, then shows it.
    fn commit(&self, namespace: &Namespace, write: Write, written: BTreeMap<String, Arc<Policy>>) -> Result<(), Fault> {
        self.0.store.commit_now(vec![write])?;
        self.0.counted.lock().set(namespace, &written);
        let table = Arc::new(Table { written, compiled: ArcSwap::default() });
        self.change_tables(|tables| drop(tables.insert(namespace.clone(), Arc::clone(&table))));
        Ok(())
    }

    fn change_tables(&self, change: impl Fn(&mut Shards<Namespace, Arc<Table>>)) {
        self.0.namespaces.rcu(|tables| {
            let mut tables = Shards::clone(tables);
            change(&mut tables);
            tables
        });
    }

    /// The name in its one spelling, unless it is nobody's to change.
    fn changeable(&self, name: &str, what: &str) -> Result<String, Fault> {
        let name = name.to_lowercase();
        if RESERVED.contains(&name.as_str()) {
            return Err(Fault::invalid(format!("cannot {what} {name:?} policy")));
        }
        if name.is_empty() || name.len() > NAME_BYTES {
            return Err(Fault::invalid(format!("a policy's name has 1 to {NAME_BYTES} bytes")));
        }
        Ok(name)
    }
}

impl Table {
    fn get<'t>(&'t self, name: &str, default: &'t Arc<Policy>) -> Option<&'t Policy> {
        let written = self.written.get(name).or((name == DEFAULT).then_some(default));
        written.map(|policy| &**policy)
    }
}

fn key(namespace: &Namespace, name: &str) -> RecordKey {
    RecordKey::new(namespace, COLLECTION, name)
}
