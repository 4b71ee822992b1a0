//! What is stored, when the daemon is killed, the disk is full, or the file is damaged.

use std::process::{Command, Output};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::model::Verb;
use parking_lot::Mutex;
use serde_json::json;

use crate::daemon::{Daemon, Setup};
use crate::openssl;
use crate::token::Token;

/// How often the daemon is killed.
const KILLS: usize = 100;
/// Who asks for certificates at once.
const CLIENTS: usize = 3;

#[tokio::test]
async fn a_hundred_kills_lose_no_certificate_that_was_answered() {
    let token = Token::new();
    let mut daemon = Daemon::new(&token).await;
    daemon.certificate_authority().await;
    openssl::request(&daemon.folder, "a", openssl::P256, "DNS:a.example.com");
    let csr = std::fs::read_to_string(daemon.folder.join("a.csr")).unwrap();
    for round in 0..KILLS {
        let answered: Arc<Mutex<Vec<String>>> = Arc::default();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (mut http, csr, answered) = (daemon.http(), csr.clone(), Arc::clone(&answered));
                tokio::spawn(async move {
                    let data = json!({"csr": csr, "common_name": "a.example.com"});
                    // Until the daemon is gone.
                    while let Ok(answer) = http.request(Verb::Write, "pki/sign/any", data.as_object().unwrap()).await {
                        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
                        answered.lock().push(answer.json()["data"]["serial_number"].as_str().unwrap().to_owned());
                    }
                })
            })
            .collect();
        while answered.lock().len() <= round % 8 {
            assert!(!clients.iter().all(|client| client.is_finished()), "{}", daemon.log());
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        daemon.signal("KILL");
        for client in clients {
            client.await.unwrap();
        }
        let root_token = daemon.root_token.clone();
        drop(daemon);
        daemon = Daemon::start(&token, Setup::default());
        daemon.root_token = root_token;
        let answered = std::mem::take(&mut *answered.lock());
        for serial in answered {
            assert_eq!(daemon.ask(Verb::Read, &format!("pki/cert/{serial}"), json!({})).await.status, 200, "{serial}");
        }
    }
}

/// Bounds the files that the daemon may write, in bytes, as a disk that is full does.
fn bound(daemon: &Daemon, bytes: &str) {
    let arguments = [format!("--pid={}", daemon.pid()), format!("--fsize={bytes}:unlimited")];
    assert!(Command::new("prlimit").args(arguments).status().unwrap().success());
}

#[tokio::test]
async fn a_disk_without_room_refuses_what_needs_it_and_nothing_else() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    bound(&daemon, &std::fs::metadata(daemon.folder.join("keyway.redb")).unwrap().len().to_string());
    // The file has some room in it yet.
    let large = json!({"type": "transit", "description": "d".repeat(100_000)});
    let mut mounts = 0;
    let (status, told) = wait_until_refused(&daemon, &large, &mut mounts).await;
    assert_eq!(status, 503);
    assert!(told.contains("keyway.redb") && told.contains("make room on that disk"), "{told}");
    let input = json!({"input": STANDARD.encode("x")});
    daemon.write("transit/sign/doc", input.clone()).await;
    assert_eq!(daemon.read("sys/mounts").await.as_object().unwrap().len(), mounts + 1);

    bound(&daemon, "unlimited");
    daemon.write(&format!("sys/mounts/more{mounts}"), large).await;
    daemon.write("transit/sign/doc", input).await;
    assert_eq!(daemon.read("sys/mounts").await.as_object().unwrap().len(), mounts + 2);
}

/// Enables mounts, counted in `mounts`, until one is refused; answers how.
async fn wait_until_refused(daemon: &Daemon, mount: &serde_json::Value, mounts: &mut usize) -> (u16, String) {
    for _ in 0..1000 {
        let answer = daemon.ask(Verb::Write, &format!("sys/mounts/more{mounts}"), mount.clone()).await;
        if answer.status >= 400 {
            return (answer.status, answer.json()["errors"][0].as_str().unwrap_or_default().to_owned());
        }
        *mounts += 1;
    }
    panic!("there is room for 1000 mounts");
}

/// Starts a daemon that must not start; answers what it says.
fn start_that_fails(token: &Token) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keyway"))
        .arg("server")
        .arg(format!("-config={}/keyway.hcl", token.folder.path().display()))
        .envs(token.environment())
        .output()
        .unwrap()
}

#[tokio::test]
async fn a_damaged_storage_file_is_refused_and_never_replaced() {
    let token = Token::new();
    let mut daemon = Daemon::new(&token).await;
    daemon.write("sys/mounts/transit", json!({"type": "transit"})).await;
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    let root_token = daemon.root_token.clone();
    drop(daemon);
    let path = token.folder.path().join("keyway.redb");
    let whole = std::fs::read(&path).unwrap();
    let mut beginning = whole.clone();
    beginning[..4096].fill(0);
    for damaged in [beginning, whole[..2000].to_vec(), Vec::new()] {
        std::fs::write(&path, &damaged).unwrap();
        let output = start_that_fails(&token);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{told}");
        assert!(told.contains("keyway.redb") && told.contains("restore it from a backup"), "{told}");
        assert_eq!(std::fs::read(&path).unwrap(), damaged);
    }
    std::fs::write(&path, &whole).unwrap();
    let mut daemon = Daemon::start(&token, Setup::default());
    daemon.root_token = root_token;
    assert!(daemon.read("sys/mounts").await["transit/"].is_object());
}
