//! What rotating the store's key costs with very many records in it: all of them are encrypted anew, while certificates are issued.

use std::time::Instant;

use serde_json::{Value, json};

use super::child::Child;
use super::footprint::{peak, reset_peak};
use super::side::Ran;
use super::statistics::Summary;
use super::stored::{LOAD, Stage};
use super::{Failure, runtime};
use crate::cli::output::say;
use crate::model::Verb;
use crate::wire::proto;

/// What was seen. Of two figures, the second is that while records were encrypted anew.
pub(super) struct RotationSeen {
    records: u64,
    took_s: f64,
    peak_kib: [u64; 2],
    /// Rate of issuance while records are encrypted anew, to that before.
    ratio: Summary,
    p99_us: [u64; 2],
}

impl Stage<'_> {
    /// Issues alone, then rotates, and issues until no old key is left.
    pub(super) fn rotation(&self, child: &Child) -> Result<RotationSeen, Failure> {
        let runtime = runtime()?;
        let clients = runtime.block_on(child.clients("", proto::Class::Interactive, LOAD.clients))?;
        let status = || runtime.block_on(child.ask("", Verb::Read, "sys/key-status", json!({})));
        reset_peak(child.pid())?;
        let mut alone = Vec::new();
        for _ in 0..self.args.rounds.rounds {
            alone.push(runtime.block_on(self.issue(&clients))?);
        }
        let alone_kib = peak(child.pid())?;
        let rate = Summary::of(&alone.iter().map(|ran| ran.per_second).collect::<Vec<f64>>()).median;
        reset_peak(child.pid())?;
        let begun = Instant::now();
        runtime.block_on(child.ask("", Verb::Write, "sys/rotate", json!({})))?;
        let (mut beside, mut ratios) = (Vec::new(), Vec::new());
        let after = loop {
            let ran = runtime.block_on(self.issue(&clients))?;
            ratios.push(ran.per_second / rate);
            beside.push(ran);
            let now = status()?;
            if now["old_terms"].as_array().is_none_or(Vec::is_empty) {
                break now;
            }
        };
        let took_s = begun.elapsed().as_secs_f64();
        let worst =
            |rounds: &[Ran]| rounds.iter().map(|ran| ran.latency.value_at_quantile(0.99)).max().unwrap_or_default();
        Ok(RotationSeen {
            records: after["records_encrypted_anew"].as_u64().unwrap_or_default(),
            took_s,
            peak_kib: [alone_kib, peak(child.pid())?],
            ratio: Summary::of(&ratios),
            p99_us: [worst(&alone), worst(&beside)],
        })
    }
}

impl RotationSeen {
    pub(super) fn value(&self) -> Value {
        json!({
            "records": self.records, "took_s": self.took_s, "peak_kib": self.peak_kib, "issued_p99_us": self.p99_us,
            "issued_ratio": {"median": self.ratio.median, "low": self.ratio.low, "high": self.ratio.high},
        })
    }

    pub(super) fn say(&self) {
        let RotationSeen { records, took_s, peak_kib, ratio, p99_us } = self;
        say!("{records} records encrypted anew in {took_s:.1} s");
        say!("  memory at most       {} KiB before, {} KiB meanwhile", peak_kib[0], peak_kib[1]);
        let Summary { median, low, high } = ratio;
        say!("  issuing beside it    {median:.2} [{low:.2}, {high:.2}] of the rate alone");
        say!("  p99 of issuing       {} us alone, {} us beside it (worst rounds)", p99_us[0], p99_us[1]);
    }
}
