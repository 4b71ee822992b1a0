//! What a client gets back when nothing went wrong.

use bytes::Bytes;

use super::{Auth, Data, Download, Fault, Lease, SecretBytes, Upload, WrapInfo};

/// The answer to an [`super::Operation`].
#[derive(Debug)]
pub enum Outcome {
    /// A signature, written as asked.
    Signature {
        /// The signature's bytes.
        signature: Bytes,
        /// The version of the Transit key that made it.
        key_version: u32,
    },
    /// Whether a signature is good.
    Verdict {
        /// True if it is.
        valid: bool,
    },
    /// A ciphertext.
    Ciphertext {
        /// With the IV in front and the tag behind, where there are such.
        ciphertext: Bytes,
        /// The version of the Transit key that made it.
        key_version: u32,
    },
    /// A plaintext, which is wiped when the last that holds it lets it go.
    Plaintext(SecretBytes),
    /// A MAC.
    Mac {
        /// The MAC's bytes.
        mac: Bytes,
        /// The version of the Transit key that made it.
        key_version: u32,
    },
    /// A certificate, stored before it was answered.
    Certificate(IssuedCertificate),
    /// What came of many requests for certificates, in their order.
    Certificates {
        /// Each with a fault of its own, or with a certificate, which leaves its chain empty.
        results: Vec<Result<IssuedCertificate, Fault>>,
        /// The chain of all of them, as in [`IssuedCertificate`].
        chain: Vec<Bytes>,
    },
    /// The answer to a generic request.
    Response(Response),
    /// The same, too large for memory.
    Download(Download),
    /// The answer comes when the body has been handed there.
    Upload(Upload),
}

/// A certificate just issued.
#[derive(Clone, Debug)]
pub struct IssuedCertificate {
    /// DER of the certificate (RFC 5280).
    pub certificate: Bytes,
    /// DER of the issuer's certificate and those above it, nearest first.
    pub chain: Vec<Bytes>,
    /// The serial number as Vault writes it: hexadecimal pairs with colons.
    pub serial: String,
    /// `notAfter`, in Unix seconds.
    pub expiration: i64,
    /// The id of its lease, which ends with it; empty if it has none.
    pub lease_id: String,
}

/// The answer to a generic request, before any envelope.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// Done, nothing to say (HTTP 204).
    Empty,
    /// Data in Vault's envelope.
    Data {
        /// The `data` member.
        data: Data,
        /// What the operator should know all the same.
        warnings: Vec<String>,
        /// Whether Vault repeats each member of `data` at the top level on this path.
        mirrored: bool,
    },
    /// Begun, and going on behind the answer (HTTP 202): Vault's envelope without data.
    Accepted {
        /// What is to be known of it.
        warnings: Vec<String>,
    },
    /// Data in Vault's envelope, with a lease.
    Leased {
        /// The `data` member.
        data: Data,
        /// What the operator should know all the same.
        warnings: Vec<String>,
        /// How it may be given back.
        lease: Lease,
    },
    /// A token, in Vault's envelope.
    Auth {
        /// The `auth` member.
        auth: Auth,
        /// What the operator should know all the same.
        warnings: Vec<String>,
    },
    /// A token in the place of an answer, in Vault's envelope.
    Wrapped(WrapInfo),
    /// Data in Vault's envelope, of a request that failed in part: a batch.
    Failed {
        /// HTTP status.
        status: u16,
        /// The `data` member.
        data: Data,
        /// What the operator should know all the same.
        warnings: Vec<String>,
    },
    /// JSON without an envelope, with a status of its own (`sys/health` and its like).
    Bare {
        /// HTTP status.
        status: u16,
        /// The whole body.
        body: serde_json::Value,
    },
    /// Bytes of another content type: DER and PEM. No bytes at all are HTTP 204.
    Raw {
        /// The media type.
        content_type: &'static str,
        /// The body.
        body: Bytes,
    },
    /// An answer, and since when it is what it is.
    Dated {
        /// In Unix seconds: HTTP's `Last-Modified`.
        changed: u64,
        /// The answer.
        response: Box<Response>,
    },
    /// What is asked for did not change since its asker had it (HTTP 304).
    NotModified {
        /// As of [`Response::Dated`], where that may be told.
        changed: Option<u64>,
    },
}

impl Response {
    /// Data without warnings.
    pub fn data(data: Data) -> Response {
        Response::Data { data, warnings: Vec::new(), mirrored: false }
    }

    /// Data with warnings.
    pub fn with_warnings(data: Data, warnings: Vec<String>) -> Response {
        Response::Data { data, warnings, mirrored: false }
    }

    /// The answer by itself, and since when it is what it is, where it says so.
    pub fn undated(self) -> (Response, Option<u64>) {
        match self {
            Response::Dated { changed, response } => (*response, Some(changed)),
            Response::NotModified { changed } => (Response::NotModified { changed: None }, changed),
            other => (other, None),
        }
    }

    /// Vault's list shape: `{"keys": [...]}`.
    pub fn keys(keys: Vec<String>) -> Response {
        let mut data = Data::new();
        data.insert("keys".into(), keys.into());
        Response::data(data)
    }
}

impl From<Response> for Outcome {
    fn from(response: Response) -> Outcome {
        Outcome::Response(response)
    }
}
