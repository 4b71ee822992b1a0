//! The seal that is a file: 256 random bits, readable by Keyway's own user only.
//!
//! Two lines of text: `keyway seal key v1` and 64 hexadecimal digits. Whoever has this file and the storage file has every
//! record; whoever lost this file has none. So it is kept apart from the backups of the storage file.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use zeroize::Zeroizing;

use super::seal::{RootKeyWrap, SealNotes, WrappingKey};
use super::storage_file::{folder_of, sync_folder_of};
use crate::model::{Fault, Secret};

const HEAD: &str = "keyway seal key v1\n";
/// More than a key file has: a longer one is not read to its end.
const READ_BYTES_MAX: u64 = 256;

/// A key file by its path.
pub struct KeyFile {
    path: PathBuf,
    /// This process made the file: if initialisation failed after that, it may use the file when it tries again.
    made: AtomicBool,
}

impl KeyFile {
    /// The file at this path, which need not exist before initialisation.
    pub fn new(path: &Path) -> KeyFile {
        KeyFile { path: path.to_owned(), made: AtomicBool::new(false) }
    }

    /// Makes the file under another name, completes it on the disk, then gives it its name, unless that is taken.
    fn make(&self, key: &WrappingKey) -> Result<(), Fault> {
        let failed = |error: std::io::Error| {
            self.fault(&format!(
                "cannot be written ({error}): make its folder writable for Keyway's user, and see that the disk has room"
            ))
        };
        let mut file = tempfile::Builder::new()
            .prefix(".keyway-seal-")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(folder_of(&self.path))
            .map_err(failed)?;
        let digits = Zeroizing::new(hex::encode(key.expose()));
        file.write_all(HEAD.as_bytes()).and_then(|()| file.write_all(digits.as_bytes())).map_err(failed)?;
        file.write_all(b"\n").and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        match file.persist_noclobber(&self.path) {
            Ok(_) => {}
            Err(refused) if refused.error.kind() == ErrorKind::AlreadyExists => {
                return Err(self.fault(
                    "exists already while the store is not initialized, so it may guard another store: check the paths \
                     of storage and seal; have its store made of a snapshot, with Keyway stopped, by `keyway operator init \
                     -snapshot`; or move the file away (do not delete it)",
                ));
            }
            Err(refused) => return Err(failed(refused.error)),
        }
        self.made.store(true, Ordering::Relaxed);
        sync_folder_of(&self.path).map_err(failed)
    }

    fn read(&self) -> Result<WrappingKey, Fault> {
        let mut file = OpenOptions::new()
            .read(true)
            // A FIFO in its place must not block the start.
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(&self.path)
            .map_err(|error| match error.kind() {
                ErrorKind::NotFound => self.fault(
                    "is missing: restore it from its backup; without it no record of the storage file can be read",
                ),
                _ => self.fault(&format!("cannot be read ({error}): let Keyway's user own it, with mode 0600")),
            })?;
        self.check_private(&file)?;
        let mut text = Zeroizing::new(String::with_capacity(READ_BYTES_MAX as usize));
        Read::by_ref(&mut file)
            .take(READ_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| self.fault(&format!("cannot be read ({error})")))?;
        parse(&text).ok_or_else(|| {
            self.fault("does not hold a Keyway seal key: restore it from its backup, or check the path of the seal")
        })
    }

    fn check_private(&self, file: &File) -> Result<(), Fault> {
        let metadata = file.metadata().map_err(|error| self.fault(&format!("cannot be examined ({error})")))?;
        if !metadata.is_file() {
            return Err(self.fault("is not a regular file: check the path of the seal"));
        }
        let uid = rustix::process::geteuid().as_raw();
        if metadata.uid() != uid {
            return Err(self.fault(&format!(
                "belongs to uid {}, but Keyway runs as uid {uid}: give it to that user, and make sure nobody else could \
                 have read it",
                metadata.uid()
            )));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(self.fault(&format!(
                "has mode {mode:04o}, so others may read or change it: set it to 0600, and if others may have read it, \
                 treat the records as known to them"
            )));
        }
        Ok(())
    }

    fn fault(&self, what: &str) -> Fault {
        Fault::Unavailable { what: format!("the seal key file {} {what}", self.path.display()) }
    }
}

