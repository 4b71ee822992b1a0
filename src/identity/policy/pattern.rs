//! The path of a rule: exact, or with `+` for one whole part and `*` at its end for anything.

use std::cmp::Reverse;

/// A rule's path. Two rules of one pattern are one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// Without the `*` at its end.
    text: Box<str>,
    is_prefix: bool,
    /// Whether it is compared part by part.
    has_parts: bool,
}

impl Pattern {
    /// Reads a path as a policy has it; else says what is wrong with it.
    pub(super) fn parse(path: &str) -> Result<Pattern, String> {
        let path = path.strip_prefix('/').unwrap_or(path);
        if path.contains("+*") {
            return Err(format!("path {path:?}: '+*' is forbidden: write '+' for one whole part, '*' for any rest"));
        }
        if path.contains("{{") {
            return Err(format!("path {path:?}: templates are not supported: there are no identities; name the path"));
        }
        let has_parts = path == "+" || path.starts_with("+/") || path.contains("/+");
        let text = path.strip_suffix('*');
        Ok(Pattern { is_prefix: text.is_some(), text: text.unwrap_or(path).into(), has_parts })
    }

    /// The whole of an exact path.
    pub(super) fn exact(&self) -> Option<&str> {
        (!self.is_prefix && !self.has_parts).then_some(&self.text)
    }

    /// What every path that fits begins with: what stands before the first wildcard.
    pub(super) fn head(&self) -> &str {
        let end = if self.has_parts { self.text.find('+') } else { None };
        self.text.get(..end.unwrap_or(self.text.len())).unwrap_or(&self.text)
    }

    /// Among patterns with heads of one length that fit a path, the greatest counts: one without `*`, then the one with
    /// fewer `+`, the longer, the later in the alphabet. A longer head beats all of these.
    pub(super) fn rank(&self) -> impl Ord + '_ {
        let open = if self.has_parts { self.text.split('/').filter(|part| *part == "+").count() } else { 0 };
        (!self.is_prefix, Reverse(open), self.text.len(), &*self.text)
    }

    /// Whether it is compared part by part: it has a `+`.
    pub(super) fn has_parts(&self) -> bool {
        self.has_parts
    }

    /// How many parts it has.
    pub(super) fn depth(&self) -> usize {
        self.text.split('/').count()
    }

    /// Whether a path is one of those it names.
    pub(super) fn fits(&self, path: &str) -> bool {
        if !self.has_parts {
            return if self.is_prefix { path.starts_with(&*self.text) } else { path == &*self.text };
        }
        let mut parts = path.split('/');
        let mut own = self.text.split('/').peekable();
        while let Some(fixed) = own.next() {
            let Some(part) = parts.next() else { return false };
            let begins = self.is_prefix && own.peek().is_none() && part.starts_with(fixed);
            if fixed != "+" && fixed != part && !begins {
                return false;
            }
        }
        self.is_prefix || parts.next().is_none()
    }

    /// Whether it is made for paths below `mount`, which ends in `/`: it says more than the mount, or has a `+` for it.
    pub(super) fn reaches_below(&self, mount: &str) -> bool {
        if !self.has_parts {
            return self.text.starts_with(mount);
        }
        let mut own = self.text.split('/').peekable();
        for part in mount.trim_end_matches('/').split('/') {
            let Some(fixed) = own.next() else { return false };
            let is_last = own.peek().is_none();
            if is_last && self.is_prefix && part.starts_with(fixed) {
                return true;
            }
            if fixed != "+" && fixed != part {
                return false;
            }
        }
        own.peek().is_some()
    }

    /// As a policy writes it.
    pub(super) fn written(&self) -> String {
        format!("{}{}", self.text, if self.is_prefix { "*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(path: &str) -> Pattern {
        Pattern::parse(path).unwrap()
    }

    #[test]
    fn each_wildcard_fits_what_vault_says() {
        for (path, fits, not) in [
            ("a/b", &["a/b"][..], &["a/b/", "a", "a/bc"][..]),
            ("/a/b", &["a/b"], &["/a/b"]),
            ("a/*", &["a/", "a/b", "a/b/c"], &["a", "b/a/"]),
            ("a/b*", &["a/b", "a/bc/d"], &["a/c"]),
            ("*", &["", "a", "a/b"], &[]),
            ("a/+", &["a/b", "a/"], &["a", "a/b/c"]),
            ("+", &["a", ""], &["a/b"]),
            ("+/b", &["a/b", "/b"], &["a/c", "b"]),
            ("a/+/c*", &["a/b/c", "a/b/cd/e", "a/x/c/"], &["a/b/d", "a/b", "a/b/b/c"]),
            ("a/+/*", &["a/b/", "a/b/c/d"], &["a/b", "a"]),
            // No wildcards: a `*` within, and a `+` that is no whole part.
            ("a*b", &["a*b"], &["axb"]),
            ("a/b+", &["a/b+"], &["a/bc"]),
            ("a/+b", &["a/+b"], &["a/xb", "a/b"]),
        ] {
            fits.iter().for_each(|asked| assert!(pattern(path).fits(asked), "{path} {asked}"));
            not.iter().for_each(|asked| assert!(!pattern(path).fits(asked), "{path} {asked}"));
            assert!(fits.iter().all(|asked| asked.starts_with(pattern(path).head())), "{path}");
            assert_eq!(pattern(&pattern(path).written()), pattern(path));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (path, hint) in [("a/+*", "'+*'"), ("a/{{identity.entity.id}}/b", "templates")] {
            assert!(Pattern::parse(path).unwrap_err().contains(hint), "{path}");
        }
    }

    #[test]
    fn a_mount_is_reached_by_what_is_made_for_it() {
        for (path, mount) in [
            ("pki/sign/web", "pki/"),
            ("pki/*", "pki/"),
            ("+/sign/web", "pki/"),
            ("a/+/keys/*", "a/b/"),
            ("a/b/c*", "a/b/"),
        ] {
            assert!(pattern(path).reaches_below(mount), "{path} {mount}");
        }
        for (path, mount) in
            [("pki2/*", "pki/"), ("*", "pki/"), ("pki", "pki/"), ("+/b/c", "a/x/"), ("+", "pki/"), ("a/+", "a/b/")]
        {
            assert!(!pattern(path).reaches_below(mount), "{path} {mount}");
        }
    }
}
