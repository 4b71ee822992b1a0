//! What keys in clouds have in common. One key is one device; its sessions are the calls it may have under way at once, each
//! on a thread of the supervisor's, which drives the service's asynchronous client. A service's own part is a [`Client`]: it
//! finds a key, makes one, and has it work; its native errors become [`BackendError`]s there.
//!
//! Clients are shared by all keys of one service, endpoint and identity, and so are their connections. This room must not
//! know: any one service, or who asks.

#![cfg_attr(
    not(all(feature = "awskms", feature = "azurekeyvault", feature = "gcpckms")),
    allow(dead_code, unused_imports, reason = "each service uses a part of it")
)]

mod device;
mod identities;
mod keeper;
mod outages;
pub(crate) mod pace;
mod runtime;
mod service;
mod states;
mod transport;
mod warm;
mod words;

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub(crate) use device::CloudDevice;
pub(crate) use identities::Owner;
pub(crate) use keeper::{Issued, Issuer, Keeper};
pub(crate) use runtime::{Runtime, TIMEOUT};
pub(crate) use service::Service;
pub(crate) use states::{DISABLED, OUT_OF_USE, PENDING_DELETION};
pub(crate) use transport::{Transport, Undelivered};
pub(crate) use words::{innermost, shown};

use self::pace::Gate;
use super::{BackendError, Fate, KeyTemplate};
use crate::model::{CloudKind, Curve, Fault, Hash, KeyKind, KeyOperation, PublicKey, SignInput, SignatureScheme};

/// Most bytes that are read of an answer, of a service or of whoever gives out credentials: an endpoint may be a stranger's. The
/// longest there are have a key, or a token. (Google's tokens are fetched by its own library, which knows no such limit.)
pub(crate) const ANSWER_MAX: usize = 1 << 20;

/// The longest pause that a service's word is taken for, or that of whatever stands before it.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// One call of a service, under way.
pub(crate) type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, BackendError>> + Send + 'a>>;

/// One key in a cloud, as its service's client reaches it by one identity.
pub(crate) trait Client: Send + Sync {
    /// The way into the quota domain that a key of this kind counts against.
    fn gate(&self, found: &Found) -> Arc<Gate>;

    /// The way into the quota domain that look-ups of the key count against.
    fn looks(&self) -> Arc<Gate>;

    /// The same of what makes keys.
    fn makes(&self) -> Arc<Gate>;

    /// Looks the key up; `None` if there is none. One that is there and cannot be used now is an error that says why.
    fn find(&self) -> Call<'_, Option<Found>>;

    /// Makes the key. The caller has made sure that there is none. An error of the cause [`BEING_MADE`] says that it is to be
    /// looked for a little later.
    fn generate<'a>(&'a self, template: &'a KeyTemplate) -> Call<'a, Found>;

    /// Refuses what the service does not do with the key. No call is made.
    fn check(&self, found: &Found, operation: &KeyOperation) -> Result<(), BackendError>;

    /// What the key is called wherever a copy of it is: its id, unless copies have ids of their own.
    fn lasting_name(&self, found: &Found) -> String {
        found.id.clone()
    }

    /// Has the key work. ECDSA signatures are answered as DER, whatever the service's form.
    fn perform<'a>(&'a self, found: &'a Found, operation: &'a KeyOperation) -> Call<'a, Bytes>;
}

/// The cause of an error that a key cannot be used yet, since the service is still making it.
pub(crate) const BEING_MADE: &str = "generating";

/// The cause of an error that the credentials for a call cannot be had: the service was not asked.
pub(crate) const NO_CREDENTIALS: &str = "no_credentials";

/// A key that was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The service's own whole name of it, with its version: what calls name, whatever the name it was found by.
    pub(crate) id: String,
    /// What the service does with it.
    pub(crate) kind: &'static CloudKind,
    /// Its public half; a secret key has none.
    pub(crate) public: Option<PublicKey>,
    /// Most bytes that it encrypts, with their associated data, where those are fewer than keys of its kind can.
    pub(crate) sealed_max: Option<usize>,
}

impl Found {
    /// A key that does all that keys of its kind do.
    pub(crate) fn new(id: String, kind: &'static CloudKind, public: Option<PublicKey>) -> Found {
        Found { id, kind, public, sealed_max: None }
    }

    /// Whether it is the same key, as far as the service says.
    fn is_same(&self, other: &Found) -> bool {
        let same = |one: &Found, two: &Found| one.id == two.id && one.kind == two.kind && one.public == two.public;
        same(self, other) && self.sealed_max == other.sealed_max
    }

