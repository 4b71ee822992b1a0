//! Keys behind a PKCS#11 module that runs in a process of its own: its crash, abort or hang is a worker's end and no more.
//!
//! A worker is this same program under a subcommand that nobody types. [`ProcessBackend`] starts one for every device it
//! opens; it loads the library with the PKCS#11 backend, and serves one control pair and one pair for each session until
//! the control pair closes. A PIN crosses that pair, and stands in no argument and no environment. Several workers of one
//! token are several devices: this backend knows nothing of their number.

mod child;
mod codec;
mod device;
mod fault;
pub mod memory;
pub mod message;
mod pair;
mod session;
#[cfg(test)]
mod tests;
pub mod worker;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Backend, BackendError, Device};
use crate::config::KmsLibrary;
use crate::model::TokenSelector;
use crate::telemetry::LibraryMetrics;
use child::Process;

/// The subcommand of a worker.
const SUBCOMMAND: &str = "pkcs11-worker";
/// This program, even if its file has been replaced meanwhile: both ends of a pair must be the same.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// One KMS library, its code in worker processes.
pub struct ProcessBackend {
    library: KmsLibrary,
    program: PathBuf,
    open_limit: Duration,
    metrics: LibraryMetrics,
}

impl ProcessBackend {
    /// The library's backend. No worker is started before the first device is opened. One that takes longer than
    /// `open_limit` to open its token, to log in or to open a session is killed.
    pub fn new(library: &KmsLibrary, open_limit: Duration, metrics: LibraryMetrics) -> ProcessBackend {
        ProcessBackend { metrics, ..ProcessBackend::running(Path::new(THIS_PROGRAM), library, open_limit) }
    }

    /// The same, its workers run by the `keyway` program at this path, and nothing counted: for programs that use Keyway as
    /// a library.
    pub fn running(program: &Path, library: &KmsLibrary, open_limit: Duration) -> ProcessBackend {
        // A worker is told the PIN when it is to log in, so none is kept here.
        let library = KmsLibrary { pin: None, ..library.clone() };
        ProcessBackend { library, program: program.to_owned(), open_limit, metrics: LibraryMetrics::default() }
    }
}

impl Backend for ProcessBackend {
    fn open(&self, token: &TokenSelector) -> Result<Box<dyn Device>, BackendError> {
        let settings = message::Settings {
            library: self.library.library.clone(),
            profile: self.library.profile,
            token: token.clone(),
            lock_memory: memory::is_locked(),
        };
        let process = Process::start(&self.program, &self.library, token);
        self.metrics.worker_started(&token.to_string(), process.is_ok());
        device::open(process?, settings, self.open_limit)
    }
}
