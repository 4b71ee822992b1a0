//! OCSP over the socket, without a token: openssl asks and judges.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::daemon::Daemon;
use crate::openssl::{P256, openssl, request};
use crate::token::Token;

/// One HTTP request without a token: what comes back, in one piece and as its body.
fn exchange(socket: &Path, head: &str, body: &[u8]) -> (String, Vec<u8>) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let lines = format!("{head}\r\nHost: keyway\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(lines.as_bytes()).unwrap();
    // A body that is too large is answered before all of it is read.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    (String::from_utf8_lossy(&answer[..end]).to_lowercase(), answer[end..].to_vec())
}

fn post(daemon: &Daemon, body: &[u8]) -> (String, Vec<u8>) {
    let head = "POST /v1/pki/ocsp HTTP/1.1\r\nContent-Type: application/ocsp-request";
    exchange(&daemon.socket(), head, body)
}

/// What openssl reads in an answer to `request.der`.
fn told(folder: &Path, (head, answer): &(String, Vec<u8>)) -> String {
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: application/ocsp-response"), "{head}");
    std::fs::write(folder.join("answer.der"), answer).unwrap();
    let read = ["ocsp", "-respin", "answer.der", "-reqin", "request.der", "-CAfile", "root.pem", "-resp_text"];
    let told = openssl(folder, &[&read[..], &["-verify_other", "root.pem"]].concat());
    told.unwrap_or_else(|told| panic!("{told}"))
}

#[tokio::test]
async fn anyone_may_ask_about_a_certificate() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("root.pem"), daemon.certificate_authority().await).unwrap();
    request(folder, "a", P256, "DNS:a.example.com");
    let csr = std::fs::read_to_string(folder.join("a.csr")).unwrap();
    let issued = daemon.write("pki/sign/any", json!({ "csr": csr })).await;
    std::fs::write(folder.join("leaf.pem"), issued["certificate"].as_str().unwrap()).unwrap();

    let ask = |more: &[&str]| {
        let (ask, what) = (["ocsp", "-issuer", "root.pem"], ["-cert", "leaf.pem", "-reqout", "request.der"]);
        openssl(folder, &[&ask[..], more, &what].concat()).unwrap();
        std::fs::read(folder.join("request.der")).unwrap()
    };
    for more in [["-sha1", "-nonce"], ["-sha1", "-no_nonce"], ["-sha256", "-no_nonce"]] {
        let request = ask(&more);
        let answered = told(folder, &post(&daemon, &request));
        assert!(answered.contains("Cert Status: good") && answered.contains("Next Update"), "{more:?}: {answered}");
        // In the path, as it is and percent-encoded.
        let text = STANDARD.encode(&request);
        for text in [text.clone(), text.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D")] {
            let got = exchange(&daemon.socket(), &format!("GET /v1/pki/ocsp/{text} HTTP/1.1"), b"");
            assert!(told(folder, &got).contains("Cert Status: good"), "{text}");
        }
    }
    daemon.write("pki/revoke", json!({"serial_number": issued["serial_number"]})).await;
    ask(&["-no_nonce"]);
    let request = std::fs::read(folder.join("request.der")).unwrap();
    assert!(told(folder, &post(&daemon, &request)).contains("Cert Status: revoked"));

    let (head, _) = post(&daemon, &[0x30; 4097]);
    assert!(head.starts_with("http/1.1 413"), "{head}");
    assert!(daemon.metric("keyway_ocsp_responses_total{result=\"kept\"}") >= 4.0);
    assert!(daemon.metric("keyway_ocsp_responses_total{result=\"signed\"}") >= 5.0);
}
