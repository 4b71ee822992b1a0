//! What every physical store must do, run over both; then what only a file can show.

mod rotation;

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::physical::{Counters, NotQueued, Physical, Transaction, Visitor, WhenFull};
use super::*;
use crate::config::Storage;
use crate::model::Fault;

/// A store over each kind of storage, with the folder that must outlive it.
fn stores() -> Vec<(Option<tempfile::TempDir>, Store)> {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::Redb { path: folder.path().join("records.redb") };
    let embedded = Store::open(&storage, Box::new(Ephemeral::new().unwrap())).unwrap();
    let memory = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap())).unwrap();
    vec![(Some(folder), embedded), (None, memory)]
}

/// The same, initialised.
fn open_stores() -> Vec<(Option<tempfile::TempDir>, Store)> {
    let stores = stores();
    for (_, store) in &stores {
        store.initialize().unwrap();
    }
    stores
}

/// A store of two files, and how it is opened again.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Files {
        Files { folder: tempfile::tempdir().unwrap() }
    }

    fn storage(&self) -> PathBuf {
        self.folder.path().join("records.redb")
    }

    fn seal(&self) -> PathBuf {
        self.folder.path().join("seal.key")
    }

    fn open(&self) -> Result<Store, Fault> {
        open(&self.storage(), &self.seal())
    }
}

fn open(storage: &Path, seal: &Path) -> Result<Store, Fault> {
    Store::open(&Storage::Redb { path: storage.to_owned() }, Box::new(KeyFile::new(seal)))
}

fn key(collection: &str, name: &str) -> RecordKey {
    RecordKey::new(&Namespace::root(), collection, name)
}

fn put(collection: &str, name: &str, value: &str) -> Write {
    Write::Put { key: key(collection, name), version: 1, value: value.into() }
}

fn create(collection: &str, name: &str, value: &str) -> Write {
    Write::Create { key: key(collection, name), version: 1, value: value.into() }
}

fn delete(collection: &str, name: &str) -> Write {
    Write::Delete { key: key(collection, name) }
}

fn value(store: &Store, collection: &str, name: &str) -> Option<String> {
    store.get(&key(collection, name)).unwrap().map(|record| String::from_utf8(record.value).unwrap())
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn said<T>(result: Result<T, Fault>) -> String {
    match result {
        Ok(_) => panic!("expected a fault"),
        Err(fault) => fault.to_string(),
    }
}

#[test]
fn a_sealed_store_has_no_keys_for_whoever_holds_it_and_opens_again_at_its_place() {
    let folder = tempfile::tempdir().unwrap();
    for storage in [Storage::Redb { path: folder.path().join("keyway.redb") }, Storage::Memory] {
        let place = Place::new(&storage, Box::new(Ephemeral::new().unwrap()));
        let store = place.open().unwrap();
        store.initialize().unwrap();
        store.commit_now(vec![put("c", "n", "v")]).unwrap();
        let barrier = store.weak_barrier();
        let held = store.clone();
        store.seal();
        assert_eq!(barrier.strong_count(), 0, "the keys are still there");
        assert_eq!(held.get(&key("c", "n")), Err(Fault::Sealed));
        assert_eq!(held.commit_now(vec![put("c", "n", "w")]), Err(Fault::Sealed));
        assert_eq!(wait(held.commit(vec![put("c", "n", "w")])), Err(Fault::Sealed));
        assert_eq!(held.keyed_hash("token", b"x"), Err(Fault::Sealed));
        let again = place.open().unwrap();
        assert_eq!(again.get(&key("c", "n")).unwrap().unwrap().value, b"v");
        assert_eq!(held.get(&key("c", "n")), Err(Fault::Sealed));
    }
}

#[test]
fn nothing_works_before_initialisation() {
    for (_folder, store) in stores() {
        assert!(!store.is_initialized());
        let root = Namespace::root();
        assert_eq!(store.get(&key("c", "n")), Err(Fault::NotInitialized));
        assert_eq!(store.list(&root, "c", None, 1), Err(Fault::NotInitialized));
        assert_eq!(store.scan(&root, "c", None, 1), Err(Fault::NotInitialized));
        assert_eq!(store.collections(&root, "", 1), Err(Fault::NotInitialized));
        assert_eq!(store.keyed_hash("token", b"x"), Err(Fault::NotInitialized));
        assert_eq!(store.commit_now(vec![put("c", "n", "v")]), Err(Fault::NotInitialized));
        assert_eq!(wait(store.commit(vec![])), Err(Fault::NotInitialized));
    }
}

#[test]
fn initialisation_happens_once() {
    for (_folder, store) in stores() {
        store.initialize().unwrap();
        assert!(store.is_initialized());
        assert_eq!(said(store.initialize()), "Vault is already initialized");
    }
}

#[test]
fn of_many_who_initialise_one_does() {
    for (_folder, store) in stores() {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let store = store.clone();
                std::thread::spawn(move || store.initialize().is_ok())
            })
            .collect();
        assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).filter(|ok| *ok).count(), 1);
    }
}

