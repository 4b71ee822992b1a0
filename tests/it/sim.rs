//! Simulated HSMs: copies of the module, each with tokens of its own, made up or real, and steered while they are in use.

// Taken by the simulator's own tests as well; neither takes all of it.
#![allow(dead_code, reason = "two test binaries, each with its share")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

#[path = "../hsm-sim/src/client.rs"]
pub(crate) mod client;

/// Has cargo build a package as it built these tests, with or without `--release`.
pub(crate) fn build(package: &str) {
    let profile: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
    let built = Command::new(env!("CARGO")).args(["build", "--quiet", "-p", package]).args(profile).status().unwrap();
    assert!(built.success());
}

/// The PIN of every token made here.
pub(crate) const PIN: &str = "9876";
const SO_PIN: &str = "12345678";

/// A copy of the module, and what it has beside itself: settings, counts, control sockets.
pub(crate) struct Sim {
    /// The copy's file: what a program loads.
    pub(crate) module: PathBuf,
}

impl Sim {
    /// A copy of the `built` module at `module`, with these settings.
    pub(crate) fn new(built: &Path, module: &Path, settings: &Value) -> Sim {
        std::fs::copy(built, module).unwrap();
        let sim = Sim { module: module.to_owned() };
        std::fs::write(sim.beside("json"), serde_json::to_vec_pretty(settings).unwrap()).unwrap();
        std::fs::create_dir_all(sim.control()).unwrap();
        sim
    }

    /// Tokens that are made up: each with these P-256 keys, the same in all of them.
    pub(crate) fn null(built: &Path, module: &Path, tokens: &[&str], keys: &[&str]) -> Sim {
        let keys: Vec<Value> = keys.iter().map(|label| json!({ "label": label })).collect();
        let slots: Vec<Value> = tokens.iter().map(|label| json!({"label": label, "pin": PIN, "keys": keys})).collect();
        Sim::new(built, module, &json!({"null": {"slots": slots}}))
    }

    /// One token that is made up, `one`, with keys of these kinds (`aes256` and their like), each labelled as its kind.
    pub(crate) fn null_kinds(built: &Path, module: &Path, kinds: &[&str]) -> Sim {
        let keys: Vec<Value> = kinds.iter().map(|kind| json!({"label": kind, "kind": kind})).collect();
        Sim::new(built, module, &json!({"null": {"slots": [{"label": "one", "pin": PIN, "keys": keys}]}}))
    }

    /// Tokens of SoftHSM2, which are made in a folder beside the module. Only one of these can be in a process: SoftHSM2
    /// has one state, and one place for its tokens.
    pub(crate) fn softhsm(built: &Path, module: &Path, tokens: &[&str]) -> Sim {
        let softhsm = Softhsm::new(&module.with_extension("softhsm"));
        tokens.iter().for_each(|label| softhsm.token(label));
        let settings = json!({"real": {
            "module": softhsm_module(),
            "environment": {"SOFTHSM2_CONF": softhsm.configuration()},
        }});
        Sim::new(built, module, &settings)
    }

    fn beside(&self, ending: &str) -> PathBuf {
        PathBuf::from(format!("{}.{ending}", self.module.display()))
    }

    /// The folder of counts, control sockets and remembered commands.
    pub(crate) fn control(&self) -> PathBuf {
        self.beside("d")
    }

    /// Steers every process that has loaded the module, and those that will. Answers what each said.
    pub(crate) fn steer(&self, command: &str) -> Vec<String> {
        client::steer(&self.control(), command).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// The processes that have loaded the module and are alive, by their control sockets.
    pub(crate) fn processes(&self) -> Vec<PathBuf> {
        client::sockets(&self.control())
    }

    /// What each live process reports.
    pub(crate) fn reports(&self) -> Vec<Value> {
        let answers = self.steer("report");
        answers.iter().map(|answer| serde_json::from_str(answer).unwrap()).collect()
    }

    /// How often a function was called, by every process so far.
    pub(crate) fn calls(&self, function: &str) -> u64 {
        client::calls(&self.control(), function).unwrap()
    }
}

/// Several SoftHSM2 tokens in one folder.
pub(crate) struct Softhsm {
    folder: PathBuf,
}

impl Softhsm {
    pub(crate) fn new(folder: &Path) -> Softhsm {
        let tokens = folder.join("tokens");
        std::fs::create_dir_all(&tokens).unwrap();
        let text =
            format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
        std::fs::write(folder.join("softhsm2.conf"), text).unwrap();
        Softhsm { folder: folder.to_owned() }
    }

    /// What `SOFTHSM2_CONF` must name.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.folder.join("softhsm2.conf")
    }

    /// One more token.
    pub(crate) fn token(&self, label: &str) {
        self.run(&["--init-token", "--free", "--label", label, "--so-pin", SO_PIN, "--pin", PIN]);
    }

    /// Puts one key pair into several tokens: a P-256 key of this label and id (hexadecimal), made outside.
    pub(crate) fn import(&self, tokens: &[&str], label: &str, id: &str) {
        let file = self.folder.join(format!("{label}.pem"));
        let made = Command::new("openssl")
            .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let file = file.to_str().unwrap();
        for token in tokens {
            self.run(&["--import", file, "--token", token, "--label", label, "--id", id, "--pin", PIN]);
        }
    }

    /// Puts an AES key of this value into a token. The tool takes text only.
    pub(crate) fn import_aes(&self, token: &str, label: &str, id: &str, value: &[u8]) {
        let file = self.folder.join(format!("{token}.{label}"));
        std::fs::write(&file, value).unwrap();
        let file = file.to_str().unwrap();
        self.run(&["--import", file, "--aes", "--token", token, "--label", label, "--id", id, "--pin", PIN]);
    }

    fn run(&self, arguments: &[&str]) {
        let done = Command::new("softhsm2-util").args(arguments).env("SOFTHSM2_CONF", self.configuration()).output();
        let done = done.unwrap_or_else(|error| panic!("softhsm2-util, which tests/run installs: {error}"));
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// SoftHSM2's own module.
pub(crate) fn softhsm_module() -> PathBuf {
    let places = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"];
    places.iter().map(PathBuf::from).find(|path| path.exists()).expect("SoftHSM2 is installed by tests/run")
}
