use super::*;
use crate::config::{Limits, Storage};
use crate::namespace::NewMount;
use crate::store::Ephemeral;

use QuotaKind::{Concurrency, RateLimit};

async fn quotas() -> Quotas {
    let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap())).unwrap();
    store.initialize().unwrap();
    let namespaces =
        Namespaces::new(store.clone(), &["team-a/ci", "team-b"].map(Namespace::from_path), &Limits::default());
    for namespace in ["", "team-a"] {
        let mount = NewMount { path: "transit".into(), engine: "transit".into(), ..NewMount::default() };
        namespaces.enable(&Namespace::from_path(namespace), mount).await.unwrap();
    }
    Quotas::new(store, namespaces)
}

fn rate(path: &str, requests: f64) -> Quota {
    let allowance = Allowance::Rate { requests, interval_ms: 1000, block_ms: 0 };
    Quota { path: path.into(), is_inheritable: true, allowance }
}

fn at_once(path: &str, requests: usize) -> Quota {
    Quota { path: path.into(), is_inheritable: true, allowance: Allowance::AtOnce { requests } }
}

async fn put(quotas: &Quotas, kind: QuotaKind, name: &str, quota: Quota) -> Result<(), Fault> {
    quotas.put(kind, name.into(), |_| Ok(quota)).await
}

/// How many of a hundred requests at one moment are let through.
fn let_through(quotas: &Quotas, namespace: &str, path: &str, now: Instant) -> usize {
    let namespace = Namespace::from_path(namespace);
    (0..100).filter(|_| quotas.admit(&namespace, path, now).is_ok()).count()
}

