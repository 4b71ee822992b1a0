//! The root key wrapped by a key in an HSM.

use keyway::model::Verb;
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT, Setup, wait_for};
use crate::token::{LABEL, Token};

const GENERATED: &str = "seal \"pkcs11\" {\n library = \"hsm\"\n token_label = \"keyway-test\"\n key_label = \"seal\"\n generate_key = true\n}\n";
const FOUND: &str = "seal \"pkcs11\" {\n library = \"hsm\"\n token_label = \"keyway-test\"\n key_label = \"seal\"\n}\n";
/// The seal is asked again soon.
const SOON: &str = "limits {\n probe_min = \"10ms\"\n probe_max = \"50ms\"\n}\n";
const VALUE: [u8; 32] = [3; 32];

fn sealed_by(seal: &'static str) -> Setup {
    Setup { seal, more: SOON, ..Setup::default() }
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

async fn status(daemon: &Daemon) -> Value {
    daemon.ask(Verb::Read, "sys/seal-status", json!({})).await.json()
}

async fn write(daemon: &Daemon, path: &str) -> (u16, String) {
    let mut http = daemon.http();
    http.deadline = Some(LIMIT);
    let answer = http.request(Verb::Write, path, &Default::default()).await.unwrap();
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

async fn until_unsealed(daemon: &Daemon) {
    let begun = std::time::Instant::now();
    while status(daemon).await["sealed"] == true {
        assert!(begun.elapsed() < LIMIT, "{}", daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn signs(daemon: &Daemon) {
    daemon.write("transit/sign/doc", json!({"input": "eA=="})).await;
}

#[tokio::test]
async fn a_key_made_once_opens_the_store_beside_the_managed_keys_of_its_token() {
    let token = Token::new();
    let mut daemon = Daemon::with(&token, sealed_by(GENERATED)).await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    assert_eq!(status(&daemon).await["type"], "pkcs11");
    assert!(!daemon.folder.join("seal.key").exists());
    for _ in 0..2 {
        assert_eq!(write(&daemon, "sys/seal").await.0, 204);
        assert_eq!(status(&daemon).await["sealed"], true);
        assert_eq!(write(&daemon, "sys/unseal").await.0, 200);
        signs(&daemon).await;
        daemon = restart(&token, daemon, sealed_by(GENERATED));
        signs(&daemon).await;
    }
    assert_eq!(token.calls("C_GenerateKey"), 1);
    let listed = token.listed("secrkey");
    assert!(listed.contains("never extractable") && listed.contains("sensitive"), "{listed}");
    // Killed in the middle of anything, too.
    daemon.signal("KILL");
    daemon.ended();
    let root_token = daemon.root_token.clone();
    drop(daemon);
    let mut daemon = Daemon::start(&token, sealed_by(FOUND));
    daemon.root_token = root_token;
    signs(&daemon).await;
}

#[tokio::test]
async fn a_start_without_the_token_is_sealed_until_it_is_back() {
    let token = Token::new();
    let daemon = Daemon::with(&token, sealed_by(GENERATED)).await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    let (tokens, away) = (daemon.folder.join("tokens"), daemon.folder.join("away"));
    std::fs::rename(&tokens, &away).unwrap();
    std::fs::create_dir(&tokens).unwrap();
    let daemon = restart(&token, daemon, sealed_by(GENERATED));
    assert_eq!(daemon.ask(Verb::Read, "sys/health", json!({})).await.status, 503);
    let told = status(&daemon).await;
    assert!(told["sealed"] == true && told["initialized"] == true && told["type"] == "pkcs11", "{told}");
    wait_for("two tries", || (daemon.log().matches("SEALED: the seal does not give").count() > 1).then_some(()));
    let (refused, why) = write(&daemon, "sys/unseal").await;
    assert!(refused == 503 && why.contains(LABEL), "{refused} {why}");
    std::fs::remove_dir_all(&tokens).unwrap();
    std::fs::rename(&away, &tokens).unwrap();
    until_unsealed(&daemon).await;
    signs(&daemon).await;
}

#[tokio::test]
async fn a_wrong_pin_is_tried_once_whoever_asks_and_however_often() {
    let token = Token::new();
    let daemon = Daemon::with(&token, sealed_by(GENERATED)).await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    let wrong = || Setup { pin: "000000", ..sealed_by(GENERATED) };
    let mut daemon = restart(&token, daemon, wrong());
    let logins = token.calls("C_Login");
    for _ in 0..2 {
        let (refused, why) = write(&daemon, "sys/unseal").await;
        assert!(refused == 500 && why.contains("is not asked again"), "{refused} {why}");
        daemon = restart(&token, daemon, wrong());
        assert_eq!(status(&daemon).await["sealed"], true);
    }
    assert_eq!(token.calls("C_Login"), logins);
    assert!(!daemon.log().contains("000000"));
    let daemon = restart(&token, daemon, sealed_by(GENERATED));
    signs(&daemon).await;
}

#[tokio::test]
async fn a_key_that_is_gone_or_another_is_told_of_and_the_store_is_left_alone() {
    let token = Token::new();
    token.import_secret("seal", "01", "AES:32", &VALUE);
    let daemon = Daemon::with(&token, sealed_by(FOUND)).await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    assert_eq!(write(&daemon, "sys/seal").await.0, 204);
    let stored = std::fs::read(daemon.folder.join("keyway.redb")).unwrap();
    token.remove_secret("01");
    let daemon = restart(&token, daemon, sealed_by(GENERATED));
    let (refused, why) = write(&daemon, "sys/unseal").await;
    assert!(refused == 503 && why.contains("holds no secret key") && why.contains(LABEL), "{refused} {why}");
    assert_eq!(token.calls("C_GenerateKey"), 0, "a key is made for a new store only");
    token.import_secret("seal", "02", "AES:32", &[4; 32]);
    let daemon = restart(&token, daemon, sealed_by(FOUND));
    let (refused, why) = write(&daemon, "sys/unseal").await;
    assert!(refused == 503 && why.contains("is not the key that wrapped"), "{refused} {why}");
    token.remove_secret("02");
    token.import_secret("seal", "01", "AES:32", &VALUE);
    let daemon = restart(&token, daemon, sealed_by(FOUND));
    signs(&daemon).await;
    assert!(!stored.is_empty());
}

#[tokio::test]
async fn a_seal_takes_over_from_a_key_file_and_a_key_file_from_it() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    let home = daemon.folder.display().to_string();
    let file = |more: &str| format!("seal \"file\" {{\n path = \"{home}/seal.key\"\n {more}\n}}\n");
    let both = format!("{}{GENERATED}", file("disabled = true")).leak();
    let mut daemon = restart(&token, daemon, sealed_by(both));
    signs(&daemon).await;
    assert_eq!(status(&daemon).await["type"], "pkcs11");
    assert!(daemon.log().contains("the root key is wrapped by the new seal"));
    // The old one is needed no more, and a start with both does no harm.
    std::fs::remove_file(daemon.folder.join("seal.key")).unwrap();
    for seal in [&*both, FOUND] {
        daemon = restart(&token, daemon, sealed_by(seal));
        signs(&daemon).await;
    }
    let back = FOUND.replace("}\n", " disabled = true\n}\n");
    daemon = restart(&token, daemon, sealed_by(format!("{}{back}", file("")).leak()));
    signs(&daemon).await;
    daemon = restart(&token, daemon, Setup::default());
    assert_eq!(status(&daemon).await["type"], "file");
    signs(&daemon).await;
}
