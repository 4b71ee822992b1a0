//! The first use of a managed key: find it or generate it, have it proven, record what it is known again by. Once, however
//! many ask.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt, Shared};
use parking_lot::Mutex;

use super::claims::said_there;
use super::record::{COLLECTION, KeyRecord};
use super::registry::{Entry, ManagedKeys, gone, is_the_seals, spec};
use super::settings::Settings;
use crate::model::{Deadline, Fault, KeyIdentity};
use crate::store::{RecordKey, Write};
use crate::supervisor::PreparedKey;

/// How long an attempt may wait for its token: as long as the longest limit of one key generation. Askers leave at their
/// own deadlines; a key generated after they left is recorded all the same.
const ATTEMPT_MAX: Duration = Duration::from_secs(3600);

type Attempt = Shared<BoxFuture<'static, Result<(), Fault>>>;

/// The attempt at a first use that is under way, if there is one.
#[derive(Default)]
pub(super) struct FirstUse(Mutex<Option<Attempt>>);

impl FirstUse {
    /// The attempt under way; `begin` makes one if there is none. It goes on when its askers leave.
    fn join<F>(&self, begin: impl FnOnce() -> F) -> Attempt
    where
        F: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        let mut current = self.0.lock();
        if let Some(attempt) = current.as_ref().filter(|attempt| attempt.peek().is_none()) {
            return attempt.clone();
        }
        let task = tokio::spawn(begin());
        let cut_short = || Fault::Unavailable { what: "the first use of the key was cut short; try again".into() };
        let attempt = async move { task.await.unwrap_or_else(|_| Err(cut_short())) }.boxed().shared();
        *current = Some(attempt.clone());
        attempt
    }
}

impl ManagedKeys {
    /// The entry with what was recorded of it, as it is once there was a first use.
    pub(super) async fn ready(
        &self,
        entry: &Arc<Entry>,
        deadline: Deadline,
    ) -> Result<(Arc<Entry>, KeyIdentity), Fault> {
        if let Some(ready) = &entry.ready {
            if ready.served().is_none() && self.supervisor().guarded().is(&ready.identity) {
                return Err(is_the_seals(&entry.name));
            }
            return Ok((Arc::clone(entry), ready.identity.clone()));
        }
        let attempt = entry.first_use.join(|| self.clone().first_use(entry.uuid.clone()));
        let late = || Fault::DeadlineExceeded { stage: "waiting for the token to find or generate the key" };
        // The timer is a millisecond coarse: who has no time left is told at once.
        if deadline.passed(Instant::now()) {
            return Err(late());
        }
        tokio::time::timeout_at(deadline.instant().into(), attempt).await.map_err(|_| late())??;
        let entry = self.by_uuid(&entry.uuid).ok_or_else(|| gone(&entry.uuid))?;
        let identity = entry.ready.as_ref().map(|ready| ready.identity.clone());
        identity
            .map(|identity| (entry, identity))
            .ok_or_else(|| Fault::internal("a key is not ready after its first use"))
    }

    async fn first_use(self, uuid: String) -> Result<(), Fault> {
        let entry = self.by_uuid(&uuid).ok_or_else(|| gone(&uuid))?;
        if entry.ready.is_some() {
            return Ok(());
        }
        let used = self.find_and_record(&entry).await;
        // Sealed meanwhile, the key may be served anew already.
        if used.is_err() && self.store().is_initialized() {
            // Some members of a pool may have found it all the same: nothing leads to it, so nobody is to serve it.
            self.supervisor().forget(&uuid);
            self.let_go(&entry);
        }
        used
    }

    async fn find_and_record(&self, entry: &Arc<Entry>) -> Result<(), Fault> {
        self.check_owners_known(entry)?;
        let template = entry.settings.template();
        let mut spec = spec(entry, None);
        spec.generate = template.as_ref().ok().cloned();
        spec.taken = self.taken(entry);
        let prepared = self.supervisor().prepare(spec, Deadline::after(ATTEMPT_MAX)).await;
        let recorded = match prepared {
            Ok(prepared) => self.record(entry, prepared).await,
            Err(fault) => Err(fault),
        };
        // One that is there and not to be had is told of like one that is absent: no tenant guesses what others have.
        recorded.map_err(|fault| match (fault, template) {
            (Fault::NotFound { what }, Err(why)) => {
                Fault::invalid(format!("managed key {:?}: {what}, and {why}", entry.name))
            }
            (Fault::NotFound { .. }, Ok(_)) => Fault::invalid(format!(
                "managed key {:?}: the label is taken on its token, and not by this namespace; register another",
                entry.name
            )),
            (fault, _) => fault,
        })
    }

    /// Records what the key of a first use is known again by, durably, and publishes the key with it.
    async fn record(&self, prepared: &Arc<Entry>, found: PreparedKey) -> Result<(), Fault> {
        let (this, prepared) = (self.clone(), Arc::clone(prepared));
        let namespace = prepared.namespace.clone();
        self.changes().run(&namespace, move || this.record_now(&prepared.uuid, &prepared.settings, &found)).await
    }

    pub(super) fn record_now(&self, uuid: &str, prepared: &Settings, found: &PreparedKey) -> Result<(), Fault> {
        let entry = self.by_uuid(uuid).ok_or_else(|| gone(uuid))?;
        if !entry.settings.same_key(prepared) {
            let what = format!("managed key {:?} was changed while it was being found; try again", entry.name);
            return Err(Fault::Unavailable { what });
        }
        // By the endpoints that were asked: they may have been changed meanwhile.
        let found = PreparedKey { identity: said_there(prepared, found.identity.clone())?, ..found.clone() };
        self.check_claim(&entry, &found)?;
        entry.settings.key_type().require_kind(&entry.name, found.identity.kind())?;
        let entry = entry.with(found.identity.clone());
        let key = RecordKey::new(&entry.namespace, COLLECTION, &entry.name);
        self.store().commit_now(vec![Write::put_record(key, &KeyRecord::of(&entry))?])?;
        let (name, namespace, kind) = (&entry.name, &entry.namespace, found.identity.kind());
        tracing::info!(key = name, %namespace, %kind, generated = found.generated, "managed key recorded at its first use");
        self.publish(Arc::new(self.served(entry)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn all_who_ask_share_one_attempt_and_a_failed_one_is_tried_again() {
        let first_use = FirstUse::default();
        let begun = AtomicUsize::new(0);
        let attempt = |answer: oneshot::Receiver<Result<(), Fault>>| {
            begun.fetch_add(1, Ordering::SeqCst);
            async { answer.await.unwrap_or_else(|_| Err(Fault::internal("no answer"))) }
        };
        let (answer, waiting) = oneshot::channel();
        let (_, never) = oneshot::channel();
        let one = first_use.join(|| attempt(waiting));
        let other = first_use.join(|| attempt(never));
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        answer.send(Err(Fault::absent())).unwrap();
        assert_eq!((one.await, other.await), (Err(Fault::absent()), Err(Fault::absent())));
        let (answer, waiting) = oneshot::channel();
        let again = first_use.join(|| attempt(waiting));
        assert_eq!(begun.load(Ordering::SeqCst), 2);
        answer.send(Ok(())).unwrap();
        assert_eq!(again.await, Ok(()));
    }
}
