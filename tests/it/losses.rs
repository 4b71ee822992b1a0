//! What devices forget: sessions, logins, the numbers of their slots; under load, and in quiet times.

use std::time::Duration;

use serde_json::json;

use crate::daemon::{Setup, wait_for};
use crate::load::Load;
use crate::rig::{Rig, TOKENS, module, pool, probing};
use crate::sim::Sim;
use crate::token::{self, Token};

/// One token, with two sessions, and the key `doc`.
async fn alone(stanza: &'static str) -> Rig {
    let rig = Rig::null(&["one"], &["doc"], Setup { more: probing(""), stanza, ..Setup::default() }).await;
    rig.sim.steer("slot * parallel 2");
    rig.key("doc", json!({})).await;
    rig
}

/// What was opened anew, and how often.
struct Counts {
    logins: u64,
    initialised: u64,
    sessions: u64,
}

impl Counts {
    fn of(rig: &Rig) -> Counts {
        let calls = |function| rig.sim.calls(function);
        Counts { logins: calls("C_Login"), initialised: calls("C_Initialize"), sessions: calls("C_OpenSession") }
    }
}

/// Steers while both members sign, and sees that both sign afterwards with sessions that are new.
async fn forgets(rig: &Rig, tokens: &[&str], commands: &[&str]) -> Counts {
    rig.sim.steer("slot * service 2ms");
    let load = Load::default().start(rig).await;
    load.until_done(40);
    let before = Counts::of(rig);
    commands.iter().for_each(|command| drop(rig.sim.steer(command)));
    load.until_done(40);
    for token in tokens {
        rig.until_serving(token).await;
        rig.until_grown("keyway_jobs_total", &[("token", token), ("result", "ok")], rig.jobs(token), 10.0);
    }
    load.stop().assert_none_lost();
    let after = Counts::of(rig);
    Counts {
        logins: after.logins - before.logins,
        initialised: after.initialised - before.initialised,
        sessions: after.sessions - before.sessions,
    }
}

#[tokio::test]
async fn a_pool_that_loses_all_sessions_logs_each_member_in_once() {
    let rig = Rig::pool("", "max_sessions = 2").await;
    // A token's login ends with its last session.
    let counts = forgets(&rig, &TOKENS, &["drop-sessions"]).await;
    assert_eq!(counts.logins, 2, "{}", rig.daemon.log());
    assert!(counts.sessions >= 4);
    let counts = forgets(&rig, &TOKENS, &["drop-sessions slot one"]).await;
    assert_eq!((counts.logins, counts.initialised), (1, 0), "{}", rig.daemon.log());
}

#[tokio::test]
async fn a_pool_whose_logins_are_forgotten_logs_each_member_in_once() {
    let rig = Rig::pool("", "max_sessions = 2").await;
    let counts = forgets(&rig, &TOKENS, &["forget-login"]).await;
    assert_eq!(counts.logins, 2, "{}", rig.daemon.log());
    let counts = forgets(&rig, &TOKENS, &["forget-login slot two"]).await;
    assert_eq!(counts.logins, 1, "{}", rig.daemon.log());
}

#[tokio::test]
async fn a_pool_of_which_every_fifth_call_fails_loses_no_request_and_no_member() {
    let rig = Rig::pool("", "max_sessions = 2").await;
    let before = rig.sim.calls("C_Login");
    let load = Load::default().start(&rig).await;
    rig.sim.steer("fail C_Sign CKR_DEVICE_ERROR every 5");
    load.until_done(400);
    rig.sim.steer("clear");
    load.until_done(40);
    load.stop().assert_none_lost();
    assert_eq!(rig.sim.calls("C_Login"), before, "{}", rig.daemon.log());
}

#[tokio::test]
async fn sessions_that_cannot_be_opened_anew_cost_no_request_and_no_member() {
    let rig = Rig::pool("", "max_sessions = 4").await;
    let before = rig.sim.calls("C_Login");
    // So many signatures a second that no member loses all its sessions before it asks for others.
    rig.sim.steer("slot * service 2ms");
    let load = Load::default().start(&rig).await;
    rig.sim.steer("fail C_OpenSession CKR_GENERAL_ERROR every 8");
    rig.sim.steer("fail C_Sign CKR_DEVICE_ERROR every 10");
    load.until_done(400);
    rig.sim.steer("clear");
    load.until_done(40);
    for token in TOKENS {
        rig.until_member(token, |member| member["state"] == "serving" && member["sessions"] == 4).await;
    }
    load.stop().assert_none_lost();
    assert_eq!(rig.sim.calls("C_Login"), before, "{}", rig.daemon.log());
}

