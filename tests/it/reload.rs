//! The configuration is read again at SIGHUP while requests are served: what can be taken over is, nothing is lost, and a file
//! that is wrong changes nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keyway::model::Verb;
use serde_json::json;

use crate::daemon::{Daemon, LIMIT, Setup, wait_for};
use crate::load::{Load, Running};
use crate::rig::{POOL, Rig, TOKENS, probing};
use crate::sim::{PIN, Sim};
use crate::token::{self, Token};

pub(crate) const DONE: &str = "the configuration was reloaded";
const REFUSED: &str = "the configuration was not reloaded";

fn file(daemon: &Daemon) -> PathBuf {
    daemon.folder.join("keyway.hcl")
}

/// Writes the daemon's configuration with each of these replaced, which must be there.
pub(crate) fn edit(daemon: &Daemon, replaced: &[(&str, &str)]) {
    let mut text = std::fs::read_to_string(file(daemon)).unwrap();
    for (from, to) in replaced {
        assert!(text.contains(from), "{from} is not in {text}");
        text = text.replacen(from, to, 1);
    }
    std::fs::write(file(daemon), text).unwrap();
}

fn append(daemon: &Daemon, more: &str) {
    let text = std::fs::read_to_string(file(daemon)).unwrap();
    std::fs::write(file(daemon), format!("{text}\n{more}\n")).unwrap();
}

/// Has the configuration read again; what the log said of that, which must have ended so.
pub(crate) fn reload(daemon: &Daemon, end: &str) -> String {
    let before = daemon.log().len();
    daemon.signal("HUP");
    let told = wait_for("the reload", || {
        let told = daemon.log().split_off(before);
        [DONE, REFUSED].iter().any(|end| told.contains(end)).then_some(told)
    });
    assert!(told.contains(end), "{told}");
    told
}

fn stanza(name: &str, library: &Path, more: &str) -> String {
    format!(
        "kms_library \"pkcs11\" {{\n name = \"{name}\"\n library = \"{}\"\n profile = \"generic\"\n pin = \"{PIN}\"\n {more}\n}}",
        library.display()
    )
}

/// Another HSM beside the rig's, with tokens of the same names and keys.
fn another(rig: &Rig, tokens: &[&str], keys: &[&str]) -> Sim {
    Sim::null(token::module(), &rig.daemon.folder.join("another.so"), tokens, keys)
}

/// A load of so many calls a second, with a deadline as clients have.
async fn steady(rig: &Rig) -> Running {
    let (pace, deadline) = (Some(Duration::from_millis(4)), Duration::from_secs(30));
    let load = Load { pace, deadline, depth: 4096, ..Load::default() }.start(rig).await;
    load.until_done(20);
    load
}

#[tokio::test]
async fn a_library_that_is_added_can_be_used_at_once() {
    let rig = Rig::null(&["one"], &["doc"], Setup { more: probing(""), ..Setup::default() }).await;
    let key = json!({
        "library": "new", "token_label": "three", "key_label": "other", "mechanism": "0x1041", "curve": "P256",
        "any_mount": true,
    });
    let (status, told) = rig.daemon.refused("sys/managed-keys/pkcs11/other", key.clone()).await;
    assert!(status == 400 && told.contains("there is no kms_library or kms_pool \"new\""), "{status} {told}");
    let sim = another(&rig, &["three"], &["other"]);
    append(&rig.daemon, &stanza("new", &sim.module, ""));
    let told = reload(&rig.daemon, DONE);
    assert!(told.contains("kms_library \\\"new\\\" added") && told.contains("restart_needed=0"), "{told}");
    rig.write("", "sys/managed-keys/pkcs11/other", key).await;
    assert_eq!(rig.test_sign("other").await, (204, String::new()));
    let libraries = rig.daemon.read("sys/keyway/status").await["kms_libraries"].clone();
    assert_eq!(libraries, json!(["hsm", "new"]));
    assert_eq!(rig.sum("keyway_config_reloads_total", &[("result", "ok")]), 1.0);
    // A second time there is nothing to do.
    assert!(reload(&rig.daemon, DONE).contains("applied=\"nothing\""));
    assert_eq!(sim.calls("C_Login"), 1);
}

