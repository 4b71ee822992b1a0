//! Namespaces that the configuration makes: each a world of its own, on one token.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::client::{Answer, ClientError, Framed, Identity};
use keyway::model::{Secret, Verb};
use keyway::wire::proto;
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT, Setup};
use crate::rig::{Rig, TOKENS, probing};
use crate::token::{self, LABEL, PIN, Token};

const TEAMS: &str = "namespace \"team-a\" { weight = 3 }\nnamespace \"team-b/ci\" {}\n";
const A: &str = "team-a";
const B: &str = "team-b/ci";

/// The daemon's answer to a request with this header.
pub(crate) async fn ask(daemon: &Daemon, namespace: &str, verb: Verb, path: &str, data: Value) -> Answer {
    let mut http = daemon.http();
    http.namespace = Some(namespace.to_owned());
    http.deadline = Some(LIMIT);
    http.request(verb, path, data.as_object().unwrap()).await.unwrap()
}

pub(crate) async fn write(daemon: &Daemon, namespace: &str, path: &str, data: Value) -> Value {
    let answer = ask(daemon, namespace, Verb::Write, path, data).await;
    assert!(answer.status < 300, "{namespace} {path}: {} {:?}\n{}", answer.status, answer.body, daemon.log());
    answer.json()["data"].clone()
}

/// The status and the first error of a write that must be refused.
pub(crate) async fn refused(daemon: &Daemon, namespace: &str, path: &str, data: Value) -> (u16, String) {
    let answer = ask(daemon, namespace, Verb::Write, path, data).await;
    assert!(answer.status >= 400, "{namespace} {path} was answered {}", answer.status);
    (answer.status, answer.json()["errors"][0].as_str().unwrap_or_default().to_owned())
}

pub(crate) async fn framed(daemon: &Daemon, namespace: &str) -> Result<Framed, ClientError> {
    let identity = Identity { token: Secret::from(daemon.root_token.as_str()), namespace: namespace.to_owned() };
    let path = daemon.socket().with_extension("sock.framed");
    Framed::connect(&path, &identity, proto::Class::Interactive, Some(LIMIT)).await
}

pub(crate) fn managed_key(label: &str) -> Value {
    json!({
        "library": "hsm", "token_label": LABEL, "key_label": label, "mechanism": "0x1041", "curve": "P256",
        "allow_generate_key": true, "any_mount": true,
    })
}

/// The mount `transit` of a namespace with the key `doc`, on a managed key `doc` of its own.
pub(crate) async fn documents(daemon: &Daemon, namespace: &str, label: &str) {
    write(daemon, namespace, "sys/mounts/transit", json!({"type": "transit"})).await;
    write(daemon, namespace, "sys/managed-keys/pkcs11/doc", managed_key(label)).await;
    let key = json!({"type": "managed_key", "managed_key_name": "doc"});
    write(daemon, namespace, "transit/keys/doc", key).await;
}

async fn daemon(token: &Token) -> Daemon {
    Daemon::with(token, Setup { more: TEAMS, ..Setup::default() }).await
}

