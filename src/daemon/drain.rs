//! Being asked to end, and how it went.

use tokio::signal::unix::{SignalKind, signal as listen};

/// How the daemon ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Connections that finished what they had begun.
    pub connections_finished: usize,
    /// Connections cut in the middle of it.
    pub connections_cut: usize,
    /// Private-key operations cut off in their lanes.
    pub jobs_cut: usize,
}

impl Ended {
    /// Whether everything that had begun was finished.
    pub fn clean(self) -> bool {
        self.connections_cut == 0 && self.jobs_cut == 0
    }
}

/// Waits for SIGTERM or SIGINT; answers its name.
pub(super) async fn signal() -> &'static str {
    match (listen(SignalKind::terminate()), listen(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        },
        // Without handlers the signals' own effect ends the process.
        _ => std::future::pending().await,
    }
}
