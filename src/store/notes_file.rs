//! What a seal has to remember before there is a store to keep it in: a file beside the place of the store.

use std::fs::Permissions;
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::seal::SealNotes;
use super::storage_file::{folder_of, sync_folder_of};
use crate::model::Fault;

const TAIL: &str = ".seal-notes";
/// Longer than any note: a longer file is not read to its end.
const READ_BYTES_MAX: u64 = 4096;

/// Such a file. It comes to be with the first note.
pub(super) struct NotesFile {
    path: PathBuf,
    /// What counts as long as there is no file.
    first: Mutex<Option<Vec<u8>>>,
}

impl NotesFile {
    pub(super) fn beside(place: &Path) -> NotesFile {
        let mut path = place.as_os_str().to_owned();
        path.push(TAIL);
        NotesFile { path: path.into(), first: Mutex::default() }
    }

    /// What was noted before, where no file says otherwise.
    pub(super) fn begin_with(&self, note: Option<&[u8]>) {
        *self.first.lock() = note.map(<[u8]>::to_vec);
    }

    /// Removes the file: its content is kept elsewhere.
    pub(super) fn remove(&self) {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(file = %self.path.display(), %error, "this file is of no more use, and may be removed");
            }
            _ => {}
        }
    }

    fn failed(&self, error: &io::Error) -> Fault {
        Fault::Unavailable {
            what: format!(
                "{}, where it is noted which PIN the seal's token has refused, cannot be read or written: {error}",
                self.path.display()
            ),
        }
    }
}

impl SealNotes for NotesFile {
    fn read(&self) -> Result<Option<Vec<u8>>, Fault> {
        let file = match std::fs::File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(self.first.lock().clone()),
            opened => opened.map_err(|error| self.failed(&error))?,
        };
        let mut note = Vec::new();
        file.take(READ_BYTES_MAX).read_to_end(&mut note).map_err(|error| self.failed(&error))?;
        Ok(Some(note))
    }

    fn write(&self, note: &[u8]) -> Result<(), Fault> {
        let written = || {
            let mut file = tempfile::Builder::new()
                .prefix(".keyway-notes-")
                .permissions(Permissions::from_mode(0o600))
                .tempfile_in(folder_of(&self.path))?;
            file.write_all(note)?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            sync_folder_of(&self.path)
        };
        written().map_err(|error: io::Error| self.failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_note_counts_until_another_is_written_which_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("keyway.redb");
        let notes = NotesFile::beside(&place);
        assert_eq!(notes.read().unwrap(), None);
        notes.begin_with(Some(b"one"));
        assert_eq!(notes.read().unwrap().unwrap(), b"one");
        notes.write(b"two").unwrap();
        let later = NotesFile::beside(&place);
        later.begin_with(Some(b"one"));
        assert_eq!(later.read().unwrap().unwrap(), b"two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        later.remove();
        assert_eq!(later.read().unwrap().unwrap(), b"one");
        let nowhere = NotesFile::beside(&folder.path().join("no/such"));
        assert!(nowhere.write(b"x").unwrap_err().to_string().contains("which PIN"));
    }
}
