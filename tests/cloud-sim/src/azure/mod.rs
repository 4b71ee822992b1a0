//! Azure Key Vault and Azure Managed HSM, as far as keys go, and the services that give out tokens for them.
//!
//! It is a tool of its own: it serves whoever speaks Azure's REST API (api-version 2025-07-01 and those before), with real
//! cryptography. Microsoft's clients in Rust and in Python are what it is checked with.
//!
//! # Where things are
//!
//! Every name is a vault, empty at first. A request's `Host` says which: `<name>.vault.azure.net` is a vault,
//! `<name>.managedhsm.azure.net` a managed HSM, and so in other clouds (`.vault.azure.cn`). Have the client resolve these names
//! to this server, and trust the certificate that `--tls` writes; then nothing else is special about it. Who cannot do that
//! uses paths, `/vault/<name>` and `/managedhsm/<name>`, as the vault's URL, and has the client not verify the challenge's
//! resource.
//!
//! By path alone, whatever the `Host`: `/<tenant>/oauth2/v2.0/token` (client secrets and, for workload identity, client
//! assertions), `/metadata/identity/oauth2/token` (managed identity of a machine), `/msi/token` (of an app: point
//! `IDENTITY_ENDPOINT` at it, and `IDENTITY_HEADER` at anything), and what clients ask before they ask for tokens.
//!
//! # What it enforces
//!
//! Requests without a valid token are answered with the challenge. Tokens are for one resource, expire, and can be made to.
//! Names, types, sizes, curves, `key_ops`, lengths of digests, and whether an algorithm is one for that type are checked, and
//! the errors are in Azure's words. A disabled key signs, decrypts and unwraps no more, but still verifies, encrypts and wraps;
//! a key that has expired, or is not valid yet, does the opposite: as the service does it. A deleted key's name is free again
//! only once it is purged. A quota is one for a whole vault, and refusals are 429.
//!
//! # What it lacks
//!
//! Importing, backup, secure key release, attestation, rotation policies. There are no access policies: every token may do
//! everything, unless the control endpoint says of a key that it is `revoked`. Key names there are `<vault>/<key>`. Managed
//! HSMs make HMACs of whatever bytes `sign` is given, since Microsoft does not document that they hash first.

mod algorithm;
mod error;
mod kind;
mod operate;
mod place;
mod token;
mod vault;

use std::collections::BTreeMap;

use clap::Args;
use hyper::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use parking_lot::Mutex;

use self::error::Error;
use self::place::{Of, Place, Vault as Address};
use self::token::Authority;
use self::vault::Vault;
use crate::control::{Control, KeyState};
use crate::server::{Orders, Refusal, Request, Response, Service, Subject, json};

/// Names for the server's certificate.
pub(crate) const NAMES: &[&str] =
    &["*.vault.azure.net", "*.managedhsm.azure.net", "login.microsoftonline.com", "169.254.169.254"];

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A client that gets tokens, and its secret; without any, each with a secret does.
    #[arg(long = "client", value_name = "ID:SECRET")]
    clients: Vec<String>,
    /// The client assertion that gets tokens (workload identity); without it, each does.
    #[arg(long, value_name = "TEXT")]
    assertion: Option<String>,
}

/// All vaults, and who gives out tokens for them.
pub(crate) struct Azure {
    scheme: &'static str,
    authority: Authority,
    /// By whether they are managed HSMs, and by name.
    vaults: Mutex<BTreeMap<(bool, String), Vault>>,
}

impl Azure {
    pub(crate) fn new(options: &Options, url: &str) -> Result<Azure, String> {
        let scheme = if url.starts_with("https:") { "https" } else { "http" };
        let authority = Authority::new(&options.clients, options.assertion.clone())?;
        Ok(Azure { scheme, authority, vaults: Mutex::default() })
    }

