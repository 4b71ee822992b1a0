//! The rooms that are built upon the store's keys: assembled bottom-up at the start and whenever the daemon is unsealed, and
//! taken down with all that they know when it is sealed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::keeper::{self, Site};
use super::{formats, pins, reencryption};
use crate::audit::Audit;
use crate::dispatch::{Dispatch, Engines, Tenants};
use crate::engine::{BatchRooms, Call, CpuPool, Services, registry as engines};
use crate::identity::Identity;
use crate::managed_keys::ManagedKeys;
use crate::model::{Class, Fault, Namespace, Secret};
use crate::namespace::{Namespaces, Quotas};
use crate::store::{Store, Unopened};
use crate::supervisor::Supervisor;
use crate::system::{LeaseCall, Leases, Load, Removal, Retire, Snapshots, System, UnixLogins};
use crate::telemetry::Telemetry;

/// How often engines are asked whether something is due by the clock.
const MAINTENANCE: Duration = Duration::from_secs(60);
/// How long a start waits for the tokens of the keys it knows; those that take longer come up behind open sockets.
const SETTLE_MAX: Duration = Duration::from_secs(5);
/// The same of keys in clouds.
const SETTLE_CLOUDS_MAX: Duration = Duration::from_secs(1);
/// How often it is seen whether a token's time is up.
const ENDING_TOKENS: Duration = Duration::from_secs(1);
/// How often the store's figures are counted.
const STORE_FIGURES: Duration = Duration::from_secs(5);

/// What is there while the store is open.
pub(super) struct Rooms {
    /// Which of all that were ever assembled.
    pub(super) number: u64,
    pub(super) dispatch: Arc<Dispatch>,
    /// The root token, if assembling the rooms made it.
    pub(super) root_token: Option<Secret>,
    store: Store,
    audit: Audit,
    stop: watch::Sender<bool>,
    /// What is done by the clock.
    tasks: Vec<JoinHandle<()>>,
}

/// Opens the store and builds what stands upon it. Must run on an actix system.
pub(super) async fn assemble(site: &Site) -> Result<Rooms, Unopened> {
    let place = Arc::clone(&site.place);
    let opened = tokio::task::spawn_blocking(move || place.open()).await;
    let store = opened.unwrap_or_else(|_| Err(Unopened::Storage(going_down())))?;
    site.pins.keep_in(Some(store.clone()));
    match build(site, store.clone()).await {
        Ok(rooms) => Ok(rooms),
        Err(fault) => {
            take_down(site, store, site.config.limits.drain).await;
            Err(Unopened::Storage(fault))
        }
    }
}

async fn build(site: &Site, store: Store) -> Result<Rooms, Fault> {
    let Site { config, start, supervisor, telemetry, .. } = site;
    let keys = ManagedKeys::new(store.clone(), supervisor.clone(), &config.limits);
    let configured: Vec<Namespace> = config.namespaces.iter().map(|namespace| namespace.path.clone()).collect();
    let namespaces = Namespaces::new(store.clone(), &configured, &config.limits);
    let quotas = Quotas::new(store.clone(), namespaces.clone());
    let identity = Identity::new(store.clone(), &site.config.limits);
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
    let load = loader(&namespaces, &quotas, &identity, &audit, &keys, supervisor, telemetry);
    if store.is_initialized() {
        // On the thread of the supervisor's actors: they know all keys before a token is logged in to, and try the PIN first
        // that was taken last.
        load()?;
    }
    let mut root_token = None;
    if start.initialize && !identity.is_initialized() {
        store.initialize()?;
        load()?;
        root_token = Some(identity.create_root(start.root_token.clone()).await?);
    }
    let tokens = identity.clone();
    let number = site.assembled.fetch_add(1, Ordering::Relaxed);
    let rotated = Arc::default();
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
        seal: site.errands.sealing(),
        rotated: Arc::clone(&rotated),
        snapshots: Snapshots {
            replace: site.errands.replacing(number),
            most: config.limits.snapshot_max as u64,
            kept: pins::COLLECTIONS.map(|collection| (Namespace::root(), collection)).into(),
            known: formats::known,
            turn: Arc::clone(&site.snapshots),
        },
        deletions: Arc::default(),
        root_token: start.root_token.clone(),
        started: site.started,
        configuration: Arc::clone(&site.configuration),
        unix_logins: UnixLogins::new(telemetry.clone()),
    });
    let removing = Arc::clone(&system);
    let tenants = Tenants { namespaces, quotas, identity, audit: audit.clone() };
    let dispatch = Arc::new(Dispatch::new(system, tenants, engines, telemetry.clone(), &config.limits));
    // Before that nobody logs in to anything, and there is nothing to wait for.
    if store.is_initialized() {
        supervisor.settle(SETTLE_MAX, SETTLE_CLOUDS_MAX).await;
    }
    let (stop, stopped) = watch::channel(false);
    let tasks = vec![
        tokio::task::spawn_local(remove_namespaces(removing, stopped.clone())),
        tokio::task::spawn_local(keep_up(Arc::clone(&dispatch), store.clone(), telemetry.clone(), stopped.clone())),
        tokio::task::spawn_local(reencryption::keep_up(store.clone(), rotated, stopped.clone())),
        tokio::task::spawn_local(end_tokens(tokens, stopped.clone())),
        tokio::task::spawn_local(end_leases(Arc::clone(&dispatch), stopped)),
    ];
    Ok(Rooms { number, dispatch, root_token, store, audit, stop, tasks })
}

