//! What audit devices are told of those who are refused: greetings and what cannot be read, and of strangers only so much.

use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use keyway::client::{Framed, Identity};
use keyway::model::{Secret, Verb};
use keyway::wire::{PROTOCOL_VERSION, frame, proto};
use serde_json::{Value, json};

use crate::audit::{file_device, records};
use crate::daemon::{Daemon, LIMIT, Setup, wait_for};
use crate::rig::{Rig, TOKENS};

/// What nobody is to find in a record.
const WORDS: &str = "words-of-a-stranger";
/// The longest record of a stranger, in bytes.
const STRANGERS: usize = 1500;

async fn rig() -> Rig {
    let rig = Rig::null(&TOKENS, &["doc"], Setup::default()).await;
    rig.key("doc", json!({})).await;
    rig
}

async fn hash(daemon: &Daemon, input: &str) -> String {
    let told = daemon.write("sys/audit-hash/file", json!({"input": input})).await;
    told["hash"].as_str().unwrap().to_owned()
}

/// The records of this path, once there are so many. Nobody waits for those of what was refused.
fn of_path(log: &Path, path: &str, count: usize) -> Vec<Value> {
    wait_for("the records", || {
        let text = std::fs::read_to_string(log).unwrap();
        let whole = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found: Vec<Value> = whole.filter(|record| record["request"]["path"] == path).collect();
        (found.len() >= count).then_some(found)
    })
}

/// What `curl` is answered: the status.
fn curl(daemon: &Daemon, arguments: &[&str], path: &str) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket"]).arg(daemon.socket());
    let output = curl.args(arguments).arg(format!("http://keyway/v1/{path}")).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A frame with this call.
pub(crate) fn call(id: u64, operation: proto::call::Operation) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    frame::put_frame(&mut bytes, &proto::Call { id, operation: Some(operation), ..proto::Call::default() });
    bytes.to_vec()
}

/// A frame that greets, with the first id.
pub(crate) fn hello(token: &str) -> Vec<u8> {
    let (version, token, namespace) = (PROTOCOL_VERSION, token.to_owned(), String::new());
    call(1, proto::call::Operation::Hello(proto::Hello { version, token, namespace }))
}

