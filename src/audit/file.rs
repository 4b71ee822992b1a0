//! A file that records are appended to: one line each, and whole lines but perhaps the last.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::queue::Line;
use super::sink::{Sink, Written, write_lines};

/// The file of a device.
pub(super) struct File {
    path: PathBuf,
    /// Its permission bits; none: those it has, or 0600 for a new one.
    mode: Option<u32>,
    open: Option<Open>,
}

struct Open {
    file: std::fs::File,
    /// Whether its last bytes are in the middle of a line.
    is_torn: bool,
}

impl File {
    pub(super) fn new(path: PathBuf, mode: Option<u32>) -> File {
        File { path, mode, open: None }
    }

    /// What is open, or opened now. A file that was deleted is not written to: nobody could read that.
    fn current(&mut self) -> Result<&mut Open, String> {
        let is_there = |open: &Open| open.file.metadata().is_ok_and(|known| known.nlink() > 0);
        let open = match self.open.take().filter(is_there) {
            Some(open) => open,
            None => open(&self.path, self.mode)?,
        };
        Ok(self.open.insert(open))
    }
}

impl Sink for File {
    fn write(&mut self, lines: &[Line]) -> Written {
        let open = match self.current() {
            Ok(open) => open,
            Err(failure) => return Written { lines: 0, failure: Some(failure), is_of_line: false },
        };
        if open.is_torn {
            // What was cut short is a line of its own, and not the beginning of the next one.
            if let Err(error) = open.file.write_all(b"\n") {
                return Written { lines: 0, failure: Some(error.to_string()), is_of_line: false };
            }
            open.is_torn = false;
        }
        let is_torn = &mut open.is_torn;
        write_lines(&mut open.file, lines, |torn| *is_torn = torn)
    }

    fn reopen(&mut self) -> Result<(), String> {
        self.open = Some(open(&self.path, self.mode)?);
        Ok(())
    }
}

fn open(path: &Path, mode: Option<u32>) -> Result<Open, String> {
    let failed = |error: std::io::Error| error.to_string();
    let (no_follow, at_once) = (rustix::fs::OFlags::NOFOLLOW, rustix::fs::OFlags::NONBLOCK);
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(mode.unwrap_or(0o600))
        // No link is followed, and whatever waits there for a reader, such as a FIFO, is not waited for.
        .custom_flags((no_follow | at_once).bits().cast_signed())
        .open(path)
        .map_err(failed)?;
    let known = file.metadata().map_err(failed)?;
    if !known.is_file() {
        return Err("it is no regular file".to_owned());
    }
    check_begins_as_records_do(&file, known.len())?;
    if let Some(mode) = mode.filter(|mode| known.permissions().mode() & 0o7777 != *mode) {
        file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    let is_torn = known.len() > 0 && last_byte(&file).map_err(failed)? != Some(b'\n');
    Ok(Open { file, is_torn })
}

/// Refuses what is somebody's file of another kind, such as the daemon's own store or a key.
fn check_begins_as_records_do(mut file: &std::fs::File, length: u64) -> Result<(), String> {
    let mut begin = Vec::with_capacity(2);
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(2).read_to_end(&mut begin));
    read.map_err(|error| error.to_string())?;
    // A record that was cut short may have been the first.
    match length == 0 || begin == b"{\"" || begin == b"{" {
        true => Ok(()),
        false => Err("it holds something else than audit records: name another file".to_owned()),
    }
}

fn last_byte(mut file: &std::fs::File) -> std::io::Result<Option<u8>> {
    let mut last = Vec::with_capacity(1);
    file.seek(SeekFrom::End(-1))?;
    file.take(1).read_to_end(&mut last)?;
    Ok(last.first().copied())
}
