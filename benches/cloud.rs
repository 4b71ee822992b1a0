//! Signatures by a key in a cloud that takes 20 ms for each: directly and through Keyway in alternation, and what reaches the
//! cloud when three times its quota is asked for. `cargo build --release -p cloud-sim && cargo bench --bench cloud`.
//!
//! The cloud is cloud-sim with keys of its own. It, the daemon and this share the machine's processors, so that CPU times are
//! what to read; rates are the quota's, 1,000 a second, as long as the machine can keep up.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot go on must say so")]

#[path = "../tests/cloud-sim/tests/client.rs"]
mod client;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{MessageType, SigningAlgorithmSpec};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use keyway::client::{Framed, Http, Identity};
use keyway::model::{Secret, Verb};
use keyway::wire::proto;
use serde_json::{Value, json};

use client::Cloud;

const BUCKET: &str = "eu-west-1/ecc";
/// AWS's own quota.
const QUOTA: f64 = 1_000.0;
/// As many as 20 ms each need for the quota, and half as many more.
const IN_FLIGHT: usize = 30;
const ROUNDS: usize = 5;
const SPAN: Duration = Duration::from_secs(4);

/// A daemon that ends with this.
struct Daemon {
    child: Child,
    folder: tempfile::TempDir,
    token: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() {
    let keyway = Path::new(env!("CARGO_BIN_EXE_keyway"));
    let sim = keyway.parent().expect("it is in a folder").join("cloud-sim");
    assert!(sim.exists(), "{} is not built", sim.display());
    let cloud = Cloud::start(&sim, None, &["aws"]);
    cloud.steer("PUT", "/service", &json!({"ms": 20, "operation": "Sign"}));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let daemon = Daemon::start(keyway).await;
        daemon.key(&cloud).await;
        let direct = direct(&cloud).await;
        let framed = daemon.framed().await;
        println!("{:10} {:>10} {:>10} {:>10} {:>16}", "", "each s", "p50 ms", "p99 ms", "daemon CPU us");
        for round in 0..ROUNDS {
            let sign = || async { direct.sign().await };
            report("direct", closed(SPAN, sign).await, None);
            let before = daemon.cpu();
            let row = closed(SPAN, || async { sign_by(&framed).await }).await;
            let each = (daemon.cpu() - before).as_secs_f64() * 1e6 / row.len() as f64;
            report("Keyway", row, Some(each));
            if round == 0 {
                println!("(that was to warm up)");
            }
        }
        overload(&cloud, &framed).await;
    });
}

