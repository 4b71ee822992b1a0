//! A module: loaded once per process, initialised when first used, and again only when nothing of it is in use.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock, Weak};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use parking_lot::Mutex;

use super::fault::{self, Function};
use super::table::Table;
use crate::backend::{BackendError, Fate};
use crate::config::Profile;
use crate::model::Fault;

/// The modules of this process by their file. A module has one state per process, whoever loads it, so there must be one
/// owner of it.
static MODULES: LazyLock<Mutex<HashMap<PathBuf, Weak<Module>>>> = LazyLock::new(Mutex::default);

/// One module.
pub(super) struct Module {
    path: PathBuf,
    state: Mutex<Option<Arc<Initialized>>>,
}

/// A module between `C_Initialize` and `C_Finalize`. Held by every device and session of it: it is finalised only when
/// nobody else holds it, so that no session is closed in a later initialisation, where its number may be another's.
pub(super) struct Initialized {
    pub(super) context: Pkcs11,
    pub(super) table: Table,
    /// Set when it was seen to hold on to what is no longer so.
    pub(super) outdated: AtomicBool,
}

impl Module {
    /// The module at `path`, shared by all who name the same file.
    pub(super) fn at(path: &Path) -> Arc<Module> {
        // A file that is not there yet is known by the path as it was given.
        let file = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut modules = MODULES.lock();
        if let Some(module) = modules.get(&file).and_then(Weak::upgrade) {
            return module;
        }
        let module = Arc::new(Module { path: path.to_owned(), state: Mutex::default() });
        modules.insert(file, Arc::downgrade(&module));
        module
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The module, initialised.
    pub(super) fn initialized(&self, profile: Profile) -> Result<Arc<Initialized>, BackendError> {
        let mut state = self.state.lock();
        if let Some(initialized) = &*state {
            return Ok(Arc::clone(initialized));
        }
        let initialized = Arc::new(self.initialize(profile)?);
        *state = Some(Arc::clone(&initialized));
        Ok(initialized)
    }

    /// Initialises the module anew, since modules list their tokens only then; unless something of it is in use, when it
    /// stays as it is. `mine` is the caller's own hold on it.
    pub(super) fn initialize_anew(&self, mine: Arc<Initialized>, profile: Profile) -> Result<(), BackendError> {
        let mut state = self.state.lock();
        let Some(current) = state.take() else { return Ok(()) };
        let same = Arc::ptr_eq(&current, &mine);
        drop(mine);
        let alone = if same { Arc::try_unwrap(current) } else { Err(current) };
        match alone {
            Ok(initialized) => {
                let Initialized { context, table, .. } = initialized;
                // Whatever it answers, the next initialisation tells whether the module is of use.
                let _ = context.finalize();
                drop(table);
                *state = Some(Arc::new(self.initialize(profile)?));
            }
            Err(in_use) => *state = Some(in_use),
        }
        Ok(())
    }

    fn initialize(&self, profile: Profile) -> Result<Initialized, BackendError> {
        let context = Pkcs11::new(&self.path).map_err(|error| self.not_loaded(&error.to_string()))?;
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(fault::from_cryptoki(profile, Function::Initialize, &error)),
        }
        let table = Table::load(&self.path).map_err(|error| self.not_loaded(&error))?;
        Ok(Initialized { context, table, outdated: AtomicBool::new(false) })
    }

    fn not_loaded(&self, error: &str) -> BackendError {
        let what = format!("PKCS#11 library {}: {error}; install it, or correct its path", self.path.display());
        BackendError::new(Fate::BackOff, Fault::Unavailable { what })
    }
}
