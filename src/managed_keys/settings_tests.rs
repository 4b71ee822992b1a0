//! Stories about the fields of a managed key.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::Secret;

fn data(value: Value) -> Data {
    value.as_object().expect("an object").clone()
}

fn read_over(old: Option<&Settings>, library_has_pin: bool, value: Value) -> Result<Settings, Fault> {
    read_in(&Namespace::root(), old, library_has_pin, value)
}

fn read_in(
    namespace: &Namespace,
    old: Option<&Settings>,
    library_has_pin: bool,
    value: Value,
) -> Result<Settings, Fault> {
    let data = data(value);
    let info = LibraryInfo {
        name: "hsm".into(),
        has_pin: library_has_pin,
        is_pool: false,
        namespaces: Default::default(),
        service: None,
    };
    Settings::read(namespace, PKCS11, &mut Fields::new(&data), old, |_| Ok(info))
}

fn read(value: Value) -> Result<Settings, Fault> {
    read_over(None, true, value)
}

/// The least a key needs, and `more`.
fn with(more: Value) -> Value {
    let mut least = json!({"library": "hsm", "token_label": "t", "key_label": "k", "mechanism": "0x1041"});
    least.as_object_mut().unwrap().extend(data(more));
    least
}

fn without(name: &str) -> Value {
    let mut least = with(json!({}));
    least.as_object_mut().unwrap().remove(name);
    least
}

