//! What is there after the power went. Of what a disk was told since it last said that all is safe, it may have kept any part,
//! torn between two sectors and in any order; of what it was told before that, everything.

#[path = "power_rotation_tests.rs"]
mod rotation;

use std::collections::BTreeMap;

use redb::StorageBackend;

use super::*;
use crate::model::Namespace;
use crate::pace::Pace;
use crate::store::{KeyFile, RecordKey, Store, Write};

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;
const COMMITS: usize = 12;

#[derive(Clone, Debug)]
enum Event {
    Length(u64),
    Written(u64, Vec<u8>),
    Synced,
    /// The database is made: only now has its file its name.
    Named,
    /// Somebody was told that a commit, of this number, is durable.
    Answered(usize),
}

/// A disk that remembers what was done to it.
#[derive(Debug, Default)]
struct Disk {
    content: Mutex<Vec<u8>>,
    history: Mutex<Vec<Event>>,
}

impl Disk {
    fn note(&self, event: Event) {
        self.history.lock().push(event);
    }
}

#[derive(Debug)]
struct Recorded(Arc<Disk>);

impl StorageBackend for Recorded {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.0.content.lock().len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let content = self.0.content.lock();
        let offset = offset as usize;
        let part = content.get(offset..offset + out.len()).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(part);
        Ok(())
    }
    fn set_len(&self, length: u64) -> std::io::Result<()> {
        self.0.note(Event::Length(length));
        self.0.content.lock().resize(length as usize, 0);
        Ok(())
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.0.note(Event::Synced);
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.note(Event::Written(offset, data.to_vec()));
        put_at(&mut self.0.content.lock(), offset as usize, data);
        Ok(())
    }
}

fn put_at(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}

/// Which of the writes that no sync covers are kept.
#[derive(Clone, Copy, Debug)]
enum Kept {
    All,
    Nothing,
    /// Each sector by chance.
    Some(u64),
}

impl Kept {
    fn next(&mut self) -> bool {
        match self {
            Kept::All => true,
            Kept::Nothing => false,
            Kept::Some(state) => {
                // SplitMix64.
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                (mixed ^ (mixed >> 27)) & 1 == 1
            }
        }
    }
}

/// What the disk holds that kept so much of what was done `since` it was as `safe` says.
fn after_power_loss(safe: &[u8], since: &[Event], mut kept: Kept) -> Vec<u8> {
    let mut content = safe.to_vec();
    for event in since {
        match event {
            Event::Length(length) if kept.next() => content.resize(*length as usize, 0),
            Event::Written(offset, data) => {
                let (mut at, mut rest) = (*offset as usize, data.as_slice());
                while !rest.is_empty() {
                    let (sector, others) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
                    if kept.next() {
                        put_at(&mut content, at, sector);
                    }
                    (at, rest) = (at + sector.len(), others);
                }
            }
            _ => {}
        }
    }
    content
}

struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        Site { folder: tempfile::tempdir().unwrap() }
    }

    /// The store on this disk.
    fn store(&self, disk: &Arc<Disk>) -> Store {
        // The file is for its name only: the records are on the disk.
        let path = self.folder.path().join("records.redb");
        let disk = Arc::clone(disk);
        let mount = move |builder: &redb::Builder, mut file: std::fs::File| {
            std::io::Write::write_all(&mut file, b"on the disk")?;
            if !disk.content.lock().is_empty() {
                disk.note(Event::Named);
            }
            builder.create_with_backend(Recorded(Arc::clone(&disk)))
        };
        let embedded = Embedded::start(StorageFile::with_mount(&path, Box::new(mount)), Pace::default()).unwrap();
        let seal = std::sync::Arc::new(KeyFile::new(&self.folder.path().join("seal.key")));
        Store::over(Box::new(embedded), seal, None).unwrap()
    }

    /// The store on a disk with this content.
    fn found(&self, content: Vec<u8>) -> (Store, Arc<Disk>) {
        let disk = Arc::new(Disk { content: Mutex::new(content), ..Disk::default() });
        (self.store(&disk), disk)
    }

    /// Lets the power go at every event of `history`, and each time has `check` look at what is found: given the number of
    /// the events, the commits answered before, and the store.
    fn at_every_event(&self, history: &[Event], check: &mut dyn FnMut(&str, &[usize], &Store)) {
        let made = history.iter().position(|event| matches!(event, Event::Named)).unwrap();
        let mut safe = after_power_loss(&[], &history[..made], Kept::All);
        let (mut since, mut answered) = (made, Vec::new());
        for (at, event) in history.iter().enumerate().skip(made) {
            match event {
                Event::Answered(commit) => {
                    answered.push(*commit);
                    continue;
                }
                Event::Synced => {
                    safe = after_power_loss(&safe, &history[since..at], Kept::All);
                    since = at;
                }
                _ => {}
            }
            for kept in [Kept::Nothing, Kept::All, Kept::Some(at as u64), Kept::Some(!(at as u64))] {
                let (store, disk) = self.found(after_power_loss(&safe, &history[since..=at], kept));
                let place = format!("event {at} of {}, kept {kept:?}", history.len());
                check(&place, &answered, &store);
                if matches!(kept, Kept::Some(_)) && store.is_initialized() {
                    self.goes_on(&place, store, &disk);
                }
            }
        }
    }

    /// What was mended can be written to, and found again.
    fn goes_on(&self, place: &str, store: Store, disk: &Disk) {
        let before = records(&store);
        store.commit_now(vec![put("z", b"later")]).unwrap();
        let content = disk.content.lock().clone();
        drop(store);
        let mut found = records(&self.found(content).0);
        assert_eq!(found.remove("z").as_deref(), Some(&b"later"[..]), "{place}");
        assert_eq!(found, before, "{place}");
    }
}