#[tokio::test]
async fn a_rate_lets_a_burst_through_and_then_as_many_as_time_gives() {
    let quotas = quotas().await;
    let begun = Instant::now() + Duration::from_secs(1);
    assert!(quotas.is_empty());
    put(&quotas, RateLimit, "all", rate("", 5.0)).await.unwrap();
    assert!(!quotas.is_empty());
    assert_eq!(let_through(&quotas, "", "transit/sign/doc", begun), 5);
    let after = |ms| begun + Duration::from_millis(ms);
    assert_eq!(let_through(&quotas, "", "transit/sign/doc", after(400)), 2);
    assert_eq!(let_through(&quotas, "team-b", "sys/mounts", after(800)), 2, "all that is asked counts");
    assert_eq!(let_through(&quotas, "", "sys/mounts", after(60_000)), 5, "no more than a burst is saved up");
    // A clock that is read in another order gives nothing twice.
    assert_eq!(let_through(&quotas, "", "sys/mounts", after(59_000)), 0);
    let Err((RateLimit, Fault::QuotaExceeded { what, retry_after })) =
        quotas.admit(&Namespace::root(), "transit/sign/doc", after(60_000))
    else {
        panic!("let through")
    };
    assert_eq!(what, r#"request path "transit/sign/doc": rate limit quota exceeded"#);
    assert!(retry_after > Duration::from_millis(190) && retry_after < Duration::from_millis(210), "{retry_after:?}");
}

#[tokio::test]
async fn less_than_one_in_an_interval_is_one_in_a_longer_time() {
    let quotas = quotas().await;
    put(&quotas, RateLimit, "slow", rate("", 0.1)).await.unwrap();
    let now = Instant::now() + Duration::from_secs(1);
    assert_eq!(let_through(&quotas, "", "x", now), 1);
    assert_eq!(let_through(&quotas, "", "x", now + Duration::from_secs(9)), 0);
    assert_eq!(let_through(&quotas, "", "x", now + Duration::from_millis(10_001)), 1);
}

#[tokio::test]
async fn who_is_refused_stays_so_for_the_time_of_the_block() {
    let quotas = quotas().await;
    let allowance = Allowance::Rate { requests: 2.0, interval_ms: 1000, block_ms: 30_000 };
    put(&quotas, RateLimit, "b", Quota { path: String::new(), is_inheritable: true, allowance }).await.unwrap();
    let now = Instant::now() + Duration::from_secs(1);
    assert_eq!(let_through(&quotas, "", "x", now), 2);
    assert_eq!(let_through(&quotas, "", "x", now + Duration::from_secs(29)), 0);
    assert_eq!(let_through(&quotas, "", "x", now + Duration::from_secs(30)), 2);
}

#[tokio::test]
async fn only_the_quota_on_the_longest_path_is_asked() {
    let quotas = quotas().await;
    put(&quotas, RateLimit, "all", rate("", 1.0)).await.unwrap();
    put(&quotas, RateLimit, "team", rate("/team-a/", 2.0)).await.unwrap();
    put(&quotas, RateLimit, "engine", rate("team-a/transit", 3.0)).await.unwrap();
    put(&quotas, RateLimit, "key", rate("team-a/transit/sign/doc", 4.0)).await.unwrap();
    let now = Instant::now() + Duration::from_secs(1);
    for (namespace, path, taken) in [
        ("team-a", "transit/sign/doc", 4),
        ("team-a", "transit/sign/doc/sha2-256", 0),
        ("team-a", "transit/sign/docs", 3),
        ("team-a/ci", "transit/sign/doc", 2),
        ("team-a", "sys/mounts", 0),
        ("team-b", "transit/sign/doc", 1),
        ("", "transit/sign/doc", 0),
    ] {
        assert_eq!(let_through(&quotas, namespace, path, now), taken, "{namespace} {path}");
    }
}

#[tokio::test]
async fn a_path_that_ends_in_a_star_is_every_path_that_begins_so() {
    let quotas = quotas().await;
    for (name, path, requests) in [
        ("mount", "transit", 1.0),
        ("all", "transit/*", 2.0),
        ("sign", "/transit/sign/*", 3.0),
        ("d", "transit/sign/d*", 4.0),
        ("doc", "transit/sign/doc", 5.0),
        ("docs", "transit/sign/doc-*", 6.0),
        ("logins", "auth/unix/*", 7.0),
        ("team", "team-a/transit/*", 8.0),
        ("made", "team-a/auth/token/create", 9.0),
    ] {
        put(&quotas, RateLimit, name, rate(path, requests)).await.unwrap();
    }
    let now = Instant::now() + Duration::from_secs(1);
    for (namespace, path, taken) in [
        ("", "transit", 1),
        ("", "transit/keys/doc", 2),
        ("", "transit/sign", 0),
        ("", "transit/sign/x", 3),
        ("", "transit/sign/d", 4),
        ("", "transit/sign/dx/sha2-256", 0),
        ("", "transit/sign/doc", 5),
        ("", "transit/sign/doc/sha2-256", 0),
        ("", "transit/sign/doc-1", 6),
        ("", "auth/unix/login", 7),
        ("", "auth/token/create", 100),
        ("team-a", "transit/sign/doc", 8),
        ("team-a", "auth/token/create", 9),
        ("team-a", "auth/token/create/role", 0),
        ("team-a", "auth/unix/login", 100),
        ("team-b", "transit/sign/doc", 100),
    ] {
        assert_eq!(let_through(&quotas, namespace, path, now), taken, "{namespace} {path}");
    }
    let refused = put(&quotas, RateLimit, "other", rate("transit/sign/*", 1.0)).await.unwrap_err();
    assert!(refused.to_string().contains("quota \"sign\" lies on this path already"), "{refused}");
    let again = Quotas::new(quotas.0.store.clone(), quotas.0.namespaces.clone());
    again.load().unwrap();
    assert_eq!(again.get(RateLimit, "sign"), Some(rate("transit/sign/*", 3.0)));
    assert_eq!(let_through(&again, "", "transit/sign/x", now), 3);
    again.end("team-a/transit/").await.unwrap();
    assert_eq!(again.get(RateLimit, "team"), None);
    again.delete(RateLimit, "sign".into()).await.unwrap();
    assert_eq!(let_through(&again, "", "transit/sign/x", now), 2);
}

#[tokio::test]
async fn a_path_that_no_request_can_have_is_refused() {
    let quotas = quotas().await;
    for path in [
        "transit/+/doc",
        "transit/sign/+",
        "transit/*/doc",
        "transit/**",
        "transit/sign//doc",
        "transit/sign//*",
        "transit//",
        "//transit",
        "transit/%73ign/doc",
        "transit/../transit",
        "transit*",
        "tran*",
        "*",
        "team-a/*",
        "team-a*",
        "auth/*",
        "auth/token*",
        "auth/other",
        "team-c/auth/unix",
    ] {
        let told = put(&quotas, RateLimit, "x", rate(path, 1.0)).await.map_err(|refused| refused.to_string());
        assert!(told.as_ref().is_err_and(|told| told.contains("invalid quota path")), "{path}: {told:?}");
    }
    for path in ["auth/token", "auth/unix/", "team-a/auth/unix/login", "team-b/auth/token/create"] {
        put(&quotas, RateLimit, "x", rate(path, 1.0)).await.unwrap();
    }
}

mod beginnings {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The longest beginning is found as a look at every one finds it.
        #[test]
        fn the_longest_one_is_found(paths in proptest::collection::vec("[ab/é]{0,5}", 0..12), asked in "[ab/é]{0,7}") {
            let mut kind = Kind::default();
            for path in &paths {
                let enforced = Enforced::new(path.clone(), rate(path, 1.0));
                kind.beginnings.insert(path.clone(), Arc::new(enforced));
            }
            let longest = paths.iter().filter(|path| asked.starts_with(path.as_str())).max_by_key(|path| path.len());
            let found = kind.on_beginning(&asked).map(|(_, found)| &found.name);
            prop_assert_eq!(found, longest);
        }
    }
}

