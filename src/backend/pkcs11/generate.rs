//! Generating a key on the token: sensitive, not extractable, for what it is used for.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, MlDsaParameterSetType};

use super::class::Function;
use super::fault::{self, NativeError};
use super::find::{self, ED25519, curve_params};
use super::session::NativeSession;
use crate::backend::{FoundKey, KeyTemplate};
use crate::config::Profile;
use crate::model::{Fault, KeyKind, KeyUsage, MlDsa};

/// 65537.
const PUBLIC_EXPONENT: &[u8] = &[1, 0, 1];
/// Bytes of a generated `CKA_ID`.
const ID_BYTES: usize = 16;

pub(super) fn generate(
    session: &NativeSession,
    template: &KeyTemplate,
    profile: Profile,
) -> Result<FoundKey, NativeError> {
    let mut id = vec![0; ID_BYTES];
    SystemRandom::new()
        .fill(&mut id)
        .map_err(|_| fault::keep(Fault::internal("the system's random generator fails")))?;
    let label = template.label.as_bytes().to_vec();
    let named = [Attribute::Token(true), Attribute::Label(label), Attribute::Id(id)];
    let mut guarded = named.to_vec();
    guarded.extend([Attribute::Private(true), Attribute::Sensitive(true), Attribute::Extractable(false)]);
    let mut public = named.to_vec();
    public.push(Attribute::Private(false));
    let mechanism = match template.kind {
        KeyKind::Rsa { bits } => {
            public.push(Attribute::ModulusBits(u64::from(bits).into()));
            public.push(Attribute::PublicExponent(PUBLIC_EXPONENT.to_vec()));
            Mechanism::RsaPkcsKeyPairGen
        }
        KeyKind::Ec(curve) => {
            public.push(Attribute::EcParams(curve_params(curve).to_vec()));
            Mechanism::EccKeyPairGen
        }
        KeyKind::Ed25519 => {
            public.push(Attribute::EcParams(ED25519.to_vec()));
            Mechanism::EccEdwardsKeyPairGen
        }
        KeyKind::MlDsa(set) => {
            let set = match set {
                MlDsa::MlDsa44 => MlDsaParameterSetType::ML_DSA_44,
                MlDsa::MlDsa65 => MlDsaParameterSetType::ML_DSA_65,
                MlDsa::MlDsa87 => MlDsaParameterSetType::ML_DSA_87,
            };
            public.push(Attribute::ParameterSet(set.into()));
            Mechanism::MlDsaKeyPairGen
        }
        KeyKind::Aes { bits } => {
            // Its check value is an encryption.
            guarded.extend([Attribute::Encrypt(true), Attribute::Decrypt(true)]);
            return secret(session, &Mechanism::AesKeyGen, guarded, bits, profile);
        }
        KeyKind::Hmac { bits } => {
            guarded.extend([Attribute::Sign(true), Attribute::Verify(true)]);
            return secret(session, &Mechanism::GenericSecretKeyGen, guarded, bits, profile);
        }
    };
    let decrypts = [KeyUsage::Encrypt, KeyUsage::Decrypt].into_iter().any(|usage| template.uses.allows(usage));
    let signs = [KeyUsage::Sign, KeyUsage::Verify].into_iter().any(|usage| template.uses.allows(usage));
    if signs || !decrypts {
        public.push(Attribute::Verify(true));
        guarded.push(Attribute::Sign(true));
    }
    if decrypts {
        public.push(Attribute::Encrypt(true));
        guarded.push(Attribute::Decrypt(true));
    }
    let (_, key) = session
        .native
        .generate_key_pair(&mechanism, &public, &guarded)
        .map_err(|error| fault::from_cryptoki(profile, Function::GenerateKeyPair, &error))?;
    find::describe(session, key.handle(), profile)
}

fn secret(
    session: &NativeSession,
    mechanism: &Mechanism<'_>,
    mut template: Vec<Attribute>,
    bits: u32,
    profile: Profile,
) -> Result<FoundKey, NativeError> {
    template.push(Attribute::ValueLen(u64::from(bits / 8).into()));
    let key = session
        .native
        .generate_key(mechanism, &template)
        .map_err(|error| fault::from_cryptoki(profile, Function::GenerateKey, &error))?;
    find::describe_secret(session, key.handle(), profile)
}
