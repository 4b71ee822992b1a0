//! What becomes of sessions, logins, tokens, slots and handles.

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::slot::Limit;
use serde_json::json;

use crate::hsm::{Hsm, KEYS, built, find, is_by, key, label, login, sign, told};
use crate::sim::{PIN, Sim};

pub(crate) fn dropped_sessions_are_gone_for_good(hsm: &Hsm) {
    let (one, two) = (hsm.logged_in("one"), hsm.logged_in("two"));
    let old = key(&one);
    hsm.sim.steer("drop-sessions slot one");
    for _ in 0..2 {
        assert_eq!(told(sign(&one, old)), "SessionHandleInvalid");
        assert_eq!(told(one.get_session_info()), "SessionHandleInvalid");
    }
    assert_eq!(told(sign(&two, key(&two))), "Ok");
    // With its last session, the login is gone too.
    let again = hsm.session("one");
    assert!(find(&again, KEYS[0]).is_none());
    assert_eq!(told(login(&again)), "Ok");
    assert_eq!(told(sign(&again, key(&again))), "Ok");
    assert_eq!(told(one.get_session_info()), "SessionHandleInvalid");
}

pub(crate) fn a_forgotten_login_must_be_done_again(hsm: &Hsm) {
    let (session, second) = (hsm.logged_in("one"), hsm.session("one"));
    let old = key(&session);
    hsm.sim.steer("forget-login slot one");
    assert_eq!(told(sign(&session, old)), "UserNotLoggedIn");
    assert_eq!(told(sign(&second, old)), "UserNotLoggedIn");
    assert!(find(&session, KEYS[0]).is_none());
    // The sessions stay.
    assert_eq!(told(session.get_session_info()), "Ok");
    assert_eq!(told(login(&session)), "Ok");
    assert_eq!(told(sign(&second, key(&second))), "Ok");
}

pub(crate) fn a_module_that_others_finalised_is_initialised_anew(hsm: &Hsm) {
    let session = hsm.logged_in("one");
    let old = key(&session);
    hsm.sim.steer("finalize");
    for _ in 0..2 {
        assert_eq!(told(sign(&session, old)), "CryptokiNotInitialized");
        assert_eq!(told(hsm.context().get_slots_with_token()), "CryptokiNotInitialized");
    }
    hsm.initialize();
    assert_eq!(told(sign(&session, old)), "SessionHandleInvalid");
    let again = hsm.logged_in("one");
    assert_eq!(told(sign(&again, key(&again))), "Ok");
}

pub(crate) fn a_removed_token_is_gone_until_it_returns(hsm: &Hsm) {
    let session = hsm.logged_in("one");
    let (slot, old) = (hsm.slot("one"), key(&session));
    hsm.sim.steer("remove slot one");
    assert_eq!(told(sign(&session, old)), "DeviceRemoved");
    assert_eq!(told(hsm.context().open_rw_session(slot)), "TokenNotPresent");
    assert_eq!(told(hsm.context().get_token_info(slot)), "TokenNotPresent");
    assert!(hsm.slot_if_there("one").is_none());
    assert!(hsm.context().get_all_slots().unwrap().contains(&slot));
    assert!(!hsm.context().get_slot_info(slot).unwrap().token_present());
    assert!(hsm.slot_if_there("two").is_some());
    hsm.sim.steer("return slot one");
    assert_eq!(told(sign(&session, old)), "SessionHandleInvalid");
    let again = hsm.logged_in("one");
    // Its objects have other handles now.
    assert_eq!(told(sign(&again, old)), "KeyHandleInvalid");
    assert_eq!(told(sign(&again, key(&again))), "Ok");
}

pub(crate) fn a_returned_token_may_need_a_new_initialisation(hsm: &Hsm) {
    hsm.sim.steer("remove slot one");
    hsm.sim.steer("return slot one anew");
    assert!(hsm.slot_if_there("one").is_none());
    hsm.initialize_anew();
    assert!(hsm.slot_if_there("one").is_some());
    let session = hsm.logged_in("one");
    assert_eq!(told(sign(&session, key(&session))), "Ok");
}

