//! Leases of certificates, as a client meets them.

use keyway::client::Answer;
use keyway::model::Verb;
use keyway::wire::proto;
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT, Setup};
use crate::openssl::{P256, openssl, request};
use crate::token::Token;

async fn issue(daemon: &Daemon, path: &str) -> Value {
    let answer = daemon.ask(Verb::Write, path, json!({"common_name": "a.example.com"})).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.json()
}

async fn is_revoked(daemon: &Daemon, serial: &Value) -> bool {
    let shown = daemon.read(&format!("pki/cert/{}", serial.as_str().unwrap())).await;
    shown["revocation_time"].as_u64().unwrap() > 0
}

fn told(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["errors"][0].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_lease_is_given_shown_and_given_back_across_a_restart() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.certificate_authority().await;
    let role = json!({"key_type": "ec", "allow_any_name": true, "ttl": "2h", "generate_lease": true});
    daemon.write("pki/roles/leased", role).await;
    let plain = issue(&daemon, "pki/issue/leased").await;
    let lease = plain["lease_id"].as_str().unwrap().to_owned();
    assert!(lease.starts_with("pki/issue/leased/") && plain["renewable"] == false, "{plain}");
    assert!((7000..=7200).contains(&plain["lease_duration"].as_u64().unwrap()), "{plain}");
    // Those of a role without leases have none.
    daemon.write("pki/roles/plain", json!({"key_type": "ec", "allow_any_name": true})).await;
    assert_eq!(issue(&daemon, "pki/issue/plain").await["lease_id"], "");

    // The framed wire names it too.
    let folder = tempfile::tempdir().unwrap();
    request(folder.path(), "one", P256, "DNS:one.example.com");
    openssl(folder.path(), &["req", "-in", "one.csr", "-outform", "DER", "-out", "one.der"]).unwrap();
    let csr = std::fs::read(folder.path().join("one.der")).unwrap().into();
    let sign = proto::SignCertificate { mount: "pki".into(), role: "leased".into(), csr, data: Default::default() };
    let framed = daemon.framed().await.sign_certificate(sign).await.unwrap();
    assert_eq!(framed.lease_id, format!("pki/sign/leased/{}", framed.serial.replace(':', "")));

    let root_token = daemon.root_token.clone();
    drop(daemon);
    let mut daemon = Daemon::start(&token, Setup::default());
    daemon.root_token = root_token;
    let shown = daemon.write("sys/leases/lookup", json!({ "lease_id": lease })).await;
    assert_eq!(shown["id"], lease.as_str());
    let listed = daemon.ask(Verb::List, "sys/leases/lookup/pki/", json!({})).await.json();
    assert_eq!(listed["data"]["keys"], json!(["issue/", "sign/"]));
    let renewal = daemon.ask(Verb::Write, &format!("sys/leases/renew/{lease}"), json!({})).await;
    assert_eq!(told(&renewal), (400, "lease is not renewable".to_owned()));
    let revoked = daemon.ask(Verb::Write, "sys/leases/revoke", json!({"lease_id": lease, "sync": true})).await;
    assert_eq!(revoked.status, 204);
    assert!(is_revoked(&daemon, &plain["data"]["serial_number"]).await);
    let gone = daemon.ask(Verb::Write, "sys/leases/lookup", json!({ "lease_id": lease })).await;
    assert_eq!(told(&gone), (400, "invalid lease".to_owned()));
    assert!(!is_revoked(&daemon, &json!(framed.serial)).await);
    assert_eq!(daemon.ask(Verb::Write, "sys/leases/revoke-prefix/pki", json!({})).await.status, 204);
    assert!(is_revoked(&daemon, &json!(framed.serial)).await);
    assert_eq!(daemon.ask(Verb::List, "sys/leases/lookup/pki/", json!({})).await.status, 404);
    assert_eq!(told(&daemon.ask(Verb::Write, "sys/leases/lookup", json!({})).await).0, 400);
    let mut nobody = daemon.http();
    nobody.token = None;
    let refused = nobody.request(Verb::Write, "sys/leases/revoke-prefix/pki", &Default::default()).await.unwrap();
    assert_eq!(refused.status, 403);
}

#[tokio::test]
async fn a_token_that_ends_takes_its_leases_along_and_their_certificates() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.certificate_authority().await;
    let role = json!({"key_type": "ec", "allow_any_name": true, "ttl": "2h", "generate_lease": true});
    daemon.write("pki/roles/leased", role).await;
    let grant = "path \"pki/issue/leased\" { capabilities = [\"update\"] }\n\
                 path \"auth/token/create\" { capabilities = [\"update\"] }";
    daemon.write("sys/policies/acl/issuer", json!({"policy": grant})).await;
    let made = async |by: &str, ttl: &str| {
        let mut http = daemon.http();
        http.token = Some(by.into());
        let data = json!({"policies": ["issuer"], "ttl": ttl});
        let answer = http.request(Verb::Write, "auth/token/create", data.as_object().unwrap()).await.unwrap();
        answer.json()["auth"]["client_token"].as_str().unwrap().to_owned()
    };
    let issued = async |by: &str| {
        let mut http = daemon.http();
        http.token = Some(by.into());
        let data = json!({"common_name": "a.example.com"});
        let answer = http.request(Verb::Write, "pki/issue/leased", data.as_object().unwrap()).await.unwrap();
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        answer.json()["data"]["serial_number"].clone()
    };
    // Of a token's last use nothing is answered that would be over at once.
    let last = json!({"policies": ["issuer"], "num_uses": 1});
    let last = daemon.ask(Verb::Write, "auth/token/create", last).await.json();
    let mut http = daemon.http();
    http.token = Some(last["auth"]["client_token"].as_str().unwrap().into());
    let data = json!({"common_name": "a.example.com"});
    let answer = http.request(Verb::Write, "pki/issue/leased", data.as_object().unwrap()).await.unwrap();
    assert!(answer.status == 400 && told(&answer).1.contains("token had one use left"), "{:?}", answer.body);

    let parent = made(&daemon.root_token, "1h").await;
    let child = made(&parent, "1h").await;
    let brief = made(&daemon.root_token, "2s").await;
    let serials = [issued(&parent).await, issued(&child).await, issued(&brief).await];
    let kept = issued(&daemon.root_token).await;
    daemon.write("auth/token/revoke", json!({ "token": parent })).await;
    let begun = std::time::Instant::now();
    for serial in &serials {
        while !is_revoked(&daemon, serial).await {
            assert!(begun.elapsed() < LIMIT, "{}", daemon.log());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    assert!(!is_revoked(&daemon, &kept).await);
    // The CRL comes right behind.
    let folder = tempfile::tempdir().unwrap();
    let are_listed = async || {
        let crl = daemon.ask(Verb::Read, "pki/crl/pem", json!({})).await;
        std::fs::write(folder.path().join("crl.pem"), &crl.body).unwrap();
        let shown = openssl(folder.path(), &["crl", "-in", "crl.pem", "-noout", "-text"]).unwrap();
        serials.iter().all(|serial| shown.contains(&serial.as_str().unwrap().replace(':', "").to_uppercase()))
    };
    while !are_listed().await {
        assert!(begun.elapsed() < LIMIT, "{}", daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
