//! Threads before a quota domain.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::breaker::BreakerState;
use super::domain::{Domain, Gate, Refusal, State};
use super::domains::Domains;
use super::line::Waiter;
use super::outage::{Change, News, Why};
use super::quota::Quota;
use crate::backend::Turn;
use crate::model::{Class, Namespace};

const LATENCY: Duration = Duration::from_millis(20);
const WHY: Why<'static> = Why { cause: "connection", reason: "reset" };

static ROOT: LazyLock<Namespace> = LazyLock::new(Namespace::root);

fn by(until: Instant) -> Turn<'static> {
    Turn { namespace: &ROOT, weight: 1, class: Class::Interactive, until, is_wanted: &|| true }
}

fn soon() -> Turn<'static> {
    by(Instant::now() + Duration::from_secs(60))
}

fn poll(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: never");
        std::thread::yield_now();
    }
}

/// One request at a time, none of which waits for tokens.
fn one_at_a_time() -> Arc<Domain> {
    Domain::new(Quota { max_in_flight: 1, burst: 1e6, ..Quota::per_second(1e6) })
}

fn fail(gate: &Arc<Gate>) {
    gate.admit(&soon()).unwrap().failed(WHY);
}

/// Four failures, and so long a time that the next one opens a breaker.
fn fail_for_long(mut gate: impl FnMut() -> Arc<Gate>) {
    (0..4).for_each(|_| fail(&gate()));
    // All of them were sent before this.
    let begun = Instant::now();
    poll("a quarter of a second passes", || begun.elapsed() >= Duration::from_millis(250));
}

#[test]
fn of_a_key_that_fails_there_is_one_thing_to_tell_when_it_begins_and_one_when_it_is_over() {
    let domain = one_at_a_time();
    let gate = domain.gate(1);
    fail_for_long(|| Arc::clone(&gate));
    let told = gate.admit(&soon()).unwrap().failed(WHY);
    assert_eq!(told, News { key: Some(Change::Began), ..News::default() });
    let probe = || loop {
        if let Ok(permit) = gate.admit(&soon()) {
            return permit;
        }
        std::thread::yield_now();
    };
    assert_eq!(probe().failed(WHY), News::default());
    let told = probe().succeeded(Duration::from_millis(1));
    assert_eq!(told, News { key: Some(Change::Over), ..News::default() });
    assert_eq!(probe().succeeded(Duration::from_millis(1)), News::default());
}

#[test]
fn of_a_domain_that_fails_it_is_told_and_not_of_each_of_its_keys() {
    let domain = one_at_a_time();
    let gates = [domain.gate(1), domain.gate(1)];
    let mut turn = 0;
    fail_for_long(|| {
        turn += 1;
        Arc::clone(&gates[turn % 2])
    });
    let told = gates[0].admit(&soon()).unwrap().failed(WHY);
    assert_eq!(told, News { domain: Some(Change::Began), ..News::default() });
    let begun = Instant::now();
    let told = loop {
        match gates[1].admit(&soon()) {
            Ok(permit) => break permit.answered(),
            Err(refusal) => assert!(begun.elapsed() < Duration::from_secs(60), "{refusal:?}"),
        }
        std::thread::yield_now();
    };
    assert_eq!(told, News { domain: Some(Change::Over), ..News::default() });
    // It comes and goes: that is not told each time, nor of the keys instead.
    gates[0].admit(&soon()).unwrap().answered();
    fail_for_long(|| {
        turn += 1;
        Arc::clone(&gates[turn % 2])
    });
    let told = gates[0].admit(&soon()).unwrap().failed(WHY);
    assert_eq!((told, domain.standing().breaker), (News::default(), BreakerState::Open));
}

