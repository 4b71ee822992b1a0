//! Tokens that clients show, on both wires: made, used up, renewed, ended with all below them; and answers behind tokens.

use keyway::client::{Framed, Identity};
use keyway::model::{Secret, Verb};
use keyway::wire::proto;
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT, Setup};
use crate::token::Token;

/// Asks with this token; answers the status and the body.
async fn ask(daemon: &Daemon, token: &str, verb: Verb, path: &str, data: Value) -> (u16, Value) {
    let mut http = daemon.http();
    http.token = Some(Secret::from(token));
    let answer = http.request(verb, path, data.as_object().unwrap()).await.unwrap();
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
}

/// A token that `by` makes, and its accessor.
async fn made(daemon: &Daemon, by: &str, data: Value) -> (String, String) {
    let (status, told) = ask(daemon, by, Verb::Write, "auth/token/create", data).await;
    assert_eq!(status, 200, "{told}");
    let text = |name: &str| told["auth"][name].as_str().unwrap().to_owned();
    (text("client_token"), text("accessor"))
}

async fn knows_itself(daemon: &Daemon, token: &str) -> u16 {
    ask(daemon, token, Verb::Read, "auth/token/lookup-self", json!({})).await.0
}

async fn framed(daemon: &Daemon, token: &str) -> Result<Framed, String> {
    let identity = Identity { token: Secret::from(token), namespace: String::new() };
    let socket = daemon.socket().with_extension("sock.framed");
    let connected = Framed::connect(&socket, &identity, proto::Class::Interactive, Some(LIMIT)).await;
    connected.map_err(|error| error.to_string())
}

/// Whether a framed connection is still answered.
async fn is_served(connection: &Framed) -> bool {
    let mounts = proto::Request { path: "sys/mounts".into(), ..proto::Request::default() };
    match connection.request(mounts).await {
        Ok(_) => true,
        Err(error) => {
            assert!(error.to_string().contains("permission denied"), "{error}");
            false
        }
    }
}

/// Kills the daemon and starts another on what it left.
fn restarted(token: &Token, daemon: Daemon) -> Daemon {
    let root_token = daemon.root_token.clone();
    drop(daemon);
    let mut daemon = Daemon::start(token, Setup::default());
    daemon.root_token = root_token;
    daemon
}

#[tokio::test]
async fn what_a_token_made_ends_with_it_on_connections_that_are_open_and_after_a_crash() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let root = daemon.root_token.clone();
    let (parent, _) = made(&daemon, &root, json!({"policies": ["root"], "ttl": "1h"})).await;
    let (child, accessor) = made(&daemon, &parent, json!({"ttl": "2h"})).await;
    let (grandchild, _) = made(&daemon, &child, json!({"ttl": "1h", "meta": {"of": "a job"}})).await;
    let connection = framed(&daemon, &grandchild).await.unwrap();
    assert!(is_served(&connection).await);
    let (_, told) = ask(&daemon, &root, Verb::Write, "auth/token/lookup", json!({"token": grandchild})).await;
    assert_eq!((&told["data"]["meta"]["of"], &told["data"]["orphan"]), (&json!("a job"), &json!(false)));
    let by_accessor = json!({"accessor": accessor});
    let (status, told) = ask(&daemon, &root, Verb::Write, "auth/token/renew-accessor", by_accessor.clone()).await;
    assert_eq!((status, &told["auth"]["client_token"]), (200, &json!("")), "{told}");
    assert_eq!(ask(&daemon, &root, Verb::Write, "auth/token/revoke", json!({"token": parent})).await.0, 204);
    let daemon = {
        for token in [&parent, &child, &grandchild] {
            assert_eq!(knows_itself(&daemon, token).await, 403);
        }
        assert!(!is_served(&connection).await, "the connection outlives the token, and is of no use");
        assert!(framed(&daemon, &child).await.is_err());
        restarted(&token, daemon)
    };
    for token in [&parent, &child, &grandchild] {
        assert_eq!(knows_itself(&daemon, token).await, 403);
    }
    let (status, told) = ask(&daemon, &root, Verb::Write, "auth/token/lookup-accessor", by_accessor).await;
    assert_eq!((status, told), (403, json!({"errors": ["invalid accessor"]})));
    let (status, told) = ask(&daemon, &root, Verb::Write, "auth/token/lookup", json!({"token": child})).await;
    assert_eq!((status, told), (403, json!({"errors": ["bad token"]})));
    let log = daemon.log();
    assert!([&root, &parent, &child, &grandchild].iter().all(|token| !log.contains(token.as_str())));
}

