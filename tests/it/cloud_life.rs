//! Keys in clouds over the life of a daemon: restarts, seals, reloads and the end while calls are under way; registrations that
//! change on used keys; clocks that differ.

use serde_json::json;

use crate::cloud_rig::{AwsRig, CloudRig};
use crate::daemon::Setup;
use crate::load::{Load, Running};
use crate::reload::{DONE, edit, reload};
use crate::rig::probing;
use crate::seal::{seal, unseal};

/// Every cloud with a P-256 key `doc`, whose calls take a while.
async fn slow_clouds() -> Vec<(CloudRig, &'static str)> {
    let clouds = vec![
        (CloudRig::aws(Setup { more: probing(""), ..Setup::default() }).await, "Sign"),
        (CloudRig::azure("").await, "sign"),
        (CloudRig::google("").await, "asymmetricSign"),
    ];
    for (rig, _) in &clouds {
        rig.key("doc", json!({})).await;
        rig.cloud.steer("PUT", "/service", &json!({"ms": 50}));
    }
    clouds
}

/// Load that has begun, and how many signatures the cloud was asked for before.
async fn under_way(rig: &CloudRig, call: &str) -> (Running, u64) {
    let before = rig.cloud.asked(call);
    let load = Load { key: "doc", ..Load::default() }.start(rig).await;
    load.until_done(30);
    (load, before)
}

#[tokio::test]
async fn sigterm_lets_calls_under_way_end_and_each_is_answered_once() {
    for (mut rig, call) in slow_clouds().await {
        let (load, before) = under_way(&rig, call).await;
        rig.rig.daemon.signal("TERM");
        assert!(rig.rig.daemon.ended().success());
        let tally = load.stop();
        tally.assert_only(&["unavailable", "sealed", "broken"]);
        // What the cloud signed is what clients got: nothing was begun and lost, nothing was asked for twice.
        assert_eq!(rig.cloud.asked(call) - before, tally.done, "{call}: {tally:#?}");
        let log = rig.daemon.log();
        assert!(log.contains("drained: everything begun was finished"), "{log}");
    }
}

#[tokio::test]
async fn a_seal_tells_those_under_way_and_the_keys_are_there_again_after_it() {
    for (rig, call) in slow_clouds().await {
        let (load, _) = under_way(&rig, call).await;
        for _ in 0..2 {
            seal(&rig.daemon).await;
            let asked = rig.cloud.asked(call);
            assert_eq!(rig.sign("doc").await.0, 503);
            load.until_asked(20);
            assert!(rig.cloud.asked(call) <= asked + 16, "{call}: a sealed daemon asks the cloud");
            unseal(&rig.daemon, json!({})).await;
            load.until_done(30);
        }
        let tally = load.stop();
        tally.assert_only(&["sealed"]);
        assert!(tally.failed("sealed") > 0, "{tally:#?}");
    }
}

#[tokio::test]
async fn a_reload_costs_no_call_under_way() {
    for (rig, call) in slow_clouds().await {
        let (load, before) = under_way(&rig, call).await;
        for (from, to) in [("\"50ms\"", "\"60ms\""), ("\"60ms\"", "\"50ms\"")] {
            edit(&rig.daemon, &[(from, to)]);
            reload(&rig.daemon, DONE);
            load.until_done(30);
        }
        let tally = load.stop();
        tally.assert_none_lost();
        assert_eq!(rig.cloud.asked(call) - before, tally.done, "{call}: {tally:#?}");
    }
}

#[tokio::test]
async fn a_key_that_was_exchanged_behind_its_alias_is_refused_after_a_restart() {
    let Some(aws) = AwsRig::emulated(Setup::default()).await else { return };
    aws.key("doc", json!({})).await;
    aws.key("other", json!({})).await;
    let id = |aws: &AwsRig, name: &str| {
        let told = aws.ask_kms("eu-west-1", "DescribeKey", &json!({"KeyId": format!("alias/{name}")}));
        told["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned()
    };
    let point = |aws: &AwsRig, to: &str| {
        aws.ask_kms("eu-west-1", "UpdateAlias", &json!({"AliasName": "alias/doc", "TargetKeyId": to}));
    };
    let (own, other) = (id(&aws, "doc"), id(&aws, "other"));
    let document = aws.daemon.read("transit/keys/doc").await;
    let aws = aws.restart();
    aws.until_signs("doc").await;
    assert_eq!(aws.daemon.read("transit/keys/doc").await, document);
    point(&aws, &other);
    let aws = aws.restart();
    let (status, said) = aws.sign("doc").await;
    assert!(status == 500 && said.contains("is not the key recorded"), "{status} {said}");
    assert_eq!(aws.sign("other").await.0, 200);
    point(&aws, &own);
    aws.until_signs("doc").await;
    assert_eq!(aws.cloud.asked("CreateKey"), 2);
}

#[tokio::test]
async fn credentials_that_change_on_a_used_key_count_at_once() {
    let aws = CloudRig::aws(Setup::default()).await;
    aws.key("doc", json!({})).await;
    aws.until_signs("doc").await;
    for _ in 0..2 {
        aws.managed_key("doc", json!({"secret_key": "wrong"})).await;
        let status = aws.until_refused("doc", "InvalidSignatureException").await;
        assert_eq!(status, 500);
        aws.managed_key("doc", json!({})).await;
        aws.until_signs("doc").await;
    }
}

/// AWS's client takes the service's word for the time; what it cannot mend so is told.
#[tokio::test]
async fn clocks_that_differ_cost_nothing_or_are_told_as_such() {
    let aws = CloudRig::aws(Setup::default()).await;
    aws.key("doc", json!({})).await;
    for offset_ms in [-600_000, 600_000] {
        aws.cloud.steer("PUT", "/clock", &json!({ "offset_ms": offset_ms }));
        for _ in 0..5 {
            assert_eq!(aws.sign("doc").await, (200, String::new()), "{offset_ms}");
        }
    }
    aws.cloud.reset();
    for code in ["RequestTimeTooSkewed", "RequestExpired"] {
        aws.until_signs("doc").await;
        aws.cloud.fault(&json!({"trouble": {"kind": "status", "status": 400, "code": code}, "operation": "Sign"}));
        let (status, said) = aws.sign("doc").await;
        assert!(status == 500 && said.contains(code) && said.contains("set this host's clock"), "{status} {said}");
        aws.cloud.reset();
    }
    assert!(aws.sum("keyway_session_evictions_total", &[("cause", "clock_skew")]) >= 2.0);
}
