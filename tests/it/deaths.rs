//! Modules that end their process, or hang in it, where each token has processes of its own.

use serde_json::json;

use crate::daemon::Setup;
use crate::load::Load;
use crate::rig::{POOL, Rig, TOKENS, pool, probing};

const ONE_WORKER: &str = "isolation = \"process\"\n max_sessions = 2";
const TWO_WORKERS: &str = "isolation = \"process\"\n workers = 2\n max_sessions = 2";

/// One token with worker processes, under load; the module does this, and the load goes on.
async fn lives_through(stanza: &'static str, limits: &str, command: &str) {
    let rig = Rig::null(&["one"], &["doc"], Setup { more: probing(limits), stanza, ..Setup::default() }).await;
    rig.sim.steer("slot * parallel 2");
    rig.sim.steer("slot * service 2ms");
    rig.key("doc", json!({})).await;
    let load = Load::default().start(&rig).await;
    load.until_done(50);
    let brought_up = || rig.sum("keyway_member_bring_ups_total", &[("result", "ok")]);
    let (processes, before) = (rig.sim.processes(), brought_up());
    for _ in 0..2 {
        let so_far = brought_up();
        rig.sim.steer(command);
        rig.until_grown("keyway_member_bring_ups_total", &[("result", "ok")], so_far, 1.0);
        load.until_done(50);
    }
    let tally = load.stop();
    tally.assert_none_lost();
    assert_eq!(brought_up() - before, 2.0, "{}", rig.daemon.log());
    let now = rig.sim.processes();
    assert!(now.len() == processes.len() && now != processes, "{now:?} after {processes:?}");
    rig.until_serving("one").await;
    // A worker logs in once in its life.
    assert_eq!(rig.sim.calls("C_Login") as usize, processes.len() + 2, "{}", rig.daemon.log());
}

#[tokio::test]
async fn requests_wait_for_the_restart_of_the_only_worker_that_aborted() {
    lives_through(ONE_WORKER, "", "abort C_Sign nth 5").await;
}

#[tokio::test]
async fn another_worker_carries_what_one_had_that_aborted() {
    lives_through(TWO_WORKERS, "", "abort C_Sign nth 5").await;
}

#[tokio::test]
async fn requests_wait_for_the_restart_of_the_only_worker_that_hung() {
    lives_through(ONE_WORKER, "call_sign = \"200ms\"", "hang C_Sign nth 5").await;
}

#[tokio::test]
async fn another_worker_carries_what_one_had_that_hung() {
    lives_through(TWO_WORKERS, "call_sign = \"200ms\"", "hang C_Sign nth 5").await;
}

#[tokio::test]
async fn a_slot_whose_module_always_aborts_costs_a_pool_no_request() {
    let setup = Setup { more: pool(""), stanza: ONE_WORKER, ..Setup::default() };
    let rig = Rig::null(&TOKENS, &["doc"], setup).await;
    rig.key("doc", json!({"library": "both", "token_label": ""})).await;
    for token in TOKENS {
        rig.until_serving(token).await;
    }
    let load = Load::default().start(&rig).await;
    load.until_done(20);
    let failed = rig.sum("keyway_member_bring_ups_total", &[("token", "one"), ("result", "failed")]);
    rig.sim.steer("abort C_Sign slot one");
    rig.sim.steer("abort C_Login slot one");
    rig.until_grown("keyway_member_bring_ups_total", &[("token", "one"), ("result", "failed")], failed, 3.0);
    load.until_done(50);
    rig.sim.steer("clear");
    rig.until_serving("one").await;
    let jobs = rig.jobs("one");
    rig.until_grown("keyway_jobs_total", &[("token", "one"), ("result", "ok")], jobs, 5.0);
    load.stop().assert_none_lost();
}

#[tokio::test]
async fn a_pool_whose_modules_abort_again_and_again_loses_no_request() {
    // Each member is given quick tries for a moment's service once in all.
    let limits = "limits {\n probe_min = \"60s\"\n probe_max = \"60s\"\n}\n";
    let more = format!("{POOL}{limits}").leak();
    let rig = Rig::null(&TOKENS, &["doc"], Setup { more, stanza: ONE_WORKER, ..Setup::default() }).await;
    rig.sim.steer("slot * parallel 2");
    rig.sim.steer("slot * service 2ms");
    rig.key("doc", json!({"library": "both", "token_label": ""})).await;
    let load = Load::default().start(&rig).await;
    load.until_done(50);
    let brought_up = || rig.sum("keyway_member_bring_ups_total", &[("result", "ok")]);
    let before = brought_up();
    rig.sim.steer("abort C_Sign every 40");
    load.until_done(600);
    rig.sim.steer("clear");
    assert!(brought_up() - before >= 10.0, "{}", rig.daemon.log());
    load.until_done(50);
    load.stop().assert_none_lost();
}

#[tokio::test]
async fn a_real_module_that_aborts_under_load_costs_a_restart_and_no_request() {
    let rig = Rig::real_pool(ONE_WORKER, &["doc"]).await;
    let load = Load::default().start(&rig).await;
    load.until_done(20);
    for token in TOKENS {
        rig.until_serving(token).await;
        let brought_up = rig.sum("keyway_member_bring_ups_total", &[("token", token), ("result", "ok")]);
        rig.sim.steer(&format!("abort C_Sign slot {token} nth 3"));
        rig.until_grown("keyway_member_bring_ups_total", &[("token", token), ("result", "ok")], brought_up, 1.0);
        load.until_done(20);
    }
    load.stop().assert_none_lost();
    assert!(rig.sum("keyway_session_evictions_total", &[("cause", "worker_died")]) > 0.0, "{}", rig.scrape());
}