#[test]
fn that_a_domain_is_throttled_is_told_once() {
    let domain = one_at_a_time();
    let gate = domain.gate(1);
    let told = gate.admit(&soon()).unwrap().throttled(None);
    assert_eq!(told, News { rate: Some(Change::Began), ..News::default() });
    assert!(domain.standing().is_throttled);
    let again = loop {
        match gate.admit(&soon()) {
            Ok(permit) => break permit.throttled(None),
            Err(refusal) => assert!(matches!(refusal, Refusal::Paused { .. }), "{refusal:?}"),
        }
        std::thread::yield_now();
    };
    assert_eq!(again, News::default());
}

/// Whoever ends without a word tells nobody what has changed: it is there for the next one.
#[test]
fn what_nobody_would_tell_is_told_by_the_next_one() {
    let domain = one_at_a_time();
    let gate = domain.gate(1);
    let told = gate.admit(&soon()).unwrap().throttled(None);
    assert_eq!(told.rate, Some(Change::Began));
    // What was found out is forgotten.
    domain.set_quota(Quota { max_in_flight: 1, burst: 1e6, ..Quota::per_second(1e5) });
    poll("the pause is over", || gate.admit(&soon()).is_ok());
    assert!(!domain.standing().is_throttled);
    gate.admit(&soon()).unwrap().lost();
    let given_up = gate.admit(&soon()).unwrap().given_up(Duration::from_millis(1), WHY);
    assert_eq!(given_up, News::default());
    let told = gate.admit(&soon()).unwrap().succeeded(LATENCY);
    assert_eq!(told, News { rate: Some(Change::Over), ..News::default() });
}

#[test]
fn that_a_key_serves_again_is_told_by_the_next_one_as_well() {
    let domain = one_at_a_time();
    let gate = domain.gate(1);
    fail_for_long(|| Arc::clone(&gate));
    let told = gate.admit(&soon()).unwrap().failed(WHY);
    assert_eq!(told.key, Some(Change::Began));
    gate.breaker_mut().answered();
    drop(gate.admit(&soon()).unwrap());
    gate.admit(&soon()).unwrap().lost();
    let told = gate.admit(&soon()).unwrap().answered();
    assert_eq!(told, News { key: Some(Change::Over), ..News::default() });
}

#[test]
fn who_waits_is_served_in_the_order_of_arrival() {
    let domain = one_at_a_time();
    let first = domain.gate(1);
    let permit = first.admit(&soon()).unwrap();
    let order = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for place in 0..20 {
            let (domain, order) = (&domain, &order);
            scope.spawn(move || {
                let gate = domain.gate(1);
                let permit = gate.admit(&soon()).unwrap();
                order.lock().push(place);
                permit.succeeded(LATENCY);
            });
            poll("it waits", || domain.standing().waiting == place + 1);
        }
        permit.succeeded(LATENCY);
    });
    assert_eq!(order.into_inner(), (0..20).collect::<Vec<_>>());
    let standing = domain.standing();
    assert_eq!((standing.sent, standing.waiting, standing.in_flight), (21, 0, 0));
}

#[test]
fn who_comes_too_late_is_told_so_and_holds_up_nobody() {
    let domain = one_at_a_time();
    let gate = domain.gate(1);
    let permit = gate.admit(&soon()).unwrap();
    std::thread::scope(|scope| {
        let impatient = scope.spawn(|| {
            let gate = domain.gate(1);
            gate.admit(&by(Instant::now() + Duration::from_millis(50))).map(drop)
        });
        poll("one waits", || domain.standing().waiting == 1);
        let patient = scope.spawn(|| domain.gate(1).admit(&soon()).map(drop));
        assert!(matches!(impatient.join().unwrap(), Err(Refusal::GaveUp { .. })));
        poll("the other waits", || domain.standing().waiting == 1);
        drop(permit);
        assert_eq!(patient.join().unwrap(), Ok(()));
    });
    assert_eq!(domain.standing().waiting, 0);
}