#[test]
fn records_are_written_replaced_and_removed() {
    for (_folder, store) in open_stores() {
        wait(store.commit(vec![put("c", "a", "1"), put("c", "b", "2")])).unwrap();
        assert_eq!(value(&store, "c", "a").as_deref(), Some("1"));
        store.commit_now(vec![put("c", "a", "3"), delete("c", "b"), delete("c", "absent")]).unwrap();
        assert_eq!(value(&store, "c", "a").as_deref(), Some("3"));
        assert_eq!(value(&store, "c", "b"), None);
        assert_eq!(store.stats(), Stats { commits: 3, groups: 3, records: 6, failures: 0 });
    }
}

#[test]
fn lists_are_sorted_bounded_and_of_one_collection_and_namespace() {
    for (_folder, store) in open_stores() {
        let tenant = Namespace::from_path("team-a");
        let elsewhere = Write::Put { key: RecordKey::new(&tenant, "c", "other"), version: 1, value: vec![] };
        let names = ["b", "a", "c", "b\u{0}", "ba", "é"];
        let below = Namespace::from_path("team-a/ci");
        let deeper = Write::Put { key: RecordKey::new(&below, "a", "deeper"), version: 1, value: vec![] };
        let all = names.iter().map(|name| put("c", name, name)).chain([elsewhere, deeper]);
        store.commit_now(all.collect()).unwrap();
        store.commit_now(vec![put("cc", "x", ""), put("b", "y", "")]).unwrap();
        let root = Namespace::root();
        let list = |after, limit| store.list(&root, "c", after, limit).unwrap();
        assert_eq!(list(None, 100), ["a", "b", "b\u{0}", "ba", "c", "é"]);
        assert_eq!(list(None, 2), ["a", "b"]);
        assert_eq!(list(Some("b"), 2), ["b\u{0}", "ba"]);
        assert_eq!(list(Some("bb"), 9), ["c", "é"]);
        assert!(list(Some("é"), 9).is_empty());
        assert!(list(None, 0).is_empty());
        assert_eq!(store.list(&tenant, "c", None, 9).unwrap(), ["other"]);
        for (name, record) in store.scan(&root, "c", Some("a"), 3).unwrap() {
            assert_eq!(record.value, name.as_bytes());
        }
        assert_eq!(store.collections(&root, "", 9).unwrap(), ["b", "c", "cc"]);
        assert_eq!(store.collections(&root, "c", 1).unwrap(), ["c"]);
        assert_eq!(store.collections(&tenant, "", 9).unwrap(), ["c"]);
        assert_eq!(store.namespaces(9).unwrap(), [root.clone(), tenant.clone(), below]);
        assert_eq!(store.namespaces(1).unwrap(), std::slice::from_ref(&root));
    }
}

