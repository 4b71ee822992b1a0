//! Admit, authorize, hold to quotas, record, run, record, observe: what happens to every operation, whichever wire it came by.
//!
//! This room must not know: any wire, or what an engine does.

mod engines;
mod noted;
mod recorded;
mod rights;
mod typed;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::audit::Audit;
use crate::config::Limits;
pub use crate::engine::{Answer, together};
use crate::engine::{Call, Engine, GoneTokens, holding};
use crate::identity::{Counted, Identity, Place};
use crate::model::{
    Body, Caller, Class, Deadline, EachSecond, Fault, IF_MODIFIED_SINCE, Mount, Namespace, Operation, Outcome,
    PeerCredentials, Request, Response, Secret, Terms, TokenId, Verb, Wire,
};
use crate::namespace::{Namespaces, Permit, QuotaKind, Quotas};
use crate::system::{self, System};
use crate::telemetry::{OperationLabel, OutcomeLabel, Telemetry};

pub use engines::Engines;

/// That an operation was begun, and its deadline has passed.
const LATE: Fault = Fault::DeadlineExceeded { stage: "running" };

/// What the front sees of the rest of the daemon.
pub trait Door: Send + Sync + 'static {
    /// The keyed hash a token is looked up by. Says nothing of whether the token is good.
    fn identify(&self, token: &Secret) -> TokenId;

    /// Whether this caller may come in at all: its token is good, the namespace exists. For the framed Hello only; every
    /// operation is judged anew.
    fn welcome(&self, caller: &Caller, namespace: &Namespace) -> Result<(), Fault>;

    /// Whether this caller would be welcome. Counted nowhere: it is asked of every HTTP request, before that is judged.
    fn knows(&self, caller: &Caller, namespace: &Namespace) -> bool;

    /// Splits a path asked below a namespace (the header's, the connection's) into the namespace it addresses and the rest.
    fn locate<'p>(&self, below: &Namespace, path: &'p str) -> (Namespace, &'p str);

    /// The deadline span of a request that asks for `wanted`: the default without one, never above the maximum.
    fn deadline(&self, wanted: Option<Duration>) -> Duration;

    /// Whether the body of such a request goes where its answer says, and is not read before.
    fn takes_stream(&self, verb: Verb, path: &str) -> bool {
        System::takes_stream(verb, path)
    }

    /// Runs one operation. The future is answered exactly once. It has no timer for its deadline: whoever polls it polls it then, too,
    /// and once more if that was the first time.
    fn run(&self, operation: Operation) -> Answer;

    /// Takes note of what was refused with this fault before it was an operation that could be run: of it, as far as it could
    /// be read.
    fn note(&self, operation: Operation, fault: &Fault);
}

/// Who there is, and what each may ask, and how much.
pub struct Tenants {
    /// The namespaces and their mounts.
    pub namespaces: Namespaces,
    /// How much may be asked below them.
    pub quotas: Quotas,
    /// The tokens.
    pub identity: Identity,
    /// Where it is written down what they ask.
    pub audit: Audit,
}

/// What goes with an operation that is to be run, or to be refused and yet to count.
struct Considered {
    /// Its token, where its uses are counted.
    counted: Option<Counted>,
    /// Whether its policies let it.
    allowed: Result<(), Fault>,
    /// Held until the work has ended.
    permit: Permit,
    /// Where its answer is kept, if it is to be.
    place: Option<Place>,
}

impl Considered {
    /// Whether it is only run.
    fn is_free(&self) -> bool {
        self.counted.is_none() && self.place.is_none() && !self.permit.takes_a_place()
    }
}

/// An operation that was judged.
enum Begun {
    /// It is answered by this, unless its deadline passes before.
    Plain(Answer, Deadline),
    /// It is answered by this.
    Apart(Answer),
}

/// What is behind the daemon's door. In cache lines of its own: whoever counts those who hold it is nobody else's delay.
#[repr(align(128))]
pub struct Dispatch {
    system: Arc<System>,
    namespaces: Namespaces,
    quotas: Quotas,
    identity: Identity,
    audit: Audit,
    engines: Arc<Engines>,
    telemetry: Telemetry,
    deadline_max: Duration,
    /// What is recorded that was no operation.
    noted: EachSecond,
    noted_of_strangers: EachSecond,
}

