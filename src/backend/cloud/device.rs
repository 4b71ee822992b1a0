//! A cloud key as a device, and one call at a time as a session.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Call, Found, Runtime, SharedClient};
use crate::backend::{
    BackendError, Device, DeviceInfo, Fate, FoundKey, KeySelector, KeyTemplate, LoginAnswer, PinFlags, Session,
};
use crate::config::Profile;
use crate::model::{CloudKey, Fault, KeyKind, KeyOperation, Secret};

/// How long a call may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallLimits {
    /// One that has a key work.
    pub(crate) work: Duration,
    /// One that finds or makes a key.
    pub(crate) find: Duration,
}

/// One key.
pub(crate) struct CloudDevice {
    info: DeviceInfo,
    shared: Arc<Shared>,
}

struct Shared {
    /// What the service's key is called in messages.
    title: String,
    client: SharedClient,
    runtime: Arc<Runtime>,
    limits: CallLimits,
    found: RwLock<Seen>,
}

/// The key that was found last. Another one has another handle.
#[derive(Default)]
struct Seen {
    handle: u64,
    key: Option<Arc<Found>>,
}

impl CloudDevice {
    /// The device of `key`. No call is made.
    pub(crate) fn new(key: &CloudKey, client: SharedClient, runtime: Arc<Runtime>, limits: CallLimits) -> CloudDevice {
        let title = format!("{} key {key}", key.service().title());
        // Not cut as a token's is: its serial number is its whole name, by whoever's word.
        let info = DeviceInfo {
            serial: key.to_string(),
            label: key.name.clone(),
            max_sessions: None,
            profile: Profile::Cloud,
        };
        let shared = Shared { title, client, runtime, limits, found: RwLock::default() };
        CloudDevice { info, shared: Arc::new(shared) }
    }
}

impl Device for CloudDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn pin_flags(&self) -> Result<PinFlags, BackendError> {
        Ok(PinFlags::default())
    }

    fn login(&self, _: &Secret) -> Result<LoginAnswer, BackendError> {
        Err(BackendError::keep(Fault::internal("a cloud key has no login")))
    }

    fn open_session(&self) -> Result<Box<dyn Session>, BackendError> {
        Ok(Box::new(CloudSession { shared: Arc::clone(&self.shared), label: self.info.label.clone() }))
    }
}

struct CloudSession {
    shared: Arc<Shared>,
    label: String,
}

impl Shared {
    fn wait<T>(&self, limit: Duration, call: Call<'_, T>) -> Result<T, BackendError> {
        self.runtime.wait(limit, &self.title, call)
    }

    /// Notes what was found: the same key keeps its handle.
    fn note(&self, found: Found) -> (u64, Arc<Found>) {
        let mut seen = self.found.write();
        match &seen.key {
            Some(known) if known.id == found.id && known.public == found.public && known.kind == found.kind => {}
            _ => {
                seen.handle += 1;
                seen.key = Some(Arc::new(found.clone()));
            }
        }
        let key = seen.key.clone().unwrap_or_else(|| Arc::new(found));
        (seen.handle, key)
    }

    fn seen(&self, handle: u64) -> Result<Arc<Found>, BackendError> {
        let seen = self.found.read();
        seen.key.clone().filter(|_| seen.handle == handle).ok_or_else(|| {
            let what = format!("{}: it is looked up anew", self.title);
            BackendError::new(Fate::FindAgain, Fault::Unavailable { what })
        })
    }
}

impl CloudSession {
    fn found(&self, found: Found) -> FoundKey {
        let (handle, key) = self.shared.note(found);
        FoundKey::new(handle, key.kind.kind, key.public.clone(), key.id.clone().into_bytes(), &self.label)
    }
}

impl Session for CloudSession {
    /// By the names that the device was opened by.
    fn find(&mut self, selector: &KeySelector) -> Result<Option<FoundKey>, BackendError> {
        let found = self.shared.wait(self.shared.limits.find, self.shared.client.find())?;
        Ok(found.filter(|found| found.kind.kind.is_secret() == selector.secret).map(|found| self.found(found)))
    }

    fn generate(&mut self, template: &KeyTemplate) -> Result<FoundKey, BackendError> {
        let made = self.shared.wait(self.shared.limits.find, self.shared.client.generate(template))?;
        Ok(self.found(made))
    }

    fn perform(&mut self, handle: u64, _: KeyKind, operation: &KeyOperation) -> Result<Bytes, BackendError> {
        let found = self.shared.seen(handle)?;
        self.shared.wait(self.shared.limits.work, self.shared.client.perform(&found, operation))
    }

    /// Its calls stand by themselves: there is nothing that could have ended.
    fn check_alive(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}