impl Rooms {
    /// Begins nothing more by itself.
    pub(super) fn stop(&self) {
        // Nobody listening has nothing to stop.
        let _ = self.stop.send(true);
        self.dispatch.stop();
    }

    /// Stops, and waits until no request but so many `others` is under way, at the longest until the `end`. Answers how many are
    /// then.
    pub(super) async fn end(&mut self, end: Instant, others: impl Fn() -> usize) -> usize {
        self.stop();
        for task in self.tasks.drain(..) {
            task.abort();
            // Ended either way.
            let _ = task.await;
        }
        keeper::until_left(&self.dispatch, end, others).await
    }

    /// Takes them down, within `limit` if the tokens let go by then, and wipes what they know. Answers how many members have not
    /// gone.
    pub(super) async fn take_down(self, site: &Site, limit: Duration) -> usize {
        let (store, audit) = (self.store.clone(), self.audit.clone());
        drop(self);
        end(audit).await;
        take_down(site, store, limit).await
    }

    /// Closes the store, and the audit devices before: the daemon ends.
    pub(super) async fn close(self) {
        end(self.audit).await;
        self.store.close();
    }
}

async fn take_down(site: &Site, store: Store, limit: Duration) -> usize {
    let left = site.supervisor.unload(limit).await;
    site.pins.keep_in(None);
    // Waits for the disk.
    let _ = tokio::task::spawn_blocking(move || store.seal()).await;
    left
}

/// Ends the audit devices when they have written what waits.
async fn end(audit: Audit) {
    // They block.
    let _ = tokio::task::spawn_blocking(move || audit.end()).await;
}

fn going_down() -> Fault {
    Fault::Unavailable { what: "the daemon is going down; try again".into() }
}

fn loader(
    namespaces: &Namespaces,
    quotas: &Quotas,
    identity: &Identity,
    audit: &Audit,
    keys: &ManagedKeys,
    supervisor: &Supervisor,
    telemetry: &Telemetry,
) -> Load {
    let telemetry = telemetry.clone();
    let (namespaces, quotas, identity) = (namespaces.clone(), quotas.clone(), identity.clone());
    let audit = audit.clone();
    let (keys, supervisor) = (keys.clone(), supervisor.clone());
    Arc::new(move || {
        namespaces.load()?;
        quotas.load()?;
        identity.load()?;
        for namespace in namespaces.remade() {
            quotas.end_now(namespace.as_str())?;
            identity.revoke_namespace_now(&namespace)?;
            namespaces.end_remade(&namespace)?;
        }
        // Before anything is asked.
        audit.load()?;
        supervisor.bring_up_pools();
        let mounts = namespaces.clone();
        keys.load(&namespaces.all(), Arc::new(move |namespace| mounts.known_mounts(namespace)))?;
        telemetry.managed_keys_unread(keys.unread());
        Ok(())
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

/// Ends what tokens that ended take along.
async fn end_leases(dispatch: Arc<Dispatch>, mut stop: watch::Receiver<bool>) {
    let mut seconds = tokio::time::interval(ENDING_TOKENS);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = seconds.tick() => dispatch.end_leases().await,
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
                let damaged = store.key_status().map_or(0, |status| status.damaged);
                telemetry.store(stats.commits, stats.groups, stats.records, damaged);
            }
        }
    }
}
