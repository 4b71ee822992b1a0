//! Who asks: access tokens, and the four ways to get one.
//!
//! A service account proves itself with an assertion that it signs, exchanged for a token or used as one; a machine of the
//! cloud asks the metadata server; anything else exchanges a token of its own identity provider (workload identity
//! federation). All endpoints are below the service's own address.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hyper::header::{AUTHORIZATION, HeaderValue};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::failure::{Code, Failure, oauth};
use super::fields::Fields;
use crate::control::Control;
use crate::keys::{self, Hash, Key, Kind, Scheme};
use crate::server::{self, Request, Response};

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const KMS_SCOPE: &str = "https://www.googleapis.com/auth/cloudkms";
const SERVICE: &str = "https://cloudkms.googleapis.com/";
/// What Google's clients name in an assertion, wherever they take it.
const TOKEN_ENDPOINT: &str = "https://oauth2.googleapis.com/token";
const ASSERTION: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const METADATA: &str = "/computeMetadata/v1";
const ACCOUNT: &str = "/computeMetadata/v1/instance/service-accounts/default";
/// How far an assertion's time may be ahead of the service's clock, and the longest one may be valid.
const SKEW_S: i64 = 300;
const LONGEST_S: i64 = 3600 + 2 * SKEW_S;
/// Tokens that are kept; the oldest are forgotten.
const KEPT: usize = 10_000;

/// The callers that are known, and the tokens given to them.
pub(super) struct Tokens {
    /// The address of the service.
    url: String,
    /// Whether requests need no token.
    open: bool,
    project: String,
    account: Option<Account>,
    federated: Option<Federated>,
    given: Mutex<HashMap<String, Given>>,
}

/// A service account and the key that proves it.
struct Account {
    email: String,
    key_id: String,
    key: Key,
}

/// A workload outside of the cloud.
struct Federated {
    audience: String,
    /// What its identity provider gave it.
    subject_token: String,
}

struct Given {
    /// In milliseconds of the service's clock.
    expires: i64,
    epoch: u64,
    /// The order of giving.
    number: usize,
}

/// PEM of DER.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn failed(_: keys::Error) -> String {
    "the library of cryptography failed".to_owned()
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

impl Tokens {
    pub(super) fn new(url: &str, project: &str, open: bool) -> Tokens {
        let (url, project) = (url.to_owned(), project.to_owned());
        Tokens { url, open, project, account: None, federated: None, given: Mutex::default() }
    }

    /// Makes a service account, and writes its credentials to a file as Google hands them out.
    pub(super) fn add_account(&mut self, file: &Path) -> Result<(), String> {
        let key = Key::generate(Kind::Rsa { bits: 2048 }).map_err(failed)?;
        let key_id = hexadecimal(&keys::random(20).map_err(failed)?);
        let email = format!("keyway@{}.iam.gserviceaccount.com", self.project);
        let credentials = json!({
            "type": "service_account",
            "project_id": self.project,
            "private_key_id": key_id,
            "private_key": pem("PRIVATE KEY", &key.pkcs8().map_err(failed)?),
            "client_email": email,
            "client_id": "104857600000000000000",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": format!("{}/token", self.url),
            "universe_domain": "googleapis.com",
        });
        write(file, &credentials.to_string())?;
        self.account = Some(Account { email, key_id, key });
        Ok(())
    }

    /// Makes a federated workload: writes its credentials to a file, and beside it the token of its identity provider.
    pub(super) fn add_federated(&mut self, file: &Path) -> Result<(), String> {
        let subject_token = URL_SAFE_NO_PAD.encode(keys::random(32).map_err(failed)?);
        let beside = file.with_extension("token");
        write(&beside, &subject_token)?;
        let audience =
            "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/provider".to_owned();
        let credentials = json!({
            "type": "external_account",
            "audience": audience,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{}/v1/token", self.url),
            "credential_source": {"file": beside},
            "universe_domain": "googleapis.com",
        });
        write(file, &credentials.to_string())?;
        self.federated = Some(Federated { audience, subject_token });
        Ok(())
    }