#[tokio::test]
async fn a_pool_that_loses_all_sessions_and_finds_no_key_at_first_loses_no_request() {
    let rig = Rig::pool("", "max_sessions = 2").await;
    let load = Load::default().start(&rig).await;
    for _ in 0..4 {
        load.until_done(40);
        rig.sim.steer("fail C_FindObjectsInit CKR_DEVICE_ERROR nth 1");
        rig.sim.steer("drop-sessions");
        load.until_done(40);
        rig.sim.steer("clear");
        for token in TOKENS {
            rig.until_serving(token).await;
        }
    }
    load.stop().assert_none_lost();
}

#[tokio::test]
async fn requests_wait_for_the_only_member_while_it_is_brought_up_anew() {
    let rig = alone("max_sessions = 2").await;
    for fault in ["drop-sessions", "forget-login", "forget-handles"] {
        let counts = forgets(&rig, &["one"], &[fault]).await;
        let expected = if fault == "forget-handles" { 0 } else { 1 };
        assert_eq!(counts.logins, expected, "{fault}: {}", rig.daemon.log());
    }
}

#[tokio::test]
async fn a_login_that_lasted_is_made_again_without_initialising_the_module() {
    let rig = alone("max_sessions = 2").await;
    rig.sim.steer("slot * service 20ms");
    let load = Load { connections: 1, depth: 2, ..Load::default() }.start(&rig).await;
    // A login that is denied within five seconds has not taken, and the module is to blame: so many are 6 s of signing.
    load.until_done(600);
    let before = Counts::of(&rig);
    rig.sim.steer("forget-login");
    load.until_done(50);
    rig.until_serving("one").await;
    let after = Counts::of(&rig);
    load.stop().assert_none_lost();
    assert_eq!((after.logins - before.logins, after.initialised - before.initialised), (1, 0), "{}", rig.daemon.log());
}

#[tokio::test]
async fn slots_that_exchange_their_numbers_never_sign_for_each_other() {
    let setup = Setup { more: probing(""), stanza: "max_sessions = 2", ..Setup::default() };
    let rig = Rig::null(&TOKENS, &["doc", "other"], setup).await;
    rig.sim.steer("slot * parallel 2");
    rig.sim.steer("slot * service 2ms");
    // In the one token it has the handle that the other key has in the other: as tokens do that were filled by hand.
    rig.sim.steer("swap slot two now doc other");
    rig.sim.steer("swap slot two now other doc");
    rig.key("doc", json!({"token_label": "one"})).await;
    rig.key("mirror", json!({"token_label": "two", "key_label": "doc"})).await;
    let loads = [Load::default().start(&rig).await, Load { key: "mirror", ..Load::default() }.start(&rig).await];
    loads.iter().for_each(|load| load.until_done(40));
    assert_ne!(rig.public_key("", "doc").await, rig.public_key("", "mirror").await);
    for command in ["renumber now", "renumber rotate now"] {
        rig.sim.steer(command);
        loads.iter().for_each(|load| load.until_done(20));
        // Sessions one by one, so that the tokens' logins go on.
        rig.sim.steer("fail C_Sign CKR_SESSION_HANDLE_INVALID first 4");
        loads.iter().for_each(|load| load.until_done(40));
        rig.sim.steer("drop-sessions");
        loads.iter().for_each(|load| load.until_done(40));
    }
    for load in loads {
        load.stop().assert_none_lost();
    }
}

#[tokio::test]
async fn a_pool_finds_its_slots_again_by_their_labels() {
    let rig = Rig::pool("", "max_sessions = 2").await;
    for command in ["renumber now", "renumber rotate now"] {
        let counts = forgets(&rig, &TOKENS, &[command, "drop-sessions"]).await;
        assert_eq!(counts.logins, 2, "{command}: {}", rig.daemon.log());
    }
}

