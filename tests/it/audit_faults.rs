//! Audit devices that fail: nothing is done that none of them records, and all goes on once one is mended.

use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::model::Verb;
use serde_json::{Value, json};

use crate::audit::{file_device, records};
use crate::daemon::{Daemon, LIMIT, Setup, wait_for};
use crate::rig::{Rig, TOKENS};

async fn rig() -> Rig {
    let rig = Rig::null(&TOKENS, &["doc"], Setup::default()).await;
    rig.key("doc", json!({})).await;
    rig
}

/// Has something signed; answers the status and the first error.
async fn sign(daemon: &Daemon) -> (u16, String) {
    let answer = daemon.ask(Verb::Write, "transit/sign/doc", json!({"input": STANDARD.encode("x")})).await;
    (answer.status, answer.json()["errors"][0].as_str().unwrap_or_default().to_owned())
}

/// Bounds the files that the daemon may write, in bytes, as a disk that is full does.
fn bound(daemon: &Daemon, bytes: &str) {
    let arguments = [format!("--pid={}", daemon.pid()), format!("--fsize={bytes}:unlimited")];
    assert!(Command::new("prlimit").args(arguments).status().unwrap().success());
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

/// A file device whose file is longer than the daemon's store, so that a bound on files is met by it alone.
async fn long_file(daemon: &Daemon) -> std::path::PathBuf {
    let long = json!({"of old": "x".repeat(16 << 20)});
    std::fs::write(daemon.folder.join("file.log"), format!("{long}\n")).unwrap();
    file_device(daemon, "file").await
}

#[tokio::test]
async fn a_full_disk_refuses_what_it_cannot_record_and_serves_again() {
    let rig = rig().await;
    let daemon = &rig.daemon;
    let log = long_file(daemon).await;
    // Some of a record still fits.
    bound(daemon, &(length(&log) + 100).to_string());
    for _ in 0..2 {
        let (status, error) = sign(daemon).await;
        assert_eq!(status, 500, "{error}");
        for said in ["1 error occurred", "not recorded, and so not done", "audit device file/", "File too large"] {
            assert!(error.contains(said), "{error}");
        }
        assert!(!error.contains("file.log"), "a tenant is not told where it is: {error}");
    }
    let (status, _) = daemon.refused("sys/mounts/more", json!({"type": "transit"})).await;
    assert_eq!(status, 500);
    let framed = daemon.framed().await;
    let request = keyway::wire::proto::Request { path: "sys/mounts".into(), ..Default::default() };
    assert!(framed.request(request).await.unwrap_err().to_string().contains("not recorded"));
    assert_eq!(daemon.ask(Verb::Read, "sys/health", json!({})).await.status, 200);
    assert!(daemon.metric("keyway_audit_failures_total{type=\"file\"}") >= 3.0);
    assert!(daemon.metric("keyway_audit_refused_total") >= 3.0);
    bound(daemon, "unlimited");
    assert_eq!(sign(daemon).await.0, 200);
    assert!(!daemon.read("sys/mounts").await.as_object().unwrap().contains_key("more/"), "it was not done");
    let text = std::fs::read_to_string(&log).unwrap();
    let torn = text.lines().filter(|line| serde_json::from_str::<Value>(line).is_err()).count();
    assert_eq!(torn, 1, "what was cut short is a line of its own");
    assert!(daemon.log().contains("the audit device is written again"));
}

#[tokio::test]
async fn an_answer_that_is_not_recorded_is_withheld_and_the_client_told_that_it_was_done() {
    let rig = rig().await;
    let daemon = &rig.daemon;
    let log = long_file(daemon).await;
    daemon.write("sys/mounts/one", json!({"type": "transit"})).await;
    let text = std::fs::read_to_string(&log).unwrap();
    let asked = text.lines().rfind(|line| line.starts_with("{\"type\":\"request\"")).unwrap().len();
    // The request's record, but not its answer's.
    bound(daemon, &(length(&log) + asked as u64 + 40).to_string());
    let (status, error) = daemon.refused("sys/mounts/two", json!({"type": "transit"})).await;
    assert!(status == 500 && error.contains("done, but its answer is withheld"), "{status} {error}");
    bound(daemon, "unlimited");
    assert!(daemon.read("sys/mounts").await.as_object().unwrap().contains_key("two/"), "it was done");
}

#[tokio::test]
async fn of_two_devices_one_may_fail() {
    let rig = rig().await;
    let daemon = &rig.daemon;
    let socket = daemon.folder.join("collector.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let options = json!({"address": socket, "socket_type": "unix", "write_timeout": "1s"});
    let device = json!({"type": "socket", "options": options});
    daemon.write("sys/audit/collector", device).await;
    let mut lines = BufReader::new(listener.accept().unwrap().0).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["request"]["path"], "sys/audit/test");
    let log = file_device(daemon, "file").await;
    assert_eq!(next()["request"]["path"], "sys/audit/file");
    assert_eq!(sign(daemon).await.0, 200);
    drop((lines, listener));
    std::fs::remove_file(&socket).unwrap();
    for _ in 0..3 {
        assert_eq!(sign(daemon).await.0, 200, "the other device records it");
    }
    assert!(records(&log).iter().filter(|record| record["request"]["path"] == "transit/sign/doc").count() >= 8);
    wait_for("a failure to be counted", || {
        (daemon.metric("keyway_audit_failures_total{type=\"socket\"}") >= 1.0).then_some(())
    });
    // What turns the last good device off is recorded by it to its end.
    assert_eq!(daemon.ask(Verb::Delete, "sys/audit/file", json!({})).await.status, 204);
    let (status, error) = sign(daemon).await;
    assert!(status == 500 && error.contains("audit device collector/: No such file or directory"), "{error}");
    let listener = UnixListener::bind(&socket).unwrap();
    assert_eq!(sign(daemon).await.0, 200, "who listens again is found again");
    drop(listener);
}

#[tokio::test]
async fn a_device_that_does_not_move_is_waited_for_no_longer_than_it_may_take() {
    let rig = rig().await;
    let daemon = &rig.daemon;
    let socket = daemon.folder.join("collector.sock");
    // It takes connections, and reads nothing.
    let _listener = UnixListener::bind(&socket).unwrap();
    let options = json!({"address": socket, "socket_type": "unix", "write_timeout": "300ms"});
    daemon.write("sys/audit/collector", json!({"type": "socket", "options": options})).await;
    let items: Vec<Value> = (0..9000).map(|_| json!({"input": "eA=="})).collect();
    let mut http = daemon.http();
    http.deadline = Some(LIMIT);
    let batch = json!({"batch_input": items});
    let answer = http.request(Verb::Write, "transit/sign/doc", batch.as_object().unwrap()).await.unwrap();
    let told = answer.json()["errors"][0].to_string();
    assert!(answer.status == 500 && told.contains("not recorded, and so not done"), "{} {told}", answer.status);
    // A short record has room in the next connection.
    wait_for("the device to be tried again", || {
        let answer = Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket"])
            .arg(daemon.socket())
            .args(["-H", &format!("X-Vault-Token: {}", daemon.root_token), "http://keyway/v1/sys/mounts"])
            .output();
        (answer.unwrap().stdout == b"200").then_some(())
    });
    let log = file_device(daemon, "file").await;
    let answer = http.request(Verb::Write, "transit/sign/doc", batch.as_object().unwrap()).await.unwrap();
    assert_eq!(answer.status, 200, "the file does not wait for the socket");
    assert!(length(&log) > 2 * 9000 * 64);
}

#[tokio::test]
async fn files_are_opened_anew_at_sighup_and_when_they_are_gone() {
    let rig = rig().await;
    let daemon = &rig.daemon;
    let log = file_device(daemon, "file").await;
    let old = log.with_extension("log.1");
    std::fs::rename(&log, &old).unwrap();
    let before = records(&old).len();
    assert_eq!(sign(daemon).await.0, 200);
    assert_eq!(records(&old).len(), before + 2, "until it is told, it goes on where it was");
    daemon.signal("HUP");
    wait_for("the new file", || log.exists().then_some(()));
    assert_eq!(sign(daemon).await.0, 200);
    assert_eq!((records(&old).len(), records(&log).len()), (before + 2, 2));
    std::fs::remove_file(&log).unwrap();
    assert_eq!(sign(daemon).await.0, 200);
    assert_eq!(records(&log).len(), 2, "a file that nobody could read is not written");
    // What cannot be opened leaves things as they were, and is said.
    std::fs::rename(&log, &old).unwrap();
    std::fs::create_dir(&log).unwrap();
    daemon.signal("HUP");
    wait_for("the failure", || daemon.log().contains("could not be opened anew").then_some(()));
    assert_eq!(sign(daemon).await.0, 200);
    assert_eq!(records(&old).len(), 4);
}

#[tokio::test]
async fn the_local_log_and_sockets_get_each_record_whole() {
    let rig = rig().await;
    let daemon = &rig.daemon;
    let address = daemon.folder.join("syslog.sock");
    let log = UnixDatagram::bind(&address).unwrap();
    log.set_read_timeout(Some(LIMIT)).unwrap();
    let options = json!({"address": address, "facility": "LOCAL0", "tag": "ca"});
    daemon.write("sys/audit/syslog", json!({"type": "syslog", "options": options})).await;
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(LIMIT)).unwrap();
    let options = json!({"address": udp.local_addr().unwrap().to_string(), "socket_type": "udp"});
    daemon.write("sys/audit/udp", json!({"type": "socket", "options": options})).await;
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let options = json!({"address": tcp.local_addr().unwrap().to_string()});
    daemon.write("sys/audit/tcp", json!({"type": "socket", "options": options})).await;
    let stream = tcp.accept().unwrap().0;
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut lines = BufReader::new(stream).lines();
    let is_sign = |record: &Value| record["request"]["path"] == "transit/sign/doc";
    assert_eq!(sign(daemon).await.0, 200);
    let mut bytes = vec![0; 1 << 16];
    let head = format!("<134>ca[{}]: ", daemon.pid());
    let mut of_syslog = || {
        let read = log.recv(&mut bytes).unwrap();
        let text = std::str::from_utf8(&bytes[..read]).unwrap();
        serde_json::from_str::<Value>(text.strip_prefix(&head).unwrap_or_else(|| panic!("{text}"))).unwrap()
    };
    while !is_sign(&of_syslog()) {}
    assert_eq!(of_syslog()["type"], "response");
    let mut bytes = vec![0; 1 << 16];
    let mut of_udp = || {
        let read = udp.recv(&mut bytes).unwrap();
        serde_json::from_slice::<Value>(&bytes[..read]).unwrap()
    };
    while !is_sign(&of_udp()) {}
    assert_eq!(of_udp()["type"], "response");
    let mut of_tcp = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    while !is_sign(&of_tcp()) {}
    assert_eq!(of_tcp()["type"], "response");
}

