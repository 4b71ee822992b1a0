//! Whether a token computes on the host's own cores, as the daemon sees it by itself; and that its threads wait for one that does.

use std::path::Path;

use serde_json::json;

use crate::daemon::{Setup, wait_for};
use crate::load::Load;
use crate::rig::Rig;

/// Threads of these scheduling policies (sched(7)): of any program's, and of one that never pre-empts another.
const OTHER: &str = "0";
const BATCH: &str = "3";

/// The scheduling policies of the daemon's threads whose names begin so.
fn policies(rig: &Rig, named: &str) -> Vec<String> {
    let tasks = Path::new("/proc").join(rig.daemon.pid().to_string()).join("task");
    let stats = std::fs::read_dir(tasks).unwrap().filter_map(|task| {
        // One may end meanwhile.
        std::fs::read_to_string(task.ok()?.path().join("stat")).ok()
    });
    let policy = |stat: String| {
        let (before, after) = stat.rsplit_once(") ")?;
        let is_one = before.split_once('(')?.1.starts_with(named);
        is_one.then(|| after.split(' ').nth(38).map(str::to_owned)).flatten()
    };
    stats.filter_map(policy).collect()
}

/// Waits until the daemon thinks so of its token, and its threads go by it.
fn until(rig: &Rig, computes_here: bool) {
    let (figure, policy) = if computes_here { (1.0, BATCH) } else { (0.0, OTHER) };
    wait_for("what the daemon thinks of the token", || {
        (rig.sum("keyway_member_computes_here", &[("token", "one")]) == figure).then_some(())
    });
    wait_for("the pace of the threads", || {
        let found = policies(rig, "keyway-worker-");
        (!found.is_empty() && found.iter().all(|found| found == policy)).then_some(())
    });
}

async fn a_token_that_answers_at_once_and_then_is_slow(stanza: &'static str) {
    let rig = Rig::null(&["one"], &["doc"], Setup { stanza, ..Setup::default() }).await;
    rig.key("doc", json!({"token_label": "one"})).await;
    assert_eq!(policies(&rig, "keyway-worker-").iter().find(|policy| *policy != OTHER), None);
    let load = Load { connections: 2, depth: 8, ..Load::default() }.start(&rig).await;
    until(&rig, true);
    // From now on it is a device elsewhere.
    rig.sim.steer("slot * service 1ms");
    until(&rig, false);
    rig.sim.steer("slot * service 0ms");
    until(&rig, true);
    load.stop().assert_none_lost();
}

#[tokio::test]
async fn a_token_in_the_daemon_is_seen_to_compute_here_and_waited_for() {
    a_token_that_answers_at_once_and_then_is_slow("").await;
}

#[tokio::test]
async fn a_token_in_worker_processes_is_seen_to_compute_here_and_waited_for() {
    a_token_that_answers_at_once_and_then_is_slow("isolation = \"process\"").await;
}

#[tokio::test]
async fn a_profile_that_computes_here_is_believed_from_the_start() {
    let setup =
        Setup { profile: Some("softhsm"), stanza: "isolation = \"none\"\n max_sessions = 2", ..Setup::default() };
    let rig = Rig::null(&["one"], &["doc"], setup).await;
    rig.sim.steer("slot * service 1ms");
    rig.key("doc", json!({"token_label": "one"})).await;
    until(&rig, true);
    // No call changes that.
    Load { connections: 4, depth: 16, ..Load::default() }.run(&rig, 2_200).await.assert_none_lost();
    until(&rig, true);
}
