//! The arguments, Vault's way: long flags with one dash or two.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::bench::args::Bench;
use super::namespace::NamespaceCommand;
use super::policy::PolicyCommand;
use super::token::TokenCommand;

/// Use private keys that live in HSMs, through Vault's API and a fast framed API, on a Unix socket.
#[derive(Debug, Parser)]
#[command(name = "keyway", version, max_term_width = 100)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) connection: Connection,
    /// How answers are printed.
    #[arg(long, global = true, value_enum, default_value = "table", env = "VAULT_FORMAT")]
    pub(super) format: Format,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Where the daemon is, and who asks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection and output")]
pub(super) struct Connection {
    /// The daemon's HTTP socket: unix:///path.
    #[arg(long, global = true, env = "VAULT_ADDR", default_value = "unix:///run/keyway/keyway.sock")]
    pub(super) address: String,
    /// The daemon's framed socket; by default the HTTP socket's path with `.framed` behind it.
    #[arg(long, global = true, env = "KEYWAY_FRAMED_ADDR")]
    pub(super) framed_address: Option<String>,
    /// The namespace; the root namespace by default.
    #[arg(long, global = true, env = "VAULT_NAMESPACE")]
    pub(super) namespace: Option<String>,
    /// How long an answer may take, in seconds; at most the daemon's maximum.
    #[arg(long, global = true, default_value_t = 60)]
    pub(super) timeout: u64,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon.
    Server(Server),
    /// Set the daemon up.
    Operator {
        #[command(subcommand)]
        command: OperatorCommand,
    },
    /// Show whether the daemon serves, and the state of its tokens.
    Status,
    /// Read what is at a path.
    Read(ReadArgs),
    /// Write to a path: fields as name=value, name=@file, or a JSON object from `-` (standard input) or `@file`.
    Write(WriteArgs),
    /// List the names below a path.
    List(PathArgs),
    /// Delete what is at a path.
    Delete(PathArgs),
    /// Get a token by what the kernel says of this process: role=NAME. Stored in ~/.vault-token, as Vault does.
    Login(LoginArgs),
    /// Make tokens, look at them, prolong and end them.
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Work with policies.
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Work with the namespaces that lie in this one.
    Namespace {
        #[command(subcommand)]
        command: NamespaceCommand,
    },
    /// Sign a file with a Transit key.
    Sign(SignArgs),
    /// Turn the devices on and off that record what is asked.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Work with certificates.
    Pki {
        #[command(subcommand)]
        command: PkiCommand,
    },
    /// Measure what Keyway adds to the bare token: in turns with a loop in this process that calls the token itself.
    Bench(Box<Bench>),
    /// Run the PKCS#11 library of a kms_library apart from the daemon, which starts this by itself.
    #[command(hide = true)]
    Pkcs11Worker {
        /// The library's name, for lists of processes.
        library: String,
        /// Its token.
        token: String,
    },
    /// Print the version.
    Version,
}

