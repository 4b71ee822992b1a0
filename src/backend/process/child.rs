//! A worker process: started, watched to its end, ended.
//!
//! It ends when its control pair closes; so it outlives the daemon under no signal. (The kernel's parent-death signal
//! would follow the thread that started it, not the daemon.) Whoever does not end in time is killed. Every worker has a
//! thread of the daemon that waits for it, so that none is left a zombie and each end is known.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::Shutdown;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::{SUBCOMMAND, pair};
use crate::backend::{BackendError, Fate, WORKER_DIED};
use crate::config::{KmsLibrary, secret_variables};
use crate::model::{Fault, TokenSelector};

/// How long a worker may take to close its sessions and end, once its control pair is closed. Longer than it gives itself.
const GRACE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// How long a worker that has closed a pair may take to end by itself; and then, killed, to be seen to have ended.
const END_BY_ITSELF: Duration = Duration::from_secs(1);
const END_SEEN: Duration = Duration::from_secs(5);

/// A worker process, as its device and its sessions share it.
pub(super) struct Process {
    /// `worker process of kms_library "hsm", token ca`.
    name: String,
    handle: OwnedFd,
    /// The daemon's end of the control pair.
    pub(super) control: OwnedFd,
    /// Whether it was asked to end.
    closed: AtomicBool,
    end: Mutex<Option<ExitStatus>>,
    ended: Condvar,
}

impl Process {
    /// Runs `program` as the worker of `library` and `token`.
    pub(super) fn start(
        program: &Path,
        library: &KmsLibrary,
        token: &TokenSelector,
    ) -> Result<Arc<Process>, BackendError> {
        let name = format!("worker process of kms_library {:?}, token {token}", library.name);
        let failed = |error: std::io::Error| {
            let what = format!(
                "{name} cannot be started: {error}; check the limits on processes and open files, and that /proc is mounted and \
                 the kernel is Linux 5.3 or later; isolation = \"none\" has the library run in the daemon"
            );
            BackendError::new(Fate::BackOff, Fault::Unavailable { what })
        };
        let (control, theirs) = pair::control().map_err(failed)?;
        let mut command = Command::new(program);
        // Its names are for `ps`: what it needs to know comes over the pair.
        command.arg0("keyway").args([SUBCOMMAND, "--", &library.name, &token.to_string()]);
        // A terminal's signals are for the daemon, which drains through its workers.
        command.process_group(0).stdin(Stdio::from(theirs)).stdout(Stdio::null());
        for variable in secret_variables() {
            command.env_remove(variable);
        }
        let child = command.envs(&library.env).spawn().map_err(failed)?;
        // Closes the worker's end here.
        drop(command);
        Process::watch(name.clone(), child, control).map_err(failed)
    }

    /// Takes a child in charge.
    pub(super) fn watch(name: String, mut child: Child, control: OwnedFd) -> std::io::Result<Arc<Process>> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(rustix::io::Errno::SRCH)?;
        let watched = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(std::io::Error::from);
        let watched = watched.and_then(|handle| {
            let (closed, end, ended) = (AtomicBool::new(false), Mutex::default(), Condvar::new());
            let process = Arc::new(Process { name, handle, control, closed, end, ended });
            let reaped = Arc::clone(&process);
            let (hand_over, child_comes) = std::sync::mpsc::sync_channel::<Child>(1);
            let reaper = move || child_comes.recv().map(|child| reaped.reap(child)).unwrap_or_default();
            std::thread::Builder::new().name("keyway-reaper".into()).stack_size(128 << 10).spawn(reaper)?;
            Ok((process, hand_over))
        });
        match watched {
            Ok((process, hand_over)) => {
                // The thread waits for it.
                let _ = hand_over.send(child);
                Ok(process)
            }
            Err(error) => {
                // Only a child that has ended cannot be killed.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Waits for the worker's end; once a pair is closed, not for long.
    fn reap(&self, mut child: Child) {
        let mut grace = None;
        loop {
            let mut watched = [
                PollFd::new(&self.handle, PollFlags::IN),
                // Only its being closed, from either end; it is no more watched when that has been seen.
                PollFd::new(&self.control, PollFlags::empty()),
            ];
            let count = if grace.is_some() { 1 } else { 2 };
            match rustix::event::poll(&mut watched[..count], grace.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(1..) if watched[0].revents().is_empty() => grace = Some(GRACE),
                Ok(1..) => break,
                // It had its time, or cannot be watched.
                Ok(0) | Err(_) => {
                    self.kill();
                    break;
                }
            }
        }
        // A child that cannot be waited for is none any more.
        let status = child.wait().unwrap_or_default();
        // A worker that could not open its token has said so, and ends by itself.
        if !self.closed.load(Ordering::Relaxed) && !status.success() {
            tracing::warn!("{} {}", self.name, ended(status));
        }
        *self.end.lock() = Some(status);
        self.ended.notify_all();
    }

    /// Whether it has not ended.
    pub(super) fn is_alive(&self) -> bool {
        self.end.lock().is_none()
    }

    /// Ends it at once, whatever it does.
    pub(super) fn kill(&self) {
        // What has ended cannot be killed.
        let _ = rustix::process::pidfd_send_signal(&self.handle, Signal::KILL);
    }

    /// Asks it to end: closes its control pair.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // A worker that is gone has closed it already.
        let _ = rustix::net::shutdown(&self.control, Shutdown::Both);
    }

    /// What a call is answered whose pair the worker has closed. A worker that has done so and lives is ended.
    pub(super) fn died(&self) -> BackendError {
        let mut end = self.end.lock();
        if end.is_none() {
            self.ended.wait_while_for(&mut end, |end| end.is_none(), END_BY_ITSELF);
        }
        if end.is_none() {
            self.kill();
            self.ended.wait_while_for(&mut end, |end| end.is_none(), END_SEEN);
        }
        let how = match *end {
            Some(status) => ended(status),
            None => "closed its connection and was killed".to_owned(),
        };
        drop(end);
        self.lost(&how)
    }

    /// What a call is answered whose answer made no sense.
    pub(super) fn talked_nonsense(&self) -> BackendError {
        self.lost("answered what is no answer, and was killed")
    }

    /// What a call is answered that took longer than `limit`.
    pub(super) fn took_too_long(&self, limit: Duration) -> BackendError {
        let mut error = self.lost("");
        let what = format!("{}: no answer within {} s; it was killed", self.name, limit.as_secs());
        error.fault = Fault::DeviceStuck { what };
        error
    }

    fn lost(&self, how: &str) -> BackendError {
        self.kill();
        let what = format!("{} {how}", self.name);
        BackendError { fault: Fault::DeviceError { what }, fate: Fate::Reinitialize, cause: WORKER_DIED }
    }
}

fn ended(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => {
            let name = match signal {
                4 => " (SIGILL)",
                6 => " (SIGABRT)",
                7 => " (SIGBUS)",
                8 => " (SIGFPE)",
                9 => " (SIGKILL)",
                11 => " (SIGSEGV)",
                _ => "",
            };
            format!("was ended by signal {signal}{name}")
        }
        None => format!("ended with exit code {}", status.code().unwrap_or_default()),
    }
}

/// Waits until a pair has something to read, or is closed; false if that takes longer than `limit`.
pub(super) fn readable(pair: impl AsFd, limit: Duration) -> bool {
    let Ok(limit) = Timespec::try_from(limit) else { return true };
    let mut watched = [PollFd::new(&pair, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut watched, Some(&limit))).is_ok_and(|ready| ready > 0)
}
