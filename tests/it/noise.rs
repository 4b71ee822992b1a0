//! What a tenant does at the daemon's door beside another who asks for one signature after the other: noise of every kind over
//! many connections. By counts of what each was answered while both asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use keyway::client::{Framed, Identity};
use keyway::model::{Secret, Verb};
use keyway::wire::proto;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::daemon::{LIMIT, Setup, wait_for};
use crate::rig::{Rig, probing};
use crate::tenants::{ask, write};

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
    /// Sends the bytes one by one, without an end.
    Slow,
    /// Sends the bytes, and reads until the daemon hangs up.
    Framed,
}

/// A flood that goes on until it is dropped, on a thread of its own.
struct Flood {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn start(rig: &Rig, noise: &Noise, connections: usize) -> Flood {
        let (stop, done) = <(Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let (socket, noise) = (rig.daemon.socket(), noise.clone());
        let thread = std::thread::spawn({
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let all = (0..connections).map(|_| noise.make(&socket, &stop, &done));
                runtime.block_on(futures_util::future::join_all(all));
            }
        });
        Flood { stop, done, thread: Some(thread) }
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn until_done(&self, more: u64) {
        let before = self.done();
        wait_for("a flood", || {
            (self.done() >= before + more || self.thread.as_ref().unwrap().is_finished()).then_some(())
        });
    }

    fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Noise {
    fn http(what: &'static str, status: u16, verb: &str, path: &str, headers: &str, body: &str) -> Noise {
        let length = body.len();
        let text = format!("{verb} /v1/{path} HTTP/1.1\r\nHost: k\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        Noise { what, wire: Wire::Http(status), bytes: text.into_bytes().into() }
    }

    async fn make(&self, socket: &Path, stop: &AtomicBool, done: &AtomicU64) {
        let path: PathBuf =
            if self.wire == Wire::Framed { socket.with_extension("sock.framed") } else { socket.to_owned() };
        let mut kept = None;
        while !stop.load(Ordering::Relaxed) {
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => UnixStream::connect(&path).await.unwrap(),
            };
            match self.wire {
                Wire::Http(status) | Wire::Fresh(status) => {
                    stream.write_all(&self.bytes).await.unwrap();
                    let head = answer(&mut stream).await;
                    assert!(
                        head.starts_with(&format!("HTTP/1.1 {status}")) || head.starts_with("HTTP/1.1 503"),
                        "{}: {head}",
                        self.what
                    );
                    kept = Some(stream)
                        .filter(|_| matches!(self.wire, Wire::Http(_)) && !head.contains("connection: close"));
                }
                Wire::Slow => {
                    for byte in self.bytes.iter() {
                        stream.write_all(&[*byte]).await.unwrap();
                        done.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
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

/// Reads an answer; its head.
async fn answer(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let read = stream.read_buf(&mut bytes).await.unwrap();
        if let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if bytes.len() >= end + 4 + length.unwrap_or(0_usize) {
                return head;
            }
        }
        assert!(read > 0, "the connection ended within {:?}", String::from_utf8_lossy(&bytes));
    }
}

async fn token(rig: &Rig, namespace: &str, policy: &str) -> String {
    write(&rig.daemon, namespace, "sys/policies/acl/all", json!({"policy": EVERYTHING})).await;
    let made =
        ask(&rig.daemon, namespace, Verb::Write, "auth/token/create", json!({"policies": [policy]})).await.json();
    made["auth"]["client_token"].as_str().unwrap().to_owned()
}

async fn street() -> (Rig, Vec<Noise>, Identity) {
    let more = format!("{}namespace \"a\" {{}}\nnamespace \"b\" {{}}\n", probing("")).leak();
    let setup = Setup { more, stanza: "max_sessions = 2", ..Setup::default() };
    let rig = Rig::null(&["one"], &["doc-a", "doc-b", "ca"], setup).await;
    rig.key_in("a", "doc-a", json!({"token_label": "one"})).await;
    rig.key_in("b", "doc-b", json!({"token_label": "one"})).await;
    let managed = json!({
        "library": "hsm", "token_label": "one", "key_label": "ca", "mechanism": "0x1041", "curve": "P256", "any_mount": true,
    });
    write(&rig.daemon, "a", "sys/managed-keys/pkcs11/ca", managed).await;
    write(&rig.daemon, "a", "sys/mounts/pki", json!({"type": "pki"})).await;
    write(&rig.daemon, "a", "pki/root/generate/kms", json!({"managed_key_name": "ca", "common_name": "Root"})).await;
    let (of_a, poor, of_b) =
        (token(&rig, "a", "all").await, token(&rig, "a", "nothing").await, token(&rig, "b", "all").await);
    let by = |token: &str| format!("X-Vault-Token: {token}\r\nX-Vault-Namespace: a\r\n");
    let (rich, poor, wrong) = (by(&of_a), by(&poor), by("hvs.wrong"));
    let values: Value = (0..100_000).collect();
    let large = json!({"values": values, "text": "x".repeat(1 << 18)}).to_string();
    let rule = |number| format!("path \"some/long/path/{number}/*\" {{\n  capabilities = [\"read\"]\n}}\n");
    let policy = json!({"policy": (0..1_500).map(rule).collect::<String>()}).to_string();
    let paths = json!({"paths": (0..1_000).map(|number| format!("some/{number}/x")).collect::<Vec<_>>()}).to_string();
    let input = STANDARD.encode("x");
    let batch = json!({"batch_input": vec![json!({"input": input}); 1_000]}).to_string();
    let wrapped = format!("{rich}X-Vault-Wrap-TTL: 1s\r\n");
    let mut all = vec![
        Noise::http("lists", 200, "LIST", "sys/policies/acl", &rich, ""),
        Noise::http("certificates", 200, "LIST", "pki/certs", &rich, ""),
        Noise::http("unknown paths", 404, "GET", "no/such/path", &rich, ""),
        Noise::http("refused", 403, "GET", "sys/policies/acl/all", &poor, ""),
        Noise::http("bad tokens", 403, "GET", "sys/policies/acl/all", &wrong, ""),
        Noise::http("bad JSON", 400, "POST", "transit/sign/doc-a", &rich, "{\"input\":"),
        Noise::http("large bodies", 404, "POST", "no/such/path", &rich, &large),
        Noise::http("policies", 204, "POST", "sys/policies/acl/large", &rich, &policy),
        Noise::http("judgements", 200, "POST", "sys/capabilities-self", &rich, &paths),
        Noise::http("wraps", 200, "GET", "sys/mounts", &wrapped, ""),
        Noise::http("CRLs", 200, "GET", "pki/crl", "X-Vault-Namespace: a\r\n", ""),
        Noise::http("signatures", 200, "POST", "transit/sign/doc-a", &rich, &json!({"input": input}).to_string()),
        Noise::http("batches", 200, "POST", "transit/sign/doc-a", &rich, &batch),
    ];
    let fresh = Noise { what: "new connections", wire: Wire::Fresh(404), ..all[2].clone() };
    let slow = Noise { what: "slow heads", wire: Wire::Slow, bytes: vec![b'x'; 60_000].into() };
    let mut garbage = BytesMut::new();
    for _ in 0..16 {
        garbage.extend_from_slice(&[0, 0, 0, 8]);
        garbage.extend_from_slice(&[0xff; 8]);
    }
    let garbage = Noise { what: "garbage frames", wire: Wire::Framed, bytes: garbage.to_vec().into() };
    all.extend([fresh, slow, garbage]);
    (rig, all, Identity { token: Secret::from(of_b.as_str()), namespace: "b".into() })
}

/// One signature after the other, on a thread of its own; answers how many answers the flood had meanwhile.
fn alone(rig: &Rig, identity: &Identity, signatures: usize, flood: &Flood) -> u64 {
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

#[tokio::test]
async fn measure() {
    let (rig, all, identity) = street().await;
    for noise in &all {
        for connections in [2, 16, 64] {
            let flood = Flood::start(&rig, noise, connections);
            flood.until_done(connections as u64);
            let begun = std::time::Instant::now();
            let flooded =
                std::thread::scope(|scope| scope.spawn(|| alone(&rig, &identity, 30, &flood)).join().unwrap());
            println!(
                "{:20} {connections:3}: {:6.1} a signature, {:?} a signature",
                noise.what,
                flooded as f64 / 30.0,
                begun.elapsed() / 30
            );
            flood.stop();
        }
    }
}
