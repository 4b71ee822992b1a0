//! A worker process: loads a vendor's library, and does with it what the daemon says, until the daemon closes the pair.
//!
//! It believes the daemon, which is the same program; what it cannot read is the end all the same. It opens nothing, logs
//! nothing, and dies with nothing of its memory written anywhere.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::SocketType;
use rustix::process::Signal;
use tokio::signal::unix::SignalKind;
use zeroize::Zeroize;

use super::memory;
use super::message::{ANSWER_MAX, Answer, Command, FRAME_MAX, Job, Settings};
use super::pair::{self, Frames, put_frame};
use crate::backend::pkcs11::Pkcs11Backend;
use crate::backend::{Backend, BackendError, Device, Fate, Session};
use crate::model::Fault;

/// How long its sessions may take to end, once the control pair is closed.
const SESSIONS_END: Duration = Duration::from_secs(2);
/// How long it may take to end altogether. The daemon, if there still is one, waits a little longer.
const GRACE: Duration = Duration::from_secs(4);
/// How long a token that has no room for one more session is given until others have closed theirs, in milliseconds.
const CLOSINGS: [u64; 3] = [2, 10, 50];
/// Answers wait for those behind them, to be sent with them: so many, and so long. Each sending wakes the daemon's thread,
/// which costs more than it is worth where a signature is quick.
const ANSWERS_TOGETHER: usize = 32;
const ANSWERS_WAIT: Duration = Duration::from_micros(500);

/// Runs a worker on the control pair that is its standard input, to the end of that pair.
///
/// # Errors
///
/// It was not started by the daemon, or was told what makes no sense.
pub fn run() -> Result<(), String> {
    let input = std::io::stdin();
    if rustix::net::sockopt::socket_type(&input) != Ok(SocketType::SEQPACKET) {
        return Err("this command is for the daemon's own use: it runs the library of a kms_library whose isolation \
                    is \"process\""
            .into());
    }
    let control = prepare(input.as_fd().try_clone_to_owned()).map_err(|error| error.to_string())?;
    serve(control, |settings| {
        // Before a PIN comes, and before the library is loaded. What the system refuses it has refused the daemon, which said so.
        if settings.lock_memory {
            memory::lock();
        }
        Arc::new(Pkcs11Backend::at(&settings.library, settings.profile))
    })
}

/// Keeps the library from the pair and the process's memory from the disk, and makes sure of its end.
fn prepare(control: io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    let control = control?;
    // A library that asks for a PIN at the terminal must not read the daemon's commands.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    rustix::thread::set_name(c"keyway-worker")?;
    memory::no_core_dumps()?;
    ignore_signals()?;
    let lifeline = control.try_clone()?;
    std::thread::Builder::new().name("keyway-lifeline".into()).spawn(move || hold_on_to(&lifeline))?;
    Ok(control)
}

/// Signals meant for the daemon reach its workers too (systemd tells them all). It drains first, then closes the pair.
fn ignore_signals() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _inside = runtime.enter();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        // What listens for a signal once keeps it from ending the process for good.
        drop(tokio::signal::unix::signal(kind)?);
    }
    Ok(())
}

/// Ends the process when the pair is closed and the library does not let it end by itself.
fn hold_on_to(control: &OwnedFd) {
    let mut closed = [PollFd::new(control, PollFlags::empty())];
    while rustix::event::poll(&mut closed, None) == Err(rustix::io::Errno::INTR) {}
    std::thread::sleep(GRACE);
    // Not `exit`: that would run the library's own code, which may be what hangs.
    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
}

/// Serves the control pair to its end.
pub(super) fn serve(control: OwnedFd, backend: impl FnOnce(&Settings) -> Arc<dyn Backend>) -> Result<(), String> {
    let answer = |answer: Answer| {
        let mut packet = Vec::new();
        answer.encode(&mut packet);
        pair::send(&control, &packet, None)
    };
    let next = || match pair::receive(&control).map_err(|error| error.to_string())? {
        None => Ok(None),
        Some(packet) => match Command::decode(&packet.bytes) {
            Ok(command) => Ok(Some((command, packet.socket))),
            Err(_) => Err("the daemon says what this worker process does not understand".to_owned()),
        },
    };
    let settings = match next()? {
        None => return Ok(()),
        Some((Command::Open(settings), _)) => settings,
        Some(_) => return Err("the daemon does not begin with what is to be opened".into()),
    };
    let device: Arc<dyn Device> = match backend(&settings).open(&settings.token) {
        Ok(device) => device.into(),
        // Should the daemon be gone: the same.
        Err(error) => return answer(Answer::Failed(error)).or(Ok(())),
    };
    let mut said = answer(Answer::Opened(device.info().clone()));
    let (living, all_ended) = mpsc::channel();
    // A daemon that does not take its answer is gone.
    while said.is_ok()
        && let Some((command, socket)) = next()?
    {
        said = match (command, socket) {
            (Command::PinFlags, None) => answer(device.pin_flags().map_or_else(Answer::Failed, Answer::PinFlags)),
            (Command::Login(pin), None) => answer(device.login(&pin).map_or_else(Answer::Failed, Answer::LoggedIn)),
            (Command::OpenSession, Some(socket)) => {
                start_session(UnixStream::from(socket), &device, &living);
                Ok(())
            }
            _ => return Err("the daemon says what is for a session, or for none".into()),
        };
    }
    drop(living);
    // The sessions are closed before the login that they live by.
    let _ = all_ended.recv_timeout(SESSIONS_END);
    Ok(())
}

