//! One storage file in the place of another, with a way back: until the new one has proven itself, the old one lies beside it.
//!
//! The file `keyway.redb` has these beside it: `keyway.redb.restored-…` while a store is made of a snapshot; then
//! `keyway.redb.replaced`, the store from before, until the one in its place has been opened and serves. Found at a start, that
//! one goes back: nobody was told that the restore went well. So whenever the power fails, one of the two is whole in its place.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::barrier::random;
use super::place::Place;
use super::restore::Restored;
use super::storage_file::{EARLY, folder_of, sync_folder_of};
use crate::model::Fault;

const NEW: &str = ".restored-";
const REPLACED: &str = ".replaced";
/// What a restore that was undone at a start had put in place.
const UNFINISHED: &str = ".unfinished";

/// A store that has taken the place of another, which is kept. Dropped without a word, it is undone at the next start.
pub struct Replaced {
    place: PathBuf,
    replaced: PathBuf,
    /// Locked as long as it is not decided, so that no other process decides.
    _old: File,
}

impl Restored {
    /// Takes the place of the store's file, durably. Nobody may have that open.
    ///
    /// # Errors
    /// All is as before.
    pub fn put_in_place(self) -> Result<Replaced, Fault> {
        let (place, replaced) = (self.place.clone(), replaced_beside(&self.place));
        let failed = |error: io::Error| Fault::Unavailable {
            what: format!(
                "{} cannot be put in the place of {}, which stays: {error}",
                self.new.display(),
                place.display()
            ),
        };
        let old = File::open(&place).map_err(failed)?;
        lock(&old, &place)?;
        std::fs::hard_link(&place, &replaced).map_err(failed)?;
        // The old one has its other name for good before it loses its own.
        let done = sync_folder_of(&place).and_then(|()| std::fs::rename(&self.new, &place));
        let replaced = Replaced { place: place.clone(), replaced, _old: old };
        match done.and_then(|()| sync_folder_of(&place)) {
            Ok(()) => Ok(replaced),
            Err(error) => {
                replaced.undo()?;
                Err(failed(error))
            }
        }
    }
}

impl Replaced {
    /// Lets the old store go. Blocks for the disk.
    ///
    /// # Errors
    /// It is there yet, and [`Replaced::undo`] puts it back.
    pub fn keep(&self) -> Result<(), Fault> {
        std::fs::remove_file(&self.replaced).map_err(|error| Fault::Unavailable {
            what: format!("{}, the store from before, cannot be removed: {error}", self.replaced.display()),
        })?;
        if let Err(error) = sync_folder_of(&self.place) {
            tracing::error!(%error, "the restore is done, but a power failure now may yet undo it: see to the disk");
        }
        Ok(())
    }

    /// Puts the old store back. Nobody may have the new one open. Blocks for the disk.
    pub fn undo(self) -> Result<(), Fault> {
        put_back(&self.replaced, &self.place).map_err(|error| Fault::Unavailable {
            what: format!(
                "{}, the store from before, cannot be put back in its place: {error}; stop Keyway, and rename it to {}",
                self.replaced.display(),
                self.place.display()
            ),
        })
    }
}

impl Place {
    /// Undoes a restore that was cut short, and removes what it left. To be called before the store is opened. Blocks for the
    /// disk.
    pub fn recover(&self) -> Result<(), Fault> {
        let Some(place) = self.path() else { return Ok(()) };
        remove_leftovers(place);
        let replaced = replaced_beside(place);
        let old = match File::open(&replaced) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(|error| unsettled(&replaced, &error))?,
        };
        lock(&old, place)?;
        undo_at_start(&replaced, place).map_err(|error| unsettled(&replaced, &error))
    }
}

/// What may be of somebody's, who has put it there meanwhile, is kept.
fn undo_at_start(replaced: &Path, place: &Path) -> io::Result<()> {
    let mut kept = None;
    if !is_same(replaced, place)? && place.try_exists()? {
        let aside = with(place, UNFINISHED);
        std::fs::rename(place, &aside)?;
        kept = Some(aside);
    }
    put_back(replaced, place)?;
    match kept {
        Some(aside) => tracing::warn!(
            store = %place.display(), remove = %aside.display(),
            "a restore was cut short: the store is as it was before, and what was to take its place may be removed"
        ),
        None => tracing::warn!(store = %place.display(), "a restore was cut short before it changed anything"),
    }
    Ok(())
}

fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let of = |path: &Path| match path.metadata() {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    Ok(of(one)? == of(other)?)
}

fn put_back(replaced: &Path, place: &Path) -> io::Result<()> {
    std::fs::rename(replaced, place)?;
    // Two names of one file both stay.
    match std::fs::remove_file(replaced) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    sync_folder_of(place)
}

fn lock(old: &File, place: &Path) -> Result<(), Fault> {
    let why = match old.try_lock() {
        Ok(()) => return Ok(()),
        Err(TryLockError::WouldBlock) => "another process has it open, or restores it: stop that one".to_owned(),
        Err(TryLockError::Error(error)) => error.to_string(),
    };
    Err(Fault::Unavailable { what: format!("the storage file {} cannot be locked: {why}", place.display()) })
}

fn unsettled(replaced: &Path, error: &io::Error) -> Fault {
    Fault::Unavailable {
        what: format!(
            "a restore was cut short, and {}, the store from before, cannot be put back: {error}",
            replaced.display()
        ),
    }
}

