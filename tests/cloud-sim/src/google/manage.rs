//! Making, listing and changing key rings, crypto keys and versions.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use time::OffsetDateTime;

use super::algorithm::{ALGORITHMS, Algorithm, Protection, Purpose, State, Word as _};
use super::call::Call;
use super::failure::{Code, Failure};
use super::fields::{Answer, Fields};
use super::store::{CryptoKey, Store, stamp};
use crate::keys::{Key, Kind};

/// How long a version stays before it is destroyed, if its key does not say.
const DESTROYED_AFTER: Duration = Duration::from_hours(30 * 24);
/// The longest that it may.
const LONGEST: Duration = Duration::from_hours(120 * 24);
/// The largest page of a list.
const PAGE: usize = 1000;

/// The resources, and what is allowed with them.
pub(super) struct Manager {
    pub(super) store: Arc<Mutex<Store>>,
    /// The shortest time between the order to destroy a version and the deed.
    pub(super) shortest: Duration,
}

impl Manager {
    /// Does what is asked, if it is one of the calls of this file.
    pub(super) fn answer(
        &self,
        call: &Call,
        query: &Fields,
        body: &Fields,
        answer: Answer,
    ) -> Option<Result<Answer, Failure>> {
        let name = call.name.as_str();
        Some(match call.operation {
            "createKeyRing" => self.create_ring(name, query, answer),
            "getKeyRing" => self.store.lock().ring(name).map(|created| ring(name, created, answer)),
            "listKeyRings" => self.list_rings(name, query, answer),
            "createCryptoKey" => self.create_key(name, query, body, answer),
            "getCryptoKey" => self.store.lock().crypto_key(name).map(|key| key.answer(answer)),
            "listCryptoKeys" => self.list_keys(name, query, answer),
            "updateCryptoKey" => self.update_key(name, query, body, answer),
            "updateCryptoKeyPrimaryVersion" => self.set_primary(name, body, answer),
            "createCryptoKeyVersion" => self.create_version(name, answer),
            "getCryptoKeyVersion" => self.store.lock().version(name).map(|version| version.answer(answer)),
            "listCryptoKeyVersions" => self.list_versions(name, query, answer),
            "updateCryptoKeyVersion" => self.update_version(name, query, body, answer),
            "destroyCryptoKeyVersion" => self.destroy(name, answer),
            "restoreCryptoKeyVersion" => self.restore(name, answer),
            _ => return None,
        })
    }

    fn create_ring(&self, parent: &str, query: &Fields, answer: Answer) -> Result<Answer, Failure> {
        let name = format!("{parent}/keyRings/{}", id(query, "keyRingId")?);
        let mut store = self.store.lock();
        if store.rings.contains_key(&name) {
            return Err(exists("KeyRing", &name));
        }
        let now = OffsetDateTime::now_utc();
        store.rings.insert(name.clone(), now);
        Ok(ring(&name, now, answer))
    }

    fn list_rings(&self, parent: &str, query: &Fields, answer: Answer) -> Result<Answer, Failure> {
        let prefix = format!("{parent}/keyRings/");
        let store = self.store.lock();
        let rings = store.rings.iter().filter(|(name, _)| name.starts_with(&prefix));
        let rings = rings.map(|(name, created)| ring(name, *created, answer.part()));
        list("keyRings", rings.collect(), query, answer)
    }

    fn create_key(&self, parent: &str, query: &Fields, body: &Fields, answer: Answer) -> Result<Answer, Failure> {
        let name = format!("{parent}/cryptoKeys/{}", id(query, "cryptoKeyId")?);
        let purpose: Purpose = body.word("purpose")?.ok_or_else(|| Failure::invalid("The purpose is required."))?;
        let template = body.inner("versionTemplate")?.unwrap_or_default();
        let protection = template.word("protectionLevel")?.unwrap_or(Protection::Software);
        let algorithm = match template.algorithm("algorithm")? {
            Some(algorithm) => algorithm,
            None if purpose == Purpose::EncryptDecrypt => &ALGORITHMS[0],
            None => return Err(Failure::invalid("The version_template.algorithm is required.")),
        };
        fits(algorithm, purpose, protection)?;
        let mut key = CryptoKey {
            name: name.clone(),
            purpose,
            created: OffsetDateTime::now_utc(),
            algorithm,
            protection,
            labels: body.get("labels").cloned(),
            destroyed_after: self.destroyed_after(body)?,
            primary: None,
            versions: Vec::new(),
        };
        let with_version = !query.flag("skipInitialVersionCreation")?;
        let mut store = self.store.lock();
        store.ring(parent)?;
        if store.keys.contains_key(&name) {
            return Err(exists("CryptoKey", &name));
        }
        if with_version {
            self.add_version(&mut key)?;
        }
        let answer = key.answer(answer);
        store.keys.insert(name, key);
        Ok(answer)
    }