    /// The signature as the service is asked for it; refuses what it does not make with such a key.
    pub(crate) fn signing<'a>(
        &self,
        scheme: SignatureScheme,
        hash: Hash,
        input: &'a SignInput,
    ) -> Result<Signing<'a>, BackendError> {
        let kind = self.kind;
        if let (SignInput::Message(message), true) = (input, scheme.takes_message()) {
            self.check_message(message.len())?;
        }
        if let SignatureScheme::RsaPss { salt } = scheme
            && usize::from(salt) != hash.digest_bytes()
        {
            let what = format!(
                "{} makes PSS signatures with a salt as long as the hash alone: leave salt_length out, or give \"hash\"",
                kind.service.title()
            );
            return Err(BackendError::keep(Fault::invalid(what)));
        }
        if let (SignatureScheme::Ecdsa, KeyKind::Ec(curve), Some(own)) = (scheme, kind.kind, kind.signs.first()) {
            let input = Cow::Owned(as_digest_of(own.hash, curve, input.as_bytes()));
            return Ok(Signing { native: own.native, hash: own.hash, input });
        }
        let native = kind.signing(scheme, hash).ok_or_else(|| {
            let what = format!("a signature with {} by a key {kind}: it signs with {}", hash.name(), kind.hashes());
            BackendError::keep(Fault::NotSupported { what })
        })?;
        Ok(Signing { native, hash, input: Cow::Borrowed(input.as_bytes()) })
    }

    /// Refuses a message that is longer than the service takes.
    pub(crate) fn check_message(&self, bytes: usize) -> Result<(), BackendError> {
        let kind = self.kind;
        if bytes <= kind.message_max {
            return Ok(());
        }
        let (service, most) = (kind.service.title(), kind.message_max);
        let what = format!("a message of {bytes} bytes for a key {kind}: {service} takes at most {most}");
        Err(BackendError::keep(Fault::TooLarge { what }))
    }

    /// Refuses a plaintext that is longer than a secret key there encrypts. It is not said how long it is: whoever has a ciphertext
    /// rewrapped is not to learn of what is in it.
    pub(crate) fn check_plaintext(&self, plaintext: usize, associated_data: &[u8]) -> Result<(), BackendError> {
        let kind = self.kind;
        let (bytes, most, with) = match self.sealed_max {
            Some(most) => (plaintext + associated_data.len(), most, " with its associated data"),
            None => (plaintext, kind.message_max, ""),
        };
        if bytes <= most {
            return Ok(());
        }
        let or = if kind.takes_envelopes() { "; with encryption_mode \"envelope\" it may have any" } else { "" };
        let service = kind.service.title();
        let what = format!("a plaintext for a key {kind}: {service} takes at most {most} bytes{with}{or}");
        Err(BackendError::keep(Fault::TooLarge { what }))
    }
}

/// A signature as a service is asked for it.
#[derive(Debug)]
pub(crate) struct Signing<'a> {
    /// What the service calls it.
    pub(crate) native: &'static str,
    /// The hash whose digests it signs.
    pub(crate) hash: Hash,
    /// What it signs: a digest, or the message.
    pub(crate) input: Cow<'a, [u8]>,
}

/// A digest of any length as one of `hash`, which signs the same. ECDSA signs a number: the first bits of a digest, as many as
/// the curve's order has (FIPS 186-5, 6.4.1). So what is longer is cut, and zeros before what is shorter change nothing. Services
/// take digests of one length for each curve; that way their keys sign with every hash.
fn as_digest_of(hash: Hash, curve: Curve, digest: &[u8]) -> Vec<u8> {
    let first = &digest[..digest.len().min(curve.field_bytes())];
    let mut filled = vec![0; hash.digest_bytes().saturating_sub(first.len())];
    filled.extend_from_slice(first);
    filled
}

/// What the service has no way of doing with this key.
pub(crate) fn not_supported(kind: &CloudKind, what: &str) -> BackendError {
    BackendError::keep(Fault::NotSupported { what: format!("{what} by a key {kind}") })
}

