//! The configuration file: HCL in, a validated [`Config`] out. Unknown stanzas and fields, wrong types and duplicate
//! names are refused with file, line, column and what was expected.
//!
//! This room must not know: what any setting does. It opens no socket, store or library.

mod changes;
mod document;
mod grants;
mod limits;
mod load;
mod pools;
mod profile;
mod reader;
mod reference;
mod seals;
mod services;
mod stanzas;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{Namespace, Secret, TokenSelector};

pub use changes::{Changes, LibraryChange};
pub use document::{Document, Problem, Problems};
pub use grants::{Grants, NamespaceList};
pub use limits::Limits;
pub use pools::NO_POOL;
pub use profile::{Isolation, Profile, Traits, WORKERS_MAX, or_cores};
pub use reference::{Pin, Reference, secret_variables};
pub use seals::Pkcs11Seal;
pub use services::{KmsService, ServiceQuota, families};

/// Everything the operator decides.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients come in; at least one.
    pub listeners: Vec<Listener>,
    /// Where records are kept.
    pub storage: Storage,
    /// What guards the root key of the store.
    pub seal: Seal,
    /// The seal before it, whose place it takes: `disabled = true`.
    pub former_seal: Option<Seal>,
    /// The PKCS#11 libraries on this host, by unique name (case does not count).
    pub kms_libraries: Vec<KmsLibrary>,
    /// Tokens that hold copies of the same keys, by a name that no library has either.
    pub kms_pools: Vec<KmsPool>,
    /// What is allowed of each cloud's key service, and how it is called.
    pub kms_services: Vec<KmsService>,
    /// Tenants: made at start, each with its weight.
    pub namespaces: Vec<NamespaceSettings>,
    /// Where Prometheus scrapes: `telemetry { prometheus_listener = "127.0.0.1:9464" }` or `"unix:///path"`.
    pub telemetry: Telemetry,
    /// Every bound.
    pub limits: Limits,
    /// The folder below which CA certificates and CRLs are published for a web server.
    pub publish_dir: Option<PathBuf>,
    /// What becomes of the daemon's memory.
    pub memory: Memory,
    /// What is logged.
    pub log_level: LogLevel,
    /// How it is logged.
    pub log_format: LogFormat,
    /// What is accepted, and should be mended all the same.
    pub warnings: Vec<String>,
}

/// `listener "unix" { … }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The socket's path.
    pub address: PathBuf,
    /// Which wire is spoken there.
    pub protocol: Protocol,
    /// The socket's permission bits; default 0600.
    pub socket_mode: u32,
    /// Its owner: a name or a number, as written.
    pub socket_user: Option<String>,
    /// Its group: a name or a number, as written.
    pub socket_group: Option<String>,
    /// If not empty, only these uids may connect (the daemon's own and 0 always may).
    pub allow_uids: Vec<u32>,
    /// If not empty, also peers of these gids may connect.
    pub allow_gids: Vec<u32>,
    /// Whether implicit roles of `auth/unix` count here for requests without a token.
    pub implicit_auth: bool,
}

/// The wire of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Vault's HTTP API.
    Http,
    /// The framed API.
    Framed,
}

/// `storage "redb" { path }`, or in memory for `-dev` and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// One file.
    Redb {
        /// The file's path.
        path: PathBuf,
    },
    /// Gone at exit.
    Memory,
}

/// `seal "file" { path }`, `seal "pkcs11" { … }`, or a key that lives as long as the process for `-dev` and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seal {
    /// A key file of mode 0600, made at initialisation.
    File {
        /// The file's path.
        path: PathBuf,
    },
    /// A key in an HSM.
    Pkcs11(Box<Pkcs11Seal>),
    /// Gone at exit.
    Ephemeral,
}

