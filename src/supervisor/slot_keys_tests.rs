//! Stories about the keys of a member: those that the start waits for, and those that jobs wait for.

#![cfg(not(feature = "shuttle"))]

use std::sync::Arc;
use std::time::Duration;

use super::lane_tests::{key_of, limits, pool};
use super::overseer_tests::key;
use super::pool::Member;
use super::route::MemberId;
use super::slot_keys::SlotKeys;
use crate::model::{Fault, TokenSelector};

/// Keys of these names, none of which was tried yet.
fn keys(names: &[&str]) -> SlotKeys {
    let pool = pool(limits(1, 1, 1));
    let mut keys = SlotKeys::new(Duration::from_secs(1));
    names.iter().for_each(|name| keys.insert(keys.key(key(name), key_of(&pool, "", None))));
    keys
}

/// Has the next key proven.
fn prove(keys: &mut SlotKeys, of_use: bool) -> String {
    let uuid = keys.next().expect("one waits").uuid;
    keys.ended(&uuid, of_use);
    uuid
}

#[test]
fn a_key_that_is_tried_again_and_again_is_awaited_once() {
    let mut keys = keys(&["a", "ghost"]);
    assert_eq!(keys.untried(), 0, "nothing is under way while the token is down");
    ["a", "ghost", "a"].iter().for_each(|uuid| keys.enqueue(uuid));
    assert_eq!(keys.untried(), 2);
    assert_eq!((prove(&mut keys, true), keys.untried()), ("a".into(), 1));
    // Its login was gone in the middle of it.
    assert_eq!((prove(&mut keys, false), keys.untried()), ("ghost".into(), 0));
    keys.enqueue("ghost");
    assert_eq!(keys.untried(), 1);
    assert_eq!((prove(&mut keys, true), keys.untried()), ("ghost".into(), 0));
    // It is not there, and looked for once more.
    keys.enqueue("ghost");
    assert_eq!(keys.untried(), 0);
    assert_eq!((prove(&mut keys, true), keys.untried()), ("ghost".into(), 0));
}

#[test]
fn a_key_that_goes_or_changes_meanwhile_is_awaited_no_more() {
    let pool = Arc::new(pool(limits(1, 1, 1)));
    let mut keys = keys(&["a", "b", "c"]);
    ["a", "b", "c"].iter().for_each(|uuid| keys.enqueue(uuid));
    assert_eq!(keys.next().map(|spec| spec.uuid).as_deref(), Some("a"));
    for (uuid, left) in [("a", 2), ("b", 1)] {
        keys.insert(keys.key(key(uuid), key_of(&pool, "", None)));
        assert_eq!(keys.untried(), left);
    }
    keys.ended("a", true);
    assert_eq!(keys.untried(), 1);
    keys.enqueue("a");
    assert_eq!(keys.untried(), 2);
}

/// Whoever proves the keys; it holds none of them.
const MEMBER: MemberId = MemberId(7);

#[test]
fn jobs_wait_while_the_proofs_of_a_key_fail_a_few_times_and_as_long_as_it_takes_of_one_that_was_held() {
    let pool = Arc::new(pool(limits(1, 1, 1)));
    let member = Member::new(MEMBER, &pool, "hsm", &TokenSelector::Slot(0), 0);
    let mut keys = SlotKeys::new(Duration::from_secs(1));
    let route = key_of(&pool, "", None);
    let mut new = keys.key(key("new"), Arc::clone(&route));
    // Tried again after one second, and after two.
    assert_eq!([(); 4].map(|()| new.has_failed(false)), [false, false, true, true]);
    keys.insert(new);
    keys.expect(&member);
    assert!(!route.awaits(MEMBER), "its proofs failed of late");
    let mut held = keys.key(key("held"), Arc::clone(&route));
    held.has_served();
    assert_eq!([(); 4].map(|()| held.has_failed(false)), [false; 4]);
    keys.insert(held);
    keys.expect(&member);
    assert!(route.awaits(MEMBER));
    let mut gone = keys.key(key("gone"), route);
    gone.has_served();
    assert!(gone.has_failed(true), "that is the key's own reason");
}

#[test]
fn behind_a_proof_that_hangs_jobs_wait_for_none() {
    let pool = Arc::new(pool(limits(1, 1, 1)));
    let member = Member::new(MEMBER, &pool, "hsm", &TokenSelector::Slot(0), 0);
    let mut keys = SlotKeys::new(Duration::from_secs(1));
    let routes = ["running", "queued", "idle"].map(|name| {
        let route = key_of(&pool, "", None);
        keys.insert(keys.key(key(name), Arc::clone(&route)));
        route
    });
    keys.expect(&member);
    ["running", "queued"].iter().for_each(|uuid| keys.enqueue(uuid));
    assert_eq!(keys.next().map(|spec| spec.uuid).as_deref(), Some("running"));
    keys.give_up_proofs(&member, &Fault::absent());
    assert_eq!(routes.map(|route| route.awaits(MEMBER)), [false, false, true]);
}
