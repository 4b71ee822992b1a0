//! The key of the seal is no managed key's: whoever registers it, however it is named, is refused.

use keyway::model::Verb;
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT, Setup};
use crate::token::{self, LABEL, PIN, Token};

const FOUND: &str = "seal \"pkcs11\" {\n library = \"hsm\"\n token_label = \"keyway-test\"\n key_label = \"seal\"\n}\n";
const VALUE: [u8; 32] = [3; 32];

/// The same module under another name, which carries no PIN, and the token as a pool.
fn other() -> &'static str {
    let (module, profile) = (token::module().display(), token::profile());
    let library = format!("name = \"other\"\n library = \"{module}\"\n profile = \"{profile}\"");
    let member = format!("member {{\n library = \"hsm\"\n token_label = \"{LABEL}\"\n }}");
    format!("kms_library \"pkcs11\" {{\n {library}\n}}\nkms_pool \"pool\" {{\n {member}\n}}\n").leak()
}

fn setup(seal: &'static str) -> Setup {
    Setup { seal, more: other(), ..Setup::default() }
}

/// A managed key for AES-GCM of this token, with these fields instead.
fn aes(more: Value) -> Value {
    let mut data = json!({
        "library": "hsm", "token_label": LABEL, "key_label": "seal", "mechanism": "0x1087", "key_bits": 256,
        "usages": "encrypt,decrypt", "any_mount": true, "allow_generate_key": true,
    });
    for (field, value) in more.as_object().unwrap() {
        match value.is_null() {
            true => drop(data.as_object_mut().unwrap().remove(field)),
            false => drop(data.as_object_mut().unwrap().insert(field.clone(), value.clone())),
        }
    }
    data
}

