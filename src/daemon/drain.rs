//! Being asked to end or to read the configuration again, and how an end went.

use tokio::signal::unix::{Signal, SignalKind, signal as listen};

use crate::model::Fault;

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

/// What a signal asks.
pub(super) enum Asked {
    /// To end; the signal's name.
    End(&'static str),
    /// To read the configuration again.
    Reload,
}

/// The signals the daemon heeds. Several of one kind that came since it was last asked are one.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Heeds them from now on.
    pub(super) fn listen() -> Result<Signals, Fault> {
        let heed = |kind| {
            let failed = |error| Fault::Unavailable { what: format!("cannot listen for signals: {error}") };
            listen(kind).map_err(failed)
        };
        // A file that may not grow further is as a full disk: a write that says so, and not the end. What listens once keeps
        // a signal from ending the process for good.
        drop(heed(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
        Ok(Signals {
            terminate: heed(SignalKind::terminate())?,
            interrupt: heed(SignalKind::interrupt())?,
            hangup: heed(SignalKind::hangup())?,
        })
    }

    /// The next one. The end comes first.
    pub(super) async fn next(&mut self) -> Asked {
        let Signals { terminate, interrupt, hangup } = self;
        tokio::select! {
            biased;
            _ = terminate.recv() => Asked::End("SIGTERM"),
            _ = interrupt.recv() => Asked::End("SIGINT"),
            _ = hangup.recv() => Asked::Reload,
        }
    }

    /// The next one that asks for the end; its name.
    pub(super) async fn end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Says of each SIGHUP that it comes too late.
    pub(super) async fn ignore_reloads(mut self) {
        loop {
            let _ = self.hangup.recv().await;
            tracing::warn!("draining: SIGHUP is ignored, the configuration is not read again");
        }
    }
}
