//! Every return value a module may give, on every call it gives it for: what becomes of requests, sessions and members.

use std::time::Duration;

use keyway::client::{ClientError, Framed};
use keyway::wire::proto;
use serde_json::json;

use crate::daemon::{LIMIT, Setup, wait_for};
use crate::load::Load;
use crate::rig::{Rig, TOKENS, pool, probing, sum};

/// What follows from a value.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// The session is opened anew, and the request done.
    Reopened,
    /// The key is found anew, and the request done.
    FoundAgain,
    /// The member logs in or is initialised anew, and the request is done.
    BroughtUp,
    /// The device is given time, and the request done.
    Throttled,
    /// The request is answered so; nothing else happens.
    Answered(&'static str),
}

use Then::{Answered, BroughtUp, FoundAgain, Reopened, Throttled};

/// What a value means, given by a key at work.
const AT_WORK: &[(&str, Then)] = &[
    ("CKR_SESSION_HANDLE_INVALID", Reopened),
    ("CKR_SESSION_CLOSED", Reopened),
    ("CKR_DEVICE_ERROR", Reopened),
    ("CKR_GENERAL_ERROR", Reopened),
    ("CKR_FUNCTION_FAILED", Reopened),
    ("CKR_OPERATION_ACTIVE", Reopened),
    ("CKR_OPERATION_NOT_INITIALIZED", Reopened),
    ("CKR_FUNCTION_CANCELED", Reopened),
    ("CKR_CANCEL", Reopened),
    ("CKR_USER_ALREADY_LOGGED_IN", Reopened),
    ("0x80000042", Reopened),
    ("0x1ff", Reopened),
    ("CKR_OBJECT_HANDLE_INVALID", FoundAgain),
    ("CKR_KEY_HANDLE_INVALID", FoundAgain),
    ("CKR_USER_NOT_LOGGED_IN", BroughtUp),
    ("CKR_DEVICE_REMOVED", BroughtUp),
    ("CKR_TOKEN_NOT_PRESENT", BroughtUp),
    ("CKR_TOKEN_NOT_RECOGNIZED", BroughtUp),
    ("CKR_SLOT_ID_INVALID", BroughtUp),
    ("CKR_DEVICE_MEMORY", Throttled),
    ("CKR_HOST_MEMORY", Throttled),
    ("CKR_SESSION_COUNT", Throttled),
    ("CKR_MECHANISM_INVALID", Answered("not_supported")),
    ("CKR_KEY_TYPE_INCONSISTENT", Answered("not_supported")),
    ("CKR_KEY_FUNCTION_NOT_PERMITTED", Answered("not_supported")),
    ("CKR_KEY_SIZE_RANGE", Answered("not_supported")),
    ("CKR_TEMPLATE_INCONSISTENT", Answered("not_supported")),
    ("CKR_DATA_LEN_RANGE", Answered("invalid_request")),
    ("CKR_DATA_INVALID", Answered("invalid_request")),
    ("CKR_SIGNATURE_INVALID", Answered("invalid_request")),
    ("CKR_SIGNATURE_LEN_RANGE", Answered("invalid_request")),
    ("CKR_ENCRYPTED_DATA_INVALID", Answered("invalid_request")),
];

/// How the module's name for it is counted.
fn cause(value: &str) -> &str {
    match value {
        "0x80000042" => "CKR_VENDOR_DEFINED",
        "0x1ff" => "CKR_UNKNOWN",
        named => named,
    }
}

/// The figures that tell what followed, of both members.
#[derive(Debug)]
struct Figures {
    evicted: f64,
    all_evicted: f64,
    throttled: f64,
    brought_up: f64,
    failed: f64,
}

impl Figures {
    fn of(rig: &Rig, value: &str) -> Figures {
        let text = rig.scrape();
        Figures {
            evicted: sum(&text, "keyway_session_evictions_total", &[("cause", cause(value))]),
            all_evicted: sum(&text, "keyway_session_evictions_total", &[]),
            throttled: sum(&text, "keyway_device_throttles_total", &[]),
            failed: sum(&text, "keyway_jobs_total", &[("result", "failed")]),
            brought_up: sum(&text, "keyway_member_bring_ups_total", &[("result", "ok")]),
        }
    }
}

