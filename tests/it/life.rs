//! From the first start over restarts to the end.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::model::Verb;
use serde_json::json;

use crate::daemon::{Daemon, Setup, wait_for};
use crate::token::Token;

#[tokio::test]
async fn what_was_made_is_there_after_a_crash() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let root = daemon.certificate_authority().await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    let signed = daemon.write("transit/sign/doc", json!({"input": STANDARD.encode("x")})).await;
    let root_token = daemon.root_token.clone();
    daemon.signal("KILL");
    drop(daemon);
    // The socket of the dead daemon is replaced.
    let mut daemon = Daemon::start(&token, Setup::default());
    daemon.root_token = root_token;
    assert_eq!(daemon.read("pki/cert/ca").await["certificate"].as_str().unwrap().trim(), root.trim());
    let check = json!({"input": STANDARD.encode("x"), "signature": signed["signature"]});
    assert_eq!(daemon.write("transit/verify/doc", check).await["valid"], true);
    daemon.write("transit/sign/doc", json!({"input": STANDARD.encode("y")})).await;
    // Found again and proven, not generated again.
    assert_eq!(token.calls("C_GenerateKeyPair"), 2);
}

#[tokio::test]
async fn a_socket_whose_file_is_removed_is_told_of_once_and_the_other_goes_on() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let told = || daemon.log().matches("THE SOCKET'S FILE IS GONE").count();
    std::fs::remove_file(daemon.socket().with_extension("sock.framed")).unwrap();
    wait_for("word of it", || (told() == 1).then_some(()));
    assert!(daemon.log().contains("http.sock.framed") && daemon.log().contains("restart Keyway"), "{}", daemon.log());
    assert_eq!(daemon.ask(Verb::Read, "sys/health", json!({})).await.status, 200);
    // By the time the other is told of as well, the first has been looked at again.
    std::fs::rename(daemon.socket(), daemon.folder.join("moved.sock")).unwrap();
    wait_for("word of the other", || (told() >= 2).then_some(()));
    assert_eq!(told(), 2);
}

#[tokio::test]
async fn the_socket_of_a_living_daemon_is_not_taken() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let config = daemon.folder.join("second.hcl");
    let text = std::fs::read_to_string(daemon.folder.join("keyway.hcl")).unwrap();
    std::fs::write(&config, text.replace("keyway.redb", "second.redb").replace("metrics.sock", "second.sock")).unwrap();
    let second = Command::new(env!("CARGO_BIN_EXE_keyway"))
        .args(["server", "-config", config.to_str().unwrap()])
        .envs(token.environment())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && told.contains("http.sock"), "{told}");
    assert_eq!(daemon.ask(Verb::Read, "sys/health", json!({})).await.status, 200);
}

#[tokio::test]
async fn sigterm_drains_and_says_how_it_ended() {
    let token = Token::new();
    let mut daemon = Daemon::new(&token).await;
    daemon.transit_key("doc", json!({"mechanism": "0x0001", "key_bits": 4096})).await;
    let framed = daemon.framed().await;
    let sign = keyway::wire::proto::Sign {
        mount: "transit".into(),
        key: "doc".into(),
        input: "x".into(),
        ..Default::default()
    };
    let all = futures_util::future::join_all((0..100).map(|_| framed.sign(sign.clone())));
    let (first, all) = tokio::join!(
        async {
            let first = framed.sign(sign.clone()).await;
            // The others are on their way.
            daemon.signal("TERM");
            first
        },
        all
    );
    assert!(first.is_ok(), "{first:?}");
    // Whatever was begun was answered, the rest was told.
    let done = all.iter().filter(|result| result.is_ok()).count();
    assert!(done > 0, "{:?}", all.first());
    assert!(daemon.ended().success(), "{}", daemon.log());
    assert!(daemon.log().contains("drained: everything begun was finished"), "{}", daemon.log());
    assert!(!daemon.socket().exists());
}

