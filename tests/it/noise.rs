//! What a tenant does at the daemon's door beside another who asks for one signature after the other: noise of every kind over
//! many connections. By counts of what each was answered while both asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::client::{Framed, Identity};
use keyway::model::{Secret, Verb};
use keyway::wire::proto;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Notify;

use crate::daemon::{LIMIT, Setup, wait_for};
use crate::rig::{Rig, probing};
use crate::tenants::{ask, write};

/// Connections of a flood, and signatures beside it: so many that it weighs little when the flood reads what it was answered,
/// which it does for hundreds of its connections at once.
const CONNECTIONS: usize = 256;
const SIGNATURES: u64 = 32;
/// What a flood asked for before it stopped is still done, and keeps its connection until then: on a slow machine those of
/// many floods are open at once, all of one uid.
const ROOM: &str = "connections = 8192\n connections_per_uid = 8192";
/// Of one without a token.
const OCSP: &str = "X-Vault-Namespace: a\r\nContent-Type: application/ocsp-request\r\n";
const EVERYTHING: &str =
    "path \"*\" {\n  capabilities = [\"create\", \"read\", \"update\", \"patch\", \"delete\", \"list\", \"sudo\"]\n}\n";

/// What one connection of a flood does, again and again.
#[derive(Clone)]
struct Noise {
    what: &'static str,
    wire: Wire,
    bytes: Arc<[u8]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    /// Sends the bytes, and reads an answer that has this status.
    Http(u16),
    /// The same, each time on a connection of its own.
    Fresh(u16),
    /// The same as `Http`, byte by byte.
    Slow(u16),
    /// Sends the bytes, and reads until the daemon hangs up.
    Framed,
}

