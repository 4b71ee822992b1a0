//! Serial numbers (RFC 5280, 4.1.2.2).

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use crate::model::Fault;

/// Longest serial number in bytes.
const BYTES_MAX: usize = 20;
/// Bytes of the time that a new one begins with.
const TIME_BYTES: usize = 6;
/// Digits of the longest, with a colon after each pair.
const TEXT_MAX: usize = 3 * BYTES_MAX;
/// Hexadecimal digits.
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// A serial number: a positive integer of at most 20 bytes, without leading zeros. Shown as Vault writes it, in
/// hexadecimal pairs with colons.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Serial {
    /// Right-aligned.
    bytes: [u8; BYTES_MAX],
}

impl Serial {
    /// A new one: the time, then 112 random bits, which make it nobody's to guess and no other's. Those made one after the
    /// other are neighbours in the store: what is written together lies together, where random ones would each have a page
    /// of their own to be read and written.
    pub(super) fn new() -> Result<Serial, Fault> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Serial::at(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
    }

    /// The same of another time, in Unix milliseconds.
    pub(super) fn at(millis: u64) -> Result<Serial, Fault> {
        let mut bytes = [0; BYTES_MAX];
        let (time, chance) = bytes.split_at_mut(TIME_BYTES);
        time.copy_from_slice(&millis.to_be_bytes()[size_of::<u64>() - TIME_BYTES..]);
        SystemRandom::new().fill(chance).map_err(|_| Fault::internal("the system gives no random bytes"))?;
        // Positive, and all of one length: the first byte is neither negative nor zero.
        bytes[0] = (bytes[0] & 0x7F).max(1);
        Ok(Serial { bytes })
    }

    /// The positive integer with these big-endian bytes, if it fits and is not zero.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Serial> {
        let start = bytes.iter().position(|byte| *byte != 0)?;
        let significant = bytes.get(start..)?;
        let mut serial = Serial { bytes: [0; BYTES_MAX] };
        let offset = BYTES_MAX.checked_sub(significant.len())?;
        serial.bytes.get_mut(offset..)?.copy_from_slice(significant);
        Some(serial)
    }

    /// A serial number as clients write it: hexadecimal, with colons, hyphens or nothing between the pairs.
    pub(super) fn parse(text: &str) -> Option<Serial> {
        if text.len() > 3 * BYTES_MAX + 2 {
            return None;
        }
        let mut digits: Vec<u8> = text.trim().bytes().filter(|byte| !matches!(byte, b':' | b'-')).collect();
        if digits.len() % 2 == 1 {
            digits.insert(0, b'0');
        }
        Serial::from_bytes(&hex::decode(digits).ok()?)
    }

    /// Its bytes, without leading zeros.
    pub(super) fn bytes(&self) -> &[u8] {
        let start = self.bytes.iter().position(|byte| *byte != 0).unwrap_or(BYTES_MAX - 1);
        self.bytes.get(start..).unwrap_or_default()
    }

    /// DER of the INTEGER.
    pub(super) fn der(&self) -> Vec<u8> {
        let bytes = self.bytes();
        // Positive: a set top bit needs a zero byte before it.
        let pad = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
        let mut der = Vec::with_capacity(bytes.len() + 3);
        der.push(0x02);
        der.push((bytes.len() + usize::from(pad)) as u8);
        if pad {
            der.push(0);
        }
        der.extend_from_slice(bytes);
        der
    }

    /// The name of its records: hexadecimal without anything between.
    pub(super) fn record_name(&self) -> String {
        let pairs = self.bytes().iter().flat_map(|byte| [byte >> 4, byte & 0x0F]);
        let mut name = String::with_capacity(2 * BYTES_MAX);
        name.extend(pairs.map(|digit| char::from(DIGITS[usize::from(digit)])));
        name
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every certificate is shown, in its log line and its answer: all digits in one go.
        let mut text = [b':'; TEXT_MAX];
        let bytes = self.bytes();
        for (pair, byte) in text.chunks_exact_mut(3).zip(bytes) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 0x0F)];
        }
        let text = text.get(..bytes.len() * 3 - 1).and_then(|text| std::str::from_utf8(text).ok());
        f.write_str(text.unwrap_or_default())
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_serial_reads_back_however_it_is_written() {
        let serial = Serial::new().unwrap();
        let text = serial.to_string();
        assert_eq!(Serial::parse(&text), Some(serial));
        assert_eq!(Serial::parse(&text.replace(':', "-")), Some(serial));
        assert_eq!(Serial::parse(&serial.record_name().to_uppercase()), Some(serial));
    }

    #[test]
    fn a_serial_is_positive_and_short_enough() {
        assert_eq!(Serial::from_bytes(&[0, 0]), None);
        assert_eq!(Serial::from_bytes(&[1; 21]), None);
        assert_eq!(Serial::from_bytes(&[0, 0x80]).unwrap().der(), [2, 2, 0, 0x80]);
        assert_eq!(Serial::from_bytes(&[0x7F]).unwrap().der(), [2, 1, 0x7F]);
        for millis in [0, 1, 1_800_000_000_000, (1 << 47) - 1, 1 << 47, u64::MAX] {
            assert_eq!(Serial::at(millis).unwrap().der().len(), 22, "{millis}");
        }
    }

    #[test]
    fn serials_of_a_later_time_sort_later_and_none_is_made_twice() {
        let [early, late] = [1_800_000_000_000, 1_800_000_000_001].map(|millis| Serial::at(millis).unwrap());
        assert!(early < late && early.record_name() < late.record_name());
        assert_ne!(Serial::at(1).unwrap(), Serial::at(1).unwrap());
    }

    proptest! {
        #[test]
        fn any_text_is_a_serial_or_none(text in "\\PC{0,80}") {
            let _ = Serial::parse(&text);
        }

        #[test]
        fn bytes_and_text_agree(bytes in proptest::collection::vec(any::<u8>(), 1..21)) {
            if let Some(serial) = Serial::from_bytes(&bytes) {
                prop_assert_eq!(Serial::parse(&serial.to_string()), Some(serial));
            }
        }
    }
}
