//! Slots that go for long, or whose calls do not return, under more load than the others can carry.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use keyway::client::ClientError;
use keyway::model::Verb;
use keyway::wire::{frame, proto};
use prost::Message;
use serde_json::json;

use crate::audit_refusals::hello;
use crate::daemon::{LIMIT, Setup, wait_for};
use crate::load::{Load, Running};
use crate::rig::{Rig, TOKENS, probing};

/// What one slot carries: 100 a second. Two sessions keep its one server busy.
const SERVICE: &str = "slot * service 10ms";
/// What one slot carries in a second.
const BOUNDS: &str = "lane_jobs = 100";

/// So many calls a second, whatever the answers.
fn paced(each: Duration) -> Load {
    Load { connections: 2, depth: 1000, pace: Some(each), ..Load::default() }
}

async fn outage(rig: &Rig, load: &Running, calls: u64) {
    rig.sim.steer("remove slot one");
    load.until_asked(calls);
    rig.sim.steer("return slot one");
    rig.until_serving("one").await;
}

#[tokio::test]
async fn an_outage_that_the_lanes_bounds_outlast_loses_no_request() {
    let rig = Rig::pool(BOUNDS, "max_sessions = 2").await;
    rig.sim.steer(SERVICE);
    rig.sim.steer("slot * parallel 1");
    // 130 a second, where the one that is left carries 100: after 1.5 s, 45 wait, and 100 may.
    let load = paced(Duration::from_micros(7_700)).start(&rig).await;
    load.until_done(30);
    outage(&rig, &load, 195).await;
    load.until_done(100);
    load.stop().assert_none_lost();
}

#[tokio::test]
async fn an_outage_beyond_the_lanes_bounds_is_told_as_such_and_is_over_when_it_is() {
    let rig = Rig::pool("lane_jobs = 40", "max_sessions = 2").await;
    rig.sim.steer(SERVICE);
    rig.sim.steer("slot * parallel 1");
    // 300 a second, where the one that is left carries 100.
    let load = Load { deadline: Duration::from_secs(2), ..paced(Duration::from_micros(3_300)) }.start(&rig).await;
    load.until_done(20);
    outage(&rig, &load, 300).await;
    let tally = load.stop();
    tally.assert_only(&["overloaded", "deadline_exceeded"]);
    assert!(tally.failed("overloaded") > 0, "{tally:#?}");
    assert!(rig.sum("keyway_lane_refused_total", &[("pool", "both")]) > 0.0);
    Load::default().run(&rig, 50).await.assert_none_lost();
    for token in TOKENS {
        rig.until_serving(token).await;
    }
}

#[tokio::test]
async fn a_slot_that_hangs_again_and_again_loses_no_request_and_no_thread() {
    let rig = Rig::pool("call_sign = \"150ms\"", "max_sessions = 2").await;
    rig.sim.steer("slot * service 3ms");
    let load = Load::default().start(&rig).await;
    load.until_done(50);
    let threads = || rig.sum("keyway_threads", &[]);
    let memory = || rig.sum("keyway_resident_memory_bytes", &[]);
    let (before, resident) = (threads(), memory());
    for round in 1..=4 {
        let stuck = rig.sum("keyway_sessions_stuck_total", &[("token", "one")]);
        rig.sim.steer("hang C_Sign slot one");
        // Both sessions, and the two more that were opened in their place.
        rig.until_grown("keyway_sessions_stuck_total", &[("token", "one")], stuck, 4.0);
        rig.until_member("one", |member| member["state"] == "stuck").await;
        load.until_done(50);
        assert!(threads() <= before + 4.0, "{round}: {} threads, {before} before", threads());
        rig.sim.steer("release");
        rig.until_serving("one").await;
        let jobs = rig.jobs("one");
        rig.until_grown("keyway_jobs_total", &[("token", "one"), ("result", "ok")], jobs, 5.0);
    }
    load.stop().assert_none_lost();
    wait_for("the end of threads that hung", || (threads() <= before).then_some(()));
    assert!(memory() < resident + f64::from(64 << 20), "{} bytes, {resident} before", memory());
    assert_eq!(rig.sum("keyway_wrong_signatures_total", &[]), 0.0);
}

