//! Who may ask: keys that were configured, and keys that are given out for a while, to an instance (IMDSv2), to a container, and
//! for a web identity (STS).

use std::collections::BTreeMap;

use hyper::Method;
use parking_lot::Mutex;
use serde_json::json;

use super::error::{Error, answer, hex};
use super::signature::{Signature, iso};
use crate::control::{Control, Tokens};
use crate::keys;
use crate::server::{Request, Response};

/// The role that the instance, the container and the web identity have.
const ROLE: &str = "keys";
const ACCOUNT: &str = "000000000000";
/// Keys given out that are remembered.
const GIVEN_MAX: usize = 10_000;

/// An access key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    secret: String,
    token: Option<String>,
    /// When it expires, in milliseconds of Unix time, and what [`Tokens::epoch`] was when it was given out.
    given: Option<(i64, u64)>,
}

/// All access keys.
pub(super) struct Credentials {
    /// Without any that is configured, each is good that has none of the forms given out here.
    configured: BTreeMap<String, Known>,
    given: Mutex<BTreeMap<String, Known>>,
    /// Tokens of IMDSv2.
    sessions: Mutex<Vec<String>>,
    container_token: Option<String>,
    web_identity: Option<String>,
    region: String,
}

/// What a request for credentials is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    InstanceToken,
    InstanceRole,
    InstanceCredentials,
    InstanceRegion,
    Container,
    Sts,
}

impl Place {
    /// Where a request goes, unless it is one for keys.
    pub(super) fn of(request: &Request) -> Option<Place> {
        let path = request.uri().path();
        match (request.method(), path) {
            (&Method::PUT, "/latest/api/token") => Some(Place::InstanceToken),
            (&Method::GET, "/latest/meta-data/iam/security-credentials/") => Some(Place::InstanceRole),
            (&Method::GET, "/latest/meta-data/placement/region") => Some(Place::InstanceRegion),
            (&Method::GET, "/container/credentials") => Some(Place::Container),
            (&Method::GET, path) => {
                let role = path.strip_prefix("/latest/meta-data/iam/security-credentials/")?;
                (role == ROLE).then_some(Place::InstanceCredentials)
            }
            _ => is_form(request).then_some(Place::Sts),
        }
    }

    /// What it is counted as.
    pub(super) fn operation(self, request: &Request) -> String {
        match self {
            Place::InstanceToken => "instance-token".into(),
            Place::InstanceRole => "instance-role".into(),
            Place::InstanceCredentials => "instance-credentials".into(),
            Place::InstanceRegion => "instance-region".into(),
            Place::Container => "container-credentials".into(),
            Place::Sts => field(request.body(), "Action").unwrap_or_else(|| "sts".into()),
        }
    }
}

/// What was made for somebody.
struct Made {
    id: String,
    secret: String,
    token: String,
    expires: String,
}

impl Credentials {
    pub(super) fn new(
        configured: &[String],
        container_token: Option<String>,
        web_identity: Option<String>,
        region: &str,
    ) -> Result<Credentials, String> {
        let known = |text: &String| {
            let mut parts = text.splitn(3, ':').map(str::to_owned);
            let (id, secret) = (parts.next()?, parts.next()?);
            Some((id, Known { secret, token: parts.next(), given: None }))
        };
        let configured: Option<BTreeMap<String, Known>> = configured.iter().map(known).collect();
        let configured = configured.ok_or("a credential is ID:SECRET or ID:SECRET:TOKEN")?;
        let (given, sessions, region) = (Mutex::default(), Mutex::default(), region.to_owned());
        Ok(Credentials { configured, given, sessions, container_token, web_identity, region })
    }

    /// Whether a request is signed by somebody who may ask; says in which region.
    pub(super) fn admit(&self, request: &Request, control: &Control) -> Result<Signature, Error> {
        let signature = Signature::of(request)?;
        let unknown =
            || Error::bad("UnrecognizedClientException", "The security token included in the request is invalid.");
        let given = self.given.lock().get(&signature.access_key).cloned();
        let Some(known) = self.configured.get(&signature.access_key).cloned().or(given) else {
            let anybody = self.configured.is_empty() && !signature.access_key.starts_with("ASIA");
            return if anybody {
                signature.check_time(request, control.now_ms()).map(|()| signature)
            } else {
                Err(unknown())
            };
        };
        let token = request.headers().get("x-amz-security-token").and_then(|token| token.to_str().ok());
        if known.token.as_deref() != token {
            return Err(unknown());
        }
        if let Some((until, epoch)) = known.given
            && (control.now_ms() >= until || epoch != control.tokens().epoch)
        {
            return Err(Error::bad("ExpiredTokenException", "The security token included in the request is expired"));
        }
        signature.check_time(request, control.now_ms())?;
        signature.check(request, &known.secret)?;
        Ok(signature)
    }

