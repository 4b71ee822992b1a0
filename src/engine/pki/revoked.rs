//! The certificates revoked, in memory: found by serial number, and encoded already for the next CRL.

use std::collections::HashMap;
use std::sync::Arc;

use super::asn1::sequence;
use super::serial::Serial;
use super::validity::encode_time;
use crate::model::Fault;

/// Entries of one chunk.
const CHUNK: usize = 1024;

/// Revoked certificates.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    times: HashMap<Serial, u64>,
    /// Whole chunks of entries, encoded, shared with CRLs being made.
    chunks: Vec<Arc<[u8]>>,
    /// The entries of the last, not yet whole chunk.
    tail: Vec<u8>,
    tail_entries: usize,
    /// Those that came since the last complete CRL, for delta CRLs.
    since: Vec<Serial>,
    /// Counts changes.
    changes: u64,
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
        self.times.get(serial).copied()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    /// Adds one; a serial number known already stays as it is.
    pub(super) fn add(&mut self, serial: Serial, time: u64) -> Result<(), Fault> {
        if self.times.contains_key(&serial) {
            return Ok(());
        }
        let entry = entry(&serial, time)?;
        self.times.insert(serial, time);
        self.since.push(serial);
        self.changes += 1;
        self.tail.extend_from_slice(&entry);
        self.tail_entries += 1;
        if self.tail_entries == CHUNK {
            self.chunks.push(std::mem::take(&mut self.tail).into());
            self.tail_entries = 0;
        }
        Ok(())
    }

    /// The entries as they are now. Cheap: whole chunks are shared.
    pub(super) fn entries(&self) -> Entries {
        let mut chunks = self.chunks.clone();
        if !self.tail.is_empty() {
            chunks.push(self.tail.as_slice().into());
        }
        Entries { chunks, count: self.len(), changes: self.changes, since: self.since.len() }
    }

    /// The entries that came since the last complete CRL.
    pub(super) fn entries_since(&self) -> Result<Entries, Fault> {
        let mut bytes = Vec::new();
        let since = self.since.iter().filter_map(|serial| self.times.get(serial).map(|time| (serial, *time)));
        let mut count = 0;
        for (serial, time) in since {
            bytes.extend_from_slice(&entry(serial, time)?);
            count += 1;
        }
        Ok(Entries { chunks: vec![bytes.into()], count, changes: self.changes, since: self.since.len() })
    }

    /// Notes that a complete CRL has those entries.
    pub(super) fn covered(&mut self, entries: &Covered) {
        self.since.drain(..entries.since.min(self.since.len()));
    }

    /// Compares with a CRL made earlier, which had so many entries and was made at `time`: answers the count of changes it
    /// stands for, and keeps for delta CRLs what may have come later.
    pub(super) fn compare(&mut self, entries: usize, time: u64) -> u64 {
        // In the very second of the CRL, only the number of entries tells.
        let is_complete = entries == self.len() && self.times.values().all(|revoked| *revoked <= time);
        let times = &self.times;
        self.since.retain(|serial| times.get(serial).is_some_and(|revoked| *revoked >= time));
        if is_complete {
            self.since.clear();
        } else {
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

#[cfg(test)]
mod tests {
    use der::Decode;

    use super::*;

    #[test]
    fn entries_are_shared_by_chunks_and_never_lost() {
        let mut revoked = Revoked::default();
        for index in 0..3000_u32 {
            let serial = Serial::from_bytes(&(index + 1).to_be_bytes()).unwrap();
            revoked.add(serial, 1_800_000_000).unwrap();
            revoked.add(serial, 1_900_000_000).unwrap();
        }
        let entries = revoked.entries();
        assert_eq!((revoked.len(), entries.count, entries.chunks.len()), (3000, 3000, 3));
        assert_eq!(revoked.time(&Serial::from_bytes(&[1]).unwrap()), Some(1_800_000_000));
        assert_eq!(revoked.time(&Serial::from_bytes(&[0xFF; 4]).unwrap()), None);
        let bytes: Vec<u8> = entries.chunks.concat();
        let (mut left, mut seen) = (bytes.as_slice(), 0);
        while !left.is_empty() {
            (_, left) = der::asn1::AnyRef::from_der_partial(left).unwrap();
            seen += 1;
        }
        assert_eq!(seen, 3000);
    }
}
