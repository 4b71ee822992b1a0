//! RSA: with aws-lc-rs, and with `rsa` what that lacks.

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{
    KeyPair, KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512,
    OaepAlgorithm, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, Pkcs1PrivateDecryptingKey,
    Pkcs1PublicEncryptingKey, PrivateDecryptingKey,
};
use aws_lc_rs::signature::{self as sig, KeyPair as _, UnparsedPublicKey};
use rsa::Pkcs1v15Sign;
use rsa::pkcs8::DecodePrivateKey;
use rsa::traits::PublicKeyParts;

use super::{Error, Hash, RsaCipher, Scheme};

/// An RSA key.
pub(super) struct RsaKey {
    pair: KeyPair,
    decrypting: PrivateDecryptingKey,
    /// The same key for what aws-lc-rs lacks.
    plain: rsa::PrivateKey,
}

const TOO_LONG: Error = Error::Input("the plaintext is too long for the key");
const UNDECRYPTABLE: Error = Error::Input("the ciphertext does not decrypt");

impl RsaKey {
    pub(super) fn generate(bits: u32) -> Result<RsaKey, Error> {
        let size = match bits {
            2048 => KeySize::Rsa2048,
            3072 => KeySize::Rsa3072,
            4096 => KeySize::Rsa4096,
            _ => return Err(Error::Unsupported),
        };
        let pair = KeyPair::generate(size)?;
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der()?;
        Ok(RsaKey {
            decrypting: PrivateDecryptingKey::from_pkcs8(pkcs8.as_ref())?,
            plain: rsa::PrivateKey::from_pkcs8_der(pkcs8.as_ref()).map_err(|_| Error::Internal)?,
            pair,
        })
    }

    pub(super) fn spki(&self) -> Result<Vec<u8>, Error> {
        Ok(self.pair.public_key().as_der()?.as_ref().to_vec())
    }

    pub(super) fn pkcs8(&self) -> Result<Vec<u8>, Error> {
        let der: Pkcs8V1Der<'_> = self.pair.as_der()?;
        Ok(der.as_ref().to_vec())
    }

    /// The modulus and the exponent.
    pub(super) fn parts(&self) -> (Vec<u8>, Vec<u8>) {
        (self.plain.n_bytes().into_vec(), self.plain.e_bytes().into_vec())
    }

    pub(super) fn sign(&self, scheme: Scheme, digest: &[u8]) -> Result<Vec<u8>, Error> {
        if scheme == Scheme::RsaPkcs1Raw {
            let made = self.plain.sign(Pkcs1v15Sign::new_unprefixed(), digest);
            return made.map_err(|_| Error::Input("the data is too long for the key"));
        }
        let (encoding, hash): (&'static dyn sig::RsaEncoding, _) = match scheme {
            Scheme::RsaPkcs1(hash @ Hash::Sha256) => (&sig::RSA_PKCS1_SHA256, hash),
            Scheme::RsaPkcs1(hash @ Hash::Sha384) => (&sig::RSA_PKCS1_SHA384, hash),
            Scheme::RsaPkcs1(hash @ Hash::Sha512) => (&sig::RSA_PKCS1_SHA512, hash),
            Scheme::RsaPss(hash @ Hash::Sha256) => (&sig::RSA_PSS_SHA256, hash),
            Scheme::RsaPss(hash @ Hash::Sha384) => (&sig::RSA_PSS_SHA384, hash),
            Scheme::RsaPss(hash @ Hash::Sha512) => (&sig::RSA_PSS_SHA512, hash),
            _ => return Err(Error::Unsupported),
        };
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign_digest(encoding, &hash.import(digest)?, &mut signature)?;
        Ok(signature)
    }

    pub(super) fn verify(&self, scheme: Scheme, digest: &[u8], signature: &[u8]) -> Result<bool, Error> {
        if scheme == Scheme::RsaPkcs1Raw {
            let public = self.plain.as_public_key();
            return Ok(public.verify(Pkcs1v15Sign::new_unprefixed(), digest, signature).is_ok());
        }
        let (algorithm, hash) = match scheme {
            Scheme::RsaPkcs1(hash @ Hash::Sha256) => (&sig::RSA_PKCS1_2048_8192_SHA256, hash),
            Scheme::RsaPkcs1(hash @ Hash::Sha384) => (&sig::RSA_PKCS1_2048_8192_SHA384, hash),
            Scheme::RsaPkcs1(hash @ Hash::Sha512) => (&sig::RSA_PKCS1_2048_8192_SHA512, hash),
            Scheme::RsaPss(hash @ Hash::Sha256) => (&sig::RSA_PSS_2048_8192_SHA256, hash),
            Scheme::RsaPss(hash @ Hash::Sha384) => (&sig::RSA_PSS_2048_8192_SHA384, hash),
            Scheme::RsaPss(hash @ Hash::Sha512) => (&sig::RSA_PSS_2048_8192_SHA512, hash),
            _ => return Err(Error::Unsupported),
        };
        let digest: digest::Digest = hash.import(digest)?;
        let key = UnparsedPublicKey::new(algorithm, self.pair.public_key().as_ref());
        Ok(key.verify_digest(&digest, signature).is_ok())
    }

    pub(super) fn encrypt(&self, cipher: RsaCipher, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        let public = self.decrypting.public_key();
        let mut room = vec![0; self.pair.public_modulus_len()];
        match cipher {
            RsaCipher::Pkcs1 => {
                let key = Pkcs1PublicEncryptingKey::new(public)?;
                key.encrypt(plaintext, &mut room).map_err(|_| TOO_LONG)?;
            }
            RsaCipher::Oaep(hash) => {
                let key = OaepPublicEncryptingKey::new(public)?;
                key.encrypt(oaep(hash)?, plaintext, &mut room, None).map_err(|_| TOO_LONG)?;
            }
        }
        Ok(room)
    }

    pub(super) fn decrypt(&self, cipher: RsaCipher, ciphertext: &[u8]) -> Result<Vec<u8>, Error> {
        let private = self.decrypting.clone();
        let mut room = vec![0; self.pair.public_modulus_len()];
        let len = match cipher {
            RsaCipher::Pkcs1 => {
                let key = Pkcs1PrivateDecryptingKey::new(private)?;
                key.decrypt(ciphertext, &mut room).map_err(|_| UNDECRYPTABLE)?.len()
            }
            RsaCipher::Oaep(hash) => {
                let key = OaepPrivateDecryptingKey::new(private)?;
                key.decrypt(oaep(hash)?, ciphertext, &mut room, None).map_err(|_| UNDECRYPTABLE)?.len()
            }
        };
        room.truncate(len);
        Ok(room)
    }
}

fn oaep(hash: Hash) -> Result<&'static OaepAlgorithm, Error> {
    match hash {
        Hash::Sha1 => Ok(&OAEP_SHA1_MGF1SHA1),
        Hash::Sha256 => Ok(&OAEP_SHA256_MGF1SHA256),
        Hash::Sha384 => Ok(&OAEP_SHA384_MGF1SHA384),
        Hash::Sha512 => Ok(&OAEP_SHA512_MGF1SHA512),
        Hash::Sha224 => Err(Error::Unsupported),
    }
}
