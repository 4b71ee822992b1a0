//! Serial numbers (RFC 5280, 4.1.2.2).

use std::fmt;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use crate::model::Fault;

/// Longest serial number in bytes.
const BYTES_MAX: usize = 20;

/// A serial number: a positive integer of at most 20 bytes, without leading zeros. Shown as Vault writes it, in
/// hexadecimal pairs with colons.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Serial {
    /// Right-aligned.
    bytes: [u8; BYTES_MAX],
}

impl Serial {
    /// 159 random bits, not all zero.
    pub(super) fn random() -> Result<Serial, Fault> {
        let mut bytes = [0; BYTES_MAX];
        SystemRandom::new().fill(&mut bytes).map_err(|_| Fault::internal("the system gives no random bytes"))?;
        bytes[0] &= 0x7F;
        Serial::from_bytes(&bytes).ok_or_else(|| Fault::internal("the system's random bytes are all zero"))
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
        hex::encode(self.bytes())
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.bytes().iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
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
        let serial = Serial::random().unwrap();
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
        for _ in 0..64 {
            assert!(Serial::random().unwrap().der().len() <= 22);
        }
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
