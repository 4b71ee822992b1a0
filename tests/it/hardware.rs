//! What the token sees of us, and what we make of a token that is not there.

use keyway::model::Verb;
use keyway::wire::proto;
use serde_json::json;

use crate::daemon::{Daemon, Setup, scrape, wait_for};
use crate::sim::Sim;
use crate::token::{self, Token};

const P256: &str = r#"{"mechanism": "0x1041", "curve": "P256"}"#;

fn p256() -> serde_json::Value {
    serde_json::from_str(P256).unwrap()
}

/// The library in the daemon, and in two worker processes; and how many they are.
const PLACES: [(&str, u32); 2] = [("isolation = \"none\"", 1), ("isolation = \"process\"\n workers = 2", 2)];

/// Waits until this many processes that have the library loaded serve a key.
fn until_all_hold(daemon: &Daemon, processes: u32, key: &str) {
    let key = format!("{{pool=\"hsm/keyway-test\",namespace=\"root\",key=\"{key}\"}}");
    let all = format!("keyway_key_holders{key} {processes}\n");
    wait_for(&all, || scrape(&daemon.folder.join("metrics.sock")).contains(&all).then_some(()));
}

fn sign() -> proto::Sign {
    proto::Sign { mount: "transit".into(), key: "doc".into(), input: "x".into(), ..proto::Sign::default() }
}

#[tokio::test]
async fn a_signature_costs_two_calls_and_no_search() {
    for (stanza, processes) in PLACES {
        each_signature_costs_two_calls(stanza, processes).await;
    }
}

async fn each_signature_costs_two_calls(stanza: &'static str, processes: u32) {
    let token = Token::new();
    let daemon = Daemon::with(&token, Setup { stanza, ..Setup::default() }).await;
    daemon.transit_key("doc", p256()).await;
    until_all_hold(&daemon, processes, "doc");
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
    assert_eq!(token.calls("C_Login"), u64::from(processes));
}

#[tokio::test]
async fn a_wrong_pin_is_tried_once_whatever_keys_and_restarts_there_are() {
    for (stanza, processes) in PLACES {
        a_wrong_pin_is_tried_once(stanza, processes).await;
    }
}

async fn a_wrong_pin_is_tried_once(stanza: &'static str, processes: u32) {
    let token = Token::new();
    let more = "limits {\n probe_min = \"10ms\"\n probe_max = \"20ms\"\n}";
    let wrong = || Setup { pin: "0000", more, stanza, ..Setup::default() };
    let daemon = Daemon::with(&token, wrong()).await;
    let mut told = Vec::new();
    for name in ["one", "two", "three"] {
        daemon.managed_key(name, p256()).await;
        told.push(daemon.refused(&format!("sys/managed-keys/pkcs11/{name}/test/sign"), json!({})).await.1);
    }
    assert!(told.iter().all(|told| told.contains("PIN")), "{told:?}");
    let members = daemon.read("sys/keyway/status").await["members"].clone();
    let states: Vec<_> = members.as_array().unwrap().iter().map(|member| &member["state"]).collect();
    assert_eq!(states, vec!["refused"; processes as usize], "{members}");
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
    let mut daemon = Daemon::start(&token, Setup { stanza, ..Setup::default() });
    daemon.root_token = root_token;
    daemon.write("sys/managed-keys/pkcs11/one/test/sign", json!({})).await;
    until_all_hold(&daemon, processes, "one");
    assert_eq!(token.calls("C_Login"), 1 + u64::from(processes));
}

#[tokio::test]
async fn a_token_and_a_library_that_come_late_are_found() {
    for (stanza, processes) in PLACES {
        what_comes_late_is_found(stanza, processes).await;
    }
}

async fn what_comes_late_is_found(stanza: &'static str, processes: u32) {
    let token = Token::absent();
    let library = token.folder.path().join("late.so");
    let more = "limits {\n probe_min = \"10ms\"\n probe_max = \"50ms\"\n deadline = \"1s\"\n}";
    let setup = Setup { library: Some(library.clone()), more, stanza, ..Setup::default() };
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
    until_all_hold(&daemon, processes, "doc");
    let members = daemon.read("sys/keyway/status").await["members"].clone();
    for member in members.as_array().unwrap() {
        let (state, worker) = (&member["state"], &member["worker"]);
        assert_eq!(state, "serving");
        let labels = format!("pool=\"hsm/keyway-test\",library=\"hsm\",token=\"keyway-test\",worker=\"{worker}\"");
        assert_eq!(daemon.metric(&format!("keyway_member_state{{{labels},state=\"serving\"}}")), 1.0);
    }
    assert_eq!(members.as_array().unwrap().len(), processes as usize);
    assert_initialised_in_turn(&token, stanza);
}

#[tokio::test]
async fn a_token_whose_pin_is_not_set_yet_is_waited_for() {
    for (stanza, processes) in PLACES {
        an_absent_pin_is_waited_for(stanza, processes).await;
    }
}

async fn an_absent_pin_is_waited_for(stanza: &'static str, processes: u32) {
    let token = Token::absent();
    token.initialise();
    let more = "limits {\n probe_min = \"10ms\"\n probe_max = \"50ms\"\n}";
    let daemon = Daemon::with(&token, Setup { more, stanza, ..Setup::default() }).await;
    daemon.managed_key("doc", p256()).await;
    let (_, told) = daemon.refused("sys/managed-keys/pkcs11/doc/test/sign", json!({})).await;
    assert!(told.contains("PIN is not set"), "{told}");
    token.set_pin();
    loop_until_signed(&daemon).await;
    until_all_hold(&daemon, processes, "doc");
    assert_initialised_in_turn(&token, stanza);
    // The sessions the refused logins were tried in are closed, before the module was finalised.
    assert!(token.calls("C_CloseSession") >= token.calls("C_Login") - u64::from(processes));
}

/// Every initialisation but the present one was ended before the next, and nothing was initialised twice. In processes each
/// new one is a new start, and its end is the process's.
fn assert_initialised_in_turn(token: &Token, stanza: &str) {
    if stanza.contains("process") {
        return;
    }
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
async fn a_token_whose_files_were_away_for_a_moment_serves_its_keys_again() {
    for (stanza, processes) in PLACES {
        what_was_away_is_found_again(stanza, processes).await;
    }
}

async fn what_was_away_is_found_again(stanza: &'static str, processes: u32) {
    let token = Token::new();
    let more = "limits {\n probe_min = \"10ms\"\n probe_max = \"50ms\"\n deadline = \"1s\"\n}";
    let daemon = Daemon::with(&token, Setup { more, stanza, ..Setup::default() }).await;
    daemon.managed_key("doc", p256()).await;
    loop_until_signed(&daemon).await;
    until_all_hold(&daemon, processes, "doc");
    let (files, away) = (token.folder.path().join("tokens"), token.folder.path().join("away"));
    std::fs::rename(&files, &away).unwrap();
    for _ in 0..4 {
        daemon.ask(Verb::Write, "sys/managed-keys/pkcs11/doc/test/sign", json!({})).await;
    }
    std::fs::rename(&away, &files).unwrap();
    loop_until_signed(&daemon).await;
    until_all_hold(&daemon, processes, "doc");
    // Kryoptic has its file open, and misses nothing.
    assert_eq!(daemon.log().contains("the key is gone"), token::profile() == "softhsm", "{}", daemon.log());
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