#[test]
fn a_record_is_created_once_and_a_refused_commit_changes_nothing() {
    for (_folder, store) in open_stores() {
        store.commit_now(vec![create("c", "a", "1")]).unwrap();
        let text = said(store.commit_now(vec![put("c", "b", "2"), delete("c", "z"), create("c", "a", "2")]));
        assert_eq!(text, r#"record "a" of "c" in namespace root already exists"#);
        assert_eq!(value(&store, "c", "a").as_deref(), Some("1"));
        assert_eq!(value(&store, "c", "b"), None);
        // Within one commit, earlier writes count.
        assert!(store.commit_now(vec![create("c", "x", "1"), create("c", "x", "2")]).is_err());
        assert!(store.commit_now(vec![put("c", "x", "1"), create("c", "x", "2")]).is_err());
        assert_eq!(value(&store, "c", "x"), None);
        store.commit_now(vec![delete("c", "a"), create("c", "a", "4")]).unwrap();
        assert_eq!(value(&store, "c", "a").as_deref(), Some("4"));
    }
}

#[test]
fn of_many_who_create_one_record_one_does_and_the_others_disturb_nobody() {
    for (_folder, store) in open_stores() {
        let threads: Vec<_> = (0..16)
            .map(|index| {
                let store = store.clone();
                std::thread::spawn(move || {
                    store.commit_now(vec![put("c", &format!("own-{index}"), "")]).unwrap();
                    store.commit_now(vec![create("c", "shared", &index.to_string())]).is_ok()
                })
            })
            .collect();
        let created: Vec<bool> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(created.iter().filter(|created| **created).count(), 1);
        let winner = created.iter().position(|created| *created).unwrap();
        assert_eq!(value(&store, "c", "shared"), Some(winner.to_string()));
        assert_eq!(store.list(&Namespace::root(), "c", None, 100).unwrap().len(), 17);
    }
}

#[test]
fn what_is_too_large_is_refused_alone() {
    for (_folder, store) in open_stores() {
        let large = Write::Put { key: key("c", "n"), version: 1, value: vec![0; VALUE_BYTES_MAX + 1] };
        assert!(matches!(store.commit_now(vec![large]), Err(Fault::TooLarge { .. })));
        let many = (0..=COMMIT_WRITES_MAX).map(|index| delete("c", &index.to_string())).collect();
        assert!(matches!(wait(store.commit(many)), Err(Fault::TooLarge { .. })));
        assert!(matches!(store.commit_now(vec![put("c", "", "")]), Err(Fault::InvalidRequest { .. })));
        store.commit_now(vec![]).unwrap();
    }
}

#[test]
fn a_closed_store_has_written_what_was_asked_and_refuses_the_rest() {
    for (_folder, store) in open_stores() {
        let waiting: Vec<_> = (0..50).map(|index| store.commit(vec![put("c", &index.to_string(), "")])).collect();
        store.close();
        store.close();
        for commit in waiting {
            wait(commit).unwrap();
        }
        assert!(said(wait(store.commit(vec![put("c", "late", "")]))).contains("the store is closed"));
        assert!(said(store.commit_now(vec![put("c", "late", "")])).contains("the store is closed"));
        assert!(said(store.get(&key("c", "0"))).contains("the store is closed"));
        assert!(said(store.list(&Namespace::root(), "c", None, 1)).contains("the store is closed"));
    }
}

/// Storage whose queue has no room for those who do not wait.
struct Busy(memory::Memory);

impl Physical for Busy {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        self.0.get(key)
    }
    fn scan(&self, from: &[u8], until: &[u8], visit: &mut Visitor<'_>) -> Result<(), Fault> {
        self.0.scan(from, until, visit)
    }
    fn submit(&self, transaction: Transaction, when_full: WhenFull) -> Result<(), NotQueued> {
        match when_full {
            WhenFull::Refuse => Err(NotQueued::Full(7)),
            WhenFull::Wait => self.0.submit(transaction, when_full),
        }
    }
    fn counters(&self) -> &Counters {
        self.0.counters()
    }
    fn close(&self) {
        self.0.close();
    }
}

#[test]
fn a_full_queue_answers_overloaded_to_that_namespace() {
    let store =
        Store::over(Box::new(Busy(memory::Memory::default())), std::sync::Arc::new(Ephemeral::new().unwrap()), None)
            .unwrap();
    store.initialize().unwrap();
    let tenant = Namespace::from_path("team-a");
    let write = || Write::Delete { key: RecordKey::new(&tenant, "c", "n") };
    match wait(store.commit(vec![write()])) {
        Err(Fault::Overloaded { namespace, limit, .. }) => assert_eq!((namespace, limit), (tenant.clone(), 7)),
        other => panic!("{other:?}"),
    }
    store.commit_now(vec![write()]).unwrap();
}

