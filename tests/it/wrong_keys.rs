//! Devices that sign with another key, or wrongly. No such signature may leave where every one is verified; and handles
//! are proven before they are used.

use serde_json::json;

use crate::daemon::Setup;
use crate::load::Load;
use crate::rig::{self, Rig, TOKENS, pool, probing};
use crate::sim::Sim;
use crate::token::{self, Token};

/// A pool that verifies every signature, with the keys `doc` and `other` in both tokens.
async fn verifying(stanza: &'static str) -> Rig {
    let rig = Rig::null(&TOKENS, &["doc", "other"], Setup { more: pool(""), stanza, ..Setup::default() }).await;
    rig.sim.steer("slot * parallel 2");
    rig.key("doc", json!({"library": "both", "token_label": ""})).await;
    for token in TOKENS {
        rig.until_serving(token).await;
    }
    rig
}

const ALWAYS: &str = "max_sessions = 2\n verify_after_sign = \"always\"";

/// What becomes of a member that was seen to sign wrongly in mid-session.
async fn a_member_that_signs_wrongly_is_refused(command: &str) {
    let rig = verifying("max_sessions = 1\n verify_after_sign = \"always\"").await;
    let load = Load::default().start(&rig).await;
    load.until_done(20);
    // The first signature of a session would have the key found anew.
    rig.until_grown("keyway_jobs_total", &[("token", "two"), ("result", "ok")], 0.0, 1.0);
    rig.sim.steer(command);
    rig.until_grown("keyway_wrong_signatures_total", &[("token", "two")], 0.0, 1.0);
    rig.until_member("two", |member| member["state"] == "refused").await;
    load.until_done(50);
    load.stop().assert_none_lost();
    let member = rig.member("two").await;
    let reason = member["reason"].as_str().unwrap();
    assert!(reason.contains("does not verify") && reason.contains("restart"), "{command}: {reason}");
    assert!(rig.daemon.log().contains("member refused: waiting for an operator"), "{}", rig.daemon.log());
    assert_eq!(rig.sum("keyway_wrong_signatures_total", &[("token", "one")]), 0.0);
    assert_eq!(rig.member("one").await["state"], "serving");
}

#[tokio::test]
async fn a_handle_that_comes_to_name_another_key_signs_for_nobody() {
    a_member_that_signs_wrongly_is_refused("swap slot two now doc other").await;
}

#[tokio::test]
async fn a_handle_that_names_another_key_only_in_use_signs_for_nobody() {
    a_member_that_signs_wrongly_is_refused("swap slot two now doc other use").await;
}

#[tokio::test]
async fn a_signature_with_one_wrong_bit_reaches_nobody() {
    a_member_that_signs_wrongly_is_refused("wrong-signature slot two every 5").await;
}

#[tokio::test]
async fn the_only_member_that_signs_wrongly_answers_nobody() {
    let setup = Setup { more: probing(""), stanza: ALWAYS, ..Setup::default() };
    let rig = Rig::null(&["one"], &["doc"], setup).await;
    rig.key("doc", json!({})).await;
    let load = Load::default().start(&rig).await;
    load.until_done(20);
    rig.sim.steer("wrong-signature nth 3");
    rig.until_member("one", |member| member["state"] == "refused").await;
    load.until_asked(20);
    let tally = load.stop();
    tally.assert_only(&["key_mismatch", "key_unavailable"]);
    assert!(tally.failed("key_mismatch") > 0, "{tally:#?}");
}

#[tokio::test]
async fn a_handle_that_names_another_key_after_a_reconnect_is_refused_before_it_signs() {
    for command in ["swap slot two reconnect doc other", "swap slot two reconnect doc other use"] {
        // Not one of the signatures is verified by the daemon.
        let rig = verifying("max_sessions = 2\n verify_after_sign = \"never\"").await;
        let load = Load::default().start(&rig).await;
        load.until_done(20);
        rig.sim.steer(command);
        rig.sim.steer("drop-sessions slot two");
        rig.until_grown("keyway_key_mismatches_total", &[("token", "two")], 0.0, 1.0);
        let signed = rig.jobs("two");
        load.until_done(50);
        assert_eq!(rig.jobs("two"), signed);
        rig.until_member("two", |member| member["keys"] == 0).await;
        load.stop().assert_none_lost();
    }
}

#[tokio::test]
async fn a_key_that_fails_its_proof_at_its_first_use_is_counted_each_time() {
    let setup = Setup { more: probing(""), stanza: "max_sessions = 2", ..Setup::default() };
    let rig = Rig::null(&["one"], &["doc", "other"], setup).await;
    rig.sim.steer("swap slot one now doc other use");
    let managed = json!({"mechanism": "0x1041", "curve": "P256", "token_label": "one", "allow_generate_key": false});
    rig.daemon.managed_key("doc", managed).await;
    for times in 1..=2 {
        let (status, told) = rig.test_sign("doc").await;
        assert!(status >= 400 && told.contains("does not belong to its public key"), "{status} {told}");
        assert_eq!(rig.sum("keyway_key_mismatches_total", &[("token", "one")]), f64::from(times));
    }
    assert!(rig.daemon.log().contains("ANOTHER KEY"), "{}", rig.daemon.log());
    // The right one, once it is back, is served.
    rig.sim.steer("swap slot one now doc doc use");
    assert_eq!(rig.test_sign("doc").await, (204, String::new()));
    assert_eq!(rig.sum("keyway_key_mismatches_total", &[("token", "one")]), 2.0);
}

