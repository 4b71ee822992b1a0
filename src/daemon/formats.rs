//! The newest format of each kind of record that this Keyway knows. A snapshot with a newer one is refused before anything is
//! sealed for it; what reads a record knows best, and refuses it, too.

use crate::store::RecordKey;

/// That of every kind that is not listed.
const FIRST: u16 = 1;
/// Those that have changed: the first part of the collection, what follows the mount in it, the name, unless it is any, and the
/// format. `tests/tidy.rs` holds this to what is written.
const CHANGED: [(&str, &str, Option<&str>, u16); 5] = [
    ("tokens", "", None, 2),
    ("managed-keys", "", None, 2),
    ("pki", "issuers", None, 2),
    ("pki", "revoked", None, 2),
    ("pki", "config", Some("urls"), 2),
];

/// That of a record.
pub(super) fn known(record: &RecordKey) -> u16 {
    let (first, rest) = record.collection.split_once('/').unwrap_or((&record.collection, ""));
    let kind = rest.split_once('/').map_or("", |(_mount, kind)| kind);
    let is_of = |listed: &&(&str, &str, Option<&str>, u16)| {
        (listed.0, listed.1) == (first, kind) && listed.2.is_none_or(|name| name == record.name)
    };
    CHANGED.iter().find(is_of).map_or(FIRST, |listed| listed.3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Namespace;

    #[test]
    fn a_record_is_known_by_its_room_its_kind_and_its_name() {
        let of = |collection, name| known(&RecordKey::new(&Namespace::root(), collection, name));
        assert_eq!([of("tokens", "a"), of("pki/0-1/issuers", "a"), of("pki/0-1/config", "urls")], [2; 3]);
        assert_eq!([of("policies", "tokens"), of("pki/0-1/config", "crl"), of("transit/0-1/issuers", "a")], [1; 3]);
    }
}
