//! What one namespace does to another: nothing. By counts of what each was given while both waited.

use std::sync::atomic::{AtomicBool, Ordering};

use keyway::client::Http;
use keyway::model::{Secret, Verb};
use keyway::wire::proto;
use serde_json::json;

use crate::daemon::{LIMIT, Setup, wait_for};
use crate::load::{Load, Running};
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

/// Asks without a pause for what is no signature, as the tenant `a`, until it is to stop: for lists, policies of the largest size,
/// judgements of a thousand paths, registrations that are refused, and with a token that is none. Answers how many were
/// answered.
async fn ask_all_the_time(mut http: Http, kind: usize, stop: &AtomicBool) -> usize {
    let rule = |number| format!("path \"some/long/path/{number}/*\" {{\n  capabilities = [\"read\"]\n}}\n");
    let policy: String = (0..1_500).map(rule).collect();
    let paths: Vec<String> = (0..1_000).map(|number| format!("some/long/path/{number}/x")).collect();
    http.namespace = Some("a".into());
    if kind == 4 {
        http.token = Some(Secret::from("hvs.wrong"));
    }
    let (verb, path, data, expected) = match kind {
        0 => (Verb::List, "auth/token/accessors", json!({}), 404),
        1 => (Verb::Write, "sys/policies/acl/large", json!({"policy": policy}), 204),
        2 => (Verb::Write, "sys/capabilities-self", json!({"paths": paths}), 200),
        3 => (Verb::Write, "sys/managed-keys/pkcs11/x", json!({"library": "nothing"}), 400),
        _ => (Verb::Write, "transit/sign/doc-a", json!({"input": "eA=="}), 403),
    };
    http.deadline = Some(LIMIT);
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        let answer = http.request(verb, path, data.as_object().unwrap()).await.unwrap();
        assert_eq!(answer.status, expected, "{path}: {:?}", answer.body);
        answered += 1;
    }
    answered
}

#[tokio::test]
async fn what_else_a_tenant_asks_for_takes_no_signature_from_another() {
    let rig = two_namespaces("namespace \"a\" {}\nnamespace \"b\" {}\n", "").await;
    let floods = [flood("a", "doc-a").start(&rig).await, flood("b", "doc-b").start(&rig).await];
    floods.iter().for_each(|flood| flood.until_done(30));
    let stop = AtomicBool::new(false);
    let clients: Vec<Http> = (0..10).map(|_| rig.daemon.http()).collect();
    let ask = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let noise = clients.into_iter().enumerate().map(|(number, http)| ask_all_the_time(http, number % 5, &stop));
        runtime.block_on(futures_util::future::join_all(noise))
    };
    let (answered, begun, ended) = std::thread::scope(|scope| {
        let noise = scope.spawn(ask);
        floods[1].until_done(30);
        let begun = started(&rig);
        floods[1].until_done(300);
        let ended = started(&rig);
        stop.store(true, Ordering::Relaxed);
        (noise.join().unwrap(), begun, ended)
    });
    for flood in floods {
        flood.stop().assert_none_lost();
    }
    assert!(answered.iter().all(|count| *count > 0), "{answered:?}");
    let [a, b] = [ended[0] - begun[0], ended[1] - begun[1]];
    let share = b / (a + b);
    assert!(share > 0.4, "{a} and {b}: {share}");
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

/// One token whose device does 500 operations a second, and the keys `doc`, of a Transit mount, and `ca`, of an issuer.
async fn one_namespace() -> Rig {
    let setup = Setup { more: probing(""), stanza: "max_sessions = 2", ..Setup::default() };
    let rig = Rig::null(&["one"], &["doc", "ca"], setup).await;
    rig.sim.steer("slot * parallel 2");
    rig.key("doc", json!({})).await;
    let managed = json!({"mechanism": "0x1041", "curve": "P256", "token_label": "one"});
    rig.daemon.managed_key("ca", managed).await;
    rig.daemon.write("sys/mounts/pki", json!({"type": "pki"})).await;
    let root = json!({"managed_key_name": "ca", "common_name": "Test Root"});
    rig.daemon.write("pki/root/generate/kms", root).await;
    rig.sim.steer("slot * service 4ms");
    rig
}

