//! A daemon of the test's own, and how to talk to it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use keyway::client::{Answer, Framed, Http, Identity};
use keyway::model::{Secret, Verb};
use keyway::wire::proto;
use serde_json::{Value, json};

use crate::token::{self, LABEL, PIN, Token};

/// How long anything may take that happens at all.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Waits until `done` answers something.
pub(crate) fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(begun.elapsed() < LIMIT, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A running daemon; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) folder: PathBuf,
    pub(crate) root_token: String,
}

/// What is particular about a daemon's configuration.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) pin: &'static str,
    pub(crate) library: Option<PathBuf>,
    /// The vendor profile; the token's own, if it is not given.
    pub(crate) profile: Option<&'static str>,
    /// More of the `kms_library`.
    pub(crate) stanza: &'static str,
    /// More of the command line.
    pub(crate) arguments: &'static [&'static str],
    /// More of the daemon's environment.
    pub(crate) environment: &'static [(&'static str, &'static str)],
    pub(crate) more: &'static str,
    /// The stanzas of seals; a key file, if there are none.
    pub(crate) seal: &'static str,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            pin: PIN,
            library: None,
            profile: None,
            stanza: "",
            arguments: &[],
            environment: &[],
            more: "",
            seal: "",
        }
    }
}

impl Daemon {
    /// Starts a daemon on this token and initialises it.
    pub(crate) async fn new(token: &Token) -> Daemon {
        Daemon::with(token, Setup::default()).await
    }

    pub(crate) async fn with(token: &Token, setup: Setup) -> Daemon {
        let mut daemon = Daemon::start(token, setup);
        let answer = daemon.http().request(Verb::Write, "sys/init", &Default::default()).await.unwrap();
        daemon.root_token = answer.success().unwrap().json()["root_token"].as_str().unwrap().to_owned();
        daemon
    }

    /// Starts a daemon on what an earlier one of this token left.
    pub(crate) fn start(token: &Token, setup: Setup) -> Daemon {
        let folder = token.folder.path().to_owned();
        let library = setup.library.unwrap_or_else(|| token::module().to_owned());
        let home = folder.display();
        let key_file = format!("seal \"file\" {{ path = \"{home}/seal.key\" }}");
        let config = format!(
            r#"
            listener "unix" {{ address = "{home}/http.sock" }}
            listener "unix" {{
              address  = "{home}/http.sock.framed"
              protocol = "framed"
            }}
            storage "redb" {{ path = "{home}/keyway.redb" }}
            {}
            kms_library "pkcs11" {{
              name    = "hsm"
              library = "{}"
              profile = "{}"
              pin     = "{}"
              {}
            }}
            telemetry {{ prometheus_listener = "unix://{home}/metrics.sock" }}
            publish_dir = "{home}/published"
            {}
            "#,
            if setup.seal.is_empty() { &key_file } else { setup.seal },
            library.display(),
            setup.profile.unwrap_or_else(|| token::profile()),
            setup.pin,
            setup.stanza,
            setup.more,
        );
        std::fs::write(folder.join("keyway.hcl"), config).unwrap();
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_keyway"))
            .arg("server")
            .arg(format!("-config={home}/keyway.hcl"))
            .args(setup.arguments)
            .envs(token.environment())
            .envs(setup.environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .spawn()
            .unwrap();
        let mut daemon = Daemon { child, folder, root_token: String::new() };
        wait_for("the daemon's socket", || {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                panic!("the daemon ended with {status}: {}", daemon.log());
            }
            std::os::unix::net::UnixStream::connect(daemon.socket().with_extension("sock.framed")).ok()
        });
        daemon
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("http.sock")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the daemon's end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        wait_for("the daemon's end", || self.child.try_wait().unwrap())
    }

    pub(crate) fn http(&self) -> Http {
        let mut http = Http::new(&self.socket());
        http.token = (!self.root_token.is_empty()).then(|| Secret::from(self.root_token.as_str()));
        http
    }

    pub(crate) async fn framed(&self) -> Framed {
        let identity = Identity { token: Secret::from(self.root_token.as_str()), namespace: String::new() };
        let path = self.socket().with_extension("sock.framed");
        Framed::connect(&path, &identity, proto::Class::Interactive, Some(LIMIT)).await.unwrap()
    }

