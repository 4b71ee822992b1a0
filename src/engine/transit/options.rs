//! How to sign or verify: the options of a request, and what they come to for a key of some kind.

use bytes::Bytes;

use crate::crypto::{self, Hasher};
use crate::managed_keys::Lent;
use crate::model::{
    Digest, Fault, Fields, Hash, KeyKind, Marshaling, PublicKey, SaltLength, SignInput, SignRequest, SignatureScheme,
};

/// Bytes hashed before other tasks of the worker get their turn.
const HASH_STEP: usize = 128 * 1024;
/// PKCS#1 v1.5 adds at least so many bytes (RFC 8017, 9.2).
const PKCS1_OVERHEAD: usize = 11;

/// The options of one request, alike for all items of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// `None` takes the key's default.
    hash: Option<Hash>,
    prehashed: bool,
    /// `None` lets the key's mechanism decide.
    scheme: Option<SignatureScheme>,
    salt: SaltLength,
    pub(super) marshaling: Marshaling,
}

/// Whether the input of a hot operation is hashed at once, if it is hashed at all.
pub(super) fn takes_no_time(request: &SignRequest) -> bool {
    request.prehashed || request.input.len() <= HASH_STEP
}

/// What is handed to a key.
pub(super) struct Prepared {
    pub(super) scheme: SignatureScheme,
    pub(super) hash: Hash,
    pub(super) input: SignInput,
}

impl Options {
    /// The options in a request's data; `url_hash` is the hash the path names, which counts most.
    pub(super) fn parse(fields: &mut Fields<'_>, url_hash: &str) -> Result<Options, Fault> {
        let named = fields.filled("hash_algorithm")?;
        let old = fields.filled("algorithm")?;
        let named = Some(url_hash.to_owned()).filter(|name| !name.is_empty()).or(named).or(old);
        let hash = named
            .map(|name| {
                Hash::from_name(&name).ok_or_else(|| Fault::invalid(format!("invalid hash algorithm {name:?}")))
            })
            .transpose()?;
        let scheme = match fields.filled("signature_algorithm")?.as_deref() {
            None => None,
            Some("pss") => Some(SignatureScheme::RsaPss { salt: 0 }),
            Some("pkcs1v15") => Some(SignatureScheme::RsaPkcs1),
            Some(other) => {
                let expected = "expected \"pss\" or \"pkcs1v15\"";
                return Err(Fault::invalid(format!("unsupported signature algorithm {other:?}: {expected}")));
            }
        };
        let marshaling = match fields.filled("marshaling_algorithm")?.as_deref() {
            None | Some("asn1") => Marshaling::Asn1,
            Some("jws") => Marshaling::Jws,
            Some(other) => return Err(Fault::invalid(format!("invalid marshaling type {other:?}"))),
        };
        let salt = match fields.filled("salt_length")?.as_deref() {
            None | Some("auto") => SaltLength::Auto,
            Some("hash") => SaltLength::Hash,
            Some(number) => SaltLength::Bytes(number.parse().map_err(|_| {
                Fault::invalid(format!("salt length is invalid: {number:?}; expected auto, hash or a number of bytes"))
            })?),
        };
        let prehashed = fields.boolean("prehashed")?.unwrap_or(false);
        fields.refuse(&["signature_context"])?;
        // Only derived keys have a use for it.
        fields.value("context");
        Options { hash, prehashed, scheme, salt, marshaling }.checked()
    }

    /// The options of a hot operation.
    pub(super) fn of(request: &SignRequest) -> Result<Options, Fault> {
        let &SignRequest { prehashed, hash, scheme, salt, marshaling, .. } = request;
        Options { hash, prehashed, scheme, salt, marshaling }.checked()
    }

    fn checked(self) -> Result<Options, Fault> {
        if self.hash == Some(Hash::None) && !(self.prehashed && self.scheme == Some(SignatureScheme::RsaPkcs1)) {
            return Err(Fault::invalid(
                "hash_algorithm=none requires both prehashed=true and signature_algorithm=pkcs1v15",
            ));
        }
        Ok(self)
    }

    /// The hash that the request names.
    pub(super) fn named_hash(&self) -> Option<Hash> {
        self.hash
    }

