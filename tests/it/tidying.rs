//! Tidying through the socket: what has ended leaves the store and the CRL, judged by openssl.

use std::time::Instant;

use keyway::model::Verb;
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT, Setup};
use crate::openssl::{P256, openssl, request};
use crate::token::Token;

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Tidies to the end; the status.
async fn tidy(daemon: &Daemon, body: Value) -> Value {
    let answer = daemon.ask(Verb::Write, "pki/tidy", body).await;
    let shown = answer.json();
    assert_eq!((answer.status, &shown["data"]), (202, &Value::Null), "{shown}");
    assert!(text(&shown["warnings"][0]).starts_with("Tidy operation successfully started."), "{shown}");
    let begun = Instant::now();
    loop {
        let status = daemon.read("pki/tidy-status").await;
        if !["Running", "Cancelling"].contains(&&*text(&status["state"])) {
            return status;
        }
        assert!(begun.elapsed() < LIMIT, "{status}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

async fn crl(daemon: &Daemon, folder: &std::path::Path) -> String {
    let crl = daemon.ask(Verb::Read, "pki/crl/pem", json!({})).await.body;
    std::fs::write(folder.join("crl.pem"), crl).unwrap();
    openssl(folder, &["crl", "-in", "crl.pem", "-CAfile", "root.pem", "-noout", "-text"]).unwrap()
}

#[tokio::test]
async fn what_has_ended_is_gone_for_good_and_what_has_not_is_there_after_a_kill() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let root = daemon.certificate_authority().await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("root.pem"), format!("{root}\n")).unwrap();
    request(folder, "www", P256, "DNS:www.example.com");
    let csr = std::fs::read_to_string(folder.join("www.csr")).unwrap();
    let mut issued = Vec::new();
    for ttl in ["2s", "2s", "24h", "24h"] {
        let answer = daemon.write("pki/sign/any", json!({"csr": csr, "ttl": ttl})).await;
        issued.push(text(&answer["serial_number"]));
    }
    let [short, short_revoked, long, long_revoked] = &issued[..] else { panic!("four") };
    for serial in [short_revoked, long_revoked] {
        daemon.write("pki/revoke", json!({ "serial_number": serial })).await;
    }
    assert_eq!(text(&daemon.read("pki/tidy-status").await["state"]), "Inactive");

    // Until both have ended and a second has passed. Each run may find one of them.
    let begun = Instant::now();
    let all = json!({"tidy_cert_store": true, "tidy_revoked_certs": true, "safety_buffer": 1,
        "tidy_expired_issuers": true, "tidy_revoked_cert_issuer_associations": true});
    loop {
        let status = tidy(&daemon, all.clone()).await;
        assert_eq!((&status["state"], &status["error"]), (&json!("Finished"), &Value::Null), "{status}");
        let mut left = Vec::new();
        for serial in [short, short_revoked] {
            left.push(daemon.ask(Verb::Read, &format!("pki/cert/{serial}"), json!({})).await.status);
        }
        if left == [404, 404] {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "{status}");
    }
    let in_hex = |serial: &str| serial.replace(':', "").to_uppercase();
    let shown = crl(&daemon, folder).await;
    assert!(!shown.contains(&in_hex(short_revoked)) && shown.contains(&in_hex(long_revoked)), "{shown}");
    assert!(daemon.metric("keyway_certificates_tidied_total") >= 1.0);
    assert!(daemon.metric("keyway_revocations_tidied_total") >= 1.0);
    let (status, told) = daemon.refused("pki/tidy", json!({"safety_buffer": "0s"})).await;
    assert_eq!((status, &*told), (400, "safety_buffer must be greater than zero"));
    let idle = daemon.ask(Verb::Write, "pki/tidy-cancel", json!({})).await;
    assert_eq!(idle.status, 200);

    // Killed, it comes back with what was left and nothing else.
    let root_token = daemon.root_token.clone();
    drop(daemon);
    let mut daemon = Daemon::start(&token, Setup::default());
    daemon.root_token = root_token;
    assert!(crl(&daemon, folder).await.contains(&in_hex(long_revoked)));
    let listed = daemon.ask(Verb::List, "pki/certs", json!({})).await.json()["data"]["keys"].clone();
    assert!(listed.to_string().contains(long.as_str()) && !listed.to_string().contains(short.as_str()), "{listed}");
    let revoked = daemon.ask(Verb::List, "pki/certs/revoked", json!({})).await.json()["data"]["keys"].clone();
    assert_eq!(revoked, json!([long_revoked]));
    assert_ne!(text(&daemon.read("pki/tidy-status").await["last_auto_tidy_finished"]), "0001-01-01T00:00:00Z");
}

#[tokio::test]
async fn a_daemon_that_drains_and_a_mount_that_goes_stop_it() {
    let token = Token::new();
    let mut daemon = Daemon::new(&token).await;
    daemon.certificate_authority().await;
    let long = json!({"tidy_cert_store": true, "pause_duration": "24h"});
    for _ in 0..2 {
        assert_eq!(daemon.ask(Verb::Write, "pki/tidy", long.clone()).await.status, 202);
        assert_eq!(text(&daemon.read("pki/tidy-status").await["state"]), "Running");
        assert_eq!(daemon.ask(Verb::Write, "pki/tidy", long.clone()).await.status, 200);
        let status = daemon.write("pki/tidy-cancel", json!({})).await;
        assert_eq!(text(&status["state"]), "Cancelling");
        let begun = Instant::now();
        while text(&daemon.read("pki/tidy-status").await["state"]) != "Cancelled" {
            assert!(begun.elapsed() < LIMIT);
        }
    }
    assert_eq!(daemon.ask(Verb::Write, "pki/tidy", long.clone()).await.status, 202);
    assert_eq!(daemon.ask(Verb::Delete, "sys/mounts/pki", json!({})).await.status, 204);
    crate::daemon::wait_for("the cancellation", || daemon.log().contains("tidy cancelled").then_some(()));
    daemon.write("sys/mounts/pki", json!({"type": "pki"})).await;
    assert_eq!(daemon.ask(Verb::Write, "pki/tidy", long).await.status, 202);
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    assert!(!daemon.log().contains("tidy failed"), "{}", daemon.log());
}
