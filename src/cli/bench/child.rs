//! The daemon being measured: a process of its own, so that its CPU time is its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::args::Burden;
use super::settings::Settings;
use super::{Failure, runtime};
use crate::client::{ClientError, Framed, Http, Identity};
use crate::model::{Data, MemberState, Secret, Verb};
use crate::wire::proto;

/// How long it may take to start.
const START_MAX: Duration = Duration::from_secs(120);
/// How long a token may take to come up, and a key to be proven.
const READY_MAX: Duration = Duration::from_secs(60);
/// Pause before asking again what may succeed later.
const PAUSE: Duration = Duration::from_millis(100);
/// States of a token that does its work.
const SERVING: [&str; 2] = [MemberState::Serving.label(), MemberState::Degraded.label()];
/// States of a token that may come to do so.
const COMING: [&str; 3] = [MemberState::Probing.label(), MemberState::Warming.label(), MemberState::BackingOff.label()];
/// What binds the token that asks in place of the root token: a rule for each path, as of a service that signs, and others
/// that do not fit.
const POLICY: &str = r#"
path "transit/sign/+" { capabilities = ["update"] }
path "transit/encrypt/+" { capabilities = ["update"] }
path "+/sign/+" { capabilities = ["update"] }
path "+/issue/+" { capabilities = ["update"] }
path "+/ocsp/*" { capabilities = ["read", "update"] }
path "secret/*" { capabilities = ["read", "list"] }
"#;
/// The root token of a daemon with keys in memory.
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
    /// What is measured is asked with this one, if there is one.
    bound: Option<String>,
    /// From its start to its first answer.
    pub(super) started_in: Duration,
}

impl Child {
    /// Starts a daemon with its store in `home`, and initialises it.
    pub(super) fn start(home: &Path, settings: &Settings) -> Result<Child, Failure> {
        let mut child = Child::start_again(home, settings, "")?;
        let data = runtime()?.block_on(child.ask("", Verb::Write, "sys/init", json!({})))?;
        data["root_token"].as_str().unwrap_or_default().clone_into(&mut child.token);
        runtime()?.block_on(child.settle())?;
        Ok(child)
    }

