//! The table of the system's paths.

use super::{fields, token_fields, unix_fields};
use crate::managed_keys;
use crate::model::endpoint::{delete, list, patch, read, write};
use crate::model::{Endpoint, Verb};
use crate::namespace::QuotaKind::{self, Concurrency, RateLimit};

/// What a request on one of the system's paths asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    ReadHealth,
    ReadSealStatus,
    ReadLeader,
    ReadInit,
    Initialize,
    Seal,
    Unseal,
    Rotate,
    RotateRoot,
    ReadKeyStatus,
    TakeSnapshot,
    Restore { is_foreign: bool },
    ReadStatus,
    ListNamespaces,
    ReadNamespace,
    WriteNamespace,
    PatchNamespace,
    DeleteNamespace,
    LockNamespace,
    UnlockNamespace,
    ListMounts,
    ListAuthMethods,
    ReadAuthTuning,
    ReadTuning,
    Tune,
    ReadMount,
    Enable,
    Disable,
    ShowMounts,
    ShowMount,
    Describe,
    ListKeys,
    ReadKey,
    WriteKey,
    DeleteKey,
    TestSign,
    LookUpLease,
    ListLeases,
    RenewLease,
    RevokeLease,
    RevokeLeases,
    ListPolicies,
    ReadPolicy,
    WritePolicy,
    DeletePolicy,
    ListPoliciesAsOfOld,
    ReadPolicyAsOfOld,
    ReadCapabilities,
    ReadCapabilitiesByAccessor,
    ReadOwnCapabilities,
    ReadGrants,
    ListAudit,
    EnableAudit,
    DisableAudit,
    HashAudit,
    ListQuotas(QuotaKind),
    ReadQuota(QuotaKind),
    WriteQuota(QuotaKind),
    DeleteQuota(QuotaKind),
    LookupSelf,
    LookupToken,
    LookupAccessor,
    ListAccessors,
    CreateToken,
    CreateOrphan,
    CreateByRole,
    RenewToken,
    RenewSelf,
    RenewAccessor,
    RevokeToken,
    RevokeSelf,
    RevokeAccessor,
    RevokeOrphan,
    ListTokenRoles,
    ReadTokenRole,
    WriteTokenRole,
    DeleteTokenRole,
    ListUnixRoles,
    ReadUnixRole,
    WriteUnixRole,
    DeleteUnixRole,
    LoginByUnix,
    Wrap,
    Unwrap,
    LookUpWrapping,
    Rewrap,
}

/// One row of the table: what can be asked, and what it asks for.
pub(super) struct Row {
    pub(super) endpoint: Endpoint,
    pub(super) deed: Deed,
    /// Whether the answer depends on the namespace addressed. The others tell of the whole daemon, whatever namespace a
    /// client has set.
    pub(super) is_in_a_namespace: bool,
    /// Whether a policy must grant it. The others ask for a token, and judge by its policies themselves.
    pub(super) needs_policy: bool,
}

/// What depends on the namespace addressed.
const fn row(endpoint: Endpoint, deed: Deed) -> Row {
    Row { endpoint, deed, is_in_a_namespace: true, needs_policy: true }
}

/// What anyone may ask of the whole daemon, and has no envelope.
const fn of_the_daemon(endpoint: Endpoint, deed: Deed) -> Row {
    Row { endpoint: endpoint.public().bare(), deed, is_in_a_namespace: false, needs_policy: true }
}

/// What any token may ask for, without a policy that names it.
const fn for_any_token(endpoint: Endpoint, deed: Deed) -> Row {
    Row { endpoint, deed, is_in_a_namespace: true, needs_policy: false }
}