    /// Answers a request for credentials.
    pub(super) fn give(&self, place: Place, request: &Request, control: &Control) -> Response {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let text = |status, text: &str| answer(status, "text/plain", text.to_owned());
        let in_session = || {
            let token = header("x-aws-ec2-metadata-token");
            token.is_some_and(|token| self.sessions.lock().iter().any(|session| session == token))
        };
        match place {
            Place::InstanceToken => match header("x-aws-ec2-metadata-token-ttl-seconds") {
                Some(seconds) => self.begin_session(seconds),
                None => text(400, ""),
            },
            Place::InstanceRole | Place::InstanceCredentials | Place::InstanceRegion if !in_session() => text(401, ""),
            Place::InstanceRole => text(200, ROLE),
            Place::InstanceRegion => text(200, &self.region),
            Place::InstanceCredentials => self.give_json(true, control),
            Place::Container if self.container_token.as_deref() != header("authorization") => text(401, ""),
            Place::Container => self.give_json(false, control),
            Place::Sts => self.give_sts(request, control),
        }
    }

    fn begin_session(&self, seconds: &str) -> Response {
        let Ok(bytes) = keys::random(24) else { return answer(500, "text/plain", String::new()) };
        let token = hex(&bytes);
        let mut sessions = self.sessions.lock();
        sessions.truncate(GIVEN_MAX);
        sessions.insert(0, token.clone());
        let mut response = answer(200, "text/plain", token);
        if let Ok(seconds) = seconds.parse() {
            response.headers_mut().insert("x-aws-ec2-metadata-token-ttl-seconds", seconds);
        }
        response
    }

    fn make(&self, tokens: Tokens, now_ms: i64) -> Option<Made> {
        let [id, secret, token] = [8, 20, 60].map(|bytes| keys::random(bytes).map(|bytes| hex(&bytes)).ok());
        let (id, secret, token) = (format!("ASIA{}", id?.to_uppercase()), secret?, token?);
        let lifetime = i64::try_from(tokens.lifetime_s).unwrap_or(i64::MAX).saturating_mul(1000);
        let until = now_ms.saturating_add(lifetime);
        let known = Known { secret: secret.clone(), token: Some(token.clone()), given: Some((until, tokens.epoch)) };
        let mut given = self.given.lock();
        if given.len() >= GIVEN_MAX {
            given.clear();
        }
        given.insert(id.clone(), known);
        Some(Made { id, secret, token, expires: iso(until) })
    }

    fn give_json(&self, instance: bool, control: &Control) -> Response {
        let tokens = control.tokens();
        let made = if tokens.refuse { None } else { self.make(tokens, control.now_ms()) };
        let Some(made) = made else {
            let body = json!({"code": "Unavailable", "message": "no credentials are given out"});
            return answer(500, "application/json", body.to_string());
        };
        let mut body = json!({
            "AccessKeyId": made.id, "SecretAccessKey": made.secret, "Token": made.token, "Expiration": made.expires,
        });
        if instance {
            let more = json!({"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": iso(control.now_ms())});
            body.as_object_mut()
                .into_iter()
                .for_each(|body| body.extend(more.as_object().cloned().into_iter().flatten()));
        } else {
            body["RoleArn"] = format!("arn:aws:iam::{ACCOUNT}:role/{ROLE}").into();
        }
        answer(200, "application/json", body.to_string())
    }

    /// `AssumeRoleWithWebIdentity`, and `AssumeRole` for whoever may ask.
    fn give_sts(&self, request: &Request, control: &Control) -> Response {
        let action = field(request.body(), "Action").unwrap_or_default();
        let tokens = control.tokens();
        let allowed = match action.as_str() {
            "AssumeRoleWithWebIdentity" => {
                let shown = field(request.body(), "WebIdentityToken");
                if self.web_identity.is_some() && shown != self.web_identity {
                    Err(Error::bad("InvalidIdentityToken", "No OpenIDConnect provider found for the token"))
                } else {
                    Ok(())
                }
            }
            "AssumeRole" => self.admit(request, control).map(drop),
            other => Err(Error::bad("InvalidAction", format!("Could not find operation {other}"))),
        };
        let allowed = allowed.and_then(|()| match tokens.refuse {
            true => Err(Error::new(403, "AccessDenied", format!("Not authorized to perform sts:{action}"))),
            false => self.make(tokens, control.now_ms()).ok_or_else(|| Error::new(500, "InternalFailure", "")),
        });
        match allowed {
            Ok(made) => answer(200, "text/xml", assumed(&action, &made)),
            Err(error) => answer(error.status, "text/xml", sts_error(&error.code)),
        }
    }
}

fn is_form(request: &Request) -> bool {
    let kind = request.headers().get("content-type").and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
}

/// A field of a form.
fn field(body: &[u8], name: &str) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let value = text.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))?.1;
    let spaced = value.replace('+', " ");
    Some(percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

fn assumed(action: &str, made: &Made) -> String {
    let Made { id, secret, token, expires } = made;
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>\
         <AssumedRoleUser><Arn>arn:aws:sts::{ACCOUNT}:assumed-role/{ROLE}/session</Arn>\
         <AssumedRoleId>AROATEST:session</AssumedRoleId></AssumedRoleUser>\
         <Credentials><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
         <SessionToken>{token}</SessionToken><Expiration>{expires}</Expiration></Credentials>\
         </{action}Result><ResponseMetadata><RequestId>0</RequestId></ResponseMetadata></{action}Response>"
    )
}

fn sts_error(code: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{code}</Message></Error><RequestId>0</RequestId></ErrorResponse>"
    )
}