fn reason(result: Result<Settings, Fault>) -> String {
    match result {
        Err(Fault::InvalidRequest { reason }) => reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_read_shows_every_field_with_its_default() {
    let settings = read(with(json!({}))).unwrap();
    let shown = json!({
        "UUID": "5f0c", "name": "ca-root", "type": "pkcs11", "library": "hsm", "slot": 0, "token_label": "t",
        "key_label": "k", "key_id": "", "mechanism": 4161, "key_bits": 0, "curve": "", "pin": "",
        "allow_generate_key": false, "allow_replace_key": false, "allow_store_key": false, "allow_raw_signing": false,
        "any_mount": false,
        "force_rw_session": false, "usages": ["sign", "verify"],
    });
    assert_eq!(Value::Object(settings.show("ca-root", "5f0c")), shown);
}

#[test]
fn strings_numbers_and_booleans_mean_the_same() {
    let texts = json!({
        "library": "hsm", "slot": "2305843009213693953", "token_label": "", "key_label": "k", "mechanism": "0x1",
        "key_bits": "4096", "pin": "1234", "allow_generate_key": "true", "allow_replace_key": "false",
        "allow_store_key": "true", "any_mount": "1", "allow_raw_signing": "true", "force_rw_session": "true", "max_parallel": "4",
        "usages": "sign,verify", "hmac_key_label": "h", "rsa_oaep_hash": "",
    });
    let typed = json!({
        "library": "hsm", "slot": 2_305_843_009_213_693_953_u64, "key_label": "k", "mechanism": 1, "key_bits": 4096,
        "pin": 1234, "allow_generate_key": true, "allow_replace_key": false, "allow_store_key": true, "any_mount": true,
        "allow_raw_signing": true,
        "force_rw_session": true, "max_parallel": 4, "usages": [3, "verify"], "hmac_key_label": "h",
    });
    let shown = json!({
        "UUID": "u", "name": "k", "type": "pkcs11", "library": "hsm", "slot": 2_305_843_009_213_693_953_u64,
        "token_label": "", "key_label": "k", "key_id": "", "mechanism": 1, "key_bits": 4096, "curve": "",
        "pin": "redacted", "allow_generate_key": true, "allow_replace_key": false, "allow_store_key": true,
        "any_mount": true, "allow_raw_signing": true, "force_rw_session": true, "max_parallel": 4,
        "usages": ["sign", "verify"],
        "hmac_key_label": "h",
    });
    for form in [texts, typed] {
        let settings = read(form).unwrap();
        assert_eq!(Value::Object(settings.show("k", "u")), shown);
        assert_eq!(settings.pin().cloned(), Some(Pin::Itself(Secret::from("1234"))));
    }
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(reason(read(without("library"))), "missing required field \"library\"");
    assert_eq!(reason(read(without("mechanism"))), "missing required field \"mechanism\"");
    assert_eq!(reason(read(without("token_label"))), "one of slot and token_label is required");
    assert_eq!(reason(read(without("key_label"))), "one of key_label and key_id is required");
    assert_eq!(reason(read_over(None, false, with(json!({})))), "pin is required: kms_library \"hsm\" has none");
}

#[test]
fn wrong_values_are_refused_with_what_was_expected() {
    let refused = |more| reason(read(with(more)));
    assert_eq!(refused(json!({"curve": "P224"})), "curve \"P224\" is not supported: use P256, P384, P521 or secp256k1");
    assert_eq!(refused(json!({"key_bits": 1024})), "key_bits 1024 is not supported: use 2048, 3072 or 4096");
    assert_eq!(refused(json!({"mechanism": "ECDSA"})), "mechanism \"ECDSA\" is not a number such as 0x1041");
    assert_eq!(refused(json!({"slot": 1})), "only one of slot and token_label may be given");
    assert_eq!(refused(json!({"key_id": "0x"})), "key_id \"0x\" is not hexadecimal, such as 0x1a2b");
    assert_eq!(
        refused(json!({"rsa_oaep_hash": "sha256"})),
        "rsa_oaep_hash is for CKM_RSA_PKCS_OAEP, and the mechanism is CKM_ECDSA (0x1041)"
    );
    assert_eq!(
        refused(json!({"mechanism": "0x0009", "rsa_oaep_hash": "md5"})),
        "rsa_oaep_hash \"md5\" is not supported: use sha1, sha224, sha256, sha384, sha512"
    );
    let aes = json!({"mechanism": "0x1087", "key_bits": 2048});
    assert_eq!(refused(aes), "key_bits 2048 is not supported: use 128, 192 or 256");
    assert_eq!(refused(json!({"any_mount": "perhaps"})), "field \"any_mount\": expected true or false");
    assert_eq!(refused(json!({"max_parallel": -1})), "max_parallel must be a positive number");
    assert_eq!(
        refused(json!({"usages": "sign,fly"})),
        "usage \"fly\" is unknown: use some of encrypt, decrypt, sign, verify, wrap, unwrap, generate_random, mac"
    );
    let slot = json!({"library": "hsm", "slot": "0x4", "key_label": "k", "mechanism": 1});
    assert_eq!(reason(read(slot)), "slot \"0x4\" is not a decimal number");
}

#[test]
fn any_mechanism_number_is_kept_also_one_above_32_bits() {
    let settings = read(with(json!({"mechanism": "0x1_0000_0001".replace('_', "")}))).unwrap();
    assert_eq!(settings.show("k", "u")["mechanism"], json!(4_294_967_297_u64));
}

#[test]
fn a_pin_that_stands_elsewhere_is_kept_as_the_reference_and_shown() {
    let referring = read_over(None, false, with(json!({"pin": "file:/no/such/pin"}))).unwrap();
    assert_eq!(referring.show("k", "u")["pin"], "file:/no/such/pin");
    let warning = referring.pin_warning().unwrap();
    assert!(warning.contains("/no/such/pin cannot be read"), "{warning}");
    let kept = read_over(Some(&referring), false, with(json!({"pin": "file:/no/such/pin"}))).unwrap();
    assert_eq!(kept.pin(), referring.pin());
    assert_eq!(read_over(Some(&referring), false, with(json!({"pin": "redacted"}))).unwrap().pin(), referring.pin());
    let replaced = read_over(Some(&referring), false, with(json!({"pin": "1234"}))).unwrap();
    assert_eq!((&replaced.show("k", "u")["pin"], replaced.pin_warning()), (&json!("redacted"), None));
    assert!(reason(read(with(json!({"pin": "file:pin"})))).contains("an absolute path"));
}

#[test]
fn a_tenant_refers_to_nothing_and_his_reference_is_no_pin() {
    let tenant = Namespace::root().child("team");
    for pin in ["env:HOME", "file:/etc/passwd", "credential:luna-pin", "file:", "env:"] {
        let told = reason(read_in(&tenant, None, true, with(json!({"pin": pin}))));
        assert!(told.contains("root namespace"), "{told}");
    }
    let own = read_in(&tenant, None, true, with(json!({"pin": "my:pin"}))).unwrap();
    assert_eq!(own.pin().cloned(), Some(Pin::Itself(Secret::from("my:pin"))));
}

#[test]
fn a_pin_stays_until_another_one_comes_and_goes_when_it_is_emptied() {
    let first = read(with(json!({"pin": "1234"}))).unwrap();
    let pin = |old: &Settings, more| {
        read_over(Some(old), true, with(more)).unwrap().pin().map(|pin| pin.fetch().unwrap().expose().to_vec())
    };
    assert_eq!(pin(&first, json!({})), Some(b"1234".to_vec()));
    assert_eq!(pin(&first, json!({"pin": "redacted"})), Some(b"1234".to_vec()));
    assert_eq!(pin(&first, json!({"pin": "4321"})), Some(b"4321".to_vec()));
    assert_eq!(pin(&first, json!({"pin": ""})), None);
    assert!(read_over(Some(&first), false, with(json!({"pin": ""}))).is_err(), "then nobody has one");
    assert!(reason(read(with(json!({"pin": "redacted"})))).contains("this key has none yet"));
    assert!(!format!("{first:?}").contains("1234"), "nor is it in a log");
}

#[test]
fn a_key_id_is_hexadecimal_in_any_usual_spelling() {
    let id = |text: &str| read(with(json!({"key_id": text}))).unwrap().selector().id;
    for spelling in ["1a2b", "0x1A2B", "1a:2b"] {
        assert_eq!(id(spelling), Some(vec![0x1a, 0x2b]), "{spelling}");
    }
}

#[test]
fn what_cannot_be_generated_is_told_at_once_and_is_no_reason_to_refuse() {
    let warning = |more| read(with(more)).unwrap().generation_warning();
    assert_eq!(warning(json!({"allow_generate_key": false})), None);
    assert_eq!(warning(json!({"allow_generate_key": true, "curve": "P256"})), None);
    assert_eq!(
        warning(json!({"allow_generate_key": true, "mechanism": 0})).unwrap(),
        "allow_generate_key has no effect: cannot generate a key for mechanism 0"
    );
    assert!(warning(json!({"allow_generate_key": true})).unwrap().contains("curve is required"));
    assert!(warning(json!({"allow_generate_key": true, "curve": "P256", "key_id": "01"})).unwrap().contains("key_id"));
}

#[test]
fn the_same_key_is_the_same_place_id_and_mechanism() {
    let one = read(with(json!({"key_id": "0x01"}))).unwrap();
    let same = |more| one.same_key(&read(with(more)).unwrap());
    assert!(same(json!({"key_id": "01", "library": "HSM", "usages": "sign", "pin": "1", "curve": "P384"})));
    for other in [
        json!({"key_id": "02"}),
        json!({"key_id": "01", "key_label": "other"}),
        json!({"key_id": "01", "token_label": "other"}),
        json!({"key_id": "01", "library": "other"}),
        json!({"key_id": "01", "mechanism": 1}),
    ] {
        assert!(!same(other.clone()), "{other}");
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        ".{0,12}".prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
        proptest::collection::vec(".{0,6}".prop_map(Value::from), 0..3).prop_map(Value::from),
    ]
}

proptest! {
    #[test]
    fn whatever_is_sent_is_read_or_refused_by_its_name(
        field in prop_oneof![
            Just("slot"), Just("token_label"), Just("key_label"), Just("key_id"), Just("mechanism"), Just("curve"),
            Just("key_bits"), Just("pin"), Just("any_mount"), Just("max_parallel"), Just("usages"),
        ],
        value in any_value(),
    ) {
        let sent = with(json!({ field: value }));
        match read(sent) {
            Ok(settings) => prop_assert!(settings.show("k", "u").contains_key("UUID")),
            Err(Fault::InvalidRequest { reason }) => {
                let named = field.trim_end_matches("_label").trim_end_matches('s');
                prop_assert!(reason.contains(named), "{} does not name {}", reason, field);
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
