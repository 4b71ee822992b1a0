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