#[tokio::test]
async fn one_name_in_two_namespaces_is_two_things_however_it_is_addressed() {
    let token = Token::new();
    let daemon = daemon(&token).await;
    documents(&daemon, A, "doc-a").await;
    documents(&daemon, B, "doc-b").await;
    let input = STANDARD.encode("x");
    let asked = json!({"input": input});
    let signed = write(&daemon, A, "transit/sign/doc", asked.clone()).await["signature"].clone();
    let check = json!({"input": input, "signature": signed});
    // The header alone, in every spelling; the path alone; both.
    let of_a = [(A, "transit"), ("/team-a/", "transit"), ("", "team-a/transit"), ("root", "team-a/transit")];
    let of_b = [(B, "transit"), ("", "team-b/ci/transit"), ("team-b", "ci/transit"), ("team-b/", "ci/transit")];
    for (namespace, mount) in of_a.into_iter().chain(of_b) {
        let verdict = write(&daemon, namespace, &format!("{mount}/verify/doc"), check.clone()).await;
        assert_eq!(verdict["valid"], of_a.contains(&(namespace, mount)), "{namespace} {mount}");
        write(&daemon, namespace, &format!("{mount}/sign/doc"), asked.clone()).await;
    }
    // The framed wire: Hello's namespace, a mount's path, both.
    let signature = STANDARD.decode(signed.as_str().unwrap().strip_prefix("vault:v1:").unwrap()).unwrap();
    for (namespace, mount) in of_a.into_iter().chain(of_b) {
        let client = framed(&daemon, namespace).await.unwrap();
        let sign = proto::Sign {
            mount: mount.into(),
            key: "doc".into(),
            key_version: 1,
            input: "x".into(),
            ..Default::default()
        };
        let verify = proto::Verify { signed: Some(sign.clone()), signature: signature.clone().into() };
        let valid = client.verify(verify).await.unwrap();
        assert_eq!(valid, of_a.contains(&(namespace, mount)), "{namespace} {mount}");
        client.sign(sign).await.unwrap();
        let read = proto::Request { path: format!("{mount}/keys/doc"), ..Default::default() };
        client.request(read).await.unwrap();
    }
    // The command line.
    let listed = daemon.cli(&["list", "-namespace=team-b/ci", "-format=json", "transit/keys"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("doc"), "{listed:?}");
    for (namespace, code) in [(A, 0), ("team-c", 1)] {
        let signed = daemon.cli(&["sign", "-namespace", namespace, "-key=doc", "-in=/dev/null", "-out=/dev/null"]);
        assert_eq!(signed.status.code(), Some(code), "{signed:?}");
    }
}

#[tokio::test]
async fn nothing_leads_out_of_a_namespace() {
    let token = Token::new();
    let daemon = daemon(&token).await;
    documents(&daemon, A, "doc-a").await;
    let asked = json!({"input": STANDARD.encode("x")});
    for (namespace, path, status) in [
        ("", "transit/sign/doc", 404),
        ("team-b", "transit/sign/doc", 404),
        (B, "transit/sign/doc", 404),
        (B, "team-a/transit/sign/doc", 404),
        (B, "../../team-a/transit/sign/doc", 400),
        (B, "..%2f..%2fteam-a/transit/sign/doc", 404),
        (B, "//team-a/transit/sign/doc", 404),
        (B, "transit//sign/doc", 400),
        ("", "Team-A/transit/sign/doc", 404),
        ("", "team-a%2Ftransit/sign/doc", 404),
        ("", "root/team-a/transit/sign/doc", 404),
        ("team-b/../team-a", "transit/sign/doc", 404),
        ("TEAM-A", "transit/sign/doc", 404),
        ("team-a%2f", "transit/sign/doc", 404),
        ("team-c", "transit/sign/doc", 404),
        ("team-c", "team-a/transit/sign/doc", 404),
        ("team-a/team-a", "transit/sign/doc", 404),
    ] {
        let answer = ask(&daemon, namespace, Verb::Write, path, asked.clone()).await;
        assert_eq!(answer.status, status, "{namespace} {path}: {:?}", answer.body);
    }
    let unknown = refused(&daemon, "team-c", "sys/mounts/pki", json!({"type": "pki"})).await;
    let text = "namespace \"team-c/\" does not exist: make it at sys/namespaces, or by a stanza of the configuration";
    assert_eq!(unknown, (404, text.to_owned()));
    let hello = framed(&daemon, "team-c").await.err().unwrap();
    assert!(matches!(&hello, ClientError::Refused { label, message, .. } if label == "not_found" && message == text));
    let inside = framed(&daemon, B).await.unwrap();
    for mount in ["team-a/transit", "../../team-a/transit", "/team-a/transit", "//team-a/transit"] {
        let sign = proto::Sign { mount: mount.into(), key: "doc".into(), input: "x".into(), ..Default::default() };
        let refused = inside.sign(sign).await.unwrap_err();
        assert!(matches!(&refused, ClientError::Refused { label, .. } if label == "not_found"), "{mount}: {refused}");
    }
    // Health is the daemon's, for whatever namespace a client has set.
    assert_eq!(ask(&daemon, B, Verb::Read, "sys/health", json!({})).await.status, 200);
    assert_eq!(daemon.cli(&["status", "-namespace=team-c"]).status.code(), Some(0));
}

#[tokio::test]
async fn a_tenants_key_is_no_other_tenants() {
    let token = Token::new();
    let daemon = daemon(&token).await;
    documents(&daemon, A, "shared").await;
    write(&daemon, B, "sys/mounts/transit", json!({"type": "transit"})).await;
    let known = ask(&daemon, A, Verb::Read, "sys/managed-keys/pkcs11/doc", json!({})).await.json();
    let uuid = known["data"]["UUID"].as_str().unwrap();
    for naming in [json!({"managed_key_name": "doc"}), json!({"managed_key_id": uuid})] {
        let mut key = naming;
        key["type"] = json!("managed_key");
        let (status, told) = refused(&daemon, B, "transit/keys/stolen", key).await;
        assert!(status == 400 && told.starts_with("no managed key found with"), "{status} {told}");
    }
    // The same object in the token, under a name of its own.
    write(&daemon, B, "sys/managed-keys/pkcs11/mine", managed_key("shared")).await;
    let tested = refused(&daemon, B, "sys/managed-keys/pkcs11/mine/test/sign", json!({})).await;
    assert_eq!(tested.0, 400);
    let told = &tested.1;
    assert!(
        told.contains("managed key \"mine\"") && told.contains("is taken on its token") && !told.contains(A),
        "{told}"
    );
    let key = json!({"type": "managed_key", "managed_key_name": "mine"});
    assert_eq!(refused(&daemon, B, "transit/keys/doc", key.clone()).await, tested);
    assert!(daemon.log().contains("claimed_by"), "the operator is told whose it is: {}", daemon.log());
    // Released there, it may be had here.
    write(&daemon, A, "transit/keys/doc/config", json!({"deletion_allowed": true})).await;
    for path in ["transit/keys/doc", "sys/managed-keys/pkcs11/doc"] {
        assert_eq!(ask(&daemon, A, Verb::Delete, path, json!({})).await.status, 204, "{path}");
    }
    write(&daemon, B, "transit/keys/doc", key).await;
    assert_eq!(token.calls("C_GenerateKeyPair"), 1);
}

/// The namespaces, and a second library of the same code.
fn twin() -> &'static str {
    let (module, profile) = (token::module(), token::profile());
    format!(
        "{TEAMS}kms_library \"pkcs11\" {{\n name = \"twin\"\n library = {module:?}\n profile = {profile:?}\n pin = {PIN:?}\n}}\n"
    )
    .leak()
}

