//! The machine is lost: a snapshot and its seal make the store on another.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use keyway::model::Verb;
use serde_json::{Value, json};

use crate::daemon::{Daemon, Setup};
use crate::token::{PIN, Token};

/// A host with the tokens, the configuration and nothing else of another.
fn new_host(lost: &Token) -> Token {
    let host = Token::absent();
    let (from, to) = (lost.folder.path(), host.folder.path());
    std::fs::remove_dir(to.join("tokens")).unwrap();
    assert!(Command::new("cp").arg("-r").arg(from.join("tokens")).arg(to).status().unwrap().success());
    let configuration = std::fs::read_to_string(from.join("keyway.hcl")).unwrap();
    let moved = configuration.replace(from.to_str().unwrap(), to.to_str().unwrap());
    std::fs::write(to.join("keyway.hcl"), moved).unwrap();
    host
}

fn command(host: &Token, snapshot: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
    let configuration = host.folder.path().join("keyway.hcl");
    command.args(["operator", "init", "-snapshot"]).arg(snapshot).arg("-config").arg(configuration);
    command.envs(host.environment()).stdin(Stdio::null());
    command
}

/// Whether that went well, and what was said.
fn init(host: &Token, snapshot: &Path) -> (bool, String) {
    let output = command(host, snapshot).output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// What of the store's is there.
fn stores(host: &Token) -> Vec<String> {
    let entries = std::fs::read_dir(host.folder.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.contains("redb") || name.starts_with(".keyway")).collect();
    names.sort();
    names
}

fn edit(host: &Token, from: &str, to: &str) {
    let path = host.folder.path().join("keyway.hcl");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

async fn policy(daemon: &Daemon, name: &str) {
    daemon
        .write(&format!("sys/policies/acl/{name}"), json!({"policy": "path \"a\" { capabilities = [\"read\"] }"}))
        .await;
}

async fn policies(daemon: &Daemon) -> Value {
    daemon.ask(Verb::List, "sys/policies/acl", json!({})).await.json()["data"]["keys"].clone()
}

/// A store with a key, a tenant and a policy, saved; what came later; and the end of it.
async fn lost(token: &Token, setup: Setup) -> (PathBuf, String) {
    let mut daemon = Daemon::with(token, setup).await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    daemon.write("sys/namespaces/team", json!({})).await;
    policy(&daemon, "before").await;
    let snapshot = daemon.folder.join("saved.snap");
    let saved = daemon.cli(&["operator", "snapshot", "save", snapshot.to_str().unwrap()]);
    assert!(saved.status.success(), "{saved:?}");
    policy(&daemon, "after").await;
    daemon.signal("KILL");
    daemon.ended();
    (snapshot, daemon.root_token.clone())
}

async fn assert_as_saved(daemon: &Daemon) {
    assert_eq!(policies(daemon).await, json!(["before", "default", "root"]));
    daemon.write("transit/sign/doc", json!({"input": "eA=="})).await;
    assert_eq!(daemon.ask(Verb::Read, "sys/namespaces/team", json!({})).await.status, 200);
}

#[tokio::test]
async fn a_snapshot_and_the_key_file_make_the_store_on_a_new_host() {
    let token = Token::new();
    let (snapshot, root_token) = lost(&token, Setup::default()).await;
    let host = new_host(&token);
    std::fs::copy(token.folder.path().join("seal.key"), host.folder.path().join("seal.key")).unwrap();
    let (well, said) = init(&host, &snapshot);
    assert!(well && said.contains("records, each verified") && said.contains("Start Keyway"), "{said}");
    assert_eq!(stores(&host), ["keyway.redb"]);
    let file = host.folder.path().join("keyway.redb");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let mut daemon = Daemon::start(&host, Setup::default());
    daemon.root_token = root_token;
    assert_as_saved(&daemon).await;
    // A second time nothing is touched, be it in use or not.
    policy(&daemon, "later").await;
    for _ in 0..2 {
        let (well, said) = init(&host, &snapshot);
        assert!(!well && said.contains("keyway.redb exists, and is left alone"), "{said}");
        assert!(said.contains("keyway operator snapshot restore") && said.contains("move the file away"), "{said}");
        assert_eq!(policies(&daemon).await, json!(["before", "default", "later", "root"]));
        let root_token = daemon.root_token.clone();
        daemon.signal("TERM");
        assert!(daemon.ended().success());
        drop(daemon);
        let before = std::fs::read(&file).unwrap();
        let (well, _) = init(&host, &snapshot);
        assert!(!well && std::fs::read(&file).unwrap() == before);
        daemon = Daemon::start(&host, Setup::default());
        daemon.root_token = root_token;
    }
}

#[tokio::test]
async fn what_is_wrong_is_told_and_leaves_no_store() {
    let token = Token::new();
    let (snapshot, _) = lost(&token, Setup::default()).await;
    let host = new_host(&token);
    let (key, kept) = (host.folder.path().join("seal.key"), token.folder.path().join("seal.key"));
    let refused = |snapshot: &Path, what: &str| {
        let (well, said) = init(&host, snapshot);
        assert!(!well && said.contains(what), "{said}");
        assert_eq!(stores(&host), [""; 0], "{said}");
    };
    refused(&snapshot, "seal.key is missing: restore it from its backup");
    std::fs::write(&key, format!("keyway seal key v1\n{}\n", "0".repeat(64))).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    refused(&snapshot, "configure the seal it was saved under");
    std::fs::copy(kept, &key).unwrap();
    refused(&host.folder.path().join("none.snap"), "none.snap: No such file");
    let whole = std::fs::read(&snapshot).unwrap();
    let bad = host.folder.path().join("bad.snap");
    for at in [5, whole.len() / 3, whole.len() - 20] {
        let mut altered = whole.clone();
        altered[at] ^= 1;
        std::fs::write(&bad, altered).unwrap();
        refused(&bad, "the snapshot is refused");
        std::fs::write(&bad, &whole[..at]).unwrap();
        refused(&bad, "the snapshot is refused");
    }
    // What a restore that was cut short has left is a store, too.
    let replaced = host.folder.path().join("keyway.redb.replaced");
    std::fs::write(&replaced, "a store").unwrap();
    assert!(init(&host, &snapshot).1.contains("keyway.redb.replaced exists, and is left alone"));
    std::fs::remove_file(&replaced).unwrap();
    edit(&host, "keyway.redb", "no/such/keyway.redb");
    refused(&snapshot, "no/such");
    // Arguments that lack something.
    let bare =
        Command::new(env!("CARGO_BIN_EXE_keyway")).args(["operator", "init", "-snapshot", "x"]).output().unwrap();
    assert_eq!(bare.status.code(), Some(64));
    let said = String::from_utf8(bare.stderr).unwrap();
    assert!(said.contains("--config"), "{said}");
}

#[tokio::test]
async fn of_many_who_make_it_at_once_one_does_and_kills_leave_nothing_in_the_way() {
    let token = Token::new();
    let (snapshot, root_token) = lost(&token, Setup::default()).await;
    let host = new_host(&token);
    std::fs::copy(token.folder.path().join("seal.key"), host.folder.path().join("seal.key")).unwrap();
    let file = host.folder.path().join("keyway.redb");
    let start = || command(&host, &snapshot).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = std::time::Instant::now();
    assert!(start().wait().unwrap().success());
    let whole = begun.elapsed();
    for step in 0..12 {
        std::fs::remove_file(&file).unwrap();
        let mut child = start();
        std::thread::sleep(whole * step / 12);
        child.kill().unwrap();
        child.wait().unwrap();
        // Made whole or not at all.
        let (well, said) = init(&host, &snapshot);
        assert!(well || said.contains("exists, and is left alone"), "{said}");
    }
    std::fs::remove_file(&file).unwrap();
    let children: Vec<Child> = (0..4).map(|_| start()).collect();
    let well = children.into_iter().filter_map(|mut child| child.wait().unwrap().success().then_some(())).count();
    assert_eq!(well, 1);
    let mut daemon = Daemon::start(&host, Setup::default());
    daemon.root_token = root_token;
    assert_as_saved(&daemon).await;
    assert_eq!(stores(&host), ["keyway.redb"]);
}

const SEAL: &str = "seal \"pkcs11\" {\n library = \"hsm\"\n token_label = \"keyway-test\"\n key_label = \"seal\"\n generate_key = true\n}\n";

#[tokio::test]
async fn a_snapshot_and_the_hsm_make_it_and_a_wrong_pin_is_tried_once() {
    let sealed = || Setup { seal: SEAL, ..Setup::default() };
    let token = Token::new();
    let (snapshot, root_token) = lost(&token, sealed()).await;
    let host = new_host(&token);
    // The HSM is away.
    let (tokens, away) = (host.folder.path().join("tokens"), host.folder.path().join("away"));
    std::fs::rename(&tokens, &away).unwrap();
    std::fs::create_dir(&tokens).unwrap();
    let (well, said) = init(&host, &snapshot);
    assert!(!well && said.contains("keyway-test") && stores(&host).is_empty(), "{said}");
    std::fs::remove_dir(&tokens).or_else(|_| std::fs::remove_dir_all(&tokens)).unwrap();
    std::fs::rename(&away, &tokens).unwrap();
    edit(&host, PIN, "000000");
    for round in 0..3 {
        let (well, said) = init(&host, &snapshot);
        assert!(!well && !said.contains("000000"), "{said}");
        assert_eq!(round > 0, said.contains("is not asked again"), "{said}");
        assert_eq!(stores(&host), ["keyway.redb.seal-notes"]);
    }
    assert_eq!(host.calls("C_Login"), 1);
    edit(&host, "000000", PIN);
    let (well, said) = init(&host, &snapshot);
    assert!(well, "{said}");
    assert_eq!(stores(&host), ["keyway.redb"]);
    assert_eq!((host.calls("C_Login"), host.calls("C_GenerateKey")), (2, 0));
    // The store knows of the wrong one from now on.
    let mut daemon = Daemon::start(&host, Setup { pin: "000000", ..sealed() });
    let told = daemon.refused("sys/unseal", json!({})).await.1;
    assert!(told.contains("is not asked again"), "{told}");
    assert_eq!(host.calls("C_Login"), 2);
    daemon.signal("TERM");
    daemon.ended();
    drop(daemon);
    let mut daemon = Daemon::start(&host, sealed());
    daemon.root_token = root_token;
    assert_as_saved(&daemon).await;
}
