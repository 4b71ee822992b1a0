//! The judgement of paths, held to a model that tries every rule.

use proptest::prelude::*;

use super::acl::Acl;
use super::parse::Policy;
use super::permissions::Attempt;
use crate::model::{Capability, Data, Fault};

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap()
}

fn acl(texts: &[&str]) -> Acl {
    let policies: Vec<Policy> = texts.iter().map(|text| policy(text)).collect();
    Acl::new(&policies)
}

fn granted(acl: &Acl, path: &str) -> Vec<&'static str> {
    acl.find(path, false).map(|found| found.capabilities().names()).unwrap_or_default()
}

fn attempt(acl: &Acl, path: &str, capability: Capability, data: &serde_json::Value) -> Result<(), Fault> {
    let data: Data = data.as_object().unwrap().clone();
    let found = acl.find(path, capability == Capability::List).ok_or(Fault::PermissionDenied)?;
    found.judge(&Attempt {
        capability,
        needs_sudo: &|| path.starts_with("root"),
        exists: &|| path.starts_with("old").then_some(true).or(path.starts_with("new").then_some(false)),
        data: &|| std::borrow::Cow::Borrowed(&data),
        wrapping: None,
    })
}

#[test]
fn the_most_specific_rule_decides_alone() {
    let acl = acl(&[r#"
        path "a/*" { capabilities = ["read"] }
        path "a/b/*" { capabilities = ["list"] }
        path "a/b/c" { capabilities = ["deny"] }
        path "a/+/d" { capabilities = ["update"] }
        path "a/+/d*" { capabilities = ["sudo"] }
        path "+/+/d*" { capabilities = ["delete"] }
        path "+/+/d" { capabilities = ["create"] }
        path "a/x*" { capabilities = ["patch"] }
    "#]);
    assert_eq!(granted(&acl, "a/z"), ["read"]);
    assert_eq!(granted(&acl, "a/b/z"), ["list"]);
    assert_eq!(granted(&acl, "a/b/c"), ["deny"]);
    // The first wildcard of a/b/* and of a/x* comes later than that of a/+/d.
    assert_eq!(granted(&acl, "a/b/d"), ["list"]);
    assert_eq!(granted(&acl, "a/x/d"), ["patch"]);
    assert_eq!(granted(&acl, "a/z/d"), ["update"]);
    // Both end in `*`, with the first wildcard at one place: fewer `+` wins.
    assert_eq!(granted(&acl, "a/z/dd"), ["read"]);
    assert_eq!(granted(&acl, "z/z/dd"), ["delete"]);
    assert_eq!(granted(&acl, "z/z/d"), ["create"]);
    assert_eq!(granted(&acl, "z"), Vec::<&str>::new());
}

#[test]
fn policies_unite_what_they_grant_at_one_path_and_deny_wins() {
    let acl = acl(&[
        r#"path "a" { capabilities = ["read"] }
        path "b/*" { capabilities = ["read"] }"#,
        r#"path "a" { capabilities = ["update"] }
        path "b/*" { capabilities = ["deny"] }"#,
        r#"path "b/*" { capabilities = ["list"] }
        path "a" { policy = "read" }"#,
    ]);
    assert_eq!(granted(&acl, "a"), ["list", "read", "update"]);
    assert_eq!(granted(&acl, "b/c"), ["deny"]);
    assert_eq!(acl.rules(), 2);
}

#[test]
fn a_list_is_judged_with_and_without_its_slash() {
    let acl = acl(&[r#"
        path "a" { capabilities = ["list"] }
        path "b/" { capabilities = ["list"] }
        path "c/*" { capabilities = ["list"] }
        path "+" { capabilities = ["read"] }
    "#]);
    for path in ["a/", "b/", "c/d/"] {
        assert_eq!(acl.find(path, true).unwrap().capabilities().names(), ["list"], "{path}");
    }
    // Vault asks what has wildcards for the bare path first: `+` is one whole part, `c/*` is not for `c`.
    assert_eq!(acl.find("c/", true).unwrap().capabilities().names(), ["read"]);
    assert!(acl.find("c/", false).unwrap().capabilities().grants(Capability::List));
}

#[test]
fn a_write_makes_or_changes_and_sudo_is_asked_for_beside() {
    let none = serde_json::json!({});
    let acl = acl(&[r#"
        path "+/create" { capabilities = ["create"] }
        path "+/update" { capabilities = ["update"] }
        path "+/both" { capabilities = ["create", "update"] }
        path "root/update" { capabilities = ["update", "sudo"] }
        path "root/sudo" { capabilities = ["sudo"] }
    "#]);
    for (path, allowed) in [
        ("new/create", true),
        ("old/create", false),
        ("any/create", false),
        ("new/update", false),
        ("old/update", true),
        ("any/update", true),
        ("new/both", true),
        ("old/both", true),
        ("any/both", true),
        ("root/both", false),
        ("root/update", true),
        ("root/sudo", false),
    ] {
        assert_eq!(attempt(&acl, path, Capability::Update, &none).is_ok(), allowed, "{path}");
    }
    assert_eq!(attempt(&acl, "any/both", Capability::Read, &none), Err(Fault::PermissionDenied));
}

#[test]
fn fields_are_judged_where_there_are_any() {
    let acl = acl(&[
        r#"path "a" {
            capabilities = ["update", "list", "delete"]
            allowed_parameters = { "ttl" = ["1h"], "*" = [] }
            denied_parameters = { raw = [true] }
            required_parameters = ["TTL"]
        }"#,
        r#"path "w" {
            capabilities = ["read"]
            max_wrapping_ttl = "1h"
        }"#,
    ]);
    let (good, empty) = (serde_json::json!({"ttl": "1h", "x": 1}), serde_json::json!({}));
    assert!(attempt(&acl, "a", Capability::Update, &good).is_ok());
    for bad in [empty.clone(), serde_json::json!({"ttl": "2h"}), serde_json::json!({"ttl": "1h", "raw": "true"})] {
        assert!(attempt(&acl, "a", Capability::Update, &bad).is_err(), "{bad}");
    }
    assert!(attempt(&acl, "a", Capability::Delete, &empty).is_ok());
    assert!(attempt(&acl, "a", Capability::List, &empty).is_ok());
    assert!(attempt(&acl, "w", Capability::Read, &empty).is_err(), "without a wrapping");
}

#[test]
fn a_mount_is_seen_by_who_is_granted_anything_in_it() {
    let acl = acl(&[r#"
        path "pki/sign/web" { capabilities = ["update"] }
        path "transit/*" { capabilities = ["deny"] }
        path "ssh/*" { capabilities = ["read"] }
        path "+/keys/a" { capabilities = ["read"] }
        path "kv/x" { capabilities = ["deny"] }
    "#]);
    assert!(acl.reaches("pki/") && acl.reaches("ssh/") && acl.reaches("kv/"), "{acl:?}");
    let denied = self::acl(&[r#"path "*" { policy = "read" }"#, r#"path "kv/*" { capabilities = ["deny"] }"#]);
    assert!(denied.reaches("pki/") && !denied.reaches("kv/"));
    assert!(!self::acl(&[r#"path "pki/x" { capabilities = [] }"#]).reaches("pki/"));
}

/// The rule that decides, by Vault's own words: all that fit are found, and compared one by one.
fn model<'p>(patterns: &'p [String], path: &str) -> Option<&'p str> {
    if let Some(exact) = patterns.iter().find(|pattern| *pattern == path && !is_wild(pattern)) {
        return Some(exact);
    }
    let fitting = patterns.iter().filter(|pattern| is_wild(pattern) && fits(pattern, path));
    fitting.max_by_key(|pattern| standing(pattern)).map(String::as_str)
}

fn has_parts(pattern: &str) -> bool {
    pattern == "+" || pattern.starts_with("+/") || pattern.contains("/+")
}

fn is_wild(pattern: &str) -> bool {
    has_parts(pattern) || pattern.ends_with('*')
}

fn standing(pattern: &str) -> (usize, bool, std::cmp::Reverse<usize>, usize, String) {
    let bare = pattern.trim_end_matches('*');
    let first = if has_parts(pattern) { pattern.find('+').unwrap() } else { bare.len() };
    let open = if has_parts(pattern) { bare.split('/').filter(|part| *part == "+").count() } else { 0 };
    (first, !pattern.ends_with('*'), std::cmp::Reverse(open), bare.len(), bare.to_owned())
}

/// By a search for a way to read the path as the pattern, letter by letter.
fn fits(pattern: &str, path: &str) -> bool {
    fn from(pattern: &[char], path: &[char], begins: bool, parts: bool) -> bool {
        match (pattern, path) {
            (['*'], _) => true,
            ([], rest) => rest.is_empty(),
            (['+', tail @ ..], _) if parts && begins && matches!(tail, [] | ['/', ..]) => {
                let end = path.iter().position(|letter| *letter == '/').unwrap_or(path.len());
                from(tail, &path[end..], false, parts)
            }
            ([one, tail @ ..], [other, rest @ ..]) => one == other && from(tail, rest, *one == '/', parts),
            (_, []) => false,
        }
    }
    let letters = |text: &str| text.chars().collect::<Vec<_>>();
    from(&letters(pattern), &letters(path), true, has_parts(pattern))
}

fn rules() -> impl Strategy<Value = Vec<String>> {
    let pattern =
        "[ab+/]{0,6}\\*?".prop_filter("forbidden", |pattern| !pattern.contains("+*") && !pattern.starts_with('/'));
    prop::collection::vec(pattern, 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_tables_find_what_a_search_of_all_rules_finds(patterns in rules(), paths in prop::collection::vec("[ab/]{0,7}", 1..16)) {
        let mut patterns = patterns;
        patterns.sort();
        patterns.dedup();
        // What is required names the rule.
        let texts: Vec<String> = patterns
            .iter()
            .map(|pattern| format!("path \"{pattern}\" {{\n required_parameters = [\"{pattern} \"]\n }}\n"))
            .map(|text| text.replace("* \"]", "star\"]"))
            .collect();
        let policies: Vec<Policy> = texts.iter().map(|text| policy(text)).collect();
        let acl = Acl::new(&policies);
        for path in &paths {
            let found = acl.find(path, false).map(|found| found.required[0].replace("star", "*"));
            let expected = model(&patterns, path);
            prop_assert_eq!(found.as_deref().map(str::trim_end), expected, "{} of {:?}", path, patterns);
        }
    }
}