#[tokio::test]
async fn tokens_that_hold_different_keys_at_its_first_use_are_counted_and_told() {
    let setup = Setup { more: pool(""), stanza: "max_sessions = 2", ..Setup::default() };
    let rig = Rig::null(&TOKENS, &["doc", "other"], setup).await;
    rig.sim.steer("swap slot two now doc other");
    let managed = json!({
        "library": "both", "token_label": "", "mechanism": "0x1041", "curve": "P256", "allow_generate_key": false,
    });
    rig.daemon.managed_key("doc", managed).await;
    for times in 1..=2 {
        let (status, told) = rig.test_sign("doc").await;
        assert!(status >= 400 && told.contains("hold different keys"), "{status} {told}");
        assert_eq!(rig.sum("keyway_key_mismatches_total", &[]), f64::from(times));
    }
    assert!(rig.daemon.log().contains("ANOTHER KEY"), "{}", rig.daemon.log());
}

#[tokio::test]
async fn real_tokens_whose_handles_name_another_key_sign_with_it_for_nobody() {
    let rig = Rig::real_pool("max_sessions = 1\n verify_after_sign = \"always\"", &["doc", "other"]).await;
    for token in TOKENS {
        rig.until_serving(token).await;
    }
    let load = Load::default().start(&rig).await;
    load.until_done(20);
    // First after a reconnect, which is seen by the proof; the member goes on with its other keys.
    rig.sim.steer("swap slot two reconnect doc other");
    rig.sim.steer("drop-sessions slot two");
    rig.until_grown("keyway_key_mismatches_total", &[("token", "two")], 0.0, 1.0);
    rig.sim.steer("reset");
    rig.until_serving("two").await;
    assert_eq!(rig.sum("keyway_wrong_signatures_total", &[]), 0.0);
    // Then in mid-session, which is seen by its signatures: the first by a handle would have the key found anew.
    let signed = rig.jobs("two");
    rig.until_grown("keyway_jobs_total", &[("token", "two"), ("result", "ok")], signed, 1.0);
    rig.sim.steer("swap slot two now doc other");
    rig.until_member("two", |member| member["state"] == "refused").await;
    load.until_done(20);
    load.stop().assert_none_lost();
    assert!(rig.sum("keyway_wrong_signatures_total", &[("token", "two")]) > 0.0);
}

#[tokio::test]
async fn a_wrong_keep_alive_refuses_a_member_before_a_client_asks() {
    let rig = verifying("max_sessions = 2\n keep_alive = \"1s\"").await;
    rig.sim.steer("swap slot two now doc other use");
    rig.until_member("two", |member| member["state"] == "refused").await;
    Load::default().run(&rig, 50).await.assert_none_lost();
    assert_eq!(rig.jobs("two"), 0.0);
    assert!(rig.sum("keyway_wrong_signatures_total", &[("token", "two")]) > 0.0, "{}", rig.scrape());
}

#[tokio::test]
async fn a_handle_that_names_another_secret_key_in_use_encrypts_for_nobody() {
    let kinds = ["aes256", "hmac512"];
    for command in ["swap slot one now aes256 other", "swap slot one now aes256 other use"] {
        let token = Token::absent();
        let sim = Sim::null_kinds(token::module(), &rig::module(&token), &kinds);
        let stanza = "max_sessions = 2\n verify_after_sign = \"always\"";
        let rig = Rig::on(token, sim, Setup { more: probing(""), stanza, ..Setup::default() }).await;
        let generated = json!({
            "mechanism": "0x1087", "key_bits": 256, "usages": "encrypt,decrypt", "token_label": "one", "key_label": "other",
        });
        rig.daemon.transit_key("other", generated.clone()).await;
        let mut found = generated;
        found["key_label"] = "aes256".into();
        rig.daemon.transit_key("doc", found).await;
        let made = rig.daemon.write("transit/encrypt/doc", json!({"plaintext": "eA=="})).await["ciphertext"].clone();
        rig.sim.steer(command);
        for (path, asked) in [
            ("transit/encrypt/doc", json!({"plaintext": "eA=="})),
            ("transit/decrypt/doc", json!({"ciphertext": made})),
        ] {
            let (status, told) = rig.daemon.refused(path, asked).await;
            assert!(status >= 500, "{path}: {status} {told}");
        }
        let mismatches = rig.sum("keyway_key_mismatches_total", &[]) + rig.sum("keyway_wrong_signatures_total", &[]);
        assert!(mismatches > 0.0, "{command}");
    }
}
