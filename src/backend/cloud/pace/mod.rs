//! Flow control for keys in clouds, whose services have quotas where tokens have sessions.
//!
//! A [`Domain`] is what a service counts together: account, region and family of keys on AWS, a vault on Azure, project and
//! region on Google. All keys in it share it. Before each request a session asks for leave ([`Gate::admit`]) and waits its
//! turn; the [`Permit`] it gets is told how the request ended. From that the domain knows how fast the service may be asked
//! (`rate.rs`: the configured quota, or less while it throttles), how many requests may be in flight (`in_flight.rs`), and
//! whether to ask at all (`breaker.rs`, one for the domain and one for each key). Those are pure machines, to which the time
//! is passed; `domain.rs` puts threads in a line before them, which is served by namespaces and classes
//! (`line.rs`).
//!
//! What there is to tell an operator of all that comes back from a permit that was used ([`News`]).
//!
//! Nothing here retries: the lane does, within its budget. This room must not know any service, nor what a request is.

mod breaker;
mod bucket;

mod domain;
mod domains;
mod in_flight;
mod line;
mod outage;
mod quota;
mod rate;
mod standing;
mod tally;

#[cfg(test)]
mod domain_tests;
#[cfg(test)]
mod line_tests;
#[cfg(test)]
mod machine_tests;
#[cfg(test)]
mod rate_tests;
#[cfg(test)]
mod simulated;

pub(crate) use breaker::BreakerState;
pub(crate) use domain::{Domain, Gate, Permit, Refusal};
pub(crate) use domains::Domains;
pub(crate) use outage::{Change, News, Why};
pub(crate) use quota::Quota;
#[cfg(feature = "awskms")]
pub(crate) use quota::aws;
#[cfg(feature = "azurekeyvault")]
pub(crate) use quota::azure;
#[cfg(feature = "gcpckms")]
pub(crate) use quota::google;