#[test]
fn who_is_wanted_no_longer_goes_away_and_gives_back_what_it_got_meanwhile() {
    let domain = one_at_a_time();
    let gate = domain.gate(1);
    let permit = Mutex::new(Some(gate.admit(&soon()).unwrap()));
    let other = domain.gate(1);
    let unwanted = Turn { is_wanted: &|| false, ..soon() };
    assert!(matches!(other.admit(&unwanted), Err(Refusal::GaveUp { .. })));
    assert_eq!(domain.standing().waiting, 0);
    // Its turn comes in the very moment in which it is asked.
    let told = || {
        drop(permit.lock().take());
        false
    };
    let late = Turn { is_wanted: &told, ..soon() };
    other.admit(&late).unwrap().succeeded(LATENCY);
    assert_eq!((domain.standing().waiting, domain.standing().in_flight), (0, 0));
}

#[test]
fn who_gives_up_learns_whether_the_service_throttles() {
    let domain = one_at_a_time();
    let gate = domain.gate(1);
    for is_throttled in [false, true] {
        if is_throttled {
            let _ = gate.admit(&soon()).unwrap().throttled(None);
        }
        let held = loop {
            match gate.admit(&soon()) {
                Ok(permit) => break permit,
                Err(refusal) => assert!(matches!(refusal, Refusal::Paused { .. }), "{refusal:?}"),
            }
            std::thread::yield_now();
        };
        let unwanted = Turn { is_wanted: &|| false, ..soon() };
        let told = domain.gate(1).admit(&unwanted).map(drop);
        assert!(matches!(told, Err(Refusal::GaveUp { is_throttled: told, .. }) if told == is_throttled), "{told:?}");
        drop(held);
    }
}

#[test]
fn nobody_stands_in_line_before_a_service_that_asks_to_be_left_alone() {
    let domain = Domain::new(Quota::per_second(100.0));
    let gate = domain.gate(1);
    let (begun, permits) = (Instant::now(), [gate.admit(&soon()).unwrap(), gate.admit(&soon()).unwrap()]);
    std::thread::scope(|scope| {
        let heavy = scope.spawn(|| domain.gate(10_000).admit(&by(begun + Duration::from_secs(3600))).map(drop));
        poll("one waits", || domain.standing().waiting == 1);
        permits.into_iter().for_each(|permit| {
            let _ = permit.throttled(Some(Duration::from_secs(30)));
        });
        assert!(matches!(heavy.join().unwrap(), Err(Refusal::Paused { .. })));
    });
    for patience in [3_600, 1] {
        let Err(Refusal::Paused { until }) = gate.admit(&by(begun + Duration::from_secs(patience))) else {
            panic!("it may send")
        };
        assert!(until >= begun + Duration::from_secs(30) && until < begun + Duration::from_secs(3600));
    }
    let standing = domain.standing();
    assert_eq!((standing.throttled, standing.is_throttled, standing.waiting), (2, true, 0));
    // What it saves up in so long a time is not to go at once.
    assert_eq!((standing.allowed_per_second, standing.quota_per_second), (6.25, 100.0));
    // Another quota is another chance.
    domain.set_quota(Quota::per_second(200.0));
    assert!(!domain.standing().is_throttled);
}

#[test]
fn many_who_wait_wake_up_no_more_often_than_a_few_would() {
    let mut state = State::new(Quota::per_second(1.0), Instant::now());
    let mut looks_of = |waiting| {
        while state.line.len() < waiting {
            state.line.join(&soon(), &Waiter::new(1, 1.0, Class::Interactive));
        }
        state.looks()
    };
    let looks = [0, 15, 160, 10_000].map(&mut looks_of);
    assert_eq!(looks, [100, 100, 1_100, 2_000].map(Duration::from_millis));
}

