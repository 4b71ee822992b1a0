//! `namespaces = ["team-a", "team-b/*"]` of a `kms_library` or `kms_pool`: whose managed keys may be on it. And
//! `shared_keys = ["ca", "team-*"]`: the labels of keys there that several of them may have.

use hcl::edit::expr::Expression;

use super::reader::Reader;
use crate::model::Namespace;

/// What a path ends in that stands for all below it.
const BELOW: &str = "/*";

/// Labels of keys that are shared, at most.
const SHARED_MAX: usize = 10_000;

/// The namespaces that may use a library or pool, and the keys there that they may share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    namespaces: Option<NamespaceList>,
    shared: Vec<Label>,
}

/// Some namespaces, each by itself or with all below it; none where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceList(Vec<Grant>);

impl NamespaceList {
    /// Whether this namespace is among them.
    pub fn has(&self, namespace: &Namespace) -> bool {
        self.0.iter().any(|grant| match grant {
            Grant::Only(granted) => granted == namespace,
            Grant::Below(above) => namespace.is_below(above),
        })
    }

    /// Reads one field of a stanza.
    pub(super) fn read(stanza: &mut Reader<'_>, name: &'static str) -> NamespaceList {
        stanza.parsed(name, list).unwrap_or_default()
    }
}

fn list(expression: &Expression) -> Result<NamespaceList, String> {
    let items = expression.as_array().ok_or_else(expected)?;
    items
        .iter()
        .map(|item| item.as_str().ok_or_else(expected).and_then(grant))
        .collect::<Result<_, _>>()
        .map(NamespaceList)
}

/// What labels a key may have.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Label {
    Whole(String),
    Begins(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Grant {
    Only(Namespace),
    Below(Namespace),
}

impl Grants {
    /// Whether this namespace may. Where nothing is said, every one may.
    pub fn allow(&self, namespace: &Namespace) -> bool {
        self.namespaces.as_ref().is_none_or(|grants| grants.has(namespace))
    }

    /// Whether a key that is named by this label may be several namespaces' at the same time. Where nothing is said, none may.
    pub fn share(&self, label: &str) -> bool {
        self.shared.iter().any(|shared| match shared {
            Label::Whole(text) => text == label,
            Label::Begins(text) => label.starts_with(text.as_str()),
        })
    }

    /// The fields in which it differs from `other`.
    pub(super) fn differences(&self, other: &Grants) -> [(&'static str, bool); 2] {
        [("namespaces", self.namespaces != other.namespaces), ("shared_keys", self.shared != other.shared)]
    }

    /// Reads the stanza's fields.
    pub(super) fn read(stanza: &mut Reader<'_>) -> Grants {
        let namespaces = stanza.parsed("namespaces", list);
        let shared = stanza.parsed("shared_keys", |expression| {
            let items = expression.as_array().filter(|items| items.len() <= SHARED_MAX).ok_or_else(expected_labels)?;
            items.iter().map(|item| item.as_str().ok_or_else(expected_labels).and_then(label)).collect()
        });
        Grants { namespaces, shared: shared.unwrap_or_default() }
    }
}

fn expected_labels() -> String {
    format!("expected a list of at most {SHARED_MAX} labels of keys, such as [\"ca\", \"team-*\"]")
}

fn label(text: &str) -> Result<Label, String> {
    match text.strip_suffix('*') {
        _ if text.is_empty() => Err("\"\": expected the label of a key, or its beginning and \"*\"".to_owned()),
        Some(beginning) => Ok(Label::Begins(beginning.to_owned())),
        None => Ok(Label::Whole(text.to_owned())),
    }
}

fn expected() -> String {
    "expected a list of namespaces, such as [\"root\", \"team-a\", \"team-b/*\"]".to_owned()
}

fn grant(text: &str) -> Result<Grant, String> {
    if text == "*" {
        return Ok(Grant::Below(Namespace::root()));
    }
    let (path, grant): (_, fn(Namespace) -> Grant) = match text.strip_suffix(BELOW) {
        Some(above) => (above, Grant::Below),
        None => (text, Grant::Only),
    };
    if path == "root" {
        return Ok(grant(Namespace::root()));
    }
    let namespace = Namespace::from_path(path);
    namespace.check().map_err(|wrong| format!("{text:?}: {wrong}"))?;
    Ok(grant(namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(texts: &[&str]) -> Grants {
        let namespaces = Some(NamespaceList(texts.iter().map(|text| grant(text).unwrap()).collect()));
        Grants { namespaces, ..Grants::default() }
    }

    #[test]
    fn a_label_is_one_key_and_a_star_all_that_begin_so() {
        let shared = |texts: &[&str]| Grants {
            shared: texts.iter().map(|text| label(text).unwrap()).collect(),
            ..Grants::default()
        };
        assert!(!Grants::default().share("ca") && !shared(&["ca"]).share("ca2") && !shared(&["ca"]).share(""));
        assert!(shared(&["ca"]).share("ca") && shared(&["x", "ca-*"]).share("ca-1") && !shared(&["ca-*"]).share("ca"));
        assert!(shared(&["*"]).share("any") && label("").is_err());
    }

    #[test]
    fn a_path_is_one_namespace_and_a_star_all_below() {
        let may = |grants: &Grants, path: &str| grants.allow(&Namespace::from_path(path));
        for path in ["", "a", "a/b"] {
            assert!(may(&Grants::default(), path) && !may(&grants(&[]), path), "{path}");
        }
        let some = grants(&["root", "a", "b/*"]);
        for (path, granted) in
            [("", true), ("a", true), ("a/b", false), ("ab", false), ("b", false), ("b/c", true), ("b/c/d", true)]
        {
            assert_eq!(may(&some, path), granted, "{path}");
        }
        let all_but_the_root = grants(&["*"]);
        assert!(may(&all_but_the_root, "a/b") && !may(&all_but_the_root, ""));
        for bad in ["", "/", "a b", "sys", "a/*/b", "**", "a*"] {
            assert!(grant(bad).is_err(), "{bad}");
        }
    }
}
