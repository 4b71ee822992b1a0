//! What tokens may do: by their policies alone, the same on both wires.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::client::{Answer, ClientError, Framed, Identity};
use keyway::model::{Secret, Verb};
use keyway::wire::proto;
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT, Setup};
use crate::token::{LABEL, Token};

/// What a caller speaks with.
struct Tenant<'d> {
    daemon: &'d Daemon,
    token: String,
}

impl<'d> Tenant<'d> {
    /// The bearer of a token with these policies, made in a namespace.
    async fn new(daemon: &'d Daemon, namespace: &str, policies: &[&str]) -> Tenant<'d> {
        let root = Tenant { daemon, token: daemon.root_token.clone() };
        let made = root.ask(namespace, Verb::Write, "auth/token/create", json!({"policies": policies})).await;
        assert_eq!(made.status, 200, "{:?}", made.json());
        Tenant { daemon, token: made.json()["auth"]["client_token"].as_str().unwrap().to_owned() }
    }

    /// The bearer of a token that there is.
    fn at(daemon: &'d Daemon, token: &str) -> Tenant<'d> {
        Tenant { daemon, token: token.to_owned() }
    }

    async fn ask(&self, namespace: &str, verb: Verb, path: &str, data: Value) -> Answer {
        let mut http = self.daemon.http();
        http.token = Some(Secret::from(self.token.as_str()));
        http.namespace = Some(namespace.to_owned());
        http.deadline = Some(LIMIT);
        http.request(verb, path, data.as_object().unwrap()).await.unwrap()
    }

    async fn status(&self, verb: Verb, path: &str, data: Value) -> u16 {
        self.ask("", verb, path, data).await.status
    }

    async fn framed(&self, namespace: &str) -> Result<Framed, ClientError> {
        let identity = Identity { token: Secret::from(self.token.as_str()), namespace: namespace.to_owned() };
        let path = self.daemon.socket().with_extension("sock.framed");
        Framed::connect(&path, &identity, proto::Class::Interactive, Some(LIMIT)).await
    }

    /// Whether a typed sign passes, or what it is refused for.
    async fn signs(&self, key: &str, hash: proto::Hash) -> Result<(), String> {
        let client = self.framed("").await.map_err(|error| error.to_string())?;
        let sign = proto::Sign {
            mount: "transit".into(),
            key: key.into(),
            input: "x".into(),
            hash: hash.into(),
            ..Default::default()
        };
        client.sign(sign).await.map(drop).map_err(|error| error.to_string())
    }
}

fn sign() -> Value {
    json!({"input": STANDARD.encode("x")})
}

async fn documents(daemon: &Daemon) {
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    daemon.write("transit/keys/other", json!({"type": "managed_key", "managed_key_name": "doc"})).await;
}

#[tokio::test]
async fn a_token_does_what_its_policies_grant_and_nothing_else_on_both_wires() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    documents(&daemon).await;
    let policy = "path \"transit/sign/doc\" {\n  capabilities = [\"update\"]\n}\n\
                  path \"transit/keys/+\" {\n  capabilities = [\"read\"]\n}\n\
                  path \"transit/keys/\" {\n  capabilities = [\"list\"]\n}";
    daemon.write("sys/policies/acl/signer", json!({"policy": policy})).await;
    let signer = Tenant::new(&daemon, "", &["signer", "unknown"]).await;
    for (verb, path, data, status) in [
        (Verb::Write, "transit/sign/doc", sign(), 200),
        (Verb::Write, "transit/sign/other", sign(), 403),
        (Verb::Write, "transit/sign/doc/sha2-512", sign(), 403),
        (Verb::Read, "transit/keys/doc", json!({}), 200),
        (Verb::List, "transit/keys", json!({}), 200),
        (Verb::Delete, "transit/keys/doc", json!({}), 403),
        (Verb::Write, "transit/keys/doc", json!({}), 403),
        // What is not there is not told from what is forbidden.
        (Verb::Read, "nowhere/keys/doc", json!({}), 403),
        (Verb::Read, "sys/mounts", json!({}), 403),
        (Verb::Read, "sys/unheard-of", json!({}), 403),
        (Verb::Read, "sys/internal/ui/mounts/transit", json!({}), 200),
        (Verb::Read, "sys/internal/ui/mounts/nowhere", json!({}), 403),
        (Verb::Read, "sys/policies/acl/signer", json!({}), 403),
        // What every token may, and what nobody need ask for.
        (Verb::Read, "auth/token/lookup-self", json!({}), 200),
        (Verb::Read, "sys/seal-status", json!({}), 200),
    ] {
        assert_eq!(signer.status(verb, path, data).await, status, "{verb:?} {path}");
    }
    assert_eq!(signer.signs("doc", proto::Hash::Default).await, Ok(()));
    for key in ["other", "nobody", "doc/sha2-512"] {
        let refused = signer.signs(key, proto::Hash::Default).await.unwrap_err();
        assert!(refused.contains("permission denied"), "{key}: {refused}");
    }
    let client = signer.framed("").await.unwrap();
    let read = |path: &str| proto::Request { path: path.into(), ..Default::default() };
    client.request(read("transit/keys/doc")).await.unwrap();
    assert!(client.request(read("sys/mounts")).await.unwrap_err().to_string().contains("permission denied"));
    let asked = json!({"paths": ["transit/sign/doc", "transit/keys/a", "sys/mounts"]});
    let told = signer.ask("", Verb::Write, "sys/capabilities-self", asked.clone()).await.json();
    let expected = json!({"transit/sign/doc": ["update"], "transit/keys/a": ["read"], "sys/mounts": ["deny"]});
    assert_eq!(told["data"], expected);
    let about = json!({"token": signer.token, "paths": asked["paths"]});
    assert_eq!(daemon.write("sys/capabilities", about).await, expected);
}

#[tokio::test]
async fn a_changed_policy_counts_for_the_next_request_and_after_a_restart() {
    let token = Token::new();
    let mut daemon = Daemon::new(&token).await;
    documents(&daemon).await;
    let grant = |path: &str| json!({"policy": format!("path \"{path}\" {{ policy = \"write\" }}")});
    daemon.write("sys/policies/acl/app", grant("transit/sign/doc")).await;
    let bearer = Tenant::new(&daemon, "", &["app"]).await.token;
    assert_eq!(Tenant::at(&daemon, &bearer).status(Verb::Write, "transit/sign/doc", sign()).await, 200);
    daemon.write("sys/policies/acl/app", grant("transit/sign/other")).await;
    let (status, told) = daemon.refused("sys/policies/acl/app", json!({"policy": "path \"a\" {\n  x = 1\n}"})).await;
    assert_eq!(status, 400);
    assert!(told.contains("line 2, column 3: path \"a\": unknown field \"x\""), "{told}");
    for restarted in [false, true] {
        if restarted {
            daemon.signal("TERM");
            daemon.ended();
            let root_token = daemon.root_token.clone();
            daemon = Daemon::start(&token, Setup::default());
            daemon.root_token = root_token;
        }
        let app = Tenant::at(&daemon, &bearer);
        assert_eq!(app.status(Verb::Write, "transit/sign/doc", sign()).await, 403, "{restarted}");
        assert_eq!(app.status(Verb::Write, "transit/sign/other", sign()).await, 200, "{restarted}");
        assert_eq!(app.signs("other", proto::Hash::Default).await, Ok(()), "{restarted}");
    }
    assert_eq!(daemon.ask(Verb::Delete, "sys/policies/acl/app", json!({})).await.status, 204);
    assert_eq!(Tenant::at(&daemon, &bearer).status(Verb::Write, "transit/sign/other", sign()).await, 403);
    assert!(Tenant::at(&daemon, &bearer).signs("other", proto::Hash::Default).await.is_err());
}

#[tokio::test]
async fn a_rule_on_fields_binds_both_wires_and_the_lesser_verbs_are_their_own() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    documents(&daemon).await;
    daemon.certificate_authority().await;
    daemon.write("pki/roles/web", json!({"key_type": "ec"})).await;
    let policy = r#"
        path "transit/sign/doc" {
          capabilities       = ["update"]
          allowed_parameters = { input = [], hash_algorithm = ["sha2-256", "sha2-384"] }
        }
        path "transit/sign/other" {
          capabilities        = ["update"]
          required_parameters = ["hash_algorithm"]
          denied_parameters   = { hash_algorithm = ["sha2-512"] }
        }
        path "pki/roles/web" { capabilities = ["patch"] }
        path "sys/managed-keys/pkcs11/*" { capabilities = ["create"] }
        path "pki/root" { capabilities = ["delete"] }
        path "sys/leases/revoke-prefix/*" { capabilities = ["update", "sudo"] }
    "#;
    daemon.write("sys/policies/acl/narrow", json!({"policy": policy})).await;
    let narrow = Tenant::new(&daemon, "", &["narrow"]).await;
    let with = |more: Value| {
        let mut data = sign();
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        data
    };
    let key = json!({
        "library": "hsm", "token_label": LABEL, "key_label": "new", "mechanism": "0x1041", "curve": "P256",
        "allow_generate_key": true,
    });
    for (verb, path, data, status) in [
        (Verb::Write, "transit/sign/doc", sign(), 200),
        (Verb::Write, "transit/sign/doc", with(json!({"hash_algorithm": "sha2-384"})), 200),
        (Verb::Write, "transit/sign/doc", with(json!({"hash_algorithm": "sha2-512"})), 403),
        (Verb::Write, "transit/sign/doc", with(json!({"marshaling_algorithm": "jws"})), 403),
        (Verb::Write, "transit/sign/other", sign(), 403),
        (Verb::Write, "transit/sign/other", with(json!({"hash_algorithm": "sha2-384"})), 200),
        (Verb::Write, "transit/sign/other", with(json!({"hash_algorithm": "sha2-512"})), 403),
        (Verb::Patch, "pki/roles/web", json!({"ttl": "1h"}), 200),
        (Verb::Write, "pki/roles/web", json!({"key_type": "ec"}), 403),
        // It may be made, and not be changed.
        (Verb::Write, "sys/managed-keys/pkcs11/new", key.clone(), 204),
        (Verb::Write, "sys/managed-keys/pkcs11/new", key, 403),
        // What asks for sudo, without and with it.
        (Verb::Delete, "pki/root", json!({}), 403),
        (Verb::Write, "sys/leases/revoke-prefix/pki", json!({}), 204),
    ] {
        let told = format!("{verb:?} {path} {data}");
        assert_eq!(narrow.status(verb, path, data).await, status, "{told}");
    }
    for (key, hash, passes) in [
        ("doc", proto::Hash::Default, true),
        ("doc", proto::Hash::Sha2384, true),
        ("doc", proto::Hash::Sha2512, false),
        ("other", proto::Hash::Default, false),
        ("other", proto::Hash::Sha2384, true),
        ("other", proto::Hash::Sha2512, false),
    ] {
        assert_eq!(narrow.signs(key, hash).await.is_ok(), passes, "{key} {hash:?}");
    }
}