#[tokio::test]
async fn a_daemon_that_is_killed_leaves_whole_lines_and_records_on_after_its_start() {
    let rig = rig().await;
    let log = file_device(&rig.daemon, "file").await;
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let mut http = rig.daemon.http();
            tokio::spawn(async move {
                let input = json!({"input": "eA=="});
                while let Ok(answer) = http.request(Verb::Write, "transit/sign/doc", input.as_object().unwrap()).await {
                    assert_eq!(answer.status, 200);
                }
            })
        })
        .collect();
    while records_so_far(&log) < 200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    rig.daemon.signal("KILL");
    for client in clients {
        client.await.unwrap();
    }
    // The worst that a crash leaves.
    let mut file = std::fs::File::options().append(true).open(&log).unwrap();
    std::io::Write::write_all(&mut file, b"{\"type\":\"resp").unwrap();
    let before = std::fs::read_to_string(&log).unwrap();
    let torn = before.lines().filter(|line| serde_json::from_str::<Value>(line).is_err()).count();
    assert!(torn == 1 && serde_json::from_str::<Value>(before.lines().last().unwrap()).is_err());
    let rig = rig.restart(Setup::default());
    rig.until_serving("one").await;
    assert_eq!(rig.daemon.read("sys/audit").await["file/"]["type"], "file");
    let after = std::fs::read_to_string(&log).unwrap();
    let new: Vec<&str> = after.lines().skip(before.lines().count()).collect();
    assert!(new.len() >= 2 && new.iter().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{new:?}");
}

fn records_so_far(log: &Path) -> usize {
    std::fs::read_to_string(log).unwrap().lines().count()
}
