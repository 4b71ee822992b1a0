//! What a tenant has of answers behind tokens, and of all else together with what lies below it; and logins that are wrapped.

use keyway::client::Answer;
use keyway::model::{Secret, Verb};
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT, Setup};
use crate::token::Token;

/// A daemon without tokens of any HSM.
async fn bare(token: &Token, more: &'static str) -> Daemon {
    let library = Some("/nonexistent/module.so".into());
    Daemon::with(token, Setup { library, profile: Some("generic"), more, ..Setup::default() }).await
}

/// A request over a connection of its own.
struct Asked<'d> {
    daemon: &'d Daemon,
    token: Option<&'d str>,
    namespace: &'d str,
    wrapped: bool,
}

impl Asked<'_> {
    async fn send(&self, verb: Verb, path: &str, data: Value) -> Answer {
        let mut http = self.daemon.http();
        http.token = self.token.map(Secret::from);
        http.namespace = (!self.namespace.is_empty()).then(|| self.namespace.to_owned());
        http.wrap_ttl = self.wrapped.then(|| "5m".to_owned());
        http.deadline = Some(LIMIT);
        http.request(verb, path, data.as_object().unwrap()).await.unwrap()
    }

    async fn write(&self, path: &str, data: Value) -> Value {
        let answer = self.send(Verb::Write, path, data).await;
        assert!(answer.status < 300, "{path}: {} {:?}\n{}", answer.status, answer.body, self.daemon.log());
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    /// The status and the words of a refusal.
    async fn refused(&self, path: &str, data: Value) -> (u16, String) {
        let answer = self.send(Verb::Write, path, data).await;
        assert!(answer.status >= 400, "{path}: {:?}", answer.body);
        (answer.status, answer.json()["errors"][0].as_str().unwrap_or_default().to_owned())
    }
}

fn as_root(daemon: &Daemon) -> Asked<'_> {
    Asked { daemon, token: Some(&daemon.root_token), namespace: "", wrapped: false }
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[tokio::test]
async fn a_login_is_wrapped_as_any_other_answer_and_its_token_comes_out_once() {
    let token = Token::absent();
    let limits =
        "limits {\n wrapped_answers_per_asker = 2\n wrapped_answers_per_namespace = 3\n}\nnamespace \"team\" {}\n";
    let daemon = bare(&token, limits).await;
    let root = as_root(&daemon);
    let role = json!({"bound_uids": uid(), "token_ttl": "1h"});
    root.write("auth/unix/role/job", role.clone()).await;
    root.write("auth/unix/role/other", json!({"bound_uids": uid() + 1})).await;
    root.write("team/auth/unix/role/job", role).await;
    let stranger = Asked { token: None, wrapped: true, ..root };
    let wrapped = stranger.write("auth/unix/login", json!({"role": "job"})).await;
    assert!(wrapped["auth"].is_null() && wrapped["wrap_info"]["ttl"] == 300, "{wrapped}");
    assert_eq!(wrapped["wrap_info"]["creation_path"], "auth/unix/login");
    let behind = json!({"token": wrapped["wrap_info"]["token"]});
    let plain = Asked { token: None, ..as_root(&daemon) };
    let auth = plain.write("sys/wrapping/unwrap", behind.clone()).await["auth"].clone();
    assert_eq!(auth["accessor"], wrapped["wrap_info"]["wrapped_accessor"]);
    let bearer = Asked { token: auth["client_token"].as_str(), ..as_root(&daemon) };
    assert_eq!(bearer.send(Verb::Read, "auth/token/lookup-self", json!({})).await.status, 200);
    assert_eq!(plain.refused("sys/wrapping/unwrap", behind).await.0, 400, "once");
    // Who is refused is told no more than without it, and nothing else is wrapped for who shows no token.
    for data in [json!({"role": "other"}), json!({"role": "unheard-of"})] {
        let told = stranger.refused("auth/unix/login", data.clone()).await;
        assert_eq!(told, plain.refused("auth/unix/login", data).await);
        assert!(told.0 == 403 && told.1.starts_with("no login"), "{told:?}");
    }
    assert_eq!(stranger.send(Verb::Read, "sys/health", json!({})).await.status, 403);
    // The user's share, of all its logins and of those who hold their tokens; no login is made that could not be kept.
    stranger.write("auth/unix/login", json!({"role": "job"})).await;
    let wrapping = Asked { wrapped: true, ..bearer };
    let made = wrapping.write("sys/wrapping/wrap", json!({"a": "b"})).await;
    let accessors = async || {
        let listed = as_root(&daemon).send(Verb::List, "auth/token/accessors", json!({})).await;
        listed.json()["data"]["keys"].as_array().unwrap().len()
    };
    let before = accessors().await;
    for (asked, path, data) in
        [(&stranger, "auth/unix/login", json!({"role": "job"})), (&wrapping, "sys/wrapping/wrap", json!({}))]
    {
        let told = asked.refused(path, data).await;
        assert!(told.0 == 429 && told.1.contains("2 (wrapped_answers_per_asker)"), "{told:?}");
    }
    assert_eq!(accessors().await, before);
    plain.write("auth/unix/login", json!({"role": "job"})).await;
    stranger.write("team/auth/unix/login", json!({"role": "job"})).await;
    // The namespace's, whoever asks; what is there is put behind other tokens all the same.
    let operator = Asked { wrapped: true, ..as_root(&daemon) };
    operator.write("sys/wrapping/wrap", json!({"a": "b"})).await;
    let told = operator.refused("sys/wrapping/wrap", json!({})).await;
    assert!(told.0 == 429 && told.1.contains("3 (wrapped_answers_per_namespace)"), "{told:?}");
    let again = plain.write("sys/wrapping/rewrap", json!({"token": made["wrap_info"]["token"]})).await;
    let unwrapped = plain.write("sys/wrapping/unwrap", json!({"token": again["wrap_info"]["token"]})).await;
    assert_eq!(unwrapped["data"], json!({"a": "b"}));
    operator.write("sys/wrapping/wrap", json!({"a": "b"})).await;
}

