//! `server -dev`: a SoftHSM2 token, a store and sockets in a private folder, gone at exit.
//!
//! SoftHSM2 finds its configuration by the environment, which must be set before the library is loaded: so the program
//! runs itself again with it set.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use super::args::Server;
use super::{Failure, server};
use crate::cli::output::say;
use crate::client::socket_path;
use crate::config::{
    Config, Grants, KmsLibrary, KmsService, Limits, Listener, LogFormat, LogLevel, Memory, Profile, PrometheusListener,
    Protocol, Seal, Storage, Telemetry, VerifyAfterSign,
};
use crate::daemon::Start;
use crate::model::{CloudService, Secret};
use crate::telemetry::log;

/// Tells the second run which folder is its own.
const HOME: &str = "KEYWAY_DEV_HOME";
const PREFIX: &str = "keyway-dev-";
pub(super) const LIBRARY: &str = "dev";
pub(super) const TOKEN: &str = "keyway-dev";
pub(super) const PIN: &str = "1234";
/// Where distributions put SoftHSM2; `SOFTHSM2_MODULE` names another place.
const MODULES: [&str; 5] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

pub(super) fn run(args: &Server) -> Result<ExitCode, Failure> {
    let home = Home::claim(HOME, PREFIX)?;
    serve(args, &home.0)
}

/// The private folder, removed with all that is in it.
pub(super) struct Home(pub(super) PathBuf);

impl Home {
    /// The folder that the first run made, named by `variable`. The first run itself makes it and its token, and becomes
    /// the second: then only a failure comes back.
    pub(super) fn claim(variable: &str, prefix: &str) -> Result<Home, Failure> {
        let Some(home) = std::env::var_os(variable).map(PathBuf::from) else {
            return Err(run_again(variable, prefix));
        };
        // All that is in it will be removed: a variable set by hand must not lead there.
        let ours = home.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
        if ours && configuration(&home).exists() {
            return Ok(Home(home));
        }
        Err(Failure::usage(format!("{variable} is for Keyway's own use: unset it")))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("keyway: {} is left behind: {error}", self.0.display());
        }
    }
}

/// Makes the folder and its token, and runs the program again. Returns only if that fails.
fn run_again(variable: &str, prefix: &str) -> Failure {
    let prepared = tempfile::Builder::new().prefix(prefix).tempdir().map_err(Failure::from).and_then(|folder| {
        make_token(folder.path())?;
        Ok((folder, std::env::current_exe()?))
    });
    match prepared {
        Err(failure) => failure,
        Ok((folder, program)) => {
            let error = Command::new(program)
                .args(std::env::args_os().skip(1))
                .env(variable, folder.path())
                .env("SOFTHSM2_CONF", configuration(folder.path()))
                .exec();
            // Only a failure comes back from exec; then the folder is removed here.
            Failure::new(format!("cannot run itself again: {error}"))
        }
    }
}

fn configuration(folder: &Path) -> PathBuf {
    folder.join("softhsm2.conf")
}

fn make_token(folder: &Path) -> Result<(), Failure> {
    let tokens = folder.join("tokens");
    std::fs::create_dir(&tokens)?;
    let text = format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
    std::fs::write(configuration(folder), text)?;
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", TOKEN, "--so-pin", "12345678", "--pin", PIN])
        .env("SOFTHSM2_CONF", configuration(folder))
        .output()
        .map_err(|error| {
            Failure::new(format!("softhsm2-util: {error}; install SoftHSM2 (apt-get install softhsm2)"))
        })?;
    if made.status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("softhsm2-util: {}", String::from_utf8_lossy(&made.stderr).trim())))
}

pub(super) fn module() -> Result<PathBuf, Failure> {
    let named = std::env::var_os("SOFTHSM2_MODULE").map(PathBuf::from);
    let usual = MODULES.iter().map(PathBuf::from).find(|path| path.exists());
    named.or(usual).ok_or_else(|| {
        Failure::new("libsofthsm2.so is not where it usually is: install SoftHSM2, or name it in SOFTHSM2_MODULE")
    })
}

fn serve(args: &Server, home: &Path) -> Result<ExitCode, Failure> {
    let address = match &args.dev_listen_address {
        Some(address) => socket_path(address).map_err(Failure::usage)?,
        None => home.join("keyway.sock"),
    };
    let mut config = config(&address, args.dev_prometheus_listener.as_deref())?;
    config.kms_libraries = vec![library(args.dev_fake_token)?];
    log::init(config.log_level, config.log_format);
    let start =
        Start { root_token: args.dev_root_token_id.as_deref().map(Secret::from), initialize: true, ..Start::default() };
    server::serve(&config, start, |daemon| {
        say!("Keyway is running in development mode: everything here is gone when it ends.\n");
        say!("  HTTP socket    unix://{}", address.display());
        say!("  framed socket  unix://{}.framed", address.display());
        if let Some(metrics) = daemon.metrics_address() {
            say!("  metrics        http://{metrics}/metrics");
        }
        say!("  KMS library    {LIBRARY}, token label {TOKEN}");
        if let Some(token) = daemon.root_token().and_then(Secret::expose_str) {
            say!("\n  export VAULT_ADDR=unix://{}\n  export VAULT_TOKEN={token}\n", address.display());
        }
    })
}

/// The library `dev`: SoftHSM2, or keys in memory.
pub(super) fn library(fake: bool) -> Result<KmsLibrary, Failure> {
    let (library, profile) =
        if fake { (PathBuf::from("/proc/self/exe"), Profile::Fake) } else { (module()?, Profile::SoftHsm) };
    let traits = profile.traits();
    Ok(KmsLibrary {
        name: LIBRARY.into(),
        library,
        pin: Some(Secret::from(PIN)),
        profile: Some(profile),
        max_sessions: None,
        isolation: traits.isolation,
        workers: traits.processes(traits.isolation),
        env: BTreeMap::new(),
        keep_alive: None,
        verify_after_sign: VerifyAfterSign::default(),
        namespaces: Grants::default(),
    })
}

fn config(address: &Path, metrics: Option<&str>) -> Result<Config, Failure> {
    let mut framed = address.as_os_str().to_owned();
    framed.push(".framed");
    let listener = |address: PathBuf, protocol| Listener {
        address,
        protocol,
        socket_mode: 0o600,
        socket_user: None,
        socket_group: None,
        allow_uids: Vec::new(),
        allow_gids: Vec::new(),
        implicit_auth: false,
    };
    let prometheus_listener = metrics
        .map(|address| {
            let wrong = |error| Failure::usage(format!("-dev-prometheus-listener {address:?}: {error}"));
            address.parse().map(PrometheusListener::Tcp).map_err(wrong)
        })
        .transpose()?;
    Ok(Config {
        listeners: vec![listener(address.to_owned(), Protocol::Http), listener(framed.into(), Protocol::Framed)],
        storage: Storage::Memory,
        seal: Seal::Ephemeral,
        former_seal: None,
        memory: Memory { core_dumps: true, lock: false },
        kms_libraries: Vec::new(),
        kms_services: CloudService::ALL.map(KmsService::new).into(),
        kms_pools: Vec::new(),
        namespaces: Vec::new(),
        telemetry: Telemetry { prometheus_listener },
        limits: Limits::default(),
        publish_dir: None,
        log_level: LogLevel::Info,
        log_format: LogFormat::Text,
        warnings: Vec::new(),
    })
}
