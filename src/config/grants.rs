//! `namespaces = ["team-a", "team-b/*"]` of a `kms_library` or `kms_pool`: whose managed keys may be on it.

use super::reader::Reader;
use crate::model::Namespace;

/// What a path ends in that stands for all below it.
const BELOW: &str = "/*";

/// The namespaces that may use a library or pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(Option<Vec<Grant>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Grant {
    Only(Namespace),
    Below(Namespace),
}

impl Grants {
    /// Whether this namespace may. Where nothing is said, every one may.
    pub fn allow(&self, namespace: &Namespace) -> bool {
        let fits = |grant: &Grant| match grant {
            Grant::Only(granted) => granted == namespace,
            Grant::Below(above) => namespace.is_below(above),
        };
        self.0.as_ref().is_none_or(|grants| grants.iter().any(fits))
    }

    /// Reads the stanza's field.
    pub(super) fn read(stanza: &mut Reader<'_>) -> Grants {
        Grants(stanza.parsed("namespaces", |expression| {
            let items = expression.as_array().ok_or_else(expected)?;
            items.iter().map(|item| item.as_str().ok_or_else(expected).and_then(grant)).collect()
        }))
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
        Grants(Some(texts.iter().map(|text| grant(text).unwrap()).collect()))
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
