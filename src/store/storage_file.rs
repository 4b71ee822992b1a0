//! The storage file itself: made private, opened, and what its errors mean to an operator.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError};

use crate::model::Fault;

/// Memory redb may use to cache pages, in bytes.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// What follows the name of a file that is being made, before some letters by chance.
pub(super) const EARLY: &str = ".new-";

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

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the database in it.
    pub(super) fn open(&self, if_absent: IfAbsent) -> Result<Database, redb::Error> {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        let mut file = self.existing();
        if if_absent == IfAbsent::Make && file.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            self.make(&builder)?;
            file = self.existing();
        }
        let file = file?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file").into());
        }
        // redb would begin anew in it.
        if metadata.len() == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "it is empty").into());
        }
        Ok((self.mount)(&builder, file)?)
    }

    fn existing(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(&self.path)
    }

    /// Makes an empty database under another name, and gives it its own when the disk has it whole: half a database, as the
    /// power can leave one, passes for a damaged one. Where the name is taken meanwhile, that file stays.
    fn make(&self, builder: &Builder) -> Result<(), redb::Error> {
        let mut early = self.path.file_name().unwrap_or_default().to_owned();
        early.push(EARLY);
        let unnamed = tempfile::Builder::new()
            .prefix(&early)
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(folder_of(&self.path))?;
        drop((self.mount)(builder, unnamed.as_file().try_clone()?)?);
        unnamed.as_file().sync_all()?;
        match unnamed.persist_noclobber(&self.path) {
            Err(refused) if refused.error.kind() != ErrorKind::AlreadyExists => Err(refused.error.into()),
            _ => Ok(sync_folder_of(&self.path)?),
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

const RESTORE: &str = "nothing was changed: restore it from a backup, or move it away if nothing was ever stored in it";

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
    File::open(folder_of(path))?.sync_all()
}

/// The folder a file lies in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
