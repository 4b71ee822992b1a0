//! The framed wire: one task a connection, many calls in flight, one write for all the answers that are ready.
//!
//! Performance-critical: no task is spawned, no lock taken and no line logged per call. Frames are cut out of the read
//! buffer without a copy; answers are encoded straight into the write buffer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::Sleep;

use super::bodies::{self, Held};
use super::calls::Calls;
use super::due::Due;
use super::usher::Seat;
use super::wakeups::{Gathering, Wakeups};
use super::{Shared, path};
use crate::dispatch::{Answer, together};
use crate::model::{
    Body, Caller, Class, Data, Deadline, Fault, Namespace, Operation, Outcome, Request, RequestId, Secret, Verb, Wire,
};
use crate::socket::Socket;
use crate::wire::frame::{self, FrameError};
use crate::wire::{self, CallBody, PROTOCOL_VERSION, proto};

/// Bytes read at a time.
const READ_BYTES: usize = 16 << 10;
/// Unsent answers beyond which no further call is read: a client that does not read its answers stops being served.
const UNSENT_MAX: usize = 1 << 20;
/// How long a connection has its worker before the others have their turn: one with many calls that are answered on the
/// spot, such as verifications, would have it for good.
const TURN: Duration = Duration::from_micros(500);
/// Answers between two looks at the clock.
const LOOK: usize = 8;
/// Calls that are started before those that can go on do, and before another look at the clock: what they compute before
/// they have a key to wait for is not interrupted, and their jobs are pushed together.
const CALLS_AT_ONCE: usize = 16;
/// What one of many requests in a call takes, beside its own bytes, until all are answered: what is made of it, and its answer.
const PART_BYTES: usize = 4 << 10;
/// What stands in a record in the place of a path: of a Hello that is refused, and of a call that cannot be read.
const HELLO: &str = "sys/keyway/hello";
const CALL: &str = "sys/keyway/call";
/// Frames in a row that are no message, before the connection is closed.
const GARBAGE_MAX: u32 = 16;

/// What is sent to a connection that is turned away.
pub(super) fn farewell(fault: &Fault) -> Vec<u8> {
    let mut buffer = BytesMut::new();
    frame::put_frame(&mut buffer, &wire::reply(0, None, Err(fault.clone())));
    buffer.to_vec()
}

/// Serves one connection to its end.
pub(super) async fn serve(stream: Socket, caller: Caller, shared: &Shared, wakeups: &Arc<Wakeups>, seat: &Seat) {
    let mut connection = Connection::new(stream, caller, shared, wakeups, seat);
    let mut stopped = std::pin::pin!(shared.stopped());
    std::future::poll_fn(|context| {
        if !connection.stopping && stopped.as_mut().poll(context).is_ready() {
            connection.stopping = true;
        }
        connection.poll(context)
    })
    .await;
}

struct Connection<'s> {
    stream: Socket,
    shared: &'s Shared,
    seat: &'s Seat,
    caller: Caller,
    /// The token it showed when it greeted.
    token: Option<Arc<Secret>>,
    namespace: Namespace,
    greeted: bool,
    in_flight: Calls<InFlight>,
    /// When the first of them is late.
    due: Due,
    /// Wakes for the calls in flight.
    gathering: Gathering,
    inbox: BytesMut,
    /// When the last bytes of the inbox were read.
    arrived: Instant,
    outbox: BytesMut,
    garbage: u32,
    /// Nothing more is read: the client has closed its side, or sent what cannot be read any further.
    deaf: bool,
    /// The daemon is draining.
    stopping: bool,
    /// Runs while the client owes us something: the rest of a frame, or the reading of our answers.
    patience: Option<Pin<Box<Sleep>>>,
}

/// One call being answered.
struct InFlight {
    id: u64,
    /// What its answer is called by, where that is told.
    request: Option<RequestId>,
    answer: Answer,
    deadline: Deadline,
    /// Its deadline has passed: if it was never polled before, it is polled once more.
    is_late: bool,
    /// The room its data takes, where it is JSON.
    _held: Option<Held>,
}

impl Future for InFlight {
    type Output = (u64, Option<RequestId>, Result<Outcome, Fault>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (id, request) = (self.id, self.request);
        let mut polled = self.answer.as_mut().poll(context);
        if self.is_late && polled.is_pending() {
            polled = self.answer.as_mut().poll(context);
        }
        polled.map(|result| (id, request, result))
    }
}

/// A connection's turn on its worker.
struct Turn(Instant);