#[derive(Debug, Args)]
pub(super) struct Server {
    /// The configuration: a file, or a folder of .hcl files.
    #[arg(long, value_name = "PATH", conflicts_with = "dev")]
    pub(super) config: Option<PathBuf>,
    /// Check the configuration and stop.
    #[arg(long, requires = "config")]
    pub(super) check: bool,
    /// Run with a SoftHSM2 token and a store of its own, which are gone at exit: for trying things out.
    #[arg(long)]
    pub(super) dev: bool,
    /// With -dev: the root token; a random one by default.
    #[arg(long, value_name = "ID", requires = "dev", env = "VAULT_DEV_ROOT_TOKEN_ID")]
    pub(super) dev_root_token_id: Option<String>,
    /// With -dev: the HTTP socket, unix:///path; in a private folder by default. The framed socket is at path.framed.
    #[arg(long, value_name = "ADDRESS", requires = "dev", env = "VAULT_DEV_LISTEN_ADDRESS")]
    pub(super) dev_listen_address: Option<String>,
    /// Log in even where a token says that it allows one last try before it locks.
    #[arg(long, conflicts_with = "dev")]
    pub(super) force_final_pin_try: bool,
    /// With -dev: keys in the daemon's own memory in place of a SoftHSM2 token, to measure Keyway alone.
    #[arg(long, requires = "dev")]
    pub(super) dev_fake_token: bool,
    /// With -dev: where metrics are served, such as 127.0.0.1:9464.
    #[arg(long, value_name = "ADDRESS", requires = "dev")]
    pub(super) dev_prometheus_listener: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum OperatorCommand {
    /// Make the root key and the root token, once. Only the daemon's own user, or root, may. With -snapshot: make the store of a
    /// snapshot, while no daemon runs.
    Init(InitArgs),
    /// Have the keys wiped from the daemon's memory: it answers nothing until it is unsealed, or started anew. Asks for sudo.
    Seal,
    /// Have the daemon ask its seal for the root key again. Only the daemon's own user, or root, may.
    Unseal,
    /// Save the whole store in a file, or put such a file in its place.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Make the store of this snapshot, with its tokens and policies, as on a new host: where there is no storage file yet, by
    /// the seal it was saved under. Run it as the user the daemon runs as.
    #[arg(long, value_name = "FILE", requires = "config")]
    pub(super) snapshot: Option<PathBuf>,
    /// With -snapshot: the daemon's configuration, which names the storage file and the seal.
    #[arg(long, value_name = "PATH", requires = "snapshot")]
    pub(super) config: Option<PathBuf>,
    /// With -snapshot: log in even where the seal's token says that it allows one last try before it locks.
    #[arg(long, requires = "snapshot")]
    pub(super) force_final_pin_try: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum SnapshotCommand {
    /// Save the store, encrypted as it is, while the daemon serves. The file appears when it is whole. Asks for sudo.
    Save {
        /// The file, which is replaced if it is there.
        file: PathBuf,
    },
    /// Put a snapshot in the place of the store: what was done since it was saved is undone. Asks for sudo.
    Restore {
        /// The snapshot.
        file: PathBuf,
        /// Take one of another store, too, if this daemon's seal opens it: its tokens count then.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct PathArgs {
    /// The path below /v1/.
    pub(super) path: String,
}

#[derive(Debug, Args)]
pub(super) struct ReadArgs {
    /// The path below /v1/.
    pub(super) path: String,
    /// Print this field of the answer alone.
    #[arg(long)]
    pub(super) field: Option<String>,
    /// Keep the answer behind a token that is good once, for this long, such as 60s.
    #[arg(long, value_name = "DURATION")]
    pub(super) wrap_ttl: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct WriteArgs {
    /// The path below /v1/.
    pub(super) path: String,
    /// name=value, name=@file, `-` or @file.
    pub(super) data: Vec<String>,
    /// Write without any data.
    #[arg(long, short)]
    pub(super) force: bool,
    /// Print this field of the answer alone.
    #[arg(long)]
    pub(super) field: Option<String>,
    /// Keep the answer behind a token that is good once, for this long, such as 60s.
    #[arg(long, value_name = "DURATION")]
    pub(super) wrap_ttl: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct LoginArgs {
    /// role=NAME.
    #[arg(required = true, value_name = "role=NAME")]
    pub(super) data: Vec<String>,
    /// By what to log in.
    #[arg(long, value_parser = ["unix"], default_value = "unix")]
    pub(super) method: String,
    /// Do not store the token.
    #[arg(long)]
    pub(super) no_store: bool,
    /// Print the token alone, and do not store it.
    #[arg(long)]
    pub(super) token_only: bool,
}

#[derive(Debug, Args)]
pub(super) struct SignArgs {
    /// The Transit mount.
    #[arg(long, default_value = "transit")]
    pub(super) mount: String,
    /// The Transit key.
    #[arg(long)]
    pub(super) key: String,
    /// The file to sign; `-` is standard input.
    #[arg(long = "in", value_name = "FILE", default_value = "-")]
    pub(super) input: PathBuf,
    /// Where the signature goes, as bytes; `-` is standard output.
    #[arg(long = "out", value_name = "FILE", default_value = "-")]
    pub(super) output: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Turn a device on: audit enable file file_path=/var/log/keyway/audit.log
    Enable(AuditEnable),
    /// Turn a device off, and forget its key.
    Disable {
        /// What the device is called.
        path: String,
    },
    /// List the devices.
    List {
        /// Their settings, too.
        #[arg(long)]
        detailed: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct AuditEnable {
    /// Where it writes: file, socket or syslog.
    #[arg(value_name = "TYPE")]
    pub(super) kind: String,
    /// Its settings: name=value.
    #[arg(value_name = "NAME=VALUE")]
    pub(super) options: Vec<String>,
    /// What it is called; by default as its type.
    #[arg(long)]
    pub(super) path: Option<String>,
    /// A text for people.
    #[arg(long)]
    pub(super) description: Option<String>,
    /// Of no account: there is no other cluster to copy it to.
    #[arg(long)]
    pub(super) local: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum PkiCommand {
    /// Have a certificate issued for every .csr file (PEM or DER) of a folder, as a .crt file (PEM) beside it.
    SignBatch(SignBatch),
}

#[derive(Debug, Args)]
pub(super) struct SignBatch {
    /// The folder.
    pub(super) folder: PathBuf,
    /// The PKI mount.
    #[arg(long, default_value = "pki")]
    pub(super) mount: String,
    /// The role.
    #[arg(long)]
    pub(super) role: String,
    /// Where the certificates go; the same folder by default.
    #[arg(long, value_name = "FOLDER")]
    pub(super) out: Option<PathBuf>,
    /// Requests in flight at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(super) in_flight: u16,
    /// Other fields of sign/:role: name=value.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(super) fields: Vec<String>,
    /// Leave requests alone that have a certificate already.
    #[arg(long)]
    pub(super) resume: bool,
    /// Show no progress bar.
    #[arg(long)]
    pub(super) quiet: bool,
}

/// `-flag` as `--flag`, as Vault's commands take both. A single letter, a number and what follows `--` stay as they are.
pub(super) fn two_dashes(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut verbatim = false;
    arguments
        .map(|argument| {
            verbatim |= argument == "--";
            match argument.to_str() {
                Some(text) if !verbatim && is_long_flag(text) => OsString::from(format!("-{text}")),
                _ => argument,
            }
        })
        .collect()
}

fn is_long_flag(text: &str) -> bool {
    let Some(name) = text.strip_prefix('-') else { return false };
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first.is_ascii_lowercase()) && letters.next().is_some_and(|c| c != '=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(two_dashes(line.split(' ').map(OsString::from)))
    }

    #[test]
    fn one_dash_and_two_mean_the_same() {
        for line in ["keyway server -config /etc/k.hcl -check", "keyway server --config=/etc/k.hcl --check"] {
            let Command::Server(server) = parse(line).unwrap().command else { panic!("{line}") };
            assert!(server.check);
            assert_eq!(server.config, Some("/etc/k.hcl".into()));
        }
        let Command::Write(write) = parse("keyway write -f pki/crl/rotate -- -x=1").unwrap().command else { panic!() };
        assert!(write.force);
        assert_eq!(write.data, ["-x=1"]);
    }

    #[test]
    fn a_wrong_flag_is_named() {
        let error = parse("keyway server -devv").unwrap_err().to_string();
        assert!(error.contains("--devv"), "{error}");
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
