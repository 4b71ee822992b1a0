//! What the token sees of us, and what we make of a token that is not there.

use keyway::model::Verb;
use keyway::wire::proto;
use serde_json::json;

use crate::daemon::{Daemon, Setup};
use crate::sim::Sim;
use crate::token::{self, Token};

const P256: &str = r#"{"mechanism": "0x1041", "curve": "P256"}"#;

fn p256() -> serde_json::Value {
    serde_json::from_str(P256).unwrap()
}

fn sign() -> proto::Sign {
    proto::Sign { mount: "transit".into(), key: "doc".into(), input: "x".into(), ..proto::Sign::default() }
}

#[tokio::test]
async fn a_signature_costs_two_calls_and_no_search() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.transit_key("doc", p256()).await;
    let framed = daemon.framed().await;
    framed.sign(sign()).await.unwrap();
    let searches = ["C_FindObjectsInit", "C_GetAttributeValue", "C_OpenSession", "C_Login", "C_GetTokenInfo"];
    let settled = |functions: &[&str]| functions.iter().map(|function| token.calls(function)).collect::<Vec<_>>();
    let before = (settled(&["C_SignInit", "C_Sign", "C_SignUpdate", "C_SignFinal"]), settled(&searches));
    for _ in 0..100 {
        framed.sign(sign()).await.unwrap();
    }
    let after = (settled(&["C_SignInit", "C_Sign", "C_SignUpdate", "C_SignFinal"]), settled(&searches));
    let risen: Vec<u64> = after.0.iter().zip(&before.0).map(|(after, before)| after - before).collect();
    assert_eq!(risen, [100, 100, 0, 0]);
    assert_eq!(after.1, before.1, "{searches:?}");
    assert_eq!(token.calls("C_Login"), 1);
}

#[tokio::test]
async fn a_wrong_pin_is_tried_once_whatever_keys_and_restarts_there_are() {
    let token = Token::new();
    let wrong =
        || Setup { pin: "0000", more: "limits {\n probe_min = \"10ms\"\n probe_max = \"20ms\"\n}", ..Setup::default() };
    let daemon = Daemon::with(&token, wrong()).await;
    let mut told = Vec::new();
    for name in ["one", "two", "three"] {
        daemon.managed_key(name, p256()).await;
        told.push(daemon.refused(&format!("sys/managed-keys/pkcs11/{name}/test/sign"), json!({})).await.1);
    }
    assert!(told.iter().all(|told| told.contains("PIN")), "{told:?}");
    let members = daemon.read("sys/keyway/status").await["members"].clone();
    assert_eq!(members[0]["state"], "refused", "{members}");
    assert_eq!(token.calls("C_Login"), 1, "{told:?}");
    let root_token = daemon.root_token.clone();
    drop(daemon);
    for _ in 0..2 {
        let mut daemon = Daemon::start(&token, wrong());
        daemon.root_token.clone_from(&root_token);
        let told = daemon.refused("sys/managed-keys/pkcs11/one/test/sign", json!({})).await.1;
        assert!(told.contains("PIN"), "{told}");
    }
    assert_eq!(token.calls("C_Login"), 1);
    // Another PIN is another matter.
    let mut daemon = Daemon::start(&token, Setup::default());
    daemon.root_token = root_token;
    daemon.write("sys/managed-keys/pkcs11/one/test/sign", json!({})).await;
    assert_eq!(token.calls("C_Login"), 2);
}

#[tokio::test]
async fn a_token_and_a_library_that_come_late_are_found() {
    let token = Token::absent();
    let library = token.folder.path().join("late.so");
    let more = "limits {\n probe_min = \"10ms\"\n probe_max = \"50ms\"\n deadline = \"1s\"\n}";
    let setup = Setup { library: Some(library.clone()), more, ..Setup::default() };
    let daemon = Daemon::with(&token, setup).await;
    daemon.managed_key("doc", p256()).await;
    let (status, _) = daemon.refused("sys/managed-keys/pkcs11/doc/test/sign", json!({})).await;
    assert!(status == 500 || status == 504, "{status}");
    let state = |members: &serde_json::Value| members[0]["reason"].as_str().unwrap_or_default().to_owned();
    let reason = state(&daemon.read("sys/keyway/status").await["members"]);
    assert!(reason.contains("late.so"), "{reason}");
    assert!(daemon.log().contains("is not there"), "{}", daemon.log());
    std::os::unix::fs::symlink(token::module(), &library).unwrap();
    loop_until(&daemon, |members| state(members).contains(token::LABEL)).await;
    token.make();
    loop_until_signed(&daemon).await;
    assert_eq!(daemon.read("sys/keyway/status").await["members"][0]["state"], "serving");
    assert_eq!(
        daemon.metric("keyway_member_state{pool=\"hsm/keyway-test\",library=\"hsm\",token=\"keyway-test\",worker=\"0\",state=\"serving\"}"),
        1.0
    );
    assert_initialised_in_turn(&token);
}

