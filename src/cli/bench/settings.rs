//! The configuration of the daemon that is measured, written from the arguments. What the loop in this process opens is
//! read back from it, so that both sides have the same libraries, tokens, sessions and PINs.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::args::{IsolationArg, Tokens};
use super::spec::{MemberSpec, StreamSpec};
use super::{Failure, dev};
use crate::config::Config;

/// The name managed keys give as their library, where there is a pool.
const POOL: &str = "bench-pool";
/// Schemes of references to secrets.
const REFERENCES: [&str; 3] = ["env:", "file:", "credential:"];

/// What a daemon is told, but for its own folder.
pub(super) struct Settings {
    stanzas: String,
    /// Bounds of its own.
    limits: String,
    /// More of the configuration, from the operator.
    extra: Option<String>,
    /// What managed keys give as their library.
    pub(super) library: String,
    /// And as their token's label, unless the library is a pool.
    pub(super) token: Option<String>,
}

impl Settings {
    /// From the arguments. Without a library, the bench's own SoftHSM2 token.
    pub(super) fn new(tokens: &Tokens, streams: &[StreamSpec]) -> Result<Settings, Failure> {
        let mut stanzas = String::new();
        let limits = "  connections_per_uid = 4096\n".to_owned();
        let mut settings = match (&tokens.library, tokens.members.as_slice()) {
            (None, []) => {
                library_stanza(&mut stanzas, tokens, dev::LIBRARY, &dev::library(false)?.library, Some(dev::PIN));
                Settings { stanzas, limits, extra: None, library: dev::LIBRARY.into(), token: Some(dev::TOKEN.into()) }
            }
            (Some(library), []) => {
                let token = tokens.token.clone().ok_or_else(|| Failure::usage("give -token LABEL with -library"))?;
                let pin = tokens.pin.as_deref();
                let pin = pin.ok_or_else(|| Failure::usage("give -pin env:NAME or -pin file:/path with -library"))?;
                library_stanza(&mut stanzas, tokens, "bench", library, Some(reference(pin)?));
                Settings { stanzas, limits, extra: None, library: "bench".into(), token: Some(token) }
            }
            (_, members) => {
                pool_stanzas(&mut stanzas, tokens, members)?;
                Settings { stanzas, limits, extra: None, library: POOL.into(), token: None }
            }
        };
        namespace_stanzas(&mut settings.stanzas, streams)?;
        if let Some(path) = &tokens.config_extra {
            let read = std::fs::read_to_string(path);
            settings.extra = Some(read.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?);
        }
        Ok(settings)
    }

    /// The same for very many namespaces, which share the keys of the bench's own.
    pub(super) fn shared_by(mut self, namespaces: u32) -> Settings {
        let head = match self.token {
            Some(_) => "kms_library \"pkcs11\" {\n".to_owned(),
            None => format!("kms_pool \"{POOL}\" {{\n"),
        };
        let sharing = format!("{head}  shared_keys = [\"keyway-bench-*\"]\n");
        self.stanzas = self.stanzas.replacen(&head, &sharing, 1);
        // The root is one of them.
        self.limits += &format!("  namespaces_max = {}\n", namespaces + 1);
        self
    }

    /// Writes the configuration of a daemon that has its store and sockets in `home`, and reads it as the daemon will.
    pub(super) fn write(&self, home: &Path) -> Result<(PathBuf, Config), Failure> {
        let folder = home.join("config");
        std::fs::create_dir_all(&folder)?;
        let place = |name: &str| quoted(&home.join(name).display().to_string());
        let (http, framed, store, seal) =
            (place("k.sock"), place("k.sock.framed"), place("keyway.redb"), place("seal.key"));
        let mut text = format!(
            "listener \"unix\" {{ address = {http} }}\nlistener \"unix\" {{\n  address = {framed}\n  protocol = \
             \"framed\"\n}}\nstorage \"redb\" {{ path = {store} }}\nseal \"file\" {{ path = {seal} }}\n{}",
            self.stanzas
        );
        let has_limits = |extra: &String| {
            hcl::parse(extra).is_ok_and(|body| body.blocks().any(|block| block.identifier.as_str() == "limits"))
        };
        if !self.extra.as_ref().is_some_and(has_limits) {
            text += &format!("limits {{\n{}}}\n", self.limits);
        }
        std::fs::write(folder.join("bench.hcl"), text)?;
        if let Some(extra) = &self.extra {
            std::fs::write(folder.join("extra.hcl"), extra)?;
        }
        let config = Config::load(&folder).map_err(Failure::usage)?;
        Ok((folder, config))
    }
}

