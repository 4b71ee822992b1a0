//! Tokens that are made up.

use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::MechanismType;
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use serde_json::json;

use crate::hsm::{HASH, Hsm, KEYS, built, find, generate, is_by, key, login, point, sign, told};
use crate::sim::{PIN, Sim};

#[test]
fn a_wrong_pin_is_counted_and_locks_the_token() {
    let hsm = Hsm::null();
    let session = hsm.session("one");
    let info = || hsm.context().get_token_info(hsm.slot("one")).unwrap();
    let wrong = || told(session.login(UserType::User, Some(&AuthPin::from("wrong"))));
    assert_eq!(wrong(), "PinIncorrect");
    assert!(info().user_pin_count_low() && !info().user_pin_final_try());
    assert_eq!(wrong(), "PinIncorrect");
    assert!(info().user_pin_final_try());
    assert_eq!(wrong(), "PinIncorrect");
    assert!(info().user_pin_locked());
    assert_eq!(told(login(&session)), "PinLocked");
    // The other token has its own count.
    assert_eq!(told(login(&hsm.session("two"))), "Ok");
    hsm.sim.steer("unlock slot one");
    assert_eq!(told(login(&session)), "Ok");
    assert!(!info().user_pin_count_low());
}

#[test]
fn keys_follow_from_their_labels_in_every_token_and_module() {
    let (first, second) = (Hsm::null(), Hsm::null());
    let points: Vec<Vec<u8>> = [(&first, "one"), (&first, "two"), (&second, "one")]
        .iter()
        .map(|(hsm, token)| point(&hsm.session(token), KEYS[0]))
        .collect();
    assert!(points.iter().all(|point| *point == points[0]));
    let session = first.logged_in("one");
    assert_ne!(points[0], point(&session, KEYS[1]));
    // What one signs is good by the other's word.
    assert!(is_by(&second.session("two"), KEYS[0], &sign(&session, key(&session)).unwrap()));
}

#[test]
fn private_keys_are_for_those_who_log_in() {
    let hsm = Hsm::null();
    let session = hsm.session("one");
    assert!(find(&session, KEYS[0]).is_none());
    assert_eq!(session.find_objects(&[]).unwrap().len(), KEYS.len());
    login(&session).unwrap();
    let key = key(&session);
    assert_eq!(session.find_objects(&[]).unwrap().len(), 2 * KEYS.len());
    assert!(session.get_attributes(key, &[AttributeType::Value]).unwrap().is_empty());
    session.logout().unwrap();
    assert_eq!(told(sign(&session, key)), "UserNotLoggedIn");
}

#[test]
fn a_repeated_signature_is_the_same_and_another_is_not() {
    let hsm = Hsm::null();
    let session = hsm.logged_in("one");
    let key = key(&session);
    let of = |data: &[u8]| session.sign(&Mechanism::Ecdsa, key, data).unwrap();
    assert_eq!(of(&HASH), of(&HASH));
    assert_ne!(of(&HASH), of(&[8; 32]));
}

#[test]
fn a_generated_key_is_there_after_the_next_initialisation() {
    let hsm = Hsm::null();
    generate(&hsm.logged_in("one"), "made");
    let before = point(&hsm.session("one"), "made");
    hsm.initialize_anew();
    let session = hsm.logged_in("one");
    assert_eq!(point(&session, "made"), before);
    assert!(is_by(&session, "made", &sign(&session, find(&session, "made").unwrap()).unwrap()));
    assert!(find(&hsm.logged_in("two"), "made").is_none());
}

#[test]
fn rsa_keys_sign_with_both_paddings() {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
    let folder = tempfile::tempdir().unwrap();
    let keys = json!([{"label": "r", "kind": "rsa2048", "id": "0a"}]);
    let settings = json!({"null": {"slots": [{"label": "one", "pin": PIN, "keys": keys}]}});
    let sim = Sim::new(&built(), &folder.path().join("hsm.so"), &settings);
    let hsm = Hsm::of(sim, folder);
    let session = hsm.logged_in("one");
    let key = find(&session, "r").unwrap();
    let template = [Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::Id(vec![10])];
    let public = session.find_objects(&template).unwrap()[0];
    let info = session.get_attributes(public, &[AttributeType::PublicKeyInfo]).unwrap();
    let [Attribute::PublicKeyInfo(info)] = info.as_slice() else { panic!("{info:?}") };
    let signature = session.sign(&Mechanism::Sha256RsaPkcs, key, b"text").unwrap();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, info).verify(b"text", &signature).unwrap();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"text");
    let parameters = PkcsPssParams { hash_alg: MechanismType::SHA256, mgf: PkcsMgfType::MGF1_SHA256, s_len: 32.into() };
    let signature = session.sign(&Mechanism::RsaPkcsPss(parameters), key, hash.as_ref()).unwrap();
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, info).verify(b"text", &signature).unwrap();
    assert_eq!(told(session.sign(&Mechanism::Ecdsa, key, hash.as_ref())), "KeyTypeInconsistent");
}

