//! Turns bytes on Unix sockets into operations and outcomes into bytes.
//!
//! One acceptor thread deals connections to the least loaded of N worker threads; a worker is a single-threaded runtime,
//! so a request lives and dies on one thread. Namespaces have equal shares of a worker's time (`order.rs`, `usher.rs`). This room knows two wires and one [`Door`]; it must not know what any
//! operation means.

mod acceptor;
mod accounts;
mod bodies;
mod calls;
mod due;
mod framed;
mod http;
mod listener;
mod order;
mod passed;
mod path;
mod peer;
mod strangers;
mod streams;
mod unit;
mod usher;
mod wakeups;
mod weight;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::config::{Limits, Listener};
use crate::dispatch::Door;
use crate::model::{Fault, RequestId};
use crate::pace::Pace;
use crate::telemetry::Telemetry;

use acceptor::Acceptor;
use accounts::Accounts;
use bodies::Bodies;
use listener::BoundListener;
pub use passed::Passed;
pub use strangers::{Body, read_body, read_path, read_query};
use worker::Worker;

/// What a request and its answer are called by.
fn new_request_id() -> RequestId {
    RequestId(uuid::Uuid::new_v4().into_bytes())
}

/// What every connection works with.
#[derive(Clone)]
struct Shared {
    door: Arc<dyn Door>,
    limits: Arc<Limits>,
    bodies: Bodies,
    telemetry: Telemetry,
    stop: watch::Receiver<bool>,
}

impl Shared {
    /// Waits until the daemon drains.
    async fn stopped(&self) {
        // An error means that the front is gone: the same.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }
}

/// The running front.
pub struct Front {
    addresses: Vec<PathBuf>,
    stop: watch::Sender<bool>,
    acceptor: Acceptor,
    workers: Vec<Worker>,
}

/// Tells whether the workers of a front live.
pub struct Pulse(Vec<Handle>);

impl Pulse {
    /// Of these runtimes.
    pub(crate) fn of(workers: Vec<Handle>) -> Pulse {
        Pulse(workers)
    }

    /// Waits until every worker has taken a turn since; false if one of them has ended.
    pub async fn beats(&self) -> bool {
        let turns = self.0.iter().map(|worker| worker.spawn(std::future::ready(())));
        futures_util::future::join_all(turns).await.iter().all(Result::is_ok)
    }
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections that finished what they had begun.
    pub finished: usize,
    /// Connections cut in the middle of it.
    pub cut: usize,
}

impl Front {
    /// Binds every listener whose socket was not `passed`, then starts serving. Nothing is served if one of them cannot be bound, or
    /// one was passed in vain.
    pub fn start(
        listeners: &[Listener],
        mut passed: Passed,
        limits: &Limits,
        door: Arc<dyn Door>,
        telemetry: Telemetry,
        pace: Pace,
    ) -> Result<Front, Fault> {
        let open = |listener| BoundListener::open(listener, &mut passed);
        let bound = listeners.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        passed.check_all_taken()?;
        let addresses = listeners.iter().map(|listener| listener.address.clone()).collect();
        let (stop, stopped) = watch::channel(false);
        let limits = Arc::new(fitting(limits));
        let accounts = Accounts::new(limits.connections, limits.connections_per_uid);
        let bodies = Bodies::new(limits.http_bodies_bytes);
        let shared = Shared { door, limits: Arc::clone(&limits), bodies, telemetry, stop: stopped };
        let workers = (0..limits.workers.max(1))
            .map(|number| Worker::start(number, shared.clone(), pace.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        let desks = workers.iter().map(Worker::desk).collect();
        let acceptor = Acceptor::start(bound, desks, accounts, shared)?;
        Ok(Front { addresses, stop, acceptor, workers })
    }

    /// The sockets' paths, in the order of the listeners.
    pub fn addresses(&self) -> &[PathBuf] {
        &self.addresses
    }

    /// What tells whether its workers live.
    pub fn pulse(&self) -> Pulse {
        Pulse::of(self.workers.iter().map(Worker::runtime).collect())
    }

    /// Accepts nothing more, lets what has begun finish within `limit`, closes the rest, and says how it ended. Blocks.
    pub fn drain(self, limit: Duration) -> DrainReport {
        let end = std::time::Instant::now() + limit;
        // Nobody listening means that everybody has ended already.
        let _ = self.stop.send(true);
        self.acceptor.join();
        self.workers.into_iter().map(|worker| worker.join(end)).fold(DrainReport::default(), |sum, report| {
            DrainReport { finished: sum.finished + report.finished, cut: sum.cut + report.cut }
        })
    }
}

/// The limits, with no more connections than the process may have files open. The limit is not raised by us: libraries that
/// use `select` break where descriptors go beyond 1,023.
fn fitting(limits: &Limits) -> Limits {
    let mut fitting = limits.clone();
    let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if accounts::fit_to(open_files, &mut fitting) {
        tracing::warn!(
            open_files,
            connections = fitting.connections,
            connections_per_uid = fitting.connections_per_uid,
            configured = limits.connections,
            "fewer connections are taken than configured: raise the limit of open files \
             (LimitNOFILE= of a systemd unit)"
        );
    }
    fitting
}
