//! Plain values as bytes: little-endian numbers, and bytes behind their length. Reading trusts nothing: no length reaches
//! beyond the message, which is bounded itself, and what is not as it should be is [`Malformed`].

use bytes::{Buf, BufMut, TryGetError};

/// Bytes that are no message. Whoever sent them is not to be listened to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl From<TryGetError> for Malformed {
    fn from(_: TryGetError) -> Malformed {
        Malformed
    }
}

/// Reads values one after the other.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.0.try_get_u8()?)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(self.0.try_get_u16_le()?)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(self.0.try_get_u32_le()?)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(self.0.try_get_u64_le()?)
    }

    pub(super) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.u32()?).map_err(|_| Malformed)?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn text(&mut self) -> Result<String, Malformed> {
        std::str::from_utf8(self.bytes()?).map(str::to_owned).map_err(|_| Malformed)
    }

    /// Text of at most `max` bytes, fit for a line of a log: control characters become blanks.
    pub(super) fn line(&mut self, max: usize) -> Result<String, Malformed> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)?;
        if text.len() > max {
            return Err(Malformed);
        }
        Ok(text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect())
    }

    /// What may be absent.
    pub(super) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // Longer ones are cut: nothing that long comes here, and the reader would refuse them.
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.put_u32_le(len);
    out.put_slice(&bytes[..bytes.len().min(len as usize)]);
}

/// At most `max` bytes of a text.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str, max: usize) {
    put_bytes(out, &text.as_bytes()[..text.floor_char_boundary(max)]);
}

pub(super) fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.put_u8(value.is_some().into());
    if let Some(value) = value {
        put(out, value);
    }
}