/// A made-up token `one` with these keys.
fn with_keys(keys: serde_json::Value) -> Hsm {
    let folder = tempfile::tempdir().unwrap();
    let settings = json!({"null": {"slots": [{"label": "one", "pin": PIN, "keys": keys}]}});
    Hsm::of(Sim::new(&built(), &folder.path().join("hsm.so"), &settings), folder)
}

/// The secret key of this label.
fn secret(session: &cryptoki::session::Session, label: &str) -> cryptoki::object::ObjectHandle {
    let template = [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Label(label.into())];
    let found = session.find_objects(&template).unwrap();
    assert_eq!(found.len(), 1, "{label}");
    found[0]
}

#[test]
fn secret_keys_encrypt_decrypt_and_make_macs() {
    use cryptoki::mechanism::aead::GcmParams;
    let hsm = with_keys(json!([{"label": "a", "kind": "aes256"}, {"label": "m", "kind": "hmac512"}]));
    let session = hsm.logged_in("one");
    // They have no second half.
    assert_eq!(session.find_objects(&[]).unwrap().len(), 2);
    let (aes, mac) = (secret(&session, "a"), secret(&session, "m"));
    let length = session.get_attributes(aes, &[AttributeType::ValueLen]).unwrap();
    assert_eq!(length, [Attribute::ValueLen(32.into())]);
    for mechanism in [Mechanism::AesEcb, Mechanism::AesCbc([3; 16]), Mechanism::AesCbcPad([3; 16])] {
        let made = session.encrypt(&mechanism, aes, &[7; 32]).unwrap();
        assert_eq!(session.decrypt(&mechanism, aes, &made).unwrap(), [7; 32], "{mechanism:?}");
    }
    let mut ivs = [[4; 12]; 3];
    let [one, two, three] = &mut ivs;
    let gcm = |iv, aad| Mechanism::AesGcm(GcmParams::new(iv, aad, 128.into()).unwrap());
    let made = session.encrypt(&gcm(&mut one[..], b"aad"), aes, b"text").unwrap();
    assert_eq!(made.len(), 4 + 16);
    assert_eq!(session.decrypt(&gcm(&mut two[..], b"aad"), aes, &made).unwrap(), b"text");
    assert_eq!(told(session.decrypt(&gcm(&mut three[..], b"other"), aes, &made)), "EncryptedDataInvalid");
    assert_eq!(told(session.encrypt(&Mechanism::AesEcb, aes, b"text")), "DataLenRange");
    assert_eq!(told(session.encrypt(&Mechanism::AesEcb, mac, &[7; 16])), "KeyTypeInconsistent");
    for (mechanism, bytes) in [(Mechanism::Sha256Hmac, 32), (Mechanism::Sha512Hmac, 64)] {
        assert_eq!(session.sign(&mechanism, mac, b"text").unwrap().len(), bytes);
    }
    assert_eq!(told(session.sign(&Mechanism::Sha256Hmac, aes, b"text")), "KeyTypeInconsistent");
}

#[test]
fn a_generated_secret_key_is_its_labels() {
    let template = |bytes: u64| {
        let named = [Attribute::Token(true), Attribute::Label(b"made".to_vec())];
        [&named[..], &[Attribute::ValueLen(bytes.into())]].concat()
    };
    let made = [(); 2].map(|()| {
        let hsm = with_keys(json!([]));
        let session = hsm.logged_in("one");
        assert_eq!(told(session.generate_key(&Mechanism::AesKeyGen, &template(16))), "KeySizeRange");
        let key = session.generate_key(&Mechanism::AesKeyGen, &template(32)).unwrap();
        session.encrypt(&Mechanism::AesEcb, key, &[0; 16]).unwrap()
    });
    assert_eq!(made[0], made[1]);
}
