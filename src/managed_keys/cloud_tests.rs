//! Stories about the fields of a managed key in a cloud.

use serde_json::{Value, json};

use super::super::claims::said_there;
use super::super::key_type::KeyType;
use super::super::settings::Settings;
use super::*;
use crate::config::{NamespaceList, VerifyAfterSign};
use crate::model::{
    CheckMethod, CheckValue, CipherScheme, Hash, KeyIdentity, KeyKind, KeyUsage, SignatureScheme, TokenSelector,
};
use crate::supervisor::LibraryInfo;

fn read_in(namespace: &str, old: Option<&Settings>, value: Value) -> Result<Settings, Fault> {
    read_of(CloudService::AwsKms, namespace, old, value)
}

fn read_of(service: CloudService, namespace: &str, old: Option<&Settings>, value: Value) -> Result<Settings, Fault> {
    let data = value.as_object().unwrap().clone();
    let (name, service) = (service.name(), KmsService::new(service));
    assert_eq!(service.own_credentials, NamespaceList::default());
    assert_eq!(service.verify_after_sign, VerifyAfterSign::default());
    let info = LibraryInfo {
        name: name.into(),
        has_pin: false,
        is_pool: false,
        namespaces: Default::default(),
        service: Some(service.into()),
    };
    let namespace = Namespace::from_path(namespace);
    Settings::read(&namespace, name, &mut Fields::new(&data), old, |_| Ok(info))
}

/// The least a key needs, and `more`.
fn with(more: Value) -> Value {
    let mut least = json!({"kms_key": "alias/ca", "key_type": "ecdsa", "curve": "P256"});
    least.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    least
}

fn read(more: Value) -> Result<Settings, Fault> {
    read_in("", None, with(more))
}

