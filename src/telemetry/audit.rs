//! What audit devices have written, and what they have not.

use metrics::Counter;
use metrics_exporter_prometheus::PrometheusRecorder;

use super::{AuditLabel, Telemetry, counter, list};

/// The figures of all devices of each type.
pub(super) struct AuditFigures {
    records: [Counter; AuditLabel::ALL.len()],
    writes: [Counter; AuditLabel::ALL.len()],
    failures: [Counter; AuditLabel::ALL.len()],
    refused: Counter,
}

impl AuditFigures {
    pub(super) fn new(recorder: &PrometheusRecorder) -> AuditFigures {
        let each = |name| AuditLabel::ALL.map(|label| counter(recorder, name, &[("type", label.label())]));
        AuditFigures {
            records: each(list::AUDIT_RECORDS),
            writes: each(list::AUDIT_WRITES),
            failures: each(list::AUDIT_FAILURES),
            refused: counter(recorder, list::AUDIT_REFUSED, &[]),
        }
    }
}

impl Telemetry {
    /// A device wrote so many records at once.
    pub fn audit_written(&self, device: AuditLabel, records: usize) {
        add(&self.0.audit.records, device, records);
        add(&self.0.audit.writes, device, 1);
    }

    /// A device did not write so many records.
    pub fn audit_failed(&self, device: AuditLabel, records: usize) {
        add(&self.0.audit.failures, device, records);
    }

    /// A request was refused, or its answer withheld, since no device recorded it.
    pub fn audit_refused(&self) {
        self.0.audit.refused.increment(1);
    }
}

fn add(counters: &[Counter], device: AuditLabel, count: usize) {
    if let Some(counter) = counters.get(device as usize) {
        counter.increment(u64::try_from(count).unwrap_or(u64::MAX));
    }
}