/// Starts the thread of one session. It lives as long as the session's pair.
fn start_session(stream: UnixStream, device: &Arc<dyn Device>, living: &Sender<()>) {
    let (device, living) = (Arc::clone(device), living.clone());
    let refused = stream.try_clone();
    let started = std::thread::Builder::new().name("keyway-session".into()).spawn(move || {
        // An error means that the daemon has closed the pair, or is beside itself: then this end closes it.
        let _ = serve_session(Frames::new(stream), device.as_ref());
        drop(device);
        drop(living);
    });
    if let Err(error) = started
        && let Ok(stream) = refused
    {
        let what = format!("a worker process cannot start another thread: {error}");
        let error = BackendError::new(Fate::BackOff, Fault::Unavailable { what });
        // The daemon may be gone.
        let _ = send(&mut Frames::new(stream), Answer::Failed(error));
    }
}

fn send(frames: &mut Frames, answer: Answer) -> io::Result<()> {
    let mut out = Vec::new();
    put_answer(&mut out, answer, 0);
    frames.send(&out)
}

/// Appends the frame of an answer to an input of so many bytes. One that the daemon would not take becomes an error.
fn put_answer(out: &mut Vec<u8>, answer: Answer, input: usize) {
    let begin = out.len();
    put_frame(out, |out| answer.encode(out));
    if out.len() - begin > ANSWER_MAX + input {
        out[begin..].zeroize();
        out.truncate(begin);
        let what = format!("the token answers {} KiB more than it was given", ANSWER_MAX >> 10);
        let failed = Answer::Failed(BackendError::keep(Fault::DeviceError { what }));
        put_frame(out, |out| failed.encode(out));
    }
}

/// Opens a session. One that was given up before may not be closed yet: nobody waits for that.
fn open_session(device: &dyn Device) -> Result<Box<dyn Session>, BackendError> {
    for pause in CLOSINGS {
        match device.open_session() {
            Err(error) if error.fate == Fate::BackOff => std::thread::sleep(Duration::from_millis(pause)),
            opened => return opened,
        }
    }
    device.open_session()
}

fn serve_session(mut frames: Frames, device: &dyn Device) -> io::Result<()> {
    let mut session = match open_session(device) {
        Ok(session) => session,
        Err(error) => return send(&mut frames, Answer::Failed(error)),
    };
    send(&mut frames, Answer::Done)?;
    let mut out = Vec::new();
    while let Some(frame) = frames.next(FRAME_MAX)? {
        let command = Command::decode(frame);
        // There may have been plaintexts in it.
        frame.zeroize();
        let command = command.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        match command {
            Command::Find(selector) => {
                let found = session.find(&selector);
                send(&mut frames, found.map_or_else(Answer::Failed, Answer::Found))?;
            }
            Command::Generate(template) => {
                let found = session.generate(&template);
                send(&mut frames, found.map_or_else(Answer::Failed, |found| Answer::Found(Some(found))))?;
            }
            Command::CheckAlive => {
                send(&mut frames, session.check_alive().map_or_else(Answer::Failed, |()| Answer::Done))?;
            }
            Command::Perform(jobs) => perform(&mut frames, session.as_mut(), &jobs, &mut out)?,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    Ok(())
}

/// Runs a batch. Its answers go out together, unless that would keep them waiting.
fn perform(frames: &mut Frames, session: &mut dyn Session, jobs: &[Job], out: &mut Vec<u8>) -> io::Result<()> {
    let lent: Vec<_> = jobs.iter().map(Job::lend).collect();
    let (mut waiting, mut since, mut sent) = (0, Instant::now(), Ok(()));
    out.clear();
    if let Some(here) = session.computes_here() {
        put_answer(out, Answer::ComputesHere(here), 0);
    }
    session.perform_batch(&lent, &mut |index, result| {
        if waiting == 0 {
            since = Instant::now();
        }
        put_answer(out, result.map_or_else(Answer::Failed, Answer::Output), lent[index].operation.input().len());
        waiting += 1;
        if waiting == ANSWERS_TOGETHER || since.elapsed() >= ANSWERS_WAIT {
            if sent.is_ok() {
                sent = frames.send(out);
            }
            wipe(out);
            waiting = 0;
        }
    });
    sent?;
    let sent = if out.is_empty() { Ok(()) } else { frames.send(out) };
    wipe(out);
    sent
}

/// Empties what may hold plaintexts.
fn wipe(out: &mut Vec<u8>) {
    out.as_mut_slice().zeroize();
    out.clear();
}
