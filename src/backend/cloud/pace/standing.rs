//! What metrics show of a quota domain. It must not know how a domain comes to stand so.

use super::breaker::BreakerState;

/// How a domain stands, for metrics. Counts are since it was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Standing {
    /// Requests let go.
    pub(crate) sent: u64,
    /// Requests the service throttled.
    pub(crate) throttled: u64,
    /// Requests that met a failure of transport or of the service.
    pub(crate) failed: u64,
    /// Refused because the domain's breaker was open, or the key's.
    pub(crate) breaker_refused: u64,
    /// Threads that wait.
    pub(crate) waiting: usize,
    /// Requests in flight.
    pub(crate) in_flight: usize,
    /// Requests that may be in flight.
    pub(crate) in_flight_limit: usize,
    /// Units a second that are allowed now.
    pub(crate) allowed_per_second: f64,
    /// Units a second that are configured.
    pub(crate) quota_per_second: f64,
    /// Whether the service throttled lately, and less than the quota is allowed.
    pub(crate) is_throttled: bool,
    /// The domain's breaker.
    pub(crate) breaker: BreakerState,
    /// Keys whose own breakers are not closed.
    pub(crate) keys_open: usize,
}