type Records = BTreeMap<String, Vec<u8>>;

fn records(store: &Store) -> Records {
    let all = store.scan(&Namespace::root(), "c", None, 1000).unwrap();
    all.into_iter().map(|(name, record)| (name, record.value)).collect()
}

fn key(name: &str) -> RecordKey {
    RecordKey::new(&Namespace::root(), "c", name)
}

fn put(name: &str, value: &[u8]) -> Write {
    Write::Put { key: key(name), version: 1, value: value.to_vec() }
}

/// The changes of one commit: a record that each replaces, one of its own of some size, and one less of those before.
fn changes(commit: usize) -> Vec<Write> {
    let mut changes = vec![
        put("latest", commit.to_string().as_bytes()),
        put(&format!("own {commit}"), &vec![commit as u8; 1 + commit * 977 % 6000]),
    ];
    if let Some(earlier) = commit.checked_sub(3) {
        changes.push(Write::Delete { key: key(&format!("own {earlier}")) });
    }
    changes
}

/// What is there after each number of commits.
fn expected() -> Vec<Records> {
    let mut states = vec![Records::new()];
    for commit in 0..COMMITS {
        let mut state = states[commit].clone();
        for change in changes(commit) {
            match change {
                Write::Put { key, value, .. } | Write::Create { key, value, .. } => state.insert(key.name, value),
                Write::Delete { key } => state.remove(&key.name),
            };
        }
        states.push(state);
    }
    states
}

#[test]
fn what_was_answered_is_there_and_nothing_is_there_by_half_wherever_the_power_goes() {
    let (site, disk) = (Site::new(), Arc::new(Disk::default()));
    let store = site.store(&disk);
    store.initialize().unwrap();
    disk.note(Event::Answered(0));
    for commit in 0..COMMITS {
        store.commit_now(changes(commit)).unwrap();
        disk.note(Event::Answered(commit + 1));
    }
    // Before the store is closed: nobody closes it when the power goes.
    let history = disk.history.lock().clone();
    let expected = expected();
    let mut seen = [0; COMMITS + 1];
    site.at_every_event(&history, &mut |place, answered, store| {
        if !store.is_initialized() {
            assert!(answered.is_empty(), "{place}: the root key is lost");
            return;
        }
        let found = records(store);
        let commits = expected.iter().position(|state| *state == found);
        let commits = commits.unwrap_or_else(|| panic!("{place}: half a commit: {:?}", found.keys()));
        assert!(answered.last().is_none_or(|last| commits >= *last), "{place}: {commits} commits of {answered:?}");
        seen[commits] += 1;
    });
    assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
}

#[test]
fn commits_that_share_a_group_are_each_there_whole_or_not_at_all() {
    const THREADS: usize = 4;
    const EACH: usize = 4;
    let (site, disk) = (Site::new(), Arc::new(Disk::default()));
    let store = site.store(&disk);
    store.initialize().unwrap();
    let name = |commit: usize, part: usize| format!("{commit}/{part}");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, disk) = (&store, &disk);
            scope.spawn(move || {
                for commit in (0..EACH).map(|each| thread * EACH + each) {
                    let parts = (0..3).map(|part| put(&name(commit, part), &[commit as u8; 700]));
                    store.commit_now(parts.collect()).unwrap();
                    disk.note(Event::Answered(commit));
                }
            });
        }
    });
    let history = disk.history.lock().clone();
    site.at_every_event(&history, &mut |place, answered, store| {
        if !store.is_initialized() {
            assert!(answered.is_empty(), "{place}: the root key is lost");
            return;
        }
        let found = records(store);
        let is_there = |commit| match (0..3).filter(|part| found.contains_key(&name(commit, *part))).count() {
            0 => false,
            3 => true,
            parts => panic!("{place}: {parts} parts of commit {commit}"),
        };
        for commit in 0..THREADS * EACH {
            assert!(is_there(commit) || !answered.contains(&commit), "{place}: commit {commit} is lost");
            // A thread's next commit begins after its last was answered.
            let follows = commit % EACH > 0 && is_there(commit);
            assert!(!follows || is_there(commit - 1), "{place}: commit {commit} without the one before");
        }
    });
}
