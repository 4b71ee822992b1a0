//! Stories about mounts.

use futures_util::FutureExt;

use super::*;
use crate::config::Storage;
use crate::store::Ephemeral;

fn namespaces() -> Namespaces {
    let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap())).unwrap();
    store.initialize().unwrap();
    let namespaces = Namespaces::new(store, &[], &Limits::default());
    namespaces.load().unwrap();
    namespaces
}

fn configured(namespaces: &Namespaces, paths: &[&str]) -> Namespaces {
    let paths: Vec<Namespace> = paths.iter().map(|path| Namespace::from_path(path)).collect();
    Namespaces::new(namespaces.0.store.clone(), &paths, &Limits::default())
}

/// The namespaces of the next start, with a stanza for each of `paths`.
fn restarted(namespaces: &Namespaces, paths: &[&str]) -> Namespaces {
    let again = configured(namespaces, paths);
    again.load().unwrap();
    again
}

fn reloaded(namespaces: &Namespaces) -> Namespaces {
    restarted(namespaces, &[])
}

fn pki(path: &str) -> NewMount {
    NewMount { path: path.into(), engine: "pki".into(), ..NewMount::default() }
}

/// A record as an engine would keep it for `mount`.
fn record(mount: &Mount, prefix: &str, name: &str) -> RecordKey {
    RecordKey::new(&mount.namespace, format!("{prefix}{}/cert", mount.uuid), name)
}

fn put(key: RecordKey) -> Write {
    Write::Put { key, version: 1, value: b"{}".to_vec() }
}

#[tokio::test]
async fn a_namespace_and_those_below_it_have_so_many_mounts_together() {
    let store = namespaces().0.store.clone();
    let paths = ["a/b", "ab"].map(Namespace::from_path);
    let namespaces = Namespaces::new(store, &paths, &Limits { mounts_per_namespace: 2, ..Limits::default() });
    namespaces.load().unwrap();
    let [root, a, b, ab] = ["", "a", "a/b", "ab"].map(Namespace::from_path);
    for namespace in [&root, &a, &b, &root] {
        namespaces.enable(namespace, pki(&format!("ca-{}", namespaces.mounts(namespace).len()))).await.unwrap();
    }
    for namespace in [&a, &b, &root] {
        let told = namespaces.enable(namespace, pki("more")).await.unwrap_err().to_string();
        assert!(told.contains("have 2 mounts together"), "{told}");
    }
    namespaces.enable(&ab, pki("ca")).await.unwrap();
    namespaces.disable(&b, "ca-0", |_| Ok(Vec::new())).await.unwrap();
    namespaces.enable(&a, pki("more")).await.unwrap();
}

#[tokio::test]
async fn mounts_of_a_namespace_that_is_not_served_are_known_and_lead_nowhere() {
    let first = restarted(&namespaces(), &["a"]);
    let a = Namespace::from_path("a");
    let mount = first.enable(&a, pki("ca")).await.unwrap();
    let uuids = |namespaces: &Namespaces| -> Vec<String> {
        namespaces.known_mounts(&a).iter().map(|mount| mount.uuid.clone()).collect()
    };
    assert_eq!(uuids(&first), [mount.uuid.as_str()]);
    let away = reloaded(&first);
    assert_eq!((uuids(&away), away.mounts(&a).len()), (vec![mount.uuid.clone()], 0));
    assert!(away.route(&a, "ca/x").is_none());
    assert_eq!(uuids(&restarted(&away, &["a"])), [mount.uuid.as_str()]);
}

#[tokio::test]
async fn paths_lead_to_their_mount_and_mounts_do_not_nest() {
    let namespaces = namespaces();
    let root = Namespace::root();
    namespaces.enable(&root, pki("/teams/ca/")).await.unwrap();
    let (mount, rest) = namespaces.route(&root, "teams/ca/sign/web").unwrap();
    assert_eq!((mount.path.as_str(), rest), ("teams/ca/", "sign/web"));
    for elsewhere in ["teams/other", "teams", "teams/cab/x"] {
        assert!(namespaces.route(&root, elsewhere).is_none(), "{elsewhere}");
    }
    for taken in ["teams/ca", "teams", "teams/ca/deeper"] {
        let refused = namespaces.enable(&root, pki(taken)).await.unwrap_err();
        assert_eq!(refused, Fault::invalid("path is already in use at teams/ca/"), "{taken}");
    }
    // Beginning alike is not nesting.
    namespaces.enable(&root, pki("teams/ca2")).await.unwrap();
}

