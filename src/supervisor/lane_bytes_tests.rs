//! Stories about the bytes that a lane's jobs carry: bounded like their number, and given back however a job leaves.

#![cfg(not(feature = "shuttle"))]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::job::Pending;
use super::lane::{LaneLimits, Pulled};
use super::lane_tests::{LONG, MEMBER, answered, done, key_of, limits, pool, pull_if_any, seat, terms};
use super::pool::Pool;
use super::route::KeyRoute;
use super::seats::Seat;
use crate::model::held::Held;
use crate::model::{Cipher, Digest, Fault, GCM_IV_BYTES, Hash, KeyOperation, SecretBytes, SignInput, SignatureScheme};

/// A lane with room for many jobs and so many bytes.
fn lane(all: usize, per_namespace: usize) -> (Pool, Seat) {
    let limits = LaneLimits {
        all: Held { jobs: 64, bytes: all },
        per_namespace: Held { jobs: 64, bytes: per_namespace },
        ..limits(64, 64, 1)
    };
    let pool = pool(limits);
    let seat = seat(&pool, MEMBER);
    (pool, seat)
}

fn message(bytes: usize) -> KeyOperation {
    let input = SignInput::Message(Bytes::from(vec![7; bytes]));
    KeyOperation::Sign { scheme: SignatureScheme::Ed25519, hash: Hash::None, input }
}

fn digest() -> KeyOperation {
    let input = SignInput::Digest(Digest::new(&[7; 32]).unwrap());
    KeyOperation::Sign { scheme: SignatureScheme::Ecdsa, hash: Hash::Sha2_256, input }
}

fn submit(key: &Arc<KeyRoute>, bytes: usize) -> Result<Pending, Fault> {
    key.submit(message(bytes), terms(LONG))
}

/// Bytes queued by namespace.
fn bytes(pool: &Pool) -> Vec<(String, usize)> {
    let depths = pool.lane.depths().into_iter();
    depths.map(|(namespace, _, bytes)| (namespace.as_str().to_owned(), bytes)).collect()
}

#[test]
fn few_jobs_of_many_bytes_are_refused_at_once_and_digests_are_not() {
    let (pool, _seat) = lane(1000, 400);
    let [a, b] = ["a", "b"].map(|namespace| key_of(&pool, namespace, None));
    let _waits = submit(&a, 300).unwrap();
    let own = submit(&a, 101).unwrap_err();
    assert!(matches!(own, Fault::Overloaded { ref namespace, limit: 400, .. } if namespace.as_str() == "a/"), "{own}");
    assert!(own.to_string().contains("its bound of 400 bytes of queued messages"), "{own}");
    let _fits = submit(&a, 100).unwrap();
    let _digest = a.submit(digest(), terms(LONG)).expect("it takes no room but its own");
    let _other = submit(&b, 400).expect("another namespace has its own bound");
}

#[test]
fn what_goes_with_a_message_is_counted_with_it() {
    let (pool, _seat) = lane(1000, 400);
    let key = key_of(&pool, "a", None);
    let encrypt = |cipher| KeyOperation::Encrypt { cipher, plaintext: SecretBytes::new(vec![7; 100]) };
    let associated_data = Bytes::from(vec![7; 200]);
    let forms = [
        Cipher::AesGcm { iv: [0; GCM_IV_BYTES], associated_data: associated_data.clone() },
        Cipher::ServiceAead { associated_data },
    ];
    for form in forms {
        let waits = key.submit(encrypt(form.clone()), terms(LONG)).unwrap();
        assert_eq!(bytes(&pool), [("a/".into(), 300)], "{form:?}");
        let refused = key.submit(encrypt(form), terms(LONG)).unwrap_err();
        assert!(matches!(refused, Fault::Overloaded { limit: 400, .. }), "{refused}");
        drop(waits);
        pool.lane.sweep();
    }
}

#[test]
fn a_message_that_would_never_find_room_is_refused_for_good() {
    let (pool, _seat) = lane(1000, 400);
    let key = key_of(&pool, "a", None);
    let _most = submit(&key, 400).expect("it has all the room there is");
    let refused = submit(&key, 401).unwrap_err();
    assert!(matches!(refused, Fault::TooLarge { .. }) && !refused.retryable(), "{refused}");
    assert!(refused.to_string().contains("401 bytes"), "{refused}");
    assert!(refused.to_string().contains("limits { lane_bytes_per_namespace } allows 400"), "{refused}");
}

