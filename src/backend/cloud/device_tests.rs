//! Stories about one cloud key's sessions and flow control.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::super::pace::{BreakerState, Domain, Quota};
use super::super::{ill, not_supported};
use super::*;
use crate::config::KmsService;
use crate::model::{
    Class, CloudCredentials, CloudKind, CloudPlace, CloudService, CloudUse, Curve, Digest, Hash, KeyUsages, Namespace,
    SignInput, SignatureScheme,
};
use crate::telemetry::Telemetry;

/// What the key is called.
const TITLE: &str = "AWS KMS key alias/a";

/// A key that signs at once, SHA-256 alone.
struct Quick {
    domain: Arc<Domain>,
    looks: Arc<Domain>,
    asked: AtomicUsize,
    looked: AtomicUsize,
    /// It is disabled.
    disabled: AtomicBool,
    /// Look-ups fail.
    lost: AtomicBool,
    /// Whether it does not answer.
    silent: AtomicBool,
    /// Whether calls fail on the way.
    broken: AtomicBool,
    /// Whether there are no credentials for them.
    unknown: AtomicBool,
}

impl super::super::Client for Quick {
    fn gate(&self, _: &Found) -> Arc<Gate> {
        self.domain.gate(1)
    }

    fn looks(&self) -> Arc<Gate> {
        self.looks.gate(1)
    }

    fn makes(&self) -> Arc<Gate> {
        self.looks.gate(1)
    }

    fn find(&self) -> Call<'_, Option<Found>> {
        self.looked.fetch_add(1, Ordering::Relaxed);
        let disabled = self.disabled.load(Ordering::Relaxed);
        let lost = self.lost.load(Ordering::Relaxed);
        Box::pin(async move {
            if lost {
                return Err(ill("reset", "nobody is there".into()));
            }
            if disabled {
                let fault = Fault::Unavailable { what: "it is disabled".into() };
                return Err(BackendError { fault, fate: Fate::Keep, cause: super::super::DISABLED });
            }
            Ok(Some(Found::new("one".into(), kind(), None)))
        })
    }

    fn generate<'a>(&'a self, template: &'a KeyTemplate) -> Call<'a, Found> {
        Box::pin(async {
            Err(match template.label.as_str() {
                "later" => ill(BEING_MADE, "it is being made".into()),
                _ => BackendError::keep(Fault::internal("there is one")),
            })
        })
    }

    fn check(&self, found: &Found, operation: &KeyOperation) -> Result<(), BackendError> {
        match operation {
            KeyOperation::Sign { hash: Hash::Sha2_256, .. } => Ok(()),
            _ => Err(not_supported(found.kind, "that")),
        }
    }

    fn perform<'a>(&'a self, _: &'a Found, _: &'a KeyOperation) -> Call<'a, Bytes> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.silent.load(Ordering::Relaxed) {
            return Box::pin(std::future::pending());
        }
        if self.broken.load(Ordering::Relaxed) {
            return Box::pin(async { Err(ill("tls", format!("{TITLE}: Sign: certificate expired"))) });
        }
        if self.unknown.load(Ordering::Relaxed) {
            return Box::pin(async { Err(ill(NO_CREDENTIALS, format!("{TITLE}: Sign: no token: no route"))) });
        }
        Box::pin(async { Ok(Bytes::from_static(b"signature")) })
    }
}

fn kind() -> &'static CloudKind {
    CloudService::AwsKms.kinds().iter().find(|kind| kind.kind == KeyKind::Ec(Curve::P256)).unwrap()
}

fn sign(hash: Hash) -> KeyOperation {
    let input = SignInput::Digest(Digest::new(&[7; 32]).unwrap());
    KeyOperation::Sign { scheme: SignatureScheme::Ecdsa, hash, input }
}

fn admit(session: &mut Box<dyn Session>) {
    let (namespace, until) = (Namespace::root(), Instant::now() + Duration::from_secs(60));
    session
        .admit(&Turn { namespace: &namespace, weight: 1, class: Class::Interactive, until, is_wanted: &|| true })
        .unwrap();
}

fn story(run: impl FnOnce(&Domain, &Quick, Box<dyn Session>)) {
    of_device(|domain, client, device| run(domain, client, device.open_session().unwrap()));
}

fn of_device(run: impl FnOnce(&Domain, &Quick, &CloudDevice)) {
    of_device_with(&KmsService::new(CloudService::AwsKms), run);
}

