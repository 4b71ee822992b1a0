//! A token, opened by a worker process.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::child::{self, Process};
use super::message::{Answer, Command, Settings};
use super::pair;
use super::session::ProcessSession;
use crate::backend::{BackendError, Device, DeviceInfo, Fate, LoginAnswer, PinFlags, Session};
use crate::model::{Fault, Secret};

/// A worker that ends with its device.
struct Owned(Arc<Process>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct ProcessDevice {
    process: Owned,
    /// Held while a command waits for its answer on the control pair.
    asking: Mutex<()>,
    /// How long the worker may take to log in or to open a session; it is killed then, since whoever opens a device has
    /// none yet that could be aborted.
    limit: Duration,
    info: DeviceInfo,
}

/// Has the worker open its token.
pub(super) fn open(
    process: Arc<Process>,
    settings: Settings,
    limit: Duration,
) -> Result<Box<dyn Device>, BackendError> {
    let process = Owned(process);
    match ask(&process.0, &Command::Open(settings), limit)? {
        Answer::Opened(info) => Ok(Box::new(ProcessDevice { process, asking: Mutex::default(), limit, info })),
        _ => Err(process.0.talked_nonsense()),
    }
}

/// One command on the control pair, and its answer. An answer that is an error is that error.
fn ask(process: &Process, command: &Command, limit: Duration) -> Result<Answer, BackendError> {
    send(process, command, None)?;
    if !child::readable(&process.control, limit) {
        return Err(process.took_too_long(limit));
    }
    let Ok(Some(packet)) = pair::receive(&process.control) else { return Err(process.died()) };
    match Answer::decode(&packet.bytes) {
        Ok(Answer::Failed(error)) => Err(error),
        Ok(answer) => Ok(answer),
        Err(_) => Err(process.talked_nonsense()),
    }
}

fn send(process: &Process, command: &Command, socket: Option<&UnixStream>) -> Result<(), BackendError> {
    // Wiped, and never moved to a larger place: it may hold a PIN.
    let mut packet = Zeroizing::new(Vec::with_capacity(pair::PACKET_MAX));
    command.encode(&mut packet);
    if packet.len() > pair::PACKET_MAX {
        let fault = Fault::TooLarge { what: "a path, label or PIN for a worker process".into() };
        return Err(BackendError::keep(fault));
    }
    pair::send(&process.control, &packet, socket.map(AsFd::as_fd)).map_err(|_| process.died())
}

impl Device for ProcessDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn pin_flags(&self) -> Result<PinFlags, BackendError> {
        let _asking = self.asking.lock();
        match ask(&self.process.0, &Command::PinFlags, self.limit)? {
            Answer::PinFlags(flags) => Ok(flags),
            _ => Err(self.process.0.talked_nonsense()),
        }
    }

    fn login(&self, pin: &Secret) -> Result<LoginAnswer, BackendError> {
        let _asking = self.asking.lock();
        match ask(&self.process.0, &Command::Login(pin.clone()), self.limit)? {
            Answer::LoggedIn(answer) => Ok(answer),
            _ => Err(self.process.0.talked_nonsense()),
        }
    }

    fn open_session(&self) -> Result<Box<dyn Session>, BackendError> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| {
            let what = format!("no socket for another session: {error}; check the limit on open files");
            BackendError::new(Fate::BackOff, Fault::Unavailable { what })
        })?;
        {
            let _asking = self.asking.lock();
            send(&self.process.0, &Command::OpenSession, Some(&theirs))?;
        }
        // Closed here, so that the worker's end is the only one.
        drop(theirs);
        if !child::readable(&ours, self.limit) {
            return Err(self.process.0.took_too_long(self.limit));
        }
        ProcessSession::open(ours, Arc::clone(&self.process.0)).map(|session| Box::new(session) as Box<dyn Session>)
    }

    fn is_lost(&self) -> bool {
        !self.process.0.is_alive()
    }

    fn abort(&self) -> bool {
        self.process.0.kill();
        true
    }

    fn outdate(&self) {
        self.process.0.kill();
    }
}
