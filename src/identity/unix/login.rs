//! Logins: a process that fits a role gets a token, which is renewed as long as it would get it again.

use std::collections::BTreeMap;

use super::super::{Identity, Login, Token, rules};
use super::role::{Process, UnixRole};
use crate::model::{Auth, Caller, Fault, Namespace};

/// Where logins are asked for. No other token has this path.
const PATH: &str = "auth/unix/login";

/// A process that fits a role.
#[derive(Debug)]
pub struct UnixFit {
    namespace: Namespace,
    name: String,
    role: UnixRole,
    meta: BTreeMap<String, String>,
}

/// The uid that logged in for a token, if it was made by a login here.
pub(in super::super) fn login_of(token: &Token) -> Option<u32> {
    if token.path == PATH { token.meta.get("uid")?.parse().ok() } else { None }
}

impl Identity {
    /// Whether the caller's process fits a role of the namespace. Else why not: that is for the log, and must not be told
    /// to the caller, or it could find out which roles there are.
    pub fn fits_unix_role(
        &self,
        caller: &Caller,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Result<UnixFit, &'static str>, Fault> {
        let Some(role) = self.unix_roles().get(namespace, name)? else { return Ok(Err("there is no such role")) };
        let process = Process::of(caller);
        Ok(role.fits(process).map(|group| UnixFit {
            namespace: namespace.clone(),
            name: name.to_owned(),
            role,
            meta: notes(name, process, group),
        }))
    }

    /// Makes the token that a process is due by a role.
    ///
    /// # Errors
    ///
    /// [`Fault::QuotaExceeded`] if its uid has as many tokens of logins in that namespace as one may have.
    pub async fn login_by_unix_role(&self, fit: UnixFit) -> Result<(Auth, Vec<String>), Fault> {
        let UnixFit { namespace, name, role, meta } = fit;
        self.login(Login {
            namespace,
            path: PATH.to_owned(),
            policies: role.policies,
            no_default_policy: role.no_default_policy,
            display_name: format!("unix-{name}"),
            uid: meta.get("uid").and_then(|uid| uid.parse().ok()),
            meta,
            ttl: role.ttl_seconds,
            max_ttl: role.max_ttl_seconds,
            explicit_max_ttl: role.explicit_max_ttl_seconds,
            period: role.period_seconds,
            num_uses: role.num_uses,
        })
        .await
    }

    /// Whether a token may be renewed as far as its login goes: the role must be there yet, fit what logged in, and give
    /// the same policies. Answers the longest life, in seconds, that the role gives now; 0 sets none.
    pub(in super::super) fn check_login(&self, token: &Token) -> Result<u64, Fault> {
        if token.path != PATH {
            return Ok(0);
        }
        let name = token.meta.get("role").map(String::as_str).unwrap_or_default();
        let role = self.unix_roles().get(&token.namespace, name)?.ok_or_else(|| {
            Fault::invalid(format!("the role {name:?} that this token was made by is gone: it is not renewed"))
        })?;
        let fits = noted(&token.meta, |process| role.fits(process)).unwrap_or(Err("its notes do not parse"));
        fits.map_err(|why| {
            Fault::invalid(format!("the role {name:?} is not for who logged in any more ({why}): log in again"))
        })?;
        if rules::sanitized(&role.policies, !role.no_default_policy) != token.policies {
            return Err(Fault::invalid("policies have changed, not renewing"));
        }
        Ok(role.max_ttl_seconds)
    }
}

/// What a token says of the process that logged in.
fn notes(role: &str, process: Process<'_>, group: Option<u32>) -> BTreeMap<String, String> {
    let mut notes = BTreeMap::from([
        ("role".to_owned(), role.to_owned()),
        ("uid".to_owned(), process.uid.to_string()),
        ("gid".to_owned(), process.gid.to_string()),
    ]);
    if let Some(group) = group.filter(|group| *group != process.gid) {
        notes.insert("group".to_owned(), group.to_string());
    }
    if let Some(unit) = process.unit {
        notes.insert("unit".to_owned(), unit.to_owned());
    }
    notes
}

/// Has the process judged that notes tell of: of its groups, by the one that counted.
fn noted<T>(notes: &BTreeMap<String, String>, judge: impl FnOnce(Process<'_>) -> T) -> Option<T> {
    let number = |name: &str| notes.get(name)?.parse::<u32>().ok();
    let group = number("group");
    let (uid, gid) = (number("uid")?, number("gid")?);
    Some(judge(Process { uid, gid, groups: group.as_slice(), unit: notes.get("unit").map(String::as_str) }))
}