#[test]
fn who_fills_a_lane_with_bytes_makes_room_with_as_many_of_its_newest_as_it_takes() {
    let (pool, _seat) = lane(1000, 1000);
    let [a, b, digests] = ["a", "b", "a"].map(|namespace| key_of(&pool, namespace, None));
    let mut flood: Vec<_> = (0..10).map(|_| submit(&a, 100).unwrap()).collect();
    // What carries nothing makes no room, and is left where it is.
    let stays = digests.submit(digest(), terms(LONG)).unwrap();
    let _admitted = submit(&b, 250).expect("b has less than its share");
    for out in flood.drain(7..) {
        let out = answered(out).unwrap_err();
        assert!(matches!(out, Fault::Overloaded { ref namespace, limit: 1000, .. } if namespace.as_str() == "a/"));
    }
    assert_eq!(bytes(&pool), [("a/".into(), 700), ("b/".into(), 250)]);
    // More than there is to push out beyond the share of who asks: refused, and nobody goes for it.
    let whole = submit(&b, 400).unwrap_err();
    assert!(matches!(whole, Fault::Overloaded { ref namespace, limit: 1000, .. } if namespace.as_str() == "b/"));
    assert_eq!(bytes(&pool), [("a/".into(), 700), ("b/".into(), 250)]);
    drop((flood, stays));
}

#[test]
fn room_is_given_back_however_a_job_leaves() {
    let at = lane(100, 100);
    let (pool, seat) = &at;
    let key = key_of(pool, "a", None);
    let full = || {
        let pending = submit(&key, 100).expect("there is room again");
        assert!(submit(&key, 1).is_err());
        pending
    };
    let taken = full();
    done(pull_if_any(&at));
    assert!(answered(taken).is_ok());
    // Its asker leaves.
    drop(full());
    pull_if_any(&at);
    // It comes back, and is done at last.
    let tried = full();
    pool.lane.put_back(pull_if_any(&at).into_iter());
    assert!(submit(&key, 1).is_err(), "it is queued again");
    for job in pull_if_any(&at) {
        pool.lane.retry(job, Fault::DeviceError { what: "x".into() }, MEMBER);
    }
    assert!(submit(&key, 1).is_err(), "and again");
    done(pull_if_any(&at));
    assert!(answered(tried).is_ok());
    // It is late.
    let late = key.submit(message(100), terms(Duration::from_millis(1))).unwrap();
    let waited = Instant::now();
    while waited.elapsed() < Duration::from_millis(3) {
        std::thread::yield_now();
    }
    pool.lane.sweep();
    assert!(answered(late).is_err());
    // Its key is served elsewhere now.
    let moved = full();
    assert_eq!(pool.lane.hand_over().len(), 1);
    assert!(answered(moved).is_err());
    // And the drain's time is up.
    let abandoned = full();
    pool.lane.abandon();
    assert!(answered(abandoned).is_err());
    assert_eq!(bytes(pool), [("a/".into(), 0)]);
    assert_eq!(pool.lane.pull(seat, &mut std::collections::VecDeque::new(), Some(Duration::ZERO)), Pulled::Idle);
}

proptest! {
    /// Whatever is asked, taken, put back and left: the lane holds no more bytes than its bounds and what was put back, a
    /// namespace no more than its own, and nothing at the end.
    #[test]
    fn the_bytes_keep_within_their_bounds_and_come_out_even(
        steps in proptest::collection::vec((0u8..7, 0usize..3, 0usize..60), 1..200)
    ) {
        const ALL: usize = 100;
        const OWN: usize = 50;
        let at = lane(ALL, OWN);
        let (pool, _) = &at;
        let keys = ["a", "b", "c"].map(|namespace| key_of(pool, namespace, None));
        let mut asked = Vec::new();
        for (step, tenant, size) in steps {
            match step {
                0..=3 => {
                    let pending = submit(&keys[tenant], size);
                    let too_large = matches!(pending, Err(Fault::TooLarge { .. }));
                    prop_assert_eq!(too_large, size > OWN);
                    asked.extend(pending.ok());
                }
                4 => done(pull_if_any(&at)),
                5 => pool.lane.put_back(pull_if_any(&at).into_iter()),
                _ if !asked.is_empty() => drop(asked.swap_remove(size % asked.len())),
                _ => {}
            }
            let queued = bytes(pool);
            prop_assert!(queued.iter().all(|(_, bytes)| *bytes <= OWN), "{queued:?}");
            prop_assert!(queued.iter().map(|(_, bytes)| bytes).sum::<usize>() <= ALL, "{queued:?}");
        }
        pool.lane.abandon();
        prop_assert!(bytes(pool).iter().all(|(_, bytes)| *bytes == 0));
        prop_assert!(asked.into_iter().all(|pending| futures_util::FutureExt::now_or_never(pending).is_some()));
    }
}
