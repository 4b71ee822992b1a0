//! `pki sign-batch`: certificates for a folder of requests, over the framed wire, many in flight.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::args::{Connection, Format, SignBatch};
use super::{Failure, logical, runtime};
use crate::cli::output::say;
use crate::client::{ClientError, Framed};
use crate::crypto;
use crate::wire::proto;

/// Tries of one request that was refused in a way a later try may mend.
const TRIES: u32 = 8;
/// Longest latency told apart: ten minutes, in microseconds.
const LATENCY_MAX_US: u64 = 600_000_000;
/// Failures shown one by one.
const FAILURES_SHOWN: usize = 10;

/// What a batch came to.
struct Report {
    issued: usize,
    failures: Vec<(PathBuf, String)>,
    took: Duration,
    /// Of single requests, in microseconds.
    latency: Histogram<u64>,
}

pub(super) fn run(connect: &Connection, format: Format, args: &SignBatch) -> Result<ExitCode, Failure> {
    let out = args.out.as_deref().unwrap_or(&args.folder);
    let (requests, done) = requests(&args.folder, out, args.resume)?;
    if requests.is_empty() {
        if done == 0 {
            return Err(Failure::usage(format!("{}: no .csr files to sign", args.folder.display())));
        }
        eprintln!("each of the {done} requests has its certificate already");
        return Ok(ExitCode::SUCCESS);
    }
    std::fs::create_dir_all(out).map_err(|error| Failure::usage(format!("{}: {error}", out.display())))?;
    let data = logical::data(&args.fields)?;
    let data = if data.is_empty() { Vec::new() } else { serde_json::to_vec(&data)? };
    let report = runtime()?.block_on(async {
        let client = connect.framed(proto::Class::Bulk).await?;
        sign_all(&client, requests, args, &data).await
    })?;
    print(format, &report)?;
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// The requests of the folder, each with where its certificate goes, in the order of their names; and how many were left
/// out because theirs is there.
fn requests(folder: &Path, out: &Path, resume: bool) -> Result<(Vec<(PathBuf, PathBuf)>, usize), Failure> {
    let entries =
        std::fs::read_dir(folder).map_err(|error| Failure::usage(format!("{}: {error}", folder.display())))?;
    let (mut requests, mut done) = (Vec::new(), 0);
    for entry in entries {
        let request = entry?.path();
        if request.extension().is_some_and(|extension| extension == "csr") {
            let certificate = out.join(request.with_extension("crt").file_name().unwrap_or_default());
            if resume && certificate.exists() {
                done += 1;
            } else {
                requests.push((request, certificate));
            }
        }
    }
    requests.sort_unstable();
    Ok((requests, done))
}

async fn sign_all(
    client: &Framed,
    requests: Vec<(PathBuf, PathBuf)>,
    args: &SignBatch,
    data: &[u8],
) -> Result<Report, Failure> {
    let bar = progress(requests.len(), args.quiet)?;
    let begun = Instant::now();
    let mut latency = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)?;
    let (mut issued, mut failures) = (0, Vec::new());
    let mut answers = futures_util::stream::iter(requests)
        .map(|(request, certificate)| async move {
            let result = sign_one(client, &request, &certificate, args, data).await;
            (request, result)
        })
        .buffer_unordered(args.in_flight.into());
    while let Some((request, result)) = answers.next().await {
        bar.inc(1);
        match result {
            Ok(took) => {
                issued += 1;
                latency.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            }
            Err(why) => failures.push((request, why)),
        }
    }
    bar.finish_and_clear();
    Ok(Report { issued, failures, took: begun.elapsed(), latency })
}

fn progress(len: usize, quiet: bool) -> Result<ProgressBar, Failure> {
    let bar = ProgressBar::new(len as u64);
    if quiet {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len}  {per_sec}  {eta} left")?);
    Ok(bar)
}

/// Has one certificate issued and written; answers how long the last try took.
async fn sign_one(
    client: &Framed,
    request: &Path,
    certificate: &Path,
    args: &SignBatch,
    data: &[u8],
) -> Result<Duration, String> {
    let csr = der(&std::fs::read(request).map_err(|error| error.to_string())?)?;
    let mut tries = 0;
    loop {
        let asked = Instant::now();
        let call = proto::SignCertificate {
            mount: args.mount.clone(),
            role: args.role.clone(),
            csr: csr.clone().into(),
            data: data.to_vec().into(),
        };
        match client.sign_certificate(call).await {
            Ok(issued) => {
                let took = asked.elapsed();
                write_whole(certificate, &crypto::pem("CERTIFICATE", &issued.certificate))?;
                return Ok(took);
            }
            Err(ClientError::Refused { retryable: true, .. }) if tries < TRIES => {
                tokio::time::sleep(Duration::from_millis(20 << tries)).await;
                tries += 1;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// The DER of a request in PEM or DER.
fn der(bytes: &[u8]) -> Result<Vec<u8>, String> {
    if bytes.first() == Some(&0x30) {
        return Ok(bytes.to_vec());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "neither PEM nor DER".to_owned())?;
    // Tools may write the request in words before the PEM.
    let start = text.find("-----BEGIN").ok_or("neither PEM nor DER")?;
    let (label, der) = der::pem::decode_vec(&text.as_bytes()[start..]).map_err(|error| format!("the PEM: {error}"))?;
    if label.ends_with("CERTIFICATE REQUEST") { Ok(der) } else { Err(format!("a PEM of {label}, not of a request")) }
}

/// A file that is there whole or not at all.
fn write_whole(path: &Path, text: &str) -> Result<(), String> {
    let early = path.with_extension("crt.part");
    std::fs::write(&early, text)
        .and_then(|()| std::fs::rename(&early, path))
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn print(format: Format, report: &Report) -> Result<(), Failure> {
    let seconds = report.took.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate, for people")]
    let rate = report.issued as f64 / seconds.max(1e-9);
    let percentile = |p| report.latency.value_at_quantile(p);
    let (p50, p90, p99, max) = (percentile(0.5), percentile(0.9), percentile(0.99), report.latency.max());
    if format == Format::Json {
        let failures: Vec<_> = report
            .failures
            .iter()
            .map(|(path, why)| json!({ "request": path.display().to_string(), "error": why }))
            .collect();
        let body = json!({
            "issued": report.issued, "failed": report.failures.len(), "seconds": seconds, "per_second": rate,
            "latency_us": { "p50": p50, "p90": p90, "p99": p99, "max": max }, "failures": failures,
        });
        say!("{}", serde_json::to_string_pretty(&body)?);
        return Ok(());
    }
    say!("{} certificates in {seconds:.2} s: {rate:.0} a second", report.issued);
    let ms = |us: u64| format!("{:.1} ms", Duration::from_micros(us).as_secs_f64() * 1e3);
    say!("latency p50 {}, p90 {}, p99 {}, max {}", ms(p50), ms(p90), ms(p99), ms(max));
    if !report.failures.is_empty() {
        say!("{} requests failed:", report.failures.len());
        for (path, why) in report.failures.iter().take(FAILURES_SHOWN) {
            say!("  {}: {why}", path.display());
        }
    }
    Ok(())
}