pub(crate) fn slots_are_renumbered(hsm: &Hsm) {
    let (old, session) = (hsm.slot("one"), hsm.logged_in("one"));
    hsm.sim.steer("renumber");
    assert_eq!(hsm.slot("one"), old);
    drop(session);
    hsm.initialize_anew();
    let new = hsm.slot("one");
    assert_ne!(new, old);
    assert_eq!(told(hsm.context().open_rw_session(old)), "SlotIdInvalid");
    let session = hsm.logged_in("one");
    assert_eq!(session.get_session_info().unwrap().slot_id(), new);
    // At once, under a session that goes on.
    hsm.sim.steer("renumber now");
    assert_eq!(told(hsm.context().get_token_info(new)), "SlotIdInvalid");
    assert_ne!(hsm.slot("one"), new);
    assert_eq!(told(sign(&session, key(&session))), "Ok");
}

pub(crate) fn slots_exchange_their_numbers(hsm: &Hsm) {
    let before: Vec<u64> = hsm.context().get_slots_with_token().unwrap().iter().map(|slot| slot.id()).collect();
    let (one, two) = (hsm.slot("one"), hsm.slot("two"));
    hsm.sim.steer("renumber rotate now");
    let mut after: Vec<u64> = hsm.context().get_all_slots().unwrap().iter().map(|slot| slot.id()).collect();
    after.sort_unstable();
    assert!(before.iter().all(|number| after.contains(number)), "{before:?} {after:?}");
    assert!(hsm.slot("one") != one && hsm.slot("two") != two);
}

pub(crate) fn a_clock_tells_no_time(hsm: &Hsm) {
    let slot = hsm.slot("one");
    assert_eq!(told(hsm.context().get_token_info(slot)), "Ok");
    hsm.sim.steer("slot one clock malformed");
    assert!(hsm.context().get_token_info(slot).is_err());
    assert_eq!(told(hsm.context().get_token_info(hsm.slot("two"))), "Ok");
    hsm.sim.steer("slot one clock good");
    assert_eq!(told(hsm.context().get_token_info(slot)), "Ok");
}

pub(crate) fn sessions_are_limited(hsm: &Hsm) {
    let slot = hsm.slot("one");
    let is_told = || matches!(hsm.context().get_token_info(slot).unwrap().max_session_count(), Limit::Max(2));
    hsm.sim.steer("slot one sessions 2");
    assert!(is_told());
    let (_first, second) = (hsm.session("one"), hsm.session("one"));
    assert_eq!(told(hsm.context().open_rw_session(slot)), "SessionCount");
    assert_eq!(told(hsm.context().open_rw_session(hsm.slot("two"))), "Ok");
    drop(second);
    let third = hsm.session("one");
    hsm.sim.steer("slot one sessions 2 hidden");
    assert!(!is_told());
    assert_eq!(told(hsm.context().open_rw_session(slot)), "SessionCount");
    hsm.sim.steer("slot one sessions unlimited");
    assert_eq!(told(hsm.context().open_rw_session(slot)), "Ok");
    drop(third);
}

pub(crate) fn idle_sessions_die(hsm: &Hsm) {
    let session = hsm.session("one");
    assert_eq!(told(session.get_session_info()), "Ok");
    hsm.sim.steer("slot one idle 1ns");
    assert_eq!(told(session.get_session_info()), "SessionHandleInvalid");
    hsm.sim.steer("slot one idle never");
    assert_eq!(told(session.get_session_info()), "SessionHandleInvalid");
    let session = hsm.session("one");
    hsm.sim.steer("slot one idle 5m");
    assert_eq!(told(session.get_session_info()), "Ok");
    // A dead one makes room.
    hsm.sim.steer("slot one sessions 1");
    hsm.sim.steer("slot one idle 1ns");
    assert_eq!(told(hsm.context().open_rw_session(hsm.slot("one"))), "Ok");
}