    /// Starts a daemon with its store in `home`, which was initialised before; `token` is its root token.
    pub(super) fn start_again(home: &Path, settings: &Settings, token: &str) -> Result<Child, Failure> {
        let (config, _) = settings.write(home)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["server", "-config"]).arg(config);
        let mut child = Child::spawn(command, home)?;
        token.clone_into(&mut child.token);
        Ok(child)
    }

    /// Starts a daemon with keys and store in memory.
    pub(super) fn start_fake(home: &Path) -> Result<Child, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["server", "-dev", "-dev-fake-token"]);
        command.arg(format!("-dev-root-token-id={TOKEN}"));
        command.arg(format!("-dev-listen-address=unix://{}", home.join("k.sock").display()));
        Child::spawn(command, home)
    }

    fn spawn(mut command: Command, home: &Path) -> Result<Child, Failure> {
        let begun = Instant::now();
        let log = home.join("log");
        let process =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log)?).spawn()?;
        RUNNING.store(i32::try_from(process.id()).unwrap_or(0), Ordering::Relaxed);
        let socket = home.join("k.sock");
        let mut child = Child { process, socket, token: TOKEN.into(), bound: None, started_in: Duration::ZERO };
        while std::os::unix::net::UnixStream::connect(child.framed_socket()).is_err() {
            if let Some(status) = child.process.try_wait()? {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(Failure::new(format!("the daemon to be measured ended at once: {status}\n{said}")));
            }
            if begun.elapsed() > START_MAX {
                return Err(Failure::new("the daemon to be measured does not start"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.started_in = begun.elapsed();
        Ok(child)
    }

    fn framed_socket(&self) -> PathBuf {
        self.socket.with_extension("sock.framed")
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The root token.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// So many connections to a namespace.
    pub(super) async fn clients(
        &self,
        namespace: &str,
        class: proto::Class,
        count: usize,
    ) -> Result<Vec<Framed>, Failure> {
        let token = self.bound.as_deref().unwrap_or(&self.token);
        connect(&self.framed_socket(), token, namespace, class, count).await
    }

    /// Waits until every token that is known yet is up: one of a pool that is still coming would be missing in what is
    /// measured.
    pub(super) async fn settle(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let status = self.ask("", Verb::Read, "sys/keyway/status", json!({})).await?;
            let members = status["members"].as_array().map(Vec::as_slice).unwrap_or_default();
            let up = |member: &&Value| SERVING.contains(&member["state"].as_str().unwrap_or_default());
            let Some(down) = members.iter().find(|member| !up(member)) else { return Ok(()) };
            let coming = down["state"].as_str().is_some_and(|state| COMING.contains(&state));
            if !coming || begun.elapsed() > READY_MAX {
                let (token, state, reason) = (&down["token"], &down["state"], &down["reason"]);
                return Err(Failure::new(format!("token {token} does not come up: it is {state}, reason {reason}")));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Takes on what the arguments say.
    pub(super) async fn take_on(&mut self, burden: Burden, home: &Path) -> Result<(), Failure> {
        if burden.policy {
            self.ask("", Verb::Write, "sys/policies/acl/bench", json!({"policy": POLICY})).await?;
            let made = self.ask("", Verb::Write, "auth/token/create", json!({"policies": ["bench"]})).await?;
            self.bound = made["auth"]["client_token"].as_str().map(str::to_owned);
        }
        if burden.audit {
            let options = json!({"file_path": home.join("audit.log")});
            self.ask("", Verb::Write, "sys/audit/bench", json!({"type": "file", "options": options})).await?;
        }
        Ok(())
    }

    /// A connection of the HTTP wire that asks what is measured.
    pub(super) fn http_bound(&self) -> Http {
        let mut http = self.http("");
        if let Some(bound) = &self.bound {
            http.token = Some(Secret::from(bound.as_str()));
        }
        http
    }

    /// What is at a path, as it is.
    pub(super) async fn read_raw(&self, path: &str) -> Result<bytes::Bytes, Failure> {
        Ok(self.http("").request(Verb::Read, path, &Data::new()).await?.success()?.body)
    }

    /// A connection of the HTTP wire to a namespace.
    pub(super) fn http(&self, namespace: &str) -> Http {
        let mut http = Http::new(&self.socket);
        http.token = (!self.token.is_empty()).then(|| Secret::from(self.token.as_str()));
        http.namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
        http.deadline = Some(READY_MAX);
        http
    }

    /// Asks for one thing in a namespace; again, while the daemon says that it may succeed later.
    pub(super) async fn ask(&self, namespace: &str, verb: Verb, path: &str, data: Value) -> Result<Value, Failure> {
        let mut http = self.http(namespace);
        let data: Data = data.as_object().cloned().unwrap_or_default();
        let begun = Instant::now();
        loop {
            match http.request(verb, path, &data).await?.success() {
                Ok(answer) => {
                    let body = answer.json();
                    return Ok(if body["data"].is_object() { body["data"].clone() } else { body });
                }
                Err(ClientError::Refused { retryable: true, .. }) if begun.elapsed() < READY_MAX => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(Failure::new(format!("{path}: {error}"))),
            }
        }
    }
}

/// Connections to whoever speaks the framed wire at `socket`.
pub(super) async fn connect(
    socket: &Path,
    token: &str,
    namespace: &str,
    class: proto::Class,
    count: usize,
) -> Result<Vec<Framed>, Failure> {
    let identity = Identity { token: Secret::from(token), namespace: namespace.to_owned() };
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Framed::connect(socket, &identity, class, None).await?);
    }
    Ok(clients)
}

impl Drop for Child {
    fn drop(&mut self) {
        end_running();
        let _ = self.process.wait();
    }
}
