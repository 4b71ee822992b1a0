//! What requests to this engine may say, by path and beside it, for the description of the API. A test holds these lists to
//! what the handlers read.

use crate::model::Field;
use crate::model::FieldDefault::{Boolean, Number, Text};

/// The parts that the patterns of `paths` leave open.
pub(super) const PARTS: &[Field] = &[
    Field::text("name", "The name of a key."),
    Field::text("urlalgorithm", "A hash.").one_of(HASHES),
    Field::text("urlbytes", "How many bytes; or a source of them."),
    Field::text("source", "Where random bytes come from.").one_of(SOURCES),
    Field::text("plaintext", "Whether the new key is also answered in the clear.").one_of(&["plaintext", "wrapped"]),
    Field::text("type", "The kind of key to export."),
    Field::text("version", "A version of a key, or `latest`."),
];

const SOURCES: &[&str] = &["platform", "seal", "all"];
const HASHES: &[&str] =
    &["sha1", "sha2-224", "sha2-256", "sha2-384", "sha2-512", "sha3-224", "sha3-256", "sha3-384", "sha3-512", "none"];
const PADDINGS: &[&str] = &["oaep", "pkcs1v15"];

const KEY_VERSION: Field = Field::integer("key_version", "The version of the key; 0 is the latest.").or(Number(0));
const CONTEXT: Field = Field::text("context", "For derived keys, of which there are none: of no account.");
const INPUT: Field = Field::text("input", "What it is about, in base64.");
const PLAINTEXT: Field = Field::text("plaintext", "What to encrypt, in base64.");
const CIPHERTEXT: Field = Field::text("ciphertext", "What was encrypted, as it was answered.");
const PADDING: Field = Field::text("padding_scheme", "The padding of RSA keys.").one_of(PADDINGS);
const ASSOCIATED_DATA: Field = Field::text("associated_data", "What AES-GCM attests and does not encrypt, in base64.");
const NONCE: Field = Field::text("nonce", "The IV, in base64, where a key of type managed_key takes one.");
const IV: Field = Field::text("iv", "The IV, in base64, where a key of type managed_key takes one.");
const REFERENCE: Field = Field::text("reference", "Comes back with the result.");
const PARTIAL: Field =
    Field::integer("partial_failure_response_code", "The HTTP status where some items went well and others did not.");
const ALGORITHM: Field = Field::text("algorithm", "The hash.").or(Text("sha2-256")).one_of(HASHES);

/// A new key, beside [`MANAGED`].
pub(super) const KEY: &[Field] = &[
    Field::text("type", "managed_key, or the type of a key that the mount makes in its token.")
        .or(Text("aes256-gcm96")),
    Field::boolean("derived", "Not possible.").or(Boolean(false)),
    Field::boolean("convergent_encryption", "Not possible.").or(Boolean(false)),
    AUTO_ROTATION,
    Field::integer("key_size", "The bytes of a key of type hmac."),
    Field::text("parameter_set", "44, 65 or 87, of a key of type ml-dsa."),
];
const AUTO_ROTATION: Field = Field::duration(
    "auto_rotate_period",
    "How old the newest version becomes before the mount makes the next: an hour at least, or 0 for never.",
)
.or(Number(0));

/// The managed key of a version.
pub(super) const MANAGED: &[Field] = &[
    Field::text("managed_key_name", "The managed key of a key of type managed_key, by its name."),
    Field::text("managed_key_id", "The managed key of a key of type managed_key, by its UUID."),
];

/// The settings of a key.
pub(super) const CONFIG: &[Field] = &[
    Field::integer("min_decryption_version", "The oldest version that still decrypts, verifies and checks."),
    Field::integer("min_encryption_version", "The oldest version that still encrypts and signs; 0 is the latest."),
    Field::boolean("deletion_allowed", "Whether the key may be deleted."),
    AUTO_ROTATION,
];

/// The settings of every key to come.
pub(super) const KEYS_CONFIG: &[Field] =
    &[Field::boolean("disable_upsert", "Refuses to encrypt with a key that is not there.").or(Boolean(false))];

/// The versions to delete.
pub(super) const TRIM: &[Field] = &[Field::integer("min_available_version", "The oldest version to keep.").required()];

/// A certificate of a version's key.
pub(super) const CHAIN: &[Field] = &[
    Field::integer("version", "The version of the key; 0 is the latest.").or(Number(0)),
    Field::text("certificate_chain", "The certificate in PEM, and those above it.").required(),
];

/// The cache of keys, of which there is none.
pub(super) const CACHE_CONFIG: &[Field] = &[Field::integer("size", "Keys in it; 0 is no bound.").or(Number(0))];