#[tokio::test]
async fn a_token_is_good_for_its_uses_and_no_more_on_either_wire_and_after_a_crash() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let root = daemon.root_token.clone();
    let (few, _) = made(&daemon, &root, json!({"num_uses": 4})).await;
    let connection = framed(&daemon, &few).await.unwrap();
    assert!(is_served(&connection).await);
    assert_eq!(knows_itself(&daemon, &few).await, 200);
    drop(connection);
    let daemon = restarted(&token, daemon);
    assert_eq!(knows_itself(&daemon, &few).await, 200);
    let (status, told) = ask(&daemon, &few, Verb::Read, "auth/token/lookup-self", json!({})).await;
    assert_eq!((status, &told["data"]["num_uses"]), (200, &json!(0)), "the last one");
    assert_eq!(knows_itself(&daemon, &few).await, 403);
    assert!(framed(&daemon, &few).await.is_err());
    let (once, _) = made(&daemon, &root, json!({"num_uses": 1})).await;
    let asked = futures_util::future::join_all((0..8).map(|_| knows_itself(&daemon, &once))).await;
    assert_eq!(asked.iter().filter(|status| **status == 200).count(), 1, "{asked:?}");
}

#[tokio::test]
async fn a_token_whose_time_is_up_is_refused_and_forgotten() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let root = daemon.root_token.clone();
    let (short, accessor) = made(&daemon, &root, json!({"ttl": "1s"})).await;
    let begun = std::time::Instant::now();
    while knows_itself(&daemon, &short).await == 200 {
        assert!(begun.elapsed() < LIMIT);
    }
    let is_listed = async || {
        let (_, told) = ask(&daemon, &root, Verb::List, "auth/token/accessors", json!({})).await;
        told["data"]["keys"].as_array().unwrap().contains(&json!(accessor))
    };
    while is_listed().await {
        assert!(begun.elapsed() < LIMIT);
    }
}

#[tokio::test]
async fn an_answer_behind_a_token_is_given_out_once_and_survives_a_crash() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let root = daemon.root_token.clone();
    let wrap = async |daemon: &Daemon, path: &str, data: Value| {
        let socket = daemon.socket().display().to_string();
        let (header, method) = (format!("X-Vault-Token: {root}"), if data.is_null() { "GET" } else { "POST" });
        let arguments = ["-s", "--unix-socket", &socket, "-X", method, "-H", &header, "-H", "X-Vault-Wrap-TTL: 5m"];
        let (url, body) = (format!("http://keyway/v1/{path}"), data.to_string());
        let mut curl = std::process::Command::new("curl");
        curl.args(arguments).arg(url);
        if !data.is_null() {
            curl.args(["-d", &body]);
        }
        let output = tokio::task::spawn_blocking(move || curl.output().unwrap()).await.unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default()
    };
    let mounts = wrap(&daemon, "sys/mounts", Value::Null).await;
    assert_eq!((&mounts["data"], &mounts["wrap_info"]["ttl"]), (&Value::Null, &json!(300)), "{mounts}");
    let own = wrap(&daemon, "sys/wrapping/wrap", json!({"a": "b"})).await;
    let made = wrap(&daemon, "auth/token/create", json!({"ttl": "1h"})).await;
    assert!(made["wrap_info"]["wrapped_accessor"].is_string() && made["auth"].is_null());
    assert!(wrap(&daemon, "sys/health", Value::Null).await["initialized"] == true, "no envelope, no wrapping");
    // What is public has an answer where no namespace is, but nothing is kept there.
    let nowhere = wrap(&daemon, "nowhere/sys/internal/ui/mounts", Value::Null).await;
    assert!(nowhere["errors"].is_array() && nowhere["wrap_info"].is_null(), "{nowhere}");
    let (status, told) = ask(&daemon, &root, Verb::Write, "sys/wrapping/wrap", json!({"a": "b"})).await;
    assert_eq!((status, told), (400, json!({"errors": ["endpoint requires response wrapping to be used"]})));
    let daemon = restarted(&token, daemon);
    let text = |told: &Value| told["wrap_info"]["token"].as_str().unwrap().to_owned();
    let (_, told) = ask(&daemon, &root, Verb::Write, "sys/wrapping/lookup", json!({"token": text(&made)})).await;
    assert_eq!(told["data"]["creation_path"], "auth/token/create");
    let (_, told) = ask(&daemon, &root, Verb::Write, "sys/wrapping/unwrap", json!({"token": text(&made)})).await;
    assert_eq!(knows_itself(&daemon, told["auth"]["client_token"].as_str().unwrap()).await, 200);
    let (_, again) = ask(&daemon, &text(&own), Verb::Write, "sys/wrapping/rewrap", json!({})).await;
    let unwrap = async |token: String| ask(&daemon, &token, Verb::Write, "sys/wrapping/unwrap", json!({})).await;
    let gone = (400, json!({"errors": ["wrapping token is not valid or does not exist"]}));
    assert_eq!(unwrap(text(&own)).await, gone);
    assert_eq!(unwrap(text(&again)).await.1["data"], json!({"a": "b"}));
    let asked = futures_util::future::join_all((0..8).map(|_| unwrap(text(&mounts)))).await;
    assert_eq!(asked.iter().filter(|(status, _)| *status == 200).count(), 1, "{asked:?}");
    assert!(asked.iter().all(|told| told.0 == 200 || *told == gone));
    let log = daemon.log();
    assert!([&mounts, &own, &made].iter().all(|told| !log.contains(&text(told))));
}
