//! Tokens that managed keys name: in use with the first such key, let go of with the last.

use std::time::{Duration, Instant};

use keyway::model::Verb;
use serde_json::{Value, json};

use crate::daemon::{LIMIT, Setup, wait_for};
use crate::rig::{POOL, Rig, probing};
use crate::sim::PIN;

const ISOLATED: &str = "isolation = \"process\"\n max_sessions = 2";

/// Registers a managed key of a P-256 key that must be there; answers the status and the first error.
async fn register(rig: &Rig, namespace: &str, name: &str, more: Value) -> (u16, String) {
    let mut data = json!({"library": "hsm", "token_label": "one", "key_label": "doc", "mechanism": "0x1041"});
    data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = rig.ask(namespace, Verb::Write, &format!("sys/managed-keys/pkcs11/{name}"), data).await;
    let told = if answer.status < 300 { String::new() } else { answer.json()["errors"][0].to_string() };
    (answer.status, told)
}

async fn delete(rig: &Rig, name: &str) {
    let answer = rig.ask("", Verb::Delete, &format!("sys/managed-keys/pkcs11/{name}"), json!({})).await;
    assert!(answer.status < 300, "{} {:?}", answer.status, answer.body);
}

/// Sessions that the living processes have with the simulated token.
fn sessions(rig: &Rig) -> u64 {
    let of = |report: &Value| -> u64 {
        report["slots"].as_array().unwrap().iter().map(|slot| slot["sessions"].as_u64().unwrap()).sum()
    };
    rig.sim.reports().iter().map(of).sum()
}

/// Threads of the daemon that work for tokens.
fn threads(rig: &Rig) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", rig.daemon.pid())).unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("comm")).ok();
    tasks.filter_map(name).filter(|name| ["keyway-control", "keyway-session"].contains(&name.trim_end())).count()
}

