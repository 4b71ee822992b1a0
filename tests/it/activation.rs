//! What systemd does for the daemon: it holds the sockets while it restarts, and watches over it.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::daemon::{LIMIT, Setup, wait_for};
use crate::rig::{Rig, probing};

const HTTP: &str = "http.sock";
const FRAMED: &str = "framed.sock";
/// As systemd passes sockets: from descriptor 3 on, said to the process that it becomes.
const PASS: &str = r#"exec 3<&0 4>&1 </dev/null >/dev/null; LISTEN_PID=$$ LISTEN_FDS=2 exec "$@""#;

/// Starts a daemon with two descriptors passed to it.
fn start(folder: &Path, first: OwnedFd, second: OwnedFd) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    Command::new("sh")
        .args(["-c", PASS, "sh", env!("CARGO_BIN_EXE_keyway"), "server"])
        .arg(format!("-config={}/keyway.hcl", folder.display()))
        .stdin(Stdio::from(first))
        .stdout(Stdio::from(second))
        .stderr(log)
        .spawn()
        .unwrap()
}

fn configure(folder: &Path, sockets: &[(&str, &str)]) {
    let home = folder.display();
    let listeners: String = sockets
        .iter()
        .map(|(name, protocol)| {
            format!("listener \"unix\" {{\n address = \"{home}/{name}\"\n protocol = \"{protocol}\"\n}}\n")
        })
        .collect();
    let rest =
        format!("storage \"redb\" {{ path = \"{home}/k.redb\" }}\nseal \"file\" {{ path = \"{home}/seal.key\" }}\n");
    std::fs::write(folder.join("keyway.hcl"), listeners + &rest).unwrap();
}

