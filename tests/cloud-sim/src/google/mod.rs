//! Google Cloud KMS, its REST API of version 1, and Google's endpoints of tokens.
//!
//! It enforces what the service enforces: states, purposes, digests and sizes, checksums, tokens. What it does not have it
//! says: other resources than key rings, keys and versions; permissions but by the control endpoint; import; post-quantum
//! algorithms. Which texts are Google's own and which are ours is not to be relied on; statuses, codes and reasons are.

mod algorithm;
mod call;
mod failure;
mod fields;
mod manage;
mod operations;
mod store;
#[cfg(test)]
mod tests;
mod token;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use parking_lot::Mutex;
use serde_json::json;

use self::algorithm::{State, Word as _};
use self::call::{Call, Family};
use self::failure::{Code, Failure};
use self::fields::{Answer, Fields};
use self::manage::Manager;
use self::operations::Operation;
use self::store::Store;
use self::token::Tokens;
use crate::control::{Control, KeyState};
use crate::server::{Orders, Refusal, Request, Response, Service, Subject};

/// The names of the service's hosts.
pub(crate) const NAMES: &[&str] = &["cloudkms.googleapis.com", "oauth2.googleapis.com", "sts.googleapis.com"];

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Answer requests without asking for a token.
    #[arg(long)]
    open: bool,
    /// The project of the service account and of the metadata server. Keys may be in any.
    #[arg(long, default_value = "keyway-test")]
    project: String,
    /// Make a service account and write its credentials to this file.
    #[arg(long, value_name = "FILE")]
    service_account: Option<PathBuf>,
    /// Let a workload outside of the cloud in: write its credentials to this file, and the token of its identity provider
    /// beside it, with the extension .token.
    #[arg(long, value_name = "FILE")]
    federated: Option<PathBuf>,
    /// Make this key ring, as if somebody had: projects/p/locations/l/keyRings/r.
    #[arg(long = "key-ring", value_name = "NAME")]
    key_rings: Vec<String>,
    /// The shortest destroyScheduledDuration, in seconds. The service's own is a day.
    #[arg(long, default_value_t = 86_400, value_name = "SECONDS")]
    shortest_destruction: u64,
}

pub(crate) struct Google {
    manager: Manager,
    tokens: Tokens,
}

impl Google {
    pub(crate) fn new(options: &Options, url: &str) -> Result<Google, String> {
        let mut tokens = Tokens::new(url, &options.project, options.open);
        if let Some(file) = &options.service_account {
            tokens.add_account(file)?;
        }
        if let Some(file) = &options.federated {
            tokens.add_federated(file)?;
        }
        let shortest = Duration::from_secs(options.shortest_destruction);
        let now = time::OffsetDateTime::now_utc();
        let rings = options.key_rings.iter().map(|name| (name.clone(), now)).collect();
        let store = Store { rings, ..Store::default() };
        Ok(Google { manager: Manager { store: Arc::new(Mutex::new(store)), shortest }, tokens })
    }

    fn run(&self, request: &Request, orders: Orders, control: &Control) -> Result<Response, Failure> {
        self.tokens.admit(request, control)?;
        let missing = || Failure::new(Code::NotFound, "The requested URL was not found on this server.");
        let call = Call::of(request.method(), request.uri().path()).ok_or_else(missing)?;
        let query = Fields::of_form(request.uri().query().unwrap_or_default());
        let body = Fields::of_body(request.body())?;
        let numbers = query.text("$alt")?.is_some_and(|alt| alt.contains("enum-encoding=int"));
        let steered = call.crypto_key().map(|key| control.key_state(key)).unwrap_or_default();
        steer(&call, steered)?;
        let answer = Answer::new(numbers, orders.wrong_checksum);
        // What a GET asks for is in its query.
        let asked = if call.operation == "getPublicKey" { &query } else { &body };
        let operation = Operation { name: &call.name, body: asked, orders };
        let done = match self.manager.answer(&call, &query, &body, answer) {
            Some(done) => done,
            None => {
                let answer = Answer::new(numbers, orders.wrong_checksum);
                let mut store = self.manager.store.lock();
                operation.run(call.operation, &mut store, answer).ok_or_else(missing)?
            }
        };
        let mut answer = done?;
        if let ("getCryptoKeyVersion", Some(state)) = (call.operation, state_of(steered)) {
            answer.set_word("state", state);
        }
        Ok(crate::server::json(200, &answer.value()))
    }
}

/// The state that somebody else gave the versions of a key.
fn state_of(steered: KeyState) -> Option<State> {
    match steered {
        KeyState::Enabled | KeyState::Revoked => None,
        KeyState::Disabled => Some(State::Disabled),
        KeyState::PendingDeletion => Some(State::DestroyScheduled),
        KeyState::Deleted => Some(State::Destroyed),
    }
}

