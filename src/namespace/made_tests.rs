//! Stories about namespaces that the API makes.

use crate::config::{Limits, Storage};
use crate::namespace::{NewMount, removal};
use crate::store::Ephemeral;

use super::*;

fn store() -> Store {
    let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap())).unwrap();
    store.initialize().unwrap();
    store
}

/// The namespaces of a start, with a stanza for each of `paths`.
fn started(store: &Store, paths: &[&str], limits: &Limits) -> Namespaces {
    let configured: Vec<Namespace> = paths.iter().map(|path| Namespace::from_path(path)).collect();
    let namespaces = Namespaces::new(store.clone(), &configured, limits);
    namespaces.load().unwrap();
    namespaces
}

fn notes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl Namespaces {
    async fn made(&self, path: &str) -> Result<NamespaceInfo, Fault> {
        let namespace = Namespace::from_path(path);
        let parent = namespace.parent().unwrap();
        let name = namespace.as_str().strip_prefix(parent.as_str()).unwrap().to_owned();
        self.make(&parent, &name, MetadataChange::Keep).await
    }

    async fn refused(&self, path: &str) -> String {
        self.made(path).await.unwrap_err().to_string()
    }

    fn paths(&self) -> Vec<String> {
        self.all().iter().map(|namespace| namespace.as_str().to_owned()).collect()
    }
}

#[tokio::test]
async fn one_is_made_in_one_that_is_there_and_outlives_a_restart() {
    let store = store();
    let namespaces = started(&store, &[], &Limits::default());
    let what = "namespace \"a/\" does not exist: make it at sys/namespaces, or by a stanza of the configuration";
    assert_eq!(namespaces.refused("a/b").await, what);
    let a = namespaces.made("a").await.unwrap();
    let b = namespaces.made("a/b").await.unwrap();
    assert_eq!(b.path, Namespace::from_path("a/b"));
    assert!(a.id.len() == 6 && a.id.chars().all(|c| c.is_ascii_alphanumeric()) && a.id != b.id, "{a:?} {b:?}");
    namespaces.enable(&b.path, NewMount { path: "pki".into(), ..NewMount::default() }).await.unwrap();
    let again = started(&store, &[], &Limits::default());
    assert_eq!(again.paths(), ["", "a/", "a/b/"]);
    assert_eq!(again.children(&Namespace::root()), std::slice::from_ref(&a));
    assert_eq!(again.look_up(&a.path, "b"), Ok(Some(b.clone())));
    assert!(again.mount(&b.path, "pki").is_some());
    // Made once more, it is the same.
    assert_eq!(again.made("a/b").await, Ok(b));
}

#[tokio::test]
async fn notes_are_replaced_by_a_write_and_merged_by_a_patch() {
    let store = store();
    let namespaces = started(&store, &["b"], &Limits::default());
    let root = Namespace::root();
    let given = MetadataChange::Replace(notes(&[("owner", "ca"), ("tier", "1")]));
    let made = namespaces.make(&root, "a", given).await.unwrap();
    let kept = namespaces.make(&root, "a", MetadataChange::Keep).await.unwrap();
    assert_eq!(kept, made, "a write that says nothing of them leaves them");
    let patch = MetadataChange::Merge(BTreeMap::from([("tier".into(), None), ("site".into(), Some("x".into()))]));
    let patched = namespaces.patch(&root, "a", patch.clone()).await.unwrap();
    assert_eq!(patched.custom_metadata, notes(&[("owner", "ca"), ("site", "x")]));
    assert_eq!(namespaces.patch(&root, "c", patch.clone()).await, Err(Fault::absent()));
    let of_stanza = namespaces.patch(&root, "b", patch).await.unwrap();
    for too_much in [
        notes(&[("", "x")]),
        notes(&[(&"n".repeat(129), "x")]),
        notes(&[("n", &"x".repeat(513))]),
        (0..65).map(|index| (index.to_string(), String::new())).collect(),
    ] {
        let refused = namespaces.make(&root, "a", MetadataChange::Replace(too_much)).await.unwrap_err();
        assert!(refused.to_string().contains("at most 64 pairs"), "{refused}");
    }
    let again = started(&store, &["b"], &Limits::default());
    assert_eq!(again.children(&root), [patched, of_stanza]);
}

