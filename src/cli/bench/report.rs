//! What was measured, as people and programs read it.

use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::load::{Load, Ran};
use super::{Failure, Format, Summary, args};
use crate::cli::output;
use crate::cli::output::say;

/// One side of one round.
pub(super) struct Side {
    per_second: f64,
    /// CPU microseconds a piece: of this process, and of the daemon if it was asked for.
    own_us: f64,
    daemon_us: Option<f64>,
    latency: Option<Histogram<u64>>,
}

impl Side {
    /// Runs something, and looks at the clocks before and after.
    pub(super) fn measure(daemon: Option<u32>, run: impl FnOnce() -> Result<Ran, Failure>) -> Result<Side, Failure> {
        let cpu = || -> Result<_, Failure> { Ok((own_cpu(), daemon.map(daemon_cpu).transpose()?)) };
        let before = cpu()?;
        let ran = run()?;
        let after = cpu()?;
        if ran.failed > 0 || ran.done == 0 {
            return Err(Failure::new(format!("{} requests failed, {} were answered", ran.failed, ran.done)));
        }
        #[expect(clippy::cast_precision_loss, reason = "rates, for people")]
        let done = ran.done as f64;
        let each = |after: Duration, before: Duration| (after.saturating_sub(before)).as_secs_f64() * 1e6 / done;
        Ok(Side {
            per_second: done / ran.took.as_secs_f64(),
            own_us: each(after.0, before.0),
            daemon_us: after.1.zip(before.1).map(|(after, before)| each(after, before)),
            latency: ran.latency,
        })
    }
}

fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU time of a process's living threads, by the kernel's scheduler.
fn daemon_cpu(pid: u32) -> Result<Duration, Failure> {
    let mut nanoseconds = 0_u64;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the two looks.
        let text = std::fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// All rounds of one key and load.
pub(super) struct Measurement {
    key: &'static str,
    load: Load,
    direct: Vec<Side>,
    through: Vec<Side>,
}

impl Measurement {
    pub(super) fn new(key: &'static str, load: Load) -> Measurement {
        Measurement { key, load, direct: Vec::new(), through: Vec::new() }
    }

    /// Adds a round.
    pub(super) fn push(&mut self, direct: Option<Side>, through: Side) {
        self.direct.extend(direct);
        self.through.push(through);
    }

    fn ratio(&self) -> Option<Summary> {
        let ratios: Vec<f64> = self
            .through
            .iter()
            .zip(&self.direct)
            .map(|(through, direct)| through.per_second / direct.per_second)
            .collect();
        (!ratios.is_empty()).then(|| Summary::of(&ratios))
    }

    /// CPU microseconds of the daemon beyond those of the loop.
    fn added(&self) -> Option<Summary> {
        let added: Vec<f64> = self
            .through
            .iter()
            .zip(&self.direct)
            .filter_map(|(through, direct)| Some(through.daemon_us? - direct.own_us))
            .collect();
        (!added.is_empty()).then(|| Summary::of(&added))
    }

    fn percentile(&self, quantile: f64) -> u64 {
        let mut all: Option<Histogram<u64>> = None;
        for latency in self.through.iter().filter_map(|side| side.latency.as_ref()) {
            match &mut all {
                None => all = Some(latency.clone()),
                // Both have the same bounds.
                Some(all) => drop(all.add(latency)),
            }
        }
        all.map_or(0, |all| all.value_at_quantile(quantile))
    }

    /// One line for people.
    pub(super) fn line(&self) -> String {
        let figures =
            |side: &[Side], figure: fn(&Side) -> f64| Summary::of(&side.iter().map(figure).collect::<Vec<_>>());
        let mut line = format!("{:8} {:>7}  ", self.key, format!("{}x{}", self.load.clients, self.load.depth));
        if let Some(ratio) = self.ratio() {
            let direct = figures(&self.direct, |side| side.per_second).median;
            line += &format!("ratio {:.3} [{:.3}, {:.3}]  bare {direct:.0}/s  ", ratio.median, ratio.low, ratio.high);
        }
        line += &format!("keyway {:.0}/s  ", figures(&self.through, |side| side.per_second).median);
        if let Some(added) = self.added() {
            line += &format!("daemon adds {:.1} us [{:.1}, {:.1}]  ", added.median, added.low, added.high);
        } else {
            let daemon = figures(&self.through, |side| side.daemon_us.unwrap_or(f64::NAN));
            line += &format!("daemon {:.2} us [{:.2}, {:.2}]  ", daemon.median, daemon.low, daemon.high);
        }
        line += &format!("client {:.1} us  ", figures(&self.through, |side| side.own_us).median);
        line + &format!("p50 {} us  p99 {} us", self.percentile(0.5), self.percentile(0.99))
    }

    fn value(&self) -> Value {
        let summary = |summary: Summary| json!({"median": summary.median, "low": summary.low, "high": summary.high});
        let rates = |sides: &[Side]| sides.iter().map(|side| side.per_second).collect::<Vec<_>>();
        json!({
            "key": self.key, "clients": self.load.clients, "depth": self.load.depth,
            "ratio": self.ratio().map(summary), "daemon_added_us": self.added().map(summary),
            "bare_per_second": rates(&self.direct), "keyway_per_second": rates(&self.through),
            "daemon_us": self.through.iter().map(|side| side.daemon_us).collect::<Vec<_>>(),
            "client_us": self.through.iter().map(|side| side.own_us).collect::<Vec<_>>(),
            "latency_us": { "p50": self.percentile(0.5), "p99": self.percentile(0.99) },
        })
    }
}

/// Prints everything measured; for people, each line was shown when it was known.
pub(super) fn print(format: Format, args: &args::Bench, measured: &[Measurement]) -> Result<(), Failure> {
    if format == Format::Json {
        let body = json!({
            "rounds": args.rounds, "round_ms": args.round_ms,
            "measured": measured.iter().map(Measurement::value).collect::<Vec<_>>(),
        });
        return output::print(format, &body);
    }
    say!("{} rounds of {} ms a side; medians, with 95 % intervals in brackets", args.rounds, args.round_ms);
    measured.iter().for_each(|measurement| say!("{}", measurement.line()));
    Ok(())
}
