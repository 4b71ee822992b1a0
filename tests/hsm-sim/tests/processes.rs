//! Several processes with one module, steered from outside: `pkcs11-tool`, which knows nothing of any of this.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::hsm::{Hsm, KEYS, TOKENS, built, find, key, sign};
use crate::sim::{PIN, Sim, Softhsm, client, softhsm_module};

const LIMIT: Duration = Duration::from_secs(60);

struct Tool {
    sim: Sim,
    folder: tempfile::TempDir,
}

impl Tool {
    fn null() -> Tool {
        let folder = tempfile::tempdir().unwrap();
        let sim = Sim::null(&built(), &folder.path().join("hsm.so"), &TOKENS, &KEYS);
        Tool { sim, folder }
    }

    /// Signs with the key `ca` of token `one`.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("pkcs11-tool");
        let input = self.folder.path().join("input");
        std::fs::write(&input, [7; 32]).unwrap();
        command.arg("--module").arg(&self.sim.module).args(["--token-label", "one", "--login", "--pin", PIN]);
        command.args(arguments).arg("--input-file").arg(input).arg("--output-file").arg("/dev/null");
        command.stdin(Stdio::null());
        command
    }

    fn sign(&self) -> Output {
        self.command(&["--sign", "--mechanism", "ECDSA"]).output().unwrap()
    }

    fn start(&self) -> Child {
        self.command(&["--sign", "--mechanism", "ECDSA"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn wait_for_processes(&self, many: usize) {
        let begun = Instant::now();
        while self.sim.processes().len() != many {
            assert!(begun.elapsed() < LIMIT, "not {many}: {:?}", self.sim.processes());
            std::thread::yield_now();
        }
    }
}

#[test]
fn an_abort_kills_the_process_once() {
    let tool = Tool::null();
    tool.sim.steer("abort C_SignInit nth 2");
    assert!(tool.sign().status.success());
    assert_eq!(tool.sign().status.signal(), Some(6), "SIGABRT");
    // The number counts over all processes: it does not die again.
    let third = tool.sign();
    assert!(third.status.success(), "{}", String::from_utf8_lossy(&third.stderr));
}

#[test]
fn counts_add_up_over_processes_that_have_ended() {
    let tool = Tool::null();
    for _ in 0..3 {
        assert!(tool.sign().status.success());
    }
    assert_eq!(tool.sim.calls("C_SignInit"), 3);
    assert_eq!(tool.sim.calls("C_Initialize"), 3);
    assert!(tool.sim.processes().is_empty());
}

#[test]
fn steering_is_for_all_that_live_and_all_that_come() {
    let tool = Tool::null();
    tool.sim.steer("hang C_Login");
    let mut children = [tool.start(), tool.start()];
    tool.wait_for_processes(2);
    let reports = tool.sim.reports();
    assert_ne!(reports[0]["process"], reports[1]["process"]);
    // By any socket, as a shell would do it: it is for both.
    let answer = client::ask(&tool.sim.processes()[0], "fail C_SignInit slot one CKR_DEVICE_ERROR").unwrap();
    assert_eq!(answer, "ok");
    // Some may end before they can answer.
    tool.sim.steer("release");
    for child in &mut children {
        assert!(!child.wait().unwrap().success());
    }
    // And for one that comes later.
    let late = tool.sign();
    assert!(!late.status.success());
    tool.sim.steer("clear");
    assert!(tool.sign().status.success());
}

#[test]
fn a_mistake_is_told_and_not_remembered() {
    let hsm = Hsm::null();
    let socket = hsm.sim.processes().remove(0);
    let ask = |line: &str| client::ask(&socket, line).unwrap();
    for (line, word) in [
        ("fial C_Sign CKR_OK", "help lists them"),
        ("fail C_Singn CKR_DEVICE_ERROR", "C_Singn"),
        ("fail C_Sign CKR_NONE", "CKR_NONE"),
        ("fail C_Sign CKR_DEVICE_ERROR nth 0", "nth"),
        ("slot one service 3", "no time"),
        ("slot one service lognormal 1ms 9", "between 0 and 4"),
        ("slot one parallel 65", "at most 64"),
        ("remove one", "a slot is missing"),
        ("release now", "too much"),
        ("slot \"one idle 1s", "quotation"),
    ] {
        let answer = ask(line);
        assert!(answer.starts_with("error: ") && answer.contains(word), "{line}: {answer}");
    }
    assert_eq!(std::fs::read_to_string(hsm.sim.control().join("steering")).unwrap(), "");
    assert!(ask("help").contains("lognormal"));
    // How many slots it is for.
    assert_eq!(ask("slot * service none"), "ok 2");
    assert_eq!(ask("slot \"no such\" service none"), "ok 0");
}

#[test]
fn settings_may_steer_from_the_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let slots = serde_json::json!([{"label": "one", "pin": PIN, "keys": [{"label": "ca"}]}]);
    let settings = serde_json::json!({
        "null": {"slots": slots}, "folder": folder.path().join("elsewhere"),
        "steering": ["fail C_SignInit CKR_DEVICE_MEMORY nth 1"],
    });
    let sim = Sim::new(&built(), &folder.path().join("hsm.so"), &settings);
    let hsm = Hsm::of(sim, folder);
    let session = hsm.logged_in("one");
    let key = key(&session);
    assert_eq!(crate::hsm::told(sign(&session, key)), "DeviceMemory");
    sign(&session, key).unwrap();
    assert_eq!(client::calls(&hsm.folder.path().join("elsewhere"), "C_SignInit"), Some(2));
}

#[test]
fn a_generated_key_is_found_by_other_processes() {
    let hsm = Hsm::null();
    let made = Command::new("pkcs11-tool")
        .arg("--module")
        .arg(&hsm.sim.module)
        .args(["--token-label", "one", "--login", "--pin", PIN, "--keypairgen", "--key-type", "EC:prime256v1"])
        .args(["--label", "tool", "--id", "0f"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let session = hsm.logged_in("one");
    sign(&session, find(&session, "tool").unwrap()).unwrap();
}

#[test]
fn the_environment_puts_it_before_a_real_token_and_one_key_is_in_several() {
    let folder = tempfile::tempdir().unwrap();
    let softhsm = Softhsm::new(folder.path());
    TOKENS.iter().for_each(|token| softhsm.token(token));
    softhsm.import(&TOKENS, "ca", "01");
    let control = folder.path().join("control");
    let points: Vec<String> = TOKENS
        .iter()
        .map(|token| {
            let listed = Command::new("pkcs11-tool")
                .arg("--module")
                .arg(built())
                .args(["--token-label", token, "--list-objects", "--type", "pubkey"])
                .env("SOFTHSM2_CONF", softhsm.configuration())
                .env("HSM_SIM_MODULE", softhsm_module())
                .env("HSM_SIM_FOLDER", &control)
                .output()
                .unwrap();
            let text = String::from_utf8(listed.stdout).unwrap();
            text.lines().find(|line| line.contains("EC_POINT:")).unwrap_or_else(|| panic!("{text}")).to_owned()
        })
        .collect();
    assert_eq!(points[0], points[1]);
    assert_eq!(client::calls(&control, "C_Initialize"), Some(2));
}
