//! What mounts have stored, as far as they say. Mounts come and go, so each exposition shows those there are.

use std::collections::BTreeMap;

use metrics_exporter_prometheus::PrometheusBuilder;
use parking_lot::Mutex;

use super::{Telemetry, gauge, list};

/// The present figures, by namespace and mount.
#[derive(Default)]
pub(super) struct Stored(Mutex<BTreeMap<(String, String), (u64, u64)>>);

impl Stored {
    /// Their exposition.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 records")]
    pub(super) fn render(&self) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        for ((namespace, mount), (certificates, revocations)) in self.0.lock().iter() {
            let labels = [("namespace", namespace.as_str()), ("mount", mount.as_str())];
            gauge(&recorder, list::CERTIFICATES_STORED, &labels).set(*certificates as f64);
            gauge(&recorder, list::REVOCATIONS_STORED, &labels).set(*revocations as f64);
        }
        recorder.handle().render()
    }
}

impl Telemetry {
    /// A mount has so many certificates and revocations; `None` if it no longer says.
    pub fn stored(&self, namespace: &str, mount: &str, figures: Option<(u64, u64)>) {
        let (place, mut stored) = ((namespace.to_owned(), mount.to_owned()), self.0.stored.0.lock());
        match figures {
            Some(figures) => drop(stored.insert(place, figures)),
            None => drop(stored.remove(&place)),
        }
    }
}
