//! Signatures by keys in clouds that take 20 ms for each, through Keyway, for each of the three services; for AWS KMS in
//! alternation with its client alone, and what reaches it when three times its quota is asked for.
//! `cargo build --release -p cloud-sim && cargo bench --bench cloud --features aws-client`.
//!
//! The clouds are cloud-sim, with keys of its own. They, the daemon and this share the machine's processors, so that CPU times
//! are what to read; rates are the quota's, 1,000 a second, as long as the machine can keep up.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot go on must say so")]

#[path = "../../tests/cloud-sim/tests/client.rs"]
mod client;
mod daemon;
mod direct;
mod services;

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use keyway::client::Framed;
use keyway::wire::proto;
use serde_json::json;

use client::Cloud;
use daemon::{Daemon, cpu_of};
use services::{Aws, Azure, Google, Service};

/// AWS's own quota, and what the other services are set to here.
const QUOTA: usize = 1_000;
/// How many signatures are asked for at once: fewer than the quota lets through in 20 ms, so that what Keyway adds to each is seen;
/// and half as many more than that, so that the quota is.
const IN_FLIGHT: [usize; 2] = [12, 30];
const ROUNDS: usize = 5;
const SPAN: Duration = Duration::from_secs(3);

fn main() {
    let keyway = Path::new(env!("CARGO_BIN_EXE_keyway"));
    let sim = keyway.parent().expect("it is in a folder").join("cloud-sim");
    assert!(sim.exists(), "{} is not built", sim.display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    println!(
        "{:16} {:>8} {:>10} {:>10} {:>10} {:>18}",
        "", "at once", "each s", "p50 ms", "p99 ms", "CPU us a signature"
    );
    runtime.block_on(async {
        with(&Aws, keyway, &sim).await;
        with(&Azure, keyway, &sim).await;
        with(&Google, keyway, &sim).await;
    });
}

/// A cloud and a daemon, and what they do in turns with the service's client alone, where that is compared.
async fn with(service: &dyn Service, keyway: &Path, sim: &Path) {
    let folder = tempfile::tempdir().expect("a folder");
    let cloud = service.cloud(sim, folder.path());
    cloud.steer("PUT", "/service", &json!({"ms": 20, "operation": service.signing()}));
    let daemon = Daemon::start(keyway, folder, &cloud, service).await;
    daemon.key(service, &cloud).await;
    let direct = service.direct(&cloud);
    let framed = daemon.framed().await;
    for round in 0..ROUNDS {
        // The first is to warm up.
        let is_told = round > 0;
        for at_once in IN_FLIGHT {
            if let Some(direct) = &direct {
                let row = Row::of(std::process::id(), at_once, || direct.sign()).await;
                row.tell(is_told, "AWS's client");
            }
            let row = Row::of(daemon.id(), at_once, || sign_by(&framed)).await;
            row.tell(is_told, service.name());
        }
    }
    if let Some(bucket) = service.bucket() {
        overload(bucket, &cloud, &framed).await;
    }
}

/// What came of one round.
struct Row {
    at_once: usize,
    took: Vec<Duration>,
    cpu: Duration,
}

impl Row {
    /// Of a closed loop, and the CPU time of a process meanwhile.
    async fn of<F: Future<Output = bool>>(process: u32, at_once: usize, sign: impl Fn() -> F) -> Row {
        let before = cpu_of(process);
        let mut took = closed(at_once, sign).await;
        took.sort_unstable();
        Row { at_once, took, cpu: cpu_of(process) - before }
    }

    fn tell(&self, is_told: bool, name: &str) {
        if !is_told {
            return;
        }
        let at = |part: f64| self.took[((self.took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
        let rate = self.took.len() as f64 / SPAN.as_secs_f64();
        let cpu = self.cpu.as_secs_f64() * 1e6 / self.took.len() as f64;
        let at_once = self.at_once;
        println!("{name:16} {at_once:>8} {rate:>10.0} {:>10.2} {:>10.2} {cpu:>18.0}", at(0.5), at(0.99));
    }
}

/// Three times the quota is asked for, whatever the answers, and the cloud throttles nothing.
async fn overload(bucket: &str, cloud: &Cloud, framed: &Framed) {
    let quota = QUOTA as f64;
    cloud.steer("PUT", "/quota", &json!({"per_second": quota * 1.1, "bucket": bucket}));
    let (begun, mut asked, mut waiting) = (Instant::now(), 0_u32, FuturesUnordered::new());
    let from = cloud.report()["since_start_ms"].as_u64().expect("a time") + 2_000;
    let (mut good, mut refused) = (0_u64, 0_u64);
    while begun.elapsed() < Duration::from_secs(12) {
        while f64::from(asked) < begun.elapsed().as_secs_f64() * quota * 3.0 {
            waiting.push(sign_by(framed));
            asked += 1;
        }
        tokio::select! {
            Some(answer) = waiting.next() => if answer { good += 1 } else { refused += 1 },
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
    }
    let report = cloud.report();
    let slots = report["counts"]["buckets"][bucket]["slots"].as_array().expect("slots").clone();
    let whole = slots.iter().map(|slot| [0, 1, 2].map(|at| slot[at].as_u64().expect("a number")));
    let inside: Vec<_> = whole.filter(|[slot, ..]| (from..from + 10_000).contains(&(slot * 100))).collect();
    let sent: u64 = inside.iter().map(|[_, asked, _]| asked).sum();
    let throttled: u64 = inside.iter().map(|[.., throttled]| throttled).sum();
    println!(
        "three times the quota: {:.1} % of it were sent in 10 s, of these {throttled} throttled; {good} signed, {refused} refused",
        sent as f64 / quota / 10.0 * 100.0
    );
}

/// So many at once, each after the one before; how long each took.
async fn closed<F: Future<Output = bool>>(at_once: usize, sign: impl Fn() -> F) -> Vec<Duration> {
    let begun = Instant::now();
    let one = || async {
        let mut took = Vec::new();
        while begun.elapsed() < SPAN {
            let at = Instant::now();
            assert!(sign().await, "a signature failed");
            took.push(at.elapsed());
        }
        took
    };
    futures_util::future::join_all((0..at_once).map(|_| one())).await.concat()
}

async fn sign_by(framed: &Framed) -> bool {
    let sign = proto::Sign {
        mount: "transit".into(),
        key: "doc".into(),
        input: "what is signed".into(),
        ..Default::default()
    };
    framed.sign(sign).await.is_ok()
}