impl Dispatch {
    /// A dispatch over these rooms.
    pub fn new(
        system: Arc<System>,
        tenants: Tenants,
        engines: Arc<Engines>,
        telemetry: Telemetry,
        limits: &Limits,
    ) -> Dispatch {
        let Tenants { namespaces, quotas, identity, audit } = tenants;
        Dispatch {
            system,
            namespaces,
            quotas,
            identity,
            audit,
            engines,
            telemetry,
            deadline_max: limits.deadline_max,
            noted: EachSecond::default(),
            noted_of_strangers: EachSecond::default(),
        }
    }

    /// Has every mounted engine of every namespace do what is due by the clock. What fails is logged and tried again the
    /// next time.
    pub async fn maintain(&self) {
        self.for_each_mount(|engine, call| engine.maintain(call)).await;
        if !self.identity.is_initialized() {
            // Which tokens there are is not known yet: none would be taken for gone.
            return;
        }
        let identity = self.identity.clone();
        let gone = GoneTokens::AllBut(Arc::new(move |token| identity.is_there(token)));
        self.for_each_mount(|engine, call| engine.end_leases_of(call, gone.clone())).await;
    }

    /// Ends what went with the tokens that ended since the last time. What fails, or is cut short, [`Dispatch::maintain`] does.
    pub async fn end_leases(&self) {
        let ended = self.identity.take_ended();
        if ended.is_empty() {
            return;
        }
        let gone = GoneTokens::These(ended.into());
        self.for_each_mount(|engine, call| engine.end_leases_of(call, gone.clone())).await;
    }

    async fn for_each_mount(&self, work: impl Fn(Arc<dyn Engine>, Call) -> Answer) {
        let all = self.namespaces.all();
        for mount in all.iter().flat_map(|namespace| self.namespaces.mounts(namespace)) {
            let peer = PeerCredentials { uid: rustix::process::geteuid().as_raw(), gid: 0, pid: None };
            let call = Call {
                mount: Arc::clone(&mount),
                caller: Caller::new(peer, Wire::Framed),
                deadline: Deadline::after(self.deadline_max),
                class: Class::Control,
            };
            let done = match self.engines.get(&mount) {
                Ok(engine) => work(engine, call).await.map(drop),
                // It went meanwhile.
                Err(Fault::NotFound { .. }) => Ok(()),
                Err(fault) => Err(fault),
            };
            if let Err(fault) = done {
                tracing::warn!(namespace = %mount.namespace, path = mount.path, %fault, "scheduled work failed");
            }
        }
    }

    /// Opens the files of audit devices anew: somebody may have moved them away.
    pub fn reopen_records(&self) {
        self.audit.reopen();
    }

    /// Stops what engines do behind requests: the daemon drains.
    pub fn stop(&self) {
        self.engines.stop();
    }

    /// Admits it and judges it. Whatever few operations need is in a box of its own: the future of every other is small, since it
    /// is moved.
    fn begin(self: &Arc<Self>, operation: Operation) -> Result<Begun, Fault> {
        self.admit(&operation)?;
        let considered = self.consider(&operation);
        if let Some(recorder) = self.audit.recorder()?.filter(|_| is_recorded(&operation)) {
            let this = Arc::clone(self);
            return Ok(Begun::Apart(Box::pin(async move { this.run_recorded(recorder, operation, considered).await })));
        }
        let considered = considered?;
        if !considered.is_free() {
            let this = Arc::clone(self);
            return Ok(Begun::Apart(Box::pin(async move { this.carry_out(operation, considered).await })));
        }
        considered.allowed?;
        let deadline = operation.deadline;
        self.start(operation).map(|answer| Begun::Plain(answer, deadline))
    }

    /// Whether it is to be run, and what goes with that. Does nothing yet.
    fn consider(&self, operation: &Operation) -> Result<Considered, Fault> {
        if operation.wrap_ttl.is_some() && !is_login(operation) {
            // Strangers fill nothing, not with what is public either. Those who log in fill their user's share, once they have.
            self.identity.valid(&operation.caller, &operation.namespace)?;
            self.namespaces.require(&operation.namespace)?;
        }
        if self.is_public(operation) {
            self.find_namespace(operation)?;
            let permit = if is_login(operation) { self.within_quotas(operation)? } else { Permit::default() };
            return Ok(Considered { counted: None, allowed: Ok(()), permit, place: self.place(operation)? });
        }
        let counted = self.identity.counted(&operation.caller);
        let allowed = self.authorize(operation);
        let (mut permit, mut place) = (Permit::default(), None);
        if allowed.is_ok() {
            self.find_namespace(operation)?;
            permit = self.within_quotas(operation)?;
            place = self.place(operation)?;
        }
        Ok(Considered { counted, allowed, permit, place })
    }

