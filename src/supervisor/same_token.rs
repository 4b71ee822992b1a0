//! One token under two names: by its label in one managed key and by its slot in another, or by its serial in a pool. The
//! members of one token are logged in at most once, under one name; whoever finds another's there hands its keys over.
//!
//! It shows when a token is open, since only then is it known what a name leads to; and it is looked at while its turn to
//! log in is held, so that of two names that are opened at once one is the first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::pool::Member;
use super::route::MemberId;
use crate::backend::DeviceInfo;
use crate::model::TokenSelector;

/// Which names of tokens lead where now: one entry for each member that is logged in.
#[derive(Default)]
pub(super) struct Sightings {
    seen: Mutex<Vec<Seen>>,
    numbers: AtomicU64,
}

/// A member's name for its token.
#[derive(Clone, Debug)]
pub(super) struct Name {
    /// The first of the members of this name, one a worker process.
    pub(super) kin: MemberId,
    /// In lower case.
    pub(super) library: String,
    pub(super) token: TokenSelector,
    /// Whether the configuration names it so.
    pub(super) configured: bool,
}

struct Seen {
    number: u64,
    name: Name,
    serial: String,
    label: String,
}

/// Noted for as long as a member is logged in.
pub(super) struct Sighting {
    of: Arc<Sightings>,
    number: u64,
}

/// Who else is logged in to the token that a name has led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rival {
    /// Nobody.
    None,
    /// Members whose name counts more: they are to have the keys.
    Host(MemberId),
    /// Members whose name counts less: they are to hand theirs over.
    Guest(MemberId),
    /// Another member that the configuration names.
    Twice(TokenSelector),
}

/// How much a name counts, the least first. A slot's number is another token's after a restart of many modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Slot,
    Lasting,
    Configured,
}

impl Name {
    pub(super) fn of(member: &Member) -> Name {
        let (library, token) = (member.library.clone(), member.token.clone());
        Name { kin: member.kin, library, token, configured: member.configured }
    }

    fn rank(&self) -> Rank {
        match (&self.token, self.configured) {
            (_, true) => Rank::Configured,
            (TokenSelector::Slot(_), false) => Rank::Slot,
            (TokenSelector::Label(_) | TokenSelector::Serial(_) | TokenSelector::Cloud(_), false) => Rank::Lasting,
        }
    }
}

impl Seen {
    /// Whether it is the token that `name` has led to. Not by the serial number alone: there are modules that give all of
    /// their slots the same. But a label or serial number leads to one token only, or it would not have been opened.
    fn is(&self, name: &Name, info: &DeviceInfo) -> bool {
        self.name.kin != name.kin
            && self.name.library == name.library
            && self.serial == info.serial
            && (names(&self.name.token, &info.serial, &info.label) || names(&name.token, &self.serial, &self.label))
    }
}

fn names(token: &TokenSelector, serial: &str, label: &str) -> bool {
    match token {
        TokenSelector::Label(named) => named == label,
        TokenSelector::Serial(named) => named == serial,
        TokenSelector::Slot(_) | TokenSelector::Cloud(_) => false,
    }
}

impl Sightings {
    /// Who else is logged in to the token that `name` has led to.
    pub(super) fn rival(&self, name: &Name, info: &DeviceInfo) -> Rival {
        let seen = self.seen.lock();
        let others = seen.iter().filter(|seen| seen.is(name, info));
        let Some(other) = others.max_by_key(|seen| seen.name.rank()) else { return Rival::None };
        match (other.name.rank(), name.rank()) {
            (Rank::Configured, Rank::Configured) => Rival::Twice(other.name.token.clone()),
            (theirs, ours) if theirs >= ours => Rival::Host(other.name.kin),
            _ => Rival::Guest(other.name.kin),
        }
    }

    /// Notes that a member of this name is logged in, for as long as the answer lives.
    pub(super) fn note(self: &Arc<Self>, name: &Name, info: &DeviceInfo) -> Sighting {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (serial, label) = (info.serial.clone(), info.label.clone());
        self.seen.lock().push(Seen { number, name: name.clone(), serial, label });
        Sighting { of: Arc::clone(self), number }
    }
}

impl Drop for Sighting {
    fn drop(&mut self) {
        self.of.seen.lock().retain(|seen| seen.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Profile;
    use crate::model::TokenSelector::{Label, Serial, Slot};

    fn name(kin: u32, token: TokenSelector, configured: bool) -> Name {
        Name { kin: MemberId(kin), library: "hsm".into(), token, configured }
    }

    fn info(serial: &str, label: &str) -> DeviceInfo {
        DeviceInfo { serial: serial.into(), label: label.into(), max_sessions: None, profile: Profile::Generic }
    }

    #[test]
    fn the_name_that_counts_more_has_the_token() {
        let seen = Arc::new(Sightings::default());
        let token = info("77", "ca");
        let by_label = seen.note(&name(1, Label("ca".into()), false), &token);
        assert_eq!(seen.rival(&name(2, Slot(5), false), &token), Rival::Host(MemberId(1)));
        assert_eq!(seen.rival(&name(3, Slot(5), true), &token), Rival::Guest(MemberId(1)));
        // Its other worker processes are no rivals, nor is a library that has another token of this number.
        assert_eq!(seen.rival(&name(1, Label("ca".into()), false), &token), Rival::None);
        let elsewhere = Name { library: "other".into(), ..name(2, Slot(5), false) };
        assert_eq!(seen.rival(&elsewhere, &token), Rival::None);
        drop(by_label);
        assert_eq!(seen.rival(&name(2, Slot(5), false), &token), Rival::None);
        let _by_slot = seen.note(&name(2, Slot(5), false), &token);
        assert_eq!(seen.rival(&name(1, Label("ca".into()), false), &token), Rival::Guest(MemberId(2)));
        let _configured = seen.note(&name(4, Serial("77".into()), true), &token);
        assert_eq!(seen.rival(&name(5, Serial("77".into()), true), &token), Rival::Twice(Serial("77".into())));
    }

    #[test]
    fn slots_that_share_a_serial_number_are_not_taken_for_one_token() {
        let seen = Arc::new(Sightings::default());
        let _first = seen.note(&name(1, Slot(0), false), &info("CS000000", "a"));
        assert_eq!(seen.rival(&name(2, Slot(1), true), &info("CS000000", "b")), Rival::None);
        assert_eq!(seen.rival(&name(3, Label("b".into()), false), &info("CS000000", "b")), Rival::None);
        assert_eq!(seen.rival(&name(4, Label("a".into()), false), &info("CS000000", "a")), Rival::Guest(MemberId(1)));
    }
}
