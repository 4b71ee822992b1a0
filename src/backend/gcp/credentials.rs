//! By whose word calls are made: a credential file, its contents, or the daemon's own identity (environment, well-known file,
//! metadata server; workload identity federation by any of the files).
//!
//! Google's library fetches tokens ahead of their end, and says nothing of failures until the last one has expired; after one
//! that it takes for lasting, it never tries again. So credentials are made anew now and then, well within the life of a token,
//! and put in the place of the old when they are good. That they are not is told then, long before requests fail.

use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use google_cloud_auth::credentials::{
    self as google, CacheableResource, Credentials, CredentialsProvider, external_account, impersonated,
    service_account, user_account,
};
use google_cloud_auth::errors::CredentialsError;
use hyper::http::{Extensions, HeaderMap};
use parking_lot::Mutex;
use serde_json::Value;

use crate::backend::cloud::{Service, innermost};
use crate::model::Secret;

/// Tokens are good for an hour, and credentials are made anew so often.
const ANEW: Duration = Duration::from_secs(900);
/// Each failure is followed by another try after a pause.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A refused token is not replaced more often than this, so that no token endpoint is hammered.
const RENEWALS: Duration = Duration::from_secs(10);
/// How long a token may take.
const FETCH: Duration = Duration::from_secs(10);
/// Most bytes of a credential file.
const FILE_MAX: u64 = 64 * 1024;
/// Vault's variable: the contents of a credential file, or its path.
const VARIABLE: &str = "GOOGLE_CREDENTIALS";
/// Google's variable for clouds that are not its public one.
const UNIVERSE: &str = "GOOGLE_CLOUD_UNIVERSE_DOMAIN";

/// Where credentials come from.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// The daemon's environment.
    Own,
    Json(Secret),
    File(PathBuf),
}

/// By what is no secret.
impl Hash for Source {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Source::Own => 0u8.hash(state),
            Source::Json(_) => 1u8.hash(state),
            Source::File(path) => path.hash(state),
        }
    }
}

impl Source {
    /// Credentials made of it. In a runtime: the library fetches tokens beside.
    fn load(&self) -> Result<Credentials, String> {
        match self {
            Source::Own => own(),
            Source::Json(json) => of_json(json.expose()),
            Source::File(path) => of_file(path),
        }
    }
}

fn own() -> Result<Credentials, String> {
    match std::env::var(VARIABLE) {
        Ok(given) if given.trim_start().starts_with('{') => of_json(given.as_bytes()),
        Ok(given) if !given.is_empty() => of_file(Path::new(&given)),
        _ => google::Builder::default().build().map_err(|error| innermost(&error)),
    }
}

fn of_file(path: &Path) -> Result<Credentials, String> {
    let said = |error: std::io::Error| format!("{}: {error}", path.display());
    let size = std::fs::metadata(path).map_err(said)?.len();
    if size > FILE_MAX {
        return Err(format!("{}: at most {FILE_MAX} bytes are read, and it has {size}", path.display()));
    }
    let read = std::fs::read(path).map(Secret::new).map_err(said)?;
    of_json(read.expose()).map_err(|why| format!("{}: {why}", path.display()))
}

fn of_json(json: &[u8]) -> Result<Credentials, String> {
    // Not what is wrong with it: that would be said of a secret.
    let json: Value = serde_json::from_slice(json).map_err(|_| "it is no JSON of a credential file".to_owned())?;
    let made = match json["type"].as_str().unwrap_or_default() {
        "service_account" => service_account::Builder::new(json).build(),
        "external_account" => external_account::Builder::new(json).build(),
        "authorized_user" => user_account::Builder::new(json).build(),
        "impersonated_service_account" => impersonated::Builder::new(json).build(),
        other => return Err(format!("credentials of type {other:?} are none that are known")),
    };
    made.map_err(|error| innermost(&error))
}

/// Credentials that are made anew before they are needed.
pub(super) struct Keeper {
    source: Source,
    current: ArcSwap<Credentials>,
    /// Counts up when credentials are replaced.
    generation: AtomicU64,
    renewed: Mutex<Instant>,
    /// One renews, and the others wait for that.
    renewing: tokio::sync::Mutex<()>,
    service: Weak<Service>,
}

