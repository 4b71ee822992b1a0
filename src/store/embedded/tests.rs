//! What the file does when the disk fails, and when somebody reaches below the barrier.

use std::ops::Bound;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use super::*;
use crate::config::Storage;
use crate::model::Namespace;
use crate::pace::Pace;
use crate::store::{KeyFile, RecordKey, Store, Write, name};

/// What befalls the disk.
#[derive(Debug)]
struct Trouble {
    /// It has room up to this offset.
    room_bytes: AtomicU64,
    /// It takes no write.
    is_read_only: AtomicBool,
    /// After so many more writes and syncs it is gone.
    steps_left: AtomicI64,
}

#[derive(Debug)]
struct Disk {
    file: FileBackend,
    trouble: Arc<Trouble>,
}

impl Disk {
    fn step(&self, end: u64) -> std::io::Result<()> {
        if self.trouble.steps_left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(std::io::ErrorKind::NotConnected.into());
        }
        if self.trouble.is_read_only.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::ReadOnlyFilesystem.into());
        }
        if end > self.trouble.room_bytes.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        Ok(())
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
        self.step(len)?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.step(0)?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.step(offset + data.len() as u64)?;
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
    folder: tempfile::TempDir,
    path: PathBuf,
    trouble: Arc<Trouble>,
}

impl Site {
    fn new() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.redb");
        let trouble = Trouble {
            room_bytes: AtomicU64::new(u64::MAX),
            is_read_only: AtomicBool::new(false),
            steps_left: AtomicI64::new(i64::MAX),
        };
        Site { folder, path, trouble: Arc::new(trouble) }
    }

    fn embedded(&self) -> Embedded {
        let trouble = Arc::clone(&self.trouble);
        let file = StorageFile::with_mount(
            &self.path,
            Box::new(move |builder, file| {
                builder.create_with_backend(Disk { file: FileBackend::new(file)?, trouble: Arc::clone(&trouble) })
            }),
        );
        Embedded::start(file, Pace::default()).unwrap()
    }

    fn store(&self) -> Store {
        let seal = std::sync::Arc::new(KeyFile::new(&self.folder.path().join("seal.key")));
        let store = Store::over(Box::new(self.embedded()), seal, None).unwrap();
        if !store.is_initialized() {
            store.initialize().unwrap();
        }
        store
    }

    /// The store as it is found after a crash now.
    fn after_crash(&self) -> Store {
        let copy = self.folder.path().join("crashed.redb");
        std::fs::copy(&self.path, &copy).unwrap();
        let seal = Box::new(KeyFile::new(&self.folder.path().join("seal.key")));
        Store::open(&Storage::Redb { path: copy }, seal).unwrap()
    }
}

fn names(store: &Store) -> Vec<String> {
    store.list(&Namespace::root(), "c", None, 100).unwrap()
}

fn put(name: &str) -> Write {
    Write::Put { key: key(name), version: 1, value: name.into() }
}

fn key(name: &str) -> RecordKey {
    RecordKey::new(&Namespace::root(), "c", name)
}

#[test]
fn a_full_disk_is_told_to_every_waiter_and_stops_no_reader() {
    let site = Site::new();
    let store = site.store();
    store.commit_now(vec![put("before")]).unwrap();
    site.trouble.room_bytes.store(std::fs::metadata(&site.path).unwrap().len(), Ordering::SeqCst);
    let threads: Vec<_> = (0..8)
        .map(|index| {
            let store = store.clone();
            let large = vec![0; 8 * 1024 * 1024];
            let large = Write::Put { key: key(&format!("large{index}")), version: 1, value: large };
            std::thread::spawn(move || store.commit_now(vec![put(&format!("small{index}")), large]))
        })
        .collect();
    for thread in threads {
        let fault = thread.join().unwrap().unwrap_err();
        assert!(matches!(fault, Fault::Unavailable { .. }));
        assert!(fault.to_string().contains("records.redb"), "{fault}");
        assert!(fault.to_string().contains("make room on that disk"), "{fault}");
    }
    assert!(store.stats().failures > 0);
    assert_eq!(names(&store), ["before"]);

    // With room again it goes on, without a restart.
    site.trouble.room_bytes.store(u64::MAX, Ordering::SeqCst);
    store.commit_now(vec![put("after")]).unwrap();
    assert_eq!(names(&store), ["after", "before"]);
}

#[test]
fn a_disk_that_became_read_only_is_told_and_its_records_are_read() {
    let site = Site::new();
    let store = site.store();
    store.commit_now(vec![put("before")]).unwrap();
    site.trouble.is_read_only.store(true, Ordering::SeqCst);
    let fault = store.commit_now(vec![put("refused")]).unwrap_err();
    assert!(fault.to_string().contains("make that file system writable"), "{fault}");
    site.trouble.is_read_only.store(false, Ordering::SeqCst);
    store.commit_now(vec![put("after")]).unwrap();
    assert_eq!(names(&store), ["after", "before"]);
}

#[test]
fn a_crash_at_any_step_of_a_commit_leaves_all_of_it_or_nothing() {
    let mut kept = Vec::new();
    for steps in 0.. {
        let site = Site::new();
        let store = site.store();
        store.commit_now(vec![put("before")]).unwrap();
        site.trouble.steps_left.store(steps, Ordering::SeqCst);
        let answer = store.commit_now((0..20).map(|index| put(&format!("{index}"))).collect());
        let found = names(&site.after_crash()).len();
        assert!(found == 1 || found == 21, "{found} after {steps} steps");
        assert!(answer.is_err() || found == 21, "answered, but lost after {steps} steps");
        kept.push(found == 21);
        if answer.is_ok() {
            break;
        }
    }
    assert!(!kept[0] && kept.len() > 3, "{kept:?}");
}

#[test]
fn a_file_removed_from_under_the_store_is_not_replaced_by_an_empty_one() {
    let site = Site::new();
    let store = site.store();
    std::fs::remove_file(&site.path).unwrap();
    site.trouble.steps_left.store(0, Ordering::SeqCst);
    store.commit_now(vec![put("a")]).unwrap_err();
    site.trouble.steps_left.store(i64::MAX, Ordering::SeqCst);
    let fault = store.commit_now(vec![put("b")]).unwrap_err();
    assert!(fault.to_string().contains("see that nothing removes the file"), "{fault}");
    assert!(!site.path.exists());
}

#[test]
fn records_altered_or_swapped_below_the_barrier_are_refused() {
    let site = Site::new();
    let store = site.store();
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

    let store = site.store();
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