    fn destroyed_after(&self, body: &Fields) -> Result<Duration, Failure> {
        let Some(text) = body.text("destroyScheduledDuration")? else { return Ok(DESTROYED_AFTER) };
        let seconds = text.strip_suffix('s').and_then(|seconds| seconds.parse::<f64>().ok());
        let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        duration.filter(|duration| (self.shortest..=LONGEST).contains(duration)).ok_or_else(|| {
            let shortest = self.shortest.as_secs();
            Failure::invalid(format!(
                "The destroy_scheduled_duration must be between {shortest}s and {}s.",
                LONGEST.as_secs()
            ))
        })
    }

    /// Adds a version. Key pairs are made in the background, as the service does it.
    fn add_version(&self, key: &mut CryptoKey) -> Result<(), Failure> {
        let kind = key.algorithm.kind;
        if matches!(kind, Kind::Aes { .. } | Kind::Hmac(_)) {
            key.add_version(Some(Key::generate(kind).map_err(|_| Failure::internal())?));
            return Ok(());
        }
        let name = key.add_version(None).name.clone();
        let store = Arc::clone(&self.store);
        tokio::spawn(async move {
            let made = Key::generate_aside(kind).await;
            let mut store = store.lock();
            if let (Ok(key), Ok(version)) = (made, store.version(&name)) {
                version.key = Some(Arc::new(key));
                version.generated = Some(OffsetDateTime::now_utc());
                if version.state == State::PendingGeneration {
                    version.state = State::Enabled;
                }
            }
        });
        Ok(())
    }

    fn list_keys(&self, parent: &str, query: &Fields, answer: Answer) -> Result<Answer, Failure> {
        let store = self.store.lock();
        store.ring(parent)?;
        let prefix = format!("{parent}/cryptoKeys/");
        let keys = store.keys.values().filter(|key| key.name.starts_with(&prefix));
        list("cryptoKeys", keys.map(|key| key.answer(answer.part())).collect(), query, answer)
    }

    fn update_key(&self, name: &str, query: &Fields, body: &Fields, answer: Answer) -> Result<Answer, Failure> {
        let mut store = self.store.lock();
        let key = store.crypto_key(name)?;
        let template = body.inner("versionTemplate")?.unwrap_or_default();
        for path in mask(query)? {
            match path.as_str() {
                "labels" => key.labels = body.get("labels").cloned(),
                "versionTemplate.algorithm" | "version_template.algorithm" => {
                    let algorithm = template.algorithm("algorithm")?;
                    let algorithm = algorithm.ok_or_else(|| Failure::invalid("The algorithm is required."))?;
                    fits(algorithm, key.purpose, key.protection)?;
                    key.algorithm = algorithm;
                }
                other => return Err(immutable(other)),
            }
        }
        Ok(key.answer(answer))
    }

    fn set_primary(&self, name: &str, body: &Fields, answer: Answer) -> Result<Answer, Failure> {
        let id = body.text("cryptoKeyVersionId")?.unwrap_or_default().to_owned();
        let mut store = self.store.lock();
        store.version(&format!("{name}/cryptoKeyVersions/{id}"))?;
        let key = store.crypto_key(name)?;
        if key.purpose != Purpose::EncryptDecrypt {
            let message = format!("{name} has no primary version: its purpose is {}.", key.purpose.words().1);
            return Err(Failure::invalid(message));
        }
        key.primary = id.parse().ok();
        Ok(key.answer(answer))
    }

    fn create_version(&self, name: &str, answer: Answer) -> Result<Answer, Failure> {
        let mut store = self.store.lock();
        let key = store.crypto_key(name)?;
        self.add_version(key)?;
        key.versions.last().map(|version| version.answer(answer)).ok_or_else(Failure::internal)
    }

    fn list_versions(&self, name: &str, query: &Fields, answer: Answer) -> Result<Answer, Failure> {
        let mut store = self.store.lock();
        let key = store.crypto_key(name)?;
        let versions = key.versions.iter().map(|version| version.answer(answer.part())).collect();
        list("cryptoKeyVersions", versions, query, answer)
    }

