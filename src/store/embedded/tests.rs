//! What the file does when the disk fails, and when somebody reaches below the barrier.

use std::ops::Bound;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use super::*;
use crate::model::Namespace;
use crate::store::{Ephemeral, KeyFile, RecordKey, Store, Write, name};

/// A disk that is full while told so.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> std::io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.check()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.check()?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check()?;
        self.file.write(offset, data)
    }
    fn close(&self) -> std::io::Result<()> {
        self.file.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}

struct Site {
    _folder: tempfile::TempDir,
    path: PathBuf,
    full: Arc<AtomicBool>,
}

impl Site {
    fn new() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.redb");
        Site { _folder: folder, path, full: Arc::default() }
    }

    fn embedded(&self) -> Embedded {
        let full = Arc::clone(&self.full);
        let file = StorageFile::with_mount(
            &self.path,
            Box::new(move |builder, file| {
                builder.create_with_backend(Disk { file: FileBackend::new(file)?, full: Arc::clone(&full) })
            }),
        );
        Embedded::start(file).unwrap()
    }

    fn store(&self) -> Store {
        let store = Store::over(Box::new(self.embedded()), Box::new(Ephemeral::new().unwrap())).unwrap();
        store.initialize().unwrap();
        store
    }
}

fn put(name: &str) -> Write {
    Write::Put { key: key(name), version: 1, value: name.into() }
}

fn key(name: &str) -> RecordKey {
    RecordKey::new(&Namespace::root(), "c", name)
}

#[test]
fn a_full_disk_is_told_to_every_waiter_and_leaves_nothing_half_written() {
    let site = Site::new();
    let store = site.store();
    store.commit_now(vec![put("before")]).unwrap();
    site.full.store(true, Ordering::SeqCst);
    let threads: Vec<_> = (0..8)
        .map(|index| {
            let store = store.clone();
            std::thread::spawn(move || store.commit_now(vec![put(&format!("a{index}")), put(&format!("b{index}"))]))
        })
        .collect();
    for thread in threads {
        let fault = thread.join().unwrap().unwrap_err();
        assert!(matches!(fault, Fault::Unavailable { .. }));
        assert!(fault.to_string().contains("records.redb"), "{fault}");
        assert!(fault.to_string().contains("make room on that disk"), "{fault}");
    }
    assert!(store.stats().failures > 0);

    // With room again it goes on, without a restart.
    site.full.store(false, Ordering::SeqCst);
    assert_eq!(store.list(&Namespace::root(), "c", None, 100).unwrap(), ["before"]);
    store.commit_now(vec![put("after")]).unwrap();
    assert_eq!(store.list(&Namespace::root(), "c", None, 100).unwrap(), ["after", "before"]);
}

#[test]
fn a_file_removed_from_under_the_store_is_not_replaced_by_an_empty_one() {
    let site = Site::new();
    let store = site.store();
    std::fs::remove_file(&site.path).unwrap();
    site.full.store(true, Ordering::SeqCst);
    store.commit_now(vec![put("a")]).unwrap_err();
    site.full.store(false, Ordering::SeqCst);
    let fault = store.commit_now(vec![put("b")]).unwrap_err();
    assert!(fault.to_string().contains("cannot be opened"), "{fault}");
    assert!(!site.path.exists());
}

#[test]
fn records_altered_or_swapped_below_the_barrier_are_refused() {
    let site = Site::new();
    let open = || {
        let seal = Box::new(KeyFile::new(&site.path.with_extension("key")));
        Store::over(Box::new(site.embedded()), seal).unwrap()
    };
    let store = open();
    store.initialize().unwrap();
    store.commit_now(vec![put("a"), put("b"), put("c")]).unwrap();
    drop(store);

    let below = Database::open(&site.path).unwrap();
    let transaction = below.begin_write().unwrap();
    {
        let entry = |name: &str| name::encode(&key(name)).unwrap();
        let mut table = transaction.open_table(ENTRIES).unwrap();
        let mut sealed = ["a", "b", "c"].map(|name| table.get(&*entry(name)).unwrap().unwrap().value().to_vec());
        sealed.swap(0, 1);
        *sealed[2].last_mut().unwrap() ^= 1;
        for (name, sealed) in ["a", "b", "c"].into_iter().zip(&sealed) {
            table.insert(&*entry(name), &**sealed).unwrap();
        }
    }
    transaction.commit().unwrap();
    drop(below);

    let store = open();
    for name in ["a", "b", "c"] {
        let fault = store.get(&key(name)).unwrap_err().to_string();
        assert!(fault.contains(&format!("record {name:?} of \"c\"")) && fault.contains("altered or moved"), "{fault}");
    }
    assert!(store.scan(&Namespace::root(), "c", None, 9).is_err());
    assert_eq!(store.list(&Namespace::root(), "c", None, 9).unwrap(), ["a", "b", "c"]);
}

#[test]
fn a_panic_inside_redb_is_contained() {
    let site = Site::new();
    let embedded = site.embedded();
    let fault = embedded.shared.attempt::<()>(&mut |_| panic!("as a damaged page can make it"));
    assert!(fault.unwrap_err().to_string().contains("it is damaged"));
    assert_eq!(embedded.get(b"k").unwrap(), None);
}

#[test]
fn whoever_waits_when_the_writer_ends_is_told() {
    let site = Site::new();
    let embedded = site.embedded();
    let shared = Arc::clone(&embedded.shared);
    embedded.close();
    let (transaction, verdict) = Transaction::for_thread(vec![Change::Delete { key: vec![1] }]);
    assert_eq!(embedded.submit(transaction, WhenFull::Wait), Err(NotQueued::Closed));
    assert!(verdict.recv().is_err());
    assert!(shared.opened.read().database.is_none());
}
