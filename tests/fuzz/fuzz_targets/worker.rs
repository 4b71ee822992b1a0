//! What a worker process and the daemon say to each other: any bytes are a message or none, never a panic; and what is a
//! message reads the same again when it is written.
#![no_main]

use keyway::backend::process::message::{Answer, Command};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(command) = Command::decode(bytes) {
        let mut again = Vec::new();
        command.encode(&mut again);
        assert_eq!(again, bytes);
    }
    if let Ok(answer) = Answer::decode(bytes) {
        // A text may have lost its control characters, and a cause that no table has its name: once, not twice.
        let (mut once, mut twice) = (Vec::new(), Vec::new());
        answer.encode(&mut once);
        Answer::decode(&once).expect("an answer read is an answer").encode(&mut twice);
        assert_eq!(once, twice);
    }
});