#[tokio::test]
async fn one_that_is_not_inheritable_counts_its_own_namespace_only() {
    let quotas = quotas().await;
    let own = Quota { is_inheritable: false, ..rate("team-a", 2.0) };
    put(&quotas, RateLimit, "own", own).await.unwrap();
    put(&quotas, RateLimit, "all", rate("", 1.0)).await.unwrap();
    let now = Instant::now() + Duration::from_secs(1);
    assert_eq!(let_through(&quotas, "team-a", "transit/sign/doc", now), 2);
    assert_eq!(let_through(&quotas, "team-a/ci", "transit/sign/doc", now), 1);
}

#[tokio::test]
async fn places_are_given_back_when_requests_end() {
    let quotas = quotas().await;
    put(&quotas, Concurrency, "few", at_once("transit", 2)).await.unwrap();
    let (root, now) = (Namespace::root(), Instant::now());
    let admit = || quotas.admit(&root, "transit/sign/doc", now);
    let running = [admit().unwrap_or_default(), admit().unwrap_or_default()];
    assert!(matches!(admit(), Err((Concurrency, Fault::QuotaExceeded { .. }))));
    assert!(quotas.admit(&root, "sys/mounts", now).is_ok());
    drop(running);
    assert!(admit().is_ok());
    // Of a request that the rate refuses, no place is kept.
    put(&quotas, RateLimit, "rate", rate("transit", 1.0)).await.unwrap();
    assert_eq!(let_through(&quotas, "", "transit/sign/doc", now), 1);
    put(&quotas, RateLimit, "rate", rate("transit", 100.0)).await.unwrap();
    let running = [admit().unwrap_or_default(), admit().unwrap_or_default()];
    assert!(admit().is_err());
    drop(running);
}

