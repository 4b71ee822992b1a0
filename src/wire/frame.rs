//! Framing: a length of four bytes, big-endian, then that many bytes of one protobuf message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

/// Bytes of the length in front of each message.
pub const LENGTH_BYTES: usize = 4;

/// Why bytes are no frame. The stream cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A frame longer than the limit.
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A frame of no bytes.
    Empty,
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FrameError::TooLarge { bytes, limit } => write!(f, "a frame of {bytes} bytes is over the limit of {limit}"),
            FrameError::Empty => f.write_str("a frame of no bytes"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Takes the next whole frame off `buffer`; `None` if it is not all there yet. No copy is made.
pub fn next_frame(buffer: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(length) = buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let bytes = u32::from_be_bytes(*length) as usize;
    if bytes > limit {
        return Err(FrameError::TooLarge { bytes, limit });
    }
    if bytes == 0 {
        return Err(FrameError::Empty);
    }
    if buffer.len() < LENGTH_BYTES + bytes {
        buffer.reserve(LENGTH_BYTES + bytes - buffer.len());
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    Ok(Some(buffer.split_to(bytes).freeze()))
}

/// Appends `message` as one frame.
pub fn put_frame(buffer: &mut BytesMut, message: &impl Message) {
    let bytes = message.encoded_len();
    buffer.reserve(LENGTH_BYTES + bytes);
    // No message of ours comes near 4 GiB: bodies are bounded far below.
    buffer.put_u32(u32::try_from(bytes).unwrap_or(u32::MAX));
    // BytesMut grows as needed, so encoding into it cannot run out of room.
    let _ = message.encode(buffer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::proto::{Call, Ping, call::Operation};
    use proptest::prelude::*;

    fn ping(id: u64, payload: &'static [u8]) -> Call {
        let operation = Some(Operation::Ping(Ping { payload: Bytes::from_static(payload) }));
        Call { id, operation, ..Call::default() }
    }

    /// The bytes on the wire are a promise to clients: these must never be changed to make a test pass.
    #[test]
    fn the_bytes_of_a_ping_are_pinned() {
        let mut buffer = BytesMut::new();
        put_frame(&mut buffer, &ping(7, b"hi"));
        assert_eq!(hex::encode(&buffer), "0000000808075a040a026869");
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_it_is_read() {
        let mut buffer = BytesMut::from(&[0, 16, 0, 1][..]);
        assert_eq!(
            next_frame(&mut buffer, 1 << 20),
            Err(FrameError::TooLarge { bytes: (1 << 20) + 1, limit: 1 << 20 })
        );
        assert_eq!(next_frame(&mut BytesMut::from(&[0, 0, 0, 0][..]), 10), Err(FrameError::Empty));
    }

    proptest! {
        #[test]
        fn frames_survive_any_chunking(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..8), chunk in 1usize..50) {
            let mut stream = BytesMut::new();
            let calls: Vec<Call> = payloads.iter().enumerate().map(|(i, payload)| Call {
                id: i as u64 + 1,
                operation: Some(Operation::Ping(Ping { payload: Bytes::from(payload.clone()) })),
                ..Call::default()
            }).collect();
            calls.iter().for_each(|call| put_frame(&mut stream, call));
            let mut arrived = BytesMut::new();
            let mut seen = Vec::new();
            for part in stream.chunks(chunk) {
                arrived.extend_from_slice(part);
                while let Some(frame) = next_frame(&mut arrived, 1 << 20).unwrap() {
                    seen.push(Call::decode(frame).unwrap());
                }
            }
            prop_assert_eq!(seen, calls);
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(frame)) = next_frame(&mut buffer, 128) {
                let _ = Call::decode(frame);
            }
        }
    }
}
