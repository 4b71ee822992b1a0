//! Encryption and MACs over both wires, on a real token. Whatever one side makes, a second implementation reads: openssl, or the
//! library that Keyway has for software keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use keyway::crypto::SecretKey;
use keyway::model::{Cipher, KeyKind, KeyOperation, SecretBytes};
use keyway::wire::proto;
use serde_json::{Value, json};

use crate::daemon::{Daemon, Setup};
use crate::openssl::openssl;
use crate::rig::{self, Rig, TOKENS, sum};
use crate::sim::{Sim, Softhsm};
use crate::token::{self, Token};

const PLAINTEXT: &[u8] = b"We, the undersigned, keep it to ourselves.";
/// The value of the keys that were made outside, where a test knows it.
const VALUE: [u8; 32] = *b"a key that is known to the test.";
const BOTH: &str = "encrypt,decrypt";

/// The bytes behind a value's text.
fn raw(made: &Value, member: &str) -> Vec<u8> {
    let text = made[member].as_str().unwrap();
    STANDARD.decode(text.strip_prefix("vault:v1:").unwrap()).unwrap()
}

fn sealed(bytes: &[u8]) -> String {
    format!("vault:v1:{}", STANDARD.encode(bytes))
}

/// The key of a known value, in this process.
fn outside(operation: KeyOperation) -> Bytes {
    SecretKey::new(KeyKind::Aes { bits: 256 }, VALUE.to_vec()).unwrap().perform(&operation).unwrap()
}

async fn plaintext(daemon: &Daemon, name: &str, asked: Value) -> Vec<u8> {
    let read = daemon.write(&format!("transit/decrypt/{name}"), asked).await;
    STANDARD.decode(read["plaintext"].as_str().unwrap()).unwrap()
}

/// What an AES key in a token does, and one of the same value in this process.
async fn both_ways(stanza: &'static str) {
    let token = Token::new();
    token.import_secret("gcm", "01", "AES:32", &VALUE);
    token.import_secret("cbc", "02", "AES:32", &VALUE);
    let daemon = Daemon::with(&token, Setup { stanza, ..Setup::default() }).await;
    let aes = |mechanism: &str| json!({"mechanism": mechanism, "usages": BOTH, "allow_generate_key": false});
    daemon.transit_key("gcm", aes("0x1087")).await;
    daemon.transit_key("cbc", aes("0x1085")).await;
    let asked = json!({"plaintext": STANDARD.encode(PLAINTEXT), "associated_data": STANDARD.encode("aad")});
    let made = raw(&daemon.write("transit/encrypt/gcm", asked).await, "ciphertext");
    let cipher = |iv: &[u8]| Cipher::AesGcm { iv: iv.try_into().unwrap(), associated_data: Bytes::from_static(b"aad") };
    let ciphertext = Bytes::copy_from_slice(&made[12..]);
    assert_eq!(outside(KeyOperation::Decrypt { cipher: cipher(&made[..12]), ciphertext }), PLAINTEXT);
    let own =
        outside(KeyOperation::Encrypt { cipher: cipher(&[9; 12]), plaintext: SecretBytes::new(PLAINTEXT.to_vec()) });
    let asked = json!({"ciphertext": sealed(&own), "associated_data": STANDARD.encode("aad")});
    assert_eq!(plaintext(&daemon, "gcm", asked.clone()).await, PLAINTEXT);
    // A wrong tag is the caller's fault, and costs no session.
    let mut changed = own.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    for wrong in [json!({"ciphertext": sealed(&changed)}), json!({"ciphertext": sealed(&own)})] {
        let (status, told) = daemon.refused("transit/decrypt/gcm", wrong).await;
        assert!(status == 400 && told.contains("the token refuses the input"), "{status} {told}");
    }
    assert_eq!(plaintext(&daemon, "gcm", asked).await, PLAINTEXT);
    let scraped = crate::daemon::scrape(&daemon.folder.join("metrics.sock"));
    assert_eq!(sum(&scraped, "keyway_session_evictions_total", &[]), 0.0);
    // CBC, by openssl.
    let made = daemon.write("transit/encrypt/cbc", json!({"plaintext": STANDARD.encode(PLAINTEXT)})).await;
    let made = raw(&made, "ciphertext");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sealed"), &made[16..]).unwrap();
    let (key, iv) = (hex::encode(VALUE), hex::encode(&made[..16]));
    let enc = ["enc", "-aes-256-cbc", "-K", &key, "-iv", &iv, "-in"];
    openssl(folder.path(), &[&enc[..], &["sealed", "-d", "-out", "message"]].concat()).unwrap();
    assert_eq!(std::fs::read(folder.path().join("message")).unwrap(), PLAINTEXT);
    openssl(folder.path(), &[&enc[..], &["message", "-e", "-out", "again"]].concat()).unwrap();
    let again = [&made[..16], &std::fs::read(folder.path().join("again")).unwrap()].concat();
    assert_eq!(plaintext(&daemon, "cbc", json!({"ciphertext": sealed(&again)})).await, PLAINTEXT);
    // Long ones, as one frame to a worker process takes.
    let long = vec![0x5a; 1 << 20];
    for name in ["gcm", "cbc"] {
        let path = format!("transit/encrypt/{name}");
        let made = daemon.write(&path, json!({"plaintext": STANDARD.encode(&long)})).await;
        assert!(plaintext(&daemon, name, json!({"ciphertext": made["ciphertext"]})).await == long, "{name}");
    }
}