/// A member that says so now and then, in a pool: under load, once for every value.
async fn now_and_then(function: &str) {
    // Budgets of further tries are another story.
    let rig = Rig::pool("retry_percent = 100\n retry_burst = 65536", "max_sessions = 2").await;
    for (value, then) in AT_WORK {
        let before = Figures::of(&rig, value);
        let load = Load::default().start(&rig).await;
        rig.sim.steer(&format!("fail {function} slot one {value} every 6"));
        match then {
            Answered(_) => rig.until_grown("keyway_jobs_total", &[("result", "failed")], before.failed, 2.0),
            Throttled => rig.until_grown("keyway_device_throttles_total", &[], before.throttled, 2.0),
            _ => rig.until_grown("keyway_session_evictions_total", &[("cause", cause(value))], before.evicted, 2.0),
        }
        load.until_done(40);
        rig.sim.steer("clear");
        rig.until_serving("one").await;
        let tally = load.stop();
        let told = format!("{function}: {value} should be {then:?}: {tally:#?}");
        tally.assert_whole();
        let after = Figures::of(&rig, value);
        let told = format!("{told}\n{after:?} after {before:?}");
        let others_evicted = after.all_evicted - before.all_evicted - (after.evicted - before.evicted);
        assert!(others_evicted == 0.0 || *then == BroughtUp, "{told}");
        match then {
            Answered(label) => {
                assert!(tally.failed(label) > 0 && tally.failed.len() == 1, "{told}");
                assert_eq!((after.evicted, after.brought_up), (before.evicted, before.brought_up), "{told}");
            }
            Throttled => assert_eq!(after.evicted, before.evicted, "{told}"),
            BroughtUp => assert!(after.brought_up > before.brought_up, "{told}"),
            Reopened | FoundAgain => {}
        }
        if !matches!(then, Answered(_)) {
            assert!(tally.failed.is_empty(), "{told}\n{}", rig.daemon.log());
        }
        assert_eq!(rig.member("two").await["state"], "serving", "{told}");
    }
    assert_eq!(rig.sum("keyway_wrong_signatures_total", &[]), 0.0);
}

#[tokio::test]
async fn whatever_c_sign_init_says_now_and_then_is_mended_or_answered() {
    now_and_then("C_SignInit").await;
}

#[tokio::test]
async fn whatever_c_sign_says_now_and_then_is_mended_or_answered() {
    now_and_then("C_Sign").await;
}

/// One token with two sessions.
async fn alone() -> Rig {
    let setup = Setup { more: probing(""), stanza: "max_sessions = 2", ..Setup::default() };
    let rig = Rig::null(&["one"], &["doc"], setup).await;
    rig.sim.steer("slot * parallel 2");
    rig.key("doc", json!({})).await;
    rig
}

/// A member's only slot says so once: those whose member is mended wait for it.
#[tokio::test]
async fn whatever_the_only_member_says_once_is_mended_or_answered() {
    let rig = alone().await;
    for (value, then) in AT_WORK {
        for function in ["C_SignInit", "C_Sign"] {
            rig.until_serving("one").await;
            rig.sim.steer(&format!("fail {function} {value} nth 5"));
            let tally = Load::default().run(&rig, 30).await;
            rig.sim.steer("clear");
            let told = format!("{function}: {value} should be {then:?}: {tally:#?}");
            tally.assert_whole();
            let expected = if let Answered(label) = then { tally.failed(label) } else { 0 };
            assert_eq!(tally.failed.values().sum::<u64>(), expected, "{told}\n{}", rig.daemon.log());
            assert!(expected <= 1, "{told}");
        }
    }
}

/// Calls of a member that is brought up anew, and what they may say for a while.
const COMING_UP: &[(&str, &[&str])] = &[
    (
        "C_OpenSession",
        &[
            "CKR_SESSION_COUNT",
            "CKR_DEVICE_ERROR",
            "CKR_GENERAL_ERROR",
            "CKR_SLOT_ID_INVALID",
            "CKR_TOKEN_NOT_PRESENT",
            "CKR_HOST_MEMORY",
        ],
    ),
    (
        "C_Login",
        &[
            "CKR_DEVICE_ERROR",
            "CKR_FUNCTION_FAILED",
            "CKR_USER_ALREADY_LOGGED_IN",
            "CKR_SESSION_HANDLE_INVALID",
            "CKR_DEVICE_REMOVED",
        ],
    ),
    ("C_GetTokenInfo", &["CKR_DEVICE_ERROR", "CKR_TOKEN_NOT_PRESENT", "CKR_TOKEN_NOT_RECOGNIZED"]),
    (
        "C_FindObjectsInit",
        &["CKR_OPERATION_ACTIVE", "CKR_DEVICE_ERROR", "CKR_SESSION_HANDLE_INVALID", "CKR_USER_NOT_LOGGED_IN"],
    ),
    ("C_FindObjects", &["CKR_OPERATION_NOT_INITIALIZED", "CKR_GENERAL_ERROR", "CKR_DEVICE_MEMORY"]),
    ("C_GetAttributeValue", &["CKR_OBJECT_HANDLE_INVALID", "CKR_DEVICE_ERROR", "CKR_SESSION_CLOSED"]),
];