    /// Room for its answer behind a token, if it is to be kept there: before it is run, so that no answer is lost.
    fn place(&self, operation: &Operation) -> Result<Option<Place>, Fault> {
        let Operation { caller, namespace, wrap_ttl, .. } = operation;
        match wrap_ttl {
            None => Ok(None),
            Some(_) if is_login(operation) => self.identity.place_of_login(caller, namespace).map(Some),
            Some(_) => self.identity.place(caller, namespace).map(Some),
        }
    }

    /// Runs it, with what goes with it.
    async fn carry_out(&self, operation: Operation, considered: Considered) -> Result<Outcome, Fault> {
        if considered.place.is_some() || considered.permit.takes_a_place() {
            return self.carry_out_held(operation, considered).await;
        }
        let Considered { counted, allowed, .. } = considered;
        match counted {
            Some(counted) => self.carry_out_counted(operation, counted, allowed).await,
            None => {
                allowed?;
                self.run_out(operation).await
            }
        }
    }

    /// Holds its place until the work has ended, which may be after its deadline; and keeps the answer behind a token where
    /// that is asked for.
    async fn carry_out_held(&self, operation: Operation, considered: Considered) -> Result<Outcome, Fault> {
        let Considered { counted, allowed, permit, place } = considered;
        let (namespace, path) = (operation.namespace.clone(), operation.path().into_owned());
        let wrapped = place.zip(operation.wrap_ttl);
        let work = async {
            match counted {
                Some(counted) => self.carry_out_counted(operation, counted, allowed).await,
                None => {
                    allowed?;
                    self.run_out(operation).await
                }
            }
        };
        let outcome = if permit.takes_a_place() { holding(permit, work).await? } else { work.await? };
        match (wrapped, outcome) {
            (Some((place, ttl)), Outcome::Response(response)) => {
                let ttl = ttl.as_secs().max(1);
                self.identity.wrap(place, &namespace, path, ttl, response).await.map(Outcome::Response)
            }
            (_, outcome) => Ok(outcome),
        }
    }

    /// Takes a use of its token, and runs it if that lets it.
    async fn carry_out_counted(
        &self,
        operation: Operation,
        counted: Counted,
        allowed: Result<(), Fault>,
    ) -> Result<Outcome, Fault> {
        // A request that is refused counts as a use, too; not so one that came too early or found the place locked.
        let spending = self.identity.spend(&counted)?;
        let deadline = operation.deadline.instant();
        let taken = tokio::time::timeout_at(deadline.into(), spending.take()).await;
        let spent = taken.map_err(|_| Fault::DeadlineExceeded { stage: "queued" })??;
        let result = match allowed {
            Ok(()) => self.run_out(operation).await,
            Err(fault) => Err(fault),
        };
        let Some(spent) = spent else { return result };
        if let Err(fault) = self.identity.revoke(spent).await {
            tracing::warn!(%fault, "a token without uses could not be deleted yet: it is refused all the same");
        }
        match result {
            Ok(outcome) if has_lease(&outcome) => Err(Fault::invalid(
                "Secret cannot be returned; token had one use left, so leased credentials were immediately revoked.",
            )),
            result => result,
        }
    }

    /// Runs it to its end, or to its deadline's.
    async fn run_out(&self, operation: Operation) -> Result<Outcome, Fault> {
        let deadline = operation.deadline;
        within(deadline, self.start(operation)?).await
    }

    /// Refuses what cannot be served whoever asks.
    fn admit(&self, operation: &Operation) -> Result<(), Fault> {
        if !is_of_the_daemon(operation) && !self.identity.is_initialized() {
            return Err(Fault::NotInitialized);
        }
        // OCSP requests in a path keep every slash, and no policy judges them. Elsewhere a path has one spelling: what is run
        // is what was judged.
        if !is_plain(operation) && !self.is_public(operation) {
            return Err(Fault::invalid("the path has an empty part"));
        }
        Ok(())
    }

    /// Refuses what is asked in a namespace that does not exist or is locked. Who may not come in at all is not told which.
    fn find_namespace(&self, operation: &Operation) -> Result<(), Fault> {
        if is_of_the_daemon(operation) {
            return Ok(());
        }
        match &operation.body {
            Body::Request(request) if System::unlocks(request) => self.namespaces.require(&operation.namespace),
            _ => self.namespaces.require_open(&operation.namespace),
        }
    }

    fn authorize(&self, operation: &Operation) -> Result<(), Fault> {
        let judged = self.judge(operation);
        judged.inspect_err(|_| self.telemetry.token_refused())
    }

