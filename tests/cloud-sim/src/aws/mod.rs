//! AWS KMS: faults, quotas and signatures in front of another emulator, or a few keys of its own that sign quickly; and where
//! instances, containers and workloads get credentials for it.
//!
//! It is a tool of its own: it serves whoever speaks AWS's JSON protocol. AWS's clients in Rust and in Python are what it is
//! checked with.
//!
//! ```sh
//! BIND_HOST=127.0.0.1 IOT_MTLS_ENABLED=0 GATEWAY_PORT=5056 SERVICES=kms ministack &
//! cloud-sim aws --upstream http://127.0.0.1:5056 --credential AKIDTEST:secret
//! cloud-sim aws                                    # no other emulator: CreateKey, CreateAlias, DescribeKey, GetPublicKey, Sign
//! ```
//!
//! Symmetric encryption is done here in front of the other emulator too, which keeps those keys and has no cryptography for them.
//!
//! # Where things are
//!
//! All at one address. `POST /` with an `X-Amz-Target` is KMS, whatever the region: the signature says which. One process is
//! one region where regions are to be lost: end it. A form to `POST /` is STS: `AWS_ENDPOINT_URL_STS` is the URL.
//! `/latest/…` is the metadata of an instance, by version 2 alone: `AWS_EC2_METADATA_SERVICE_ENDPOINT` is the URL.
//! `/container/credentials` is what a container gets: `AWS_CONTAINER_CREDENTIALS_FULL_URI` is the URL with that path.
//!
//! # What it enforces
//!
//! Requests are signed (Signature Version 4) with a key that was configured, or given out here and not expired, within five
//! minutes of the service's clock. With none configured, whoever signs at all may ask. Throttles are status 400, by region and
//! family of key (`eu-west-1/rsa`, `…/ecc`, `…/symmetric`; operations that are not cryptographic by themselves:
//! `eu-west-1/DescribeKey`). States of keys are set by id, or by any alias that an answer told the id of; faults are for a key by
//! the first such alias, and by its id where there is none.

mod call;
mod credentials;
mod error;
mod null;
mod signature;
mod symmetric;
mod upstream;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Args;
use hyper::header::{DATE, HeaderValue, RETRY_AFTER};
use parking_lot::Mutex;
use serde_json::Value;

use self::call::{Call, region, short};
use self::credentials::{Credentials, Place};
use self::error::{Error, good};
use self::null::Null;
use self::upstream::Upstream;
use crate::control::{Control, KeyState};
use crate::server::{Orders, Refusal, Request, Response, Service, Subject};

/// Names for the server's certificate.
pub(crate) const NAMES: &[&str] = &["*.amazonaws.com", "*.eu-west-1.amazonaws.com", "*.us-east-1.amazonaws.com"];

/// Aliases whose keys are remembered.
const ALIASES_MAX: usize = 10_000;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The emulator that does the work; without it, a few operations are done here.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// An access key that may ask; without any, each may.
    #[arg(long = "credential", value_name = "ID:SECRET[:TOKEN]")]
    credentials: Vec<String>,
    /// What a container must show in `Authorization` to get credentials.
    #[arg(long, value_name = "TEXT")]
    container_token: Option<String>,
    /// The web identity's token that gets credentials; without it, each does.
    #[arg(long, value_name = "TEXT")]
    web_identity: Option<String>,
    /// The region that the instance says it is in.
    #[arg(long, value_name = "NAME", default_value = "eu-west-1")]
    region: String,
    /// Without another emulator: make one signature for each key and algorithm, and answer it always.
    #[arg(long)]
    fixed_signatures: bool,
}

/// The service, and who may ask it.
pub(crate) struct Aws {
    credentials: Credentials,
    keys: Keys,
    /// Ids of keys by alias, as far as answers told.
    aliases: Mutex<BTreeMap<String, String>>,
}

enum Keys {
    Upstream(Upstream),
    Null(Null),
}

impl Aws {
    pub(crate) fn new(options: &Options, _url: &str) -> Result<Aws, String> {
        let keys = match &options.upstream {
            Some(url) => Keys::Upstream(Upstream::new(url)?),
            None => Keys::Null(Null::new(options.fixed_signatures)),
        };
        let (container, web) = (options.container_token.clone(), options.web_identity.clone());
        let credentials = Credentials::new(&options.credentials, container, web, &options.region)?;
        Ok(Aws { credentials, keys, aliases: Mutex::default() })
    }

    async fn answer(&self, request: &Request, orders: Orders, control: &Control) -> Result<Response, Error> {
        let Some(call) = Call::of(request) else {
            return Err(Error::new(404, "UnknownOperationException", "There is nothing at this path."));
        };
        let signature = self.credentials.admit(request, control)?;
        if let Some(key) = call.key() {
            self.allowed(&key, &call.operation, control)?;
        }
        let response = match &self.keys {
            Keys::Null(null) => good(&null.answer(&call, &signature.region, orders).await?),
            Keys::Upstream(upstream) => match symmetric::answer(&call, request, orders, upstream).await {
                Some(answered) => answered?,
                None => {
                    let passed = upstream.pass(request).await;
                    passed.map_err(|error| Error::new(502, "KMSInternalException", error))?
                }
            },
        };
        self.learn(&call, &response);
        Ok(response)
    }