    /// The PSS salt length that a signature to be verified must have.
    pub(super) fn salt(&self) -> SaltLength {
        self.salt
    }

    /// What these options come to for this key and input.
    pub(super) async fn prepare(&self, key: Lent<'_>, public: &PublicKey, input: Bytes) -> Result<Prepared, Fault> {
        let hash = self.hash.unwrap_or_else(|| key.default_hash());
        let scheme = self.scheme(key, public.kind, hash)?;
        if scheme.takes_message() {
            if self.prehashed {
                return Err(Fault::invalid(
                    "prehashed is not supported for ed25519 and ml-dsa keys: they sign the message itself",
                ));
            }
            return Ok(Prepared { scheme, hash: Hash::None, input: SignInput::Message(input) });
        }
        let input = match hash {
            Hash::None => whole(public.kind, input)?,
            hash if self.prehashed => SignInput::Digest(given(public.kind, hash, &input)?),
            hash => SignInput::Digest(hashed(hash, &input).await?),
        };
        Ok(Prepared { scheme, hash, input })
    }

    fn scheme(&self, key: Lent<'_>, kind: KeyKind, hash: Hash) -> Result<SignatureScheme, Fault> {
        let most = crypto::max_pss_salt(kind, hash);
        let salt = match self.salt {
            SaltLength::Auto if !key.has_fixed_salt() => most,
            SaltLength::Auto | SaltLength::Hash => u16::try_from(hash.digest_bytes()).unwrap_or(u16::MAX),
            SaltLength::Bytes(bytes) => bytes,
        };
        // What is said of RSA counts for RSA keys only, as in Vault.
        let asked = self.scheme.filter(|_| matches!(kind, KeyKind::Rsa { .. }));
        let scheme = match asked {
            None => key.default_scheme(salt)?,
            Some(SignatureScheme::RsaPss { .. }) => SignatureScheme::RsaPss { salt },
            Some(scheme) => scheme,
        };
        key.require_scheme(scheme)?;
        match scheme {
            SignatureScheme::RsaPss { salt } if salt > most => Err(Fault::invalid(format!(
                "salt length is invalid: {salt} bytes; with {} and {kind} at most {most} fit",
                hash.name()
            ))),
            scheme => Ok(scheme),
        }
    }
}

/// An input to PKCS#1 v1.5 without a DigestInfo.
fn whole(kind: KeyKind, input: Bytes) -> Result<SignInput, Fault> {
    let KeyKind::Rsa { bits } = kind else {
        return Err(Fault::invalid(format!("hash_algorithm=none is for RSA keys, and this key is {kind}")));
    };
    let most = (bits as usize).div_ceil(8) - PKCS1_OVERHEAD;
    if input.len() > most {
        return Err(Fault::invalid(format!(
            "input has {} bytes; {kind} signs at most {most} as they are",
            input.len()
        )));
    }
    Ok(SignInput::Message(input))
}

/// A digest made by the client. ECDSA takes one of any hash, as in Vault: only its value counts.
fn given(kind: KeyKind, hash: Hash, input: &[u8]) -> Result<Digest, Fault> {
    let expected = hash.digest_bytes();
    let fits = input.len() == expected || matches!(kind, KeyKind::Ec(_)) && !input.is_empty();
    Digest::new(input).filter(|_| fits).ok_or_else(|| {
        let (name, found) = (hash.name(), input.len());
        Fault::invalid(format!("input has {found} bytes, but a prehashed input is a {name} digest of {expected} bytes"))
    })
}

/// The digest of what may be long.
pub(super) async fn hashed(hash: Hash, input: &[u8]) -> Result<Digest, Fault> {
    if input.len() <= HASH_STEP {
        return crypto::digest(hash, input);
    }
    // In a box of its own: what few inputs need makes the future of every other no larger.
    Box::pin(hashed_by_steps(hash, input)).await
}

async fn hashed_by_steps(hash: Hash, input: &[u8]) -> Result<Digest, Fault> {
    let mut hasher = Hasher::new(hash)?;
    for step in input.chunks(HASH_STEP) {
        hasher.update(step);
        tokio::task::yield_now().await;
    }
    hasher.finish()
}