/// The first token's member is lost, and has trouble while it comes up: each of it so `often`.
async fn comes_up_with_trouble(rig: &Rig, often: &str) {
    rig.sim.steer("slot * service 2ms");
    let load = Load { connections: 2, ..Load::default() }.start(rig).await;
    for (function, values) in COMING_UP {
        for value in *values {
            load.until_done(10);
            let so_far = rig.sum("keyway_session_evictions_total", &[("token", "one")]);
            rig.sim.steer(&format!("fail {function} slot one {value} {often}"));
            rig.sim.steer("drop-sessions slot one");
            rig.until_grown("keyway_session_evictions_total", &[("token", "one")], so_far, 1.0);
            load.until_done(10);
            rig.sim.steer("clear");
            rig.until_serving("one").await;
            let jobs = rig.jobs("one");
            rig.until_grown("keyway_jobs_total", &[("token", "one"), ("result", "ok")], jobs, 3.0);
        }
    }
    load.stop().assert_none_lost();
}

#[tokio::test]
async fn a_member_that_comes_up_with_trouble_costs_a_pool_no_request() {
    let rig = Rig::pool("retry_percent = 100\n retry_burst = 65536", "max_sessions = 2").await;
    comes_up_with_trouble(&rig, "first 3").await;
    rig.until_serving("two").await;
}

#[tokio::test]
async fn requests_wait_for_the_only_member_that_comes_up_with_trouble() {
    let rig = alone().await;
    comes_up_with_trouble(&rig, "first 1").await;
}

/// Asks for one signature of a token that fails every one. Answers how often it was tried.
async fn tries(rig: &Rig, framed: &Framed) -> u64 {
    let before = rig.sim.calls("C_Sign");
    let sign = proto::Sign { mount: "transit".into(), key: "doc".into(), input: "x".into(), ..Default::default() };
    let answer = framed.sign(sign).await;
    assert!(matches!(&answer, Err(ClientError::Refused { label, .. }) if label == "device_error"), "{answer:?}");
    rig.sim.calls("C_Sign") - before
}

#[tokio::test]
async fn tries_on_fresh_sessions_are_within_the_bound_and_the_budget_of_all_tries() {
    for (limits, expected) in
        [("attempts = 3", [3, 3]), ("attempts = 16\n retry_percent = 1\n retry_burst = 2", [3, 1])]
    {
        let setup = Setup { more: probing(limits), stanza: "max_sessions = 4", ..Setup::default() };
        let rig = Rig::null(&["one"], &["doc"], setup).await;
        rig.key("doc", json!({})).await;
        rig.until_member("one", |member| member["sessions"] == 4).await;
        rig.sim.steer("fail C_Sign CKR_DEVICE_ERROR");
        let framed = rig.framed(LIMIT).await;
        let tried = [tries(&rig, &framed).await, tries(&rig, &framed).await];
        assert_eq!(tried, expected, "{limits}: {}", rig.daemon.log());
        let granted = rig.sum("keyway_retries_total", &[("result", "tried")]);
        assert_eq!(granted, (tried[0] + tried[1] - 2) as f64, "{limits}");
    }
}

#[tokio::test]
async fn a_failure_whose_further_try_would_end_too_late_is_told_at_once() {
    let setup = Setup { more: probing("call_sign = \"30s\""), stanza: "max_sessions = 2", ..Setup::default() };
    let rig = Rig::null(&["one"], &["doc"], setup).await;
    rig.key("doc", json!({})).await;
    rig.sim.steer("slot * service 2s");
    // How long it takes is known from now on.
    assert_eq!(rig.test_sign("doc").await, (204, String::new()));
    rig.sim.steer("late C_Sign CKR_DEVICE_ERROR nth 1");
    let framed = rig.framed(Duration::from_millis(3_500)).await;
    assert_eq!(tries(&rig, &framed).await, 1, "{}", rig.daemon.log());
}

#[tokio::test]
async fn a_module_that_others_finalised_is_initialised_anew_once_for_all_its_slots() {
    let rig = Rig::pool("", "max_sessions = 2").await;
    rig.sim.steer("slot * service 2ms");
    let load = Load::default().start(&rig).await;
    load.until_done(20);
    let (initialised, logins) = (rig.sim.calls("C_Initialize"), rig.sim.calls("C_Login"));
    // Said once: whoever hears it tells the others.
    rig.sim.steer("fail C_Sign slot one CKR_CRYPTOKI_NOT_INITIALIZED nth 3");
    wait_for("a new initialisation", || (rig.sim.calls("C_Initialize") > initialised).then_some(()));
    load.until_done(50);
    for token in TOKENS {
        rig.until_serving(token).await;
    }
    load.stop().assert_none_lost();
    let risen = (rig.sim.calls("C_Initialize") - initialised, rig.sim.calls("C_Login") - logins);
    assert_eq!(risen, (1, 2), "{}", rig.daemon.log());
}

