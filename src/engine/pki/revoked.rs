//! The certificates revoked, in memory: found by serial number, and encoded already for the next CRL.

use std::collections::HashMap;
use std::sync::Arc;

use super::asn1::sequence;
use super::serial::Serial;
use super::validity::encode_time;
use crate::model::Fault;

/// Entries of one chunk.
const CHUNK: usize = 1024;

/// Revoked certificates. Only ever grows.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    times: HashMap<Serial, u64>,
    /// Whole chunks of entries, encoded, shared with CRLs being made.
    chunks: Vec<Arc<[u8]>>,
    /// The entries of the last, not yet whole chunk.
    tail: Vec<u8>,
    tail_entries: usize,
}

/// The entries of a CRL, as they were at one moment.
#[derive(Clone, Debug)]
pub(super) struct Entries {
    pub(super) chunks: Vec<Arc<[u8]>>,
    /// How many entries they are.
    pub(super) count: usize,
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
        // RFC 5280, 5.1: SEQUENCE { userCertificate, revocationDate }; an absent reason is "unspecified".
        let entry = sequence(&[&serial.der(), &encode_time(time)?])?;
        self.times.insert(serial, time);
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
        Entries { chunks, count: self.len() }
    }
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
