//! Texts of policies: what is understood, what is refused and where, and that no text brings the reader down.

use proptest::prelude::*;

use super::acl::Acl;
use super::parse::{Policy, TEXT_BYTES};
use crate::model::Fault;

fn refused(text: &str) -> String {
    match Policy::parse(text) {
        Err(Fault::InvalidRequest { reason }) => reason,
        other => panic!("{text}: {other:?}"),
    }
}

fn shown(text: &str) -> Vec<String> {
    let policy = Policy::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
    let acl = Acl::new([&policy]);
    let mut all: Vec<String> =
        acl.all().iter().map(|(path, _, found)| format!("{path} {}", found.capabilities().names().join(","))).collect();
    all.sort();
    all
}

#[test]
fn hcl_and_json_say_the_same() {
    let hcl = r#"
        # An application.
        name = "app"
        path "transit/sign/app" {
          capabilities = ["update"]
          allowed_parameters = {
            "input" = []
            hash_algorithm = ["sha2-256", "sha2-512"]
          }
          comment = "signs"
        }
        path "/pki/+/web*" { capabilities = ["read", "list", "subscribe"] }
        path "old" {
          policy = "write"
          min_wrapping_ttl = "1m"
          max_wrapping_ttl = 90
        }
    "#;
    let json = r#"{
        "name": "app",
        "path": {
            "transit/sign/app": {"capabilities": ["update"], "comment": "signs",
                "allowed_parameters": {"input": [], "hash_algorithm": ["sha2-256", "sha2-512"]}},
            "pki/+/web*": {"capabilities": ["read", "list", "subscribe"]},
            "old": {"policy": "write", "min_wrapping_ttl": "1m", "max_wrapping_ttl": 90}
        }
    }"#;
    let expected = ["old create,delete,list,read,update", "pki/+/web* list,read,subscribe", "transit/sign/app update"];
    assert_eq!(shown(hcl), expected);
    assert_eq!(shown(json), expected);
    let permissions = |text: &str| {
        let policy = Policy::parse(text).unwrap();
        let mut rules: Vec<_> =
            policy.rules().iter().map(|rule| (rule.pattern.written(), rule.permissions.clone())).collect();
        rules.sort_by(|(one, _), (other, _)| one.cmp(other));
        rules
    };
    assert_eq!(permissions(hcl), permissions(json));
    assert_eq!(shown(r#"{"path": [{"a": {"policy": "read"}}, {"b": {"policy": "deny"}}]}"#), ["a list,read", "b deny"]);
    assert_eq!(shown(""), Vec::<String>::new());
    assert_eq!(shown("{}"), Vec::<String>::new());
}

#[test]
fn parameters_may_come_as_a_stanza() {
    let policy = "path \"a\" {\n capabilities = [\"update\"]\n allowed_parameters {\n ttl = [\"1h\"]\n }\n}";
    let object = policy.replace("allowed_parameters {", "allowed_parameters = {");
    let rule = |text: &str| Policy::parse(text).unwrap().rules()[0].permissions.clone();
    assert_eq!(rule(policy), rule(&object));
}

#[test]
fn what_is_there_twice_counts_twice_and_deny_wins() {
    for text in [
        r#"path "a" { capabilities = ["deny"] }
           path "a" { capabilities = ["read"] }"#,
        r#"{"path": {"a": {"capabilities": ["deny"]}, "a": {"capabilities": ["read"]}}}"#,
        r#"path "a" { capabilities = ["read", "deny"] }"#,
    ] {
        assert_eq!(shown(text), ["a deny"], "{text}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, place, hint) in [
        (
            "path \"a\" {\n  capabilities = [\"raed\"]\n}",
            "line 2, column 3",
            "invalid capability \"raed\"; there are: create",
        ),
        (
            "path \"a\" {\n  capabilites = [\"read\"]\n}",
            "line 2",
            "unknown field \"capabilites\"; expected: capabilities",
        ),
        ("path \"a\" { policy = \"root\" }", "line 1", "invalid policy"),
        ("path \"a\" {\n", "line 1", "expected"),
        ("paths \"a\" { }", "line 1, column 1", "unknown stanza \"paths\""),
        ("allow = true", "line 1, column 1", "unknown field \"allow\""),
        ("path { }", "line 1", "with one path"),
        ("path \"a\" \"b\" { }", "line 1", "with one path"),
        ("\n path \"a/+*\" { }", "line 2, column 2", "'+*' is forbidden"),
        ("path \"a/{{identity.entity.id}}\" { }", "line 1", "templates are not supported"),
        ("path \"a\" {\n  capabilities = [\"${x}\"]\n}", "line 2", "plain value"),
        ("path \"a\" { capabilities = \"read\" }", "line 1", "a list of strings"),
        ("path \"a\" { control_group = {} }", "line 1", "control_group is not supported here"),
        ("path \"a\" { allowed_parameters = { \"t*\" = [] } }", "line 1", "\"*\" alone"),
        ("path \"a\" { allowed_parameters = { t = \"x\" } }", "line 1", "lists of values"),
        ("path \"a\" { required_parameters = [\"*\"] }", "line 1", "not permitted"),
        ("path \"a\" { min_wrapping_ttl = \"soon\" }", "line 1", "a duration"),
        ("path \"a\" {\n min_wrapping_ttl = 9\n max_wrapping_ttl = 8\n}", "line 1", "cannot be less"),
        ("path \"a\" {\n policy = \"read\"\n policy = \"read\"\n}", "line 3", "unique attribute key"),
        ("{\"path\": {\"a\": {\"capabilities\": [\"raed\"]}}}", "path \"a\"", "invalid capability"),
        ("{\"path\": {\"a\": {\"policy\": \"read\", \"policy\": \"deny\"}}}", "path \"a\"", "there twice"),
        ("{\"path\": 1}", "line 1 column", "an object of paths"),
        ("{\"paths\": {}}", "line 1 column", "unknown field \"paths\""),
        ("{", "line 1 column 1", "EOF"),
    ] {
        let told = refused(text);
        assert!(told.starts_with("failed to parse policy: "), "{told}");
        assert!(told.contains(place) && told.contains(hint), "{text}\n{told}");
    }
}

#[test]
fn a_policy_has_bounds() {
    let large = "#".repeat(TEXT_BYTES + 1);
    assert!(matches!(Policy::parse(&large), Err(Fault::TooLarge { .. })));
    let rules = |count: usize| (0..count).map(|n| format!("path \"{n}\" {{ }}\n")).collect::<String>();
    assert!(Policy::parse(&rules(2_000)).is_ok());
    assert!(refused(&rules(2_001)).contains("at most 2000"));
    assert!(refused(&format!("path \"{}\" {{ }}", "a".repeat(4_097))).contains("4096"));
    assert!(
        refused(&format!("path \"a\" {{ comment = {}{} }}", "[".repeat(100), "]".repeat(100))).contains("brackets")
    );
    assert!(refused(&format!("{{\"path\": {}", "[".repeat(10_000))).contains("recursion"));
}

/// Texts that look like policies.
fn alike() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "path",
        " ",
        "\n",
        "\"a/+/b*\"",
        "{",
        "}",
        "=",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "capabilities",
        "\"capabilities\"",
        "\"read\"",
        "\"deny\"",
        "policy",
        "\"policy\"",
        "allowed_parameters",
        "{{",
        "}}",
        "${",
        "#",
        "//",
        "/*",
        "<<EOF",
        "EOF",
        "*",
        "1e999",
        "-1",
        "null",
        "true",
        "\"path\"",
        "\"\\u0000\"",
        "é",
        "\\",
        "min_wrapping_ttl",
        "\"1h\"",
    ]);
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_text_is_a_policy_or_refused(text in prop_oneof![".{0,80}", alike()]) {
        if let Ok(policy) = Policy::parse(&text) {
            let acl = Acl::new([&policy]);
            prop_assert!(acl.rules() <= policy.rules().len());
        }
    }
}
