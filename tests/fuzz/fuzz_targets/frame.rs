//! The framed wire: any bytes are frames and calls, or errors, never a panic; however they are cut, the frames are the
//! same; and what is a call reads the same again when it is written.
#![no_main]

use bytes::{Bytes, BytesMut};
use keyway::wire::{frame, proto};
use libfuzzer_sys::fuzz_target;
use prost::Message;

const LIMIT: usize = 64 << 10;

fn frames(buffer: &mut BytesMut, found: &mut Vec<Bytes>) -> bool {
    loop {
        match frame::next_frame(buffer, LIMIT) {
            Ok(Some(frame)) => found.push(frame),
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut whole = Vec::new();
    let good = frames(&mut BytesMut::from(bytes), &mut whole);

    let (mut cut, mut buffer) = (Vec::new(), BytesMut::new());
    let still_good = bytes.chunks(7).all(|chunk| {
        buffer.extend_from_slice(chunk);
        frames(&mut buffer, &mut cut)
    });
    assert_eq!((good, &whole), (still_good, &cut));

    for frame in whole {
        if let Ok(call) = proto::Call::decode(frame) {
            assert_eq!(proto::Call::decode(call.encode_to_vec().as_slice()).as_ref(), Ok(&call));
            // Whatever it asks for is understood or refused.
            let _ = keyway::wire::parse_call(call.operation);
        }
    }
});
