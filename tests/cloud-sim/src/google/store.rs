//! Key rings, crypto keys and their versions, in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::algorithm::{Algorithm, Protection, Purpose, State, Word as _};
use super::failure::Failure;
use super::fields::Answer;
use crate::keys::Key;

/// All that was made, each under its whole name.
#[derive(Default)]
pub(super) struct Store {
    pub(super) rings: BTreeMap<String, OffsetDateTime>,
    pub(super) keys: BTreeMap<String, CryptoKey>,
}

pub(super) struct CryptoKey {
    pub(super) name: String,
    pub(super) purpose: Purpose,
    pub(super) created: OffsetDateTime,
    pub(super) algorithm: &'static Algorithm,
    pub(super) protection: Protection,
    pub(super) labels: Option<Value>,
    pub(super) destroyed_after: Duration,
    /// The number of the version that encrypts.
    pub(super) primary: Option<usize>,
    /// The first has the number 1.
    pub(super) versions: Vec<Version>,
}

pub(super) struct Version {
    pub(super) name: String,
    pub(super) state: State,
    pub(super) algorithm: &'static Algorithm,
    pub(super) protection: Protection,
    pub(super) created: OffsetDateTime,
    pub(super) generated: Option<OffsetDateTime>,
    /// When it is to be destroyed.
    pub(super) destruction: Option<OffsetDateTime>,
    /// When it was.
    pub(super) destroyed: Option<OffsetDateTime>,
    pub(super) key: Option<Arc<Key>>,
}

/// A version that may be used.
#[derive(Clone)]
pub(super) struct Usable {
    pub(super) name: String,
    pub(super) algorithm: &'static Algorithm,
    pub(super) protection: Protection,
    pub(super) key: Arc<Key>,
}

impl Store {
    pub(super) fn crypto_key(&mut self, name: &str) -> Result<&mut CryptoKey, Failure> {
        let key = self.keys.get_mut(name).ok_or_else(|| Failure::not_found("CryptoKey", name))?;
        key.versions.iter_mut().for_each(Version::pass_time);
        Ok(key)
    }

    pub(super) fn version(&mut self, name: &str) -> Result<&mut Version, Failure> {
        let missing = || Failure::not_found("CryptoKeyVersion", name);
        let (key, number) = name.split_once("/cryptoKeyVersions/").ok_or_else(missing)?;
        let number: usize = number.parse().map_err(|_| missing())?;
        let key = self.crypto_key(key).map_err(|_| missing())?;
        key.versions.get_mut(number.wrapping_sub(1)).ok_or_else(missing)
    }

    /// A version that is enabled.
    pub(super) fn usable(&mut self, name: &str) -> Result<Usable, Failure> {
        self.version(name)?.usable()
    }

    /// Refuses the names of rings that are not there.
    pub(super) fn ring(&self, name: &str) -> Result<OffsetDateTime, Failure> {
        self.rings.get(name).copied().ok_or_else(|| Failure::not_found("KeyRing", name))
    }
}

impl CryptoKey {
    /// Says what it is.
    pub(super) fn answer(&self, mut answer: Answer) -> Answer {
        answer.set("name", self.name.clone());
        answer.set_word("purpose", self.purpose);
        answer.set("createTime", stamp(self.created));
        let mut template = answer.part();
        template.set_word("protectionLevel", self.protection);
        template.set_algorithm("algorithm", self.algorithm);
        answer.set_part("versionTemplate", template);
        answer.set("destroyScheduledDuration", format!("{}s", self.destroyed_after.as_secs()));
        if let Some(labels) = &self.labels {
            answer.set("labels", labels.clone());
        }
        if let Some(primary) = self.primary.and_then(|number| self.versions.get(number.wrapping_sub(1))) {
            let part = primary.answer(answer.part());
            answer.set_part("primary", part);
        }
        answer
    }

    /// Adds a version; without a key yet, if that takes long to make.
    pub(super) fn add_version(&mut self, key: Option<Key>) -> &Version {
        let now = OffsetDateTime::now_utc();
        self.versions.push(Version {
            name: format!("{}/cryptoKeyVersions/{}", self.name, self.versions.len() + 1),
            state: if key.is_some() { State::Enabled } else { State::PendingGeneration },
            algorithm: self.algorithm,
            protection: self.protection,
            created: now,
            generated: key.is_some().then_some(now),
            destruction: None,
            destroyed: None,
            key: key.map(Arc::new),
        });
        if self.purpose == Purpose::EncryptDecrypt && self.primary.is_none() {
            self.primary = Some(self.versions.len());
        }
        let last = self.versions.len() - 1;
        &self.versions[last]
    }
}

impl Version {
    /// Destroys it if it is time.
    fn pass_time(&mut self) {
        let due = self.destruction.filter(|due| *due <= OffsetDateTime::now_utc());
        if let (State::DestroyScheduled, Some(due)) = (self.state, due) {
            self.state = State::Destroyed;
            self.key = None;
            self.destroyed = Some(due);
            self.destruction = None;
        }
    }

    pub(super) fn answer(&self, mut answer: Answer) -> Answer {
        answer.set("name", self.name.clone());
        answer.set_word("state", self.state);
        answer.set_word("protectionLevel", self.protection);
        answer.set_algorithm("algorithm", self.algorithm);
        answer.set("createTime", stamp(self.created));
        for (name, time) in
            [("generateTime", self.generated), ("destroyTime", self.destruction), ("destroyEventTime", self.destroyed)]
        {
            if let Some(time) = time {
                answer.set(name, stamp(time));
            }
        }
        answer
    }

    fn usable(&self) -> Result<Usable, Failure> {
        match (self.state, &self.key) {
            (State::Enabled, Some(key)) => Ok(Usable {
                name: self.name.clone(),
                algorithm: self.algorithm,
                protection: self.protection,
                key: Arc::clone(key),
            }),
            _ => Err(self.not_enabled()),
        }
    }

    fn not_enabled(&self) -> Failure {
        let (_, state) = self.state.words();
        let message = format!("{} is not enabled, current state is: {state}.", self.name);
        Failure::precondition(message, &format!("KEY_{state}"), &self.name)
    }
}

impl Usable {
    /// Refuses keys whose algorithm is for something else.
    pub(super) fn with_purpose(self, purpose: Purpose) -> Result<Usable, Failure> {
        if self.algorithm.purpose == purpose {
            return Ok(self);
        }
        let ((_, wanted), (_, is)) = (purpose.words(), self.algorithm.purpose.words());
        let message = format!("{} has the purpose {is} and cannot be used for {wanted}.", self.name);
        Err(Failure::precondition(message, "KEY_PURPOSE_MISMATCH", &self.name))
    }
}

/// A time as the service writes it.
pub(super) fn stamp(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}
