//! Where a request leads, whatever it is written like: held against the model that the fuzz target `path` has.

use proptest::prelude::*;

use crate::corpus::targets::{MOUNTS, NAMESPACES, Route, check, expected};

/// Parts of paths: names there are, names that look like them, and tricks.
fn part() -> impl Strategy<Value = String> {
    let known = NAMESPACES.iter().flat_map(|path| path.split('/'));
    let known = known.chain(MOUNTS.iter().flat_map(|(_, path)| path.split('/'))).filter(|part| !part.is_empty());
    let known: Vec<String> = known.map(str::to_owned).collect();
    let tricks = [
        "",
        ".",
        "..",
        "...",
        "a.",
        ".a",
        " a",
        "a ",
        "sys",
        "auth",
        "root",
        "token",
        "Sys",
        "ocsp",
        "Mx+",
        "MA==",
        "health",
        "sign",
        "é",
        "e\u{301}",
        "ａ",
        "\u{0}",
        "\u{7f}",
        "\u{85}",
        "\u{202e}a",
        "a\u{200b}",
        "%",
        "%2",
        "%zz",
        "%2f",
        "%252f",
        "a%2fb",
        "a%5cb",
        "\\",
        ";a=b",
        "a;b",
        "#",
        "a#b",
        "?",
        "*",
        "+",
        "~",
        "v1",
        "{a}",
    ];
    prop_oneof![
        6 => prop::sample::select(known),
        4 => prop::sample::select(tricks.map(str::to_owned).to_vec()),
        1 => (1_usize..5000).prop_map(|length| "a".repeat(length)),
        1 => any::<String>(),
    ]
}

/// A text in which some characters are percent-encoded, some of them again.
fn encoded(text: &str, choices: &[u8]) -> String {
    let mut written = String::new();
    for (index, c) in text.chars().enumerate() {
        match choices.get(index % choices.len().max(1)).copied().unwrap_or_default() {
            0..=199 => written.push(c),
            200..=239 => written.extend(c.to_string().bytes().map(|byte| format!("%{byte:02x}"))),
            240..=249 => written.extend(c.to_string().bytes().map(|byte| format!("%{byte:02X}"))),
            _ => written.extend(c.to_string().bytes().map(|byte| format!("%25{byte:02x}"))),
        }
    }
    written
}

fn path() -> impl Strategy<Value = String> {
    (prop::collection::vec(part(), 0..7), prop::collection::vec(any::<u8>(), 1..40))
        .prop_map(|(parts, choices)| encoded(&parts.join("/"), &choices))
}

fn target() -> impl Strategy<Value = String> {
    let prefix = prop::sample::select(vec!["/v1/", "/v1/", "/v1/", "/v1/", "/v1", "//v1/", "/V1/", "/v1//", "v1/", ""]);
    (prefix, path(), prop::sample::select(vec!["", "", "/", "//", "/."]))
        .prop_map(|(prefix, path, end)| format!("{prefix}{path}{end}"))
}

fn header() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(NAMESPACES.to_vec()).prop_map(str::to_owned),
        2 => Just(String::new()),
        4 => prop::collection::vec(part(), 0..4).prop_map(|parts| parts.join("/")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn a_request_leads_where_a_plain_model_says(header in header(), target in target()) {
        check(&header, &target);
    }
}

#[test]
fn the_model_says_what_the_documents_say() {
    let to = |namespace: &str, mount: Option<&str>, path: &str| Route::To {
        namespace: namespace.into(),
        mount: mount.map(str::to_owned),
        path: path.into(),
    };
    for (header, target, route) in [
        ("", "/v1/pki/ca", to("", Some("pki/"), "pki/ca")),
        ("a", "/v1/pki/ca/", to("a/", Some("pki/"), "pki/ca")),
        ("/a//b/", "/v1/pki/ca", to("a/b/", Some("pki/"), "pki/ca")),
        ("", "/v1/a/b/pki/ca", to("a/b/", Some("pki/"), "pki/ca")),
        ("a", "/v1/b%2fpki/ca", to("a/b/", Some("pki/"), "pki/ca")),
        ("a/b", "/v1/a/pki/ca", to("a/b/", None, "a/pki/ca")),
        ("root", "/v1/ab/pki/ca", to("ab/", Some("pki/"), "pki/ca")),
        ("nobody", "/v1/a/pki/ca", to("nobody/", None, "a/pki/ca")),
        ("", "/v1/nobody/sys/health", to("nobody/", None, "sys/health")),
        ("", "/v1/y/sys/x", to("", Some("y/sys/"), "y/sys/x")),
        ("a", "/v1/ocsp/M/pki/ocsp/M//x/", to("a/ocsp/M/", Some("pki/"), "pki/ocsp/M//x/")),
        ("a", "/v1/../b/pki/ca", Route::Refused),
        ("a", "/v1/%2e%2e/b/pki/ca", Route::Refused),
        ("a", "/v1/pki//ca", Route::Refused),
        ("a", "/ui/", Route::Elsewhere),
    ] {
        assert_eq!(expected(header, target), route, "{header:?} {target}");
        check(header, target);
    }
}
