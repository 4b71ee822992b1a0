//! The one thread that accepts connections and deals them to the least loaded worker.

use std::convert::Infallible;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::UnixListener;

use super::Shared;
use super::accounts::Accounts;
use super::listener::BoundListener;
use super::worker::{Arrival, Desk};
use super::{framed, http};
use crate::config::Protocol;
use crate::model::{Fault, PeerCredentials};
use crate::telemetry::Refusal;

/// Pause after the kernel refused to accept (no descriptors left): the condition does not go away by asking faster.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often it is looked whether the sockets can still be found.
const LOOK: Duration = Duration::from_secs(2);

pub(super) struct Acceptor {
    thread: JoinHandle<()>,
}

impl Acceptor {
    pub(super) fn start(
        listeners: Vec<BoundListener>,
        desks: Vec<Desk>,
        accounts: Accounts,
        shared: Shared,
    ) -> Result<Acceptor, Fault> {
        let cannot = |error: std::io::Error| Fault::Unavailable { what: format!("cannot start the acceptor: {error}") };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
        let mut sockets = Vec::new();
        {
            let _context = runtime.enter();
            for bound in listeners {
                let socket = bound.socket.try_clone().and_then(UnixListener::from_std).map_err(cannot)?;
                sockets.push((socket, bound));
            }
        }
        let thread = std::thread::Builder::new()
            .name("keyway-accept".into())
            .spawn(move || {
                let serve = sockets.iter().map(|(socket, bound)| accept(socket, bound, &desks, &accounts, &shared));
                let serve = futures_util::future::join_all(serve);
                runtime.block_on(async {
                    let mut stop = shared.stop.clone();
                    tokio::select! {
                        _ = serve => {}
                        _ = look_after(&sockets) => {}
                        // An error means that the front is gone: the same.
                        _ = stop.wait_for(|stop| *stop) => {}
                    }
                });
            })
            .map_err(cannot)?;
        Ok(Acceptor { thread })
    }

    pub(super) fn join(self) {
        // A panic there has been reported by its thread.
        let _ = self.thread.join();
    }
}

async fn accept(socket: &UnixListener, bound: &BoundListener, desks: &[Desk], accounts: &Accounts, shared: &Shared) {
    loop {
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                shared.telemetry.connection_refused(Refusal::Descriptors);
                tracing::warn!(%error, "cannot accept a connection; raise the limit of open files");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // A peer that is gone already has no credentials.
        let Ok(credentials) = stream.peer_cred() else { continue };
        let peer = PeerCredentials { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() };
        let account = if bound.allows(peer) { accounts.open(peer.uid) } else { Err(Refusal::Peer) };
        match account {
            Ok(account) => {
                let Ok(stream) = stream.into_std() else { continue };
                let BoundListener { protocol, implicit_auth, .. } = *bound;
                let arrival = Arrival { stream, peer, protocol, implicit_auth, account };
                if let Some(desk) = desks.iter().min_by_key(|desk| desk.load()) {
                    desk.deal(arrival);
                }
            }
            Err(reason) => {
                shared.telemetry.connection_refused(reason);
                let fault = refusal(reason, shared);
                let farewell = match bound.protocol {
                    Protocol::Http => http::farewell(&fault),
                    Protocol::Framed => framed::farewell(&fault),
                };
                // It fits the socket's buffer, which is empty; a peer that is gone does not need it.
                let _ = stream.try_write(&farewell);
            }
        }
    }
}

/// Tells, once for each, of sockets that nobody finds any more: whoever removed the file, no client says so to us.
async fn look_after(sockets: &[(UnixListener, BoundListener)]) -> Infallible {
    let mut told = vec![false; sockets.len()];
    loop {
        tokio::time::sleep(LOOK).await;
        for ((_, bound), told) in sockets.iter().zip(&mut told) {
            if !bound.is_found() && !std::mem::replace(told, true) {
                tracing::error!(
                    address = %bound.path.display(),
                    "THE SOCKET'S FILE IS GONE: it was removed, or another put in its place, and nobody can connect here any \
                     more; connections that are open go on. Find what did it (a clean-up of the folder, a second daemon), then \
                     restart Keyway"
                );
            }
        }
    }
}

fn refusal(reason: Refusal, shared: &Shared) -> Fault {
    match reason {
        Refusal::Peer => Fault::PermissionDenied,
        Refusal::PerUid => Fault::Unavailable {
            what: format!("this uid has {} connections open already; close some", shared.limits.connections_per_uid),
        },
        Refusal::Connections | Refusal::Descriptors => Fault::Unavailable {
            what: format!("{} connections are open already; try again later", shared.limits.connections),
        },
    }
}
