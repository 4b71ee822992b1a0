//! Namespaces that the API makes: addressed, deleted, locked, and kept from each other and from each other's libraries.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use keyway::client::{ClientError, Framed, Identity};
use keyway::config::{Seal, Storage};
use keyway::model::{Namespace, Secret, Verb};
use keyway::store::{Store, seal_from_config};
use keyway::wire::proto;
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT, Setup, scrape, wait_for};
use crate::load::Load;
use crate::reload::{DONE, edit, reload};
use crate::rig::{Rig, probing};
use crate::tenants::{ask, documents, framed, managed_key, refused, write};
use crate::token::{LABEL, Token};

/// Records that are removed in more than one commit.
const MANY: usize = 1500;

async fn make(daemon: &Daemon, parent: &str, name: &str) -> Value {
    write(daemon, parent, &format!("sys/namespaces/{name}"), json!({})).await
}

async fn delete(daemon: &Daemon, parent: &str, name: &str) {
    let answer = ask(daemon, parent, Verb::Delete, &format!("sys/namespaces/{name}"), json!({})).await;
    assert_eq!(answer.status, 204, "{:?}", answer.body);
}

/// Makes a namespace of the root whose name is in use until it is gone.
async fn make_anew(daemon: &Daemon, name: &str) {
    let begun = std::time::Instant::now();
    loop {
        let answer = ask(daemon, "", Verb::Write, &format!("sys/namespaces/{name}"), json!({})).await;
        if answer.status == 200 {
            return;
        }
        let told = answer.json()["errors"][0].to_string();
        assert!(answer.status == 400 && told.contains("is being deleted: try again"), "{} {told}", answer.status);
        assert!(begun.elapsed() < LIMIT, "{}", daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Kills the daemon, and starts another on what it left.
fn killed(daemon: Daemon, token: &Token, setup: Setup) -> Daemon {
    let root_token = daemon.root_token.clone();
    daemon.signal("KILL");
    drop(daemon);
    let mut daemon = Daemon::start(token, setup);
    daemon.root_token = root_token;
    daemon
}

/// The store of a daemon that has ended.
fn store(folder: &Path) -> Store {
    let seal = seal_from_config(&Seal::File { path: folder.join("seal.key") }).unwrap();
    Store::open(&Storage::Redb { path: folder.join("keyway.redb") }, seal).unwrap()
}

fn input() -> Value {
    json!({"input": STANDARD.encode("x")})
}

#[tokio::test]
async fn one_of_the_api_is_addressed_as_any_other_and_outlives_a_crash() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    make(&daemon, "", "one").await;
    make(&daemon, "one", "ci").await;
    write(&daemon, "one", "ci/sys/namespaces/deep", json!({})).await;
    let two = make(&daemon, "", "two").await;
    documents(&daemon, "one/ci", "doc-one").await;
    documents(&daemon, "two", "doc-two").await;
    let signed = write(&daemon, "one/ci", "transit/sign/doc", input()).await;
    let mut check = input();
    check["signature"] = signed["signature"].clone();
    let daemon = killed(daemon, &token, Setup::default());
    let same = [("one/ci", "transit"), ("one", "ci/transit"), ("", "one/ci/transit"), ("/one/ci/", "transit")];
    for (namespace, mount) in same.into_iter().chain([("two", "transit"), ("", "two/transit")]) {
        let verdict = write(&daemon, namespace, &format!("{mount}/verify/doc"), check.clone()).await;
        assert_eq!(verdict["valid"], same.contains(&(namespace, mount)), "{namespace} {mount}");
    }
    for (namespace, path) in [
        ("", "transit/verify/doc"),
        ("one", "transit/verify/doc"),
        ("one/ci/deep", "transit/verify/doc"),
        ("two", "one/ci/transit/verify/doc"),
        ("one/two", "transit/verify/doc"),
    ] {
        assert_eq!(refused(&daemon, namespace, path, check.clone()).await.0, 404, "{namespace} {path}");
    }
    let listed = ask(&daemon, "", Verb::List, "sys/namespaces", json!({})).await.json();
    assert_eq!(listed["data"]["keys"], json!(["one/", "two/"]));
    assert_eq!(listed["data"]["key_info"]["two/"], two);
    let below = ask(&daemon, "one/ci", Verb::List, "sys/namespaces", json!({})).await.json();
    assert_eq!(below["data"]["keys"], json!(["deep/"]));
    let nested = refused(&daemon, "", "sys/namespaces/one/other", json!({})).await;
    assert!(nested.0 == 400 && nested.1.starts_with("name must not contain /"), "{nested:?}");
}

#[tokio::test]
async fn signatures_that_a_namespace_waits_for_are_made_though_it_is_deleted() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    make(&daemon, "", "one").await;
    documents(&daemon, "one", "shared").await;
    let client = framed(&daemon, "one").await.unwrap();
    let sign = || {
        let client = client.clone();
        let document =
            proto::Sign { mount: "transit".into(), key: "doc".into(), input: "x".into(), ..Default::default() };
        async move { client.sign(document).await }
    };
    sign().await.unwrap();
    token.steer("slot * service 20ms");
    let before = token.calls("C_Sign");
    let waiting: Vec<_> = (0..32).map(|_| tokio::spawn(sign())).collect();
    let begun = std::time::Instant::now();
    while token.calls("C_Sign") == before {
        assert!(begun.elapsed() < LIMIT, "{}", daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    delete(&daemon, "", "one").await;
    for answer in futures_util::future::join_all(waiting).await {
        let made = answer.unwrap();
        assert!(made.is_ok(), "{made:?}");
    }
    assert!(sign().await.is_err());
    make_anew(&daemon, "one").await;
}

#[tokio::test]
async fn what_a_deleted_namespace_had_is_gone_and_free_for_others() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    for name in ["one", "two"] {
        make(&daemon, "", name).await;
    }
    documents(&daemon, "one", "shared").await;
    write(&daemon, "one", "sys/managed-keys/pkcs11/ca", managed_key("ca")).await;
    write(&daemon, "one", "sys/mounts/pki", json!({"type": "pki"})).await;
    write(&daemon, "one", "pki/root/generate/kms", json!({"managed_key_name": "ca", "common_name": "One"})).await;
    write(&daemon, "one", "transit/sign/doc", input()).await;
    let (published, metrics) = (daemon.folder.join("published/one"), daemon.folder.join("metrics.sock"));
    assert!(published.join("pki/ca.pem").exists() && scrape(&metrics).contains("namespace=\"one/\""));
    make(&daemon, "one", "below").await;
    let answer = ask(&daemon, "", Verb::Delete, "sys/namespaces/one", json!({})).await;
    let told = answer.json()["errors"][0].to_string();
    assert!(answer.status == 400 && told.contains("containing child namespaces"), "{told}");
    delete(&daemon, "one", "below").await;
    // Requests under way end, each with a signature or with the word that there is no such thing.
    let clients = futures_util::future::join_all((0..8).map(|_| async {
        loop {
            let answer = ask(&daemon, "one", Verb::Write, "transit/sign/doc", input()).await;
            if answer.status != 200 {
                return (answer.status, answer.json()["errors"][0].to_string());
            }
        }
    }));
    let (ended, ()) = futures_util::future::join(clients, delete(&daemon, "", "one")).await;
    assert!(ended.iter().all(|(status, _)| *status == 404), "{ended:?}");
    assert_eq!(refused(&daemon, "one", "sys/mounts/x", json!({"type": "pki"})).await.0, 404);
    make_anew(&daemon, "one").await;
    assert!(!published.exists(), "nothing of it is published");
    // Some are counted by the clock.
    wait_for("the end of its series", || (!scrape(&metrics).contains("namespace=\"one/\"")).then_some(()));
    let mounts = ask(&daemon, "one", Verb::Read, "sys/mounts", json!({})).await.json();
    assert_eq!(mounts["data"], json!({}));
    assert_eq!(ask(&daemon, "one", Verb::List, "sys/managed-keys/pkcs11", json!({})).await.status, 404);
    // The keys stay in the token, and are anybody's.
    let made = token.calls("C_GenerateKeyPair");
    documents(&daemon, "two", "shared").await;
    documents(&daemon, "one", "ca").await;
    assert_eq!(token.calls("C_GenerateKeyPair"), made);
}

#[tokio::test]
async fn a_daemon_killed_while_it_empties_a_namespace_ends_that_at_its_next_start() {
    let token = Token::new();
    let mut daemon = Daemon::new(&token).await;
    for name in ["gone", "kept"] {
        make(&daemon, "", name).await;
        write(&daemon, name, "sys/mounts/pki", json!({"type": "pki"})).await;
        let records = if name == "gone" { MANY } else { 1 };
        let role = |index| write(&daemon, name, format!("pki/roles/r{index}").leak(), json!({"allow_any_name": true}));
        futures_util::stream::iter(0..records).map(role).buffer_unordered(16).count().await;
    }
    documents(&daemon, "gone", "doc").await;
    delete(&daemon, "", "gone").await;
    daemon = killed(daemon, &token, Setup::default());
    assert_eq!(refused(&daemon, "gone", "transit/sign/doc", input()).await.0, 404, "it never comes back");
    // And once more, wherever that is by now.
    daemon = killed(daemon, &token, Setup::default());
    make_anew(&daemon, "gone").await;
    documents(&daemon, "kept", "doc").await;
    assert!(!daemon.log().contains("the store has records of a namespace"), "{}", daemon.log());
    daemon.signal("TERM");
    daemon.ended();
    let store = store(&daemon.folder);
    let has = |namespace: &str| store.collections(&Namespace::from_path(namespace), "", 10).unwrap();
    assert!(has("gone").is_empty() && !has("kept").is_empty(), "{:?}", has("gone"));
    assert!(store.list(&Namespace::root(), "namespaces-removed", None, 1).unwrap().is_empty());
}

#[tokio::test]
async fn a_locked_namespace_answers_nothing_on_either_wire_until_it_is_unlocked() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    make(&daemon, "", "one").await;
    make(&daemon, "one", "ci").await;
    documents(&daemon, "one/ci", "doc").await;
    let unlock_key = write(&daemon, "one", "sys/namespaces/api-lock/lock", json!({})).await["unlock_key"].clone();
    let text =
        "API access to this namespace has been locked by an administrator - \"one\" must be unlocked to gain access.";
    let locked = (503, text.to_owned());
    let daemon = killed(daemon, &token, Setup::default());
    for (namespace, path) in [
        ("one", "sys/namespaces/new"),
        ("one", "sys/namespaces/api-lock/lock"),
        ("one", "sys/namespaces/api-lock/unlock/ci"),
        ("one/ci", "transit/sign/doc"),
        ("", "one/ci/transit/sign/doc"),
    ] {
        assert_eq!(refused(&daemon, namespace, path, input()).await, locked, "{namespace} {path}");
    }
    let client = framed(&daemon, "one/ci").await.unwrap();
    let sign = || proto::Sign { mount: "transit".into(), key: "doc".into(), input: "x".into(), ..Default::default() };
    let told = client.sign(sign()).await.unwrap_err();
    assert!(matches!(&told, ClientError::Refused { message, .. } if message == text), "{told}");
    assert_eq!(ask(&daemon, "one", Verb::Read, "sys/health", json!({})).await.status, 200);
    let unlock = "sys/namespaces/api-lock/unlock";
    let wrong = refused(&daemon, "one", unlock, json!({"unlock_key": "0123456789abcdef"})).await;
    assert_eq!(wrong, (400, "incorrect unlock key".to_owned()));
    write(&daemon, "one", unlock, json!({"unlock_key": unlock_key})).await;
    client.sign(sign()).await.unwrap();
    // From above; and a root token needs no key.
    write(&daemon, "", "sys/namespaces/api-lock/lock/one/ci", json!({})).await;
    let told = client.sign(sign()).await.unwrap_err();
    assert!(matches!(&told, ClientError::Refused { message, .. } if message.contains("\"one/ci\"")), "{told}");
    make(&daemon, "one", "other").await;
    write(&daemon, "one", "sys/namespaces/api-lock/unlock/ci", json!({})).await;
    client.sign(sign()).await.unwrap();
    assert_eq!(refused(&daemon, "", "sys/namespaces/api-lock/lock", json!({})).await.0, 400, "not the root");
}

#[tokio::test]
async fn a_tenant_learns_nothing_of_another() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    for name in ["one", "two"] {
        make(&daemon, "", name).await;
    }
    documents(&daemon, "one", "doc").await;
    write(&daemon, "one", "sys/managed-keys/pkcs11/ca", managed_key("ca")).await;
    write(&daemon, "one", "sys/mounts/pki", json!({"type": "pki"})).await;
    write(&daemon, "one", "pki/root/generate/kms", json!({"managed_key_name": "ca", "common_name": "One"})).await;
    let role = json!({"allow_any_name": true, "generate_lease": true, "key_type": "ec", "key_bits": 256});
    write(&daemon, "one", "pki/roles/web", role).await;
    let certificate = json!({"common_name": "a.example", "ttl": "1h"});
    let issued = ask(&daemon, "one", Verb::Write, "pki/issue/web", certificate).await.json();
    let lease = issued["lease_id"].as_str().unwrap_or_else(|| panic!("{issued}\n{}", daemon.log()));
    write(&daemon, "one", "sys/leases/lookup", json!({"lease_id": lease})).await;
    // Without a good token, namespaces that are and that are not answer alike, on both wires.
    for (path, verb) in [("transit/sign/doc", Verb::Write), ("sys/namespaces", Verb::List), ("sys/mounts", Verb::Read)]
    {
        let mut answers = Vec::new();
        for namespace in ["one", "nobody"] {
            let mut http = daemon.http();
            (http.namespace, http.token) = (Some(namespace.into()), Some(Secret::from("hvs.wrong")));
            let answer = http.request(verb, path, input().as_object().unwrap()).await.unwrap();
            answers.push((answer.status, answer.body));
        }
        assert!(answers[0].0 == 403 && answers[0] == answers[1], "{path}: {answers:?}");
    }
    for (path, verb) in [("sys/internal/ui/mounts", Verb::Read), ("sys/wrapping/lookup", Verb::Write)] {
        let mut answers = Vec::new();
        for namespace in ["one", "nobody"] {
            let mut http = daemon.http();
            (http.namespace, http.token) = (Some(namespace.into()), Some(Secret::from("hvs.wrong")));
            let answer = http.request(verb, path, &Default::default()).await.unwrap();
            let told = answer.json();
            answers.push((answer.status, told["data"].clone(), told["errors"].clone()));
        }
        assert_eq!(answers[0], answers[1], "{path}");
    }
    for namespace in ["one", "nobody"] {
        let identity = Identity { token: Secret::from("hvs.wrong"), namespace: namespace.into() };
        let socket = daemon.socket().with_extension("sock.framed");
        let told = Framed::connect(&socket, &identity, proto::Class::Interactive, Some(LIMIT)).await.err().unwrap();
        assert!(matches!(&told, ClientError::Refused { label, .. } if label == "permission_denied"), "{told}");
    }
    // What one has cannot be had, seen or ended through the other.
    let uuid = ask(&daemon, "one", Verb::Read, "sys/managed-keys/pkcs11/doc", json!({})).await.json();
    let uuid = &uuid["data"]["UUID"];
    write(&daemon, "two", "sys/mounts/transit", json!({"type": "transit"})).await;
    let by_uuid = json!({"type": "managed_key", "managed_key_id": uuid});
    let told = refused(&daemon, "two", "transit/keys/stolen", by_uuid).await;
    assert_eq!(told, (400, format!("no managed key found with uuid {uuid}")));
    assert_eq!(
        refused(&daemon, "two", "sys/leases/lookup", json!({"lease_id": lease})).await,
        (400, "invalid lease".to_owned())
    );
    write(&daemon, "two", "sys/leases/revoke", json!({"lease_id": lease})).await;
    write(&daemon, "one", "sys/leases/lookup", json!({"lease_id": lease})).await;
    for (verb, path) in [
        (Verb::List, "sys/namespaces"),
        (Verb::Read, "sys/namespaces/one"),
        (Verb::Read, "one/sys/mounts"),
        (Verb::Read, "sys/managed-keys/pkcs11/doc"),
        (Verb::Read, "pki/ca/pem"),
    ] {
        let answer = ask(&daemon, "two", verb, path, json!({})).await;
        assert!(answer.status == 404, "{path}: {} {:?}", answer.status, answer.body);
    }
    let seen = ask(&daemon, "two", Verb::Read, "sys/keyway/status", json!({})).await.json()["data"].clone();
    assert!(seen["members"] == json!([]) && seen["kms_libraries"] == json!([]), "{seen}");
}