fn of_device_with(settings: &KmsService, run: impl FnOnce(&Domain, &Quick, &CloudDevice)) {
    let domain = Domain::new(Quota::per_second(1_000.0));
    let looks = Domain::new(Quota::per_second(1_000.0));
    let client = Arc::new(Quick {
        domain: Arc::clone(&domain),
        looks,
        asked: AtomicUsize::default(),
        looked: AtomicUsize::default(),
        disabled: AtomicBool::default(),
        lost: AtomicBool::default(),
        silent: AtomicBool::default(),
        broken: AtomicBool::default(),
        unknown: AtomicBool::default(),
    });
    let key = CloudKey {
        name: "alias/a".into(),
        place: CloudPlace::Aws { region: None },
        endpoint: None,
        credentials: CloudCredentials::Own,
        replicas: Vec::new(),
    };
    let service = Service::start(settings, &Telemetry::new()).unwrap();
    let device = CloudDevice::new(&key, client.clone(), service);
    run(&domain, &client, &device);
}

fn selector(secret: bool) -> KeySelector {
    KeySelector { label: Some("alias/a".into()), id: None, secret, cloud: None }
}

#[test]
fn leave_that_is_not_used_is_given_back() {
    story(|domain, client, mut session| {
        let handle = session.find(&selector(false)).unwrap().unwrap().handle;
        admit(&mut session);
        assert_eq!(domain.standing().in_flight, 1);
        session.withdraw();
        assert_eq!(domain.standing().in_flight, 0);
        // Nor does a session keep it whose key is looked up anew.
        admit(&mut session);
        let error = session.perform(handle + 1, kind().kind, &sign(Hash::Sha2_256)).unwrap_err();
        assert_eq!((error.fate, domain.standing().in_flight), (Fate::FindAgain, 0));
        admit(&mut session);
        session.perform(handle, kind().kind, &sign(Hash::Sha2_256)).unwrap();
        assert_eq!((domain.standing().in_flight, client.asked.load(Ordering::Relaxed)), (0, 1));
    });
}

/// Nobody is kept waiting in vain, and whoever is told knows until when.
#[test]
fn a_session_is_told_of_a_pause_and_of_a_turn_that_cannot_come_in_time() {
    story(|_, client, mut session| {
        session.find(&selector(false)).unwrap().unwrap();
        let ask = |session: &mut Box<dyn Session>, patience: Duration| {
            let (namespace, until) = (Namespace::root(), Instant::now() + patience);
            let class = Class::Interactive;
            session.admit(&Turn { namespace: &namespace, weight: 1, class, until, is_wanted: &|| true })
        };
        throttle(&client.domain, Duration::from_millis(200));
        let late = ask(&mut session, Duration::from_millis(1));
        assert!(matches!(late, Err(Refused::Late { fault: Fault::QuotaExceeded { .. } })), "{late:?}");
        ask(&mut session, Duration::from_secs(60)).unwrap();
        session.withdraw();
        let begun = Instant::now();
        throttle(&client.domain, Duration::from_secs(30));
        for patience in [1, 3_600] {
            let paused = ask(&mut session, Duration::from_secs(patience));
            let Err(Refused::Paused { fault: Fault::QuotaExceeded { retry_after, .. }, until }) = paused else {
                panic!("{paused:?}")
            };
            assert!(until >= begun + Duration::from_secs(30) && retry_after > Duration::from_secs(1));
        }
    });
}

#[test]
fn a_key_is_looked_up_and_made_at_a_pace_of_its_own() {
    story(|domain, client, mut session| {
        session.find(&selector(false)).unwrap().unwrap();
        let template =
            KeyTemplate { kind: kind().kind, label: "later".into(), uses: KeyUsages::default(), cloud: None };
        // It is made, and looked for until it can be used.
        session.generate(&template).unwrap();
        assert_eq!((client.looks.standing().sent, client.looks.standing().failed), (3, 0));
        assert_eq!((domain.standing().sent, client.looks.standing().in_flight), (0, 0));
        // While there is no leave in time, nothing is asked.
        throttle(&client.looks, Duration::from_secs(60));
        let error = session.find(&selector(false)).unwrap_err();
        assert_eq!((error.fate, client.looks.standing().sent), (Fate::Throttled, 4));
    });
}

fn throttle(domain: &Arc<Domain>, pause: Duration) {
    let (namespace, until) = (Namespace::root(), Instant::now() + Duration::from_secs(60));
    let turn = Turn { namespace: &namespace, weight: 1, class: Class::Bulk, until, is_wanted: &|| true };
    domain.gate(1).admit(&turn).unwrap().throttled(Some(pause));
}

