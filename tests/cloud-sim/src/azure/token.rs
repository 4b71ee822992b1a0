//! Tokens: who gets them, what they are for, and how long they are good.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::header::AUTHORIZATION;
use percent_encoding::percent_decode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::Error;
use crate::control::Control;
use crate::keys::{Hash, Key, Kind};
use crate::server::{self, Request, Response};

/// Who gives out tokens, and knows them again.
pub(super) struct Authority {
    /// Identifiers and secrets; none: whoever comes.
    clients: Vec<(String, String)>,
    assertion: Option<String>,
    /// What tokens are authenticated with.
    key: Key,
}

/// What a token says.
#[derive(Deserialize, Serialize)]
struct Claims {
    aud: String,
    exp: i64,
    nbf: i64,
    appid: String,
    tid: String,
    /// The control endpoint's count of expirations.
    epoch: u64,
}

/// The resource that tokens for a vault are for.
fn resource(hsm: bool) -> &'static str {
    if hsm { "https://managedhsm.azure.net" } else { "https://vault.azure.net" }
}

/// What a request without a good token is told: whom to ask, and for what.
pub(super) fn challenge(hsm: bool, error: &Error) -> String {
    let mut challenge =
        format!("Bearer authorization=\"https://login.microsoftonline.com/{TENANT}\", resource=\"{}\"", resource(hsm));
    if error.message.contains("token") && !error.message.contains("missing") {
        challenge.push_str(", error=\"invalid_token\"");
    }
    challenge
}

/// The tenant that vaults say they are of.
const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

/// What Microsoft's Python client asks before it trusts an authority.
pub(super) fn discovery(host: &str) -> Value {
    let name = host.trim_start_matches("https://");
    json!({
        "tenant_discovery_endpoint": format!("{host}/common/v2.0/.well-known/openid-configuration"),
        "api-version": "1.1",
        "metadata": [{"preferred_network": name, "preferred_cache": name, "aliases": [name]}],
    })
}

/// Where a tenant's tokens come from.
pub(super) fn open_id(host: &str, tenant: &str) -> Value {
    json!({
        "token_endpoint": format!("{host}/{tenant}/oauth2/v2.0/token"),
        "authorization_endpoint": format!("{host}/{tenant}/oauth2/v2.0/authorize"),
        "device_authorization_endpoint": format!("{host}/{tenant}/oauth2/v2.0/devicecode"),
        "issuer": format!("{host}/{tenant}/v2.0"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        "response_types_supported": ["code"],
        "scopes_supported": ["openid"],
    })
}

impl Authority {
    pub(super) fn new(clients: &[String], assertion: Option<String>) -> Result<Authority, String> {
        let split = |client: &String| {
            let (id, secret) = client.split_once(':').ok_or_else(|| format!("--client {client}: it has no colon"))?;
            Ok((id.to_owned(), secret.to_owned()))
        };
        let clients = clients.iter().map(split).collect::<Result<_, String>>()?;
        let key = Key::generate(Kind::Hmac(Hash::Sha256)).map_err(|error| format!("no key for tokens: {error:?}"))?;
        Ok(Authority { clients, assertion, key })
    }

    /// A token for a form with a secret or an assertion.
    pub(super) fn grant(&self, tenant: &str, form: &[u8], control: &Control) -> Result<Response, Error> {
        let refused = |status, code, message: &str| Err(Error::of_authority(status, code, message));
        let field = |name: &str| form_field(form, name).unwrap_or_default();
        if field("grant_type") != "client_credentials" {
            return refused(400, "unsupported_grant_type", "AADSTS70003: The app requested an unsupported grant type.");
        }
        let id = field("client_id");
        let Some(resource) = field("scope").strip_suffix("/.default").map(str::to_owned) else {
            return refused(
                400,
                "invalid_scope",
                "AADSTS70011: The provided value for the input parameter 'scope' is not valid.",
            );
        };
        let (secret, assertion) = (field("client_secret"), field("client_assertion"));
        let known = self.clients.iter().find(|(known, _)| *known == id);
        let good = if assertion.is_empty() {
            !secret.is_empty() && (self.clients.is_empty() || known.is_some_and(|(_, right)| *right == secret))
        } else {
            self.assertion.as_ref().is_none_or(|right| *right == assertion)
        };
        if id.is_empty() || (!self.clients.is_empty() && known.is_none()) {
            return refused(400, "unauthorized_client", "AADSTS700016: Application was not found in the directory.");
        }
        if !good || control.tokens().refuse {
            return refused(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.");
        }
        let (token, lifetime_s, _) = self.token(&id, tenant, &resource, control)?;
        Ok(server::json(
            200,
            &json!({
                "token_type": "Bearer",
                "expires_in": lifetime_s,
                "ext_expires_in": lifetime_s,
                "access_token": token,
            }),
        ))
    }

    /// A token for whatever runs on this machine.
    pub(super) fn grant_to_machine(&self, request: &Request, control: &Control) -> Result<Response, Error> {
        if request.headers().get("metadata").is_none_or(|value| !value.as_bytes().eq_ignore_ascii_case(b"true")) {
            return Err(Error::of_authority(400, "invalid_request", "Required metadata header not specified"));
        }
        self.grant_to_identity(request, control)
    }

    /// A token for the app that has been given the header's value.
    pub(super) fn grant_to_app(&self, request: &Request, control: &Control) -> Result<Response, Error> {
        if !request.headers().contains_key("x-identity-header") {
            return Err(Error::of_authority(400, "invalid_request", "X-IDENTITY-HEADER is missing"));
        }
        self.grant_to_identity(request, control)
    }

    fn grant_to_identity(&self, request: &Request, control: &Control) -> Result<Response, Error> {
        let query = request.uri().query().unwrap_or_default().as_bytes();
        let Some(resource) = form_field(query, "resource") else {
            return Err(Error::of_authority(400, "invalid_request", "The resource is missing"));
        };
        if control.tokens().refuse {
            return Err(Error::of_authority(400, "invalid_request", "Identity not found"));
        }
        let id = form_field(query, "client_id").unwrap_or_else(|| "system".into());
        let (token, lifetime_s, expires) = self.token(&id, TENANT, resource.trim_end_matches('/'), control)?;
        Ok(server::json(
            200,
            &json!({
                "access_token": token,
                "client_id": id,
                "expires_in": lifetime_s.to_string(),
                "expires_on": expires.to_string(),
                "not_before": (expires - lifetime_s).to_string(),
                "resource": resource,
                "token_type": "Bearer",
            }),
        ))
    }

    /// A new token, for how many seconds it is good, and until when in Unix time.
    fn token(&self, id: &str, tenant: &str, resource: &str, control: &Control) -> Result<(String, i64, i64), Error> {
        let now = control.now_ms() / 1000;
        let held = control.tokens();
        let lifetime_s = i64::try_from(held.lifetime_s).unwrap_or(i64::MAX);
        let expires = now.saturating_add(lifetime_s);
        let claims = Claims {
            aud: resource.to_owned(),
            exp: expires,
            nbf: now,
            appid: id.to_owned(),
            tid: tenant.to_owned(),
            epoch: held.epoch,
        };
        let text = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#),
            URL_SAFE_NO_PAD.encode(json!(claims).to_string())
        );
        let mac = self.key.mac(text.as_bytes())?;
        Ok((format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac)), lifetime_s, expires))
    }

    /// Whether the request has a token that is good for its vault.
    pub(super) fn admit(&self, request: &Request, hsm: bool, control: &Control) -> Result<(), Error> {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some(token) = header.strip_prefix("Bearer ") else {
            return Err(Error::unauthorized("AKV10000: Request is missing a Bearer or PoP token."));
        };
        let Some(claims) = self.claims(token) else {
            return Err(Error::unauthorized(
                "AKV10046: Unable to resolve the key used for signature validation of the token.",
            ));
        };
        if claims.aud != resource(hsm) {
            let wanted = resource(hsm);
            return Err(Error::unauthorized(format!(
                "AKV10022: Invalid audience. Expected {wanted}, found: {}.",
                claims.aud
            )));
        }
        if claims.exp <= control.now_ms() / 1000 || claims.epoch != control.tokens().epoch {
            return Err(Error::unauthorized("[TokenExpired] Error validating token: 'S2S12086'."));
        }
        Ok(())
    }

    fn claims(&self, token: &str) -> Option<Claims> {
        let (text, mac) = token.rsplit_once('.')?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        if !self.key.verify_mac(text.as_bytes(), &mac).ok()? {
            return None;
        }
        let (_, claims) = text.split_once('.')?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }
}

