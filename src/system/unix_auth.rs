//! `auth/unix`: roles that go by the kernel's word on a process, and logins by them.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};

use super::unix_names::{Named, Names};
use super::{Call, System};
use crate::identity::{NamedId, UnixRole};
use crate::model::{Data, EachSecond, Fault, Fields, Response, Unit};
use crate::telemetry::{Telemetry, UnixLoginLabel};

/// One answer to all who may not log in, so that nobody learns which roles there are.
const REFUSED: Fault = Fault::TokenRefused {
    reason: Cow::Borrowed("no login: there is no such role, or it is not for this process; the log says which"),
};
/// Refused logins that are logged in one second.
const REFUSALS_LOGGED: u64 = 10;
/// The longest name of a role that is logged, in bytes: strangers choose it.
const NAME_LOGGED: usize = 64;
/// What the kernel shows in the place of a user or group that has no number here.
const OVERFLOW_ID: u32 = 65_534;

impl System {
    pub(super) fn list_unix_roles(&self, call: &Call) -> Result<Response, Fault> {
        let names = self.identity.unix_roles().names(&call.namespace)?;
        if names.is_empty() { Err(Fault::absent()) } else { Ok(Response::keys(names)) }
    }

    pub(super) fn read_unix_role(&self, call: &Call, name: &str) -> Result<Response, Fault> {
        let role = self.identity.unix_roles().get(&call.namespace, name)?.ok_or_else(Fault::absent)?;
        Ok(Response::data(shown(&role)))
    }

    /// Makes a role, or changes what is said of one.
    pub(super) async fn write_unix_role(&self, call: &Call, name: &str, data: &Data) -> Result<Response, Fault> {
        let named = self.unix_logins.names.of(data).await?;
        let (data, origin) = (data.clone(), Arc::clone(&call.caller.origin));
        let edit = move |known: Option<UnixRole>| {
            let mut fields = Fields::below(&data, &["role_name"]);
            let role = changed(known.unwrap_or_default(), named, &mut fields)?;
            let mut warnings = fields.warnings();
            warnings.extend(cautions(&role, &origin.unit));
            Ok((role, warnings))
        };
        let warnings = self.identity.unix_roles().edit(&call.namespace, name, edit).await?;
        tracing::info!(namespace = %call.namespace, role = name, uid = call.caller.peer.uid, "unix role written");
        Ok(if warnings.is_empty() { Response::Empty } else { Response::with_warnings(Data::new(), warnings) })
    }

    pub(super) async fn delete_unix_role(&self, call: &Call, name: &str) -> Result<Response, Fault> {
        self.identity.unix_roles().delete(&call.namespace, name).await?;
        tracing::info!(namespace = %call.namespace, role = name, uid = call.caller.peer.uid, "unix role deleted");
        Ok(Response::Empty)
    }

    /// Makes a token for the process at the other end, as it was when it connected.
    pub(super) async fn login_by_unix(&self, call: &Call, data: &Data) -> Result<Response, Fault> {
        if !self.identity.is_initialized() {
            return Err(Fault::NotInitialized);
        }
        let mut fields = Fields::new(data);
        let name = fields.filled("role")?.ok_or_else(|| Fault::invalid("missing role"))?;
        let warnings = fields.warnings();
        let logged_in = self.log_in(call, &name, warnings).await;
        self.unix_logins.telemetry.unix_login(match &logged_in {
            Ok(_) => UnixLoginLabel::Ok,
            Err(Fault::TokenRefused { .. }) => UnixLoginLabel::Refused,
            Err(_) => UnixLoginLabel::Failed,
        });
        logged_in
    }

    async fn log_in(&self, call: &Call, name: &str, mut told: Vec<String>) -> Result<Response, Fault> {
        let fit = match self.namespaces.require(&call.namespace) {
            Ok(()) => self.identity.fits_unix_role(&call.caller, &call.namespace, name)?,
            Err(_) => Err("there is no such namespace"),
        };
        let fit = fit.map_err(|why| {
            self.unix_logins.log_refused(call, name, why);
            REFUSED
        })?;
        self.namespaces.check_unlocked(&call.namespace)?;
        let (auth, warnings) = self.identity.login_by_unix_role(fit).await?;
        let peer = call.caller.peer;
        tracing::info!(
            namespace = %call.namespace, role = name, uid = peer.uid, pid = peer.pid, accessor = auth.accessor,
            "login by a unix role"
        );
        told.extend(warnings);
        Ok(Response::Auth { auth, warnings: told })
    }
}

/// What logins and their roles need beside the roles.
#[derive(Debug)]
pub struct UnixLogins {
    names: Names,
    refused: EachSecond,
    telemetry: Telemetry,
}

impl UnixLogins {
    /// Counts logins there.
    pub fn new(telemetry: Telemetry) -> UnixLogins {
        UnixLogins { names: Names::default(), refused: EachSecond::default(), telemetry }
    }

