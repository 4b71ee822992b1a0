//! What a token may be that is made by another: Vault's rules, as a function of what is asked, the role and the parent.

use std::collections::BTreeMap;

use super::roles::TokenRole;
use super::token::{ROOT_POLICY, Token, TokenRecord, WRAPPING_POLICY};
use super::ttl::{self, Wanted};
use crate::model::{Fault, Namespace, Secret};

/// The policy that every token has unless it is made without.
const DEFAULT_POLICY: &str = "default";

/// What is asked of a token to make. Zero stands for what is not said.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// The token itself, if its maker chooses it.
    pub id: Option<Secret>,
    /// The role it is made by.
    pub role: Option<String>,
    /// Its policies; the parent's, or the role's, if there are none.
    pub policies: Vec<String>,
    /// Leave `default` out of them, unless it is asked for.
    pub no_default_policy: bool,
    /// Notes on it.
    pub meta: BTreeMap<String, String>,
    /// It was asked for at the path for orphans.
    pub orphan: bool,
    /// It was asked for as an orphan elsewhere.
    pub no_parent: bool,
    /// It must not be renewed.
    pub not_renewable: bool,
    /// Seconds it lives.
    pub ttl: u64,
    /// Seconds it may live all in all.
    pub explicit_max_ttl: u64,
    /// Seconds it is renewed for each time.
    pub period: u64,
    /// How often it may be used.
    pub num_uses: u64,
    /// For people.
    pub display_name: String,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Judged {
    /// The token to make, but for its accessor and its parent.
    pub(super) record: TokenRecord,
    pub(super) is_orphan: bool,
    pub(super) warnings: Vec<String>,
}

/// What a token is to be that `parent` asks for in `namespace`.
pub(super) fn judge(
    wish: Wish,
    role: Option<&TokenRole>,
    parent: &Token,
    namespace: &Namespace,
    may_sudo: bool,
    now: u64,
) -> Result<Judged, Fault> {
    if parent.num_uses > 0 {
        return Err(Fault::invalid("restricted use token cannot generate child tokens"));
    }
    if wish.id.is_some() && !may_sudo {
        return Err(Fault::invalid("root or sudo privileges required to specify token id"));
    }
    if wish.period > 0 && !may_sudo {
        return Err(Fault::invalid("root or sudo privileges required to create periodic token"));
    }
    let policies = policies(&wish, role, parent, namespace, may_sudo)?;
    check_assignable(&policies)?;
    let is_root = policies.iter().any(|policy| policy == ROOT_POLICY);
    if is_root && !parent.is_root() {
        return Err(Fault::invalid("root tokens may not be created without parent token being root"));
    }
    if is_root && !namespace.is_root() {
        // Policy `root` is the root namespace's: elsewhere its name grants nothing.
        return Err(Fault::invalid("root tokens may not be created from a non-root namespace"));
    }
    let is_orphan = match role {
        Some(role) => role.orphan,
        None if wish.no_parent && !may_sudo => {
            return Err(Fault::invalid("root or sudo privileges required to create orphan token"));
        }
        None => wish.orphan || wish.no_parent,
    };
    let period = least(wish.period, role.map_or(0, |role| role.period_seconds));
    let explicit_max_ttl = least(wish.explicit_max_ttl, role.map_or(0, |role| role.explicit_max_ttl_seconds));
    let (ttl, warnings) = if !is_root || period > 0 || wish.ttl > 0 {
        let wanted = Wanted { ttl: wish.ttl, period, explicit_max_ttl, start: now, ..Wanted::default() };
        ttl::effective(&wanted, now)?
    } else {
        (explicit_max_ttl, Vec::new())
    };
    if ttl == 0 && parent.ends().is_some() {
        return Err(Fault::invalid("expiring root tokens cannot create non-expiring root tokens"));
    }
    let display_name =
        if wish.display_name.is_empty() { "token".to_owned() } else { format!("token-{}", wish.display_name) };
    let record = TokenRecord {
        creation_time: now,
        namespace: namespace.as_str().to_owned(),
        path: path(&wish, role),
        meta: wish.meta,
        role: wish.role.unwrap_or_default(),
        creation_ttl_seconds: ttl,
        explicit_max_ttl_seconds: explicit_max_ttl,
        period_seconds: period,
        renewable: ttl > 0 && !wish.not_renewable && role.is_none_or(|role| role.renewable),
        num_uses: least(wish.num_uses, role.map_or(0, |role| role.num_uses)),
        ..TokenRecord::everlasting(String::new(), policies, display_name)
    };
    Ok(Judged { record, is_orphan, warnings })
}

