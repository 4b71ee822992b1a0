//! Steering from outside: whoever has the folder can steer all processes that have loaded the module, and read its counts.
//!
//! Knows nothing of the module's inside, so that tests may take this file as it is.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The file of lines that later processes apply.
pub(crate) const REMEMBERED: &str = "steering";
const LOCK: &str = "lock";
const STATE: &str = "state";
/// The state begins with the names of the functions, so many bytes each, and goes on with so many parts of so many bytes: a
/// number for each function.
const NAME: usize = 64;
const FUNCTIONS: usize = 68;
const PART: usize = 640;
const PARTS: usize = 16;

/// Commands that are for the moment only.
const MOMENTARY: &[&str] = &["drop-sessions", "forget-login", "forget-handles", "finalize", "unlock", "report", "help"];

/// The sockets of processes that are alive.
pub(crate) fn sockets(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut sockets: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "sock"))
        .filter(|path| is_alive(path))
        .collect();
    sockets.sort();
    sockets
}

/// Whether somebody listens there. What a process that has ended has left is taken away.
fn is_alive(socket: &Path) -> bool {
    if UnixStream::connect(socket).is_ok() {
        return true;
    }
    let process = socket.file_stem().unwrap_or_default();
    if !Path::new("/proc").join(process).exists() {
        // Another may have been faster.
        let _ = std::fs::remove_file(socket);
    }
    false
}

/// Gives a command to every process, and to those that will load the module later. Answers what each said.
///
/// # Errors
///
/// What could not be written, or what a process refused.
pub(crate) fn steer(folder: &Path, command: &str) -> Result<Vec<String>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    // One steers at a time, so that every process sees the same order.
    let lock = File::create(folder.join(LOCK)).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let word = command.split_whitespace().next().unwrap_or_default();
    let line = if MOMENTARY.contains(&word) { 0 } else { remember(folder, command).map_err(failed)? };
    // A process that is starting has its socket before it reads the file, so it sees the command in one or the other.
    let mut answers = Vec::new();
    for socket in sockets(folder) {
        match ask(&socket, &format!("here {line} {command}")) {
            Ok(answer) if answer.starts_with("error") => return Err(format!("{}: {answer}", socket.display())),
            Ok(answer) => answers.push(answer),
            // It has ended meanwhile.
            Err(_) => {}
        }
    }
    Ok(answers)
}

/// Adds a line to the file; answers its number, from 1.
fn remember(folder: &Path, command: &str) -> std::io::Result<usize> {
    let mut file = File::options().read(true).append(true).create(true).open(folder.join(REMEMBERED))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    file.write_all(format!("{}\n", command.trim()).as_bytes())?;
    Ok(text.lines().count() + 1)
}

/// Says one line to one process; answers its line.
///
/// # Errors
///
/// When the process does not answer.
pub(crate) fn ask(socket: &Path, line: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.ends_with('\n') {
        Ok(answer.trim_end().to_owned())
    } else {
        Err(std::io::ErrorKind::UnexpectedEof.into())
    }
}

/// How often a function was called, by every process so far: 0 when none has loaded the module. Nothing for what is no
/// function.
pub(crate) fn calls(folder: &Path, function: &str) -> Option<u64> {
    let Ok(file) = File::open(folder.join(STATE)) else { return Some(0) };
    for place in 0..FUNCTIONS {
        let mut name = [0; NAME];
        let read = file.read_exact_at(&mut name, (place * NAME) as u64);
        // The file is only being made.
        if read.is_err() || name[0] == 0 {
            return Some(0);
        }
        if name.strip_prefix(function.as_bytes()).is_some_and(|rest| rest.iter().all(|byte| *byte == 0)) {
            let part = |part| count(&file, FUNCTIONS * NAME + part * PART + place * size_of::<u64>());
            return Some((0..PARTS).map(part).sum());
        }
    }
    None
}

/// The number there; 0 where the file ends before.
fn count(file: &File, at: usize) -> u64 {
    let mut bytes = [0; size_of::<u64>()];
    file.read_exact_at(&mut bytes, at as u64).map_or(0, |()| u64::from_ne_bytes(bytes))
}
