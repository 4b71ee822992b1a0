//! Pools: several tokens that hold copies of one key, behind one lane.

use std::process::Command;

use keyway::model::Verb;
use serde_json::{Value, json};

use crate::daemon::{LIMIT, Setup, wait_for};
use crate::load::Load;
use crate::rig::{POOL, Rig, TOKENS, module, pool};
use crate::sim::{PIN, Sim};
use crate::token::{self, Token};

/// What a managed key says that may be in either token.
fn either() -> Value {
    json!({"library": "both", "token_label": ""})
}

/// Made-up tokens with keys of their own each.
fn tokens_with(token: &Token, keys: [&[&str]; 2]) -> Sim {
    let keys = keys.map(|labels| labels.iter().map(|label| json!({ "label": label })).collect::<Vec<_>>());
    let slots: Vec<Value> =
        TOKENS.iter().zip(keys).map(|(label, keys)| json!({"label": label, "pin": PIN, "keys": keys})).collect();
    Sim::new(token::module(), &module(token), &json!({"null": {"slots": slots}}))
}

async fn both_sign_and_one_may_go(rig: &Rig) {
    let load = Load::default().start(rig).await;
    load.until_done(50);
    for token in TOKENS {
        let other = if token == "one" { "two" } else { "one" };
        let (here, there) = (rig.jobs(token), rig.jobs(other));
        rig.until_grown("keyway_jobs_total", &[("token", token), ("result", "ok")], here, 10.0);
        rig.until_grown("keyway_jobs_total", &[("token", other), ("result", "ok")], there, 10.0);
        rig.sim.steer(&format!("remove slot {token}"));
        rig.until_member(token, |member| member["state"] == "backing_off").await;
        let alone = rig.jobs(token);
        load.until_done(50);
        assert_eq!(rig.jobs(token), alone, "a token that is not there has signed");
        rig.sim.steer(&format!("return slot {token}"));
        rig.until_serving(token).await;
        rig.until_grown("keyway_jobs_total", &[("token", token), ("result", "ok")], alone, 10.0);
    }
    load.stop().assert_none_lost();
}

#[tokio::test]
async fn a_pool_loses_a_slot_and_no_request() {
    let rig = Rig::pool("", "max_sessions = 2").await;
    rig.sim.steer("slot * service 3ms");
    both_sign_and_one_may_go(&rig).await;
}

#[tokio::test]
async fn a_pool_of_real_tokens_loses_a_slot_and_no_request() {
    let rig = Rig::real_pool("max_sessions = 2", &["doc"]).await;
    rig.sim.steer("slot * service 3ms");
    both_sign_and_one_may_go(&rig).await;
}

#[tokio::test]
async fn a_member_without_the_key_stays_out_and_joins_when_a_copy_is_there() {
    let token = Token::absent();
    let sim = tokens_with(&token, [&["doc"], &[]]);
    let rig = Rig::on(token, sim, Setup { more: pool(""), ..Setup::default() }).await;
    rig.key("doc", either()).await;
    rig.until_member("two", |member| member["state"] == "serving" && member["keys"] == 0).await;
    let load = Load::default().start(&rig).await;
    load.until_done(50);
    until_holders(&rig, 1.0);
    assert_eq!(rig.jobs("two"), 0.0);
    let log = rig.daemon.log();
    assert!(log.contains("managed key is not served by this member") && log.contains("token=two"), "{log}");
    // As with a vendor's tool: the simulator's keys follow from their labels.
    copy_to_two(&rig);
    rig.until_serving("two").await;
    rig.until_grown("keyway_jobs_total", &[("token", "two"), ("result", "ok")], 0.0, 10.0);
    until_holders(&rig, 2.0);
    load.stop().assert_none_lost();
}

/// The figure is counted now and then.
fn until_holders(rig: &Rig, holders: f64) {
    let counted = || rig.sum("keyway_key_holders", &[("pool", "both"), ("key", "doc")]);
    wait_for("the count of holders", || (counted() == holders).then_some(()));
}

