//! Logins by the kernel's word on a process: which roles fit whom, what they give and where, and what ends it.

use std::process::Command;

use keyway::client::{Answer, Framed, Identity};
use keyway::model::{Secret, Verb};
use keyway::wire::proto;
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT, Setup, wait_for};
use crate::python;
use crate::token::Token;

const REFUSED: &str = "no login: there is no such role, or it is not for this process; the log says which";
/// Grants what the stories ask for.
const POLICY: &str = r#"path "sys/mounts" { capabilities = ["read"] }"#;

/// A daemon without tokens of any HSM.
async fn bare(token: &Token, more: &str) -> Daemon {
    Daemon::with(token, setup(more)).await
}

fn setup(more: &str) -> Setup {
    let library = Some("/nonexistent/module.so".into());
    Setup { library, profile: Some("generic"), more: more.to_owned().leak(), ..Setup::default() }
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Asks over a connection of its own, with this token or none.
async fn ask(daemon: &Daemon, token: Option<&str>, namespace: &str, verb: Verb, path: &str, data: Value) -> Answer {
    let mut http = daemon.http();
    http.token = token.map(Secret::from);
    http.namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
    http.deadline = Some(LIMIT);
    http.request(verb, path, data.as_object().unwrap()).await.unwrap()
}

/// What an administrator asks.
async fn write(daemon: &Daemon, namespace: &str, path: &str, data: Value) -> Value {
    let answer = ask(daemon, Some(&daemon.root_token), namespace, Verb::Write, path, data).await;
    assert!(answer.status < 300, "{path}: {} {:?}", answer.status, answer.body);
    answer.json()
}

async fn login(daemon: &Daemon, namespace: &str, role: &str) -> Answer {
    ask(daemon, None, namespace, Verb::Write, "auth/unix/login", json!({"role": role})).await
}

/// The token of a login that must go well.
async fn logged_in(daemon: &Daemon, namespace: &str, role: &str) -> String {
    let answer = login(daemon, namespace, role).await;
    assert_eq!(answer.status, 200, "{:?}\n{}", answer.body, daemon.log());
    answer.json()["auth"]["client_token"].as_str().unwrap().to_owned()
}

async fn mounts(daemon: &Daemon, token: &str, namespace: &str) -> u16 {
    ask(daemon, Some(token), namespace, Verb::Read, "sys/mounts", json!({})).await.status
}

/// A process of a user and groups: another user's where this one is root's, else one of this test's own.
struct Someone {
    uid: u32,
    gid: u32,
    /// A group beside that; the same where this process has no other.
    group: u32,
    command: Vec<String>,
}

impl Someone {
    fn new() -> Someone {
        if uid() == 0 {
            let (uid, gid, group) = (4242, 4343, 4444);
            let options = [format!("--reuid={uid}"), format!("--regid={gid}"), format!("--groups={group}")];
            let command = std::iter::once("setpriv".to_owned()).chain(options).collect();
            return Someone { uid, gid, group, command };
        }
        eprintln!("only root can be another user: this one is itself");
        let gid = rustix::process::getegid().as_raw();
        let others = rustix::process::getgroups().unwrap();
        let group = others.iter().map(|group| group.as_raw()).find(|group| *group != gid).unwrap_or(gid);
        Someone { uid: uid(), gid, group, command: vec!["env".to_owned()] }
    }

    /// Logs in at a socket that anybody may connect to; the status and the answer.
    fn login(&self, socket: &str, role: &str) -> (u16, Value) {
        let body = json!({"role": role}).to_string();
        let url = "http://keyway/v1/auth/unix/login";
        let output = Command::new(&self.command[0])
            .args(&self.command[1..])
            .args(["curl", "-s", "-w", "\n%{http_code}", "--unix-socket", socket, "-d", &body, url])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) =
            text.rsplit_once('\n').unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        (status.parse().unwrap(), serde_json::from_str(body).unwrap())
    }
}

