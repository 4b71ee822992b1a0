//! What is sent to be signed, imported or looked up by those who mean no good: on every endpoint that takes such a thing. Each is
//! refused by name, none disturbs the daemon, and none leaves anything behind.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::model::Verb;
use keyway::wire::proto;
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT};
use crate::openssl::openssl;
use crate::token::Token;

/// One value in DER.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut bytes = vec![tag];
    match length {
        0..=0x7f => bytes.push(length as u8),
        0x80..=0xff => bytes.extend([0x81, length as u8]),
        _ => bytes.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    bytes.extend(content);
    bytes
}

/// The parts of a value that is a sequence, each whole.
fn parts(value: &[u8]) -> Vec<&[u8]> {
    let header = |bytes: &[u8]| match bytes[1] {
        0x82 => (4, usize::from(bytes[2]) << 8 | usize::from(bytes[3])),
        0x81 => (3, usize::from(bytes[2])),
        short => (2, usize::from(short)),
    };
    let (start, length) = header(value);
    let mut rest = &value[start..start + length];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (start, length) = header(rest);
        let (part, behind) = rest.split_at(start + length);
        found.push(part);
        rest = behind;
    }
    found
}

fn pem(name: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {name}-----\n{}\n-----END {name}-----\n", lines.join("\n"))
}

/// A folder in which openssl makes requests.
struct Forge {
    folder: tempfile::TempDir,
}

