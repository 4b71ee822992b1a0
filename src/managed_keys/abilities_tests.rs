use super::super::mechanism::Mechanism;
use super::*;

const RSA_KIND: KeyKind = KeyKind::Rsa { bits: 2048 };
const PSS: SignatureScheme = SignatureScheme::RsaPss { salt: 20 };

fn shown(names: &[&str]) -> Abilities {
    let owns: Vec<&Own> = names.iter().map(|name| own_named(name).unwrap()).collect();
    Abilities::shown(KeyType::Mechanism(Mechanism(1)), &owns)
}

fn all(kind: KeyKind) -> Abilities {
    Abilities::shown(KeyType::Mechanism(Mechanism(1)), &of_own(kind).iter().collect::<Vec<_>>())
}

#[test]
fn names_are_of_one_deed_each() {
    for own in [RSA, HMAC].into_iter().flatten() {
        assert_eq!(own_named(own.name).map(|found| found.deed), Some(own.deed));
    }
    assert!(own_named("sign").is_none());
}

#[test]
fn an_rsa_key_of_a_mounts_own_does_all_that_vaults_does_and_the_same_by_default() {
    let key = shown(&["sign-pss", "sign-pkcs1v15", "decrypt-oaep-sha256", "decrypt-pkcs1v15"]);
    assert_eq!(key.default_scheme("k", 20), Ok(PSS));
    assert_eq!(key.require_scheme("k", SignatureScheme::RsaPkcs1), Ok(()));
    assert!(key.require_scheme("k", SignatureScheme::Ecdsa).is_err());
    assert_eq!(key.cipher("k", None), Ok(OAEP));
    assert_eq!(key.cipher("k", Some(RsaPadding::Oaep)), Ok(OAEP));
    assert_eq!(key.cipher("k", Some(RsaPadding::Pkcs1v15)), Ok(CipherScheme::RsaPkcs1));
    assert_eq!(key.oaep_hash(), Some(Hash::Sha2_256));
    assert!(key.mac_hash("k", None).is_err());
    assert!(key.warnings(RSA_KIND).is_empty());
}

#[test]
fn what_a_token_has_not_shown_is_neither_done_nor_taken_for_the_default() {
    let decrypts = |cipher| KeyOperation::Decrypt { cipher, ciphertext: bytes::Bytes::new() };
    let key = shown(&["sign-pkcs1v15", "decrypt-pkcs1v15"]);
    let told = key.default_scheme("k", 20).unwrap_err().to_string();
    assert!(told.contains("name signature_algorithm pkcs1v15"), "{told}");
    assert!(key.require_scheme("k", PSS).unwrap_err().to_string().contains("its token does not"));
    // A weaker padding is never chosen for a client.
    let told = key.cipher("k", None).unwrap_err().to_string();
    assert!(told.contains("name padding_scheme pkcs1v15"), "{told}");
    assert!(key.cipher("k", Some(RsaPadding::Oaep)).is_err());
    assert_eq!(key.does("k", &decrypts(crate::model::Cipher::RsaPkcs1)), Ok(true));
    assert_eq!(key.does("k", &decrypts(crate::model::Cipher::RsaOaep { hash: Hash::Sha2_256 })), Ok(false));
    assert_eq!(key.warnings(RSA_KIND).len(), 2);
    let old = shown(&["sign-pss", "decrypt-oaep-sha1"]);
    assert_eq!((old.cipher("k", None), old.oaep_hash()), (Ok(OAEP_SHA_1), Some(Hash::Sha1)));
    assert_eq!(old.does("k", &decrypts(crate::model::Cipher::RsaOaep { hash: Hash::Sha2_256 })), Ok(false));
    assert!(old.warnings(RSA_KIND)[0].contains("decrypts OAEP with sha1 and not with sha256"));
    let signs = shown(&["sign-pss"]);
    assert!(matches!(signs.cipher("k", None), Err(Fault::NotSupported { .. })));
    assert!(signs.warnings(RSA_KIND)[0].contains("only signs"));
}

#[test]
fn an_hmac_key_makes_those_that_its_token_makes() {
    let kind = KeyKind::Hmac { bits: 512 };
    let key = all(kind);
    assert_eq!(key.mac_hash("k", None), Ok(Hash::Sha2_256));
    for hash in [Hash::Sha2_224, Hash::Sha2_256, Hash::Sha2_384, Hash::Sha2_512] {
        assert_eq!(key.mac_hash("k", Some(hash)), Ok(hash));
    }
    assert!(key.warnings(kind).is_empty());
    let told = key.mac_hash("k", Some(Hash::Sha3_256)).unwrap_err().to_string();
    assert!(told.contains("with sha2-256, sha2-224, sha2-384, sha2-512, and not with sha3-256"), "{told}");
    let few = shown(&["hmac-sha512"]);
    assert!(few.mac_hash("k", None).is_err());
    assert_eq!(few.mac_hash("k", Some(Hash::Sha2_512)), Ok(Hash::Sha2_512));
    assert!(few.warnings(kind)[0].contains("no HMACs with sha2-256, sha2-224, sha2-384"));
}
