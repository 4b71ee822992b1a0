//! One token under two names: by its label in one managed key and by its slot in another, or by its serial in a pool. The
//! members of one token are logged in at most once, under one name; whoever finds another's there hands its keys over.
//!
//! It shows when a token is open, since only then is it known what a name leads to; and it is looked at while its turn to
//! log in is held, so that of two names that are opened at once one is the first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::pins::Place;
use super::pool::Member;
use super::route::MemberId;
use crate::backend::TokenIdentity;
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
    place: Place,
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
    /// Whether it is the token that `name` has led to, to `place`. Within a process, the slot tells. Processes may number
    /// slots each in its way; but a label or serial number leads to one token only, or it would not have been opened.
    fn is(&self, name: &Name, place: &Place) -> bool {
        let (own, other) = (&self.place, place);
        self.name.kin != name.kin
            && own.library == other.library
            && own.token == other.token
            && if own.process == other.process {
                own.slot == other.slot
            } else {
                names(&self.name.token, &other.token) || names(&name.token, &own.token)
            }
    }
}

fn names(selector: &TokenSelector, token: &TokenIdentity) -> bool {
    match selector {
        TokenSelector::Label(named) => *named == token.label,
        TokenSelector::Serial(named) => *named == token.serial,
        TokenSelector::Slot(_) | TokenSelector::Cloud(_) => false,
    }
}

impl Sightings {
    /// Who else is logged in to the token that `name` has led to.
    pub(super) fn rival(&self, name: &Name, place: &Place) -> Rival {
        let seen = self.seen.lock();
        let others = seen.iter().filter(|seen| seen.is(name, place));
        let Some(other) = others.max_by_key(|seen| seen.name.rank()) else { return Rival::None };
        match (other.name.rank(), name.rank()) {
            (Rank::Configured, Rank::Configured) => Rival::Twice(other.name.token.clone()),
            (theirs, ours) if theirs >= ours => Rival::Host(other.name.kin),
            _ => Rival::Guest(other.name.kin),
        }
    }

    /// Notes that a member of this name is logged in, for as long as the answer lives.
    pub(super) fn note(self: &Arc<Self>, name: &Name, place: &Place) -> Sighting {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.seen.lock().push(Seen { number, name: name.clone(), place: place.clone() });
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
    use crate::model::TokenSelector::{Label, Serial, Slot};

    fn name(kin: u32, token: TokenSelector, configured: bool) -> Name {
        Name { kin: MemberId(kin), library: "hsm".into(), token, configured }
    }

    fn place(process: u32, slot: u64, serial: &str, label: &str) -> Place {
        Place { library: "hsm".into(), process, slot, token: TokenIdentity::new("maker", "model", serial, label) }
    }

    #[test]
    fn the_name_that_counts_more_has_the_token() {
        for processes in [[0; 5], [1, 2, 3, 4, 5]] {
            let at = |kin: usize| place(processes[kin - 1], 5, "77", "ca");
            let seen = Arc::new(Sightings::default());
            let by_label = seen.note(&name(1, Label("ca".into()), false), &at(1));
            assert_eq!(seen.rival(&name(2, Slot(5), false), &at(2)), Rival::Host(MemberId(1)));
            assert_eq!(seen.rival(&name(3, Slot(5), true), &at(3)), Rival::Guest(MemberId(1)));
            // Its other worker processes are no rivals, nor is a library that has another token of this number.
            assert_eq!(seen.rival(&name(1, Label("ca".into()), false), &at(1)), Rival::None);
            let elsewhere = Place { library: "other".into(), ..at(2) };
            assert_eq!(seen.rival(&name(2, Slot(5), false), &elsewhere), Rival::None);
            drop(by_label);
            assert_eq!(seen.rival(&name(2, Slot(5), false), &at(2)), Rival::None);
            let _by_slot = seen.note(&name(2, Slot(5), false), &at(2));
            assert_eq!(seen.rival(&name(1, Label("ca".into()), false), &at(1)), Rival::Guest(MemberId(2)));
            let _configured = seen.note(&name(4, Serial("77".into()), true), &at(4));
            let twice = seen.rival(&name(5, Serial("77".into()), true), &at(5));
            assert_eq!(twice, Rival::Twice(Serial("77".into())));
        }
    }

    #[test]
    fn slots_that_share_a_serial_number_are_not_taken_for_one_token() {
        let at = |process, slot, label| place(process, slot, "CS000000", label);
        let seen = Arc::new(Sightings::default());
        let _first = seen.note(&name(1, Slot(0), false), &at(0, 0, "a"));
        for process in [0, 1] {
            assert_eq!(seen.rival(&name(2, Slot(1), true), &at(process, 1, "b")), Rival::None);
            assert_eq!(seen.rival(&name(3, Label("b".into()), false), &at(process, 1, "b")), Rival::None);
            // Another maker's, by the same label.
            let mut other = at(process, 0, "a");
            other.token.manufacturer = "other".into();
            assert_eq!(seen.rival(&name(4, Label("a".into()), false), &other), Rival::None);
        }
        assert_eq!(seen.rival(&name(4, Label("a".into()), false), &at(0, 0, "a")), Rival::Guest(MemberId(1)));
        // In another process the same token may have another number; in the same it has not.
        assert_eq!(seen.rival(&name(4, Label("a".into()), false), &at(1, 1, "a")), Rival::Guest(MemberId(1)));
        assert_eq!(seen.rival(&name(4, Label("a".into()), false), &at(0, 1, "a")), Rival::None);
    }
}
