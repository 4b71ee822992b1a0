//! The stanzas one by one.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reader::{Reader, text};
use super::reference;
use super::{
    Grants, Isolation, KmsLibrary, Listener, LogFormat, LogLevel, Profile, PrometheusListener, Protocol, Storage,
    Telemetry, VerifyAfterSign, WORKERS_MAX,
};

/// `sockaddr_un` takes no more.
const SOCKET_PATH_MAX: usize = 107;

pub(super) const LOG_LEVELS: [(&str, LogLevel); 5] = [
    ("trace", LogLevel::Trace),
    ("debug", LogLevel::Debug),
    ("info", LogLevel::Info),
    ("warn", LogLevel::Warn),
    ("error", LogLevel::Error),
];

pub(super) const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

const ISOLATIONS: [(&str, Isolation); 2] = [("none", Isolation::None), ("process", Isolation::Process)];

pub(super) const VERIFICATIONS: [(&str, VerifyAfterSign); 3] =
    [("always", VerifyAfterSign::Always), ("sampled", VerifyAfterSign::Sampled), ("never", VerifyAfterSign::Never)];

/// Time without work after which a session exercises a key. More often, and idle sessions would load the token.
const KEEP_ALIVE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

const PROTOCOLS: [(&str, Protocol); 2] = [("http", Protocol::Http), ("framed", Protocol::Framed)];

pub(super) fn listener(stanza: &mut Reader<'_>) -> Option<Listener> {
    let address = stanza.required("address");
    let address = address.and_then(|address| match socket_path(&address) {
        Ok(path) => Some(path),
        Err(message) => {
            stanza.refuse_field("address", format!("address: {message}"));
            None
        }
    });
    let protocol = stanza.choice("protocol", &PROTOCOLS).unwrap_or(Protocol::Http);
    let mode = stanza.parsed("socket_mode", |expression| {
        let mode = text(expression).ok().and_then(|text| u32::from_str_radix(text, 8).ok());
        mode.filter(|mode| *mode <= 0o777).ok_or_else(|| "expected octal digits in quotes, such as \"0660\"".to_owned())
    });
    Some(Listener {
        protocol,
        socket_mode: mode.unwrap_or(0o600),
        socket_user: stanza.text("socket_user"),
        socket_group: stanza.text("socket_group"),
        allow_uids: stanza.ids("allow_uids"),
        allow_gids: stanza.ids("allow_gids"),
        implicit_auth: stanza.boolean("implicit_auth").unwrap_or_default(),
        address: address?,
    })
}

fn socket_path(address: &str) -> Result<PathBuf, String> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    if !path.starts_with('/') {
        return Err(format!(
            "expected the absolute path of a socket, such as \"/run/keyway/keyway.sock\", not {address:?}"
        ));
    }
    if path.len() > SOCKET_PATH_MAX {
        return Err(format!("a socket's path has at most {SOCKET_PATH_MAX} bytes, and this has {}", path.len()));
    }
    Ok(PathBuf::from(path))
}

pub(super) fn storage(stanza: &mut Reader<'_>) -> Option<Storage> {
    Some(Storage::Redb { path: stanza.required_path("path")? })
}

/// A library of which nothing is known but where it is.
pub(super) fn library_at(name: &str, path: &Path) -> KmsLibrary {
    let profile = Profile::of_file(path);
    let traits = profile.unwrap_or_default().traits();
    KmsLibrary {
        name: name.to_owned(),
        library: path.to_owned(),
        pin: None,
        profile,
        max_sessions: None,
        isolation: traits.isolation,
        workers: 1,
        env: BTreeMap::new(),
        keep_alive: None,
        verify_after_sign: VerifyAfterSign::default(),
        namespaces: Grants::default(),
    }
}

/// The second answer: whether the PIN stands in the file itself.
pub(super) fn kms_library(stanza: &mut Reader<'_>) -> Option<(KmsLibrary, bool)> {
    let name = stanza.required("name");
    if name.as_ref().is_some_and(|name| name.contains('/')) {
        let why = "metrics call its tokens \"NAME/TOKEN\"; choose a name without \"/\"";
        stanza.refuse_field("name", format!("the name of a kms_library: {why}"));
    }
    let library = stanza.required_path("library");
    let pin = stanza.parsed("pin", |expression| reference::fetch(text(expression)?));
    let profile = stanza.choice("profile", &Profile::ALL.map(|profile| (profile.traits().name, profile)));
    // Where its code runs must be known before it can say what it is.
    let profile = profile.or_else(|| library.as_deref().and_then(Profile::of_file));
    let traits = profile.unwrap_or_default().traits();
    let isolation = stanza.choice("isolation", &ISOLATIONS).unwrap_or(traits.isolation);
    let mut workers = traits.processes(isolation);
    let workers_given = stanza.has("workers");
    stanza.count("workers", 1..=WORKERS_MAX, &mut workers);
    let env = stanza.texts("env");
    if isolation == Isolation::None {
        if workers_given {
            stanza.refuse_field("workers", "workers needs isolation = \"process\"".to_owned());
        }
        if !env.is_empty() {
            stanza.refuse_field("env", "env needs isolation = \"process\": it is for worker processes".to_owned());
        }
    }
    let keep_alive = stanza.has("keep_alive").then(|| {
        let mut keep_alive = traits.keep_alive;
        stanza.duration_or_never("keep_alive", KEEP_ALIVE, &mut keep_alive);
        keep_alive
    });
    let verify_after_sign = stanza.choice("verify_after_sign", &VERIFICATIONS).unwrap_or_default();
    let mut sessions = 0;
    stanza.count("max_sessions", 1..=1024, &mut sessions);
    let (pin, inline) = pin.map_or((None, false), |(pin, inline)| (Some(pin), inline));
    let max_sessions = (sessions > 0).then_some(sessions);
    let library = KmsLibrary {
        name: name?,
        library: library?,
        pin,
        profile,
        max_sessions,
        isolation,
        workers,
        env,
        keep_alive,
        verify_after_sign,
        namespaces: Grants::read(stanza),
    };
    Some((library, inline))
}

pub(super) fn telemetry(stanza: &mut Reader<'_>) -> Telemetry {
    let prometheus_listener = stanza.parsed("prometheus_listener", |expression| {
        let address = text(expression)?;
        match address.strip_prefix("unix://") {
            Some(path) => socket_path(path).map(PrometheusListener::Unix),
            None => address.parse().map(PrometheusListener::Tcp).map_err(|_| {
                "expected an address and port, such as \"127.0.0.1:9464\", or \"unix:///path\"".to_owned()
            }),
        }
    });
    Telemetry { prometheus_listener }
}