#[tokio::test]
async fn a_module_that_others_finalise_again_within_seconds_costs_no_request() {
    let rig = Rig::pool("", "max_sessions = 2").await;
    rig.sim.steer("slot * service 2ms");
    let load = Load::default().start(&rig).await;
    load.until_done(20);
    let initialised = rig.sim.calls("C_Initialize");
    for round in 1..=3 {
        rig.sim.steer("finalize");
        wait_for("a new initialisation", || (rig.sim.calls("C_Initialize") >= initialised + round).then_some(()));
        for token in TOKENS {
            rig.until_serving(token).await;
        }
        load.until_done(20);
    }
    load.stop().assert_none_lost();
    assert_eq!(rig.sim.calls("C_Initialize"), initialised + 3, "{}", rig.daemon.log());
}

#[tokio::test]
async fn a_module_that_is_lost_all_the_time_is_not_initialised_all_the_time() {
    let rig = alone().await;
    rig.until_serving("one").await;
    let initialised = rig.sim.calls("C_Initialize");
    let begun = std::time::Instant::now();
    // Logging in goes well each time, and proving the key never.
    rig.sim.steer("fail C_SignInit CKR_CRYPTOKI_NOT_INITIALIZED");
    assert!(rig.test_sign("doc").await.0 >= 500);
    // Two quick ones, then one after a second, and the next after five more; it is tried far more often.
    wait_for("the third", || (rig.sim.calls("C_Initialize") >= initialised + 3).then_some(()));
    let looked = rig.sim.calls("C_GetSlotList");
    wait_for("many tries", || (rig.sim.calls("C_GetSlotList") >= looked + 60).then_some(()));
    let risen = rig.sim.calls("C_Initialize") - initialised;
    assert!(risen <= 3 + begun.elapsed().as_secs() / 5, "{risen} times: {}", rig.daemon.log());
    let told = |member: &serde_json::Value| member["reason"].as_str().is_some_and(|told| told.contains("anew in "));
    rig.until_member("one", told).await;
    rig.sim.steer("clear");
    rig.until_serving("one").await;
    assert_eq!(rig.test_sign("doc").await, (204, String::new()));
}

#[tokio::test]
async fn a_pin_that_a_serving_token_comes_to_refuse_is_not_tried_again() {
    for value in ["CKR_PIN_INCORRECT", "CKR_PIN_LOCKED", "CKR_PIN_EXPIRED"] {
        let setup = Setup { more: pool(""), stanza: "max_sessions = 2", ..Setup::default() };
        let rig = Rig::null(&TOKENS, &["doc"], setup).await;
        rig.key("doc", json!({"library": "both", "token_label": ""})).await;
        let load = Load::default().start(&rig).await;
        load.until_done(20);
        let logins = rig.sim.calls("C_Login");
        rig.sim.steer(&format!("fail C_Login slot one {value}"));
        rig.sim.steer("drop-sessions slot one");
        rig.until_member("one", |member| member["state"] == "refused").await;
        load.until_done(50);
        load.stop().assert_none_lost();
        assert_eq!(rig.sim.calls("C_Login"), logins + 1, "{value}");
    }
}

#[tokio::test]
async fn a_pin_that_has_expired_by_the_word_of_one_call_is_asked_after_by_a_login() {
    let rig = Rig::pool("", "max_sessions = 2").await;
    let load = Load::default().start(&rig).await;
    load.until_done(20);
    let logins = rig.sim.calls("C_Login");
    rig.sim.steer("fail C_Sign slot one CKR_PIN_EXPIRED nth 1");
    rig.until_grown("keyway_logins_total", &[("cause", "CKR_PIN_EXPIRED"), ("result", "ok")], 0.0, 1.0);
    rig.until_serving("one").await;
    load.until_done(50);
    load.stop().assert_none_lost();
    assert_eq!(rig.sim.calls("C_Login"), logins + 1, "{}", rig.daemon.log());
}

#[tokio::test]
async fn a_key_that_was_generated_all_the_same_is_found_and_not_generated_again() {
    let rig = Rig::null(&["one"], &[], Setup { more: probing(""), ..Setup::default() }).await;
    rig.daemon.managed_key("new", json!({"mechanism": "0x1041", "curve": "P256", "token_label": "one"})).await;
    rig.sim.steer("late C_GenerateKeyPair CKR_DEVICE_ERROR nth 1");
    let (status, told) = rig.test_sign("new").await;
    assert!(status >= 500 && told.contains("CKR_DEVICE_ERROR"), "{status} {told}");
    assert_eq!(rig.test_sign("new").await, (204, String::new()));
    assert_eq!(rig.sim.calls("C_GenerateKeyPair"), 1);
}
