//! Connections that are there before anybody needs them: with TLS, and a service that is far away, one takes longer than a call.
//!
//! They are opened when an endpoint is first named, and kept for as long as anybody holds it, by requests that ask for nothing
//! (`HEAD /`): without credentials, of no quota, and whatever is answered to them. A service ends connections on which nothing is
//! asked for a while, and none of their ends can be seen from here: so that is asked now and then, unless calls have used as
//! many connections at once since.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use hyper::Uri;
use hyper::http::Request;
use tokio::sync::oneshot;

use super::{Runtime, Transport, Undelivered, innermost};

/// The pause after a failure, and the longest after many: it is calls that tell of an endpoint that is down.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(300);

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

/// An endpoint whose connections are kept as long as anybody holds this.
#[derive(Debug)]
pub(super) struct Warm {
    usage: Arc<Usage>,
    /// Dropped with the endpoint, it ends what runs beside.
    _alive: oneshot::Sender<()>,
}

impl Warm {
    /// Keeps connections to the endpoint, on this runtime. Waits for nothing.
    pub(super) fn start(endpoint: Uri, kept: Kept, transport: Transport, runtime: &Runtime) -> Warm {
        let (alive, gone) = oneshot::channel();
        let usage = Arc::new(Usage::default());
        let keeping = keep(endpoint, kept, transport, Arc::clone(&usage));
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
}

impl Usage {
    /// How many calls were under way at once since this was last asked.
    fn most(&self) -> usize {
        self.most.swap(self.under_way.load(Ordering::Relaxed), Ordering::Relaxed)
    }
}

/// A call that is under way.
pub(super) struct UnderWay<'a>(&'a Usage);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn keep(endpoint: Uri, kept: Kept, transport: Transport, usage: Arc<Usage>) {
    let mut failures = 0;
    loop {
        if usage.most() < kept.connections {
            match ask(&endpoint, kept, &transport).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    tracing::debug!(%endpoint, reason = innermost(&error), "connections cannot be kept; calls make theirs");
                }
            }
        }
        tokio::time::sleep(pause(failures, kept.idle)).await;
    }
}

/// When to ask again.
fn pause(failures: u32, idle: Duration) -> Duration {
    match failures.checked_sub(1) {
        None => idle,
        Some(more) => PAUSE_FIRST.saturating_mul(1 << more.min(10)).min(PAUSE_MAX),
    }
}

/// Asks for nothing, on so many connections at once: on those that are there, and on new ones.
async fn ask(endpoint: &Uri, kept: Kept, transport: &Transport) -> Result<(), Undelivered> {
    let asked = (0..kept.connections).map(|_| async {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = hyper::Method::HEAD;
        *request.uri_mut() = endpoint.clone();
        let answer = tokio::time::timeout(kept.limit, transport.send(request)).await;
        answer.unwrap_or_else(|_| Err(Undelivered::late(kept.limit)))
    });
    join_all(asked).await.into_iter().try_for_each(|answer| answer.map(drop))
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
    fn nothing_is_asked_where_calls_use_as_many_connections() {
        let usage = Usage::default();
        let warm = Warm { usage: Arc::new(usage), _alive: oneshot::channel().0 };
        let calls = [(); 3].map(|()| warm.call());
        assert_eq!((warm.usage.most(), warm.usage.most()), (3, 3), "they are under way still");
        drop(calls);
        assert_eq!((warm.usage.most(), warm.usage.most()), (3, 0));
        drop(warm.call());
        assert_eq!(warm.usage.most(), 1);
    }

    #[test]
    fn an_endpoint_that_is_down_is_asked_less_and_less() {
        let idle = Duration::from_secs(45);
        let pauses: Vec<u64> = (0..9).map(|failures| pause(failures, idle).as_secs()).collect();
        assert_eq!(pauses, [45, 5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(pause(u32::MAX, idle), PAUSE_MAX);
    }
}