impl Forge {
    fn new() -> Forge {
        Forge { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn run(&self, arguments: &[&str]) -> String {
        openssl(self.path(), arguments).unwrap_or_else(|error| panic!("openssl {arguments:?}: {error}"))
    }

    /// A request in DER for a new key of this kind, whose private half is `key.pem`, with these extensions.
    fn request(&self, key: &[&str], subject: &str, extensions: &str) -> Vec<u8> {
        let text = format!("[req]\ndistinguished_name=dn\nreq_extensions=ext\n[dn]\n[ext]\n{extensions}\n");
        std::fs::write(self.path().join("req.cnf"), text).unwrap();
        let make = ["req", "-new", "-nodes", "-keyout", "key.pem", "-subj", subject, "-config", "req.cnf", "-out"];
        self.run(&[&make[..], &["made.der", "-outform", "DER", "-newkey"], key].concat());
        std::fs::read(self.path().join("made.der")).unwrap()
    }

    fn p256(&self, subject: &str, extensions: &str) -> Vec<u8> {
        self.request(&["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], subject, extensions)
    }

    /// This request with some bytes in the place of others, as often as they are there, signed anew by its own key.
    fn altered(&self, request: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
        assert_eq!(from.len(), to.len());
        let parts = parts(request);
        let mut info = parts[0].to_vec();
        let mut at = 0;
        let mut count = 0;
        while let Some(found) = info[at..].windows(from.len()).position(|window| window == from) {
            at += found;
            info[at..at + to.len()].copy_from_slice(to);
            at += to.len();
            count += 1;
        }
        assert!(count > 0, "there is nothing to alter");
        std::fs::write(self.path().join("info.der"), &info).unwrap();
        self.run(&["dgst", "-sha256", "-sign", "key.pem", "-out", "signature", "info.der"]);
        let signature = std::fs::read(self.path().join("signature")).unwrap();
        der(0x30, &[&info[..], parts[1], &der(3, &[&[0], &signature[..]].concat())].concat())
    }
}

/// What is wrong with each, what its refusal says, and the request in DER.
fn odd_requests(forge: &Forge) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut all = Vec::new();
    for (what, told, key) in [
        ("an RSA key that is too small", "2048 to 8192 bits", &["rsa:1024"][..]),
        ("RSA that signs with SHA-1", "weak hash", &["rsa:2048", "-sha1"]),
        ("EC that signs with SHA-1", "weak hash", &["ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-sha1"]),
        ("a curve that is too small", "not supported", &["ec", "-pkeyopt", "ec_paramgen_curve:P-224"]),
        ("a curve of other people's", "has no certificates", &["ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"]),
        (
            "a curve described rather than named",
            "not",
            &["ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit"],
        ),
        ("a key of PSS alone", "not supported", &["rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"]),
        ("an Ed448 key", "not supported", &["ed448"]),
    ] {
        all.push((what, told, forge.request(key, "/CN=a.example", "")));
    }
    let named = forge.p256("/CN=aXb.example", "subjectAltName=DNS:a.example");
    all.push(("a NUL in its common name", "control characters", forge.altered(&named, b"aXb", b"a\0b")));
    let named = forge.p256("/CN=a.example", "subjectAltName=DNS:aXb.example");
    all.push(("a NUL in a DNS name", "not a valid DNS name", forge.altered(&named, b"aXb", b"a\0b")));
    let named = forge.p256("/CN=a.example", "subjectAltName=email:aXb@b.example");
    all.push(("a NUL in an email address", "not a valid email address", forge.altered(&named, b"aXb", b"a\0b")));
    let named = forge.p256("/CN=a.example", "1.2.3.4.5=ASN1:NULL\n1.2.3.4.6=ASN1:NULL");
    let twice = forge.altered(&named, &[0x2a, 3, 4, 6], &[0x2a, 3, 4, 5]);
    all.push(("an extension twice", "twice", twice));
    let long = "u".repeat(5000);
    all.push(("an endless name", "too long", forge.p256(&format!("/CN=a.example/UID={long}"), "")));
    let label = format!("subjectAltName=DNS:{}.example", "l".repeat(64));
    all.push(("a label too long", "not a valid DNS name", forge.p256("/CN=a.example", &label)));
    let many: Vec<String> = (0..1100).map(|index| format!("DNS:n{index}.example")).collect();
    let many = format!("subjectAltName={}", many.join(","));
    all.push(("names without end", "alternative names", forge.p256("/CN=a.example", &many)));
    let many = "/OU=u".repeat(70);
    all.push(("a subject without end", "more than 64 attributes", forge.p256(&format!("/CN=a.example{many}"), "")));
    let good = forge.p256("/CN=a.example", "");
    let own = parts(&good);
    let other = forge.p256("/CN=a.example", "");
    let mixed = der(0x30, &[own[0], own[1], parts(&other)[2]].concat());
    all.push(("another key's signature", "does not verify", mixed));
    all.push(("something behind it", "malformed", [&good[..], &[0]].concat()));
    all.push(("an end too early", "malformed", good[..good.len() - 1].to_vec()));
    all.push(("nothing in it", "malformed", der(0x30, &[])));
    all
}

/// Every path that signs a request.
const SIGNS: [&str; 7] = [
    "pki/sign/any",
    "pki/issuer/default/sign/any",
    "pki/sign-verbatim",
    "pki/sign-verbatim/any",
    "pki/issuer/default/sign-verbatim",
    "pki/root/sign-intermediate",
    "pki/issuer/default/sign-intermediate",
];

async fn certificates(daemon: &Daemon) -> usize {
    let answer = daemon.ask(Verb::List, "pki/certs", json!({})).await;
    answer.json()["data"]["keys"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn no_odd_request_is_signed_wherever_it_is_sent() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.certificate_authority().await;
    let forge = Forge::new();
    let odd = odd_requests(&forge);
    let good = forge.p256("/CN=good.example", "");
    let before = certificates(&daemon).await;
    for (what, told, request) in &odd {
        let text = pem("CERTIFICATE REQUEST", request);
        for path in SIGNS {
            let data = json!({"csr": text, "common_name": "good.example"});
            let (status, error) = daemon.refused(path, data).await;
            assert!(status == 400 && error.contains(told), "{what} at {path}: {status} {error}");
        }
    }
    // On the other wire: alone, and each beside one that is good, which is signed all the same.
    let framed = daemon.framed().await;
    for (what, told, request) in &odd {
        let (mount, role, csr) = ("pki".into(), "any".into(), request.clone().into());
        let alone =
            framed.sign_certificate(proto::SignCertificate { mount, role, csr, data: Default::default() }).await;
        let refused = alone.expect_err(what).to_string();
        assert!(refused.contains(told), "{what}: {refused}");
    }
    assert_eq!(certificates(&daemon).await, before);
    let csrs: Vec<_> = odd.iter().map(|(_, _, request)| request.clone().into()).chain([good.clone().into()]).collect();
    let (mount, role) = ("pki".into(), "any".into());
    let batch = proto::SignCertificates { mount, role, csrs, data: Default::default() };
    let results = framed.sign_certificates(batch).await.unwrap().results;
    let signed = |part: &proto::CertificateResult| {
        matches!(part.result, Some(proto::certificate_result::Result::Certificate(_)))
    };
    assert_eq!(results.iter().map(signed).collect::<Vec<_>>(), [vec![false; odd.len()], vec![true]].concat());
    // More than may come together.
    let csrs = vec![good.into(); 10_001];
    let (mount, role) = ("pki".into(), "any".into());
    let refused =
        framed.sign_certificates(proto::SignCertificates { mount, role, csrs, data: Default::default() }).await;
    assert!(refused.is_err());
    let framed = daemon.framed().await;
    framed.ping("still here".into()).await.unwrap();
    assert_eq!(certificates(&daemon).await, before + 1);
    assert!(!daemon.log().contains("this is a bug"), "{}", daemon.log());
}

/// What is no PEM, or none that is wanted.
fn odd_texts(forge: &Forge, root: &str) -> Vec<(&'static str, Value)> {
    forge.run(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "own.key"]);
    forge.run(&["req", "-x509", "-key", "own.key", "-subj", "/CN=odd", "-out", "own.pem"]);
    let key = std::fs::read_to_string(forge.path().join("own.key")).unwrap();
    let own = std::fs::read_to_string(forge.path().join("own.pem")).unwrap();
    let body: Vec<u8> =
        STANDARD.decode(root.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap();
    let named = |name: &str, bytes: &[u8]| json!(pem(name, bytes));
    let mut flipped = body.clone();
    let last = flipped.len() - 1;
    flipped.truncate(last);
    vec![
        ("nothing", json!("")),
        ("a word", json!("hello")),
        ("a NUL", json!("\0")),
        ("a number", json!(7)),
        ("an object", json!({"a": 1})),
        ("lists in lists", json!([[[["x"]]]])),
        ("PEM of nothing", json!("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")),
        ("PEM that does not end", json!("-----BEGIN CERTIFICATE-----\nMIIB\n")),
        ("PEM in PEM", json!(format!("-----BEGIN CERTIFICATE-----\n{root}-----END CERTIFICATE-----\n"))),
        ("a certificate cut short", named("CERTIFICATE", &flipped)),
        ("a certificate with more behind it", named("CERTIFICATE", &[&body[..], &[0]].concat())),
        ("a length beyond all bounds", named("CERTIFICATE", &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0])),
        ("nesting without end", named("CERTIFICATE", &[0x30, 0x80].repeat(20_000))),
        ("a private key", json!(key)),
        ("a key behind its certificate", json!(format!("{own}{key}"))),
        ("very many", json!(root.repeat(200))),
        ("very much", json!("A".repeat(300_000))),
    ]
}

#[tokio::test]
async fn no_odd_certificate_bundle_or_list_is_taken_wherever_it_is_sent() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let root = format!("{}\n", daemon.certificate_authority().await.trim());
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    let forge = Forge::new();
    let before =
        (certificates(&daemon).await, daemon.ask(Verb::List, "pki/issuers", json!({})).await.json()["data"].clone());
    for (what, value) in odd_texts(&forge, &root) {
        for (path, field) in [
            ("pki/config/ca", "pem_bundle"),
            ("pki/issuers/import/bundle", "pem_bundle"),
            ("pki/issuers/import/cert", "pem_bundle"),
            ("pki/intermediate/set-signed", "certificate"),
            ("pki/root/sign-self-issued", "certificate"),
            ("pki/issuer/default/sign-self-issued", "certificate"),
            ("pki/revoke", "certificate"),
            ("pki/revoke-with-key", "certificate"),
            ("pki/issuer/default/resign-crls", "crls"),
            ("pki/keys/import", "pem_bundle"),
            ("transit/keys/doc/set-certificate", "certificate_chain"),
            ("transit/keys/doc/csr", "csr"),
        ] {
            let mut data = json!({"crl_number": 9, "next_update": "1h", "private_key": "-----BEGIN PRIVATE KEY-----"});
            data[field] = value.clone();
            let answer = daemon.ask(Verb::Write, path, data).await;
            // A CSR template may be left out.
            let is_harmless = path.ends_with("doc/csr") && what == "nothing";
            let is_refused = [400, 413].contains(&answer.status) && !answer.json()["errors"][0].is_null();
            assert!(is_refused || is_harmless, "{what} at {path}: {} {:?}", answer.status, answer.body);
        }
    }
    let after =
        (certificates(&daemon).await, daemon.ask(Verb::List, "pki/issuers", json!({})).await.json()["data"].clone());
    assert_eq!(after, before);
    assert!(!daemon.log().contains("this is a bug"), "{}", daemon.log());
}

/// Without a token: the status of the answer, and its body.
fn ask_responder(daemon: &Daemon, head: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let lines = format!("{head}\r\nHost: k\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    // What is too large is answered before all of it is written.
    let _ = stream.write_all(lines.as_bytes()).and_then(|()| stream.write_all(body));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let status = String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{head}: no answer")), answer[end..].to_vec())
}

#[tokio::test]
async fn the_responder_signs_nothing_for_odd_requests() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let root = daemon.certificate_authority().await;
    let forge = Forge::new();
    std::fs::write(forge.path().join("root.pem"), root).unwrap();
    forge.run(&["ocsp", "-issuer", "root.pem", "-reqout", "request.der", "-no_nonce", "-serial", "1"]);
    let good = std::fs::read(forge.path().join("request.der")).unwrap();
    let serials: Vec<String> = (1..40).map(|serial| serial.to_string()).collect();
    let mut many = vec!["ocsp", "-issuer", "root.pem", "-reqout", "many.der", "-no_nonce"];
    many.extend(serials.iter().flat_map(|serial| ["-serial", serial.as_str()]));
    forge.run(&many);
    let many = std::fs::read(forge.path().join("many.der")).unwrap();
    let signed = token.calls("C_Sign");
    let odd = [
        ("nothing", Vec::new()),
        ("a word", b"hello".to_vec()),
        ("cut short", good[..good.len() - 1].to_vec()),
        ("more behind it", [&good[..], &[0]].concat()),
        ("a length beyond all bounds", vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
        ("nesting without end", [0x30, 0x80].repeat(1500)),
        ("very many", many),
        ("very much", vec![0x30; 100_000]),
    ];
    let post = "POST /v1/pki/ocsp HTTP/1.1\r\nContent-Type: application/ocsp-request";
    for (what, request) in &odd {
        let (status, body) = ask_responder(&daemon, post, request);
        // Refused, or answered with an OCSP response that is nothing but its status.
        let is_bare = status == 200 && body.len() < 16;
        assert!(is_bare || (400..500).contains(&status), "{what}: {status}, {} bytes", body.len());
        let in_path: String = STANDARD.encode(request).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        if in_path.is_empty() {
            continue;
        }
        let (status, body) = ask_responder(&daemon, &format!("GET /v1/pki/ocsp/{in_path} HTTP/1.1"), b"");
        let is_bare = status == 200 && body.len() < 16;
        assert!(is_bare || (400..500).contains(&status), "{what} in the path: {status}, {} bytes", body.len());
    }
    for path in ["%00", "%ff", "....", "%2e%2e%2f", "====", "a%20b"] {
        let (status, body) = ask_responder(&daemon, &format!("GET /v1/pki/ocsp/{path} HTTP/1.1"), b"");
        assert!((status == 200 && body.len() < 16) || (400..500).contains(&status), "{path}: {status}");
    }
    assert_eq!(token.calls("C_Sign"), signed, "something was signed");
    let (status, body) = ask_responder(&daemon, post, &good);
    assert!(status == 200 && body.len() > 100, "{status}: {} bytes", body.len());
    assert!(!daemon.log().contains("this is a bug"), "{}", daemon.log());
}