#[tokio::test]
async fn reserved_and_malformed_paths_are_refused() {
    let namespaces = namespaces();
    let root = Namespace::root();
    for reserved in ["sys", "sys/x", "auth/token", "identity", "cubbyhole", "audit"] {
        let refused = namespaces.enable(&root, pki(reserved)).await.unwrap_err();
        assert_eq!(refused, Fault::invalid(format!("path {reserved:?} is reserved")));
    }
    let long = "a".repeat(PATH_BYTES + 1);
    for bad in ["", "/", "a//b", "../x", "a b", "x.", "a/\u{0}", long.as_str()] {
        assert!(namespaces.enable(&root, pki(bad)).await.is_err(), "{bad:?}");
    }
    assert!(namespaces.mounts(&root).is_empty());
}

#[tokio::test]
async fn a_namespace_without_a_stanza_does_not_exist() {
    let namespaces = restarted(&namespaces(), &["team-b"]);
    let team = Namespace::from_path("team-a");
    let what =
        "namespace \"team-a/\" does not exist: make it at sys/namespaces, or by a stanza of the configuration".into();
    let absent = Fault::NotFound { what };
    assert_eq!(namespaces.require(&team), Err(absent.clone()));
    assert_eq!(namespaces.enable(&team, pki("pki")).await, Err(absent.clone()));
    assert_eq!(namespaces.tune(&team, "pki", Tune::default()).await, Err(absent.clone()));
    assert_eq!(namespaces.disable(&team, "pki", |_| Ok(Vec::new())).await, Err(absent));
    namespaces.enable(&Namespace::root(), pki("pki")).await.unwrap();
    assert!(namespaces.mount(&team, "pki").is_none() && namespaces.route(&team, "pki/ca").is_none());
    assert!(namespaces.mounts(&team).is_empty());
}

#[tokio::test]
async fn two_namespaces_have_two_mounts_at_one_path() {
    let namespaces = restarted(&namespaces(), &["team-a", "team-b/ci"]);
    let names = ["", "team-a", "team-b", "team-b/ci"].map(Namespace::from_path);
    assert_eq!(namespaces.all(), names);
    let children =
        |of: &Namespace| -> Vec<Namespace> { namespaces.children(of).into_iter().map(|child| child.path).collect() };
    assert_eq!(children(&names[0]), [names[1].clone(), names[2].clone()]);
    assert_eq!(children(&names[2]), [names[3].clone()]);
    let mut uuids = Vec::new();
    for namespace in &names {
        uuids.push(namespaces.enable(namespace, pki("pki")).await.unwrap().uuid.clone());
    }
    let seen = |namespaces: &Namespaces| {
        names.clone().map(|namespace| {
            let (mount, rest) = namespaces.route(&namespace, "pki/ca").unwrap();
            assert_eq!((&mount.namespace, rest), (&namespace, "ca"));
            assert_eq!(namespaces.mounts(&namespace), std::slice::from_ref(&mount));
            mount.uuid.clone()
        })
    };
    assert_eq!(seen(&namespaces).as_slice(), uuids);
    let again = restarted(&namespaces, &["team-a", "team-b/ci"]);
    assert_eq!(seen(&again).as_slice(), uuids);
    again.tune(&names[1], "pki", Tune { description: Some("a's".into()), ..Tune::default() }).await.unwrap();
    again.disable(&names[2], "pki", |_| Ok(Vec::new())).await.unwrap();
    let left = names.clone().map(|namespace| again.mount(&namespace, "pki").map(|mount| mount.description.clone()));
    assert_eq!(left, [Some(String::new()), Some("a's".into()), None, Some(String::new())]);
}

