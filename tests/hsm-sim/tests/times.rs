//! How long calls take, and what is said of them. Only lower bounds: a busy machine adds what it likes.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::hsm::{Hsm, key, sign};

fn device(hsm: &Hsm, token: &str) -> Value {
    slot(hsm, token)["device"].clone()
}

fn slot(hsm: &Hsm, token: &str) -> Value {
    let reports = hsm.sim.reports();
    assert_eq!(reports.len(), 1, "{reports:?}");
    let slots = reports[0]["slots"].as_array().unwrap();
    slots.iter().find(|slot| slot["label"] == token).unwrap().clone()
}

pub(crate) fn a_signature_takes_its_service_time(hsm: &Hsm) {
    let session = hsm.logged_in("one");
    let key = key(&session);
    let before = device(hsm, "one")["served"].as_u64().unwrap();
    hsm.sim.steer("slot one service fixed 30ms");
    let begun = Instant::now();
    sign(&session, key).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(30));
    let device = device(hsm, "one");
    assert_eq!(device["served"], before + 1, "the query for the length is not served: {device}");
    let asked = device["asked_us"]["p50"].as_f64().unwrap();
    assert!((29_900.0..30_100.0).contains(&asked), "{device}");
    assert!(device["given_us"]["p50"].as_f64().unwrap() >= 29_900.0, "{device}");
    // Not the other one, and not for ever.
    assert_eq!(self::device(hsm, "two")["served"], 0);
    hsm.sim.steer("slot one service none");
    sign(&session, key).unwrap();
    assert_eq!(self::device(hsm, "one")["served"], before + 1);
}

pub(crate) fn a_lognormal_service_time_varies_around_its_mean(hsm: &Hsm) {
    let session = hsm.logged_in("one");
    let key = key(&session);
    hsm.sim.steer("slot one service lognormal 200us 0.5");
    for _ in 0..300 {
        sign(&session, key).unwrap();
    }
    let device = device(hsm, "one");
    let asked = |figure: &str| device["asked_us"][figure].as_f64().unwrap();
    // Ten standard errors of the mean.
    assert!((140.0..260.0).contains(&asked("mean")), "{device}");
    // The median is the mean / e^(0.5^2/2) = 176, the 99th percentile 3.2 times that.
    assert!((130.0..230.0).contains(&asked("p50")), "{device}");
    assert!(asked("p99") > 1.5 * asked("p50"), "{device}");
    let given = device["given_us"]["mean"].as_f64().unwrap();
    assert!(given >= asked("mean") * 0.99, "{device}");
}

pub(crate) fn a_device_works_for_so_many_at_once(hsm: &Hsm) {
    const USERS: u32 = 4;
    let service = Duration::from_millis(25);
    let _anchor = hsm.logged_in("one");
    let all = |hsm: &Hsm| {
        let sessions: Vec<_> = (0..USERS).map(|_| hsm.session("one")).collect();
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for session in sessions {
                scope.spawn(move || sign(&session, key(&session)).unwrap());
            }
        });
        begun.elapsed()
    };
    hsm.sim.steer("slot one service 25ms");
    assert!(all(hsm) >= service * USERS, "one after the other");
    assert!(device(hsm, "one")["waited_us"]["max"].as_f64().unwrap() >= 0.0);
    hsm.sim.steer("reset");
    hsm.sim.steer("slot one service 25ms");
    hsm.sim.steer("slot one parallel 4");
    all(hsm);
    let device = device(hsm, "one");
    assert_eq!((device["served"].as_u64(), device["waited_us"]["max"].as_f64()), (Some(4), Some(0.0)), "{device}");
}

pub(crate) fn every_call_takes_the_round_trip(hsm: &Hsm) {
    let session = hsm.session("one");
    hsm.sim.steer("slot one roundtrip 20ms");
    let begun = Instant::now();
    session.get_session_info().unwrap();
    session.get_session_info().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(40));
    hsm.context().get_token_info(hsm.slot("one")).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(60));
}

pub(crate) fn a_delay_is_for_its_function(hsm: &Hsm) {
    let session = hsm.session("one");
    hsm.sim.steer("delay C_GetSessionInfo slot one 40ms nth 2");
    session.get_session_info().unwrap();
    let begun = Instant::now();
    session.get_session_info().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(40));
}

pub(crate) fn calls_are_logged(hsm: &Hsm) {
    let session = hsm.logged_in("one");
    let key = key(&session);
    let log = hsm.sim.control().join(format!("calls.{}.log", std::process::id()));
    // Over SoftHSM2 this process may have logged before.
    let _ = std::fs::remove_file(&log);
    hsm.sim.steer("log on");
    hsm.sim.steer("fail C_Sign CKR_DEVICE_ERROR nth 1");
    sign(&session, key).unwrap_err();
    hsm.sim.steer("log off");
    sign(&session, key).unwrap();
    let text = std::fs::read_to_string(log).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    let slot = hsm.slot("one").id().to_string();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!((lines[0][0], lines[0][1], lines[0][3]), ("C_SignInit", slot.as_str(), "CKR_OK"), "{text}");
    assert_eq!((lines[1][0], lines[1][2], lines[1][3]), ("C_Sign", lines[0][2], "CKR_DEVICE_ERROR"), "{text}");
    assert!(lines.iter().all(|line| line[4].parse::<f64>().unwrap() >= 0.0), "{text}");
}

pub(crate) fn calls_are_counted(hsm: &Hsm) {
    let session = hsm.logged_in("one");
    let key = key(&session);
    let before = (hsm.sim.calls("C_SignInit"), hsm.sim.calls("C_Sign"));
    let of_slot = |function: &str| slot(hsm, "one")["calls"][function].as_u64().unwrap_or(0);
    let slot_before = of_slot("C_Sign");
    for _ in 0..3 {
        sign(&session, key).unwrap();
    }
    assert_eq!((hsm.sim.calls("C_SignInit"), hsm.sim.calls("C_Sign")), (before.0 + 3, before.1 + 6));
    assert_eq!(of_slot("C_Sign"), slot_before + 6);
    assert_eq!(hsm.sim.reports()[0]["calls"]["C_Sign"], before.1 + 6);
}