/// Three times the quota is asked for, whatever the answers, and the cloud throttles nothing.
async fn overload(cloud: &Cloud, framed: &Framed) {
    cloud.steer("PUT", "/quota", &json!({"per_second": QUOTA * 1.1, "bucket": BUCKET}));
    let (begun, mut asked, mut waiting) = (Instant::now(), 0_u32, FuturesUnordered::new());
    let from = cloud.report()["since_start_ms"].as_u64().expect("a time") + 2_000;
    let (mut good, mut refused) = (0_u64, 0_u64);
    while begun.elapsed() < Duration::from_secs(12) {
        while f64::from(asked) < begun.elapsed().as_secs_f64() * QUOTA * 3.0 {
            waiting.push(sign_by(framed));
            asked += 1;
        }
        tokio::select! {
            Some(answer) = waiting.next() => if answer { good += 1 } else { refused += 1 },
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
    }
    let report = cloud.report();
    let slots = report["counts"]["buckets"][BUCKET]["slots"].as_array().expect("slots").clone();
    let whole = slots.iter().map(|slot| [0, 1, 2].map(|at| slot[at].as_u64().expect("a number")));
    let inside: Vec<_> = whole.filter(|[slot, ..]| (from..from + 10_000).contains(&(slot * 100))).collect();
    let sent: u64 = inside.iter().map(|[_, asked, _]| asked).sum();
    let throttled: u64 = inside.iter().map(|[.., throttled]| throttled).sum();
    println!(
        "three times the quota: {:.1} % of it were sent in 10 s, of these {throttled} throttled; {good} signed, {refused} refused",
        sent as f64 / QUOTA / 10.0 * 100.0
    );
}

fn report(name: &str, mut took: Vec<Duration>, cpu: Option<f64>) {
    took.sort_unstable();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    let rate = took.len() as f64 / SPAN.as_secs_f64();
    let cpu = cpu.map(|cpu| format!("{cpu:.0}")).unwrap_or_default();
    println!("{name:10} {rate:>10.0} {:>10.2} {:>10.2} {cpu:>16}", at(0.5), at(0.99));
}

/// As many at once as there may be, each after the one before; how long each took.
async fn closed<F: Future<Output = bool>>(span: Duration, sign: impl Fn() -> F) -> Vec<Duration> {
    let begun = Instant::now();
    let one = || async {
        let mut took = Vec::new();
        while begun.elapsed() < span {
            let at = Instant::now();
            assert!(sign().await, "a signature failed");
            took.push(at.elapsed());
        }
        took
    };
    futures_util::future::join_all((0..IN_FLIGHT).map(|_| one())).await.concat()
}

/// AWS's client, as a program without Keyway has it.
struct Direct {
    client: aws_sdk_kms::Client,
    key: String,
}

async fn direct(cloud: &Cloud) -> Direct {
    let config = aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(&cloud.url)
        .region(Region::new("eu-west-1"))
        .credentials_provider(Credentials::new("AKIDTEST", "secret", None, None, "bench"))
        .retry_config(RetryConfig::disabled());
    Direct { client: aws_sdk_kms::Client::from_conf(config.build()), key: "alias/doc".into() }
}

impl Direct {
    async fn sign(&self) -> bool {
        let call = self.client.sign().key_id(&self.key).message(Blob::new([7; 32])).message_type(MessageType::Digest);
        call.signing_algorithm(SigningAlgorithmSpec::EcdsaSha256).send().await.is_ok()
    }
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

impl Daemon {
    async fn start(keyway: &Path) -> Daemon {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().display();
        let config = format!(
            "listener \"unix\" {{ address = \"{home}/http.sock\" }}\n\
             listener \"unix\" {{\n address = \"{home}/framed.sock\"\n protocol = \"framed\"\n}}\n\
             seal \"file\" {{ path = \"{home}/seal.key\" }}\nstorage \"redb\" {{ path = \"{home}/keyway.redb\" }}\n\
             publish_dir = \"{home}/published\"\n"
        );
        std::fs::write(folder.path().join("keyway.hcl"), config).expect("a file");
        let log = std::fs::File::create(folder.path().join("log")).expect("a file");
        let mut command = Command::new(keyway);
        command.arg("server").arg(format!("-config={home}/keyway.hcl"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("a daemon");
        let mut daemon = Daemon { child, folder, token: String::new() };
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(daemon.folder.path().join("framed.sock")).is_err() {
            let log = std::fs::read_to_string(daemon.folder.path().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(60), "the daemon does not listen: {log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let begun = daemon.write("sys/init", json!({})).await;
        daemon.token = begun["root_token"].as_str().expect("a token").to_owned();
        daemon
    }

    async fn write(&self, path: &str, data: Value) -> Value {
        let mut http = Http::new(&self.folder.path().join("http.sock"));
        http.token = (!self.token.is_empty()).then(|| Secret::from(self.token.as_str()));
        let answer = http.request(Verb::Write, path, data.as_object().expect("an object")).await.expect("an answer");
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status < 300, "{path}: {} {said}", answer.status);
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    /// A Transit key on a key of the cloud.
    async fn key(&self, cloud: &Cloud) {
        let managed = json!({
            "kms_key": "alias/doc", "key_type": "ECDSA", "curve": "P256", "region": "eu-west-1", "endpoint": cloud.url,
            "access_key": "AKIDTEST", "secret_key": "secret", "allow_generate_key": true, "any_mount": true,
        });
        self.write("sys/managed-keys/awskms/doc", managed).await;
        self.write("sys/mounts/transit", json!({"type": "transit"})).await;
        self.write("transit/keys/doc", json!({"type": "managed_key", "managed_key_name": "doc"})).await;
    }

    async fn framed(&self) -> Framed {
        let identity = Identity { token: Secret::from(self.token.as_str()), namespace: String::new() };
        let path = self.folder.path().join("framed.sock");
        let deadline = Some(Duration::from_secs(10));
        Framed::connect(&path, &identity, proto::Class::Interactive, deadline).await.expect("a connection")
    }

    /// What its process has used of the processors.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a process");
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let ticks: u64 =
            fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        // A tick is a hundredth of a second on Linux.
        Duration::from_millis(ticks * 10)
    }
}
