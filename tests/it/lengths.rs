//! A module that tells lengths beyond the room it was given: nothing of them may be believed, and nothing of the daemon's
//! may break by them.

use serde_json::json;

use crate::daemon::{Daemon, Setup, wait_for};
use crate::load::Load;
use crate::rig::{self, Rig, probing};
use crate::sim::Sim;
use crate::token::{self, Token};

/// One token with two sessions, and two keys of which `doc` is in use.
async fn alone(stanza: &'static str) -> Rig {
    let rig = Rig::null(&["one"], &["doc", "other"], Setup { more: probing(""), stanza, ..Setup::default() }).await;
    rig.sim.steer("slot * parallel 2");
    rig.key("doc", json!({})).await;
    rig
}

fn causes(daemon: &Daemon) -> f64 {
    crate::rig::sum(
        &crate::daemon::scrape(&daemon.folder.join("metrics.sock")),
        "keyway_session_evictions_total",
        &[("cause", "unreadable_answer")],
    )
}

/// What is told wrong once or twice while a key is looked for and read costs another try, in the daemon or in a worker.
async fn a_key_is_found_all_the_same(stanza: &'static str) {
    let rig = alone(stanza).await;
    for function in ["C_FindObjects", "C_GetAttributeValue"] {
        for number in 1..=2 {
            rig.sim.steer(&format!("wrong-length {function} nth {number}"));
            // The login is lost with the last session, so that every key is found and read anew.
            rig.sim.steer("drop-sessions");
            Load::default().run(&rig, 20).await.assert_none_lost();
            rig.until_serving("one").await;
            rig.sim.steer("clear");
        }
        // One that nobody has yet.
        rig.sim.steer(&format!("wrong-length {function} nth 1"));
        rig.key("other", json!({})).await;
        rig.sim.steer("clear");
        rig.daemon.write("transit/keys/other/config", json!({"deletion_allowed": true})).await;
        for path in ["transit/keys/other", "sys/managed-keys/pkcs11/other"] {
            let answer = rig.daemon.ask(keyway::model::Verb::Delete, path, json!({})).await;
            assert_eq!(answer.status, 204, "{path}");
        }
    }
    assert!(!rig.daemon.log().contains("panicked"), "{}", rig.daemon.log());
}

#[tokio::test]
async fn a_key_is_found_by_a_module_that_counts_wrongly() {
    a_key_is_found_all_the_same("max_sessions = 2").await;
}

#[tokio::test]
async fn a_key_is_found_by_a_worker_whose_module_counts_wrongly() {
    a_key_is_found_all_the_same("max_sessions = 2\n isolation = \"process\"").await;
}

#[tokio::test]
async fn a_signature_of_a_wrong_length_leaves_for_nobody() {
    for stanza in ["verify_after_sign = \"never\"", "verify_after_sign = \"never\"\n isolation = \"process\""] {
        let rig = alone(stanza).await;
        let load = Load::default().start(&rig).await;
        load.until_done(20);
        rig.sim.steer("wrong-length C_Sign every 7");
        wait_for("evictions", || (causes(&rig.daemon) >= 3.0).then_some(()));
        rig.sim.steer("clear");
        load.until_done(20);
        load.stop().assert_none_lost();
        assert_eq!(rig.sum("keyway_wrong_signatures_total", &[]), 0.0);
    }
}

#[tokio::test]
async fn what_was_encrypted_or_decrypted_at_a_wrong_length_is_done_again() {
    for stanza in ["max_sessions = 1", "max_sessions = 1\n isolation = \"process\""] {
        let token = Token::absent();
        let sim = Sim::null_kinds(token::module(), &rig::module(&token), &["aes256", "hmac512"]);
        let rig = Rig::on(token, sim, Setup { more: probing(""), stanza, ..Setup::default() }).await;
        let usages = |mechanism: &str, usages: &str| json!({"mechanism": mechanism, "usages": usages, "token_label": "one", "allow_generate_key": false});
        rig.daemon.transit_key("aes256", usages("0x1087", "encrypt,decrypt")).await;
        rig.daemon.transit_key("hmac512", usages("0x0251", "mac")).await;
        let ciphertext =
            rig.daemon.write("transit/encrypt/aes256", json!({"plaintext": "eA=="})).await["ciphertext"].clone();
        let mac = rig.daemon.write("transit/hmac/hmac512", json!({"input": "eA=="})).await["hmac"].clone();
        for function in ["C_Encrypt", "C_Decrypt", "C_Sign"] {
            let before = causes(&rig.daemon);
            rig.sim.steer(&format!("wrong-length {function} nth 1"));
            let made =
                rig.daemon.write("transit/encrypt/aes256", json!({"plaintext": "eA=="})).await["ciphertext"].clone();
            for ciphertext in [&ciphertext, &made] {
                let read = rig.daemon.write("transit/decrypt/aes256", json!({"ciphertext": ciphertext})).await;
                assert_eq!(read["plaintext"], "eA==", "{function}");
            }
            assert_eq!(rig.daemon.write("transit/hmac/hmac512", json!({"input": "eA=="})).await["hmac"], mac);
            // A decryption is tried again in the same session first.
            assert!(causes(&rig.daemon) > before || function == "C_Decrypt", "{function}");
            rig.sim.steer("clear");
        }
    }
}
