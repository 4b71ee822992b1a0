//! Keys bound to their purpose: what an issuer's key signs is what PKI built, by whatever name the key is reached.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join;
use keyway::model::Verb;
use serde_json::{Value, json};

use crate::daemon::{Daemon, Setup};
use crate::token::{LABEL, Token};

fn p256() -> Value {
    json!({"mechanism": "0x1041", "curve": "P256"})
}

fn p256_for_all() -> Value {
    json!({"mechanism": "0x1041", "curve": "P256", "allow_raw_signing": true})
}

fn of(name: &str) -> Value {
    json!({"type": "managed_key", "managed_key_name": name})
}

fn root(name: &str) -> Value {
    json!({"managed_key_name": name, "common_name": name, "ttl": "80000h"})
}

/// A daemon with a CA on the managed key `ca`, and a Transit mount.
async fn daemon(token: &Token) -> Daemon {
    let daemon = Daemon::new(token).await;
    daemon.certificate_authority().await;
    daemon.write("sys/mounts/transit", json!({"type": "transit"})).await;
    daemon
}

async fn restarted(daemon: Daemon, token: &Token) -> Daemon {
    let root_token = daemon.root_token.clone();
    drop(daemon);
    let mut daemon = Daemon::start(token, Setup::default());
    daemon.root_token = root_token;
    daemon
}

/// The refusal of a write, which is the client's to mend.
async fn told(daemon: &Daemon, path: &str, data: Value) -> String {
    let (status, told) = daemon.refused(path, data).await;
    assert_eq!(status, 400, "{path}: {told}");
    assert!(told.contains("allow_raw_signing"), "{path}: {told}");
    told
}

#[tokio::test]
async fn an_issuers_key_signs_nothing_for_transit() {
    let token = Token::new();
    let daemon = daemon(&token).await;
    let refused = told(&daemon, "transit/keys/forge", of("ca")).await;
    assert!(refused.contains("\"ca\"") && refused.contains("bound to type pki (by mount \"pki/\")"), "{refused}");
    let uuid = daemon.read("sys/managed-keys/pkcs11/ca").await["UUID"].clone();
    told(&daemon, "transit/keys/forge", json!({"type": "managed_key", "managed_key_id": uuid})).await;
    // Neither as the next version of a key, nor by another name, nor through another mount.
    daemon.transit_key("doc", p256()).await;
    told(&daemon, "transit/keys/doc/rotate", json!({"managed_key_name": "ca"})).await;
    let mut alias = p256();
    alias["key_label"] = json!("ca");
    daemon.managed_key("alias", alias.clone()).await;
    let refused = told(&daemon, "transit/keys/forge", of("alias")).await;
    assert!(refused.contains("as managed key \"ca\""), "{refused}");
    daemon.write("sys/mounts/other", json!({"type": "transit"})).await;
    told(&daemon, "other/keys/forge", of("ca")).await;
    // One of two names that allows it is not enough.
    alias["allow_raw_signing"] = json!(true);
    daemon.managed_key("alias", alias).await;
    told(&daemon, "transit/keys/forge", of("alias")).await;
    assert_eq!(daemon.ask(Verb::Read, "transit/keys/forge", json!({})).await.status, 404);
    // A restart forgets nothing, though no engine has been asked for anything yet.
    let daemon = restarted(daemon, &token).await;
    told(&daemon, "transit/keys/forge", of("ca")).await;
    daemon.write("transit/sign/doc", json!({"input": STANDARD.encode("a contract")})).await;
}

#[tokio::test]
async fn a_key_of_transits_becomes_no_issuers() {
    let token = Token::new();
    let daemon = daemon(&token).await;
    daemon.transit_key("doc", p256()).await;
    for path in ["root/generate/kms", "intermediate/generate/kms", "keys/generate/kms", "root/rotate/kms"] {
        told(&daemon, &format!("pki/{path}"), root("doc")).await;
    }
    assert_eq!(daemon.read("pki/issuer/default").await["issuer_name"], "");
    // Free again, once nothing there uses it.
    daemon.write("transit/keys/doc/config", json!({"deletion_allowed": true})).await;
    daemon.ask(Verb::Delete, "transit/keys/doc", json!({})).await;
    daemon.write("pki/keys/generate/kms", root("doc")).await;
    told(&daemon, "transit/keys/doc", of("doc")).await;
    // And so is what a mount held that is gone.
    daemon.ask(Verb::Delete, "sys/mounts/pki", json!({})).await;
    daemon.write("transit/keys/doc", of("doc")).await;
    daemon.write("transit/keys/ca", of("ca")).await;
}

