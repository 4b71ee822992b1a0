//! What a policy grants on a path, as a set.

use crate::model::Capability;

/// A set of Vault's capabilities. `deny` stands alone: whoever denies grants nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u16);

/// Every word, sorted, as Vault answers them.
const WORDS: [(&str, Capabilities); 10] = [
    ("create", Capabilities::CREATE),
    ("delete", Capabilities::DELETE),
    ("deny", Capabilities::DENY),
    ("list", Capabilities::LIST),
    ("patch", Capabilities::PATCH),
    ("read", Capabilities::READ),
    // For what is not here: restoring from snapshots, and events. Accepted, and of no effect.
    ("recover", Capabilities(1 << 8)),
    ("subscribe", Capabilities(1 << 9)),
    ("sudo", Capabilities::SUDO),
    ("update", Capabilities::UPDATE),
];

impl Capabilities {
    /// Nothing.
    pub const NONE: Capabilities = Capabilities(0);
    const CREATE: Capabilities = Capabilities(1);
    const READ: Capabilities = Capabilities(1 << 1);
    const UPDATE: Capabilities = Capabilities(1 << 2);
    const PATCH: Capabilities = Capabilities(1 << 3);
    const DELETE: Capabilities = Capabilities(1 << 4);
    const LIST: Capabilities = Capabilities(1 << 5);
    /// To be let into what Vault protects beyond the other capabilities.
    pub const SUDO: Capabilities = Capabilities(1 << 6);
    /// Nothing, whatever other policies grant at the same path.
    pub const DENY: Capabilities = Capabilities(1 << 7);

    /// The capability of this word.
    pub(super) fn of(word: &str) -> Option<Capabilities> {
        WORDS.iter().find(|(known, _)| *known == word).map(|(_, capability)| *capability)
    }

    /// What the `policy` of old stands for.
    pub(super) fn of_legacy(word: &str) -> Option<Capabilities> {
        let read = Capabilities::READ.and(Capabilities::LIST);
        let write = read.and(Capabilities::CREATE).and(Capabilities::UPDATE).and(Capabilities::DELETE);
        match word {
            "deny" => Some(Capabilities::DENY),
            "read" => Some(read),
            "write" => Some(write),
            "sudo" => Some(write.and(Capabilities::SUDO)),
            _ => None,
        }
    }

    /// Every word there is, for those who used another.
    pub(super) fn words() -> String {
        WORDS.map(|(word, _)| word).join(", ")
    }

    /// Both.
    pub(super) const fn and(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 | other.0)
    }

    /// Whether all of `other` is in it.
    pub const fn has(self, other: Capabilities) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether it grants this one.
    pub const fn grants(self, capability: Capability) -> bool {
        self.has(match capability {
            Capability::Create => Capabilities::CREATE,
            Capability::Read => Capabilities::READ,
            Capability::Update => Capabilities::UPDATE,
            Capability::Patch => Capabilities::PATCH,
            Capability::Delete => Capabilities::DELETE,
            Capability::List => Capabilities::LIST,
        })
    }

    /// Whether it grants anything at all.
    pub const fn is_something(self) -> bool {
        self.0 != 0 && !self.has(Capabilities::DENY)
    }

    /// Its words, sorted; `deny` where nothing is granted.
    pub fn names(self) -> Vec<&'static str> {
        if !self.is_something() {
            return vec!["deny"];
        }
        WORDS.iter().filter(|(_, capability)| self.has(*capability)).map(|(word, _)| *word).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_sorted_and_each_is_its_own() {
        assert!(WORDS.is_sorted_by_key(|(word, _)| *word));
        let all = WORDS.iter().fold(0, |all, (_, capability)| all + capability.0);
        assert_eq!(all, (1 << WORDS.len()) - 1);
        let of = |words: &[&str]| {
            words.iter().fold(Capabilities::NONE, |all, word| all.and(Capabilities::of(word).unwrap()))
        };
        assert_eq!(of(&["update", "create", "sudo"]).names(), ["create", "sudo", "update"]);
        assert_eq!(of(&["read", "deny"]).names(), ["deny"]);
        assert_eq!(Capabilities::NONE.names(), ["deny"]);
    }

    #[test]
    fn the_words_of_old_mean_what_they_meant() {
        let legacy = |word| Capabilities::of_legacy(word).unwrap().names();
        assert_eq!(legacy("read"), ["list", "read"]);
        assert_eq!(legacy("write"), ["create", "delete", "list", "read", "update"]);
        assert_eq!(legacy("sudo"), ["create", "delete", "list", "read", "sudo", "update"]);
        assert_eq!(legacy("deny"), ["deny"]);
        assert_eq!(Capabilities::of_legacy("root"), None);
    }
}
