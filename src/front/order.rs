//! Whose connection a worker serves next: that of the party which has had the least of its time. So whoever asks for little is
//! served as soon as the worker is free, however much others ask for over however many connections.
//!
//! - A party is a namespace, once a token has proven itself there; before that, the uid at the other end. Nobody can be more
//!   parties than they have namespaces and uids; connections do not count.
//! - Within a party, what became ready first goes first.
//! - What a party has had is counted in time. One that comes back having had less than others is counted as having had what
//!   was least of late: nobody saves up. When nobody waits, all begin anew. So over any span in which two parties always have
//!   something ready, what each was given differs by no more than the longest piece of each, and a party that had nothing
//!   ready waits for the piece that is being served, and then for one piece of each other party that came back before it.
//!
//! This knows no clock, no socket and no task: what a piece took is for the caller to say.

use std::collections::{BTreeMap, HashMap, VecDeque};

use foldhash::fast::RandomState;

use crate::model::Namespace;

/// Parties that are remembered at the least, whatever they have had.
const REMEMBERED: usize = 64;

/// On whose account a connection is served.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Party {
    /// A namespace that its token is good in.
    Namespace(Namespace),
    /// A uid, of whose token nothing good is known.
    Stranger(u32),
}

/// What is ready to be served.
pub(super) struct Order<T> {
    lines: HashMap<Party, Line<T>, RandomState>,
    /// Parties with something ready, by what they have had; of those that have had as much, who came first.
    waiting: BTreeMap<(u64, u64), Party>,
    /// The one that is being served. It is not among those waiting.
    served: Option<Party>,
    /// What the one served last had had before.
    least: u64,
    /// What the one that has had most has had.
    most: u64,
    /// Places in `waiting` that were given out.
    places: u64,
    /// How many lines there may be before those that say nothing are forgotten.
    lines_max: usize,
}

struct Line<T> {
    ready: VecDeque<T>,
    had: u64,
}

impl<T> Order<T> {
    pub(super) fn new() -> Order<T> {
        Order {
            lines: HashMap::default(),
            waiting: BTreeMap::new(),
            served: None,
            least: 0,
            most: 0,
            places: 0,
            lines_max: REMEMBERED,
        }
    }

    /// Puts something in its party's line. Whether the worker is to be told: nothing else waits, and nobody is served.
    pub(super) fn push(&mut self, party: Party, item: T) -> bool {
        if self.lines.len() >= self.lines_max && !self.lines.contains_key(&party) {
            self.forget();
        }
        let is_first = self.waiting.is_empty() && self.served.is_none();
        let line = self.lines.entry(party.clone()).or_insert_with(|| Line { ready: VecDeque::new(), had: 0 });
        line.ready.push_back(item);
        if line.ready.len() == 1 && self.served.as_ref() != Some(&party) {
            line.had = line.had.max(self.least);
            let had = line.had;
            self.wait(had, party);
        }
        is_first
    }

    /// The next to be served. What was before is counted as having ended.
    pub(super) fn next(&mut self, cost: u64) -> Option<T> {
        self.end(cost);
        let Some((place, party)) = self.waiting.pop_first() else {
            // Nobody waits: what anybody had is done with.
            self.least = self.most;
            return None;
        };
        self.least = place.0;
        let item = self.lines.get_mut(&party)?.ready.pop_front();
        self.served = Some(party);
        item
    }

    /// What was served last has ended, and took so much.
    pub(super) fn end(&mut self, cost: u64) {
        let Some(party) = self.served.take() else { return };
        let Some(line) = self.lines.get_mut(&party) else { return };
        line.had = line.had.saturating_add(cost);
        self.most = self.most.max(line.had);
        if !line.ready.is_empty() {
            let had = line.had;
            self.wait(had, party);
        }
    }

    /// Takes out everything.
    pub(super) fn clear(&mut self) -> Vec<T> {
        self.waiting.clear();
        self.lines.drain().flat_map(|(_, line)| line.ready).collect()
    }

    fn wait(&mut self, had: u64, party: Party) {
        self.places += 1;
        self.waiting.insert((had, self.places), party);
    }

