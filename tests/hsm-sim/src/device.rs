//! The device behind a slot: so many servers, each busy for the service time of what it does.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cryptoki_sys::CK_SESSION_HANDLE;
use hdrhistogram::Histogram;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};

use crate::clock::{self, Span};
use crate::counts::Count;
use crate::shared::{SERVERS, Servers};

/// One slot's device. Its servers are shared with all processes that use the token.
pub(crate) struct Device {
    pub(crate) servers: &'static Servers,
    parallel: AtomicU64,
    service: RwLock<Option<Span>>,
    serves: AtomicBool,
    /// Operations without a service time, which are only counted.
    unserved: Count,
    seen: Mutex<Seen>,
}

/// What was asked for and what was given, in nanoseconds.
struct Seen {
    asked: Histogram<u64>,
    given: Histogram<u64>,
    waited: Histogram<u64>,
}

impl Seen {
    fn new() -> Seen {
        // Three digits; it grows as it must. Only a precision above five digits is refused.
        let histogram = || Histogram::new(3).unwrap_or_else(|_| std::process::abort());
        Seen { asked: histogram(), given: histogram(), waited: histogram() }
    }
}

/// A server's time, taken for one operation.
pub(crate) struct Reserved {
    arrived: u64,
    begins: u64,
    service: u64,
}

impl Device {
    pub(crate) fn new(servers: &'static Servers) -> Device {
        Device {
            servers,
            parallel: AtomicU64::new(1),
            service: RwLock::new(None),
            serves: AtomicBool::new(false),
            unserved: Count::new(),
            seen: Mutex::new(Seen::new()),
        }
    }

    pub(crate) fn set_service(&self, service: Option<Span>) {
        let mut known = self.service.write();
        *known = service;
        self.serves.store(service.is_some(), Ordering::Release);
    }

    pub(crate) fn set_parallel(&self, servers: u64) {
        self.parallel.store(servers, Ordering::Relaxed);
    }

    /// Takes the server that is free first, for an operation of this session. Nothing where no service time is set.
    pub(crate) fn reserve(&self, session: CK_SESSION_HANDLE) -> Option<Reserved> {
        let serves = self.serves.load(Ordering::Acquire);
        let Some(service) = serves.then(|| *self.service.read()).flatten() else {
            self.unserved.add(session);
            return None;
        };
        let service = service.nanoseconds();
        let arrived = clock::now();
        let parallel = usize::try_from(self.parallel.load(Ordering::Relaxed)).unwrap_or(SERVERS).clamp(1, SERVERS);
        loop {
            let servers = self.servers.free_at[..parallel].iter();
            let (server, free_at) = servers
                .map(|server| (server, server.load(Ordering::Acquire)))
                .min_by_key(|(_, free_at)| *free_at)
                .unwrap_or((&self.servers.free_at[0], 0));
            let begins = arrived.max(free_at);
            let taken =
                server.compare_exchange(free_at, begins.saturating_add(service), Ordering::AcqRel, Ordering::Relaxed);
            if taken.is_ok() {
                return Some(Reserved { arrived, begins, service });
            }
        }
    }

    /// Sleeps until the server has done its work, and notes how long that really was.
    pub(crate) fn finish(&self, reserved: &Reserved) {
        clock::sleep_until(reserved.begins.saturating_add(reserved.service));
        let given = clock::now().saturating_sub(reserved.begins);
        let mut seen = self.seen.lock();
        record(&mut seen.asked, reserved.service);
        record(&mut seen.given, given);
        record(&mut seen.waited, reserved.begins - reserved.arrived);
    }

    /// Forgets what was measured.
    pub(crate) fn forget(&self) {
        *self.seen.lock() = Seen::new();
        self.unserved.clear();
    }

    pub(crate) fn report(&self) -> Value {
        let seen = self.seen.lock();
        let served = seen.given.len();
        json!({
            "operations": served + self.unserved.get(),
            "served": served,
            "asked_us": figures(&seen.asked),
            "given_us": figures(&seen.given),
            "waited_us": figures(&seen.waited),
        })
    }
}

fn record(histogram: &mut Histogram<u64>, nanoseconds: u64) {
    // It grows for the value; where it cannot, the largest it knows must do.
    if histogram.record(nanoseconds).is_err() {
        histogram.saturating_record(nanoseconds);
    }
}

fn figures(histogram: &Histogram<u64>) -> Value {
    let microseconds = |nanoseconds: f64| (nanoseconds / 100.0).round() / 10.0;
    json!({
        "mean": microseconds(histogram.mean()),
        "p50": microseconds(histogram.value_at_quantile(0.5) as f64),
        "p99": microseconds(histogram.value_at_quantile(0.99) as f64),
        "max": microseconds(histogram.max() as f64),
    })
}