#[tokio::test]
async fn a_key_is_no_tenants_before_its_owner_used_it() {
    let token = Token::new();
    let daemon = Daemon::with(&token, Setup { more: twin(), ..Setup::default() }).await;
    // A key that is in the token, and nobody's here.
    write(&daemon, "", "sys/managed-keys/pkcs11/made", managed_key("offline-ca")).await;
    write(&daemon, "", "sys/managed-keys/pkcs11/made/test/sign", json!({})).await;
    assert_eq!(ask(&daemon, "", Verb::Delete, "sys/managed-keys/pkcs11/made", json!({})).await.status, 204);
    let mut key = managed_key("offline-ca");
    key["allow_generate_key"] = json!(false);
    write(&daemon, "", "sys/managed-keys/pkcs11/ca", key.clone()).await;
    write(&daemon, A, "sys/mounts/transit", json!({"type": "transit"})).await;
    write(&daemon, A, "sys/managed-keys/pkcs11/ca", key.clone()).await;
    // By another name too; and nobody learns that it is there.
    let mut by_twin = key.clone();
    by_twin["library"] = json!("twin");
    write(&daemon, A, "sys/managed-keys/pkcs11/by-twin", by_twin).await;
    key["key_label"] = json!("absent");
    write(&daemon, A, "sys/managed-keys/pkcs11/absent", key).await;
    let (status, absent) = refused(&daemon, A, "sys/managed-keys/pkcs11/absent/test/sign", json!({})).await;
    for name in ["ca", "by-twin"] {
        let told = refused(&daemon, A, &format!("sys/managed-keys/pkcs11/{name}/test/sign"), json!({})).await;
        assert_eq!(told, (status, absent.replace("absent", name)));
        let used = json!({"type": "managed_key", "managed_key_name": name});
        assert_eq!(refused(&daemon, A, "transit/keys/taken", used).await.0, 400);
    }
    assert!(daemon.log().contains("a key of another namespace was refused"), "{}", daemon.log());
    write(&daemon, "", "sys/managed-keys/pkcs11/ca/test/sign", json!({})).await;
}

#[tokio::test]
async fn two_who_generate_a_label_by_two_names_of_a_token_make_one_key() {
    let token = Token::new();
    let daemon = Daemon::with(&token, Setup { more: twin(), ..Setup::default() }).await;
    let mut by_twin = managed_key("fresh");
    by_twin["library"] = json!("twin");
    write(&daemon, A, "sys/managed-keys/pkcs11/doc", managed_key("fresh")).await;
    write(&daemon, B, "sys/managed-keys/pkcs11/doc", by_twin).await;
    let sign = |namespace| ask(&daemon, namespace, Verb::Write, "sys/managed-keys/pkcs11/doc/test/sign", json!({}));
    // SoftHSM2 does not list a token whose files another process writes in this moment: it is asked again.
    let sign_in_the_end = async |namespace| {
        let begun = std::time::Instant::now();
        loop {
            let answer = sign(namespace).await;
            if answer.status < 500 || begun.elapsed() > LIMIT {
                return answer;
            }
        }
    };
    let (first, second) = tokio::join!(sign_in_the_end(A), sign_in_the_end(B));
    assert_eq!((first.status, second.status), (204, 400), "{:?} {:?}", first.body, second.body);
    assert_eq!(token.calls("C_GenerateKeyPair"), 1);
    assert_eq!(sign(A).await.status, 204);
}

