//! The name of a tenant.

use std::sync::Arc;

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

    /// The namespaces this one lies in, the root first.
    pub fn ancestors(&self) -> Vec<Namespace> {
        let ends = self.0.match_indices('/').map(|(slash, _)| slash + 1);
        let above = std::iter::once(0).chain(ends).filter(|end| *end < self.0.len());
        above.filter_map(|end| self.0.get(..end)).map(|path| Namespace(Arc::from(path))).collect()
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
    }
}