fn copy_to_two(rig: &Rig) {
    let key = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "doc", "--usage-sign"];
    let done = Command::new("pkcs11-tool")
        .args(["--module", rig.sim.module.to_str().unwrap(), "--token-label", "two", "--login", "--pin", PIN])
        .args(key)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
async fn a_member_with_another_key_is_refused_loudly_and_joins_when_it_has_the_right_one() {
    let setup = Setup { more: pool(""), stanza: "max_sessions = 2", ..Setup::default() };
    let rig = Rig::null(&TOKENS, &["doc", "other"], setup).await;
    rig.key("doc", either()).await;
    for token in TOKENS {
        rig.until_serving(token).await;
    }
    let load = Load::default().start(&rig).await;
    load.until_done(20);
    let mismatches = || rig.sum("keyway_key_mismatches_total", &[("token", "two")]);
    assert_eq!(mismatches(), 0.0);
    rig.sim.steer("swap slot two reconnect doc other");
    rig.sim.steer("drop-sessions slot two");
    rig.until_grown("keyway_key_mismatches_total", &[("token", "two")], 0.0, 1.0);
    rig.until_member("two", |member| member["keys"] == 0).await;
    let log = rig.daemon.log();
    assert!(log.contains("ANOTHER KEY was found where a managed key was recorded"), "{log}");
    until_holders(&rig, 1.0);
    let alone = rig.jobs("two");
    load.until_done(20);
    assert_eq!(rig.jobs("two"), alone);
    assert_eq!(rig.sum("keyway_key_mismatches_total", &[("token", "one")]), 0.0);
    // The right one is put back.
    rig.sim.steer("reset");
    rig.until_serving("two").await;
    rig.until_grown("keyway_jobs_total", &[("token", "two"), ("result", "ok")], alone, 5.0);
    load.stop().assert_none_lost();
}

#[tokio::test]
async fn a_pool_serves_as_soon_as_the_daemon_is_initialised() {
    // A member that was tried before waits a second at least for its next try.
    let setup = Setup { more: POOL, ..Setup::default() };
    let rig = Rig::null(&TOKENS, &["doc"], setup).await;
    rig.key("doc", either()).await;
    Load::default().run(&rig, 10).await.assert_none_lost();
    for token in TOKENS {
        rig.until_serving(token).await;
    }
}

#[tokio::test]
async fn a_first_use_that_finds_two_different_keys_is_refused() {
    let rig = Rig::null(&TOKENS, &["doc", "other"], Setup { more: pool(""), ..Setup::default() }).await;
    rig.sim.steer("swap slot two now doc other");
    rig.daemon
        .managed_key("doc", json!({"mechanism": "0x1041", "curve": "P256", "library": "both", "token_label": ""}))
        .await;
    let (status, told) = rig.test_sign("doc").await;
    assert_eq!(status, 500, "{told}");
    assert!(TOKENS.iter().all(|token| told.contains(token)) && told.contains("different keys"), "{told}");
    rig.sim.steer("reset");
    assert_eq!(rig.test_sign("doc").await, (204, String::new()));
}

#[tokio::test]
async fn no_key_is_generated_while_a_member_cannot_say_whether_it_holds_it() {
    let rig = Rig::null(&TOKENS, &[], Setup { more: pool(""), ..Setup::default() }).await;
    rig.sim.steer("remove slot two");
    rig.daemon
        .managed_key("new", json!({"mechanism": "0x1041", "curve": "P256", "library": "both", "token_label": ""}))
        .await;
    let (status, told) = rig.test_sign("new").await;
    assert!(status >= 500 && told.contains("token two") && told.contains("does not serve"), "{status} {told}");
    assert_eq!(rig.sim.calls("C_GenerateKeyPair"), 0);
    rig.sim.steer("return slot two");
    rig.until_member("two", |member| member["state"] == "serving").await;
    assert_eq!(rig.test_sign("new").await, (204, String::new()));
    assert_eq!(rig.sim.calls("C_GenerateKeyPair"), 1);
    assert!(rig.daemon.log().contains("generating the key on one member only"), "{}", rig.daemon.log());
}

