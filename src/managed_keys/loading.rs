//! Reads the managed keys from the store at the start. A record that this build cannot read, since another wrote it or it is
//! damaged, costs its own key and no other: that one is used by nobody, and neither written nor deleted, since whoever wrote it
//! may read it again.
//!
//! Nor does anybody know then which key it stands for, and for whom. So no key is used for the first time, or by engines of one
//! more type, where it may be that one; what is known goes on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::bindings::Mounts;
use super::claims::Claims;
use super::handle::KeyRef;
use super::record::{COLLECTION, KeyRecord};
use super::registry::{Entry, KEYS_MAX, ManagedKeys};
use super::settings::PKCS11;
use super::settings::Settings;
use super::table::Table;
use crate::model::{Fault, Namespace, TokenSelector};
use crate::store::{Record, RecordKey};

/// Namespaces of one store: more than there may ever be.
const NAMESPACES_MAX: usize = 200_000;

/// A managed key whose record cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Unread {
    /// As far as that much can be read.
    uuid: Option<String>,
    /// Likewise.
    key_type: Option<String>,
    why: Fault,
}

/// What is the same in every record.
#[derive(Deserialize)]
struct Least {
    uuid: String,
}

/// What tells the type of a key, and none of its secrets.
#[derive(Deserialize)]
struct Typed {
    library: String,
    #[serde(default)]
    cloud: Option<InCloud>,
}

#[derive(Deserialize)]
struct InCloud {
    service: String,
}

impl Unread {
    /// What can be read of the record all the same.
    fn of(record: &Record, why: Fault) -> Unread {
        let uuid = part(record).map(|Least { uuid }| uuid);
        let key_type = part(record).and_then(|Typed { library, cloud }| match cloud {
            Some(InCloud { service }) => Some(service),
            None => (!library.is_empty()).then(|| PKCS11.to_owned()),
        });
        Unread { uuid, key_type, why }
    }

    /// Whether it may be a key of this type.
    fn may_be(&self, key_type: &str) -> bool {
        self.key_type.as_deref().is_none_or(|known| known == key_type)
    }
}

impl ManagedKeys {
    /// Reads the managed keys of these namespaces from the store and has those that were used before served again: of very
    /// many on one token or pool, most when they are first asked for. Of the other namespaces in the store only the claims
    /// count, and who uses which key: they may come back. `mounts` says now and later which mounts there are, of those too: what
    /// others have noted to use binds nothing.
    pub fn load(&self, namespaces: &[Namespace], mounts: Mounts) -> Result<(), Fault> {
        let served: HashSet<&Namespace> = namespaces.iter().collect();
        // Most of many may be empty.
        let stored = self.store().namespaces(NAMESPACES_MAX)?;
        let (stored, others): (Vec<_>, Vec<_>) = stored.into_iter().partition(|known| served.contains(known));
        let (mut claims, mut table) = (Claims::default(), Table::default());
        let mut away = Vec::new();
        for namespace in &others {
            away.extend(self.read_keys(namespace, &mut table)?);
        }
        away.iter().for_each(|entry| claims.add(entry));
        let mut served: HashMap<(String, Option<TokenSelector>), usize> = HashMap::new();
        for namespace in &stored {
            for entry in self.read_keys(namespace, &mut table)? {
                claims.add(&entry);
                if let Some(ready) = entry.ready.as_ref().filter(|_| !self.is_told_of_the_seals(&entry)) {
                    let Settings { library, token, .. } = &entry.settings;
                    let served = served.entry((library.to_lowercase(), token.clone())).or_default();
                    *served += 1;
                    if *served <= self.0.served_at_start {
                        ready.serve(&entry, self.supervisor());
                    }
                }
                table.insert(entry);
            }
        }
        *self.0.claims.lock() = claims;
        self.0.table.store(Arc::new(table));
        self.load_bindings(mounts, &away)?;
        stored.iter().try_for_each(|namespace| self.end_leftovers(namespace))
    }

    /// The managed keys of a namespace; those that cannot be read are noted in `table`.
    fn read_keys(&self, namespace: &Namespace, table: &mut Table) -> Result<Vec<Arc<Entry>>, Fault> {
        let mut read = Vec::new();
        for (name, record) in self.store().scan(namespace, COLLECTION, None, KEYS_MAX)? {
            match entry(namespace, &name, &record) {
                Ok(entry) => read.push(Arc::new(entry)),
                Err(why) => {
                    tracing::error!(
                        key = name, %namespace, reason = %why,
                        "A MANAGED KEY CANNOT BE READ: it is used by nobody, and stays in the store as it is"
                    );
                    let unread = Unread::of(&record, why);
                    Arc::make_mut(&mut table.unread).entry(namespace.clone()).or_default().insert(name, unread);
                }
            }
        }
        Ok(read)
    }

