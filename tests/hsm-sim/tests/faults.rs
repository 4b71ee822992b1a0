//! Rules for calls.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::hsm::{Hsm, KEYS, find, generate, is_by, key, label, login, sign, told};

/// How long anything may take that happens at all.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn a_call_fails_by_its_number(hsm: &Hsm) {
    let session = hsm.logged_in("one");
    let key = key(&session);
    hsm.sim.steer("fail C_SignInit CKR_DEVICE_ERROR nth 2");
    let answers: Vec<String> = (0..4).map(|_| told(sign(&session, key))).collect();
    assert_eq!(answers, ["Ok", "DeviceError", "Ok", "Ok"]);
}

pub(crate) fn every_so_many_calls_fail(hsm: &Hsm) {
    let session = hsm.logged_in("one");
    let key = key(&session);
    hsm.sim.steer("fail C_SignInit 0x30 every 2");
    let answers: Vec<String> = (0..4).map(|_| told(sign(&session, key))).collect();
    assert_eq!(answers, ["Ok", "DeviceError", "Ok", "DeviceError"]);
}

pub(crate) fn the_first_calls_fail(hsm: &Hsm) {
    let session = hsm.logged_in("one");
    let key = key(&session);
    hsm.sim.steer("fail C_SignInit CKR_FUNCTION_FAILED first 2");
    let answers: Vec<String> = (0..3).map(|_| told(sign(&session, key))).collect();
    assert_eq!(answers, ["FunctionFailed", "FunctionFailed", "Ok"]);
}

pub(crate) fn a_fault_is_for_its_slot(hsm: &Hsm) {
    let (one, two) = (hsm.logged_in("one"), hsm.logged_in("two"));
    hsm.sim.steer("fail C_Sign slot two CKR_DEVICE_MEMORY");
    assert_eq!(told(sign(&one, key(&one))), "Ok");
    assert_eq!(told(sign(&two, key(&two))), "DeviceMemory");
    // By its number as well.
    hsm.sim.steer("clear");
    hsm.sim.steer(&format!("fail C_Sign slot {} CKR_GENERAL_ERROR", hsm.slot("one").id()));
    assert_eq!(told(sign(&one, key(&one))), "GeneralError");
    assert_eq!(told(sign(&two, key(&two))), "Ok");
}

pub(crate) fn any_function_can_fail(hsm: &Hsm) {
    let session = hsm.session("one");
    hsm.sim.steer("fail C_Login CKR_PIN_EXPIRED nth 1");
    assert_eq!(told(login(&session)), "PinExpired");
    login(&session).unwrap();
    hsm.sim.steer("fail C_GetTokenInfo CKR_DEVICE_ERROR");
    assert_eq!(told(hsm.context().get_token_info(session_slot(&session))), "DeviceError");
    hsm.sim.steer("fail C_GetSlotList CKR_HOST_MEMORY");
    assert_eq!(told(hsm.context().get_slots_with_token()), "HostMemory");
    hsm.sim.steer("clear");
    hsm.sim.steer("fail * CKR_DEVICE_ERROR");
    assert_eq!(told(session.get_session_info()), "DeviceError");
    assert_eq!(told(hsm.context().get_library_info()), "DeviceError");
    hsm.sim.steer("clear");
}

fn session_slot(session: &cryptoki::session::Session) -> cryptoki::slot::Slot {
    session.get_session_info().unwrap().slot_id()
}

pub(crate) fn a_late_failure_has_been_done(hsm: &Hsm) {
    let session = hsm.logged_in("one");
    hsm.sim.steer("late C_Logout CKR_DEVICE_ERROR nth 1");
    assert_eq!(told(session.logout()), "DeviceError");
    assert_eq!(told(login(&session)), "Ok");
    hsm.sim.steer("fail C_Logout CKR_DEVICE_ERROR nth 1");
    assert_eq!(told(session.logout()), "DeviceError");
    assert_eq!(told(login(&session)), "UserAlreadyLoggedIn");
}

pub(crate) fn a_failed_signature_ends_its_operation(hsm: &Hsm) {
    let session = hsm.logged_in("one");
    let key = key(&session);
    // The query for the length, then the signature itself.
    for call in [1, 2] {
        hsm.sim.steer(&format!("fail C_Sign CKR_DEVICE_ERROR nth {call}"));
        assert_eq!(told(sign(&session, key)), "DeviceError", "call {call}");
        assert_eq!(told(sign(&session, key)), "Ok", "an operation was left open");
        hsm.sim.steer("clear");
    }
}

pub(crate) fn a_call_hangs_until_it_is_released(hsm: &Hsm) {
    let session = hsm.logged_in("one");
    let key = key(&session);
    hsm.sim.steer("hang C_Sign slot one");
    let before = hsm.sim.calls("C_Sign");
    let (done, answers) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let signed = sign(&session, key);
            let by = signed.is_ok_and(|signature| is_by(&session, KEYS[0], &signature));
            done.send(by).unwrap();
        });
        let begun = Instant::now();
        while hsm.sim.calls("C_Sign") == before {
            assert!(begun.elapsed() < LIMIT, "the call did not come");
            std::thread::yield_now();
        }
        // Others go on.
        let two = hsm.logged_in("two");
        assert_eq!(told(sign(&two, self::key(&two))), "Ok");
        assert_eq!(answers.try_recv(), Err(mpsc::TryRecvError::Empty));
        hsm.sim.steer("release");
        assert_eq!(answers.recv_timeout(LIMIT), Ok(true), "the call did not complete");
    });
}

pub(crate) fn signatures_are_wrong(hsm: &Hsm) {
    let session = hsm.logged_in("one");
    let key = key(&session);
    let good = |signature: Vec<u8>| is_by(&session, KEYS[0], &signature);
    assert!(good(sign(&session, key).unwrap()));
    // Every second signature: every second C_Sign with a buffer is the fourth call.
    hsm.sim.steer("wrong-signature slot one every 4");
    let answers: Vec<bool> = (0..4).map(|_| good(sign(&session, key).unwrap())).collect();
    assert_eq!(answers, [true, false, true, false]);
}

pub(crate) fn rules_are_cleared(hsm: &Hsm) {
    let session = hsm.logged_in("one");
    hsm.sim.steer("fail C_SignInit CKR_DEVICE_ERROR");
    assert_eq!(told(sign(&session, key(&session))), "DeviceError");
    hsm.sim.steer("clear");
    assert_eq!(told(sign(&session, key(&session))), "Ok");
    assert_eq!(label(&session, find(&session, KEYS[1]).unwrap()), KEYS[1]);
    generate(&session, "made");
    assert!(find(&session, "made").is_some());
    let made = find(&session, "made").unwrap();
    assert!(is_by(&session, "made", &sign(&session, made).unwrap()));
}
