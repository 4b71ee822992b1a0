//! Stories about sessions of a lane that come by need and go without it.

#![cfg(not(feature = "shuttle"))]

use super::lane_tests::{MEMBER, answered, done, key, lane, pull_for, submit};
use super::seats::Seat;

#[test]
fn that_sessions_are_too_few_is_said_once_and_one_too_many_leaves() {
    let (pool, first) = lane(8, 8, 1);
    let key = key(&pool, None);
    assert!(!pool.lane.is_short(&first, 9));
    let pending = [submit(&key).unwrap(), submit(&key).unwrap()];
    let begun = pull_for(&pool, &first);
    assert!(pool.lane.is_short(&first, 9));
    assert!(!pool.lane.is_short(&first, 9), "it is known");
    pool.lane.listen(MEMBER);
    assert!(!pool.lane.is_short(&first, 1), "there are enough");
    assert!(pool.lane.is_short(&first, 9));
    let second = Seat::new(MEMBER, 1);
    pool.lane.sit(&second);
    assert!(pool.lane.is_short(&first, 9), "another has come, and there is work for more");
    // With something to do nobody leaves, nor does the last one.
    assert!(!pool.lane.leave_if_spare(&second, 1));
    done(pull_for(&pool, &second));
    assert!(pool.lane.leave_if_spare(&second, 1));
    assert!(!pool.lane.leave_if_spare(&first, 1));
    done(begun);
    pending.into_iter().for_each(|pending| drop(answered(pending).unwrap()));
}
