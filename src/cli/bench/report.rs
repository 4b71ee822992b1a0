//! What was measured in turns, as people and programs read it.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::args::{Bench, IsolationArg, What};
use super::side::Side;
use super::spec::Load;
use super::statistics::Summary;
use super::stream_report::percentiles;
use super::{Failure, Format, output};
use crate::cli::output::say;

/// All rounds of one key and load.
pub(super) struct Measurement {
    key: String,
    load: Load,
    /// What Keyway is compared with, if with anything.
    reference: Option<&'static str>,
    direct: Vec<Side>,
    through: Vec<Side>,
}

impl Measurement {
    pub(super) fn new(key: &str, load: Load, reference: Option<&'static str>) -> Measurement {
        Measurement { key: key.to_owned(), load, reference, direct: Vec::new(), through: Vec::new() }
    }

    /// Adds a round.
    pub(super) fn push(&mut self, direct: Option<Side>, through: Side) {
        self.direct.extend(direct);
        self.through.push(through);
    }

    /// A figure of each pair; `None` where Keyway ran alone.
    fn pairs(&self, figure: impl Fn(&Side, &Side) -> Option<f64>) -> Option<Summary> {
        let pairs = self.through.iter().zip(&self.direct);
        let figures: Vec<f64> = pairs.filter_map(|(through, direct)| figure(through, direct)).collect();
        (!figures.is_empty()).then(|| Summary::of(&figures))
    }

    /// Keyway's rate to the other's.
    fn ratio(&self) -> Option<Summary> {
        self.pairs(|through, direct| Some(through.per_second / direct.per_second))
    }

    /// CPU microseconds of the daemon beyond those of the other side: of the loop, or of the echo.
    fn added(&self) -> Option<Summary> {
        self.pairs(|through, direct| Some(through.server_us? - direct.server_us.unwrap_or(direct.own_us)))
    }

    /// Microseconds of the median latency beyond that of the other side.
    fn added_p50(&self) -> Option<Summary> {
        self.pairs(|through, direct| Some(median(through) - median(direct)))
    }

    /// CPU microseconds of the daemon.
    fn daemon(&self) -> Summary {
        summary(&self.through, |side| side.server_us.unwrap_or(f64::NAN))
    }

    /// One line for people.
    pub(super) fn line(&self) -> String {
        let mut line = format!("{:8} {:>7}  ", self.key, self.load.to_string());
        if let (Some(ratio), Some(reference)) = (self.ratio(), self.reference) {
            let direct = summary(&self.direct, |side| side.per_second).median;
            line += &format!(
                "ratio {:.3} [{:.3}, {:.3}]  {reference} {direct:.0}/s  ",
                ratio.median, ratio.low, ratio.high
            );
        }
        line += &format!("keyway {:.0}/s  ", summary(&self.through, |side| side.per_second).median);
        let daemon = self.daemon();
        match self.added() {
            Some(added) if self.reference == Some("bare") => {
                line += &format!("daemon adds {:.1} us [{:.1}, {:.1}]  ", added.median, added.low, added.high);
            }
            _ => line += &format!("daemon {:.2} us [{:.2}, {:.2}]  ", daemon.median, daemon.low, daemon.high),
        }
        line += &format!("client {:.1} us  ", summary(&self.through, |side| side.own_us).median);
        let latency = merged(&self.through);
        let at = |quantile| latency.as_ref().map_or(0, |all| all.value_at_quantile(quantile));
        line += &format!("p50 {} us  p99 {} us", at(0.5), at(0.99));
        if let Some(added) = self.added_p50() {
            line += &format!("  p50 adds {:.0} us [{:.0}, {:.0}]", added.median, added.low, added.high);
        }
        line
    }

    /// The fields that `benches/README.md` promises.
    fn value(&self) -> Value {
        let shown = |summary: Summary| json!({"median": summary.median, "low": summary.low, "high": summary.high});
        let side = |sides: &[Side]| {
            let each = |figure: fn(&Side) -> Option<f64>| sides.iter().map(figure).collect::<Vec<_>>();
            json!({
                "per_second": each(|side| Some(side.per_second)), "own_us": each(|side| Some(side.own_us)),
                "server_us": each(|side| side.server_us),
                "latency_us": merged(sides).as_ref().map(percentiles),
            })
        };
        json!({
            "key": self.key, "clients": self.load.clients, "depth": self.load.depth, "reference": self.reference,
            "ratio": self.ratio().map(shown), "daemon_us": shown(self.daemon()),
            "daemon_added_us": self.added().map(shown), "added_p50_us": self.added_p50().map(shown),
            "keyway": side(&self.through), "compared_with": self.reference.map(|_| side(&self.direct)),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn median(side: &Side) -> f64 {
    side.latency.value_at_quantile(0.5) as f64
}

fn summary(sides: &[Side], figure: impl Fn(&Side) -> f64) -> Summary {
    Summary::of(&sides.iter().map(figure).collect::<Vec<_>>())
}

/// The latencies of all rounds.
fn merged(sides: &[Side]) -> Option<Histogram<u64>> {
    let mut all: Option<Histogram<u64>> = None;
    for side in sides {
        match &mut all {
            None => all = Some(side.latency.clone()),
            // Both have the same bounds.
            Some(all) => drop(all.add(&side.latency)),
        }
    }
    all
}

/// Prints everything measured; for people, each line was shown when it was known.
pub(super) fn print(format: Format, args: &Bench, what: What, measured: &[Measurement]) -> Result<(), Failure> {
    let (rounds, round_ms) = (args.rounds.rounds, args.rounds.round_ms);
    if format == Format::Json {
        let name = match what {
            What::Certificates => "certificates",
            What::Issue => "issue",
            What::Ocsp => "ocsp",
            What::OcspNonce => "ocsp-nonce",
            What::Batches => "batches",
            What::Echo => "echo",
            What::Overhead => "overhead",
            What::Sign | What::Footprint | What::Stored | What::Registrations | What::Streams => "sign",
        };
        let body = json!({
            "what": name, "rounds": rounds, "round_ms": round_ms, "batch": args.rounds.batch,
            "measured": measured.iter().map(Measurement::value).collect::<Vec<_>>(),
        });
        return output::print(format, &body);
    }
    let place = match (what, args.token.isolation) {
        (What::Echo | What::Overhead, _) => "",
        (_, IsolationArg::None) => ", the library in the daemon",
        (_, IsolationArg::Process) => ", the library in worker processes of the daemon",
    };
    say!("{rounds} rounds of {round_ms} ms a side{place}; medians, with 95 % intervals in brackets");
    measured.iter().for_each(|measurement| say!("{}", measurement.line()));
    Ok(())
}
