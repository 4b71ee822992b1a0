//! Keys that the configuration has several namespaces share; and keys that are served when they are first asked for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::model::Verb;
use serde_json::{Value, json};

use crate::daemon::{Daemon, Setup};
use crate::reload::{DONE, edit, reload};
use crate::tenants::{ask, documents, framed, managed_key, refused, write};
use crate::token::Token;

fn input() -> Value {
    json!({"input": STANDARD.encode("x")})
}

fn sharing() -> Setup {
    Setup { stanza: "shared_keys = [\"common-*\", \"exact\"]", ..Setup::default() }
}

/// A daemon with these namespaces.
async fn with_teams(token: &Token, setup: Setup) -> Daemon {
    let daemon = Daemon::with(token, setup).await;
    for name in ["one", "two", "three"] {
        write(&daemon, "", &format!("sys/namespaces/{name}"), json!({})).await;
    }
    daemon
}

#[tokio::test]
async fn a_key_that_the_configuration_shares_is_several_namespaces_own() {
    let token = Token::new();
    let daemon = with_teams(&token, sharing()).await;
    documents(&daemon, "one", "common-a").await;
    documents(&daemon, "two", "common-a").await;
    assert_eq!(token.calls("C_GenerateKeyPair"), 1, "both have the same");
    let mut check = input();
    check["signature"] = write(&daemon, "one", "transit/sign/doc", input()).await["signature"].clone();
    assert_eq!(write(&daemon, "two", "transit/verify/doc", check.clone()).await["valid"], true);
    // What is not shared is its first user's, by whatever name; and nobody is told whose.
    write(&daemon, "one", "sys/managed-keys/pkcs11/own", managed_key("own")).await;
    write(&daemon, "one", "sys/managed-keys/pkcs11/own/test/sign", json!({})).await;
    write(&daemon, "two", "sys/managed-keys/pkcs11/own", managed_key("own")).await;
    let told = refused(&daemon, "two", "sys/managed-keys/pkcs11/own/test/sign", json!({})).await;
    assert!(told.0 == 400 && told.1.contains("is taken on its token") && !told.1.contains("one"), "{told:?}");
    assert!(daemon.log().contains("shared_keys"), "{}", daemon.log());
    // One that leaves takes nothing from the others.
    let gone = ask(&daemon, "", Verb::Delete, "sys/namespaces/one", json!({})).await;
    assert_eq!(gone.status, 204, "{:?}", gone.body);
    assert_eq!(write(&daemon, "two", "transit/verify/doc", check).await["valid"], true);
    write(&daemon, "two", "transit/sign/doc", input()).await;
    // Withdrawn: who has it goes on, and nobody else comes by it.
    edit(&daemon, &[("shared_keys = [\"common-*\", \"exact\"]", "")]);
    assert!(reload(&daemon, DONE).contains("shared_keys"));
    write(&daemon, "two", "transit/sign/doc", input()).await;
    write(&daemon, "three", "sys/managed-keys/pkcs11/doc", managed_key("common-a")).await;
    let told = refused(&daemon, "three", "sys/managed-keys/pkcs11/doc/test/sign", json!({})).await;
    assert!(told.0 == 400 && told.1.contains("is taken on its token"), "{told:?}");
}

#[tokio::test]
async fn keys_beyond_those_served_from_the_start_are_served_when_they_are_asked_for() {
    let token = Token::new();
    let lazy = || Setup { more: "limits { managed_keys_at_start = 1 }", ..sharing() };
    let daemon = with_teams(&token, lazy()).await;
    for namespace in ["one", "two", "three"] {
        documents(&daemon, namespace, "common-a").await;
    }
    write(&daemon, "three", "sys/managed-keys/pkcs11/gone", managed_key("common-b")).await;
    write(&daemon, "three", "sys/managed-keys/pkcs11/gone/test/sign", json!({})).await;
    let root_token = daemon.root_token.clone();
    drop(daemon);
    let mut daemon = Daemon::start(&token, lazy());
    daemon.root_token = root_token;
    let sets = daemon.read("sys/keyway/status").await["key_sets"].clone();
    assert_eq!(sets.as_array().map(Vec::len), Some(1), "one is served: {sets}");
    // Many at once, on both wires: each waits for the proof and has its signature.
    let client = framed(&daemon, "three").await.unwrap();
    let asked = (0..8).map(|_| {
        let sign = keyway::wire::proto::Sign {
            mount: "transit".into(),
            key: "doc".into(),
            input: "x".into(),
            ..Default::default()
        };
        client.sign(sign)
    });
    for signed in futures_util::future::join_all(asked).await {
        signed.unwrap();
    }
    write(&daemon, "two", "transit/sign/doc", input()).await;
    write(&daemon, "one", "transit/sign/doc", input()).await;
    // One that was never asked for since the start is deleted like any other, and changed like any other.
    write(&daemon, "three", "sys/managed-keys/pkcs11/gone", managed_key("common-b")).await;
    write(&daemon, "three", "sys/managed-keys/pkcs11/gone/test/sign", json!({})).await;
    let deleted = ask(&daemon, "three", Verb::Delete, "sys/managed-keys/pkcs11/gone", json!({})).await;
    assert_eq!(deleted.status, 204, "{:?}", deleted.body);
    let told = refused(&daemon, "three", "sys/managed-keys/pkcs11/gone/test/sign", json!({})).await;
    assert!(told.1.contains("no managed key found"), "{told:?}");
    let sets = daemon.read("sys/keyway/status").await["key_sets"].clone();
    assert_eq!(sets.as_array().map(Vec::len), Some(3), "{sets}");
    assert_eq!(token.calls("C_GenerateKeyPair"), 2);
}
