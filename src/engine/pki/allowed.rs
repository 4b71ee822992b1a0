//! Whether a role allows a name: Vault's rules, in Vault's order.

use const_oid::ObjectIdentifier;

use super::names;
use super::role::{CnValidation, Role};
use super::san::OtherSan;
use crate::model::Fault;

/// Whether `role` allows the DNS name or email address `name`.
pub(super) fn name(role: &Role, name: &str) -> bool {
    let (email_domain, host) = match name.split_once('@') {
        Some((_, domain)) if domain.contains('@') => return false,
        Some((_, domain)) => (Some(domain), domain),
        None => (None, name),
    };
    let wildcard = if host.contains('*') {
        // A wildcard forbidden is forbidden even where any name goes, and means nothing after an @.
        if !role.allow_wildcard_certificates || email_domain.is_some() {
            return false;
        }
        match split_wildcard(host) {
            Some(split) => Some(split),
            None => return false,
        }
    } else {
        None
    };
    // The name without its wildcard label: still not to be trusted.
    let reduced = wildcard.map_or(host, |(_, rest)| rest);
    if role.enforce_hostnames {
        let rest_fits = reduced.is_empty() || (names::is_hostname(reduced) && !reduced.contains('*'));
        let label_fits = wildcard.is_none_or(|(label, _)| names::is_wildcard_label(label));
        if !rest_fits || !label_fits || (reduced.is_empty() && wildcard.is_none()) {
            return false;
        }
    }
    role.allow_any_name
        || at_localhost(role, reduced)
        || in_domains(role, name, reduced, email_domain, wildcard.is_some())
}

/// The wildcard label and what follows it; `None` if there is more than one `*`, or one beyond the leftmost label.
fn split_wildcard(host: &str) -> Option<(&str, &str)> {
    if host.matches('*').count() > 1 {
        return None;
    }
    let (label, rest) = host.split_once('.').unwrap_or((host, ""));
    (!rest.contains('*')).then_some((label, rest))
}

fn at_localhost(role: &Role, reduced: &str) -> bool {
    role.allow_localhost
        && ["localhost", "localdomain"].into_iter().any(|local| {
            // `*.localhost` reduces to `localhost`: Vault lets it pass here, too.
            reduced == local || (role.allow_subdomains && is_subdomain(reduced, local))
        })
}

fn in_domains(role: &Role, name: &str, reduced: &str, email_domain: Option<&str>, is_wildcard: bool) -> bool {
    role.allowed_domains.iter().any(|domain| {
        let bare = role.allow_bare_domains
            && (name.eq_ignore_ascii_case(domain)
                || email_domain.is_some_and(|host| host.eq_ignore_ascii_case(domain)));
        let below = role.allow_subdomains
            && (is_subdomain(reduced, domain) || (is_wildcard && reduced.eq_ignore_ascii_case(domain)));
        bare || below || (role.allow_glob_domains && domain.contains('*') && glob(domain, name, true))
    })
}

/// Whether `name` is below `domain`, case aside.
fn is_subdomain(name: &str, domain: &str) -> bool {
    let Some(split) = name.len().checked_sub(domain.len() + 1) else { return false };
    let (Some(head), Some(tail)) = (name.as_bytes().get(split), name.get(split + 1..)) else { return false };
    *head == b'.' && tail.eq_ignore_ascii_case(domain)
}

/// Whether `text` fits `pattern`, in which each `*` stands for any text, none included. ASCII case counts unless
/// `any_case`.
pub(super) fn glob(pattern: &str, text: &str, any_case: bool) -> bool {
    let fold = |text: &str| if any_case { text.to_ascii_lowercase() } else { text.to_owned() };
    let (pattern, text) = (fold(pattern), fold(text));
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = left.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    left.ends_with(last)
}

/// Whether `role` allows the common name `common_name`.
pub(super) fn common_name(role: &Role, common_name: &str) -> bool {
    if role.cn_validations == [CnValidation::Disabled] {
        return true;
    }
    let wanted = if common_name.contains('@') { CnValidation::Email } else { CnValidation::Hostname };
    role.cn_validations.contains(&wanted) && name(role, common_name)
}

/// Whether `role` allows the URI.
pub(super) fn uri(role: &Role, uri: &str) -> bool {
    role.allowed_uri_sans.iter().any(|pattern| glob(pattern, uri, false))
}

/// Whether one of the patterns fits: for serial numbers and user ids.
pub(super) fn any_glob(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| glob(pattern, text, false))
}

/// One item of `allowed_other_sans`: an object identifier, or any, and a pattern of values.
#[derive(Clone, Debug)]
pub(super) struct OtherSanRule {
    oid: Option<ObjectIdentifier>,
    pattern: String,
}

impl OtherSanRule {
    /// Reads items such as `1.2.3;UTF8:*@example.com`, or a lone `*`.
    pub(super) fn parse_all(items: &[String]) -> Result<Vec<OtherSanRule>, Fault> {
        items
            .iter()
            .map(|item| {
                if item == "*" {
                    return Ok(OtherSanRule { oid: None, pattern: "*".into() });
                }
                let OtherSan { oid, value } =
                    OtherSan::parse(item).map_err(|fault| Fault::invalid(format!("allowed_other_sans: {fault}")))?;
                Ok(OtherSanRule { oid: Some(oid), pattern: value })
            })
            .collect()
    }

