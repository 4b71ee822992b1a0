//! The HSM of the seal hangs: in an unsealing, and while the root key is rotated.

use std::time::Duration;

use keyway::model::Verb;
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT, Setup};
use crate::rig::{Rig, module};
use crate::sim::{PIN, Sim};
use crate::token::{self, Token};

const SEAL: &str = "seal \"pkcs11\" {\n library = \"hsm\"\n token_label = \"one\"\n key_label = \"seal\"\n}\n";
const SOON: &str = "limits {\n probe_min = \"10ms\"\n probe_max = \"50ms\"\n call_open = \"1s\"\n}\n";
/// Less than the seal may take.
const SHORT: Duration = Duration::from_millis(300);
/// More than it may.
const LONG: Duration = LIMIT;

/// A daemon whose seal and whose keys are on one token.
async fn rig(stanza: &'static str) -> Rig {
    let token = Token::absent();
    let keys = json!([{"label": "doc"}, {"label": "seal", "kind": "aes256"}]);
    let settings = json!({"null": {"slots": [{"label": "one", "pin": PIN, "keys": keys}]}});
    let sim = Sim::new(token::module(), &module(&token), &settings);
    let rig = Rig::on(token, sim, setup(stanza)).await;
    rig.key("doc", json!({})).await;
    rig
}

fn setup(stanza: &'static str) -> Setup {
    Setup { seal: SEAL, more: SOON, stanza, ..Setup::default() }
}

/// Asks with this deadline; answers the status and what was said.
async fn asked(daemon: &Daemon, path: &str, deadline: Duration) -> (u16, String) {
    let mut http = daemon.http();
    http.deadline = Some(deadline);
    let answer = http.request(Verb::Write, path, &Default::default()).await.unwrap();
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

async fn sealed(daemon: &Daemon) -> Value {
    daemon.ask(Verb::Read, "sys/seal-status", json!({})).await.json()["sealed"].clone()
}

async fn until_done(daemon: &Daemon, path: &str) {
    let begun = std::time::Instant::now();
    loop {
        let (status, told) = asked(daemon, path, LONG).await;
        if status < 300 {
            return;
        }
        assert!(status == 503 && begun.elapsed() < LIMIT, "{path}: {status} {told}\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_unsealing_that_hangs_ends_at_its_deadline_and_is_tried_again() {
    for (stanza, isolated) in [("isolation = \"process\"\n workers = 1", true), ("isolation = \"none\"", false)] {
        let rig = rig(stanza).await;
        assert_eq!(asked(&rig.daemon, "sys/seal", LONG).await.0, 204);
        rig.sim.steer("hang C_DecryptInit first 1");
        let (status, told) = asked(&rig.daemon, "sys/unseal", SHORT).await;
        assert!(status == 504 && told.contains("deadline"), "{status} {told}");
        // It answers while the call hangs.
        assert_eq!(sealed(&rig.daemon).await, true);
        assert_eq!(rig.daemon.ask(Verb::Read, "sys/health", json!({})).await.status, 503);
        if !isolated {
            // One that waits is told what the matter is, and nothing is begun beside the call that hangs.
            let begun = rig.sim.calls("C_DecryptInit");
            let (status, told) = asked(&rig.daemon, "sys/unseal", LONG).await;
            assert!(
                status == 503 && (told.contains("no answer within") || told.contains("has not returned")),
                "{told}"
            );
            assert_eq!(rig.sim.calls("C_DecryptInit"), begun);
            rig.sim.steer("release");
        }
        until_done(&rig.daemon, "sys/unseal").await;
        assert_eq!(rig.test_sign("doc").await, (204, String::new()));
        assert!(rig.daemon.log().contains("no answer within 2 s"), "{}", rig.daemon.log());
    }
}

#[tokio::test]
async fn a_rotation_of_the_root_key_that_hangs_costs_nobody_else_anything() {
    for (stanza, isolated) in [("isolation = \"process\"\n workers = 1", true), ("isolation = \"none\"", false)] {
        let rig = rig(stanza).await;
        let policy = json!({"policy": "path \"p\" { policy = \"read\" }"});
        rig.sim.steer("hang C_EncryptInit first 1");
        let (status, told) = asked(&rig.daemon, "sys/rotate/root", SHORT).await;
        assert!(status == 504 && told.contains("deadline"), "{status} {told}");
        // Meanwhile all is served but what waits for the seal, and that no longer than its deadline.
        let (status, told) = asked(&rig.daemon, "sys/rotate", Duration::from_millis(50)).await;
        assert!(status == 504 || status == 204, "{status} {told}");
        assert_eq!(rig.test_sign("doc").await, (204, String::new()));
        rig.write("", "sys/policies/acl/p", policy).await;
        assert!(rig.daemon.read("sys/key-status").await["term"].is_number());
        if !isolated {
            let begun = std::time::Instant::now();
            while !asked(&rig.daemon, "sys/rotate/root", LONG).await.1.contains("has not returned") {
                assert!(begun.elapsed() < LIMIT, "{}", rig.daemon.log());
            }
            rig.sim.steer("release");
        }
        until_done(&rig.daemon, "sys/rotate/root").await;
        until_done(&rig.daemon, "sys/rotate").await;
        assert_eq!(rig.test_sign("doc").await, (204, String::new()));
        let rig = rig.restart(setup(stanza));
        assert_eq!(sealed(&rig.daemon).await, false);
        assert_eq!(rig.test_sign("doc").await, (204, String::new()));
        rig.daemon.read("sys/policies/acl/p").await;
    }
}