/// Changes the path of a library while requests come in at a rate, and answers the rig and the HSM it has moved to.
async fn moves(lines: &'static str) -> (Rig, Sim) {
    let rig = Rig::null(&["one"], &["doc"], Setup { more: probing(""), stanza: lines, ..Setup::default() }).await;
    rig.key("doc", json!({})).await;
    rig.sim.steer("slot * service 2ms");
    let other = another(&rig, &["one"], &["doc"]);
    // The new one takes its time: what comes meanwhile waits.
    other.steer("delay C_Login 150ms");
    let load = steady(&rig).await;
    edit(&rig.daemon, &[(rig.sim.module.to_str().unwrap(), other.module.to_str().unwrap())]);
    let told = reload(&rig.daemon, DONE);
    assert!(told.contains("kms_library \\\"hsm\\\" changed (library)"), "{told}");
    wait_for("signatures by the other", || (other.calls("C_Sign") > 20).then_some(()));
    load.until_done(20);
    let tally = load.stop();
    tally.assert_none_lost();
    // The old one is let go of: nobody signs there, and in a process of its own nobody has it.
    let signed = rig.sim.calls("C_Sign");
    Load::default().run(&rig, 20).await.assert_none_lost();
    assert_eq!(rig.sim.calls("C_Sign"), signed);
    (rig, other)
}

#[tokio::test]
async fn a_path_that_changes_while_requests_flow_loses_none() {
    let (rig, other) = moves("").await;
    assert_eq!(rig.sim.calls("C_CloseSession"), rig.sim.calls("C_OpenSession"));
    // Back to the first, whose module this process has loaded before.
    let load = steady(&rig).await;
    edit(&rig.daemon, &[(other.module.to_str().unwrap(), rig.sim.module.to_str().unwrap())]);
    let signed = rig.sim.calls("C_Sign");
    reload(&rig.daemon, DONE);
    wait_for("signatures by the first", || (rig.sim.calls("C_Sign") > signed + 20).then_some(()));
    load.stop().assert_none_lost();
}

#[tokio::test]
async fn worker_processes_of_a_library_that_changes_are_others() {
    let (rig, other) = moves("isolation = \"process\"\n workers = 2").await;
    wait_for("the old workers' end", || rig.sim.processes().is_empty().then_some(()));
    // Fewer workers, then none: the last requests of each are answered.
    let load = steady(&rig).await;
    edit(&rig.daemon, &[("workers = 2", "workers = 1")]);
    reload(&rig.daemon, DONE);
    wait_for("one worker", || (other.processes().len() == 1).then_some(()));
    load.until_done(50);
    edit(&rig.daemon, &[("isolation = \"process\"\n workers = 1", "isolation = \"none\"")]);
    reload(&rig.daemon, DONE);
    load.until_done(50);
    rig.until_member("one", |member| member["worker"] == 0 && member["state"] == "serving").await;
    wait_for("no worker", || {
        let processes = other.processes();
        (processes.len() == 1 && processes[0].to_str().unwrap().contains(&rig.daemon.pid().to_string())).then_some(())
    });
    load.stop().assert_none_lost();
    // What was counted of the members that are gone is gone.
    let states = rig.sum("keyway_member_state", &[("token", "one")]);
    assert_eq!(states, 1.0, "{}", rig.scrape());
}

