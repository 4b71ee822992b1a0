//! What a request's address names: a vault and something in it, or a place that gives out tokens.

use hyper::Method;
use hyper::header::{AUTHORIZATION, HOST};
use percent_encoding::percent_decode_str;

use crate::server::{Request, Subject};

/// What is asked.
#[derive(Debug, PartialEq)]
pub(super) enum Place {
    /// Tokens for those with a secret or an assertion.
    Token {
        tenant: String,
    },
    /// Tokens for whoever is on this machine.
    Machine,
    /// Tokens for the app that has been told this address.
    App,
    /// Where tokens come from in this cloud.
    Discovery,
    OpenId {
        tenant: String,
    },
    Vault(Vault),
    Nowhere,
}

/// A vault and what of it.
#[derive(Debug, PartialEq)]
pub(super) struct Vault {
    pub(super) name: String,
    /// Whether it is a managed HSM.
    pub(super) hsm: bool,
    /// What its URLs begin with, as the client has it.
    pub(super) base: String,
    pub(super) of: Of,
}

/// What of a vault.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Of {
    Keys,
    DeletedKeys,
    Versions(String),
    /// A key, in its latest version if none is named.
    Key {
        name: String,
        version: Option<String>,
    },
    Deleted(String),
    /// Something that is done to a key as a whole or to a deleted one: `create`, `rotate`, `recover`.
    Act {
        name: String,
        act: String,
    },
    /// Something that is done with a version of a key.
    Use {
        name: String,
        version: Option<String>,
        operation: String,
    },
    Random,
    Unknown,
}

/// Operations with a version of a key.
const USES: [&str; 6] = ["sign", "verify", "encrypt", "decrypt", "wrapkey", "unwrapkey"];
const ACTS: [&str; 4] = ["create", "rotate", "backup", "release"];

impl Place {
    pub(super) fn of(request: &Request, scheme: &str) -> Place {
        let path = percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
        let parts: Vec<&str> = path.split('/').skip_while(|part| part.is_empty()).collect();
        match parts[..] {
            [tenant, "oauth2", "v2.0", "token"] => return Place::Token { tenant: tenant.into() },
            ["metadata", "identity", "oauth2", "token"] => return Place::Machine,
            ["msi", "token"] => return Place::App,
            ["common", "discovery", "instance"] => return Place::Discovery,
            [tenant, "v2.0", ".well-known", "openid-configuration"] => return Place::OpenId { tenant: tenant.into() },
            _ => {}
        }
        let host = host(request);
        let base = format!("{scheme}://{host}");
        if let ["vault" | "managedhsm", name, rest @ ..] = &parts[..] {
            let base = format!("{base}/{}/{name}", parts[0]);
            return Place::Vault(Vault::new(name, parts[0] == "managedhsm", base, rest));
        }
        let mut labels = host.split('.');
        match (labels.next(), labels.next()) {
            (Some(name), Some(kind @ ("vault" | "managedhsm"))) => {
                Place::Vault(Vault::new(name, kind == "managedhsm", base, &parts))
            }
            _ => Place::Nowhere,
        }
    }
}

/// The host that the client asked, with its port if it named one.
pub(super) fn host(request: &Request) -> String {
    let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    header.or(request.uri().host()).unwrap_or_default().to_ascii_lowercase()
}

impl Vault {
    fn new(name: &str, hsm: bool, base: String, parts: &[&str]) -> Vault {
        Vault { name: name.to_ascii_lowercase(), hsm, base, of: Of::parse(parts) }
    }

    /// What faults and quotas go by. The challenge costs no quota.
    pub(super) fn subject(&self, request: &Request) -> Subject {
        let bucket = request.headers().contains_key(AUTHORIZATION).then(|| self.name.clone());
        let key = self.of.key().map(|key| format!("{}/{key}", self.name));
        Subject { operation: self.of.operation(request.method()), bucket, key }
    }

    /// The identifier of a key, or of a version of it.
    pub(super) fn kid(&self, name: &str, version: Option<&str>) -> String {
        match version {
            Some(version) => format!("{}/keys/{name}/{version}", self.base),
            None => format!("{}/keys/{name}", self.base),
        }
    }
}

