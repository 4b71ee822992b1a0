//! Processes of lowest priority that keep the CPUs from sleeping. On an idle machine much of a request's latency is CPUs
//! that wake up, and that says more about the machine than about Keyway.

use std::process::{Child, Command, Stdio};

use super::Failure;

/// Works as long as the process whose number it is given is there, so that none outlives the bench, however that ends.
const SPIN: &str = "while kill -0 \"$1\" 2>/dev/null; do :; done";

/// One process a CPU; ended when dropped.
pub(super) struct Awake(Vec<Child>);

impl Awake {
    /// Starts them, if that is wanted.
    pub(super) fn keep(wanted: bool) -> Result<Awake, Failure> {
        let cpus = if wanted { std::thread::available_parallelism()?.get() } else { 0 };
        let mut awake = Awake(Vec::new());
        for _ in 0..cpus {
            let mut command = Command::new("nice");
            command.args(["-n", "19", "sh", "-c", SPIN, "sh"]).arg(std::process::id().to_string());
            awake.0.push(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for spinner in &mut self.0 {
            // It may have ended already.
            let _ = spinner.kill();
            let _ = spinner.wait();
        }
    }
}
