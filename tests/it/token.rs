//! A token in a private folder, behind the module that counts calls: SoftHSM2, or Kryoptic where
//! `KEYWAY_TEST_KRYOPTIC` names its module.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub(crate) use crate::sim::PIN;
use crate::sim::{self, client};

pub(crate) const LABEL: &str = "keyway-test";
const SO_PIN: &str = "12345678";

/// A token and the folder it lives in.
pub(crate) struct Token {
    pub(crate) folder: tempfile::TempDir,
}

impl Token {
    /// An initialised token.
    pub(crate) fn new() -> Token {
        let token = Token::absent();
        token.make();
        token
    }

    /// A folder where a token can be made later.
    pub(crate) fn absent() -> Token {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("tokens")).unwrap();
        let token = Token { folder };
        let tokens = token.folder.path().join("tokens");
        let softhsm =
            format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
        std::fs::write(token.path("softhsm2.conf"), softhsm).unwrap();
        let kryoptic =
            format!("[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = \"{}/token.sql\"\n", tokens.display());
        std::fs::write(token.path("kryoptic.conf"), kryoptic).unwrap();
        token
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Initialises it.
    pub(crate) fn make(&self) {
        self.initialise();
        self.set_pin();
    }

    /// Gives it a label and a security officer; nobody can log in as its user yet.
    pub(crate) fn initialise(&self) {
        self.tool(&["--slot-index", "0", "--init-token", "--label", LABEL, "--so-pin", SO_PIN]);
    }

    /// What the security officer does next.
    pub(crate) fn set_pin(&self) {
        let officer = ["--login", "--login-type", "so", "--so-pin", SO_PIN];
        self.tool(&[&["--token-label", LABEL], &officer[..], &["--init-pin", "--pin", PIN]].concat());
    }

    /// Generates an RSA key of this label and id behind the daemon's back.
    pub(crate) fn generate_rsa(&self, label: &str, id: &str) {
        let key = ["--keypairgen", "--key-type", "rsa:2048", "--usage-sign", "--label", label, "--id", id];
        self.tool(&[&["--token-label", LABEL, "--login", "--pin", PIN], &key[..]].concat());
    }

    fn tool(&self, arguments: &[&str]) {
        let module = real_module().to_str().unwrap().to_owned();
        self.run("pkcs11-tool", &[&["--module", &module], arguments].concat());
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let done = Command::new(program).args(arguments).envs(self.environment()).output();
        let done = done.unwrap_or_else(|error| panic!("{program}, which tests/run installs: {error}"));
        assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// What a process needs to reach this token through the counting module.
    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 4] {
        [
            ("SOFTHSM2_CONF", self.path("softhsm2.conf")),
            ("KRYOPTIC_CONF", self.path("kryoptic.conf")),
            ("HSM_SIM_MODULE", real_module()),
            ("HSM_SIM_FOLDER", self.path("sim")),
        ]
    }

    /// Steers the module, in every process that has this token.
    pub(crate) fn steer(&self, command: &str) -> Vec<String> {
        client::steer(&self.path("sim"), command).unwrap()
    }

    /// How often a PKCS#11 function was called, by every process so far.
    pub(crate) fn calls(&self, function: &str) -> u64 {
        client::calls(&self.path("sim"), function).unwrap()
    }
}

/// The profile a configuration gives this token.
pub(crate) fn profile() -> &'static str {
    if kryoptic().is_some() { "kryoptic" } else { "softhsm" }
}

fn kryoptic() -> Option<PathBuf> {
    std::env::var_os("KEYWAY_TEST_KRYOPTIC").map(PathBuf::from)
}

/// The token's own module.
fn real_module() -> PathBuf {
    kryoptic().unwrap_or_else(sim::softhsm_module)
}

/// The counting module, built by cargo once per run.
pub(crate) fn module() -> &'static Path {
    static MODULE: OnceLock<PathBuf> = OnceLock::new();
    MODULE.get_or_init(|| {
        let binary = Path::new(env!("CARGO_BIN_EXE_keyway"));
        let built = Command::new(env!("CARGO")).args(["build", "--quiet", "-p", "hsm-sim"]).status().unwrap();
        assert!(built.success());
        binary.parent().unwrap().join("libhsm_sim.so")
    })
}
