//! A daemon that is sealed and unsealed while it runs.

use keyway::client::{ClientError, Framed, Identity};
use keyway::model::{Secret, Verb};
use keyway::wire::proto;
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT, Setup};
use crate::isolation::children;
use crate::load::Load;
use crate::rig::Rig;
use crate::token::Token;

pub(crate) async fn seal(daemon: &Daemon) {
    let mut http = daemon.http();
    http.deadline = Some(LIMIT);
    let answer = http.request(Verb::Write, "sys/seal", &Default::default()).await.unwrap();
    assert_eq!(answer.status, 204, "{:?}", answer.body);
}

/// As a client without a token does.
pub(crate) async fn unseal(daemon: &Daemon, data: Value) -> Value {
    let mut http = daemon.http();
    (http.token, http.deadline) = (None, Some(LIMIT));
    let answer = http.request(Verb::Write, "sys/unseal", data.as_object().unwrap()).await.unwrap();
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.json()
}

async fn greet(daemon: &Daemon) -> Result<Framed, ClientError> {
    let identity = Identity { token: Secret::from(daemon.root_token.as_str()), namespace: String::new() };
    let path = daemon.socket().with_extension("sock.framed");
    Framed::connect(&path, &identity, proto::Class::Interactive, Some(LIMIT)).await
}

#[tokio::test]
async fn under_load_nothing_is_answered_wrong_and_what_was_there_is_there_again() {
    let rig = Rig::real_pool("", &["doc", "other"]).await;
    rig.key("other", json!({})).await;
    rig.write("", "sys/namespaces/team", json!({})).await;
    rig.write("", "sys/policies/acl/reader", json!({"policy": "path \"transit/*\" { policy = \"read\" }"})).await;
    let daemon = &rig.daemon;
    let greeted = daemon.framed().await;
    let running = Load::default().start(&rig).await;
    for _ in 0..3 {
        running.until_done(50);
        seal(daemon).await;
        let status = daemon.ask(Verb::Read, "sys/seal-status", json!({})).await.json();
        assert_eq!(
            (&status["sealed"], &status["initialized"], &status["type"]),
            (&true.into(), &true.into(), &"file".into())
        );
        assert_eq!(daemon.ask(Verb::Read, "sys/health", json!({})).await.status, 503);
        assert_eq!(daemon.ask(Verb::Read, "sys/health", json!({"sealedcode": 200})).await.status, 200);
        assert_eq!(daemon.ask(Verb::Read, "sys/init", json!({})).await.json(), json!({"initialized": true}));
        for (verb, path) in [
            (Verb::Write, "transit/sign/doc"),
            (Verb::Read, "sys/mounts"),
            (Verb::Read, "sys/unheard-of"),
            (Verb::Write, "sys/seal"),
            (Verb::Write, "sys/init"),
        ] {
            let answer = daemon.ask(verb, path, json!({})).await;
            assert_eq!((answer.status, answer.json()), (503, json!({"errors": ["Vault is sealed"]})), "{path}");
        }
        let sign = proto::Sign { mount: "transit".into(), key: "doc".into(), input: "x".into(), ..Default::default() };
        let told = greeted.sign(sign).await.unwrap_err().to_string();
        assert!(told.contains("sealed"), "{told}");
        assert!(greet(daemon).await.err().unwrap().to_string().contains("sealed"));
        // Every session is closed, so that the tokens are logged out.
        let (opened, closed) = (rig.sim.calls("C_OpenSession"), rig.sim.calls("C_CloseSession"));
        assert_eq!(opened, closed);
        running.until_asked(20);
        unseal(daemon, json!({})).await;
        assert_eq!(daemon.ask(Verb::Read, "sys/health", json!({})).await.status, 200);
    }
    running.until_done(50);
    let tally = running.stop();
    tally.assert_only(&["sealed"]);
    assert!(tally.failed("sealed") > 0);
    assert_eq!(rig.test_sign("other").await.0, 204);
    assert_eq!(rig.ask("team", Verb::Read, "sys/mounts", json!({})).await.status, 200);
    assert_eq!(daemon.ask(Verb::Read, "sys/policies/acl/reader", json!({})).await.status, 200);
    greet(daemon).await.unwrap();
    greeted.request(proto::Request { path: "transit/keys/doc".into(), ..Default::default() }).await.unwrap();
    assert_eq!(rig.sum("keyway_logins_total", &[("result", "refused")]), 0.0);
}

