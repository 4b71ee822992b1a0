//! What is counted of the configuration: how often it was read again, how that went, and since when it is in force.

use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::{Telemetry, count, counter, gauge, list};

pub(super) struct Reloads {
    taken: Counter,
    refused: Counter,
    last_ok: Gauge,
    loaded: Gauge,
    restart_needed: Gauge,
}

impl Reloads {
    /// The start read it, and took it over.
    pub(super) fn new(recorder: &PrometheusRecorder) -> Reloads {
        let result = |result| counter(recorder, list::RELOADS, &[("result", result)]);
        let reloads = Reloads {
            taken: result("ok"),
            refused: result("failed"),
            last_ok: gauge(recorder, list::RELOAD_OK, &[]),
            loaded: gauge(recorder, list::RELOADED_TIME, &[]),
            restart_needed: gauge(recorder, list::RESTART_NEEDED, &[]),
        };
        reloads.show(0);
        reloads
    }

    fn show(&self, restart_needed: usize) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_ok.set(1.0);
        self.loaded.set(now.as_secs_f64());
        self.restart_needed.set(count(restart_needed));
    }
}

impl Telemetry {
    /// The configuration was read again and taken over, but for so many settings that need a restart.
    pub fn reloaded(&self, restart_needed: usize) {
        self.0.reloads.taken.increment(1);
        self.0.reloads.show(restart_needed);
    }

    /// The configuration was read again and refused: the one before stays in force.
    pub fn reload_failed(&self) {
        self.0.reloads.refused.increment(1);
        self.0.reloads.last_ok.set(0.0);
    }
}
