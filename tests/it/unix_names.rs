//! Roles for processes by the names of their users and groups: which number counts, and since when.

use std::process::Command;

use keyway::client::Answer;
use keyway::model::Verb;
use serde_json::{Value, json};

use crate::daemon::{Daemon, Setup};
use crate::token::Token;

async fn bare() -> (Token, Daemon) {
    let token = Token::absent();
    let library = Some("/nonexistent/module.so".into());
    let daemon = Daemon::with(&token, Setup { library, profile: Some("generic"), ..Setup::default() }).await;
    (token, daemon)
}

/// What `id` says of this process: its user's name, or its group's.
fn own(option: &str) -> String {
    let output = Command::new("id").args([option, "-n"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn login(daemon: &Daemon, role: &str) -> Answer {
    let mut http = daemon.http();
    http.token = None;
    http.request(Verb::Write, "auth/unix/login", json!({"role": role}).as_object().unwrap()).await.unwrap()
}

fn logins(daemon: &Daemon, result: &str) -> f64 {
    daemon.metric(&format!("keyway_unix_logins_total{{result=\"{result}\"}}"))
}

#[tokio::test]
async fn a_role_for_a_name_is_for_the_number_it_had_when_the_role_was_written() {
    let (_token, daemon) = bare().await;
    let (user, group) = (own("-u"), own("-g"));
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let role = json!({"bound_users": [user], "bound_groups": group, "token_policies": "reader"});
    daemon.write("auth/unix/role/named", role).await;
    let shown = daemon.read("auth/unix/role/named").await;
    assert_eq!((&shown["bound_users"], &shown["bound_groups"]), (&json!([user]), &json!([group])));
    assert_eq!((&shown["bound_user_ids"], &shown["bound_group_ids"]), (&json!({&user: uid}), &json!({&group: gid})));
    assert_eq!((&shown["bound_uids"], &shown["bound_gids"]), (&json!([]), &json!([])));
    let answer = login(&daemon, "named").await;
    assert_eq!((answer.status, &answer.json()["auth"]["metadata"]["uid"]), (200, &json!(uid.to_string())));
    // What is not said stays, with its number.
    daemon.write("auth/unix/role/named", json!({"token_ttl": "1h"})).await;
    assert_eq!(daemon.read("auth/unix/role/named").await["bound_user_ids"], json!({&user: uid}));
    // Numbers and names are of one kind: one of either is enough.
    daemon.write("auth/unix/role/either", json!({"bound_users": user, "bound_uids": uid + 1})).await;
    assert_eq!(login(&daemon, "either").await.status, 200);
    let other = if user == "daemon" { "bin" } else { "daemon" };
    daemon.write("auth/unix/role/other", json!({"bound_users": other})).await;
    assert_eq!(login(&daemon, "other").await.status, 403);
    assert_eq!(login(&daemon, "unheard-of").await.status, 403);
    assert_eq!((logins(&daemon, "ok"), logins(&daemon, "refused"), logins(&daemon, "failed")), (2.0, 2.0, 0.0));
    assert!(daemon.log().contains("its uid is not among bound_uids and bound_users"), "{}", daemon.log());
    let (status, error) = daemon.refused("auth/unix/role/named", json!({"bound_users": "", "bound_groups": []})).await;
    assert!(status == 400 && error.contains("at least one of"), "{status} {error}");
}

#[tokio::test]
async fn a_name_that_nobody_has_makes_no_role_and_changes_none() {
    let (_token, daemon) = bare().await;
    let uid = rustix::process::geteuid().as_raw();
    daemon.write("auth/unix/role/job", json!({"bound_uids": uid})).await;
    let before = daemon.read("auth/unix/role/job").await;
    for (data, told) in [
        (json!({"bound_users": "no-such-user"}), "no user \"no-such-user\" on this host"),
        (json!({"bound_groups": ["root", "no-such-group"]}), "no group \"no-such-group\" on this host"),
        (json!({"bound_users": uid}), "set bound_uids"),
        (json!({"bound_uids": "root"}), "names are set by bound_users"),
    ] {
        for role in ["job", "new"] {
            let (status, error) = daemon.refused(&format!("auth/unix/role/{role}"), data.clone()).await;
            assert!(status == 400 && error.contains(told), "{status} {error}");
        }
    }
    assert_eq!(daemon.read("auth/unix/role/job").await, before);
    assert_eq!(daemon.ask(Verb::Read, "auth/unix/role/new", Value::Object(Default::default())).await.status, 404);
}
