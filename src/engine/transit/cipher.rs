//! Encrypting and decrypting one message with a version of a key. An AES ciphertext begins with its IV, and one of GCM ends with
//! its tag, so that it says all that decrypting it takes but the associated data; a cloud's service may have a form of its own. RSA encrypts here, with the public key on
//! record; everything else is the token's work.

use std::sync::Arc;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use bytes::Bytes;

use super::Transit;
use super::key::{TransitKey, Version};
use super::text;
use crate::crypto;
use crate::engine::Call;
use crate::managed_keys::{Handle, KeyRef};
use crate::model::{
    BLOCK_BYTES, Cipher, CipherScheme, DecryptRequest, ENVELOPE_ASSOCIATED_DATA, EncryptRequest, Fault, Fields,
    GCM_IV_BYTES, GCM_TAG_BYTES, KeyKind, KeyOperation, KeyUsage, RsaPadding, SecretBytes, is_own_associated_data,
};

/// What one message comes with, besides its text.
#[derive(Clone, Debug, Default)]
pub(super) struct Extras {
    /// The version to encrypt with: 0 is the latest.
    pub(super) key_version: i64,
    /// What is attested and not encrypted.
    pub(super) associated_data: Bytes,
    /// The client's own IV.
    pub(super) iv: Option<Bytes>,
}

impl Extras {
    /// Those of a request, or of an item of a batch.
    pub(super) fn parse(fields: &mut Fields<'_>) -> Result<Extras, Fault> {
        let associated_data = fields.filled("associated_data")?.unwrap_or_default();
        let nonce = fields.filled("nonce")?.map(|nonce| text::field("nonce", &nonce)).transpose()?;
        let iv = fields.filled("iv")?.map(|iv| text::field("iv", &iv)).transpose()?;
        if nonce.is_some() && iv.is_some() {
            return Err(Fault::invalid("only one of nonce and iv may be given"));
        }
        Ok(Extras {
            key_version: fields.integer("key_version")?.unwrap_or(0),
            associated_data: text::field("associated_data", &associated_data)?,
            iv: nonce.or(iv),
        })
    }

    /// The client's IV, if it gave one, of the length that the cipher has.
    fn iv<const N: usize>(&self) -> Result<Option<[u8; N]>, Fault> {
        let Some(iv) = &self.iv else { return Ok(None) };
        let wrong = |_| Fault::invalid(format!("the nonce or iv has {} bytes; this key takes one of {N}", iv.len()));
        iv[..].try_into().map(Some).map_err(wrong)
    }

    /// The IV to encrypt with: the client's, or a random one.
    fn fresh_iv<const N: usize>(&self) -> Result<[u8; N], Fault> {
        if let Some(iv) = self.iv()? {
            return Ok(iv);
        }
        let mut iv = [0; N];
        SystemRandom::new().fill(&mut iv).map_err(|_| Fault::internal("the system's random generator fails"))?;
        Ok(iv)
    }

    /// Takes the IV off the front of a ciphertext. One that the client gives must be that.
    fn split_iv<const N: usize>(&self, ciphertext: &mut Bytes) -> Result<[u8; N], Fault> {
        let (iv, _) = ciphertext.split_first_chunk::<N>().ok_or_else(wrong_length)?;
        let iv = *iv;
        if self.iv::<N>()?.is_some_and(|given| given != iv) {
            return Err(Fault::invalid("the ciphertext was made with another nonce or iv"));
        }
        *ciphertext = ciphertext.slice(N..);
        Ok(iv)
    }

    /// Refuses a client's IV for a key of a type that the mount makes, in Vault's words: who chooses it for GCM may choose one
    /// twice, and then what was encrypted, and the key that attests it, is no secret any more.
    pub(super) fn check_iv(&self, key: &TransitKey) -> Result<(), Fault> {
        if self.iv.is_none() || key.record.own.is_none() {
            return Ok(());
        }
        Err(Fault::invalid("provided nonce not allowed for this key"))
    }

    /// Refuses associated data that tells what is the daemon's own from clients' messages.
    fn check_associated_data(&self) -> Result<(), Fault> {
        if is_own_associated_data(&self.associated_data) {
            return Err(Fault::invalid("this associated_data is Keyway's own: give another"));
        }
        Ok(())
    }

    fn refuse_associated_data(&self, kind: &str) -> Result<(), Fault> {
        if self.associated_data.is_empty() {
            return Ok(());
        }
        Err(Fault::invalid(format!("associated_data provided for non-AEAD cipher suite {kind}")))
    }

    fn refuse_iv(&self, kind: &str) -> Result<(), Fault> {
        if self.iv.is_some() {
            return Err(Fault::invalid(format!("nonce and iv are for AES keys, and this key is {kind}")));
        }
        Ok(())
    }

    fn refuse_all(&self, kind: &str) -> Result<(), Fault> {
        self.refuse_iv(kind)?;
        self.refuse_associated_data(kind)
    }
}

fn wrong_length() -> Fault {
    Fault::invalid("invalid ciphertext length")
}