/// A field of a form or of a query.
pub(super) fn form_field(form: &[u8], name: &str) -> Option<String> {
    form.split(|byte| *byte == b'&').find_map(|pair| {
        let (key, value) = pair.split_at(pair.iter().position(|byte| *byte == b'=')?);
        (unescaped(key) == name).then(|| unescaped(value.get(1..).unwrap_or_default()))
    })
}

fn unescaped(text: &[u8]) -> String {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(token: &str) -> Request {
        hyper::http::Request::builder()
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .body(bytes::Bytes::new())
            .unwrap()
    }

    fn granted(authority: &Authority, form: &str, control: &Control) -> Result<String, Error> {
        let response = authority.grant("t", form.as_bytes(), control)?;
        let body: Value = serde_json::from_slice(response.body()).unwrap();
        Ok(body["access_token"].as_str().unwrap().to_owned())
    }

    const FORM: &str =
        "client_id=a&client_secret=s%20s&grant_type=client_credentials&scope=https%3A%2F%2Fvault.azure.net%2F.default";

    #[test]
    fn tokens_are_for_one_resource_and_known_again() {
        let authority = Authority::new(&["a:s s".to_owned()], None).unwrap();
        let control = Control::new("azure");
        let token = granted(&authority, FORM, &control).unwrap();
        assert_eq!(authority.admit(&asked(&token), false, &control), Ok(()));
        assert!(authority.admit(&asked(&token), true, &control).is_err());
        assert!(authority.admit(&asked(&format!("{token}x")), false, &control).is_err());
        let other = Authority::new(&[], None).unwrap();
        assert!(other.admit(&asked(&token), false, &control).is_err());
    }

    #[test]
    fn wrong_secrets_get_no_tokens() {
        let authority = Authority::new(&["a:other".to_owned()], Some("right".to_owned())).unwrap();
        let control = Control::new("azure");
        assert_eq!(granted(&authority, FORM, &control).unwrap_err().status, 401);
        let form = FORM.replace("client_secret=s%20s", "client_assertion=wrong");
        assert_eq!(granted(&authority, &form, &control).unwrap_err().status, 401);
        let form = FORM.replace("client_secret=s%20s", "client_assertion=right");
        assert!(granted(&authority, &form, &control).is_ok());
    }
}
