//! Rules for calls.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use cryptoki::mechanism::Mechanism;
use cryptoki_sys::{CK_ATTRIBUTE, CK_MECHANISM, CKA_LABEL, CKR_OK};

use crate::hsm::{HASH, Hsm, KEYS, find, functions, generate, is_by, key, label, login, sign, told};

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

pub(crate) fn calls_fail_until_the_module_is_finalised(hsm: &Hsm) {
    hsm.sim.steer("fail C_GetSlotList CKR_DEVICE_ERROR until-finalized");
    for _ in 0..3 {
        assert_eq!(told(hsm.context().get_slots_with_token()), "DeviceError");
    }
    hsm.initialize_anew();
    assert_eq!(told(hsm.context().get_slots_with_token()), "Ok");
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

pub(crate) fn lengths_are_too_long(hsm: &Hsm) {
    const TOO_MUCH: u64 = 1 << 20;
    let session = hsm.logged_in("one");
    let key = key(&session);
    let functions = functions(hsm);
    hsm.sim.steer("wrong-length C_Sign slot one nth 1");
    let (mut mechanism, mut data) = (CK_MECHANISM::from(&Mechanism::Ecdsa), HASH);
    let (mut signature, mut len) = ([0; 64], 64);
    // SAFETY: a mechanism without a parameter, and room for as much as is said.
    let answers = unsafe {
        let begun = functions.C_SignInit.unwrap()(session.handle(), &raw mut mechanism, key.handle());
        let (data, signature) = (data.as_mut_ptr(), signature.as_mut_ptr());
        [begun, functions.C_Sign.unwrap()(session.handle(), data, HASH.len() as u64, signature, &raw mut len)]
    };
    assert_eq!((answers, len), ([CKR_OK; 2], 64 + TOO_MUCH));
    assert!(is_by(&session, KEYS[0], &signature));

    hsm.sim.steer("wrong-length C_GetAttributeValue");
    let (mut room, mut found) = ([0_u8; 8], [0; 4]);
    let mut wanted = CK_ATTRIBUTE { type_: CKA_LABEL, pValue: std::ptr::null_mut(), ulValueLen: 0 };
    let ask = |wanted: &mut CK_ATTRIBUTE| {
        // SAFETY: one attribute, without a value or with room for as much as it says.
        let rv = unsafe { functions.C_GetAttributeValue.unwrap()(session.handle(), key.handle(), wanted, 1) };
        (rv, wanted.ulValueLen)
    };
    assert_eq!(ask(&mut wanted), (CKR_OK, KEYS[0].len() as u64), "a query is answered rightly");
    wanted.pValue = room.as_mut_ptr().cast();
    assert_eq!(ask(&mut wanted), (CKR_OK, KEYS[0].len() as u64 + TOO_MUCH));
    assert!(room.starts_with(KEYS[0].as_bytes()));

    hsm.sim.steer("wrong-length C_FindObjects nth 1");
    // SAFETY: every object is looked for, and there is room for as many handles as is said.
    let answers = unsafe {
        let session = session.handle();
        let begun = functions.C_FindObjectsInit.unwrap()(session, std::ptr::null_mut(), 0);
        let done = functions.C_FindObjects.unwrap()(session, found.as_mut_ptr(), 4, &raw mut len);
        [begun, done, functions.C_FindObjectsFinal.unwrap()(session)]
    };
    assert_eq!((answers, len), ([CKR_OK; 3], 4 + TOO_MUCH));
    assert!(found.iter().all(|handle| *handle != 0));
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