/// `kms_library "pkcs11" { … }`.
#[derive(Clone, Debug)]
pub struct KmsLibrary {
    /// The name managed keys use.
    pub name: String,
    /// Path of the shared object.
    pub library: PathBuf,
    /// The user PIN of its tokens, already fetched from its `env:`, `file:` or `credential:` reference.
    pub pin: Option<Secret>,
    /// What is known of its kind: as configured, or by its file's name. `None` goes by what the module says of itself
    /// (`CK_INFO`) once it is loaded.
    pub profile: Option<Profile>,
    /// Sessions per slot; `None` takes the profile's default.
    pub max_sessions: Option<usize>,
    /// Where its code runs: as configured, or as its profile has it.
    pub isolation: Isolation,
    /// Worker processes of each of its tokens, where it runs in processes, but no more than a token has sessions; else 1.
    pub workers: usize,
    /// Environment of its worker processes, beside the daemon's own: paths the vendor's library reads.
    pub env: BTreeMap<String, String>,
    /// A session unused for so long exercises a key: 1 s to a day; zero is never. `None` takes the profile's default.
    pub keep_alive: Option<Duration>,
    /// Which of its signatures are verified in software before they leave.
    pub verify_after_sign: VerifyAfterSign,
    /// Whose managed keys may name it.
    pub namespaces: Grants,
}

impl KmsLibrary {
    /// What is known of it before it is loaded.
    pub fn configured_traits(&self) -> Traits {
        self.profile.unwrap_or_default().traits()
    }
}

/// Which signatures are verified with the recorded public key before they leave. CA certificates and CRLs always are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum VerifyAfterSign {
    /// Every one.
    Always,
    /// One in 512.
    #[default]
    Sampled,
    /// None but the first of each key in each session, which shows that the handle is still the key's.
    Never,
}

/// `kms_pool "name" { member { … } … }`: tokens that hold the same keys, copied by the vendor's tool.
#[derive(Clone, Debug)]
pub struct KmsPool {
    /// The name managed keys give as their `library`.
    pub name: String,
    /// At least one.
    pub members: Vec<PoolMember>,
    /// Whose managed keys may name it, whatever the libraries of its members say.
    pub namespaces: Grants,
}

/// `member { … }` of a pool.
#[derive(Clone, Debug)]
pub struct PoolMember {
    /// The name of a configured library.
    pub library: String,
    /// Which of its tokens.
    pub token: TokenSelector,
    /// The token's user PIN; `None` takes the library's.
    pub pin: Option<Secret>,
    /// Sessions of this token; `None` takes the library's.
    pub max_sessions: Option<usize>,
}

impl PoolMember {
    /// Whether both are the same member, by the same settings.
    pub fn is_same(&self, other: &PoolMember) -> bool {
        self.library.eq_ignore_ascii_case(&other.library)
            && self.token == other.token
            && changes::same_pin(self.pin.as_ref(), other.pin.as_ref())
            && self.max_sessions == other.max_sessions
    }
}

/// `namespace "team-a" { weight = 3 }`. Such a stanza makes the namespace at start, and every namespace above it that has
/// no stanza of its own, with weight 1. Without its stanza a namespace is not served; its records stay, and come back with
/// the stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceSettings {
    /// Its path; never the root.
    pub path: Namespace,
    /// Its share of every lane, beside others of weight 1. From 1 to 1,000.
    pub weight: u32,
}

/// What becomes of the daemon's memory: `core_dumps` and `lock_memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Whether a crash may leave it in a file.
    pub core_dumps: bool,
    /// Whether it is kept from swap space, where the system lets it.
    pub lock: bool,
}

/// `telemetry { … }`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// Where the exposition is served; `None` serves none.
    pub prometheus_listener: Option<PrometheusListener>,
}

/// An address Prometheus (or a proxy before it) reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrometheusListener {
    /// TCP.
    Tcp(std::net::SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// The least severe message that is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// Much.
    Debug,
    /// What an operator reads.
    #[default]
    Info,
    /// What wants a look.
    Warn,
    /// What wants action.
    Error,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