    fn update_version(&self, name: &str, query: &Fields, body: &Fields, answer: Answer) -> Result<Answer, Failure> {
        let mut store = self.store.lock();
        let version = store.version(name)?;
        for path in mask(query)? {
            if path != "state" {
                return Err(immutable(&path));
            }
            let state = body.word("state")?;
            let Some(state @ (State::Enabled | State::Disabled)) = state else {
                return Err(Failure::invalid("The state may be set to ENABLED or DISABLED only."));
            };
            if !matches!(version.state, State::Enabled | State::Disabled) {
                let (_, is) = version.state.words();
                let message = format!("{name} must be ENABLED or DISABLED, current state is: {is}.");
                return Err(Failure::precondition(message, &format!("KEY_{is}"), name));
            }
            version.state = state;
        }
        Ok(version.answer(answer))
    }

    fn destroy(&self, name: &str, answer: Answer) -> Result<Answer, Failure> {
        let mut store = self.store.lock();
        let after = super::call::key_of(name).map(|key| store.crypto_key(key).map(|key| key.destroyed_after));
        let version = store.version(name)?;
        if !matches!(version.state, State::Enabled | State::Disabled) {
            let (_, is) = version.state.words();
            let message = format!("{name} must be ENABLED or DISABLED to be destroyed, current state is: {is}.");
            return Err(Failure::precondition(message, &format!("KEY_{is}"), name));
        }
        let after = after.transpose()?.unwrap_or(DESTROYED_AFTER);
        version.state = State::DestroyScheduled;
        version.destruction = Some(OffsetDateTime::now_utc() + after);
        Ok(version.answer(answer))
    }

    fn restore(&self, name: &str, answer: Answer) -> Result<Answer, Failure> {
        let mut store = self.store.lock();
        let version = store.version(name)?;
        if version.state != State::DestroyScheduled {
            let (_, is) = version.state.words();
            let message = format!("{name} must be DESTROY_SCHEDULED to be restored, current state is: {is}.");
            return Err(Failure::precondition(message, &format!("KEY_{is}"), name));
        }
        version.state = State::Disabled;
        version.destruction = None;
        Ok(version.answer(answer))
    }
}

fn ring(name: &str, created: OffsetDateTime, mut answer: Answer) -> Answer {
    answer.set("name", name);
    answer.set("createTime", stamp(created));
    answer
}

/// An identifier for something new.
fn id(query: &Fields, field: &str) -> Result<String, Failure> {
    let id = query.text(field)?.unwrap_or_default();
    let good = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    if (1..=63).contains(&id.len()) && id.chars().all(good) {
        return Ok(id.to_owned());
    }
    Err(Failure::invalid(format!("'{id}' is no {field}: it must match [a-zA-Z0-9_-]{{1,63}}.")))
}

fn exists(what: &str, name: &str) -> Failure {
    Failure::new(Code::AlreadyExists, format!("{what} {name} already exists."))
}

fn immutable(path: &str) -> Failure {
    Failure::invalid(format!("The field '{path}' in the update_mask cannot be updated."))
}

fn fits(algorithm: &Algorithm, purpose: Purpose, protection: Protection) -> Result<(), Failure> {
    if algorithm.purpose != purpose {
        let message = format!("The algorithm {} is not valid for the purpose {}.", algorithm.name, purpose.words().1);
        return Err(Failure::invalid(message));
    }
    if algorithm.hsm_only && protection != Protection::Hsm {
        let message = format!("The algorithm {} is only available with the protection level HSM.", algorithm.name);
        return Err(Failure::invalid(message));
    }
    Ok(())
}

/// The fields that are to be changed.
fn mask(query: &Fields) -> Result<Vec<String>, Failure> {
    let mask = query.text("updateMask")?.unwrap_or_default();
    let paths: Vec<String> = mask.split(',').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    if paths.is_empty() {
        return Err(Failure::invalid("The update_mask is required."));
    }
    Ok(paths)
}

/// One page of a list.
fn list(name: &str, all: Vec<Answer>, query: &Fields, mut answer: Answer) -> Result<Answer, Failure> {
    for unknown in ["filter", "orderBy"] {
        if query.text(unknown)?.is_some_and(|text| !text.is_empty()) {
            return Err(Failure::new(Code::Unimplemented, format!("This emulator of the service has no '{unknown}'.")));
        }
    }
    let size = query.number("pageSize")?.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
    let size = size.unwrap_or(100).min(PAGE);
    let token = query.text("pageToken")?.unwrap_or_default();
    let start: usize = match token {
        "" => 0,
        token => token.parse().map_err(|_| Failure::invalid("The page_token is invalid."))?,
    };
    let total = all.len();
    let page: Vec<Value> = all.into_iter().skip(start).take(size).map(Answer::value).collect();
    if !page.is_empty() {
        answer.set(name, page);
    }
    if start.saturating_add(size) < total {
        answer.set("nextPageToken", (start + size).to_string());
    }
    answer.set("totalSize", total);
    Ok(answer)
}
