//! The engines of the mounts there are: made at a mount's first use, and gone with it.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::engine::{Engine, Services, registry};
use crate::model::{Fault, Mount};

/// One engine per mount, by the mount's UUID.
pub struct Engines {
    services: Services,
    made: ArcSwap<HashMap<String, Arc<dyn Engine>, RandomState>>,
    /// Held while one is made: two would have two minds about the same records.
    making: Mutex<()>,
}

impl Engines {
    /// No engines yet; those to come are built from `services`.
    pub fn new(services: Services) -> Engines {
        Engines { services, made: ArcSwap::default(), making: Mutex::default() }
    }

    /// The engine of this mount.
    pub fn get(&self, mount: &Mount) -> Result<Arc<dyn Engine>, Fault> {
        if let Some(engine) = self.made.load().get(&mount.uuid) {
            return Ok(Arc::clone(engine));
        }
        let _making = self.making.lock();
        if let Some(engine) = self.made.load().get(&mount.uuid) {
            return Ok(Arc::clone(engine));
        }
        let Some(factory) = registry::factory(&mount.engine) else {
            let what = format!("mount {:?} has type {:?}, which this build does not have", mount.path, mount.engine);
            return Err(Fault::Unavailable { what });
        };
        let engine = factory(mount, &self.services)?;
        let mut made = HashMap::clone(&self.made.load());
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
        let _making = self.making.lock();
        let mut made = HashMap::clone(&self.made.load());
        made.remove(&mount.uuid);
        self.made.store(Arc::new(made));
    }
}
