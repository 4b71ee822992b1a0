//! Pools come and go, and what was counted of one goes with it. So each counts in a recorder of its own, and an exposition
//! is made of them all.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::Mutex;

use super::histogram::Histograms;
use super::{METRICS, MetricKind, Telemetry};

/// One pool's own recorder. It is exposed until [`Telemetry::end_pool`]; whoever still counts in it then counts for nobody.
pub struct PoolMetrics {
    name: String,
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    histograms: Histograms,
    /// The library and token of each member.
    tokens: Mutex<Vec<(String, String)>>,
}

impl PoolMetrics {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn recorder(&self) -> &PrometheusRecorder {
        &self.recorder
    }

    pub(super) fn histograms(&self) -> &Histograms {
        &self.histograms
    }

    pub(super) fn note_token(&self, library: &str, token: &str) {
        self.tokens.lock().push((library.to_owned(), token.to_owned()));
    }

    fn has_token(&self, library: &str, token: &str) -> bool {
        self.tokens.lock().iter().any(|known| known.0 == library && known.1 == token)
    }
}

/// Those exposed now.
#[derive(Default)]
pub(super) struct Pools(Mutex<Vec<Arc<PoolMetrics>>>);

impl Pools {
    /// Whoever makes or ends a pool holds up others, and does not wait until all are rendered.
    pub(super) fn render(&self) -> Vec<String> {
        let pools = self.0.lock().clone();
        pools.iter().flat_map(|pool| [pool.handle.render(), pool.histograms.render()]).collect()
    }

    /// The pool with a member of this token.
    pub(super) fn of_token(&self, library: &str, token: &str) -> Option<Arc<PoolMetrics>> {
        self.0.lock().iter().find(|pool| pool.has_token(library, token)).cloned()
    }
}

impl Telemetry {
    /// Where a pool of this name counts.
    pub fn pool(&self, name: &str) -> Arc<PoolMetrics> {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let (name, histograms, tokens) = (name.to_owned(), Histograms::default(), Mutex::default());
        let pool = Arc::new(PoolMetrics { name, recorder, handle, histograms, tokens });
        self.0.pools.0.lock().push(Arc::clone(&pool));
        pool
    }

    /// The pool is gone, and every series of it.
    pub fn end_pool(&self, pool: &Arc<PoolMetrics>) {
        self.0.pools.0.lock().retain(|known| !Arc::ptr_eq(known, pool));
    }
}

/// One exposition made of several: each metric once, with all of its series.
pub(super) fn merge(expositions: &[String]) -> String {
    let mut series: HashMap<&str, Vec<&str>> = HashMap::new();
    for text in expositions {
        let mut metric = None;
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                metric = rest.split(' ').next();
            } else if !line.starts_with('#') {
                series.entry(metric.unwrap_or_default()).or_default().push(line);
            }
        }
    }
    let mut merged = String::with_capacity(expositions.iter().map(String::len).sum());
    for info in METRICS {
        let Some(lines) = series.get(info.name) else { continue };
        let kind = match info.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        // Writing to a string does not fail.
        let _ = writeln!(merged, "# HELP {0} {1}\n# TYPE {0} {kind}", info.name, info.help);
        lines.iter().for_each(|line| merged.extend([*line, "\n"]));
        merged.push('\n');
    }
    merged
}