    /// Refuses a first use where it cannot be known whose the key is, since keys of other namespaces cannot be read. A key made for
    /// a mount is nobody else's: chance gave it its label.
    pub(super) fn check_owners_known(&self, entry: &Entry) -> Result<(), Fault> {
        let is_another = |namespace: &Namespace| *namespace != entry.namespace;
        if entry.settings.owner.is_some() || !self.table().has_unread(is_another) || self.is_shared(entry) {
            return Ok(());
        }
        Err(Fault::Unavailable {
            what: format!(
                "managed key {:?} cannot be used for the first time while managed keys of other namespaces cannot be read, since \
                 nobody knows whether it names one of theirs: have the operator run the version that wrote them, or a newer one",
                entry.name
            ),
        })
    }

    /// Refuses one more use of a key that was recorded where it cannot be known what else the key signs, since managed keys that may
    /// stand for it too cannot be read.
    pub(super) fn check_uses_known(&self, entry: &Entry) -> Result<(), Fault> {
        let may_lead_to_it = |namespace: &Namespace| *namespace == entry.namespace || self.is_shared(entry);
        if entry.settings.owner.is_some() || !self.table().has_unread(may_lead_to_it) {
            return Ok(());
        }
        Err(Fault::Unavailable {
            what: format!(
                "managed key {:?} cannot be put to a new use while managed keys beside it cannot be read, since nobody knows \
                 whether its key is bound to another type of mount by one of them: have the operator run the version that wrote \
                 them, or a newer one",
                entry.name
            ),
        })
    }

    /// How many managed keys could not be read when they were last loaded, and are still in the store.
    pub fn unread(&self) -> usize {
        self.0.table.load().unread.values().map(HashMap::len).sum()
    }
}

fn part<T: DeserializeOwned>(record: &Record) -> Option<T> {
    serde_json::from_slice(&record.value).ok()
}

fn entry(namespace: &Namespace, name: &str, record: &Record) -> Result<Entry, Fault> {
    let key = RecordKey::new(namespace, COLLECTION, name);
    record.decode::<KeyRecord>(&key)?.open(namespace, name.to_owned())
}

impl Table {
    /// Whether there are keys that could not be read in a namespace that is one `of` those meant.
    fn has_unread(&self, of: impl Fn(&Namespace) -> bool) -> bool {
        self.unread.iter().any(|(namespace, keys)| !keys.is_empty() && of(namespace))
    }

