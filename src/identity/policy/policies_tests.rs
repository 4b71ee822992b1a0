//! Policies in the store, and what is compiled of them.

use std::sync::Arc;

use super::policies::Policies;
use crate::config::{Limits, Storage};
use crate::model::{Capability, Fault, Namespace};
use crate::store::{Ephemeral, Store};

fn store() -> Store {
    let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap())).unwrap();
    store.initialize().unwrap();
    store
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn grants(policies: &Policies, namespace: &Namespace, of: &[&str], path: &str) -> bool {
    let acl = policies.acl(namespace, &names(of)).unwrap();
    acl.find(path, false).is_some_and(|found| found.capabilities().grants(Capability::Read))
}

#[test]
fn the_default_policy_is_one() {
    let policies = Policies::new(store(), &Limits::default());
    for namespace in ["", "team"].map(Namespace::from_path) {
        assert!(grants(&policies, &namespace, &["default"], "auth/token/lookup-self"));
        assert!(!grants(&policies, &namespace, &["default"], "sys/mounts"));
        assert!(policies.exists(&namespace, "default") && !policies.exists(&namespace, "other"));
    }
}

#[tokio::test]
async fn a_change_counts_at_once_and_after_a_restart_in_its_namespace_alone() {
    let store = store();
    let policies = Policies::new(store.clone(), &Limits::default());
    let (root, team) = (Namespace::root(), Namespace::from_path("team"));
    let read = |path: &str| format!("path \"{path}\" {{ policy = \"read\" }}");
    assert!(!grants(&policies, &team, &["app", "unknown"], "a"));
    policies.write(&team, "App", &read("a")).await.unwrap();
    assert!(grants(&policies, &team, &["app", "unknown"], "a"), "what was compiled without it is forgotten");
    assert!(!grants(&policies, &root, &["app"], "a"));
    policies.write(&team, "app", &read("b")).await.unwrap();
    assert!(policies.write(&team, "app", "path").await.is_err());
    let again = Policies::new(store, &Limits::default());
    again.load().unwrap();
    for policies in [&policies, &again] {
        assert!(grants(policies, &team, &["app"], "b") && !grants(policies, &team, &["app"], "a"));
        assert_eq!(policies.names(&team), ["app", "default"]);
        assert_eq!(policies.names(&root), ["default", "root"]);
    }
    policies.delete(&team, "app").await.unwrap();
    assert!(!grants(&policies, &team, &["app"], "b"));
    policies.write(&team, "default", &read("b")).await.unwrap();
    assert!(grants(&policies, &team, &["default"], "b"));
    assert!(!grants(&policies, &team, &["default"], "auth/token/lookup-self"));
    policies.forget(&team);
    assert!(!grants(&policies, &team, &["default"], "b"));
}

#[tokio::test]
async fn a_set_of_policies_is_compiled_once() {
    let policies = Policies::new(store(), &Limits::default());
    let root = Namespace::root();
    let acl = |of: &[&str]| policies.acl(&root, &names(of)).unwrap();
    let first = acl(&["default", "x"]);
    assert!(Arc::ptr_eq(&first, &acl(&["default", "x"])));
    assert!(!Arc::ptr_eq(&first, &acl(&["default"])));
    policies.write(&root, "x", "").await.unwrap();
    assert!(!Arc::ptr_eq(&first, &acl(&["default", "x"])));
}

#[tokio::test]
async fn nobody_changes_root_or_takes_the_default_away() {
    let policies = Policies::new(store(), &Limits::default());
    let root = Namespace::root();
    let refused = |what: &str| Err(Fault::invalid(what.to_owned()));
    assert_eq!(policies.write(&root, "ROOT", "").await, refused("cannot update \"root\" policy"));
    assert!(policies.write(&root, "response-wrapping", "").await.is_err());
    assert_eq!(policies.delete(&root, "root").await, refused("cannot delete \"root\" policy"));
    assert_eq!(policies.delete(&root, "default").await, refused("cannot delete default policy"));
    assert!(policies.write(&root, &"x".repeat(257), "").await.is_err());
    assert!(policies.write(&root, "", "").await.is_err());
}

#[tokio::test]
async fn a_namespace_has_so_many_policies_and_no_more() {
    let limits = Limits { policies_per_namespace: 2, policy_bytes_per_namespace: 200, ..Limits::default() };
    let store = store();
    let policies = Policies::new(store.clone(), &limits);
    let [a, root] = ["a", ""].map(Namespace::from_path);
    let text = |bytes: usize| format!("# {}\n", "x".repeat(bytes));
    for name in ["one", "two", "one"] {
        policies.write(&a, name, &text(50)).await.unwrap();
    }
    let told = policies.write(&a, "three", "").await.unwrap_err().to_string();
    assert!(told.contains("limits { policies_per_namespace }"), "{told}");
    let below = Namespace::from_path("a/b");
    let told = policies.write(&below, "three", "").await.unwrap_err().to_string();
    assert!(told.contains("namespace a/ and those below it have 2 policies together"), "{told}");
    policies.write(&root, "three", "").await.unwrap();
    let long = policies.write(&a, "one", &text(150)).await.unwrap_err();
    assert!(matches!(&long, Fault::TooLarge { what } if what.contains("policy_bytes_per_namespace")), "{long}");
    policies.delete(&a, "two").await.unwrap();
    policies.write(&a, "one", &text(150)).await.unwrap();
    policies.write(&below, "three", "").await.unwrap();
    assert!(matches!(policies.write(&below, "three", &text(50)).await, Err(Fault::TooLarge { .. })));
    // They are counted at a start, and with their namespace they go.
    let again = Policies::new(store, &limits);
    again.load().unwrap();
    assert!(again.write(&a, "four", "").await.is_err());
    again.forget(&below);
    again.write(&a, "four", "").await.unwrap();
}

#[tokio::test]
async fn rules_that_are_compared_one_by_one_are_bounded() {
    let policies = Policies::new(store(), &Limits::default());
    let root = Namespace::root();
    let rules = |name: &str, count: usize| {
        let rule = |number| format!("path \"+/{name}{number}\" {{\n capabilities = [\"read\"]\n}}\n");
        (0..count).map(rule).collect::<String>()
    };
    policies.write(&root, "one", &rules("a", 1000)).await.unwrap();
    let told = policies.write(&root, "two", &rules("b", 1001)).await.unwrap_err().to_string();
    assert!(told.contains("more than 1000 paths with '+'"), "{told}");
    let deep = format!("path \"{}a\" {{\n capabilities = [\"read\"]\n}}\n", "+/".repeat(64));
    let told = policies.write(&root, "deep", &deep).await.unwrap_err().to_string();
    assert!(told.contains("at most 64 parts"), "{told}");
    // Of several together, too: the same rule in two of them is one.
    policies.write(&root, "two", &rules("a", 10)).await.unwrap();
    assert!(grants(&policies, &root, &["one", "two"], "x/a7"));
    policies.write(&root, "two", &rules("b", 1)).await.unwrap();
    assert!(matches!(policies.acl(&root, &names(&["one", "two"])), Err(Fault::PermissionDenied)));
    assert!(grants(&policies, &root, &["two"], "x/b0"));
}