/// Waits without blocking the thread, on which calls are asked meanwhile.
async fn until(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A daemon that has opened no token yet.
async fn fresh(stanza: &'static str, more: &str) -> Rig {
    Rig::null(&["one"], &["doc"], Setup { stanza, more: probing(more), ..Setup::default() }).await
}

#[tokio::test]
async fn a_token_goes_with_its_last_managed_key_and_comes_anew_with_the_next() {
    for (stanza, processes) in [("max_sessions = 2", 1), (ISOLATED, 0)] {
        let rig = fresh(stanza, "").await;
        for round in 1..=3 {
            for name in ["first", "second"] {
                assert_eq!(register(&rig, "", name, json!({})).await.0, 204);
                assert_eq!(rig.test_sign(name).await, (204, String::new()), "{round}");
            }
            assert_eq!((rig.tokens().await, rig.sim.calls("C_Login")), (vec!["one".to_owned()], round));
            rig.until_member("one", |member| member["sessions"] == 2).await;
            assert_eq!(threads(&rig), 3);
            delete(&rig, "first").await;
            assert_eq!(rig.test_sign("second").await, (204, String::new()));
            delete(&rig, "second").await;
            assert!(rig.tokens().await.is_empty());
            // A token's login ends with its last session.
            wait_for("the last session's end", || (sessions(&rig) == 0).then_some(()));
            wait_for("the worker's end", || (rig.sim.processes().len() == processes).then_some(()));
            wait_for("the end of its threads", || (threads(&rig) == 0).then_some(()));
            // Who holds which key is counted now and then.
            let gone = |text: &str| !text.contains("token=\"one\"") && !text.contains("pool=\"hsm/one\"");
            wait_for("the end of its series", || gone(&rig.scrape()).then_some(()));
        }
        assert!(rig.daemon.log().contains("it is let go of"), "{}", rig.daemon.log());
    }
}

#[tokio::test]
async fn a_pin_that_was_refused_stays_so_when_its_token_comes_anew() {
    for stanza in ["", ISOLATED] {
        let rig = Rig::bare(&["one"], &["doc"], Setup { stanza, more: probing(""), ..Setup::default() }).await;
        for _ in 0..3 {
            assert_eq!(register(&rig, "", "doc", json!({"library": "bare", "pin": "0000"})).await.0, 204);
            let (status, told) = rig.test_sign("doc").await;
            assert!(status >= 400 && told.contains("PIN") && !told.contains("0000"), "{status} {told}");
            delete(&rig, "doc").await;
            assert!(rig.tokens().await.is_empty());
        }
        assert_eq!(rig.sim.calls("C_Login"), 1);
        assert_eq!(register(&rig, "", "doc", json!({"library": "bare", "pin": PIN})).await.0, 204);
        assert_eq!(rig.test_sign("doc").await, (204, String::new()));
        assert_eq!(rig.sim.calls("C_Login"), 2);
    }
}

#[tokio::test]
async fn tokens_that_do_not_exist_leave_nothing_behind() {
    for stanza in ["", ISOLATED] {
        let rig = fresh(stanza, "").await;
        for number in 0..20 {
            assert_eq!(register(&rig, "", "ghost", json!({"token_label": format!("ghost-{number}")})).await.0, 204);
            let (status, told) = rig.test_sign("ghost").await;
            assert!(status >= 500 && told.contains("is not there"), "{status} {told}");
            // The one before is let go of: the key names another now.
            assert_eq!(rig.tokens().await, [format!("ghost-{number}")]);
            if number % 2 == 0 {
                delete(&rig, "ghost").await;
            }
        }
        delete(&rig, "ghost").await;
        wait_for("the end of its threads", || (threads(&rig) == 0).then_some(()));
        let text = rig.scrape();
        assert!(!text.contains("ghost"), "{text}");
    }
}

#[tokio::test]
async fn a_token_whose_clock_tells_nonsense_is_served_and_one_that_says_nothing_is_told() {
    for stanza in ["", ISOLATED] {
        let rig = fresh(stanza, "").await;
        rig.sim.steer("slot one clock malformed");
        assert_eq!(register(&rig, "", "doc", json!({})).await.0, 204);
        assert_eq!(rig.test_sign("doc").await, (204, String::new()));
        delete(&rig, "doc").await;
        rig.sim.steer("fail C_GetTokenInfo CKR_DEVICE_ERROR");
        assert_eq!(register(&rig, "", "doc", json!({})).await.0, 204);
        let (status, told) = rig.test_sign("doc").await;
        assert!(status >= 500 && told.contains("is not there"), "{status} {told}");
        assert!(
            told.contains("do not say who they are") && told.contains("C_GetTokenInfo: CKR_DEVICE_ERROR"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn a_namespace_names_so_many_tokens_and_those_of_pools_beside_them() {
    let more = format!("{POOL}{}namespace \"team\" {{}}\n", probing("tokens_per_namespace = 2"));
    let rig = Rig::null(&["one", "two"], &["doc"], Setup { more: more.leak(), ..Setup::default() }).await;
    let label = |label: &str| json!({ "token_label": label });
    for namespace in ["", "team"] {
        for (name, token) in [("a", label("one")), ("b", label("x")), ("c", json!({"token_label": "", "slot": "77"}))] {
            assert_eq!(register(&rig, namespace, name, token).await.0, 204);
        }
        assert_eq!(register(&rig, namespace, "both", json!({"library": "both", "token_label": ""})).await.0, 204);
        let (status, told) = register(&rig, namespace, "d", label("y")).await;
        assert!(status == 400 && told.contains("tokens_per_namespace") && told.contains("allows 2"), "{status} {told}");
        // One more key of a token it names already, or of a pool's.
        assert_eq!(register(&rig, namespace, "d", label("x")).await.0, 204);
        assert_eq!(register(&rig, namespace, "e", label("two")).await.0, 204);
        // A key that is rewritten may stay where it is, and go where there is room once it has left.
        assert_eq!(register(&rig, namespace, "b", label("x")).await.0, 204);
        assert_eq!(register(&rig, namespace, "b", label("y")).await.0, 400);
        assert_eq!(register(&rig, namespace, "d", label("one")).await.0, 204);
        assert_eq!(register(&rig, namespace, "b", label("y")).await.0, 204);
    }
    delete(&rig, "c").await;
    assert_eq!(register(&rig, "", "d", label("z")).await.0, 204);
    // Members of pools stay, whatever keys there are.
    assert_eq!(rig.test_sign("a").await, (204, String::new()));
    delete(&rig, "a").await;
    assert_eq!(rig.tokens().await, ["one", "two"]);
}

#[tokio::test]
async fn a_token_that_is_named_again_waits_for_its_last_session_of_before() {
    let rig = fresh("max_sessions = 1", "call_open = \"1s\"\n call_sign = \"60s\"").await;
    register(&rig, "", "doc", json!({})).await;
    assert_eq!(rig.test_sign("doc").await, (204, String::new()));
    rig.sim.steer("hang C_Sign");
    let before = rig.sim.calls("C_Sign");
    let mut http = rig.daemon.http();
    http.deadline = Some(Duration::from_secs(1));
    let hangs = http.request(Verb::Write, "sys/managed-keys/pkcs11/doc/test/sign", &Default::default()).await;
    assert!(hangs.unwrap().status >= 500);
    assert!(rig.sim.calls("C_Sign") > before);
    delete(&rig, "doc").await;
    register(&rig, "", "doc", json!({})).await;
    let (status, told) = rig.test_sign("doc").await;
    assert!(status >= 500 && told.contains("has not returned") && told.contains("restart"), "{status} {told}");
    assert_eq!(rig.sim.calls("C_Login"), 1);
    rig.sim.steer("release");
    let begun = Instant::now();
    while rig.test_sign("doc").await.0 != 204 {
        assert!(begun.elapsed() < LIMIT, "{}", rig.daemon.log());
    }
    assert_eq!(rig.sim.calls("C_Login"), 2);
}

#[tokio::test]
async fn a_worker_that_hangs_is_ended_with_its_token() {
    let rig = fresh(ISOLATED, "call_open = \"1s\"\n call_sign = \"2s\"").await;
    register(&rig, "", "doc", json!({})).await;
    assert_eq!(rig.test_sign("doc").await, (204, String::new()));
    rig.sim.steer("hang C_Sign");
    let before = rig.sim.calls("C_Sign");
    let asked = rig.test_sign("doc");
    let gone = async {
        until(|| rig.sim.calls("C_Sign") > before).await;
        delete(&rig, "doc").await;
    };
    let ((status, told), ()) = tokio::join!(asked, gone);
    assert!(status >= 400, "{status} {told}");
    wait_for("the worker's end", || rig.sim.processes().is_empty().then_some(()));
    assert!(rig.tokens().await.is_empty());
}

#[tokio::test]
async fn what_waits_for_a_key_that_is_deleted_is_told_so_at_once() {
    let rig = fresh("max_sessions = 1", "call_sign = \"60s\"").await;
    register(&rig, "", "doc", json!({})).await;
    assert_eq!(rig.test_sign("doc").await, (204, String::new()));
    rig.sim.steer("hang C_Sign");
    let before = rig.sim.calls("C_Sign");
    let behind = async {
        until(|| rig.sim.calls("C_Sign") > before).await;
        let gone = async {
            until(|| rig.sum("keyway_lane_depth", &[("pool", "hsm/one")]) == 2.0).await;
            delete(&rig, "doc").await;
        };
        let (one, other, ()) = tokio::join!(rig.test_sign("doc"), rig.test_sign("doc"), gone);
        rig.sim.steer("release");
        [one, other]
    };
    let (_, told) = tokio::join!(rig.test_sign("doc"), behind);
    for (status, told) in told {
        assert!(status == 404 && told.contains("no managed key found"), "{status} {told}");
    }
}
