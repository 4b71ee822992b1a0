//! What one namespace does to another: nothing. By counts of what each was given while both waited.

use serde_json::json;

use crate::daemon::{Setup, wait_for};
use crate::load::Load;
use crate::rig::{Rig, probing, sum};

/// One token whose device does 500 operations a second, and two namespaces with a key each.
async fn two_namespaces(namespaces: &str, limits: &str) -> Rig {
    let more = format!("{}{namespaces}", probing(limits)).leak();
    let setup = Setup { more, stanza: "max_sessions = 2", ..Setup::default() };
    let rig = Rig::null(&["one"], &["doc-a", "doc-b"], setup).await;
    rig.sim.steer("slot * parallel 2");
    rig.key_in("a", "doc-a", json!({"token_label": "one"})).await;
    rig.key_in("b", "doc-b", json!({"token_label": "one"})).await;
    rig.sim.steer("slot * service 4ms");
    rig
}

fn flood(namespace: &'static str, key: &'static str) -> Load {
    Load { namespace, key, connections: 4, depth: 32, ..Load::default() }
}

/// Jobs of both namespaces that were started so far, seen at one moment.
fn started(rig: &Rig) -> [f64; 2] {
    let text = rig.scrape();
    ["a/", "b/"].map(|namespace| sum(&text, "keyway_job_queue_seconds_count", &[("namespace", namespace)]))
}

#[tokio::test]
async fn a_trickle_beside_a_flood_is_served_whole() {
    // The flood alone would fill the lane.
    let rig = two_namespaces("namespace \"a\" {}\nnamespace \"b\" {}\n", "lane_jobs = 100").await;
    let flooding = flood("a", "doc-a").start(&rig).await;
    flooding.until_done(100);
    // One at a time: each of its calls finds the flood before it.
    let begun = started(&rig);
    let trickle = Load { namespace: "b", key: "doc-b", connections: 1, depth: 1, ..Load::default() };
    let trickle = trickle.run(&rig, 50).await;
    trickle.assert_none_lost();
    let ended = started(&rig);
    // Each waits for what is with the device, and for its turn: not for the flood that is queued.
    let (flooded, asked) = (ended[0] - begun[0], ended[1] - begun[1]);
    assert!(flooded < 8.0 * asked, "{flooded} of the flood were served before {asked} of the trickle");
    let flooding = flooding.stop();
    flooding.assert_only(&["overloaded"]);
    assert!(flooding.failed("overloaded") > 0, "{flooding:#?}");
    assert_eq!(rig.sum("keyway_lane_refused_total", &[("namespace", "b/")]), 0.0);
}

#[tokio::test]
async fn two_floods_are_given_device_time_by_their_weights() {
    let rig = two_namespaces("namespace \"a\" {\n weight = 3\n}\nnamespace \"b\" {}\n", "").await;
    let floods = [flood("a", "doc-a").start(&rig).await, flood("b", "doc-b").start(&rig).await];
    floods.iter().for_each(|flood| flood.until_done(30));
    let begun = started(&rig);
    wait_for("a window of 1000 jobs", || {
        (started(&rig).iter().sum::<f64>() >= begun.iter().sum::<f64>() + 1000.0).then_some(())
    });
    let ended = started(&rig);
    let queued = |namespace| rig.sum("keyway_lane_depth", &[("namespace", namespace)]);
    assert!(queued("a/") > 0.0 && queued("b/") > 0.0, "both have work queued all the time: {}", rig.scrape());
    for flood in floods {
        flood.stop().assert_none_lost();
    }
    let [a, b] = [ended[0] - begun[0], ended[1] - begun[1]];
    let share = a / (a + b);
    assert!((share - 0.75).abs() < 0.75 * 0.05, "{a} and {b}: {share}");
}

#[tokio::test]
async fn a_namespace_that_reaches_its_own_bound_leaves_the_others_theirs() {
    let limits = "lane_jobs = 1000\n lane_jobs_per_namespace = 20";
    let rig = two_namespaces("namespace \"a\" {}\nnamespace \"b\" {}\n", limits).await;
    let flooding = flood("a", "doc-a").start(&rig).await;
    flooding.until_done(50);
    let other = Load { namespace: "b", key: "doc-b", connections: 2, depth: 8, ..Load::default() };
    other.run(&rig, 100).await.assert_none_lost();
    let flooding = flooding.stop();
    flooding.assert_only(&["overloaded"]);
    assert!(flooding.said["overloaded"].contains("namespace a/ has reached its bound of 20"), "{flooding:#?}");
}
