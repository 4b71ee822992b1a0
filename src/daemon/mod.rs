//! Assembles the rooms bottom-up and takes them down in reverse: store, supervisor, managed keys, engines, dispatch,
//! front; signals; another configuration while it serves; being sealed; a drain under a clock that says how it ended.

mod drain;
mod formats;
mod from_snapshot;
mod gate;
mod hsm_seal;
mod keeper;
mod notify;
mod pins;
mod reencryption;
mod reload;
mod rooms;
mod watchdog;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::backend::registry;
use crate::config::{Config, Isolation, KmsLibrary, KmsService, Limits, Seal};
use crate::dispatch::Door;
use crate::front::{Front, Passed};
use crate::model::{Fault, Secret};
use crate::store::{Place, RootKeyWrap, seal_from_config};
use crate::supervisor::{Guarded, Library, Plan, Supervisor};
use crate::system::Standing;
use crate::telemetry::{Exposition, Telemetry};

pub use crate::backend::process::memory;
pub use drain::Ended;
use drain::{Asked, Signals};
pub use from_snapshot::make_store;
use gate::Gate;
use hsm_seal::HsmSeal;
use keeper::{Keeper, Site};
use pins::StoredPins;
use reload::Reload;
use watchdog::Watchdog;

/// What a start needs beside the configuration.
#[derive(Default)]
pub struct Start {
    /// The file or folder of the configuration, to be read again at SIGHUP, if there is one.
    pub configuration: Option<PathBuf>,
    /// The root token made at initialisation; a random one if there is none.
    pub root_token: Option<Secret>,
    /// Initialise at once, if that has not happened: for `-dev`.
    pub initialize: bool,
    /// Log in even where a token says that it allows one last try before it locks.
    pub final_pin_try: bool,
}

/// A running daemon.
pub struct Daemon {
    keeper: JoinHandle<Keeper>,
    gate: Arc<Gate>,
    pins: Arc<StoredPins>,
    supervisor: Supervisor,
    front: Front,
    telemetry: Telemetry,
    reload: Reload,
    signals: Signals,
    stop: watch::Sender<bool>,
    metrics_address: Option<String>,
    root_token: Option<Secret>,
}

impl Daemon {
    /// Starts everything. Must run on an actix system.
    pub async fn start(config: &Config, start: Start) -> Result<Daemon, Fault> {
        let started = SystemTime::now();
        let passed = Passed::take()?;
        // Before all else: one that comes while the daemon starts is heeded when it has.
        let signals = Signals::listen()?;
        let telemetry = Telemetry::new();
        let pins = Arc::new(StoredPins::default());
        let supervisor =
            Supervisor::start(plan(config, &start, &telemetry), Arc::clone(&pins) as Arc<_>, telemetry.clone());
        let open_seal = |seal| open_seal(seal, config, &start, supervisor.guarded(), &telemetry);
        let former = config.former_seal.as_ref().map(open_seal).transpose()?;
        let place = Place::new(&config.storage, open_seal(&config.seal)?);
        let place = Arc::new(place.formerly(former).at(supervisor.pace()));
        let configuration = reload::status();
        let (errands, inbox) = keeper::errands();
        let sealed =
            Standing { is_initialized: true, is_sealed: true, seal: place.seal_kind(), storage: place.storage_kind() };
        let gate = Arc::new(Gate::new(sealed, errands.clone(), telemetry.clone(), &config.limits));
        let reload =
            Reload::new(config.clone(), &start, supervisor.clone(), telemetry.clone(), Arc::clone(&configuration));
        let site = Site {
            place,
            config: config.clone(),
            start,
            supervisor: supervisor.clone(),
            pins: Arc::clone(&pins),
            telemetry: telemetry.clone(),
            configuration,
            started,
            errands,
            snapshots: Arc::new(Semaphore::new(1)),
            assembled: AtomicU64::default(),
        };
        let keeper = Keeper::open(site, Arc::clone(&gate)).await?;
        let root_token = keeper.rooms().and_then(|rooms| rooms.root_token.clone());
        let (stop, stopped) = watch::channel(false);
        let metrics_address = expose(config, &telemetry, stopped.clone()).await?;
        keeper.let_in();
        let door: Arc<dyn Door> = Arc::clone(&gate) as Arc<dyn Door>;
        let front =
            Front::start(&config.listeners, passed, &config.limits, door, telemetry.clone(), supervisor.pace())?;
        let keeper = tokio::task::spawn_local(keeper.keep(inbox, stopped));
        Ok(Daemon {
            keeper,
            gate,
            pins,
            supervisor,
            front,
            telemetry,
            reload,
            signals,
            stop,
            metrics_address,
            root_token,
        })
    }

    /// The sockets' paths.
    pub fn addresses(&self) -> &[PathBuf] {
        self.front.addresses()
    }

    /// Where Prometheus scrapes, if anywhere.
    pub fn metrics_address(&self) -> Option<&str> {
        self.metrics_address.as_deref()
    }

    /// The root token, if this start made it.
    pub fn root_token(&self) -> Option<&Secret> {
        self.root_token.as_ref()
    }

