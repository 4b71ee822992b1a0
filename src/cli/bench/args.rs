//! The arguments of `bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::spec::{Load, MemberSpec, StreamSpec};

/// `bench`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Bench {
    /// What is measured: by default sign, or streams where -stream or -rate is given.
    #[arg(long, value_enum)]
    pub(super) what: Option<What>,
    #[command(flatten)]
    pub(super) token: Tokens,
    #[command(flatten)]
    pub(super) rounds: Rounds,
    #[command(flatten)]
    pub(super) streams: Streams,
    #[command(flatten)]
    pub(super) stored: Stored,
    #[command(flatten)]
    pub(super) registered: Registered,
    /// Keep the CPUs from sleeping, with a process of lowest priority on each: what is left of the latency is Keyway's.
    #[arg(long, help_heading = "How it is measured")]
    pub(super) keep_awake: bool,
    #[command(flatten)]
    pub(super) burden: Burden,
}

/// What the daemon does beside what it is asked, as one in service would. Of ratios and overhead.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "How it is measured")]
pub(super) struct Burden {
    /// Ask with a token that a policy binds, in place of the root token.
    #[arg(long)]
    pub(super) policy: bool,
    /// Have what is asked recorded by an audit device: a file.
    #[arg(long)]
    pub(super) audit: bool,
}

/// The token that is measured: by default a SoftHSM2 token of the bench's own, which is gone afterwards.
#[derive(Debug, Args)]
#[command(next_help_heading = "Your own HSM")]
pub(super) struct Tokens {
    /// The PKCS#11 library.
    #[arg(long, value_name = "PATH")]
    pub(super) library: Option<PathBuf>,
    /// The token's label.
    #[arg(long, value_name = "LABEL", requires = "library", conflicts_with = "members")]
    pub(super) token: Option<String>,
    /// The user PIN, by reference: env:NAME, file:/path or credential:NAME.
    #[arg(long, value_name = "REFERENCE")]
    pub(super) pin: Option<String>,
    /// A token of a pool, all with copies of the same keys: token=LABEL[,library=PATH][,pin=REFERENCE][,sessions=N].
    #[arg(long = "member", value_name = "SPEC", value_parser = MemberSpec::parse)]
    pub(super) members: Vec<MemberSpec>,
    /// The library's profile; by default what the module says of itself.
    #[arg(long, value_name = "NAME")]
    pub(super) profile: Option<String>,
    /// Sessions of each token, in the daemon and in the loop; the profile's number by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) sessions: Option<u16>,
    /// Where the daemon runs the library's code. Profiles do not count here: as long as nobody asks, in the daemon, so that
    /// the figures of all libraries compare. Many profiles have worker processes.
    #[arg(long, value_enum, default_value = "none")]
    pub(super) isolation: IsolationArg,
    /// With -isolation process: worker processes of each token; the profile's number by default.
    #[arg(long, value_name = "N")]
    pub(super) workers: Option<u16>,
    /// Kinds of the bench's own keys, labelled keyway-bench-KIND.
    #[arg(long, value_delimiter = ',', default_value = "p256,rsa2048")]
    pub(super) keys: Vec<OwnKey>,
    /// A key of yours to measure with in their place, by its label: it signs, and is not changed. May be repeated.
    #[arg(long = "key-label", value_name = "LABEL")]
    pub(super) key_labels: Vec<String>,
    /// Generate the bench's own keys where they are absent. They stay on the token.
    #[arg(long)]
    pub(super) generate_keys: bool,
    /// A file with more of the daemon's configuration, such as limits { … }.
    #[arg(long, value_name = "FILE", hide = true)]
    pub(super) config_extra: Option<PathBuf>,
}

/// Ratios: two sides in turns.
#[derive(Debug, Args)]
#[command(next_help_heading = "Ratios: two sides in turns")]
pub(super) struct Rounds {
    /// Clients and requests each keeps in flight, as CLIENTSxDEPTH; by default 1x1,8x1,32x1 and, over the framed wire,
    /// 8x16. A connection of the HTTP wire carries one request at a time.
    #[arg(long, value_delimiter = ',', value_parser = Load::parse)]
    pub(super) loads: Vec<Load>,
    /// Paired rounds of each measurement.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(3..=1000))]
    pub(super) rounds: u16,
    /// Length of one side of a round, in milliseconds.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(20..=60_000))]
    pub(super) round_ms: u64,
    /// With -what certificates and batches: so many in each call, answered together; by default 1 and 1000. The latency is that
    /// of a call.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(super) batch: Option<u16>,
}