fn ask(mut stream: UnixStream) -> UnixStream {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"GET /v1/sys/health HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

fn answer(mut stream: UnixStream) -> String {
    let mut told = String::new();
    stream.read_to_string(&mut told).unwrap();
    told
}

fn end(mut daemon: Child) {
    assert!(Command::new("kill").arg(daemon.id().to_string()).status().unwrap().success());
    assert!(wait_for("the end", || daemon.try_wait().unwrap()).success());
}

#[test]
fn a_restart_behind_passed_sockets_refuses_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (http, framed) = (folder.path().join(HTTP), folder.path().join(FRAMED));
    configure(folder.path(), &[(FRAMED, "framed"), (HTTP, "http")]);
    let sockets = [UnixListener::bind(&http).unwrap(), UnixListener::bind(&framed).unwrap()];
    let pass = |socket: &UnixListener| OwnedFd::from(socket.try_clone().unwrap());
    let launch = || start(folder.path(), pass(&sockets[0]), pass(&sockets[1]));
    let file = std::fs::metadata(&http).unwrap().ino();
    let stop = &AtomicBool::new(false);
    let connected = std::thread::scope(|scope| {
        let clients: Vec<_> = [&http, &framed]
            .map(|path| {
                scope.spawn(move || {
                    let mut connected = 0;
                    while !stop.load(Ordering::Relaxed) {
                        // Refused or not found would be an error.
                        drop(UnixStream::connect(path).unwrap());
                        connected += 1;
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                    connected
                })
            })
            .into();
        for _ in 0..3 {
            let connect = || ask(UnixStream::connect(&http).unwrap());
            let early = connect();
            let daemon = launch();
            assert!(answer(early).starts_with("HTTP/1.1 501"), "it is not initialised");
            assert!(answer(connect()).starts_with("HTTP/1.1 501"));
            end(daemon);
            assert_eq!(std::fs::metadata(&http).unwrap().ino(), file, "the file is the socket unit's");
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum::<u32>()
    });
    assert!(connected > 0);
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert_eq!(log.matches("was passed to the daemon").count(), 6, "{log}");
    assert!(framed.exists());
}

#[test]
fn systemd_itself_passes_one_socket_or_two_and_the_first_to_connect_is_served() {
    for names in [&[HTTP][..], &[HTTP, FRAMED]] {
        let folder = tempfile::tempdir().unwrap();
        let protocol = |name: &str| if name == HTTP { "http" } else { "framed" };
        configure(folder.path(), &[HTTP, FRAMED].map(|name| (name, protocol(name))));
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut activate = Command::new("systemd-socket-activate");
        activate.args(names.iter().map(|name| format!("--listen={}", folder.path().join(name).display())));
        // It becomes the daemon when somebody connects.
        let daemon = activate
            .args([env!("CARGO_BIN_EXE_keyway"), "server"])
            .arg(format!("-config={}/keyway.hcl", folder.path().display()))
            .stderr(log)
            .spawn()
            .unwrap();
        let http = folder.path().join(HTTP);
        // The file is there a moment before anybody listens.
        let first = wait_for("a listener", || UnixStream::connect(&http).ok());
        assert!(answer(ask(first)).starts_with("HTTP/1.1 501"), "it is not initialised");
        // The one that was not passed is the daemon's own.
        drop(UnixStream::connect(folder.path().join(FRAMED)).unwrap());
        end(daemon);
        assert!(http.exists());
        assert_eq!(folder.path().join(FRAMED).exists(), names.len() == 2, "its own goes with it");
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert_eq!(log.matches("was passed to the daemon").count(), names.len(), "{log}");
    }
}

#[test]
fn a_socket_that_is_passed_in_vain_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &[(HTTP, "http")]);
    let bind = |name: &str| UnixListener::bind(folder.path().join(name)).unwrap();
    let (http, other) = (bind(HTTP), bind("other.sock"));
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let talking = || OwnedFd::from(UnixStream::connect(folder.path().join(HTTP)).unwrap());
    let cases = [
        (OwnedFd::from(other), "other.sock was passed to the daemon, and no listener has it"),
        (null(), "is not a socket"),
        (talking(), "it does not listen"),
    ];
    for (second, expected) in cases {
        let mut daemon = start(folder.path(), OwnedFd::from(http.try_clone().unwrap()), second);
        let ended = wait_for("the end", || daemon.try_wait().unwrap());
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert!(!ended.success() && log.contains(expected), "{log}");
    }
    assert!(folder.path().join(HTTP).exists());
}

#[tokio::test]
async fn signs_of_life_go_on_while_a_token_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let next = || {
        let mut told = [0; 512];
        let length = socket.recv(&mut told).unwrap();
        String::from_utf8(told[..length].to_vec()).unwrap()
    };
    let environment =
        vec![("NOTIFY_SOCKET", &*path.to_str().unwrap().to_owned().leak()), ("WATCHDOG_USEC", "1000000")].leak();
    let more = probing("drain = \"1s\"");
    let mut rig = Rig::null(&["one"], &["doc"], Setup { environment, more, ..Setup::default() }).await;
    assert!(next().contains("READY=1"));
    rig.key("doc", json!({})).await;
    rig.sim.steer("hang C_Sign");
    let framed = rig.framed(std::time::Duration::from_secs(1)).await;
    let sign = keyway::wire::proto::Sign {
        mount: "transit".into(),
        key: "doc".into(),
        input: "stuck".into(),
        ..Default::default()
    };
    assert!(framed.sign(sign).await.is_err(), "it hangs");
    for _ in 0..5 {
        assert_eq!(next(), "WATCHDOG=1\n");
    }
    assert!(rig.sim.calls("C_Sign") > 0, "it is inside the call");
    rig.sim.steer("release");
    rig.daemon.signal("TERM");
    let mut told = next();
    while told == "WATCHDOG=1\n" {
        told = next();
    }
    assert!(told.contains("STOPPING=1") && told.contains("EXTEND_TIMEOUT_USEC=16000000"), "{told}");
    rig.daemon.ended();
}
