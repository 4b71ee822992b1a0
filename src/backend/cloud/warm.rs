//! Connections that are there before anybody needs them: with TLS, and a service that is far away, one takes longer than a call.
//!
//! They are opened when an endpoint is first named, and kept for as long as anybody holds it, by requests that ask for nothing
//! (`HEAD /`): without credentials, of no quota, and whatever is answered to them, if it leaves the connection open. A service ends
//! connections on which nothing is asked for a while, and none of their ends can be seen from here: so that is asked now and then,
//! unless calls have used as many connections at once since. An endpoint may be a stranger's, and its name one that nobody answers
//! for: of those that have not answered, few are asked at once, with one request each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use hyper::header::CONNECTION;
use hyper::http::{Request, Response};
use hyper::{Uri, Version};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::{Runtime, Transport, Undelivered, innermost};

/// The pause after a failure, and the longest after many: it is calls that tell of an endpoint that is down.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// Requests at once, of all endpoints of a service, to those that have answered the last one: as many as one of them may be asked
/// for its connections.
const AT_ONCE: u16 = 64;
/// Requests at once to those that have not: while their names are looked for, each holds a thread that calls need for the same.
const UNPROVEN_AT_ONCE: usize = 4;

/// Which connections are kept, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    /// So many.
    pub(super) connections: usize,
    /// How long nothing need be asked on them.
    pub(super) idle: Duration,
    /// How long an answer may take, with its connection.
    pub(super) limit: Duration,
}

/// Whose turn it is to ask: one for all endpoints of a service.
#[derive(Debug)]
pub(super) struct Turns {
    proven: Semaphore,
    unproven: Semaphore,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns { proven: Semaphore::new(AT_ONCE.into()), unproven: Semaphore::new(UNPROVEN_AT_ONCE) }
    }
}

/// An endpoint whose connections are kept as long as anybody holds this.
#[derive(Debug)]
pub(super) struct Warm {
    usage: Arc<Usage>,
    /// Dropped with the endpoint, it ends what runs beside.
    _alive: oneshot::Sender<()>,
}

impl Warm {
    /// Keeps connections to the endpoint, on this runtime, and asks when it is its turn. Waits for nothing.
    pub(super) fn start(endpoint: Uri, kept: Kept, transport: Transport, turns: Arc<Turns>, runtime: &Runtime) -> Warm {
        let (alive, gone) = oneshot::channel();
        let usage = Arc::new(Usage::default());
        let keeper = Keeper { endpoint, kept, transport, turns };
        let keeping = keeper.keep(Arc::clone(&usage));
        runtime.spawn(async move {
            tokio::select! {
                _ = gone => {}
                () = keeping => {}
            }
        });
        Warm { usage, _alive: alive }
    }

    /// A call that is under way until this is dropped.
    pub(super) fn call(&self) -> UnderWay<'_> {
        let calls = self.usage.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.usage.most.fetch_max(calls, Ordering::Relaxed);
        UnderWay(&self.usage)
    }
}

/// How the connections to an endpoint are used.
#[derive(Debug, Default)]
struct Usage {
    /// Calls under way.
    under_way: AtomicUsize,
    /// So many were at once since somebody last looked.
    most: AtomicUsize,
    /// Whether one was answered since then.
    answered: AtomicBool,
}

/// Calls since somebody last looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Calls {
    /// So many were under way at once.
    most: usize,
    /// One was answered.
    answered: bool,
}

impl Usage {
    fn look(&self) -> Calls {
        Calls {
            most: self.most.swap(self.under_way.load(Ordering::Relaxed), Ordering::Relaxed),
            answered: self.answered.swap(false, Ordering::Relaxed),
        }
    }
}

/// A call that is under way.
pub(super) struct UnderWay<'a>(&'a Usage);

