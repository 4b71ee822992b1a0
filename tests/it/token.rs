//! A SoftHSM2 token in a private folder, behind the module that counts calls.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub(crate) const LABEL: &str = "keyway-test";
pub(crate) const PIN: &str = "9876";

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
        std::fs::create_dir(folder.path().join("calls")).unwrap();
        let conf = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            folder.path().join("tokens").display()
        );
        std::fs::write(folder.path().join("softhsm2.conf"), conf).unwrap();
        Token { folder }
    }

    pub(crate) fn make(&self) {
        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", LABEL, "--so-pin", "12345678", "--pin", PIN])
            .env("SOFTHSM2_CONF", self.folder.path().join("softhsm2.conf"))
            .output()
            .expect("softhsm2-util is installed by tests/run");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// What a process needs to reach this token through the counting module.
    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 3] {
        let folder = self.folder.path();
        [
            ("SOFTHSM2_CONF", folder.join("softhsm2.conf")),
            ("HSM_SIM_MODULE", softhsm()),
            ("HSM_SIM_CALLS", folder.join("calls")),
        ]
    }

    /// How often a PKCS#11 function was called, by every process so far.
    pub(crate) fn calls(&self, function: &str) -> u64 {
        std::fs::metadata(self.folder.path().join("calls").join(function)).map_or(0, |file| file.len())
    }
}

fn softhsm() -> PathBuf {
    let places = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"];
    places.iter().map(PathBuf::from).find(|path| path.exists()).expect("SoftHSM2 is installed by tests/run")
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