fn library_stanza(text: &mut String, tokens: &Tokens, name: &str, library: &Path, pin: Option<&str>) {
    let mut fields = vec![("name", quoted(name)), ("library", quoted(&library.display().to_string()))];
    let own = tokens.library.is_none() && tokens.members.is_empty();
    let profile = tokens.profile.as_deref().or(own.then_some("softhsm"));
    fields.extend(profile.map(|profile| ("profile", quoted(profile))));
    fields.extend(pin.map(|pin| ("pin", quoted(pin))));
    fields.extend(tokens.sessions.map(|sessions| ("max_sessions", sessions.to_string())));
    let isolation = if tokens.isolation == IsolationArg::Process { "process" } else { "none" };
    fields.push(("isolation", quoted(isolation)));
    fields.extend(tokens.workers.map(|workers| ("workers", workers.to_string())));
    stanza(text, "kms_library \"pkcs11\"", &fields);
}

/// The pool, and a library for every path its members name.
fn pool_stanzas(text: &mut String, tokens: &Tokens, members: &[MemberSpec]) -> Result<(), Failure> {
    let mut libraries: Vec<&Path> = Vec::new();
    let mut pool = String::new();
    for member in members {
        let path = member.library.as_deref().or(tokens.library.as_deref());
        let path = path.ok_or_else(|| Failure::usage(format!("-member token={}: give library=PATH", member.token)))?;
        let place = libraries.iter().position(|known| *known == path).unwrap_or_else(|| {
            libraries.push(path);
            libraries.len() - 1
        });
        let mut fields = vec![("library", quoted(&format!("bench-{place}"))), ("token_label", quoted(&member.token))];
        match (&member.pin, &tokens.pin) {
            (Some(pin), _) => fields.push(("pin", quoted(reference(pin)?))),
            (None, Some(_)) => {}
            (None, None) => return Err(Failure::usage("give -pin env:NAME, or each -member a pin=REFERENCE")),
        }
        fields.extend(member.sessions.map(|sessions| ("max_sessions", sessions.to_string())));
        stanza(&mut pool, "member", &fields);
    }
    let pin = tokens.pin.as_deref().map(reference).transpose()?;
    for (place, path) in libraries.iter().enumerate() {
        library_stanza(text, tokens, &format!("bench-{place}"), path, pin);
    }
    // Writing to a text cannot fail.
    let _ = writeln!(text, "kms_pool \"{POOL}\" {{\n{pool}}}");
    Ok(())
}

/// The namespaces of the streams, each once.
fn namespace_stanzas(text: &mut String, streams: &[StreamSpec]) -> Result<(), Failure> {
    let mut seen: Vec<(&str, Option<u16>)> = Vec::new();
    for stream in streams.iter().filter(|stream| !stream.namespace.is_empty()) {
        match seen.iter_mut().find(|(known, _)| *known == stream.namespace) {
            None => seen.push((&stream.namespace, stream.weight)),
            Some((_, weight)) if weight.is_none() || stream.weight.is_none() || *weight == stream.weight => {
                *weight = weight.or(stream.weight);
            }
            Some(_) => {
                return Err(Failure::usage(format!("namespace {:?} is given two weights", stream.namespace)));
            }
        }
    }
    for (path, weight) in seen {
        let fields: Vec<_> = weight.map(|weight| ("weight", weight.to_string())).into_iter().collect();
        stanza(text, &format!("namespace {}", quoted(path)), &fields);
    }
    Ok(())
}

fn stanza(text: &mut String, head: &str, fields: &[(&str, String)]) {
    let fields: String = fields.iter().map(|(name, value)| format!("  {name} = {value}\n")).collect();
    // Writing to a text cannot fail.
    let _ = writeln!(text, "{head} {{\n{fields}}}");
}

/// A PIN by reference: on a command line, everyone on the host could read the PIN itself.
fn reference(pin: &str) -> Result<&str, Failure> {
    if REFERENCES.iter().any(|scheme| pin.starts_with(scheme)) {
        return Ok(pin);
    }
    Err(Failure::usage("a PIN does not belong on a command line: give env:NAME, file:/path or credential:NAME"))
}

