//! Restoring a snapshot while anything happens: what does not come up goes back, a kill leaves the one store or the other, and
//! no restore opens what was sealed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use keyway::config::{Seal, Storage};
use keyway::model::{Namespace, Verb};
use keyway::store::{Place, RecordKey, Store, Write, seal_from_config};
use serde_json::{Value, json};

use crate::audit::{file_device, records};
use crate::daemon::{Daemon, LIMIT, Setup, wait_for};
use crate::rig::Rig;
use crate::token::Token;

fn save(daemon: &Daemon) -> PathBuf {
    let file = daemon.folder.join("saved.snap");
    let output = daemon.cli(&["operator", "snapshot", "save", file.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?} {}", daemon.log());
    file
}

fn begin_restore(daemon: &Daemon, file: &Path, more: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_keyway"))
        .args(["operator", "snapshot", "restore"])
        .arg(file)
        .args(more)
        .env("VAULT_ADDR", format!("unix://{}", daemon.socket().display()))
        .env("VAULT_TOKEN", &daemon.root_token)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Whether that went well, and what was said.
fn restore(daemon: &Daemon, file: &Path, more: &[&str]) -> (bool, String) {
    let output = begin_restore(daemon, file, more).wait_with_output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
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

async fn write(daemon: &Daemon, path: &str) -> (u16, String) {
    let mut http = daemon.http();
    http.deadline = Some(LIMIT);
    let answer = http.request(Verb::Write, path, &Default::default()).await.unwrap();
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

async fn is_sealed(daemon: &Daemon) -> bool {
    daemon.ask(Verb::Read, "sys/seal-status", json!({})).await.json()["sealed"] == true
}

/// What a restore leaves beside the store.
fn left(daemon: &Daemon) -> Vec<String> {
    let names = std::fs::read_dir(&daemon.folder).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    names.filter(|name| name.starts_with("keyway.redb.")).collect()
}

/// A snapshot of the same store with a record more.
fn forged(daemon: &Daemon, snapshot: &Path, write: Write) -> PathBuf {
    let folder = tempfile::tempdir_in(&daemon.folder).unwrap();
    let storage = Storage::Redb { path: folder.path().join("forged.redb") };
    let seal = || seal_from_config(&Seal::File { path: daemon.folder.join("seal.key") }).unwrap();
    let mut from = std::fs::File::open(snapshot).unwrap();
    Place::new(&storage, seal()).restore(&mut from, |_| u16::MAX).unwrap();
    let store = Store::open(&storage, seal()).unwrap();
    store.commit_now(vec![write]).unwrap();
    let file = daemon.folder.join("forged.snap");
    let mut to = std::fs::File::options().create(true).truncate(true).read(true).write(true).open(&file).unwrap();
    store.save(&mut to, u64::MAX).unwrap();
    file
}

fn record(collection: &str, name: &str, version: u16) -> Write {
    let key = RecordKey::new(&Namespace::root(), collection, name);
    Write::Put { key, version, value: b"nothing that this Keyway reads".to_vec() }
}

#[tokio::test]
async fn a_snapshot_of_a_newer_keyway_is_refused_before_anything_is_sealed() {
    let rig = Rig::null(&["one"], &["doc"], Setup::default()).await;
    let daemon = &rig.daemon;
    policy(daemon, "before").await;
    let saved = save(daemon);
    policy(daemon, "after").await;
    for (collection, version) in [("tokens", 3), ("policies", 2), ("pki/0-1/issuers", 3), ("of-a-newer-kind", 2)] {
        let newer = forged(daemon, &saved, record(collection, "x", version));
        for more in [&[][..], &["-force"]] {
            let (well, said) = restore(daemon, &newer, more);
            assert!(!well && said.contains("nothing was changed"), "{said}");
            assert!(
                said.contains(&format!("is of format {version}")) && said.contains("restore it by the version"),
                "{said}"
            );
        }
    }
    assert!(!daemon.log().contains("sealed:"), "{}", daemon.log());
    assert_eq!(policies(daemon).await, json!(["after", "before", "default", "root"]));
    assert!(left(daemon).is_empty());
}

#[tokio::test]
async fn a_snapshot_that_does_not_come_up_goes_back_and_the_daemon_serves() {
    let rig = Rig::null(&["one"], &["doc"], Setup::default()).await;
    rig.key("doc", json!({})).await;
    let daemon = &rig.daemon;
    policy(daemon, "before").await;
    let saved = save(daemon);
    policy(daemon, "after").await;
    let bad = forged(daemon, &saved, record("policies", "unread", 1));
    for _ in 0..2 {
        let (well, said) = restore(daemon, &bad, &[]);
        assert!(!well && said.contains("the store is as it was before"), "{said}");
        assert!(said.contains("unread"), "the record is named: {said}");
        assert_eq!(policies(daemon).await, json!(["after", "before", "default", "root"]));
        assert!(left(daemon).is_empty(), "{:?}", left(daemon));
        rig.until_serving("one").await;
        assert_eq!(rig.test_sign("doc").await.0, 204);
    }
    // A good one is taken after that, and what is there lasts.
    let (well, said) = restore(daemon, &saved, &[]);
    assert!(well, "{said}");
    assert_eq!(policies(daemon).await, json!(["before", "default", "root"]));
    let rig = rig.restart(Setup::default());
    assert_eq!(policies(&rig.daemon).await, json!(["before", "default", "root"]));
    assert!(left(&rig.daemon).is_empty());
}

#[tokio::test]
async fn a_kill_at_any_moment_leaves_the_old_store_or_the_new_one() {
    const ROUNDS: u32 = 30;
    let mut rig = Rig::null(&["one"], &["doc"], Setup::default()).await;
    rig.key("doc", json!({})).await;
    policy(&rig.daemon, "before").await;
    let saved = save(&rig.daemon);
    let begun = std::time::Instant::now();
    assert!(restore(&rig.daemon, &saved, &[]).0);
    let whole = begun.elapsed();
    let (mut old, mut undone) = (0, 0);
    for round in 0..ROUNDS {
        policy(&rig.daemon, "after").await;
        let mut restoring = begin_restore(&rig.daemon, &saved, &[]);
        std::thread::sleep(whole * round / ROUNDS);
        rig.daemon.signal("KILL");
        let told = restoring.wait().unwrap().success();
        rig.daemon.ended();
        undone += u32::from(left(&rig.daemon).contains(&"keyway.redb.replaced".to_owned()));
        rig = rig.restart(Setup::default());
        let names = policies(&rig.daemon).await;
        let is_old = names == json!(["after", "before", "default", "root"]);
        assert!(is_old || names == json!(["before", "default", "root"]), "{names}");
        assert!(!(is_old && told), "what was told to be done is undone");
        old += u32::from(is_old);
        let left = left(&rig.daemon);
        assert!(left.iter().all(|name| name == "keyway.redb.unfinished"), "{left:?}");
        assert_eq!(rig.test_sign("doc").await.0, 204);
    }
    eprintln!("of {ROUNDS} kills {old} left the old store, {undone} of them when the new one was in its place");
    assert!(old > 0);
}

const SEAL: &str = "seal \"pkcs11\" {\n library = \"hsm\"\n token_label = \"keyway-test\"\n key_label = \"seal\"\n generate_key = true\n}\n";

#[tokio::test]
async fn a_store_of_another_root_key_is_taken_by_force_alone() {
    let token = Token::new();
    let sealed = || Setup { seal: SEAL, ..Setup::default() };
    let first = Daemon::with(&token, sealed()).await;
    policy(&first, "of-the-first").await;
    let saved = save(&first);
    let (firsts_token, kept) = (first.root_token.clone(), token.folder.path().join("first.snap"));
    std::fs::rename(saved, &kept).unwrap();
    drop(first);
    // Another store, whose root key the same key of the HSM wraps.
    std::fs::remove_file(token.folder.path().join("keyway.redb")).unwrap();
    let mut second = Daemon::with(&token, sealed()).await;
    policy(&second, "of-the-second").await;
    let (well, said) = restore(&second, &kept, &[]);
    assert!(!well && said.contains("it is of another store") && said.contains("-force"), "{said}");
    assert_eq!(policies(&second).await, json!(["default", "of-the-second", "root"]));
    let (well, said) = restore(&second, &kept, &["-force"]);
    assert!(well, "{said}");
    assert_eq!(second.ask(Verb::Read, "sys/mounts", json!({})).await.status, 403, "its token is another store's");
    second.root_token = firsts_token.clone();
    assert_eq!(policies(&second).await, json!(["default", "of-the-first", "root"]));
    drop(second);
    let mut again = Daemon::start(&token, sealed());
    again.root_token = firsts_token;
    assert_eq!(policies(&again).await, json!(["default", "of-the-first", "root"]));
}

#[tokio::test]
async fn what_is_sealed_stays_so_whatever_is_restored() {
    let rig = Rig::null(&["one"], &["doc"], Setup::default()).await;
    let daemon = &rig.daemon;
    let saved = save(daemon);
    let begun = std::time::Instant::now();
    assert!(restore(daemon, &saved, &[]).0);
    let whole = begun.elapsed();
    assert_eq!(write(daemon, "sys/seal").await.0, 204);
    for more in [&[][..], &["-force"]] {
        let (well, said) = restore(daemon, &saved, more);
        assert!(!well && said.contains("sealed"), "{said}");
        assert!(is_sealed(daemon).await);
    }
    for step in 0..16 {
        assert_eq!(write(daemon, "sys/unseal").await.0, 200);
        let mut restoring = begin_restore(daemon, &saved, &[]);
        std::thread::sleep(whole * step / 16);
        // Answered so, it is sealed for good; while the store is exchanged, it is told to come again.
        let sealed = loop {
            let (status, said) = write(daemon, "sys/seal").await;
            match status {
                204 => break true,
                503 if said.contains("takes the place of the store") || said.contains("ask again") => {
                    tokio::time::sleep(Duration::from_millis(2)).await
                }
                // The instant in which the door is open and the new tokens are not there yet is not one of these.
                other => panic!("{other} {said}"),
            }
        };
        assert!(sealed && is_sealed(daemon).await, "{}", daemon.log());
        restoring.wait().unwrap();
        assert!(is_sealed(daemon).await, "{}", daemon.log());
        assert!(left(daemon).is_empty(), "{:?}", left(daemon));
    }
    assert_eq!(write(daemon, "sys/unseal").await.0, 200);
    assert_eq!(policies(daemon).await, json!(["default", "root"]));
}

#[tokio::test]
async fn what_was_begun_before_a_seal_is_not_put_in_place_after_it() {
    let rig = Rig::null(&["one"], &["doc"], Setup::default()).await;
    let daemon = &rig.daemon;
    let saved = std::fs::read(save(daemon)).unwrap();
    policy(daemon, "after").await;
    // A body that has come but for its last byte when the daemon is sealed, and unsealed again.
    let mut stream = std::os::unix::net::UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let head = format!(
        "PUT /v1/sys/storage/raft/snapshot HTTP/1.1\r\nHost: k\r\nX-Vault-Token: {}\r\nContent-Length: {}\r\n\r\n",
        daemon.root_token,
        saved.len()
    );
    let (last, most) = saved.split_last().unwrap();
    std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
    std::io::Write::write_all(&mut stream, most).unwrap();
    wait_for("the restore to begin", || daemon.log().contains("is to take the place of the store").then_some(()));
    assert_eq!(write(daemon, "sys/seal").await.0, 204);
    assert_eq!(write(daemon, "sys/unseal").await.0, 200);
    std::io::Write::write_all(&mut stream, &[*last]).unwrap();
    let mut answer = vec![0; 4096];
    let read = std::io::Read::read(&mut stream, &mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("sealed"), "{answer}");
    assert_eq!(policies(daemon).await, json!(["after", "default", "root"]));
    assert!(left(daemon).is_empty());
}

#[tokio::test]
async fn nobody_who_saves_a_snapshot_holds_up_a_seal() {
    let more = "limits {\n drain = \"60s\"\n}\n";
    let rig = Rig::null(&["one"], &["doc"], Setup { more, ..Setup::default() }).await;
    let daemon = &rig.daemon;
    // More than lies in the buffers of a socket.
    let long = "# long\n".repeat(15_000);
    for number in 0..24 {
        daemon.write(&format!("sys/policies/acl/p{number}"), json!({"policy": long})).await;
    }
    let mut stream = std::os::unix::net::UnixStream::connect(daemon.socket()).unwrap();
    let head = format!(
        "GET /v1/sys/storage/raft/snapshot HTTP/1.1\r\nHost: k\r\nX-Vault-Token: {}\r\n\r\n",
        daemon.root_token
    );
    std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
    // It reads nothing of what is sent.
    wait_for("the snapshot to be made", || daemon.log().contains("a snapshot of the store was made").then_some(()));
    assert_eq!(write(daemon, "sys/seal").await.0, 204);
    assert!(daemon.log().contains("requests_cut=0"), "{}", daemon.log());
    assert!(is_sealed(daemon).await);
    // What was made is what it gets, and a second one waits for its turn no longer than that.
    assert_eq!(write(daemon, "sys/unseal").await.0, 200);
    let second = daemon.cli(&["operator", "snapshot", "save", daemon.folder.join("second").to_str().unwrap()]);
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success() && said.contains("another snapshot is being saved"), "{said}");
    drop(stream);
    wait_for("the turn", || {
        let file = daemon.folder.join("second");
        daemon.cli(&["operator", "snapshot", "save", file.to_str().unwrap()]).status.success().then_some(())
    });
}

#[tokio::test]
async fn a_configuration_that_is_read_while_sealed_counts_after_unsealing() {
    let rig = Rig::null(&["one"], &["doc"], Setup::default()).await;
    rig.key("doc", json!({})).await;
    let daemon = &rig.daemon;
    let log = file_device(daemon, "file").await;
    assert_eq!(write(daemon, "sys/seal").await.0, 204);
    let moved = log.with_extension("log.1");
    std::fs::rename(&log, &moved).unwrap();
    let lines = records(&moved).len();
    let stanza = "max_sessions = 1\n env = {}";
    crate::reload::edit(daemon, &[("name    = \"hsm\"", &format!("name    = \"hsm\"\n{stanza}"))]);
    crate::reload::reload(daemon, crate::reload::DONE);
    assert!(is_sealed(daemon).await, "it opens nothing");
    assert_eq!(rig.sim.calls("C_OpenSession"), rig.sim.calls("C_CloseSession"), "and logs in to nothing");
    assert_eq!(write(daemon, "sys/unseal").await.0, 200);
    rig.until_serving("one").await;
    assert_eq!(rig.test_sign("doc").await.0, 204);
    assert_eq!(rig.member("one").await["sessions"], 1);
    assert!(!records(&log).is_empty() && records(&moved).len() == lines);
    // A file that is wrong changes nothing either.
    assert_eq!(write(daemon, "sys/seal").await.0, 204);
    crate::reload::edit(daemon, &[("max_sessions = 1", "max_sessions = nonsense")]);
    crate::reload::reload(daemon, "the configuration was not reloaded");
    assert_eq!(write(daemon, "sys/unseal").await.0, 200);
    rig.until_serving("one").await;
    assert_eq!(rig.test_sign("doc").await.0, 204);
}
