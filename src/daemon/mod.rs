//! Assembles the rooms bottom-up and takes them down in reverse: store, supervisor, managed keys, engines, dispatch,
//! front; signals; another configuration while it serves; a drain under a clock that says how it ended.

mod drain;
mod notify;
mod pins;
mod reload;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::audit::Audit;
use crate::backend::registry;
use crate::config::{Config, Isolation, KmsLibrary, Limits};
use crate::dispatch::{Dispatch, Door, Engines, Tenants};
use crate::engine::{BatchRooms, Call, CpuPool, Services, registry as engines};
use crate::front::Front;
use crate::identity::Identity;
use crate::managed_keys::ManagedKeys;
use crate::model::{Class, Fault, Namespace, Secret};
use crate::namespace::{Namespaces, Quotas};
use crate::store::{Store, seal_from_config};
use crate::supervisor::{Library, Plan, Supervisor};
use crate::system::{LeaseCall, Leases, Load, Removal, Retire, System};
use crate::telemetry::{Exposition, Telemetry};

pub use drain::Ended;
use drain::{Asked, Signals};
use pins::StoredPins;
use reload::Reload;

/// How often engines are asked whether something is due by the clock.
const MAINTENANCE: Duration = Duration::from_secs(60);
/// How long a start waits for the tokens of the keys it knows; those that take longer come up behind open sockets.
const SETTLE_MAX: Duration = Duration::from_secs(5);
/// How often it is seen whether a token's time is up.
const ENDING_TOKENS: Duration = Duration::from_secs(1);
/// How often the store's figures are counted.
const STORE_FIGURES: Duration = Duration::from_secs(5);