/// A member that is lost, and does not come up since this call of it does not return, until it does.
async fn hangs_while_it_comes_up(rig: &Rig, function: &str) {
    let load = Load::default().start(rig).await;
    load.until_done(20);
    let calls = rig.sim.calls(function);
    rig.sim.steer(&format!("hang {function} slot one"));
    rig.sim.steer("drop-sessions slot one");
    wait_for("the call that hangs", || (rig.sim.calls(function) > calls).then_some(()));
    // Not up, or up and without a key that it could sign with.
    rig.until_member("one", |member| member["sessions"] == 0 || member["keys"] == 0).await;
    let alone = rig.jobs("one");
    load.until_done(50);
    assert_eq!(rig.jobs("one"), alone, "{function}");
    rig.sim.steer("release");
    rig.until_serving("one").await;
    rig.until_grown("keyway_jobs_total", &[("token", "one"), ("result", "ok")], alone, 5.0);
    load.stop().assert_none_lost();
}

#[tokio::test]
async fn a_member_that_hangs_while_it_comes_up_costs_a_pool_no_request() {
    let rig = Rig::pool("call_open = \"1s\"\n call_sign = \"300ms\"", "max_sessions = 2").await;
    rig.sim.steer("slot * service 2ms");
    for function in ["C_OpenSession", "C_Login", "C_FindObjects"] {
        hangs_while_it_comes_up(&rig, function).await;
    }
}

#[tokio::test]
async fn a_worker_that_hangs_at_its_login_is_ended_and_another_comes() {
    let stanza = "isolation = \"process\"\n max_sessions = 2";
    let setup = Setup { more: probing("call_open = \"1s\""), stanza, ..Setup::default() };
    let rig = Rig::null(&["one"], &["doc"], setup).await;
    rig.key("doc", json!({})).await;
    let load = Load::default().start(&rig).await;
    load.until_done(20);
    let before = rig.sim.processes();
    rig.sim.steer("hang C_Login nth 1");
    rig.sim.steer("drop-sessions");
    wait_for("another process", || (rig.sim.processes() != before).then_some(()));
    rig.until_serving("one").await;
    load.until_done(20);
    load.stop().assert_none_lost();
}

/// A daemon serves before its token is up, if that takes long. What is asked meanwhile waits within its deadline, and is told why
/// if the token does not come up or the key cannot be proven.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_before_a_token_is_up_waits_for_it() {
    let setup = || Setup { more: probing("call_open = \"60s\""), stanza: "max_sessions = 2", ..Setup::default() };
    let mut rig = Rig::null(&["one"], &["doc"], setup()).await;
    rig.key("doc", json!({})).await;
    for failure in [Some("C_Login CKR_DEVICE_ERROR"), Some("C_FindObjectsInit CKR_HOST_MEMORY"), None] {
        rig.sim.steer("hang C_OpenSession");
        rig = rig.restart(setup());
        let framed = rig.framed(LIMIT).await;
        let sign = proto::Sign { mount: "transit".into(), key: "doc".into(), input: "x".into(), ..Default::default() };
        let signed = tokio::spawn(async move { framed.sign(sign).await });
        wait_for("a job that waits", || (rig.sum("keyway_lane_depth", &[]) > 0.0).then_some(()));
        assert!(!signed.is_finished());
        failure.iter().for_each(|failure| drop(rig.sim.steer(&format!("fail {failure}"))));
        rig.sim.steer("release");
        let signed = signed.await.unwrap();
        match failure.and_then(|failure| failure.split_whitespace().last()) {
            None => drop(signed.unwrap()),
            Some(told) => {
                let ClientError::Refused { label, message, .. } = signed.unwrap_err() else { panic!("not refused") };
                assert!(label != "deadline_exceeded" && message.contains(told), "{label}: {message}");
            }
        }
        rig.sim.steer("clear");
    }
    Load::default().run(&rig, 10).await.assert_none_lost();
}

