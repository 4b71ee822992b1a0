//! The daemon being measured: a process of its own, so that its CPU time is its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::load::Work;
use super::{BenchKey, Failure, dev};
use crate::client::{Framed, Http, Identity};
use crate::model::{Data, Secret, Verb};
use crate::wire::proto;

/// How long it may take to start.
const START_MAX: Duration = Duration::from_secs(30);
/// Requests certificates are issued for.
const REQUESTS: usize = 20;
const TOKEN: &str = "bench";

/// The process number of the daemon that runs, for whom a signal ends; 0 for none.
static RUNNING: AtomicI32 = AtomicI32::new(0);

/// Ends the daemon that runs, if one does.
pub(super) fn end_running() {
    if let Some(pid) = Pid::from_raw(RUNNING.swap(0, Ordering::Relaxed)) {
        // What cannot be ended has ended already.
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// A running daemon; ended when dropped.
pub(super) struct Child {
    process: std::process::Child,
    socket: PathBuf,
    token: String,
    /// From its start to its first answer.
    pub(super) started_in: Duration,
}

impl Child {
    /// Starts a daemon with its store in `home`; with `fake`, one with keys and store in memory.
    pub(super) fn start(home: &Path, fake: bool) -> Result<Child, Failure> {
        let socket = home.join("k.sock");
        let mut command = Command::new(std::env::current_exe()?);
        if fake {
            command.args(["server", "-dev", "-dev-fake-token"]);
            command.arg(format!("-dev-root-token-id={TOKEN}"));
            command.arg(format!("-dev-listen-address=unix://{}", socket.display()));
        } else {
            let config = home.join("bench.hcl");
            std::fs::write(&config, configuration(home, &socket, &dev::library(false)?.library))?;
            command.args(["server", "-config"]).arg(config);
        }
        let begun = Instant::now();
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        RUNNING.store(i32::try_from(process.id()).unwrap_or(0), Ordering::Relaxed);
        let mut child = Child { process, socket, token: TOKEN.into(), started_in: Duration::ZERO };
        while std::os::unix::net::UnixStream::connect(child.framed_socket()).is_err() {
            if let Some(status) = child.process.try_wait()? {
                return Err(Failure::new(format!("the daemon to be measured ended at once: {status}")));
            }
            if begun.elapsed() > START_MAX {
                return Err(Failure::new("the daemon to be measured does not start"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.started_in = begun.elapsed();
        if !fake {
            child.token.clear();
            let data = super::runtime()?.block_on(child.ask(Verb::Write, "sys/init", json!({})))?;
            data["root_token"].as_str().unwrap_or_default().clone_into(&mut child.token);
        }
        Ok(child)
    }

    fn framed_socket(&self) -> PathBuf {
        self.socket.with_extension("sock.framed")
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// So many connections.
    pub(super) async fn clients(&self, count: usize) -> Result<Vec<Framed>, Failure> {
        let identity = Identity { token: Secret::from(self.token.as_str()), namespace: String::new() };
        let mut clients = Vec::new();
        for _ in 0..count {
            let class = proto::Class::Interactive;
            clients.push(Framed::connect(&self.framed_socket(), &identity, class, None).await?);
        }
        Ok(clients)
    }

    async fn ask(&self, verb: Verb, path: &str, data: Value) -> Result<Value, Failure> {
        let mut http = Http::new(&self.socket);
        http.token = (!self.token.is_empty()).then(|| Secret::from(self.token.as_str()));
        let data: Data = data.as_object().cloned().unwrap_or_default();
        let body = http.request(verb, path, &data).await?.success()?.json();
        Ok(if body["data"].is_object() { body["data"].clone() } else { body })
    }

    /// A managed key and a Transit key of the same name.
    pub(super) async fn prepare_key(&self, key: BenchKey, name: &str) -> Result<(), Failure> {
        let mounted = self.ask(Verb::Read, "sys/mounts", json!({})).await?;
        if mounted.get("transit/").is_none() {
            self.ask(Verb::Write, "sys/mounts/transit", json!({"type": "transit"})).await?;
        }
        let mut settings = json!({
            "library": dev::LIBRARY, "token_label": dev::TOKEN, "key_label": name,
            "allow_generate_key": true, "any_mount": true,
        });
        let more = match key {
            BenchKey::P256 => json!({"mechanism": "0x1041", "curve": "P256"}),
            BenchKey::Rsa2048 => json!({"mechanism": "0x0001", "key_bits": 2048}),
        };
        if let (Some(settings), Some(more)) = (settings.as_object_mut(), more.as_object()) {
            settings.extend(more.clone());
        }
        self.ask(Verb::Write, &format!("sys/managed-keys/pkcs11/{name}"), settings).await?;
        let key = json!({"type": "managed_key", "managed_key_name": name});
        self.ask(Verb::Write, &format!("transit/keys/{name}"), key).await.map(drop)
    }

    /// A CA on the managed key of this name, and requests for it to sign.
    pub(super) async fn prepare_authority(&self, key: &str, home: &Path) -> Result<Work, Failure> {
        self.ask(Verb::Delete, "sys/mounts/pki", json!({})).await?;
        let mount = json!({"type": "pki", "config": {"max_lease_ttl": "87600h"}});
        self.ask(Verb::Write, "sys/mounts/pki", mount).await?;
        let root = json!({"managed_key_name": key, "common_name": "bench", "ttl": "87600h"});
        self.ask(Verb::Write, "pki/root/generate/kms", root).await?;
        let role = json!({"key_type": "any", "allow_any_name": true, "ttl": "24h"});
        self.ask(Verb::Write, "pki/roles/bench", role).await?;
        let requests = (0..REQUESTS).map(|number| request(home, number)).collect::<Result<_, _>>()?;
        Ok(Work::Certify { role: "bench".into(), requests })
    }
}

/// A PKCS#10 request (DER), made by openssl.
fn request(home: &Path, number: usize) -> Result<bytes::Bytes, Failure> {
    let (name, out) = (format!("host-{number}.example.com"), home.join("request.der"));
    let made = Command::new("openssl")
        .args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-outform", "DER"])
        .args(["-keyout", "/dev/null", "-subj", &format!("/CN={name}")])
        .args(["-addext", &format!("subjectAltName=DNS:{name}"), "-out"])
        .arg(&out)
        .output()
        .map_err(|error| Failure::new(format!("openssl: {error}; it makes the requests to be signed")))?;
    if !made.status.success() {
        return Err(Failure::new(format!("openssl: {}", String::from_utf8_lossy(&made.stderr).trim())));
    }
    Ok(std::fs::read(out)?.into())
}

fn configuration(home: &Path, socket: &Path, library: &Path) -> String {
    let (home, socket, library) = (home.display(), socket.display(), library.display());
    let (name, pin) = (dev::LIBRARY, dev::PIN);
    format!(
        r#"
        listener "unix" {{ address = "{socket}" }}
        listener "unix" {{
          address  = "{socket}.framed"
          protocol = "framed"
        }}
        storage "redb" {{ path = "{home}/keyway.redb" }}
        seal "file" {{ path = "{home}/seal.key" }}
        kms_library "pkcs11" {{
          name    = "{name}"
          library = "{library}"
          profile = "softhsm"
          pin     = "{pin}"
        }}
        limits {{ connections_per_uid = 2048 }}
        "#
    )
}

impl Drop for Child {
    fn drop(&mut self) {
        end_running();
        let _ = self.process.wait();
    }
}