/// Streams: latency and shares.
#[derive(Debug, Args)]
#[command(next_help_heading = "Streams: latency and shares")]
pub(super) struct Streams {
    /// A stream of requests, together with the other ones: fields NAME=VALUE with commas between them, from key (p256,
    /// rsa2048 or a label), load=CLIENTSxDEPTH or rate=N (a second), arrivals, clients, namespace, weight, class
    /// (interactive or bulk), work (sign or certificate) and name. May be repeated.
    #[arg(long = "stream", value_name = "SPEC", value_parser = StreamSpec::parse)]
    pub(super) streams: Vec<StreamSpec>,
    /// One stream a key at this rate, in requests a second, whatever the answers do.
    #[arg(long, value_name = "N", conflicts_with = "streams", value_parser = super::spec::rate)]
    pub(super) rate: Option<f64>,
    /// When the requests of a rate are due, where a stream does not say.
    #[arg(long, value_enum, default_value = "fixed")]
    pub(super) arrivals: Arrivals,
    /// Connections of a rate, where a stream does not say.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) clients: u16,
    /// How long streams run, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) duration: u64,
    /// Run each stream alone first.
    #[arg(long)]
    pub(super) alone: bool,
    /// Check every signature in software, each of a digest of its own; wrong, lost and double answers end in exit code 1.
    #[arg(long)]
    pub(super) verify: bool,
}

/// Very many certificates.
#[derive(Debug, Args)]
#[command(next_help_heading = "Very many certificates: -what stored")]
pub(super) struct Stored {
    /// Certificates in the store, about 1 KiB of disk each.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(super) certificates: u64,
    /// How many of them are revoked, and on the CRL.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(0..=1_000_000_000))]
    pub(super) revoked: u64,
    /// At the end rotate the key of the store (sys/rotate), and see what encrypting all records anew takes, and costs issuance.
    #[arg(long)]
    pub(super) rotate: bool,
}

/// Very many managed keys.
#[derive(Debug, Args)]
#[command(next_help_heading = "Very many managed keys: -what registrations")]
pub(super) struct Registered {
    /// Namespaces.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=99_999))]
    pub(super) namespaces: u32,
    /// Managed keys in all of them together, all of which were used before.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) registrations: u32,
    /// Keys on the token that these stand for, each for those of many namespaces.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) real_keys: u32,
}

/// A kind of key the bench makes for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum OwnKey {
    /// ECDSA on P-256.
    P256,
    /// RSA-2048, PKCS#1 v1.5.
    Rsa2048,
}

/// What `bench` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum What {
    /// Signatures over the framed wire, against the bare token.
    Sign,
    /// Certificates, stored before they are answered, against bare signatures.
    Certificates,
    /// Certificates over the HTTP wire, whose P-256 keys the daemon makes, against bare signatures.
    Issue,
    /// OCSP answers over the HTTP wire, to requests without a nonce, against answers to sys/health.
    Ocsp,
    /// OCSP answers to requests with a nonce, each of which takes a signature, against bare signatures.
    OcspNonce,
    /// Signatures over the HTTP wire, -items to a request, against bare signatures; and AES-GCM against single requests.
    Batches,
    /// Signatures over the framed wire, against a server that only echoes; keys in memory, if no library is given.
    Echo,
    /// The daemon's own cost of a framed signature; on keys in its memory, if no library is given.
    Overhead,
    /// Start-up time, and memory idle and with 1,000 connections.
    Footprint,
    /// Start, memory and issuance with very many certificates stored, and the making of a CRL of very many entries.
    Stored,
    /// Start, memory and time to a signature with very many managed keys in very many namespaces, on few keys that they share.
    Registrations,
    /// Latency and shares of streams of requests, by rate or load, alone and together.
    Streams,
}

/// When the requests of a rate are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Arrivals {
    /// One after the other, evenly.
    Fixed,
    /// As of many clients that know nothing of each other.
    Poisson,
}

/// Where the daemon runs a library's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum IsolationArg {
    /// In the daemon.
    None,
    /// In worker processes.
    Process,
}