impl UnderWay<'_> {
    /// It was answered, whatever was.
    pub(super) fn is_answered(&self) {
        self.0.answered.store(true, Ordering::Relaxed);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why connections are not kept.
#[derive(Debug)]
enum Unkept {
    /// There was no answer.
    Undelivered(Undelivered),
    /// With its answer the endpoint, or what stands before it, ended the connection.
    Ended,
}

impl Unkept {
    fn why(&self) -> String {
        match self {
            Unkept::Undelivered(error) => innermost(error),
            Unkept::Ended => "with its answer the endpoint ends the connection".to_owned(),
        }
    }
}

/// What is known of an endpoint from look to look.
#[derive(Debug, Default)]
struct Standing {
    /// How long nothing is to be asked.
    rest: Duration,
    /// Whether it answered what was last asked.
    is_proven: bool,
    /// So many times in a row it did not, or ended the connection with its answer.
    failures: u32,
    /// Whether it did the latter. That calls are answered is no news then, and asking costs connections that they could use.
    ends: bool,
}

impl Standing {
    /// Whether something is to be asked, so long after the last look, and with these calls since then.
    fn is_due(&mut self, passed: Duration, calls: Calls, kept: Kept) -> bool {
        self.rest = self.rest.saturating_sub(passed);
        if self.failures > 0 && !self.ends && calls.answered {
            *self = Standing::default();
        }
        if (self.failures == 0 || self.ends) && calls.most >= kept.connections {
            // They may have ended just after the last look.
            self.rest = self.rest.max(kept.idle.saturating_sub(passed));
        }
        self.rest.is_zero()
    }

    fn asked(&mut self, outcome: &Result<(), Unkept>, kept: Kept) {
        *self = match outcome {
            Ok(()) => Standing { rest: kept.idle, is_proven: true, ..Standing::default() },
            Err(why) => {
                let failures = self.failures.saturating_add(1);
                Standing { rest: pause(failures), is_proven: false, failures, ends: matches!(why, Unkept::Ended) }
            }
        };
    }
}

/// How long to wait after so many failures.
fn pause(failures: u32) -> Duration {
    PAUSE_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(PAUSE_MAX)
}

/// Who keeps the connections to an endpoint.
struct Keeper {
    endpoint: Uri,
    kept: Kept,
    transport: Transport,
    turns: Arc<Turns>,
}

impl Keeper {
    async fn keep(self, usage: Arc<Usage>) {
        let (mut standing, mut looked) = (Standing::default(), Instant::now());
        loop {
            let passed = looked.elapsed();
            looked += passed;
            if standing.is_due(passed, usage.look(), self.kept) {
                let outcome = self.ask(standing.is_proven).await;
                if let Err(why) = &outcome {
                    let (endpoint, reason) = (&self.endpoint, why.why());
                    tracing::debug!(%endpoint, reason, "connections cannot be kept; calls make theirs");
                }
                standing.asked(&outcome, self.kept);
            }
            // Twice as often as something is asked: calls since the last look may have been just after it.
            tokio::time::sleep(standing.rest.min(self.kept.idle / 2)).await;
        }
    }

    /// Asks for nothing, on so many connections at once: on those that are there, and on new ones. An endpoint that has not answered
    /// before is asked once, and then twice as much each time that it answers.
    async fn ask(&self, is_proven: bool) -> Result<(), Unkept> {
        let mut at_once = self.kept.connections;
        if !is_proven {
            let _turn = self.turns.unproven.acquire().await;
            self.head().await?;
            at_once = at_once.min(2);
        }
        loop {
            let requests = u32::try_from(at_once).unwrap_or(u32::MAX).min(AT_ONCE.into());
            let turn = self.turns.proven.acquire_many(requests).await;
            join_all((0..at_once).map(|_| self.head())).await.into_iter().collect::<Result<(), Unkept>>()?;
            drop(turn);
            if at_once >= self.kept.connections {
                return Ok(());
            }
            at_once = self.kept.connections.min(at_once * 2);
        }
    }

    async fn head(&self) -> Result<(), Unkept> {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = hyper::Method::HEAD;
        *request.uri_mut() = self.endpoint.clone();
        let limit = self.kept.limit;
        let answer = tokio::time::timeout(limit, self.transport.send(request)).await;
        match answer.unwrap_or_else(|_| Err(Undelivered::late(limit))) {
            Ok(answer) if ends_connection(&answer) => Err(Unkept::Ended),
            Ok(_) => Ok(()),
            Err(error) => Err(Unkept::Undelivered(error)),
        }
    }
}

/// Whether no other request can follow on the connection of this answer (RFC 9112, 9.3).
fn ends_connection(answer: &Response<Bytes>) -> bool {
    let says = |what: &str| {
        let values = answer.headers().get_all(CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(what))
    };
    says("close") || answer.version() < Version::HTTP_11 && !says("keep-alive")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use crossbeam_channel::{Receiver, unbounded};

    use super::*;
    use crate::backend::cloud::Service;
    use crate::config::KmsService;
    use crate::model::CloudService;
    use crate::telemetry::Telemetry;

    /// How long what must come is waited for.
    const LIMIT: Duration = Duration::from_secs(30);

    /// A server that never ends a connection, and tells of each one and of the first line of each request on it.
    fn server() -> (String, Receiver<(TcpStream, Receiver<String>)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/a/path?and=more", listener.local_addr().unwrap());
        let (tell, connections) = unbounded();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let (asked, lines) = unbounded();
                if tell.send((stream.try_clone().unwrap(), lines)).is_err() {
                    return;
                }
                std::thread::spawn(move || {
                    let mut read = [0; 4096];
                    while let Ok(bytes) = stream.read(&mut read)
                        && bytes > 0
                    {
                        let text = String::from_utf8_lossy(&read[..bytes]).into_owned();
                        let _ = asked.send(text.lines().next().unwrap_or_default().to_owned());
                        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n");
                    }
                });
            }
        });
        (url, connections)
    }

    fn service(idle: Duration) -> Arc<Service> {
        let settings =
            KmsService { warm_connections: 3, warm_interval: idle, ..KmsService::new(CloudService::AzureKeyVault) };
        Service::start(&settings, &Telemetry::new()).unwrap()
    }

    #[test]
    fn so_many_connections_are_opened_and_again_when_they_have_ended_until_nobody_needs_them() {
        let (url, connections) = server();
        let service = service(Duration::from_millis(50));
        let [held, other] = [(); 2].map(|()| service.transport_to(&url).unwrap());
        let opened = || [(); 3].map(|()| connections.recv_timeout(LIMIT).unwrap());
        let first = opened();
        for (stream, lines) in &first {
            // Asked on once more without a new one.
            for _ in 0..2 {
                assert_eq!(lines.recv_timeout(LIMIT).unwrap(), "HEAD / HTTP/1.1");
            }
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        }
        let again = opened();
        drop(held);
        assert_eq!(again[0].1.recv_timeout(LIMIT).unwrap(), "HEAD / HTTP/1.1");
        drop(other);
        // Nobody needs them any more: nothing is asked on them, however often that was looked for, nor are new ones opened.
        let begun = Instant::now();
        while again.iter().any(|(_, lines)| lines.recv_timeout(Duration::from_secs(1)).is_ok()) {
            assert!(begun.elapsed() < LIMIT);
        }
        assert!(connections.try_recv().is_err());
    }

    #[test]
    fn calls_are_counted_from_look_to_look() {
        let warm = Warm { usage: Arc::default(), _alive: oneshot::channel().0 };
        let most = || warm.usage.look().most;
        let calls = [(); 3].map(|()| warm.call());
        assert_eq!((most(), most()), (3, 3), "they are under way still");
        drop(calls);
        assert_eq!((most(), most()), (3, 0));
        let call = warm.call();
        assert_eq!(warm.usage.look(), Calls { most: 1, answered: false });
        call.is_answered();
        assert_eq!(warm.usage.look(), Calls { most: 1, answered: true });
        assert_eq!(warm.usage.look(), Calls { most: 1, answered: false });
    }

    const KEPT: Kept = Kept { connections: 2, idle: Duration::from_secs(40), limit: LIMIT };
    const NONE: Calls = Calls { most: 0, answered: false };
    const FEW: Calls = Calls { most: 1, answered: true };
    const MANY: Calls = Calls { most: 2, answered: true };

    /// One that has just been asked, with this outcome.
    fn asked(outcome: Result<(), Unkept>) -> Standing {
        let mut standing = Standing::default();
        standing.asked(&outcome, KEPT);
        standing
    }

    /// Whether something is asked at each of the looks, half of `idle` after one another.
    fn due<const LOOKS: usize>(standing: &mut Standing, calls: [Calls; LOOKS]) -> [bool; LOOKS] {
        calls.map(|calls| standing.is_due(KEPT.idle / 2, calls, KEPT))
    }

    #[test]
    fn connections_are_never_left_alone_for_longer_than_they_may_be_idle() {
        assert!(Standing::default().is_due(Duration::ZERO, NONE, KEPT), "first of all");
        assert_eq!(due(&mut asked(Ok(())), [NONE, NONE]), [false, true]);
        assert_eq!(due(&mut asked(Ok(())), [FEW, FEW]), [false, true]);
        // Calls keep them. They may have ended just after what was asked, a whole `idle` before the second look.
        assert_eq!(due(&mut asked(Ok(())), [MANY, NONE]), [false, true]);
        assert_eq!(due(&mut asked(Ok(())), [MANY, MANY, MANY, NONE]), [false, false, false, true]);
        // Whoever looks late does not know when they ended.
        assert!(asked(Ok(())).is_due(KEPT.idle, MANY, KEPT));
    }

    /// What failed with the endpoint out of reach.
    fn unreached() -> Unkept {
        Unkept::Undelivered(Undelivered::late(LIMIT))
    }

    #[test]
    fn an_endpoint_that_is_down_is_asked_less_and_less() {
        let pauses: Vec<u64> = (1..9).map(|failures| pause(failures).as_secs()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
        let mut standing = asked(Ok(()));
        let rests = [(); 8].map(|()| {
            standing.asked(&Err(unreached()), KEPT);
            standing.rest.as_secs()
        });
        assert_eq!(rests.as_slice(), pauses);
        assert!(!standing.is_due(KEPT.idle, NONE, KEPT));
        standing.asked(&Ok(()), KEPT);
        assert_eq!((standing.rest, standing.failures), (KEPT.idle, 0));
    }

    #[test]
    fn an_endpoint_that_answers_calls_again_is_asked_as_if_it_had_never_failed() {
        let down = || {
            let mut standing = Standing { failures: 6, ..Standing::default() };
            standing.asked(&Err(unreached()), KEPT);
            assert_eq!(standing.rest, PAUSE_MAX);
            standing
        };
        let unanswered = Calls { most: 2, answered: false };
        assert_eq!(due(&mut down(), [NONE, unanswered]), [false, false]);
        assert_eq!(due(&mut down(), [NONE, FEW]), [false, true]);
        assert_eq!(due(&mut down(), [NONE, MANY, NONE]), [false, false, true]);
        // It is no news that calls are answered where the answer ends the connection.
        let ended = || Standing { ends: true, ..down() };
        assert_eq!(due(&mut ended(), [FEW, MANY, NONE]), [false; 3]);
        assert!(ended().is_due(PAUSE_MAX, NONE, KEPT));
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn keeper(connections: usize, listener: &TcpListener) -> Keeper {
        let settings = KmsService::new(CloudService::AzureKeyVault);
        let endpoint = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let transport = Transport::new(&settings, Telemetry::new().connections_of("azurekeyvault")).unwrap();
        Keeper { endpoint, kept: Kept { connections, ..KEPT }, transport, turns: Arc::default() }
    }

    /// What becomes of three connections to a server that answers every first request so, and how many it saw.
    fn answered(head: &'static [u8]) -> (Result<(), Unkept>, usize) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let keeper = keeper(3, &listener);
        let (tell, connections) = unbounded();
        let server = listener.try_clone().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = server.accept() {
                let _ = stream.read(&mut [0; 4096]).and_then(|_| stream.write_all(head));
                if tell.send(stream).is_err() {
                    return;
                }
            }
        });
        let outcome = run(keeper.ask(false));
        (outcome, connections.try_iter().count())
    }

    #[test]
    fn an_endpoint_that_fails_or_ends_connections_is_asked_once_and_not_for_each() {
        for ends in [
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nConnection: Close\r\n\r\n".as_slice(),
            b"HTTP/1.1 404 Not Found\r\nConnection: upgrade, close\r\n\r\n",
            b"HTTP/1.0 404 Not Found\r\nContent-Length: 9\r\n\r\n",
        ] {
            let (outcome, connections) = answered(ends);
            assert!(matches!(outcome, Err(Unkept::Ended)), "{outcome:?}");
            assert!(connections <= 1, "{connections}");
        }
        let (outcome, connections) = answered(b"no HTTP\r\n\r\n");
        assert!(matches!(outcome, Err(Unkept::Undelivered(_))), "{outcome:?}");
        assert!(connections <= 1, "{connections}");
    }

    #[test]
    fn few_endpoints_that_have_not_answered_are_asked_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let keeper = keeper(3, &listener);
        let server = std::thread::spawn(move || {
            let accept = || {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]).unwrap();
                stream
            };
            let first = [(); UNPROVEN_AT_ONCE].map(|()| accept());
            listener.set_nonblocking(true).unwrap();
            let more = listener.accept().map(drop);
            listener.set_nonblocking(false).unwrap();
            drop(first);
            drop([(); 2].map(|()| accept()));
            more.map_err(|error| error.kind())
        });
        let outcomes = run(join_all((0..UNPROVEN_AT_ONCE + 2).map(|_| keeper.ask(false))));
        assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
        assert_eq!(server.join().unwrap(), Err(std::io::ErrorKind::WouldBlock));
    }
}