/// A flood of one class: 128 are in flight all the time.
fn flood_of(class: proto::Class) -> Load {
    Load { class, ..flood("", "doc") }
}

/// What was started of one class so far, and how long that waited in the lane in all, in seconds.
#[derive(Clone, Copy)]
struct Started {
    jobs: f64,
    waited: f64,
}

impl Started {
    /// Of control, interactive and bulk work.
    fn by_class(rig: &Rig) -> [Started; 3] {
        let text = rig.scrape();
        let figure = |name, class| sum(&text, name, &[("class", class)]);
        ["control", "interactive", "bulk"].map(|class| Started {
            jobs: figure("keyway_job_queue_seconds_count", class),
            waited: figure("keyway_job_queue_seconds_sum", class),
        })
    }

    /// The same since `begun`.
    fn since(rig: &Rig, begun: [Started; 3]) -> [Started; 3] {
        let now = Started::by_class(rig);
        [0, 1, 2].map(|class| Started {
            jobs: now[class].jobs - begun[class].jobs,
            waited: now[class].waited - begun[class].waited,
        })
    }

    fn mean_wait(self) -> f64 {
        self.waited / self.jobs
    }
}

/// Floods of interactive and of bulk work that are being served.
async fn two_floods(rig: &Rig) -> [Running; 2] {
    let interactive = flood_of(proto::Class::Interactive).start(rig).await;
    let bulk = flood_of(proto::Class::Bulk).start(rig).await;
    interactive.until_done(20);
    bulk.until_done(20);
    [interactive, bulk]
}

#[tokio::test]
async fn interactive_work_does_not_wait_for_a_flood_of_bulk() {
    let rig = one_namespace().await;
    let flooding = flood_of(proto::Class::Bulk).start(&rig).await;
    flooding.until_done(200);
    let begun = Started::by_class(&rig);
    // One at a time: each finds 128 of the flood before it.
    Load { connections: 1, depth: 1, ..Load::default() }.run(&rig, 50).await.assert_none_lost();
    let [_, interactive, bulk] = Started::since(&rig, begun);
    flooding.stop().assert_none_lost();
    let (asked, flooded) = (interactive.jobs, bulk.jobs);
    assert!(flooded < 8.0 * asked, "{flooded} of the flood were served before {asked} others");
}

#[tokio::test]
async fn bulk_beside_a_flood_of_interactive_work_is_given_an_eighth() {
    let rig = one_namespace().await;
    let floods = two_floods(&rig).await;
    let begun = Started::by_class(&rig);
    let [_, interactive, bulk] = wait_for("a window of 1000 jobs", || {
        let since = Started::since(&rig, begun);
        (since.iter().map(|class| class.jobs).sum::<f64>() >= 1000.0).then_some(since)
    });
    let queued = |class| rig.sum("keyway_lane_depth", &[("class", class)]);
    assert!(
        queued("interactive") > 0.0 && queued("bulk") > 0.0,
        "both have work queued all the time: {}",
        rig.scrape()
    );
    for flood in floods {
        flood.stop().assert_none_lost();
    }
    let share = bulk.jobs / (interactive.jobs + bulk.jobs);
    assert!((share - 0.125).abs() < 0.02, "{} beside {}: {share}", bulk.jobs, interactive.jobs);
}

#[tokio::test]
async fn a_crl_goes_before_floods_of_interactive_and_bulk_work() {
    let rig = one_namespace().await;
    let floods = two_floods(&rig).await;
    let begun = Started::by_class(&rig);
    for _ in 0..20 {
        let answer = rig.ask("", Verb::Read, "pki/crl/rotate", json!({})).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
    }
    let [control, interactive, _] = Started::since(&rig, begun);
    for flood in floods {
        flood.stop().assert_none_lost();
    }
    assert_eq!(control.jobs, 20.0);
    // CRLs wait for what is with the device; everything else for what is queued before it.
    let (first, others) = (control.mean_wait(), interactive.mean_wait());
    assert!(first * 4.0 < others, "a CRL waited {first} s, and an interactive job {others} s");
}
