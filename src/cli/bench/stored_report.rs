//! What very many certificates cost, as people and programs read it.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::statistics::Summary;
use super::stored_rotation::RotationSeen;
use super::{Failure, Format, output};
use crate::cli::output::say;

/// What was seen with so many certificates.
pub(super) struct Seen {
    pub(super) certificates: u64,
    /// From the start to the first answer, by starts.
    pub(super) start_ms: Vec<f64>,
    /// From the start to the first certificate, by starts.
    pub(super) first_ms: Vec<f64>,
    pub(super) idle_kib: u64,
    /// Certificates a second, by rounds.
    pub(super) rates: Vec<f64>,
}

/// What was seen of the CRL. Of two figures, the second is that while certificates were issued.
pub(super) struct CrlSeen {
    pub(super) entries: u64,
    pub(super) bytes: usize,
    /// From the request to the answer that it is durable and served.
    pub(super) alone_ms: Vec<f64>,
    pub(super) beside_ms: Vec<f64>,
    /// The daemon's largest resident memory.
    pub(super) peak_kib: [u64; 2],
    /// Rate of issuance while CRLs are made, to that of the turn before.
    pub(super) ratio: Summary,
    /// Latency of issuance without and with CRLs being made: the worst round's.
    pub(super) p99_us: [u64; 2],
}

impl Seen {
    fn value(&self) -> Value {
        json!({
            "certificates": self.certificates, "start_ms": self.start_ms, "first_certificate_ms": self.first_ms,
            "idle_kib": self.idle_kib, "per_second": self.rates,
        })
    }
}

impl CrlSeen {
    fn value(&self) -> Value {
        json!({
            "entries": self.entries, "bytes": self.bytes, "alone_ms": self.alone_ms, "while_issuing_ms": self.beside_ms,
            "peak_kib": self.peak_kib, "issued_p99_us": self.p99_us,
            "issued_ratio": {"median": self.ratio.median, "low": self.ratio.low, "high": self.ratio.high},
        })
    }
}

pub(super) fn print(
    format: Format,
    seen: &[Seen],
    crl: &CrlSeen,
    rotation: Option<&RotationSeen>,
) -> Result<ExitCode, Failure> {
    if format == Format::Json {
        let seen: Vec<Value> = seen.iter().map(Seen::value).collect();
        output::print(
            format,
            &json!({"what": "stored", "seen": seen, "crl": crl.value(), "rotation": rotation.map(RotationSeen::value)}),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let median = |figures: &[f64]| Summary::of(figures).median;
    say!("{:>12} {:>12} {:>18} {:>12} {:>14}", "certificates", "start ms", "first issued ms", "idle KiB", "issued/s");
    for Seen { certificates, start_ms, first_ms, idle_kib, rates } in seen {
        let (start, first, rate) = (median(start_ms), median(first_ms), median(rates));
        say!("{certificates:>12} {start:>12.0} {first:>18.0} {idle_kib:>12} {rate:>14.0}");
    }
    let CrlSeen { entries, bytes, alone_ms, beside_ms, peak_kib, ratio, p99_us } = crl;
    say!("CRL of {entries} entries, {bytes} bytes");
    say!("  made in              {:.0} ms, while issuing {:.0} ms (medians)", median(alone_ms), median(beside_ms));
    say!("  memory at most       {} KiB, while issuing {} KiB", peak_kib[0], peak_kib[1]);
    let Summary { median, low, high } = ratio;
    say!("  issuing beside it    {median:.2} [{low:.2}, {high:.2}] of the rate alone");
    say!("  p99 of issuing       {} us alone, {} us beside it (worst rounds)", p99_us[0], p99_us[1]);
    if let Some(rotation) = rotation {
        rotation.say();
    }
    Ok(ExitCode::SUCCESS)
}
