//! The log of calls, when it is switched on: one line per call.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use cryptoki_sys::CK_RV;
use parking_lot::Mutex;

use crate::call::About;
use crate::ckr;
use crate::function::Function;

/// `<folder>/calls.<pid>.log`.
#[derive(Default)]
pub(crate) struct Log {
    on: AtomicBool,
    file: Mutex<Option<File>>,
}

impl Log {
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// Where this process logs.
    pub(crate) fn path(folder: &Path) -> PathBuf {
        folder.join(format!("calls.{}.log", std::process::id()))
    }

    pub(crate) fn switch(&self, on: bool, folder: Option<&Path>) -> Result<(), String> {
        let mut file = self.file.lock();
        *file = match (on, folder) {
            (false, _) => None,
            (true, None) => return Err("there is no folder to log in".into()),
            (true, Some(folder)) => {
                let path = Log::path(folder);
                let opened = File::options().create(true).append(true).open(&path);
                Some(opened.map_err(|error| format!("{}: {error}", path.display()))?)
            }
        };
        self.on.store(on, Ordering::Release);
        Ok(())
    }

    /// Function, slot, session, answer, microseconds.
    pub(crate) fn write(&self, function: Function, about: &About, rv: CK_RV, nanoseconds: u64) {
        let slot = about.slot.map_or_else(|| "-".to_owned(), |slot| slot.to_string());
        let (name, session, answer) = (function.name(), about.session, ckr::name(rv));
        let line = format!("{name} {slot} {session} {answer} {:.1}\n", nanoseconds as f64 / 1000.0);
        if let Some(file) = &mut *self.file.lock() {
            // A log that cannot be written must not change what the caller sees.
            let _ = file.write_all(line.as_bytes());
        }
    }
}
