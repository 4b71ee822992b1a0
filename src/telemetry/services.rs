//! What is seen of clouds' key services: what flow control lets through, and how long credentials are good. Quota domains and
//! identities come and go with their keys, so each exposition shows those there are.

use std::sync::{Arc, Weak};
use std::time::Duration;

use metrics::Counter;
use metrics_exporter_prometheus::PrometheusBuilder;
use parking_lot::Mutex;

use super::{Buckets, Histogram, Telemetry, count, counter, gauge, list};

/// One quota domain of a service: what it counts together.
#[derive(Clone, Debug)]
pub struct QuotaDomainFigures {
    /// Which.
    pub domain: String,
    /// Requests sent, and how those ended that did not end well: throttled by the service, or failed on its side or on the way.
    pub sent: u64,
    /// See `sent`.
    pub throttled: u64,
    /// See `sent`.
    pub failed: u64,
    /// Not sent: a breaker was open.
    pub breaker_refused: u64,
    /// Requests that wait for their turn.
    pub waiting: usize,
    /// Requests under way.
    pub in_flight: usize,
    /// So many may be under way.
    pub in_flight_limit: usize,
    /// Units a second that are let through now.
    pub allowed: f64,
    /// Units a second of the quota.
    pub quota: f64,
    /// Whether its breaker is open, or open but for a probe.
    pub is_open: bool,
    /// Keys of it whose own breakers are.
    pub keys_open: usize,
}

/// The credentials of one identity at a service.
#[derive(Clone, Debug)]
pub struct CredentialFigures {
    /// Whose they are: `daemon` or `managed_key`.
    pub owner: &'static str,
    /// Which, in words that are no secret.
    pub identity: String,
    /// How often they were fetched.
    pub fetched: u64,
    /// How often they could not be.
    pub failed: u64,
    /// How long those at hand are good; `None` where there are none, or they do not end.
    pub left: Option<Duration>,
}

/// A service that tells how it stands.
pub trait ServiceFigures: Send + Sync {
    /// Its name, as the type of managed keys.
    fn name(&self) -> &'static str;

    /// Its quota domains.
    fn domains(&self) -> Vec<QuotaDomainFigures>;

    /// The credentials that are fetched for its keys, each identity once.
    fn credentials(&self) -> Vec<CredentialFigures>;

    /// How its keys stand, each once, as the service last said.
    fn key_states(&self) -> Vec<(String, &'static str)>;
}

/// The new connections of one service.
#[derive(Clone)]
pub struct ConnectionMetrics {
    made: Counter,
    failed: Counter,
    took: Histogram,
}

impl ConnectionMetrics {
    /// There is a new one; its name, TCP and TLS took so long.
    pub fn made(&self, took: Duration) {
        self.made.increment(1);
        self.took.record(took);
    }

    /// There is none: it was refused, or not there in time.
    pub fn failed(&self) {
        self.failed.increment(1);
    }
}

/// The services there are.
#[derive(Default)]
pub(super) struct Services(Mutex<Vec<Weak<dyn ServiceFigures>>>);

impl Services {
    /// Their exposition.
    pub(super) fn render(&self) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        let services: Vec<_> = {
            let mut known = self.0.lock();
            known.retain(|service| service.strong_count() > 0);
            known.iter().filter_map(Weak::upgrade).collect()
        };
        for service in services {
            let name = service.name();
            for of in service.domains() {
                let outcomes = [
                    ("sent", of.sent),
                    ("throttled", of.throttled),
                    ("failed", of.failed),
                    ("breaker_open", of.breaker_refused),
                ];
                for (outcome, total) in outcomes {
                    let labels = [("service", name), ("domain", &*of.domain), ("outcome", outcome)];
                    counter(&recorder, list::SERVICE_REQUESTS, &labels).absolute(total);
                }
                let labels = [("service", name), ("domain", &*of.domain)];
                for (metric, value) in [
                    (list::SERVICE_RATE, of.allowed),
                    (list::SERVICE_QUOTA, of.quota),
                    (list::SERVICE_WAITING, count(of.waiting)),
                    (list::SERVICE_IN_FLIGHT, count(of.in_flight)),
                    (list::SERVICE_IN_FLIGHT_LIMIT, count(of.in_flight_limit)),
                    (list::SERVICE_KEYS_OPEN, count(of.keys_open)),
                    (list::SERVICE_BREAKER_OPEN, f64::from(u8::from(of.is_open))),
                ] {
                    gauge(&recorder, metric, &labels).set(value);
                }
            }
            for (key, state) in service.key_states() {
                gauge(&recorder, list::KEY_STATE, &[("service", name), ("key", &*key), ("state", state)]).set(1.0);
            }
            for of in service.credentials() {
                let labels = [("service", name), ("owner", of.owner), ("identity", &*of.identity)];
                for (result, total) in [("ok", of.fetched), ("failed", of.failed)] {
                    let labels = [labels[0], labels[1], labels[2], ("result", result)];
                    counter(&recorder, list::CREDENTIAL_FETCHES, &labels).absolute(total);
                }
                if let Some(left) = of.left {
                    gauge(&recorder, list::CREDENTIALS_LEFT, &labels).set(left.as_secs_f64());
                }
            }
        }
        recorder.handle().render()
    }
}

impl Telemetry {
    /// Has a service seen as long as it lives.
    pub fn show_service(&self, service: &Arc<dyn ServiceFigures>) {
        self.0.services.0.lock().push(Arc::downgrade(service));
    }

    /// Where the connections of a service are counted.
    pub fn connections_of(&self, service: &str) -> ConnectionMetrics {
        let result = |result| [("service", service), ("result", result)];
        ConnectionMetrics {
            made: counter(&self.0.recorder, list::SERVICE_CONNECTIONS, &result("ok")),
            failed: counter(&self.0.recorder, list::SERVICE_CONNECTIONS, &result("failed")),
            took: self.0.hot.histogram(list::SERVICE_CONNECT_SECONDS, Buckets::Fine, &[("service", service)]),
        }
    }
}