fn reason(result: Result<Settings, Fault>) -> String {
    match result {
        Err(Fault::InvalidRequest { reason }) => reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_read_shows_every_field_and_no_secret() {
    let own = read(json!({})).unwrap().show("ca", "5f0c");
    let shown = json!({
        "UUID": "5f0c", "name": "ca", "type": "awskms", "kms_key": "alias/ca", "key_type": "ECDSA", "curve": "P256", "key_bits": 0,
        "region": "", "endpoint": "", "access_key": "", "secret_key": "", "allow_generate_key": false,
        "allow_replace_key": false, "allow_store_key": false, "allow_raw_signing": false, "any_mount": false,
        "usages": ["sign", "verify"],
    });
    assert_eq!(Value::Object(own), shown);
    let given =
        json!({"access_key": "AKIA1", "secret_key": "s3cret", "region": "eu-west-1", "endpoint": "https://kms/"});
    let settings = read(given).unwrap();
    let shown = settings.show("ca", "5f0c");
    for (name, value) in
        [("access_key", "redacted"), ("secret_key", "redacted"), ("region", "eu-west-1"), ("endpoint", "https://kms")]
    {
        assert_eq!(shown[name], value);
    }
    assert!(!format!("{settings:?} {}", settings.token.as_ref().unwrap()).contains("s3cret"));
}

#[test]
fn what_a_key_is_follows_its_type_size_and_usages() {
    let kind = |more: Value| match read(more).unwrap().key_type() {
        KeyType::Cloud(kind) => (kind.native, kind.does),
        KeyType::Mechanism(_) => panic!("no key of a cloud"),
    };
    assert_eq!(kind(json!({})), ("ECC_NIST_P256", CloudUse::Sign));
    assert_eq!(kind(json!({"key_type": "RSA", "key_bits": "3072"})), ("RSA_3072", CloudUse::Sign));
    let decrypts = json!({"key_type": "rsa", "key_bits": 2048, "usages": "encrypt,decrypt"});
    assert_eq!(kind(decrypts.clone()), ("RSA_2048", CloudUse::Decrypt));
    assert!(!read(decrypts).unwrap().usages.allows(KeyUsage::Sign));
    let mac = read(json!({"key_type": "HMAC", "key_bits": 512})).unwrap();
    assert!(mac.usages.allows(KeyUsage::Mac) && !mac.usages.allows(KeyUsage::Sign) && mac.selector().secret);
    assert_eq!(kind(json!({"curve": "secp256k1"})), ("ECC_SECG_P256K1", CloudUse::Sign));
    assert_eq!(kind(json!({"key_type": "Ed25519"})), ("ECC_NIST_EDWARDS25519", CloudUse::Sign));
    for bits in [0, 256] {
        let symmetric = json!({"key_type": "symmetric", "key_bits": bits});
        assert_eq!(kind(symmetric.clone()), ("SYMMETRIC_DEFAULT", CloudUse::Decrypt));
        assert!(read(symmetric).unwrap().selector().secret);
    }
    for (more, expected) in [
        (
            json!({"key_type": "DSA"}),
            "key_type \"DSA\" is not supported: use one of RSA, ECDSA, ED25519, SYMMETRIC, HMAC",
        ),
        (json!({"key_type": "RSA"}), "key_bits is required with key_type RSA: one of 2048, 3072, 4096"),
        (json!({"key_type": "RSA", "key_bits": 1024}), "key_bits 1024 is not supported with key_type RSA"),
        (json!({"curve": ""}), "curve is required with key_type ECDSA: one of P256, P384, P521, secp256k1"),
        (json!({"usages": "mac"}), "usages: a key of key_type \"ECDSA\" does sign, verify"),
        (json!({"key_type": "RSA", "key_bits": 2048, "usages": "sign,decrypt"}), "and not for both: register two"),
        (
            json!({"key_type": "SYMMETRIC", "key_bits": 128}),
            "key_bits 128 is not supported with key_type SYMMETRIC: use one of 256",
        ),
        (json!({"key_type": "SYMMETRIC", "usages": "mac"}), "does encrypt, decrypt"),
        (json!({"encryption_mode": "envelope"}), "and this one is awskms ECC_NIST_P256"),
        (json!({"key_type": "SYMMETRIC", "encryption_mode": "paper"}), "use \"envelope\" or \"raw\""),
        (json!({"kms_key": ""}), "missing required field \"kms_key\""),
        (json!({"kms_key": "arn:aws:s3:::bucket"}), "is no id, ARN or alias"),
        (json!({"kms_key": "arn:aws:kms:eu-west-1:1:key/"}), "is no id, ARN or alias"),
        (json!({"kms_key": "arn:aws:kms:eu-west-1:1:key/2", "region": "us-east-1"}), "is in region \"eu-west-1\""),
        (json!({"kms_key": "arn:aws:kms:a:1:key/2", "replicas": [{"region": "b"}]}), "is in region \"a\""),
        (json!({"kms_key": "alias/a b"}), "is no id, ARN or alias"),
        (json!({"key_type": ""}), "missing required field \"key_type\""),
        (json!({"access_key": "AKIA"}), "belong together"),
        (json!({"secret_key": "redacted", "access_key": "x"}), "this key has none yet"),
        (json!({"endpoint": "kms.example.com"}), "is no URL"),
        (json!({"endpoint": "https://u@kms"}), "is no URL"),
        (json!({"endpoint": "https:///kms"}), "is no URL"),
        (json!({"endpoint": "https://:443"}), "is no URL"),
        (json!({"endpoint": "https://kms:99999/x"}), "is no URL"),
        (json!({"endpoint": "https://kms:port"}), "is no URL"),
        (json!({"endpoint": "https://kms:0"}), "is no URL"),
        (json!({"endpoint": "https://[::1]:99999"}), "is no URL"),
        (json!({"region": "eu west"}), "region \"eu west\" is none"),
        (json!({"kms_key": "1234", "allow_generate_key": true}), "must be an alias"),
        (json!({"kms_key": "alias/aws/x", "allow_generate_key": true}), "must be an alias"),
        (json!({"replicas": "eu"}), "expected a list"),
        (json!({"replicas": [{"regoin": "eu"}]}), "replicas: \"regoin\" is no field of a replica: use region"),
        (json!({"replicas": [{}]}), "named twice"),
        (json!({"replicas": [{"region": "a"}], "allow_generate_key": true}), "multi-Region key"),
    ] {
        let told = reason(read(more.clone()));
        assert!(told.contains(expected), "{more}: {told}");
        assert!(!told.contains("4096, 2048"), "each is named once: {told}");
    }
}

#[test]
fn only_the_root_namespace_uses_what_is_the_daemons_unless_others_are_named() {
    let keys = json!({"access_key": "AKIA1", "secret_key": "s"});
    assert!(read_in("team", None, with(keys.clone())).is_ok());
    let told = reason(read_in("team", None, with(json!({}))));
    assert!(told.contains("own_credentials of kms_service \"awskms\""), "{told}");
    for more in
        [json!({"endpoint": "http://169.254.169.254"}), json!({"replicas": [{"endpoint": "http://x", "region": "a"}]})]
    {
        let mut all = with(keys.clone());
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let told = reason(read_in("team", None, all));
        assert!(told.contains("may not name an endpoint"), "{told}");
    }
}

#[test]
fn secrets_stay_until_others_come_and_a_used_key_may_change_them() {
    let secret = |settings: &Settings| match &settings.token {
        Some(TokenSelector::Cloud(key)) => match &key.credentials {
            CloudCredentials::Aws { access_key, secret_key } => {
                Some((access_key.clone(), secret_key.expose().to_vec()))
            }
            _ => None,
        },
        _ => panic!("no key of a cloud"),
    };
    let first = read(json!({"access_key": "AKIA1", "secret_key": "one"})).unwrap();
    for more in [json!({}), json!({"access_key": "redacted", "secret_key": "redacted"})] {
        assert_eq!(secret(&read_in("", Some(&first), with(more)).unwrap()), Some(("AKIA1".into(), b"one".to_vec())));
    }
    let other = read_in("", Some(&first), with(json!({"access_key": "AKIA2", "secret_key": "two"}))).unwrap();
    assert_eq!(secret(&other), Some(("AKIA2".into(), b"two".to_vec())));
    assert!(first.same_key(&other) && !first.same_token(&other), "the same key by another's word");
    let none = read_in("", Some(&first), with(json!({"access_key": "", "secret_key": ""}))).unwrap();
    assert_eq!(secret(&none), None);
    assert!(!first.same_key(&read(json!({"kms_key": "alias/other"})).unwrap()));
    let replicated = read(json!({"region": "a", "replicas": [{"region": "b", "kms_key": "alias/there"}]})).unwrap();
    let Some(TokenSelector::Cloud(key)) = &replicated.token else { panic!("no key of a cloud") };
    let copies: Vec<String> = key.copies().map(|copy| copy.to_string()).collect();
    assert_eq!(copies, ["a/alias/ca", "b/alias/there"]);
    assert_eq!(key.to_string(), "a/alias/ca and 1 more");
}

/// Writes a key with its secret, then changes it as `change` says, which keeps the secret or does not. Says how that ended.
fn changed(service: CloudService, change: &Value, secret: &str) -> Result<(), String> {
    let json = json!({"type": "service_account", "client_email": "a@b", "private_key": "s3cret"}).to_string();
    let (name, first) = match service {
        CloudService::AwsKms => ("secret_key", with(json!({"access_key": "AKIA1", "secret_key": "s3cret"}))),
        CloudService::AzureKeyVault => {
            let first = json!({"key_name": "k", "vault_name": "v", "key_type": "EC-HSM", "curve": "P256", "tenant_id": "t",
                "client_id": "c", "client_secret": "s3cret"});
            ("client_secret", first)
        }
        CloudService::GcpCkms => {
            let first = json!({"crypto_key": "k", "key_ring": "r", "project": "p", "region": "eu",
                "algorithm": "EC_SIGN_P256_SHA256", "credentials": json});
            ("credentials", first)
        }
    };
    let old = read_of(service, "", None, first.clone()).unwrap();
    let mut next = first;
    next.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    if !secret.is_empty() {
        next[name] = secret.into();
    }
    match read_of(service, "", Some(&old), next) {
        Err(Fault::InvalidRequest { reason }) => Err(reason),
        read => read.map(drop).map_err(|fault| fault.to_string()),
    }
}

#[test]
fn a_secret_goes_nowhere_that_it_was_not_given_for() {
    use CloudService::{AwsKms, AzureKeyVault, GcpCkms};
    let elsewhere = json!({"endpoint": "https://elsewhere.example"});
    for (service, change, field) in [
        (AwsKms, elsewhere.clone(), "endpoint"),
        (AwsKms, json!({"replicas": [{"region": "a", "endpoint": "https://elsewhere.example"}]}), "endpoint"),
        (AwsKms, json!({"access_key": "AKIA2"}), "access_key"),
        (AzureKeyVault, elsewhere.clone(), "endpoint"),
        (AzureKeyVault, json!({"tenant_id": "other"}), "tenant_id"),
        (AzureKeyVault, json!({"client_id": "other"}), "client_id"),
        (AzureKeyVault, json!({"environment": "AZURECHINACLOUD"}), "environment"),
        (GcpCkms, elsewhere, "endpoint"),
    ] {
        let told = changed(service, &change, REDACTED).unwrap_err();
        assert!(told.starts_with(&format!("{field} cannot change while ")), "{service} {change}: {told}");
        // With the secret itself, whoever asks knows it.
        changed(service, &change, "").unwrap();
    }
    // There is the same service at the other end.
    for (service, change) in [
        (AwsKms, json!({"region": "eu-west-1"})),
        (AzureKeyVault, json!({"vault_name": "other"})),
        (AzureKeyVault, json!({"resource": "managedhsm.azure.net"})),
        (GcpCkms, json!({"region": "us", "project": "other"})),
    ] {
        changed(service, &change, REDACTED).unwrap();
    }
    // Back to the service's own address it may go, and no endpoint is named anew.
    let given = json!({"access_key": "AKIA1", "secret_key": "s3cret", "endpoint": "https://elsewhere.example"});
    let old = read(given).unwrap();
    assert!(read_in("", Some(&old), with(json!({}))).is_ok());
    assert!(read_in("", Some(&old), with(json!({"endpoint": "https://elsewhere.example"}))).is_ok());
}

#[test]
fn a_managed_hsm_has_no_keys_of_software() {
    let asked = json!({"key_name": "k", "vault_name": "v", "key_type": "RSA", "key_bits": 2048, "tenant_id": "t",
        "resource": "managedhsm.azure.net"});
    let told = reason(read_of(CloudService::AzureKeyVault, "", None, asked));
    assert!(told.contains("there it is \"RSA-HSM\""), "{told}");
}

#[test]
fn a_symmetric_key_shows_how_it_encrypts_and_may_do_it_otherwise() {
    let key = |more: Value| {
        let mut all = json!({"key_type": "SYMMETRIC", "curve": ""});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        read(all).unwrap()
    };
    let (raw, envelope) = (key(json!({})), key(json!({"encryption_mode": "envelope"})));
    assert_eq!(raw.show("k", "5f0c")["encryption_mode"], "raw");
    assert_eq!(envelope.show("k", "5f0c")["encryption_mode"], "envelope");
    assert!(raw.same_key(&envelope));
    // Of all kinds these alone make no two ciphertexts alike.
    let sealing = CloudService::ALL.into_iter().flat_map(CloudService::kinds).filter(|kind| kind.sealing().is_some());
    let sealing: Vec<&str> = sealing.map(|kind| kind.native).collect();
    assert_eq!(sealing, ["SYMMETRIC_DEFAULT", "GOOGLE_SYMMETRIC_ENCRYPTION", "AES_128_GCM", "AES_256_GCM"]);
}

#[test]
fn what_a_server_of_the_keys_own_says_is_no_name_elsewhere() {
    let name = |more: Value| {
        let (method, kind) = (CheckMethod::Opened(CipherScheme::ServiceAead), KeyKind::Aes { bits: 256 });
        let value = CheckValue { kind, method, sealed: Default::default(), name: Some([7; 32]), digest: [1; 32] };
        match said_there(&read(more).unwrap(), KeyIdentity::Secret(value.clone())).unwrap() {
            KeyIdentity::Secret(said) => {
                assert_eq!(said, value, "it is proven by the same");
                said.lasting()
            }
            KeyIdentity::Public(_) => panic!("a secret key"),
        }
    };
    let own = json!({"access_key": "AKIA1", "secret_key": "s3cret"});
    let at = |more: Value| {
        let mut all = own.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        name(all)
    };
    assert_eq!(at(json!({})), [7; 32]);
    let there = at(json!({"endpoint": "https://a.example"}));
    assert!(there != [7; 32] && there == at(json!({"endpoint": "https://a.example/"})));
    assert_ne!(there, at(json!({"endpoint": "https://b.example"})));
    // A copy may be the one that answers.
    let copy =
        at(json!({"region": "eu-west-1", "replicas": [{"region": "us-east-1", "endpoint": "https://a.example"}]}));
    assert_eq!(copy, there);
}

#[test]
fn which_of_several_ways_of_encryption_is_usual_is_the_registrations_to_say() {
    let key = |more: Value| {
        let mut all = json!({"key_type": "RSA", "key_bits": 2048, "usages": "encrypt,decrypt", "curve": ""});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        read(all)
    };
    let usual = |settings: &Settings| settings.abilities().cipher("k", None).unwrap();
    let (first, sha1) = (key(json!({})).unwrap(), key(json!({"rsa_oaep_hash": "sha1"})).unwrap());
    assert_eq!(usual(&first), CipherScheme::RsaOaep { hash: Hash::Sha2_256 });
    assert_eq!(usual(&sha1), CipherScheme::RsaOaep { hash: Hash::Sha1 });
    assert_eq!(
        (&first.show("k", "")["rsa_oaep_hash"], &sha1.show("k", "")["rsa_oaep_hash"]),
        (&json!("sha256"), &json!("sha1"))
    );
    assert!(!first.same_key(&sha1), "what was encrypted with one is not decrypted with the other");
    assert!(first.same_key(&key(json!({"rsa_oaep_hash": "sha256"})).unwrap()));
    let told = reason(key(json!({"rsa_oaep_hash": "sha512"})));
    assert!(told.contains("use one of sha256, sha1"), "{told}");
    let told = reason(key(json!({"cipher_mode": "gcm"})));
    assert!(told.contains("is not supported by keys awskms RSA_2048: leave it out"), "{told}");
    // Every way that the tables know can be had, and is found again by its name.
    for kind in CloudService::ALL.into_iter().flat_map(CloudService::kinds) {
        for (scheme, _) in kind.decrypts {
            let abilities = KeyType::Cloud(kind).abilities(None, Some(*scheme));
            assert_eq!(abilities.cipher("k", None), Ok(*scheme), "{kind}");
            let alike = kind.decrypts.iter().filter(|(other, _)| cipher_name(*other) == cipher_name(*scheme));
            assert_eq!(alike.count(), 1, "{kind} {scheme:?}");
        }
    }
}

#[test]
fn the_default_hash_is_the_keys_own() {
    let hash = |more: Value| read(more).unwrap().key_type().default_hash();
    assert_eq!(hash(json!({})), Hash::Sha2_256);
    assert_eq!(hash(json!({"curve": "P384"})), Hash::Sha2_256);
    assert_eq!(hash(json!({"key_type": "RSA", "key_bits": 4096})), Hash::Sha2_256);
    let rsa = read(json!({"key_type": "RSA", "key_bits": 4096})).unwrap().abilities();
    for scheme in [SignatureScheme::RsaPkcs1, SignatureScheme::RsaPss { salt: 32 }] {
        assert!(rsa.require_scheme("k", scheme).is_ok());
    }
    // Each is tested by the word of who asks.
    let pss = SignatureScheme::RsaPss { salt: 32 };
    let tested = [None, Some(true), Some(false)].map(|use_pss| rsa.tested_scheme("k", use_pss, 32));
    assert_eq!(tested, [Ok(pss), Ok(pss), Ok(SignatureScheme::RsaPkcs1)]);
}

#[test]
fn the_readme_says_of_keys_in_clouds_what_the_tables_say() {
    let readme = include_str!("../../README.md");
    let said: Vec<&str> = readme.lines().filter(|line| line.starts_with("| key `")).collect();
    let shown = |kind: &CloudKind| {
        let signs = kind.signs.iter().map(|way| {
            let scheme = match way.scheme {
                SignatureScheme::RsaPkcs1 => "PKCS#1 v1.5",
                SignatureScheme::RsaPss { .. } => "PSS",
                SignatureScheme::Ecdsa => "ECDSA",
                SignatureScheme::Ed25519 => "Ed25519",
                SignatureScheme::MlDsa => "ML-DSA",
            };
            match way.hash {
                // It signs a number of the curve's size, whatever hash that comes from.
                _ if way.scheme == SignatureScheme::Ecdsa => "signs: ECDSA".to_owned(),
                Hash::None => format!("signs: {scheme}"),
                hash => format!("signs: {scheme} {}", hash.name()),
            }
        });
        let ciphers = kind.decrypts.iter().map(|(scheme, _)| match scheme {
            CipherScheme::RsaPkcs1 => "decrypts: PKCS#1 v1.5".to_owned(),
            CipherScheme::RsaOaep { hash } => format!("decrypts: OAEP {}", hash.name()),
            CipherScheme::AesGcm => "encrypts: AES-GCM".to_owned(),
            CipherScheme::AesCbc { padded: true } => "encrypts: AES-CBC-PAD".to_owned(),
            CipherScheme::AesCbc { padded: false } => "encrypts: AES-CBC".to_owned(),
            CipherScheme::ServiceAead => "encrypts: in a form of the service's own".to_owned(),
        });
        let macs = kind.macs.iter().map(|(hash, _)| format!("MAC: {}", hash.name()));
        let does: Vec<String> = signs.chain(ciphers).chain(macs).collect();
        format!("| key `{}` | {} | {} | {} |", kind.service, kind.key_type, kind.native, does.join("; "))
    };
    let kinds = CloudService::ALL.into_iter().flat_map(CloudService::kinds);
    let expected: Vec<String> = kinds.map(shown).collect();
    assert_eq!(said, expected, "correct the README's table:\n{}\n", expected.join("\n"));
}