#[tokio::test]
async fn a_token_whose_pin_is_not_set_yet_is_waited_for() {
    let token = Token::absent();
    token.initialise();
    let more = "limits {\n probe_min = \"10ms\"\n probe_max = \"50ms\"\n}";
    let daemon = Daemon::with(&token, Setup { more, ..Setup::default() }).await;
    daemon.managed_key("doc", p256()).await;
    let (_, told) = daemon.refused("sys/managed-keys/pkcs11/doc/test/sign", json!({})).await;
    assert!(told.contains("PIN is not set"), "{told}");
    token.set_pin();
    loop_until_signed(&daemon).await;
    assert_initialised_in_turn(&token);
    // The sessions the refused logins were tried in are closed, before the module was finalised.
    assert!(token.calls("C_CloseSession") >= token.calls("C_Login") - 1);
}

/// Every initialisation but the present one was ended before the next, and nothing was initialised twice.
fn assert_initialised_in_turn(token: &Token) {
    let (begun, ended) = (token.calls("C_Initialize"), token.calls("C_Finalize"));
    // Kryoptic cannot be initialised while its token is being made: it is tried again, with nothing to finalise between.
    if token::profile() == "kryoptic" {
        assert!(begun > ended, "{begun} {ended}");
    } else {
        assert!(ended > 0, "the module was never initialised anew");
        assert_eq!(begun, ended + 1);
    }
}

async fn loop_until(daemon: &Daemon, good: impl Fn(&serde_json::Value) -> bool) {
    let begun = std::time::Instant::now();
    loop {
        let members = daemon.read("sys/keyway/status").await["members"].clone();
        if good(&members) {
            return;
        }
        assert!(begun.elapsed() < crate::daemon::LIMIT, "{members}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn loop_until_signed(daemon: &Daemon) {
    let begun = std::time::Instant::now();
    while daemon.ask(Verb::Write, "sys/managed-keys/pkcs11/doc/test/sign", json!({})).await.status >= 300 {
        let members = || async { daemon.read("sys/keyway/status").await["members"].clone() };
        assert!(begun.elapsed() < crate::daemon::LIMIT, "{}", members().await);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_ambiguous_label_is_refused_by_naming_the_ids() {
    let token = Token::new();
    for id in ["01", "02"] {
        token.generate_rsa("twin", id);
    }
    let daemon = Daemon::new(&token).await;
    daemon.managed_key("twin", json!({"mechanism": "0x0001", "key_bits": 2048})).await;
    let (_, told) = daemon.refused("sys/managed-keys/pkcs11/twin/test/sign", json!({})).await;
    assert!(told.contains("01") && told.contains("02"), "{told}");
    // With the id it is one key again.
    daemon
        .managed_key(
            "second",
            json!({"mechanism": "0x0001", "key_label": "twin", "key_id": "0x02", "allow_generate_key": false}),
        )
        .await;
    daemon.write("sys/managed-keys/pkcs11/second/test/sign", json!({})).await;
}

/// The faults of a device that loses what it knew of us, and what must follow.
async fn taken_up_again(daemon: &Daemon, steer: impl Fn(&str), logins: impl Fn() -> u64) {
    daemon.managed_key("doc", p256()).await;
    loop_until_signed(daemon).await;
    for fault in ["drop-sessions", "forget-login"] {
        let before = logins();
        steer(fault);
        loop_until_signed(daemon).await;
        assert!(logins() > before, "{fault}: nobody has logged in again");
    }
}

#[tokio::test]
async fn a_token_that_drops_us_or_forgets_us_is_taken_up_again() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    taken_up_again(&daemon, |fault| drop(token.steer(fault)), || token.calls("C_Login")).await;
}

#[tokio::test]
async fn a_made_up_token_that_drops_us_or_forgets_us_is_taken_up_again() {
    let token = Token::absent();
    let sim = Sim::null(token::module(), &token.folder.path().join("hsm.so"), &[token::LABEL], &[]);
    let daemon = Daemon::with(&token, Setup { library: Some(sim.module.clone()), ..Setup::default() }).await;
    taken_up_again(&daemon, |fault| drop(sim.steer(fault)), || sim.calls("C_Login")).await;
}