    async fn answer(
        &self,
        request: &Request,
        subject: &Subject,
        orders: Orders,
        control: &Control,
    ) -> Result<Response, Error> {
        let address = match Place::of(request, self.scheme) {
            Place::Token { tenant } => return self.authority.grant(&tenant, request.body(), control),
            Place::Machine => return self.authority.grant_to_machine(request, control),
            Place::App => return self.authority.grant_to_app(request, control),
            Place::Discovery => return Ok(json(200, &token::discovery(&authority_host(request)))),
            Place::OpenId { tenant } => return Ok(json(200, &token::open_id(&authority_host(request), &tenant))),
            Place::Vault(address) => address,
            Place::Nowhere => return Err(Error::new(404, "NotFound", "There is nothing at this path.")),
        };
        self.authority.admit(request, address.hsm, control)?;
        if let Some(key) = &subject.key {
            allowed(key, &subject.operation, &address, control)?;
        }
        let answer = operate::operate(self, &address, request, orders, control).await?;
        Ok(match answer {
            Some(body) => json(200, &body),
            None => empty(204),
        })
    }

    /// Looks at a vault, or changes it.
    fn with<T>(&self, address: &Address, look: impl FnOnce(&mut Vault) -> T) -> T {
        look(self.vaults.lock().entry((address.hsm, address.name.clone())).or_default())
    }
}

/// Whether what somebody else did to the key allows the operation.
fn allowed(key: &str, operation: &str, address: &Address, control: &Control) -> Result<(), Error> {
    let name = key.split_once('/').map_or(key, |(_, name)| name);
    match control.key_state(key) {
        KeyState::Revoked => Err(Error::revoked(operation)),
        // Among those that can be recovered it is seen.
        KeyState::PendingDeletion if matches!(address.of, Of::Deleted(_)) => Ok(()),
        KeyState::Deleted | KeyState::PendingDeletion => Err(Error::not_found(name)),
        KeyState::Enabled | KeyState::Disabled => Ok(()),
    }
}

fn authority_host(request: &Request) -> String {
    format!("https://{}", place::host(request))
}

fn empty(status: u16) -> Response {
    let mut response = json(status, &serde_json::Value::Null);
    *response.body_mut() = bytes::Bytes::new();
    response
}

impl Service for Azure {
    const CLOUD: &'static str = "azure";

    fn subject(&self, request: &Request) -> Subject {
        match Place::of(request, self.scheme) {
            Place::Vault(address) => address.subject(request),
            Place::Nowhere => Subject { operation: "nowhere".into(), ..Subject::default() },
            Place::Discovery | Place::OpenId { .. } => Subject { operation: "discovery".into(), ..Subject::default() },
            Place::Token { .. } | Place::Machine | Place::App => {
                Subject { operation: "token".into(), ..Subject::default() }
            }
        }
    }

    async fn serve(&self, request: Request, subject: &Subject, orders: Orders, control: &Control) -> Response {
        let outcome = self.answer(&request, subject, orders, control).await;
        outcome.unwrap_or_else(|error| {
            let mut response = error.response();
            if response.status() == hyper::StatusCode::UNAUTHORIZED
                && let Place::Vault(address) = Place::of(&request, self.scheme)
                && let Ok(challenge) = HeaderValue::from_str(&token::challenge(address.hsm, &error))
            {
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            response
        })
    }

    fn refuse(&self, _: &Subject, refusal: &Refusal) -> Response {
        let (error, retry_after) = match refusal {
            Refusal::Throttled { retry_after } => (Error::throttled(), retry_after),
            Refusal::Failed { status, code, retry_after } => (Error::ordered(*status, code.as_deref()), retry_after),
        };
        let mut response = error.response();
        if let Some(after) = retry_after {
            // Whole seconds, as the service has it.
            let seconds = after.as_millis().div_ceil(1000).to_string();
            if let Ok(value) = HeaderValue::from_str(&seconds) {
                response.headers_mut().insert(RETRY_AFTER, value);
            }
        }
        response
    }
}