impl RootKeyWrap for KeyFile {
    fn kind(&self) -> &'static str {
        "file"
    }

    fn wrap(&self, root_key: &Secret, _: &dyn SealNotes) -> Result<Vec<u8>, Fault> {
        if self.made.load(Ordering::Relaxed) {
            return self.read()?.wrap(root_key);
        }
        let key = WrappingKey::generate()?;
        self.make(&key)?;
        key.wrap(root_key)
    }

    fn wrap_again(&self, root_key: &Secret, _: &dyn SealNotes) -> Result<Vec<u8>, Fault> {
        self.read()?.wrap(root_key)
    }

    fn open(&self, wrapped: &[u8], _: &dyn SealNotes) -> Result<Secret, Fault> {
        self.read()?.open(wrapped).ok_or_else(|| {
            self.fault(
                "does not open this store: it is the key of another one, or one of the two files was altered; restore the \
                 pair that belongs together (nothing was changed)",
            )
        })
    }
}

fn parse(text: &str) -> Option<WrappingKey> {
    let digits = text.strip_prefix(HEAD)?.trim_end();
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, &mut *bytes).ok()?;
    Some(WrappingKey::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::seal::NoNotes;

    fn root_key() -> Secret {
        Secret::new([5; 32])
    }

    fn said(result: Result<impl Sized, Fault>) -> String {
        match result {
            Ok(_) => panic!("expected a fault"),
            Err(fault) => fault.to_string(),
        }
    }

    #[test]
    fn the_file_is_private_and_opens_what_it_wrapped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        let wrapped = KeyFile::new(&path).wrap(&root_key(), &NoNotes).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(KeyFile::new(&path).open(&wrapped, &NoNotes).unwrap().expose(), root_key().expose());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_there_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        KeyFile::new(&path).wrap(&root_key(), &NoNotes).unwrap();
        let before = std::fs::read(&path).unwrap();
        let text = said(KeyFile::new(&path).wrap(&root_key(), &NoNotes));
        assert!(text.contains("seal.key exists already"), "{text}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn who_made_the_file_may_try_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(&folder.path().join("seal.key"));
        file.wrap(&root_key(), &NoNotes).unwrap();
        let wrapped = file.wrap(&root_key(), &NoNotes).unwrap();
        assert_eq!(file.open(&wrapped, &NoNotes).unwrap().expose(), root_key().expose());
    }

    #[test]
    fn wider_permissions_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        let file = KeyFile::new(&path);
        let wrapped = file.wrap(&root_key(), &NoNotes).unwrap();
        for mode in [0o640, 0o604, 0o620] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(said(file.open(&wrapped, &NoNotes)).contains(&format!("has mode {mode:04o}")));
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(file.open(&wrapped, &NoNotes).is_ok());
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        let file = KeyFile::new(&path);
        let wrapped = file.wrap(&root_key(), &NoNotes).unwrap();
        // Only root can give a file away.
        if std::os::unix::fs::chown(&path, Some(4242), None).is_ok() {
            assert!(said(file.open(&wrapped, &NoNotes)).contains("belongs to uid 4242"));
        }
    }

    #[test]
    fn a_missing_wrong_or_garbled_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one.key"), folder.path().join("two.key"));
        let wrapped = KeyFile::new(&one).wrap(&root_key(), &NoNotes).unwrap();
        assert!(said(KeyFile::new(&two).open(&wrapped, &NoNotes)).contains("two.key is missing"));
        KeyFile::new(&two).wrap(&root_key(), &NoNotes).unwrap();
        assert!(said(KeyFile::new(&two).open(&wrapped, &NoNotes)).contains("two.key does not open this store"));
        for garbled in ["", "keyway seal key v1\n", "keyway seal key v1\n00", &"x".repeat(1000)] {
            std::fs::write(&two, garbled).unwrap();
            assert!(said(KeyFile::new(&two).open(&wrapped, &NoNotes)).contains("two.key does not hold"), "{garbled}");
        }
        assert!(said(KeyFile::new(folder.path()).open(&wrapped, &NoNotes)).contains("not a regular file"));
        assert!(
            said(KeyFile::new(&folder.path().join("no/such")).wrap(&root_key(), &NoNotes))
                .contains("cannot be written")
        );
    }
}
