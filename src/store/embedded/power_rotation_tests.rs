//! The same within rotations: whenever the power goes, every record opens, under a term that was begun, and what was cut short is
//! taken up and brought to its end.

use super::*;
use crate::store::{Cursor, Passed};

/// More than are encrypted anew in one commit.
const RECORDS: usize = 300;

#[derive(Clone, Copy, Debug)]
enum Step {
    Initialize,
    Fill,
    Write(&'static str),
    Rotate,
    RotateRoot,
    /// Encrypts all anew, and forgets the older keys.
    Follow,
}

const STEPS: [Step; 11] = [
    Step::Initialize,
    Step::Fill,
    Step::Rotate,
    Step::Write("after the term"),
    Step::RotateRoot,
    Step::Follow,
    Step::Rotate,
    Step::Rotate,
    Step::Write("after two more"),
    Step::Follow,
    Step::RotateRoot,
];

/// What is there after a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    records: Records,
    term: u32,
    old_terms: usize,
}

impl State {
    fn of(store: &Store) -> State {
        let status = store.key_status().unwrap();
        State { records: records(store), term: status.term, old_terms: status.old_terms.len() }
    }

    fn after(&self, step: Step) -> State {
        let mut next = self.clone();
        match step {
            Step::Fill => next.records.extend((0..RECORDS).map(|index| (filled(index), value(index)))),
            Step::Write(name) => drop(next.records.insert(name.into(), name.into())),
            Step::Rotate => (next.term, next.old_terms) = (self.term + 1, self.old_terms + 1),
            Step::Follow => next.old_terms = 0,
            Step::Initialize | Step::RotateRoot => {}
        }
        next
    }
}

fn filled(index: usize) -> String {
    format!("{index:04}")
}

fn value(index: usize) -> Vec<u8> {
    vec![index as u8; 1 + index % 90]
}

fn play(store: &Store, step: Step) {
    match step {
        Step::Initialize => store.initialize().unwrap(),
        Step::Fill => store.commit_now((0..RECORDS).map(|at| put(&filled(at), &value(at))).collect()).unwrap(),
        Step::Write(name) => store.commit_now(vec![put(name, name.as_bytes())]).unwrap(),
        Step::Rotate => drop(store.rotate().unwrap()),
        Step::RotateRoot => store.rotate_root().unwrap(),
        Step::Follow => follow(store),
    }
}

/// What the daemon does after a rotation.
fn follow(store: &Store) {
    let term = store.key_status().unwrap().term;
    store.settle_terms().unwrap();
    let mut next = Some(Cursor::default());
    while let Some(from) = next {
        let step = store.reencrypt(&from).unwrap();
        assert_eq!(step.passed, Passed::default());
        next = step.next;
    }
    assert!(store.drop_terms_before(term, &Passed::default()).unwrap());
}

#[test]
fn rotations_are_done_or_not_and_are_taken_up_wherever_the_power_goes() {
    let (site, disk) = (Site::new(), Arc::new(Disk::default()));
    let store = site.store(&disk);
    let mut states = Vec::new();
    for (at, step) in STEPS.into_iter().enumerate() {
        play(&store, step);
        disk.note(Event::Answered(at));
        states.push(states.last().unwrap_or(&State::default()).after(step));
        assert_eq!(&State::of(&store), states.last().unwrap(), "{step:?}");
    }
    let history = disk.history.lock().clone();
    let mut seen = [0; STEPS.len()];
    site.at_every_event(&history, &mut |place, answered, store| {
        if !store.is_initialized() {
            assert!(answered.is_empty(), "{place}: the root key is lost");
            return;
        }
        // Of what was begun, all or nothing is there; what was answered, is.
        let from = answered.last().copied().unwrap_or(0);
        let found = State::of(store);
        let until = states.len().min(from + 2);
        let step = (from..until).find(|at| states[*at] == found);
        let step = step.unwrap_or_else(|| panic!("{place}: after {answered:?}: {found:?}"));
        seen[step] += 1;
        // The start after it ends what was cut short.
        if found.old_terms > 0 && place.contains("Some") {
            follow(store);
            assert_eq!(State::of(store), State { old_terms: 0, ..found }, "{place}");
        }
    });
    // A step that shows no other state than the one before it is found as that.
    let shown = |at: usize| at == 0 || states[at] != states[at - 1];
    assert!((0..seen.len()).all(|at| seen[at] > 0 || !shown(at)), "{seen:?}");
}
