//! The configuration file: HCL in, a validated [`Config`] out. Unknown stanzas and fields, wrong types and duplicate
//! names are refused with file, line, column and what was expected.
//!
//! This room must not know: what any setting does. It opens no socket, store or library.

mod document;
mod limits;
mod load;
mod pace;
mod reader;
mod reference;
mod stanzas;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use crate::model::Secret;

pub use document::{Problem, Problems};
pub use limits::Limits;
pub use pace::Pace;

/// Everything the operator decides.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients come in; at least one.
    pub listeners: Vec<Listener>,
    /// Where records are kept.
    pub storage: Storage,
    /// What guards the root key of the store.
    pub seal: Seal,
    /// The PKCS#11 libraries on this host, by unique name (case does not count).
    pub kms_libraries: Vec<KmsLibrary>,
    /// Where Prometheus scrapes: `telemetry { prometheus_listener = "127.0.0.1:9464" }` or `"unix:///path"`.
    pub telemetry: Telemetry,
    /// Every bound.
    pub limits: Limits,
    /// The folder below which CA certificates and CRLs are published for a web server.
    pub publish_dir: Option<PathBuf>,
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

/// `seal "file" { path }`, or a key that lives as long as the process for `-dev` and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seal {
    /// A key file of mode 0600, made at initialisation.
    File {
        /// The file's path.
        path: PathBuf,
    },
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
    /// What is known of its kind.
    pub profile: Profile,
    /// Sessions per slot; `None` takes the profile's default.
    pub max_sessions: Option<usize>,
}

/// Vendor profiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Nothing known.
    #[default]
    Generic,
    /// SoftHSM 2.
    SoftHsm,
    /// Kryoptic.
    Kryoptic,
    /// Thales Luna.
    Luna,
    /// Entrust nShield.
    NShield,
    /// AWS CloudHSM.
    CloudHsm,
    /// YubiHSM 2.
    YubiHsm,
    /// No PKCS#11 at all, but keys in this process: for measuring. No configuration file can name it.
    Fake,
}

impl Profile {
    /// Whether its private-key operations run on this host's own cores.
    pub fn computes_here(self) -> bool {
        matches!(self, Profile::SoftHsm | Profile::Kryoptic | Profile::Fake)
    }
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
