//! Policies in the store, and what is compiled of them.

use std::sync::Arc;

use super::policies::Policies;
use crate::config::{Pace, Storage};
use crate::model::{Capability, Fault, Namespace};
use crate::store::{Ephemeral, Store};

fn store() -> Store {
    let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap()), Pace::Prompt).unwrap();
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
    let policies = Policies::new(store());
    for namespace in ["", "team"].map(Namespace::from_path) {
        assert!(grants(&policies, &namespace, &["default"], "auth/token/lookup-self"));
        assert!(!grants(&policies, &namespace, &["default"], "sys/mounts"));
        assert!(policies.exists(&namespace, "default") && !policies.exists(&namespace, "other"));
    }
}

#[tokio::test]
async fn a_change_counts_at_once_and_after_a_restart_in_its_namespace_alone() {
    let store = store();
    let policies = Policies::new(store.clone());
    let (root, team) = (Namespace::root(), Namespace::from_path("team"));
    let read = |path: &str| format!("path \"{path}\" {{ policy = \"read\" }}");
    assert!(!grants(&policies, &team, &["app", "unknown"], "a"));
    policies.write(&team, "App", &read("a")).await.unwrap();
    assert!(grants(&policies, &team, &["app", "unknown"], "a"), "what was compiled without it is forgotten");
    assert!(!grants(&policies, &root, &["app"], "a"));
    policies.write(&team, "app", &read("b")).await.unwrap();
    assert!(policies.write(&team, "app", "path").await.is_err());
    let again = Policies::new(store);
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
    let policies = Policies::new(store());
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
    let policies = Policies::new(store());
    let root = Namespace::root();
    let refused = |what: &str| Err(Fault::invalid(what.to_owned()));
    assert_eq!(policies.write(&root, "ROOT", "").await, refused("cannot update \"root\" policy"));
    assert!(policies.write(&root, "response-wrapping", "").await.is_err());
    assert_eq!(policies.delete(&root, "root").await, refused("cannot delete \"root\" policy"));
    assert_eq!(policies.delete(&root, "default").await, refused("cannot delete default policy"));
    assert!(policies.write(&root, &"x".repeat(257), "").await.is_err());
    assert!(policies.write(&root, "", "").await.is_err());
}