/// The padding that a request asks for in this field.
pub(super) fn padding(fields: &mut Fields<'_>, name: &'static str) -> Result<Option<RsaPadding>, Fault> {
    match fields.filled(name)?.as_deref() {
        None => Ok(None),
        Some("oaep") => Ok(Some(RsaPadding::Oaep)),
        Some("pkcs1v15") => Ok(Some(RsaPadding::Pkcs1v15)),
        Some(other) => Err(Fault::invalid(format!("{name} {other:?} is not supported: use oaep or pkcs1v15"))),
    }
}

/// A message encrypted.
pub(super) struct Encrypted {
    pub(super) ciphertext: Bytes,
    pub(super) key_version: u32,
}

impl Transit {
    /// The hot operation. It makes a key that is missing, as HTTP's path does.
    pub(super) async fn encrypt_typed(
        self: &Arc<Self>,
        call: &Call,
        request: EncryptRequest,
    ) -> Result<Encrypted, Fault> {
        let (key, _) = self.key_or_new(call, &request.key, None).await?;
        let EncryptRequest { key_version, plaintext, associated_data, padding, .. } = request;
        let extras = Extras { key_version: key_version.into(), associated_data, iv: None };
        self.encrypt_one(call, &key, padding, &extras, plaintext).await
    }

    /// The hot operation.
    pub(super) async fn decrypt_typed(&self, call: &Call, request: DecryptRequest) -> Result<Bytes, Fault> {
        let key = self.encryption_key(&request.key)?;
        let DecryptRequest { key_version, ciphertext, associated_data, padding, .. } = request;
        let extras = Extras { associated_data, ..Extras::default() };
        self.decrypt_one(call, &key, key_version.max(1), padding, &extras, ciphertext).await
    }

    /// Encrypts one message.
    pub(super) async fn encrypt_one(
        &self,
        call: &Call,
        key: &TransitKey,
        padding: Option<RsaPadding>,
        extras: &Extras,
        plaintext: SecretBytes,
    ) -> Result<Encrypted, Fault> {
        extras.check_iv(key)?;
        extras.check_associated_data()?;
        let version = key.version_to_make(extras.key_version, "encryption")?;
        let handle = self.keys.resolve(&call.mount, KeyRef::Uuid(version.managed_key))?;
        handle.require(KeyUsage::Encrypt)?;
        let cipher = match handle.cipher(padding)? {
            scheme @ (CipherScheme::RsaPkcs1 | CipherScheme::RsaOaep { .. }) => {
                let public = version.public_key()?;
                let kind = public.kind.to_string();
                let ciphertext = if handle.makes_envelopes() {
                    extras.refuse_iv(&kind)?;
                    crypto::seal_envelope(public, scheme, extras.associated_data.clone(), plaintext)?
                } else {
                    extras.refuse_all(&kind)?;
                    crypto::rsa_encrypt(public, scheme, plaintext.expose())?
                };
                // That was as long as a worker's task may be.
                tokio::task::yield_now().await;
                return Ok(Encrypted { ciphertext, key_version: version.number });
            }
            CipherScheme::ServiceAead => {
                extras.refuse_iv("one whose service makes the IVs")?;
                if handle.makes_envelopes() {
                    let ciphertext = enclosed(call, &handle, extras.associated_data.clone(), plaintext).await?;
                    return Ok(Encrypted { ciphertext, key_version: version.number });
                }
                Cipher::ServiceAead { associated_data: extras.associated_data.clone() }
            }
            CipherScheme::AesGcm => {
                Cipher::AesGcm { iv: extras.fresh_iv()?, associated_data: extras.associated_data.clone() }
            }
            CipherScheme::AesCbc { padded } => {
                extras.refuse_associated_data("AES-CBC")?;
                let found = plaintext.expose().len();
                if !padded && (found == 0 || !found.is_multiple_of(BLOCK_BYTES)) {
                    let why = "its mechanism is CKM_AES_CBC, which does not pad";
                    return Err(Fault::invalid(format!(
                        "plaintext has {found} bytes; this key encrypts whole blocks of {BLOCK_BYTES}: {why}"
                    )));
                }
                Cipher::AesCbc { iv: extras.fresh_iv()?, padded }
            }
        };
        let operation = KeyOperation::Encrypt { cipher, plaintext };
        let ciphertext = handle.submit(operation, call.terms())?.await?;
        Ok(Encrypted { ciphertext, key_version: version.number })
    }

