//! The configuration file: HCL in, a validated [`Config`] out. Unknown stanzas and fields, wrong types and duplicate
//! names are refused with file, line, column and what was expected.
//!
//! This room must not know: what any setting does. It opens no socket, store or library.

use std::path::PathBuf;
use std::time::Duration;

use crate::model::Secret;

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

/// `limits { … }`: every bound, each with a default and a stated maximum. Field names are those of the stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Jobs queued in one lane. Default 4,096, at most 1,048,576.
    pub lane_jobs: usize,
    /// Of those, jobs of one namespace. Default 1,024, at most `lane_jobs`.
    pub lane_jobs_per_namespace: usize,
    /// Jobs one session takes at a time. Default 32, at most 1,024.
    pub batch_max: usize,
    /// Device time one session takes at a time. Default 250 us, at most 100 ms.
    pub batch_time: Duration,
    /// Deadline of a request that names none. Default 5 s.
    pub deadline: Duration,
    /// Longest deadline a request may name. Default 60 s, at most 600 s.
    pub deadline_max: Duration,
    /// Limit of one sign call. Default 3 s (profile luna 30 s), at most 600 s. `None` takes the profile's.
    pub call_sign: Option<Duration>,
    /// Limit of one key generation. Default 180 s, at most 3,600 s.
    pub call_generate: Duration,
    /// Limit of opening, logging in and finding. Default 30 s, at most 600 s.
    pub call_open: Duration,
    /// How long a drain may take. Default 15 s, at most 600 s.
    pub drain: Duration,
    /// Open connections. Default 4,096, at most 65,536.
    pub connections: usize,
    /// Of those, connections of one uid. Default 1,024.
    pub connections_per_uid: usize,
    /// Size of one frame in bytes. Default 1 MiB, at most 32 MiB.
    pub frame_bytes: usize,
    /// Size of an HTTP body in bytes. Default 32 MiB, at most 256 MiB.
    pub http_body_bytes: usize,
    /// Size of an HTTP head in bytes. Default 64 KiB, at most 1 MiB.
    pub http_head_bytes: usize,
    /// Requests in flight on one framed connection. Default 256, at most 65,536.
    pub requests_per_connection: usize,
    /// Items of one `batch_input`. Default 10,000, at most 1,000,000.
    pub batch_items: usize,
    /// How long a client may take to send a request it began, or to read an answer. Default 30 s, at most 600 s.
    pub client_io: Duration,
    /// First pause between probes of what is missing. Default 1 s.
    pub probe_min: Duration,
    /// Longest pause between probes. Default 60 s.
    pub probe_max: Duration,
    /// Worker threads of the front. Default: the number of cores, at most 8; at most 64.
    pub workers: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            lane_jobs: 4096,
            lane_jobs_per_namespace: 1024,
            batch_max: 32,
            batch_time: Duration::from_micros(250),
            deadline: Duration::from_secs(5),
            deadline_max: Duration::from_secs(60),
            call_sign: None,
            call_generate: Duration::from_secs(180),
            call_open: Duration::from_secs(30),
            drain: Duration::from_secs(15),
            connections: 4096,
            connections_per_uid: 1024,
            frame_bytes: 1 << 20,
            http_body_bytes: 32 << 20,
            http_head_bytes: 64 << 10,
            requests_per_connection: 256,
            batch_items: 10_000,
            client_io: Duration::from_secs(30),
            probe_min: Duration::from_secs(1),
            probe_max: Duration::from_secs(60),
            workers: std::thread::available_parallelism().map_or(1, usize::from).min(8),
        }
    }
}