#[tokio::test]
async fn a_library_is_there_for_the_namespaces_it_names_alone() {
    let token = Token::new();
    let setup = || Setup { stanza: "namespaces = [\"one\", \"team/*\"]", ..Setup::default() };
    let daemon = Daemon::with(&token, setup()).await;
    for (parent, name) in [("", "one"), ("", "two"), ("", "team"), ("team", "ci")] {
        make(&daemon, parent, name).await;
    }
    documents(&daemon, "one", "doc-one").await;
    documents(&daemon, "team/ci", "doc-ci").await;
    let options = |library| json!({"type": "pki", "options": {"kms_library": library, "token_label": LABEL}});
    let mut unknown = managed_key("doc-two");
    unknown["library"] = json!("nothing");
    for namespace in ["", "two", "team"] {
        for (path, known, unknown) in [
            ("sys/managed-keys/pkcs11/doc", managed_key("doc-two"), unknown.clone()),
            ("sys/mounts/pki", options("hsm"), options("nothing")),
        ] {
            let (known, unknown) =
                (refused(&daemon, namespace, path, known).await, refused(&daemon, namespace, path, unknown).await);
            assert_eq!(known, (400, unknown.1.replace("nothing", "hsm")), "as if it were not there");
            assert!(known.1.ends_with("there is none"), "{}", known.1);
        }
    }
    // Withdrawn while the daemon serves, over a restart, and given back.
    edit(&daemon, &[("namespaces = [\"one\", ", "namespaces = [")]);
    let log = reload(&daemon, DONE);
    assert!(log.contains("is not for its namespace any more") && log.contains("one/"), "{log}");
    let told = refused(&daemon, "one", "transit/sign/doc", input()).await;
    assert!(told.0 == 503 && told.1.contains("there is no kms_library \"hsm\""), "{told:?}");
    write(&daemon, "team/ci", "transit/sign/doc", input()).await;
    let withdrawn = || Setup { stanza: "namespaces = [\"team/*\"]", ..Setup::default() };
    let daemon = killed(daemon, &token, withdrawn());
    assert_eq!(refused(&daemon, "one", "transit/sign/doc", input()).await, told);
    write(&daemon, "team/ci", "transit/sign/doc", input()).await;
    edit(&daemon, &[("namespaces = [", "namespaces = [\"one\", ")]);
    reload(&daemon, DONE);
    write(&daemon, "one", "transit/sign/doc", input()).await;
    wait_for("no more words of it", || (!reload(&daemon, DONE).contains("not served")).then_some(()));
}