    /// What the daemon counts.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Serves until a signal asks it to end; then drains, and says how that went. SIGHUP has the configuration read again.
    pub async fn run(mut self) -> Ended {
        notify::ready();
        let watchdog =
            Watchdog { front: self.front.pulse(), pins: Arc::clone(&self.pins), supervisor: self.supervisor.clone() };
        tokio::task::spawn_local(watchdog.run(self.stop.subscribe()));
        let signal = loop {
            match self.signals.next().await {
                Asked::End(signal) => break signal,
                Asked::Reload => {
                    // Whatever the configuration says: somebody may have moved files away.
                    self.gate.reopen_records();
                    // Those that come meanwhile are one more.
                    tokio::select! {
                        () = self.reload.run() => {}
                        signal = self.signals.end() => break signal,
                    }
                }
            }
        };
        notify::stopping(self.reload.drain());
        tracing::info!(signal, limit_s = self.reload.drain().as_secs(), "draining");
        self.end().await
    }

    /// Drains and ends.
    pub async fn end(self) -> Ended {
        let begun = std::time::Instant::now();
        // Nobody listening has nothing to stop.
        let _ = self.stop.send(true);
        // One that panicked has left no rooms.
        let rooms = self.keeper.await.ok().and_then(Keeper::into_rooms);
        if let Some(rooms) = &rooms {
            rooms.stop();
        }
        tokio::task::spawn_local(self.signals.ignore_reloads());
        let (front, limit) = (self.front, self.reload.drain());
        // The front's threads are joined on a thread of their own: the lanes behind them must go on serving meanwhile.
        let report = tokio::task::spawn_blocking(move || front.drain(limit)).await.unwrap_or_default();
        let jobs_cut = self.supervisor.shut_down(limit.saturating_sub(begun.elapsed())).await;
        if let Some(rooms) = rooms {
            rooms.close().await;
        }
        let ended = Ended { connections_finished: report.finished, connections_cut: report.cut, jobs_cut };
        tracing::info!(
            took_ms = begun.elapsed().as_millis(),
            finished = ended.connections_finished,
            cut = ended.connections_cut,
            jobs_cut,
            "{}",
            if ended.clean() { "drained: everything begun was finished" } else { "the drain's time was up" }
        );
        ended
    }
}

/// What guards the root key. Nothing is asked yet.
fn open_seal(
    seal: &Seal,
    config: &Config,
    start: &Start,
    guarded: &Arc<Guarded>,
    telemetry: &Telemetry,
) -> Result<Box<dyn RootKeyWrap>, Fault> {
    let Seal::Pkcs11(seal) = seal else { return seal_from_config(seal) };
    let metrics = telemetry.library(&seal.library.name);
    let backend = registry::open(&seal.library, config.limits.call_open, metrics);
    Ok(Box::new(HsmSeal::new(seal, backend, Arc::clone(guarded), &config.limits, start.final_pin_try)))
}

fn plan(config: &Config, start: &Start, telemetry: &Telemetry) -> Plan {
    Plan {
        libraries: config
            .kms_libraries
            .iter()
            .map(|known| library(known, &config.limits, start, telemetry))
            .chain(config.kms_services.iter().filter_map(|known| service(known, telemetry)))
            .collect(),
        pools: config.kms_pools.clone(),
        namespaces: config.namespaces.clone(),
        limits: config.limits.clone(),
    }
}

/// A library as its members need it. Nothing is loaded yet.
fn library(library: &KmsLibrary, limits: &Limits, start: &Start, telemetry: &Telemetry) -> Library {
    if !library.library.exists() {
        tracing::warn!(
            library = library.name, path = %library.library.display(),
            "this PKCS#11 library is not there: its keys are unavailable until it is"
        );
    }
    Library {
        name: library.name.clone(),
        file: library.library.canonicalize().unwrap_or_else(|_| library.library.clone()),
        backend: registry::open(library, limits.call_open, telemetry.library(&library.name)),
        pin: library.pin.clone(),
        sessions: library.max_sessions,
        call_sign: limits.call_sign,
        keep_alive: library.keep_alive,
        verify: library.verify_after_sign,
        workers: library.workers,
        isolated: library.isolation == Isolation::Process,
        computes_here: library.configured_traits().computes_here,
        final_pin_try: start.final_pin_try,
        namespaces: library.namespaces.clone(),
        service: None,
    }
}

/// A cloud's key service as the members of its keys need it, if this program knows it. No call is made.
fn service(service: &KmsService, telemetry: &Telemetry) -> Option<Library> {
    let backend = registry::open_service(service, telemetry)?;
    Some(Library {
        name: service.service.name().to_owned(),
        file: service.service.name().into(),
        backend,
        pin: None,
        sessions: Some(service.max_sessions),
        // Each call ends by its own clock before.
        call_sign: Some(service.call * 2 + Duration::from_secs(1)),
        keep_alive: None,
        verify: service.verify_after_sign,
        workers: 1,
        isolated: false,
        computes_here: false,
        final_pin_try: false,
        namespaces: service.namespaces.clone(),
        service: Some(Arc::new(service.clone())),
    })
}

async fn expose(
    config: &Config,
    telemetry: &Telemetry,
    mut stop: watch::Receiver<bool>,
) -> Result<Option<String>, Fault> {
    let Some(listener) = &config.telemetry.prometheus_listener else { return Ok(None) };
    let bound = Exposition::bind(listener, telemetry.clone()).await;
    let exposition = bound.map_err(|error| Fault::Unavailable { what: error.to_string() })?;
    let address = exposition.address();
    tokio::task::spawn_local(exposition.serve(async move {
        // An error means that the daemon is gone: the same.
        let _ = stop.wait_for(|stop| *stop).await;
    }));
    Ok(Some(address))
}