    /// Refuses what its quotas do not let through. Judged of those who may ask, so that nobody else takes their places.
    fn within_quotas(&self, operation: &Operation) -> Result<Permit, Fault> {
        if self.quotas.is_empty() {
            return Ok(Permit::default());
        }
        let (namespace, path) = (&operation.namespace, operation.path());
        let judged = if is_login(operation) {
            // Anyone may try: what lies on logins alone holds it, so that no stranger uses up what tokens have.
            self.quotas.admit_login(namespace, &path, operation.arrived)
        } else if self.is_unlimited(operation) {
            // What anyone may ask without a token is exempt.
            return Ok(Permit::default());
        } else {
            self.quotas.admit(namespace, &path, operation.arrived)
        };
        judged.map_err(|(kind, fault)| {
            self.telemetry.quota_refused(kind == QuotaKind::RateLimit);
            fault
        })
    }

    fn is_unlimited(&self, operation: &Operation) -> bool {
        let Body::Request(request) = &operation.body else { return false };
        if System::owns(&request.path) {
            return System::is_unlimited(request);
        }
        let Some((mount, rest)) = self.namespaces.route(&operation.namespace, &request.path) else { return false };
        self.engines.get(&mount).is_ok_and(|engine| engine.is_unlimited(request.verb, rest))
    }

    fn is_public(&self, operation: &Operation) -> bool {
        let Body::Request(request) = &operation.body else { return false };
        if System::owns(&request.path) {
            return System::is_public(request);
        }
        let Some((mount, rest)) = self.namespaces.route(&operation.namespace, &request.path) else { return false };
        self.engines.get(&mount).is_ok_and(|engine| engine.is_public(request.verb, rest))
    }

    /// Hands the operation to who answers it.
    fn start(&self, operation: Operation) -> Result<Answer, Fault> {
        let Operation { namespace, caller, deadline, class, wrap_ttl, body, .. } = operation;
        let body = match body {
            Body::Request(request) if System::owns(&request.path) => {
                let call = system::Call { namespace, caller, deadline, is_wrapped: wrap_ttl.is_some() };
                return Ok(Arc::clone(&self.system).handle(call, request));
            }
            body => body,
        };
        let call = |mount: Arc<Mount>| Call { mount, caller, deadline, class };
        match body {
            Body::Request(Request { verb, path, data, raw, if_modified_since }) => {
                let no_route =
                    || Fault::NotFound { what: format!("no handler for route \"{path}\". route entry not found.") };
                let (mount, rest) = self.namespaces.route(&namespace, &path).ok_or_else(no_route)?;
                let if_modified_since = if_modified_since.filter(|_| mount.config.passes(IF_MODIFIED_SINCE));
                let request = Request { verb, path: rest.to_owned(), data, raw, if_modified_since };
                Ok(self.engines.get(&mount)?.handle(call(mount), request))
            }
            Body::Sign(mut request) => {
                let path = std::mem::take(&mut request.mount);
                let sign = |mount: &Arc<Mount>| {
                    let sign = |engine: &Arc<dyn Engine>| {
                        let terms = Terms { class, deadline };
                        let begun = engine.sign_at_once(mount, terms, request);
                        begun.unwrap_or_else(|request| Arc::clone(engine).sign(call(Arc::clone(mount)), request))
                    };
                    self.engines.lend(mount, sign)
                };
                self.namespaces.lend_mount(&namespace, &path, sign).ok_or_else(|| no_mount(&path))?
            }
            Body::Verify(request) => {
                let mount = self.mount(&namespace, &request.signed.mount)?;
                Ok(self.engines.get(&mount)?.verify(call(mount), request))
            }
            Body::Encrypt(request) => {
                let mount = self.mount(&namespace, &request.mount)?;
                Ok(self.engines.get(&mount)?.encrypt(call(mount), request))
            }
            Body::Decrypt(request) => {
                let mount = self.mount(&namespace, &request.mount)?;
                Ok(self.engines.get(&mount)?.decrypt(call(mount), request))
            }
            Body::Mac(request) => {
                let mount = self.mount(&namespace, &request.mount)?;
                Ok(self.engines.get(&mount)?.mac(call(mount), request))
            }
            Body::SignCertificate(request) => {
                let mount = self.mount(&namespace, &request.mount)?;
                Ok(self.engines.get(&mount)?.sign_certificate(call(mount), request))
            }
            Body::SignCertificates(request) => {
                let mount = self.mount(&namespace, &request.mount)?;
                Ok(self.engines.get(&mount)?.sign_certificates(call(mount), request))
            }
        }
    }

