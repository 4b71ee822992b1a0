//! What is taken over of another configuration, and what is named as needing a restart.

use std::path::Path;

use super::*;

const BASE: &str = r#"
listener "unix" { address = "/run/k.sock" }
storage "redb" { path = "/var/k.redb" }
seal "file" { path = "/var/seal" }
kms_library "pkcs11" {
  name    = "hsm"
  library = "/opt/hsm.so"
  pin     = "1234"
}
kms_library "pkcs11" {
  name    = "other"
  library = "/opt/other.so"
  pin     = "1234"
}
kms_pool "both" {
  member {
    library     = "hsm"
    token_label = "one"
  }
  member {
    library     = "other"
    token_label = "two"
  }
}
namespace "team" { weight = 2 }
"#;

fn config(text: &str) -> Config {
    Config::parse(Path::new("k.hcl"), text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// What changes when `from` in the base is `to`.
fn changed(from: &str, to: &str) -> Changes {
    assert!(BASE.contains(from), "{from}");
    config(BASE).changes_to(&config(&BASE.replacen(from, to, 1)))
}

fn added(more: &str) -> Changes {
    config(BASE).changes_to(&config(&format!("{BASE}{more}\n")))
}

#[test]
fn the_same_configuration_changes_nothing() {
    let changes = config(BASE).changes_to(&config(BASE));
    assert!(changes.applied().is_empty() && changes.needs_restart.is_empty() && !changes.touches_members());
    // Only the order of the stanzas and the case of what has none.
    let changes = changed("library     = \"hsm\"", "library     = \"HSM\"");
    assert!(changes.applied().is_empty(), "{:?}", changes.applied());
}

#[test]
fn a_library_is_made_anew_by_any_of_its_fields() {
    for (to, field, elsewhere) in [
        ("library = \"/opt/new.so\"", "library", true),
        ("library = \"/opt/hsm.so\"\n isolation = \"process\"", "isolation", true),
        ("library = \"/opt/hsm.so\"\n profile = \"kryoptic\"", "profile", false),
        ("library = \"/opt/hsm.so\"\n max_sessions = 3", "max_sessions", false),
        ("library = \"/opt/hsm.so\"\n namespaces = [\"a\"]", "namespaces", false),
        ("library = \"/opt/hsm.so\"\n shared_keys = [\"a\"]", "shared_keys", false),
        ("library = \"/opt/hsm.so\"\n keep_alive = \"5s\"", "keep_alive", false),
        ("library = \"/opt/hsm.so\"\n verify_after_sign = \"always\"", "verify_after_sign", false),
    ] {
        let changes = changed("library = \"/opt/hsm.so\"", to);
        let [LibraryChange::Changed { library, fields, elsewhere: is_elsewhere }] = &changes.libraries[..] else {
            panic!("{:?}", changes.libraries)
        };
        assert_eq!((library.name.as_str(), &fields[..], *is_elsewhere), ("hsm", &[field][..], elsewhere));
        assert!(changes.needs_restart.is_empty(), "{:?}", changes.needs_restart);
    }
    let process = "library = \"/opt/hsm.so\"\n isolation = \"process\"";
    let before = config(&BASE.replacen("library = \"/opt/hsm.so\"", process, 1));
    for (more, field) in [("workers = 3", "workers"), ("env = { A = \"b\" }", "env")] {
        let after = config(&BASE.replacen("library = \"/opt/hsm.so\"", &format!("{process}\n {more}"), 1));
        let applied = before.changes_to(&after).applied();
        assert_eq!(applied, [format!("kms_library \"hsm\" changed ({field})")]);
    }
}

#[test]
fn a_pin_is_compared_and_never_shown() {
    let changes = changed("pin     = \"1234\"", "pin     = \"8765\"");
    assert_eq!(changes.applied(), ["kms_library \"hsm\" changed (pin)"]);
    let shown = format!("{changes:?}");
    assert!(!shown.contains("1234") && !shown.contains("8765"), "{shown}");
}

#[test]
fn libraries_and_pools_come_and_go() {
    let more = "kms_library \"pkcs11\" {\n name = \"new\"\n library = \"/opt/new.so\"\n}";
    let changes = added(more);
    assert!(matches!(&changes.libraries[..], [LibraryChange::Added(library)] if library.name == "new"));
    assert!(changes.touches_members() && changes.needs_restart.is_empty());
    let changes = config(&format!("{BASE}{more}\n")).changes_to(&config(BASE));
    assert_eq!(changes.applied(), ["kms_library \"new\" removed"]);
    assert_eq!(changed("token_label = \"two\"", "token_label = \"three\"").applied(), ["kms_pool \"both\" changed"]);
    assert_eq!(
        changed("kms_pool \"both\" {", "kms_pool \"both\" {\n namespaces = [\"a\"]").applied(),
        ["kms_pool \"both\" changed"]
    );
    let renamed = changed("kms_pool \"both\"", "kms_pool \"ca\"");
    assert_eq!(renamed.applied(), ["kms_pool \"ca\" added", "kms_pool \"both\" removed"]);
    let pin = changed("token_label = \"two\"", "token_label = \"two\"\n pin = \"77\"");
    assert_eq!(pin.applied(), ["kms_pool \"both\" changed"]);
}

#[test]
fn limits_of_calls_make_every_library_anew() {
    let changes = added("limits {\n call_sign = \"7s\"\n probe_min = \"2s\"\n drain = \"3s\"\n}");
    assert_eq!(
        changes.applied(),
        [
            "kms_library \"hsm\" changed (call_sign, probe_min)",
            "kms_library \"other\" changed (call_sign, probe_min)",
            "limits call_sign (the profile's, now 7s)",
            "limits drain (15s, now 3s)",
            "limits probe_min (1s, now 2s)",
        ]
    );
    assert!(changes.needs_restart.is_empty());
    let drain = added("limits { drain = \"3s\" }");
    assert!(drain.libraries.is_empty() && drain.touches_members());
}

#[test]
fn what_cannot_change_is_named_a_line_each() {
    for (from, to, line) in [
        ("/run/k.sock", "/run/l.sock", "listener \"/run/l.sock\" added|listener \"/run/k.sock\" removed"),
        (
            "{ address = \"/run/k.sock\" }",
            "{\n address = \"/run/k.sock\"\n socket_mode = \"0660\"\n}",
            "listener \"/run/k.sock\" changed",
        ),
        ("/var/k.redb", "/var/l.redb", "storage (\"/var/k.redb\", now \"/var/l.redb\")"),
        ("/var/seal", "/var/leal", "seal (\"/var/seal\", now \"/var/leal\")"),
        ("weight = 2", "weight = 3", "namespace \"team/\" changed"),
        ("namespace \"team\"", "namespace \"meat\"", "namespace \"meat/\" added|namespace \"team/\" removed"),
    ] {
        let changes = changed(from, to);
        assert_eq!(changes.needs_restart.join("|"), line);
        assert!(changes.applied().is_empty() && !changes.touches_members(), "{:?}", changes.applied());
    }
    for (more, line) in [
        ("publish_dir = \"/srv\"", "publish_dir (none, now \"/srv\")"),
        ("log_format = \"json\"", "log_format (text, now json)"),
        (
            "telemetry { prometheus_listener = \"127.0.0.1:1\" }",
            "telemetry prometheus_listener (none, now 127.0.0.1:1)",
        ),
        (
            "limits {\n lane_jobs = 5000\n workers = 3\n connections = 9999\n}",
            "limits lane_jobs (4096, now 5000)|limits connections (4096, now 9999)|limits workers",
        ),
    ] {
        let changes = added(more);
        assert!(changes.needs_restart.join("|").starts_with(line), "{:?}", changes.needs_restart);
        assert!(changes.applied().is_empty() && !changes.touches_members(), "{:?}", changes.applied());
    }
}

#[test]
fn what_is_taken_over_differs_no_more_and_the_rest_does_again() {
    let mut now = config(BASE);
    let text = BASE.replace("/opt/hsm.so", "/opt/new.so").replace("token_label = \"two\"", "slot = 3");
    let more = "limits {\n call_open = \"9s\"\n drain = \"1s\"\n tokens_per_namespace = 2\n lane_jobs = 1\n}";
    let new = config(&format!("{text}log_level = \"debug\"\nlog_format = \"json\"\n{more}\n"));
    let changes = now.changes_to(&new);
    assert_eq!(changes.log_level, Some(LogLevel::Debug));
    let kept = changes.needs_restart.clone();
    assert_eq!(kept.len(), 3, "{kept:?}");
    now.take_over(new.clone());
    let changes = now.changes_to(&new);
    assert!(changes.applied().is_empty() && !changes.touches_members(), "{:?}", changes.applied());
    assert_eq!(changes.needs_restart, kept);
}

#[test]
fn every_limit_is_compared() {
    let shown: Vec<&str> = Limits::default().shown().into_iter().map(|(name, _)| name).collect();
    let all = format!("{:#?}", Limits::default());
    let field = |line: &str| line.strip_prefix("    ")?.split_once(": ").map(|(name, _)| name.to_owned());
    let fields: Vec<String> = all.lines().filter(|line| !line.starts_with("     ")).filter_map(field).collect();
    assert!(fields.len() > 20, "{all}");
    assert_eq!(fields, shown);
    assert!(OF_MEMBERS.iter().chain(&OF_ALL).all(|name| shown.contains(name)));
}