impl Keeper {
    /// Makes credentials, and has them made anew as long as somebody holds them. In a runtime.
    pub(super) fn start(source: Source, service: &Arc<Service>) -> Result<Arc<Keeper>, String> {
        let current = ArcSwap::from_pointee(source.load()?);
        let service_of = Arc::downgrade(service);
        let keeper = Arc::new(Keeper {
            source,
            current,
            generation: AtomicU64::default(),
            renewed: Mutex::new(Instant::now()),
            renewing: tokio::sync::Mutex::default(),
            service: service_of,
        });
        let held = Arc::downgrade(&keeper);
        service.runtime.spawn(async move {
            let mut pause = PAUSE_FIRST;
            loop {
                let Some(keeper) = held.upgrade() else { return };
                let next = match keeper.make_anew().await {
                    Ok(()) => {
                        pause = PAUSE_FIRST;
                        ANEW
                    }
                    Err(why) => {
                        tracing::error!(
                            service = "gcpckms",
                            credentials = keeper.source.name(),
                            reason = why,
                            "credentials could not be fetched anew; requests fail when the token at hand has expired"
                        );
                        pause = (pause * 2).min(PAUSE_MAX);
                        pause
                    }
                };
                drop(keeper);
                tokio::time::sleep(next).await;
            }
        });
        Ok(keeper)
    }

    /// Credentials in the place of those at hand, if they are good for a token.
    async fn make_anew(&self) -> Result<(), String> {
        let result = self.fetch().await;
        let own = self.service.upgrade().filter(|_| self.source == Source::Own);
        match (&result, own) {
            (Ok(_), Some(service)) => service.own.fetched(None),
            (Err(_), Some(service)) => service.own.failed(),
            (_, None) => {}
        }
        self.current.store(Arc::new(result?));
        self.generation.fetch_add(1, Ordering::Relaxed);
        *self.renewed.lock() = Instant::now();
        Ok(())
    }

    async fn fetch(&self) -> Result<Credentials, String> {
        let fresh = self.source.load()?;
        let headers = tokio::time::timeout(FETCH, fresh.headers(Extensions::new())).await;
        let headers = headers.map_err(|_| format!("no token within {} s", FETCH.as_secs()))?;
        headers.map(|_| fresh).map_err(|error| innermost(&error))
    }

    /// Which credentials are at hand.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// After a token of this generation was refused: whether there is another now.
    pub(super) async fn renew(&self, refused: u64) -> bool {
        let _one = self.renewing.lock().await;
        if self.generation() != refused {
            return true;
        }
        let due = self.renewed.lock().elapsed() >= RENEWALS;
        due && self.make_anew().await.is_ok()
    }
}

impl Source {
    /// For logs.
    fn name(&self) -> String {
        match self {
            Source::Own => "the daemon's own".to_owned(),
            Source::Json(_) => "a managed key's own".to_owned(),
            Source::File(path) => path.display().to_string(),
        }
    }
}

/// The credentials at hand, for Google's client.
#[derive(Clone)]
pub(super) struct Kept(pub(super) Arc<Keeper>);

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept")
    }
}

impl CredentialsProvider for Kept {
    async fn headers(&self, extensions: Extensions) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        let current = self.0.current.load_full();
        current.headers(extensions).await
    }

    /// As the daemon's environment has it. What credentials say of it is not followed: it would name hosts.
    async fn universe_domain(&self) -> Option<String> {
        std::env::var(UNIVERSE).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_credential_file_is_told_without_a_word_of_it() {
        for (text, why) in [
            ("{\"private_key\": \"hidden\"", "it is no JSON"),
            ("{\"private_key\": \"hidden\"}", "none that are known"),
            ("{\"type\": \"gdch_service_account\", \"private_key\": \"hidden\"}", "none that are known"),
            ("{\"type\": \"service_account\", \"private_key\": \"hidden\"}", "client_email"),
        ] {
            let said = of_json(text.as_bytes()).unwrap_err();
            assert!(said.contains(why) && !said.contains("hidden"), "{said}");
        }
        let missing = of_file(Path::new("/nowhere/credentials.json")).unwrap_err();
        assert!(missing.starts_with("/nowhere/credentials.json: "), "{missing}");
    }
}
