//! Generating a key on the token: sensitive, not extractable, for what it is used for.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use cryptoki_sys::{
    CK_ATTRIBUTE_TYPE, CK_MECHANISM_TYPE, CK_ULONG, CKA_DECRYPT, CKA_EC_PARAMS, CKA_ENCRYPT, CKA_EXTRACTABLE, CKA_ID,
    CKA_LABEL, CKA_MODULUS_BITS, CKA_PARAMETER_SET, CKA_PRIVATE, CKA_PUBLIC_EXPONENT, CKA_SENSITIVE, CKA_SIGN,
    CKA_TOKEN, CKA_VALUE_LEN, CKA_VERIFY, CKM_AES_KEY_GEN, CKM_EC_EDWARDS_KEY_PAIR_GEN, CKM_EC_KEY_PAIR_GEN,
    CKM_GENERIC_SECRET_KEY_GEN, CKM_ML_DSA_KEY_PAIR_GEN, CKM_RSA_PKCS_KEY_PAIR_GEN, CKP_ML_DSA_44, CKP_ML_DSA_65,
    CKP_ML_DSA_87,
};

use super::class::Function;
use super::fault::{self, NativeError};
use super::find::{self, ED25519, curve_params};
use super::objects::Value;
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
    let label = Value::Bytes(template.label.as_bytes());
    let named = [(CKA_TOKEN, Value::Flag(true)), (CKA_LABEL, label), (CKA_ID, Value::Bytes(&id))];
    let mut guarded = named.to_vec();
    guarded.extend([CKA_PRIVATE, CKA_SENSITIVE].map(yes));
    guarded.push((CKA_EXTRACTABLE, Value::Flag(false)));
    let mut public = named.to_vec();
    public.push((CKA_PRIVATE, Value::Flag(false)));
    let mechanism = match template.kind {
        KeyKind::Rsa { bits } => {
            public.push((CKA_MODULUS_BITS, Value::Number(CK_ULONG::from(bits))));
            public.push((CKA_PUBLIC_EXPONENT, Value::Bytes(PUBLIC_EXPONENT)));
            CKM_RSA_PKCS_KEY_PAIR_GEN
        }
        KeyKind::Ec(curve) => {
            public.push((CKA_EC_PARAMS, Value::Bytes(curve_params(curve))));
            CKM_EC_KEY_PAIR_GEN
        }
        KeyKind::Ed25519 => {
            public.push((CKA_EC_PARAMS, Value::Bytes(ED25519)));
            CKM_EC_EDWARDS_KEY_PAIR_GEN
        }
        KeyKind::MlDsa(set) => {
            let set = match set {
                MlDsa::MlDsa44 => CKP_ML_DSA_44,
                MlDsa::MlDsa65 => CKP_ML_DSA_65,
                MlDsa::MlDsa87 => CKP_ML_DSA_87,
            };
            public.push((CKA_PARAMETER_SET, Value::Number(set)));
            CKM_ML_DSA_KEY_PAIR_GEN
        }
        KeyKind::Aes { bits } => {
            // Its check value is an encryption.
            guarded.extend([CKA_ENCRYPT, CKA_DECRYPT].map(yes));
            return secret(session, CKM_AES_KEY_GEN, guarded, bits, profile);
        }
        KeyKind::Hmac { bits } => {
            guarded.extend([CKA_SIGN, CKA_VERIFY].map(yes));
            return secret(session, CKM_GENERIC_SECRET_KEY_GEN, guarded, bits, profile);
        }
    };
    let decrypts = [KeyUsage::Encrypt, KeyUsage::Decrypt].into_iter().any(|usage| template.uses.allows(usage));
    let signs = [KeyUsage::Sign, KeyUsage::Verify].into_iter().any(|usage| template.uses.allows(usage));
    if signs || !decrypts {
        public.push(yes(CKA_VERIFY));
        guarded.push(yes(CKA_SIGN));
    }
    if decrypts {
        public.push(yes(CKA_ENCRYPT));
        guarded.push(yes(CKA_DECRYPT));
    }
    let mut key = 0;
    let setup = &session.table().setup;
    let rv = setup.generate_key_pair(session.handle(), mechanism, [&public, &guarded], &mut key);
    fault::check(profile, Function::GenerateKeyPair, rv)?;
    find::describe(session, key, profile)
}

fn yes<'v>(attribute: CK_ATTRIBUTE_TYPE) -> (CK_ATTRIBUTE_TYPE, Value<'v>) {
    (attribute, Value::Flag(true))
}

fn secret(
    session: &NativeSession,
    mechanism: CK_MECHANISM_TYPE,
    mut template: Vec<(CK_ATTRIBUTE_TYPE, Value<'_>)>,
    bits: u32,
    profile: Profile,
) -> Result<FoundKey, NativeError> {
    template.push((CKA_VALUE_LEN, Value::Number(CK_ULONG::from(bits / 8))));
    let mut key = 0;
    let rv = session.table().setup.generate_key(session.handle(), mechanism, &template, &mut key);
    fault::check(profile, Function::GenerateKey, rv)?;
    find::describe_secret(session, key, profile)
}
