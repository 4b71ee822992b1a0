//! Stories about which keys the start waits for: those whose first proof is under way.

#![cfg(not(feature = "shuttle"))]

use std::sync::Arc;
use std::time::Duration;

use super::lane_tests::{key_of, limits, pool};
use super::overseer_tests::key;
use super::slot_keys::SlotKeys;

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