#[tokio::test]
async fn a_namespace_comes_back_with_its_stanza() {
    let namespaces = restarted(&namespaces(), &["team-a"]);
    let team = Namespace::from_path("team-a");
    let mount = namespaces.enable(&team, pki("pki")).await.unwrap();
    let gone = namespaces.enable(&team, pki("gone")).await.unwrap();
    let left = record(&gone, "", "1");
    namespaces.0.store.commit_now(vec![put(left.clone())]).unwrap();
    namespaces.disable(&team, "gone", |_| Err(Fault::internal("cut short"))).await.unwrap();
    let without = reloaded(&namespaces);
    assert!(without.require(&team).is_err() && without.mounts(&team).is_empty());
    let again = restarted(&without, &["team-a"]);
    assert_eq!(again.mounts(&team), [mount]);
    assert_eq!(again.0.store.get(&left).unwrap(), None, "what a disabled mount left is removed in every namespace");
}

#[tokio::test]
async fn no_mount_is_where_a_namespace_is() {
    let namespaces = restarted(&namespaces(), &["team-a/ci"]);
    let (root, team) = (Namespace::root(), Namespace::from_path("team-a"));
    for (namespace, path, taken) in
        [(&root, "team-a", "team-a/"), (&root, "team-a/pki", "team-a/"), (&team, "ci/ca", "team-a/ci/")]
    {
        let refused = namespaces.enable(namespace, pki(path)).await.unwrap_err().to_string();
        assert_eq!(refused, format!("path \"{path}/\" begins as namespace {taken:?} does: choose another"));
    }
    namespaces.enable(&team, pki("team-a/ci")).await.unwrap();
    namespaces.enable(&root, pki("team-b/ca")).await.unwrap();
    // The stanza that comes later does not take the mount's requests away unseen.
    let refused = configured(&namespaces, &["team-a/ci", "team-b"]).load().unwrap_err().to_string();
    assert!(refused.contains("namespace \"team-b/\" where mount \"team-b/ca/\" of namespace root is"), "{refused}");
    assert!(restarted(&namespaces, &["team-a/ci"]).mount(&root, "team-b/ca").is_some());
}

#[tokio::test]
async fn settings_survive_a_restart() {
    let namespaces = namespaces();
    let root = Namespace::root();
    let made = namespaces.enable(&root, pki("pki")).await.unwrap();
    assert!(made.accessor.starts_with("pki_") && made.accessor.len() == 12, "{}", made.accessor);
    let tune = Tune {
        description: Some("the team's CA".into()),
        options: Some(BTreeMap::from([("a".into(), "b".into())])),
        max_lease_ttl: Some(Duration::from_secs(3600)),
        allowed_managed_keys: Some(vec!["ca".into()]),
        passthrough_request_headers: Some(vec!["If-Modified-Since".into()]),
        allowed_response_headers: Some(vec!["Last-Modified".into()]),
        ..Tune::default()
    };
    let tuned = namespaces.tune(&root, "pki", tune).await.unwrap();
    let mount = reloaded(&namespaces).mount(&root, "pki/").unwrap();
    assert_eq!(mount, tuned);
    assert_eq!((&mount.uuid, &mount.accessor), (&made.uuid, &made.accessor));
    assert_eq!(mount.config.effective_default_ttl(), Duration::from_secs(3600));
    // What a tuning leaves out stays; a list is replaced.
    let keys = Tune { allowed_managed_keys: Some(Vec::new()), ..Tune::default() };
    let mount = namespaces.tune(&root, "pki", keys).await.unwrap();
    assert!(mount.config.allowed_managed_keys.is_empty());
    assert!(mount.config.passes("if-modified-since") && !mount.config.passes("last-modified"));
    assert!(mount.config.answers_with("last-modified") && !mount.config.answers_with("if-modified-since"));
    assert_eq!((mount.description.as_str(), mount.config.max_lease_ttl.as_secs()), ("the team's CA", 3600));
}

