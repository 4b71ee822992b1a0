//! Bad days of a cloud: what its users are told, once, and that others are not touched.

use std::time::Duration;

use serde_json::json;

use crate::cloud_rig::{AwsRig, ECC};
use crate::daemon::Setup;
use crate::load::Load;

fn milliseconds(answer: &serde_json::Value) -> u64 {
    answer["since_start_ms"].as_u64().unwrap()
}

/// The cloud serves 200 a second, and 150 are asked for. For eight seconds it serves 20.
#[tokio::test]
async fn a_throttled_cloud_is_not_stormed_and_nothing_is_lost() {
    let aws = AwsRig::null(Setup::default()).await;
    aws.cloud.steer("PUT", "/quota", &json!({"per_second": 200, "burst": 20, "bucket": ECC}));
    aws.key("doc", json!({})).await;
    aws.key("other", json!({"region": "eu-central-1"})).await;
    let paced = |key, micros| Load {
        key,
        connections: 1,
        depth: 10_000,
        pace: Some(Duration::from_micros(micros)),
        ..Load::default()
    };
    let load = paced("doc", 6_667).start(&aws.rig).await;
    let beside = paced("other", 50_000).start(&aws.rig).await;
    load.until_done(150);

    let cut = aws.cloud.steer("PUT", "/quota", &json!({"per_second": 20, "burst": 2, "bucket": ECC}));
    load.until_asked(1_200);
    let most = aws.cloud.most_within(ECC, 5_000, milliseconds(&cut) + 2_000);
    assert!(most <= 120 + 5, "{most} requests in 5 s at a quota of 20 a second");
    assert!(most >= 60, "{most} requests in 5 s at a quota of 20 a second, and more wait");
    aws.cloud.steer("PUT", "/quota", &json!({"per_second": 2_000, "bucket": ECC}));
    load.stop().assert_none_lost();
    beside.stop().assert_none_lost();
    assert!(aws.requests("eu-west-1", "throttled") > 0.0);
    assert_eq!(aws.requests("eu-west-1", "failed"), 0.0);
    assert_eq!(aws.requests("eu-central-1", "throttled"), 0.0);
}

/// Everything that can be the matter with one key or its credentials.
#[tokio::test]
async fn what_is_wrong_with_a_key_is_told_and_is_no_matter_of_others() {
    let Some(aws) = AwsRig::emulated(Setup::default()).await else { return };
    aws.key("doc", json!({})).await;
    aws.key("other", json!({})).await;
    aws.until_signs("doc").await;
    for (state, status, word) in [
        ("disabled", 503, "DisabledException"),
        ("pending-deletion", 503, "KMSInvalidStateException"),
        ("deleted", 503, "NotFoundException"),
        ("revoked", 503, "AccessDeniedException"),
    ] {
        aws.set_state("doc", state);
        let (told, said) = aws.sign("doc").await;
        assert!(told == status && said.contains(word), "{state}: {told} {said}");
        assert_eq!(aws.sign("other").await.0, 200, "{state}");
        aws.set_state("doc", "enabled");
        aws.until_signs("doc").await;
    }
}
