//! The storage file itself: made private, opened, and what its errors mean to an operator.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError};

use crate::model::Fault;

/// Memory redb may use to cache pages, in bytes.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// How the open file becomes a database; tests put failures in between.
type Mount = Box<dyn Fn(&Builder, File) -> Result<Database, DatabaseError> + Send + Sync>;

/// Whether an absent file is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum IfAbsent {
    /// Made, with mode 0600.
    Make,
    /// An error: it was there before, and a new one would pass for an empty store.
    Refuse,
}

/// A storage file by its path.
pub(super) struct StorageFile {
    path: PathBuf,
    mount: Mount,
}

impl StorageFile {
    pub(super) fn new(path: &Path) -> StorageFile {
        StorageFile::with_mount(path, Box::new(|builder, file| builder.create_with_backend(FileBackend::new(file)?)))
    }

    pub(super) fn with_mount(path: &Path, mount: Mount) -> StorageFile {
        StorageFile { path: path.to_owned(), mount }
    }

    /// Opens the database in it.
    pub(super) fn open(&self, if_absent: IfAbsent) -> Result<Database, redb::Error> {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        let existing = OpenOptions::new().read(true).write(true).open(&self.path);
        match existing {
            Err(error) if error.kind() == ErrorKind::NotFound && if_absent == IfAbsent::Make => {
                let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&self.path)?;
                let database = (self.mount)(&builder, made)?;
                sync_folder_of(&self.path)?;
                Ok(database)
            }
            existing => {
                let file = existing?;
                if !file.metadata()?.is_file() {
                    return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file").into());
                }
                Ok((self.mount)(&builder, file)?)
            }
        }
    }

    /// What happened to the file, and what to do.
    pub(super) fn fault(&self, happened: &str, error: &redb::Error) -> Fault {
        let advice = match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
                "another process has it open: stop that one, or give this one another path".to_owned()
            }
            redb::Error::Corrupted(detail) => format!("it is damaged ({detail}); {RESTORE}"),
            redb::Error::RepairAborted => format!("it is damaged; {RESTORE}"),
            redb::Error::UpgradeRequired(version) => {
                format!("its format {version} is older than this Keyway reads; {RESTORE}")
            }
            redb::Error::Io(error) => io_advice(error),
            other => format!("{other}; see the log, and restart Keyway if it lasts"),
        };
        Fault::Unavailable { what: format!("the storage file {} {happened}: {advice}", self.path.display()) }
    }
}

impl std::fmt::Display for StorageFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path.display().fmt(f)
    }
}

const RESTORE: &str = "nothing was changed: restore it from a backup";

fn io_advice(error: &io::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
            return format!("it is damaged or no storage file ({error}); {RESTORE}");
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "make room on that disk; Keyway then goes on by itself"
        }
        ErrorKind::ReadOnlyFilesystem => "make that file system writable; Keyway then goes on by itself",
        ErrorKind::PermissionDenied => "let Keyway's user read and write it",
        ErrorKind::NotFound => "make its folder, and see that nothing removes the file",
        _ => "see to that disk; Keyway tries again at the next request",
    };
    format!("{error}; {advice}")
}

/// Makes the name of a new file durable.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}