    /// Asks for one thing over HTTP, whatever the answer.
    pub(crate) async fn ask(&self, verb: Verb, path: &str, data: Value) -> Answer {
        self.http().request(verb, path, data.as_object().unwrap()).await.unwrap()
    }

    /// Writes, and answers the `data` of a success. Given all the time there is: an RSA key takes a busy machine seconds.
    pub(crate) async fn write(&self, path: &str, data: Value) -> Value {
        let mut http = self.http();
        http.deadline = Some(LIMIT);
        let answer = http.request(Verb::Write, path, data.as_object().unwrap()).await.unwrap();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status < 300, "{path}: {} {text}\n{}", answer.status, self.log());
        answer.json()["data"].clone()
    }

    pub(crate) async fn read(&self, path: &str) -> Value {
        let answer = self.ask(Verb::Read, path, json!({})).await;
        assert!(answer.status < 300, "{path}: {} {:?}", answer.status, answer.body);
        answer.json()["data"].clone()
    }

    /// Writes what must be refused; answers the status and the first error.
    pub(crate) async fn refused(&self, path: &str, data: Value) -> (u16, String) {
        let answer = self.ask(Verb::Write, path, data).await;
        let error = answer.json()["errors"][0].as_str().unwrap_or_default().to_owned();
        assert!(answer.status >= 400, "{path} was answered {}", answer.status);
        (answer.status, error)
    }

    /// The fields of a managed key that any mount may use, generated when first used.
    pub(crate) fn fields(name: &str, more: &Value) -> Value {
        let mut data = json!({
            "library": "hsm", "token_label": LABEL, "key_label": name, "allow_generate_key": true, "any_mount": true,
        });
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        data
    }

    /// Registers such a key.
    pub(crate) async fn managed_key(&self, name: &str, more: Value) {
        self.write(&format!("sys/managed-keys/pkcs11/{name}"), Daemon::fields(name, &more)).await;
    }

    /// A Transit key `name` on a managed key of its own.
    pub(crate) async fn transit_key(&self, name: &str, more: Value) {
        self.managed_key(name, more).await;
        self.transit_key_on(name).await;
    }

    /// A Transit key on the managed key of its name.
    pub(crate) async fn transit_key_on(&self, name: &str) {
        if self.ask(Verb::Read, "sys/mounts/transit", json!({})).await.status == 400 {
            self.write("sys/mounts/transit", json!({"type": "transit"})).await;
        }
        let data = json!({"type": "managed_key", "managed_key_name": name});
        self.write(&format!("transit/keys/{name}"), data).await;
    }

    /// A PKI mount with a root on a P-256 key and a role `any` that allows everything.
    pub(crate) async fn certificate_authority(&self) -> String {
        self.managed_key("ca", json!({"mechanism": "0x1041", "curve": "P256"})).await;
        self.write("sys/mounts/pki", json!({"type": "pki", "config": {"max_lease_ttl": "87600h"}})).await;
        let root = json!({"managed_key_name": "ca", "common_name": "Test Root", "ttl": "87600h"});
        let root = self.write("pki/root/generate/kms", root).await;
        let role = json!({"key_type": "any", "allow_any_name": true, "allowed_uri_sans": "*", "ttl": "72h"});
        self.write("pki/roles/any", role).await;
        root["certificate"].as_str().unwrap().to_owned()
    }

    /// Runs the command line against this daemon.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_keyway"))
            .args(arguments)
            .env("VAULT_ADDR", format!("unix://{}", self.socket().display()))
            .env("VAULT_TOKEN", &self.root_token)
            .output()
            .unwrap()
    }

    /// The value of a metric, by the beginning of its line.
    pub(crate) fn metric(&self, line: &str) -> f64 {
        let text = scrape(&self.folder.join("metrics.sock"));
        let found = text.lines().find_map(|known| known.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("no metric {line:?} in\n{text}"))
    }
}

/// What Prometheus would read.
pub(crate) fn scrape(socket: &Path) -> String {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: keyway\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
    }
}