#[tokio::test]
async fn a_real_token_goes_on_under_other_settings() {
    let token = Token::new();
    let daemon = Daemon::with(&token, Setup { more: probing(""), ..Setup::default() }).await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    let sim = Sim { module: token::module().to_owned() };
    let rig = Rig { daemon, sim, token };
    let load = steady(&rig).await;
    for (from, to, field) in [
        ("pin     =", "max_sessions = 3\n pin     =", "max_sessions"),
        ("max_sessions = 3", "max_sessions = 3\n verify_after_sign = \"always\"", "verify_after_sign"),
        ("max_sessions = 3", "isolation = \"process\"\n workers = 3\n max_sessions = 3", "workers"),
        ("isolation = \"process\"\n workers = 3", "isolation = \"none\"", "workers"),
    ] {
        edit(&rig.daemon, &[(from, to)]);
        let told = reload(&rig.daemon, DONE);
        assert!(told.contains(field), "{field}: {told}");
        load.until_done(50);
    }
    append(&rig.daemon, "log_level = \"debug\"");
    assert!(reload(&rig.daemon, DONE).contains("log_level debug"));
    load.stop().assert_none_lost();
    let before = rig.daemon.log().len();
    rig.daemon.managed_key("more", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    edit(&rig.daemon, &[("log_level = \"debug\"", "log_level = \"error\"")]);
    rig.daemon.signal("HUP");
    wait_for("the reload", || (rig.sum("keyway_config_reloads_total", &[("result", "ok")]) == 6.0).then_some(()));
    assert!(!rig.daemon.log().split_off(before).contains(DONE), "it was no error");
    assert_eq!(rig.test_sign("more").await, (204, String::new()));
}

#[tokio::test]
async fn a_pin_that_is_corrected_is_tried_and_each_once() {
    for lines in ["", "isolation = \"process\"\n workers = 2"] {
        let setup = Setup { pin: "0000", more: probing(""), stanza: lines, ..Setup::default() };
        let rig = Rig::null(&["one"], &["doc"], setup).await;
        rig.daemon.managed_key("doc", json!({"mechanism": "0x1041", "curve": "P256", "token_label": "one"})).await;
        assert!(rig.test_sign("doc").await.0 >= 400);
        rig.until_member("one", |member| member["state"] == "refused").await;
        assert_eq!(rig.sim.calls("C_Login"), 1);
        // Read again as it is, it is not tried again.
        assert!(reload(&rig.daemon, DONE).contains("applied=\"nothing\""));
        let pin = format!("\"{PIN}\"");
        edit(&rig.daemon, &[("\"0000\"", &pin)]);
        let told = reload(&rig.daemon, DONE);
        // Times may have the digits of the PIN.
        let said: String = told.lines().filter_map(|line| line.split_once(' ')).map(|(_, said)| said).collect();
        assert!(said.contains("changed (pin)") && !said.contains(PIN), "{told}");
        rig.until_member("one", |member| member["state"] == "serving").await;
        assert_eq!(rig.test_sign("doc").await, (204, String::new()));
        // A wrong one that was known is not tried again; the right one comes back.
        let logins = rig.sim.calls("C_Login");
        edit(&rig.daemon, &[(&pin, "\"0000\"")]);
        reload(&rig.daemon, DONE);
        rig.until_member("one", |member| member["state"] == "refused").await;
        assert_eq!(rig.sim.calls("C_Login"), logins);
        let (_, told) = rig.test_sign("doc").await;
        assert!(told.contains("refused this PIN before"), "{told}");
        edit(&rig.daemon, &[("\"0000\"", &pin)]);
        reload(&rig.daemon, DONE);
        rig.until_member("one", |member| member["state"] == "serving").await;
        assert_eq!(rig.test_sign("doc").await, (204, String::new()));
    }
}

#[tokio::test]
async fn a_bad_file_changes_nothing() {
    let rig = Rig::null(&["one"], &["doc"], Setup { more: probing(""), ..Setup::default() }).await;
    rig.key("doc", json!({})).await;
    let good = std::fs::read_to_string(file(&rig.daemon)).unwrap();
    let sessions = rig.sim.calls("C_OpenSession");
    // Beside the mistake, there is much that could be taken over.
    let more =
        format!("{}\nlog_level = \"debug\"\nnamespace \"a/\" {{ wait = 3 }}", stanza("new", &rig.sim.module, ""));
    append(&rig.daemon, &more);
    edit(&rig.daemon, &[("pin     =", "max_sessions = 5\n pin     =")]);
    let told = reload(&rig.daemon, REFUSED);
    let line = std::fs::read_to_string(file(&rig.daemon)).unwrap().lines().count();
    assert!(told.contains(&format!("{}:{line}:18: ", file(&rig.daemon).display())), "{told}");
    let checked = rig.daemon.cli(&["server", "-check", &format!("-config={}", file(&rig.daemon).display())]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    let mistake = said.lines().find(|line| line.contains(":18: ")).unwrap();
    assert!(told.contains(mistake.split_once("/").unwrap().1), "{told}\n{said}");
    std::fs::remove_file(file(&rig.daemon)).unwrap();
    assert!(reload(&rig.daemon, REFUSED).contains("cannot be read"));
    assert_eq!(rig.sum("keyway_config_reloads_total", &[("result", "failed")]), 2.0);
    assert_eq!(rig.sum("keyway_config_last_reload_ok", &[]), 0.0);
    let status = rig.daemon.read("sys/keyway/status").await;
    assert!(status["kms_libraries"] == json!(["hsm"]) && status["configuration"]["refused"] == true, "{status}");
    assert_eq!(rig.test_sign("doc").await, (204, String::new()));
    assert_eq!((rig.sim.calls("C_OpenSession"), rig.sim.calls("C_Login")), (sessions, 1));
    std::fs::write(file(&rig.daemon), good).unwrap();
    assert!(reload(&rig.daemon, DONE).contains("applied=\"nothing\""));
    assert_eq!(rig.sum("keyway_config_last_reload_ok", &[]), 1.0);
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_not_taken_over() {
    let rig = Rig::null(&["one"], &["doc"], Setup { more: probing(""), ..Setup::default() }).await;
    rig.key("doc", json!({})).await;
    let home = rig.daemon.folder.display().to_string();
    edit(
        &rig.daemon,
        &[
            (&format!("{home}/http.sock.framed"), &format!("{home}/other.sock")),
            (&format!("{home}/published"), &format!("{home}/elsewhere")),
            ("limits {", "limits {\n connections_per_uid = 7\n drain = \"3s\"\n"),
        ],
    );
    append(&rig.daemon, "namespace \"team\" {}");
    for _ in 0..2 {
        let told = reload(&rig.daemon, DONE);
        for line in [
            "other.sock\\\" added",
            "sock.framed\\\" removed",
            "elsewhere",
            "connections_per_uid (1024, now 7)",
            "team/",
        ] {
            let named = told.lines().filter(|told| told.contains(line) && told.contains("needs a restart")).count();
            assert_eq!(named, 1, "{line}: {told}");
        }
        assert!(told.contains("restart_needed=5"), "{told}");
    }
    assert_eq!(rig.sum("keyway_config_restart_needed", &[]), 5.0);
    let configuration = rig.daemon.read("sys/keyway/status").await["configuration"].clone();
    assert!(configuration["refused"] == false && configuration["needs_restart"].as_array().unwrap().len() == 5);
    let shown = String::from_utf8(rig.daemon.cli(&["status"]).stdout).unwrap();
    assert!(shown.contains("Restart      needed for limits connections_per_uid (1024, now 7)"), "{shown}");
    assert!(!rig.daemon.folder.join("other.sock").exists());
    assert_eq!(rig.ask("team", Verb::Read, "sys/mounts", json!({})).await.status, 404);
    Load::default().run(&rig, 20).await.assert_none_lost();
}

#[tokio::test]
async fn the_keys_of_a_library_that_is_removed_are_told_so_until_it_is_back() {
    let rig = Rig::null(&["one"], &["doc"], Setup { more: probing(""), ..Setup::default() }).await;
    rig.key("doc", json!({})).await;
    let good = std::fs::read_to_string(file(&rig.daemon)).unwrap();
    let start = good.find("kms_library").unwrap();
    let end = start + good[start..].find('}').unwrap() + 1;
    for _ in 0..2 {
        let load = Load::default().start(&rig).await;
        load.until_done(20);
        std::fs::write(file(&rig.daemon), format!("{}{}", &good[..start], &good[end..])).unwrap();
        let told = reload(&rig.daemon, DONE);
        assert!(told.contains("kms_library \\\"hsm\\\" removed"), "{told}");
        let named = told.lines().find(|line| line.contains("managed key is not served")).unwrap();
        assert!(named.contains("doc") && named.contains("there is no kms_library \"hsm\""), "{named}");
        let tally = load.stop();
        tally.assert_only(&["unavailable"]);
        let (_, told) = rig.test_sign("doc").await;
        assert!(told.contains("there is no kms_library") && told.contains("SIGHUP"), "{told}");
        assert_eq!(rig.daemon.read("sys/keyway/status").await["members"], json!([]));
        wait_for("the last session's end", || {
            (rig.sim.calls("C_CloseSession") == rig.sim.calls("C_OpenSession")).then_some(())
        });
        assert_eq!(rig.sum("keyway_member_state", &[]), 0.0);
        wait_for("the key set", || (rig.sum("keyway_key_members", &[("pool", "none")]) == 0.0).then_some(()));
        std::fs::write(file(&rig.daemon), &good).unwrap();
        reload(&rig.daemon, DONE);
        rig.until_serving("one").await;
        Load::default().run(&rig, 20).await.assert_none_lost();
    }
}

#[tokio::test]
async fn a_pool_gets_a_member_and_loses_one_while_requests_flow() {
    let more = format!("{POOL}{}", probing("")).leak();
    let rig = Rig::null(&["one", "two", "three"], &["doc"], Setup { more, ..Setup::default() }).await;
    rig.key("doc", json!({"library": "both", "token_label": ""})).await;
    rig.sim.steer("slot * service 2ms");
    for token in TOKENS {
        rig.until_serving(token).await;
    }
    let load = steady(&rig).await;
    let logins = rig.sim.calls("C_Login");
    edit(
        &rig.daemon,
        &[("kms_pool \"both\" {", "kms_pool \"both\" {\n member {\n library = \"hsm\"\n token_label = \"three\"\n}")],
    );
    assert!(reload(&rig.daemon, DONE).contains("kms_pool \\\"both\\\" changed"));
    rig.until_serving("three").await;
    rig.until_grown("keyway_jobs_total", &[("token", "three"), ("result", "ok")], 0.0, 10.0);
    assert_eq!(rig.sim.calls("C_Login"), logins + 1, "the others stay");
    edit(&rig.daemon, &[("    token_label = \"one\"", "    token_label = \"gone\"")]);
    reload(&rig.daemon, DONE);
    load.until_done(50);
    assert!(!rig.tokens().await.contains(&"one".to_owned()));
    // The library of all of them moves, and with it every member.
    let other = another(&rig, &["gone", "two", "three"], &["doc"]);
    edit(&rig.daemon, &[(rig.sim.module.to_str().unwrap(), other.module.to_str().unwrap())]);
    reload(&rig.daemon, DONE);
    for token in ["gone", "two", "three"] {
        rig.until_serving(token).await;
    }
    load.until_done(50);
    load.stop().assert_none_lost();
}

#[tokio::test]
async fn a_call_that_hangs_does_not_keep_a_library_from_moving() {
    let limits = "call_open = \"4s\"\n call_sign = \"300ms\"";
    let setup = Setup { more: probing(limits), stanza: "max_sessions = 2", ..Setup::default() };
    let rig = Rig::null(&["one"], &["doc"], setup).await;
    rig.key("doc", json!({})).await;
    let load = steady(&rig).await;
    rig.sim.steer("hang C_Sign");
    wait_for("a stuck session", || (rig.sum("keyway_sessions", &[("state", "stuck")]) > 0.0).then_some(()));
    let other = another(&rig, &["one"], &["doc"]);
    edit(&rig.daemon, &[(rig.sim.module.to_str().unwrap(), other.module.to_str().unwrap())]);
    reload(&rig.daemon, DONE);
    rig.until_serving("one").await;
    load.until_done(50);
    load.stop().assert_whole();
    rig.sim.steer("release");
}

/// What systemd is told, over the socket it gives a service of `Type=notify`.
#[tokio::test]
async fn systemd_is_told_how_the_daemon_stands() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let next = || {
        let mut told = [0; 512];
        let length = socket.recv(&mut told).unwrap();
        String::from_utf8(told[..length].to_vec()).unwrap()
    };
    let environment = vec![("NOTIFY_SOCKET", &*path.to_str().unwrap().to_owned().leak())].leak();
    let mut rig = Rig::null(&["one"], &["doc"], Setup { environment, ..Setup::default() }).await;
    assert!(next().contains("READY=1\nSTATUS=serving"));
    reload(&rig.daemon, DONE);
    let reloading = next();
    assert!(reloading.contains("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert!(next().contains("READY=1\nSTATUS=serving by the configuration as it is"));
    append(&rig.daemon, "bad");
    reload(&rig.daemon, REFUSED);
    assert!(next().contains("RELOADING=1"));
    assert!(next().contains("the configuration was refused"));
    rig.daemon.signal("TERM");
    assert!(next().contains("STOPPING=1"));
    assert!(rig.daemon.ended().success());
}

#[tokio::test]
async fn signals_that_come_at_once_are_few_reloads_and_the_last_file_counts() {
    let rig = Rig::null(&["one"], &["doc"], Setup { more: probing(""), ..Setup::default() }).await;
    rig.key("doc", json!({})).await;
    let reloads = |rig: &Rig| rig.sum("keyway_config_reloads_total", &[("result", "ok")]);
    for sessions in 1..=20 {
        let from = if sessions == 1 { "pin     =".to_owned() } else { format!("max_sessions = {} #", sessions - 1) };
        let to = if sessions == 1 {
            "max_sessions = 1 #\n pin     =".into()
        } else {
            format!("max_sessions = {sessions} #")
        };
        edit(&rig.daemon, &[(&from, &to)]);
        rig.daemon.signal("HUP");
    }
    rig.until_member("one", |member| member["sessions"] == 20).await;
    let counted = reloads(&rig);
    assert!((1.0..=20.0).contains(&counted), "{counted}");
    Load::default().run(&rig, 20).await.assert_none_lost();
}

#[tokio::test]
async fn a_daemon_that_drains_is_not_reloaded() {
    let setup = Setup { more: probing("drain = \"20s\""), ..Setup::default() };
    let mut rig = Rig::null(&["one"], &["doc"], setup).await;
    rig.key("doc", json!({})).await;
    let framed = rig.framed(LIMIT).await;
    rig.sim.steer("slot * service 700ms");
    let sign = keyway::wire::proto::Sign {
        mount: "transit".into(),
        key: "doc".into(),
        input: "slow".into(),
        ..Default::default()
    };
    let asked = async {
        let signed = rig.sim.calls("C_SignInit");
        let answer = framed.sign(sign);
        let rest = async {
            while rig.sim.calls("C_SignInit") == signed {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            rig.daemon.signal("TERM");
            wait_for("the drain", || rig.daemon.log().contains("draining").then_some(()));
            append(&rig.daemon, "log_level = \"debug\"");
            rig.daemon.signal("HUP");
        };
        tokio::join!(answer, rest).0
    };
    asked.await.unwrap();
    assert!(rig.daemon.ended().success(), "{}", rig.daemon.log());
    let log = rig.daemon.log();
    assert!(log.contains("SIGHUP is ignored") && !log.contains(DONE), "{log}");
}
