//! Reading the configuration again while requests are served: all of it is taken over that can be, and the rest is named; or
//! nothing at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use super::{Start, library, notify};
use crate::config::{Changes, Config, KmsLibrary, LibraryChange, Limits};
use crate::model::ConfigurationStatus;
use crate::supervisor::{Change, Remade, Supervisor};
use crate::telemetry::{Telemetry, log};

/// The configuration in force, and who is to know of another.
pub(super) struct Reload {
    now: Config,
    start: Start,
    supervisor: Supervisor,
    telemetry: Telemetry,
    status: Arc<ArcSwap<ConfigurationStatus>>,
}

/// What is seen of the configuration, as the start has read it.
pub(super) fn status() -> Arc<ArcSwap<ConfigurationStatus>> {
    let (loaded, refused, needs_restart) = (SystemTime::now(), false, Vec::new());
    Arc::new(ArcSwap::from_pointee(ConfigurationStatus { loaded, refused, needs_restart }))
}

impl Reload {
    pub(super) fn new(
        now: Config,
        start: &Start,
        supervisor: Supervisor,
        telemetry: Telemetry,
        status: Arc<ArcSwap<ConfigurationStatus>>,
    ) -> Reload {
        let start = Start {
            configuration: start.configuration.clone(),
            final_pin_try: start.final_pin_try,
            ..Start::default()
        };
        Reload { now, start, supervisor, telemetry, status }
    }

    /// How long a drain may take.
    pub(super) fn drain(&self) -> Duration {
        self.now.limits.drain
    }

    /// Reads the configuration again. What is wrong with it is logged, and nothing changes then. May be given up while it
    /// reads: from the first change on it does not wait for anything but actors.
    pub(super) async fn run(&mut self) {
        let Some(path) = self.start.configuration.clone() else {
            tracing::info!("SIGHUP: there is no configuration file to be read again");
            return;
        };
        notify::reloading();
        match read(path.clone()).await {
            Ok(new) => self.take_over(&path, new).await,
            Err(problems) => {
                for problem in problems {
                    tracing::error!("{problem}");
                }
                tracing::error!(
                    path = %path.display(),
                    "the configuration was not reloaded: all goes on as before; mend it, and send SIGHUP again"
                );
                self.telemetry.reload_failed();
                let before = ConfigurationStatus::clone(&self.status.load());
                self.status.store(Arc::new(ConfigurationStatus { refused: true, ..before }));
                notify::reloaded("serving; the configuration was refused, as the log tells");
            }
        }
    }

    async fn take_over(&mut self, path: &Path, new: Config) {
        let changes = self.now.changes_to(&new);
        for warning in &new.warnings {
            tracing::warn!("{warning}");
        }
        for line in &changes.needs_restart {
            tracing::warn!(setting = line, "this needs a restart, and is not taken over");
        }
        let applied = changes.applied();
        let needs_restart = changes.needs_restart.clone();
        let restart_needed = needs_restart.len();
        if let Some(level) = changes.log_level {
            log::set_level(level);
        }
        self.now.take_over(new);
        if changes.touches_members() {
            let change = self.change(changes);
            self.supervisor.reconfigure(change).await;
        }
        self.telemetry.reloaded(restart_needed);
        let (loaded, refused) = (SystemTime::now(), false);
        self.status.store(Arc::new(ConfigurationStatus { loaded, refused, needs_restart }));
        let applied = if applied.is_empty() { "nothing".to_owned() } else { applied.join("; ") };
        tracing::info!(path = %path.display(), applied, restart_needed, "the configuration was reloaded");
        notify::reloaded(match restart_needed {
            0 => "serving by the configuration as it is",
            _ => "serving; some of the configuration needs a restart, as the log tells",
        });
    }

    fn change(&self, changes: Changes) -> Change {
        let limits: &Limits = &self.now.limits;
        let open = |known: &KmsLibrary| library(known, limits, &self.start, &self.telemetry);
        let remade = |change: LibraryChange| match change {
            LibraryChange::Added(library) => Some(Remade { library: open(&library), elsewhere: false }),
            LibraryChange::Changed { library, elsewhere, .. } => Some(Remade { library: open(&library), elsewhere }),
            LibraryChange::Removed(_) => None,
        };
        let made = changes.libraries.into_iter().filter_map(remade).collect();
        let services = self.now.kms_services.iter().map(|service| service.service.name().to_owned());
        let libraries = self.now.kms_libraries.iter().map(|library| library.name.clone()).chain(services).collect();
        Change { made, libraries, pools: self.now.kms_pools.clone(), limits: limits.clone() }
    }
}

/// Reads files, which may take its time, and nobody else's. Each problem is a line.
async fn read(path: PathBuf) -> Result<Config, Vec<String>> {
    let lines = |problems: crate::config::Problems| problems.0.iter().map(ToString::to_string).collect();
    match tokio::task::spawn_blocking(move || Config::load(&path)).await {
        Ok(loaded) => loaded.map_err(lines),
        Err(error) => Err(vec![format!("the configuration could not be read: {error}")]),
    }
}
