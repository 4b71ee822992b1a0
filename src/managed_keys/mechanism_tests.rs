use super::*;

const PSS: SignatureScheme = SignatureScheme::RsaPss { salt: 32 };
const RSA_PKCS: u64 = 0x0001;
const RSA_PKCS_OAEP: u64 = 0x0009;
const RSA_PKCS_PSS: u64 = 0x000d;
const ECDSA: u64 = 0x1041;
const EDDSA: u64 = 0x1057;
const AES_GCM: u64 = 0x1087;
const SHA512_HMAC: u64 = 0x0271;

fn does(number: u64) -> Abilities {
    Mechanism(number).abilities(None)
}

/// The rows of the README's table, as the code has them.
fn readme_rows() -> Vec<String> {
    let signs = |scheme| match scheme {
        SignatureScheme::RsaPkcs1 => "sign (PKCS#1 v1.5)",
        SignatureScheme::RsaPss { .. } => "sign (PSS)",
        SignatureScheme::Ecdsa | SignatureScheme::Ed25519 | SignatureScheme::MlDsa => "sign",
    };
    let encrypts = |scheme| match scheme {
        CipherScheme::RsaPkcs1 => "encrypt, decrypt (`padding_scheme=pkcs1v15`)",
        CipherScheme::RsaOaep { .. } => "encrypt, decrypt (`padding_scheme=oaep`, hash by `rsa_oaep_hash`)",
        CipherScheme::AesGcm => "encrypt, decrypt, with `associated_data`",
        CipherScheme::AesCbc { padded: false } => "encrypt, decrypt, of whole blocks",
        CipherScheme::AesCbc { padded: true } | CipherScheme::ServiceAead => "encrypt, decrypt",
    };
    let shown = |row: &Row| {
        let key = match row.family {
            Family::Rsa => "RSA",
            Family::Ec => "EC",
            Family::Ed25519 => "Ed25519",
            Family::MlDsa => "ML-DSA",
            Family::Aes => "AES",
            Family::Hmac => "generic or HMAC",
        };
        let macs = row.macs.map(|hash| format!("hmac ({})", hash.name()));
        let does = row.signs.map(signs).into_iter().chain(row.encrypts.map(encrypts)).map(str::to_owned).chain(macs);
        let generated = match row.family {
            Family::Rsa => "`key_bits` 2048, 3072, 4096",
            Family::Ec => "`curve` P256, P384, P521, secp256k1",
            Family::Ed25519 => "yes",
            Family::MlDsa => "`parameter_set` 44, 65, 87",
            Family::Aes => "`key_bits` 128, 192, 256",
            Family::Hmac => "`key_bits` 128 to 4096; else as long as the hash",
        };
        let does: Vec<String> = does.collect();
        format!("| `{:#06x}` | {} | {key} | {} | {generated} |", row.number, row.name, does.join("; "))
    };
    TABLE.iter().map(shown).collect()
}

#[test]
fn the_readme_says_of_mechanisms_what_the_table_says() {
    let readme = include_str!("../../README.md");
    let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with("| `0x") && line.contains("CKM_")).collect();
    assert_eq!(rows, readme_rows(), "correct the README's table");
}

#[test]
fn each_mechanism_signs_in_its_own_way_only() {
    let schemes = [SignatureScheme::RsaPkcs1, PSS, SignatureScheme::Ecdsa, SignatureScheme::Ed25519];
    for (index, number) in [RSA_PKCS, RSA_PKCS_PSS, ECDSA, EDDSA].into_iter().enumerate() {
        let mechanism = Mechanism(number);
        assert_eq!(does(number).default_scheme("k", 32), Ok(schemes[index]));
        for scheme in schemes {
            assert_eq!(does(number).require_scheme("k", scheme).is_ok(), scheme == schemes[index], "{mechanism}");
        }
    }
    let refused = does(RSA_PKCS_PSS).require_scheme("ca", SignatureScheme::RsaPkcs1).unwrap_err();
    let text = "managed key \"ca\" is registered for mechanism CKM_RSA_PKCS_PSS (0x000d), which makes no RSA PKCS#1 v1.5 \
                signatures";
    assert_eq!(refused, Fault::invalid(text));
}

