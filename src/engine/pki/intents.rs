//! Intents: before a certificate is signed, its serial number is durable. So whatever a key of this mount ever signed is
//! known, also where the daemon was killed between the signature and its record.
//!
//! Those who come in one turn of a thread share a record; it does not wait for the one before it, which would cost them a wait
//! for the disk more. When the last of them is done it is of no more use, and goes with the commit of the next one: a commit of
//! its own would cost more than what it removes.
//!
//! A certificate that its key was asked to sign, and of which nobody knows what became (its asker left, the token failed, it
//! could not be stored), is noted as unfinished in that same commit: it may exist, is not stored, and nobody was answered with
//! it. At a start, what a crash left is looked at in the same way.

use std::collections::VecDeque;
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
/// Changes that close records, of one commit: few enough that a worker looks them up between two other tasks.
const CLOSED_AT_ONCE: usize = 200;
/// Records that are remembered while the disk fails. Beyond these, a start doubts them for nothing.
const CLOSED_MAX: usize = 100_000;

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
    /// The path of the mount, for logs.
    mount: String,
    next: Mutex<Gathered>,
    /// Records that nobody holds any more.
    closed: Mutex<VecDeque<Closed>>,
}

/// The next record. Whoever is its first sees to it that it is written.
#[derive(Default)]
struct Gathered {
    intents: Vec<Intent>,
    waiting: Vec<(usize, oneshot::Sender<Result<Shared, Fault>>)>,
}

/// A record that is durable, and which of its intents are a waiting one's: those from this one on.
type Shared = (Arc<Kept>, usize);

/// That an intent is durable. When the last of a record is dropped, the record is of no more use, once it is noted which of its
/// certificates are in doubt.
pub(super) struct Recorded {
    kept: Arc<Kept>,
    at: usize,
    /// Its key was asked to sign it, and what became of that is not known.
    in_doubt: bool,
}

impl Recorded {
    /// Its key is asked to sign it. Dropped before it is [`Recorded::settled`], it may exist, and is noted as unfinished.
    pub(super) fn asked(&mut self) {
        self.in_doubt = true;
    }

    /// It is known what became of it: it is stored, or was never signed.
    pub(super) fn settled(&mut self) {
        self.in_doubt = false;
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if self.in_doubt {
            self.kept.in_doubt.lock().push(self.at);
        }
    }
}

/// A record that somebody holds.
struct Kept {
    of: Arc<Inner>,
    key: RecordKey,
    intents: Vec<Intent>,
    in_doubt: Mutex<Vec<usize>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let in_doubt = self.in_doubt.get_mut().iter().filter_map(|at| self.intents.get(*at).cloned()).collect();
        self.of.closed.lock().push_back(Closed { key: Some(self.key.clone()), in_doubt });
    }
}

/// What is left to be written of a record.
struct Closed {
    /// To be deleted, together with the last that is in doubt.
    key: Option<RecordKey>,
    /// To be noted as unfinished, unless they are stored after all.
    in_doubt: Vec<Intent>,
}

impl Intents {
    /// Those of the mount at the path `mount`.
    pub(super) fn new(store: &Store, records: &Records, mount: &str) -> Intents {
        let (store, records, mount) = (store.clone(), records.clone(), mount.to_owned());
        Intents(Arc::new(Inner { store, records, mount, next: Mutex::default(), closed: Mutex::default() }))
    }

    /// Makes an intent durable.
    pub(super) async fn record(&self, intent: Intent) -> Result<Recorded, Fault> {
        let (kept, at) = self.share([intent]).await?;
        Ok(Recorded { kept, at, in_doubt: false })
    }

    /// The same for many, all of them in one record.
    pub(super) async fn record_all(
        &self,
        intents: impl ExactSizeIterator<Item = Intent>,
    ) -> Result<Vec<Recorded>, Fault> {
        let count = intents.len();
        let (kept, first) = self.share(intents).await?;
        let recorded = |at| Recorded { kept: Arc::clone(&kept), at, in_doubt: false };
        Ok((first..first + count).map(recorded).collect())
    }

