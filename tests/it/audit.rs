//! Audit devices: who has asked what, and what came of it, in a file that tells no secret.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use keyway::client::{Framed, Identity};
use keyway::model::{Secret, Verb};
use keyway::wire::proto;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::daemon::{Daemon, LIMIT, Setup};
use crate::rig::{Rig, TOKENS};
use crate::token::{LABEL, PIN, Token};

/// The records of a file, each of which must be a whole line.
pub(crate) fn records(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Enables a file device of this name, and answers its path.
pub(crate) async fn file_device(daemon: &Daemon, name: &str) -> PathBuf {
    let path = daemon.folder.join(format!("{name}.log"));
    daemon.write(&format!("sys/audit/{name}"), json!({"type": "file", "options": {"file_path": path}})).await;
    path
}

async fn hash(daemon: &Daemon, device: &str, input: &str) -> String {
    let told = daemon.write(&format!("sys/audit-hash/{device}"), json!({"input": input})).await;
    told["hash"].as_str().unwrap().to_owned()
}

/// The two records of the request of this id.
fn both(records: &[Value], id: &str) -> (Value, Value) {
    let found: Vec<&Value> = records.iter().filter(|record| record["request"]["id"] == id).collect();
    assert_eq!(found.iter().map(|record| &record["type"]).collect::<Vec<_>>(), ["request", "response"], "{id}");
    (found[0].clone(), found[1].clone())
}

#[tokio::test]
async fn a_device_is_enabled_listed_and_disabled_by_the_root_namespace_alone() {
    let rig = Rig::null(&TOKENS, &["doc"], Setup::default()).await;
    let daemon = &rig.daemon;
    let path = daemon.folder.join("audit.log");
    let options = json!({"file_path": path, "mode": "0640"});
    for (data, said) in [
        (json!({}), "type of the device is required"),
        (json!({"type": "file"}), "file_path is required"),
        (json!({"type": "file", "options": {"file_path": path, "prefix": "x"}}), "prefix is not to be had"),
        (
            json!({"type": "file", "options": {"file_path": "/nowhere/audit.log"}}),
            "cannot be written: audit device file/",
        ),
        (json!({"type": "file", "options": {"file_path": daemon.folder}}), "directory"),
        (json!({"type": "file", "options": {"file_path": daemon.folder.join("keyway.redb")}}), "something else"),
    ] {
        let (status, error) = daemon.refused("sys/audit/file", data).await;
        assert!(status == 400 && error.contains(said), "{status} {error}");
    }
    let link = daemon.folder.join("link.log");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let through = json!({"type": "file", "options": {"file_path": link}});
    assert_eq!(daemon.refused("sys/audit/file", through).await.0, 400, "no link is followed");
    let device = json!({"type": "file", "description": "for the auditors", "options": options, "local": true});
    daemon.write("sys/audit/file", device).await;
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o640);
    let (status, error) = daemon.refused("sys/audit/file", json!({"type": "file", "options": options})).await;
    assert_eq!((status, error.as_str()), (400, "path already in use at file/"));
    let listed = daemon.ask(Verb::Read, "sys/audit", json!({})).await.json();
    let shown = json!({
        "type": "file", "description": "for the auditors", "options": options, "local": true, "path": "file/",
    });
    assert_eq!((&listed["data"]["file/"], &listed["file/"]), (&shown, &shown));
    rig.write("", "sys/namespaces/tenant", json!({})).await;
    for (verb, path, data) in [
        (Verb::Read, "sys/audit", json!({})),
        (Verb::Write, "sys/audit/own", json!({"type": "file", "options": {"file_path": "discard"}})),
        (Verb::Delete, "sys/audit/file", json!({})),
        (Verb::Write, "sys/audit-hash/file", json!({"input": "x"})),
    ] {
        let answer = rig.ask("tenant", verb, path, data).await;
        assert_eq!((answer.status, &answer.json()["errors"][0]), (400, &json!("operation unavailable in namespaces")));
    }
    for (sudo, status) in [("", 403), (", \"sudo\"", 200)] {
        let policy = format!("path \"sys/audit\" {{ capabilities = [\"read\"{sudo}] }}");
        daemon.write("sys/policies/acl/auditor", json!({"policy": policy})).await;
        let made = daemon.ask(Verb::Write, "auth/token/create", json!({"policies": ["auditor"]})).await.json();
        let mut auditor = daemon.http();
        auditor.token = made["auth"]["client_token"].as_str().map(Secret::from);
        assert_eq!(auditor.request(Verb::Read, "sys/audit", &Default::default()).await.unwrap().status, status);
    }
    let listed = daemon.cli(&["audit", "list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("file/"), "{listed:?}");
    let off = daemon.cli(&["audit", "disable", "file"]);
    assert!(off.status.success(), "{off:?}");
    let before = records(&path).len();
    assert_eq!(daemon.read("sys/audit").await, json!({}));
    assert_eq!(records(&path).len(), before, "nothing is recorded any more");
    assert_eq!(records(&path).last().unwrap()["type"], "response");
    let on = daemon.cli(&["audit", "enable", "-path=again", "file", &format!("file_path={}", path.display())]);
    assert!(on.status.success(), "{on:?}");
    assert_eq!(daemon.read("sys/audit").await["again/"]["type"], "file");
}

#[tokio::test]
async fn what_is_asked_on_either_wire_is_recorded_twice_and_found_again_by_its_hash() {
    let rig = Rig::null(&TOKENS, &["doc"], Setup::default()).await;
    let daemon = &rig.daemon;
    rig.key("doc", json!({})).await;
    let log = file_device(daemon, "file").await;
    let input = STANDARD.encode(b"a contract");
    let answer = daemon.ask(Verb::Write, "transit/sign/doc", json!({"input": input})).await.json();
    let sign = proto::Sign {
        mount: "transit".into(),
        key: "doc".into(),
        input: Bytes::from_static(b"a contract"),
        ..Default::default()
    };
    let framed = daemon.framed().await;
    let signature = framed.sign(sign).await.unwrap().signature;
    let hashed = hash(daemon, "file", &input).await;
    let token = hash(daemon, "file", &daemon.root_token).await;
    let all = records(&log);
    assert_eq!(all[0]["request"]["path"], "sys/audit/test");
    let (asked, answered) = both(&all, answer["request_id"].as_str().unwrap());
    for record in [&asked, &answered] {
        let request = &record["request"];
        assert_eq!((&request["data"]["input"], &request["client_token"]), (&json!(hashed), &json!(token)));
        assert_eq!((&request["operation"], &request["path"]), (&json!("update"), &json!("transit/sign/doc")));
        assert_eq!((&request["mount_type"], &request["mount_point"]), (&json!("transit"), &json!("transit/")));
        assert_eq!((&request["wire"], &request["namespace"]["id"]), (&json!("http"), &json!("root")));
        assert_eq!(request["peer"]["uid"], rustix::process::getuid().as_raw());
        let auth = &record["auth"];
        assert_eq!((&auth["client_token"], &auth["display_name"]), (&json!(token), &json!("root")));
        assert_eq!((&auth["policies"], &auth["policy_results"]["allowed"]), (&json!(["root"]), &json!(true)));
    }
    let made = hash(daemon, "file", answer["data"]["signature"].as_str().unwrap()).await;
    assert_eq!((&answered["response"]["data"]["signature"], &answered["error"]), (&json!(made), &Value::Null));
    // The typed operation says what its form over HTTP would.
    let made = hash(daemon, "file", &format!("vault:v1:{}", STANDARD.encode(&signature))).await;
    let typed: Vec<&Value> = all.iter().filter(|record| record["request"]["wire"] == "framed").collect();
    assert_eq!(typed.len(), 2);
    assert_eq!(typed[1]["response"]["data"]["signature"], made);
    assert_eq!(typed[0]["request"]["id"], typed[1]["request"]["id"]);
    assert_eq!(typed[0]["request"]["path"], "transit/sign/doc");
    assert!(typed.iter().all(|record| record["request"]["data"]["input"] == hashed));
    // A generic request on the framed wire is known by the id it is answered with.
    let mounts = proto::Request { path: "sys/mounts".into(), ..proto::Request::default() };
    let told: Value = serde_json::from_slice(&framed.request(mounts).await.unwrap().body).unwrap();
    both(&records(&log), told["request_id"].as_str().unwrap());
    daemon.write("sys/mounts/transit/tune", json!({"audit_non_hmac_request_keys": "input"})).await;
    daemon.ask(Verb::Write, "transit/sign/doc", json!({"input": input})).await.success().unwrap();
    assert_eq!(records(&log).last().unwrap()["request"]["data"]["input"], input);
}

#[tokio::test]
async fn who_is_refused_is_recorded_and_who_asks_after_the_daemons_health_is_not() {
    let rig = Rig::null(&TOKENS, &["doc"], Setup::default()).await;
    let daemon = &rig.daemon;
    let log = file_device(daemon, "file").await;
    let before = records(&log).len();
    for path in ["sys/health", "sys/seal-status", "sys/leader", "sys/init"] {
        daemon.ask(Verb::Read, path, json!({})).await;
    }
    assert_eq!(records(&log).len(), before);
    let mut stranger = daemon.http();
    stranger.token = Some(Secret::from("hvs.guessed"));
    let answer = stranger.request(Verb::Write, "sys/mounts/pki", &Default::default()).await.unwrap();
    assert_eq!(answer.status, 403);
    let all = records(&log);
    let (asked, answered) = (&all[before], &all[before + 1]);
    for record in [asked, answered] {
        assert_eq!(record["error"], "permission denied");
        assert_eq!(record["auth"]["policy_results"]["allowed"], false);
        assert_eq!(record["request"]["client_token"], hash(daemon, "file", "hvs.guessed").await);
    }
    let (status, error) = daemon.refused("sys/mounts/x", json!({"type": "secret type"})).await;
    assert_eq!(status, 400);
    let all = records(&log);
    let failed = all.iter().rfind(|record| record["error"] == "invalid_request").unwrap();
    assert_eq!(failed["response"]["data"]["error"], hash(daemon, "file", &error).await, "it may say what was asked");
}

/// What a write of nothing answers that asks for a token in the place of its answer.
async fn wrapped(daemon: &Daemon, path: &str) -> Value {
    let mut curl = std::process::Command::new("curl");
    curl.args(["-s", "-X", "POST", "-H", "X-Vault-Wrap-TTL: 5m", "--unix-socket"]).arg(daemon.socket());
    curl.args(["-H", &format!("X-Vault-Token: {}", daemon.root_token), &format!("http://keyway/v1/{path}")]);
    let output = tokio::task::spawn_blocking(move || curl.output().unwrap()).await.unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn no_secret_of_a_session_is_in_the_records() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let log = file_device(&daemon, "file").await;
    daemon.certificate_authority().await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    let own = json!({"options": {"kms_library": "hsm", "token_label": LABEL}});
    daemon.write("sys/mounts/transit/tune", own).await;
    daemon.write("transit/keys/own", json!({"type": "aes256-gcm96"})).await;
    daemon.managed_key("pinned", json!({"mechanism": "0x1041", "curve": "P256", "pin": PIN})).await;
    // A PIN may come as a number.
    daemon.ask(Verb::Write, "sys/managed-keys/pkcs11/number", json!({"pin": 98_765_432})).await;
    let mut secrets = vec![daemon.root_token.clone(), "98765432".to_owned(), format!("\"{}\"", PIN)];
    let made = daemon.ask(Verb::Write, "auth/token/create", json!({"policies": ["default"]})).await.json();
    secrets.push(made["auth"]["client_token"].as_str().unwrap().to_owned());
    secrets.push(made["auth"]["accessor"].as_str().unwrap().to_owned());
    let wrapped = wrapped(&daemon, "auth/token/create").await;
    let wrapping_token = wrapped["wrap_info"]["token"].as_str().unwrap().to_owned();
    let unwrapped = daemon.ask(Verb::Write, "sys/wrapping/unwrap", json!({"token": wrapping_token})).await.json();
    secrets.push(unwrapped["auth"]["client_token"].as_str().unwrap().to_owned());
    secrets.push(wrapping_token);
    let plain = STANDARD.encode(b"the plaintext that nobody is to read");
    let sealed = daemon.write("transit/encrypt/own", json!({"plaintext": plain})).await;
    daemon.write("transit/decrypt/own", json!({"ciphertext": sealed["ciphertext"]})).await;
    secrets.extend([plain, sealed["ciphertext"].as_str().unwrap().to_owned()]);
    let datakey = daemon.write("transit/datakey/plaintext/own", json!({})).await;
    secrets.push(datakey["plaintext"].as_str().unwrap().to_owned());
    let role = json!({"key_type": "ec", "key_bits": 256, "allow_any_name": true});
    daemon.write("pki/roles/web", role).await;
    let issued = daemon.write("pki/issue/web", json!({"common_name": "host.example"})).await;
    let key: Vec<&str> = issued["private_key"].as_str().unwrap().lines().collect();
    secrets.extend(key[1..key.len() - 1].iter().map(|line| (*line).to_owned()));
    let framed = daemon.framed().await;
    let asked = proto::Encrypt {
        mount: "transit".into(),
        key: "own".into(),
        plaintext: Bytes::from_static(b"framed words"),
        ..Default::default()
    };
    framed.encrypt(asked).await.unwrap();
    secrets.push(STANDARD.encode(b"framed words"));
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.lines().count() > 30, "{text}");
    for secret in &secrets {
        assert!(!text.contains(secret.as_str()), "{secret:?} is in the records");
        assert!(!text.contains(secret.escape_default().to_string().as_str()));
    }
    let known = hash(&daemon, "file", made["auth"]["client_token"].as_str().unwrap()).await;
    assert!(text.contains(&known), "and yet is known again");
    assert!(!daemon.log().contains(&daemon.root_token));
}

/// Has things signed by a token, as fast as it goes, until the daemon refuses.
async fn sign_until_refused(socket: PathBuf, token: String, go: Arc<Semaphore>) {
    let identity = Identity { token: Secret::from(token.as_str()), namespace: String::new() };
    let framed = Framed::connect(&socket, &identity, proto::Class::Interactive, Some(LIMIT)).await.unwrap();
    let one = || async {
        let input = Bytes::from_static(b"a contract");
        let sign = proto::Sign { mount: "transit".into(), key: "doc".into(), input, ..Default::default() };
        let signed = framed.sign(sign).await;
        go.add_permits(1);
        signed
    };
    while tokio::join!(one(), one(), one(), one(), one(), one(), one(), one()).7.is_ok() {}
}

#[tokio::test]
async fn what_is_asked_while_its_token_is_revoked_is_done_and_recorded_as_its_bearers_or_not_at_all() {
    let rig = Rig::null(&TOKENS, &["doc"], Setup::default()).await;
    let daemon = &rig.daemon;
    rig.key("doc", json!({})).await;
    let log = file_device(daemon, "file").await;
    for _ in 0..128 {
        let made = daemon.ask(Verb::Write, "auth/token/create", json!({"policies": ["root"]})).await.json();
        let token = made["auth"]["client_token"].as_str().unwrap().to_owned();
        let (socket, go) = (daemon.socket().with_extension("sock.framed"), Arc::new(Semaphore::new(0)));
        let signing: Vec<_> =
            (0..4).map(|_| tokio::spawn(sign_until_refused(socket.clone(), token.clone(), Arc::clone(&go)))).collect();
        drop(go.acquire_many(64).await.unwrap());
        daemon.write("auth/token/revoke", json!({"token": token})).await;
        for each in signing {
            each.await.unwrap();
        }
    }
    let signed = records(&log).into_iter().filter(|record| record["request"]["path"] == "transit/sign/doc");
    let (mut done, mut refused) = (0, 0);
    for record in signed {
        let has_bearer = record["auth"]["accessor"].is_string();
        let is_allowed = record["auth"]["policy_results"]["allowed"] == true;
        assert!(has_bearer || !is_allowed, "allowed to nobody: {record}");
        match record["error"].is_null() && record["type"] == "response" {
            true => done += 1,
            false => refused += usize::from(!has_bearer),
        }
    }
    assert!(done > 0 && refused > 0, "{done} were done, {refused} refused");
}
