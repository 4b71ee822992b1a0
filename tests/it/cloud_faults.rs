//! Bad moments that all clouds have alike: what they cost, and what is told.

use std::time::Duration;

use keyway::wire::proto;

use serde_json::json;

use crate::cloud_rig::CloudRig;
use crate::daemon::{LIMIT, Setup};
use crate::load::Load;
use crate::rig::probing;

/// Every cloud with two P-256 keys, of which `doc` is to fail: with what it calls a signature.
async fn clouds(stanza: &str) -> [(CloudRig, &'static str); 3] {
    let more = format!("kms_service \"awskms\" {{\n {stanza}\n}}\n{}", probing("")).leak();
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

#[tokio::test]
async fn a_wrong_signature_is_given_to_nobody() {
    for (rig, call) in clouds("verify_after_sign = \"always\"").await {
        let load = Load { key: "doc", deadline: Duration::from_secs(2), ..Load::default() }.start(&rig).await;
        load.until_done(30);
        rig.cloud.fault(&json!({"trouble": {"kind": "wrong-signature"}, "operation": call, "which": {"next": 1}}));
        rig.until_grown("keyway_wrong_signatures_total", &[], 0.0, 1.0);
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