/// What others want, however much, is no reason to send away one whose turn comes before theirs.
#[test]
fn a_full_line_takes_in_who_is_next_and_what_is_urgent() {
    let domain = Domain::new(Quota { burst: 1.0, ..Quota::per_second(2.0) });
    let (over, [hog, light]) = (AtomicBool::new(false), ["hog", "light"].map(Namespace::from_path));
    let turn = |namespace, class| Turn { namespace, class, ..soon() };
    let is_wanted = || !over.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        // More than the quota gives anybody within a minute.
        for _ in 0..140 {
            scope.spawn(|| {
                let until = Instant::now() + Duration::from_secs(3600);
                let turn = Turn { until, is_wanted: &is_wanted, ..turn(&hog, Class::Interactive) };
                domain.gate(1).admit(&turn).map(drop)
            });
        }
        poll("they wait", || domain.standing().waiting > 130);
        let served = [(&light, Class::Interactive), (&hog, Class::Control)]
            .map(|(namespace, class)| domain.gate(1).admit(&turn(namespace, class)).map(drop));
        over.store(true, Ordering::Relaxed);
        assert_eq!(served, [Ok(()), Ok(())]);
    });
    assert_eq!(domain.standing().waiting, 0);
}

/// Who stands behind its own key's waiters has no turn before them.
#[test]
fn who_cannot_come_in_time_behind_its_own_is_told_so_at_once() {
    let domain = Domain::new(Quota { burst: 1.0, ..Quota::per_second(1.0) });
    let (gate, over) = (domain.gate(100), AtomicBool::new(false));
    gate.admit(&soon()).unwrap().succeeded(LATENCY);
    let is_wanted = || !over.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        for waiting in 1..=2 {
            scope.spawn(|| {
                let until = Instant::now() + Duration::from_secs(3600);
                gate.admit(&Turn { until, is_wanted: &is_wanted, ..soon() }).map(drop)
            });
            poll("it waits", || domain.standing().waiting == waiting);
        }
        let until = Instant::now() + Duration::from_secs(60);
        let late = gate.admit(&by(until)).map(drop);
        let at_once = Instant::now() < until;
        over.store(true, Ordering::Relaxed);
        assert!(at_once && matches!(late, Err(Refusal::TooLate { earliest }) if earliest > until), "{late:?}");
    });
}

#[test]
fn many_threads_are_served_at_the_quota_and_each_is_answered() {
    let domain = Domain::new(Quota { burst: 10.0, ..Quota::per_second(2_000.0) });
    let (served, start) = (AtomicUsize::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                let gate = domain.gate(1);
                for _ in 0..50 {
                    gate.admit(&soon()).unwrap().succeeded(LATENCY);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(served.into_inner(), 32 * 50);
    // 1,600 less the burst, at 2,000 a second.
    assert!(start.elapsed() >= Duration::from_millis(790), "{:?}", start.elapsed());
    assert_eq!(domain.standing().in_flight, 0);
}

#[test]
fn a_service_that_does_not_answer_is_left_alone_and_nobody_waits_for_it() {
    let domain = one_at_a_time();
    let gate = domain.gate(1);
    fail_for_long(|| domain.gate(1));
    let last = gate.admit(&soon()).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| domain.gate(1).admit(&soon()).map(drop));
        poll("one waits", || domain.standing().waiting == 1);
        last.failed(WHY);
        assert!(matches!(waiting.join().unwrap(), Err(Refusal::DomainOpen { .. })));
    });
    let Err(Refusal::DomainOpen { until }) = domain.gate(1).admit(&soon()) else { panic!("it is closed") };
    assert_eq!(domain.standing().breaker, BreakerState::Open);
    assert_eq!(domain.standing().failed, 5);
    poll("half a second passes", || Instant::now() >= until);
    // One goes to see, and alone.
    let probing = domain.gate(1);
    let probe = probing.admit(&soon()).unwrap();
    assert!(matches!(domain.gate(1).admit(&soon()), Err(Refusal::DomainOpen { .. })));
    probe.succeeded(LATENCY);
    assert_eq!(domain.standing().breaker, BreakerState::Closed);
    gate.admit(&soon()).unwrap().succeeded(LATENCY);
}