    async fn share(&self, intents: impl IntoIterator<Item = Intent>) -> Result<Shared, Fault> {
        let (sender, answer) = oneshot::channel();
        let is_first = {
            let mut next = self.0.next.lock();
            let at = next.intents.len();
            next.intents.extend(intents);
            next.waiting.push((at, sender));
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

    /// Notes all that is in doubt now. Blocks for the disk.
    pub(super) fn note_doubts(&self) -> Result<(), Fault> {
        while self.are_in_doubt() {
            let part = self.0.take_closed();
            let closing = self.0.closing(&part);
            let noted = closing.and_then(|(writes, unfinished)| self.0.store.commit_now(writes).map(|()| unfinished));
            match noted {
                Ok(unfinished) => self.0.tell(unfinished),
                Err(fault) => {
                    self.0.put_back(part);
                    return Err(fault);
                }
            }
        }
        Ok(())
    }

    /// Whether [`Intents::note_doubts`] has anything to note.
    pub(super) fn are_in_doubt(&self) -> bool {
        self.0.closed.lock().iter().any(|closed| !closed.in_doubt.is_empty())
    }
}

impl Inner {
    /// The next `limit` of what is unfinished. A certificate that was stored after it was noted, by a commit that was under
    /// way then, is listed no more.
    fn unfinished(&self, mut after: Option<String>, limit: usize) -> Result<Vec<(String, Intent)>, Fault> {
        let Inner { store, records, .. } = self;
        let collection = records.collection("unfinished");
        let mut found = Vec::new();
        while found.len() < limit {
            let step = LOAD_STEP.min(limit - found.len());
            let read = store.read_all::<Intent>(records.namespace(), &collection, after.as_deref(), step)?;
            let is_last = read.len() < step;
            after = read.last().map(|(name, _)| name.clone());
            let mut stored = Vec::new();
            for (name, intent) in read {
                let serial = Serial::parse(&name);
                match serial.map(|serial| store.get(&records.certificate(&serial))).transpose()?.flatten() {
                    Some(_) => stored.push(Write::Delete { key: records.unfinished(&name) }),
                    None => found.push((name, intent)),
                }
            }
            if !stored.is_empty() {
                store.commit_now(stored)?;
            }
            if is_last {
                break;
            }
        }
        Ok(found)
    }

    async fn write_next(self: Arc<Inner>) {
        let Gathered { intents, waiting } = std::mem::take(&mut *self.next.lock());
        let answer = self.write(intents).await;
        for (at, waiting) in waiting {
            // Whoever left does not listen.
            let _ = waiting.send(answer.clone().map(|kept| (kept, at)));
        }
    }

    async fn write(self: &Arc<Inner>, intents: Vec<Intent>) -> Result<Arc<Kept>, Fault> {
        // Named by its first, which is no other's, and beside its neighbours.
        let first = intents.first().ok_or_else(|| Fault::internal("no certificates are intended"))?;
        let key = self.records.intents(&first.serial);
        let batch = Batch { intents };
        let mut writes = vec![Write::create_record(key.clone(), &batch)?];
        let part = self.take_closed();
        let committed = match self.closing(&part) {
            Ok((closing, unfinished)) => {
                writes.extend(closing);
                self.store.commit(writes).await.map(|()| unfinished)
            }
            Err(fault) => Err(fault),
        };
        match committed {
            Ok(unfinished) => self.tell(unfinished),
            Err(fault) => {
                self.put_back(part);
                self.give_up(key);
                return Err(fault);
            }
        }
        Ok(Arc::new(Kept { of: Arc::clone(self), key, intents: batch.intents, in_doubt: Mutex::default() }))
    }

    /// A record whose commit failed: the disk may have it all the same. Nothing of it is signed, and a start must not doubt that.
    fn give_up(&self, key: RecordKey) {
        let mut closed = self.closed.lock();
        if closed.len() < CLOSED_MAX {
            closed.push_back(Closed { key: Some(key), in_doubt: Vec::new() });
        }
    }

    /// As much of what is closed as goes into one commit beside others.
    fn take_closed(&self) -> Vec<Closed> {
        let mut closed = self.closed.lock();
        let (mut part, mut room) = (Vec::new(), CLOSED_AT_ONCE);
        while room > 0
            && let Some(mut next) = closed.pop_front()
        {
            if next.in_doubt.len() > room {
                let rest = next.in_doubt.split_off(room);
                closed.push_front(Closed { key: next.key.take(), in_doubt: rest });
            }
            room = room.saturating_sub(next.in_doubt.len() + 1);
            part.push(next);
        }
        part
    }

    fn put_back(&self, part: Vec<Closed>) {
        let mut closed = self.closed.lock();
        part.into_iter().rev().for_each(|part| closed.push_front(part));
    }

    /// The changes that close records, and the serial numbers that they note. Looks into the store for what is in doubt alone.
    fn closing(&self, part: &[Closed]) -> Result<(Vec<Write>, Vec<String>), Fault> {
        let (mut writes, mut unfinished) = (Vec::new(), Vec::new());
        for Closed { key, in_doubt } in part {
            for intent in in_doubt {
                writes.extend(note(&self.store, &self.records, intent, &mut unfinished)?);
            }
            writes.extend(key.iter().map(|key| Write::Delete { key: key.clone() }));
        }
        Ok((writes, unfinished))
    }

    fn tell(&self, unfinished: Vec<String>) {
        tell(
            &self.records,
            &self.mount,
            unfinished,
            "their key was asked to sign them, and it is not known what became of it",
        );
    }
}

/// The change that notes a certificate as unfinished, unless it is stored.
fn note(
    store: &Store,
    records: &Records,
    intent: &Intent,
    unfinished: &mut Vec<String>,
) -> Result<Option<Write>, Fault> {
    let Some(serial) = Serial::parse(&intent.serial) else { return Ok(None) };
    if store.get(&records.certificate(&serial))?.is_some() {
        return Ok(None);
    }
    unfinished.push(serial.to_string());
    Write::put_record(records.unfinished(&intent.serial), intent).map(Some)
}

fn tell(records: &Records, mount: &str, mut unfinished: Vec<String>, why: &str) {
    if unfinished.is_empty() {
        return;
    }
    let (count, namespace) = (unfinished.len(), records.namespace());
    unfinished.truncate(TOLD);
    tracing::warn!(
        mount, %namespace, count, serials = unfinished.join(" "), why,
        "these certificates may exist, are not stored, and nobody was answered with them; certs/unfinished lists them"
    );
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
            for intent in &batch.intents {
                writes.extend(note(store, records, intent, &mut unfinished)?);
            }
            store.commit_now(writes)?;
        }
        if last.is_none() {
            break;
        }
    }
    tell(records, mount, unfinished, "the daemon ended while they were being signed");
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
pub(super) fn list(intents: &Intents, data: &Data) -> Result<Response, Fault> {
    let Page { after, limit } = Page::parse(data, LISTED)?;
    intents.note_doubts()?;
    let found = intents.0.unfinished(after, limit)?;
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
    use crate::config::Storage;
    use crate::model::{Mount, MountConfig, Namespace};
    use crate::store::Ephemeral;

    fn place() -> (Store, Records) {
        let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap())).unwrap();
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
        store.list(records.namespace(), &records.collection(kind), None, 10_000).unwrap().len()
    }

    #[tokio::test]
    async fn a_record_goes_once_the_last_that_shares_it_is_done() {
        let (store, records) = place();
        let intents = Intents::new(&store, &records, "pki/");
        let record = || intents.record(Intent::new(&Serial::new().unwrap(), "i", 9));
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
    async fn what_is_in_doubt_is_noted_before_its_record_goes() {
        let (store, records) = place();
        let intents = Intents::new(&store, &records, "pki/");
        let serials: Vec<Serial> = (0..2 * CLOSED_AT_ONCE + 50).map(|_| Serial::new().unwrap()).collect();
        let all = serials.iter().map(|serial| Intent::new(serial, "i", 9));
        let mut recorded = intents.record_all(all).await.unwrap();
        recorded.iter_mut().for_each(Recorded::asked);
        recorded[0].settled();
        // Stored, though nobody heard of it.
        let certificate = Write::Create { key: records.certificate(&serials[1]), version: 1, value: vec![0x30] };
        store.commit(vec![certificate]).await.unwrap();
        drop(recorded);
        assert!(intents.are_in_doubt());
        // Each commit takes a part of them along; the record goes with the last one.
        let mut seen = 0;
        for _ in 0..3 {
            assert!(store.get(&records.intents(&serials[0].record_name())).unwrap().is_some());
            let _other = intents.record(Intent::new(&Serial::new().unwrap(), "i", 9)).await.unwrap();
            let now = count(&store, &records, "unfinished");
            assert!(now > seen, "{now} after {seen}");
            seen = now;
        }
        intents.note_doubts().unwrap();
        assert!(!intents.are_in_doubt());
        assert!(store.get(&records.intents(&serials[0].record_name())).unwrap().is_none());
        assert_eq!(count(&store, &records, "unfinished"), serials.len() - 2);
    }

    #[tokio::test]
    async fn a_record_whose_commit_failed_goes_with_the_next() {
        let (store, records) = place();
        let intents = Intents::new(&store, &records, "pki/");
        let serial = Serial::new().unwrap();
        let intent = || Intent::new(&serial, "i", 9);
        let _written = intents.record(intent()).await.unwrap();
        // The same name twice stands for a disk that fails and has it all the same.
        assert!(intents.record(intent()).await.is_err());
        assert!(!intents.are_in_doubt());
        let _other = intents.record(Intent::new(&Serial::new().unwrap(), "i", 9)).await.unwrap();
        assert!(store.get(&records.intents(&serial.record_name())).unwrap().is_none());
        settle(&store, &records, "pki/").unwrap();
        assert!(store.read::<Intent>(&records.unfinished(&serial.record_name())).unwrap().is_none());
    }

    #[tokio::test]
    async fn what_was_stored_after_it_was_noted_is_listed_no_more() {
        let (store, records) = place();
        let intents = Intents::new(&store, &records, "pki/");
        let serials: Vec<Serial> = (0..5).map(|_| Serial::new().unwrap()).collect();
        for serial in &serials {
            let mut recorded = intents.record(Intent::new(serial, "i", 9)).await.unwrap();
            recorded.asked();
        }
        intents.note_doubts().unwrap();
        for serial in &serials[..4] {
            let certificate = Write::Create { key: records.certificate(serial), version: 1, value: vec![0x30] };
            store.commit(vec![certificate]).await.unwrap();
        }
        let Response::Data { data, .. } = list(&intents, json!({"limit": 1}).as_object().unwrap()).unwrap() else {
            panic!("a list")
        };
        assert_eq!(data["keys"], json!([serials[4].to_string()]));
        let all = list(&intents, &Data::new()).unwrap();
        assert!(matches!(all, Response::Data { data, .. } if data["keys"] == json!([serials[4].to_string()])));
        assert_eq!(count(&store, &records, "unfinished"), 1);
    }

    #[tokio::test]
    async fn what_a_crash_left_is_noted_unless_it_was_stored_after_all() {
        let (store, records) = place();
        let intents = Intents::new(&store, &records, "pki/");
        let [lost, kept] = [Serial::new().unwrap(), Serial::new().unwrap()];
        let two = [&lost, &kept].map(|serial| Intent::new(serial, "i", 9));
        std::mem::forget(intents.record_all(two.into_iter()).await.unwrap());
        assert_eq!(count(&store, &records, "intents"), 1);
        let certificate = Write::Create { key: records.certificate(&kept), version: 1, value: vec![0x30] };
        store.commit(vec![certificate]).await.unwrap();
        let listed = |data: Value| list(&intents, data.as_object().unwrap());
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
