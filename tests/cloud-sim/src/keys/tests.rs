//! Each kind does what it can, and nothing else.

use super::*;

fn make(kind: Kind) -> Key {
    Key::generate(kind).unwrap()
}

fn signs(key: &Key, scheme: Scheme) {
    let signature = key.sign_message(scheme, b"message").unwrap();
    assert!(key.verify_message(scheme, b"message", &signature).unwrap(), "{:?} {scheme:?}", key.kind());
    assert!(!key.verify_message(scheme, b"massage", &signature).unwrap(), "{:?} {scheme:?}", key.kind());
    let mut broken = signature;
    *broken.last_mut().unwrap() ^= 1;
    assert!(!key.verify_message(scheme, b"message", &broken).unwrap(), "{:?} {scheme:?}", key.kind());
}

#[test]
fn rsa_keys_sign_and_encrypt_in_each_way() {
    let key = make(Kind::Rsa { bits: 2048 });
    for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
        signs(&key, Scheme::RsaPkcs1(hash));
        signs(&key, Scheme::RsaPss(hash));
    }
    signs(&key, Scheme::RsaPkcs1Raw);
    assert!(matches!(key.sign_digest(Scheme::RsaPkcs1Raw, &[1; 246]), Err(Error::Input(_))));
    assert!(matches!(key.sign_digest(Scheme::RsaPkcs1(Hash::Sha256), &[1; 31]), Err(Error::Input(_))));
    assert_eq!(key.sign_message(Scheme::EcdsaDer, b"m"), Err(Error::Unsupported));

    let oaep = [Hash::Sha1, Hash::Sha256, Hash::Sha384, Hash::Sha512].map(RsaCipher::Oaep);
    for cipher in oaep.into_iter().chain([RsaCipher::Pkcs1]) {
        let ciphertext = key.rsa_encrypt(cipher, b"secret").unwrap();
        assert_eq!(key.rsa_decrypt(cipher, &ciphertext).unwrap(), b"secret", "{cipher:?}");
        assert!(matches!(key.rsa_encrypt(cipher, &[1; 256]), Err(Error::Input(_))));
    }
    let ciphertext = key.rsa_encrypt(oaep[1], b"secret").unwrap();
    assert_eq!(key.rsa_decrypt(oaep[0], &ciphertext), Err(Error::Input("the ciphertext does not decrypt")));
    let Some(Jwk::Rsa { n, e }) = key.jwk() else { panic!("an RSA key") };
    assert_eq!((n.len(), e), (256, vec![1, 0, 1]));
    assert_eq!(make(Kind::Rsa { bits: 3072 }).sign_message(Scheme::RsaPss(Hash::Sha256), b"m").unwrap().len(), 384);
}

#[test]
fn curves_sign_in_both_forms() {
    for (curve, field, spki) in
        [(Curve::P256, 32, 91), (Curve::P384, 48, 120), (Curve::P521, 66, 158), (Curve::Secp256k1, 32, 88)]
    {
        let key = make(Kind::Ec(curve));
        signs(&key, Scheme::EcdsaDer);
        signs(&key, Scheme::EcdsaFixed);
        assert_eq!(key.sign_message(Scheme::EcdsaFixed, b"m").unwrap().len(), 2 * field);
        assert!(matches!(key.sign_digest(Scheme::EcdsaDer, &[1; 20]), Err(Error::Input(_))));
        let Some(Jwk::Ec { x, y, .. }) = key.jwk() else { panic!("a key on {curve:?}") };
        assert_eq!((x.len(), y.len(), key.spki().unwrap().len()), (field, field, spki));
        assert!(key.spki().unwrap().ends_with(&[x, y].concat()));
    }
}

#[test]
fn ed25519_signs_messages_only() {
    let key = make(Kind::Ed25519);
    signs(&key, Scheme::Ed25519);
    assert_eq!(key.sign_digest(Scheme::Ed25519, &[1; 32]), Err(Error::Unsupported));
    let Some(Jwk::Ed25519 { x }) = key.jwk() else { panic!("an Ed25519 key") };
    assert!(key.spki().unwrap().ends_with(&x));
}

#[test]
fn aes_encrypts_in_each_mode() {
    for bits in [128, 192, 256] {
        let key = make(Kind::Aes { bits });
        let sealed = key.gcm_encrypt(&[1; 12], b"aad", b"secret").unwrap();
        assert_eq!(key.gcm_decrypt(&[1; 12], b"aad", &sealed).unwrap(), b"secret");
        assert!(key.gcm_decrypt(&[1; 12], b"bad", &sealed).is_err());
        assert!(key.gcm_decrypt(&[2; 12], b"aad", &sealed).is_err());
        assert_eq!(key.gcm_encrypt(&[1; 16], b"", b""), Err(Error::Input("the nonce must have 12 bytes")));
        for (mode, len) in [(Mode::Cbc, 32), (Mode::CbcPad, 48), (Mode::Ctr, 32)] {
            let sealed = key.block_encrypt(mode, &[1; 16], &[7; 32]).unwrap();
            assert_eq!(sealed.len(), len, "{mode:?}");
            assert_eq!(key.block_decrypt(mode, &[1; 16], &sealed).unwrap(), [7; 32]);
            assert!(key.block_encrypt(mode, &[1; 12], &[7; 32]).is_err());
        }
        assert!(key.block_encrypt(Mode::Cbc, &[1; 16], &[7; 31]).is_err());
        assert_eq!(key.mac(b"m"), Err(Error::Unsupported));
    }
    for bits in [128, 256] {
        let key = make(Kind::Aes { bits });
        let mut wrapped = key.wrap(&[7; 32]).unwrap();
        assert_eq!(key.unwrap(&wrapped).unwrap(), [7; 32]);
        wrapped[0] ^= 1;
        assert!(key.unwrap(&wrapped).is_err());
        assert!(key.wrap(&[7; 31]).is_err());
    }
    assert_eq!(make(Kind::Aes { bits: 192 }).wrap(&[7; 32]), Err(Error::Unsupported));
}

#[test]
fn hmac_of_each_hash() {
    for hash in [Hash::Sha1, Hash::Sha224, Hash::Sha256, Hash::Sha384, Hash::Sha512] {
        let key = make(Kind::Hmac(hash));
        let mac = key.mac(b"message").unwrap();
        assert_eq!(mac.len(), hash.len());
        assert!(key.verify_mac(b"message", &mac).unwrap());
        assert!(!key.verify_mac(b"massage", &mac).unwrap());
    }
}

#[tokio::test]
async fn keys_are_made_aside() {
    assert_eq!(Key::generate_aside(Kind::Ed25519).await.unwrap().kind(), Kind::Ed25519);
    assert_eq!(random(33).unwrap().len(), 33);
}
