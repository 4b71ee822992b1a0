//! Intents: before a certificate is signed, its serial number is durable. So whatever a key of this mount ever signed is
//! known, also where the daemon was killed between the signature and its record.
//!
//! Those who come in one turn of a thread share a record; it does not wait for the one before it, which would cost them a wait
//! for the disk more. When the last of them is done it is of no more use, and goes with the commit of the next one: a commit of
//! its own would cost more than what it removes. At a start, what is left is looked at: a certificate that is not stored was
//! under way at a crash, may have been signed, and nobody was answered with it.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::oneshot;

use super::fetch::Page;
use super::records::Records;
use super::serial::Serial;
use super::{LOAD_STEP, validity};
use crate::model::{Data, Fault, Response};
use crate::store::{RecordKey, Store, Versioned, Write};

/// Serial numbers that one log line names.
const TOLD: usize = 20;
/// Serial numbers listed at once.
const LISTED: usize = 10_000;

/// What is about to be signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Intent {
    /// As certificates' records are named.
    pub(super) serial: String,
    /// The issuer's id.
    pub(super) issuer: String,
    /// In Unix seconds.
    pub(super) not_after: u64,
    /// When it was recorded, in Unix seconds.
    pub(super) time: u64,
}

impl Intent {
    /// That `issuer` is about to sign a certificate with this serial number, now.
    pub(super) fn new(serial: &Serial, issuer: &str, not_after: u64) -> Intent {
        Intent { serial: serial.record_name(), issuer: issuer.to_owned(), not_after, time: validity::now() }
    }
}

impl Versioned for Intent {
    const VERSION: u16 = 1;
}

/// Those recorded together.
#[derive(Serialize, Deserialize)]
struct Batch {
    intents: Vec<Intent>,
}

impl Versioned for Batch {
    const VERSION: u16 = 1;
}

/// Records intents. Cheap to clone.
#[derive(Clone)]
pub(super) struct Intents(Arc<Inner>);

struct Inner {
    store: Store,
    records: Records,
    next: Mutex<Gathered>,
    /// Records that are of no more use.
    finished: Mutex<Vec<RecordKey>>,
}

/// The next record. Whoever is its first sees to it that it is written.
#[derive(Default)]
struct Gathered {
    intents: Vec<Intent>,
    waiting: Vec<oneshot::Sender<Result<Recorded, Fault>>>,
}

/// That an intent is durable. When the last of a record is dropped, the record is of no more use.
#[derive(Clone)]
pub(super) struct Recorded(#[expect(dead_code, reason = "what counts is that it is held")] Arc<Kept>);

struct Kept {
    of: Arc<Inner>,
    key: RecordKey,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.of.finished.lock().push(self.key.clone());
    }
}

impl Intents {
    pub(super) fn new(store: &Store, records: &Records) -> Intents {
        let (store, records) = (store.clone(), records.clone());
        Intents(Arc::new(Inner { store, records, next: Mutex::default(), finished: Mutex::default() }))
    }

    /// Makes intents durable, all of them in one record.
    pub(super) async fn record(&self, intents: impl IntoIterator<Item = Intent>) -> Result<Recorded, Fault> {
        let (sender, answer) = oneshot::channel();
        let is_first = {
            let mut next = self.0.next.lock();
            next.intents.extend(intents);
            next.waiting.push(sender);
            next.waiting.len() == 1
        };
        if is_first {
            // On its own, so that nobody else waits in vain when this asker leaves; and after those whose turn it is now.
            tokio::spawn(Arc::clone(&self.0).write_next());
        }
        let stopping =
            |_| Fault::Unavailable { what: "the serial number was not recorded: the daemon is stopping".into() };
        answer.await.map_err(stopping)?
    }
}

impl Inner {
    async fn write_next(self: Arc<Inner>) {
        let Gathered { intents, waiting } = std::mem::take(&mut *self.next.lock());
        let answer = self.write(intents).await;
        for waiting in waiting {
            // Whoever left does not listen.
            let _ = waiting.send(answer.clone());
        }
    }