#[tokio::test]
async fn a_key_that_a_logged_out_token_does_not_show_is_not_generated_again() {
    let token = Token::absent();
    let sim = tokens_with(&token, [&[], &["doc"]]);
    let rig = Rig::on(token, sim, Setup { more: pool(""), ..Setup::default() }).await;
    for token in TOKENS {
        rig.until_member(token, |member| member["state"] == "serving").await;
    }
    // Private keys are not found then, by a search that succeeds.
    rig.sim.steer("forget-login");
    rig.daemon
        .managed_key("doc", json!({"mechanism": "0x1041", "curve": "P256", "library": "both", "token_label": ""}))
        .await;
    // Members that have served for a moment only are tried again after a pause: then it is found.
    let begun = std::time::Instant::now();
    while rig.test_sign("doc").await.0 != 204 {
        assert!(begun.elapsed() < LIMIT, "{}", rig.daemon.log());
    }
    assert_eq!((rig.sim.calls("C_GenerateKeyPair"), rig.jobs("one")), (0, 0.0));
}

#[tokio::test]
async fn a_key_of_a_pool_names_no_token_and_brings_no_pin() {
    let more = format!("{}namespace \"team\" {{}}\n", pool("")).leak();
    let rig = Rig::null(&TOKENS, &["doc", "mine"], Setup { more, ..Setup::default() }).await;
    for (field, value) in [("slot", json!(1)), ("token_label", json!("one")), ("pin", json!(PIN))] {
        let mut data = json!({"library": "both", "key_label": "doc", "mechanism": "0x1041", "any_mount": true});
        data[field] = value;
        for namespace in ["", "team"] {
            let answer = rig.ask(namespace, Verb::Write, "sys/managed-keys/pkcs11/doc", data.clone()).await;
            let told = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(answer.status == 400 && told.contains(field) && told.contains("both"), "{field}: {told}");
        }
    }
    // In a namespace of its own it is served by both.
    rig.key_in("team", "doc", either()).await;
    let load = Load { namespace: "team", ..Load::default() }.start(&rig).await;
    rig.sim.steer("slot * service 2ms");
    for token in TOKENS {
        rig.until_grown("keyway_jobs_total", &[("token", token), ("result", "ok")], 0.0, 5.0);
    }
    load.stop().assert_none_lost();
    let queued = [("pool", "both"), ("namespace", "team/")];
    assert!(rig.sum("keyway_job_queue_seconds_count", &queued) > 0.0, "{}", rig.scrape());
    // The object is claimed, by whatever name of the pool or of the token.
    let managed =
        json!({"library": "hsm", "token_label": "two", "key_label": "doc", "mechanism": "0x1041", "any_mount": true});
    rig.write("", "sys/managed-keys/pkcs11/theirs", managed).await;
    assert_eq!(rig.test_sign("theirs").await.0, 400);
}

#[tokio::test]
async fn a_key_that_names_a_member_waits_in_the_pools_lane() {
    let rig = Rig::null(&TOKENS, &["doc", "mine"], Setup { more: pool(""), ..Setup::default() }).await;
    rig.key("mine", json!({"token_label": "two"})).await;
    Load { key: "mine", ..Load::default() }.run(&rig, 50).await.assert_none_lost();
    assert_eq!(rig.jobs("one"), 0.0);
    assert!(rig.sum("keyway_job_queue_seconds_count", &[("pool", "both")]) >= 50.0, "{}", rig.scrape());
    assert_eq!(rig.sum("keyway_job_queue_seconds_count", &[("pool", "hsm/two")]), 0.0);
    let members = rig.daemon.read("sys/keyway/status").await["members"].clone();
    assert_eq!(members.as_array().unwrap().len(), 2, "{members}");
}