#[tokio::test]
async fn one_of_a_stanza_has_an_id_and_stays_without_it_once_the_api_wrote_it() {
    let store = store();
    let namespaces = started(&store, &["a", "b/c"], &Limits::default());
    let seen = |namespaces: &Namespaces, name: &str| namespaces.look_up(&Namespace::root(), name).unwrap();
    let (a, b) = (seen(&namespaces, "a").unwrap(), seen(&namespaces, "b").unwrap());
    assert!(a.id.len() == 6 && b.id.len() == 6 && a.id != b.id);
    assert_eq!(namespaces.made("a").await, Ok(a.clone()));
    let again = started(&store, &[], &Limits::default());
    assert_eq!((seen(&again, "a"), seen(&again, "b")), (Some(a.clone()), None));
    // The stanza that comes back finds it as it is.
    let again = started(&store, &["a", "b"], &Limits::default());
    assert_eq!((seen(&again, "a"), seen(&again, "b")), (Some(a), Some(b)));
    // With one that the API made, those that it lies in are there.
    again.made("b/d").await.unwrap();
    assert_eq!(started(&store, &[], &Limits::default()).paths(), ["", "a/", "b/", "b/d/"]);
}

#[tokio::test]
async fn what_cannot_be_a_name_is_refused() {
    let namespaces = started(&store(), &[], &Limits::default());
    let root = Namespace::root();
    let long = "a".repeat(256);
    for bad in ["root", "sys", "audit", "auth", "cubbyhole", "identity", "a b", ".", "..", "a.", "é", &long] {
        let refused = namespaces.make(&root, bad, MetadataChange::Keep).await.unwrap_err();
        assert!(matches!(refused, Fault::InvalidRequest { .. }), "{bad}: {refused}");
    }
    for nested in ["a/b", "", "/", "//a"] {
        let refused = namespaces.make(&root, nested, MetadataChange::Keep).await.unwrap_err().to_string();
        assert!(refused.starts_with("name must not contain /"), "{refused}");
    }
    assert_eq!(namespaces.paths(), [""]);
    namespaces.make(&root, "a/", MetadataChange::Keep).await.unwrap();
}

#[tokio::test]
async fn none_is_made_where_a_mount_lies_and_no_mount_where_one_is() {
    let namespaces = started(&store(), &[], &Limits::default());
    let root = Namespace::root();
    let mount = |path: &str| NewMount { path: path.into(), engine: "pki".into(), ..NewMount::default() };
    namespaces.enable(&root, mount("teams/ca")).await.unwrap();
    assert_eq!(namespaces.refused("teams").await, "path is already in use at teams/ca/");
    namespaces.made("team").await.unwrap();
    let refused = namespaces.enable(&root, mount("team/ca")).await.unwrap_err().to_string();
    assert!(refused.contains("begins as namespace \"team/\" does"), "{refused}");
}

#[tokio::test]
async fn there_are_so_many_and_no_more() {
    let limits =
        Limits { namespaces_max: 4, namespaces_per_namespace: 2, mounts_per_namespace: 1, ..Limits::default() };
    let namespaces = started(&store(), &["s"], &limits);
    for path in ["a", "a/b", "a/b/c"] {
        namespaces.made(path).await.unwrap();
    }
    let refused = namespaces.refused("d").await;
    assert!(refused.starts_with("there are 4 namespaces, as limits { namespaces_max } allows"), "{refused}");
    let limits = Limits { namespaces_max: 9, ..limits };
    let namespaces = started(&namespaces.0.store, &["s"], &limits);
    for path in ["a/d", "a/b/d"] {
        let refused = namespaces.refused(path).await;
        assert!(refused.starts_with("namespace a/ has 2 below it"), "{refused}");
    }
    namespaces.made("d").await.unwrap();
    let mount = |path: &str| NewMount { path: path.into(), engine: "pki".into(), ..NewMount::default() };
    namespaces.enable(&Namespace::root(), mount("one")).await.unwrap();
    let refused = namespaces.enable(&Namespace::root(), mount("two")).await.unwrap_err().to_string();
    assert!(refused.contains("limits { mounts_per_namespace }"), "{refused}");
}

#[tokio::test]
async fn ten_thousand_are_made_and_read_again() {
    let store = store();
    let namespaces = started(&store, &[], &Limits::default());
    for index in 0..10_000 {
        namespaces.made(&format!("t{index}")).await.unwrap();
    }
    let ids: HashSet<String> = namespaces.children(&Namespace::root()).into_iter().map(|child| child.id).collect();
    assert_eq!(ids.len(), 10_000, "every id is its own");
    assert!(namespaces.refused("one-more").await.contains("namespaces_max"));
    assert_eq!(started(&store, &[], &Limits::default()).children(&Namespace::root()).len(), 10_000);
}

/// Gives the namespace so many records in a mount's collection.
fn fill(store: &Store, namespace: &Namespace, records: usize) {
    let key = |index: usize| RecordKey::new(namespace, format!("uuid{}/cert", index % 7), index.to_string());
    let put = |index| Write::Put { key: key(index), version: 1, value: b"{}".to_vec() };
    for step in (0..records).collect::<Vec<_>>().chunks(5000) {
        store.commit_now(step.iter().copied().map(put).collect()).unwrap();
    }
}