#[test]
fn no_look_up_outlasts_the_use_of_its_answer() {
    story(|_, client, mut session| {
        // Leave comes in 15 s, and what is to be done then may take 12 s.
        throttle(&client.looks, Duration::from_secs(15));
        session.end_by(Some(Instant::now() + Duration::from_secs(25)));
        let error = session.find(&selector(false)).unwrap_err();
        assert_eq!((error.fate, client.looks.standing().sent), (Fate::Throttled, 1));
    });
}

#[test]
fn a_look_up_waits_for_leave_where_its_calls_may_take_longer_than_there_is_time() {
    story(|_, client, mut session| {
        throttle(&client.looks, Duration::from_millis(100));
        session.end_by(Some(Instant::now() + Duration::from_secs(10)));
        assert!(session.find(&selector(false)).unwrap().is_some());
    });
}

#[test]
fn a_key_that_is_made_late_is_looked_for_all_the_same() {
    let call = Duration::from_millis(250);
    of_device_with(&KmsService { call, ..KmsService::new(CloudService::AwsKms) }, |_, client, device| {
        // Longer than a key is looked for.
        throttle(&client.looks, call * 5);
        let template =
            KeyTemplate { kind: kind().kind, label: "later".into(), uses: KeyUsages::default(), cloud: None };
        device.open_session().unwrap().generate(&template).unwrap();
        assert_eq!(client.looked.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn no_call_outlasts_the_use_of_its_answer() {
    story(|domain, client, mut session| {
        let handle = session.find(&selector(false)).unwrap().unwrap().handle;
        let mut sign = |left: Duration| {
            admit(&mut session);
            let end = Instant::now() + left;
            session.end_by(Some(end));
            let answer = session.perform(handle, kind().kind, &sign(Hash::Sha2_256));
            assert!(answer.is_ok() || Instant::now() >= end);
            answer
        };
        client.silent.store(true, Ordering::Relaxed);
        // Of the limit that all calls have, nothing is said: it was not waited for.
        for (milliseconds, failed) in [(20, 0), (1_001, 1)] {
            let error = sign(Duration::from_millis(milliseconds)).unwrap_err();
            assert_eq!((error.fate, error.cause), (Fate::BackOff, "timeout"));
            assert!(!error.fault.to_string().contains("3000 ms"), "{}", error.fault);
            assert_eq!(domain.standing().failed, failed, "{milliseconds} ms");
        }
        let error = sign(Duration::ZERO).unwrap_err();
        assert!(matches!(error.fault, Fault::DeadlineExceeded { .. }), "{}", error.fault);
        assert_eq!((domain.standing().in_flight, client.asked.load(Ordering::Relaxed)), (0, 2));
        client.silent.store(false, Ordering::Relaxed);
        sign(Duration::from_secs(60)).unwrap();
    });
}

#[test]
fn what_failed_is_told_while_it_is_left_alone() {
    of_device(|_, client, device| {
        assert_eq!(device.shared.title, TITLE);
        let mut session = device.open_session().unwrap();
        let handle = session.find(&selector(false)).unwrap().unwrap().handle;
        client.broken.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        let told = loop {
            let error = session.perform(handle, kind().kind, &sign(Hash::Sha2_256)).unwrap_err();
            if error.cause == LEFT_ALONE {
                break error.fault.to_string();
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", error.fault);
            std::thread::yield_now();
        };
        let expected = "it failed several times in a row, last: Sign: certificate expired; it is tried again in";
        assert!(told.contains(expected), "{told}");
        // What follows is no reason where nobody had the patience to learn one.
        let gate = device.shared.found.read().key.clone().unwrap().1;
        let leave = loop {
            if let Ok(leave) = device.shared.leave(&gate, Instant::now()) {
                break leave;
            }
            assert!(begun.elapsed() < Duration::from_secs(60));
            std::thread::yield_now();
        };
        let what = format!("{TITLE}: no answer within 5 ms");
        let silence = BackendError { fault: Fault::Unavailable { what }, fate: Fate::BackOff, cause: TIMEOUT };
        device.shared.tell::<()>(leave, Duration::from_millis(5), true, &Err(silence));
        assert_eq!(gate.key_failure(), "Sign: certificate expired");
        // Of the domain the log says all of it, and whoever else is refused learns the cause alone.
        assert_eq!(client.domain.gate(1).domain_failure(), "Sign: certificate expired");
        let Refused::Shut { fault, .. } = device.shared.refused(&gate, Refusal::DomainOpen { until: begun }) else {
            panic!("it is open")
        };
        let told = fault.to_string();
        assert!(told.contains("AWS KMS failed several times in a row, last: tls; it is tried again in 0 ms"), "{told}");
    });
}

/// Whoever gives out credentials for one tenant's key is no part of the service that others' keys are in.
#[test]
fn credentials_that_cannot_be_had_are_one_keys_trouble() {
    of_device(|domain, client, device| {
        let mut session = device.open_session().unwrap();
        let handle = session.find(&selector(false)).unwrap().unwrap().handle;
        let other = client.domain.gate(1);
        let turn_of = |gate: &Arc<Gate>| device.shared.leave(gate, Instant::now() + Duration::from_secs(60)).unwrap();
        turn_of(&other).failed(Why { cause: "connection", reason: "reset" });
        let room = domain.standing().in_flight_limit;
        client.unknown.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        let told = loop {
            let error = session.perform(handle, kind().kind, &sign(Hash::Sha2_256)).unwrap_err();
            if error.cause == LEFT_ALONE {
                break error.fault.to_string();
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", error.fault);
            std::thread::yield_now();
        };
        assert!(told.contains("it failed several times in a row, last: Sign: no token: no route;"), "{told}");
        assert_eq!((domain.standing().breaker, domain.standing().in_flight_limit), (BreakerState::Closed, room));
        assert_eq!((other.domain_cause(), &*other.domain_failure()), ("connection", "reset"));
        turn_of(&other).answered();
    });
}

#[test]
fn what_a_service_does_not_do_is_not_asked_of_it() {
    story(|domain, client, mut session| {
        let handle = session.find(&selector(false)).unwrap().unwrap().handle;
        let error = session.perform(handle, kind().kind, &sign(Hash::Sha1)).unwrap_err();
        assert_eq!(error.fate, Fate::Keep);
        assert_eq!((domain.standing().sent, client.asked.load(Ordering::Relaxed)), (0, 0));
    });
}

#[test]
fn a_key_of_another_class_is_there_so_that_none_is_made_in_its_place() {
    story(|_, _, mut session| {
        let error = session.find(&selector(true)).unwrap_err();
        assert!(error.fault.to_string().contains("a key of this name is there"), "{}", error.fault);
        let template =
            KeyTemplate { kind: kind().kind, label: "alias/a".into(), uses: KeyUsages::default(), cloud: None };
        assert!(session.generate(&template).is_err());
    });
}

#[test]
fn a_key_that_is_no_such_key_as_it_is_registered_as_is_refused_by_both_names() {
    let registered = |native: &str, does: CloudUse| {
        let kinds = CloudService::AwsKms.kinds();
        kinds.iter().find(|kind| kind.native == native && kind.does == does)
    };
    story(|_, _, mut session| {
        for (native, does) in [("ECC_NIST_P384", CloudUse::Sign), ("RSA_2048", CloudUse::Decrypt)] {
            let wrong = KeySelector { cloud: registered(native, does), ..selector(false) };
            let told = session.find(&wrong).unwrap_err().fault.to_string();
            let expected = format!("it is ECC_NIST_P256 (sign, verify), and registered as {native} (");
            assert!(told.contains(&expected), "{told}");
        }
        let right = KeySelector { cloud: Some(kind()), ..selector(false) };
        assert!(session.find(&right).unwrap().is_some());
    });
}

#[test]
fn a_key_that_nobody_uses_is_looked_at_once_it_was_there() {
    of_device(|_, client, device| {
        let shared = &device.shared;
        let look = || {
            shared.service.runtime.wait(Duration::from_secs(60), "a look", async {
                shared.look().await;
                Ok(())
            })
        };
        let states = || shared.service.states.all().into_iter().map(|(_, state)| state).collect::<Vec<_>>();
        look().unwrap();
        assert_eq!((client.looked.load(Ordering::Relaxed), states().len()), (0, 0));
        device.open_session().unwrap().find(&selector(false)).unwrap();
        client.disabled.store(true, Ordering::Relaxed);
        assert_eq!(states(), ["enabled"]);
        look().unwrap();
        assert_eq!(states(), ["disabled"]);
        // Nor is it told as an answer that there was none.
        assert_eq!(client.looks.standing().failed, 0);
        client.lost.store(true, Ordering::Relaxed);
        look().unwrap();
        assert_eq!((client.looks.standing().failed, client.looks.standing().in_flight), (1, 0));
    });
}
