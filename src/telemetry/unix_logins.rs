//! Logins by process, by what became of them. Roles and namespaces are in the log alone: there may be very many.

use metrics::Counter;
use metrics_exporter_prometheus::PrometheusRecorder;

use super::{Telemetry, counter, list};

/// What became of a login by process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixLoginLabel {
    /// It was given a token.
    Ok,
    /// There is no such role, or it is not for that process.
    Refused,
    /// The role is for it, and yet there was no token: it has too many, say.
    Failed,
}

impl UnixLoginLabel {
    /// Every one.
    pub const ALL: [UnixLoginLabel; 3] = [UnixLoginLabel::Ok, UnixLoginLabel::Refused, UnixLoginLabel::Failed];

    /// Its text.
    pub const fn label(self) -> &'static str {
        match self {
            UnixLoginLabel::Ok => "ok",
            UnixLoginLabel::Refused => "refused",
            UnixLoginLabel::Failed => "failed",
        }
    }
}

/// How many there were of each.
pub(super) struct UnixLoginFigures([Counter; UnixLoginLabel::ALL.len()]);

impl UnixLoginFigures {
    pub(super) fn new(recorder: &PrometheusRecorder) -> UnixLoginFigures {
        let each = |label: UnixLoginLabel| counter(recorder, list::UNIX_LOGINS, &[("result", label.label())]);
        UnixLoginFigures(UnixLoginLabel::ALL.map(each))
    }
}

impl Telemetry {
    /// A process asked for a token by a role.
    pub fn unix_login(&self, result: UnixLoginLabel) {
        if let Some(counter) = self.0.unix_logins.0.get(result as usize) {
            counter.increment(1);
        }
    }
}