impl Of {
    fn parse(parts: &[&str]) -> Of {
        let given = |version: &str| (!version.is_empty()).then(|| version.to_owned());
        match *parts {
            ["keys"] | ["keys", ""] => Of::Keys,
            ["deletedkeys"] | ["deletedkeys", ""] => Of::DeletedKeys,
            ["rng"] => Of::Random,
            ["keys", name, "versions"] => Of::Versions(name.into()),
            ["keys", name, act] if ACTS.contains(&act) => Of::Act { name: name.into(), act: act.into() },
            ["keys", name, operation] if USES.contains(&operation) => {
                Of::Use { name: name.into(), version: None, operation: operation.into() }
            }
            ["keys", name] => Of::Key { name: name.into(), version: None },
            ["keys", name, version] => Of::Key { name: name.into(), version: given(version) },
            ["keys", name, version, operation] if USES.contains(&operation) => {
                Of::Use { name: name.into(), version: given(version), operation: operation.into() }
            }
            ["deletedkeys", name] | ["deletedkeys", name, ""] => Of::Deleted(name.into()),
            ["deletedkeys", name, "recover"] => Of::Act { name: name.into(), act: "recover".into() },
            _ => Of::Unknown,
        }
    }

    fn key(&self) -> Option<&str> {
        match self {
            Of::Versions(name)
            | Of::Key { name, .. }
            | Of::Deleted(name)
            | Of::Act { name, .. }
            | Of::Use { name, .. } => Some(name),
            Of::Keys | Of::DeletedKeys | Of::Random | Of::Unknown => None,
        }
    }

    fn operation(&self, method: &Method) -> String {
        match (self, method) {
            (Of::Use { operation, .. }, _) => operation.clone(),
            (Of::Act { act, .. }, _) => act.clone(),
            (Of::Keys | Of::DeletedKeys | Of::Versions(_), _) => "list".into(),
            (Of::Random, _) => "rng".into(),
            (Of::Deleted(_), &Method::DELETE) => "purge".into(),
            (Of::Key { .. }, &Method::DELETE) => "delete".into(),
            (Of::Key { .. }, &Method::PATCH) => "update".into(),
            (Of::Key { .. }, &Method::PUT) => "import".into(),
            (Of::Key { .. } | Of::Deleted(_), _) => "get".into(),
            (Of::Unknown, _) => "unknown".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(host: &str, path: &str) -> Place {
        let request = hyper::http::Request::builder().uri(path).header(HOST, host).body(bytes::Bytes::new());
        Place::of(&request.unwrap(), "https")
    }

    fn of(path: &str) -> Of {
        match place("v.vault.azure.net", path) {
            Place::Vault(vault) => vault.of,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn vaults_are_named_by_host_or_by_path() {
        let Place::Vault(vault) = place("My-Hsm.managedhsm.azure.net:8443", "/keys/k/v?api-version=7.4") else {
            panic!("no vault")
        };
        assert_eq!((vault.name.as_str(), vault.hsm), ("my-hsm", true));
        assert_eq!(vault.kid("k", Some("v")), "https://my-hsm.managedhsm.azure.net:8443/keys/k/v");
        let Place::Vault(vault) = place("127.0.0.1:8443", "/vault/one/keys/k") else { panic!("no vault") };
        assert_eq!((vault.name.as_str(), vault.hsm), ("one", false));
        assert_eq!(vault.kid("k", None), "https://127.0.0.1:8443/vault/one/keys/k");
        assert_eq!(place("127.0.0.1", "/keys/k"), Place::Nowhere);
        assert_eq!(place("any", "/t/oauth2/v2.0/token"), Place::Token { tenant: "t".into() });
    }

    #[test]
    fn clients_leave_the_version_out_in_their_own_ways() {
        let key = Of::Key { name: "k".into(), version: None };
        assert_eq!(of("/keys/k"), key);
        assert_eq!(of("/keys/k/"), key);
        assert_eq!(of("//keys/k/"), key);
        let sign = Of::Use { name: "k".into(), version: None, operation: "sign".into() };
        assert_eq!(of("/keys/k//sign"), sign);
        assert_eq!(of("/keys/k/sign"), sign);
        let sign = Of::Use { name: "k".into(), version: Some("1f".into()), operation: "sign".into() };
        assert_eq!(of("/keys/k/1f/sign"), sign);
        assert_eq!(of("/keys/k/1f/dance"), Of::Unknown);
    }
}