/// The same when a token comes back, after an outage that its requests were told of.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_before_the_keys_of_a_token_that_returned_are_proven_waits_for_that() {
    let setup = Setup { more: probing("call_open = \"60s\""), stanza: "max_sessions = 2", ..Setup::default() };
    let rig = Rig::null(&["one"], &["doc"], setup).await;
    rig.key("doc", json!({})).await;
    for (steered, told) in
        [("hang C_FindObjectsInit", None), ("fail C_FindObjectsInit CKR_HOST_MEMORY", Some("HOST_MEMORY"))]
    {
        rig.sim.steer("remove slot one");
        let framed = rig.framed(LIMIT).await;
        let sign =
            || proto::Sign { mount: "transit".into(), key: "doc".into(), input: "x".into(), ..Default::default() };
        let gone = framed.sign(sign()).await.unwrap_err();
        assert!(gone.to_string().contains("doc") && !gone.to_string().contains("deadline"), "{gone}");
        rig.sim.steer(steered);
        rig.sim.steer("return slot one");
        rig.until_member("one", |member| member["state"] == "serving").await;
        let signed = tokio::spawn(async move { framed.sign(sign()).await });
        if told.is_none() {
            wait_for("a job that waits", || (rig.sum("keyway_lane_depth", &[]) > 0.0).then_some(()));
            rig.sim.steer("release");
        }
        match (signed.await.unwrap(), told) {
            (Ok(_), None) => {}
            (Err(ClientError::Refused { message, .. }), Some(told)) => assert!(message.contains(told), "{message}"),
            (answer, _) => panic!("{answer:?}"),
        }
        rig.sim.steer("clear");
    }
    rig.until_serving("one").await;
    Load::default().run(&rig, 10).await.assert_none_lost();
}

#[tokio::test]
async fn askers_of_a_slot_that_hangs_are_freed_at_their_deadline() {
    let setup = Setup { more: probing("call_sign = \"60s\""), stanza: "max_sessions = 2", ..Setup::default() };
    let rig = Rig::null(&["one"], &["doc"], setup).await;
    rig.key("doc", json!({})).await;
    rig.sim.steer("hang C_Sign");
    let framed = rig.framed(Duration::from_millis(200)).await;
    let sign = || proto::Sign { mount: "transit".into(), key: "doc".into(), input: "x".into(), ..Default::default() };
    let all = futures_util::future::join_all((0..20).map(|_| framed.sign(sign()))).await;
    for answer in all {
        let late = matches!(&answer, Err(ClientError::Refused { label, .. }) if label == "deadline_exceeded");
        assert!(late, "{answer:?}");
    }
    rig.sim.steer("release");
    let tally = Load::default().run(&rig, 50).await;
    tally.assert_none_lost();
    // Nobody waits for those that were queued: only what hung in the two sessions was done for nothing.
    let jobs = rig.sum("keyway_jobs_total", &[]);
    assert!((0.0..=2.0).contains(&(jobs - tally.done as f64)), "{jobs} jobs for {tally:#?}");
}

/// The replies that come next on a raw connection, by the ids of their calls.
fn replies(stream: &mut UnixStream, inbox: &mut BytesMut, count: usize) -> Vec<(u64, proto::reply::Result)> {
    let mut replies = Vec::new();
    while replies.len() < count {
        match frame::next_frame(inbox, 1 << 20).unwrap() {
            Some(bytes) => {
                let reply = proto::Reply::decode(bytes).unwrap();
                replies.push((reply.id, reply.result.unwrap()));
            }
            None => {
                let mut bytes = [0; 4096];
                let read = stream.read(&mut bytes).unwrap();
                assert!(read > 0, "closed after {replies:?}");
                inbox.extend_from_slice(&bytes[..read]);
            }
        }
    }
    replies
}

