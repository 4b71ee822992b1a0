//! The certificates revoked, in memory: found by serial number, and encoded already for the next CRL.
//!
//! Entries lie in whole chunks, shared with CRLs being made, and one that grows. One that is removed is forgotten at once; its
//! bytes stay in its chunk, and on CRLs, until that chunk is taken apart and what is left of it goes to the end, as if added
//! anew. So adding, finding and removing cost the same however many there are, chunks are always whole, and nobody holds the
//! lock for longer than one chunk takes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use der::asn1::AnyRef;
use der::{Decode, Tag, Tagged};

use super::asn1::sequence;
use super::serial::Serial;
use super::validity::encode_time;
use crate::model::Fault;

/// Entries of one chunk.
const CHUNK: usize = 1024;
/// How long it may take from a revocation's time until it is in memory, in seconds: longer than any request takes.
const LATENCY: u64 = 120;

/// Revoked certificates.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    places: HashMap<Serial, Place>,
    /// Whole chunks of entries, encoded, shared with CRLs being made.
    chunks: BTreeMap<u32, Arc<[u8]>>,
    /// The number of the chunk that grows; greater than those of all others.
    growing: u32,
    /// The entries of that chunk.
    tail: Vec<u8>,
    tail_entries: usize,
    /// Chunks with entries that were removed.
    worn: BTreeSet<u32>,
    /// Entries in chunks that were removed.
    removed: usize,
    /// Those that came since the last complete CRL, for delta CRLs.
    since: Vec<Serial>,
    /// Counts changes.
    changes: u64,
}

/// What is known of one of them.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// When it was revoked, in Unix seconds.
    time: u64,
    chunk: u32,
    /// Whether a complete CRL had it.
    is_listed: bool,
}

/// The entries of a CRL, as they were at one moment.
#[derive(Clone, Debug)]
pub(super) struct Entries {
    pub(super) chunks: Vec<Arc<[u8]>>,
    /// How many entries they are.
    pub(super) count: usize,
    /// At which count of changes this was.
    pub(super) changes: u64,
    /// How many of them came since the last complete CRL.
    pub(super) since: usize,
}

impl Revoked {
    /// When a certificate was revoked, in Unix seconds.
    pub(super) fn time(&self, serial: &Serial) -> Option<u64> {
        self.places.get(serial).map(|place| place.time)
    }