#[tokio::test]
async fn an_aes_key_of_a_token_and_one_of_the_same_value_outside_read_each_other() {
    both_ways("").await;
}

#[tokio::test]
async fn an_aes_key_behind_a_worker_process_does_the_same() {
    both_ways("isolation = \"process\"").await;
}

#[tokio::test]
async fn openssl_makes_the_macs_that_the_token_makes() {
    let token = Token::new();
    // As long as the longest of the hashes: SoftHSM takes no shorter key for it.
    let value = [VALUE, VALUE].concat();
    token.import_generic("mac", &[1], &value);
    let daemon = Daemon::new(&token).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("message"), PLAINTEXT).unwrap();
    let key = format!("hexkey:{}", hex::encode(&value));
    for (mechanism, hash) in [("0x0251", "-sha256"), ("0x0261", "-sha384"), ("0x0271", "-sha512")] {
        let name = format!("mac{hash}");
        let more = json!({"mechanism": mechanism, "key_label": "mac", "usages": "mac", "allow_generate_key": false});
        daemon.transit_key(&name, more).await;
        let made = daemon.write(&format!("transit/hmac/{name}"), json!({"input": STANDARD.encode(PLAINTEXT)})).await;
        let digest = ["dgst", hash, "-mac", "HMAC", "-macopt", &key, "-binary", "-out", "mac", "message"];
        openssl(folder.path(), &digest).unwrap();
        let theirs = std::fs::read(folder.path().join("mac")).unwrap();
        assert_eq!(raw(&made, "hmac"), theirs, "{hash}");
        let asked = json!({"input": STANDARD.encode(PLAINTEXT), "hmac": sealed(&theirs)});
        assert_eq!(daemon.write(&format!("transit/verify/{name}"), asked).await["valid"], true);
        let asked = json!({"input": STANDARD.encode("another"), "hmac": sealed(&theirs)});
        assert_eq!(daemon.write(&format!("transit/verify/{name}"), asked).await["valid"], false);
    }
}

