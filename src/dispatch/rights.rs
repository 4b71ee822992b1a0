//! Whether an operation is within its caller's rights: what it attempts, in the words of policies.

use std::borrow::Cow;

use super::Dispatch;
use crate::identity::policy::Attempt;
use crate::model::{Body, Capability, Data, Fault, Operation};
use crate::system::System;

use super::typed;

impl Dispatch {
    /// Refuses what the caller's policies do not grant: before anything is looked for, so that who may not ask does not learn
    /// what there is.
    pub(super) fn judge(&self, operation: &Operation) -> Result<(), Fault> {
        if let Body::Request(request) = &operation.body
            && System::owns(&request.path)
            && System::is_for_any_token(request)
        {
            return self.identity.admits(&operation.caller, &operation.namespace);
        }
        let capability = operation.capability();
        let is_list = capability == Capability::List;
        let path = || match operation.path() {
            path if is_list && !path.ends_with('/') => Cow::Owned([&*path, "/"].concat()),
            path => path,
        };
        let attempt = Attempt {
            capability,
            needs_sudo: &|| self.needs_sudo(operation),
            exists: &|| self.exists(operation),
            data: &|| fields(&operation.body),
            wrapping: operation.wrap_ttl,
        };
        let Operation { caller, namespace, .. } = operation;
        self.identity.rights(caller, namespace, path, is_list)?.judge(&attempt)?;
        // What is read as another spelling must be granted there, too: nobody comes by the one to what the other denies. The
        // system's paths alone have any, and no typed operation goes there.
        let Body::Request(request) = &operation.body else { return Ok(()) };
        match System::one_spelling(&request.path) {
            Some(read) => self.identity.rights(caller, namespace, || Cow::Owned(read), is_list)?.judge(&attempt),
            None => Ok(()),
        }
    }

    fn needs_sudo(&self, operation: &Operation) -> bool {
        let Body::Request(request) = &operation.body else { return false };
        if System::owns(&request.path) {
            return System::needs_sudo(request);
        }
        let Some((mount, rest)) = self.namespaces.route(&operation.namespace, &request.path) else { return false };
        self.engines.get(&mount).is_ok_and(|engine| engine.needs_sudo(request.verb, rest))
    }

    /// Whether what a write is about is there, where Vault makes that difference.
    fn exists(&self, operation: &Operation) -> Option<bool> {
        let path = operation.path();
        if System::owns(&path) {
            return self.system.exists(&operation.namespace, &path);
        }
        let (mount, rest) = self.namespaces.route(&operation.namespace, &path)?;
        self.engines.get(&mount).ok()?.exists(rest)
    }
}

/// What the operation says beside its path.
fn fields(body: &Body) -> Cow<'_, Data> {
    match body {
        Body::Request(request) => Cow::Borrowed(&request.data),
        typed => Cow::Owned(typed::fields(typed)),
    }
}