#[tokio::test]
async fn each_call_of_a_connection_has_its_own_deadline_and_so_has_each_request_over_http() {
    let setup = Setup { more: probing("call_sign = \"60s\""), stanza: "max_sessions = 2", ..Setup::default() };
    let rig = Rig::null(&["one"], &["doc"], setup).await;
    rig.key("doc", json!({})).await;
    rig.sim.steer("hang C_Sign");
    let mut stream = UnixStream::connect(rig.daemon.socket().with_extension("sock.framed")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let (mut inbox, mut sent) = (BytesMut::new(), BytesMut::from(&hello(&rig.daemon.root_token)[..]));
    let sign = || proto::Sign { mount: "transit".into(), key: "doc".into(), input: "x".into(), ..Default::default() };
    // The first may take longest; the last is late before it is looked at.
    for (id, deadline_ms) in [(2, 60_000), (3, 1_200), (4, 2_400), (5, 200), (6, 1)] {
        let operation = Some(proto::call::Operation::Sign(sign()));
        frame::put_frame(&mut sent, &proto::Call { id, deadline_ms, operation, ..proto::Call::default() });
    }
    stream.write_all(&sent).unwrap();
    let told = replies(&mut stream, &mut inbox, 5);
    assert_eq!(told.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 6, 5, 3, 4]);
    for (id, told) in &told[1..] {
        let late = matches!(told, proto::reply::Result::Fault(fault) if fault.label == "deadline_exceeded");
        assert!(late, "{id}: {told:?}");
    }
    let mut http = rig.daemon.http();
    http.deadline = Some(Duration::from_millis(200));
    let answer =
        http.request(Verb::Write, "transit/sign/doc", json!({"input": "eA=="}).as_object().unwrap()).await.unwrap();
    assert_eq!(answer.status, 504);
    rig.sim.steer("release");
    let told = replies(&mut stream, &mut inbox, 1);
    assert!(matches!(&told[..], [(2, proto::reply::Result::Signature(_))]), "{told:?}");
}

