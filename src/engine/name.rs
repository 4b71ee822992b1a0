//! The names clients give to roles, issuers and keys.

/// The longest name, in bytes.
pub(super) const NAME_MAX: usize = 128;

/// Whether `name` may name a role, an issuer or a key: `\w(([\w-.]+)?\w)?`.
pub(super) fn is_name(name: &str) -> bool {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let bytes = name.as_bytes();
    bytes.len() <= NAME_MAX
        && bytes.first().is_some_and(word)
        && bytes.last().is_some_and(word)
        && bytes.iter().all(|byte| word(byte) || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_joined_by_dots_and_dashes() {
        assert!(is_name("a") && is_name("web-1.example_x"));
        assert!(!is_name("") && !is_name("-a") && !is_name("a.") && !is_name("a/b") && !is_name("é"));
    }
}