/// The first pattern that fits counts.
const TABLE: &[Row] = &[
    of_the_daemon(read("sys/health", "Whether the daemon serves.").takes(&[fields::HEALTH]), Deed::ReadHealth),
    of_the_daemon(read("sys/seal-status", "Whether the store is open."), Deed::ReadSealStatus),
    of_the_daemon(read("sys/leader", "Who leads: this daemon, always."), Deed::ReadLeader),
    of_the_daemon(read("sys/init", "Whether the daemon is initialised."), Deed::ReadInit),
    // Asks for the daemon's own uid instead of a token.
    of_the_daemon(write("sys/init", "Initialises the daemon, once.").takes(&[fields::SHARES]), Deed::Initialize),
    row(
        read("sys/storage/raft/snapshot", "The whole store in one file, encrypted as it is kept.")
            .sudo()
            .unlimited()
            .answers("application/octet-stream"),
        Deed::TakeSnapshot,
    ),
    row(
        write("sys/storage/raft/snapshot", "Puts a snapshot of this store in its place.")
            .sudo()
            .unlimited()
            .sent_as("application/octet-stream"),
        Deed::Restore { is_foreign: false },
    ),
    row(
        write("sys/storage/raft/snapshot-force", "Puts a snapshot of any store of this seal in the place of this one.")
            .sudo()
            .unlimited()
            .sent_as("application/octet-stream"),
        Deed::Restore { is_foreign: true },
    ),
    row(write("sys/seal", "Seals the daemon: its keys are wiped from memory.").sudo().unlimited(), Deed::Seal),
    // As init does.
    of_the_daemon(write("sys/unseal", "Unseals the daemon by its seal.").takes(&[fields::UNSEAL]), Deed::Unseal),
    row(
        write("sys/rotate", "Encrypts records under a new key from now on, and then the older ones.").sudo(),
        Deed::Rotate,
    ),
    row(write("sys/rotate/root", "Makes a new root key, wrapped by the seal.").sudo(), Deed::RotateRoot),
    row(read("sys/key-status", "The term of the key that records are encrypted under."), Deed::ReadKeyStatus),
    row(read("sys/keyway/status", "The members, libraries and key sets."), Deed::ReadStatus),
    row(list("sys/namespaces", "Lists the namespaces directly below."), Deed::ListNamespaces),
    row(write("sys/namespaces/api-lock/lock", "Locks the namespace addressed."), Deed::LockNamespace),
    row(write("sys/namespaces/api-lock/lock/*subpath", "Locks a namespace."), Deed::LockNamespace),
    row(
        write("sys/namespaces/api-lock/unlock", "Unlocks the namespace addressed.").takes(&[fields::UNLOCK]),
        Deed::UnlockNamespace,
    ),
    row(
        write("sys/namespaces/api-lock/unlock/*subpath", "Unlocks a namespace.").takes(&[fields::UNLOCK]),
        Deed::UnlockNamespace,
    ),
    row(read("sys/namespaces/*namespace", "Reads a namespace."), Deed::ReadNamespace),
    row(
        write("sys/namespaces/*namespace", "Makes a namespace, or changes its metadata.")
            .creating()
            .takes(&[fields::NAMESPACE]),
        Deed::WriteNamespace,
    ),
    row(
        patch("sys/namespaces/*namespace", "Changes some of the metadata of a namespace.").takes(&[fields::NAMESPACE]),
        Deed::PatchNamespace,
    ),
    row(delete("sys/namespaces/*namespace", "Deletes a namespace and all that is in it."), Deed::DeleteNamespace),
    row(read("sys/mounts", "Reads every mount."), Deed::ListMounts),
    row(read("sys/mounts/*path/tune", "Reads the settings of a mount."), Deed::ReadTuning),
    row(
        write("sys/mounts/*path/tune", "Changes the settings of a mount.").takes(&[fields::TUNING, fields::TUNED]),
        Deed::Tune,
    ),
    row(read("sys/mounts/*path", "Reads a mount."), Deed::ReadMount),
    row(write("sys/mounts/*path", "Mounts an engine.").creating().takes(&[fields::MOUNT]), Deed::Enable),
    row(delete("sys/mounts/*path", "Unmounts an engine and deletes its records."), Deed::Disable),
    row(read("sys/auth", "Reads the ways to get a token."), Deed::ListAuthMethods),
    row(read("sys/auth/*path/tune", "Reads the settings of a way to get a token."), Deed::ReadAuthTuning),
    row(read("sys/internal/ui/mounts", "The mounts the caller may see.").public(), Deed::ShowMounts),
    for_any_token(read("sys/internal/ui/mounts/*path", "The mount a path is below."), Deed::ShowMount),
    row(read("sys/internal/ui/resultant-acl", "What the caller's policies grant."), Deed::ReadGrants),
    row(
        read("sys/internal/specs/openapi", "This description of the API.").bare().takes(&[fields::OPENAPI]),
        Deed::Describe,
    ),
    row(
        write("sys/internal/specs/openapi", "This description of the API.").bare().takes(&[fields::OPENAPI]),
        Deed::Describe,
    ),
    row(list("sys/managed-keys/:type", "Lists the managed keys."), Deed::ListKeys),
    row(read("sys/managed-keys/:type/:name", "Reads a managed key."), Deed::ReadKey),
    row(
        write("sys/managed-keys/:type/:name", "Registers a managed key, or changes one.")
            .creating()
            .takes(&[managed_keys::FIELDS]),
        Deed::WriteKey,
    ),
    row(delete("sys/managed-keys/:type/:name", "Forgets a managed key."), Deed::DeleteKey),
    row(
        write("sys/managed-keys/:type/:name/test/sign", "Signs by a managed key, to try it.").takes(&[fields::TEST]),
        Deed::TestSign,
    ),
    row(write("sys/leases/lookup", "Reads a lease.").takes(&[fields::LEASE]), Deed::LookUpLease),
    row(list("sys/leases/lookup/*prefix", "Lists the leases right below a path.").sudo(), Deed::ListLeases),
    row(write("sys/leases/renew", "Refused: no certificate is renewed.").takes(&[fields::LEASE]), Deed::RenewLease),
    row(
        write("sys/leases/renew/*url_lease_id", "Refused: no certificate is renewed.").takes(&[fields::LEASE]),
        Deed::RenewLease,
    ),
    row(
        write("sys/leases/revoke", "Revokes a lease and its certificate.").takes(&[fields::LEASE]).unlimited(),
        Deed::RevokeLease,
    ),
    row(
        write("sys/leases/revoke/*url_lease_id", "Revokes a lease and its certificate.")
            .takes(&[fields::LEASE])
            .unlimited(),
        Deed::RevokeLease,
    ),
    row(
        write("sys/leases/revoke-prefix/*prefix", "Revokes all leases below a path.").sudo().unlimited(),
        Deed::RevokeLeases,
    ),
    row(list("sys/policies/acl", "Lists the policies."), Deed::ListPolicies),
    row(read("sys/policies/acl/*name", "Reads a policy."), Deed::ReadPolicy),
    row(write("sys/policies/acl/*name", "Writes a policy.").takes(&[fields::POLICY]), Deed::WritePolicy),
    row(delete("sys/policies/acl/*name", "Deletes a policy."), Deed::DeletePolicy),
    row(list("sys/policy", "Lists the policies."), Deed::ListPoliciesAsOfOld),
    row(read("sys/policy", "Lists the policies."), Deed::ListPoliciesAsOfOld),
    row(read("sys/policy/*name", "Reads a policy."), Deed::ReadPolicyAsOfOld),
    row(write("sys/policy/*name", "Writes a policy.").takes(&[fields::POLICY]), Deed::WritePolicy),
    row(delete("sys/policy/*name", "Deletes a policy."), Deed::DeletePolicy),
    row(
        write("sys/capabilities", "What a token may do at paths.").takes(&[fields::PATHS, fields::TOKEN]),
        Deed::ReadCapabilities,
    ),
    row(
        write("sys/capabilities-accessor", "What the token of an accessor may do at paths.")
            .takes(&[fields::PATHS, fields::ACCESSOR]),
        Deed::ReadCapabilitiesByAccessor,
    ),
    row(
        write("sys/capabilities-self", "What the caller may do at paths.").takes(&[fields::PATHS]),
        Deed::ReadOwnCapabilities,
    ),
    row(read("sys/audit", "Lists the audit devices.").sudo(), Deed::ListAudit),
    row(
        write("sys/audit/*path", "Turns an audit device on.").sudo().creating().takes(&[fields::AUDIT_DEVICE]),
        Deed::EnableAudit,
    ),
    row(delete("sys/audit/*path", "Turns an audit device off, and forgets its key.").sudo(), Deed::DisableAudit),
    row(
        write("sys/audit-hash/*path", "What stands in an audit device's records for a text.")
            .takes(&[fields::AUDIT_INPUT]),
        Deed::HashAudit,
    ),
    row(list("sys/quotas/rate-limit", "Lists the rate limits.").unlimited(), Deed::ListQuotas(RateLimit)),
    row(read("sys/quotas/rate-limit/:name", "Reads a rate limit.").unlimited(), Deed::ReadQuota(RateLimit)),
    row(
        write("sys/quotas/rate-limit/:name", "Bounds the requests in a time below a path.")
            .creating()
            .unlimited()
            .takes(&[fields::QUOTA, fields::RATE]),
        Deed::WriteQuota(RateLimit),
    ),
    row(delete("sys/quotas/rate-limit/:name", "Removes a rate limit.").unlimited(), Deed::DeleteQuota(RateLimit)),
    row(
        list("sys/quotas/concurrency", "Lists the bounds of requests at once.").unlimited(),
        Deed::ListQuotas(Concurrency),
    ),
    row(
        read("sys/quotas/concurrency/:name", "Reads a bound of requests at once.").unlimited(),
        Deed::ReadQuota(Concurrency),
    ),
    row(
        write("sys/quotas/concurrency/:name", "Bounds the requests at once below a path.")
            .creating()
            .unlimited()
            .takes(&[fields::QUOTA, fields::AT_ONCE]),
        Deed::WriteQuota(Concurrency),
    ),
    row(
        delete("sys/quotas/concurrency/:name", "Removes a bound of requests at once.").unlimited(),
        Deed::DeleteQuota(Concurrency),
    ),
    row(read("auth/token/lookup-self", "What is known of the caller's token."), Deed::LookupSelf),
    row(
        write("auth/token/lookup", "What is known of a token; of the caller's, if none is named.")
            .takes(&[token_fields::TOKEN]),
        Deed::LookupToken,
    ),
    row(
        write("auth/token/lookup-accessor", "What is known of the token with an accessor.")
            .takes(&[token_fields::BY_ACCESSOR]),
        Deed::LookupAccessor,
    ),
    row(list("auth/token/accessors", "Lists the accessors of all tokens.").sudo(), Deed::ListAccessors),
    row(write("auth/token/create", "Makes a token.").takes(&[token_fields::CREATE]), Deed::CreateToken),
    row(
        write("auth/token/create-orphan", "Makes a token that no other takes along when it ends.")
            .takes(&[token_fields::CREATE]),
        Deed::CreateOrphan,
    ),
    row(
        write("auth/token/create/:role_name", "Makes a token by a role.").takes(&[token_fields::CREATE]),
        Deed::CreateByRole,
    ),
    row(
        write("auth/token/renew", "Renews a token; the caller's, if none is named.")
            .takes(&[token_fields::TOKEN, token_fields::RENEWAL]),
        Deed::RenewToken,
    ),
    row(
        write("auth/token/renew-self", "Renews the caller's token.")
            .takes(&[token_fields::TOKEN, token_fields::RENEWAL]),
        Deed::RenewSelf,
    ),
    row(
        write("auth/token/renew-accessor", "Renews the token with an accessor.")
            .takes(&[token_fields::BY_ACCESSOR, token_fields::RENEWAL]),
        Deed::RenewAccessor,
    ),
    row(
        write("auth/token/revoke", "Revokes a token and all that it made.").unlimited().takes(&[token_fields::TOKEN]),
        Deed::RevokeToken,
    ),
    row(
        write("auth/token/revoke-self", "Revokes the caller's token and all that it made.").unlimited(),
        Deed::RevokeSelf,
    ),
    row(
        write("auth/token/revoke-accessor", "Revokes the token with an accessor and all that it made.")
            .unlimited()
            .takes(&[token_fields::BY_ACCESSOR]),
        Deed::RevokeAccessor,
    ),
    row(
        write("auth/token/revoke-orphan", "Revokes a token; those it made become orphans.")
            .unlimited()
            .sudo()
            .takes(&[token_fields::TOKEN]),
        Deed::RevokeOrphan,
    ),
    row(list("auth/token/roles", "Lists the roles of tokens."), Deed::ListTokenRoles),
    row(read("auth/token/roles/:role_name", "Reads a role of tokens."), Deed::ReadTokenRole),
    row(
        write("auth/token/roles/:role_name", "Makes a role of tokens, or changes one.")
            .creating()
            .takes(&[token_fields::ROLE]),
        Deed::WriteTokenRole,
    ),
    row(delete("auth/token/roles/:role_name", "Deletes a role of tokens."), Deed::DeleteTokenRole),
    row(list("auth/unix/role", "Lists the roles for logins by processes."), Deed::ListUnixRoles),
    row(read("auth/unix/role/:role_name", "Reads a role for logins by processes."), Deed::ReadUnixRole),
    row(
        write("auth/unix/role/:role_name", "Makes a role for logins by processes, or changes one.")
            .creating()
            .takes(&[unix_fields::ROLE]),
        Deed::WriteUnixRole,
    ),
    row(delete("auth/unix/role/:role_name", "Deletes a role for logins by processes."), Deed::DeleteUnixRole),
    // Asks for what the kernel says of the process instead of a token.
    row(
        write("auth/unix/login", "Makes a token for the process at the other end, by a role.")
            .public()
            .takes(&[unix_fields::LOGIN]),
        Deed::LoginByUnix,
    ),
    row(write("sys/wrapping/wrap", "Keeps what the request says behind a token."), Deed::Wrap),
    // Those that the token of an answer itself is the key to.
    row(
        write("sys/wrapping/unwrap", "Answers what a token holds, once.").public().takes(&[token_fields::TOKEN]),
        Deed::Unwrap,
    ),
    row(
        write("sys/wrapping/lookup", "What is known of an answer behind a token.")
            .public()
            .takes(&[token_fields::TOKEN]),
        Deed::LookUpWrapping,
    ),
    row(
        write("sys/wrapping/rewrap", "Puts an answer behind another token.").public().takes(&[token_fields::TOKEN]),
        Deed::Rewrap,
    ),
];

