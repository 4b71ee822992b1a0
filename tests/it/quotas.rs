//! Quotas: what is asked beyond them is refused, on both wires, and what must go on goes on.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::client::Http;
use keyway::model::Verb;
use keyway::wire::proto;
use serde_json::json;

use crate::daemon::{Daemon, LIMIT, Setup};
use crate::openssl;
use crate::token::{LABEL, Token};

/// Asks so often for a signature; answers how often it was refused, and that it was so in the right words.
async fn refused(http: &mut Http, path: &str, times: usize) -> usize {
    let data = json!({"input": STANDARD.encode("x")});
    let mut refused = 0;
    for _ in 0..times {
        let answer = http.request(Verb::Write, path, data.as_object().unwrap()).await.unwrap();
        if answer.status != 200 {
            let told = answer.json()["errors"][0].as_str().unwrap().to_owned();
            assert_eq!(answer.status, 429, "{told}");
            assert!(told.contains("rate limit quota exceeded"), "{told}");
            refused += 1;
        }
    }
    refused
}

#[tokio::test]
async fn a_rate_limit_holds_on_both_wires_and_over_a_restart_and_never_holds_up_a_revocation() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.certificate_authority().await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    openssl::request(&daemon.folder, "a", openssl::P256, "DNS:a.example.com");
    let csr = std::fs::read_to_string(daemon.folder.join("a.csr")).unwrap();
    let signed = daemon.write("pki/sign/any", json!({"csr": csr})).await;

    // Of one key, and of a whole engine; an hour, so that no slow machine saves any up.
    let of_key = json!({"path": "transit/sign/doc", "rate": 3, "interval": "1h"});
    daemon.write("sys/quotas/rate-limit/doc", of_key).await;
    daemon.write("sys/quotas/rate-limit/ca", json!({"path": "pki", "rate": 1.5, "interval": 3600})).await;
    assert_eq!(refused(&mut daemon.http(), "transit/sign/doc", 5).await, 2);
    let framed = daemon.framed().await;
    let request =
        proto::Sign { mount: "transit".into(), key: "doc".into(), input: "x".into(), ..proto::Sign::default() };
    let fault = framed.sign(request).await.unwrap_err().to_string();
    assert!(fault.contains("rate limit quota exceeded"), "{fault}");
    let check = json!({"input": STANDARD.encode("x"), "signature": "vault:v1:AA=="});
    assert_eq!(daemon.write("transit/verify/doc", check).await["valid"], false, "another path");
    assert!(daemon.metric("keyway_quota_refused_total{kind=\"rate-limit\"}") >= 3.0);

    assert_eq!(daemon.ask(Verb::Write, "pki/sign/any", json!({"csr": csr})).await.status, 200);
    let answer = daemon.ask(Verb::Write, "pki/sign/any", json!({"csr": csr})).await;
    assert_eq!(answer.status, 429);
    daemon.write("pki/revoke", json!({"serial_number": signed["serial_number"]})).await;
    for path in ["pki/crl/pem", "sys/health"] {
        assert_eq!(daemon.ask(Verb::Read, path, json!({})).await.status, 200, "{path}");
    }

    let root_token = daemon.root_token.clone();
    drop(daemon);
    let mut daemon = Daemon::start(&token, Setup::default());
    daemon.root_token = root_token;
    let kept = daemon.read("sys/quotas/rate-limit/doc").await;
    let expected = json!({
        "type": "rate-limit", "name": "doc", "path": "transit/sign/doc/", "role": "", "inheritable": false,
        "rate": 3.0, "interval": 3600, "block_interval": 0, "group_by": "none",
    });
    assert_eq!(kept, expected);
    assert_eq!(refused(&mut daemon.http(), "transit/sign/doc", 5).await, 2);
    // Changed in part; then gone.
    daemon.write("sys/quotas/rate-limit/doc", json!({"rate": 4})).await;
    assert_eq!(refused(&mut daemon.http(), "transit/sign/doc", 5).await, 1);
    assert_eq!(
        daemon.ask(Verb::List, "sys/quotas/rate-limit", json!({})).await.json()["data"]["keys"],
        json!(["ca", "doc"])
    );
    assert_eq!(daemon.ask(Verb::Delete, "sys/quotas/rate-limit/doc", json!({})).await.status, 204);
    assert_eq!(refused(&mut daemon.http(), "transit/sign/doc", 5).await, 0);
    for (data, told) in [
        (json!({"path": "nowhere", "rate": 1}), "invalid quota path"),
        (json!({"rate": 0}), "'rate' is invalid"),
        (json!({}), "'rate' is invalid"),
        (json!({"rate": 1, "group_by": "ip"}), "group_by"),
    ] {
        let (status, error) = daemon.refused("sys/quotas/rate-limit/bad", data).await;
        assert!(status == 400 && error.contains(told), "{status} {error}");
    }
}