    /// Forgets parties with nothing ready that would be counted the same if they were new.
    fn forget(&mut self) {
        let Order { lines, least, served, .. } = self;
        lines.retain(|party, line| !line.ready.is_empty() || line.had > *least || served.as_ref() == Some(party));
        self.lines_max = REMEMBERED.max(2 * self.lines.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Party {
        Party::Namespace(Namespace::from_path(name))
    }

    /// A flood: connections that are ready again as soon as they were served.
    fn flood(order: &mut Order<&'static str>, party: &Party, connections: usize) {
        for _ in 0..connections {
            order.push(party.clone(), "flood");
        }
    }

    /// Serves until it is the lone caller's turn; answers how many others were served before it.
    fn until_lone(order: &mut Order<&'static str>, flooding: &[Party], cost: u64) -> usize {
        for before in 0.. {
            let served = order.next(cost).unwrap();
            if served == "lone" {
                return before;
            }
            let party = order.served.clone().unwrap();
            assert!(flooding.contains(&party));
            order.push(party, "flood");
        }
        unreachable!()
    }

    #[test]
    fn a_lone_caller_waits_for_no_more_than_what_is_being_served_however_many_connections_flood() {
        for connections in [1, 64, 1000] {
            let mut order = Order::new();
            let (loud, lone) = (tenant("loud"), tenant("lone"));
            flood(&mut order, &loud, connections);
            for round in 0..100 {
                // However long the flood was alone: nobody saves up, and nobody is in debt for ever.
                for _ in 0..round {
                    assert_eq!(order.next(100), Some("flood"));
                    order.push(loud.clone(), "flood");
                }
                order.push(lone.clone(), "lone");
                assert!(until_lone(&mut order, std::slice::from_ref(&loud), 100) <= 1);
                order.end(1);
            }
        }
    }

    #[test]
    fn a_lone_caller_waits_for_one_piece_of_each_other_party_at_most() {
        let mut order = Order::new();
        let loud: Vec<Party> = (0..50).map(Party::Stranger).chain([tenant("a"), tenant("a/b")]).collect();
        loud.iter().for_each(|party| flood(&mut order, party, 20));
        let lone = tenant("lone");
        for _ in 0..100 {
            order.push(lone.clone(), "lone");
            assert!(until_lone(&mut order, &loud, 70) <= loud.len());
            // What it asks for may be as dear as theirs.
            order.end(70);
        }
    }

    #[test]
    fn two_that_always_ask_have_as_much_whatever_their_pieces_take() {
        let mut order = Order::new();
        let parties = [(tenant("few"), "few", 1_000), (tenant("many"), "many", 10)];
        order.push(parties[0].0.clone(), "few");
        for _ in 0..64 {
            order.push(parties[1].0.clone(), "many");
        }
        let (mut had, mut cost) = ([0, 0], 0);
        for _ in 0..10_000 {
            let item = order.next(cost).unwrap();
            let which = usize::from(item == "many");
            cost = parties[which].2;
            had[which] += cost;
            order.push(parties[which].0.clone(), item);
            assert!(had[0].abs_diff(had[1]) <= 1_010, "{had:?}");
        }
    }

    #[test]
    fn a_debt_is_not_got_rid_of_by_a_pause_or_by_other_connections() {
        let mut order = Order::new();
        let (dear, other) = (tenant("dear"), tenant("other"));
        order.push(dear.clone(), "dear");
        order.push(other.clone(), "other");
        assert_eq!(order.next(0), Some("dear"));
        // It took as long as ten of the other's.
        assert_eq!(order.next(1_000), Some("other"));
        for _ in 1..10 {
            order.push(other.clone(), "other");
            order.push(dear.clone(), "dear");
            assert_eq!(order.next(100), Some("other"));
        }
        order.push(other, "other");
        assert_eq!(order.next(100), Some("dear"));
    }

    #[test]
    fn the_worker_is_told_once_and_what_is_ready_comes_in_the_order_it_became_so() {
        let mut order = Order::new();
        let one = tenant("one");
        assert_eq!([1, 2, 3].map(|item| order.push(one.clone(), item)), [true, false, false]);
        assert_eq!(order.next(0), Some(1));
        assert!(!order.push(Party::Stranger(1), 4), "who serves looks again");
        assert_eq!([(); 4].map(|()| order.next(1)), [Some(4), Some(2), Some(3), None]);
        assert!(order.push(one, 5));
        assert_eq!(order.clear(), [5]);
        assert_eq!(order.next(0), None);
    }

    #[test]
    fn parties_that_say_nothing_are_forgotten() {
        let mut order = Order::new();
        for uid in 0..10_000 {
            order.push(Party::Stranger(uid), uid);
            assert_eq!(order.next(0), Some(uid));
            assert_eq!(order.next(1), None);
        }
        assert!(order.lines.len() <= 2 * REMEMBERED, "{}", order.lines.len());
    }
}
