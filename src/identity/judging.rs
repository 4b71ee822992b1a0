//! What a caller may do: its token's policies, judged on paths below its token's namespace.

use std::borrow::Cow;
use std::sync::Arc;

use super::policy::{Acl, Attempt, Capabilities, Permissions};
use super::{Identity, ROOT_POLICY, Token};
use crate::model::{Caller, Fault, Namespace};

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
        self.look_at_valid(caller, namespace, |token| self.granted(token, namespace, path, is_list))
    }

    fn granted<'p>(
        &self,
        token: &Token,
        namespace: &Namespace,
        path: impl FnOnce() -> Cow<'p, str>,
        is_list: bool,
    ) -> Result<Rights, Fault> {
        let (below, may_all) = standing(token, namespace)?;
        if may_all {
            return Ok(Rights::Everything);
        }
        let path = path();
        let path = if below.is_empty() { path } else { Cow::Owned([below, &*path].concat()) };
        let acl = self.acl(token)?;
        let found = acl.find(&path, is_list).ok_or(Fault::PermissionDenied)?;
        Ok(Rights::Granted(Arc::clone(found)))
    }

    /// Whether the caller may ask in `namespace` for what any token may.
    pub fn admits(&self, caller: &Caller, namespace: &Namespace) -> Result<(), Fault> {
        self.look_at_valid(caller, namespace, |_| Ok(()))
    }

    /// Whether the caller is granted `sudo` at a path of `namespace`; a list's ends in `/`.
    pub fn may_sudo(&self, caller: &Caller, namespace: &Namespace, path: &str) -> bool {
        let granted = self
            .token(caller, namespace)
            .and_then(|token| self.granted(&token, namespace, || Cow::Borrowed(path), true));
        granted.is_ok_and(|rights| rights.has_sudo())
    }

    /// The names of what the caller is granted at a path of `namespace`, sorted; `deny` if that is nothing.
    pub fn capabilities(&self, caller: &Caller, namespace: &Namespace, path: &str) -> Result<Vec<&'static str>, Fault> {
        // The request that asks may have taken the token's last use.
        let token = self.token(caller, namespace)?;
        Ok(match self.granted(&token, namespace, || Cow::Borrowed(path), true) {
            Ok(Rights::Everything) => vec![ROOT_POLICY],
            Ok(Rights::Granted(permissions)) => permissions.capabilities().names(),
            Err(_) => Capabilities::NONE.names(),
        })
    }

    /// Whether the caller is granted anything below a mount of `namespace`, whose path ends in `/`.
    pub fn reaches(&self, caller: &Caller, namespace: &Namespace, mount: &str) -> bool {
        let reached = || {
            let token = self.token(caller, namespace)?;
            let (below, may_all) = standing(&token, namespace)?;
            Ok::<_, Fault>(may_all || self.acl(&token)?.reaches(&[below, mount].concat()))
        };
        reached().unwrap_or(false)
    }

    /// What the caller's policies grant, as a whole; `None`: everything.
    pub fn grants(&self, caller: &Caller, namespace: &Namespace) -> Result<Option<Arc<Acl>>, Fault> {
        let token = self.token(caller, namespace)?;
        let (_, may_all) = standing(&token, namespace)?;
        if may_all { Ok(None) } else { self.acl(&token).map(Some) }
    }

    fn acl(&self, token: &Token) -> Result<Arc<Acl>, Fault> {
        self.policies().acl(&token.namespace, &token.policies)
    }
}

/// How a namespace is called below the token's own, and whether the token may everything there.
fn standing<'n>(token: &Token, namespace: &'n Namespace) -> Result<(&'n str, bool), Fault> {
    let below = namespace.as_str().strip_prefix(token.namespace.as_str()).ok_or(Fault::PermissionDenied)?;
    Ok((below, token.is_root()))
}