/// What a start needs beside the configuration.
#[derive(Default)]
pub struct Start {
    /// The file or folder of the configuration, to be read again at SIGHUP; without one, that signal has its own effect.
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
    store: Store,
    audit: Audit,
    supervisor: Supervisor,
    dispatch: Arc<Dispatch>,
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
        // Before all else: one that comes while the daemon starts is heeded when it has.
        let signals = Signals::listen(start.configuration.is_some())?;
        let telemetry = Telemetry::new();
        let store = Store::open(&config.storage, seal_from_config(&config.seal)?, config.pace())?;
        let pins = Arc::new(StoredPins::new(store.clone()));
        let supervisor = Supervisor::start(plan(config, &start, &telemetry), pins, telemetry.clone());
        let keys = ManagedKeys::new(store.clone(), supervisor.clone(), &config.limits);
        let configured: Vec<Namespace> = config.namespaces.iter().map(|namespace| namespace.path.clone()).collect();
        let namespaces = Namespaces::new(store.clone(), &configured, &config.limits);
        let quotas = Quotas::new(store.clone(), namespaces.clone());
        let identity = Identity::new(store.clone());
        let services = Services {
            store: store.clone(),
            keys: keys.clone(),
            telemetry: telemetry.clone(),
            limits: config.limits.clone(),
            cpu: CpuPool::new(config.limits.key_generations),
            batches: BatchRooms::new(&config.limits),
            publish_dir: config.publish_dir.clone(),
        };
        let engines = Arc::new(Engines::new(services, namespaces.clone()));
        let audit = Audit::new(store.clone(), &config.limits, telemetry.clone());
        let load = loader(&namespaces, &quotas, &identity, &audit, &keys, &supervisor);
        if store.is_initialized() {
            load()?;
        }
        let mut root_token = None;
        if start.initialize && !identity.is_initialized() {
            store.initialize()?;
            load()?;
            root_token = Some(identity.create_root(start.root_token.clone()).await?);
        }
        let configuration = reload::status();
        let tokens = identity.clone();
        let system = Arc::new(System {
            store: store.clone(),
            namespaces: namespaces.clone(),
            quotas: quotas.clone(),
            identity: identity.clone(),
            audit: audit.clone(),
            keys,
            engines: engines::types(),
            load,
            removal: removal(&engines),
            leases: leases(&engines),
            retire: retire(&engines, config.limits.deadline_max),
            deletions: Arc::default(),
            root_token: start.root_token.clone(),
            started,
            configuration: Arc::clone(&configuration),
        });
        let removing = Arc::clone(&system);
        let tenants = Tenants { namespaces, quotas, identity, audit: audit.clone() };
        let dispatch = Arc::new(Dispatch::new(system, tenants, engines, telemetry.clone(), &config.limits));
        // Before that nobody logs in to anything, and there is nothing to wait for.
        if store.is_initialized() {
            supervisor.settle(SETTLE_MAX).await;
        }
        let (stop, stopped) = watch::channel(false);
        tokio::task::spawn_local(remove_namespaces(removing, stopped.clone()));
        let metrics_address = expose(config, &telemetry, stopped.clone()).await?;
        let door: Arc<dyn Door> = Arc::clone(&dispatch) as Arc<dyn Door>;
        let front = Front::start(&config.listeners, &config.limits, door, telemetry.clone(), config.pace())?;
        tokio::task::spawn_local(keep_up(Arc::clone(&dispatch), store.clone(), telemetry.clone(), stopped));
        tokio::task::spawn_local(end_tokens(tokens, stop.subscribe()));
        let reload = Reload::new(config.clone(), &start, supervisor.clone(), telemetry.clone(), configuration);
        Ok(Daemon {
            store,
            audit,
            supervisor,
            dispatch,
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
        let signal = loop {
            match self.signals.next().await {
                Asked::End(signal) => break signal,
                Asked::Reload => {
                    // Whatever the configuration says: somebody may have moved files away.
                    self.audit.reopen();
                    // Those that come meanwhile are one more.
                    tokio::select! {
                        () = self.reload.run() => {}
                        signal = self.signals.end() => break signal,
                    }
                }
            }
        };
        notify::stopping();
        tracing::info!(signal, limit_s = self.reload.drain().as_secs(), "draining");
        self.end().await
    }

    /// Drains and ends.
    pub async fn end(self) -> Ended {
        let begun = std::time::Instant::now();
        // Nobody listening has nothing to stop.
        let _ = self.stop.send(true);
        self.dispatch.stop();
        tokio::task::spawn_local(self.signals.ignore_reloads());
        let (front, limit) = (self.front, self.reload.drain());
        // The front's threads are joined on a thread of their own: the lanes behind them must go on serving meanwhile.
        let report = tokio::task::spawn_blocking(move || front.drain(limit)).await.unwrap_or_default();
        let jobs_cut = self.supervisor.shut_down(limit.saturating_sub(begun.elapsed())).await;
        let audit = self.audit;
        // They block.
        let _ = tokio::task::spawn_blocking(move || audit.end()).await;
        self.store.close();
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

fn plan(config: &Config, start: &Start, telemetry: &Telemetry) -> Plan {
    Plan {
        libraries: config.kms_libraries.iter().map(|known| library(known, &config.limits, start, telemetry)).collect(),
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
    }
}

fn loader(
    namespaces: &Namespaces,
    quotas: &Quotas,
    identity: &Identity,
    audit: &Audit,
    keys: &ManagedKeys,
    supervisor: &Supervisor,
) -> Load {
    let (namespaces, quotas, identity) = (namespaces.clone(), quotas.clone(), identity.clone());
    let audit = audit.clone();
    let (keys, supervisor) = (keys.clone(), supervisor.clone());
    Arc::new(move || {
        namespaces.load()?;
        quotas.load()?;
        identity.load()?;
        // Before anything is asked.
        audit.load()?;
        supervisor.bring_up_pools();
        keys.load(&namespaces.all())
    })
}

fn removal(engines: &Arc<Engines>) -> Removal {
    let engines = Arc::clone(engines);
    Arc::new(move |mount| {
        let writes = engines.of_disabled(mount)?.removal(mount)?;
        engines.remove(mount);
        Ok(writes)
    })
}

fn retire(engines: &Arc<Engines>, limit: Duration) -> Retire {
    let engines = Arc::clone(engines);
    Arc::new(move |namespace, mounts| {
        let engines = Arc::clone(&engines);
        Box::pin(async move { engines.retire(&namespace, &mounts, limit).await })
    })
}

fn leases(engines: &Arc<Engines>) -> Leases {
    let engines = Arc::clone(engines);
    Arc::new(move |LeaseCall { mount, caller, deadline, asked }| {
        let engine = match engines.get(&mount) {
            Ok(engine) => engine,
            Err(fault) => return Box::pin(std::future::ready(Err(fault))),
        };
        engine.lease(Call { mount, caller, deadline, class: Class::Interactive }, asked)
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

/// Ends tokens when their time is up.
async fn end_tokens(identity: Identity, mut stop: watch::Receiver<bool>) {
    let mut seconds = tokio::time::interval(ENDING_TOKENS);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = seconds.tick() => identity.end_due().await,
        }
    }
}

/// Removes what deleted namespaces leave behind: what the last start was cut short in, and then whenever one is deleted.
async fn remove_namespaces(system: Arc<System>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = system.end_deletions() => {}
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = system.deletions.notified() => {}
            // What failed is tried again.
            () = tokio::time::sleep(MAINTENANCE) => {}
        }
    }
}

/// What is done by the clock.
async fn keep_up(dispatch: Arc<Dispatch>, store: Store, telemetry: Telemetry, mut stop: watch::Receiver<bool>) {
    let mut maintenance = tokio::time::interval(MAINTENANCE);
    let mut figures = tokio::time::interval(STORE_FIGURES);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = maintenance.tick() => dispatch.maintain().await,
            _ = figures.tick() => {
                let stats = store.stats();
                telemetry.store(stats.commits, stats.groups, stats.records);
            }
        }
    }
}