    async fn write(self: &Arc<Inner>, intents: Vec<Intent>) -> Result<Recorded, Fault> {
        // Named by its first, which is no other's, and beside its neighbours.
        let first = intents.first().ok_or_else(|| Fault::internal("no certificates are intended"))?;
        let key = self.records.intents(&first.serial);
        let mut writes = vec![Write::create_record(key.clone(), &Batch { intents })?];
        let finished = std::mem::take(&mut *self.finished.lock());
        writes.extend(finished.iter().map(|key| Write::Delete { key: key.clone() }));
        if let Err(fault) = self.store.commit(writes).await {
            self.finished.lock().extend(finished);
            return Err(fault);
        }
        Ok(Recorded(Arc::new(Kept { of: Arc::clone(self), key })))
    }
}

/// Looks at what a crash left, part of a mount's start: a certificate that is not stored is noted as unfinished, and told.
pub(super) fn settle(store: &Store, records: &Records, mount: &str) -> Result<(), Fault> {
    let mut unfinished = Vec::new();
    let mut last: Option<String> = None;
    loop {
        let step =
            store.read_all::<Batch>(records.namespace(), &records.collection("intents"), last.as_deref(), LOAD_STEP)?;
        last = step.last().map(|(name, _)| name.clone());
        for (name, batch) in step {
            let mut writes = vec![Write::Delete { key: records.intents(&name) }];
            for intent in batch.intents {
                let Some(serial) = Serial::parse(&intent.serial) else { continue };
                if store.get(&records.certificate(&serial))?.is_none() {
                    writes.push(Write::put_record(records.unfinished(&intent.serial), &intent)?);
                    unfinished.push(serial.to_string());
                }
            }
            store.commit_now(writes)?;
        }
        if last.is_none() {
            break;
        }
    }
    if !unfinished.is_empty() {
        let (count, namespace) = (unfinished.len(), records.namespace());
        unfinished.truncate(TOLD);
        tracing::warn!(
            mount, %namespace, count, serials = unfinished.join(" "),
            "the daemon ended while these certificates were being signed: they may exist, are not stored, and nobody was \
             answered with them; certs/unfinished lists them"
        );
    }
    Ok(())
}

/// What a step of tidying looked at.
pub(super) struct Tidied {
    /// The name of the last one; `None` at the end.
    pub(super) last: Option<String>,
    pub(super) seen: usize,
    pub(super) removed: usize,
}

/// Removes those of the next `step` unfinished certificates that ended before `ends_before` (Unix seconds): whoever might have
/// one could do nothing with it. Blocks for the disk.
pub(super) fn tidy(
    store: &Store,
    records: &Records,
    after: Option<&str>,
    step: usize,
    ends_before: u64,
) -> Result<Tidied, Fault> {
    let found = store.read_all::<Intent>(records.namespace(), &records.collection("unfinished"), after, step)?;
    let ended = found.iter().filter(|(_, intent)| intent.not_after < ends_before);
    let writes: Vec<Write> = ended.map(|(name, _)| Write::Delete { key: records.unfinished(name) }).collect();
    let removed = writes.len();
    store.commit_now(writes)?;
    let seen = found.len();
    let last = found.into_iter().next_back().map(|(name, _)| name).filter(|_| seen == step);
    Ok(Tidied { last, seen, removed })
}

