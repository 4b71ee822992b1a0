//! Tidying: what has ended is removed from the store, from memory and from CRLs. `tidy`, `tidy-status`, `tidy-cancel`.
//!
//! It runs behind requests, one at a time for a mount: `run` is the work, `status` what is told of it, `targets` what it is to
//! remove, `auto` when it comes by itself; `counts` is how much there is. It must not know who asks, or what a request under
//! way needs: it removes nothing that anyone could still use.

mod auto;
mod counts;
mod run;
mod status;
mod targets;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Pki, validity};
use crate::engine::Call;
use crate::model::{Data, Fault, Fields, Response};
use crate::store::{Versioned, Write};
use crate::telemetry::TidyLabel;
pub(super) use auto::AutoTidy;
pub(super) use counts::Counts;
use run::Run;
use status::Halt;
pub(super) use status::Tidy;
use targets::Targets;

/// When a tidying last began or ended well.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct LastTidy {
    /// Unix seconds; 0 if that never was.
    pub(super) time: u64,
}

impl Versioned for LastTidy {
    const VERSION: u16 = 1;
}

impl Pki {
    /// `POST tidy`.
    pub(super) async fn tidy(self: Arc<Self>, call: Call, data: Data) -> Result<Response, Fault> {
        let mut fields = Fields::new(&data);
        let mut targets =
            Targets::default().updated(&mut fields, |name| format!("{name} must be greater than zero"))?;
        // An older name of Vault's.
        targets.tidy_revoked_certs |= fields.boolean("tidy_revocation_list")?.unwrap_or(false);
        let mut warnings = fields.warnings();
        if !self.start_tidy(&call, &targets) {
            warnings.push("Tidy operation already in progress.".into());
            return Ok(Response::with_warnings(Data::new(), warnings));
        }
        if let Err(fault) = self.note_tidy().await {
            warnings.push(format!("failed persisting tidy last run time: {fault}"));
        }
        warnings.push(match targets.are_any() {
            true => "Tidy operation successfully started. Any information from the operation will be printed to Vault's \
                     server logs."
                .into(),
            false => format!(
                "Manual tidy requested but no tidy operations were set. Enable at least one tidy operation to be run ({}).",
                targets::ALL
            ),
        });
        Ok(Response::Accepted { warnings })
    }

    /// `GET tidy-status`.
    pub(super) fn tidy_status(&self, call: &Call) -> Response {
        let mut data = self.tidy.show();
        data.insert("internal_backend_uuid".into(), call.mount.uuid.as_str().into());
        let warnings = self.show_counts(&mut data);
        Response::with_warnings(data, warnings)
    }

    /// `POST tidy-cancel`.
    pub(super) fn cancel_tidy(&self, call: &Call) -> Response {
        if !self.tidy.cancel() {
            let warning = "Tidy operation cannot be cancelled as none is currently running.".into();
            return Response::with_warnings(Data::new(), vec![warning]);
        }
        tracing::info!(
            mount = %call.mount.path, namespace = %call.mount.namespace, uid = call.caller.peer.uid,
            pid = call.caller.peer.pid, "tidy is to stop"
        );
        self.tidy_status(call)
    }

    /// Makes durable that a tidying began or ended now.
    async fn note_tidy(&self) -> Result<(), Fault> {
        let last = LastTidy { time: validity::now() };
        self.tidy.set_last(last.time);
        self.store.commit(vec![Write::put_record(self.records.last_tidy(), &last)?]).await
    }

    /// Begins a tidying, unless one is under way.
    fn start_tidy(self: &Arc<Self>, call: &Call, targets: &Targets) -> bool {
        let Some(cancelled) = self.tidy.begin(targets) else { return false };
        let running = Running { pki: Arc::clone(self), call: call.clone(), outcome: None };
        tracing::info!(
            mount = %call.mount.path, namespace = %call.mount.namespace, uid = call.caller.peer.uid,
            pid = call.caller.peer.pid, ?targets, "tidy started"
        );
        let run = Run::new(Arc::clone(self), call.clone(), targets.clone(), cancelled);
        tokio::spawn(running.run(run));
        true
    }
}

/// That a tidying is under way. Dropped before its end, it lets another begin: its worker ended with the daemon, which is as
/// good as a cancellation, or it panicked.
struct Running {
    pki: Arc<Pki>,
    call: Call,
    outcome: Option<Result<(), Halt>>,
}

impl Running {
    async fn run(mut self, run: Run) {
        let outcome = run.run().await;
        if outcome.is_ok()
            && let Err(fault) = self.pki.note_tidy().await
        {
            tracing::warn!(
                mount = %self.call.mount.path, namespace = %self.call.mount.namespace, %fault,
                "when tidy last ran is not stored; after a restart it runs again sooner"
            );
        }
        self.outcome = Some(outcome);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(|| match std::thread::panicking() {
            true => Err(Halt::Failed(Fault::internal("tidy ended without a result"))),
            false => Err(Halt::Cancelled),
        });
        let tally = self.pki.tidy.end(&outcome);
        let (mount, namespace) = (&self.call.mount.path, &self.call.mount.namespace);
        let label = match &outcome {
            Ok(()) => {
                tracing::info!(%mount, %namespace, ?tally, "tidy finished");
                TidyLabel::Finished
            }
            Err(Halt::Cancelled) => {
                tracing::info!(%mount, %namespace, ?tally, "tidy cancelled; what it removed stays removed");
                TidyLabel::Cancelled
            }
            Err(Halt::Failed(fault)) => {
                tracing::error!(
                    %mount, %namespace, ?tally, %fault,
                    "tidy failed; what it removed stays removed, and the next one goes on from there"
                );
                TidyLabel::Failed
            }
        };
        self.pki.telemetry.tidy_ended(label);
    }
}
