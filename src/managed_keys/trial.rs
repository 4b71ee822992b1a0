//! Has a key that a mount just made show what it does, of all that keys of its kind do in Vault. Tokens are not asked what they
//! can do: what they say of their mechanisms leaves out what matters, such as the hashes of OAEP.

use std::mem::discriminant;
use std::sync::Arc;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use super::abilities::{self, Deed, Own};
use crate::crypto;
use crate::model::{
    Cipher, CipherScheme, Fault, Hash, KeyIdentity, KeyOperation, PublicKey, SaltLength, SecretBytes, SignInput,
    SignatureScheme, Terms,
};
use crate::supervisor::KeyRoute;

/// Bytes of what is signed, encrypted or made a MAC of: random, so that nobody has a use for it.
const BYTES: usize = 32;

/// What the key behind `route` does. An error is none of the key's: it may do more than was seen.
pub(super) async fn shown(
    route: &Arc<KeyRoute>,
    identity: &KeyIdentity,
    terms: Terms,
) -> Result<Vec<&'static Own>, Fault> {
    let mut shown: Vec<&'static Own> = Vec::new();
    for own in abilities::of_own(identity.kind()) {
        let stands_for = |other: &&Own| other.default && discriminant(&other.deed) == discriminant(&own.deed);
        if own.default && shown.iter().any(stands_for) {
            continue;
        }
        match does(route, identity, own.deed, terms).await {
            Ok(true) => shown.push(own),
            // The token has no such mechanism, parameter, or use for a key of this size. Some have but a word for wrong input.
            Ok(false) | Err(Fault::NotSupported { .. } | Fault::InvalidRequest { .. } | Fault::NotDecrypted { .. }) => {
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(shown)
}

async fn does(route: &Arc<KeyRoute>, identity: &KeyIdentity, deed: Deed, terms: Terms) -> Result<bool, Fault> {
    let mut random = [0; BYTES];
    SystemRandom::new().fill(&mut random).map_err(|_| Fault::internal("the system's random generator fails"))?;
    let public = || identity.public().ok_or_else(|| Fault::internal("a key pair was recorded without its public key"));
    match deed {
        Deed::Sign(scheme) => signs(route, public()?, scheme, &random, terms).await,
        Deed::Decrypt(scheme) => decrypts(route, public()?, scheme, &random, terms).await,
        Deed::Mac(hash) => {
            let operation = KeyOperation::Mac { hash, message: SecretBytes::new(random.to_vec()) };
            route.submit(operation, terms)?.await.map(|mac| mac.len() == hash.digest_bytes())
        }
    }
}

async fn signs(
    route: &Arc<KeyRoute>,
    public: &PublicKey,
    scheme: SignatureScheme,
    random: &[u8],
    terms: Terms,
) -> Result<bool, Fault> {
    let hash = Hash::Sha2_256;
    let input = SignInput::Digest(crypto::digest(hash, random)?);
    let signature = route.submit(KeyOperation::Sign { scheme, hash, input: input.clone() }, terms)?.await?;
    crypto::verify(public, scheme, SaltLength::Hash, hash, &input, &signature)
}

async fn decrypts(
    route: &Arc<KeyRoute>,
    public: &PublicKey,
    scheme: CipherScheme,
    random: &[u8],
    terms: Terms,
) -> Result<bool, Fault> {
    let cipher = match scheme {
        CipherScheme::RsaPkcs1 => Cipher::RsaPkcs1,
        CipherScheme::RsaOaep { hash } => Cipher::RsaOaep { hash },
        CipherScheme::AesGcm | CipherScheme::AesCbc { .. } | CipherScheme::ServiceAead => {
            return Err(Fault::internal("no cipher of RSA's"));
        }
    };
    let ciphertext = crypto::rsa_encrypt(public, scheme, random)?;
    // That was as long as a worker's task may be.
    tokio::task::yield_now().await;
    let plaintext = route.submit(KeyOperation::Decrypt { cipher, ciphertext }, terms)?.await?;
    Ok(plaintext == random)
}