    /// Decrypts one message.
    pub(super) async fn decrypt_one(
        &self,
        call: &Call,
        key: &TransitKey,
        version: u32,
        padding: Option<RsaPadding>,
        extras: &Extras,
        ciphertext: Bytes,
    ) -> Result<Bytes, Fault> {
        extras.check_associated_data()?;
        let version = key.version_to_read(version, "ciphertext")?;
        let handle = self.keys.resolve(&call.mount, KeyRef::Uuid(version.managed_key))?;
        handle.require(KeyUsage::Decrypt)?;
        let scheme = handle.cipher(padding)?;
        if handle.opens_envelopes()
            && let Some((wrapped, sealed)) = split_envelope(version, scheme, &ciphertext)?
        {
            extras.refuse_iv("one that makes envelopes")?;
            let wrapped_with = if scheme == CipherScheme::ServiceAead { ENVELOPE_ASSOCIATED_DATA } else { &[] };
            let own = Extras { associated_data: Bytes::from_static(wrapped_with), ..Extras::default() };
            let (cipher, ciphertext) = opened(version, scheme, &own, Bytes::copy_from_slice(&wrapped))?;
            let key = handle.submit(KeyOperation::Decrypt { cipher, ciphertext }, call.terms())?.await;
            return crypto::open_envelope(&key.map_err(refused_alike)?, extras.associated_data.clone(), &sealed)
                .map_err(refused_alike);
        }
        let (cipher, ciphertext) = opened(version, scheme, extras, ciphertext)?;
        // In memory of its own while it waits, and not with all that was read beside it: a lane counts its bytes.
        let ciphertext = Bytes::copy_from_slice(&ciphertext);
        let is_rsa = matches!(scheme, CipherScheme::RsaPkcs1 | CipherScheme::RsaOaep { .. });
        let opened = handle.submit(KeyOperation::Decrypt { cipher, ciphertext }, call.terms())?.await;
        opened.map_err(|fault| if is_rsa { refused_alike(fault) } else { fault })
    }

    /// The key of a request that encrypts, decrypts or makes MACs.
    pub(super) fn encryption_key(&self, name: &str) -> Result<Arc<TransitKey>, Fault> {
        self.key(name).ok_or_else(|| Fault::invalid("encryption key not found"))
    }
}

/// A plaintext in an envelope, whose key the service of `handle` encrypts.
async fn enclosed(
    call: &Call,
    handle: &Handle,
    associated_data: Bytes,
    plaintext: SecretBytes,
) -> Result<Bytes, Fault> {
    let key = crypto::envelope_key()?;
    // Of no message that a client has encrypted, or a data key that one was given, is it ever the key.
    let cipher = Cipher::ServiceAead { associated_data: Bytes::from_static(ENVELOPE_ASSOCIATED_DATA) };
    let operation = KeyOperation::Encrypt { cipher, plaintext: key.clone() };
    let wrapped = handle.submit(operation, call.terms())?.await?;
    crypto::seal_marked_envelope(&key, &wrapped, associated_data, plaintext)
}

/// The encrypted key of an envelope and what was encrypted with it; `None` of what is no envelope.
fn split_envelope(
    version: Version<'_>,
    scheme: CipherScheme,
    ciphertext: &Bytes,
) -> Result<Option<(Bytes, Bytes)>, Fault> {
    if scheme == CipherScheme::ServiceAead {
        return Ok(crypto::split_marked_envelope(ciphertext));
    }
    let KeyKind::Rsa { bits } = version.public_key()?.kind else { return Ok(None) };
    Ok(crypto::split_envelope(bits, ciphertext))
}

/// What is said of RSA ciphertexts that do not decrypt, in one form: whoever is told where they fail, and sends enough of
/// them, decrypts others, or signs (RFC 8017, 7.1.2 and 7.2.2). Whatever else is wrong is what it is.
fn refused_alike(fault: Fault) -> Fault {
    match fault {
        Fault::NotDecrypted { .. } => Fault::not_decrypted("the ciphertext does not decrypt with this key and padding"),
        fault => fault,
    }
}

/// The cipher of a ciphertext, and what of it the key is given. Refuses what cannot have been made so, without the token.
fn opened(
    version: Version<'_>,
    scheme: CipherScheme,
    extras: &Extras,
    mut ciphertext: Bytes,
) -> Result<(Cipher, Bytes), Fault> {
    let cipher = match scheme {
        CipherScheme::RsaPkcs1 | CipherScheme::RsaOaep { .. } => {
            let kind = version.public_key()?.kind;
            extras.refuse_all(&kind.to_string())?;
            if !matches!(kind, KeyKind::Rsa { bits } if ciphertext.len() == bits.div_ceil(8) as usize) {
                return Err(wrong_length());
            }
            match scheme {
                CipherScheme::RsaOaep { hash } => Cipher::RsaOaep { hash },
                _ => Cipher::RsaPkcs1,
            }
        }
        CipherScheme::ServiceAead => {
            extras.refuse_iv("one whose service makes the IVs")?;
            Cipher::ServiceAead { associated_data: extras.associated_data.clone() }
        }
        CipherScheme::AesGcm => {
            let iv = extras.split_iv::<GCM_IV_BYTES>(&mut ciphertext)?;
            if ciphertext.len() < GCM_TAG_BYTES {
                return Err(wrong_length());
            }
            Cipher::AesGcm { iv, associated_data: extras.associated_data.clone() }
        }
        CipherScheme::AesCbc { padded } => {
            extras.refuse_associated_data("AES-CBC")?;
            let iv = extras.split_iv::<BLOCK_BYTES>(&mut ciphertext)?;
            if ciphertext.is_empty() || !ciphertext.len().is_multiple_of(BLOCK_BYTES) {
                return Err(wrong_length());
            }
            Cipher::AesCbc { iv, padded }
        }
    };
    Ok((cipher, ciphertext))
}
