//! What an operator says of a device, read and checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::{Fault, parse_duration};
use crate::telemetry::AuditLabel;

/// Longest value of an option, in bytes.
const VALUE_BYTES: usize = 4096;
/// How long a device may take for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest that may be set: requests wait so long.
const WRITE_TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// Where the local log takes messages.
const SYSLOG_ADDRESS: &str = "/dev/log";
/// Longest tag: what all daemons of that kind keep whole.
const TAG_BYTES: usize = 32;
/// Places whose files are no files.
const NO_FILES_BELOW: [&str; 3] = ["/dev", "/proc", "/sys"];
/// syslog's facilities by their codes (RFC 5424, 6.2.1).
const FACILITIES: [&str; 24] = [
    "KERN", "USER", "MAIL", "DAEMON", "AUTH", "SYSLOG", "LPR", "NEWS", "UUCP", "CRON", "AUTHPRIV", "FTP", "NTP",
    "AUDIT", "ALERT", "CLOCK", "LOCAL0", "LOCAL1", "LOCAL2", "LOCAL3", "LOCAL4", "LOCAL5", "LOCAL6", "LOCAL7",
];

/// The types of device there are.
pub(super) const TYPES: [&str; 3] = ["file", "socket", "syslog"];

/// Where a device writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file, and the permission bits it is given.
    File { path: PathBuf, mode: Option<u32> },
    /// The daemon's standard output.
    Stdout,
    /// Nowhere.
    Discard,
    /// A socket that somebody listens at.
    Socket { network: Network, address: String },
    /// The local log.
    Syslog { facility: u8, tag: String, address: PathBuf },
}

impl Kind {
    /// What it is counted under.
    pub(super) const fn label(&self) -> AuditLabel {
        match self {
            Kind::File { .. } | Kind::Stdout | Kind::Discard => AuditLabel::File,
            Kind::Socket { .. } => AuditLabel::Socket,
            Kind::Syslog { .. } => AuditLabel::Syslog,
        }
    }
}

/// The kinds of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    Unix,
    Tcp,
    Udp,
}

/// A device's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) kind: Kind,
    /// Whether values are written as they are.
    pub(super) is_raw: bool,
    /// Whether accessors are hashed, too.
    pub(super) hashes_accessors: bool,
    /// Whether of an answer to a list only the number of names is written.
    pub(super) elides_lists: bool,
    /// How long one write may take.
    pub(super) write_timeout: Duration,
}

impl Settings {
    /// Reads the options of a device of type `kind`.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidRequest`] for an unknown type, an option it does not have, and a value that cannot be.
    pub(super) fn read(kind: &str, options: &BTreeMap<String, String>) -> Result<Settings, Fault> {
        let mut options = Options { given: options, known: Vec::new() };
        let where_to = match kind {
            "file" => file(&mut options)?,
            "socket" => socket(&mut options)?,
            "syslog" => syslog(&mut options)?,
            other => {
                let known = TYPES.join(", ");
                return Err(Fault::invalid(format!("unknown backend type: {other:?}; there are: {known}")));
            }
        };
        if options.take("prefix").is_some() {
            let what = "prefix is not to be had: text of an operator's before each record would let whoever may enable a \
                        device write programs into files";
            return Err(Fault::invalid(what));
        }
        if options.take("format").is_some_and(|format| format != "json") {
            return Err(Fault::invalid("format can only be \"json\""));
        }
        let settings = Settings {
            kind: where_to,
            is_raw: options.boolean("log_raw", false)?,
            hashes_accessors: options.boolean("hmac_accessor", true)?,
            elides_lists: options.boolean("elide_list_responses", false)?,
            write_timeout: options.write_timeout()?,
        };
        options.finish(kind)?;
        Ok(settings)
    }
}

/// The options of a request, and which of them were asked for.
struct Options<'o> {
    given: &'o BTreeMap<String, String>,
    known: Vec<&'static str>,
}