async fn ask(daemon: &Daemon, namespace: &str, path: &str, data: Value) -> (u16, String) {
    let mut http = daemon.http();
    http.namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
    http.deadline = Some(LIMIT);
    let answer = http.request(Verb::Write, path, data.as_object().unwrap()).await.unwrap();
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

/// Registers a managed key, and has Transit use it; answers the first refusal.
async fn used(daemon: &Daemon, namespace: &str, name: &str, data: Value) -> (u16, String) {
    let key = json!({"type": "managed_key", "managed_key_name": name});
    for (path, data) in [(format!("sys/managed-keys/pkcs11/{name}"), data), (format!("transit/keys/{name}"), key)] {
        let (status, told) = ask(daemon, namespace, &path, data).await;
        if status >= 300 {
            return (status, told);
        }
    }
    (204, String::new())
}

/// The number of the token's slot.
fn slot(token: &Token) -> String {
    let report: Value = serde_json::from_str(&token.steer("report")[0]).unwrap();
    let slot = report["slots"].as_array().unwrap().iter().find(|slot| slot["label"] == LABEL).unwrap();
    slot["slot"].to_string()
}

fn restart(token: &Token, mut daemon: Daemon, setup: Setup) -> Daemon {
    daemon.signal("TERM");
    assert!(daemon.ended().success(), "{}", daemon.log());
    let root_token = daemon.root_token.clone();
    drop(daemon);
    let mut daemon = Daemon::start(token, setup);
    daemon.root_token = root_token;
    daemon
}

#[tokio::test]
async fn whoever_names_the_key_of_the_seal_is_refused_however_he_names_it() {
    let token = Token::new();
    token.import_secret("seal", "01", "AES:32", &VALUE);
    token.import_secret("copy", "02", "AES:32", &VALUE);
    token.import_secret("mine", "03", "AES:32", &[4; 32]);
    let daemon = Daemon::with(&token, setup(FOUND)).await;
    daemon.write("sys/namespaces/team", json!({})).await;
    for namespace in ["", "team"] {
        assert_eq!(ask(&daemon, namespace, "sys/mounts/transit", json!({"type": "transit"})).await.0, 204);
    }
    // One that is not.
    assert_eq!(used(&daemon, "team", "mine", aes(json!({"key_label": "mine"}))).await, (204, String::new()));
    let slot = slot(&token);
    let unnamed = Value::Null;
    // Refused before the token is asked.
    let named = [
        json!({}),
        json!({"allow_generate_key": false}),
        json!({"key_id": "99"}),
        json!({"key_label": unnamed, "key_id": "01", "allow_generate_key": false}),
        json!({"library": "other", "pin": PIN}),
        json!({"mechanism": "0x0251", "usages": "mac"}),
    ];
    // Known when it is found.
    let found = [
        json!({"token_label": "", "slot": slot}),
        json!({"token_label": "", "slot": slot, "key_label": unnamed, "key_id": "01", "allow_generate_key": false}),
        json!({"library": "other", "pin": PIN, "token_label": "", "slot": slot}),
        json!({"key_label": "copy"}),
        json!({"library": "pool", "token_label": ""}),
    ];
    for (index, more) in named.iter().chain(&found).enumerate() {
        for namespace in ["", "team"] {
            let (status, told) = used(&daemon, namespace, &format!("k{index}"), aes(more.clone())).await;
            assert!(status == 400 && told.contains("that of the seal"), "{namespace} {more}: {status} {told}");
        }
        let listed = daemon.ask(Verb::Read, &format!("sys/managed-keys/pkcs11/k{index}"), json!({})).await;
        assert_eq!(listed.status < 300, index >= named.len(), "{more}");
        // What is registered is of no use later, either.
        let (status, _) = ask(&daemon, "", &format!("transit/encrypt/k{index}"), json!({"plaintext": "eA=="})).await;
        assert_eq!(status, 400, "{more}");
    }
    assert_eq!(used(&daemon, "", "new", aes(json!({"key_label": "new"}))).await, (204, String::new()));
    // A key pair of that label is another thing.
    daemon.managed_key("pair", json!({"key_label": "seal", "mechanism": "0x1041", "curve": "P256"})).await;
    assert_eq!(daemon.ask(Verb::Write, "sys/managed-keys/pkcs11/pair/test/sign", json!({})).await.status, 204);

    // Nobody makes another of that label, not even when the seal's is gone.
    token.remove_secret("01");
    let generated = token.calls("C_GenerateKey");
    let (status, told) = used(&daemon, "team", "again", aes(json!({"token_label": "", "slot": slot}))).await;
    assert!(status == 400 && told.contains("key of the seal"), "{status} {told}");
    assert_eq!(token.calls("C_GenerateKey"), generated);
    token.import_secret("seal", "01", "AES:32", &VALUE);
    let daemon = restart(&token, daemon, setup(FOUND));
    assert_eq!(ask(&daemon, "team", "transit/encrypt/mine", json!({"plaintext": "eA=="})).await.0, 200);
    assert_eq!(ask(&daemon, "", "transit/encrypt/new", json!({"plaintext": "eA=="})).await.0, 200);
}

#[tokio::test]
async fn a_seal_that_takes_a_key_already_in_use_says_so_and_nobody_uses_it_any_more() {
    let token = Token::new();
    token.import_secret("seal", "01", "AES:32", &VALUE);
    let daemon = Daemon::with(&token, setup("")).await;
    daemon.write("sys/mounts/transit", json!({"type": "transit"})).await;
    for name in ["seal", "new"] {
        assert_eq!(used(&daemon, "", name, aes(json!({"key_label": name}))).await, (204, String::new()));
    }
    let plain = json!({"plaintext": "eA=="});
    assert_eq!(ask(&daemon, "", "transit/encrypt/seal", plain.clone()).await.0, 200);
    let home = daemon.folder.display().to_string();
    let both = format!("seal \"file\" {{\n path = \"{home}/seal.key\"\n disabled = true\n}}\n{FOUND}").leak();
    let mut daemon = restart(&token, daemon, setup(both));
    for _ in 0..2 {
        assert_eq!(daemon.ask(Verb::Read, "sys/seal-status", json!({})).await.json()["sealed"], false);
        let log = daemon.log();
        assert!(log.contains("THE KEY OF THE SEAL is a managed key's") && log.contains("key=\"seal\""), "{log}");
        let (status, told) = ask(&daemon, "", "transit/encrypt/seal", plain.clone()).await;
        assert!(status == 400 && told.contains("that of the seal"), "{status} {told}");
        let (status, told) = used(&daemon, "", "seal", aes(json!({}))).await;
        assert!(status == 400 && told.contains("that of the seal"), "{status} {told}");
        assert_eq!(ask(&daemon, "", "transit/encrypt/new", plain.clone()).await.0, 200);
        daemon = restart(&token, daemon, setup(both));
    }
}