pub(crate) fn handles_are_forgotten(hsm: &Hsm) {
    let session = hsm.logged_in("one");
    let old = key(&session);
    hsm.sim.steer("forget-handles slot one");
    assert_eq!(told(sign(&session, old)), "KeyHandleInvalid");
    assert_eq!(told(session.get_attributes(old, &[cryptoki::object::AttributeType::Label])), "ObjectHandleInvalid");
    let new = key(&session);
    assert_ne!(new, old);
    assert_eq!(told(sign(&session, new)), "Ok");
}

pub(crate) fn a_handle_names_another_key_at_once(hsm: &Hsm) {
    let session = hsm.logged_in("one");
    let key = key(&session);
    hsm.sim.steer("swap slot one now ca other");
    assert_eq!(label(&session, key), KEYS[1]);
    let signature = sign(&session, key).unwrap();
    assert!(is_by(&session, KEYS[1], &signature));
    let two = hsm.logged_in("two");
    assert_eq!(label(&two, self::key(&two)), KEYS[0]);
}

pub(crate) fn a_handle_names_another_key_after_reconnecting(hsm: &Hsm) {
    let old = hsm.logged_in("one");
    hsm.sim.steer("swap slot one reconnect ca other");
    assert_eq!(label(&old, key(&old)), KEYS[0]);
    assert!(is_by(&old, KEYS[0], &sign(&old, key(&old)).unwrap()));
    let new = hsm.session("one");
    assert_eq!(label(&new, key(&new)), KEYS[1]);
    assert!(is_by(&new, KEYS[1], &sign(&new, key(&new)).unwrap()));
}

pub(crate) fn a_handle_names_another_key_in_use_only(hsm: &Hsm) {
    let session = hsm.logged_in("one");
    let key = key(&session);
    hsm.sim.steer("swap slot one now ca other use");
    assert_eq!(label(&session, key), KEYS[0]);
    assert!(is_by(&session, KEYS[1], &sign(&session, key).unwrap()));
}

pub(crate) fn a_slot_event_tells_of_a_removal(hsm: &Hsm) {
    let slot = hsm.slot("two");
    assert_eq!(hsm.context().get_slot_event().unwrap(), None);
    hsm.sim.steer("remove slot two");
    assert_eq!(hsm.context().get_slot_event().unwrap(), Some(slot));
    hsm.sim.steer("return slot two");
    assert_eq!(hsm.context().wait_for_slot_event().unwrap(), slot);
    assert_eq!(hsm.context().get_slot_event().unwrap(), None);
}

pub(crate) fn reset_undoes_everything(hsm: &Hsm) {
    let slot = hsm.slot("one");
    let steering =
        ["fail C_SignInit CKR_DEVICE_ERROR", "renumber now", "swap slot one now ca other", "slot one sessions 1"];
    steering.iter().for_each(|command| drop(hsm.sim.steer(command)));
    hsm.sim.steer("remove slot two");
    hsm.sim.steer("reset");
    assert_eq!(hsm.slot("one"), slot);
    let (session, _second) = (hsm.logged_in("one"), hsm.session("one"));
    assert!(is_by(&session, KEYS[0], &sign(&session, key(&session)).unwrap()));
    assert!(hsm.slot_if_there("two").is_some());
    let log = hsm.sim.control().join(format!("calls.{}.log", std::process::id()));
    hsm.sim.steer("log on");
    hsm.sim.steer("reset");
    let before = std::fs::metadata(&log).unwrap().len();
    session.get_session_info().unwrap();
    assert_eq!(std::fs::metadata(&log).unwrap().len(), before);
}

#[test]
fn each_who_asks_for_the_functions_may_get_an_instance_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let settings = json!({"instances": true, "null": {"slots": [{"label": "one", "pin": PIN}]}});
    let sim = Sim::new(&built(), &folder.path().join("hsm.so"), &settings);
    let [first, second] = [(); 2].map(|()| Pkcs11::new(&sim.module).unwrap());
    first.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    assert_eq!(first.get_slots_with_token().unwrap().len(), 1);
    assert_eq!(told(second.get_slots_with_token()), "CryptokiNotInitialized");
    first.finalize().unwrap();
    second.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    assert_eq!(second.get_slots_with_token().unwrap().len(), 1);
}
