//! What a registration of a managed key may say, for the description of the API. A test holds the list to what is read.

use crate::model::Field;
use crate::model::FieldDefault::{Boolean, Number};

/// The same key in another region.
const REPLICA: &[Field] = &[
    Field::text("region", "Where it is."),
    Field::text("kms_key", "Its id, ARN or alias there; as in the first region if absent."),
    Field::text("endpoint", "The URL of the service there."),
];

/// The fields of a managed key.
pub const FIELDS: &[Field] = &[
    Field::text("library", "The name of a kms_library or a kms_pool of the configuration. Type pkcs11, required."),
    Field::text(
        "mechanism",
        "What the key does: the number of a PKCS#11 mechanism, such as 0x1041. Type pkcs11, required.",
    ),
    Field::text("key_label", "The key's label (CKA_LABEL) in its token."),
    Field::text("key_id", "The key's id (CKA_ID) in its token, in hexadecimal."),
    Field::text("token_label", "The label of the token."),
    Field::text("slot", "The number of the token's slot, in the place of its label."),
    Field::text(
        "pin",
        "The PIN of the token, where the kms_library has none; in the root namespace also where it stands: env:NAME, \
         file:/path or credential:NAME.",
    ),
    Field::text("kms_key", "The key's id, ARN or alias. Type awskms, required."),
    Field::text(
        "access_key",
        "The id of the access key by which it is used; the daemon's own credentials if absent. Type awskms.",
    ),
    Field::text("secret_key", "The secret of the access key. Type awskms."),
    Field::text("region", "Where the key is. Types awskms, and gcpckms, which requires it."),
    Field::text("endpoint", "The URL of the service, in the place of its public one. Types of clouds."),
    Field::objects("replicas", REPLICA, "The same key in other regions. Type awskms."),
    Field::text("tenant_id", "The tenant of Microsoft Entra ID. Type azurekeyvault, required."),
    Field::text(
        "client_id",
        "The application by which it is used; the daemon's own identity if absent. Type azurekeyvault.",
    ),
    Field::text("client_secret", "The application's secret. Type azurekeyvault."),
    Field::text("environment", "The cloud: AZUREPUBLICCLOUD if absent. Type azurekeyvault."),
    Field::text("vault_name", "The name of the vault or managed HSM. Type azurekeyvault, required."),
    Field::text("key_name", "The name of the key. Type azurekeyvault, required."),
    Field::text("key_version", "The version of the key; the newest at its first use if absent. Type azurekeyvault."),
    Field::text("resource", "The service: vault.azure.net if absent, or managedhsm.azure.net. Type azurekeyvault."),
    Field::text(
        "encryption_mode",
        "How data is encrypted: envelope, with a key of its own that the managed key encrypts, or raw, with the managed key itself. RSA \
         keys of type azurekeyvault, default envelope; symmetric keys of types awskms and gcpckms, default raw.",
    ),
    Field::text(
        "credentials",
        "A credential file's contents or path; the daemon's own credentials if absent. Type gcpckms.",
    ),
    Field::text("project", "The project's id. Type gcpckms, required."),
    Field::text("key_ring", "The key ring, which must be there. Type gcpckms, required."),
    Field::text("crypto_key", "The key in it. Type gcpckms, required."),
    Field::text("crypto_key_version", "The version of the key; 1 if absent. Type gcpckms."),
    Field::text("algorithm", "What key it is, such as ec_sign_p256_sha256. Type gcpckms, required."),
    Field::text("key_type", "What key it is, such as RSA or ECDSA. Types awskms and azurekeyvault, required."),
    Field::text("curve", "The curve of an EC key in a cloud, or of one to generate.").one_of(&[
        "P256",
        "P384",
        "P521",
        "secp256k1",
    ]),
    Field::text("parameter_set", "The parameter set of an ML-DSA key to generate: 44, 65 or 87."),
    Field::integer("key_bits", "The size of an RSA, AES or HMAC key in a cloud, or of one to generate.").or(Number(0)),
    Field::text("cipher_mode", "How an AES key of type azurekeyvault encrypts; gcm if absent.")
        .one_of(&["gcm", "cbc-pad", "cbc"]),
    Field::text("rsa_oaep_hash", "The hash of OAEP.").one_of(&["sha1", "sha224", "sha256", "sha384", "sha512"]),
    Field::boolean("allow_generate_key", "Generates the key at its first use, if it is not there.").or(Boolean(false)),
    Field::boolean("allow_replace_key", "Kept, and of no account.").or(Boolean(false)),
    Field::boolean("allow_store_key", "Kept, and of no account.").or(Boolean(false)),
    Field::boolean("any_mount", "Whether every mount of the namespace may use it.").or(Boolean(false)),
    Field::boolean(
        "allow_raw_signing",
        "Whether both PKI and Transit may use its key, which then signs what clients give.",
    )
    .or(Boolean(false)),
    Field::boolean("force_rw_session", "Kept, and of no account.").or(Boolean(false)),
    Field::text("hmac_key_label", "Kept, and of no account."),
    Field::integer("max_parallel", "The most of its jobs under way at once; absent or 0 is no limit of its own."),
    Field::list(
        "usages",
        "What it may be used for, sign and verify if absent; all: encrypt, decrypt, wrap, unwrap, mac, generate_random.",
    ),
    Field::list("abilities", "What the token showed when the key was made, as it is read back."),
    Field::text("owner", "The mount that made it, as it is read back."),
];