/// A flood that goes on until it is stopped, on a thread of its own.
struct Flood {
    stop: Arc<Notify>,
    /// What was answered, however.
    done: Arc<AtomicU64>,
    /// What was done that was asked for.
    served: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Floods, once every connection is there and something is answered.
    fn start(rig: &Rig, noise: &Noise, connections: usize) -> Flood {
        let (stop, connected) = <(Arc<Notify>, Arc<AtomicU64>)>::default();
        let (done, served) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let (socket, noise) = (rig.daemon.socket(), noise.clone());
        let thread = std::thread::spawn({
            let (stop, connected) = (Arc::clone(&stop), Arc::clone(&connected));
            let (done, served) = (Arc::clone(&done), Arc::clone(&served));
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let all = (0..connections).map(|_| noise.make(&socket, &connected, &done, &served));
                runtime.block_on(async {
                    tokio::select! {
                        _ = futures_util::future::join_all(all) => {}
                        () = stop.notified() => {}
                    }
                });
            }
        });
        let flood = Flood { stop, done, served, thread: Some(thread) };
        wait_for("a flood", || {
            assert!(!flood.thread.as_ref().unwrap().is_finished(), "the flood broke off");
            let is_there = connected.load(Ordering::Relaxed) >= connections as u64 && flood.done() > 0;
            is_there.then_some(())
        });
        flood
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    fn stop(mut self) {
        self.stop.notify_one();
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

impl Noise {
    fn http(what: &'static str, status: u16, verb: &str, path: &str, headers: &str, body: &str) -> Noise {
        let length = body.len();
        let text = format!("{verb} /v1/{path} HTTP/1.1\r\nHost: k\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        Noise { what, wire: Wire::Http(status), bytes: text.into_bytes().into() }
    }

    async fn make(&self, socket: &Path, connected: &AtomicU64, done: &AtomicU64, served: &AtomicU64) {
        let path: PathBuf =
            if self.wire == Wire::Framed { socket.with_extension("sock.framed") } else { socket.to_owned() };
        let mut kept = None;
        loop {
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => UnixStream::connect(&path).await.unwrap(),
            };
            connected.fetch_add(1, Ordering::Relaxed);
            match self.wire {
                Wire::Http(status) | Wire::Fresh(status) | Wire::Slow(status) => {
                    // What is too much is refused before it is written to its end.
                    let piece = if matches!(self.wire, Wire::Slow(_)) { 1 } else { self.bytes.len() };
                    for piece in self.bytes.chunks(piece) {
                        let _ = stream.write_all(piece).await;
                        tokio::task::yield_now().await;
                    }
                    if let Some(head) = answer(&mut stream).await {
                        let told = ["503", "429", &status.to_string()].map(|status| format!("HTTP/1.1 {status}"));
                        assert!(told.iter().any(|told| head.starts_with(told)), "{}: {head}", self.what);
                        let stays = !matches!(self.wire, Wire::Fresh(_)) && !head.contains("connection: close");
                        served.fetch_add(u64::from(head.starts_with(&told[2])), Ordering::Relaxed);
                        kept = Some(stream).filter(|_| stays && head.starts_with(&told[2]));
                    }
                }
                Wire::Framed => {
                    // It hangs up before it has read all of it.
                    let _ = stream.write_all(&self.bytes).await;
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                }
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Reads an answer; its head, in small letters but for the first line. None if the daemon hung up.
async fn answer(stream: &mut UnixStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return None;
        }
        let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if bytes.len() >= end + 4 + length.unwrap_or(0_usize) {
            return Some(head);
        }
    }
}

async fn token(rig: &Rig, namespace: &str, policy: &str) -> String {
    write(&rig.daemon, namespace, "sys/policies/acl/all", json!({"policy": EVERYTHING})).await;
    let made =
        ask(&rig.daemon, namespace, Verb::Write, "auth/token/create", json!({"policies": [policy]})).await.json();
    made["auth"]["client_token"].as_str().unwrap().to_owned()
}

/// A loud tenant and a lone one.
struct Street {
    rig: Rig,
    /// What the loud one does.
    noises: Vec<Noise>,
    lone: Identity,
    /// What the lone one asks over HTTP.
    judgements: Noise,
    signature: Noise,
}

impl Street {
    async fn new() -> Street {
        let more = format!("{}namespace \"a\" {{}}\nnamespace \"b\" {{}}\n", probing(ROOM)).leak();
        let setup = Setup { more, stanza: "max_sessions = 2", ..Setup::default() };
        let rig = Rig::null(&["one"], &["doc-a", "doc-b", "ca"], setup).await;
        rig.key_in("a", "doc-a", json!({"token_label": "one"})).await;
        rig.key_in("b", "doc-b", json!({"token_label": "one"})).await;
        let managed = json!({
            "library": "hsm", "token_label": "one", "key_label": "ca", "mechanism": "0x1041", "curve": "P256",
            "any_mount": true,
        });
        write(&rig.daemon, "a", "sys/managed-keys/pkcs11/ca", managed).await;
        write(&rig.daemon, "a", "sys/mounts/pki", json!({"type": "pki"})).await;
        let root = json!({"managed_key_name": "ca", "common_name": "Root"});
        write(&rig.daemon, "a", "pki/root/generate/kms", root).await;
        let (rich, poor) = (token(&rig, "a", "all").await, token(&rig, "a", "nothing").await);
        let lone = token(&rig, "b", "all").await;
        let [judgements, signature] = [judgements(&by("b", &lone)), signature("doc-b", &by("b", &lone))];
        let lone = Identity { token: Secret::from(lone.as_str()), namespace: "b".into() };
        Street { rig, noises: noises(&by("a", &rich), &by("a", &poor)), lone, judgements, signature }
    }
}

fn by(namespace: &str, token: &str) -> String {
    format!("X-Vault-Token: {token}\r\nX-Vault-Namespace: {namespace}\r\nKeyway-Deadline-Ms: 60000\r\n")
}

/// A judgement of a thousand paths.
fn judgements(by: &str) -> Noise {
    let paths: Vec<String> = (0..1_000).map(|number| format!("some/{number}/x")).collect();
    Noise::http("judgements", 200, "POST", "sys/capabilities-self", by, &json!({"paths": paths}).to_string())
}

fn signature(key: &str, by: &str) -> Noise {
    let input = json!({"input": STANDARD.encode("x")});
    Noise::http("signatures", 200, "POST", &format!("transit/sign/{key}"), by, &input.to_string())
}

/// Every kind of it, by headers of one who may do everything in its namespace and of one who may do nothing.
fn noises(rich: &str, poor: &str) -> Vec<Noise> {
    let large = json!({"values": (0..100_000).collect::<Value>(), "text": "x".repeat(1 << 18)}).to_string();
    let rule = |number| format!("path \"some/long/path/{number}/*\" {{\n  capabilities = [\"read\"]\n}}\n");
    let policy = json!({"policy": (0..1_500).map(rule).collect::<String>()}).to_string();
    let batch = json!({"batch_input": vec![json!({"input": STANDARD.encode("x")}); 1_000]}).to_string();
    let (wrong, wrapped) = (by("a", "hvs.wrong"), format!("{rich}X-Vault-Wrap-TTL: 1s\r\n"));
    let unknown = Noise::http("unknown paths", 404, "GET", "no/such/path", rich, "");
    // Sixteen frames of eight bytes.
    let garbage: Vec<u8> = [&[0, 0, 0, 8][..], &[0xff; 8]].concat().repeat(16);
    vec![
        Noise::http("lists", 200, "LIST", "sys/policies/acl", rich, ""),
        Noise::http("certificates", 200, "LIST", "pki/certs", rich, ""),
        Noise::http("refused", 403, "GET", "sys/policies/acl/all", poor, ""),
        Noise::http("bad tokens", 403, "GET", "sys/policies/acl/all", &wrong, ""),
        Noise::http("bad JSON", 400, "POST", "transit/sign/doc-a", rich, "{\"input\":"),
        Noise::http("large bodies", 404, "POST", "no/such/path", rich, &large),
        Noise::http("policies", 204, "POST", "sys/policies/acl/large", rich, &policy),
        Noise::http("wraps", 200, "GET", "sys/mounts", &wrapped, ""),
        Noise::http("CRLs", 200, "GET", "pki/crl", "X-Vault-Namespace: a\r\n", ""),
        Noise::http("OCSP requests", 200, "POST", "pki/ocsp", OCSP, "nonsense"),
        Noise::http("batches", 200, "POST", "transit/sign/doc-a", rich, &batch),
        judgements(rich),
        signature("doc-a", rich),
        Noise { what: "new connections", wire: Wire::Fresh(404), ..unknown.clone() },
        Noise { what: "slow heads", wire: Wire::Slow(404), ..unknown.clone() },
        Noise { what: "garbage frames", wire: Wire::Framed, bytes: garbage.into() },
        unknown,
    ]
}

/// One signature after the other, on a thread of its own; answers how many answers the flood had meanwhile.
fn alone(rig: &Rig, identity: &Identity, signatures: u64, flood: &Flood) -> u64 {
    let path = rig.daemon.socket().with_extension("sock.framed");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Framed::connect(&path, identity, proto::Class::Interactive, Some(LIMIT)).await.unwrap();
        let begun = flood.done();
        for _ in 0..signatures {
            let sign =
                proto::Sign { mount: "transit".into(), key: "doc-b".into(), input: "x".into(), ..Default::default() };
            client.sign(sign).await.unwrap();
        }
        flood.done() - begun
    })
}

/// The same over HTTP, of what `noise` asks; answers how much of what it asks for the flood was given meanwhile.
fn alone_over_http(rig: &Rig, noise: &Noise, requests: u64, flood: &Flood) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut stream = UnixStream::connect(rig.daemon.socket()).await.unwrap();
        let begun = flood.served();
        for _ in 0..requests {
            stream.write_all(&noise.bytes).await.unwrap();
            let head = answer(&mut stream).await.unwrap();
            assert!(head.starts_with("HTTP/1.1 200"), "{}: {head}", noise.what);
        }
        flood.served() - begun
    })
}