#[tokio::test]
async fn only_sudo_seals_the_root_namespace_alone_and_a_restart_unseals() {
    let token = Token::new();
    let mut daemon = Daemon::new(&token).await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    daemon.write("sys/namespaces/team", json!({})).await;
    daemon.write("sys/policies/acl/weak", json!({"policy": "path \"sys/seal\" { policy = \"write\" }"})).await;
    let made = daemon.ask(Verb::Write, "auth/token/create", json!({"policies": ["weak"]})).await.json();
    let mut weak = daemon.http();
    weak.token = Some(Secret::from(made["auth"]["client_token"].as_str().unwrap()));
    assert_eq!(weak.request(Verb::Write, "sys/seal", &Default::default()).await.unwrap().status, 403);
    let mut team = daemon.http();
    team.namespace = Some("team".into());
    let refused = team.request(Verb::Write, "sys/seal", &Default::default()).await.unwrap();
    assert_eq!(refused.status, 400, "{:?}", refused.body);
    // There is nothing to unseal, and no harm in it.
    assert_eq!(unseal(&daemon, json!({})).await["sealed"], false);

    let out = daemon.cli(&["operator", "seal"]);
    assert!(out.status.success(), "{out:?}");
    let status = daemon.cli(&["status"]);
    assert!(status.status.code() == Some(2) && String::from_utf8_lossy(&status.stdout).contains("Sealed       true"));
    let out = daemon.cli(&["operator", "unseal"]);
    assert!(out.status.success() && String::from_utf8_lossy(&out.stdout).contains("type file"), "{out:?}");
    daemon.write("transit/sign/doc", json!({"input": "eA=="})).await;

    seal(&daemon).await;
    let answer = unseal(&daemon, json!({"key": "abcd", "reset": false, "migrate": false})).await;
    assert!(answer["sealed"] == false && answer["warnings"][0].as_str().unwrap().contains("ignored"), "{answer}");

    // Without its key file it stays sealed, and says why; the store is as it was.
    seal(&daemon).await;
    let (key, away) = (daemon.folder.join("seal.key"), daemon.folder.join("away.key"));
    std::fs::rename(&key, &away).unwrap();
    let (status, told) = daemon.refused("sys/unseal", json!({})).await;
    assert!(status == 503 && told.contains("seal.key"), "{status} {told}");
    assert_eq!(daemon.ask(Verb::Read, "sys/seal-status", json!({})).await.json()["sealed"], true);
    std::fs::rename(&away, &key).unwrap();
    // A sealed daemon ends as any other, and the next one is open.
    daemon.signal("TERM");
    assert!(daemon.ended().success(), "{}", daemon.log());
    let root_token = daemon.root_token.clone();
    daemon = Daemon::start(&token, Setup::default());
    daemon.root_token = root_token;
    daemon.write("transit/sign/doc", json!({"input": "eA=="})).await;
}

