//! The engines of the mounts there are: made at a mount's first use, and gone with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::engine::{Engine, Services, registry};
use crate::model::{Fault, Mount, Namespace, Shards};
use crate::namespace::Namespaces;

/// How often it is looked whether somebody is still in an engine that ends.
const LOOK: Duration = Duration::from_millis(10);

/// One engine per mount, by the mount's UUID.
pub struct Engines {
    services: Services,
    namespaces: Namespaces,
    made: ArcSwap<Shards<String, Arc<dyn Engine>>>,
    /// Held while one is made: two would have two minds about the same records.
    making: Mutex<()>,
}

impl Engines {
    /// No engines yet; those to come are built from `services`, for the mounts of `namespaces`.
    pub fn new(services: Services, namespaces: Namespaces) -> Engines {
        Engines { services, namespaces, made: ArcSwap::default(), making: Mutex::default() }
    }

    /// The engine of this mount. None is made for a mount that is gone, by whoever found it before.
    pub fn get(&self, mount: &Mount) -> Result<Arc<dyn Engine>, Fault> {
        self.get_if(mount, || {
            self.namespaces.mount(&mount.namespace, &mount.path).is_some_and(|now| now.uuid == mount.uuid)
        })
    }

    /// What `ask` makes of the engine of this mount, which is lent to it.
    pub fn lend<R>(&self, mount: &Mount, ask: impl FnOnce(&Arc<dyn Engine>) -> R) -> Result<R, Fault> {
        if let Some(engine) = self.made.load().get(&mount.uuid) {
            return Ok(ask(engine));
        }
        self.get(mount).map(|engine| ask(&engine))
    }

    /// The engine of a mount that was just disabled, for what its end asks.
    pub fn of_disabled(&self, mount: &Mount) -> Result<Arc<dyn Engine>, Fault> {
        self.get_if(mount, || true)
    }

    fn get_if(&self, mount: &Mount, may_be_made: impl FnOnce() -> bool) -> Result<Arc<dyn Engine>, Fault> {
        if let Some(engine) = self.made.load().get(&mount.uuid) {
            return Ok(Arc::clone(engine));
        }
        let _making = self.making.lock();
        if let Some(engine) = self.made.load().get(&mount.uuid) {
            return Ok(Arc::clone(engine));
        }
        if !may_be_made() {
            return Err(Fault::NotFound { what: format!("mount {:?} is there no more", mount.path) });
        }
        let Some(factory) = registry::factory(&mount.engine) else {
            let what = format!("mount {:?} has type {:?}, which this build does not have", mount.path, mount.engine);
            return Err(Fault::Unavailable { what });
        };
        let engine = factory(mount, &self.services)?;
        let mut made = Shards::clone(&self.made.load());
        made.insert(mount.uuid.clone(), Arc::clone(&engine));
        self.made.store(Arc::new(made));
        Ok(engine)
    }

    /// Stops what engines do behind requests.
    pub fn stop(&self) {
        self.made.load().values().for_each(|engine| engine.stop());
    }

    /// Forgets the engine of a mount that is being disabled.
    pub fn remove(&self, mount: &Mount) {
        self.take(&[mount]);
    }

    /// Ends the engines of `mounts`, which lay in a namespace that is gone: nothing new comes to them, and it waits until
    /// nobody is in them any more, `limit` at the longest. Then what is published of the namespace is removed.
    pub async fn retire(&self, namespace: &Namespace, mounts: &[Arc<Mount>], limit: Duration) -> Result<(), Fault> {
        let mounts: Vec<&Mount> = mounts.iter().map(|mount| &**mount).collect();
        let ending = self.take(&mounts);
        ending.iter().for_each(|(mount, engine)| engine.close(mount));
        let until = Instant::now() + limit;
        // Whoever is in one holds it, but for what was begun at once.
        while ending.iter().any(|(_, engine)| Arc::strong_count(engine) > 1 || engine.is_under_way()) {
            if Instant::now() >= until {
                tracing::warn!(%namespace, "requests in a deleted namespace do not end: its removal waits no longer");
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        // What was under way may have begun something new.
        ending.iter().for_each(|(mount, engine)| engine.close(mount));
        let (services, own) = (self.services.clone(), namespace.clone());
        let forgotten = tokio::task::spawn_blocking(move || services.forget(&own)).await;
        match forgotten {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Fault::Unavailable { what: format!("what is published of {namespace}: {error}") }),
            Err(_) => Err(Fault::Unavailable { what: "the daemon is going down".into() }),
        }
    }

    /// Takes the engines of these mounts, as far as there are any.
    fn take<'m>(&self, mounts: &[&'m Mount]) -> Vec<(&'m Mount, Arc<dyn Engine>)> {
        let _making = self.making.lock();
        let mut made = Shards::clone(&self.made.load());
        let taken = mounts.iter().filter_map(|mount| Some((*mount, made.remove(&mount.uuid)?))).collect();
        self.made.store(Arc::new(made));
        taken
    }
}
