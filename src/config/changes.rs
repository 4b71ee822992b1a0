//! Two configurations side by side: what of the second can be taken over while requests are served, and what needs a
//! restart.

use super::{
    Config, KmsLibrary, KmsPool, KmsService, Limits, Listener, LogLevel, NamespaceSettings, PrometheusListener, Seal,
    Storage,
};
use crate::model::Secret;

/// What another configuration changes.
#[derive(Debug, Default)]
pub struct Changes {
    /// The libraries that differ, in the order of the files; those that are no more come last.
    pub libraries: Vec<LibraryChange>,
    /// The pools that differ.
    pub pools: Vec<String>,
    /// The bounds that differ and can change.
    pub limits: Vec<String>,
    /// The level, if it differs.
    pub log_level: Option<LogLevel>,
    /// What differs and cannot change, a line each.
    pub needs_restart: Vec<String>,
}

/// What becomes of one library.
#[derive(Debug)]
pub enum LibraryChange {
    /// There was none of its name.
    Added(KmsLibrary),
    /// Its members are made anew.
    Changed {
        /// As it is now.
        library: KmsLibrary,
        /// The fields that differ.
        fields: Vec<&'static str>,
        /// Whether its code runs elsewhere than before: it is another file, or in another process.
        elsewhere: bool,
    },
    /// There is none of this name any more.
    Removed(String),
}

/// Bounds by which members are made: with another, they are made anew.
const OF_MEMBERS: [&str; 5] = ["call_sign", "call_generate", "call_open", "probe_min", "probe_max"];
/// Bounds that are looked at when they matter.
const OF_ALL: [&str; 2] = ["drain", "tokens_per_namespace"];

impl Config {
    /// What `new` changes, if it is taken over while this one is in force.
    pub fn changes_to(&self, new: &Config) -> Changes {
        let mut changes = Changes {
            pools: pools(&self.kms_pools, &new.kms_pools),
            log_level: (self.log_level != new.log_level).then_some(new.log_level),
            ..Changes::default()
        };
        let mut of_members = Vec::new();
        for (name, before, after) in different(&self.limits, &new.limits) {
            if OF_MEMBERS.contains(&name) {
                of_members.push(name);
            }
            let line = format!("limits {name} ({before}, now {after})");
            let can_change = OF_MEMBERS.contains(&name) || OF_ALL.contains(&name);
            let place = if can_change { &mut changes.limits } else { &mut changes.needs_restart };
            place.push(line);
        }
        changes.libraries = libraries(&self.kms_libraries, &new.kms_libraries, &of_members);
        changes.needs_restart.extend(self.fixed(new));
        changes
    }

    /// Takes over what [`Config::changes_to`] says can be: the rest stays as it is in force.
    pub fn take_over(&mut self, new: Config) {
        let Limits { call_sign, call_generate, call_open, probe_min, probe_max, drain, tokens_per_namespace, .. } =
            new.limits;
        let own = self.limits.clone();
        self.limits =
            Limits { call_sign, call_generate, call_open, probe_min, probe_max, drain, tokens_per_namespace, ..own };
        self.kms_libraries = new.kms_libraries;
        self.kms_pools = new.kms_pools;
        self.log_level = new.log_level;
    }

    /// What cannot change and does, the bounds apart.
    fn fixed(&self, new: &Config) -> Vec<String> {
        let mut lines = Vec::new();
        let listener = |listener: &Listener| format!("listener {:?}", listener.address);
        named(&self.listeners, &new.listeners, |a, b| a.address == b.address, |a, b| a == b, listener, &mut lines);
        if self.storage != new.storage {
            lines.push(format!("storage ({}, now {})", storage(&self.storage), storage(&new.storage)));
        }
        if self.seal != new.seal {
            lines.push(format!("seal ({}, now {})", seal(&self.seal), seal(&new.seal)));
        }
        if self.memory != new.memory {
            lines.push("core_dumps, lock_memory".to_owned());
        }
        let service = |service: &KmsService| format!("kms_service {:?}", service.service.name());
        let (before, after) = (&self.kms_services, &new.kms_services);
        named(before, after, |a, b| a.service == b.service, |a, b| a == b, service, &mut lines);
        let namespace = |namespace: &NamespaceSettings| format!("namespace {:?}", namespace.path.as_str());
        named(&self.namespaces, &new.namespaces, |a, b| a.path == b.path, |a, b| a == b, namespace, &mut lines);
        let (before, after) = (&self.telemetry.prometheus_listener, &new.telemetry.prometheus_listener);
        if before != after {
            let shown = |listener: &Option<PrometheusListener>| listener.as_ref().map_or("none".into(), address);
            lines.push(format!("telemetry prometheus_listener ({}, now {})", shown(before), shown(after)));
        }
        if self.publish_dir != new.publish_dir {
            let shown = |folder: &Option<_>| folder.as_ref().map_or("none".into(), |folder| format!("{folder:?}"));
            lines.push(format!("publish_dir ({}, now {})", shown(&self.publish_dir), shown(&new.publish_dir)));
        }
        if self.log_format != new.log_format {
            lines.push(format!("log_format ({:?}, now {:?})", self.log_format, new.log_format).to_lowercase());
        }
        lines
    }
}

