//! What is counted of KMS libraries: how often their code was started.

use super::{Telemetry, counter, list};

/// One KMS library. The default counts nothing: for programs and processes whose metrics nobody reads.
#[derive(Clone, Debug, Default)]
pub struct LibraryMetrics(Option<(Telemetry, String)>);

impl LibraryMetrics {
    /// Its module was initialised in this process, or could not be.
    pub fn initialised(&self, ok: bool) {
        self.count(list::INITIALISATIONS, None, ok);
    }

    /// A worker process was started for this token, or could not be.
    pub fn worker_started(&self, token: &str, ok: bool) {
        self.count(list::WORKER_STARTS, Some(token), ok);
    }

    /// Looked up by name: it is rare. What is counted of a token goes with its members.
    fn count(&self, name: &'static str, token: Option<&str>, ok: bool) {
        let Some((telemetry, library)) = &self.0 else { return };
        let mut labels = vec![("library", library.as_str()), ("result", if ok { "ok" } else { "failed" })];
        labels.extend(token.map(|token| ("token", token)));
        match token.map(|token| telemetry.0.pools.of_token(library, token)) {
            None => counter(&telemetry.0.recorder, name, &labels).increment(1),
            Some(member) => member.iter().for_each(|of| counter(of.scope.recorder(), name, &labels).increment(1)),
        }
    }
}

impl Telemetry {
    /// The handles of one KMS library.
    pub fn library(&self, name: &str) -> LibraryMetrics {
        LibraryMetrics(Some((self.clone(), name.to_lowercase())))
    }
}
