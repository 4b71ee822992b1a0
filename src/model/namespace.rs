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

    /// Whether this is the root namespace.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The normalised path: `""` or `a/b/`.
    pub fn as_str(&self) -> &str {
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
}
