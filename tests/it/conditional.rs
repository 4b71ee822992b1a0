//! Those who have it already: `If-Modified-Since`, where a mount is tuned to let it in.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::daemon::{Daemon, LIMIT, Setup, wait_for};
use crate::openssl::{P256, request};
use crate::token::Token;

/// What a CA is fetched by.
const OF_THE_CA: [&str; 8] = [
    "pki/ca",
    "pki/ca/pem",
    "pki/ca_chain",
    "pki/cert/ca",
    "pki/cert/ca_chain",
    "pki/issuer/default/json",
    "pki/issuer/default/der",
    "pki/issuer/default/pem",
];
/// What its CRL is fetched by.
const OF_THE_CRL: [&str; 6] = [
    "pki/crl",
    "pki/crl/pem",
    "pki/cert/crl",
    "pki/issuer/default/crl",
    "pki/issuer/default/crl/der",
    "pki/issuer/default/crl/pem",
];

/// An answer: its status, its head, and its body.
struct Told {
    status: u16,
    head: String,
    body: String,
}

impl Told {
    fn header(&self, name: &str) -> Option<String> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    }

    fn changed(&self) -> Option<String> {
        self.header("last-modified")
    }
}

fn ask(daemon: &Daemon, method: &str, path: &str, headers: &[(&str, &str)]) -> Told {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let text = format!("{method} /v1/{path} HTTP/1.1\r\nHost: k\r\nConnection: close\r\n{more}\r\n");
    stream.write_all(text.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Told { status, head: head.to_owned(), body: body.to_owned() }
}

fn since(daemon: &Daemon, path: &str, date: &str) -> Told {
    ask(daemon, "GET", path, &[("If-Modified-Since", date)])
}

/// When the daemon says it is.
fn now(daemon: &Daemon) -> String {
    ask(daemon, "GET", "sys/health", &[]).header("date").unwrap()
}

fn hours(count: i64) -> String {
    let span = Duration::from_secs(count.unsigned_abs() * 3600);
    let time = SystemTime::now();
    httpdate::fmt_http_date(if count < 0 { time - span } else { time + span })
}

/// Until an asker who fetched it just now is told that nothing changed.
fn until_settled(daemon: &Daemon, path: &str) -> Told {
    wait_for("a change to be over", || Some(since(daemon, path, &now(daemon))).filter(|told| told.status == 304))
}

async fn tune(daemon: &Daemon, more: serde_json::Value) {
    daemon.write("sys/mounts/pki/tune", more).await;
}

#[tokio::test]
async fn nobody_is_spared_a_fetch_where_the_mount_is_not_tuned() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.certificate_authority().await;
    // Long enough for it to have settled, were it tuned.
    let tuned = json!({"passthrough_request_headers": "If-Modified-Since"});
    tune(&daemon, tuned).await;
    assert_eq!(until_settled(&daemon, "pki/crl").changed(), None, "whether it is told when is another tuning");
    until_settled(&daemon, "pki/ca");
    tune(&daemon, json!({"passthrough_request_headers": [], "allowed_response_headers": []})).await;
    for path in OF_THE_CA.into_iter().chain(OF_THE_CRL) {
        let told = since(&daemon, path, &now(&daemon));
        assert_eq!((told.status, told.changed()), (200, None), "{path}");
    }
    // Told when, and not asked.
    tune(&daemon, json!({"allowed_response_headers": ["last-modified"]})).await;
    for path in OF_THE_CA.into_iter().chain(OF_THE_CRL) {
        let told = since(&daemon, path, &now(&daemon));
        assert!(told.status == 200 && told.changed().is_some(), "{path}: {}", told.head);
    }
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again_and_what_has_is_at_once() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.certificate_authority().await;
    let tuned = json!({"passthrough_request_headers": "if-modified-since,X-Other", "allowed_response_headers": "Last-Modified"});
    let answer = daemon.ask(keyway::model::Verb::Write, "sys/mounts/pki/tune", tuned).await;
    assert!(answer.json()["warnings"][0].as_str().unwrap().contains("[X-Other]"), "{:?}", answer.json());
    let shown = daemon.read("sys/mounts/pki/tune").await;
    assert_eq!(shown["passthrough_request_headers"], json!(["if-modified-since", "X-Other"]));
    assert_eq!(daemon.read("sys/mounts/pki").await["config"]["allowed_response_headers"], json!(["Last-Modified"]));
    until_settled(&daemon, "pki/ca");
    until_settled(&daemon, "pki/crl");
    for path in OF_THE_CA.into_iter().chain(OF_THE_CRL) {
        let whole = ask(&daemon, "GET", path, &[]);
        let date = whole.changed().unwrap();
        assert!(whole.status == 200 && !whole.body.is_empty(), "{path}: {}", whole.head);
        for method in ["GET", "HEAD"] {
            let told = ask(&daemon, method, path, &[("If-Modified-Since", &date)]);
            assert_eq!((told.status, told.body.as_str(), told.changed()), (304, "", whole.changed()), "{path}");
        }
        for odd in [hours(-1), hours(1), "yesterday".to_owned(), String::new()] {
            assert_eq!(since(&daemon, path, &odd).status, 200, "{path} {odd}");
        }
    }
    // Answers kept behind a token are whole.
    let headers =
        [("If-Modified-Since", &*now(&daemon)), ("X-Vault-Token", &daemon.root_token), ("X-Vault-Wrap-TTL", "60")];
    assert!(ask(&daemon, "GET", "pki/cert/ca", &headers).body.contains("wrap_info\":{"));

    // A new CRL is a new CRL for everyone at once; the CA is the same.
    let folder = tempfile::tempdir().unwrap();
    request(folder.path(), "www", P256, "DNS:www.example.com");
    let csr = std::fs::read_to_string(folder.path().join("www.csr")).unwrap();
    let leaf = daemon.write("pki/sign/any", json!({ "csr": csr })).await;
    let before = now(&daemon);
    daemon.write("pki/revoke", json!({"serial_number": leaf["serial_number"]})).await;
    for path in OF_THE_CRL {
        assert_eq!(since(&daemon, path, &before).status, 200, "{path}");
        assert_eq!(since(&daemon, path, &now(&daemon)).changed(), None, "{path}: not told before it is over");
    }
    for path in OF_THE_CA {
        assert_eq!(since(&daemon, path, &now(&daemon)).status, 304, "{path}");
    }
    until_settled(&daemon, "pki/crl");

    // Another default issuer is another CA and another CRL, however old they are.
    daemon.managed_key("two", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    let second =
        json!({"managed_key_name": "two", "common_name": "Second Root", "ttl": "87600h", "issuer_name": "two"});
    daemon.write("pki/root/generate/kms", second).await;
    until_settled(&daemon, "pki/issuer/two/crl/der");
    until_settled(&daemon, "pki/issuer/two/pem");
    let before = now(&daemon);
    daemon.write("pki/config/issuers", json!({"default": "two"})).await;
    for path in OF_THE_CA.into_iter().chain(OF_THE_CRL) {
        assert_eq!(since(&daemon, path, &before).status, 200, "{path}");
    }

    // The tuning outlives the daemon; what its clients have is fetched once more.
    let root_token = daemon.root_token.clone();
    drop(daemon);
    let before = hours(0);
    let mut daemon = Daemon::start(&token, Setup::default());
    daemon.root_token = root_token;
    assert_eq!(since(&daemon, "pki/ca", &before).status, 200);
    assert!(until_settled(&daemon, "pki/ca").changed().is_some());
}