#[test]
fn a_mechanism_says_what_it_cannot_do_whatever_is_asked() {
    for number in [RSA_PKCS_OAEP, AES_GCM, SHA512_HMAC, 0, 0x1_0000_0001] {
        let refused = does(number).require_scheme("k", PSS).unwrap_err();
        assert!(matches!(refused, Fault::NotSupported { .. }), "{refused}");
        assert_eq!(does(number).default_scheme("k", 32), Err(refused));
    }
    for number in [RSA_PKCS_PSS, ECDSA, EDDSA, SHA512_HMAC, 0x1108] {
        assert!(matches!(does(number).cipher("k", None), Err(Fault::NotSupported { .. })), "{number:#x}");
    }
    let told = does(AES_GCM).mac_hash("k", None).unwrap_err().to_string();
    assert_eq!(told, "not supported: making HMACs with managed key \"k\", whose mechanism is CKM_AES_GCM (0x1087)");
}

#[test]
fn a_mechanism_has_one_cipher_and_one_hash() {
    assert_eq!(does(RSA_PKCS).cipher("k", None), Ok(CipherScheme::RsaPkcs1));
    assert_eq!(does(RSA_PKCS_OAEP).cipher("k", None), Ok(CipherScheme::RsaOaep { hash: Hash::Sha2_256 }));
    let sha1 = Mechanism(RSA_PKCS_OAEP).abilities(Some(Hash::Sha1)).cipher("k", None);
    assert_eq!(sha1, Ok(CipherScheme::RsaOaep { hash: Hash::Sha1 }));
    assert_eq!(does(AES_GCM).cipher("k", None), Ok(CipherScheme::AesGcm));
    assert_eq!(does(SHA512_HMAC).mac_hash("k", None), Ok(Hash::Sha2_512));
    assert!(Mechanism(AES_GCM).is_secret() && Mechanism(SHA512_HMAC).is_secret());
    assert!(!Mechanism(RSA_PKCS).is_secret() && !Mechanism(0x1108).is_secret());
}

#[test]
fn what_is_generated_follows_from_mechanism_size_and_curve() {
    let kind = |number, bits, curve| Mechanism(number).generated_kind(bits, curve, None);
    assert_eq!(kind(RSA_PKCS, 3072, None), Ok(KeyKind::Rsa { bits: 3072 }));
    assert_eq!(kind(RSA_PKCS_PSS, 2048, Some(Curve::P256)), Ok(KeyKind::Rsa { bits: 2048 }));
    assert_eq!(kind(ECDSA, 0, Some(Curve::P521)), Ok(KeyKind::Ec(Curve::P521)));
    assert_eq!(kind(EDDSA, 0, None), Ok(KeyKind::Ed25519));
    assert_eq!(kind(AES_GCM, 192, None), Ok(KeyKind::Aes { bits: 192 }));
    assert_eq!(kind(SHA512_HMAC, 0, None), Ok(KeyKind::Hmac { bits: 512 }));
    assert_eq!(kind(SHA512_HMAC, 256, None), Ok(KeyKind::Hmac { bits: 256 }));
    assert_eq!(kind(0, 2048, None), Err(Fault::invalid("cannot generate a key for mechanism 0")));
    for (number, bits) in
        [(RSA_PKCS, 0), (RSA_PKCS, 1024), (ECDSA, 256), (AES_GCM, 0), (AES_GCM, 512), (SHA512_HMAC, 129)]
    {
        assert!(kind(number, bits, None).is_err(), "{number:#x} {bits}");
    }
}

#[test]
fn a_key_must_fit_its_mechanism() {
    let p256 = KeyKind::Ec(Curve::P256);
    for (number, fits) in [(ECDSA, true), (RSA_PKCS, false), (RSA_PKCS_OAEP, false), (EDDSA, false), (AES_GCM, false)] {
        assert_eq!(Mechanism(number).require_kind("k", p256).is_ok(), fits, "{number:#x}");
    }
    assert!(Mechanism(0x1108).require_kind("k", p256).is_ok());
    assert!(Mechanism(SHA512_HMAC).require_kind("k", KeyKind::Hmac { bits: 0 }).is_ok());
}

#[test]
fn a_key_is_used_for_what_its_mechanism_does() {
    let names = |number| Mechanism(number).uses().iter().map(KeyUsage::name).collect::<Vec<_>>();
    assert_eq!(names(RSA_PKCS), ["encrypt", "decrypt", "sign", "verify"]);
    assert_eq!(names(ECDSA), ["sign", "verify"]);
    assert_eq!(names(AES_GCM), ["encrypt", "decrypt"]);
    assert_eq!(names(SHA512_HMAC), ["mac"]);
    assert!(names(0x1108).is_empty());
}