#[tokio::test]
async fn a_deadline_passes_on_a_connection_that_is_never_idle() {
    let setup = Setup { more: probing("call_sign = \"60s\""), stanza: "max_sessions = 1", ..Setup::default() };
    let rig = Rig::null(&["one"], &["doc"], setup).await;
    rig.key("doc", json!({})).await;
    let framed = rig.framed(LIMIT).await;
    let sign = proto::Sign { mount: "transit".into(), key: "doc".into(), input: "x".into(), ..Default::default() };
    let proto::Signature { signature, key_version } = framed.sign(sign.clone()).await.unwrap();
    rig.sim.steer("hang C_Sign");
    let mut stream = UnixStream::connect(rig.daemon.socket().with_extension("sock.framed")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let call = |id, deadline_ms, operation| {
        let (mut frames, operation) = (BytesMut::new(), Some(operation));
        frame::put_frame(&mut frames, &proto::Call { id, deadline_ms, operation, ..proto::Call::default() });
        frames
    };
    stream.write_all(&hello(&rig.daemon.root_token)).unwrap();
    stream.write_all(&call(2, 300, proto::call::Operation::Sign(sign.clone()))).unwrap();
    // Each is computed on the spot: there is always another to be read, until the one that hangs is answered.
    let signed = Some(proto::Sign { key_version, ..sign });
    let verify = call(3, 0, proto::call::Operation::Verify(proto::Verify { signed, signature }));
    let many: Vec<u8> = std::iter::repeat_n(&verify[..], 256).flatten().copied().collect();
    let mut writes = stream.try_clone().unwrap();
    let begun = Instant::now();
    let flood = std::thread::spawn(move || while begun.elapsed() < LIMIT && writes.write_all(&many).is_ok() {});
    let mut inbox = BytesMut::new();
    let late = loop {
        let (id, told) = replies(&mut stream, &mut inbox, 1).remove(0);
        if id == 2 {
            break told;
        }
    };
    assert!(matches!(&late, proto::reply::Result::Fault(fault) if fault.label == "deadline_exceeded"), "{late:?}");
    assert!(!flood.is_finished(), "it was answered when nothing else was asked");
    stream.shutdown(Shutdown::Both).unwrap();
    flood.join().unwrap();
    rig.sim.steer("release");
}

#[tokio::test]
async fn what_nobody_waits_for_leaves_the_lane_of_a_slot_whose_sessions_all_hang() {
    let more = probing("call_sign = \"150ms\"\n call_open = \"120s\"\n lane_jobs = 4");
    let rig = Rig::null(&["one"], &["doc"], Setup { more, stanza: "max_sessions = 1", ..Setup::default() }).await;
    rig.key("doc", json!({})).await;
    // Its only session will hang, and the one that is to come instead of it as well.
    rig.sim.steer("hang C_OpenSession");
    rig.sim.steer("hang C_Sign");
    let framed = rig.framed(Duration::from_millis(500)).await;
    let sign = || proto::Sign { mount: "transit".into(), key: "doc".into(), input: "x".into(), ..Default::default() };
    // As many as the lane holds, again and again: each time, those before have left it soon after their deadline.
    for round in 0..3 {
        let begun = Instant::now();
        loop {
            let answers = futures_util::future::join_all((0..4).map(|_| framed.sign(sign()))).await;
            let told = |answer: &Result<_, ClientError>| match answer {
                Err(ClientError::Refused { label, .. }) => label.clone(),
                other => format!("{:?}", other.as_ref().map(drop)),
            };
            let told: Vec<String> = answers.iter().map(told).collect();
            assert!(told.iter().all(|told| ["deadline_exceeded", "overloaded"].contains(&told.as_str())), "{told:?}");
            if told.iter().all(|told| told == "deadline_exceeded") {
                break;
            }
            assert!(begun.elapsed() < LIMIT, "{round}: {told:?}");
        }
    }
    rig.sim.steer("release");
    Load::default().run(&rig, 20).await.assert_only(&["overloaded"]);
}

#[tokio::test]
async fn a_drain_under_load_with_a_slot_that_hangs_ends_in_time_and_answers_everything() {
    let mut rig = Rig::pool("call_sign = \"150ms\"\n drain = \"20s\"", "max_sessions = 2").await;
    rig.sim.steer("slot * service 3ms");
    let load = Load::default().start(&rig).await;
    load.until_done(50);
    rig.sim.steer("hang C_Sign slot one");
    rig.until_member("one", |member| member["state"] == "stuck").await;
    load.until_done(20);
    rig.daemon.signal("TERM");
    assert!(rig.daemon.ended().success(), "{}", rig.daemon.log());
    assert!(rig.daemon.log().contains("drained: everything begun was finished"), "{}", rig.daemon.log());
    // What was sent after that was not begun: its connection ends.
    load.stop().assert_only(&["broken", "unavailable"]);
}

#[tokio::test]
async fn a_drain_that_meets_only_calls_that_hang_ends_when_its_time_is_up() {
    let setup =
        Setup { more: probing("call_sign = \"60s\"\n drain = \"1s\""), stanza: "max_sessions = 2", ..Setup::default() };
    let mut rig = Rig::null(&["one"], &["doc"], setup).await;
    rig.key("doc", json!({})).await;
    rig.sim.steer("hang C_Sign");
    let load = Load::default().start(&rig).await;
    wait_for("calls that hang", || (rig.sim.calls("C_Sign") >= 2).then_some(()));
    rig.daemon.signal("TERM");
    rig.daemon.ended();
    let log = rig.daemon.log();
    assert!(log.contains("the drain's time was up"), "{log}");
    let tally = load.stop();
    assert_eq!(tally.done, 0);
    tally.assert_only(&["broken", "unavailable", "deadline_exceeded"]);
}
