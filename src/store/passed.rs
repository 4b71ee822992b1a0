//! Records that did not open when all were to be encrypted anew, and the keys to be kept for them: what was damaged may be mended,
//! and that under the key it was encrypted under.

use std::collections::BTreeSet;

use super::name;

/// Records known by name. Of more than these it is known how many there are, and which keys they need.
const ENTRIES_MAX: usize = 1_000;

/// What a walk has passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    count: u64,
    /// Terms that they say they are under.
    terms: BTreeSet<u32>,
    /// One says none that there is: it may be under any.
    any_term: bool,
    entries: Vec<Vec<u8>>,
}

impl Passed {
    /// One more, of this old term; `None` where it names none that there is.
    pub(super) fn add(&mut self, entry: Vec<u8>, term: Option<u32>) {
        self.count += 1;
        match term {
            Some(term) => drop(self.terms.insert(term)),
            None => self.any_term = true,
        }
        if self.entries.len() < ENTRIES_MAX {
            self.entries.push(entry);
        }
    }

    /// Adds what a later step has passed.
    pub fn join(&mut self, later: Passed) {
        self.count += later.count;
        self.terms.extend(later.terms);
        self.any_term |= later.any_term;
        let room = ENTRIES_MAX - self.entries.len();
        self.entries.extend(later.entries.into_iter().take(room));
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether the key of an old term is to be kept.
    pub(super) fn needs(&self, term: u32) -> bool {
        self.any_term || self.terms.contains(&term)
    }

    pub(super) fn entries(&self) -> &[Vec<u8>] {
        &self.entries
    }

    /// What they are called: of very many, the first.
    pub fn names(&self) -> impl Iterator<Item = String> {
        // A name that cannot be read is damage as well.
        let name = |entry: &Vec<u8>| name::decode(entry).map_or_else(|| hex::encode(entry), |key| key.to_string());
        self.entries.iter().map(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_names_no_term_keeps_all_keys_and_the_names_of_very_many_are_bounded() {
        let mut passed = Passed::default();
        assert!(passed.count() == 0 && !passed.needs(0));
        passed.add(b"x".to_vec(), Some(2));
        assert!(passed.needs(2) && !passed.needs(1));
        let mut later = Passed::default();
        (0..ENTRIES_MAX).for_each(|_| later.add(b"y".to_vec(), None));
        passed.join(later);
        assert!(passed.needs(1) && passed.needs(2));
        assert_eq!((passed.count(), passed.names().count()), (ENTRIES_MAX as u64 + 1, ENTRIES_MAX));
    }
}