/// The policies of the token to be.
fn policies(
    wish: &Wish,
    role: Option<&TokenRole>,
    parent: &Token,
    namespace: &Namespace,
    may_sudo: bool,
) -> Result<Vec<String>, Fault> {
    if let Some(role) = role.filter(|role| role.judges_policies()) {
        return by_role(wish, role, parent, namespace);
    }
    let no_default = wish.no_default_policy || role.is_some_and(|role| role.no_default_policy);
    if *namespace != parent.namespace {
        // The parent's policies are another namespace's, whatever their names: only what may everything gives any.
        return match may_sudo {
            true => Ok(sanitized(&wish.policies, !no_default)),
            false => Err(Fault::PermissionDenied),
        };
    }
    if wish.policies.is_empty() {
        return Ok(sanitized(&parent.policies, false));
    }
    if may_sudo {
        return Ok(sanitized(&wish.policies, !no_default));
    }
    let own = sanitized(&parent.policies, false);
    if !sanitized(&wish.policies, false).iter().all(|policy| own.contains(policy)) {
        return Err(Fault::invalid("child policies must be subset of parent"));
    }
    let has_default = own.iter().any(|policy| policy == DEFAULT_POLICY);
    Ok(sanitized(&wish.policies, has_default && !no_default))
}

/// The policies, where a role says which are allowed: it need not be the parent that has them.
fn by_role(wish: &Wish, role: &TokenRole, parent: &Token, namespace: &Namespace) -> Result<Vec<String>, Fault> {
    let forbids_default = role.disallows(DEFAULT_POLICY);
    let add_default = !wish.no_default_policy && !role.no_default_policy && !forbids_default;
    let asked = match wish.policies.is_empty() {
        true => Vec::new(),
        false => sanitized(&wish.policies, add_default),
    };
    let has_allowed = !role.allowed_policies.is_empty() || !role.allowed_policies_glob.is_empty();
    let allowed = sanitized(&role.allowed_policies, add_default);
    let policies = match (asked.is_empty(), has_allowed) {
        (true, true) => allowed,
        // They are another namespace's, whatever their names.
        (true, false) if *namespace != parent.namespace => return Err(Fault::PermissionDenied),
        (true, false) => sanitized(&parent.policies, add_default),
        (false, false) => asked,
        (false, true) => {
            let is_allowed =
                |policy: &String| allowed.contains(policy) || fits_any(&role.allowed_policies_glob, policy);
            if !asked.iter().all(is_allowed) {
                return Err(Fault::invalid(format!(
                    "token policies ({asked:?}) must be subset of the role's allowed policies ({allowed:?}) or glob policies ({:?})",
                    role.allowed_policies_glob
                )));
            }
            asked
        }
    };
    match policies.iter().find(|policy| role.disallows(policy)) {
        Some(policy) => Err(Fault::invalid(format!("token policy {policy:?} is disallowed by this role"))),
        None => Ok(policies),
    }
}

/// Policies as Vault keeps them: in lower case, sorted, each once; `root` makes the others meaningless.
pub(super) fn sanitized(policies: &[String], add_default: bool) -> Vec<String> {
    let mut clean: Vec<String> = policies.iter().map(|policy| policy.trim().to_lowercase()).collect();
    clean.retain(|policy| !policy.is_empty());
    if clean.iter().any(|policy| policy == ROOT_POLICY) {
        return vec![ROOT_POLICY.to_owned()];
    }
    if add_default {
        clean.push(DEFAULT_POLICY.to_owned());
    }
    clean.sort_unstable();
    clean.dedup();
    clean
}

/// Refuses policies that no token is given.
pub(super) fn check_assignable(policies: &[String]) -> Result<(), Fault> {
    match policies.iter().find(|policy| *policy == WRAPPING_POLICY) {
        Some(policy) => Err(Fault::invalid(format!("cannot assign policy {policy:?}"))),
        None => Ok(()),
    }
}

/// Whether a text fits one of these patterns, in which `*` stands for anything.
pub(super) fn fits_any(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| fits(pattern, text))
}

fn fits(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = text.split_once(part) else { return false };
        text = after;
    }
    text.ends_with(end)
}

pub(super) fn path(wish: &Wish, role: Option<&TokenRole>) -> String {
    match (&wish.role, role) {
        (Some(name), Some(role)) if !role.path_suffix.is_empty() => {
            format!("auth/token/create/{name}/{}", role.path_suffix)
        }
        (Some(name), _) => format!("auth/token/create/{name}"),
        (None, _) if wish.orphan => "auth/token/create-orphan".to_owned(),
        (None, _) => "auth/token/create".to_owned(),
    }
}

/// The lesser of two limits, where zero is none.
fn least(one: u64, other: u64) -> u64 {
    if one == 0 || other == 0 { one.max(other) } else { one.min(other) }
}