#[tokio::test]
async fn a_tenant_that_makes_namespaces_has_no_more_for_that() {
    let token = Token::absent();
    let limits = "limits {\n client_tokens_per_namespace = 2\n token_roles_per_namespace = 1\n policies_per_namespace = 1\n \
                  unix_roles_per_namespace = 1\n mounts_per_namespace = 1\n}\nnamespace \"team\" {}\nnamespace \"other\" {}\n";
    let daemon = bare(&token, limits).await;
    let everything = r#"path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }"#;
    let root = as_root(&daemon);
    root.write("team/sys/policies/acl/admin", json!({"policy": everything})).await;
    let made = root.write("team/auth/token/create", json!({"policies": ["admin"], "no_parent": true})).await;
    let admin = made["auth"]["client_token"].as_str().unwrap();
    let admin = Asked { token: Some(admin), namespace: "team", ..as_root(&daemon) };
    admin.write("sys/namespaces/a", json!({})).await;
    admin.write("a/sys/namespaces/b", json!({})).await;
    admin.write("a/auth/token/create", json!({"policies": ["x"]})).await;
    admin.write("a/auth/token/roles/ci", json!({})).await;
    admin.write("a/auth/unix/role/job", json!({"bound_uids": 7})).await;
    admin.write("a/sys/mounts/transit", json!({"type": "transit"})).await;
    let more = [
        ("auth/token/create", json!({"policies": ["x"]}), "client_tokens_per_namespace"),
        ("auth/token/roles/more", json!({}), "token_roles_per_namespace"),
        ("sys/policies/acl/more", json!({"policy": everything}), "policies_per_namespace"),
        ("auth/unix/role/more", json!({"bound_uids": 7}), "unix_roles_per_namespace"),
        ("sys/mounts/more", json!({"type": "transit"}), "mounts_per_namespace"),
    ];
    for (path, data, limit) in &more {
        for below in ["", "a/", "a/b/"] {
            let told = admin.refused(&format!("{below}{path}"), data.clone()).await;
            assert!(told.0 == 400 && told.1.contains(limit) && told.1.contains("team/"), "{below}{path}: {told:?}");
        }
        // It is no other's.
        root.write(&format!("other/{path}"), data.clone()).await;
    }
    // What a namespace had is free when it is gone.
    admin.send(Verb::Delete, "a/sys/namespaces/b", json!({})).await;
    let gone = admin.send(Verb::Delete, "sys/namespaces/a", json!({})).await;
    assert_eq!(gone.status, 204, "{:?}", gone.body);
    for (path, data, _) in more.iter().filter(|(path, ..)| !path.starts_with("sys/policies")) {
        let begun = std::time::Instant::now();
        while admin.send(Verb::Write, path, data.clone()).await.status >= 300 {
            assert!(begun.elapsed() < LIMIT, "{path}: {}", daemon.log());
        }
    }
}

#[tokio::test]
async fn a_rate_of_logins_holds_and_holds_up_nothing_else() {
    let token = Token::absent();
    let daemon = bare(&token, "namespace \"team\" {}\n").await;
    let root = as_root(&daemon);
    for namespace in ["", "team/"] {
        root.write(&format!("{namespace}auth/unix/role/job"), json!({"bound_uids": uid()})).await;
    }
    let quota = json!({"path": "auth/unix/login", "rate": 2, "interval": "1h"});
    root.write("sys/quotas/rate-limit/logins", quota).await;
    let stranger = Asked { token: None, ..as_root(&daemon) };
    // Those that are refused count, too.
    assert_eq!(stranger.refused("auth/unix/login", json!({"role": "unheard-of"})).await.0, 403);
    stranger.write("auth/unix/login", json!({"role": "job"})).await;
    for wrapped in [false, true] {
        let told = Asked { wrapped, ..stranger }.refused("auth/unix/login", json!({"role": "job"})).await;
        assert!(told.0 == 429 && told.1.contains("rate limit quota exceeded"), "{told:?}");
    }
    stranger.write("team/auth/unix/login", json!({"role": "job"})).await;
    root.write("auth/token/create", json!({})).await;
    assert!(daemon.metric("keyway_quota_refused_total{kind=\"rate-limit\"}") >= 2.0);
    // What a whole namespace may ask is not used up by who has no token.
    root.write("sys/quotas/rate-limit/team", json!({"path": "team", "rate": 1, "interval": "1h"})).await;
    for _ in 0..3 {
        assert_eq!(stranger.refused("team/auth/unix/login", json!({"role": "unheard-of"})).await.0, 403);
    }
    root.write("team/auth/unix/role/other", json!({"bound_uids": uid()})).await;
    assert_eq!(root.refused("team/auth/unix/role/other", json!({"bound_uids": uid()})).await.0, 429);
}