#[tokio::test]
async fn initialisation_happens_once_and_by_the_command_line_too() {
    let token = Token::new();
    let daemon = Daemon::start(&token, Setup::default());
    let first = daemon.cli(&["operator", "init", "-format=json"]);
    let printed: serde_json::Value = serde_json::from_slice(&first.stdout).unwrap();
    assert!(printed["root_token"].as_str().is_some_and(|token| !token.is_empty()), "{printed}");
    let second = daemon.cli(&["operator", "init"]);
    assert!(String::from_utf8_lossy(&second.stderr).contains("already initialized"));
    assert_eq!(second.status.code(), Some(1));
}

#[test]
fn the_command_line_says_what_is_wrong_in_one_line() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_keyway"))
            .args(arguments)
            .env("VAULT_ADDR", "unix:///no/such.sock")
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, told) = run(&["status"]);
    assert!(code == Some(1) && told.lines().count() == 1 && told.contains("is the daemon running"), "{told}");
    let (code, told) = run(&["server", "-config", "/no/such.hcl", "-check"]);
    assert!(code == Some(64) && told.contains("/no/such.hcl"), "{told}");
    let (code, told) = run(&["server", "-devv"]);
    assert!(code == Some(64) && told.contains("--devv"), "{told}");
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error_and_no_panic() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_keyway")).arg("version").stdout(full).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.contains("cannot be written"), "{told}");
}

#[test]
fn the_example_configurations_are_good() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
    let examples: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let (examples, others): (Vec<_>, Vec<_>) =
        examples.into_iter().partition(|path| path.extension().is_some_and(|extension| extension == "hcl"));
    assert!(examples.len() >= 2);
    // What systemd hands to the daemon by the unit, which is beside them.
    let read = |name: &str| {
        let path = others.iter().find(|path| path.ends_with(name)).unwrap_or_else(|| panic!("{name}: {others:?}"));
        std::fs::read_to_string(path).unwrap()
    };
    let (unit, sockets) = (read("keyway.service"), read("keyway.socket"));
    let production = std::fs::read_to_string(format!("{folder}/production.hcl")).unwrap();
    for path in sockets.lines().filter_map(|line| line.strip_prefix("ListenStream=")) {
        assert!(production.contains(&format!("address      = \"{path}\"\n")), "no listener is at {path}");
    }
    let credentials = tempfile::tempdir().unwrap();
    for name in unit.lines().filter_map(|line| line.strip_prefix("LoadCredential=")?.split(':').next()) {
        std::fs::write(credentials.path().join(name), "1234\n").unwrap();
    }
    assert!(unit.contains("ExecReload=/bin/kill -HUP $MAINPID\n") && unit.contains("production.hcl\n"), "{unit}");
    for example in examples {
        let output = Command::new(env!("CARGO_BIN_EXE_keyway"))
            .args(["server", "-check", "-config", example.to_str().unwrap()])
            .envs([("KEYWAY_SOFTHSM_PIN", "1234"), ("KEYWAY_LUNA_PIN", "1234")])
            .env("CREDENTIALS_DIRECTORY", credentials.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        if example.ends_with("isolated.hcl") {
            let expected = "kms_library \"luna\": in 2 worker processes of each token; profile: luna\n";
            assert!(told.ends_with(expected), "{told}");
        }
        if example.ends_with("pool.hcl") {
            let expected = "kms_library \"luna\": in a worker process of each token; profile: luna\n";
            assert!(told.ends_with(expected), "{told}");
        }
    }
}

#[test]
fn the_development_server_leaves_nothing_behind() {
    use std::io::{BufRead, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("dev.sock");
    let mut child = Command::new(env!("CARGO_BIN_EXE_keyway"))
        .args(["server", "-dev", "-dev-root-token-id=root"])
        .arg(format!("-dev-listen-address=unix://{}", socket.display()))
        .env("TMPDIR", folder.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut printed = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = printed.find_map(|line| line.ok().filter(|line| line.contains("VAULT_TOKEN"))).unwrap();
    assert_eq!(line.trim(), "export VAULT_TOKEN=root");
    let status = Command::new(env!("CARGO_BIN_EXE_keyway"))
        .arg("status")
        .env("VAULT_ADDR", format!("unix://{}", socket.display()))
        .env("VAULT_TOKEN", "root")
        .output()
        .unwrap();
    assert!(status.status.success());
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let ended = wait_for("the end", || child.try_wait().unwrap());
    assert!(ended.success());
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}