/// A certificate request to make.
pub(super) const CSR: &[Field] = &[
    Field::integer("version", "The version of the key; 0 is the latest.").or(Number(0)),
    Field::text("csr", "A certificate request in PEM to take the subject and the attributes from."),
];

/// What to encrypt.
pub(super) const ENCRYPT: &[Field] = &[
    PLAINTEXT,
    Field::text("type", "The type of the key, if it is not there and is made."),
    Field::boolean("convergent_encryption", "For derived keys, of which there are none: of no account."),
    PADDING,
    PARTIAL,
    Field::objects(
        "batch_input",
        &[PLAINTEXT, CONTEXT, KEY_VERSION, ASSOCIATED_DATA, NONCE, IV, REFERENCE],
        "Many to encrypt, in the place of one.",
    ),
];

/// What goes with a plaintext or a ciphertext.
pub(super) const EXTRAS: &[Field] = &[CONTEXT, KEY_VERSION, ASSOCIATED_DATA, NONCE, IV];

/// What to decrypt.
pub(super) const DECRYPT: &[Field] = &[
    CIPHERTEXT,
    PADDING,
    PARTIAL,
    Field::objects("batch_input", CIPHERTEXTS, "Many to decrypt, in the place of one."),
];
const CIPHERTEXTS: &[Field] = &[CIPHERTEXT, CONTEXT, KEY_VERSION, ASSOCIATED_DATA, NONCE, IV, REFERENCE];

/// What to encrypt anew.
pub(super) const REWRAP: &[Field] = &[
    CIPHERTEXT,
    Field::text("decrypt_padding_scheme", "The padding it has, of RSA keys.").one_of(PADDINGS),
    Field::text("encrypt_padding_scheme", "The padding it gets, of RSA keys.").one_of(PADDINGS),
    Field::objects("batch_input", CIPHERTEXTS, "Many to encrypt anew, in the place of one."),
];

/// A random key to make.
pub(super) const DATA_KEY: &[Field] = &[Field::integer("bits", "Its size: 128, 256 or 512.").or(Number(256)), PADDING];

/// How many of them.
pub(super) const COUNT: &[Field] = &[Field::integer("count", "How many.").or(Number(1))];

/// What to make an HMAC of.
pub(super) const HMAC: &[Field] = &[
    INPUT,
    KEY_VERSION,
    ALGORITHM,
    Field::objects("batch_input", &[INPUT, REFERENCE], "Many inputs, in the place of one."),
];

/// Random bytes.
pub(super) const RANDOM: &[Field] = &[
    Field::text("source", "Where they come from.").or(Text("platform")).one_of(SOURCES),
    Field::integer("bytes", "How many.").or(Number(32)),
    Field::text("format", "How they are written.").or(Text("base64")).one_of(FORMATS),
];
const FORMATS: &[&str] = &["base64", "hex"];

/// What to hash.
pub(super) const HASH: &[Field] = &[
    Field::text("input", "What to hash, in base64.").required(),
    Field::text("format", "How the sum is written.").or(Text("hex")).one_of(FORMATS),
    ALGORITHM,
];

/// How a public key is written.
pub(super) const EXPORT: &[Field] =
    &[Field::text("format", "How public keys are written.").one_of(&["raw", "der", "pem"])];

/// How to sign and verify.
pub(super) const SIGNATURE: &[Field] = &[
    INPUT,
    Field::text("hash_algorithm", "The hash.").or(Text("sha2-256")).one_of(HASHES),
    ALGORITHM,
    Field::text("signature_algorithm", "How RSA keys sign.").one_of(&["pss", "pkcs1v15"]),
    Field::text("marshaling_algorithm", "How ECDSA signatures are written.").or(Text("asn1")).one_of(&["asn1", "jws"]),
    Field::text("salt_length", "The salt of PSS: auto, hash or a number of bytes.").or(Text("auto")),
    Field::boolean("prehashed", "Whether the input is a digest already.").or(Boolean(false)),
    CONTEXT,
    KEY_VERSION,
];

/// Many to sign.
pub(super) const SIGN_BATCH: &[Field] =
    &[Field::objects("batch_input", &[INPUT, REFERENCE], "Many inputs, in the place of one.")];

/// What to verify.
pub(super) const VERIFY: &[Field] = &[
    MADE,
    HMAC_MADE,
    Field::text("cmac", "Not possible."),
    Field::integer("mac_length", "For CMACs, which are not possible: of no account."),
    Field::objects("batch_input", &[INPUT, MADE, HMAC_MADE, REFERENCE], "Many to verify, in the place of one."),
];
const MADE: Field = Field::text("signature", "A signature, as it was answered.");
const HMAC_MADE: Field = Field::text("hmac", "An HMAC, as it was answered.");