#[tokio::test]
async fn secret_keys_are_generated_sensitive_and_never_leave() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.transit_key("aes", json!({"mechanism": "0x1087", "key_bits": 256, "usages": BOTH})).await;
    daemon.transit_key("mac", json!({"mechanism": "0x0251", "usages": "mac"})).await;
    let listed = token.listed("secrkey");
    for label in ["aes", "mac"] {
        assert!(listed.contains(&format!("label:      {label}")), "{listed}");
    }
    assert_eq!(listed.matches("sensitive, always sensitive, never extractable, local").count(), 2, "{listed}");
    let framed = daemon.framed().await;
    let encrypt = proto::Encrypt {
        mount: "transit".into(),
        key: "aes".into(),
        plaintext: PLAINTEXT.into(),
        associated_data: "aad".into(),
        ..proto::Encrypt::default()
    };
    let made = framed.encrypt(encrypt).await.unwrap();
    // The same is read over HTTP.
    let asked = json!({"ciphertext": sealed(&made.ciphertext), "associated_data": STANDARD.encode("aad")});
    assert_eq!(plaintext(&daemon, "aes", asked).await, PLAINTEXT);
    let decrypt = proto::Decrypt {
        mount: "transit".into(),
        key: "aes".into(),
        key_version: made.key_version,
        ciphertext: made.ciphertext,
        associated_data: "aad".into(),
        ..proto::Decrypt::default()
    };
    assert_eq!(framed.decrypt(decrypt).await.unwrap(), PLAINTEXT);
    let mac =
        proto::Mac { mount: "transit".into(), key: "mac".into(), input: PLAINTEXT.into(), ..proto::Mac::default() };
    let made = framed.mac(mac).await.unwrap();
    let asked = json!({"input": STANDARD.encode(PLAINTEXT), "hmac": sealed(&made.mac)});
    assert_eq!(daemon.write("transit/verify/mac", asked).await["valid"], true);
    let document = daemon.read("transit/keys/aes").await;
    assert_eq!((&document["keys"]["1"]["name"], &document["keys"]["1"]["public_key"]), (&json!("aes-256"), &json!("")));
}

#[tokio::test]
async fn an_encryption_costs_two_calls_and_no_search() {
    let token = Token::new();
    let daemon = Daemon::with(&token, Setup { stanza: "max_sessions = 1", ..Setup::default() }).await;
    daemon.transit_key("aes", json!({"mechanism": "0x1087", "key_bits": 256, "usages": BOTH})).await;
    let framed = daemon.framed().await;
    let encrypt = || proto::Encrypt { mount: "transit".into(), key: "aes".into(), ..proto::Encrypt::default() };
    framed.encrypt(encrypt()).await.unwrap();
    let functions = ["C_EncryptInit", "C_Encrypt", "C_EncryptUpdate", "C_FindObjectsInit", "C_GetAttributeValue"];
    let counts = || functions.map(|function| token.calls(function));
    let before = counts();
    for _ in 0..100 {
        framed.encrypt(encrypt()).await.unwrap();
    }
    let mut risen = counts();
    risen.iter_mut().zip(before).for_each(|(after, before)| *after -= before);
    assert_eq!(risen, [100, 100, 0, 0, 0]);
}

#[tokio::test]
async fn a_ciphertext_that_a_device_has_no_word_for_costs_no_session() {
    let token = Token::new();
    let setup = Setup { profile: Some("generic"), stanza: "max_sessions = 1", ..Setup::default() };
    let daemon = Daemon::with(&token, setup).await;
    daemon.transit_key("aes", json!({"mechanism": "0x1087", "key_bits": 256, "usages": BOTH})).await;
    let made = daemon.write("transit/encrypt/aes", json!({"plaintext": "eA=="})).await;
    let asked = || json!({"ciphertext": made["ciphertext"]});
    let evictions =
        || sum(&crate::daemon::scrape(&daemon.folder.join("metrics.sock")), "keyway_session_evictions_total", &[]);
    token.steer("fail C_Decrypt CKR_FUNCTION_FAILED");
    for _ in 0..20 {
        let (status, told) = daemon.refused("transit/decrypt/aes", asked()).await;
        assert!(status == 400 && told.contains("CKR_FUNCTION_FAILED"), "{status} {told}");
    }
    assert_eq!(evictions(), 0.0);
    // What only fails once is done after all; and trouble that is not the ciphertext's costs the session.
    token.steer("clear");
    token.steer("fail C_Decrypt CKR_FUNCTION_FAILED nth 1");
    assert_eq!(plaintext(&daemon, "aes", asked()).await, b"x");
    assert_eq!(evictions(), 0.0);
    token.steer("fail C_Encrypt CKR_DEVICE_ERROR nth 1");
    token.steer("fail C_Decrypt CKR_DEVICE_ERROR nth 1");
    assert_eq!(plaintext(&daemon, "aes", asked()).await, b"x");
    assert!(evictions() > 0.0);
}

