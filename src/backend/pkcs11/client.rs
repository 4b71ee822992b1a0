//! A module: loaded once per process, initialised when first used, and again only when nothing of it is in use.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use cryptoki_sys::CKR_OK;
use parking_lot::{Mutex, MutexGuard};

use super::class::{self, Function};
use super::fault::{self, NativeError};
use super::generation::{Generation, Generations, Renewal};
use super::return_value;
use super::table::Table;
use crate::backend::{BackendError, Fate};
use crate::config::Profile;
use crate::model::Fault;
use crate::telemetry::LibraryMetrics;

/// The modules of this process by their file. A module has one state per process, whoever loads it, so there must be one
/// owner of it.
static MODULES: LazyLock<Mutex<HashMap<PathBuf, Weak<Module>>>> = LazyLock::new(Mutex::default);

/// Longest wait for a turn.
const TURN_MAX: Duration = Duration::from_secs(1);

/// One module.
pub(super) struct Module {
    path: PathBuf,
    /// Loaded with the first generation, and never unloaded for another: many modules do not survive that.
    loaded: Mutex<Option<Table>>,
    generations: Generations<Table>,
    /// Of those who open a token.
    turn: Mutex<()>,
}

/// A module between `C_Initialize` and `C_Finalize`. Held by every device and session of it.
pub(super) type Initialized = Generation<Table>;

impl Module {
    /// The module at `path`, shared by all who name the same file.
    pub(super) fn at(path: &Path) -> Arc<Module> {
        // A file that is not there yet is known by the path as it was given.
        let file = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut modules = MODULES.lock();
        if let Some(module) = modules.get(&file).and_then(Weak::upgrade) {
            return module;
        }
        let module = Arc::new(Module {
            path: path.to_owned(),
            loaded: Mutex::default(),
            generations: Generations::default(),
            turn: Mutex::default(),
        });
        modules.insert(file, Arc::downgrade(&module));
        module
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for one's turn to open a token: two who do so at once hold the module both, and neither can renew it. Not for
    /// ever, should the other be inside a call that does not return.
    pub(super) fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        self.turn.try_lock_for(TURN_MAX)
    }

    /// The module, initialised.
    pub(super) fn initialized(
        &self,
        profile: Profile,
        metrics: &LibraryMetrics,
    ) -> Result<Arc<Initialized>, BackendError> {
        self.generations.current(|| self.initialize(profile, metrics))
    }

    /// Initialises the module anew, since modules list their tokens only then; unless something of it is in use, or it was
    /// so a short time ago: then it stays as it is. `mine` is the caller's own hold on it.
    pub(super) fn renew(
        &self,
        mine: Arc<Initialized>,
        profile: Profile,
        metrics: &LibraryMetrics,
    ) -> Result<Renewal<Table>, BackendError> {
        let library = self.path.display();
        let finalize = |table: Table| match table.setup.finalize() {
            CKR_OK => {}
            // Others did it already.
            rv if class::is_module_lost(rv) => {}
            // The next initialisation tells whether the module is of use.
            rv => {
                let error = return_value::name(rv);
                tracing::warn!(%library, error, "PKCS#11 library cannot be finalised");
            }
        };
        let renewal = self.generations.renew(mine, Instant::now(), finalize, || self.initialize(profile, metrics))?;
        if let Renewal::Done(generation) = &renewal {
            tracing::debug!(%library, generation = generation.number(), "PKCS#11 library was initialised anew");
        }
        Ok(renewal)
    }

    fn initialize(&self, profile: Profile, metrics: &LibraryMetrics) -> Result<Table, BackendError> {
        let initialized = self.call_initialize(profile);
        metrics.initialised(initialized.is_ok());
        initialized
    }

    fn call_initialize(&self, profile: Profile) -> Result<Table, BackendError> {
        let table = self.load()?;
        match fault::check(profile, Function::Initialize, table.setup.initialize()) {
            Ok(()) => Ok(table),
            Err(error) => Err(fault::at(&format!("PKCS#11 library {}", self.path.display()), error.error)),
        }
    }

    fn load(&self) -> Result<Table, BackendError> {
        let mut loaded = self.loaded.lock();
        if let Some(table) = &*loaded {
            return Ok(table.clone());
        }
        let table = Table::load(&self.path).map_err(|error| self.not_loaded(&error))?;
        Ok(loaded.insert(table).clone())
    }

    fn not_loaded(&self, error: &str) -> BackendError {
        let what = format!("PKCS#11 library {}: {error}; install it, or correct its path", self.path.display());
        BackendError::new(Fate::BackOff, Fault::Unavailable { what })
    }
}

/// Notes what an error says of the whole module, and hands the error on.
pub(super) fn note(module: &Initialized, error: NativeError) -> BackendError {
    if error.rv.is_some_and(class::is_module_lost) {
        module.lose();
    }
    if error.error.fate == Fate::Reopen && !error.rv.is_some_and(class::is_session_gone) {
        module.doubt();
    }
    if error.outdates {
        module.outdate();
    }
    error.error
}

/// Refuses a call with numbers of a generation that is over, as the module itself would if they meant nothing in the
/// next one.
pub(super) fn check_present(module: &Initialized, profile: Profile, function: Function) -> Result<(), NativeError> {
    if module.is_present() {
        return Ok(());
    }
    Err(fault::from_rv(profile, function, cryptoki_sys::CKR_CRYPTOKI_NOT_INITIALIZED))
}
