//! One thread that serves connections: a single-threaded runtime.

use std::convert::Infallible;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::accounts::Account;
use super::usher::{Seat, Usher};
use super::wakeups::Wakeups;
use super::{DrainReport, Shared, framed, http, peer};
use crate::config::Protocol;
use crate::model::{Caller, Fault, PeerCredentials, Wire};
use crate::pace::{Pace, Paced};
use crate::socket::Socket;
use crate::telemetry::Telemetry;

/// Below the deadlines that requests have by default.
const BEAT: Duration = Duration::from_secs(1);

/// A connection that was accepted.
pub(super) struct Arrival {
    pub(super) stream: UnixStream,
    pub(super) peer: PeerCredentials,
    pub(super) protocol: Protocol,
    pub(super) implicit_auth: bool,
    pub(super) account: Account,
}

/// Where the acceptor leaves connections for one worker.
#[derive(Clone)]
pub(super) struct Desk {
    arrivals: mpsc::Sender<Arrival>,
    load: Arc<AtomicUsize>,
}

impl Desk {
    /// Connections this worker has now.
    pub(super) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Hands it one more. The channel holds as many as may be open at all, so it is never full.
    pub(super) fn deal(&self, arrival: Arrival) {
        self.load.fetch_add(1, Ordering::Relaxed);
        if self.arrivals.try_send(arrival).is_err() {
            self.load.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// One connection in a worker's load, until it is dropped: a panic must not leave it there.
struct Burden(Arc<AtomicUsize>);

impl Drop for Burden {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection in the gauge, likewise.
struct Shown<'s> {
    telemetry: &'s Telemetry,
    wire: Wire,
}

impl<'s> Shown<'s> {
    fn new(telemetry: &'s Telemetry, wire: Wire) -> Shown<'s> {
        telemetry.connection_opened(wire);
        Shown { telemetry, wire }
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.telemetry.connection_closed(self.wire);
    }
}

pub(super) struct Worker {
    desk: Desk,
    runtime: Handle,
    end: oneshot::Sender<Instant>,
    thread: JoinHandle<DrainReport>,
}

impl Worker {
    pub(super) fn start(number: usize, shared: Shared, pace: Pace) -> Result<Worker, Fault> {
        let cannot = |error: std::io::Error| Fault::Unavailable { what: format!("cannot start a worker: {error}") };
        let (arrivals, inbox) = mpsc::channel(shared.limits.connections.max(1));
        let (end, ended) = oneshot::channel();
        let load = Arc::new(AtomicUsize::new(0));
        let desk = Desk { arrivals, load: Arc::clone(&load) };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Answers come from other threads: they do not wait for many turns of busy connections.
            .global_queue_interval(4)
            .build()
            .map_err(cannot)?;
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new()
            .name(format!("keyway-worker-{number}"))
            .spawn(move || runtime.block_on(serve(inbox, ended, load, shared, Paced::new(pace))))
            .map_err(cannot)?;
        Ok(Worker { desk, runtime: handle, end, thread })
    }

    pub(super) fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// The runtime of its thread.
    pub(super) fn runtime(&self) -> Handle {
        self.runtime.clone()
    }

    /// Waits until its connections have ended, `end` at the latest.
    pub(super) fn join(self, end: Instant) -> DrainReport {
        let _ = self.end.send(end);
        drop(self.desk);
        self.thread.join().unwrap_or_default()
    }
}

async fn serve(
    mut inbox: mpsc::Receiver<Arrival>,
    mut ended: oneshot::Receiver<Instant>,
    load: Arc<AtomicUsize>,
    shared: Shared,
    paced: Paced,
) -> DrainReport {
    let (usher, wakeups) = (Usher::new(), Wakeups::new());
    // All end with the runtime.
    tokio::spawn(Arc::clone(&usher).serve());
    tokio::spawn(Arc::clone(&wakeups).deliver());
    tokio::spawn(beat(paced));
    let mut connections = FuturesUnordered::new();
    let end = loop {
        tokio::select! {
            Some(arrival) = inbox.recv() => {
                let (shared, wakeups) = (shared.clone(), Arc::clone(&wakeups));
                let burden = Burden(Arc::clone(&load));
                let seat = Seat::of(arrival.peer.uid);
                connections.push(usher.admit(seat.clone(), async move {
                    let _burden = burden;
                    attend(arrival, &shared, &wakeups, &seat).await;
                }));
            }
            Some(()) = connections.next() => {}
            // Without an end the front was dropped: no time is left.
            end = &mut ended => break end.unwrap_or_else(|_| Instant::now()),
        }
    };
    let mut report = DrainReport::default();
    let finish = async {
        while connections.next().await.is_some() {
            report.finished += 1;
        }
    };
    let _ = tokio::time::timeout_at(end.into(), finish).await;
    report.cut = connections.len();
    drop(connections);
    usher.clear();
    report
}

/// Keeps a timer that ends sooner than those of most requests. One that ends before all others wakes the runtime's driver
/// with a system call, and without this each request's would that comes while few are in flight. And has the thread keep to its pace.
async fn beat(mut paced: Paced) -> Infallible {
    loop {
        paced.keep();
        tokio::time::sleep(BEAT).await;
    }
}

async fn attend(arrival: Arrival, shared: &Shared, wakeups: &Arc<Wakeups>, seat: &Seat) {
    // Kept to the end: the account is what bounds the connections.
    let _account = arrival.account;
    let wire = match arrival.protocol {
        Protocol::Http => Wire::Http,
        Protocol::Framed => Wire::Framed,
    };
    let (origin, implicit) = (Arc::new(peer::origin(&arrival.stream)), arrival.implicit_auth);
    let Ok(stream) = Socket::new(arrival.stream) else { return };
    let caller = Caller { origin, implicit, ..Caller::new(arrival.peer, wire) };
    let _shown = Shown::new(&shared.telemetry, wire);
    match wire {
        Wire::Http => http::serve(stream, caller, shared, seat).await,
        Wire::Framed => framed::serve(stream, caller, shared, wakeups, seat).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_panics_is_counted_no_longer() {
        let (load, telemetry) = (Arc::new(AtomicUsize::new(2)), Telemetry::new());
        let open = |count: u32| telemetry.render().contains(&format!("keyway_connections{{wire=\"http\"}} {count}\n"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let burden = Burden(Arc::clone(&load));
        let ended = runtime.block_on(runtime.spawn({
            let telemetry = telemetry.clone();
            async move {
                let _burden = burden;
                let _shown = Shown::new(&telemetry, Wire::Http);
                assert!(telemetry.render().is_empty(), "on purpose");
            }
        }));
        assert!(ended.is_err_and(|error| error.is_panic()));
        assert_eq!(load.load(Ordering::Relaxed), 1);
        assert!(open(0), "{}", telemetry.render());
        drop(Shown::new(&telemetry, Wire::Framed));
        let _shown = Shown::new(&telemetry, Wire::Http);
        assert!(open(1), "{}", telemetry.render());
    }
}