#[tokio::test]
async fn what_runs_is_cut_when_the_drain_is_over() {
    let more = "limits {\n drain = \"200ms\"\n}\n";
    let setup = Setup { more, ..Setup::default() };
    let rig = Rig::null(&["one"], &["doc"], setup).await;
    rig.key("doc", json!({})).await;
    rig.sim.steer("slot * service 2s");
    let framed = rig.framed(LIMIT).await;
    let begun = rig.sim.calls("C_SignInit");
    let sign = proto::Sign { mount: "transit".into(), key: "doc".into(), input: "x".into(), ..Default::default() };
    let asked = tokio::spawn(async move { framed.sign(sign).await });
    while rig.sim.calls("C_SignInit") == begun {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    seal(&rig.daemon).await;
    assert!(rig.daemon.log().contains("requests_cut=1"), "{}", rig.daemon.log());
    assert_eq!(rig.daemon.ask(Verb::Read, "sys/health", json!({})).await.status, 503);
    // The call into the token ends as it does, and with it its asker's waiting.
    let _ = asked.await.unwrap();
    rig.sim.steer("clear");
    unseal(&rig.daemon, json!({})).await;
    wait_for_signature(&rig).await;
}

async fn wait_for_signature(rig: &Rig) {
    let begun = std::time::Instant::now();
    loop {
        let (status, told) = rig.test_sign("doc").await;
        if status == 204 {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "{status} {told}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn keys_are_rotated_and_kills_lose_nothing() {
    let token = Token::new();
    let mut daemon = Daemon::new(&token).await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    for index in 0..30 {
        let policy = json!({"policy": format!("path \"p{index}\" {{ policy = \"read\" }}")});
        daemon.write(&format!("sys/policies/acl/p{index}"), policy).await;
    }
    let whole = daemon.ask(Verb::Read, "sys/key-status", json!({})).await.json();
    assert_eq!(whole["term"], whole["data"]["term"], "as in Vault, also at the top level: {whole}");
    let status = daemon.read("sys/key-status").await;
    assert_eq!((&status["term"], &status["old_terms"]), (&json!(1), &json!([])));
    for round in 0_u64..6 {
        let path = if round % 2 == 0 { "sys/rotate" } else { "sys/rotate/root" };
        daemon.write(path, json!({})).await;
        let note = json!({"policy": format!("path \"round{round}\" {{ policy = \"read\" }}")});
        daemon.write("sys/policies/acl/round", note).await;
        daemon.signal("KILL");
        daemon.ended();
        let root_token = daemon.root_token.clone();
        drop(daemon);
        daemon = Daemon::start(&token, Setup::default());
        daemon.root_token = root_token;
        let told = daemon.read("sys/policies/acl/round").await;
        assert!(told["policy"].as_str().unwrap().contains(&format!("round{round}")), "{told}");
        daemon.write("transit/sign/doc", json!({"input": "eA=="})).await;
    }
    let begun = std::time::Instant::now();
    loop {
        let status = daemon.read("sys/key-status").await;
        if status["old_terms"] == json!([]) {
            assert_eq!(status["term"], 4);
            break;
        }
        assert!(begun.elapsed() < LIMIT, "{status}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for index in 0..30 {
        daemon.read(&format!("sys/policies/acl/p{index}")).await;
    }
    seal(&daemon).await;
    unseal(&daemon, json!({})).await;
    daemon.write("transit/sign/doc", json!({"input": "eA=="})).await;
    let mut team = daemon.http();
    daemon.write("sys/namespaces/team", json!({})).await;
    team.namespace = Some("team".into());
    assert_eq!(team.request(Verb::Write, "sys/rotate", &Default::default()).await.unwrap().status, 400);
}

#[tokio::test]
async fn a_crash_leaves_no_keys_behind_unless_that_is_wanted() {
    let token = Token::new();
    for (more, dumps) in [("", false), ("core_dumps = true\nlock_memory = false\n", true)] {
        let daemon = Daemon::start(&token, Setup { more, ..Setup::default() });
        let process = std::path::PathBuf::from(format!("/proc/{}", daemon.pid()));
        let limits = std::fs::read_to_string(process.join("limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let bounds: Vec<&str> = line.split_whitespace().skip(4).collect();
        if !dumps {
            assert_eq!(bounds[..2], ["0", "0"], "{line}");
        }
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap().trim() != "0 kB";
        let told = daemon.log().contains("memory is not locked") || daemon.log().contains("memory cannot be locked");
        assert_eq!(locked || told, !dumps, "{status}\n{}", daemon.log());
        drop(daemon);
        std::fs::write(token.folder.path().join("log"), "").unwrap();
    }
}

#[tokio::test]
async fn workers_keep_their_memory_as_the_daemon_keeps_its_own() {
    let token = Token::new();
    for more in ["", "lock_memory = false\n"] {
        let setup = Setup { more, stanza: "isolation = \"process\"\n workers = 1", ..Setup::default() };
        let daemon = Daemon::with(&token, setup).await;
        daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
        let locked = |pid: u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap().trim() != "0 kB"
        };
        let workers = children(daemon.pid());
        assert!(!workers.is_empty());
        for worker in workers {
            assert_eq!(locked(worker), locked(daemon.pid()), "{}", daemon.log());
            let limits = std::fs::read_to_string(format!("/proc/{worker}/limits")).unwrap();
            let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
            assert_eq!(line.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{line}");
        }
        drop(daemon);
        std::fs::remove_file(token.folder.path().join("keyway.redb")).unwrap();
        std::fs::remove_file(token.folder.path().join("seal.key")).unwrap();
    }
}
