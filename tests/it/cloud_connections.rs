//! Connections to clouds: they are there before a call needs one, also after a quiet spell, and counted.

use futures_util::future::join_all;
use serde_json::json;

use crate::cloud_rig::{CloudRig, setup};
use crate::daemon::{LIMIT, wait_for};

/// Every cloud with a P-256 key `doc` that has signed, with more of the `kms_service`.
async fn clouds(stanza: &str) -> Vec<(CloudRig, &'static str)> {
    let clouds = vec![
        (CloudRig::aws(setup("awskms", stanza, &[])).await, "awskms"),
        (CloudRig::azure(stanza).await, "azurekeyvault"),
        (CloudRig::google(stanza).await, "gcpckms"),
    ];
    for (rig, _) in &clouds {
        rig.key("doc", json!({})).await;
        rig.until_signs("doc").await;
    }
    clouds
}

/// How many connections were made.
fn made(rig: &CloudRig, service: &str) -> f64 {
    rig.sum("keyway_service_connections_total", &[("service", service), ("result", "ok")])
}

/// The same when the key serves and none is on its way any more: those of its look-up and of credentials are made beside.
fn settled(rig: &CloudRig, service: &str) -> f64 {
    let serving = [("library", service), ("state", "serving")];
    wait_for("a key that serves", || (rig.sum("keyway_sessions", &serving) > 0.0).then_some(()));
    let (mut last, mut same) = (0.0, 0);
    wait_for("no more connections", || {
        let now = made(rig, service);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same >= 20).then_some(now)
    })
}

fn heads(rig: &CloudRig) -> u64 {
    rig.cloud.report()["counts"]["heads"].as_u64().unwrap()
}

#[tokio::test]
async fn the_first_signatures_after_a_start_make_no_connection() {
    for (rig, service) in clouds("warm_connections = 4\n warm_interval = \"4m\"").await {
        let asked = heads(&rig);
        let rig = rig.restart();
        // One is asked for, then two, then four at once.
        wait_for("connections ahead of need", || (heads(&rig) >= asked + 7).then_some(()));
        let before = settled(&rig, service);
        assert!(before >= 4.0, "{service}: {before}");
        assert_eq!(rig.sign("doc").await, (200, String::new()), "{service}");
        // So many at once as there are connections.
        rig.cloud.steer("PUT", "/service", &json!({"ms": 200}));
        for (status, told) in join_all((0..4).map(|_| rig.sign("doc"))).await {
            assert_eq!(status, 200, "{service}: {told}");
        }
        assert_eq!(made(&rig, service), before, "{service}: {}", rig.scrape());
        let timed = rig.sum("keyway_service_connect_duration_seconds_count", &[("service", service)]);
        assert_eq!(timed, before, "{service}");
    }
}

#[tokio::test]
async fn a_quiet_spell_costs_the_next_call_no_connection() {
    for (rig, service) in clouds("warm_connections = 2\n warm_interval = \"1s\"").await {
        let begun = std::time::Instant::now();
        loop {
            // As a service does with those that are idle for too long.
            let before = made(&rig, service);
            rig.cloud.steer("POST", "/connections/drop", &json!({}));
            wait_for("others in their place", || (made(&rig, service) >= before + 2.0).then_some(()));
            let before = made(&rig, service);
            assert_eq!(rig.sign("doc").await, (200, String::new()), "{service}");
            // Unless it met those that are asked whether they are still there.
            if made(&rig, service) == before {
                break;
            }
            assert!(begun.elapsed() < LIMIT, "{service}: {}", rig.scrape());
        }
        let failed = [("service", service), ("result", "failed")];
        let before = rig.sum("keyway_service_connections_total", &failed);
        let CloudRig { rig, cloud, .. } = rig;
        assert!(cloud.end());
        rig.until_grown("keyway_service_connections_total", &failed, before, 1.0);
        let log = rig.daemon.log();
        assert!(!log.contains("connections cannot be kept"), "{log}");
    }
}
