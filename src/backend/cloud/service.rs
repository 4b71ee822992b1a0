//! What all keys at one service share: its settings, its connections and their threads, its quota domains, and what is seen of the
//! identities that they are used by.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use hyper::Uri;
use parking_lot::Mutex;

use super::Runtime;
use super::identities::Identities;
use super::pace::{BreakerState, Domains, Quota};
use super::states::KeyStates;
use super::transport::Transport;
use super::warm::{Kept, Turns, Warm};
use crate::config::KmsService;
use crate::model::Fault;
use crate::telemetry::{ConnectionMetrics, CredentialFigures, QuotaDomainFigures, ServiceFigures, Telemetry};

/// One service.
pub(crate) struct Service {
    pub(crate) settings: KmsService,
    pub(crate) runtime: Runtime,
    pub(crate) domains: Domains,
    pub(super) identities: Identities,
    pub(super) states: KeyStates,
    connections: ConnectionMetrics,
    transport: Mutex<Option<Transport>>,
    /// Endpoints whose connections are kept, by their URLs without a path.
    warm: Mutex<HashMap<Uri, Weak<Warm>>>,
    turns: Arc<Turns>,
}

impl Service {
    /// The service by these settings; its threads are started, and no call is made.
    pub(crate) fn start(settings: &KmsService, telemetry: &Telemetry) -> Result<Arc<Service>, Fault> {
        let (runtime, settings, name) = (Runtime::start()?, settings.clone(), settings.service.name());
        let service = Service {
            settings,
            runtime,
            domains: Domains::default(),
            identities: Identities::default(),
            states: KeyStates::default(),
            connections: telemetry.connections_of(name),
            transport: Mutex::default(),
            warm: Mutex::default(),
            turns: Arc::default(),
        };
        let service = Arc::new(service);
        let seen: Arc<dyn ServiceFigures> = service.clone();
        telemetry.show_service(&seen);
        Ok(service)
    }
}

impl Service {
    /// The connections that all its clients share. They are set up when they are first asked for: a daemon without keys in this
    /// cloud reads no certificates for it. What failed is tried again for whoever asks next: files may have been out of reach.
    ///
    /// # Errors
    ///
    /// What is wrong with the settings, in words.
    pub(crate) fn transport(&self) -> Result<Transport, String> {
        made_once(&self.transport, || Transport::new(&self.settings, self.connections.clone()))
    }

    /// The same for calls of the endpoint with this URL, to which `warm_connections` are opened now, beside everything, and kept for
    /// as long as this, a clone of it or another one to the same endpoint lives.
    ///
    /// # Errors
    ///
    /// What is wrong with the settings or the URL, in words.
    pub(crate) fn transport_to(&self, url: &str) -> Result<Transport, String> {
        let transport = self.transport()?;
        let KmsService { warm_connections: connections, warm_interval: idle, call: limit, .. } = self.settings;
        if connections == 0 {
            return Ok(transport);
        }
        let endpoint = root_of(url).ok_or_else(|| format!("{url:?} is no URL of an endpoint"))?;
        let mut known = self.warm.lock();
        known.retain(|_, warm| warm.strong_count() > 0);
        if let Some(warm) = known.get(&endpoint).and_then(Weak::upgrade) {
            return Ok(transport.to(warm));
        }
        let kept = Kept { connections, idle, limit };
        let warm =
            Arc::new(Warm::start(endpoint.clone(), kept, transport.clone(), Arc::clone(&self.turns), &self.runtime));
        known.insert(endpoint, Arc::downgrade(&warm));
        Ok(transport.to(warm))
    }

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

/// What is there, else what this makes. An error is not kept.
fn made_once<T: Clone>(cell: &Mutex<Option<T>>, make: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let mut cell = cell.lock();
    let made = match cell.take() {
        Some(made) => made,
        None => make()?,
    };
    Ok(cell.insert(made).clone())
}

/// A URL without its path.
fn root_of(url: &str) -> Option<Uri> {
    let url: Uri = url.parse().ok()?;
    let root = Uri::builder().scheme(url.scheme()?.clone()).authority(url.authority()?.clone());
    root.path_and_query("/").build().ok()
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

    fn credentials(&self) -> Vec<CredentialFigures> {
        self.identities.figures()
    }

    fn key_states(&self) -> Vec<(String, &'static str)> {
        self.states.all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_set_up_is_tried_again_and_what_could_is_not() {
        let cell = Mutex::default();
        assert_eq!(made_once(&cell, || Err("too many open files".to_owned())), Err("too many open files".to_owned()));
        assert_eq!(made_once(&cell, || Ok(1)), Ok(1));
        assert_eq!(made_once(&cell, || Ok(2)), Ok(1));
        assert_eq!(made_once(&cell, || Err("never asked".to_owned())), Ok(1));
    }
}