#[tokio::test]
async fn what_two_authorities_of_one_name_publish_is_apart() {
    let token = Token::new();
    let daemon = daemon(&token).await;
    let mut published = Vec::new();
    for (namespace, label) in [("", "ca-root"), (A, "ca-a"), (B, "ca-b")] {
        write(&daemon, namespace, "sys/managed-keys/pkcs11/ca", managed_key(label)).await;
        write(&daemon, namespace, "sys/mounts/pki", json!({"type": "pki"})).await;
        let root = json!({"managed_key_name": "ca", "common_name": label});
        let root = write(&daemon, namespace, "pki/root/generate/kms", root).await;
        let folder = if namespace.is_empty() { "root" } else { namespace };
        published.push((daemon.folder.join("published").join(folder).join("pki/ca.pem"), root["certificate"].clone()));
    }
    for (file, certificate) in published {
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text.trim(), certificate.as_str().unwrap().trim(), "{}", file.display());
    }
}

#[tokio::test]
async fn a_namespace_outlives_restarts_and_the_loss_of_its_stanza() {
    let token = Token::new();
    let mut daemon = daemon(&token).await;
    documents(&daemon, A, "doc-a").await;
    let input = STANDARD.encode("x");
    let signed = write(&daemon, A, "transit/sign/doc", json!({"input": input})).await;
    let check = json!({"input": input, "signature": signed["signature"]});
    for (more, served) in [(TEAMS, true), ("namespace \"team-b\" {}\n", false), (TEAMS, true)] {
        let root_token = daemon.root_token.clone();
        daemon.signal("KILL");
        drop(daemon);
        daemon = Daemon::start(&token, Setup { more, ..Setup::default() });
        daemon.root_token = root_token;
        if served {
            assert_eq!(write(&daemon, A, "transit/verify/doc", check.clone()).await["valid"], true);
            write(&daemon, A, "transit/sign/doc", json!({"input": input})).await;
            continue;
        }
        assert_eq!(refused(&daemon, A, "transit/verify/doc", check.clone()).await.0, 404);
        assert_eq!(refused(&daemon, "", "team-a/transit/verify/doc", check.clone()).await.0, 404);
        assert!(daemon.log().contains("the store has records of a namespace"), "{}", daemon.log());
        // Its key is not up for grabs meanwhile.
        write(&daemon, "team-b", "sys/managed-keys/pkcs11/mine", managed_key("doc-a")).await;
        let tested = refused(&daemon, "team-b", "sys/managed-keys/pkcs11/mine/test/sign", json!({})).await;
        assert_eq!(tested.0, 400, "{}", tested.1);
    }
    assert_eq!(token.calls("C_GenerateKeyPair"), 1);
}

#[tokio::test]
async fn a_stanza_does_not_take_a_mounts_requests_away() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    write(&daemon, "", "sys/mounts/team-a/pki", json!({"type": "pki"})).await;
    daemon.signal("KILL");
    let config = daemon.folder.join("keyway.hcl");
    drop(daemon);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n{TEAMS}")).unwrap();
    let refused = std::process::Command::new(env!("CARGO_BIN_EXE_keyway"))
        .args(["server", "-config", config.to_str().unwrap()])
        .envs(token.environment())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("\"team-a/pki/\""), "{told}");
}

#[tokio::test]
async fn a_flood_of_changes_is_refused_in_its_own_namespace_and_holds_no_other_up() {
    let token = Token::absent();
    let daemon = daemon(&token).await;
    let register = async |namespace: &'static str, number: usize| {
        let path = format!("sys/managed-keys/pkcs11/key-{number}");
        ask(&daemon, namespace, Verb::Write, &path, managed_key("doc")).await.status
    };
    // More at once than may wait, for as long as the other namespace asks.
    let over = std::cell::Cell::new(false);
    let one_of_many = async |number: usize| {
        let mut statuses = Vec::new();
        while !over.get() {
            statuses.push(register(A, number).await);
        }
        statuses
    };
    let flooding = futures_util::future::join_all((0..120).map(one_of_many));
    let trickle = async {
        let mut statuses = Vec::new();
        for number in 0..40 {
            statuses.push(register(B, number).await);
        }
        over.set(true);
        statuses
    };
    let (flooded, asked) = futures_util::future::join(flooding, trickle).await;
    let flooded: Vec<u16> = flooded.concat();
    assert!(flooded.contains(&204) && flooded.contains(&503), "{flooded:?}");
    assert!(flooded.iter().all(|status| [204, 503].contains(status)), "{flooded:?}");
    assert!(asked.iter().all(|status| *status == 204), "{asked:?}");
}

