//! What a request asks for: the paths of the service.

use hyper::Method;

/// A resource or a collection. Names are whole: `projects/p/locations/l/keyRings/r`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Location(String),
    /// The rings of a location.
    KeyRings(String),
    KeyRing(String),
    /// The keys of a ring.
    CryptoKeys(String),
    CryptoKey(String),
    /// The versions of a key.
    Versions(String),
    Version(String),
    /// The public key of a version.
    PublicKey(String),
}

/// An operation of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// The method of the API in its own word.
    pub(super) operation: &'static str,
    /// The resource it is asked of.
    pub(super) name: String,
}

/// What a quota of the service meters together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Cryptographic,
    Read,
    Write,
}

impl Call {
    /// The call of a method and a path, if the service has it.
    pub(super) fn of(method: &Method, path: &str) -> Option<Call> {
        let path = percent_encoding::percent_decode_str(path).decode_utf8().ok()?;
        let (target, verb) = target(path.strip_prefix("/v1/")?)?;
        let operation = operation(method, &target, verb.as_deref())?;
        let (Target::Location(name)
        | Target::KeyRings(name)
        | Target::KeyRing(name)
        | Target::CryptoKeys(name)
        | Target::CryptoKey(name)
        | Target::Versions(name)
        | Target::Version(name)
        | Target::PublicKey(name)) = target;
        Some(Call { operation, name })
    }

    /// What it is metered with.
    pub(super) fn family(&self) -> Family {
        match self.operation {
            operation if operation.starts_with("get") || operation.starts_with("list") => Family::Read,
            "createKeyRing"
            | "createCryptoKey"
            | "updateCryptoKey"
            | "updateCryptoKeyPrimaryVersion"
            | "createCryptoKeyVersion"
            | "updateCryptoKeyVersion"
            | "destroyCryptoKeyVersion"
            | "restoreCryptoKeyVersion" => Family::Write,
            _ => Family::Cryptographic,
        }
    }

    /// The project and the location.
    pub(super) fn location(&self) -> String {
        let parts: Vec<&str> = self.name.split('/').collect();
        match parts[..] {
            [_, project, _, location, ..] => format!("{project}/{location}"),
            _ => self.name.clone(),
        }
    }

    /// The crypto key, where it is about one.
    pub(super) fn crypto_key(&self) -> Option<&str> {
        key_of(&self.name)
    }
}

/// The crypto key of the name of one or of one of its versions.
pub(super) fn key_of(name: &str) -> Option<&str> {
    name.contains("/cryptoKeys/").then(|| name.split("/cryptoKeyVersions/").next().unwrap_or(name))
}

/// Splits a path into what it names and the verb after its colon.
fn target(path: &str) -> Option<(Target, Option<String>)> {
    let mut parts: Vec<&str> = path.split('/').collect();
    let last = parts.pop()?;
    // A project may have a colon, and is never the last part.
    let (last, verb) = match last.split_once(':') {
        Some((last, verb)) => (last, Some(verb.to_owned())),
        None => (last, None),
    };
    parts.push(last);
    if parts.iter().any(|part| part.is_empty()) {
        return None;
    }
    let name = |len: usize| parts[..len].join("/");
    let target = match parts[..] {
        ["projects", _, "locations", _] => Target::Location(name(4)),
        ["projects", _, "locations", _, "keyRings"] => Target::KeyRings(name(4)),
        ["projects", _, "locations", _, "keyRings", _] => Target::KeyRing(name(6)),
        ["projects", _, "locations", _, "keyRings", _, "cryptoKeys"] => Target::CryptoKeys(name(6)),
        ["projects", _, "locations", _, "keyRings", _, "cryptoKeys", _] => Target::CryptoKey(name(8)),
        ["projects", _, "locations", _, "keyRings", _, "cryptoKeys", _, "cryptoKeyVersions"] => {
            Target::Versions(name(8))
        }
        ["projects", _, "locations", _, "keyRings", _, "cryptoKeys", _, "cryptoKeyVersions", _] => {
            Target::Version(name(10))
        }
        ["projects", _, "locations", _, "keyRings", _, "cryptoKeys", _, "cryptoKeyVersions", _, "publicKey"] => {
            Target::PublicKey(name(10))
        }
        _ => return None,
    };
    Some((target, verb))
}