#[tokio::test]
async fn a_pool_encrypts_with_copies_of_one_key_and_refuses_two_keys_of_one_name() {
    let token = Token::absent();
    let sim = Sim::softhsm(token::module(), &rig::module(&token), &TOKENS);
    let softhsm = Softhsm::new(&sim.module.with_extension("softhsm"));
    for (letter, name) in (b'a'..).zip(TOKENS) {
        softhsm.import_aes(name, "same", "01", &VALUE);
        softhsm.import_aes(name, "two", "02", &[letter; 32]);
    }
    let rig = Rig::on(token, sim, Setup { more: rig::pool(""), ..Setup::default() }).await;
    let pooled = |label: &str| {
        json!({
            "library": "both", "token_label": "", "key_label": label, "mechanism": "0x1087", "usages": BOTH,
            "allow_generate_key": false, "any_mount": true,
        })
    };
    rig.daemon.transit_key("same", pooled("same")).await;
    for name in TOKENS {
        rig.until_serving(name).await;
    }
    let jobs = |name: &str| rig.jobs(name);
    let begun = std::time::Instant::now();
    // Until both have made ciphertexts that each of them reads.
    while jobs("one") < 10.0 || jobs("two") < 10.0 {
        assert!(begun.elapsed() < crate::daemon::LIMIT);
        let items: Vec<Value> = (0..64).map(|_| json!({"plaintext": "eA=="})).collect();
        let made = rig.daemon.write("transit/encrypt/same", json!({"batch_input": items})).await;
        let made = made["batch_results"].as_array().unwrap().clone();
        let read = rig.daemon.write("transit/decrypt/same", json!({"batch_input": made})).await;
        assert!(read["batch_results"].as_array().unwrap().iter().all(|item| item["plaintext"] == "eA=="), "{read}");
    }
    rig.write("", "sys/managed-keys/pkcs11/two", pooled("two")).await;
    let asked = json!({"type": "managed_key", "managed_key_name": "two"});
    let (status, told) = rig.daemon.refused("transit/keys/two", asked).await;
    assert!(status == 500 && told.contains("hold different keys under its label"), "{status} {told}");
}

#[tokio::test]
async fn another_secret_key_under_the_same_label_encrypts_for_nobody() {
    let token = Token::new();
    token.import_secret("aes", "01", "AES:32", &VALUE);
    let daemon = Daemon::new(&token).await;
    let settings = json!({"mechanism": "0x1087", "usages": BOTH, "allow_generate_key": false});
    daemon.transit_key("aes", settings).await;
    let made = daemon.write("transit/encrypt/aes", json!({"plaintext": "eA=="})).await;
    let root_token = daemon.root_token.clone();
    drop(daemon);
    token.remove_secret("01");
    token.import_secret("aes", "01", "AES:32", &[7; 32]);
    let restarted = |root_token: &str| {
        let mut daemon = Daemon::start(&token, Setup::default());
        daemon.root_token = root_token.to_owned();
        daemon
    };
    let daemon = restarted(&root_token);
    let (begun, mut told) = (std::time::Instant::now(), String::new());
    while !told.contains("is not the key recorded") {
        let (status, now) = daemon.refused("transit/encrypt/aes", json!({"plaintext": "eA=="})).await;
        assert!(status >= 500, "{status} {now}");
        told = now;
        assert!(begun.elapsed() < crate::daemon::LIMIT, "{told}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(daemon.log().contains("ANOTHER KEY"), "{}", daemon.log());
    drop(daemon);
    token.remove_secret("01");
    token.import_secret("aes", "01", "AES:32", &VALUE);
    let daemon = restarted(&root_token);
    let begun = std::time::Instant::now();
    let asked = json!({"ciphertext": made["ciphertext"]});
    loop {
        let answer = daemon.ask(keyway::model::Verb::Write, "transit/decrypt/aes", asked.clone()).await;
        if answer.status == 200 {
            assert_eq!(answer.json()["data"]["plaintext"], "eA==");
            return;
        }
        assert!(begun.elapsed() < crate::daemon::LIMIT, "{}", daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
