//! The control socket of this process, and the lines that others have left in the folder.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use parking_lot::Mutex;

use crate::client::{self, REMEMBERED};
use crate::command::Command;
use crate::module::Module;

/// The process that listens: a child has its parent's memory, but not its threads.
static LISTENING: Mutex<u32> = Mutex::new(0);

/// Applies what holds from the beginning, and listens. Does nothing in a process that does so already.
pub(crate) fn begin(module: &'static Module) -> Result<(), String> {
    let mut listening = LISTENING.lock();
    let process = std::process::id();
    if *listening == process {
        return Ok(());
    }
    match module.folder() {
        Some(folder) => listen(module, folder)?,
        None => apply_all(module, module.initial.iter().map(String::as_str))?,
    }
    *listening = process;
    Ok(())
}

fn listen(module: &'static Module, folder: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    begin_file(folder, &module.initial).map_err(failed)?;
    let socket = folder.join(format!("{}.sock", std::process::id()));
    // Left by an earlier process of this number.
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).map_err(failed)?;
    // After the socket is there: whoever steers now is heard in one way or the other.
    let lines = std::fs::read_to_string(folder.join(REMEMBERED)).map_err(failed)?;
    apply_all(module, lines.lines())?;
    without_signals(|| std::thread::Builder::new().name("hsm-sim".into()).spawn(move || serve(&listener, module)))
        .map(drop)
        .map_err(failed)
}

/// Writes the file with the settings' own commands, if there is none yet.
fn begin_file(folder: &Path, initial: &[String]) -> std::io::Result<()> {
    let mine = folder.join(format!("{REMEMBERED}.{}", std::process::id()));
    std::fs::write(&mine, initial.iter().map(|line| format!("{line}\n")).collect::<String>())?;
    let linked = std::fs::hard_link(&mine, folder.join(REMEMBERED));
    std::fs::remove_file(&mine)?;
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn apply_all<'l>(module: &'static Module, lines: impl Iterator<Item = &'l str>) -> Result<(), String> {
    for (number, line) in (1..).zip(lines) {
        let command = Command::parse(line).map_err(|error| format!("steering line {number}, {line:?}: {error}"))?;
        module.steering.apply(number, command, module)?;
    }
    Ok(())
}

/// Starts a thread that takes no signals: they are for the program that loaded us.
fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    // SAFETY: plain sets of signals, filled and read by the C library; the thread's own mask is put back below.
    let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    // SAFETY: both are valid places.
    unsafe {
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before);
    }
    let started = start();
    // SAFETY: `before` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    started
}

fn serve(listener: &UnixListener, module: &'static Module) {
    for stream in listener.incoming().flatten() {
        let started = std::thread::Builder::new().name("hsm-sim".into()).spawn(move || converse(&stream, module));
        if let Err(error) = started {
            eprintln!("hsm-sim: a control connection has no thread: {error}");
        }
    }
}

/// One answer for each line.
fn converse(stream: &UnixStream, module: &'static Module) {
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let answer = obey(line, module).unwrap_or_else(|error| format!("error: {error}"));
        if (&*stream).write_all(format!("{answer}\n").as_bytes()).is_err() {
            return;
        }
    }
}

fn obey(line: &str, module: &'static Module) -> Result<String, String> {
    if let Some((number, line)) = line.strip_prefix("here ").and_then(|rest| rest.split_once(' ')) {
        let number = number.parse().map_err(|_| format!("{number:?} is no number of a line"))?;
        return module.steering.apply(number, Command::parse(line)?, module);
    }
    match (Command::parse(line)?, module.folder()) {
        (command @ (Command::Report | Command::Help), _) => module.steering.apply(0, command, module),
        (_, Some(folder)) => {
            let mut answers = client::steer(folder, line)?;
            answers.sort();
            answers.dedup();
            Ok(answers.join(", "))
        }
        (_, None) => Err("there is no folder to steer in".into()),
    }
}
