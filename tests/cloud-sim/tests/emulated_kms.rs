//! ministack, which does the work that cloud-sim passes on, as a process that a test starts. Tests of other programs take it as
//! it is.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Its process. It ends with this, or with the test's process, whichever is first.
pub(crate) struct EmulatedKms {
    child: Child,
    pub(crate) url: String,
}

impl EmulatedKms {
    /// Starts it with this python, which has what `tests/python/requirements.txt` lists; waits until it listens.
    pub(crate) fn start(python: &Path, script: &Path) -> EmulatedKms {
        let mut child = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("http://"), "ministack did not start: {line:?}");
        EmulatedKms { child, url: line.trim().to_owned() }
    }
}

impl Drop for EmulatedKms {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
