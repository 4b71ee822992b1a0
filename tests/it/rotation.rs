//! The keys of the store are rotated while it is written and read, and where a record of it is damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use keyway::client::Http;
use keyway::model::Verb;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT, Setup, wait_for};
use crate::openssl;
use crate::token::Token;

const WRITERS: usize = 4;
const READERS: usize = 3;
/// Rotations of either kind, with so many writes between them.
const ROTATIONS: usize = 6;
const WRITES_BETWEEN: usize = 25;

/// What was answered, by its path: a text that must be found there.
type Answered = Arc<Mutex<BTreeMap<String, String>>>;

async fn ask(http: &mut Http, verb: Verb, path: &str, data: Value) -> Value {
    let answer = http.request(verb, path, data.as_object().unwrap()).await.unwrap();
    assert!(answer.status < 300, "{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    if answer.body.is_empty() { Value::Null } else { answer.json()["data"].clone() }
}

async fn until_rotated(daemon: &Daemon, good: impl Fn(&Value) -> bool) -> Value {
    let begun = std::time::Instant::now();
    loop {
        let status = daemon.read("sys/key-status").await;
        if good(&status) {
            return status;
        }
        assert!(begun.elapsed() < LIMIT, "{status}\n{}", daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn restart(token: &Token, mut daemon: Daemon) -> Daemon {
    daemon.signal("TERM");
    assert!(daemon.ended().success(), "{}", daemon.log());
    let root_token = daemon.root_token.clone();
    drop(daemon);
    let mut daemon = Daemon::start(token, Setup::default());
    daemon.root_token = root_token;
    daemon
}

/// Issues certificates, makes policies, and replaces one of its own, until it is stopped.
async fn write(mut http: Http, writer: usize, csr: String, answered: Answered, stop: Arc<AtomicBool>) {
    let policy = |text: &str| json!({"policy": format!("path \"{text}\" {{ policy = \"read\" }}")});
    for turn in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (own, text) = (format!("sys/policies/acl/own-{writer}-{turn}"), format!("{writer}/{turn}"));
        ask(&mut http, Verb::Write, &own, policy(&text)).await;
        answered.lock().insert(own, text.clone());
        let last = format!("sys/policies/acl/last-{writer}");
        // Nobody else looks at it before it is answered.
        answered.lock().remove(&last);
        ask(&mut http, Verb::Write, &last, policy(&text)).await;
        answered.lock().insert(last, text);
        let data = json!({"csr": csr, "common_name": "a.example.com"});
        let issued = ask(&mut http, Verb::Write, "pki/sign/any", data).await;
        let serial = issued["serial_number"].as_str().unwrap();
        answered.lock().insert(format!("pki/cert/{serial}"), "BEGIN CERTIFICATE".into());
    }
}

/// Reads what was answered, over and over.
async fn read(mut http: Http, answered: Answered, stop: Arc<AtomicBool>, reads: Arc<AtomicUsize>) {
    while !stop.load(Ordering::Relaxed) {
        let paths: Vec<String> = answered.lock().keys().filter(|path| !path.contains("last-")).cloned().collect();
        for path in paths.into_iter().take_while(|_| !stop.load(Ordering::Relaxed)) {
            let found = ask(&mut http, Verb::Read, &path, json!({})).await;
            let expected = answered.lock()[&path].clone();
            assert!(found.to_string().contains(&expected), "{path}: {found}");
            reads.fetch_add(1, Ordering::Relaxed);
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn under_rotations_writers_and_readers_lose_nothing() {
    let token = Token::new();
    let mut daemon = Daemon::new(&token).await;
    daemon.certificate_authority().await;
    openssl::request(&daemon.folder, "a", openssl::P256, "DNS:a.example.com");
    let csr = std::fs::read_to_string(daemon.folder.join("a.csr")).unwrap();
    let (answered, stop, reads) = <(Answered, Arc<AtomicBool>, Arc<AtomicUsize>)>::default();
    let http = || {
        let mut http = daemon.http();
        http.deadline = Some(LIMIT);
        http
    };
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let (answered, stop) = (Arc::clone(&answered), Arc::clone(&stop));
        tasks.push(tokio::spawn(write(http(), writer, csr.clone(), answered, stop)));
    }
    for _ in 0..READERS {
        let (answered, stop, reads) = (Arc::clone(&answered), Arc::clone(&stop), Arc::clone(&reads));
        tasks.push(tokio::spawn(read(http(), answered, stop, reads)));
    }
    for _ in 0..ROTATIONS {
        let (written, read) = (answered.lock().len(), reads.load(Ordering::Relaxed));
        daemon.write("sys/rotate", json!({})).await;
        daemon.write("sys/rotate/root", json!({})).await;
        let begun = std::time::Instant::now();
        while answered.lock().len() < written + WRITES_BETWEEN || reads.load(Ordering::Relaxed) < read + WRITES_BETWEEN
        {
            assert!(begun.elapsed() < LIMIT && !tasks.iter().any(|task| task.is_finished()), "{}", daemon.log());
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let rotated = until_rotated(&daemon, |status| status["old_terms"] == json!([])).await;
    assert_eq!((&rotated["term"], &rotated["records_damaged"]), (&json!(ROTATIONS + 1), &json!(0)), "{rotated}");
    assert!(daemon.log().contains("no record is under an older key"), "{}", daemon.log());
    daemon = restart(&token, daemon);
    let status = daemon.read("sys/key-status").await;
    assert_eq!((&status["term"], &status["old_terms"]), (&json!(ROTATIONS + 1), &json!([])), "{status}");
    let answered = std::mem::take(&mut *answered.lock());
    assert!(answered.len() > ROTATIONS * WRITES_BETWEEN);
    for (path, expected) in answered {
        let found = daemon.read(&path).await;
        assert!(found.to_string().contains(&expected), "{path}: {found}");
    }
}

/// Changes one byte of what the file holds of a long record, in each copy of it. Answers what stands before that byte.
fn damage(file: &mut [u8], name: &[u8]) -> Vec<Vec<u8>> {
    /// Well within the value, which stands behind the name; and so many bytes from there are its own.
    const BEHIND: usize = 4_000;
    const LONG: usize = 8_192;
    // What is encrypted looks like nothing: there, the name stands before its value and not in some index.
    let is_random = |block: &[u8]| block.iter().collect::<BTreeSet<_>>().len() > 180;
    let is_value = |at: &usize| {
        let value = file.get(at + BEHIND..at + BEHIND + LONG).filter(|_| file[*at..].starts_with(name));
        value.is_some_and(|value| value.chunks(512).all(is_random))
    };
    let places: Vec<usize> = (0..file.len()).filter(is_value).map(|at| at + BEHIND).collect();
    assert!(!places.is_empty(), "the record is not in the file");
    let before = places.iter().map(|at| file[at - 32..*at].to_vec()).collect();
    places.into_iter().for_each(|at| file[at] ^= 1);
    before
}

/// Takes that back.
fn mend(file: &mut [u8], damaged: &[Vec<u8>]) {
    let is_there = |at: &usize| damaged.iter().any(|before| file[..*at].ends_with(before));
    let places: Vec<usize> = (32..file.len()).filter(is_there).collect();
    assert!(!places.is_empty(), "the record is not in the file any more");
    places.into_iter().for_each(|at| file[at] ^= 1);
}

#[tokio::test]
async fn a_damaged_record_is_told_and_keeps_its_key_until_it_is_mended() {
    let token = Token::new();
    let mut daemon = Daemon::new(&token).await;
    daemon.certificate_authority().await;
    // Of so many names that its record fills pages of its own.
    let names: Vec<String> = (0..600).map(|index| format!("DNS:host-{index}.example.com")).collect();
    openssl::request(&daemon.folder, "a", openssl::P256, &names.join(","));
    let csr = std::fs::read_to_string(daemon.folder.join("a.csr")).unwrap();
    let issued = daemon.write("pki/sign/any", json!({"csr": csr, "common_name": "host-0.example.com"})).await;
    let certificate = format!("pki/cert/{}", issued["serial_number"].as_str().unwrap());
    daemon.write("sys/policies/acl/p", json!({"policy": "path \"p\" { policy = \"read\" }"})).await;
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    let root_token = daemon.root_token.clone();
    drop(daemon);
    let path = token.folder.path().join("keyway.redb");
    let name = issued["serial_number"].as_str().unwrap().to_owned();
    let names = [name.clone(), name.replace(':', "-"), name.replace(':', "")];
    let mut file = std::fs::read(&path).unwrap();
    let name = names.iter().find(|name| file.windows(name.len()).any(|part| part == name.as_bytes())).unwrap();
    let damaged = damage(&mut file, name.as_bytes());
    std::fs::write(&path, file).unwrap();
    daemon = Daemon::start(&token, Setup::default());
    daemon.root_token = root_token;

    for term in [2, 3] {
        daemon.write("sys/rotate", json!({})).await;
        let is_done = |status: &Value| status["records_damaged"] == 1 && status["old_terms"] == json!([1]);
        until_rotated(&daemon, |status| status["term"] == term && is_done(status)).await;
    }
    let answer = daemon.ask(Verb::Read, &certificate, json!({})).await;
    assert!(answer.status == 503 && String::from_utf8_lossy(&answer.body).contains("restore"), "{:?}", answer.body);
    wait_for("the metric", || (daemon.metric("keyway_store_records_damaged ") == 1.0).then_some(()));
    let log = daemon.log();
    assert_eq!(log.matches("A RECORD IS DAMAGED").count(), 1, "{log}");
    assert!(log.contains(name.as_str()) && !log.contains("no record is under an older key"), "{log}");
    assert!(daemon.read("sys/policies/acl/p").await["policy"].as_str().unwrap().contains('p'));

    // What is mended opens under the first key, which is still there.
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    let root_token = daemon.root_token.clone();
    drop(daemon);
    let mut file = std::fs::read(&path).unwrap();
    mend(&mut file, &damaged);
    std::fs::write(&path, file).unwrap();
    daemon = Daemon::start(&token, Setup::default());
    daemon.root_token = root_token;
    let status = until_rotated(&daemon, |status| status["old_terms"] == json!([])).await;
    assert_eq!((&status["records_damaged"], &status["term"]), (&json!(0), &json!(3)));
    assert!(daemon.read(&certificate).await["certificate"].as_str().unwrap().contains("BEGIN CERTIFICATE"));
    assert!(daemon.log().contains("no record is under an older key"), "{}", daemon.log());
}
