//! The one typed door: everything a client can ask, whichever wire it came by.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    Caller, Class, Deadline, Hash, Marshaling, Namespace, RequestId, RsaPadding, SaltLength, Secret, SecretBytes,
    SignatureScheme,
};

/// JSON-like request and response data, as Vault's logical requests carry it.
pub type Data = serde_json::Map<String, serde_json::Value>;

/// One request.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The tenant addressed.
    pub namespace: Namespace,
    /// Who asks.
    pub caller: Caller,
    /// The token it came with, as it was shown: for its record alone.
    pub token: Option<Arc<Secret>>,
    /// What its answer is called by, where its wire tells that.
    pub id: Option<RequestId>,
    /// When it was read off its wire.
    pub arrived: Instant,
    /// When the answer stops being of use.
    pub deadline: Deadline,
    /// How urgent it is.
    pub class: Class,
    /// How long the answer is kept for whoever shows the token that is answered in its place; none: it is answered itself.
    pub wrap_ttl: Option<Duration>,
    /// What is asked.
    pub body: Body,
}

/// What is asked: one of the few typed hot operations, or a generic request.
#[derive(Clone, Debug)]
pub enum Body {
    /// Transit's sign, with raw bytes.
    Sign(SignRequest),
    /// Transit's verify, with raw bytes.
    Verify(VerifyRequest),
    /// Transit's encrypt, with raw bytes.
    Encrypt(EncryptRequest),
    /// Transit's decrypt, with raw bytes.
    Decrypt(DecryptRequest),
    /// Transit's hmac, with raw bytes.
    Mac(MacRequest),
    /// PKI's `sign/:role`, with a DER request.
    SignCertificate(CertificateRequest),
    /// The same for many of them.
    SignCertificates(CertificatesRequest),
    /// Anything else.
    Request(Request),
}

/// The Transit operation `sign/:key`.
#[derive(Clone, Debug)]
pub struct SignRequest {
    /// The mount's path, with or without its final `/`.
    pub mount: String,
    /// The Transit key's name.
    pub key: String,
    /// Its version; 0 is the latest.
    pub key_version: u32,
    /// The message, or its digest if `prehashed`.
    pub input: Bytes,
    /// Whether `input` is a digest already.
    pub prehashed: bool,
    /// The hash to use; `None` takes Transit's default, SHA-256.
    pub hash: Option<Hash>,
    /// PSS or PKCS#1 v1.5 for RSA keys; `None` lets the key's mechanism decide. The salt in it is ignored: see `salt`.
    pub scheme: Option<SignatureScheme>,
    /// The PSS salt length.
    pub salt: SaltLength,
    /// How to write the signature.
    pub marshaling: Marshaling,
}

/// The Transit operation `verify/:key`.
#[derive(Clone, Debug)]
pub struct VerifyRequest {
    /// What was signed, and how: the same facts as for signing. `key_version` must name the version.
    pub signed: SignRequest,
    /// The signature, as `signed.marshaling` writes it.
    pub signature: Bytes,
}

/// The Transit operation `encrypt/:key`.
#[derive(Clone, Debug)]
pub struct EncryptRequest {
    /// The mount's path, with or without its final `/`.
    pub mount: String,
    /// The Transit key's name.
    pub key: String,
    /// Its version; 0 is the latest.
    pub key_version: u32,
    /// What to encrypt.
    pub plaintext: SecretBytes,
    /// What AES-GCM attests and does not encrypt.
    pub associated_data: Bytes,
    /// The padding for RSA keys; `None` lets the key's mechanism decide.
    pub padding: Option<RsaPadding>,
}

/// The Transit operation `decrypt/:key`.
#[derive(Clone, Debug)]
pub struct DecryptRequest {
    /// The mount's path, with or without its final `/`.
    pub mount: String,
    /// The Transit key's name.
    pub key: String,
    /// The version that encrypted; 0 is the first.
    pub key_version: u32,
    /// The ciphertext, without Vault's text before it.
    pub ciphertext: Bytes,
    /// What AES-GCM attested.
    pub associated_data: Bytes,
    /// The padding for RSA keys; `None` lets the key's mechanism decide.
    pub padding: Option<RsaPadding>,
}

