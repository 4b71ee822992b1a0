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

/// A role. Of each kind of bound that it has, a process must fit one; without any it is for nobody. Zero stands for no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnixRole {
    /// Effective user ids.
    pub bound_uids: Vec<u32>,
    /// Group ids: the effective one, or a supplementary one.
    pub bound_gids: Vec<u32>,
    /// Units of the system's service manager: `backup.service`.
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
        if self.bound_uids.is_empty() && self.bound_gids.is_empty() && self.bound_units.is_empty() {
            return Err(Fault::invalid(
                "a role says whose processes it is for: set at least one of bound_uids, bound_gids and bound_units",
            ));
        }
        let longest = [self.bound_uids.len(), self.bound_gids.len(), self.bound_units.len(), self.policies.len()];
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
        if self.bound_uids.is_empty() && self.bound_gids.is_empty() && self.bound_units.is_empty() {
            return Err("the role has no bounds");
        }
        if !self.bound_uids.is_empty() && !self.bound_uids.contains(&process.uid) {
            return Err("its uid is not among bound_uids");
        }
        if !self.bound_units.is_empty() {
            let unit = process.unit.ok_or("the role asks for a unit, and it is in none, or none can be told")?;
            if !self.bound_units.iter().any(|bound| bound == unit) {
                return Err("its unit is not among bound_units");
            }
        }
        if self.bound_gids.is_empty() {
            return Ok(None);
        }
        if self.bound_gids.contains(&process.gid) {
            return Ok(Some(process.gid));
        }
        let group = self.bound_gids.iter().find(|group| process.groups.binary_search(group).is_ok());
        group.copied().map(Some).ok_or("none of its groups is among bound_gids")
    }
}