#[tokio::test]
async fn policies_end_at_their_namespace_and_reach_what_is_below_it() {
    let token = Token::new();
    let more = "namespace \"team/ci\" {}\nnamespace \"other\" {}\n";
    let daemon = Daemon::with(&token, Setup { more, ..Setup::default() }).await;
    let root = Tenant { daemon: &daemon, token: daemon.root_token.clone() };
    for namespace in ["", "team", "team/ci", "other"] {
        let made = root.ask(namespace, Verb::Write, "sys/mounts/transit", json!({"type": "transit"})).await;
        assert_eq!(made.status, 204, "{namespace}");
        let policy =
            json!({"policy": "path \"+/transit/*\" { policy = \"read\" }\npath \"transit/*\" { policy = \"read\" }"});
        let written = root.ask(namespace, Verb::Write, "sys/policies/acl/reader", policy).await;
        assert_eq!(written.status, 204, "{namespace}");
    }
    let read = async |reader: &Tenant<'_>, namespace: &str| {
        reader.ask(namespace, Verb::Read, "transit/keys/nobody", json!({})).await.status
    };
    let reader = Tenant::new(&daemon, "team", &["reader"]).await;
    assert_eq!(read(&reader, "team").await, 404);
    assert_eq!(read(&reader, "team/ci").await, 404, "by the path ci/transit of its own namespace");
    for elsewhere in ["", "other"] {
        assert_eq!(read(&reader, elsewhere).await, 403, "{elsewhere}");
        let looked = reader.ask(elsewhere, Verb::Read, "auth/token/lookup-self", json!({})).await;
        assert_eq!(looked.status, 403, "{elsewhere}");
    }
    assert_eq!(reader.ask("team/ci", Verb::Read, "auth/token/lookup-self", json!({})).await.status, 403);
    let high = Tenant::new(&daemon, "", &["reader"]).await;
    for (namespace, status) in [("", 404), ("team", 404), ("other", 404), ("team/ci", 403)] {
        assert_eq!(read(&high, namespace).await, status, "{namespace}");
    }
    let client = reader.framed("team").await.unwrap();
    let request = |path: &str| proto::Request { path: path.into(), ..Default::default() };
    for path in ["transit/keys/nobody", "ci/transit/keys/nobody"] {
        let told = client.request(request(path)).await.unwrap_err().to_string();
        assert!(!told.contains("permission denied"), "{path}: {told}");
    }
}
