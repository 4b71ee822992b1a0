//! The cryptographic operations: what the service checks before, and what it says after.

use std::sync::Arc;

use super::algorithm::{Algorithm, Protection, Purpose, Use};
use super::failure::Failure;
use super::fields::{Answer, Checked, Fields};
use super::store::{Store, Usable};
use crate::keys::{self, Error, Gcm, Hash, Mode, Scheme};
use crate::server::Orders;

/// The most data, plaintext or additional data of a software key, each.
const SOFTWARE_MAX: usize = 64 * 1024;
/// The most plaintext and additional data of an HSM key, together.
const HSM_MAX: usize = 8 * 1024;
/// What the service adds to a plaintext at most.
const CIPHERTEXT_EXTRA: usize = 10 * 1024;
/// In a ciphertext of the service's own form, after the number of the version.
const NONCE: usize = 12;
const TAG: usize = 16;

/// One operation.
pub(super) struct Operation<'o> {
    /// The resource it is asked of.
    pub(super) name: &'o str,
    pub(super) body: &'o Fields,
    pub(super) orders: Orders,
}

impl Operation<'_> {
    /// Does it, if it is one of this file.
    pub(super) fn run(&self, word: &str, store: &mut Store, answer: Answer) -> Option<Result<Answer, Failure>> {
        Some(match word {
            "getPublicKey" => self.usable(store, self.name).and_then(|key| self.public_key(&key, answer)),
            "asymmetricSign" => self.with(store, Purpose::AsymmetricSign).and_then(|key| self.sign(&key, answer)),
            "asymmetricDecrypt" => {
                self.with(store, Purpose::AsymmetricDecrypt).and_then(|key| self.asymmetric_decrypt(&key, answer))
            }
            "macSign" => self.with(store, Purpose::Mac).and_then(|key| self.mac_sign(&key, answer)),
            "macVerify" => self.with(store, Purpose::Mac).and_then(|key| self.mac_verify(&key, answer)),
            "encrypt" => self.encrypt(store, answer),
            "decrypt" => self.decrypt(store, answer),
            "rawEncrypt" => self.with(store, Purpose::RawEncryptDecrypt).and_then(|key| self.raw_encrypt(&key, answer)),
            "rawDecrypt" => self.with(store, Purpose::RawEncryptDecrypt).and_then(|key| self.raw_decrypt(&key, answer)),
            "generateRandomBytes" => self.random(answer),
            _ => return None,
        })
    }

    fn with(&self, store: &mut Store, purpose: Purpose) -> Result<Usable, Failure> {
        self.usable(store, self.name)?.with_purpose(purpose)
    }

    /// A version that is enabled, with another key if that was ordered.
    fn usable(&self, store: &mut Store, name: &str) -> Result<Usable, Failure> {
        let mut found = store.usable(name)?;
        if self.orders.other_key {
            found.key = Arc::clone(found.key.other().map_err(failed)?);
        }
        Ok(found)
    }

    /// What was made, with a wrong bit if that was ordered.
    fn made(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        if let Some(last) = bytes.last_mut().filter(|_| self.orders.wrong_signature) {
            *last ^= 1;
        }
        bytes
    }

    fn public_key(&self, key: &Usable, mut answer: Answer) -> Result<Answer, Failure> {
        let Some(spki) = key.key.spki() else {
            let message = format!("{} has the algorithm {}, which has no public key.", key.name, key.algorithm.name);
            return Err(Failure::precondition(message, "KEY_PURPOSE_MISMATCH", &key.name));
        };
        answer.set("name", key.name.clone());
        answer.set_algorithm("algorithm", key.algorithm);
        answer.set_word("protectionLevel", key.protection);
        match self.body.text("publicKeyFormat")?.unwrap_or("0") {
            "0" | "PUBLIC_KEY_FORMAT_UNSPECIFIED" => {}
            "1" | "PEM" => answer.set("publicKeyFormat", 1),
            other => return Err(Failure::invalid(format!("The public_key_format {other} is not supported."))),
        }
        let pem = pem(spki);
        answer.set_checksum("pemCrc32c", pem.as_bytes());
        answer.set("pem", pem);
        Ok(answer)
    }

    fn sign(&self, key: &Usable, mut answer: Answer) -> Result<Answer, Failure> {
        let digest = self.body.inner("digest")?;
        let data = self.body.bytes("data")?;
        if self.body.get("digestCrc32c").is_some() && self.body.get("dataCrc32c").is_some() {
            return Err(Failure::invalid("Only one of digest_crc32c and data_crc32c may be set."));
        }
        let (signature, verified) = match (digest, data, key.algorithm.with) {
            (Some(_), Some(_), _) => return Err(Failure::invalid("Only one of digest and data may be set.")),
            (None, None, _) => return Err(Failure::invalid("One of digest and data must be set.")),
            (Some(digest), None, Use::SignDigest(scheme, hash)) => {
                let digest = self.digest(&digest, hash, key.algorithm)?;
                let verified = self.body.check(&digest, "digest")?;
                (key.key.sign_digest(scheme, &digest), ("verifiedDigestCrc32c", verified))
            }
            (Some(_), None, _) => {
                let message = format!("The algorithm {} signs data, not a digest.", key.algorithm.name);
                return Err(Failure::invalid(message));
            }
            (None, Some(data), Use::SignDigest(scheme, _) | Use::SignData(scheme)) => {
                at_most("data", data.len(), SOFTWARE_MAX)?;
                let verified = self.body.check(&data, "data")?;
                (key.key.sign_message(scheme, &data), ("verifiedDataCrc32c", verified))
            }
            (None, Some(_), _) => return Err(Failure::internal()),
        };
        let too_long = matches!(key.algorithm.with, Use::SignData(Scheme::RsaPkcs1Raw));
        let signature = signature.map_err(|error| match error {
            Error::Input(_) if too_long => Failure::invalid("The data is too long for the key."),
            error => failed(error),
        })?;
        answer.set_bytes("signature", &self.made(signature));
        answer.set_verified(verified.0, verified.1);
        answer.set("name", key.name.clone());
        answer.set_word("protectionLevel", key.protection);
        Ok(answer)
    }

    /// The digest, which must be of the hash that the key has.
    fn digest(&self, digest: &Fields, hash: Hash, algorithm: &Algorithm) -> Result<Vec<u8>, Failure> {
        let name = match hash {
            Hash::Sha256 => "sha256",
            Hash::Sha384 => "sha384",
            _ => "sha512",
        };
        let Some(bytes) = digest.bytes(name)? else {
            return Err(Failure::invalid(format!("The algorithm {} needs a digest of {name}.", algorithm.name)));
        };
        if bytes.len() != hash.len() {
            let message = format!("The digest has {} bytes; {name} has {}.", bytes.len(), hash.len());
            return Err(Failure::invalid(message));
        }
        Ok(bytes)
    }

    fn asymmetric_decrypt(&self, key: &Usable, mut answer: Answer) -> Result<Answer, Failure> {
        let ciphertext = self.needed("ciphertext")?;
        let Use::Decrypt(cipher) = key.algorithm.with else { return Err(Failure::internal()) };
        let plaintext = key.key.rsa_decrypt(cipher, &ciphertext.bytes).map_err(|_| undecryptable())?;
        answer.set_bytes("plaintext", &self.made(plaintext));
        answer.set_verified("verifiedCiphertextCrc32c", ciphertext.verified);
        answer.set_word("protectionLevel", key.protection);
        Ok(answer)
    }

    fn mac_sign(&self, key: &Usable, mut answer: Answer) -> Result<Answer, Failure> {
        let data = self.needed("data")?;
        at_most("data", data.bytes.len(), SOFTWARE_MAX)?;
        let mac = key.key.mac(&data.bytes).map_err(failed)?;
        answer.set("name", key.name.clone());
        answer.set_bytes("mac", &self.made(mac));
        answer.set_verified("verifiedDataCrc32c", data.verified);
        answer.set_word("protectionLevel", key.protection);
        Ok(answer)
    }

    fn mac_verify(&self, key: &Usable, mut answer: Answer) -> Result<Answer, Failure> {
        let data = self.needed("data")?;
        at_most("data", data.bytes.len(), SOFTWARE_MAX)?;
        let mac = self.needed("mac")?;
        let expected = key.key.mac(&data.bytes).map_err(failed)?.len();
        if mac.bytes.len() != expected {
            return Err(Failure::invalid(format!("The mac has {} bytes; expected {expected}.", mac.bytes.len())));
        }
        let right = key.key.verify_mac(&data.bytes, &mac.bytes).map_err(failed)?;
        answer.set("name", key.name.clone());
        if right {
            answer.set("success", true);
            answer.set_verified("verifiedSuccessIntegrity", true);
        }
        answer.set_verified("verifiedDataCrc32c", data.verified);
        answer.set_verified("verifiedMacCrc32c", mac.verified);
        answer.set_word("protectionLevel", key.protection);
        Ok(answer)
    }

    fn encrypt(&self, store: &mut Store, mut answer: Answer) -> Result<Answer, Failure> {
        let (name, number) = match self.name.split_once("/cryptoKeyVersions/") {
            Some((_, number)) => (self.name.to_owned(), number.parse().unwrap_or_default()),
            None => {
                let key = store.crypto_key(self.name)?;
                let number = key.primary.filter(|_| key.purpose == Purpose::EncryptDecrypt);
                let number = number.ok_or_else(|| no_primary(self.name))?;
                (format!("{}/cryptoKeyVersions/{number}", self.name), number)
            }
        };
        let key = self.usable(store, &name)?.with_purpose(Purpose::EncryptDecrypt)?;
        let (plaintext, aad) = self.plaintext(key.protection)?;
        let nonce = keys::random(NONCE).map_err(failed)?;
        let sealed = key.key.gcm_encrypt(&nonce, &aad.bytes, &plaintext.bytes).map_err(failed)?;
        let number = u32::try_from(number).map_err(|_| Failure::internal())?;
        let ciphertext = [&number.to_be_bytes()[..], &nonce, &sealed.tag, &sealed.ciphertext].concat();
        answer.set("name", key.name.clone());
        answer.set_bytes("ciphertext", &self.made(ciphertext));
        answer.set_verified("verifiedPlaintextCrc32c", plaintext.verified);
        answer.set_verified("verifiedAdditionalAuthenticatedDataCrc32c", aad.verified);
        answer.set_word("protectionLevel", key.protection);
        Ok(answer)
    }

    fn decrypt(&self, store: &mut Store, mut answer: Answer) -> Result<Answer, Failure> {
        let key = store.crypto_key(self.name)?;
        let primary = key.primary;
        let ciphertext = self.needed("ciphertext")?;
        at_most("ciphertext", ciphertext.bytes.len(), SOFTWARE_MAX + CIPHERTEXT_EXTRA)?;
        let aad = self.body.checked("additionalAuthenticatedData")?;
        let parts = ciphertext.bytes.split_first_chunk::<4>().and_then(|(number, rest)| {
            let (nonce, rest) = rest.split_first_chunk::<NONCE>()?;
            let (tag, sealed) = rest.split_first_chunk::<TAG>()?;
            Some((u32::from_be_bytes(*number), nonce, Gcm { ciphertext: sealed.to_vec(), tag: tag.to_vec() }))
        });
        let (number, nonce, sealed) = parts.ok_or_else(undecryptable)?;
        let name = format!("{}/cryptoKeyVersions/{number}", self.name);
        // A version that is not there is one of another key.
        store.version(&name).map_err(|_| undecryptable())?;
        let key = self.usable(store, &name)?.with_purpose(Purpose::EncryptDecrypt)?;
        let plaintext = key.key.gcm_decrypt(nonce, &aad.bytes, &sealed).map_err(|_| undecryptable())?;
        answer.set_bytes("plaintext", &self.made(plaintext));
        if primary.and_then(|primary| u32::try_from(primary).ok()) == Some(number) {
            answer.set("usedPrimary", true);
        }
        answer.set_word("protectionLevel", key.protection);
        Ok(answer)
    }

    fn raw_encrypt(&self, key: &Usable, mut answer: Answer) -> Result<Answer, Failure> {
        let (plaintext, aad) = self.plaintext(key.protection)?;
        let given = self.body.checked("initializationVector")?;
        let (iv, ciphertext) = match key.algorithm.with {
            Use::Gcm if !given.bytes.is_empty() => {
                return Err(Failure::invalid("The initialization_vector must not be set with AES-GCM."));
            }
            Use::Gcm => {
                let iv = keys::random(NONCE).map_err(failed)?;
                let sealed = key.key.gcm_encrypt(&iv, &aad.bytes, &plaintext.bytes).map_err(failed)?;
                answer.set("tagLength", sealed.tag.len());
                (iv, [sealed.ciphertext, sealed.tag].concat())
            }
            Use::Block(mode) => {
                no_aad(&aad)?;
                let iv = if given.bytes.is_empty() { keys::random(16).map_err(failed)? } else { given.bytes };
                let ciphertext = key.key.block_encrypt(mode, &iv, &plaintext.bytes).map_err(|_| block(mode))?;
                (iv, ciphertext)
            }
            _ => return Err(Failure::internal()),
        };
        answer.set("name", key.name.clone());
        answer.set_bytes("ciphertext", &self.made(ciphertext));
        answer.set_bytes("initializationVector", &iv);
        answer.set_verified("verifiedPlaintextCrc32c", plaintext.verified);
        answer.set_verified("verifiedAdditionalAuthenticatedDataCrc32c", aad.verified);
        answer.set_verified("verifiedInitializationVectorCrc32c", given.verified);
        answer.set_word("protectionLevel", key.protection);
        Ok(answer)
    }

    fn raw_decrypt(&self, key: &Usable, mut answer: Answer) -> Result<Answer, Failure> {
        let ciphertext = self.needed("ciphertext")?;
        at_most("ciphertext", ciphertext.bytes.len(), SOFTWARE_MAX + CIPHERTEXT_EXTRA)?;
        let aad = self.body.checked("additionalAuthenticatedData")?;
        let iv = self.needed("initializationVector")?;
        let plaintext = match key.algorithm.with {
            Use::Gcm => {
                let tag = self.body.number("tagLength")?.filter(|length| *length != 0).unwrap_or(16);
                if tag != 16 {
                    return Err(Failure::invalid("This emulator of the service knows the tag_length 16 only."));
                }
                let split = ciphertext.bytes.len().checked_sub(TAG).ok_or_else(undecryptable)?;
                let (sealed, tag) = ciphertext.bytes.split_at(split);
                let sealed = Gcm { ciphertext: sealed.to_vec(), tag: tag.to_vec() };
                key.key.gcm_decrypt(&iv.bytes, &aad.bytes, &sealed).map_err(|_| undecryptable())?
            }
            Use::Block(mode) => {
                no_aad(&aad)?;
                key.key.block_decrypt(mode, &iv.bytes, &ciphertext.bytes).map_err(|_| block(mode))?
            }
            _ => return Err(Failure::internal()),
        };
        answer.set_bytes("plaintext", &self.made(plaintext));
        answer.set_verified("verifiedCiphertextCrc32c", ciphertext.verified);
        answer.set_verified("verifiedAdditionalAuthenticatedDataCrc32c", aad.verified);
        answer.set_verified("verifiedInitializationVectorCrc32c", iv.verified);
        answer.set_word("protectionLevel", key.protection);
        Ok(answer)
    }

    fn random(&self, mut answer: Answer) -> Result<Answer, Failure> {
        let length = self.body.number("lengthBytes")?.unwrap_or_default();
        let length = usize::try_from(length).ok().filter(|length| (8..=1024).contains(length));
        let length = length.ok_or_else(|| Failure::invalid("The length_bytes must be between 8 and 1024."))?;
        if self.body.word::<Protection>("protectionLevel")? != Some(Protection::Hsm) {
            return Err(Failure::invalid("Only the protection_level HSM is supported."));
        }
        answer.set_bytes("data", &keys::random(length).map_err(failed)?);
        Ok(answer)
    }

    /// Bytes that must be there.
    fn needed(&self, name: &str) -> Result<Checked, Failure> {
        let checked = self.body.checked(name)?;
        if checked.bytes.is_empty() {
            return Err(Failure::invalid(format!("The field {name} is empty.")));
        }
        Ok(checked)
    }

    /// The plaintext, which may be empty, and the additional data, within the bounds of the protection level.
    fn plaintext(&self, protection: Protection) -> Result<(Checked, Checked), Failure> {
        let plaintext = self.body.checked("plaintext")?;
        let aad = self.body.checked("additionalAuthenticatedData")?;
        match protection {
            Protection::Software => {
                at_most("plaintext", plaintext.bytes.len(), SOFTWARE_MAX)?;
                at_most("additional_authenticated_data", aad.bytes.len(), SOFTWARE_MAX)?;
            }
            Protection::Hsm => {
                let together = plaintext.bytes.len() + aad.bytes.len();
                at_most("plaintext with its additional_authenticated_data", together, HSM_MAX)?;
            }
        }
        Ok((plaintext, aad))
    }
}

fn at_most(what: &str, len: usize, most: usize) -> Result<(), Failure> {
    if len > most {
        return Err(Failure::invalid(format!("The {what} has {len} bytes; at most {most} are allowed.")));
    }
    Ok(())
}

fn no_aad(aad: &Checked) -> Result<(), Failure> {
    if !aad.bytes.is_empty() {
        return Err(Failure::invalid("The additional_authenticated_data must not be set with this algorithm."));
    }
    Ok(())
}

fn no_primary(name: &str) -> Failure {
    let message = format!("{name} has no primary version that encrypts.");
    Failure::precondition(message, "NO_PRIMARY_VERSION", name)
}

fn undecryptable() -> Failure {
    Failure::invalid("Decryption failed: verify that 'name' refers to the correct CryptoKey.")
}

fn block(mode: Mode) -> Failure {
    match mode {
        Mode::Ctr => Failure::invalid("The initialization_vector must have 16 bytes."),
        _ => Failure::invalid("The initialization_vector must have 16 bytes, and the data whole blocks of 16 bytes."),
    }
}

fn failed(_: Error) -> Failure {
    Failure::internal()
}

/// A public key as the service writes it.
fn pem(spki: &[u8]) -> String {
    super::token::pem("PUBLIC KEY", spki)
}
