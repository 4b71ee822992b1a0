//! Terms and root keys that change while records are read and written.

use super::*;
use crate::store::name;
use crate::store::physical::Change;

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
    let step = store.reencrypt(&Cursor::default()).unwrap();
    assert!(step.next.is_some() && store.key_status().unwrap().old_terms == [0]);
    store.close();
    drop(store);
    let store = files.open().unwrap();
    assert_eq!(store.key_status().unwrap().old_terms, [0]);
    assert_eq!(walk(&store), 600 - 256 - 1);
    let none = Passed::default();
    assert!(!store.drop_terms_before(0, &none).unwrap() && store.drop_terms_before(1, &none).unwrap());
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
    assert_eq!(walked(store).count(), 0);
    store.key_status().unwrap().reencrypted
}

/// Walks over all records; answers what it had to pass.
fn walked(store: &Store) -> Passed {
    store.settle_terms().unwrap();
    let (mut next, mut passed) = (Some(Cursor::default()), Passed::default());
    while let Some(from) = next {
        let step = store.reencrypt(&from).unwrap();
        passed.join(step.passed);
        next = step.next;
    }
    passed
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
        assert!(store.drop_terms_before(1, &Passed::default()).unwrap());
        let records = store.scan(&Namespace::root(), "c", None, 1000).unwrap();
        assert_eq!(records.len(), 199);
        assert!(records.iter().all(|(_, record)| record.value == b"new"));
    }
}

/// Alters what is stored of a record, outside the barrier.
fn alter(store: &Store, name: &str, change: impl Fn(&mut Vec<u8>)) {
    let entry = name::encode(&key("c", name)).unwrap();
    let mut sealed = store.physical().get(&entry).unwrap().unwrap();
    change(&mut sealed);
    store.inner_ref().submit_and_wait(vec![Change::Put { key: entry, value: sealed }]).unwrap();
}

/// Rotates, walks, and ends the walk; answers what it passed, and the terms that are left.
fn rotated(store: &Store) -> (Passed, Vec<u32>) {
    let term = store.rotate().unwrap();
    ended(store, term)
}

fn ended(store: &Store, term: u32) -> (Passed, Vec<u32>) {
    let passed = walked(store);
    assert!(store.drop_terms_before(term, &passed).unwrap());
    (passed, store.key_status().unwrap().old_terms)
}

#[test]
fn a_damaged_record_stops_nothing_and_its_key_is_kept_until_it_is_mended() {
    let files = Files::new();
    let store = files.open().unwrap();
    store.initialize().unwrap();
    for index in 0..700 {
        store.commit_now(vec![put("c", &format!("{index:04}"), "v")]).unwrap();
    }
    let flip = |sealed: &mut Vec<u8>| *sealed.last_mut().unwrap() ^= 1;
    alter(&store, "0300", flip);
    let (passed, old_terms) = rotated(&store);
    assert_eq!(passed.names().collect::<Vec<_>>(), [key("c", "0300").to_string()]);
    let status = store.key_status().unwrap();
    assert_eq!((old_terms, status.damaged, status.reencrypted), (vec![0], 1, 699));
    assert!(!store.is_any_mended(&passed).unwrap());
    // One more term that needs no record; then one that does.
    assert_eq!(rotated(&store).1, [0]);
    alter(&store, "0500", flip);
    let (passed, old_terms) = rotated(&store);
    assert_eq!((passed.count(), old_terms), (2, vec![0, 2]));
    assert!(store.get(&key("c", "0300")).is_err() && store.get(&key("c", "0500")).is_err());
    store.close();
    drop(store);
    // The keys are still there after a restart: what is mended opens.
    let store = files.open().unwrap();
    assert_eq!(store.key_status().unwrap().old_terms, [0, 2]);
    alter(&store, "0300", flip);
    assert_eq!(store.get(&key("c", "0300")).unwrap().unwrap().value, b"v");
    assert!(store.is_any_mended(&passed).unwrap());
    let (passed, old_terms) = ended(&store, 3);
    assert_eq!((passed.count(), old_terms), (1, vec![2]));
    store.commit_now(vec![put("c", "0500", "new")]).unwrap();
    assert!(store.is_any_mended(&passed).unwrap());
    let (passed, old_terms) = ended(&store, 3);
    assert_eq!((passed.count(), old_terms, store.key_status().unwrap().damaged), (0, vec![], 0));
    assert_eq!(store.scan(&Namespace::root(), "c", None, 1000).unwrap().len(), 700);
}

#[test]
fn a_record_that_names_no_term_that_there_is_has_all_keys_kept() {
    for (_folder, store) in open_stores() {
        for name in ["a", "b", "d"] {
            store.commit_now(vec![put("c", name, "v")]).unwrap();
        }
        rotated(&store);
        assert!(rotated(&store).1.is_empty());
        // Its format is none; its term is none; nothing is left of it.
        alter(&store, "a", |sealed| sealed[0] = 9);
        alter(&store, "b", |sealed| sealed[3] = 7);
        alter(&store, "d", Vec::clear);
        let (passed, old_terms) = rotated(&store);
        assert_eq!((passed.count(), old_terms), (3, vec![2]));
        for name in ["a", "b", "d"] {
            store.commit_now(vec![Write::Delete { key: key("c", name) }]).unwrap();
        }
        assert!(store.is_any_mended(&passed).unwrap());
        assert!(ended(&store, 3).1.is_empty());
    }
}