#[tokio::test]
async fn a_key_that_a_mount_made_is_bound_like_any_other() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let options = json!({"kms_library": "hsm", "token_label": LABEL});
    daemon.write("sys/mounts/transit", json!({"type": "transit", "options": options})).await;
    daemon.write("sys/mounts/pki", json!({"type": "pki", "options": options})).await;
    daemon.write("pki/root/generate/internal", json!({"common_name": "Own", "key_type": "ec"})).await;
    daemon.write("transit/keys/own", json!({"type": "ecdsa-p256"})).await;
    let listed = daemon.ask(Verb::List, "sys/managed-keys/pkcs11", json!({})).await.json();
    let names = listed["data"]["keys"].as_array().unwrap().clone();
    assert_eq!(names.len(), 2, "{names:?}");
    let mut refused = 0;
    for name in names {
        // Whoever registers managed keys can name the object of another mount's.
        let mut key = p256();
        key["key_label"] = name;
        daemon.managed_key("alias", key).await;
        daemon.write("sys/managed-keys/pkcs11/alias/test/sign", json!({})).await;
        for (path, data) in [("transit/keys/alias", of("alias")), ("pki/keys/generate/kms", root("alias"))] {
            refused += usize::from(daemon.ask(Verb::Write, path, data).await.status == 400);
        }
        daemon.ask(Verb::Write, "transit/keys/alias/config", json!({"deletion_allowed": true})).await;
        daemon.ask(Verb::Delete, "transit/keys/alias", json!({})).await;
        let keys = daemon.ask(Verb::List, "pki/keys", json!({})).await.json();
        for id in keys["data"]["keys"].as_array().unwrap() {
            let shown = daemon.read(&format!("pki/key/{}", id.as_str().unwrap())).await;
            if shown["managed_key_name"] == "alias" {
                daemon.ask(Verb::Delete, &format!("pki/key/{}", id.as_str().unwrap()), json!({})).await;
            }
        }
        assert_eq!(daemon.ask(Verb::Delete, "sys/managed-keys/pkcs11/alias", json!({})).await.status, 204);
    }
    assert_eq!(refused, 2, "each by the engine that does not have it");
}

#[tokio::test]
async fn an_operator_may_let_a_key_serve_both_and_takes_that_back_only_when_it_serves_one() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.managed_key("both", p256_for_all()).await;
    assert_eq!(daemon.read("sys/managed-keys/pkcs11/both").await["allow_raw_signing"], true);
    daemon.write("sys/mounts/pki", json!({"type": "pki", "config": {"max_lease_ttl": "87600h"}})).await;
    daemon.write("pki/root/generate/kms", root("both")).await;
    daemon.transit_key("both", p256_for_all()).await;
    daemon.write("transit/sign/both", json!({"input": STANDARD.encode("a contract")})).await;
    let daemon = restarted(daemon, &token).await;
    let mut fields = json!({
        "library": "hsm", "token_label": LABEL, "key_label": "both", "any_mount": true, "mechanism": "0x1041",
    });
    for value in [None, Some(json!(false)), Some(json!(""))] {
        fields.as_object_mut().unwrap().extend(value.map(|value| ("allow_raw_signing".to_owned(), value)));
        let (status, told) = daemon.refused("sys/managed-keys/pkcs11/both", fields.clone()).await;
        assert!(status == 400 && told.contains("allow_raw_signing"), "{status} {told}");
    }
    assert_eq!(daemon.read("sys/managed-keys/pkcs11/both").await["allow_raw_signing"], true);
    daemon.write("transit/keys/both/config", json!({"deletion_allowed": true})).await;
    daemon.ask(Verb::Delete, "transit/keys/both", json!({})).await;
    fields["allow_raw_signing"] = json!(false);
    daemon.write("sys/managed-keys/pkcs11/both", fields).await;
    assert_eq!(daemon.read("sys/managed-keys/pkcs11/both").await["allow_raw_signing"], false);
    told(&daemon, "transit/keys/both", of("both")).await;
}

#[tokio::test]
async fn of_two_engines_that_come_at_once_one_gets_the_key() {
    let token = Token::new();
    let daemon = daemon(&token).await;
    for number in 0..8 {
        let name = format!("key-{number}");
        daemon.managed_key(&name, p256()).await;
        let transit = format!("transit/keys/{name}");
        let both = join(
            daemon.ask(Verb::Write, &transit, of(&name)),
            daemon.ask(Verb::Write, "pki/keys/generate/kms", root(&name)),
        );
        let (transit, pki) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
        let mut statuses = [transit.status, pki.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 400], "{name}: {:?} {:?}", transit.body, pki.body);
    }
}

#[tokio::test]
async fn a_test_signs_nothing_that_was_given_and_hands_no_signature_out() {
    let token = Token::new();
    let daemon = daemon(&token).await;
    let asked = json!({"input": STANDARD.encode("a certificate"), "hash_algorithm": "sha2-256"});
    let answer = daemon.ask(Verb::Write, "sys/managed-keys/pkcs11/ca/test/sign", asked).await;
    assert_eq!(answer.status, 200);
    let warnings = answer.json()["warnings"].to_string();
    assert!(warnings.contains("input"), "{warnings}");
    assert!(answer.json()["data"].as_object().is_none_or(serde_json::Map::is_empty), "{:?}", answer.body);
}
