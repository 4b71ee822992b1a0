//! A vendor's library in worker processes: what crosses to them, and what their end costs.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::backend::process::ProcessBackend;
use keyway::backend::{Backend, BatchJob, Fate, KeyTemplate};
use keyway::config::{Grants, Isolation, KmsLibrary, VerifyAfterSign};
use keyway::model::{
    Curve, Digest, Hash, KeyKind, KeyOperation, Secret, SignInput, SignatureScheme, TokenSelector, Verb,
};
use serde_json::json;

use crate::daemon::{Daemon, LIMIT, Setup, wait_for};
use crate::token::{LABEL, PIN, Token};

const ISOLATED: Setup = Setup {
    pin: PIN,
    library: None,
    profile: None,
    stanza: ONE_WORKER,
    arguments: &[],
    environment: &[],
    more: "",
    seal: "",
};
const ONE_WORKER: &str = "isolation = \"process\"\n workers = 1";

/// The state of a process and its parent, by the kernel's word.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(process(pid).join("stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn lives(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// The processes that this one has started, and that live.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let entries =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    entries.filter(|pid| stat(*pid).is_some_and(|(state, of)| state != 'Z' && of == parent)).collect()
}

/// The worker processes of this daemon that live.
fn workers(daemon: &Daemon) -> Vec<u32> {
    children(daemon.pid())
}

fn process(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap().success());
}

fn contains(whole: &[u8], part: &str) -> bool {
    whole.windows(part.len()).any(|window| window == part.as_bytes())
}

/// Whether this process is a worker.
pub(crate) fn is_worker(pid: u32) -> bool {
    contains(&std::fs::read(process(pid).join("cmdline")).unwrap_or_default(), "pkcs11-worker")
}

async fn sign(daemon: &Daemon) -> u16 {
    let mut http = daemon.http();
    http.deadline = Some(LIMIT);
    let data = json!({"input": STANDARD.encode("x")});
    http.request(Verb::Write, "transit/sign/doc", data.as_object().unwrap()).await.unwrap().status
}

/// A daemon with a key, and the one worker it has.
async fn signing(token: &Token, setup: Setup) -> (Daemon, u32) {
    let daemon = Daemon::with(token, setup).await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    assert_eq!(sign(&daemon).await, 200);
    let living = workers(&daemon);
    assert_eq!(living.len(), 1, "{}", daemon.log());
    let pid = living[0];
    (daemon, pid)
}

#[tokio::test]
async fn a_worker_is_told_the_pin_and_nobody_else_is() {
    let token = Token::new();
    let setup = Setup {
        pin: "env:KEYWAY_TEST_PIN",
        stanza: "isolation = \"process\"\n workers = 1\n env = { KEYWAY_TEST_PATH = \"/opt/vendor\" }",
        environment: &[("KEYWAY_TEST_PIN", PIN), ("KEYWAY_TEST_OTHER", "inherited")],
        ..ISOLATED
    };
    let (daemon, pid) = signing(&token, setup).await;
    assert_eq!(token.calls("C_Login"), 1);
    let arguments = std::fs::read(process(pid).join("cmdline")).unwrap();
    assert_eq!(
        arguments.split(|byte| *byte == 0).collect::<Vec<_>>()[..5],
        [&b"keyway"[..], b"pkcs11-worker", b"--", b"hsm", b"keyway-test"]
    );
    assert!(!contains(&arguments, PIN));
    match std::fs::read(process(pid).join("environ")) {
        Ok(environment) => {
            assert!(!contains(&environment, PIN) && !contains(&environment, "KEYWAY_TEST_PIN"));
            assert!(contains(&environment, "KEYWAY_TEST_PATH=/opt/vendor"));
            assert!(contains(&environment, "KEYWAY_TEST_OTHER=inherited"));
        }
        // Its memory is nobody's but root's.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
    }
    if let Ok(open) = std::fs::read_dir(process(pid).join("fd")) {
        // Nothing of the daemon's: no store, no listener, no log but standard error.
        let files: Vec<_> = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).collect();
        let names: Vec<_> = files.iter().map(|file| file.to_string_lossy()).collect();
        assert!(!names.iter().any(|name| name.contains("redb")), "{names:?}");
        let sockets = names.iter().filter(|name| name.starts_with("socket:")).count();
        // The control pair and its lifeline, what signals wake, what steers the simulator, and a pair for each session: one a core, and one to find keys.
        let cores = std::thread::available_parallelism().unwrap().get();
        assert!(sockets <= 5 + cores + 1, "{names:?}");
    }
    drop(daemon);
}

