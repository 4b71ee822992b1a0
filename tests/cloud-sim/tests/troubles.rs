//! What can be ordered of any cloud: faults, times, ends.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::{Value, json};

use crate::binary;
use crate::client::{Cloud, ask};

const PATH: &str = "/common/discovery/instance";

fn get(cloud: &Cloud) -> std::io::Result<u16> {
    ask(cloud.address(), "GET", PATH, &[], "").map(|(status, _)| status)
}

fn order(cloud: &Cloud, trouble: Value) {
    cloud.fault(&json!({"trouble": trouble, "which": {"next": 1}}));
}

#[test]
fn connections_are_reset_before_and_after_the_work() {
    let cloud = Cloud::start(binary(), None, &["azure"]);
    for kind in ["reset", "reset-after", "refuse", "tls-abort", "tls-stranger"] {
        order(&cloud, json!({"kind": kind}));
        let error = get(&cloud).unwrap_err();
        assert!([ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind()), "{kind}: {error:?}");
        assert_eq!(get(&cloud).unwrap(), 200, "{kind}");
    }
    let report = cloud.report();
    assert_eq!(report["counts"]["operations"]["discovery"]["reset"], 2);
    assert_eq!(report["counts"]["operations"]["discovery"]["statuses"], json!({"200": 5}));
    assert_eq!(report["counts"]["connections"], 10);
}

#[test]
fn answers_are_late_as_ordered() {
    let cloud = Cloud::start(binary(), None, &["azure"]);
    cloud.steer("PUT", "/service", &json!({"ms": 120}));
    order(&cloud, json!({"kind": "slow", "ms": 130}));
    let began = Instant::now();
    assert_eq!(get(&cloud).unwrap(), 200);
    assert!(began.elapsed() >= Duration::from_millis(250));
    let began = Instant::now();
    assert_eq!(get(&cloud).unwrap(), 200);
    assert!(began.elapsed() >= Duration::from_millis(120));
}

#[test]
fn quotas_and_statuses_answer_in_the_clouds_words() {
    let cloud = Cloud::start(binary(), None, &["azure"]);
    order(&cloud, json!({"kind": "throttle", "retry_after_ms": 100}));
    assert_eq!(get(&cloud).unwrap(), 429);
    order(&cloud, json!({"kind": "status", "status": 502}));
    assert_eq!(get(&cloud).unwrap(), 502);
    cloud.fault(&json!({"trouble": {"kind": "status", "status": 500}, "which": {"every": 2}}));
    assert_eq!([get(&cloud).unwrap(), get(&cloud).unwrap()], [200, 500]);
    cloud.reset();
    assert_eq!([get(&cloud).unwrap(), get(&cloud).unwrap()], [200, 200]);
    // A request without a token is challenged, and costs nothing of the vault's quota.
    cloud.steer("PUT", "/quota", &json!({"per_second": 0.001, "burst": 2}));
    let asked = |token: &str| {
        let path = "/vault/v/keys?api-version=7.4";
        ask(cloud.address(), "GET", path, &[(token, "Bearer x")], "").unwrap().0
    };
    assert_eq!([asked("X-None"), asked("X-None"), asked("X-None")], [401, 401, 401]);
    assert_eq!([asked("Authorization"), asked("Authorization"), asked("Authorization")], [401, 401, 429]);
    assert_eq!(cloud.most_within("v", 60_000, 0), 3);
}

#[test]
fn answers_are_long_or_others_as_ordered() {
    let cloud = Cloud::start(binary(), None, &["azure"]);
    let get = || ask(cloud.address(), "GET", PATH, &[], "").unwrap();
    let own = get();
    order(&cloud, json!({"kind": "long", "bytes": 100_000}));
    let long = get();
    assert_eq!((long.0, long.1.len()), (200, own.1.len() + 100_000));
    assert_eq!(long.1.trim_end(), own.1);
    order(&cloud, json!({"kind": "answer", "status": 307, "body": "elsewhere", "location": "http://127.0.0.1:1/"}));
    assert_eq!(get(), (307, "elsewhere".to_owned()));
    order(&cloud, json!({"kind": "answer", "status": 200}));
    assert_eq!(get(), (200, String::new()));
    assert_eq!(get(), own);
    assert_eq!(cloud.report()["counts"]["operations"]["discovery"]["faulted"], 2);
}

/// A handshake, and one request over it.
fn over_tls(cloud: &Cloud, name: &str) -> Result<String, String> {
    let pem = std::fs::read_to_string(cloud.ca.as_ref().unwrap()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(<CertificateDer as rustls::pki_types::pem::PemObject>::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(cloud.address()).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, socket);
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    Ok(answer)
}

#[test]
fn certificates_are_the_clouds_or_a_strangers() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let cloud = Cloud::start(binary(), Some(&ca), &["azure", "--name", "other.example"]);
    for name in
        ["v.vault.azure.net", "h.managedhsm.azure.net", "login.microsoftonline.com", "localhost", "other.example"]
    {
        let answer = over_tls(&cloud, name).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{name}: {answer}");
    }
    assert!(over_tls(&cloud, "elsewhere.example").unwrap_err().contains("certificate"));
    order(&cloud, json!({"kind": "tls-stranger"}));
    assert!(over_tls(&cloud, "localhost").unwrap_err().contains("UnknownIssuer"));
    order(&cloud, json!({"kind": "tls-abort"}));
    assert!(over_tls(&cloud, "localhost").is_err());
    assert!(over_tls(&cloud, "localhost").is_ok());
}

/// Reads one answer of a connection that stays open.
fn next_answer(stream: &mut TcpStream) -> std::io::Result<usize> {
    stream.write_all(format!("GET {PATH} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes())?;
    let mut room = [0; 4096];
    stream.read(&mut room)
}

#[test]
fn connections_are_dropped_when_that_is_ordered() {
    let cloud = Cloud::start(binary(), None, &["azure"]);
    let mut stream = TcpStream::connect(cloud.address()).unwrap();
    assert!(next_answer(&mut stream).unwrap() > 0);
    assert!(next_answer(&mut stream).unwrap() > 0);
    cloud.steer("POST", "/connections/drop", &Value::Null);
    let mut room = [0; 1];
    assert_eq!(stream.read(&mut room).unwrap(), 0, "an end is all that comes");
    assert_eq!(get(&cloud).unwrap(), 200);
}

#[test]
fn it_ends_with_its_standard_input_and_when_told() {
    let cloud = Cloud::start(binary(), None, &["azure"]);
    assert!(cloud.end());
    let cloud = Cloud::start(binary(), None, &["azure"]);
    let mut idle = TcpStream::connect(cloud.address()).unwrap();
    assert!(next_answer(&mut idle).unwrap() > 0);
    let told = std::process::Command::new("kill").arg(cloud.id().to_string()).status().unwrap();
    assert!(told.success());
    assert!(cloud.end());
}

#[test]
fn what_cannot_be_understood_is_said_to_whoever_steers() {
    let cloud = Cloud::start(binary(), None, &["azure"]);
    let control = cloud.control().trim_start_matches("http://").to_owned();
    let (status, help) = ask(&control, "GET", "/", &[], "").unwrap();
    assert!(status == 200 && help.contains("PUT    /quota"), "{help}");
    for (method, path, body) in
        [("POST", "/faults", r#"{"trouble": {"kind": "x"}}"#), ("PUT", "/quota", "nothing"), ("GET", "/elsewhere", "")]
    {
        assert_eq!(ask(&control, method, path, &[], body).unwrap().0, 400, "{method} {path}");
    }
}