/// What `sys/keyway/status` says in a namespace.
async fn status(rig: &Rig, namespace: &str) -> Value {
    rig.ask(namespace, Verb::Read, "sys/keyway/status", json!({})).await.json()["data"].clone()
}

/// The tokens of a status, each with the keys it holds.
fn tokens(status: &Value) -> Vec<(&str, u64)> {
    let members = status["members"].as_array().unwrap();
    members.iter().map(|member| (member["token"].as_str().unwrap(), member["keys"].as_u64().unwrap())).collect()
}

#[tokio::test]
async fn a_namespace_is_told_of_its_own_keys_and_the_tokens_that_serve_them() {
    let more = format!("{}namespace \"a\" {{}}\nnamespace \"b\" {{}}\nnamespace \"c\" {{}}\n", probing("")).leak();
    let stanza = "max_sessions = 1\n verify_after_sign = \"always\"";
    let rig = Rig::null(&TOKENS, &["doc-a", "doc-b", "deed-b"], Setup { more, stanza, ..Setup::default() }).await;
    rig.key_in("a", "doc-a", json!({"token_label": "one"})).await;
    rig.key_in("b", "doc-b", json!({"token_label": "one"})).await;
    let deed = json!({
        "library": "hsm", "token_label": "two", "key_label": "deed-b", "mechanism": "0x1041", "curve": "P256",
        "any_mount": true,
    });
    rig.write("b", "sys/managed-keys/pkcs11/deed-b", deed).await;
    rig.write("b", "sys/managed-keys/pkcs11/deed-b/test/sign", json!({})).await;
    let (of_a, of_b) = (status(&rig, "a").await, status(&rig, "b").await);
    let (of_c, of_all) = (status(&rig, "c").await, status(&rig, "").await);
    assert_eq!(tokens(&of_a), [("one", 1)]);
    assert_eq!(tokens(&of_b), [("one", 1), ("two", 1)]);
    assert_eq!(tokens(&of_c), []);
    assert_eq!(tokens(&of_all), [("one", 2), ("two", 1)]);
    let set = |namespace: &str, key: &str| json!({"namespace": namespace, "key": key, "members": 1, "holders": 1});
    let (doc_a, doc_b, deed_b) = (set("a/", "doc-a"), set("b/", "doc-b"), set("b/", "deed-b"));
    assert_eq!(of_a["key_sets"], json!([doc_a]));
    assert_eq!(of_b["key_sets"], json!([deed_b, doc_b]));
    assert_eq!(of_all["key_sets"], json!([doc_a, deed_b, doc_b]));
    assert_eq!((&of_a["kms_libraries"], &of_c["kms_libraries"]), (&json!(["hsm"]), &json!([])));
    assert!(!of_a.to_string().contains("-b") && !of_a.to_string().contains("two"), "{of_a}");
    // The command line asks in the namespace it is given.
    let shown = |arguments: &[&str]| String::from_utf8(rig.daemon.cli(arguments).stdout).unwrap();
    assert!(!shown(&["status", "-namespace=a"]).contains("hsm/two"));
    assert!(shown(&["status"]).contains("hsm/two"));
    assert!(shown(&["status", "-namespace=d"]).contains("namespace \"d/\" does not exist"));

    // Why a token serves no more is told without the other's key.
    let input = json!({"input": STANDARD.encode("x")});
    rig.write("b", "transit/sign/doc-b", input.clone()).await;
    rig.sim.steer("wrong-signature slot one");
    rig.ask("b", Verb::Write, "transit/sign/doc-b", input).await;
    rig.until_member("one", |member| member["state"] == "refused").await;
    let reason = |status: &Value| status["members"][0]["reason"].as_str().unwrap().to_owned();
    assert!(reason(&status(&rig, "").await).contains("doc-b"));
    let told = reason(&status(&rig, "a").await);
    assert!(told.contains("does not verify") && !told.contains("doc-b"), "{told}");
}