#[test]
fn debug_shows_no_value() {
    let write = put("c", "n", "hunter2");
    let record = Record { version: 1, value: b"hunter2".to_vec() };
    for text in [format!("{write:?}"), format!("{record:?}")] {
        assert!(!text.contains("hunter2") && !text.contains("104, 117"), "{text}");
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Role {
    name: String,
    ttl_seconds: u64,
}

impl Versioned for Role {
    const VERSION: u16 = 2;

    fn upgrade(version: u16, value: &[u8]) -> Result<Role, Fault> {
        match version {
            // Version 1 was the bare name.
            1 => Ok(Role { name: String::from_utf8_lossy(value).into_owned(), ttl_seconds: 60 }),
            _ => Err(Fault::internal(format!("there never was a version {version}"))),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Fixed {}

impl Versioned for Fixed {
    const VERSION: u16 = 3;
}

#[test]
fn typed_records_are_read_upgraded_and_from_the_future_refused() {
    for (_folder, store) in open_stores() {
        let role = Role { name: "web".to_owned(), ttl_seconds: 5 };
        store.commit_now(vec![Write::create_record(key("roles", "web"), &role).unwrap()]).unwrap();
        assert_eq!(store.read::<Role>(&key("roles", "web")).unwrap(), Some(role));
        assert_eq!(store.read::<Role>(&key("roles", "absent")).unwrap(), None);

        store.commit_now(vec![put("roles", "old", "mail")]).unwrap();
        let old = store.read::<Role>(&key("roles", "old")).unwrap().unwrap();
        assert_eq!(old, Role { name: "mail".to_owned(), ttl_seconds: 60 });
        store.commit_now(vec![Write::put_record(key("roles", "old"), &old).unwrap()]).unwrap();
        assert_eq!(store.get(&key("roles", "old")).unwrap().unwrap().version, 2);
        let all = store.read_all::<Role>(&Namespace::root(), "roles", None, 9).unwrap();
        assert_eq!(
            all.into_iter().map(|(name, role)| name + "=" + &role.name).collect::<Vec<_>>(),
            ["old=mail", "web=web"]
        );

        let future = Write::Put { key: key("roles", "new"), version: 3, value: b"{}".to_vec() };
        store.commit_now(vec![future]).unwrap();
        let text = said(store.read::<Role>(&key("roles", "new")));
        assert!(text.contains("is of format 3, but this Keyway knows up to 2"), "{text}");
        assert!(said(store.read::<Fixed>(&key("roles", "old"))).contains("format 2 has no way to format 3"));
        let garbled = Write::Put { key: key("roles", "bad"), version: 2, value: b"{\"name\":\"hunter2".to_vec() };
        store.commit_now(vec![garbled]).unwrap();
        let text = said(store.read::<Role>(&key("roles", "bad")));
        assert!(text.contains("does not parse") && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn commits_of_many_share_groups() {
    let files = Files::new();
    let store = files.open().unwrap();
    store.initialize().unwrap();
    let before = store.stats();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let waiting: Vec<_> = (0..2000).map(|index| store.commit(vec![create("c", &index.to_string(), "v")])).collect();
        for commit in waiting {
            commit.await.unwrap();
        }
    });
    let after = store.stats();
    assert_eq!(after.commits - before.commits, 2000);
    assert_eq!(after.records - before.records, 2000);
    assert!(after.groups - before.groups < 500, "{after:?}");
    assert_eq!(store.list(&Namespace::root(), "c", None, 3000).unwrap().len(), 2000);
}

#[test]
fn what_was_answered_survives_a_crash() {
    let files = Files::new();
    let store = files.open().unwrap();
    store.initialize().unwrap();
    for index in 0..20 {
        store.commit_now(vec![put("c", &format!("{index:02}"), &index.to_string())]).unwrap();
    }
    // The file as a crash at this moment would leave it: never closed.
    let crashed = files.folder.path().join("crashed.redb");
    std::fs::copy(files.storage(), &crashed).unwrap();
    let reopened = open(&crashed, &files.seal()).unwrap();
    assert!(reopened.is_initialized());
    assert_eq!(reopened.scan(&Namespace::root(), "c", None, 100).unwrap().len(), 20);
    assert_eq!(value(&reopened, "c", "07").as_deref(), Some("7"));
    reopened.commit_now(vec![put("c", "20", "20")]).unwrap();
}

#[test]
fn a_store_dropped_without_close_is_opened_again() {
    let files = Files::new();
    let token = {
        let store = files.open().unwrap();
        store.initialize().unwrap();
        store.commit_now(vec![put("c", "n", "v")]).unwrap();
        store.keyed_hash("token", b"x").unwrap()
    };
    let store = files.open().unwrap();
    assert_eq!(value(&store, "c", "n").as_deref(), Some("v"));
    assert_eq!(store.keyed_hash("token", b"x").unwrap(), token);
    assert_eq!(said(store.initialize()), "Vault is already initialized");
}

#[test]
fn the_last_handle_may_go_with_the_writers_wake_up() {
    let files = Files::new();
    let store = files.open().unwrap();
    store.initialize().unwrap();
    let store = Arc::new(store);
    let commit = store.commit(vec![put("c", "n", "v")]);
    let held = Arc::clone(&store);
    let task = std::thread::spawn(move || {
        wait(async move {
            commit.await.unwrap();
            drop(held);
        });
    });
    drop(store);
    task.join().unwrap();
    // The writer may still be ending; the file is free once it has.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while files.open().is_err() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn a_second_daemon_is_refused() {
    let files = Files::new();
    let store = files.open().unwrap();
    store.initialize().unwrap();
    let text = said(files.open());
    assert!(text.contains("records.redb cannot be opened: another process has it open"), "{text}");
    store.close();
    files.open().unwrap();
}

#[test]
fn a_wrong_or_missing_key_file_is_refused_and_resets_nothing() {
    let files = Files::new();
    let store = files.open().unwrap();
    store.initialize().unwrap();
    store.commit_now(vec![put("c", "n", "v")]).unwrap();
    drop(store);
    let missing = files.folder.path().join("missing.key");
    assert!(said(open(&files.storage(), &missing)).contains("missing.key is missing"));
    assert!(!missing.exists());

    let other = Files::new();
    other.open().unwrap().initialize().unwrap();
    assert!(said(open(&files.storage(), &other.seal())).contains("seal.key does not open this store"));
    let redb = Storage::Redb { path: files.storage() };
    let text = said(Store::open(&redb, Box::new(Ephemeral::new().unwrap())));
    assert!(text.contains(r#"sealed by a seal of kind "file", but "ephemeral" is configured"#), "{text}");

    assert_eq!(value(&files.open().unwrap(), "c", "n").as_deref(), Some("v"));
}

#[test]
fn an_initialisation_that_finds_a_key_file_is_refused() {
    let files = Files::new();
    files.open().unwrap().initialize().unwrap();
    let storage = files.folder.path().join("new.redb");
    let store = open(&storage, &files.seal()).unwrap();
    assert!(said(store.initialize()).contains("seal.key exists already while the store is not initialized"));
    assert!(!store.is_initialized());
    drop(store);
    assert!(files.open().is_ok());
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let seal = folder.path().join("seal.key");
    let path = folder.path().join("records.redb");
    let garbage = b"not a database, but somebody's file".repeat(1000);
    std::fs::write(&path, &garbage).unwrap();
    let text = said(open(&path, &seal));
    assert!(text.contains("records.redb cannot be opened: it is damaged or no storage file"), "{text}");
    assert_eq!(std::fs::read(&path).unwrap(), garbage);
    assert!(said(open(folder.path(), &seal)).contains("cannot be opened"));
    assert!(said(open(&folder.path().join("no/such"), &seal)).contains("make its folder"));
}

#[test]
fn a_damaged_file_never_gives_wrong_records() {
    let files = Files::new();
    let store = files.open().unwrap();
    store.initialize().unwrap();
    let names: BTreeSet<String> = (0..200).map(|index| format!("{index:03}")).collect();
    store.commit_now(names.iter().map(|name| put("c", name, &name.repeat(50))).collect()).unwrap();
    drop(store);
    let whole = std::fs::read(files.storage()).unwrap();
    for (case, damage) in [("cut", 0), ("zeroed", 1), ("flipped", 2)] {
        for part in 1..8 {
            let at = whole.len() * part / 8;
            let mut bytes = whole.clone();
            match damage {
                0 => bytes.truncate(at),
                1 => bytes[at..(at + 4096).min(whole.len())].fill(0),
                _ => bytes[at..(at + 4096).min(whole.len())].iter_mut().for_each(|byte| *byte ^= 0x55),
            }
            let path = files.folder.path().join(format!("{case}-{part}.redb"));
            std::fs::write(&path, &bytes).unwrap();
            let Ok(store) = open(&path, &files.seal()) else { continue };
            for name in &names {
                if let Ok(Some(record)) = store.get(&key("c", name)) {
                    assert_eq!(record.value, name.repeat(50).as_bytes(), "{case} {part}");
                }
            }
        }
    }
}

#[test]
fn the_storage_file_is_private_and_shows_no_value() {
    use std::os::unix::fs::MetadataExt;
    let files = Files::new();
    let store = files.open().unwrap();
    store.initialize().unwrap();
    store.commit_now(vec![put("c", "n", "a secret worth hiding")]).unwrap();
    drop(store);
    assert_eq!(std::fs::metadata(files.storage()).unwrap().mode() & 0o7777, 0o600);
    let bytes = std::fs::read(files.storage()).unwrap();
    assert!(!bytes.windows(12).any(|window| window == b"secret worth"));
}
