//! By whose word calls are made: a credential file, its contents, or the daemon's own identity (environment, well-known file,
//! metadata server; workload identity federation by any of the files).
//!
//! Google's library fetches tokens ahead of their end, and says nothing of failures until the last one has expired; after one
//! that it takes for lasting, it never tries again. So credentials are made anew now and then, well within the life of a token,
//! and put in the place of the old when they are good.

use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use google_cloud_auth::credentials::{
    self as google, CacheableResource, Credentials, external_account, impersonated, service_account, user_account,
};
use google_cloud_auth::errors::CredentialsError;
use hyper::http::header::AUTHORIZATION;
use hyper::http::{Extensions, HeaderMap};
use serde_json::Value;

use crate::backend::cloud::{Issued, Issuer, Keeper, Owner, innermost};
use crate::model::{Secret, google_account};

/// Most bytes of a credential file.
const FILE_MAX: u64 = 64 * 1024;
/// Vault's variable: the contents of a credential file, or its path.
const VARIABLE: &str = "GOOGLE_CREDENTIALS";

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

/// Credentials, and the token that they had when they were made.
#[derive(Clone)]
pub(super) struct Made {
    credentials: Credentials,
    token: Secret,
}

impl Issuer for Source {
    type Credentials = Made;
    type Error = CredentialsError;

    async fn issue(&self) -> Result<Issued<Made>, CredentialsError> {
        let credentials = self.load().map_err(|why| CredentialsError::from_msg(false, why))?;
        let token = match credentials.headers(Extensions::new()).await? {
            CacheableResource::New { data, .. } => token_of(&data),
            CacheableResource::NotModified => Secret::default(),
        };
        let end = end_of(&token);
        Ok(Issued { credentials: Made { credentials, token }, end })
    }

    fn late(limit: Duration) -> CredentialsError {
        CredentialsError::from_msg(true, format!("no token within {} s", limit.as_secs()))
    }

    fn again(error: &CredentialsError) -> CredentialsError {
        CredentialsError::from_source(error.is_transient(), std::io::Error::other(innermost(error)))
    }

    fn why(error: &CredentialsError) -> String {
        innermost(error)
    }

    fn is_same(one: &Made, other: &Made) -> bool {
        one.token == other.token
    }
}

fn token_of(headers: &HeaderMap) -> Secret {
    let header = headers.get(AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
    Secret::new(header.strip_prefix(b"Bearer ").unwrap_or(header).to_vec())
}

/// When a token ends that says so itself: one that is signed by the account's own key (RFC 7519, `exp`). The others are no
/// text that means anything, and Google's library keeps to itself when they end.
fn end_of(token: &Secret) -> Option<SystemTime> {
    let claims = token.expose_str()?.split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(claims["exp"].as_u64()?))
}

impl Source {
    /// Whose credentials these are.
    pub(super) fn owner(&self) -> Owner {
        match self {
            Source::Own => Owner::daemon(""),
            Source::Json(json) => Owner::key(&google_account(json).unwrap_or_else(|| "unnamed".to_owned())),
            Source::File(path) => Owner::daemon(&path.display().to_string()),
        }
    }
}

/// The headers by which a call is made. What credentials say of the cloud's domain is not followed: it would name hosts.
pub(super) async fn headers(keeper: &Arc<Keeper<Source>>) -> Result<HeaderMap, CredentialsError> {
    match keeper.current().await?.credentials.headers(Extensions::new()).await? {
        CacheableResource::New { data, .. } => Ok(data),
        CacheableResource::NotModified => Err(CredentialsError::from_msg(true, "no token was given out")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_says_when_it_ends_is_believed() {
        let end = |claims: &str| end_of(&Secret::from(format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims)).as_str()));
        assert_eq!(end("{\"exp\": 1800000000}"), Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000)));
        assert_eq!((end("{\"iss\": 1}"), end("no JSON"), end_of(&Secret::from("ya29.opaque"))), (None, None, None));
    }

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