/// A text as HCL writes it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            // `${` and `%{` would begin a template.
            '{' if quoted.ends_with(['$', '%']) => {
                let sign = if quoted.ends_with('$') { '$' } else { '%' };
                quoted.extend([sign, '{']);
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Isolation, Profile};
    use crate::model::{Namespace, TokenSelector};

    fn tokens() -> Tokens {
        Tokens {
            library: Some("/opt/hsm \"a\".so".into()),
            token: Some("CA ${x} %{y}".into()),
            pin: Some("env:PATH".into()),
            members: Vec::new(),
            profile: Some("luna".into()),
            sessions: Some(7),
            isolation: IsolationArg::Process,
            workers: Some(2),
            keys: Vec::new(),
            key_labels: Vec::new(),
            generate_keys: false,
            config_extra: None,
        }
    }

    #[test]
    fn the_daemon_is_told_what_the_arguments_say() {
        let home = tempfile::tempdir().unwrap();
        let streams = ["namespace=a,key=p256,rate=1", "namespace=a,weight=3,key=p256,rate=2", "key=p256,rate=3"]
            .map(|text| StreamSpec::parse(text).unwrap());
        let settings = Settings::new(&tokens(), &streams).unwrap();
        let (_, config) = settings.write(home.path()).unwrap();
        let library = &config.kms_libraries[0];
        assert_eq!(library.library, std::path::Path::new("/opt/hsm \"a\".so"));
        assert_eq!((library.max_sessions, library.isolation, library.workers), (Some(7), Isolation::Process, 2));
        assert_eq!(library.profile, Some(Profile::Luna));
        assert_eq!(library.pin.as_ref().unwrap().expose_str(), std::env::var("PATH").ok().as_deref());
        assert_eq!(config.namespaces[0].path, Namespace::from_path("a"));
        assert_eq!(config.namespaces[0].weight, 3);
        assert_eq!(config.namespaces.len(), 1);
        assert_eq!(config.limits.connections_per_uid, 4096);
    }

    #[test]
    fn the_library_is_in_the_daemon_unless_asked_whatever_its_profile() {
        let home = tempfile::tempdir().unwrap();
        let place = |tokens: Tokens| {
            let (_, config) = Settings::new(&tokens, &[]).unwrap().write(home.path()).unwrap();
            (config.kms_libraries[0].isolation, config.kms_libraries[0].workers)
        };
        let profiled = |isolation| Tokens { isolation, workers: None, ..tokens() };
        assert_eq!(place(profiled(IsolationArg::None)), (Isolation::None, 1));
        assert_eq!(place(profiled(IsolationArg::Process)), (Isolation::Process, 1));
        let softhsm = Tokens { profile: Some("softhsm".into()), ..profiled(IsolationArg::Process) };
        assert_eq!(place(softhsm), (Isolation::Process, Profile::SoftHsm.traits().processes(Isolation::Process)));
    }

    #[test]
    fn a_pool_has_a_library_for_each_path_and_limits_may_be_ours() {
        let home = tempfile::tempdir().unwrap();
        let extra = home.path().join("more.hcl");
        std::fs::write(&extra, "limits { lane_jobs = 9 }").unwrap();
        let mut tokens = tokens();
        (tokens.token, tokens.config_extra) = (None, Some(extra));
        let members = ["token=${a}", "token=b,library=/opt/b.so,sessions=3,pin=env:HOME", "token=c,library=/opt/b.so"];
        tokens.members = members.iter().map(|text| MemberSpec::parse(text).unwrap()).collect();
        let (_, config) = Settings::new(&tokens, &[]).unwrap().write(home.path()).unwrap();
        assert_eq!(config.kms_libraries.len(), 2);
        let pool = &config.kms_pools[0];
        assert_eq!(pool.members[0].token, TokenSelector::Label("${a}".into()));
        assert_eq!((pool.members[1].library.as_str(), pool.members[1].max_sessions), ("bench-1", Some(3)));
        assert_eq!(pool.members[2].library, "bench-1");
        assert_eq!(config.limits.lane_jobs, 9);
    }

    #[test]
    fn a_pin_in_clear_and_two_weights_are_refused() {
        let clear = Tokens { pin: Some("1234".into()), ..tokens() };
        assert!(Settings::new(&clear, &[]).err().unwrap().message.contains("command line"));
        let streams = ["namespace=a,weight=1,key=p256,rate=1", "namespace=a,weight=3,key=p256,rate=2"]
            .map(|text| StreamSpec::parse(text).unwrap());
        assert!(Settings::new(&tokens(), &streams).err().unwrap().message.contains("two weights"));
    }
}