/// Refuses what somebody else's deeds forbid.
fn steer(call: &Call, steered: KeyState) -> Result<(), Failure> {
    let uses = call.family() == Family::Cryptographic || call.operation == "getPublicKey";
    if steered == KeyState::Revoked {
        return Err(Failure::denied(permission(call.operation), &call.name));
    }
    match state_of(steered).filter(|_| uses) {
        Some(state) => {
            let (_, state) = state.words();
            let message = format!("{} is not enabled, current state is: {state}.", call.name);
            Err(Failure::precondition(message, &format!("KEY_{state}"), &call.name))
        }
        None => Ok(()),
    }
}

/// The permission that an operation needs.
fn permission(operation: &str) -> &'static str {
    match operation {
        "asymmetricSign" | "macSign" => "cloudkms.cryptoKeyVersions.useToSign",
        "macVerify" => "cloudkms.cryptoKeyVersions.useToVerify",
        "encrypt" | "rawEncrypt" => "cloudkms.cryptoKeyVersions.useToEncrypt",
        "decrypt" | "rawDecrypt" | "asymmetricDecrypt" => "cloudkms.cryptoKeyVersions.useToDecrypt",
        "getPublicKey" => "cloudkms.cryptoKeyVersions.viewPublicKey",
        "createCryptoKeyVersion" => "cloudkms.cryptoKeyVersions.create",
        "getCryptoKey" => "cloudkms.cryptoKeys.get",
        _ => "cloudkms.cryptoKeyVersions.get",
    }
}

impl Service for Google {
    const CLOUD: &'static str = "google";

    fn subject(&self, request: &Request) -> Subject {
        if let Some(word) = Tokens::word(request.uri().path()) {
            return Subject { operation: word.to_owned(), bucket: None, key: None };
        }
        let Some(call) = Call::of(request.method(), request.uri().path()) else {
            return Subject { operation: "unknown".to_owned(), bucket: None, key: None };
        };
        let family = match call.family() {
            Family::Cryptographic => "",
            Family::Read => "/read",
            Family::Write => "/write",
        };
        Subject {
            bucket: Some(format!("{}{family}", call.location())),
            key: call.crypto_key().map(str::to_owned),
            operation: call.operation.to_owned(),
        }
    }

    async fn serve(&self, request: Request, _: &Subject, orders: Orders, control: &Control) -> Response {
        if let Some(word) = Tokens::word(request.uri().path()) {
            return self.tokens.answer(word, &request, control);
        }
        self.run(&request, orders, control).unwrap_or_else(|failure| failure.response())
    }

    fn refuse(&self, subject: &Subject, refusal: &Refusal) -> Response {
        let of_tokens = matches!(subject.operation.as_str(), "token" | "exchangeToken" | "metadataToken");
        let (mut response, retry_after) = match refusal {
            Refusal::Throttled { retry_after } => {
                let message = format!(
                    "Quota exceeded for quota metric 'Cryptographic requests' and limit 'Cryptographic requests per minute' \
                     of service 'cloudkms.googleapis.com' for consumer '{}'.",
                    subject.bucket.as_deref().unwrap_or_default()
                );
                let metadata = json!({"service": "cloudkms.googleapis.com", "quota_unit": "1/min/{project}"});
                let failure = Failure::new(Code::ResourceExhausted, message);
                (failure.because("RATE_LIMIT_EXCEEDED", "googleapis.com", metadata).response(), retry_after)
            }
            Refusal::Failed { status, code, retry_after } if of_tokens => {
                let error = code.as_deref().unwrap_or(if *status < 500 { "invalid_grant" } else { "internal_failure" });
                (failure::oauth(*status, error, "A fault that was ordered."), retry_after)
            }
            Refusal::Failed { status: 403, code: None, retry_after } => {
                let resource = subject.key.as_deref().unwrap_or_default();
                (Failure::denied(permission(&subject.operation), resource).response(), retry_after)
            }
            Refusal::Failed { status, code, retry_after } => {
                let code = code.as_deref().and_then(Code::named).unwrap_or_else(|| Code::of_status(*status));
                let failure = Failure::new(code, "A fault that was ordered.").with_status(*status);
                (failure.response(), retry_after)
            }
        };
        if let Some(after) = retry_after {
            // Whole seconds, and never too early.
            let seconds = after.as_millis().div_ceil(1000);
            response.headers_mut().insert(hyper::header::RETRY_AFTER, hyper::header::HeaderValue::from(seconds as u64));
        }
        response
    }
}