#[test]
fn a_key_that_fails_is_alone_in_it() {
    let domain = one_at_a_time();
    let (ill, well) = (domain.gate(1), domain.gate(1));
    fail_for_long(|| Arc::clone(&ill));
    fail(&ill);
    let Err(Refusal::KeyOpen { until }) = ill.admit(&soon()) else { panic!("it is closed") };
    assert_eq!((ill.breaker(), domain.standing().breaker), (BreakerState::Open, BreakerState::Closed));
    well.admit(&soon()).unwrap().succeeded(LATENCY);
    poll("half a second passes", || Instant::now() >= until);
    let probe = ill.admit(&soon()).unwrap();
    // Without a word, it is as if it had not been.
    drop(probe);
    ill.admit(&soon()).unwrap().succeeded(LATENCY);
    assert_eq!(ill.breaker(), BreakerState::Closed);
}

#[test]
fn a_key_that_fails_leaves_others_their_room() {
    let domain = Domain::new(Quota { burst: 1e6, ..Quota::per_second(1e6) });
    let (ill, well) = (domain.gate(1), domain.gate(1));
    let room = domain.standing().in_flight_limit;
    (0..3).for_each(|_| fail(&ill));
    assert_eq!(domain.standing().in_flight_limit, room);
    fail(&well);
    assert!(domain.standing().in_flight_limit < room);
    // Where there is but one, it is the service's only sign.
    let domain = Domain::new(Quota { burst: 1e6, ..Quota::per_second(1e6) });
    let (only, _looks) = (domain.gate(1), domain.side_gate(1));
    fail(&only);
    assert!(domain.standing().in_flight_limit < room);
}

#[test]
fn an_asker_without_patience_says_nothing_of_a_service() {
    let domain = Domain::new(Quota { burst: 1e6, ..Quota::per_second(1e6) });
    let gate = domain.gate(1);
    let given_up = |milliseconds| gate.admit(&soon()).unwrap().given_up(Duration::from_millis(milliseconds), WHY);
    given_up(999);
    assert_eq!(domain.standing().failed, 0);
    given_up(1_000);
    assert_eq!(domain.standing().failed, 1);
    // It takes as long as it does; then ten times that is silence.
    gate.admit(&soon()).unwrap().succeeded(Duration::from_millis(50));
    given_up(499);
    assert_eq!(domain.standing().failed, 1);
    given_up(501);
    assert_eq!((domain.standing().failed, domain.standing().in_flight), (2, 0));
}

#[test]
fn throttles_and_silence_open_no_breaker() {
    let domain = Domain::new(Quota { burst: 1e6, ..Quota::per_second(1e6) });
    let gate = domain.gate(1);
    for _ in 0..20 {
        drop(gate.admit(&soon()).unwrap());
    }
    for _ in 0..3 {
        gate.admit(&soon()).unwrap().throttled(None);
    }
    assert_eq!((gate.breaker(), domain.standing().breaker), (BreakerState::Closed, BreakerState::Closed));
    assert_eq!((domain.standing().throttled, domain.standing().failed, domain.standing().in_flight), (3, 0, 0));
}

#[test]
fn a_domain_in_trouble_does_not_slow_another() {
    let domains = Domains::default();
    let troubled = domains.domain("111122223333 eu-west-1 rsa", Quota::per_second(100.0));
    let well = domains.domain("111122223333 eu-north-1 rsa", Quota::per_second(100.0));
    troubled.gate(1).admit(&soon()).unwrap().throttled(Some(Duration::from_secs(60)));
    assert!(matches!(troubled.gate(1).admit(&soon()), Err(Refusal::Paused { .. })));
    well.gate(1).admit(&by(Instant::now())).unwrap().succeeded(LATENCY);
    assert!(!well.standing().is_throttled);
}

#[test]
fn keys_of_one_domain_share_it_and_it_ends_with_them() {
    let domains = Domains::default();
    let one = domains.domain("vault", Quota::per_second(10.0));
    let other = domains.domain("vault", Quota::per_second(20.0));
    assert!(Arc::ptr_eq(&one, &other));
    assert_eq!(one.standing().quota_per_second, 20.0);
    assert_eq!(domains.all().len(), 1);
    drop((one, other));
    assert!(domains.all().is_empty());
}
