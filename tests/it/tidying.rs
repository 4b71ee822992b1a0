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
        // It may be over before it is told of.
        assert!(["Cancelling", "Cancelled"].contains(&text(&status["state"]).as_str()), "{status}");
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

#[tokio::test]
async fn one_that_was_killed_in_the_middle_is_finished_by_the_next() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.certificate_authority().await;
    let folder = tempfile::tempdir().unwrap();
    request(folder.path(), "www", P256, "DNS:www.example.com");
    let csr = std::fs::read_to_string(folder.path().join("www.csr")).unwrap();
    let sign = async |ttl: &str| {
        let mut http = daemon.http();
        http.deadline = Some(LIMIT);
        let body = json!({"csr": csr, "ttl": ttl});
        let answer = http.request(Verb::Write, "pki/sign/any", body.as_object().unwrap()).await.unwrap();
        answer.success().unwrap().json()["data"].clone()
    };
    // More than a step removes.
    let mut kept = Vec::new();
    for round in 0..75 {
        futures_util::future::join_all((0..8).map(|_| sign("1s"))).await;
        if round % 25 == 0 {
            kept.push(text(&sign("24h").await["serial_number"]));
        }
    }
    let count = async |daemon: &Daemon| {
        let listed = daemon.ask(Verb::List, "pki/certs", json!({})).await.json();
        listed["data"]["keys"].as_array().unwrap().len()
    };
    let all = count(&daemon).await;
    // All of them are to have ended, so that the first step leaves none of its own behind.
    let end = sign("1s").await["expiration"].as_u64().unwrap() + 2;
    let has_ended = || (std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() > end).then_some(());
    crate::daemon::wait_for("the end of the last one", has_ended);
    // It makes one step, and would make the next in an hour.
    let body = json!({"tidy_cert_store": true, "safety_buffer": 1, "pause_duration": "1h"});
    assert_eq!(daemon.ask(Verb::Write, "pki/tidy", body).await.status, 202);
    let begun = Instant::now();
    while count(&daemon).await + 400 > all {
        assert!(begun.elapsed() < LIMIT, "{}", daemon.read("pki/tidy-status").await);
    }
    assert_eq!(text(&daemon.read("pki/tidy-status").await["state"]), "Running");
    let half = count(&daemon).await;
    assert!(half > 1 + kept.len(), "{half} of {all}");
    let root_token = daemon.root_token.clone();
    daemon.signal("KILL");
    drop(daemon);
    let mut daemon = Daemon::start(&token, Setup::default());
    daemon.root_token = root_token;
    assert_eq!(text(&daemon.read("pki/tidy-status").await["state"]), "Inactive");
    assert_eq!(count(&daemon).await, half);
    let status = tidy(&daemon, json!({"tidy_cert_store": true, "safety_buffer": 1})).await;
    assert_eq!(status["cert_store_deleted_count"], json!(half - 1 - kept.len()), "{status}");
    for serial in &kept {
        assert_eq!(daemon.ask(Verb::Read, &format!("pki/cert/{serial}"), json!({})).await.status, 200);
    }
}

#[tokio::test]
async fn it_is_configured_and_crls_are_put_together_through_the_socket() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let root = daemon.certificate_authority().await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("root.pem"), format!("{root}\n")).unwrap();
    let (status, told) = daemon.refused("pki/config/auto-tidy", json!({"enabled": true})).await;
    assert!(status == 400 && told.starts_with("Auto-tidy enabled but no tidy operations were requested."), "{told}");
    let config =
        json!({"enabled": true, "tidy_revoked_certs": "true", "safety_buffer": "24h", "pause_duration": "5ms"});
    let written = daemon.write("pki/config/auto-tidy", config).await;
    assert_eq!(daemon.read("pki/config/auto-tidy").await, written);
    assert_eq!((&written["safety_buffer"], &written["pause_duration"]), (&json!(86_400), &json!("5ms")));
    // The command line tells what was begun, and shows no envelope.
    let printed = daemon.cli(&["write", "pki/tidy", "tidy_cert_store=true"]);
    assert!(printed.status.success() && printed.stdout.is_empty(), "{printed:?}");
    assert!(String::from_utf8_lossy(&printed.stderr).contains("successfully started"), "{printed:?}");

    let list =
        json!({"crl_number": 5, "revoked_certs": [{"serial_number": "0a:0b", "revocation_time": 1_700_000_000}]});
    let first = daemon.write("pki/issuer/default/sign-revocation-list", list).await;
    let own = daemon.ask(Verb::Read, "pki/crl/pem", json!({})).await.body;
    let both = json!({"crls": [first["crl"], String::from_utf8(own.to_vec()).unwrap()], "crl_number": 6});
    let both = daemon.write("pki/issuer/default/resign-crls", both).await;
    std::fs::write(folder.join("crl.pem"), text(&both["crl"])).unwrap();
    let shown = openssl(folder, &["crl", "-in", "crl.pem", "-CAfile", "root.pem", "-noout", "-text"]).unwrap();
    assert!(shown.contains("Serial Number: 0A0B"), "{shown}");
    // Another issuer's key did not sign it.
    daemon.managed_key("other", json!({"mechanism": "0x0001", "key_bits": 2048})).await;
    let other = json!({"managed_key_name": "other", "common_name": "Other", "ttl": "80000h", "issuer_name": "other"});
    daemon.write("pki/root/generate/kms", other).await;
    let (status, told) = daemon.refused("pki/issuer/other/resign-crls", json!({"crls": [first["crl"]]})).await;
    assert_eq!((status, &*told), (400, "CRL index: 0 was not signed by requested issuer"));
}