fn operation(method: &Method, target: &Target, verb: Option<&str>) -> Option<&'static str> {
    let method = method.as_str();
    match (target, method, verb) {
        (Target::Location(_), "POST", Some("generateRandomBytes")) => Some("generateRandomBytes"),
        (Target::KeyRings(_), "POST", None) => Some("createKeyRing"),
        (Target::KeyRings(_), "GET", None) => Some("listKeyRings"),
        (Target::KeyRing(_), "GET", None) => Some("getKeyRing"),
        (Target::CryptoKeys(_), "POST", None) => Some("createCryptoKey"),
        (Target::CryptoKeys(_), "GET", None) => Some("listCryptoKeys"),
        (Target::CryptoKey(_), "GET", None) => Some("getCryptoKey"),
        (Target::CryptoKey(_), "PATCH", None) => Some("updateCryptoKey"),
        (Target::CryptoKey(_), "POST", Some("updatePrimaryVersion")) => Some("updateCryptoKeyPrimaryVersion"),
        (Target::CryptoKey(_) | Target::Version(_), "POST", Some("encrypt")) => Some("encrypt"),
        (Target::CryptoKey(_), "POST", Some("decrypt")) => Some("decrypt"),
        (Target::Versions(_), "POST", None) => Some("createCryptoKeyVersion"),
        (Target::Versions(_), "GET", None) => Some("listCryptoKeyVersions"),
        (Target::Version(_), "GET", None) => Some("getCryptoKeyVersion"),
        (Target::Version(_), "PATCH", None) => Some("updateCryptoKeyVersion"),
        (Target::Version(_), "POST", Some(verb)) => match verb {
            "destroy" => Some("destroyCryptoKeyVersion"),
            "restore" => Some("restoreCryptoKeyVersion"),
            "asymmetricSign" => Some("asymmetricSign"),
            "asymmetricDecrypt" => Some("asymmetricDecrypt"),
            "macSign" => Some("macSign"),
            "macVerify" => Some("macVerify"),
            "rawEncrypt" => Some("rawEncrypt"),
            "rawDecrypt" => Some("rawDecrypt"),
            _ => None,
        },
        (Target::PublicKey(_), "GET", None) => Some("getPublicKey"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_understood_whole_or_not_at_all() {
        let of = |method: Method, path: &str| Call::of(&method, path).map(|call| (call.operation, call.name));
        let version = "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1";
        let sign = of(Method::POST, &format!("/v1/{version}:asymmetricSign"));
        assert_eq!(sign, Some(("asymmetricSign", version.to_owned())));
        assert_eq!(of(Method::GET, &format!("/v1/{version}/publicKey")).unwrap().0, "getPublicKey");
        assert_eq!(of(Method::POST, "/v1/projects/a%3Ab/locations/l/keyRings").unwrap().1, "projects/a:b/locations/l");
        for (method, path) in [
            (Method::GET, format!("/v1/{version}:asymmetricSign")),
            (Method::POST, format!("/v1/{version}:steal")),
            (Method::POST, format!("/v1/{version}/publicKey")),
            (Method::GET, "/v1/projects//locations/l/keyRings".to_owned()),
            (Method::GET, format!("/v2/{version}")),
            (Method::GET, "/".to_owned()),
        ] {
            assert_eq!(of(method, &path), None, "{path}");
        }
        let call = Call::of(&Method::POST, &format!("/v1/{version}:macSign")).unwrap();
        assert_eq!(call.crypto_key(), Some("projects/p/locations/l/keyRings/r/cryptoKeys/k"));
        assert_eq!((call.location(), call.family()), ("p/l".to_owned(), Family::Cryptographic));
    }
}