/// Removes files of stores that were being made when their process ended. Who makes one yet is told that it is gone.
pub(super) fn remove_leftovers(place: &Path) {
    let Some(name) = place.file_name().map(OsStr::as_encoded_bytes) else { return };
    let is_left = |file: &OsStr| {
        let tail = file.as_encoded_bytes().strip_prefix(name);
        tail.is_some_and(|tail| [NEW, EARLY].iter().any(|begin| tail.starts_with(begin.as_bytes())))
    };
    // What cannot be removed costs its room alone.
    let Ok(entries) = std::fs::read_dir(folder_of(place)) else { return };
    for entry in entries.flatten().filter(|entry| is_left(&entry.file_name())) {
        let is_removed = std::fs::remove_file(entry.path()).is_ok();
        tracing::warn!(file = %entry.path().display(), is_removed, "half a store, as one that was cut short has left it");
    }
}

/// A name beside the store's for another, which nobody else has.
pub(super) fn new_beside(place: &Path) -> Result<PathBuf, Fault> {
    let mut tail = [0; 8];
    random(&mut tail)?;
    Ok(with(place, &format!("{NEW}{}", hex::encode(tail))))
}

pub(super) fn replaced_beside(place: &Path) -> PathBuf {
    with(place, REPLACED)
}

fn with(place: &Path, tail: &str) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(tail);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Storage;
    use crate::store::seal::Ephemeral;

    struct Files {
        folder: tempfile::TempDir,
    }

    impl Files {
        /// With a file that passes for the store's.
        fn new() -> Files {
            let files = Files { folder: tempfile::tempdir().unwrap() };
            files.write("", "old");
            files
        }

        fn path(&self, tail: &str) -> PathBuf {
            with(&self.folder.path().join("keyway.redb"), tail)
        }

        fn write(&self, tail: &str, text: &str) {
            std::fs::write(self.path(tail), text).unwrap();
        }

        fn restored(&self) -> Restored {
            let new = new_beside(&self.path("")).unwrap();
            std::fs::write(&new, "new").unwrap();
            Restored { new, place: self.path(""), records: 0 }
        }

        fn recover(&self) -> Result<(), Fault> {
            let storage = Storage::Redb { path: self.path("") };
            Place::new(&storage, Box::new(Ephemeral::new().unwrap())).recover()
        }

        /// All there is, by what follows the store's name.
        fn all(&self) -> Vec<(String, String)> {
            let mut all: Vec<(String, String)> = std::fs::read_dir(self.folder.path())
                .unwrap()
                .map(|entry| entry.unwrap())
                .map(|entry| {
                    let name = entry.file_name().into_string().unwrap();
                    (name["keyway.redb".len()..].to_owned(), std::fs::read_to_string(entry.path()).unwrap())
                })
                .collect();
            all.sort();
            all
        }

        fn assert(&self, all: &[(&str, &str)]) {
            let found = self.all();
            let found: Vec<(&str, &str)> = found.iter().map(|(tail, text)| (tail.as_str(), text.as_str())).collect();
            assert_eq!(found, all);
        }
    }

    #[test]
    fn the_old_one_lies_beside_until_it_is_let_go_of_or_put_back() {
        let files = Files::new();
        let replaced = files.restored().put_in_place().unwrap();
        files.assert(&[("", "new"), (REPLACED, "old")]);
        let told = files.recover().unwrap_err().to_string();
        assert!(told.contains("another process"), "another process decides nothing meanwhile: {told}");
        let again = files.restored().put_in_place().map(drop);
        assert!(again.is_err(), "one restore at a time");
        replaced.undo().unwrap();
        files.assert(&[("", "old")]);
        files.restored().put_in_place().unwrap().keep().unwrap();
        files.assert(&[("", "new")]);
        files.recover().unwrap();
        files.assert(&[("", "new")]);
    }

    #[test]
    fn whatever_a_restore_was_cut_short_in_the_old_one_is_back_after_a_start() {
        let files = Files::new();
        // While the new one is made; what is of another name is none of ours.
        files.write(".restored-00ff", "half");
        files.write(".restored-00ff.new-aB3", "less");
        files.write(".new-x", "nothing");
        files.write(".restored", "another's");
        files.recover().unwrap();
        files.assert(&[("", "old"), (".restored", "another's")]);
        std::fs::remove_file(files.path(".restored")).unwrap();
        // The old one has both names.
        std::fs::hard_link(files.path(""), files.path(REPLACED)).unwrap();
        files.recover().unwrap();
        files.assert(&[("", "old")]);
        // The new one is in its place, and nobody knows yet whether it is any good.
        drop(files.restored().put_in_place().unwrap());
        files.recover().unwrap();
        files.assert(&[("", "old"), (UNFINISHED, "new")]);
        // Somebody has removed it.
        drop(files.restored().put_in_place().unwrap());
        std::fs::remove_file(files.path("")).unwrap();
        files.recover().unwrap();
        files.assert(&[("", "old"), (UNFINISHED, "new")]);
    }

    #[test]
    fn a_store_that_somebody_has_open_is_not_replaced() {
        let files = Files::new();
        let open = File::open(files.path("")).unwrap();
        open.lock().unwrap();
        assert!(files.restored().put_in_place().map(drop).unwrap_err().to_string().contains("cannot be locked"));
        files.assert(&[("", "old")]);
    }
}