/// The row of what a key is to be generated as: the one that is named, or the first that fits.
pub(crate) fn row_of(kinds: &'static [CloudKind], template: &KeyTemplate) -> Result<&'static CloudKind, BackendError> {
    if let Some(named) = template.cloud {
        return Ok(named);
    }
    let fits = |kind: &&CloudKind| kind.kind == template.kind && !kind.does.usages().and(template.uses).is_empty();
    kinds.iter().find(fits).ok_or_else(|| {
        BackendError::keep(Fault::NotSupported { what: format!("a key {} for these usages", template.kind) })
    })
}

/// Keys that the service says nothing of but their names: nobody knows what they are.
pub(crate) fn unknown_kind(id: &str, native: &str) -> BackendError {
    BackendError::keep(Fault::NotSupported { what: format!("key {id}, which is {native}: no managed key can be one") })
}

/// An error that another call may not meet: the service, or the way to it, is ill.
pub(crate) fn ill(cause: &'static str, what: String) -> BackendError {
    BackendError { fault: Fault::Unavailable { what }, fate: Fate::BackOff, cause }
}

/// The same by an answer with this status. One of 503 that says when to come again has done nothing for now (RFC 9110, 15.6.4), as if
/// a quota were used up: it is asked again then, and not before. Any other may come after the key was used, whatever it says.
pub(crate) fn ill_until(cause: &'static str, what: String, status: u16, retry_after: Option<Duration>) -> BackendError {
    match (status, retry_after) {
        (503, Some(_)) => throttled(what, retry_after),
        _ => ill(cause, what),
    }
}

/// An answer without the service's own words, which has them for whatever is wrong with a request, a key or credentials: of something
/// before it, or of a service that is ill.
pub(crate) fn without_words(title: &str, call: &str, status: u16, retry_after: Option<Duration>) -> BackendError {
    let what = format!("{title}: {call}: an answer (HTTP {status}) that is not the service's");
    match status {
        429 => throttled(what, retry_after),
        408 | 500.. => ill_until("service_error", what, status, retry_after),
        _ => ill("unreadable_answer", what),
    }
}

/// An answer that the quota is used up: nothing was done. With what the service says of when to come again.
pub(crate) fn throttled(what: String, retry_after: Option<Duration>) -> BackendError {
    let retry_after = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
    BackendError { fault: Fault::QuotaExceeded { what, retry_after }, fate: Fate::Throttled, cause: "throttled" }
}

/// A client of one key.
pub(crate) type SharedClient = Arc<dyn Client>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{self, SoftwareKey};
    use crate::model::{Digest, SaltLength};

    #[test]
    fn what_may_come_after_the_key_was_used_is_a_failure_whatever_it_says_of_when_to_come_again() {
        let seven = Some(Duration::from_secs(7));
        let error = |status| without_words("key a", "Sign", status, seven);
        for status in [429, 503] {
            assert_eq!((error(status).fate, error(status).cause), (Fate::Throttled, "throttled"), "{status}");
        }
        for status in [408, 500, 502, 504] {
            assert_eq!((error(status).fate, error(status).cause), (Fate::BackOff, "service_error"), "{status}");
        }
    }

    #[test]
    fn nobody_is_told_to_come_again_in_a_thousand_years() {
        for (named, taken) in [(7, 7), (u64::MAX, 60)] {
            for status in [429, 503] {
                let error = without_words("key a", "Sign", status, Some(Duration::from_secs(named)));
                assert_eq!(error.fault.retry_after(), Some(Duration::from_secs(taken)), "{status}");
            }
        }
    }

    #[test]
    fn a_curve_signs_every_hash_in_the_form_of_the_one_it_takes() {
        for (curve, own) in [
            (Curve::P256, Hash::Sha2_256),
            (Curve::P384, Hash::Sha2_384),
            (Curve::P521, Hash::Sha2_512),
            (Curve::Secp256k1, Hash::Sha2_256),
        ] {
            let key = SoftwareKey::generate(KeyKind::Ec(curve)).unwrap();
            for hash in [Hash::Sha1, Hash::Sha2_224, Hash::Sha2_256, Hash::Sha2_384, Hash::Sha2_512, Hash::Sha3_512] {
                let digest = crypto::digest(hash, b"message").unwrap();
                let filled = as_digest_of(own, curve, digest.as_bytes());
                assert_eq!(filled.len(), own.digest_bytes(), "{curve:?} {hash:?}");
                let input = SignInput::Digest(Digest::new(&filled).unwrap());
                let scheme = SignatureScheme::Ecdsa;
                let made = key.perform(&KeyOperation::Sign { scheme, hash: own, input }).unwrap();
                let asked = SignInput::Digest(digest);
                let valid = crypto::verify(key.public(), scheme, SaltLength::Hash, hash, &asked, &made).unwrap();
                assert!(valid, "{curve:?} {hash:?}");
            }
        }
    }
}