#[tokio::test]
async fn quotas_outlast_a_restart_and_not_what_they_lie_on() {
    let quotas = quotas().await;
    put(&quotas, RateLimit, "a", rate("team-a/transit", 7.0)).await.unwrap();
    put(&quotas, Concurrency, "b", at_once("team-b", 1)).await.unwrap();
    let again = Quotas::new(quotas.0.store.clone(), quotas.0.namespaces.clone());
    again.load().unwrap();
    assert_eq!(again.names(RateLimit), ["a"]);
    assert_eq!(again.get(RateLimit, "a"), Some(rate("team-a/transit/", 7.0)));
    assert_eq!(again.get(Concurrency, "b"), Some(at_once("team-b/", 1)));
    assert_eq!(again.get(Concurrency, "a"), None, "each kind has its own");
    again.end("team-a/").await.unwrap();
    assert!(again.names(RateLimit).is_empty());
    assert_eq!(again.names(Concurrency), ["b"]);
    again.delete(Concurrency, "b".into()).await.unwrap();
    assert!(again.is_empty());
    again.load().unwrap();
    assert!(again.is_empty());
}

#[tokio::test]
async fn a_path_is_a_namespace_or_on_a_mount_and_has_one_quota() {
    let quotas = quotas().await;
    for path in ["nowhere", "team-a/pki", "team-c", "team-b/transit", "../team-a"] {
        let refused = put(&quotas, RateLimit, "x", rate(path, 1.0)).await.unwrap_err();
        assert!(refused.to_string().contains("invalid quota path"), "{refused}");
    }
    put(&quotas, RateLimit, "x", rate("team-a", 1.0)).await.unwrap();
    let refused = put(&quotas, RateLimit, "y", rate("/team-a/", 1.0)).await.unwrap_err();
    assert!(refused.to_string().contains("quota \"x\" lies on this path already"), "{refused}");
    put(&quotas, Concurrency, "y", at_once("team-a", 1)).await.unwrap();
    // Moved, it leaves the other path.
    put(&quotas, RateLimit, "x", rate("team-b", 1.0)).await.unwrap();
    put(&quotas, RateLimit, "y", rate("team-a", 1.0)).await.unwrap();
}

#[tokio::test]
async fn logins_are_bounded_by_a_path_of_their_own_in_each_namespace() {
    let quotas = quotas().await;
    put(&quotas, RateLimit, "all", rate("team-a", 9.0)).await.unwrap();
    put(&quotas, RateLimit, "logins", rate("team-a/auth/unix/login", 2.0)).await.unwrap();
    put(&quotas, RateLimit, "tokens", rate("auth/token", 3.0)).await.unwrap();
    let now = Instant::now() + Duration::from_secs(1);
    assert_eq!(let_through(&quotas, "team-a", "auth/unix/login", now), 2);
    assert_eq!(let_through(&quotas, "team-a", "sys/mounts", now), 9);
    assert_eq!(let_through(&quotas, "", "auth/unix/login", now), 100);
    assert_eq!(let_through(&quotas, "", "auth/token/create", now), 3);
    for path in ["auth", "auth/ldap/login", "team-a/sys/mounts"] {
        assert!(put(&quotas, RateLimit, "none", rate(path, 1.0)).await.is_err(), "{path}");
    }
}

#[tokio::test]
async fn quotas_are_found_by_their_names_and_by_their_paths_whatever_changes() {
    let quotas = quotas().await;
    put(&quotas, RateLimit, "a", rate("team-a", 2.0)).await.unwrap();
    put(&quotas, RateLimit, "a", rate("team-b", 3.0)).await.unwrap();
    let now = Instant::now() + Duration::from_secs(1);
    assert_eq!((let_through(&quotas, "team-a", "x", now), let_through(&quotas, "team-b", "x", now)), (100, 3));
    let taken = put(&quotas, RateLimit, "b", rate("team-b", 1.0)).await.unwrap_err().to_string();
    assert!(taken.contains("quota \"a\" lies on this path already"), "{taken}");
    put(&quotas, RateLimit, "b", rate("team-a", 1.0)).await.unwrap();
    quotas.delete(RateLimit, "a".into()).await.unwrap();
    quotas.delete(RateLimit, "a".into()).await.unwrap();
    assert_eq!((quotas.names(RateLimit), quotas.get(RateLimit, "a")), (vec!["b".to_owned()], None));
    assert_eq!(let_through(&quotas, "team-b", "x", now), 100);
    quotas.delete(RateLimit, "b".into()).await.unwrap();
    assert!(quotas.is_empty());
}