    /// Whether a complete CRL had it.
    pub(super) fn is_listed(&self, serial: &Serial) -> bool {
        self.places.get(serial).is_some_and(|place| place.is_listed)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Adds one; a serial number known already stays as it is.
    pub(super) fn add(&mut self, serial: Serial, time: u64) -> Result<(), Fault> {
        if self.places.contains_key(&serial) {
            return Ok(());
        }
        let entry = entry(&serial, time)?;
        self.places.insert(serial, Place { time, chunk: self.growing, is_listed: false });
        self.since.push(serial);
        self.changes += 1;
        self.append(&entry);
        Ok(())
    }

    fn append(&mut self, entry: &[u8]) {
        self.tail.extend_from_slice(entry);
        self.tail_entries += 1;
        if self.tail_entries == CHUNK {
            self.chunks.insert(self.growing, std::mem::take(&mut self.tail).into());
            self.tail_entries = 0;
            self.growing += 1;
        }
    }

    /// Forgets one; answers whether it was there. CRLs are free of it after [`Revoked::compact`].
    pub(super) fn remove(&mut self, serial: &Serial) -> bool {
        let Some(place) = self.places.remove(serial) else { return false };
        self.worn.insert(place.chunk);
        self.removed += 1;
        true
    }

    /// Takes one chunk apart that has entries which were removed. Answers false once there is none, and the memory they
    /// took is given back.
    pub(super) fn compact(&mut self) -> Result<bool, Fault> {
        let Some(worn) = self.worn.pop_first() else {
            if self.places.capacity() / 4 > self.places.len() {
                // As long as the growth that once made it so large.
                self.places.shrink_to_fit();
            }
            return Ok(false);
        };
        let bytes = match self.chunks.remove(&worn) {
            Some(bytes) => bytes,
            None => {
                self.tail_entries = 0;
                self.growing += 1;
                std::mem::take(&mut self.tail).into()
            }
        };
        let mut left = &*bytes;
        while !left.is_empty() {
            let (entry, serial, rest) = first_entry(left)?;
            match self.places.get_mut(&serial) {
                Some(place) if place.chunk == worn => {
                    place.chunk = self.growing;
                    self.append(entry);
                }
                // Removed; if it is there again, then in another chunk.
                _ => self.removed -= 1,
            }
            left = rest;
        }
        Ok(true)
    }

    /// Notes that entries were removed since the last CRL: it is to be made anew.
    pub(super) fn note_removals(&mut self) {
        self.changes += 1;
    }

    /// The entries as they are now. Cheap: whole chunks are shared.
    pub(super) fn entries(&self) -> Entries {
        let mut chunks: Vec<Arc<[u8]>> = self.chunks.values().cloned().collect();
        if !self.tail.is_empty() {
            chunks.push(self.tail.as_slice().into());
        }
        Entries { chunks, count: self.len() + self.removed, changes: self.changes, since: self.since.len() }
    }

    /// The entries that came since the last complete CRL.
    pub(super) fn entries_since(&self) -> Result<Entries, Fault> {
        let mut bytes = Vec::new();
        let since = self.since.iter().filter_map(|serial| self.time(serial).map(|time| (serial, time)));
        let mut count = 0;
        for (serial, time) in since {
            bytes.extend_from_slice(&entry(serial, time)?);
            count += 1;
        }
        Ok(Entries { chunks: vec![bytes.into()], count, changes: self.changes, since: self.since.len() })
    }

    /// Notes that a complete CRL has those entries.
    pub(super) fn covered(&mut self, entries: &Covered) {
        for serial in self.since.drain(..entries.since.min(self.since.len())) {
            if let Some(place) = self.places.get_mut(&serial) {
                place.is_listed = true;
            }
        }
        self.since.shrink_to(2 * self.since.len());
    }

    /// Compares with a CRL made earlier, which had so many entries and was made at `time`: answers the count of changes it
    /// stands for, and keeps for delta CRLs what may have come later. What was revoked shortly before may have been on its way
    /// into memory when the CRL was made.
    pub(super) fn compare(&mut self, entries: usize, time: u64) -> u64 {
        // In the very second of the CRL, only the number of entries tells.
        let is_complete = entries == self.len() && self.places.values().all(|place| place.time <= time);
        let places = &mut self.places;
        self.since.retain(|serial| {
            let Some(place) = places.get_mut(serial) else { return false };
            place.is_listed = is_complete || place.time.saturating_add(LATENCY) < time;
            !place.is_listed
        });
        // At a start all of them were in it.
        self.since.shrink_to_fit();
        if !is_complete {
            self.changes += 1;
        }
        self.changes - u64::from(!is_complete)
    }

    /// How many came since the last complete CRL.
    pub(super) fn since(&self) -> usize {
        self.since.len()
    }

    /// The count of changes.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }
}

/// How much of the entries a CRL has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Covered {
    pub(super) changes: u64,
    pub(super) since: usize,
}

impl Entries {
    /// What a CRL of these has.
    pub(super) fn covered(&self) -> Covered {
        Covered { changes: self.changes, since: self.since }
    }
}

/// RFC 5280, 5.1: SEQUENCE { userCertificate, revocationDate }; an absent reason is "unspecified".
fn entry(serial: &Serial, time: u64) -> Result<Vec<u8>, Fault> {
    sequence(&[&serial.der(), &encode_time(time)?])
}