/// Sends these bytes, and reads until the daemon closes.
fn send(daemon: &Daemon, bytes: &[u8]) {
    let mut stream = UnixStream::connect(daemon.socket().with_extension("sock.framed")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}

#[tokio::test]
async fn a_greeting_that_is_refused_is_recorded_with_the_hash_of_its_token() {
    let rig = rig().await;
    let daemon = &rig.daemon;
    let log = file_device(daemon, "file").await;
    let path = daemon.socket().with_extension("sock.framed");
    let greet = async |token: &str, namespace: &str| {
        let identity = Identity { token: Secret::from(token), namespace: namespace.to_owned() };
        Framed::connect(&path, &identity, proto::Class::Interactive, Some(LIMIT)).await.map(drop)
    };
    greet(&daemon.root_token, "").await.unwrap();
    assert!(greet("hvs.guessed", "").await.is_err());
    let found = of_path(&log, "sys/keyway/hello", 2);
    assert_eq!(found.iter().map(|record| &record["type"]).collect::<Vec<_>>(), ["request", "response"]);
    let known = hash(daemon, "hvs.guessed").await;
    for record in &found {
        let (request, auth) = (&record["request"], &record["auth"]);
        assert_eq!((&request["client_token"], &auth["client_token"]), (&json!(known), &json!(known)));
        assert_eq!(
            (&record["error"], &auth["policy_results"]["allowed"]),
            (&json!("permission denied"), &json!(false))
        );
        assert_eq!((&request["wire"], &request["id"]), (&json!("framed"), &found[0]["request"]["id"]));
        assert_eq!(request["peer"]["pid"], std::process::id());
    }
    // One that is good but for its namespace tells whose it was.
    assert!(greet(&daemon.root_token, "nowhere").await.is_err());
    let found = of_path(&log, "sys/keyway/hello", 4);
    assert_eq!(found[2]["auth"]["display_name"], "root");
    assert_eq!(found.len(), 4, "who is let in is recorded with what it asks");
}

#[tokio::test]
async fn what_cannot_be_read_is_recorded_as_a_request_that_was_refused() {
    let rig = rig().await;
    let daemon = &rig.daemon;
    let log = file_device(daemon, "file").await;
    let token = format!("X-Vault-Token: {}", daemon.root_token);
    let cut = format!("{{\"input\": \"{WORDS}\", ");
    for (arguments, path, status) in [
        (&["-d", &cut, "-H", &token][..], "transit/sign/doc", "400"),
        (&["-d", "{}", "-H", &token, "-H", "Keyway-Deadline-Ms: soon"], "transit/hmac/doc", "400"),
        (&["-X", "PATCH", "-d", "{}", "-H", &token], "sys/mounts/x", "415"),
    ] {
        assert_eq!(curl(daemon, arguments, path), status);
        for record in of_path(&log, path, 2) {
            assert_eq!(
                (&record["error"], &record["auth"]["display_name"]),
                (&json!("invalid_request"), &json!("root"))
            );
            assert_eq!(record["request"]["data"], Value::Null);
        }
    }
    let bad = proto::Request { path: "sys/mounts/y".into(), data: cut.clone().into(), ..Default::default() };
    let garbage = b"\0\0\0\x03\xff\xff\xff".to_vec();
    let asked = call(2, proto::call::Operation::Request(bad));
    send(daemon, &[hello(&daemon.root_token), asked, garbage.clone()].concat());
    let found = of_path(&log, "sys/keyway/call", 4);
    assert!(found.iter().all(|record| record["auth"]["display_name"] == "root"), "{found:?}");
    // Nobody is known that it could be told of.
    send(daemon, &garbage);
    assert_eq!(curl(daemon, &["-H", &token], "sys/mounts"), "200");
    assert_eq!(of_path(&log, "sys/keyway/call", 4).len(), 4);
    assert!(!std::fs::read_to_string(&log).unwrap().contains(WORDS));
}

#[tokio::test]
async fn strangers_write_little_of_their_own_and_little_of_it() {
    let rig = rig().await;
    let daemon = &rig.daemon;
    daemon.write("auth/unix/role/job", json!({"bound_uids": 1, "token_policies": "p"})).await;
    let log = file_device(daemon, "file").await;
    let before = records(&log).len();
    let long = WORDS.repeat(1500);
    let ask = async |token: Option<&str>, namespace: &str, path: &str, data: Value| {
        let mut http = daemon.http();
        http.token = token.map(Secret::from);
        http.namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
        http.request(Verb::Write, path, data.as_object().unwrap()).await.unwrap().status
    };
    let named: Value = json!({(WORDS): WORDS});
    for token in [None, Some("hvs.guessed")] {
        for (path, data) in [
            ("transit/sign/doc".to_owned(), json!({"input": long, (WORDS): named})),
            (format!("transit/sign/{long}"), json!({})),
            ("auth/unix/login".to_owned(), json!({"role": long, (WORDS): named})),
            ("auth/unix/login".to_owned(), json!({"role": named})),
            ("auth/unix/login".to_owned(), json!({"role": vec![named.clone(); 500]})),
            ("sys/wrapping/unwrap".to_owned(), json!({"token": long, "also": long})),
        ] {
            assert!(ask(token, "", &path, data.clone()).await >= 400, "{path}");
            assert!(ask(token, &long, &path, data).await >= 400, "{path}");
        }
    }
    let text = std::fs::read_to_string(&log).unwrap();
    let theirs: Vec<&str> = text.lines().skip(before).collect();
    assert!(theirs.len() >= 40, "they are recorded: {}", theirs.len());
    for line in &theirs {
        assert!(line.len() < STRANGERS, "{} bytes: {line}", line.len());
        // The beginning of a path or namespace that does not exist is all that they may say.
        let mut record: Value = serde_json::from_str(line).unwrap();
        record["request"]["path"] = Value::Null;
        record["request"]["namespace"] = Value::Null;
        assert!(!record.to_string().contains(WORDS), "{line}");
    }
    // What is not even a request is recorded so many times in a second, and no more.
    let mut many = Vec::new();
    (0..2000).for_each(|_| many.extend(hello("hvs.guessed")));
    let begun = std::time::Instant::now();
    send(daemon, &many);
    assert_eq!(daemon.ask(Verb::Read, "sys/mounts", json!({})).await.status, 200);
    let seconds = begun.elapsed().as_secs() as usize + 2;
    let noted = of_path(&log, "sys/keyway/hello", 2).len();
    assert!(noted <= 2 * 10 * seconds, "{noted} in {seconds} s");
}

/// Takes what comes, so that there is room for more; until it is dropped.
struct Collector {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    fn at(address: &Path) -> Collector {
        let socket = UnixDatagram::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut bytes = vec![0; 1 << 20];
            while !stopped.load(Ordering::Relaxed) {
                // Nothing has come for a while.
                let _ = socket.recv(&mut bytes);
            }
        });
        Collector { stop, thread: Some(thread) }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Has it signed so many times; each status and answer.
async fn sign(daemon: &Daemon, data: &Value, count: usize) -> Vec<(u16, String)> {
    let mut http = daemon.http();
    http.deadline = Some(LIMIT);
    let mut told = Vec::new();
    for _ in 0..count {
        let answer = http.request(Verb::Write, "transit/sign/doc", data.as_object().unwrap()).await.unwrap();
        told.push((answer.status, String::from_utf8_lossy(&answer.body).into_owned()));
    }
    told
}

#[tokio::test]
async fn a_record_that_is_too_long_for_a_datagram_fails_no_other() {
    let rig = rig().await;
    let daemon = &rig.daemon;
    let address = daemon.folder.join("syslog.sock");
    let _collector = Collector::at(&address);
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp_address = udp.local_addr().unwrap().to_string();
    let item = json!({"input": STANDARD.encode("x")});
    // More than a socket's buffer, of either kind.
    let long = json!({"batch_input": vec![item.clone(); 6000]});
    for (kind, options) in
        [("syslog", json!({"address": address})), ("socket", json!({"address": udp_address, "socket_type": "udp"}))]
    {
        daemon.write(&format!("sys/audit/{kind}"), json!({"type": kind, "options": options})).await;
        // Side by side, so that they come to the device together.
        let (refused, one, other) =
            tokio::join!(sign(daemon, &long, 5), sign(daemon, &item, 100), sign(daemon, &item, 100));
        for (status, told) in refused {
            let said = format!("audit device {kind}/: Message too long");
            assert!(status == 500 && told.contains(&said), "{status} {told}");
        }
        for (status, told) in one.into_iter().chain(other) {
            assert_eq!(status, 200, "{kind}: {told}");
        }
        assert!(!daemon.log().contains("the audit device cannot be written"), "{}", daemon.log());
        let off = daemon.ask(Verb::Delete, &format!("sys/audit/{kind}"), json!({})).await;
        assert_eq!(off.status, 204);
    }
    // Where another device takes it, it is done.
    daemon.write("sys/audit/syslog", json!({"type": "syslog", "options": {"address": address}})).await;
    let log = file_device(daemon, "file").await;
    assert_eq!(sign(daemon, &long, 1).await[0].0, 200);
    assert!(records(&log).iter().any(|record| record["request"]["data"]["batch_input"].is_array()));
}

#[test]
fn a_hangup_of_a_daemon_without_a_configuration_opens_its_records_anew_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("dev.sock");
    let said = folder.path().join("said");
    let address = format!("unix://{}", socket.display());
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_keyway"))
        .args(["server", "-dev", "-dev-root-token-id=root"])
        .arg(format!("-dev-listen-address={address}"))
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    let log = folder.path().join("audit.log");
    let keyway = |arguments: &[&str]| {
        let mut keyway = Command::new(env!("CARGO_BIN_EXE_keyway"));
        keyway.args(arguments).env("VAULT_ADDR", &address).env("VAULT_TOKEN", "root");
        keyway.output().unwrap().status.success()
    };
    wait_for("the daemon", || keyway(&["status"]).then_some(()));
    assert!(keyway(&["audit", "enable", "file", &format!("file_path={}", log.display())]));
    let old = log.with_extension("1");
    std::fs::rename(&log, &old).unwrap();
    let signal = |name: &str| {
        assert!(Command::new("kill").args([name, &daemon.id().to_string()]).status().unwrap().success());
    };
    signal("-HUP");
    wait_for("the new file", || log.exists().then_some(()));
    assert!(keyway(&["read", "sys/mounts"]));
    assert_eq!(records(&log).len(), 2);
    wait_for("a word of it", || {
        std::fs::read_to_string(&said).unwrap().contains("no configuration file to be read again").then_some(())
    });
    signal("-TERM");
    assert!(wait_for("the end", || daemon.try_wait().unwrap()).success());
}
