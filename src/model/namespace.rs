//! The name of a tenant.

use std::sync::Arc;

/// Longest path of a namespace that is made, in bytes.
pub const NAMESPACE_BYTES: usize = 256;
/// Parts of paths that no namespace may have: they begin paths of the API, in every namespace.
const RESERVED: [&str; 7] = ["root", "sys", "auth", "audit", "identity", "cubbyhole", "v1"];

/// A namespace path such as `team-a/ci/`, or the empty path: the root namespace. Cheap to clone.
///
/// Non-root paths end in exactly one `/` and have no empty part.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// The root namespace.
    pub fn root() -> Namespace {
        Namespace(Arc::from(""))
    }

    /// A path as a client writes it (leading and trailing slashes optional), normalised.
    pub fn from_path(path: &str) -> Namespace {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if parts.is_empty() { Namespace::root() } else { Namespace(Arc::from(parts.join("/") + "/")) }
    }

    /// What a client's header or Hello names: as [`Namespace::from_path`], and `root` means the root namespace, as no other
    /// may be called so.
    pub fn from_client(text: &str) -> Namespace {
        let named = Namespace::from_path(text);
        if named.as_str() == "root/" { Namespace::root() } else { named }
    }

    /// Whether a namespace may be made that is called so: no part of its path may be read in two ways, in a header, a path or
    /// the name of a folder. Else what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let mut parts = self.0.split('/').filter(|part| !part.is_empty());
        if self.is_root() || self.0.len() > NAMESPACE_BYTES {
            return Err(format!(
                "expected a path of 1 to {NAMESPACE_BYTES} bytes, such as \"team-a\" or \"team-a/ci\""
            ));
        }
        if let Some(reserved) = parts.clone().find(|part| RESERVED.contains(part)) {
            return Err(format!("no namespace may be called {reserved:?}: the API has paths of that name"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if parts.any(|part| part.starts_with('.') || part.ends_with('.') || !part.chars().all(plain)) {
            return Err(
                "expected parts of letters, digits, '-', '_' and '.', not beginning or ending in '.'".to_owned()
            );
        }
        Ok(())
    }

    /// The namespace called `name` directly below this one. Nothing of the name is judged.
    pub fn child(&self, name: &str) -> Namespace {
        Namespace::from_path(&format!("{}{name}", self.0))
    }

    /// The namespace it lies in; `None` for the root.
    pub fn parent(&self) -> Option<Namespace> {
        let above = self.0.strip_suffix('/')?;
        let end = above.rfind('/').map_or(0, |slash| slash + 1);
        above.get(..end).map(|path| Namespace(Arc::from(path)))
    }

    /// Whether it lies somewhere in `other`. None lies in itself.
    pub fn is_below(&self, other: &Namespace) -> bool {
        self.0.len() > other.0.len() && self.0.starts_with(&*other.0)
    }

    /// Whether it lies in `other` and in no other between.
    pub fn is_right_below(&self, other: &Namespace) -> bool {
        let rest = self.0.strip_prefix(&*other.0).and_then(|rest| rest.strip_suffix('/'));
        rest.is_some_and(|name| !name.contains('/'))
    }

    /// The namespaces this one lies in, the root first.
    pub fn ancestors(&self) -> Vec<Namespace> {
        let ends = self.0.match_indices('/').map(|(slash, _)| slash + 1);
        let above = std::iter::once(0).chain(ends).filter(|end| *end < self.0.len());
        above.filter_map(|end| self.0.get(..end)).map(|path| Namespace(Arc::from(path))).collect()
    }

    /// The highest namespace below the root that it is or lies in: what a tenant may have, it has there and below together.
    /// The root stands for itself.
    pub fn tenant(&self) -> Namespace {
        let first = self.0.find('/').and_then(|slash| self.0.get(..=slash));
        first
            .filter(|first| first.len() < self.0.len())
            .map_or_else(|| self.clone(), |first| Namespace(Arc::from(first)))
    }

    /// Whether this is the root namespace.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The normalised path: `""` or `a/b/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// So that a path found inside another text finds its namespace in a table.
impl std::borrow::Borrow<str> for Namespace {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Namespace {
    /// `root` for the root namespace, else the path: fit for logs and metric labels.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_root() { "root" } else { &self.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::Namespace;

    #[test]
    fn one_namespace_has_one_spelling() {
        assert_eq!(Namespace::from_path("/a//b"), Namespace::from_path("a/b/"));
        assert_eq!(Namespace::from_path("/"), Namespace::root());
        assert_eq!(Namespace::root().to_string(), "root");
    }

    #[test]
    fn root_is_what_clients_call_the_root_and_nothing_else_leads_there() {
        for text in ["", "/", "//", "root", "/root/"] {
            assert!(Namespace::from_client(text).is_root(), "{text}");
        }
        for text in ["Root", "root/a", "..", ".", "root/.."] {
            assert!(!Namespace::from_client(text).is_root(), "{text}");
        }
    }

    #[test]
    fn a_namespace_lies_in_all_above_it() {
        let above = |path: &str| -> Vec<String> {
            Namespace::from_path(path).ancestors().iter().map(|above| above.as_str().to_owned()).collect()
        };
        assert!(above("").is_empty());
        assert_eq!(above("a"), [""]);
        assert_eq!(above("a/b/c"), ["", "a/", "a/b/"]);
        let parent = |path: &str| Namespace::from_path(path).parent().map(|parent| parent.as_str().to_owned());
        assert_eq!(["", "a", "a/b"].map(parent), [None, Some(String::new()), Some("a/".into())]);
        let tenant = |path: &str| Namespace::from_path(path).tenant().as_str().to_owned();
        assert_eq!(["", "a", "a/b", "a/b/c"].map(tenant), ["", "a/", "a/", "a/"]);
        let is_below = |one: &str, other: &str| Namespace::from_path(one).is_below(&Namespace::from_path(other));
        assert!(is_below("a", "") && is_below("a/b/c", "a") && !is_below("ab", "a") && !is_below("a", "a"));
        let is_right_below =
            |one: &str, other: &str| Namespace::from_path(one).is_right_below(&Namespace::from_path(other));
        assert!(is_right_below("a", "") && is_right_below("a/b", "a"));
        assert!(!is_right_below("a/b", "") && !is_right_below("a", "a") && !is_right_below("b/c", "a"));
        assert_eq!(Namespace::from_path("a").child("b/"), Namespace::from_path("a/b"));
    }

    #[test]
    fn a_name_cannot_be_read_in_two_ways() {
        for fine in ["a", "Team-A_1.x/ci"] {
            assert_eq!(Namespace::from_path(fine).check(), Ok(()), "{fine}");
        }
        let long = "a".repeat(super::NAMESPACE_BYTES);
        for bad in [
            "",
            "root",
            "a/sys",
            "auth",
            "audit",
            "identity/a",
            "cubbyhole",
            "v1",
            "a b",
            ".a",
            "a.",
            "é",
            "a%2Fb",
            &long,
        ] {
            assert!(Namespace::from_path(bad).check().is_err(), "{bad}");
        }
    }
}