/// The first of some entries: its bytes, its serial number, and those after it.
fn first_entry(bytes: &[u8]) -> Result<(&[u8], Serial, &[u8]), Fault> {
    let read = || {
        let (entry, rest) = AnyRef::from_der_partial(bytes).ok()?;
        let (serial, _) = AnyRef::from_der_partial(entry.value()).ok()?;
        let serial = Serial::from_bytes(serial.value()).filter(|_| serial.tag() == Tag::Integer)?;
        Some((bytes.get(..bytes.len() - rest.len())?, serial, rest))
    };
    read().ok_or_else(|| Fault::internal("an entry that was encoded for CRLs cannot be read"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const TIME: u64 = 1_800_000_000;

    fn serial(index: u32) -> Serial {
        Serial::from_bytes(&(index + 1).to_be_bytes()).unwrap()
    }

    fn with(count: u32) -> Revoked {
        let mut revoked = Revoked::default();
        (0..count).for_each(|index| revoked.add(serial(index), TIME).unwrap());
        revoked
    }

    /// The serial numbers that a CRL of these would list.
    fn listed(revoked: &Revoked) -> Vec<Serial> {
        let entries = revoked.entries();
        let bytes: Vec<u8> = entries.chunks.concat();
        let (mut left, mut seen) = (bytes.as_slice(), Vec::new());
        while !left.is_empty() {
            let (_, serial, rest) = first_entry(left).unwrap();
            seen.push(serial);
            left = rest;
        }
        assert_eq!(seen.len(), entries.count);
        seen
    }

    fn compact(revoked: &mut Revoked) {
        while revoked.compact().unwrap() {}
    }

    #[test]
    fn entries_are_shared_by_chunks_and_never_lost() {
        let mut revoked = with(3000);
        (0..3000).for_each(|index| revoked.add(serial(index), TIME + 1).unwrap());
        let entries = revoked.entries();
        assert_eq!((revoked.len(), entries.count, entries.chunks.len()), (3000, 3000, 3));
        assert_eq!(revoked.time(&serial(0)), Some(TIME));
        assert_eq!(revoked.time(&Serial::from_bytes(&[0xFF; 4]).unwrap()), None);
        assert_eq!(listed(&revoked).len(), 3000);
    }

    #[test]
    fn what_is_removed_is_forgotten_at_once_and_leaves_crls_and_memory_when_its_chunk_is_taken_apart() {
        let mut revoked = with(10_000);
        let in_the_making = revoked.entries();
        for index in (0..10_000).filter(|index| index % 100 != 0) {
            assert!(revoked.remove(&serial(index)) && !revoked.remove(&serial(index)));
        }
        assert_eq!((revoked.len(), revoked.time(&serial(1)), revoked.entries().count), (100, None, 10_000));
        compact(&mut revoked);
        let left: HashSet<Serial> = listed(&revoked).into_iter().collect();
        assert_eq!(left, (0..100).map(|index| serial(index * 100)).collect());
        assert_eq!((revoked.chunks.len(), revoked.tail_entries, revoked.removed), (0, 100, 0));
        assert!(revoked.places.capacity() < 1000, "{}", revoked.places.capacity());
        assert_eq!((in_the_making.count, in_the_making.chunks.len()), (10_000, 10));
        // One that comes back is on CRLs once.
        revoked.remove(&serial(100));
        revoked.add(serial(100), TIME).unwrap();
        compact(&mut revoked);
        assert_eq!((listed(&revoked).len(), revoked.removed), (100, 0));
    }

    #[test]
    fn what_a_complete_crl_had_is_known_and_what_is_removed_meanwhile_confuses_nobody() {
        let mut revoked = with(3);
        let first = revoked.entries().covered();
        revoked.add(serial(3), TIME).unwrap();
        revoked.remove(&serial(0));
        revoked.covered(&first);
        assert_eq!(
            (0..4).map(|index| revoked.is_listed(&serial(index))).collect::<Vec<_>>(),
            [false, true, true, false]
        );
        assert_eq!((revoked.since(), revoked.entries_since().unwrap().count), (1, 1));
        let mut loaded = with(3);
        for (index, time) in [(3, TIME + 400), (4, TIME + 600)] {
            loaded.add(serial(index), time).unwrap();
        }
        loaded.compare(4, TIME + 500);
        assert_eq!(
            (0..5).map(|index| loaded.is_listed(&serial(index))).collect::<Vec<_>>(),
            [true, true, true, false, false]
        );
        assert_eq!(loaded.since(), 2);
    }

    #[test]
    fn a_crl_that_still_had_what_is_gone_is_outdated_after_a_restart() {
        let mut revoked = with(3);
        assert_eq!(revoked.compare(4, TIME), revoked.changes() - 1);
        let mut revoked = with(3);
        assert_eq!(revoked.compare(3, TIME), revoked.changes());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn crls_list_what_is_there(steps in proptest::collection::vec((0..4_u8, 0..3000_u32), 1..60)) {
            let (mut revoked, mut model) = (with(2500), (0..2500).map(serial).collect::<HashSet<_>>());
            for (kind, index) in steps {
                match kind {
                    0 => {
                        revoked.add(serial(index), TIME).unwrap();
                        model.insert(serial(index));
                    }
                    1 => prop_assert_eq!(revoked.remove(&serial(index)), model.remove(&serial(index))),
                    2 => (index..index + 700).for_each(|index| {
                        revoked.remove(&serial(index));
                        model.remove(&serial(index));
                    }),
                    _ => drop(revoked.compact().unwrap()),
                }
                prop_assert_eq!(revoked.len(), model.len());
            }
            let before: HashSet<Serial> = listed(&revoked).into_iter().collect();
            prop_assert!(model.is_subset(&before));
            compact(&mut revoked);
            let all = listed(&revoked);
            prop_assert_eq!(all.len(), model.len());
            prop_assert_eq!(all.into_iter().collect::<HashSet<_>>(), model);
        }
    }
}
