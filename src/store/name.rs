//! How the name of a record becomes the key of an entry in the physical store, and back.
//!
//! `0x01, namespace, 0x00 0x01, collection, 0x00 0x01, name`, where a zero byte inside the namespace or the collection is
//! written `0x00 0xFF`. So no two names share a key, keys sort as (namespace, collection, name) do, and one collection is
//! one range. Names are in clear: they are found by them.

use super::RecordKey;
use crate::model::{Fault, Namespace};

/// The first byte of every record's key. The store's own entries begin otherwise.
const RECORDS: u8 = 0x01;
const END: [u8; 2] = [0x00, 0x01];
const ZERO: [u8; 2] = [0x00, 0xFF];

/// The longest namespace, collection or name, in bytes each.
pub const NAME_BYTES_MAX: usize = 1024;

/// The key under which the wrapped root key is kept.
pub(super) const SEAL: &[u8] = b"\x00seal";

/// The key under which the keyring is kept, once there was a rotation.
pub(super) const KEYRING: &[u8] = b"\x00keyring";

/// The key under which the seal's notes are kept.
pub(super) const SEAL_NOTES: &[u8] = b"\x00seal-notes";

/// The key of a record. A part that is too long, or empty where it may not be, is refused.
pub(super) fn encode(key: &RecordKey) -> Result<Vec<u8>, Fault> {
    check("a record's name", &key.name, 1)?;
    let mut bytes = collection(&key.namespace, &key.collection)?;
    bytes.extend_from_slice(key.name.as_bytes());
    Ok(bytes)
}

/// What the keys of all records of a collection begin with, and no other key does.
pub(super) fn collection(namespace: &Namespace, collection: &str) -> Result<Vec<u8>, Fault> {
    check("a collection's name", collection, 1)?;
    let mut bytes = collections(namespace, collection)?;
    bytes.extend_from_slice(&END);
    Ok(bytes)
}

/// What the keys of all records begin with whose collection begins with `prefix`.
pub(super) fn collections(namespace: &Namespace, prefix: &str) -> Result<Vec<u8>, Fault> {
    check("a namespace's path", namespace.as_str(), 0)?;
    check("a collection's name", prefix, 0)?;
    let mut bytes = Vec::with_capacity(namespace.as_str().len() + prefix.len() + 64);
    bytes.push(RECORDS);
    escape(namespace.as_str(), &mut bytes);
    bytes.extend_from_slice(&END);
    escape(prefix, &mut bytes);
    Ok(bytes)
}

/// The range of all records' keys.
pub(super) fn everything() -> (Vec<u8>, Vec<u8>) {
    (vec![RECORDS], after_prefix(&[RECORDS]))
}

/// The first key after all that begin with `prefix`: an exclusive bound.
pub(super) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut bound = prefix.to_vec();
    while let Some(last) = bound.pop() {
        if last < 0xFF {
            bound.push(last + 1);
            break;
        }
    }
    bound
}

/// The record a key names; `None` if it is no record's.
pub(super) fn decode(bytes: &[u8]) -> Option<RecordKey> {
    let (&RECORDS, rest) = bytes.split_first()? else { return None };
    let (namespace, rest) = unescape(rest)?;
    let (collection, name) = unescape(rest)?;
    let namespace_read = Namespace::from_path(&namespace);
    if namespace_read.as_str() != namespace {
        return None;
    }
    Some(RecordKey { namespace: namespace_read, collection, name: std::str::from_utf8(name).ok()?.to_owned() })
}

fn check(what: &str, text: &str, bytes_min: usize) -> Result<(), Fault> {
    if text.len() < bytes_min {
        return Err(Fault::invalid(format!("{what} is empty")));
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(Fault::TooLarge {
            what: format!("{what} has {} bytes; at most {NAME_BYTES_MAX} are stored", text.len()),
        });
    }
    Ok(())
}

fn escape(text: &str, into: &mut Vec<u8>) {
    if !text.as_bytes().contains(&0) {
        return into.extend_from_slice(text.as_bytes());
    }
    for &byte in text.as_bytes() {
        if byte == 0 {
            into.extend_from_slice(&ZERO);
        } else {
            into.push(byte);
        }
    }
}

/// The text before the first end mark, and the bytes after the mark.
fn unescape(bytes: &[u8]) -> Option<(String, &[u8])> {
    let mut text = Vec::new();
    let mut rest = bytes;
    loop {
        let (&byte, tail) = rest.split_first()?;
        rest = tail;
        if byte != 0 {
            text.push(byte);
            continue;
        }
        let (&mark, tail) = rest.split_first()?;
        rest = tail;
        match mark {
            0xFF => text.push(0),
            0x01 => return Some((String::from_utf8(text).ok()?, rest)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Short texts of few letters, zero among them, so that prefixes and collisions are likely.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![3 => "[ab/\u{0}\u{1}\u{ff}]{0,4}", 1 => "\\PC{0,20}"]
    }

    fn key() -> impl Strategy<Value = RecordKey> {
        (text(), text(), text()).prop_map(|(namespace, collection, name)| {
            RecordKey::new(&Namespace::from_path(&namespace), format!("c{collection}"), format!("n{name}"))
        })
    }

    proptest! {
        #[test]
        fn a_key_names_one_record(key in key()) {
            prop_assert_eq!(decode(&encode(&key).unwrap()), Some(key));
        }

        #[test]
        fn keys_sort_as_their_names_do(left in key(), right in key()) {
            prop_assert_eq!(left.cmp(&right), encode(&left).unwrap().cmp(&encode(&right).unwrap()));
        }

        #[test]
        fn one_collection_is_one_range(left in key(), right in key()) {
            let prefix = collection(&left.namespace, &left.collection).unwrap();
            let bytes = encode(&right).unwrap();
            let same = left.namespace == right.namespace && left.collection == right.collection;
            prop_assert_eq!(bytes.starts_with(&prefix), same);
            prop_assert_eq!(bytes >= prefix && bytes < after_prefix(&prefix), same);
        }

        #[test]
        fn collections_are_found_by_how_they_begin(key in key(), prefix in text()) {
            let bytes = encode(&key).unwrap();
            let begin = collections(&key.namespace, &prefix).unwrap();
            prop_assert_eq!(bytes.starts_with(&begin), key.collection.starts_with(&prefix));
        }

        #[test]
        fn any_bytes_are_decoded_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(key) = decode(&bytes) {
                prop_assert!(key.name.is_empty() || key.collection.is_empty() || encode(&key).unwrap() == bytes);
            }
        }
    }

    #[test]
    fn parts_without_end_or_content_are_refused() {
        let root = Namespace::root();
        assert!(matches!(encode(&RecordKey::new(&root, "c", "")), Err(Fault::InvalidRequest { .. })));
        assert!(matches!(encode(&RecordKey::new(&root, "", "n")), Err(Fault::InvalidRequest { .. })));
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        assert!(matches!(encode(&RecordKey::new(&root, "c", long)), Err(Fault::TooLarge { .. })));
    }

    #[test]
    fn the_bound_after_a_prefix_carries() {
        assert_eq!(after_prefix(&[1, 0xFF]), vec![2]);
        assert!(decode(SEAL).is_none());
    }
}
