//! Libraries that are odd, each in its own way, and serve all the same.

use std::time::Instant;

use serde_json::json;

use crate::daemon::{LIMIT, Setup, wait_for};
use crate::load::Load;
use crate::rig::{Rig, module, probing};
use crate::sim::{PIN, Sim};
use crate::token::{self, Token};

/// As p11-kit's modules do.
#[tokio::test]
async fn a_library_may_give_another_instance_at_each_look_at_its_functions() {
    for stanza in ["isolation = \"none\"", "isolation = \"process\""] {
        let token = Token::absent();
        let slot = json!({"label": "one", "pin": PIN, "keys": [{"label": "doc"}]});
        let settings = json!({"instances": true, "null": {"slots": [slot]}});
        let sim = Sim::new(token::module(), &module(&token), &settings);
        let rig = Rig::on(token, sim, Setup { more: probing(""), stanza, ..Setup::default() }).await;
        rig.key("doc", json!({})).await;
        assert_eq!(rig.test_sign("doc").await, (204, String::new()), "{stanza}: {}", rig.daemon.log());
    }
}

/// Client libraries of networked HSMs that have lost their connection do so; the slot list of some, the login of others.
#[tokio::test]
async fn a_library_that_fails_until_it_is_initialised_anew_is_initialised_anew() {
    let faults = [
        ("C_GetSlotList", "CKR_DEVICE_ERROR"),
        ("C_GetSlotList", "0x80000042"),
        ("C_OpenSession", "CKR_GENERAL_ERROR"),
        ("C_Login", "CKR_FUNCTION_FAILED"),
    ];
    for (function, value) in faults {
        let setup = Setup { more: probing(""), stanza: "max_sessions = 2", ..Setup::default() };
        let rig = Rig::null(&["one"], &["doc"], setup).await;
        rig.key("doc", json!({})).await;
        let load = Load::default().start(&rig).await;
        load.until_done(20);
        let initialised = rig.sim.calls("C_Initialize");
        rig.sim.steer(&format!("fail {function} {value} until-finalized"));
        rig.sim.steer("drop-sessions");
        wait_for("another initialisation", || (rig.sim.calls("C_Initialize") > initialised).then_some(()));
        load.until_done(20);
        load.stop().assert_none_lost();
        rig.until_serving("one").await;
        assert_eq!(rig.sim.calls("C_Initialize"), initialised + 1, "{function} {value}: {}", rig.daemon.log());
    }
}

#[tokio::test]
async fn a_library_whose_signatures_fail_until_it_is_initialised_anew_is_initialised_anew() {
    let setup = Setup { more: probing(""), stanza: "max_sessions = 2", ..Setup::default() };
    let rig = Rig::null(&["one"], &["doc"], setup).await;
    rig.key("doc", json!({})).await;
    assert_eq!(rig.test_sign("doc").await, (204, String::new()));
    let initialised = rig.sim.calls("C_Initialize");
    rig.sim.steer("fail C_Sign CKR_DEVICE_ERROR until-finalized");
    let begun = Instant::now();
    while rig.test_sign("doc").await.0 != 204 {
        assert!(begun.elapsed() < LIMIT, "{}", rig.daemon.log());
    }
    assert_eq!(rig.sim.calls("C_Initialize"), initialised + 1, "{}", rig.daemon.log());
}

#[tokio::test]
async fn a_library_is_not_initialised_anew_for_one_token_while_another_serves() {
    let rig = Rig::pool("", "max_sessions = 2").await;
    let load = Load::default().start(&rig).await;
    load.until_done(20);
    let (initialised, logins) = (rig.sim.calls("C_Initialize"), rig.sim.calls("C_Login"));
    rig.sim.steer("fail C_Login slot one CKR_DEVICE_ERROR until-finalized");
    rig.sim.steer("drop-sessions slot one");
    wait_for("a few tries", || (rig.sim.calls("C_Login") > logins + 3).then_some(()));
    load.stop().assert_none_lost();
    assert_eq!(rig.sim.calls("C_Initialize"), initialised, "{}", rig.daemon.log());
    // Once the other fails as well, nothing of the library is in use; its own sessions it misses when they are to work.
    let load = Load::default().start(&rig).await;
    rig.sim.steer("fail C_Login slot two CKR_DEVICE_ERROR until-finalized");
    rig.sim.steer("drop-sessions");
    rig.until_serving("one").await;
    rig.until_serving("two").await;
    assert!(rig.sim.calls("C_Initialize") > initialised);
    // Without a token that serves, some are told so.
    drop(load.stop());
}
