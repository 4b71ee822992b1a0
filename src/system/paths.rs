//! The table of the system's paths.

use crate::model::Verb;

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Health,
    SealStatus,
    Leader,
    Init,
    Status,
    Namespaces,
    Mounts,
    Mount,
    Tune,
    UiMounts,
    UiMount,
    ManagedKeys,
    ManagedKey,
    TestSign,
    LeaseLookup,
    LeasesBelow,
    LeaseRenewal,
    LeaseRevocation,
    LeaseRevocations,
    LookupSelf,
}

impl Endpoint {
    /// Whether it is answered without a token.
    pub(super) fn is_public(self, verb: Verb) -> bool {
        match self {
            Endpoint::Health | Endpoint::SealStatus | Endpoint::Leader | Endpoint::UiMounts => verb == Verb::Read,
            // Initialisation asks for the daemon's own uid instead.
            Endpoint::Init => true,
            _ => false,
        }
    }

    /// Whether its answer depends on the namespace addressed. The others tell of the whole daemon, whatever namespace a
    /// client has set.
    pub(super) fn is_in_a_namespace(self) -> bool {
        !matches!(self, Endpoint::Health | Endpoint::SealStatus | Endpoint::Leader | Endpoint::Init)
    }
}

/// Patterns: `:` is one part, `*` one or more. The first that fits counts.
const TABLE: &[(&str, Endpoint)] = &[
    ("sys/health", Endpoint::Health),
    ("sys/seal-status", Endpoint::SealStatus),
    ("sys/leader", Endpoint::Leader),
    ("sys/init", Endpoint::Init),
    ("sys/keyway/status", Endpoint::Status),
    ("sys/namespaces", Endpoint::Namespaces),
    ("sys/mounts", Endpoint::Mounts),
    ("sys/mounts/*/tune", Endpoint::Tune),
    ("sys/mounts/*", Endpoint::Mount),
    ("sys/internal/ui/mounts", Endpoint::UiMounts),
    ("sys/internal/ui/mounts/*", Endpoint::UiMount),
    ("sys/managed-keys/:", Endpoint::ManagedKeys),
    ("sys/managed-keys/:/:", Endpoint::ManagedKey),
    ("sys/managed-keys/:/:/test/sign", Endpoint::TestSign),
    ("sys/leases/lookup", Endpoint::LeaseLookup),
    ("sys/leases/lookup/*", Endpoint::LeasesBelow),
    ("sys/leases/renew", Endpoint::LeaseRenewal),
    ("sys/leases/renew/*", Endpoint::LeaseRenewal),
    ("sys/leases/revoke", Endpoint::LeaseRevocation),
    ("sys/leases/revoke/*", Endpoint::LeaseRevocation),
    ("sys/leases/revoke-prefix/*", Endpoint::LeaseRevocations),
    ("auth/token/lookup-self", Endpoint::LookupSelf),
];

/// What is at `path`, and the parts its pattern leaves open.
pub(super) fn find(path: &str) -> Option<(Endpoint, Vec<String>)> {
    let parts: Vec<&str> = path.split('/').collect();
    TABLE.iter().find_map(|(pattern, endpoint)| {
        let pattern: Vec<&str> = pattern.split('/').collect();
        fit(&pattern, &parts).map(|names| (*endpoint, names))
    })
}

fn fit(pattern: &[&str], parts: &[&str]) -> Option<Vec<String>> {
    match pattern.split_first() {
        None => parts.is_empty().then(Vec::new),
        Some((&"*", rest)) => {
            let taken = parts.len().checked_sub(rest.len()).filter(|taken| *taken > 0)?;
            let (many, tail) = parts.split_at(taken);
            let mut names = fit(rest, tail)?;
            names.insert(0, many.join("/"));
            Some(names)
        }
        Some((&":", rest)) => {
            let (one, tail) = parts.split_first()?;
            let mut names = fit(rest, tail)?;
            names.insert(0, (*one).to_owned());
            Some(names)
        }
        Some((word, rest)) => {
            let (one, tail) = parts.split_first()?;
            if one == word { fit(rest, tail) } else { None }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_leads_to_its_endpoint() {
        let found = |path: &str| find(path).map(|(endpoint, names)| (endpoint, names.join("|")));
        assert_eq!(found("sys/mounts/teams/ca/tune"), Some((Endpoint::Tune, "teams/ca".into())));
        assert_eq!(found("sys/mounts/teams/ca"), Some((Endpoint::Mount, "teams/ca".into())));
        assert_eq!(found("sys/managed-keys/pkcs11/ca/test/sign"), Some((Endpoint::TestSign, "pkcs11|ca".into())));
        assert_eq!(found("sys/managed-keys/pkcs11"), Some((Endpoint::ManagedKeys, "pkcs11".into())));
        assert_eq!(found("sys/unheard-of"), None);
        assert_eq!(found("sys"), None);
    }
}
