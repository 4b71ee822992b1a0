//! A module that tells lengths beyond the room it was given: nothing of them may be believed, and nothing of the daemon's
//! may break by them.

use serde_json::json;

use crate::daemon::{Daemon, Setup, wait_for};
use crate::load::Load;
use crate::rig::{Rig, probing};

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