impl Turn {
    fn begin() -> Turn {
        Turn(Instant::now())
    }

    fn is_over(&self) -> bool {
        self.0.elapsed() >= TURN
    }
}

/// Whether a step of the connection did anything.
#[derive(PartialEq, Eq)]
enum Step {
    Idle,
    Progress,
    Closed,
}

impl<'s> Connection<'s> {
    fn new(
        stream: Socket,
        caller: Caller,
        shared: &'s Shared,
        wakeups: &Arc<Wakeups>,
        seat: &'s Seat,
    ) -> Connection<'s> {
        let gathering = Gathering::new(wakeups);
        Connection {
            stream,
            shared,
            seat,
            caller,
            token: None,
            namespace: Namespace::root(),
            greeted: false,
            in_flight: Calls::new(gathering.waker().clone()),
            due: Due::default(),
            gathering,
            inbox: BytesMut::new(),
            arrived: Instant::now(),
            outbox: BytesMut::new(),
            garbage: 0,
            deaf: false,
            stopping: false,
            patience: None,
        }
    }

    /// Ready when the connection has ended.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let turn = Turn::begin();
        self.hurry_late(turn.0);
        loop {
            let answered = together(|| self.collect(context, &turn));
            let wrote = self.write(context);
            let read = self.read(context);
            if wrote == Step::Closed || read == Step::Closed {
                return Poll::Ready(());
            }
            if wrote == Step::Progress || read == Step::Progress {
                self.patience = None;
            }
            if (self.deaf || self.stopping) && self.in_flight.is_empty() && self.outbox.is_empty() {
                return Poll::Ready(());
            }
            if [answered, wrote, read].iter().all(|step| *step == Step::Idle) {
                self.due.wakes(context);
                return self.wait(context);
            }
            if turn.is_over() {
                // Goes on once the runtime has looked at the others' sockets, as a plain wake-up would not.
                let _ = std::pin::pin!(tokio::task::yield_now()).poll(context);
                return Poll::Pending;
            }
        }
    }

    /// Has the calls looked at first whose deadline has passed, however busy the connection is with others.
    fn hurry_late(&mut self, now: Instant) {
        if !self.due.has_passed(now) {
            return;
        }
        let Connection { due, in_flight, .. } = self;
        in_flight.hurry(|call| {
            let (was_late, is_late) = (call.is_late, call.deadline.passed(now));
            call.is_late = is_late;
            if !is_late {
                due.watch(call.deadline);
            }
            is_late && !was_late
        });
    }

    /// Waits for what the client owes us, no longer than it may take.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let owed = !self.outbox.is_empty() || (!self.inbox.is_empty() && !self.full());
        if !owed {
            self.patience = None;
            if self.inbox.is_empty() && self.in_flight.is_empty() {
                // An idle connection keeps no buffers.
                self.inbox = BytesMut::new();
                self.outbox = BytesMut::new();
                self.in_flight.rest();
            }
            return Poll::Pending;
        }
        let limit: Duration = self.shared.limits.client_io;
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        patience.as_mut().poll(context)
    }

    fn full(&self) -> bool {
        self.in_flight.len() >= self.shared.limits.requests_per_connection || self.outbox.len() >= UNSENT_MAX
    }

    /// Takes the answers that are ready.
    fn collect(&mut self, context: &Context<'_>, turn: &Turn) -> Step {
        let mut answers: usize = 0;
        self.gathering.wakes(context);
        self.in_flight.look();
        while self.outbox.len() < UNSENT_MAX
            && !(answers % LOOK == LOOK - 1 && turn.is_over())
            && let Some((id, request, result)) = self.in_flight.next()
        {
            frame::put_frame(&mut self.outbox, &wire::reply(id, request, result));
            answers += 1;
        }
        if answers > 0 { Step::Progress } else { Step::Idle }
    }

    /// Writes what there is to send, in one call where the socket takes it all.
    fn write(&mut self, context: &mut Context<'_>) -> Step {
        let mut step = Step::Idle;
        while !self.outbox.is_empty() {
            match Pin::new(&mut self.stream).poll_write(context, &self.outbox) {
                Poll::Ready(Ok(0) | Err(_)) => return Step::Closed,
                Poll::Ready(Ok(written)) => {
                    self.outbox.advance(written);
                    step = Step::Progress;
                }
                Poll::Pending => break,
            }
        }
        step
    }

    /// Starts the calls that have come, or reads more.
    fn read(&mut self, context: &mut Context<'_>) -> Step {
        if self.deaf || self.stopping {
            return Step::Idle;
        }
        // Some may be left in the buffer: from when the connection was full, or of a read that brought many.
        if self.start_calls() == Step::Progress {
            return Step::Progress;
        }
        if self.deaf || self.full() {
            return Step::Idle;
        }
        self.inbox.reserve(READ_BYTES);
        let read = std::pin::pin!(self.stream.read_buf(&mut self.inbox));
        // After a short read nothing is left: the next poll says so without asking the kernel.
        let Poll::Ready(read) = read.poll(context) else { return Step::Idle };
        match read {
            Ok(0) if self.in_flight.is_empty() && self.outbox.is_empty() => Step::Closed,
            Ok(0) => {
                // Half-closed: what was asked is still answered.
                self.deaf = true;
                Step::Idle
            }
            Ok(_) => {
                self.arrived = Instant::now();
                self.start_calls();
                Step::Progress
            }
            Err(_) => Step::Closed,
        }
    }

    fn start_calls(&mut self) -> Step {
        let mut step = Step::Idle;
        for _ in 0..CALLS_AT_ONCE {
            if self.deaf || self.full() {
                break;
            }
            match frame::next_frame(&mut self.inbox, self.shared.limits.frame_bytes) {
                Ok(None) => break,
                Ok(Some(bytes)) => match proto::Call::decode(bytes) {
                    Ok(call) => self.start_call(call),
                    Err(error) => self.garbage(&format!("the frame is no call: {error}")),
                },
                Err(error) => {
                    let fault = match error {
                        FrameError::TooLarge { .. } => Fault::TooLarge { what: error.to_string() },
                        FrameError::Empty => Fault::invalid(error.to_string()),
                    };
                    self.refuse(0, fault);
                    self.shared.telemetry.malformed(Wire::Framed);
                    self.deaf = true;
                }
            }
            step = Step::Progress;
        }
        step
    }

    fn garbage(&mut self, what: &str) {
        self.shared.telemetry.malformed(Wire::Framed);
        self.refuse(0, Fault::invalid(what));
        self.garbage += 1;
        self.deaf = self.garbage >= GARBAGE_MAX;
    }

    fn answer(&mut self, id: u64, result: Result<Outcome, Fault>) {
        frame::put_frame(&mut self.outbox, &wire::reply(id, None, result));
    }

    /// Answers what cannot be run. It is recorded of those who have greeted: of others nothing is known.
    fn refuse(&mut self, id: u64, fault: Fault) {
        if self.greeted {
            self.note(CALL, &fault);
        }
        self.answer(id, Err(fault));
    }

    fn start_call(&mut self, call: proto::Call) {
        self.garbage = 0;
        let (id, deadline_ms, class) = (call.id, call.deadline_ms, call.class);
        let held = match self.hold(call.operation.as_ref()) {
            Ok(held) => held,
            Err(fault) => return self.refuse(id, fault),
        };
        match wire::parse_call(call.operation) {
            Ok(CallBody::Hello(hello)) => {
                let answer = self.greet(hello);
                let result = Some(match answer {
                    Ok(welcome) => proto::reply::Result::Welcome(welcome),
                    Err(fault) => proto::reply::Result::Fault(wire::fault_message(&fault)),
                });
                frame::put_frame(&mut self.outbox, &proto::Reply { id, result });
            }
            Ok(CallBody::Ping(payload)) => {
                let result = Some(proto::reply::Result::Pong(proto::Pong { payload }));
                frame::put_frame(&mut self.outbox, &proto::Reply { id, result });
            }
            Ok(CallBody::Operation(body)) => match self.operation(body, deadline_ms, class) {
                Ok(operation) => {
                    let (request, deadline) = (operation.id, operation.deadline);
                    let answer = self.shared.door.run(operation);
                    self.due.watch(deadline);
                    self.in_flight.begin(InFlight { id, request, answer, deadline, is_late: false, _held: held });
                }
                Err(fault) => self.refuse(id, fault),
            },
            Err(fault) => self.refuse(id, fault),
        }
    }

    /// The room that a call takes until it is answered, beside its frame: for what is JSON, and for many answers at once.
    fn hold(&self, operation: Option<&proto::call::Operation>) -> Result<Option<Held>, Fault> {
        use proto::call::Operation;
        let (data, answers) = match operation {
            Some(Operation::Request(request)) => (&request.data, 0),
            Some(Operation::SignCertificate(request)) => (&request.data, 0),
            Some(Operation::SignCertificates(request)) => {
                let bytes: usize = request.csrs.iter().map(|csr| csr.len() + PART_BYTES).sum();
                (&request.data, bytes)
            }
            _ => return Ok(None),
        };
        bodies::hold(data, answers, &self.namespace, self.shared).map(Some)
    }

    /// Notes who asks from now on. A Hello that fails leaves the connection without a token.
    fn greet(&mut self, hello: proto::Hello) -> Result<proto::Welcome, Fault> {
        self.seat.serve_for(None);
        let door = &self.shared.door;
        let token = (!hello.token.is_empty()).then(|| Arc::new(Secret::new(hello.token.into_bytes())));
        (self.caller.token, self.greeted) = (token.as_ref().map(|token| door.identify(token)), false);
        (self.token, self.namespace) = (token, Namespace::from_client(&hello.namespace));
        let judged = match hello.version {
            PROTOCOL_VERSION => door.welcome(&self.caller, &self.namespace),
            version => {
                Err(Fault::invalid(format!("protocol version {version} is not spoken here: use {PROTOCOL_VERSION}")))
            }
        };
        if let Err(fault) = judged {
            self.note(HELLO, &fault);
            (self.caller.token, self.token) = (None, None);
            return Err(fault);
        }
        self.seat.serve_for(Some(&self.namespace));
        self.greeted = true;
        Ok(proto::Welcome {
            version: PROTOCOL_VERSION,
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            frame_bytes: u32::try_from(self.shared.limits.frame_bytes).unwrap_or(u32::MAX),
            requests_in_flight: u32::try_from(self.shared.limits.requests_per_connection).unwrap_or(u32::MAX),
        })
    }

    /// Has it recorded that the one who greeted was refused what cannot be told any better than by `path`.
    fn note(&self, path: &str, fault: &Fault) {
        let (verb, path, arrived) = (Verb::Write, path.to_owned(), self.arrived);
        let request = Request { verb, path, data: Data::new(), raw: Bytes::new(), if_modified_since: None };
        let operation = Operation {
            namespace: self.namespace.clone(),
            caller: self.caller.clone(),
            token: self.token.clone(),
            id: None,
            arrived,
            deadline: Deadline::at(arrived + self.shared.door.deadline(None)),
            class: Class::Interactive,
            wrap_ttl: None,
            body: Body::Request(request),
        };
        self.shared.door.note(operation, fault);
    }

    fn operation(&self, mut body: Body, deadline_ms: u32, class: i32) -> Result<Operation, Fault> {
        if !self.greeted {
            return Err(Fault::invalid("say Hello first: with the protocol's version, a token and a namespace"));
        }
        let class = match proto::Class::try_from(class) {
            Ok(proto::Class::Interactive) => Class::Interactive,
            Ok(proto::Class::Bulk) => Class::Bulk,
            Err(_) => return Err(Fault::invalid(format!("class {class} is not one this version knows"))),
        };
        let namespace = self.locate(&mut body)?;
        let wanted = (deadline_ms > 0).then(|| Duration::from_millis(deadline_ms.into()));
        let (caller, token, arrived) = (self.caller.clone(), self.token.clone(), self.arrived);
        let id = matches!(body, Body::Request(_)).then(super::new_request_id);
        let deadline = Deadline::at(arrived + self.shared.door.deadline(wanted));
        Ok(Operation { namespace, caller, token, id, arrived, deadline, class, wrap_ttl: None, body })
    }

    /// The namespace an operation is addressed to, whose path is taken off the operation's own.
    fn locate(&self, body: &mut Body) -> Result<Namespace, Fault> {
        let path = match body {
            Body::Sign(sign) => &mut sign.mount,
            Body::Verify(verify) => &mut verify.signed.mount,
            Body::Encrypt(request) => &mut request.mount,
            Body::Decrypt(request) => &mut request.mount,
            Body::Mac(request) => &mut request.mount,
            Body::SignCertificate(request) => &mut request.mount,
            Body::SignCertificates(request) => &mut request.mount,
            Body::Request(request) => {
                request.path = request.path.trim_matches('/').to_owned();
                path::check(&request.path)?;
                &mut request.path
            }
        };
        let (namespace, rest) = self.shared.door.locate(&self.namespace, path);
        if rest.len() < path.len() {
            *path = rest.to_owned();
        }
        Ok(namespace)
    }
}
