//! Sockets that a service manager listens on and passes to the daemon at its start (systemd's socket activation,
//! sd_listen_fds(3)): they stay while the daemon restarts, and whoever connects meanwhile waits instead of being refused.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;

use crate::model::Fault;

/// The sockets passed, by their paths.
#[derive(Debug, Default)]
pub struct Passed(Vec<(PathBuf, UnixListener)>);

impl Passed {
    /// The sockets passed to this process, if any were: afterwards they are in nobody else's hands, and no process started
    /// from now on gets them. To be called once, before there are other threads, since it changes the environment.
    ///
    /// # Errors
    /// One of them is no Unix stream socket that listens, or has no path.
    pub fn take() -> Result<Passed, Fault> {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            let refuse = |why: String| Fault::Unavailable {
                what: format!("socket {} of those passed to the daemon: {why}; correct the socket unit", index + 1),
            };
            let socket = passed.take_unix_listener(index).map_err(|error| refuse(error.to_string()))?;
            let Some(socket) = socket else { continue };
            if !rustix::net::sockopt::socket_acceptconn(&socket).unwrap_or(false) {
                return Err(refuse("it does not listen (ListenStream= is what Keyway needs)".into()));
            }
            let address = socket.local_addr().map_err(|error| refuse(error.to_string()))?;
            let path = address.as_pathname().ok_or_else(|| refuse("it has no path".into()))?;
            sockets.push((path.to_owned(), socket));
        }
        Ok(Passed(sockets))
    }

    /// The socket that has this path, by whatever name.
    pub(super) fn at(&mut self, path: &Path) -> Option<UnixListener> {
        let found = self.0.iter().position(|(known, _)| known == path || is_same_file(known, path))?;
        Some(self.0.swap_remove(found).1)
    }

    /// Refuses sockets that no listener has asked for: whoever connects to one would wait for ever.
    pub(super) fn check_all_taken(&self) -> Result<(), Fault> {
        let Some((path, _)) = self.0.first() else { return Ok(()) };
        Err(Fault::Unavailable {
            what: format!(
                "the socket {} was passed to the daemon, and no listener has it as its address: add that listener to the \
                 configuration, or take the socket out of the socket unit",
                path.display()
            ),
        })
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}
