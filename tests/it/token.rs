//! A token in a private folder, behind the module that counts calls: SoftHSM2, or Kryoptic where
//! `KEYWAY_TEST_KRYOPTIC` names its module.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use keyway::model::Hash;

pub(crate) use crate::sim::PIN;
use crate::sim::{self, client};

pub(crate) const LABEL: &str = "keyway-test";
const SO_PIN: &str = "12345678";
/// What object a process of its own is to make: label, id and value.
const OBJECT: &str = "KEYWAY_TEST_OBJECT";

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

    /// Puts a secret key of this value, and of a type such as `AES:32`, into it.
    pub(crate) fn import_secret(&self, label: &str, id: &str, kind: &str, value: &[u8]) {
        let file = self.path(&format!("{label}.value"));
        std::fs::write(&file, value).unwrap();
        let key =
            ["--write-object", file.to_str().unwrap(), "--type", "secrkey", "--key-type", kind, "--usage-decrypt"];
        let named = ["--label", label, "--id", id, "--private"];
        self.tool(&[&["--token-label", LABEL, "--login", "--pin", PIN], &key[..], &named].concat());
    }

    /// Puts a secret key of no particular kind into it. No tool of Debian's does: a process of its own is this very program, told
    /// to run [`a_process_of_its_own_makes_an_object`] alone, since a module has one state in a process.
    pub(crate) fn import_generic(&self, label: &str, id: &[u8], value: &[u8]) {
        let object = [label.to_owned(), hex::encode(id), hex::encode(value)].join(":");
        let program = std::env::current_exe().unwrap();
        let alone = ["--exact", "token::a_process_of_its_own_makes_an_object", "--ignored"];
        let done = Command::new(program).args(alone).envs(self.environment()).env(OBJECT, object).output().unwrap();
        let told = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && told.contains("1 passed"), "{told}");
    }

    /// Takes a secret key out of it.
    pub(crate) fn remove_secret(&self, id: &str) {
        let login = ["--token-label", LABEL, "--login", "--pin", PIN];
        self.tool(&[&login[..], &["--delete-object", "--type", "secrkey", "--id", id]].concat());
    }

    /// What it says of its objects of a type such as `secrkey`.
    pub(crate) fn listed(&self, kind: &str) -> String {
        let login = ["--token-label", LABEL, "--login", "--pin", PIN];
        self.tool(&[&login[..], &["--list-objects", "--type", kind]].concat())
    }

    fn tool(&self, arguments: &[&str]) -> String {
        let module = real_module().to_str().unwrap().to_owned();
        self.run("pkcs11-tool", &[&["--module", &module], arguments].concat())
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let done = Command::new(program).args(arguments).envs(self.environment()).output();
        let done = done.unwrap_or_else(|error| panic!("{program}, which tests/run installs: {error}"));
        assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
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

#[test]
#[ignore = "the work of a process that another story starts"]
fn a_process_of_its_own_makes_an_object() {
    use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
    use cryptoki::object::{Attribute, KeyType, ObjectClass};
    use cryptoki::session::UserType;
    let object = std::env::var(OBJECT).unwrap();
    let [label, id, value] = object.split(':').collect::<Vec<_>>().try_into().unwrap();
    let module = Pkcs11::new(real_module()).unwrap();
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let slots = module.get_slots_with_token().unwrap().into_iter();
    let slot = slots.into_iter().find(|slot| module.get_token_info(*slot).is_ok_and(|info| info.label() == LABEL));
    let session = module.open_rw_session(slot.unwrap()).unwrap();
    session.login(UserType::User, Some(&cryptoki::types::AuthPin::new(PIN.into()))).unwrap();
    let attributes = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sign(true),
        Attribute::Verify(true),
        Attribute::Label(label.into()),
        Attribute::Id(hex::decode(id).unwrap()),
        Attribute::Value(hex::decode(value).unwrap()),
    ];
    session.create_object(&attributes).unwrap();
}

/// The profile a configuration gives this token.
pub(crate) fn profile() -> &'static str {
    if kryoptic().is_some() { "kryoptic" } else { "softhsm" }
}

/// The hash that this token knows for OAEP: SoftHSM2 has no other than SHA-1.
pub(crate) fn oaep_hash() -> Hash {
    if kryoptic().is_some() { Hash::Sha2_256 } else { Hash::Sha1 }
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
        sim::build("hsm-sim");
        binary.parent().unwrap().join("libhsm_sim.so")
    })
}
