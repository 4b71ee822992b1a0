//! What all keys at one service share: its settings, the threads of its connections, its quota domains, and the daemon's own
//! credentials there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Runtime;
use super::pace::{BreakerState, Domains, Quota};
use crate::config::KmsService;
use crate::model::Fault;
use crate::telemetry::{CredentialFigures, QuotaDomainFigures, ServiceFigures, Telemetry};

/// One service.
pub(crate) struct Service {
    pub(crate) settings: KmsService,
    pub(crate) runtime: Runtime,
    pub(crate) domains: Domains,
    pub(crate) own: OwnCredentials,
}

impl Service {
    /// The service by these settings; its threads are started, and no call is made.
    pub(crate) fn start(settings: &KmsService, telemetry: &Telemetry) -> Result<Arc<Service>, Fault> {
        let (runtime, settings) = (Runtime::start()?, settings.clone());
        let service = Service { settings, runtime, domains: Domains::default(), own: OwnCredentials::default() };
        let service = Arc::new(service);
        let seen: Arc<dyn ServiceFigures> = service.clone();
        telemetry.show_service(&seen);
        Ok(service)
    }
}

impl Service {
    /// The quota of a family: as configured, where the service has another by default.
    pub(crate) fn quota(&self, family: &str, default: Quota) -> Quota {
        let Some(given) = self.settings.quotas.get(family) else { return default };
        let units = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
        let mut quota = given.per_second.map_or(default, |per_second| {
            let Quota { max_in_flight, window, .. } = default;
            Quota { max_in_flight, window, ..Quota::per_second(units(per_second)) }
        });
        quota.burst = given.burst.map_or(quota.burst, units);
        quota.max_in_flight = given.max_in_flight.unwrap_or(quota.max_in_flight);
        quota
    }
}

impl ServiceFigures for Service {
    fn name(&self) -> &'static str {
        self.settings.service.name()
    }

    fn domains(&self) -> Vec<QuotaDomainFigures> {
        let figures = |(domain, of): (String, Arc<super::pace::Domain>)| {
            let now = of.standing();
            QuotaDomainFigures {
                domain,
                sent: now.sent,
                throttled: now.throttled,
                failed: now.failed,
                breaker_refused: now.breaker_refused,
                waiting: now.waiting,
                in_flight: now.in_flight,
                in_flight_limit: now.in_flight_limit,
                allowed: now.allowed_per_second,
                quota: now.quota_per_second,
                is_open: now.breaker != BreakerState::Closed,
                keys_open: now.keys_open,
            }
        };
        self.domains.all().into_iter().map(figures).collect()
    }

    fn credentials(&self) -> Option<CredentialFigures> {
        self.own.figures()
    }
}

/// What is known of the daemon's own credentials at a service.
#[derive(Default)]
pub(crate) struct OwnCredentials {
    used: AtomicBool,
    fetched: AtomicU64,
    failed: AtomicU64,
    /// Milliseconds since 1970; 0 where they do not end.
    end: AtomicU64,
}

impl OwnCredentials {
    /// They were fetched, and are good until `end`.
    pub(crate) fn fetched(&self, end: Option<SystemTime>) {
        self.used.store(true, Ordering::Relaxed);
        self.fetched.fetch_add(1, Ordering::Relaxed);
        let since = end.and_then(|end| end.duration_since(UNIX_EPOCH).ok());
        let millis = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        self.end.store(millis, Ordering::Relaxed);
    }

    /// They could not be.
    pub(crate) fn failed(&self) {
        self.used.store(true, Ordering::Relaxed);
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// How long those at hand are good; `None` where there are none, or they do not end.
    pub(crate) fn left(&self) -> Option<Duration> {
        let end = self.end.load(Ordering::Relaxed);
        let end = (end > 0).then(|| UNIX_EPOCH + Duration::from_millis(end))?;
        Some(end.duration_since(SystemTime::now()).unwrap_or_default())
    }

    fn figures(&self) -> Option<CredentialFigures> {
        let (fetched, failed) = (self.fetched.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed));
        self.used.load(Ordering::Relaxed).then(|| CredentialFigures { fetched, failed, left: self.left() })
    }
}
