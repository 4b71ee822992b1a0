//! Generating a key pair on the token: sensitive, not extractable.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::Attribute;

use super::class::Function;
use super::fault::{self, NativeError};
use super::find::{self, ED25519, curve_params};
use super::session::NativeSession;
use crate::backend::{FoundKey, KeyTemplate};
use crate::config::Profile;
use crate::model::{Fault, KeyKind};

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
    let mut public = named.to_vec();
    public.extend([Attribute::Private(false), Attribute::Verify(true)]);
    let mut private = named.to_vec();
    private.extend([
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
    ]);
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
    };
    let (_, key) = session
        .native
        .generate_key_pair(&mechanism, &public, &private)
        .map_err(|error| fault::from_cryptoki(profile, Function::GenerateKeyPair, &error))?;
    find::describe(session, key.handle(), profile)
}
