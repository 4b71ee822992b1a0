//! Snapshots: the whole store in a file, saved while it is written, and put in its place again.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use keyway::model::{Secret, Verb};
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT, Setup};
use crate::load::Load;
use crate::rig::Rig;
use crate::token::Token;

const PATH: &str = "sys/storage/raft/snapshot";

fn save(daemon: &Daemon, file: &Path) {
    let output = daemon.cli(&["operator", "snapshot", "save", file.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?} {}", daemon.log());
}

/// Whether that went well, and what was said.
fn restore(daemon: &Daemon, file: &Path, more: &[&str]) -> (bool, String) {
    let output = daemon.cli(&[&["operator", "snapshot", "restore", file.to_str().unwrap()], more].concat());
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

async fn policy(daemon: &Daemon, name: &str) {
    daemon
        .write(&format!("sys/policies/acl/{name}"), json!({"policy": "path \"a\" { capabilities = [\"read\"] }"}))
        .await;
}

async fn policies(daemon: &Daemon) -> Value {
    let mut http = daemon.http();
    http.deadline = Some(LIMIT);
    http.request(Verb::List, "sys/policies/acl", &Default::default()).await.unwrap().json()["data"]["keys"].clone()
}

#[tokio::test]
async fn what_was_saved_under_load_is_there_again_and_what_came_later_is_not() {
    let rig = Rig::null(&["one"], &["doc"], Setup::default()).await;
    let daemon = &rig.daemon;
    rig.key("doc", json!({})).await;
    policy(daemon, "before").await;
    let file = daemon.folder.join("saved");
    let load = Load::default().start(&rig).await;
    load.until_done(20);
    let begun = std::sync::Arc::new(std::sync::Barrier::new(2));
    let saving = std::thread::spawn({
        let (begun, file) = (std::sync::Arc::clone(&begun), file.clone());
        let (token, address) = (daemon.root_token.clone(), format!("unix://{}", daemon.socket().display()));
        move || {
            begun.wait();
            std::process::Command::new(env!("CARGO_BIN_EXE_keyway"))
                .args(["operator", "snapshot", "save", file.to_str().unwrap()])
                .envs([("VAULT_ADDR", address), ("VAULT_TOKEN", token)])
                .output()
                .unwrap()
                .status
                .success()
        }
    });
    begun.wait();
    for number in 0..20 {
        rig.write("", &format!("sys/namespaces/n{number}"), json!({})).await;
    }
    assert!(saving.join().unwrap());
    load.stop().assert_whole();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    policy(daemon, "after").await;
    let (well, said) = restore(daemon, &file, &[]);
    assert!(well, "{said} {}", daemon.log());
    assert_eq!(policies(daemon).await, json!(["before", "default", "root"]));
    rig.until_serving("one").await;
    Load::default().run(&rig, 20).await.assert_none_lost();
    let left: Vec<_> = std::fs::read_dir(&daemon.folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_str().unwrap().contains("restored")), "{left:?}");
    // What was put in place lasts.
    let rig = rig.restart(Setup::default());
    assert_eq!(policies(&rig.daemon).await, json!(["before", "default", "root"]));
}

#[tokio::test]
async fn a_store_of_another_seal_is_not_taken_and_its_own_by_force_too() {
    let rig = Rig::null(&["one"], &["doc"], Setup::default()).await;
    policy(&rig.daemon, "first").await;
    let file = rig.daemon.folder.join("saved");
    save(&rig.daemon, &file);
    let token = Token::absent();
    let setup = Setup { library: Some(rig.sim.module.clone()), profile: Some("generic"), ..Setup::default() };
    let stranger = Daemon::with(&token, setup).await;
    for more in [&[][..], &["-force"]] {
        let (well, said) = restore(&stranger, &file, more);
        assert!(!well && said.contains("does not open its root key"), "{said}");
    }
    assert_eq!(policies(&stranger).await, json!(["default", "root"]));
    policy(&rig.daemon, "second").await;
    let (well, said) = restore(&rig.daemon, &file, &["-force"]);
    assert!(well, "{said} {}", rig.daemon.log());
    assert_eq!(policies(&rig.daemon).await, json!(["default", "first", "root"]));
}

#[tokio::test]
async fn what_is_not_whole_changes_nothing() {
    let rig = Rig::null(&["one"], &["doc"], Setup::default()).await;
    let daemon = &rig.daemon;
    policy(daemon, "before").await;
    let file = daemon.folder.join("saved");
    save(daemon, &file);
    policy(daemon, "after").await;
    let whole = std::fs::read(&file).unwrap();
    let mut longer = whole.clone();
    longer.push(0);
    let mut altered = whole.clone();
    altered[whole.len() / 2] ^= 1;
    let wrong = [whole[..whole.len() - 1].to_vec(), whole[..100].to_vec(), longer, altered, b"{}".to_vec(), Vec::new()];
    for bytes in wrong {
        let bad = daemon.folder.join("bad");
        std::fs::write(&bad, bytes).unwrap();
        let (well, said) = restore(daemon, &bad, &["-force"]);
        assert!(!well && said.contains("nothing was changed"), "{said}");
    }
    assert_eq!(policies(daemon).await, json!(["after", "before", "default", "root"]));
    assert!(!daemon.folder.join("keyway.redb.restored").exists());
}

#[tokio::test]
async fn only_sudo_in_the_root_namespace_may() {
    let more = "limits { snapshot_max = \"4KiB\" }";
    let rig = Rig::null(&["one"], &["doc"], Setup { more, ..Setup::default() }).await;
    let daemon = &rig.daemon;
    rig.write("", "sys/namespaces/team", json!({})).await;
    let everything = "path \"*\" { capabilities = [\"create\", \"read\", \"update\", \"sudo\"] }";
    let poor = "path \"*\" { capabilities = [\"create\", \"read\", \"update\"] }";
    rig.write("team", "sys/policies/acl/all", json!({"policy": everything})).await;
    rig.write("", "sys/policies/acl/poor", json!({"policy": poor})).await;
    let token = |answer: keyway::client::Answer| answer.json()["auth"]["client_token"].as_str().unwrap().to_owned();
    let tenant = token(rig.ask("team", Verb::Write, "auth/token/create", json!({"policies": ["all"]})).await);
    let poor = token(rig.ask("", Verb::Write, "auth/token/create", json!({"policies": ["poor"]})).await);
    let empty = daemon.folder.join("empty");
    std::fs::write(&empty, vec![0; 1 << 20]).unwrap();
    for (token, namespace) in
        [(&tenant, Some("team")), (&tenant, None), (&poor, None), (&daemon.root_token, Some("team"))]
    {
        let mut http = daemon.http();
        http.token = Some(Secret::from(token.as_str()));
        http.namespace = namespace.map(str::to_owned);
        let mut into = tempfile::tempfile().unwrap();
        http.download(PATH, &mut into).await.unwrap_err();
        assert_eq!(into.metadata().unwrap().len(), 0);
        for path in [PATH.to_owned(), format!("{PATH}-force")] {
            // It may be refused before the body is read: then the connection may be gone first.
            if let Ok(answer) = http.upload(&path, std::fs::File::open(&empty).unwrap()).await {
                assert!(matches!(answer.status, 400 | 403), "{} {:?}", answer.status, answer.body);
            }
        }
    }
    // One that may is held to the bound.
    let long = format!("# {}\n{everything}", "long ".repeat(2000));
    rig.write("", "sys/policies/acl/long", json!({"policy": long})).await;
    let output = daemon.cli(&["operator", "snapshot", "save", daemon.folder.join("big").to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("snapshot_max"), "{said}");
    assert!(!daemon.folder.join("big").exists());
}