#[tokio::test]
async fn impossible_settings_change_nothing() {
    let namespaces = namespaces();
    let root = Namespace::root();
    namespaces.enable(&root, pki("pki")).await.unwrap();
    let backwards = Tune {
        default_lease_ttl: Some(Duration::from_secs(7200)),
        max_lease_ttl: Some(Duration::from_secs(3600)),
        ..Tune::default()
    };
    assert!(namespaces.tune(&root, "pki", backwards).await.is_err());
    let huge = Tune { description: Some("x".repeat(RECORD_BYTES)), ..Tune::default() };
    assert!(matches!(namespaces.tune(&root, "pki", huge).await, Err(Fault::TooLarge { .. })));
    let mount = namespaces.mount(&root, "pki").unwrap();
    assert_eq!((mount.description.as_str(), mount.config.max_lease_ttl), ("", Duration::ZERO));
    assert!(namespaces.tune(&root, "nowhere", Tune::default()).await.is_err());
}

#[tokio::test]
async fn a_disabled_mount_goes_with_all_its_records_however_many() {
    let namespaces = namespaces();
    let root = Namespace::root();
    let store = namespaces.0.store.clone();
    let mount = namespaces.enable(&root, pki("pki")).await.unwrap();
    let other = namespaces.enable(&root, pki("other")).await.unwrap();
    let names: Vec<String> = (0..crate::store::COMMIT_WRITES_MAX + 1).map(|index| index.to_string()).collect();
    removal::commit(&store, names.iter().map(|name| put(record(&mount, "", name))).collect()).unwrap();
    store.commit_now(vec![put(record(&other, "", "1"))]).unwrap();
    let removal =
        move |mount: &Mount| Ok(names.iter().map(|name| Write::Delete { key: record(mount, "", name) }).collect());
    assert_eq!(namespaces.disable(&root, "pki/", removal).await.unwrap(), Some(Arc::clone(&mount)));
    assert!(namespaces.mount(&root, "pki").is_none() && namespaces.route(&root, "pki/ca").is_none());
    assert!(store.collections(&root, &mount.uuid, 1).unwrap().is_empty());
    assert_eq!(store.collections(&root, &other.uuid, 10).unwrap().len(), 1, "another mount's records stay");
    assert_eq!(namespaces.disable(&root, "pki/", |_| Ok(Vec::new())).await, Ok(None), "absent is fine");
    // A new mount at the path is another mount.
    assert_ne!(namespaces.enable(&root, pki("pki")).await.unwrap().uuid, mount.uuid);
}

#[tokio::test]
async fn what_a_removal_leaves_goes_at_the_next_start() {
    let namespaces = namespaces();
    let root = Namespace::root();
    let store = namespaces.0.store.clone();
    let mount = namespaces.enable(&root, pki("pki")).await.unwrap();
    let other = namespaces.enable(&root, pki("other")).await.unwrap();
    let records = [record(&mount, "", "1"), record(&mount, "pki/", "2"), record(&other, "pki/", "3")];
    store.commit_now(records.iter().cloned().map(put).collect()).unwrap();
    namespaces.disable(&root, "pki", |_| Err(Fault::internal("cut short"))).await.unwrap();
    assert!(namespaces.mount(&root, "pki").is_none());
    let again = reloaded(&namespaces);
    let left: Vec<bool> = records.iter().map(|key| store.get(key).unwrap().is_some()).collect();
    assert_eq!(left, [false, false, true]);
    assert_eq!(again.mounts(&root), [other]);
    assert!(store.list(&root, "mounts-removed", None, 1).unwrap().is_empty());
}

#[tokio::test]
async fn a_change_whose_asker_leaves_is_whole() {
    let namespaces = namespaces();
    let root = Namespace::root();
    assert!(namespaces.enable(&root, pki("pki")).now_or_never().is_none());
    // The next change comes after it, and sees it.
    let refused = namespaces.enable(&root, pki("pki")).await.unwrap_err();
    assert_eq!(refused, Fault::invalid("path is already in use at pki/"));
    assert_eq!(reloaded(&namespaces).mounts(&root), namespaces.mounts(&root));
}
