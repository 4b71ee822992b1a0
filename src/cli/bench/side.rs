//! One side of one round, and the CPU time it took.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use super::Failure;
use super::tally::Tally;

/// What a loop came to.
pub(super) struct Ran {
    pub(super) done: u64,
    pub(super) per_second: f64,
    /// In microseconds.
    pub(super) latency: Histogram<u64>,
}

impl Ran {
    /// Of requests that must all have been answered well: a ratio that leaves some out would say nothing.
    pub(super) fn of(tally: Tally) -> Result<Ran, Failure> {
        if tally.done == 0 || tally.done != tally.asked {
            let first = tally.first_refusal.as_deref().unwrap_or("no refusal");
            let (refused, lost) = (tally.refused(), tally.lost());
            return Err(Failure::new(format!(
                "of {} requests {} were answered well, {} wrongly, {refused} refused ({}), {lost} lost",
                tally.asked, tally.done, tally.wrong, first
            )));
        }
        Ok(Ran { done: tally.done, per_second: tally.per_second(), latency: tally.latency })
    }

    /// The same, where each request was for so many things.
    pub(super) fn times(self, each: u16) -> Ran {
        Ran { done: self.done * u64::from(each), per_second: self.per_second * f64::from(each), ..self }
    }
}

/// Whose CPU time is told from this process's own.
pub(super) enum Server {
    /// Nobody's: all is done in this process.
    None,
    /// A process's, and that of the processes it started.
    Process(u32),
    /// A thread's of this process, by its folder in `/proc`.
    Thread(PathBuf),
}

/// One side of one round.
pub(super) struct Side {
    pub(super) per_second: f64,
    /// CPU microseconds a piece of this process, but for the server's.
    pub(super) own_us: f64,
    /// CPU microseconds a piece of the server.
    pub(super) server_us: Option<f64>,
    pub(super) latency: Histogram<u64>,
}

impl Side {
    /// Runs something, and looks at the clocks before and after.
    pub(super) fn measure(server: &Server, run: impl FnOnce() -> Result<Ran, Failure>) -> Result<Side, Failure> {
        let before = (own_cpu(), server.cpu()?);
        let ran = run()?;
        let after = (own_cpu(), server.cpu()?);
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let done = ran.done as f64;
        let each = |span: Duration| span.as_secs_f64() * 1e6 / done;
        let served = after.1.zip(before.1).map(|(after, before)| after.saturating_sub(before));
        let mut own = after.0.saturating_sub(before.0);
        if let (Server::Thread(_), Some(served)) = (server, served) {
            own = own.saturating_sub(served);
        }
        let (own_us, server_us) = (each(own), served.map(each));
        Ok(Side { per_second: ran.per_second, own_us, server_us, latency: ran.latency })
    }
}

impl Server {
    /// Its CPU time so far.
    pub(super) fn cpu(&self) -> Result<Option<Duration>, Failure> {
        match self {
            Server::None => Ok(None),
            Server::Process(pid) => Ok(Some(process_cpu(*pid)?)),
            Server::Thread(folder) => Ok(Some(thread_cpu(folder))),
        }
    }
}

fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU time of the living threads of a process and of those it started, by the kernel's scheduler.
fn process_cpu(pid: u32) -> Result<Duration, Failure> {
    let mut sum = Duration::ZERO;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let folder = thread?.path();
        sum += thread_cpu(&folder);
        let children = std::fs::read_to_string(folder.join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            // It may end between the two looks.
            sum += process_cpu(child).unwrap_or_default();
        }
    }
    Ok(sum)
}

/// A thread may end between two looks: then it has used nothing.
fn thread_cpu(folder: &Path) -> Duration {
    let text = std::fs::read_to_string(folder.join("schedstat")).unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_is_for_counts_each_for_itself() {
        let mut tally = Tally::new().unwrap();
        for _ in 0..3 {
            tally.asked += 1;
            tally.answered(Ok(true), Duration::from_millis(2));
        }
        tally.took = Duration::from_secs(2);
        let ran = Ran::of(tally).unwrap().times(8);
        assert_eq!((ran.done, ran.latency.len()), (24, 3));
        assert!((ran.per_second - 12.0).abs() < 1e-9);
    }
}
