//! Bad moments that all clouds have alike: what they cost, and what is told.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::model::Verb;
use keyway::wire::proto;
use serde_json::json;

use crate::cloud_rig::{CloudRig, IMPATIENT};
use crate::daemon::{LIMIT, Setup, wait_for};
use crate::load::Load;
use crate::rig::probing;

/// Every cloud with two P-256 keys, of which `doc` is to fail: with what it calls a signature.
async fn clouds(stanza: &str) -> [(CloudRig, &'static str); 3] {
    let more = format!("kms_service \"awskms\" {{\n {stanza}\n}}\n{}", probing(IMPATIENT)).leak();
    let clouds = [
        (CloudRig::aws(Setup { more, ..Setup::default() }).await, "Sign"),
        (CloudRig::azure(stanza).await, "sign"),
        (CloudRig::google(stanza).await, "asymmetricSign"),
    ];
    for (rig, _) in &clouds {
        rig.key("doc", json!({})).await;
        rig.key("other", json!({})).await;
    }
    clouds
}

#[tokio::test]
async fn one_bad_answer_costs_nobody_anything() {
    for (rig, call) in clouds("verify_after_sign = \"always\"").await {
        for trouble in [
            json!({"kind": "status", "status": 500}),
            json!({"kind": "status", "status": 503, "retry_after_ms": 1000}),
            json!({"kind": "status", "status": 504}),
            json!({"kind": "throttle", "retry_after_ms": 1000}),
            json!({"kind": "reset"}),
            json!({"kind": "reset-after"}),
            json!({"kind": "wrong-checksum"}),
            json!({"kind": "answer", "status": 200, "body": "<html>"}),
            json!({"kind": "answer", "status": 307, "location": "http://127.0.0.1:1/"}),
            json!({"kind": "answer", "status": 400, "body": "<html>"}),
            json!({"kind": "answer", "status": 403, "body": "<html>"}),
            json!({"kind": "answer", "status": 404, "body": "<html>"}),
        ] {
            let load = Load { key: "doc", ..Load::default() }.start(&rig).await;
            load.until_done(30);
            rig.cloud.fault(&json!({"trouble": trouble, "operation": call, "which": {"next": 1}}));
            load.until_done(60);
            load.stop().assert_none_lost();
            rig.cloud.reset();
        }
    }
}

/// What a breaker refuses meanwhile is no try, and neither is any number of tries too many while the deadline is far.
#[tokio::test]
async fn a_call_that_failed_is_tried_until_an_outage_is_over() {
    for (rig, call) in clouds("").await {
        let rig = rig.patient();
        rig.until_signs("doc").await;
        rig.cloud.fault(&json!({"trouble": {"kind": "status", "status": 500}, "operation": call}));
        let framed = rig.framed(LIMIT).await;
        let sign = proto::Sign { mount: "transit".into(), key: "doc".into(), input: "x".into(), ..Default::default() };
        let over = async {
            // More often than an operation on a token is tried.
            let tried = || rig.sum("keyway_retries_total", &[("result", "tried")]);
            let begun = std::time::Instant::now();
            while tried() < 6.0 {
                assert!(begun.elapsed() < LIMIT, "{} tries", tried());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            rig.cloud.reset();
        };
        let (signed, ()) = tokio::join!(framed.sign(sign), over);
        assert!(signed.is_ok(), "{signed:?}");
    }
}

/// What is no answer of the service's is its failure, told once in the log when it lasts and once when it is over.
#[tokio::test]
async fn an_outage_is_told_with_its_reason_once_and_so_is_its_end() {
    for (rig, call) in clouds("").await {
        rig.until_signs("doc").await;
        rig.cloud.fault(&json!({"trouble": {"kind": "answer", "status": 404, "body": "<html>"}, "operation": call}));
        let status = rig.until_refused("doc", "that is not the service's; it is tried again in").await;
        assert_eq!(status, 503);
        assert!(rig.rig.sum("keyway_service_failures_total", &[("cause", "unreadable_answer")]) > 0.0);
        rig.cloud.reset();
        rig.until_signs("doc").await;
        let log = rig.daemon.log();
        let told = |words: &str| log.lines().filter(|line| line.contains(words)).count();
        assert_eq!((told("failed several times in a row"), told("a key in a cloud serves again")), (1, 1), "{log}");
        assert!(log.contains("(HTTP 404) that is not the service's"), "{log}");
        assert_eq!(told("IS GONE"), 0, "{log}");
    }
}

/// Trouble of the service is none of a ciphertext's.
#[tokio::test]
async fn one_word_of_the_service_alone_says_that_a_ciphertext_does_not_decrypt() {
    let rsa = json!({"key_type": "RSA", "key_bits": 2048, "curve": "", "usages": "encrypt,decrypt"});
    let google = json!({"algorithm": "RSA_DECRYPT_OAEP_2048_SHA256"});
    let rigs = [
        (CloudRig::azure("").await, "decrypt", rsa, "Unheard"),
        (CloudRig::google("").await, "asymmetricDecrypt", google, "ALREADY_EXISTS"),
    ];
    for (rig, call, fields, code) in rigs {
        rig.key("rsa", fields).await;
        let sealed = rig.daemon.write("transit/encrypt/rsa", json!({"plaintext": "c2VjcmV0"})).await;
        let asked = json!({"ciphertext": sealed["ciphertext"]});
        let opened = rig.daemon.write("transit/decrypt/rsa", asked.clone()).await;
        assert_eq!(opened["plaintext"], "c2VjcmV0");
        let wrong = "the ciphertext does not decrypt with this key and padding";
        for (trouble, expected) in [
            (json!({"kind": "answer", "status": 404, "body": "<html>"}), 503),
            (json!({"kind": "answer", "status": 307, "location": "http://127.0.0.1:1/"}), 503),
            (json!({"kind": "status", "status": 400, "code": code}), 400),
        ] {
            rig.cloud.fault(&json!({"trouble": trouble, "operation": call}));
            let (status, told) = rig.daemon.refused("transit/decrypt/rsa", asked.clone()).await;
            assert!(!told.contains("does not decrypt"), "{trouble}: {status} {told}");
            assert!(status == expected || (status, expected) == (504, 503), "{trouble}: {status} {told}");
            rig.cloud.reset();
            let begun = std::time::Instant::now();
            while rig.ask("", Verb::Write, "transit/decrypt/rsa", asked.clone()).await.status != 200 {
                assert!(begun.elapsed() < LIMIT, "{trouble}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let other = json!({"ciphertext": format!("vault:v1:{}", STANDARD.encode([1; 256]))});
        let (status, told) = rig.daemon.refused("transit/decrypt/rsa", other).await;
        assert!(status == 400 && told.contains(wrong), "{status} {told}");
    }
}

#[tokio::test]
async fn a_wrong_signature_is_given_to_nobody() {
    for (rig, call) in clouds("verify_after_sign = \"always\"").await {
        let load = Load { key: "doc", deadline: Duration::from_secs(2), ..Load::default() }.start(&rig).await;
        load.until_done(30);
        // The first by a session puts the handle in doubt, and not yet the member: then it takes another.
        while rig.sum("keyway_wrong_signatures_total", &[]) == 0.0 {
            let noticed =
                || rig.sum("keyway_wrong_signatures_total", &[]) + rig.sum("keyway_key_mismatches_total", &[]);
            let before = noticed();
            rig.cloud.fault(&json!({"trouble": {"kind": "wrong-signature"}, "operation": call, "which": {"next": 1}}));
            wait_for("a wrong signature that is noticed", || (noticed() > before).then_some(()));
        }
        load.stop().assert_whole();
        assert_eq!(rig.sign("other").await.0, 200);
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_used_says_why_and_others_go_on() {
    let azure = [
        ("disabled", "it is disabled: enable it"),
        ("deleted", "the key is gone"),
        ("revoked", "ForbiddenByRbac"),
        ("pending-deletion", "it is deleted, and can be recovered until"),
    ];
    let google = [
        ("disabled", "it is disabled: enable it"),
        ("deleted", "it is destroyed for good"),
        ("revoked", "cloudkms.cryptoKeyVersions"),
        ("pending-deletion", "it is to be destroyed"),
    ];
    let [_, (azure_rig, _), (google_rig, _)] = clouds("").await;
    for (rig, states) in [(azure_rig, azure), (google_rig, google)] {
        for (state, told) in states {
            rig.set_state("doc", state);
            let status = rig.until_refused("doc", told).await;
            assert!([400, 403, 500, 503].contains(&status), "{state}: {status}");
            assert_eq!(rig.sign("other").await.0, 200, "{state}");
            rig.set_state("doc", "enabled");
            rig.until_signs("doc").await;
        }
    }
}