#[tokio::test]
async fn a_worker_that_dies_costs_one_restart() {
    let token = Token::new();
    let (daemon, mut pid) = signing(&token, ISOLATED).await;
    for (deaths, (signal, told)) in
        [("KILL", "signal 9 (SIGKILL)"), ("ABRT", "signal 6 (SIGABRT)")].into_iter().enumerate()
    {
        kill(signal, pid);
        // A signal is on its way for a while, in which the worker may still answer.
        wait_for("its end", || (!lives(pid)).then_some(()));
        let begun = std::time::Instant::now();
        while sign(&daemon).await != 200 {
            assert!(begun.elapsed() < LIMIT, "{}", daemon.log());
        }
        let living = workers(&daemon);
        assert!(living.len() == 1 && living != [pid], "{living:?} after {pid}");
        wait_for("the dead one's burial", || stat(pid).is_none().then_some(()));
        pid = living[0];
        let log = daemon.log();
        assert!(
            log.contains("worker process of kms_library") && log.contains(&format!("was ended by {told}")),
            "{log}"
        );
        assert_eq!(token.calls("C_Login"), deaths as u64 + 2);
    }
    assert_eq!(token.calls("C_GenerateKeyPair"), 1);
}

#[test]
fn a_worker_that_hangs_is_ended_and_frees_whoever_waits() {
    let token = Token::new();
    let environment = token.environment().map(|(name, path)| (name.to_owned(), path.to_str().unwrap().to_owned()));
    let library = KmsLibrary {
        name: "hangs".into(),
        library: crate::token::module().to_owned(),
        pin: None,
        profile: None,
        max_sessions: None,
        isolation: Isolation::Process,
        workers: 1,
        env: environment.into(),
        keep_alive: None,
        verify_after_sign: VerifyAfterSign::Never,
        namespaces: Grants::default(),
    };
    let backend = ProcessBackend::running(Path::new(env!("CARGO_BIN_EXE_keyway")), &library, LIMIT);
    let device = backend.open(&TokenSelector::Label(LABEL.into())).unwrap();
    let refused = device.login(&Secret::from("0000")).unwrap_err();
    assert_eq!((refused.fate, token.calls("C_Login")), (Fate::Retire, 1), "{}", refused.fault);
    device.login(&Secret::from(PIN)).unwrap();
    assert_eq!(token.calls("C_Login"), 2);
    let mut session = device.open_session().unwrap();
    let kind = KeyKind::Ec(Curve::P256);
    let key = session
        .generate(&KeyTemplate { kind, label: "k".into(), uses: keyway::model::KeyUsages::default(), cloud: None })
        .unwrap();
    let input = SignInput::Digest(Digest::new(&[7; 32]).unwrap());
    let operation = KeyOperation::Sign { scheme: SignatureScheme::Ecdsa, hash: Hash::Sha2_256, input };
    session.perform(key.handle, kind, &operation).unwrap();

    let named = |pid: &u32| contains(&std::fs::read(process(*pid).join("cmdline")).unwrap_or_default(), "hangs");
    let pid = children(std::process::id()).into_iter().find(named).unwrap();
    kill("STOP", pid);
    wait_for("its stop", || stat(pid).filter(|(state, _)| *state == 'T'));
    let waiting = std::thread::spawn(move || {
        let jobs = [BatchJob { handle: key.handle, kind, operation: &operation }; 3];
        let mut told = Vec::new();
        session.perform_batch(&jobs, &mut |_, result| told.push(result.unwrap_err()));
        told
    });
    assert!(!device.is_lost() && device.abort());
    let told = waiting.join().unwrap();
    assert_eq!(told.len(), 3);
    for error in told {
        assert_eq!((error.cause, error.fate), ("worker_died", Fate::Reinitialize));
        let text = error.fault.to_string();
        assert!(text.contains("kms_library \"hangs\", token keyway-test was ended by signal 9 (SIGKILL)"), "{text}");
    }
    wait_for("its end", || device.is_lost().then_some(()));
    assert_eq!(device.open_session().map(drop).unwrap_err().cause, "worker_died");
}

#[tokio::test]
async fn no_worker_outlives_its_daemon() {
    for signal in ["TERM", "KILL"] {
        let token = Token::new();
        let (mut daemon, pid) = signing(&token, ISOLATED).await;
        daemon.signal(signal);
        daemon.ended();
        wait_for("the worker's end", || (!lives(pid)).then_some(()));
        // It closed what it had opened, whoever ended the daemon.
        assert_eq!(token.calls("C_OpenSession"), token.calls("C_CloseSession"), "{signal}: {}", daemon.log());
    }
}

#[tokio::test]
async fn a_worker_lives_through_the_signals_that_tell_the_daemon_to_drain() {
    let token = Token::new();
    let (daemon, pid) = signing(&token, ISOLATED).await;
    for signal in ["INT", "TERM", "HUP"] {
        kill(signal, pid);
    }
    assert_eq!(sign(&daemon).await, 200);
    assert_eq!(workers(&daemon), [pid]);
}

#[test]
fn a_worker_is_not_for_people() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_keyway"))
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, _, told) = run(&["pkcs11-worker", "--", "hsm", "ca"]);
    assert!(code == Some(1) && told.lines().count() == 1 && told.contains("for the daemon's own use"), "{told}");
    let (_, help, _) = run(&["--help"]);
    assert!(help.contains("server") && !help.contains("worker"), "{help}");
}
