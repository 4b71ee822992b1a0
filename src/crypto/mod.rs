//! Mathematics in software: digests, public keys in DER, the forms signatures take, their verification, and encryption with
//! public keys.
//!
//! This room knows the model and nothing else: no store, no backend, no clock.

mod digest;
mod encrypt;
mod envelope;
mod generated;
mod possession;
mod secret_key;
mod signature;
mod software;
mod spki;
mod verify;

pub use digest::{Hasher, digest};
pub use encrypt::{rsa_encrypt, rsa_plaintext_max};
pub use envelope::{
    envelope_key, open_envelope, seal_envelope, seal_marked_envelope, split_envelope, split_marked_envelope,
};
pub use generated::{GeneratedKey, PKCS8_LABEL};
pub use possession::is_private_half;
pub use secret_key::SecretKey;
pub use signature::{digest_info, ecdsa_der_from_raw, ecdsa_raw_from_der, max_pss_salt};
pub use software::SoftwareKey;
pub use spki::{
    ec_spki, ed25519_spki, ml_dsa_oid, ml_dsa_spki, parse_spki, pem, rsa_parts, rsa_spki, spki_kind, subject_public_key,
};
pub use verify::verify;
