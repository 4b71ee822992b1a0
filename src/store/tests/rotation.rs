//! Terms and root keys that change while records are read and written.

use super::*;

#[test]
fn terms_and_root_keys_change_under_readers_and_no_record_is_lost_or_overwritten() {
    let files = Files::new();
    let store = files.open().unwrap();
    store.initialize().unwrap();
    for index in 0..600 {
        store.commit_now(vec![put("c", &format!("{index:04}"), "v")]).unwrap();
    }
    let hash = store.keyed_hash("token", b"x").unwrap();
    assert_eq!(store.rotate().unwrap(), 1);
    store.rotate_root().unwrap();
    store.commit_now(vec![put("c", "0001", "new")]).unwrap();
    // Cut short, and taken up by the next process.
    store.settle_terms().unwrap();
    let next = store.reencrypt(&Cursor::default()).unwrap();
    assert!(next.is_some() && store.key_status().unwrap().old_terms == [0]);
    store.close();
    drop(store);
    let store = files.open().unwrap();
    assert_eq!(store.key_status().unwrap().old_terms, [0]);
    assert_eq!(walk(&store), 600 - 256 - 1);
    assert!(!store.drop_terms_before(0).unwrap() && store.drop_terms_before(1).unwrap());
    store.close();
    drop(store);
    let store = files.open().unwrap();
    let status = store.key_status().unwrap();
    assert_eq!((status.term, status.old_terms.len()), (1, 0));
    let records = store.scan(&Namespace::root(), "c", None, 1000).unwrap();
    assert_eq!(records.len(), 600);
    for (name, record) in records {
        let expected: &[u8] = if name == "0001" { b"new" } else { b"v" };
        assert_eq!(record.value, expected, "{name}");
    }
    assert_eq!(store.keyed_hash("token", b"x").unwrap(), hash);
}

/// Encrypts all records anew; answers how many.
fn walk(store: &Store) -> u64 {
    let mut next = Some(Cursor::default());
    while let Some(from) = next {
        next = store.reencrypt(&from).unwrap();
    }
    store.key_status().unwrap().reencrypted
}

#[test]
fn what_is_written_while_it_is_encrypted_anew_is_what_stays() {
    for (_folder, store) in open_stores() {
        for index in 0..200 {
            store.commit_now(vec![put("c", &format!("{index:04}"), "old")]).unwrap();
        }
        store.rotate().unwrap();
        store.settle_terms().unwrap();
        let writer = std::thread::spawn({
            let store = store.clone();
            move || {
                for index in (0..200).rev() {
                    store.commit_now(vec![put("c", &format!("{index:04}"), "new")]).unwrap();
                }
                store.commit_now(vec![Write::Delete { key: key("c", "0100") }]).unwrap();
            }
        });
        walk(&store);
        writer.join().unwrap();
        walk(&store);
        assert!(store.drop_terms_before(1).unwrap());
        let records = store.scan(&Namespace::root(), "c", None, 1000).unwrap();
        assert_eq!(records.len(), 199);
        assert!(records.iter().all(|(_, record)| record.value == b"new"));
    }
}