fn on_its_own_thread(ask: impl FnOnce() -> u64 + Send) -> u64 {
    std::thread::scope(|scope| scope.spawn(ask).join().unwrap())
}

/// Where each connection has its turn, a signature waits for about as many of them as there are beside most noises; where each
/// namespace has, for a few, and for what else the machine does: that alone may come to hundreds beside one noise.
#[tokio::test]
async fn no_noise_at_the_door_takes_signatures_from_another_namespace() {
    let Street { rig, noises, lone, .. } = Street::new().await;
    let mut told = Vec::new();
    for noise in &noises {
        let flood = Flood::start(&rig, noise, CONNECTIONS);
        let flooded = on_its_own_thread(|| alone(&rig, &lone, SIGNATURES, &flood));
        flood.stop();
        told.push((flooded / SIGNATURES, noise.what));
        assert!(flooded < SIGNATURES * 2 * CONNECTIONS as u64, "answers beside each signature: {told:?}");
    }
    told.sort_unstable();
    assert!(told[told.len() / 2].0 < CONNECTIONS as u64 / 2, "answers beside each signature: {told:?}");
}

/// Where all that takes long is done as it comes, each of a lone caller's waits for one of every connection.
#[tokio::test]
async fn what_takes_long_is_done_in_turn_for_each_namespace() {
    let Street { rig, noises, judgements, signature, .. } = Street::new().await;
    for noise in noises.iter().filter(|noise| ["judgements", "large bodies", "policies"].contains(&noise.what)) {
        let flood = Flood::start(&rig, noise, CONNECTIONS);
        for (ask, requests) in [(&judgements, 4), (&signature, 8)] {
            let flooded = on_its_own_thread(|| alone_over_http(&rig, ask, requests, &flood));
            let limit = requests * CONNECTIONS as u64 / 4;
            assert!(flooded < limit, "{}: {flooded} beside {requests} {}", noise.what, ask.what);
        }
        flood.stop();
    }
}