#[tokio::test]
async fn a_pool_that_is_withdrawn_and_given_back_serves_without_a_new_login() {
    let rig = Rig::pool("", "").await;
    assert_eq!(rig.test_sign("doc").await, (204, String::new()));
    let logins = rig.sim.calls("C_Login");
    edit(&rig.daemon, &[("kms_pool \"both\" {", "kms_pool \"both\" {\n namespaces = [\"*\"]\n")]);
    assert!(reload(&rig.daemon, DONE).contains("is not for its namespace any more"));
    let (status, told) = rig.test_sign("doc").await;
    assert!(status == 503 && told.contains("there is no kms_pool"), "{status} {told}");
    let status = rig.daemon.read("sys/keyway/status").await;
    let set = status["key_sets"].as_array().unwrap().iter().find(|set| set["key"] == "doc").unwrap();
    assert_eq!(set["holders"], 0);
    edit(&rig.daemon, &[("namespaces = [\"*\"]", "namespaces = [\"root\"]")]);
    reload(&rig.daemon, DONE);
    let begun = std::time::Instant::now();
    while rig.test_sign("doc").await.0 != 204 {
        assert!(begun.elapsed() < LIMIT, "{}", rig.daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(rig.sim.calls("C_Login"), logins);
}

#[tokio::test]
async fn what_is_under_way_in_a_deleted_namespace_ends_before_what_it_needs_goes() {
    let setup = Setup { more: probing("call_sign = \"60s\""), stanza: "max_sessions = 2", ..Setup::default() };
    let rig = Rig::null(&["one"], &["doc"], setup).await;
    make(&rig.daemon, "", "ns").await;
    rig.key_in("ns", "doc", json!({})).await;
    let before = rig.sim.calls("C_Sign");
    rig.sim.steer("hang C_Sign");
    let load = Load { namespace: "ns", connections: 1, depth: 2, deadline: LIMIT, ..Load::default() }.start(&rig).await;
    wait_for("calls that hang", || (rig.sim.calls("C_Sign") >= before + 2).then_some(()));
    delete(&rig.daemon, "", "ns").await;
    let told = refused(&rig.daemon, "", "sys/namespaces/ns", json!({})).await;
    assert!(told.0 == 400 && told.1.contains("is being deleted"), "{told:?}");
    assert!(!rig.daemon.log().contains("the managed keys of a deleted namespace are released"));
    rig.sim.steer("release");
    make_anew(&rig.daemon, "ns").await;
    let tally = load.stop();
    assert!(tally.done >= 2, "those that hung were answered: {tally:#?}");
    tally.assert_only(&["not_found"]);
}