    /// The word for a request to one of the endpoints of this file.
    pub(super) fn word(path: &str) -> Option<&'static str> {
        match path {
            "/token" => Some("token"),
            "/v1/token" => Some("exchangeToken"),
            "/" => Some("metadata"),
            path if path == format!("{ACCOUNT}/token") => Some("metadataToken"),
            path if path.starts_with(METADATA) => Some("metadata"),
            _ => None,
        }
    }

    /// Answers a request to one of them.
    pub(super) fn answer(&self, word: &str, request: &Request, control: &Control) -> Response {
        let form = || Fields::of_form(&String::from_utf8_lossy(request.body()));
        match word {
            "token" => self.assertion(&form(), control),
            "exchangeToken" => self.exchange(&form(), control),
            _ => self.metadata(request, control),
        }
    }

    fn assertion(&self, form: &Fields, control: &Control) -> Response {
        let field = |name: &str| form.text(name).ok().flatten().unwrap_or_default().to_owned();
        if field("grant_type") != ASSERTION {
            return oauth(400, "unsupported_grant_type", "Invalid grant_type");
        }
        let claims = match self.claims(&field("assertion"), control) {
            Ok(claims) => claims,
            Err(reason) => return oauth(400, "invalid_grant", &reason),
        };
        if claims["aud"] != format!("{}/token", self.url) && claims["aud"] != TOKEN_ENDPOINT {
            return oauth(400, "invalid_grant", "Invalid JWT: the audience is not this endpoint.");
        }
        if !scoped(&claims) {
            return oauth(400, "invalid_scope", "Invalid OAuth scope or ID token audience provided.");
        }
        self.token(control, &json!({}))
    }

    fn exchange(&self, form: &Fields, control: &Control) -> Response {
        let field = |name: &str| form.text(name).ok().flatten().unwrap_or_default().to_owned();
        let Some(federated) = &self.federated else {
            return oauth(400, "invalid_target", "The target service indicated by the \"audience\" is unknown.");
        };
        if field("grant_type") != EXCHANGE {
            return oauth(400, "unsupported_grant_type", "Invalid grant_type");
        }
        if field("audience") != federated.audience {
            return oauth(400, "invalid_target", "The target service indicated by the \"audience\" is unknown.");
        }
        if field("requested_token_type") != ACCESS_TOKEN {
            return oauth(400, "invalid_request", "Invalid requested_token_type");
        }
        if field("subject_token") != federated.subject_token {
            return oauth(400, "invalid_grant", "The subject token is invalid.");
        }
        self.token(control, &json!({"issued_token_type": ACCESS_TOKEN}))
    }

    fn metadata(&self, request: &Request, control: &Control) -> Response {
        if request.headers().get("metadata-flavor").is_none_or(|flavor| flavor != "Google") {
            return text(403, "Missing Metadata-Flavor:Google header.");
        }
        let email = self.account.as_ref().map_or("default@example.iam.gserviceaccount.com", |account| &account.email);
        let path = request.uri().path().trim_end_matches('/');
        let mut response = match path.strip_prefix(METADATA).unwrap_or(path) {
            "" => text(200, "computeMetadata/\n"),
            "/instance/service-accounts/default/token" => self.token(control, &json!({})),
            "/instance/service-accounts/default/email" => text(200, email),
            "/instance/service-accounts/default" => {
                server::json(200, &json!({"aliases": ["default"], "email": email, "scopes": [SCOPE]}))
            }
            "/universe/universe-domain" | "/universe/universe_domain" => text(200, "googleapis.com"),
            "/project/project-id" => text(200, &self.project),
            _ => text(404, "Not found"),
        };
        response.headers_mut().insert("metadata-flavor", HeaderValue::from_static("Google"));
        response
    }

    /// Gives a new token.
    fn token(&self, control: &Control, more: &Value) -> Response {
        let rules = control.tokens();
        if rules.refuse {
            return oauth(400, "invalid_grant", "The account is disabled or was deleted.");
        }
        let Ok(secret) = keys::random(32) else { return Failure::internal().response() };
        let token = format!("ya29.{}", URL_SAFE_NO_PAD.encode(secret));
        let lifetime_ms = i64::try_from(rules.lifetime_s.saturating_mul(1000)).unwrap_or(i64::MAX);
        let expires = control.now_ms().saturating_add(lifetime_ms);
        let mut given = self.given.lock();
        let number = given.values().map(|given| given.number).max().unwrap_or_default() + 1;
        given.retain(|_, given| given.number + KEPT > number);
        given.insert(token.clone(), Given { expires, epoch: rules.epoch, number });
        let mut answer = json!({"access_token": token, "token_type": "Bearer", "expires_in": rules.lifetime_s});
        if let (Value::Object(answer), Value::Object(more)) = (&mut answer, more) {
            answer.extend(more.clone());
        }
        server::json(200, &answer)
    }

    /// Refuses a request without a token, or with one that is not valid.
    pub(super) fn admit(&self, request: &Request, control: &Control) -> Result<(), Failure> {
        if self.open {
            return Ok(());
        }
        let header = request.headers().get(AUTHORIZATION).and_then(|header| header.to_str().ok());
        let Some(token) = header.and_then(|header| header.strip_prefix("Bearer ")) else {
            return Err(unauthenticated(
                "Request is missing required authentication credential. Expected OAuth 2 access token, login cookie or \
                 other valid authentication credential.",
                "CREDENTIALS_MISSING",
            ));
        };
        let invalid = |reason| {
            unauthenticated(
                "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other \
                 valid authentication credential.",
                reason,
            )
        };
        let (now, epoch) = (control.now_ms(), control.tokens().epoch);
        match self.given.lock().get(token) {
            Some(given) if given.expires > now && given.epoch == epoch => return Ok(()),
            Some(_) => return Err(invalid("ACCESS_TOKEN_EXPIRED")),
            None => {}
        }
        // An account may use its assertion as a token.
        let claims = self.claims(token, control).map_err(|_| invalid("ACCESS_TOKEN_TYPE_UNSUPPORTED"))?;
        if control.tokens().refuse || !(scoped(&claims) || claims["aud"] == SERVICE) {
            return Err(invalid("ACCESS_TOKEN_SCOPE_INSUFFICIENT"));
        }
        Ok(())
    }

    /// What an assertion of the service account says, if it is one.
    fn claims(&self, assertion: &str, control: &Control) -> Result<Value, String> {
        let account = self.account.as_ref().ok_or("Invalid grant: account not found")?;
        let malformed = || "Invalid JWT: it is malformed.".to_owned();
        let (signed, signature) = assertion.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or_else(malformed)?;
        let part = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let parsed = |text: &str| part(text).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let header = parsed(header).ok_or_else(malformed)?;
        let claims = parsed(claims).ok_or_else(malformed)?;
        let signature = part(signature).ok_or_else(malformed)?;
        let scheme = Scheme::RsaPkcs1(Hash::Sha256);
        let right = account.key.verify_message(scheme, signed.as_bytes(), &signature).unwrap_or_default();
        if header["alg"] != "RS256" || header["kid"] != account.key_id.as_str() || !right {
            return Err("Invalid JWT Signature.".to_owned());
        }
        if claims["iss"] != account.email.as_str() {
            return Err("Invalid grant: account not found".to_owned());
        }
        let now = control.now_ms() / 1000;
        let (Some(from), Some(until)) = (claims["iat"].as_i64(), claims["exp"].as_i64()) else {
            return Err(malformed());
        };
        if from > now + SKEW_S || until <= now || until - from > LONGEST_S {
            let reason = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. \
                          Check your iat and exp values in the JWT claim.";
            return Err(reason.to_owned());
        }
        Ok(claims)
    }
}

fn text(status: u16, text: &str) -> Response {
    let mut response = Response::new(text.to_owned().into());
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    response
}

fn scoped(claims: &Value) -> bool {
    let scopes = claims["scope"].as_str().unwrap_or_default();
    scopes.split(' ').any(|scope| scope == SCOPE || scope == KMS_SCOPE)
}

fn unauthenticated(message: &str, reason: &str) -> Failure {
    let metadata = json!({"service": "cloudkms.googleapis.com"});
    Failure::new(Code::Unauthenticated, message).because(reason, "googleapis.com", metadata)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