/// A token of no HSM whose folder anybody may look into, and the stanza of a socket there that anybody may connect to.
fn open_to_all() -> (Token, String, String) {
    use std::os::unix::fs::PermissionsExt;
    let token = Token::absent();
    std::fs::set_permissions(token.folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = token.folder.path().join("open.sock").display().to_string();
    let stanza = format!("listener \"unix\" {{\n address = \"{socket}\"\n socket_mode = \"0666\"\n}}\n");
    (token, socket, stanza)
}

#[tokio::test]
async fn a_process_gets_by_its_uid_what_the_role_says_until_the_role_is_gone() {
    let token = Token::absent();
    let daemon = bare(&token, "").await;
    write(&daemon, "", "sys/policies/acl/reader", json!({"policy": POLICY})).await;
    let role = json!({
        "bound_uids": [uid()], "token_policies": "reader", "token_ttl": "1h", "token_max_ttl": "24h", "token_num_uses": 0,
    });
    write(&daemon, "", "auth/unix/role/job", role).await;
    let answer = login(&daemon, "", "job").await.json();
    let auth = &answer["auth"];
    assert_eq!((&auth["policies"], &auth["lease_duration"]), (&json!(["default", "reader"]), &json!(3600)));
    assert_eq!((&auth["metadata"]["role"], &auth["metadata"]["uid"]), (&json!("job"), &json!(uid().to_string())));
    assert_eq!((&auth["renewable"], &auth["orphan"]), (&json!(true), &json!(true)), "{answer}");
    let bearer = auth["client_token"].as_str().unwrap().to_owned();
    assert_eq!(mounts(&daemon, &bearer, "").await, 200);
    let own = ask(&daemon, Some(&bearer), "", Verb::Read, "auth/token/lookup-self", json!({})).await.json();
    assert_eq!((&own["data"]["display_name"], &own["data"]["path"]), (&json!("unix-job"), &json!("auth/unix/login")));
    let known = daemon.read("auth/unix/role/job").await;
    assert_eq!((&known["bound_uids"], &known["token_max_ttl"]), (&json!([uid()]), &json!(86400)), "{known}");
    // What is not said stays as it was.
    write(&daemon, "", "auth/unix/role/job", json!({"token_ttl": "2h"})).await;
    assert_eq!(daemon.read("auth/unix/role/job").await["token_policies"], json!(["reader"]));
    let listed = ask(&daemon, Some(&daemon.root_token), "", Verb::List, "auth/unix/role", json!({})).await.json();
    assert_eq!(listed["data"]["keys"], json!(["job"]));
    assert!(daemon.read("sys/auth").await["unix/"]["type"] == "unix");
    let root_token = daemon.root_token.clone();
    drop(daemon);
    let mut daemon = Daemon::start(&token, setup(""));
    daemon.root_token = root_token;
    let renew =
        async |daemon: &Daemon| ask(daemon, Some(&bearer), "", Verb::Write, "auth/token/renew-self", json!({})).await;
    assert_eq!(renew(&daemon).await.status, 200);
    let other = logged_in(&daemon, "", "job").await;
    let deleted = ask(&daemon, Some(&daemon.root_token), "", Verb::Delete, "auth/unix/role/job", json!({})).await;
    assert_eq!(deleted.status, 204);
    let refused = renew(&daemon).await;
    assert!(refused.status == 400 && refused.json()["errors"][0].as_str().unwrap().contains("is gone"), "{refused:?}");
    assert_eq!(mounts(&daemon, &other, "").await, 200, "what was given stays until its end");
    assert_eq!(login(&daemon, "", "job").await.status, 403);
    let log = daemon.log();
    assert!(!log.contains(&bearer) && !log.contains(&other));
}

#[tokio::test]
async fn a_group_beside_the_effective_one_counts_and_who_fits_nothing_learns_nothing() {
    let (token, socket, stanza) = open_to_all();
    let daemon = bare(&token, &stanza).await;
    let someone = Someone::new();
    let Someone { uid, gid, group, .. } = someone;
    for (role, bounds) in [
        ("by-gid", json!({"bound_gids": [gid]})),
        ("by-group", json!({"bound_gids": [1, group], "bound_uids": format!("{uid},1")})),
        ("other-uid", json!({"bound_gids": [group], "bound_uids": [uid + 1]})),
        ("other-group", json!({"bound_gids": [group + 1], "bound_uids": [uid]})),
        ("unit", json!({"bound_units": ["backup.service"]})),
        ("uid-in-unit", json!({"bound_units": ["backup.service"], "bound_uids": [uid]})),
    ] {
        write(&daemon, "", &format!("auth/unix/role/{role}"), bounds).await;
    }
    let (status, told) = someone.login(&socket, "by-gid");
    assert_eq!((status, &told["auth"]["metadata"]["gid"]), (200, &json!(gid.to_string())), "{told}\n{}", daemon.log());
    let (status, told) = someone.login(&socket, "by-group");
    let counted = told["auth"]["metadata"]["group"].as_str().map(str::to_owned);
    assert_eq!((status, counted), (200, (group != gid).then(|| group.to_string())), "{told}\n{}", daemon.log());
    for role in ["other-uid", "other-group", "unit", "uid-in-unit", "unheard-of", "no/name", ""] {
        let (status, told) = someone.login(&socket, role);
        let expected = if role.is_empty() { (400, "missing role") } else { (403, REFUSED) };
        assert_eq!((status, told), (expected.0, json!({"errors": [expected.1]})), "{role}");
    }
    let elsewhere = login(&daemon, "nowhere", "by-gid").await;
    assert_eq!((elsewhere.status, elsewhere.json()), (403, json!({"errors": [REFUSED]})));
    let log = daemon.log();
    for why in [
        "its uid is not among bound_uids",
        "none of its groups",
        "asks for a unit",
        "no such role",
        "no such namespace",
    ] {
        assert!(log.contains(why), "{why}: {log}");
    }
}

#[tokio::test]
async fn a_role_is_one_of_its_namespace_and_goes_with_it() {
    let token = Token::absent();
    let daemon = bare(&token, "namespace \"other\" {}\n").await;
    let made = async || write(&daemon, "", "sys/namespaces/team", json!({})).await;
    made().await;
    write(&daemon, "", "sys/policies/acl/of-the-root", json!({"policy": POLICY})).await;
    write(
        &daemon,
        "team",
        "sys/policies/acl/reader",
        json!({"policy": format!("{POLICY}\n{}", POLICY.replace("sys", "below/sys"))}),
    )
    .await;
    let role = |policies: &str| json!({"bound_uids": uid(), "token_policies": policies});
    write(&daemon, "team", "auth/unix/role/job", role("reader")).await;
    write(&daemon, "team", "auth/unix/role/climber", role("of-the-root")).await;
    write(&daemon, "team", "sys/namespaces/below", json!({})).await;
    let bearer = logged_in(&daemon, "team", "job").await;
    for (namespace, status) in [("team", 200), ("team/below", 200), ("", 403), ("other", 403)] {
        assert_eq!(mounts(&daemon, &bearer, namespace).await, status, "{namespace}");
    }
    let climber = logged_in(&daemon, "team", "climber").await;
    assert_eq!((mounts(&daemon, &climber, "team").await, mounts(&daemon, &climber, "").await), (403, 403));
    for namespace in ["", "other", "team/below"] {
        assert_eq!(login(&daemon, namespace, "job").await.status, 403, "{namespace}");
    }
    let root = json!({"bound_uids": uid(), "token_policies": "root"});
    for namespace in ["", "team"] {
        let refused =
            ask(&daemon, Some(&daemon.root_token), namespace, Verb::Write, "auth/unix/role/r", root.clone()).await;
        assert_eq!(refused.status, 400, "{refused:?}");
    }
    write(&daemon, "team", "sys/namespaces/api-lock/lock", json!({})).await;
    assert_eq!(login(&daemon, "team", "job").await.status, 503);
    assert_eq!(login(&daemon, "team", "unheard-of").await.status, 403);
    write(&daemon, "team", "sys/namespaces/api-lock/unlock", json!({})).await;
    for (namespace, name) in [("team", "below"), ("", "team")] {
        let path = format!("sys/namespaces/{name}");
        let deleted = ask(&daemon, Some(&daemon.root_token), namespace, Verb::Delete, &path, json!({})).await;
        assert_eq!(deleted.status, 204, "{deleted:?}");
    }
    // The one as soon as the namespace is gone, the other once the token is.
    assert!([404, 403].contains(&mounts(&daemon, &bearer, "team").await));
    let begun = std::time::Instant::now();
    while ask(&daemon, Some(&daemon.root_token), "", Verb::Write, "sys/namespaces/team", json!({})).await.status != 200
    {
        assert!(begun.elapsed() < LIMIT, "{}", daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(login(&daemon, "team", "job").await.status, 403);
    assert_eq!(mounts(&daemon, &bearer, "team").await, 403);
}

#[tokio::test]
async fn hvac_logs_in_by_its_process() {
    let Some(python) = python::python() else { return };
    let token = Token::absent();
    let daemon = bare(&token, "").await;
    write(&daemon, "", "sys/policies/acl/reader", json!({"policy": POLICY})).await;
    write(&daemon, "", "auth/unix/role/job", json!({"bound_uids": uid(), "token_policies": "reader"})).await;
    python::run(&python, "unix_login.py", &[daemon.socket().display().to_string(), "job".to_owned()]);
}

/// A socket of each wire that lets in by roles alone, beside the common ones.
fn implicit(token: &Token) -> (String, String) {
    let home = token.folder.path().display();
    let stanza = format!(
        "listener \"unix\" {{\n address = \"{home}/i.sock\"\n implicit_auth = true\n}}\n\
         listener \"unix\" {{\n address = \"{home}/i.sock.framed\"\n protocol = \"framed\"\n implicit_auth = true\n}}\n"
    );
    (format!("{home}/i.sock"), stanza)
}

/// Asks at a socket with this token or none.
async fn at(socket: &str, token: Option<&str>, namespace: &str, verb: Verb, path: &str) -> (u16, Value) {
    let mut http = keyway::client::Http::new(std::path::Path::new(socket));
    http.token = token.map(Secret::from);
    http.namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
    http.deadline = Some(LIMIT);
    let answer = http.request(verb, path, &Default::default()).await.unwrap();
    (answer.status, answer.json())
}

async fn framed(socket: &str, token: &str, namespace: &str) -> Result<Framed, String> {
    let identity = Identity { token: Secret::from(token), namespace: namespace.to_owned() };
    let path = std::path::PathBuf::from(format!("{socket}.framed"));
    let connected = Framed::connect(&path, &identity, proto::Class::Interactive, Some(LIMIT)).await;
    connected.map_err(|error| error.to_string())
}

async fn reads_mounts(connection: &Framed) -> bool {
    let mounts = proto::Request { path: "sys/mounts".into(), ..proto::Request::default() };
    connection.request(mounts).await.is_ok()
}

#[tokio::test]
async fn who_shows_no_token_is_let_in_by_its_roles_where_the_listener_says_so() {
    let token = Token::absent();
    let (socket, stanza) = implicit(&token);
    let daemon = bare(&token, &format!("{stanza}namespace \"team\" {{}}\n")).await;
    let common = daemon.socket().display().to_string();
    write(&daemon, "", "sys/policies/acl/reader", json!({"policy": POLICY})).await;
    let known = "auth/token/lookup-self";
    assert_eq!(at(&socket, None, "", Verb::Read, known).await.0, 403);
    assert!(framed(&socket, "", "").await.is_err());
    let role = |uid: u32| json!({"bound_uids": [uid], "token_policies": ["reader"], "implicit": true});
    write(&daemon, "", "auth/unix/role/job", role(uid())).await;
    // On both wires, and in namespaces below as far as the policies go.
    let connection = framed(&socket, "", "").await.unwrap();
    assert!(reads_mounts(&connection).await);
    assert_eq!(at(&socket, None, "", Verb::Read, "sys/mounts").await.0, 200);
    assert_eq!(at(&socket, None, "team", Verb::Read, "sys/mounts").await.0, 403);
    assert_eq!(at(&socket, None, "", Verb::List, "sys/policies/acl").await.0, 403);
    // Not where the listener says nothing of it.
    assert_eq!(at(&common, None, "", Verb::Read, "sys/mounts").await.0, 403);
    assert!(framed(&common, "", "").await.is_err());
    // A token that is shown is the one that counts.
    assert_eq!(at(&socket, Some("hvs.wrong"), "", Verb::Read, "sys/mounts").await.0, 403);
    assert!(framed(&socket, "hvs.wrong", "").await.is_err());
    let root = at(&socket, Some(&daemon.root_token), "", Verb::Read, known).await.1;
    assert_eq!(root["data"]["policies"], json!(["root"]));
    let (_, own) = at(&socket, None, "", Verb::Read, known).await;
    let data = &own["data"];
    assert_eq!(
        (&data["id"], &data["type"], &data["policies"]),
        (&json!(""), &json!("implicit"), &json!(["default", "reader"]))
    );
    assert_eq!((&data["meta"]["roles"], &data["meta"]["uid"]), (&json!("job"), &json!(uid().to_string())), "{own}");
    for path in ["auth/token/renew-self", "auth/token/revoke-self"] {
        let (status, told) = at(&socket, None, "", Verb::Write, path).await;
        assert!(status == 400 && told["errors"][0].as_str().unwrap().contains("auth/unix/login"), "{path}: {told}");
    }
    assert_eq!(at(&socket, None, "", Verb::Write, "auth/token/create").await.0, 403, "no policy grants it");
    write(
        &daemon,
        "",
        "sys/policies/acl/reader",
        json!({"policy": "path \"auth/token/create\" { capabilities = [\"update\"] }"}),
    )
    .await;
    let (status, told) = at(&socket, None, "", Verb::Write, "auth/token/create").await;
    assert!(status == 400 && told["errors"][0].as_str().unwrap().contains("makes none"), "{told}");
    assert!(!reads_mounts(&connection).await, "a changed policy counts at the next request");
    // So does a changed role, on connections that are open.
    write(&daemon, "", "sys/policies/acl/reader", json!({"policy": POLICY})).await;
    assert!(reads_mounts(&connection).await);
    write(&daemon, "", "auth/unix/role/job", role(uid() + 1)).await;
    assert!(!reads_mounts(&connection).await);
    assert_eq!(at(&socket, None, "", Verb::Read, "sys/mounts").await.0, 403);
    assert!(reads_mounts(&framed(&socket, &daemon.root_token, "").await.unwrap()).await);
}

#[tokio::test]
async fn implicit_roles_of_a_tenant_count_in_its_namespace_and_below_alone() {
    let token = Token::absent();
    let (socket, stanza) = implicit(&token);
    let daemon = bare(&token, &format!("{stanza}namespace \"team/ci\" {{}}\nnamespace \"other\" {{}}\n")).await;
    let everything =
        json!({"policy": "path \"*\" { capabilities = [\"read\", \"list\", \"update\", \"create\", \"sudo\"] }"});
    write(&daemon, "team", "sys/policies/acl/all", everything).await;
    let role = json!({"bound_uids": uid(), "token_policies": ["all"], "implicit": true});
    write(&daemon, "team", "auth/unix/role/job", role.clone()).await;
    for (namespace, status) in [("team", 200), ("team/ci", 200), ("", 403), ("other", 403), ("nowhere", 403)] {
        assert_eq!(at(&socket, None, namespace, Verb::Read, "sys/mounts").await.0, status, "{namespace}");
    }
    assert!(framed(&socket, "", "team/ci").await.is_ok() && framed(&socket, "", "").await.is_err());
    // A role nearer to what is asked goes before one above, even where it gives less.
    write(&daemon, "team/ci", "auth/unix/role/less", json!({"bound_uids": uid(), "implicit": true})).await;
    assert_eq!(at(&socket, None, "team/ci", Verb::Read, "sys/mounts").await.0, 403);
    assert_eq!(at(&socket, None, "team", Verb::Read, "ci/sys/mounts").await.0, 403);
    let root_token = daemon.root_token.clone();
    drop(daemon);
    let mut daemon = Daemon::start(&token, setup(&format!("{stanza}namespace \"team/ci\" {{}}\n")));
    daemon.root_token = root_token;
    // It is opened after the one that the start waits for.
    wait_for("the socket", || std::os::unix::net::UnixStream::connect(&socket).ok());
    assert_eq!(at(&socket, None, "team", Verb::Read, "sys/mounts").await.0, 200);
}

#[tokio::test]
async fn the_command_line_logs_in_and_keeps_the_token_where_it_looks_for_it() {
    use std::os::unix::fs::PermissionsExt;
    let token = Token::absent();
    let daemon = bare(&token, "").await;
    write(&daemon, "", "sys/policies/acl/reader", json!({"policy": POLICY})).await;
    write(&daemon, "", "auth/unix/role/job", json!({"bound_uids": uid(), "token_policies": "reader"})).await;
    let home = tempfile::tempdir().unwrap();
    let keyway = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_keyway"))
            .args(arguments)
            .env("VAULT_ADDR", format!("unix://{}", daemon.socket().display()))
            .env_remove("VAULT_TOKEN")
            .env("HOME", home.path())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let file = home.path().join(".vault-token");
    let (code, alone, _) = keyway(&["login", "-method=unix", "-token-only", "role=job"]);
    assert!(code == Some(0) && alone.starts_with("hvs.") && alone.lines().count() == 1 && !file.exists(), "{alone}");
    let (code, told, said) = keyway(&["login", "-method=unix", "role=job"]);
    assert!(code == Some(0) && told.contains("token_policies"), "{told}{said}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let stored = std::fs::read_to_string(&file).unwrap();
    assert!(told.contains(&stored) && stored != alone.trim());
    assert_eq!(keyway(&["read", "sys/mounts"]).0, Some(0));
    let (code, _, said) = keyway(&["login", "role=unheard-of"]);
    assert!(code == Some(1) && said.contains(REFUSED), "{said}");
    for wrong in [&["login"][..], &["login", "-method=ldap", "role=job"]] {
        assert_eq!(keyway(wrong).0, Some(64), "{wrong:?}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), stored);
}