    /// Logs why a login is refused: some in each second, as strangers may ask for as many as they like.
    fn log_refused(&self, call: &Call, role: &str, why: &'static str) {
        let count = self.refused.count(std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs());
        if count > REFUSALS_LOGGED {
            return;
        }
        let (peer, role) = (call.caller.peer, role.get(..role.floor_char_boundary(NAME_LOGGED)).unwrap_or_default());
        tracing::warn!(
            namespace = %call.namespace, ?role, uid = peer.uid, gid = peer.gid, pid = peer.pid,
            unit = ?call.caller.origin.unit, why,
            "{}",
            if count < REFUSALS_LOGGED { "login refused" } else { "login refused; others in this second are not logged" }
        );
    }
}

fn changed(known: UnixRole, named: Named, fields: &mut Fields<'_>) -> Result<UnixRole, Fault> {
    if let Some(kind) = fields.filled("token_type")?
        && !["service", "default-service", "default"].contains(&kind.as_str())
    {
        return Err(Fault::invalid(format!("token_type {kind:?}: expected service, as no batch tokens are made here")));
    }
    fields.refuse(&["token_bound_cidrs", "token_strictly_bind_ip", "alias_metadata"])?;
    let bound_uids = ids("bound_uids", fields)?.unwrap_or(known.bound_uids);
    let bound_gids = ids("bound_gids", fields)?.unwrap_or(known.bound_gids);
    // They were looked up before.
    let Named { users, groups } = named;
    for known in ["bound_users", "bound_groups"] {
        fields.list(known)?;
    }
    let implicit = fields.boolean("implicit")?.unwrap_or(known.implicit);
    let mut seconds = |name, before| Ok::<_, Fault>(fields.duration(name)?.map_or(before, |span| span.as_secs()));
    let ttl_seconds = seconds("token_ttl", known.ttl_seconds)?;
    let max_ttl_seconds = seconds("token_max_ttl", known.max_ttl_seconds)?;
    let period_seconds = seconds("token_period", known.period_seconds)?;
    let explicit_max_ttl_seconds = seconds("token_explicit_max_ttl", known.explicit_max_ttl_seconds)?;
    let uses = fields.integer("token_num_uses")?.map(u64::try_from).transpose();
    Ok(UnixRole {
        bound_uids,
        bound_gids,
        bound_users: users.unwrap_or(known.bound_users),
        bound_groups: groups.unwrap_or(known.bound_groups),
        bound_units: fields.list("bound_units")?.unwrap_or(known.bound_units),
        policies: fields.list("token_policies")?.unwrap_or(known.policies),
        no_default_policy: fields.boolean("token_no_default_policy")?.unwrap_or(known.no_default_policy),
        ttl_seconds,
        max_ttl_seconds,
        period_seconds,
        explicit_max_ttl_seconds,
        num_uses: uses.map_err(|_| Fault::invalid("number of uses cannot be negative"))?.unwrap_or(known.num_uses),
        implicit,
    })
}

/// Numbers of users or groups. The last one is none: the kernel's "unchanged".
fn ids(name: &'static str, fields: &mut Fields<'_>) -> Result<Option<Vec<u32>>, Fault> {
    let Some(given) = fields.list(name)? else { return Ok(None) };
    let number = |text: &String| {
        text.parse().ok().filter(|id| *id != u32::MAX).ok_or_else(|| {
            Fault::invalid(format!(
                "{name}: {text:?} is no number of a user or group, such as 1000: names are set by bound_users and bound_groups"
            ))
        })
    };
    given.iter().map(number).collect::<Result<_, _>>().map(Some)
}

/// What the writer of a role should know. `unit` is its own: whether the kernel tells of units shows in that.
fn cautions(role: &UnixRole, unit: &Unit) -> Vec<String> {
    let mut told = Vec::new();
    if !role.bound_units.is_empty() && *unit == Unit::Untold {
        told.push(
            "bound_units: the kernel did not tell the unit of the process that wrote this role, so the role may never fit: \
             units need Linux 6.5 with cgroups v2, and a /proc that shows other processes to Keyway"
                .to_owned(),
        );
    }
    if role.uids().chain(role.gids()).any(|id| id == OVERFLOW_ID) {
        told.push(format!(
            "{OVERFLOW_ID} stands for every user or group that has no number in Keyway's user namespace"
        ));
    }
    told
}

fn shown(role: &UnixRole) -> Data {
    let names = |named: &[NamedId]| named.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    let ids = |named: &[NamedId]| named.iter().map(|one| (one.name.clone(), one.id.into())).collect::<Data>();
    let shown = json!({
        "bound_users": names(&role.bound_users),
        "bound_user_ids": ids(&role.bound_users),
        "bound_groups": names(&role.bound_groups),
        "bound_group_ids": ids(&role.bound_groups),
        "bound_uids": role.bound_uids,
        "bound_gids": role.bound_gids,
        "bound_units": role.bound_units,
        "implicit": role.implicit,
        "token_bound_cidrs": [],
        "token_explicit_max_ttl": role.explicit_max_ttl_seconds,
        "token_max_ttl": role.max_ttl_seconds,
        "token_no_default_policy": role.no_default_policy,
        "token_num_uses": role.num_uses,
        "token_period": role.period_seconds,
        "token_policies": role.policies,
        "token_ttl": role.ttl_seconds,
        "token_type": "service",
    });
    match shown {
        Value::Object(shown) => shown,
        _ => Data::new(),
    }
}