    /// The names of a namespace's keys that could not be read, and are, or may be, of this type.
    pub(super) fn unread_names<'t>(
        &'t self,
        namespace: &Namespace,
        key_type: &'t str,
    ) -> impl Iterator<Item = &'t String> {
        let unread = self.unread.get(namespace).into_iter().flatten();
        unread.filter(move |(_, unread)| unread.may_be(key_type)).map(|(name, _)| name)
    }

    /// Refuses a key whose record could not be read, saying so: it is not one that is not there.
    pub(super) fn check_read(&self, namespace: &Namespace, key: KeyRef<'_>) -> Result<(), Fault> {
        let Some(unread) = self.unread.get(namespace) else { return Ok(()) };
        let found = match key {
            KeyRef::Name(name) => unread.get_key_value(name),
            KeyRef::Uuid(uuid) => unread.iter().find(|(_, unread)| unread.uuid.as_deref() == Some(uuid)),
        };
        match found {
            Some((name, Unread { why, .. })) => {
                Err(Fault::Unavailable { what: format!("managed key {name:?} cannot be read: {why}") })
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::config::Limits;
    use crate::managed_keys::Handle;
    use crate::managed_keys::software_token::{no_mounts, story};
    use crate::model::{Curve, Data, Deadline, KeyKind, Mount, MountConfig};
    use crate::store::Write;

    fn data(value: Value) -> Data {
        value.as_object().unwrap().clone()
    }

    /// Writes a key in a cloud and one on a token and changes the record of the former, then starts anew on the store.
    fn with_record(change: impl FnOnce(&mut u16, &mut Value) + 'static, check: impl FnOnce(ManagedKeys) + 'static) {
        with_record_of("cloud", change, check);
    }

    /// The same with the record of this one of them.
    fn with_record_of(
        name: &'static str,
        change: impl FnOnce(&mut u16, &mut Value) + 'static,
        check: impl FnOnce(ManagedKeys) + 'static,
    ) {
        story(|keys, token| async move {
            let root = Namespace::root();
            let fields = json!({"kms_key": "alias/a", "key_type": "ECDSA", "curve": "P256"});
            keys.write(&root, "awskms", "cloud", &data(fields)).await.unwrap();
            let fields = json!({"library": "hsm", "token_label": "t", "key_label": "k", "mechanism": "0x1041"});
            keys.write(&root, "pkcs11", "token", &data(fields)).await.unwrap();
            let key = RecordKey::new(&root, COLLECTION, name);
            let Record { mut version, value } = keys.store().get(&key).unwrap().unwrap();
            let mut record: Value = serde_json::from_slice(&value).unwrap();
            change(&mut version, &mut record);
            let value = serde_json::to_vec(&record).unwrap();
            keys.store().commit_now(vec![Write::Put { key, version, value }]).unwrap();
            let again = ManagedKeys::new(keys.store().clone(), token.supervisor(), &Limits::default());
            again.load(&[root], no_mounts()).unwrap();
            check(again);
        });
    }

    fn refused(keys: &ManagedKeys, why: &str) {
        let root = Namespace::root();
        let told = keys.0.table.load().check_read(&root, KeyRef::Name("cloud")).unwrap_err().to_string();
        assert!(told.contains("managed key \"cloud\" cannot be read: ") && told.contains(why), "{told}");
        // It is there, and whoever asks for it is told why it cannot be had.
        assert_eq!((keys.unread(), keys.names(&root, "awskms")), (1, vec!["cloud".to_owned()]));
        for fault in [
            keys.show(&root, "awskms", "cloud").map(drop).unwrap_err(),
            keys.find(&root, "awskms", "cloud").map(drop).unwrap_err(),
        ] {
            assert!(matches!(&fault, Fault::Unavailable { what } if what.contains(why)), "{fault}");
        }
        // The others are there.
        assert!(keys.find(&root, "pkcs11", "token").is_ok());
        assert_eq!(keys.names(&root, "pkcs11"), ["token"]);
    }

    /// Stores what nobody can read as a key of a namespace, and starts anew.
    fn leave_unread(keys: &ManagedKeys, namespace: &Namespace, mounts: Mounts) {
        let key = RecordKey::new(namespace, COLLECTION, "unread");
        let value = br#"{"of": "a build to come"}"#.to_vec();
        keys.store().commit_now(vec![Write::Put { key, version: 9, value }]).unwrap();
        keys.load(&[Namespace::root(), Namespace::from_path("team")], mounts).unwrap();
        assert_eq!(keys.unread(), 1);
    }

    async fn register(keys: &ManagedKeys, namespace: &Namespace, name: &str) -> Handle {
        let fields = json!({"library": "hsm", "token_label": "t", "key_label": name, "mechanism": "0x1041",
            "curve": "P256", "allow_generate_key": true});
        keys.write(namespace, "pkcs11", name, &data(fields)).await.unwrap();
        keys.find(namespace, "pkcs11", name).unwrap()
    }

    async fn use_first(handle: &Handle) -> Result<(), Fault> {
        handle.identified(Deadline::after(Duration::from_secs(30))).await.map(drop)
    }

    #[test]
    fn nobody_comes_by_a_key_that_may_be_an_unread_ones() {
        story(|keys, token| async move {
            let (root, team) = (Namespace::root(), Namespace::from_path("team"));
            token.make("theirs", b"\x01", KeyKind::Ec(Curve::P256));
            use_first(&register(&keys, &root, "known").await).await.unwrap();
            leave_unread(&keys, &team, no_mounts());
            let generated = token.generated();
            for name in ["theirs", "new"] {
                let fault = use_first(&register(&keys, &root, name).await).await.unwrap_err();
                assert!(matches!(fault, Fault::Unavailable { .. }), "{name}: {fault}");
                assert!(fault.to_string().contains("of other namespaces cannot be read"), "{fault}");
            }
            assert_eq!(token.generated(), generated);
            // What is known goes on, and in its own namespace it is no other's.
            use_first(&keys.find(&root, "pkcs11", "known").unwrap()).await.unwrap();
            use_first(&register(&keys, &team, "own").await).await.unwrap();
        });
    }

    fn mount(engine: &str) -> Arc<Mount> {
        Arc::new(Mount {
            namespace: Namespace::root(),
            path: format!("{engine}/"),
            engine: engine.into(),
            uuid: engine.into(),
            accessor: String::new(),
            description: String::new(),
            options: Default::default(),
            config: MountConfig::default(),
        })
    }

    #[test]
    fn no_key_is_put_to_a_use_that_an_unread_one_may_forbid() {
        story(|keys, _| async move {
            let root = Namespace::root();
            let [used, unused] = [register(&keys, &root, "used").await, register(&keys, &root, "unused").await];
            for handle in [&used, &unused] {
                use_first(handle).await.unwrap();
            }
            let [pki, transit] = ["pki", "transit"].map(mount);
            keys.store().commit_now(vec![keys.note_use(&pki, used.uuid(), "issuer 1")]).unwrap();
            let there = vec![Arc::clone(&pki), Arc::clone(&transit)];
            let mounts: Mounts = Arc::new(move |_| there.clone());
            // Another namespace's is none of this one's keys: theirs would have been claimed.
            leave_unread(&keys, &Namespace::from_path("team"), Arc::clone(&mounts));
            drop(keys.bind(&transit, unused.uuid()).unwrap());
            keys.store()
                .commit_now(vec![Write::Delete {
                    key: RecordKey::new(&Namespace::from_path("team"), COLLECTION, "unread"),
                }])
                .unwrap();
            leave_unread(&keys, &root, mounts);
            let fault = keys.bind(&transit, unused.uuid()).map(drop).unwrap_err();
            assert!(matches!(fault, Fault::Unavailable { .. }), "{fault}");
            // What it is bound to already goes on.
            drop(keys.bind(&pki, used.uuid()).unwrap());
        });
    }

    #[test]
    fn a_kind_that_this_build_does_not_know_costs_its_key_alone() {
        let change = |_: &mut u16, record: &mut Value| record["cloud"]["native"] = "ML_DSA_65".into();
        with_record(change, |keys| refused(&keys, "it is of kind \"ML_DSA_65\" of \"awskms\""));
    }

    #[test]
    fn so_does_what_a_record_says_of_a_key_on_a_token_and_nobody_knows() {
        for (field, value, why) in [
            ("curve", json!("P1024"), "it is on curve \"P1024\", which this Keyway does not know"),
            ("rsa_oaep_hash", json!("sha7"), "it encrypts by OAEP with \"sha7\", which this Keyway does not know"),
            ("usages", json!(["sign", "shine"]), "it is for \"shine\", which this Keyway does not know"),
        ] {
            with_record_of(
                "token",
                move |_, record| record[field] = value,
                move |keys| {
                    let root = Namespace::root();
                    let fault = keys.find(&root, "pkcs11", "token").map(drop).unwrap_err();
                    assert!(matches!(&fault, Fault::Unavailable { what } if what.contains(why)), "{fault}");
                    assert_eq!((keys.unread(), keys.names(&root, "pkcs11")), (1, vec!["token".to_owned()]));
                    assert!(keys.find(&root, "awskms", "cloud").is_ok());
                },
            );
        }
    }

    #[test]
    fn so_does_a_format_that_is_newer() {
        let change = |version: &mut u16, _: &mut Value| *version = 9;
        with_record(change, |keys| refused(&keys, "is of format 9, but this Keyway knows up to 2"));
    }

    #[test]
    fn a_key_that_cannot_be_read_is_neither_written_nor_deleted_nor_taken_for_none() {
        story(|keys, _| async move {
            let root = Namespace::root();
            let key = RecordKey::new(&root, COLLECTION, "cloud");
            let value = br#"{"uuid": "0b7e", "of": "a build to come"}"#.to_vec();
            keys.store().commit_now(vec![Write::Put { key: key.clone(), version: 3, value: value.clone() }]).unwrap();
            keys.load(std::slice::from_ref(&root), no_mounts()).unwrap();
            let fields = json!({"kms_key": "alias/a", "key_type": "ECDSA", "curve": "P256"});
            let fault = keys.write(&root, "awskms", "cloud", &data(fields)).await.unwrap_err();
            assert!(matches!(fault, Fault::Unavailable { .. }), "{fault}");
            assert!(keys.delete(&root, "awskms", "cloud", Vec::new).await.is_err());
            let table = keys.0.table.load_full();
            assert!(table.check_read(&root, KeyRef::Uuid("0b7e")).is_err());
            assert!(table.check_read(&root, KeyRef::Uuid("other")).is_ok());
            assert_eq!(keys.store().get(&key).unwrap().unwrap().value, value);
        });
    }

    #[test]
    fn only_what_older_builds_would_misread_is_of_the_newer_format() {
        with_record(
            |version, _| assert_eq!(*version, 2),
            |keys| {
                let record = RecordKey::new(&Namespace::root(), COLLECTION, "token");
                assert_eq!(keys.store().get(&record).unwrap().unwrap().version, 1);
            },
        );
        // Keys in clouds that were written as the older one are read.
        with_record(|version, _| *version = 1, |keys| assert_eq!(keys.unread(), 0));
    }
}
