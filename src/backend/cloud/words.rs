//! What services and their clients say, fit to be passed on.

use std::error::Error;

use super::transport::TunnelError;

/// Most letters of it that are passed on.
const LETTERS: usize = 300;

/// What others say: without control characters, and not too long.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(LETTERS).collect()
}

/// What an error comes from at last: what lies above says but that something failed. Without what was read or answered, which
/// some causes end with: it may be a secret. A proxy's own words do not say whose they are.
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    let (mut cause, mut before) = (error, "");
    loop {
        if cause.is::<TunnelError>() {
            before = "the environment's proxy: ";
        }
        let Some(next) = cause.source() else { break };
        cause = next;
    }
    let text = format!("{before}{cause}");
    shown(text.find("body").map_or(text.as_str(), |body| &text[..body]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_cause_is_told_and_not_what_was_read() {
        let cause = std::io::Error::other("no field \"token\"\n in it, body=private key");
        let error = std::io::Error::other(cause);
        assert_eq!(innermost(&error), "no field \"token\" in it, ");
        assert_eq!(shown(&"x".repeat(1000)).len(), LETTERS);
    }
}