#[tokio::test]
async fn a_device_too_busy_to_show_one_key_goes_on_with_the_others() {
    let setup = Setup { more: probing(""), stanza: "max_sessions = 2", ..Setup::default() };
    let rig = Rig::null(&["one"], &["doc", "next"], setup).await;
    rig.key("doc", json!({})).await;
    let load = Load::default().start(&rig).await;
    load.until_done(20);
    let before = Counts::of(&rig);
    rig.sim.steer("fail C_FindObjects CKR_DEVICE_MEMORY first 1");
    let managed = json!({"mechanism": "0x1041", "curve": "P256", "token_label": "one"});
    rig.daemon.managed_key("next", managed).await;
    let (status, told) = rig.test_sign("next").await;
    assert!(status >= 500 && told.contains("CKR_DEVICE_MEMORY"), "{status} {told}");
    assert_eq!(rig.test_sign("next").await, (204, String::new()));
    load.until_done(20);
    load.stop().assert_none_lost();
    let after = Counts::of(&rig);
    assert_eq!((after.logins, after.sessions), (before.logins, before.sessions), "{}", rig.daemon.log());
}

#[tokio::test]
async fn a_pool_of_real_tokens_forgets_and_no_request_is_lost() {
    let rig = Rig::real_pool("max_sessions = 2", &["doc"]).await;
    for fault in ["drop-sessions", "forget-login", "forget-handles", "renumber now"] {
        let counts = forgets(&rig, &TOKENS, &[fault]).await;
        // A login lasts where a session is opened before the last of the old ones is gone.
        let expected = match fault {
            "drop-sessions" => 0..=2,
            "forget-login" => 2..=2,
            _ => 0..=0,
        };
        assert!(expected.contains(&counts.logins), "{fault}: {} logins\n{}", counts.logins, rig.daemon.log());
    }
}

#[tokio::test]
async fn idle_sessions_are_kept_alive() {
    let rig = alone("max_sessions = 2\n keep_alive = \"1s\"").await;
    rig.until_serving("one").await;
    rig.sim.steer("slot * idle 4s");
    let before = Counts::of(&rig);
    let exercised = rig.sim.calls("C_SignInit");
    // Two sessions, each once a second: the time-out has passed.
    wait_for("keep-alives", || (rig.sim.calls("C_SignInit") >= exercised + 12).then_some(()));
    Load::default().run(&rig, 20).await.assert_none_lost();
    let after = Counts::of(&rig);
    assert_eq!((after.logins, after.sessions), (before.logins, before.sessions), "{}", rig.daemon.log());
    assert_eq!(rig.sum("keyway_session_evictions_total", &[]), 0.0);
}

/// A pool nobody has given a key to.
async fn idle_members_are_looked_after(stanza: &'static str) {
    let rig = Rig::null(&TOKENS, &[], Setup { more: pool(""), stanza, ..Setup::default() }).await;
    let is = |state: &'static str| move |member: &serde_json::Value| member["state"] == state && member["keys"] == 0;
    for token in TOKENS {
        rig.until_member(token, is("serving")).await;
    }
    rig.sim.steer("remove slot two");
    rig.until_member("two", |member| member["state"] == "backing_off" && member["sessions"] == 0).await;
    assert_eq!(rig.member("one").await["state"], "serving", "{}", rig.daemon.log());
    rig.sim.steer("return slot two");
    rig.until_member("two", is("serving")).await;
    // One that is forgotten by its token logs in again.
    let logins = rig.sim.calls("C_Login");
    rig.sim.steer("forget-login slot one");
    wait_for("another login", || (rig.sim.calls("C_Login") > logins).then_some(()));
    rig.until_member("one", is("serving")).await;
}

#[tokio::test]
async fn the_loss_of_a_member_without_a_key_is_seen_before_one_comes() {
    idle_members_are_looked_after("max_sessions = 2\n keep_alive = \"1s\"").await;
}

#[tokio::test]
async fn the_loss_of_a_member_without_a_key_is_seen_in_its_worker_as_well() {
    idle_members_are_looked_after("isolation = \"process\"\n max_sessions = 2\n keep_alive = \"1s\"").await;
}