impl Changes {
    /// What is taken over, a few words each; without any secret.
    pub fn applied(&self) -> Vec<String> {
        let libraries = self.libraries.iter().map(|library| match library {
            LibraryChange::Added(library) => format!("kms_library {:?} added", library.name),
            LibraryChange::Changed { library, fields, .. } => {
                format!("kms_library {:?} changed ({})", library.name, fields.join(", "))
            }
            LibraryChange::Removed(name) => format!("kms_library {name:?} removed"),
        });
        let level = self.log_level.map(|level| format!("log_level {level:?}").to_lowercase());
        libraries.chain(self.pools.iter().cloned()).chain(self.limits.iter().cloned()).chain(level).collect()
    }

    /// Whether members come, go or are made anew by it.
    pub fn touches_members(&self) -> bool {
        !self.libraries.is_empty() || !self.pools.is_empty() || !self.limits.is_empty()
    }
}

/// Whether two PINs are the same. Not in constant time: both are the operator's own, and nobody else brings one here.
pub(super) fn same_pin(one: Option<&Secret>, other: Option<&Secret>) -> bool {
    one.map(Secret::expose) == other.map(Secret::expose)
}

fn libraries(old: &[KmsLibrary], new: &[KmsLibrary], limits: &[&'static str]) -> Vec<LibraryChange> {
    let find = |among: &[KmsLibrary], name: &str| {
        among.iter().find(|library| library.name.eq_ignore_ascii_case(name)).cloned()
    };
    let mut changes = Vec::new();
    for library in new {
        let Some(before) = find(old, &library.name) else {
            changes.push(LibraryChange::Added(library.clone()));
            continue;
        };
        let mut fields = fields(&before, library);
        fields.extend(limits);
        if !fields.is_empty() {
            let elsewhere = before.library != library.library || before.isolation != library.isolation;
            changes.push(LibraryChange::Changed { library: library.clone(), fields, elsewhere });
        }
    }
    let gone = old.iter().filter(|library| find(new, &library.name).is_none());
    changes.extend(gone.map(|library| LibraryChange::Removed(library.name.clone())));
    changes
}

/// The fields in which two libraries of one name differ.
fn fields(old: &KmsLibrary, new: &KmsLibrary) -> Vec<&'static str> {
    // None is left out: a field that is not looked at here would be read in vain.
    let KmsLibrary {
        name,
        library,
        pin,
        profile,
        max_sessions,
        isolation,
        workers,
        env,
        keep_alive,
        verify_after_sign,
        namespaces,
    } = new;
    let differ = [
        ("name", old.name != *name),
        ("library", old.library != *library),
        ("pin", !same_pin(old.pin.as_ref(), pin.as_ref())),
        ("profile", old.profile != *profile),
        ("max_sessions", old.max_sessions != *max_sessions),
        ("isolation", old.isolation != *isolation),
        ("workers", old.workers != *workers),
        ("env", old.env != *env),
        ("keep_alive", old.keep_alive != *keep_alive),
        ("verify_after_sign", old.verify_after_sign != *verify_after_sign),
    ];
    let grants = old.namespaces.differences(namespaces);
    differ.into_iter().chain(grants).filter(|(_, differs)| *differs).map(|(field, _)| field).collect()
}

fn pools(old: &[KmsPool], new: &[KmsPool]) -> Vec<String> {
    let members = |a: &KmsPool, b: &KmsPool| {
        a.namespaces == b.namespaces
            && a.members.len() == b.members.len()
            && a.members.iter().zip(&b.members).all(|(a, b)| a.is_same(b))
    };
    let same_name = |a: &KmsPool, b: &KmsPool| a.name.eq_ignore_ascii_case(&b.name);
    let mut lines = Vec::new();
    named(old, new, same_name, members, |pool: &KmsPool| format!("kms_pool {:?}", pool.name), &mut lines);
    lines
}

/// A line for each that came, went or differs.
fn named<T>(
    old: &[T],
    new: &[T],
    same_name: impl Fn(&T, &T) -> bool,
    equal: impl Fn(&T, &T) -> bool,
    name: impl Fn(&T) -> String,
    lines: &mut Vec<String>,
) {
    for after in new {
        match old.iter().find(|before| same_name(before, after)) {
            None => lines.push(format!("{} added", name(after))),
            Some(before) if !equal(before, after) => lines.push(format!("{} changed", name(after))),
            Some(_) => {}
        }
    }
    let gone = old.iter().filter(|before| !new.iter().any(|after| same_name(before, after)));
    lines.extend(gone.map(|before| format!("{} removed", name(before))));
}

/// The bounds that differ: name, before, after.
fn different(old: &Limits, new: &Limits) -> Vec<(&'static str, String, String)> {
    let pairs = old.shown().into_iter().zip(new.shown());
    pairs.filter(|(before, after)| before != after).map(|((name, before), (_, after))| (name, before, after)).collect()
}

fn storage(storage: &Storage) -> String {
    match storage {
        Storage::Redb { path } => format!("{path:?}"),
        Storage::Memory => "memory".into(),
    }
}

fn seal(seal: &Seal) -> String {
    match seal {
        Seal::File { path } => format!("{path:?}"),
        Seal::Pkcs11(seal) => format!("key {:?} of token {}", seal.key_label, seal.token),
        Seal::Ephemeral => "none".into(),
    }
}

fn address(listener: &PrometheusListener) -> String {
    match listener {
        PrometheusListener::Tcp(address) => address.to_string(),
        PrometheusListener::Unix(path) => format!("unix://{}", path.display()),
    }
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
