//! The door of the daemon, open or sealed: in front of the rooms while there are any, and the one who answers while there are
//! none. Requests read a snapshot; the keeper alone changes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::keeper::Errands;
use crate::config::Limits;
use crate::dispatch::{Answer, Dispatch, Door};
use crate::model::{Body, Caller, Fault, Namespace, Operation, Outcome, Secret, TokenId};
use crate::system::{Standing, WhileSealed};
use crate::telemetry::{OperationLabel, OutcomeLabel, Telemetry};

/// Whose token was looked at while there was no telling. Nobody has this one.
const NOBODYS: TokenId = TokenId([0; 32]);

pub(super) struct Gate {
    /// The rooms behind it, unless they are sealed.
    open: ArcSwapOption<Dispatch>,
    closed: Arc<Closed>,
    deadline: Duration,
    deadline_max: Duration,
}

/// Who answers while there are no rooms.
struct Closed {
    /// How a sealed daemon stands.
    standing: Standing,
    errands: Errands,
    telemetry: Telemetry,
    /// It is sealed for a moment, while another store takes the place of this one.
    is_replacing: AtomicBool,
}

impl Gate {
    /// A closed one.
    pub(super) fn new(standing: Standing, errands: Errands, telemetry: Telemetry, limits: &Limits) -> Gate {
        let (deadline, deadline_max) = (limits.deadline, limits.deadline_max);
        let closed = Arc::new(Closed { standing, errands, telemetry, is_replacing: AtomicBool::new(false) });
        Gate { open: ArcSwapOption::empty(), closed, deadline, deadline_max }
    }

    /// Lets requests through from now on.
    pub(super) fn open(&self, rooms: &Arc<Dispatch>) {
        self.open.store(Some(Arc::clone(rooms)));
    }

    /// Lets no other request through.
    pub(super) fn close(&self) {
        self.open.store(None);
    }

    /// Whether it is closed for no longer than another store takes to be in the place of this one.
    pub(super) fn replacing(&self, is_replacing: bool) {
        self.closed.is_replacing.store(is_replacing, Ordering::Release);
    }

    /// Opens the files of audit devices anew, if there are any.
    pub(super) fn reopen_records(&self) {
        if let Some(rooms) = self.open.load().as_ref() {
            rooms.reopen_records();
        }
    }
}

impl Closed {
    async fn run(&self, operation: Operation) -> Result<Outcome, Fault> {
        let (label, deadline) = (OperationLabel::of(&operation), operation.deadline.instant());
        let result = match tokio::time::timeout_at(deadline.into(), self.answer(&operation)).await {
            Ok(result) => result,
            Err(_) => Err(Fault::DeadlineExceeded { stage: "running" }),
        };
        self.count(&operation, label, &result);
        result
    }

    fn count(&self, operation: &Operation, label: OperationLabel, result: &Result<Outcome, Fault>) {
        let outcome = result.as_ref().map_or_else(|fault| OutcomeLabel::Fault(fault.label()), |_| OutcomeLabel::Ok);
        self.telemetry.request_finished(label, outcome, operation.caller.wire, operation.arrived.elapsed());
    }

    async fn answer(&self, operation: &Operation) -> Result<Outcome, Fault> {
        let Body::Request(request) = &operation.body else { return Err(Fault::Sealed) };
        if request.path == "sys/seal" && self.is_replacing.load(Ordering::Acquire) {
            // "Sealed" would be a promise.
            let what = "a snapshot takes the place of the store, which is open again in a moment: seal it then".into();
            return Err(Fault::Unavailable { what });
        }
        Ok(Outcome::Response(match self.standing.while_sealed(&operation.caller, request)? {
            WhileSealed::Answer(response) => response,
            WhileSealed::Unseal(warnings) => {
                let peer = operation.caller.peer;
                tracing::info!(uid = peer.uid, pid = peer.pid, "unsealing, as a client asks");
                self.errands.unseal().await?;
                Standing { is_sealed: false, ..self.standing }.seal_status(warnings)
            }
        }))
    }
}

impl Door for Gate {
    fn identify(&self, token: &Secret) -> TokenId {
        self.open.load().as_ref().map_or(NOBODYS, |rooms| rooms.identify(token))
    }

    fn welcome(&self, caller: &Caller, namespace: &Namespace) -> Result<(), Fault> {
        self.open.load().as_ref().ok_or(Fault::Sealed)?.welcome(caller, namespace)
    }

    fn knows(&self, caller: &Caller, namespace: &Namespace) -> bool {
        self.open.load().as_ref().is_some_and(|rooms| rooms.knows(caller, namespace))
    }

    fn locate<'p>(&self, below: &Namespace, path: &'p str) -> (Namespace, &'p str) {
        match self.open.load().as_ref() {
            Some(rooms) => rooms.locate(below, path),
            None => (below.clone(), path),
        }
    }

    fn deadline(&self, wanted: Option<Duration>) -> Duration {
        wanted.unwrap_or(self.deadline).min(self.deadline_max)
    }

    fn run(&self, operation: Operation) -> Answer {
        match self.open.load_full() {
            // Its token was looked at before the door was open: that is no reason to say that it is no good.
            Some(_) if operation.caller.token == Some(NOBODYS) => {
                let closed = Arc::clone(&self.closed);
                Box::pin(async move {
                    let result = Err(Fault::Unavailable { what: "it was sealed until this moment: ask again".into() });
                    closed.count(&operation, OperationLabel::of(&operation), &result);
                    result
                })
            }
            Some(rooms) => rooms.run(operation),
            None => {
                let closed = Arc::clone(&self.closed);
                Box::pin(async move { closed.run(operation).await })
            }
        }
    }

    fn note(&self, operation: Operation, fault: &Fault) {
        if let Some(rooms) = self.open.load().as_ref() {
            rooms.note(operation, fault);
        }
    }
}