    /// Whether what somebody else did to the key allows the operation.
    fn allowed(&self, key: &str, operation: &str, control: &Control) -> Result<(), Error> {
        let mut states = self.names(key).into_iter().map(|name| control.key_state(&name));
        let state = states.find(|state| *state != KeyState::Enabled).unwrap_or_default();
        // Whoever may look at keys sees them in whatever state they are.
        let looks = matches!(operation, "DescribeKey" | "EnableKey" | "CancelKeyDeletion");
        match state {
            KeyState::Revoked => Err(Error::denied(operation, key)),
            KeyState::Deleted => Err(Error::not_found(key)),
            KeyState::Disabled if !looks && operation != "GetPublicKey" => Err(Error::disabled(key)),
            KeyState::PendingDeletion if !looks => Err(Error::pending_deletion(key)),
            KeyState::Enabled | KeyState::Disabled | KeyState::PendingDeletion => Ok(()),
        }
    }

    /// A key's id and its aliases, as far as they are known.
    fn names(&self, key: &str) -> Vec<String> {
        let aliases = self.aliases.lock();
        let id = aliases.get(key).map_or(key, String::as_str);
        let of_it = aliases.iter().filter(|(_, of)| of.as_str() == id).map(|(alias, _)| alias.clone());
        of_it.chain([id.to_owned(), key.to_owned()]).collect()
    }

    /// Notes the key of an alias, where an answer tells it.
    fn learn(&self, call: &Call, response: &Response) {
        let mut aliases = self.aliases.lock();
        if let ("CreateAlias" | "UpdateAlias", 200, Some(alias), Some(id)) =
            (&*call.operation, response.status().as_u16(), call.text("AliasName"), call.text("TargetKeyId"))
            && aliases.len() < ALIASES_MAX
        {
            aliases.insert(alias.to_owned(), short(id));
        }
        let Some(alias) = call.key().filter(|key| key.starts_with("alias/")) else { return };
        if aliases.contains_key(&alias) || aliases.len() >= ALIASES_MAX {
            return;
        }
        let Ok(body) = serde_json::from_slice::<Value>(response.body()) else { return };
        let id = [&body["KeyMetadata"]["KeyId"], &body["KeyId"]].into_iter().find_map(Value::as_str);
        if let Some(id) = id {
            aliases.insert(alias, short(id));
        }
    }
}

/// Turns one bit of what was made.
fn spoil(response: Response) -> Response {
    let Ok(mut body) = serde_json::from_slice::<Value>(response.body()) else { return response };
    for name in ["Signature", "Mac", "CiphertextBlob", "Plaintext"] {
        if let Some(mut bytes) = body[name].as_str().and_then(|text| STANDARD.decode(text).ok())
            && let Some(last) = bytes.last_mut()
        {
            *last ^= 1;
            body[name] = STANDARD.encode(&bytes).into();
        }
    }
    response.map(|_| Bytes::from(body.to_string()))
}

impl Service for Aws {
    const CLOUD: &'static str = "aws";

    fn subject(&self, request: &Request) -> Subject {
        if let Some(call) = Call::of(request) {
            let mut subject = call.subject(&region(request));
            // One name for a key, however it is asked for: the first of its aliases, if it has any.
            subject.key = subject.key.map(|key| self.names(&key).swap_remove(0));
            return subject;
        }
        let operation = Place::of(request).map_or_else(|| "nowhere".into(), |place| place.operation(request));
        Subject { operation, ..Subject::default() }
    }

    async fn serve(&self, request: Request, _: &Subject, orders: Orders, control: &Control) -> Response {
        let place = if Call::of(&request).is_none() { Place::of(&request) } else { None };
        let mut response = match place {
            Some(place) => self.credentials.give(place, &request, control),
            None => self.answer(&request, orders, control).await.unwrap_or_else(|error| error.response()),
        };
        if orders.wrong_signature {
            response = spoil(response);
        }
        // Clients set their clocks by it.
        if let Ok(date) = HeaderValue::from_str(&signature::http_date(control.now_ms())) {
            response.headers_mut().insert(DATE, date);
        }
        response
    }

    fn refuse(&self, _: &Subject, refusal: &Refusal) -> Response {
        let (error, retry_after) = match refusal {
            Refusal::Throttled { retry_after } => (Error::throttled(), retry_after),
            Refusal::Failed { status, code, retry_after } => (Error::ordered(*status, code.as_deref()), retry_after),
        };
        let mut response = error.response();
        if let Some(after) = retry_after
            && let Ok(value) = HeaderValue::from_str(&after.as_millis().div_ceil(1000).to_string())
        {
            response.headers_mut().insert(RETRY_AFTER, value);
        }
        response
    }
}
