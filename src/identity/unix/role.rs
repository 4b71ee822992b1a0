//! One role: whose processes it is for, and what they are due.

use serde::{Deserialize, Serialize};

use super::super::{ROOT_POLICY, rules};
use crate::model::{Caller, Fault};
use crate::store::Versioned;

/// Items of one list of a role's at most.
const ITEMS_MAX: usize = 256;
/// The longest text in one, in bytes.
const TEXT_BYTES_MAX: usize = 256;
/// What the units are that a process may be in.
const UNIT_SUFFIXES: [&str; 3] = [".service", ".scope", ".socket"];

/// A user or group that a role names, with the number it had when that was written: what counts is the number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedId {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u32,
}

/// A role. Of each kind of bound that it has, a process must fit one; without any it is for nobody. Zero stands for no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnixRole {
    /// Effective user ids.
    pub bound_uids: Vec<u32>,
    /// Group ids: the effective one, or a supplementary one.
    pub bound_gids: Vec<u32>,
    /// Users, beside those of `bound_uids`.
    #[serde(default)]
    pub bound_users: Vec<NamedId>,
    /// Groups, beside those of `bound_gids`.
    #[serde(default)]
    pub bound_groups: Vec<NamedId>,
    /// Units of the system's service manager: `backup.service`, or `backup@.service` for all instances of that.
    pub bound_units: Vec<String>,
    /// What such a process is due, by names of policies of the role's namespace.
    pub policies: Vec<String>,
    /// Leave the policy `default` out of that.
    pub no_default_policy: bool,
    /// Seconds its tokens live.
    pub ttl_seconds: u64,
    /// Seconds they may be made to live by renewing, unless they have a period.
    pub max_ttl_seconds: u64,
    /// Seconds they are renewed for each time, without end.
    pub period_seconds: u64,
    /// Seconds they may live all in all.
    pub explicit_max_ttl_seconds: u64,
    /// How often they may be used.
    pub num_uses: u64,
    /// Whether it counts without a login, where the listener lets that be.
    pub implicit: bool,
}

impl Versioned for UnixRole {
    const VERSION: u16 = 1;
}

/// What a role judges a process by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process<'p> {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Sorted.
    pub(super) groups: &'p [u32],
    pub(super) unit: Option<&'p str>,
}

impl<'p> Process<'p> {
    /// The process at the other end, as it was when it connected.
    pub(super) fn of(caller: &'p Caller) -> Process<'p> {
        let (peer, origin) = (caller.peer, &caller.origin);
        Process { uid: peer.uid, gid: peer.gid, groups: &origin.groups, unit: origin.unit.name() }
    }
}

impl UnixRole {
    /// Refuses what no role may say.
    pub(super) fn check(&self) -> Result<(), Fault> {
        if !self.has_bounds() {
            return Err(Fault::invalid(
                "a role says whose processes it is for: set at least one of bound_uids, bound_users, bound_gids, bound_groups \
                 and bound_units",
            ));
        }
        let longest = [
            self.bound_uids.len(),
            self.bound_users.len(),
            self.bound_gids.len(),
            self.bound_groups.len(),
            self.bound_units.len(),
            self.policies.len(),
        ];
        if longest.into_iter().max() > Some(ITEMS_MAX) {
            return Err(Fault::invalid(format!("no list of a role has more than {ITEMS_MAX} items")));
        }
        if self.bound_units.iter().chain(&self.policies).any(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(Fault::invalid(format!("no text of a role is longer than {TEXT_BYTES_MAX} bytes")));
        }
        if let Some(unit) = self.bound_units.iter().find(|unit| !UNIT_SUFFIXES.iter().any(|end| unit.ends_with(end))) {
            return Err(Fault::invalid(format!(
                "bound_units: {unit:?} is no whole name of a unit, such as \"backup.service\": it ends in one of {}",
                UNIT_SUFFIXES.join(", ")
            )));
        }
        let policies = rules::sanitized(&self.policies, false);
        rules::check_assignable(&policies)?;
        if policies.iter().any(|policy| policy == ROOT_POLICY) {
            return Err(Fault::invalid("auth methods cannot create root tokens: leave root out of token_policies"));
        }
        if self.max_ttl_seconds > 0 && self.ttl_seconds > self.max_ttl_seconds {
            return Err(Fault::invalid("'token_ttl' cannot be greater than 'token_max_ttl'"));
        }
        Ok(())
    }

    /// Whether a process fits; which of its groups did, if the role asks for one. Else what does not fit, for the log.
    pub(super) fn fits(&self, process: Process<'_>) -> Result<Option<u32>, &'static str> {
        if !self.has_bounds() {
            return Err("the role has no bounds");
        }
        if self.asks_for_a_user() && !self.uids().any(|uid| uid == process.uid) {
            return Err("its uid is not among bound_uids and bound_users");
        }
        if !self.bound_units.is_empty() {
            let unit = process.unit.ok_or("the role asks for a unit, and it is in none, or none can be told")?;
            if !self.bound_units.iter().any(|bound| stands_for(bound, unit)) {
                return Err("its unit is not among bound_units");
            }
        }
        if self.bound_gids.is_empty() && self.bound_groups.is_empty() {
            return Ok(None);
        }
        if self.gids().any(|gid| gid == process.gid) {
            return Ok(Some(process.gid));
        }
        let group = self.gids().find(|gid| process.groups.binary_search(gid).is_ok());
        group.map(Some).ok_or("none of its groups is among bound_gids and bound_groups")
    }

    fn has_bounds(&self) -> bool {
        let asks_for_a_group = !self.bound_gids.is_empty() || !self.bound_groups.is_empty();
        self.asks_for_a_user() || asks_for_a_group || !self.bound_units.is_empty()
    }

    fn asks_for_a_user(&self) -> bool {
        !self.bound_uids.is_empty() || !self.bound_users.is_empty()
    }

    /// The numbers of the users that it is for.
    pub fn uids(&self) -> impl Iterator<Item = u32> {
        self.bound_uids.iter().copied().chain(self.bound_users.iter().map(|user| user.id))
    }

    /// The numbers of the groups that it is for.
    pub fn gids(&self) -> impl Iterator<Item = u32> {
        self.bound_gids.iter().copied().chain(self.bound_groups.iter().map(|group| group.id))
    }
}

/// Whether a bound stands for a unit: for that of its name, or, as a template, for any instance of it.
fn stands_for(bound: &str, unit: &str) -> bool {
    let instance_of = |(name, suffix): (&str, &str)| {
        let instance = unit.strip_prefix(name)?.strip_prefix('@')?.strip_suffix(suffix)?;
        Some(suffix.starts_with('.') && !instance.is_empty())
    };
    bound == unit || bound.split_once('@').and_then(instance_of).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::stands_for;

    #[test]
    fn a_template_stands_for_its_instances_and_for_nothing_else() {
        for (bound, unit, stands) in [
            ("backup@.service", "backup@one.service", true),
            ("backup@.service", "backup@a@b.service", true),
            ("backup@.service", "backup@.service", true),
            ("backup@one.service", "backup@one.service", true),
            ("backup@one.service", "backup@one.two.service", false),
            ("backup@one.service", "backup@two.service", false),
            ("backup@.service", "backup.service", false),
            ("backup@.service", "other@one.service", false),
            ("backup@.service", "my-backup@one.service", false),
            ("backup@.service", "backup@one.scope", false),
            ("backup.service", "backup@one.service", false),
            ("@.service", "backup@one.service", false),
        ] {
            assert_eq!(stands_for(bound, unit), stands, "{bound} {unit}");
        }
    }
}
