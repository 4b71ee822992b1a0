//! What became of streams, as people and programs read it.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::args::{Arrivals, Streams};
use super::spec::{Pace, StreamSpec, WorkName};
use super::streams::{Ended, key_name};
use super::{Failure, Format, output};
use crate::cli::output::say;
use crate::wire::proto;

/// Streams that ran at the same time.
pub(super) struct Run {
    pub(super) ended: Vec<Ended>,
    /// CPU time of the daemon meanwhile.
    pub(super) cpu: Duration,
}

impl Run {
    fn done(&self) -> u64 {
        self.ended.iter().map(|ended| ended.tally.done).sum()
    }

    /// CPU microseconds of the daemon for each good answer; `None` if there was none.
    fn daemon_us(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let done = self.done() as f64;
        (done > 0.0).then(|| self.cpu.as_secs_f64() * 1e6 / done)
    }
}

/// A stream in a few words.
pub(super) fn title(spec: &StreamSpec) -> String {
    if let Some(name) = &spec.name {
        return name.clone();
    }
    let namespace = if spec.namespace.is_empty() { "root" } else { &spec.namespace };
    let pace = match spec.pace {
        Pace::Closed(load) => load.to_string(),
        Pace::Open { rate, .. } => format!("{rate}/s"),
    };
    format!("{namespace} {} {} {pace}", key_name(&spec.key), class(spec.class))
}

/// Prints what became of each stream: alone, if it ran alone, and together with the others.
pub(super) fn print(
    format: Format,
    args: &Streams,
    specs: &[&StreamSpec],
    alone: &[Run],
    whole: &Run,
) -> Result<(), Failure> {
    if format == Format::Json {
        return output::print(format, &value(args, specs, alone, whole));
    }
    for (place, (spec, ended)) in specs.iter().zip(&whole.ended).enumerate() {
        say!("{}", title(spec));
        if let Some((run, ended)) = alone.get(place).and_then(|run| Some((run, run.ended.first()?))) {
            say!("  alone     {}", line(ended, run));
        }
        say!("  together  {}", line(ended, whole));
        if ended.tally.generator_late() {
            let (late, asked) = (ended.tally.late, ended.tally.asked);
            say!("  the generator could not keep up: {late} of {asked} requests were sent more than 1 ms late");
        }
    }
    if let Some(each) = whole.daemon_us() {
        say!("the daemon used {each:.1} us of CPU time a request");
    }
    Ok(())
}

fn line(ended: &Ended, run: &Run) -> String {
    let tally = &ended.tally;
    let at = |quantile| milliseconds(tally.latency.value_at_quantile(quantile));
    let mut line = format!(
        "{:.0}/s, share {:.3}; p50 {} p90 {} p99 {} p99.9 {} max {} ms; {} done",
        tally.per_second(),
        share(ended, run),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        milliseconds(tally.latency.max()),
        tally.done
    );
    for (label, count) in &tally.failed {
        line += &format!(", {count} {label}");
    }
    for (count, what) in [(tally.wrong, "WRONG"), (tally.lost(), "LOST"), (ended.double, "DOUBLE")] {
        if count > 0 {
            line += &format!(", {count} {what}");
        }
    }
    line
}

fn milliseconds(microseconds: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let milliseconds = microseconds as f64 / 1e3;
    format!("{milliseconds:.2}")
}

#[expect(clippy::cast_precision_loss, reason = "a share, for people")]
fn share(ended: &Ended, run: &Run) -> f64 {
    ended.tally.done as f64 / (run.done() as f64).max(1.0)
}

/// The fields that `benches/README.md` promises.
fn value(args: &Streams, specs: &[&StreamSpec], alone: &[Run], whole: &Run) -> Value {
    let streams = specs.iter().zip(&whole.ended).enumerate().map(|(place, (spec, ended))| {
        let alone = alone.get(place).and_then(|run| Some(result(run.ended.first()?, run)));
        let mut stream = described(spec);
        stream["alone"] = alone.unwrap_or(Value::Null);
        stream["together"] = result(ended, whole);
        stream
    });
    json!({
        "what": "streams", "duration_s": args.duration, "verified": args.verify,
        "daemon_us": whole.daemon_us(), "streams": streams.collect::<Vec<_>>(),
    })
}

fn described(spec: &StreamSpec) -> Value {
    let work = if spec.work == WorkName::Sign { "sign" } else { "certificate" };
    let mut stream = json!({
        "name": title(spec), "namespace": spec.namespace, "weight": spec.weight, "key": key_name(&spec.key),
        "class": class(spec.class), "work": work, "load": null, "rate": null, "arrivals": null, "clients": null,
    });
    match spec.pace {
        Pace::Closed(load) => stream["load"] = load.to_string().into(),
        Pace::Open { rate, arrivals, clients } => {
            stream["rate"] = rate.into();
            stream["arrivals"] =
                arrivals.map(|arrivals| if arrivals == Arrivals::Fixed { "fixed" } else { "poisson" }).into();
            stream["clients"] = clients.into();
        }
    }
    stream
}

fn result(ended: &Ended, run: &Run) -> Value {
    let tally = &ended.tally;
    json!({
        "asked": tally.asked, "done": tally.done, "failed": tally.failed, "wrong": tally.wrong, "lost": tally.lost(),
        "double": ended.double, "took_s": tally.took.as_secs_f64(), "per_second": tally.per_second(),
        "share": share(ended, run), "latency_us": percentiles(&tally.latency),
        "generator": {
            "late": tally.generator_late(), "late_requests": tally.late, "lag_us": percentiles(&tally.lag),
        },
    })
}

/// A histogram of microseconds, by its percentiles; all `null` where nothing was recorded.
pub(super) fn percentiles(latency: &Histogram<u64>) -> Value {
    let at = |quantile| (!latency.is_empty()).then(|| latency.value_at_quantile(quantile));
    json!({
        "count": latency.len(), "mean": (!latency.is_empty()).then(|| latency.mean()), "p50": at(0.5), "p90": at(0.9),
        "p99": at(0.99), "p99_9": at(0.999), "max": at(1.0),
    })
}

fn class(class: proto::Class) -> &'static str {
    match class {
        proto::Class::Interactive => "interactive",
        proto::Class::Bulk => "bulk",
    }
}
