//! Who holds the managed keys. Keys come and go, so each exposition shows those there are: a key that is deleted leaves
//! no line behind.

use metrics_exporter_prometheus::PrometheusBuilder;
use parking_lot::Mutex;

use super::{count, gauge, list};

/// One managed key and the members of its pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySetFigures {
    /// The pool.
    pub pool: String,
    /// The namespace the key is bound to.
    pub namespace: String,
    /// The managed key's name.
    pub key: String,
    /// Members asked to hold it.
    pub members: usize,
    /// Members that have proven to hold it.
    pub holders: usize,
}

/// The present key sets.
#[derive(Default)]
pub(super) struct KeySets(Mutex<Vec<KeySetFigures>>);

impl KeySets {
    /// Replaces them all.
    pub(super) fn replace(&self, sets: Vec<KeySetFigures>) {
        *self.0.lock() = sets;
    }

    /// Their exposition.
    pub(super) fn render(&self) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        for set in self.0.lock().iter() {
            let labels = [("pool", &*set.pool), ("namespace", &*set.namespace), ("key", &*set.key)];
            gauge(&recorder, list::KEY_MEMBERS, &labels).set(count(set.members));
            gauge(&recorder, list::KEY_HOLDERS, &labels).set(count(set.holders));
        }
        recorder.handle().render()
    }
}