#[tokio::test]
async fn a_quota_on_what_begins_so_and_on_logins_holds() {
    let token = Token::new();
    let daemon = Daemon::with(&token, Setup { more: "namespace \"team-a\" {}", ..Setup::default() }).await;
    for key in ["doc", "draft"] {
        daemon.transit_key(key, json!({"mechanism": "0x1041", "curve": "P256"})).await;
    }
    let quota = |path: &str, rate: u32| json!({"path": path, "rate": rate, "interval": "1h"});
    daemon.write("sys/quotas/rate-limit/sign", quota("transit/sign/*", 2)).await;
    assert_eq!(daemon.read("sys/quotas/rate-limit/sign").await["path"], "transit/sign/*");
    assert_eq!(refused(&mut daemon.http(), "transit/sign/doc", 2).await, 0);
    assert_eq!(refused(&mut daemon.http(), "transit/sign/draft", 2).await, 2);
    assert_eq!(daemon.ask(Verb::Read, "transit/keys/doc", json!({})).await.status, 200);
    for path in ["transit/+/doc", "transit/sign//doc", "transit/%73ign/doc", "transit*"] {
        let (status, told) = daemon.refused("sys/quotas/rate-limit/bad", quota(path, 1)).await;
        assert!(status == 400 && told.contains("invalid quota path"), "{path}: {status} {told}");
    }

    // Where tokens come from: logins, which nobody's token asks for, and tokens made of tokens.
    let uid = rustix::process::geteuid().as_raw();
    let mut stranger = daemon.http();
    stranger.token = None;
    for (namespace, path) in [("", "auth/unix"), ("team-a/", "team-a/auth/unix/login")] {
        let role = json!({"bound_uids": [uid], "token_policies": "default"});
        daemon.write(&format!("{namespace}auth/unix/role/job"), role).await;
        daemon.write("sys/quotas/rate-limit/logins", quota(path, 2)).await;
        let mut told = Vec::new();
        for _ in 0..3 {
            let data = json!({"role": "job"});
            let path = format!("{namespace}auth/unix/login");
            let answer = stranger.request(Verb::Write, &path, data.as_object().unwrap()).await.unwrap();
            told.push(answer.status);
        }
        assert_eq!(told, [200, 200, 429], "{path}");
    }
    daemon.write("sys/quotas/rate-limit/made", quota("auth/token/create", 1)).await;
    let mut made = Vec::new();
    for _ in 0..2 {
        made.push(daemon.ask(Verb::Write, "auth/token/create", json!({"ttl": "1h"})).await.status);
    }
    assert_eq!(made, [200, 429]);
    assert_eq!(daemon.ask(Verb::Read, "auth/token/lookup-self", json!({})).await.status, 200, "another path");
}

#[tokio::test]
async fn a_tenant_is_held_to_so_many_requests_at_once_and_the_others_are_not() {
    let token = Token::new();
    let daemon = Daemon::with(&token, Setup { more: "namespace \"team-a\" {}", ..Setup::default() }).await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    let options = json!({"kms_library": "hsm", "token_label": LABEL});
    daemon.write("team-a/sys/mounts/transit", json!({"type": "transit", "options": options})).await;
    daemon.write("sys/quotas/concurrency/few", json!({"path": "team-a", "requests": 1})).await;
    // A key that takes its time has the tenant's one place meanwhile.
    let mut refused = false;
    for number in 0..20 {
        let mut http = daemon.http();
        http.deadline = Some(LIMIT);
        let making = tokio::spawn(async move {
            let data = json!({"type": "rsa-4096"});
            let path = format!("team-a/transit/keys/slow{number}");
            http.request(Verb::Write, &path, data.as_object().unwrap()).await.unwrap().status
        });
        while !refused && !making.is_finished() {
            let status = daemon.ask(Verb::Read, "team-a/sys/mounts", json!({})).await.status;
            refused = status == 429;
            assert!(refused || status == 200, "{status}");
        }
        assert_eq!(daemon.ask(Verb::Read, "sys/mounts", json!({})).await.status, 200);
        // It is refused itself where the question above had the place.
        assert!([200, 204, 429].contains(&making.await.unwrap()));
        if refused {
            break;
        }
    }
    assert!(refused, "{}", daemon.log());
    // When it is there, the place is free.
    assert_eq!(daemon.ask(Verb::Read, "team-a/sys/mounts", json!({})).await.status, 200);
    assert_eq!(daemon.read("sys/quotas/concurrency/few").await["requests"], 1);
    // Who is bound does not say how much.
    let (status, told) = daemon.refused("team-a/sys/quotas/rate-limit/more", json!({"rate": 1})).await;
    assert_eq!((status, told.as_str()), (400, "operation unavailable in namespaces"));
}