/// What is asked by `verb` at a path.
pub(super) enum Found {
    /// A row of the table, and the parts its pattern leaves open.
    Row(&'static Row, Vec<String>),
    /// There is such a path, but not for this verb.
    OtherVerbs,
    /// There is no such path.
    Nothing,
}

/// What is asked by `verb` at `path`.
pub(super) fn find(verb: Verb, path: &str) -> Found {
    let parts: Vec<&str> = path.split('/').collect();
    let mut pattern = None;
    for row in TABLE {
        // A pattern that fits hides those that would fit after it, whatever their verbs.
        if pattern.is_some_and(|known| known != row.endpoint.pattern) {
            continue;
        }
        let fixed: Vec<&str> = row.endpoint.pattern.split('/').collect();
        let Some(names) = fit(&fixed, &parts) else { continue };
        if row.endpoint.verb == verb {
            return Found::Row(row, names);
        }
        pattern = Some(row.endpoint.pattern);
    }
    if pattern.is_some() { Found::OtherVerbs } else { Found::Nothing }
}

/// What can be asked on the system's paths.
pub(super) fn endpoints() -> Vec<Endpoint> {
    TABLE.iter().map(|row| row.endpoint).collect()
}

fn fit(pattern: &[&str], parts: &[&str]) -> Option<Vec<String>> {
    match pattern.split_first() {
        None => parts.is_empty().then(Vec::new),
        Some((open, rest)) if open.starts_with('*') => {
            let taken = parts.len().checked_sub(rest.len()).filter(|taken| *taken > 0)?;
            let (many, tail) = parts.split_at(taken);
            let mut names = fit(rest, tail)?;
            names.insert(0, many.join("/"));
            Some(names)
        }
        Some((open, rest)) if open.starts_with(':') => {
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

    fn found(verb: Verb, path: &str) -> Option<(Deed, String)> {
        match find(verb, path) {
            Found::Row(row, names) => Some((row.deed, names.join("|"))),
            Found::OtherVerbs | Found::Nothing => None,
        }
    }

    #[test]
    fn each_path_leads_to_its_deed() {
        for (verb, path, deed, names) in [
            (Verb::Write, "sys/mounts/teams/ca/tune", Deed::Tune, "teams/ca"),
            (Verb::Read, "sys/mounts/teams/ca", Deed::ReadMount, "teams/ca"),
            (Verb::Write, "sys/managed-keys/pkcs11/ca/test/sign", Deed::TestSign, "pkcs11|ca"),
            (Verb::List, "sys/managed-keys/pkcs11", Deed::ListKeys, "pkcs11"),
        ] {
            assert_eq!(found(verb, path), Some((deed, names.to_owned())), "{path}");
        }
    }

    #[test]
    fn a_verb_that_is_not_there_is_told_from_a_path_that_is_not() {
        for path in ["sys/unheard-of", "sys", "sys/managed-keys"] {
            assert!(matches!(find(Verb::Delete, path), Found::Nothing), "{path}");
        }
        assert!(matches!(find(Verb::Delete, "sys/health"), Found::OtherVerbs));
        // Nobody unmounts what is called `pki/tune` by mistake for a setting.
        assert!(matches!(find(Verb::Delete, "sys/mounts/pki/tune"), Found::OtherVerbs));
    }

    #[test]
    fn only_the_daemons_own_state_the_mounts_of_a_ui_logins_and_answers_behind_tokens_are_public() {
        let public: Vec<&str> = endpoints().iter().filter(|row| row.is_public).map(|row| row.pattern).collect();
        let expected = [
            "sys/health",
            "sys/seal-status",
            "sys/leader",
            "sys/init",
            "sys/init",
            // Asks for the operator's uid.
            "sys/unseal",
            "sys/internal/ui/mounts",
            "auth/unix/login",
            "sys/wrapping/unwrap",
            "sys/wrapping/lookup",
            "sys/wrapping/rewrap",
        ];
        assert_eq!(public, expected);
    }
}
