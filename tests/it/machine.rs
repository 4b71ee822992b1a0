//! A machine of the test's own that systemd runs, with Keyway's units in it: `tests/boot` makes it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::daemon::wait_for;

/// Where the units have the sockets.
pub(crate) const SOCKET: &str = "/run/keyway/keyway.sock";
/// A SoftHSM2 token below the only folder that the unit lets the daemon write to.
const SOFTHSM: &str = "/var/lib/keyway/softhsm2.conf";
const CONFIG: &str = r#"
listener "unix" {
  address     = "/run/keyway/keyway.sock"
  socket_mode = "0660"
}
listener "unix" {
  address  = "/run/keyway/keyway.sock.framed"
  protocol = "framed"
}
storage "redb" { path = "/var/lib/keyway/keyway.redb" }
seal "file" { path = "/var/lib/keyway/seal.key" }
kms_library "pkcs11" {
  name    = "hsm"
  library = "/usr/lib/softhsm/libsofthsm2.so"
  pin     = "credential:luna-pin"
  env     = { SOFTHSM2_CONF = "/var/lib/keyway/softhsm2.conf" }
}
publish_dir = "/var/lib/keyway/published"
"#;

/// A running machine; gone when dropped.
pub(crate) struct Machine {
    boot: Child,
    folder: tempfile::TempDir,
    /// Its first process, by the number it has here.
    first: String,
    pub(crate) root_token: String,
}

impl Machine {
    /// Boots one, if this run of the tests is to, with the units installed and a token for the daemon.
    pub(crate) fn boot() -> Option<Machine> {
        if std::env::var_os("KEYWAY_TEST_SYSTEMD").is_none() {
            eprintln!("not asked: KEYWAY_TEST_SYSTEMD is not set, as tests/run does where tests/boot is possible");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let put = |path: &str, bytes: &[u8]| {
            let file = folder.path().join("files").join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, bytes).unwrap();
        };
        for unit in ["keyway.service", "keyway.socket"] {
            put(&format!("etc/systemd/system/{unit}"), &std::fs::read(project.join("config").join(unit)).unwrap());
        }
        put("etc/keyway/production.hcl", CONFIG.as_bytes());
        for pin in ["luna-pin", "nshield-pin"] {
            put(&format!("etc/keyway/{pin}"), b"1234\n");
        }
        put(&SOFTHSM[1..], b"directories.tokendir = /var/lib/keyway/tokens\nobjectstore.backend = file\n");
        put("var/lib/keyway/tokens/.made", b"");
        let mut boot = Command::new(project.join("tests/boot"))
            .arg(folder.path())
            .arg(env!("CARGO_BIN_EXE_keyway"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(boot.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let machine = Machine { boot, folder, first: first.trim().to_owned(), root_token: String::new() };
        wait_for("the machine", || (machine.told("systemctl is-system-running").0 == "running\n").then_some(()));
        machine.run("useradd --system keyway && chown -R keyway: /var/lib/keyway && chmod 0600 /etc/keyway/*-pin");
        machine.run(&format!(
            "SOFTHSM2_CONF={SOFTHSM} setpriv --reuid keyway --regid keyway --clear-groups \
             softhsm2-util --init-token --free --label ca --pin 1234 --so-pin 1234"
        ));
        Some(machine)
    }

    /// Has systemd hold the sockets, and the first request start the daemon; initialises it.
    pub(crate) fn serve(&mut self) {
        self.run("systemctl enable --now keyway.socket");
        let answer = self.curl("", "-X PUT -d {}", "sys/init");
        self.root_token = answer.1["root_token"].as_str().unwrap().to_owned();
    }

    /// Runs a shell's command there, as root; what it printed, and its errors.
    pub(crate) fn told(&self, command: &str) -> (String, Output) {
        let output = Command::new("nsenter")
            .args(["--target", &self.first, "--mount", "--pid", "--cgroup", "--ipc", "--uts", "--net", "--root"])
            .args(["--wdns=/", "sh", "-c", command])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (String::from_utf8_lossy(&output.stdout).into_owned(), output)
    }

    /// The same, of what must go well.
    pub(crate) fn run(&self, command: &str) -> String {
        let (told, output) = self.told(command);
        assert!(output.status.success(), "{command}: {output:?}\n{}", self.journal());
        told
    }

    /// Asks the daemon with this token, or none, and with these options of curl's; the status and the answer.
    pub(crate) fn curl(&self, token: &str, options: &str, path: &str) -> (u16, Value) {
        answer(&self.run(&curl(token, options, path)))
    }

    /// Writes, as root.
    pub(crate) fn write(&self, path: &str, data: Value) -> Value {
        let (status, told) = self.curl(&self.root_token, &format!("-d '{data}'"), path);
        assert!(status < 300, "{path}: {status} {told}\n{}", self.journal());
        told
    }

    /// Logs in from a process that this command starts; the status and the answer.
    pub(crate) fn login_by(&self, command: &str, role: &str) -> (u16, Value) {
        let login = curl("", &format!("-d '{{\\\"role\\\": \\\"{role}\\\"}}'"), "auth/unix/login");
        answer(&self.run(&format!("{command} sh -c \"{login}\"")))
    }

    /// What systemd says of a unit.
    pub(crate) fn property(&self, unit: &str, name: &str) -> String {
        self.run(&format!("systemctl show --value --property={name} {unit}")).trim().to_owned()
    }

    /// What the daemon and systemd logged of it.
    pub(crate) fn journal(&self) -> String {
        self.told("journalctl --no-pager --output=cat --unit=keyway.service --unit=keyway.socket").0
    }

    /// A file there, as it is seen from here.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.first))
    }
}

fn curl(token: &str, options: &str, path: &str) -> String {
    let header = if token.is_empty() { String::new() } else { format!("-H X-Vault-Token:{token}") };
    format!("curl -sS -m 60 -w '\\n%{{http_code}}' --unix-socket {SOCKET} {header} {options} http://keyway/v1/{path}")
}

fn answer(text: &str) -> (u16, Value) {
    let (body, status) = text.rsplit_once('\n').unwrap_or_else(|| panic!("{text}"));
    (status.parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "the journal:\n{}", self.journal());
            let console = std::fs::read_to_string(self.folder.path().join("console")).unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "the machine's console:\n{console}");
        }
        // It ends the machine and waits for that.
        drop(self.boot.stdin.take());
        let _ = self.boot.wait();
    }
}
