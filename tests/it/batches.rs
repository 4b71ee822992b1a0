//! Certificates for many requests in one framed call.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::{join, join_all};
use keyway::client::{ClientError, Framed, Identity};
use keyway::model::{Secret, Verb};
use keyway::wire::proto::{self, certificate_result::Result as Part};
use serde_json::json;

use crate::daemon::{Daemon, Setup};
use crate::openssl::{P256, openssl, request};
use crate::token::Token;

/// A request in DER.
fn csr(folder: &Path, name: &str) -> Bytes {
    request(folder, name, P256, &format!("DNS:{name}.example.com"));
    let file = format!("{name}.csr");
    openssl(folder, &["req", "-in", &file, "-outform", "DER", "-out", "request.der"]).unwrap();
    std::fs::read(folder.join("request.der")).unwrap().into()
}

fn batch(csrs: Vec<Bytes>) -> proto::SignCertificates {
    proto::SignCertificates {
        mount: "pki/".into(),
        role: "any".into(),
        csrs,
        data: Bytes::from_static(b"{\"ttl\":\"1h\"}"),
    }
}

async fn count(daemon: &Daemon) -> usize {
    daemon.ask(Verb::List, "pki/certs", json!({})).await.json()["data"]["keys"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn one_bad_request_fails_no_other() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let root = daemon.certificate_authority().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("root.pem"), root).unwrap();
    let (one, other) = (csr(folder.path(), "one"), csr(folder.path(), "other"));
    let mut csrs = vec![one; 64];
    csrs[7] = Bytes::from_static(b"no request");
    csrs[63] = other;
    let before = count(&daemon).await;
    let answer = daemon.framed().await.sign_certificates(batch(csrs)).await.unwrap();
    assert_eq!((answer.results.len(), answer.chain.len()), (64, 1));
    for (place, part) in answer.results.iter().enumerate() {
        match part.result.as_ref().unwrap() {
            Part::Fault(fault) => {
                assert_eq!((place, fault.label.as_str(), fault.retryable), (7, "invalid_request", false), "{fault:?}");
            }
            Part::Certificate(certificate) => {
                assert!(place != 7 && certificate.chain.is_empty());
                std::fs::write(folder.path().join(format!("{place}.der")), &certificate.certificate).unwrap();
            }
        }
    }
    for (place, name) in [("0", "one"), ("62", "one"), ("63", "other")] {
        let der = format!("{place}.der");
        openssl(folder.path(), &["x509", "-inform", "DER", "-in", &der, "-out", "leaf.pem"]).unwrap();
        openssl(folder.path(), &["verify", "-x509_strict", "-CAfile", "root.pem", "leaf.pem"]).unwrap();
        let shown = openssl(folder.path(), &["x509", "-in", "leaf.pem", "-noout", "-ext", "subjectAltName"]).unwrap();
        assert!(shown.contains(&format!("DNS:{name}.example.com")), "{shown}");
    }
    assert_eq!(count(&daemon).await, before + 63);
    let asked = "keyway_requests_total{operation=\"sign_certificates\",outcome=\"ok\",wire=\"framed\"}";
    assert_eq!(daemon.metric(asked), 1.0);
}

#[tokio::test]
async fn a_batch_has_bounds_and_a_deadline() {
    let token = Token::new();
    let daemon = Daemon::with(&token, Setup { more: "limits { batch_items = 200 }", ..Setup::default() }).await;
    daemon.certificate_authority().await;
    let folder = tempfile::tempdir().unwrap();
    let one = csr(folder.path(), "one");
    let framed = daemon.framed().await;
    for (csrs, expected) in [(Vec::new(), "csrs is empty"), (vec![one.clone(); 201], "at most 200")] {
        let refused = framed.sign_certificates(batch(csrs)).await.unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    let unknown = proto::SignCertificates { role: "nobody".into(), ..batch(vec![one.clone()]) };
    assert!(framed.sign_certificates(unknown).await.unwrap_err().to_string().contains("unknown role"));

    // Nobody checks 200 requests in a millisecond.
    let identity = Identity { token: Secret::from(daemon.root_token.as_str()), namespace: String::new() };
    let path = daemon.socket().with_extension("sock.framed");
    let (class, deadline) = (proto::Class::Interactive, Some(Duration::from_millis(1)));
    let hurried = Framed::connect(&path, &identity, class, deadline).await.unwrap();
    match hurried.sign_certificates(batch(vec![one.clone(); 200])).await {
        Err(ClientError::Refused { label, .. }) => assert_eq!(label, "deadline_exceeded"),
        other => panic!("{other:?}"),
    }
    let answer = framed.sign_certificates(batch(vec![one; 200])).await.unwrap();
    assert!(answer.results.iter().all(|part| matches!(part.result, Some(Part::Certificate(_)))));
}

#[tokio::test]
async fn batches_that_come_together_wait_for_each_other() {
    let token = Token::new();
    // What a namespace may queue is less than what eight batches have.
    let setup = Setup { more: "limits { lane_jobs_per_namespace = 64 }", ..Setup::default() };
    let daemon = Daemon::with(&token, setup).await;
    daemon.certificate_authority().await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    let item = json!({"input": STANDARD.encode("x")});
    let signing = (0..8).map(|_| daemon.write("transit/sign/doc", json!({"batch_input": vec![item.clone(); 40]})));
    let folder = tempfile::tempdir().unwrap();
    let one = csr(folder.path(), "one");
    let framed = daemon.framed().await;
    let certifying = (0..4).map(|_| framed.sign_certificates(batch(vec![one.clone(); 40])));
    let (signed, certified) = join(join_all(signing), join_all(certifying)).await;
    for answer in signed {
        let results = answer["batch_results"].as_array().unwrap();
        assert!(results.len() == 40 && results.iter().all(|result| result["signature"].is_string()), "{answer}");
    }
    for answer in certified {
        let results = answer.unwrap().results;
        assert!(results.iter().all(|part| matches!(part.result, Some(Part::Certificate(_)))), "{results:?}");
    }
}