/// `LIST certs/unfinished`. `after` and `limit` take it in parts. Blocks for the disk.
pub(super) fn list(store: &Store, records: &Records, data: &Data) -> Result<Response, Fault> {
    let Page { after, limit } = Page::parse(data, LISTED)?;
    let collection = records.collection("unfinished");
    let found = store.read_all::<Intent>(records.namespace(), &collection, after.as_deref(), limit)?;
    if found.is_empty() {
        return Err(Fault::absent());
    }
    let shown = |name: &str| Serial::parse(name).map(|serial| serial.to_string()).unwrap_or_default();
    let keys: Vec<String> = found.iter().map(|(name, _)| shown(name)).collect();
    let info: Data = found
        .iter()
        .map(|(name, intent)| {
            let value = json!({"issuer_id": intent.issuer, "expiration": intent.not_after, "recorded": intent.time});
            (shown(name), value)
        })
        .collect();
    let mut data = Data::new();
    data.insert("keys".into(), keys.into());
    data.insert("key_info".into(), info.into());
    let warnings = if found.len() == limit { vec![Page::warning(limit)] } else { Vec::new() };
    Ok(Response::with_warnings(data, warnings))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::config::{Pace, Storage};
    use crate::model::{Mount, MountConfig, Namespace};
    use crate::store::Ephemeral;

    fn place() -> (Store, Records) {
        let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap()), Pace::Prompt).unwrap();
        store.initialize().unwrap();
        let mount = Mount {
            namespace: Namespace::root(),
            path: "pki/".into(),
            engine: "pki".into(),
            uuid: "u".into(),
            accessor: "a".into(),
            description: String::new(),
            options: Default::default(),
            config: MountConfig::default(),
        };
        (store, Records::new(&mount))
    }

    fn count(store: &Store, records: &Records, kind: &str) -> usize {
        store.list(records.namespace(), &records.collection(kind), None, 100).unwrap().len()
    }

    #[tokio::test]
    async fn a_record_goes_once_the_last_that_shares_it_is_done() {
        let (store, records) = place();
        let intents = Intents::new(&store, &records);
        let record = || intents.record([Intent::new(&Serial::new().unwrap(), "i", 9)]);
        let recorded = (0..40).map(|_| record());
        let mut recorded: Vec<Recorded> =
            futures_util::future::join_all(recorded).await.into_iter().collect::<Result<_, _>>().unwrap();
        let shared = count(&store, &records, "intents");
        assert!((1..=3).contains(&shared), "{shared} records of 40 who came together");
        let last = recorded.pop().unwrap();
        drop(recorded);
        let _one = record().await.unwrap();
        assert_eq!(count(&store, &records, "intents"), 2, "one that is held, and the new one");
        drop(last);
        let _other = record().await.unwrap();
        assert_eq!(count(&store, &records, "intents"), 2, "two that are held");
    }

    #[tokio::test]
    async fn what_a_crash_left_is_noted_unless_it_was_stored_after_all() {
        let (store, records) = place();
        let intents = Intents::new(&store, &records);
        let [lost, kept] = [Serial::new().unwrap(), Serial::new().unwrap()];
        let two = [&lost, &kept].map(|serial| Intent::new(serial, "i", 9));
        std::mem::forget(intents.record(two).await.unwrap());
        assert_eq!(count(&store, &records, "intents"), 1);
        let certificate = Write::Create { key: records.certificate(&kept), version: 1, value: vec![0x30] };
        store.commit(vec![certificate]).await.unwrap();
        let listed = |data: Value| list(&store, &records, data.as_object().unwrap());
        assert!(listed(json!({})).is_err());
        settle(&store, &records, "pki/").unwrap();
        assert_eq!((count(&store, &records, "intents"), count(&store, &records, "unfinished")), (0, 1));
        let Response::Data { data, warnings, .. } = listed(json!({"list": "true"})).unwrap() else { panic!("a list") };
        assert!(warnings.is_empty());
        assert_eq!(data["keys"], json!([lost.to_string()]));
        assert_eq!(data["key_info"][lost.to_string()]["issuer_id"], "i");
        settle(&store, &records, "pki/").unwrap();
        assert_eq!(count(&store, &records, "unfinished"), 1);
        // A part that is full says so; behind the last there is nothing.
        let Response::Data { warnings, .. } = listed(json!({"limit": 1})).unwrap() else { panic!("a list") };
        assert!(warnings[0].contains("only 1 serial numbers"), "{warnings:?}");
        assert!(listed(json!({"after": lost.to_string()})).is_err());
        assert!(listed(json!({"after": "x"})).is_err_and(|fault| fault.to_string().contains("not a serial number")));
    }
}