#[tokio::test]
async fn a_deleted_namespace_is_gone_at_once_and_made_anew_once_it_is_empty() {
    let store = store();
    let namespaces = started(&store, &[], &Limits::default());
    let root = Namespace::root();
    let (a, old) = (Namespace::from_path("a"), namespaces.made("a").await.unwrap().id);
    let mount = namespaces.enable(&a, NewMount { path: "pki".into(), ..NewMount::default() }).await.unwrap();
    fill(&store, &a, 20);
    assert_eq!(namespaces.delete(&root, "a").await, Ok(Some(a.clone())));
    assert!(namespaces.require(&a).is_err() && namespaces.mount(&a, "pki").is_none());
    assert!(namespaces.enable(&a, NewMount { path: "x".into(), ..NewMount::default() }).await.is_err());
    assert_eq!(namespaces.delete(&root, "a").await, Ok(None), "it is gone");
    assert!(namespaces.refused("a").await.contains("is being deleted: try again"));
    assert_eq!(namespaces.removals(), [(a.clone(), vec![mount])]);
    namespaces.empty(&a).unwrap();
    assert!(store.collections(&a, "", 1).unwrap().is_empty());
    assert!(namespaces.refused("a").await.contains("is being deleted"), "until it is said to be over");
    namespaces.end_removal(&a).await.unwrap();
    let anew = namespaces.made("a").await.unwrap();
    assert!(anew.id != old && namespaces.mounts(&a).is_empty() && namespaces.removals().is_empty());
    assert_eq!(started(&store, &[], &Limits::default()).paths(), ["", "a/"]);
}

#[tokio::test]
async fn a_removal_that_is_cut_short_is_taken_up_at_the_next_start() {
    let store = store();
    let namespaces = started(&store, &["s"], &Limits::default());
    let root = Namespace::root();
    for path in ["a", "b", "ab"] {
        namespaces.made(path).await.unwrap();
        fill(&store, &Namespace::from_path(path), 3000);
    }
    for name in ["a", "b"] {
        namespaces.delete(&root, name).await.unwrap();
    }
    // Killed before, or in the middle.
    let first = store.collections(&Namespace::from_path("a"), "", 1).unwrap().remove(0);
    removal::remove_collections(&store, &Namespace::from_path("a"), &first).unwrap();
    // A stanza that names one of them has it empty.
    let again = started(&store, &["s", "b"], &Limits::default());
    let [a, b, ab] = ["a", "b", "ab"].map(Namespace::from_path);
    assert_eq!(again.paths(), ["", "ab/", "b/", "s/"]);
    assert!(store.collections(&b, "", 1).unwrap().is_empty());
    assert_eq!(again.remade(), std::slice::from_ref(&b));
    // Until what is kept of it elsewhere has ended, every start finds it so.
    assert_eq!(started(&store, &["b"], &Limits::default()).remade(), std::slice::from_ref(&b));
    again.end_remade(&b).unwrap();
    assert!(again.remade().is_empty() && started(&store, &["b"], &Limits::default()).remade().is_empty());
    assert!(again.refused("a").await.contains("is being deleted"));
    assert_eq!(again.removals(), [(a.clone(), Vec::new())]);
    again.empty(&a).unwrap();
    again.end_removal(&a).await.unwrap();
    let left = |namespace: &Namespace| store.collections(namespace, "", 10).unwrap().len();
    assert_eq!([left(&a), left(&ab)], [0, 7], "another's records stay");
    assert!(started(&store, &["s"], &Limits::default()).removals().is_empty());
}

#[tokio::test]
async fn one_of_the_configuration_or_with_others_in_it_is_not_deleted() {
    let store = store();
    let namespaces = started(&store, &["s", "t/u"], &Limits::default());
    let root = Namespace::root();
    for path in ["a", "a/b", "s"] {
        namespaces.made(path).await.unwrap();
    }
    let refused = async |parent: &Namespace, name| namespaces.delete(parent, name).await.unwrap_err().to_string();
    assert_eq!(refused(&root, "a").await, "cannot delete namespace (\"a/\") containing child namespaces");
    for name in ["s", "t"] {
        let told = refused(&root, name).await;
        assert!(told.contains("is made by the configuration: take its stanza out"), "{told}");
    }
    for odd in ["", "a/b"] {
        assert!(refused(&root, odd).await.starts_with("name must not contain /"));
    }
    namespaces.delete(&Namespace::from_path("a"), "b").await.unwrap().unwrap();
    namespaces.delete(&root, "a").await.unwrap().unwrap();
    // Without its stanza it is the API's alone.
    let again = started(&store, &[], &Limits::default());
    again.delete(&root, "s").await.unwrap().unwrap();
    assert_eq!(again.paths(), [""]);
}