    fn mount(&self, namespace: &Namespace, path: &str) -> Result<Arc<Mount>, Fault> {
        self.namespaces.mount(namespace, path).ok_or_else(|| no_mount(path))
    }
}

fn no_mount(path: &str) -> Fault {
    Fault::NotFound { what: format!("no engine is mounted at {:?}", path.trim_matches('/')) }
}

/// The answer, unless the deadline has passed when it is polled in vain. Nearly all are polled so once, as they begin, and are not late
/// then.
async fn unless_late(deadline: Deadline, mut answer: Answer) -> Result<Outcome, Fault> {
    let mut has_begun = false;
    poll_fn(|context| match answer.as_mut().poll(context) {
        Poll::Pending if std::mem::replace(&mut has_begun, true) && deadline.passed(Instant::now()) => {
            Poll::Ready(Err(LATE))
        }
        polled => polled,
    })
    .await
}

/// The answer, unless the deadline passes before.
async fn within(deadline: Deadline, answer: Answer) -> Result<Outcome, Fault> {
    let answered = tokio::time::timeout_at(deadline.instant().into(), answer).await;
    answered.unwrap_or(Err(LATE))
}

/// Whether it goes with the token that it was asked for with.
fn has_lease(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Response(Response::Leased { .. }) => true,
        Outcome::Certificate(issued) => !issued.lease_id.is_empty(),
        Outcome::Certificates { results, .. } => results.iter().flatten().any(|issued| !issued.lease_id.is_empty()),
        _ => false,
    }
}

/// Whether no part of its path is empty.
fn is_plain(operation: &Operation) -> bool {
    let Body::Request(Request { path, .. }) = &operation.body else { return true };
    !(path.ends_with('/') || path.contains("//"))
}

/// Whether it makes a token of who has none: that is bounded by quotas, as what tokens ask for is.
fn is_login(operation: &Operation) -> bool {
    matches!(&operation.body, Body::Request(request) if request.path == "auth/unix/login")
}

/// Whether anyone may ask it, of the system, even before there is anything to ask about.
fn is_of_the_daemon(operation: &Operation) -> bool {
    matches!(&operation.body, Body::Request(request) if System::owns(&request.path) && System::is_public(request))
}

/// Whether audit devices are told of it. They are not of what anyone may ask of the daemon itself, such as its health.
fn is_recorded(operation: &Operation) -> bool {
    !matches!(&operation.body, Body::Request(request) if System::owns(&request.path) && System::is_unrecorded(request))
}

impl Dispatch {
    /// See [`Door::identify`].
    pub fn identify(&self, token: &Secret) -> TokenId {
        self.identity.identify(token)
    }

    /// See [`Door::welcome`].
    pub fn welcome(&self, caller: &Caller, namespace: &Namespace) -> Result<(), Fault> {
        if !self.identity.is_initialized() {
            return Err(Fault::NotInitialized);
        }
        let token = self.identity.valid(caller, namespace);
        token.map(drop).inspect_err(|_| self.telemetry.token_refused())?;
        self.namespaces.require(namespace)
    }

    /// See [`Door::knows`].
    pub fn knows(&self, caller: &Caller, namespace: &Namespace) -> bool {
        self.identity.valid(caller, namespace).is_ok() && self.namespaces.require(namespace).is_ok()
    }

    /// See [`Door::locate`].
    pub fn locate<'p>(&self, below: &Namespace, path: &'p str) -> (Namespace, &'p str) {
        self.namespaces.locate(below, path)
    }

    /// See [`Door::run`].
    pub fn run(self: Arc<Self>, operation: Operation) -> Answer {
        let (arrived, wire) = (operation.arrived, operation.caller.wire);
        let label = OperationLabel::of(&operation);
        // Judged only when it is polled: whoever does not read answers is not to have it run by what was true long before.
        Box::pin(async move {
            let result = match self.begin(operation) {
                Ok(Begun::Plain(answer, deadline)) => unless_late(deadline, answer).await,
                Ok(Begun::Apart(answer)) => answer.await,
                Err(fault) => Err(fault),
            };
            let outcome = match &result {
                Ok(_) => OutcomeLabel::Ok,
                Err(fault) => OutcomeLabel::Fault(fault.label()),
            };
            if let Err(fault @ Fault::Internal { .. }) = &result {
                tracing::error!(operation = label.label(), %fault, "this is a bug: please report it");
            }
            self.telemetry.request_finished(label, outcome, wire, arrived.elapsed());
            result
        })
    }
}