/// The Transit operation `hmac/:key`.
#[derive(Clone, Debug)]
pub struct MacRequest {
    /// The mount's path, with or without its final `/`.
    pub mount: String,
    /// The Transit key's name.
    pub key: String,
    /// Its version; 0 is the latest.
    pub key_version: u32,
    /// What to make a MAC of.
    pub input: SecretBytes,
    /// The hash; `None` takes that of the key's mechanism.
    pub hash: Option<Hash>,
}

/// The PKI operation `sign/:role`.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    /// The mount's path, with or without its final `/`.
    pub mount: String,
    /// The role's name.
    pub role: String,
    /// DER of the PKCS#10 request (RFC 2986).
    pub csr: Bytes,
    /// The other fields of `sign/:role`, by Vault's names.
    pub data: Data,
}

/// The PKI operation `sign/:role` for many requests at once.
#[derive(Clone, Debug)]
pub struct CertificatesRequest {
    /// The mount's path, with or without its final `/`.
    pub mount: String,
    /// The role's name.
    pub role: String,
    /// DER of the PKCS#10 requests (RFC 2986).
    pub csrs: Vec<Bytes>,
    /// The other fields of `sign/:role`, by Vault's names, alike for all.
    pub data: Data,
}

/// A generic request: Vault's logical request.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to do.
    pub verb: Verb,
    /// The path below `/v1/`, without the namespace and without a leading `/`.
    pub path: String,
    /// Its data: the JSON body, or the query of a read.
    pub data: Data,
    /// A body that is no JSON, as it came: an OCSP request. Empty on every other path.
    pub raw: Bytes,
    /// What its asker has is from then (Unix seconds; HTTP's `If-Modified-Since`): what has not changed since is not wanted
    /// again. An engine sees it only where its mount is tuned so.
    pub if_modified_since: Option<u64>,
}

/// What a generic request does at its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// HTTP GET.
    Read,
    /// HTTP POST or PUT: create or update.
    Write,
    /// HTTP PATCH with a merge patch (RFC 7396).
    Patch,
    /// HTTP DELETE.
    Delete,
    /// The LIST method, or GET with `?list=true`.
    List,
}

impl Verb {
    /// The label used in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Verb::Read => "read",
            Verb::Write => "write",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::List => "list",
        }
    }
}

/// What a policy grants on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Make what is not there.
    Create,
    /// See.
    Read,
    /// Change what is there, or run an operation.
    Update,
    /// Change a part.
    Patch,
    /// Remove.
    Delete,
    /// See names.
    List,
}

impl Operation {
    /// The path policies are judged on: `transit/sign/KEY` for a typed operation too.
    pub fn path(&self) -> Cow<'_, str> {
        let join =
            |mount: &str, verb: &str, name: &str| Cow::Owned([mount.trim_end_matches('/'), verb, name].join("/"));
        match &self.body {
            Body::Sign(sign) => join(&sign.mount, "sign", &sign.key),
            Body::Verify(verify) => join(&verify.signed.mount, "verify", &verify.signed.key),
            Body::Encrypt(request) => join(&request.mount, "encrypt", &request.key),
            Body::Decrypt(request) => join(&request.mount, "decrypt", &request.key),
            Body::Mac(request) => join(&request.mount, "hmac", &request.key),
            Body::SignCertificate(request) => join(&request.mount, "sign", &request.role),
            Body::SignCertificates(request) => join(&request.mount, "sign", &request.role),
            Body::Request(request) => Cow::Borrowed(&request.path),
        }
    }

    /// The capability it needs at that path. A write counts as an update: whether it creates is asked
    /// only where a policy grants one of the two.
    pub const fn capability(&self) -> Capability {
        match &self.body {
            Body::Sign(_)
            | Body::Verify(_)
            | Body::Encrypt(_)
            | Body::Decrypt(_)
            | Body::Mac(_)
            | Body::SignCertificate(_)
            | Body::SignCertificates(_) => Capability::Update,
            Body::Request(request) => match request.verb {
                Verb::Read => Capability::Read,
                Verb::Write => Capability::Update,
                Verb::Patch => Capability::Patch,
                Verb::Delete => Capability::Delete,
                Verb::List => Capability::List,
            },
        }
    }
}
