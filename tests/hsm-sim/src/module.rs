//! The module: everything that there is once per loaded copy of this library.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use cryptoki_sys::CKR_CRYPTOKI_NOT_INITIALIZED;
use parking_lot::Mutex;

use crate::call::Answer;
use crate::log::Log;
use crate::null::token::NullToken;
use crate::real::{Real, real};
use crate::rules::Rules;
use crate::session::Sessions;
use crate::settings::{Null, Settings};
use crate::shared::{Shared, fnv};
use crate::slot::{Names, Slot};
use crate::slots::Slots;
use crate::steering::Steering;

static MODULE: OnceLock<Option<Module>> = OnceLock::new();

/// The module, loaded when first asked for. Nothing if that failed; the reason was told on standard error.
pub(crate) fn module() -> Option<&'static Module> {
    MODULE
        .get_or_init(|| {
            let loaded = Module::load();
            loaded.map_err(|error| eprintln!("hsm-sim: {error}")).ok()
        })
        .as_ref()
}

pub(crate) struct Module {
    real: Option<Real>,
    folder: Option<PathBuf>,
    /// The commands of the settings.
    pub(crate) initial: Vec<String>,
    pub(crate) shared: &'static Shared,
    pub(crate) slots: Slots,
    pub(crate) sessions: Sessions,
    pub(crate) rules: Rules,
    pub(crate) steering: Steering,
    pub(crate) log: Log,
    life: Life,
    instances: Instances,
}

/// The instances of the module, of which one is initialised.
#[derive(Default)]
struct Instances {
    /// Whether each caller who asks for the functions gets another.
    many: bool,
    given: AtomicUsize,
    initialized: AtomicUsize,
}

/// Whether the module is initialised, for how often and by which process.
#[derive(Default)]
struct Life {
    /// 0: not now.
    current: AtomicU64,
    changing: Mutex<Past>,
}

#[derive(Default)]
pub(crate) struct Past {
    pub(crate) lives: u64,
    pub(crate) process: u32,
}

impl Module {
    fn load() -> Result<Module, String> {
        let settings = Settings::load()?;
        let folder = settings.folder.clone();
        if let Some(folder) = &folder {
            std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        let shared = Shared::map(folder.as_deref()).map_err(|error| format!("the shared counts: {error}"))?;
        let (real, made) = match (&settings.real, &settings.null) {
            (Some(real), None) => (Some(Real::load(real)?), Vec::new()),
            (None, Some(null)) => (None, made_up(null, shared, folder.as_deref())?),
            _ => return Err("the settings must say either \"real\" or \"null\"".into()),
        };
        let module = Module {
            real,
            folder,
            initial: settings.steering,
            shared,
            slots: Slots::default(),
            sessions: Sessions::default(),
            rules: Rules::default(),
            steering: Steering::default(),
            log: Log::default(),
            life: Life::default(),
            instances: Instances { many: settings.instances, ..Instances::default() },
        };
        module.slots.make(made);
        Ok(module)
    }

    /// The instance for the caller who asks for the functions now.
    pub(crate) fn next_instance(&self) -> usize {
        if self.instances.many { self.instances.given.fetch_add(1, Ordering::Relaxed) } else { 0 }
    }

    /// Whether calls by this instance's functions find it initialised, if the module is.
    pub(crate) fn belongs_to(&self, instance: usize) -> bool {
        self.instances.initialized.load(Ordering::Acquire) == instance
    }

    /// Notes which instance was initialised.
    pub(crate) fn belong_to(&self, instance: usize) {
        self.instances.initialized.store(instance, Ordering::Release);
    }

    /// The module behind, in real mode.
    pub(crate) fn real(&self) -> Option<&Real> {
        self.real.as_ref()
    }

    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The number of this initialisation; 0 when there is none.
    pub(crate) fn life(&self) -> u64 {
        self.life.current.load(Ordering::Acquire)
    }

    pub(crate) fn require_initialized(&self) -> Answer {
        if self.life() == 0 { Err(CKR_CRYPTOKI_NOT_INITIALIZED) } else { Ok(()) }
    }

    /// Held by whoever initialises or finalises it.
    pub(crate) fn changing(&self) -> parking_lot::MutexGuard<'_, Past> {
        self.life.changing.lock()
    }

    pub(crate) fn live(&self, life: u64) {
        self.life.current.store(life, Ordering::Release);
    }

    /// Finalises it, whoever wants that.
    pub(crate) fn end(&self) -> Answer {
        let _past = self.changing();
        self.require_initialized()?;
        self.sessions.clear();
        self.rules.finalized();
        self.live(0);
        match self.real() {
            Some(real) => real!(real, C_Finalize(std::ptr::null_mut())),
            None => Ok(()),
        }
    }
}

/// The slots of null mode.
fn made_up(null: &Null, shared: &'static Shared, folder: Option<&Path>) -> Result<Vec<std::sync::Arc<Slot>>, String> {
    let mut slots = Vec::new();
    for (base, settings) in (0..).zip(&null.slots) {
        // By default another in every module, as tokens have.
        let unique = || fnv(format!("{folder:?} {base} {}", settings.label).as_bytes());
        let serial = settings.serial.clone().unwrap_or_else(|| format!("{:016x}", unique()));
        let names = Names { label: settings.label.clone(), serial };
        let token = NullToken::new(settings, &names.serial, folder)?;
        slots.push(Slot::new(base, names, shared, Some(token)));
    }
    Ok(slots)
}
