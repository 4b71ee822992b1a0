//! What a caller may do: its token's policies, judged on paths below its token's namespace.

use std::borrow::Cow;
use std::sync::Arc;

use super::policy::{Acl, Attempt, Capabilities, Permissions};
use super::{Identity, Token};
use crate::model::{Caller, Fault, Namespace};

/// The policy that may everything.
const ROOT: &str = "root";

/// What a caller may do at one path.
pub enum Rights {
    /// Everything: it is a root token.
    Everything,
    /// What its policies grant there.
    Granted(Arc<Permissions>),
}

impl Rights {
    /// Lets an attempt pass, or refuses it.
    pub fn judge(&self, attempt: &Attempt<'_>) -> Result<(), Fault> {
        match self {
            Rights::Everything => Ok(()),
            Rights::Granted(permissions) => permissions.judge(attempt),
        }
    }

    /// Whether it includes what only `sudo` lets in.
    pub fn has_sudo(&self) -> bool {
        match self {
            Rights::Everything => true,
            Rights::Granted(permissions) => permissions.capabilities().has(Capabilities::SUDO),
        }
    }
}

impl Identity {
    /// What the caller may do at a path of `namespace`. The path is asked for when that depends on it; a list's ends in `/`.
    ///
    /// # Errors
    ///
    /// [`Fault::PermissionDenied`] if no rule is about the path, the token is not good, or it belongs to a namespace that
    /// this one is not below.
    pub fn rights<'p>(
        &self,
        caller: &Caller,
        namespace: &Namespace,
        path: impl FnOnce() -> Cow<'p, str>,
        is_list: bool,
    ) -> Result<Rights, Fault> {
        let token = self.token(caller)?;
        let (below, may_all) = standing(&token, namespace)?;
        if may_all {
            return Ok(Rights::Everything);
        }
        let path = path();
        let path = if below.is_empty() { path } else { Cow::Owned([below, &*path].concat()) };
        let acl = self.acl(&token)?;
        let found = acl.find(&path, is_list).ok_or(Fault::PermissionDenied)?;
        Ok(Rights::Granted(Arc::clone(found)))
    }

    /// The caller's token, if it is good in `namespace`.
    pub fn token_of(&self, caller: &Caller, namespace: &Namespace) -> Result<Arc<Token>, Fault> {
        let token = self.token(caller)?;
        standing(&token, namespace)?;
        Ok(token)
    }

    /// The names of what the caller is granted at a path of `namespace`, sorted; `deny` if that is nothing.
    pub fn capabilities(&self, caller: &Caller, namespace: &Namespace, path: &str) -> Result<Vec<&'static str>, Fault> {
        match self.rights(caller, namespace, || Cow::Borrowed(path), true) {
            Ok(Rights::Everything) => Ok(vec![ROOT]),
            Ok(Rights::Granted(permissions)) => Ok(permissions.capabilities().names()),
            // A good token that has none here.
            Err(_) => self.token(caller).map(|_| Capabilities::NONE.names()),
        }
    }

    /// Whether the caller is granted anything below a mount of `namespace`, whose path ends in `/`.
    pub fn reaches(&self, caller: &Caller, namespace: &Namespace, mount: &str) -> bool {
        let reached = || {
            let token = self.token(caller)?;
            let (below, may_all) = standing(&token, namespace)?;
            Ok::<_, Fault>(may_all || self.acl(&token)?.reaches(&[below, mount].concat()))
        };
        reached().unwrap_or(false)
    }

    /// What the caller's policies grant, as a whole; `None`: everything.
    pub fn grants(&self, caller: &Caller, namespace: &Namespace) -> Result<Option<Arc<Acl>>, Fault> {
        let token = self.token(caller)?;
        let (_, may_all) = standing(&token, namespace)?;
        if may_all { Ok(None) } else { self.acl(&token).map(Some) }
    }

    fn acl(&self, token: &Token) -> Result<Arc<Acl>, Fault> {
        self.policies().acl(home(token), &token.policies)
    }
}

/// Where a token's policies are, and what they are about is below.
fn home(_token: &Token) -> &Namespace {
    static ROOT_NAMESPACE: std::sync::LazyLock<Namespace> = std::sync::LazyLock::new(Namespace::root);
    &ROOT_NAMESPACE
}

/// How a namespace is called below the token's own, and whether the token may everything there.
fn standing<'n>(token: &Token, namespace: &'n Namespace) -> Result<(&'n str, bool), Fault> {
    let home = home(token);
    let below = namespace.as_str().strip_prefix(home.as_str()).ok_or(Fault::PermissionDenied)?;
    Ok((below, home.is_root() && token.policies.iter().any(|policy| policy == ROOT)))
}