#[tokio::test]
async fn the_first_request_after_idle_sessions_died_is_answered() {
    let stanza = "max_sessions = 2\n keep_alive = \"0s\"";
    let rig = Rig::null(&["one"], &["doc", "next"], Setup { more: probing(""), stanza, ..Setup::default() }).await;
    rig.key("doc", json!({})).await;
    rig.until_serving("one").await;
    for key in ["doc", "next", "doc"] {
        let before = Counts::of(&rig);
        rig.sim.steer("slot * idle 200ms");
        // Time must pass, and the daemon must have nothing to do.
        tokio::time::sleep(Duration::from_millis(300)).await;
        if key == "next" {
            // A first use needs the session in which keys are found.
            rig.key(key, json!({})).await;
        }
        assert_eq!(rig.test_sign(key).await, (204, String::new()));
        rig.sim.steer("slot * idle never");
        Load { key, connections: 1, depth: 1, ..Load::default() }.run(&rig, 10).await.assert_none_lost();
        let after = Counts::of(&rig);
        assert!(after.sessions > before.sessions, "no session has died");
        assert!(after.logins <= before.logins + 1, "{}", rig.daemon.log());
    }
}

#[tokio::test]
async fn a_token_with_room_for_two_sessions_is_served_and_comes_back() {
    for stanza in ["", "isolation = \"process\"\n workers = 1"] {
        for hidden in ["", " hidden"] {
            let token = Token::absent();
            let sim = Sim::null(token::module(), &module(&token), &["one"], &["doc"]);
            std::fs::write(sim.control().join("steering"), format!("slot * sessions 2{hidden}\n")).unwrap();
            let rig = Rig::on(token, sim, Setup { more: probing(""), stanza, ..Setup::default() }).await;
            rig.key("doc", json!({})).await;
            let load = Load::default().start(&rig).await;
            load.until_done(50);
            rig.until_member("one", |member| member["sessions"] == 1).await;
            // The one that signs, and then both.
            rig.sim.steer("fail C_Sign CKR_DEVICE_ERROR nth 1");
            load.until_done(50);
            rig.sim.steer("drop-sessions");
            load.until_done(50);
            load.stop().assert_none_lost();
            // The one that finds keys is in the middle of something: there is no room for another beside it.
            let logins = rig.sim.calls("C_Login");
            for trouble in
                ["fail C_FindObjects CKR_DEVICE_ERROR nth 1", "late C_FindObjectsInit CKR_DEVICE_ERROR nth 1"]
            {
                rig.sim.steer(trouble);
                rig.sim.steer("forget-handles");
                let load = Load::default().start(&rig).await;
                load.until_done(50);
                load.stop().assert_none_lost();
            }
            assert_eq!(rig.sim.calls("C_Login"), logins, "{}", rig.daemon.log());
        }
    }
}

#[tokio::test]
async fn a_token_with_room_for_fewer_sessions_is_served_with_those() {
    for hidden in ["", " hidden"] {
        let token = Token::absent();
        let sim = Sim::null(token::module(), &module(&token), &["one"], &["doc"]);
        std::fs::write(sim.control().join("steering"), format!("slot * sessions 5{hidden}\n")).unwrap();
        let setup = Setup { more: probing(""), stanza: "max_sessions = 8", ..Setup::default() };
        let rig = Rig::on(token, sim, setup).await;
        rig.key("doc", json!({})).await;
        let load = Load::default().start(&rig).await;
        load.until_done(50);
        let state = if hidden.is_empty() { "serving" } else { "degraded" };
        // One of them holds the login, and finds keys.
        rig.until_member("one", |member| member["state"] == state && member["sessions"] == 4).await;
        load.until_done(50);
        if !hidden.is_empty() {
            // Nobody told it: it asks now and then, and that costs nothing.
            load.until_done(200);
            assert_eq!(rig.daemon.log().matches("a session could not be opened").count(), 1, "{}", rig.daemon.log());
            rig.sim.steer("slot * sessions unlimited");
            rig.until_member("one", |member| member["state"] == "serving" && member["sessions"] == 8).await;
            load.until_done(50);
        }
        load.stop().assert_none_lost();
    }
}