    /// Whether it allows `other`.
    pub(super) fn allows(&self, other: &OtherSan) -> bool {
        self.oid.is_none_or(|oid| oid == other.oid) && glob(&self.pattern, &other.value, false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn role(value: Value) -> Role {
        Role::parse(value.as_object().unwrap()).unwrap().0
    }

    fn check(role_value: Value, good: &[&str], bad: &[&str]) {
        let role = role(role_value.clone());
        for text in good {
            assert!(name(&role, text), "{text:?} ought to be allowed by {role_value}");
        }
        for text in bad {
            assert!(!name(&role, text), "{text:?} ought to be refused by {role_value}");
        }
    }

    #[test]
    fn nothing_but_localhost_is_allowed_by_default() {
        check(json!({}), &["localhost", "localdomain", "me@localhost"], &["example.com", "a.localhost", ""]);
        check(json!({"allow_localhost": false}), &[], &["localhost"]);
        check(json!({"allow_subdomains": true}), &["a.localhost", "*.localhost", "x.localdomain"], &["xlocalhost"]);
    }

    #[test]
    fn bare_domains_and_subdomains_are_apart() {
        check(
            json!({"allowed_domains": "example.com", "allow_bare_domains": true}),
            &["example.com", "EXAMPLE.com", "me@example.com"],
            &["a.example.com", "*.example.com", "me@a.example.com", "notexample.com"],
        );
        check(
            json!({"allowed_domains": "example.com", "allow_subdomains": true}),
            &[
                "a.example.com",
                "A.b.Example.COM",
                "*.example.com",
                "*.a.example.com",
                "b*z.example.com",
                "m@a.example.com",
            ],
            &[
                "example.com",
                "notexample.com",
                "me@example.com",
                "*",
                "a.*.example.com",
                "*.*.example.com",
                ".example.com",
            ],
        );
    }

    #[test]
    fn wildcards_can_be_forbidden_even_where_any_name_goes() {
        check(
            json!({"allow_any_name": true, "allow_wildcard_certificates": false}),
            &["anything.at.all", "me@x.y"],
            &["*.x.y", "a*.x"],
        );
        check(json!({"allow_any_name": true}), &["*.x.y", "*"], &["me@*.x", "**", "*a*.x", "a_b", "a@b@c", "-a.b"]);
    }

    #[test]
    fn host_names_are_enforced_unless_told_otherwise() {
        let domains = json!({"allowed_domains": "example.com", "allow_subdomains": true, "enforce_hostnames": false});
        check(domains, &["a_b.example.com", "_sip._tcp.example.com"], &["a_b.example.org"]);
        check(json!({"allowed_domains": "example.com", "allow_subdomains": true}), &[], &["a_b.example.com"]);
    }

    #[test]
    fn globs_match_any_text() {
        check(
            json!({"allowed_domains": "ftp*.example.com,*.glob.net", "allow_glob_domains": true}),
            &["ftp.example.com", "FTP7.example.com", "ftp.a.b.example.com", "x.glob.net", "*.glob.net"],
            &["ftp.example.org", "glob.net", "aftp.example.com"],
        );
        check(json!({"allowed_domains": "ftp*.example.com"}), &[], &["ftp1.example.com"]);
    }

    #[test]
    fn glob_edges() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*", "a", true),
            ("*a", "ba", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("**", "x", true),
            ("x", "X", false),
        ] {
            assert_eq!(glob(pattern, text, false), fits, "{pattern} {text}");
        }
        assert!(glob("A*", "abc", true));
    }

    #[test]
    fn common_names_follow_their_validations() {
        let any = |validations: &str| role(json!({"allow_any_name": true, "cn_validations": validations}));
        assert!(common_name(&any("email,hostname"), "a.b") && common_name(&any("email,hostname"), "a@b"));
        assert!(!common_name(&any("email"), "a.b") && !common_name(&any("hostname"), "a@b"));
        assert!(common_name(&any("disabled"), "John Doe") && !common_name(&any("hostname"), "John Doe"));
    }

    #[test]
    fn other_names_match_by_identifier_and_pattern() {
        let rules = OtherSanRule::parse_all(&["1.2.3;UTF8:*@corp".into()]).unwrap();
        let allows = |text: &str| rules.iter().any(|rule| rule.allows(&OtherSan::parse(text).unwrap()));
        assert!(allows("1.2.3;UTF8:me@corp"));
        assert!(!allows("1.2.4;UTF8:me@corp") && !allows("1.2.3;UTF8:me@home"));
        let any = OtherSanRule::parse_all(&["*".into()]).unwrap();
        assert!(
            any[0].allows(
                &OtherSan::parse("1.9;UTF8:x")
                    .unwrap_or(OtherSan { oid: ObjectIdentifier::new_unwrap("1.9.1"), value: "x".into() })
            )
        );
    }

    proptest! {
        #[test]
        fn any_names_are_judged_without_harm(text in "[a-c.*@é]{0,20}", domain in "[a-c.]{0,8}") {
            let mut judge = role(json!({"allow_subdomains": true, "allow_bare_domains": true, "allow_glob_domains": true}));
            judge.allowed_domains = vec![domain];
            let _ = name(&judge, &text);
        }

        #[test]
        fn a_name_allowed_below_a_domain_ends_in_it(label in "[a-z*.@-]{0,12}", tail in "[a-z.]{0,12}") {
            let judge = role(json!({"allowed_domains": "example.com", "allow_subdomains": true, "allow_localhost": false}));
            let text = format!("{label}{tail}");
            prop_assert!(!name(&judge, &text) || text.ends_with(".example.com"));
        }
    }
}