impl<'o> Options<'o> {
    fn take(&mut self, name: &'static str) -> Option<&'o str> {
        self.known.push(name);
        self.given.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn boolean(&mut self, name: &'static str, default: bool) -> Result<bool, Fault> {
        match self.take(name) {
            None => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(_) => Err(Fault::invalid(format!("{name} is true or false"))),
        }
    }

    fn write_timeout(&mut self) -> Result<Duration, Fault> {
        let Some(text) = self.take("write_timeout") else { return Ok(WRITE_TIMEOUT) };
        let within = |span: &Duration| !span.is_zero() && *span <= WRITE_TIMEOUT_MAX;
        let most = WRITE_TIMEOUT_MAX.as_secs();
        parse_duration(text)
            .filter(within)
            .ok_or_else(|| Fault::invalid(format!("write_timeout is a duration such as \"2s\", at most {most}s")))
    }

    fn finish(self, kind: &str) -> Result<(), Fault> {
        if let Some(unknown) = self.given.keys().find(|name| !self.known.contains(&name.as_str())) {
            let known = self.known.join(", ");
            return Err(Fault::invalid(format!("a {kind} device has no option {unknown:?}; there are: {known}")));
        }
        match self.given.iter().find(|(_, value)| value.len() > VALUE_BYTES) {
            Some((name, _)) => Err(Fault::invalid(format!("option {name:?} has more than {VALUE_BYTES} bytes"))),
            None => Ok(()),
        }
    }
}

fn file(options: &mut Options<'_>) -> Result<Kind, Fault> {
    // Vault has both names.
    let (of_old, path) = (options.take("path"), options.take("file_path"));
    let mode = options.take("mode").map(mode).transpose()?.flatten();
    match path.or(of_old) {
        None => Err(Fault::invalid("file_path is required: an absolute path, \"stdout\" or \"discard\"")),
        Some("stdout") => Ok(Kind::Stdout),
        Some("discard") => Ok(Kind::Discard),
        Some(path) => {
            let path = Path::new(path);
            let is_plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
            if !path.is_absolute() || !is_plain || NO_FILES_BELOW.iter().any(|folder| path.starts_with(folder)) {
                let folders = NO_FILES_BELOW.join(", ");
                let what = format!("file_path is an absolute path without \"..\", of a file outside of {folders}");
                return Err(Fault::invalid(what));
            }
            Ok(Kind::File { path: path.to_owned(), mode })
        }
    }
}

/// Permission bits; zero leaves those of a file that is there as they are.
fn mode(text: &str) -> Result<Option<u32>, Fault> {
    let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777);
    let bits = bits.ok_or_else(|| Fault::invalid("mode is permission bits in octal, such as \"0600\""))?;
    if bits & 0o111 != 0 {
        return Err(Fault::invalid("mode must not make the file executable"));
    }
    Ok(Some(bits).filter(|bits| *bits > 0))
}

fn socket(options: &mut Options<'_>) -> Result<Kind, Fault> {
    let network = match options.take("socket_type") {
        None | Some("tcp") => Network::Tcp,
        Some("unix") => Network::Unix,
        Some("udp") => Network::Udp,
        Some(_) => return Err(Fault::invalid("socket_type is \"tcp\", \"udp\" or \"unix\"")),
    };
    let address = options.take("address").ok_or_else(|| Fault::invalid("address is required"))?;
    let is_good = match network {
        Network::Unix => Path::new(address).is_absolute(),
        Network::Tcp | Network::Udp => {
            address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        }
    };
    if !is_good {
        let what = "address is \"host:port\", or of socket_type \"unix\" the absolute path of a socket";
        return Err(Fault::invalid(what));
    }
    Ok(Kind::Socket { network, address: address.to_owned() })
}

fn syslog(options: &mut Options<'_>) -> Result<Kind, Fault> {
    let name = options.take("facility").unwrap_or("AUTH").to_ascii_uppercase();
    let place = FACILITIES.iter().position(|known| *known == name).and_then(|place| u8::try_from(place).ok());
    let facility = place.ok_or_else(|| {
        Fault::invalid(format!("facility {name:?} is not known; there are: {}", FACILITIES.join(", ")))
    })?;
    let tag = options.take("tag").unwrap_or("keyway");
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    if tag.len() > TAG_BYTES || !tag.bytes().all(is_plain) {
        let what = format!("tag is letters, digits, '-', '_', '.' and '/', at most {TAG_BYTES}");
        return Err(Fault::invalid(what));
    }
    let address = PathBuf::from(options.take("address").unwrap_or(SYSLOG_ADDRESS));
    if !address.is_absolute() {
        return Err(Fault::invalid("address is the absolute path of the local log's socket"));
    }
    Ok(Kind::Syslog { facility, tag: tag.to_owned(), address })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, options: &[(&str, &str)]) -> Result<Settings, String> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings::read(kind, &options).map_err(|fault| fault.to_string())
    }

    #[test]
    fn what_cannot_be_is_refused_and_said() {
        for (kind, options, said) in [
            ("kafka", &[][..], "unknown backend type"),
            ("file", &[], "file_path is required"),
            ("file", &[("file_path", "audit.log")], "absolute"),
            ("file", &[("file_path", "/var/../etc/passwd")], "\"..\""),
            ("file", &[("file_path", "/dev/sda")], "outside of /dev"),
            ("file", &[("file_path", "/a"), ("mode", "0755")], "executable"),
            ("file", &[("file_path", "/a"), ("mode", "rw")], "octal"),
            ("file", &[("file_path", "/a"), ("prefix", "#!/bin/sh")], "prefix is not to be had"),
            ("file", &[("file_path", "/a"), ("format", "jsonx")], "json"),
            ("file", &[("file_path", "/a"), ("log_raw", "perhaps")], "log_raw is true or false"),
            ("file", &[("file_path", "/a"), ("colour", "red")], "no option \"colour\""),
            ("socket", &[], "address is required"),
            ("socket", &[("address", "localhost")], "host:port"),
            ("socket", &[("address", "a:1"), ("socket_type", "sctp")], "socket_type"),
            ("socket", &[("address", "a:1"), ("write_timeout", "1h")], "at most 30s"),
            ("syslog", &[("facility", "PRINTER")], "not known"),
            ("syslog", &[("tag", "a b")], "tag is letters"),
        ] {
            let refused = read(kind, options).unwrap_err();
            assert!(refused.contains(said), "{kind} {options:?}: {refused}");
        }
    }

    #[test]
    fn what_is_not_said_is_as_vault_has_it() {
        let file = read("file", &[("file_path", "/a"), ("mode", "0640")]).unwrap();
        assert_eq!(file.kind, Kind::File { path: "/a".into(), mode: Some(0o640) });
        assert!(!file.is_raw && file.hashes_accessors && !file.elides_lists);
        assert_eq!(file.write_timeout, WRITE_TIMEOUT);
        let syslog = read("syslog", &[]).unwrap().kind;
        assert_eq!(syslog, Kind::Syslog { facility: 4, tag: "keyway".into(), address: "/dev/log".into() });
        assert!(matches!(
            read("socket", &[("address", "h:1")]).unwrap().kind,
            Kind::Socket { network: Network::Tcp, .. }
        ));
    }
}
