//! The `sys/*` operations, and what belongs to tokens themselves: health, initialisation, mounts, managed keys, status.
//!
//! This room must not know: any wire, or what an engine does; the types of engine there are reach it as data.

mod audit;
mod auth_methods;
mod fields;
mod health;
mod keys;
mod leases;
mod mounts;
mod namespaces;
mod openapi;
mod paths;
mod policies;
mod quotas;
mod rotation;
mod sealing;
mod snapshots;
mod standing;
#[cfg(test)]
mod tests;
mod token;
mod token_fields;
mod token_roles;
mod unix_auth;
mod unix_fields;
mod unix_names;
mod wrapping;

use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::audit::Audit;
use crate::identity::Identity;
use crate::managed_keys::ManagedKeys;
use crate::model::{
    Caller, ConfigurationStatus, Data, Deadline, EngineType, Fault, LeaseRequest, Mount, Namespace, Outcome, Request,
    Response, Secret, Verb,
};
use crate::namespace::{Namespaces, Quotas};
use crate::store::{Store, Write};

use paths::{Deed, Found, Row, find};
pub use sealing::{Seal, Sealing};
pub use snapshots::{Replace, Replacement, Snapshots};
pub use standing::{Standing, WhileSealed};
pub use unix_auth::UnixLogins;

/// The Vault API level, for clients that look at it; `ent` in it says that managed keys are to be had.
pub const VAULT_VERSION: &str = "1.21.0+ent.keyway";

/// The future of an answer.
pub type Answer = Pin<Box<dyn Future<Output = Result<Outcome, Fault>> + Send>>;

/// Loads what the store holds into the rooms above it; run once it is initialised.
pub type Load = Arc<dyn Fn() -> Result<(), Fault> + Send + Sync>;

/// The changes that remove an engine's records when its mount is disabled.
pub type Removal = Arc<dyn Fn(&Mount) -> Result<Vec<Write>, Fault> + Send + Sync>;

/// Ends the engines of the mounts that a deleted namespace had, and what else there is of it outside of the store. Done once
/// no request is in them.
pub type Retire = Arc<dyn Fn(Namespace, Vec<Arc<Mount>>) -> Retiring + Send + Sync>;

/// The future of [`Retire`].
pub type Retiring = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>>;

/// Asks a mount's engine about leases; answered with [`Fault::absent`] where there is none.
pub type Leases = Arc<dyn Fn(LeaseCall) -> Answer + Send + Sync>;

/// What is asked of a mount about leases, and by whom.
#[derive(Clone, Debug)]
pub struct LeaseCall {
    /// The mount.
    pub mount: Arc<Mount>,
    /// Who asks.
    pub caller: Caller,
    /// When the answer stops being of use.
    pub deadline: Deadline,
    /// What.
    pub asked: LeaseRequest,
}

/// What the system operations work on.
pub struct System {
    /// The store, for health and initialisation.
    pub store: Store,
    /// The mount tables.
    pub namespaces: Namespaces,
    /// The quotas.
    pub quotas: Quotas,
    /// The tokens.
    pub identity: Identity,
    /// The devices that record what is asked.
    pub audit: Audit,
    /// The managed keys.
    pub keys: ManagedKeys,
    /// The engine types a mount may have.
    pub engines: Vec<EngineType>,
    /// Run after initialisation.
    pub load: Load,
    /// Asked when a mount is disabled.
    pub removal: Removal,
    /// Asked about leases.
    pub leases: Leases,
    /// Asked when a namespace was deleted.
    pub retire: Retire,
    /// Asked when the daemon is to be sealed.
    pub seal: Seal,
    /// Rung when a term has begun: records of older ones are to be encrypted anew.
    pub rotated: Arc<Notify>,
    /// How snapshots are saved and restored.
    pub snapshots: Snapshots,
    /// Rung when a namespace was deleted: [`System::end_deletions`] is due.
    pub deletions: Arc<Notify>,
    /// The root token to make at initialisation; a random one if there is none.
    pub root_token: Option<Secret>,
    /// When the daemon started.
    pub started: SystemTime,
    /// What became of the configuration since.
    pub configuration: Arc<ArcSwap<ConfigurationStatus>>,
    /// What logins by process need.
    pub unix_logins: UnixLogins,
}

/// One call on the system.
#[derive(Clone, Debug)]
pub struct Call {
    /// The namespace addressed.
    pub namespace: Namespace,
    /// Who asks.
    pub caller: Caller,
    /// When the answer stops being of use.
    pub deadline: Deadline,
    /// Whether the answer is kept behind a token.
    pub is_wrapped: bool,
}

impl System {
    /// Whether `path` is one of the system's.
    pub fn owns(path: &str) -> bool {
        ["sys/", "auth/token/", "auth/unix/"].iter().any(|start| path.starts_with(start))
    }

    /// Whether the request is answered without a token, even before initialisation.
    pub fn is_public(request: &Request) -> bool {
        matches!(find(request.verb, &request.path), Found::Row(row, _) if row.endpoint.is_public)
    }

    /// Whether audit devices are not told of the request: anyone may ask it, of the daemon itself.
    pub fn is_unrecorded(request: &Request) -> bool {
        let of_all = |row: &Row| row.endpoint.is_public && !row.is_in_a_namespace;
        matches!(find(request.verb, &request.path), Found::Row(row, _) if of_all(row))
    }

    /// Whether any token may ask it, without a policy that names it.
    pub fn is_for_any_token(request: &Request) -> bool {
        matches!(find(request.verb, &request.path), Found::Row(row, _) if !row.needs_policy)
    }

    /// Whether policies must grant `sudo` for the request, too.
    pub fn needs_sudo(request: &Request) -> bool {
        matches!(find(request.verb, &request.path), Found::Row(row, _) if row.endpoint.needs_sudo)
    }

    /// Whether what a write to this path is about is there, where that decides between the capabilities `create` and
    /// `update`.
    pub fn exists(&self, namespace: &Namespace, path: &str) -> Option<bool> {
        match find(Verb::Write, path) {
            Found::Row(Row { deed: Deed::WriteKey, .. }, names) => {
                let found = self.keys.find(namespace, names.first()?, names.get(1)?);
                // One that cannot be read is there.
                Some(matches!(found, Ok(_) | Err(Fault::Unavailable { .. })))
            }
            Found::Row(Row { deed: Deed::WriteUnixRole, .. }, names) => {
                self.identity.unix_roles().get(namespace, names.first()?).ok().map(|role| role.is_some())
            }
            _ => None,
        }
    }

    /// A path as it is answered, where that is not as it is written: a policy's name is the same in any case.
    pub fn one_spelling(path: &str) -> Option<String> {
        let names_policy = path.starts_with("sys/policies/acl/") || path.starts_with("sys/policy/");
        let read = names_policy.then(|| path.to_lowercase())?;
        (read != path).then_some(read)
    }

    /// Whether the request is let through whatever the quotas say.
    pub fn is_unlimited(request: &Request) -> bool {
        matches!(find(request.verb, &request.path), Found::Row(row, _) if row.endpoint.is_unlimited())
    }

    /// Whether the request is answered in a namespace that is locked: it is to unlock it.
    pub fn unlocks(request: &Request) -> bool {
        matches!(find(request.verb, &request.path), Found::Row(row, _) if row.deed == Deed::UnlockNamespace)
    }

    /// Answers a request on one of the system's paths.
    pub fn handle(self: Arc<Self>, call: Call, request: Request) -> Answer {
        if let Found::Row(Row { deed: deed @ (Deed::TakeSnapshot | Deed::Restore { .. }), .. }, _) =
            find(request.verb, &request.path)
        {
            return Box::pin(std::future::ready(self.stream(*deed, &call)));
        }
        Box::pin(async move { self.answer(call, request).await.map(Outcome::Response) })
    }

    async fn answer(&self, call: Call, request: Request) -> Result<Response, Fault> {
        let (row, names) = match find(request.verb, &request.path) {
            Found::Row(row, names) => (row, names),
            Found::OtherVerbs => return Err(Fault::UnsupportedOperation),
            Found::Nothing => return Err(Fault::NotFound { what: "unsupported path".into() }),
        };
        // Strangers are answered alike whatever namespaces there are.
        if row.is_in_a_namespace && !row.endpoint.is_public {
            self.namespaces.require(&call.namespace)?;
        }
        let name = |index: usize| names.get(index).map(String::as_str).unwrap_or_default();
        let data = &request.data;
        match row.deed {
            Deed::ReadHealth => Ok(self.standing().health(data)),
            Deed::ReadSealStatus => Ok(self.standing().seal_status(Vec::new())),
            Deed::ReadLeader => Ok(standing::leader()),
            Deed::ReadInit => Ok(self.standing().init_status()),
            Deed::Initialize => self.init(&call, data).await,
            Deed::Seal => self.seal(&call).await,
            Deed::Rotate => self.rotate(&call).await,
            Deed::RotateRoot => self.rotate_root(&call).await,
            Deed::ReadKeyStatus => self.key_status(&call),
            Deed::Unseal => Ok(self.standing().seal_status(standing::read_unseal(&call.caller, data)?)),
            Deed::ReadStatus => self.status(&call).await,
            Deed::ListNamespaces => self.list_namespaces(&call).await,
            Deed::ReadNamespace => self.read_namespace(&call, name(0)),
            Deed::WriteNamespace => self.write_namespace(&call, name(0), data).await,
            Deed::LockNamespace => self.lock_namespace(&call, name(0)).await,
            Deed::UnlockNamespace => self.unlock_namespace(&call, name(0), data).await,
            Deed::DeleteNamespace => self.delete_namespace(&call, name(0)).await,
            Deed::PatchNamespace => self.patch_namespace(&call, name(0), data).await,
            Deed::ListMounts => Ok(self.list_mounts(&call)),
            Deed::ListAuthMethods => Ok(self.list_auth_methods(&call)),
            Deed::ReadAuthTuning => System::read_auth_tuning(name(0)),
            Deed::ReadTuning => self.read_tuning(&call, name(0)),
            Deed::Tune => self.tune(&call, name(0), data).await,
            Deed::ReadMount => self.read_mount(&call, name(0)),
            Deed::Enable => self.enable(&call, name(0), data).await,
            Deed::Disable => self.disable(&call, name(0)).await,
            Deed::ShowMounts => self.ui_mounts(&call).await,
            Deed::ShowMount => self.ui_mount(&call, name(0)),
            Deed::Describe => self.describe(&call, data).await,
            Deed::ListKeys => self.list_keys(&call, name(0)),
            Deed::ReadKey => self.read_key(&call, name(0), name(1)),
            Deed::WriteKey => self.write_key(&call, name(0), name(1), data).await,
            Deed::DeleteKey => self.delete_key(&call, name(0), name(1)).await,
            Deed::TestSign => self.test_sign(&call, name(0), name(1), data).await,
            Deed::LookUpLease => self.lookup_lease(&call, data).await,
            Deed::ListLeases => self.list_leases(&call, name(0)).await,
            Deed::RenewLease => self.renew_lease(&call, name(0), data).await,
            Deed::RevokeLease => self.revoke_lease(&call, name(0), data).await,
            Deed::RevokeLeases => self.revoke_leases(&call, name(0)).await,
            Deed::ListPolicies => Ok(self.list_policies(&call)),
            Deed::ReadPolicy => self.read_policy(&call, name(0)),
            Deed::WritePolicy => self.write_policy(&call, name(0), data).await,
            Deed::DeletePolicy => self.delete_policy(&call, name(0)).await,
            Deed::ListPoliciesAsOfOld => Ok(self.list_policies_as_of_old(&call)),
            Deed::ReadPolicyAsOfOld => self.read_policy_as_of_old(&call, name(0)),
            Deed::ReadCapabilities => self.capabilities(&call, data).await,
            Deed::ReadCapabilitiesByAccessor => self.capabilities_by_accessor(&call, data).await,
            Deed::ReadOwnCapabilities => self.own_capabilities(&call, data).await,
            Deed::ReadGrants => self.grants(&call),
            Deed::ListAudit => self.list_audit(&call),
            Deed::EnableAudit => self.enable_audit(&call, name(0), data).await,
            Deed::DisableAudit => self.disable_audit(&call, name(0)).await,
            Deed::HashAudit => self.audit_hash(&call, name(0), data),
            Deed::ListQuotas(kind) => self.list_quotas(&call, kind),
            Deed::ReadQuota(kind) => self.read_quota(&call, kind, name(0)),
            Deed::WriteQuota(kind) => self.write_quota(&call, kind, name(0), data).await,
            Deed::DeleteQuota(kind) => self.delete_quota(&call, kind, name(0)).await,
            deed => self.answer_on_tokens(deed, &call, name(0), data).await,
        }
    }

    /// Answers what is asked of tokens, and of answers behind them.
    async fn answer_on_tokens(&self, deed: Deed, call: &Call, role: &str, data: &Data) -> Result<Response, Fault> {
        match deed {
            Deed::LookupSelf => self.lookup_self(call),
            Deed::LookupToken => self.lookup_token(call, data),
            Deed::LookupAccessor => self.lookup_accessor(call, data),
            Deed::ListAccessors => self.list_accessors(call).await,
            Deed::CreateToken => self.create_token(call, None, false, data).await,
            Deed::CreateOrphan => self.create_token(call, None, true, data).await,
            Deed::CreateByRole => self.create_token(call, Some(role), false, data).await,
            Deed::RenewToken => self.renew_token(call, data).await,
            Deed::RenewSelf => self.renew_self(call, data).await,
            Deed::RenewAccessor => self.renew_accessor(call, data).await,
            Deed::RevokeToken => self.revoke_token(call, data).await,
            Deed::RevokeSelf => self.revoke_self(call).await,
            Deed::RevokeAccessor => self.revoke_accessor(call, data).await,
            Deed::RevokeOrphan => self.revoke_orphan(call, data).await,
            Deed::ListTokenRoles => self.list_token_roles(call).await,
            Deed::ReadTokenRole => self.read_token_role(call, role).await,
            Deed::WriteTokenRole => self.write_token_role(call, role, data).await,
            Deed::DeleteTokenRole => self.delete_token_role(call, role).await,
            Deed::ListUnixRoles => self.list_unix_roles(call),
            Deed::ReadUnixRole => self.read_unix_role(call, role),
            Deed::WriteUnixRole => self.write_unix_role(call, role, data).await,
            Deed::DeleteUnixRole => self.delete_unix_role(call, role).await,
            Deed::LoginByUnix => self.login_by_unix(call, data).await,
            Deed::Wrap => wrapping::wrap(call, data),
            Deed::Unwrap => self.unwrap(call, data).await,
            Deed::LookUpWrapping => self.lookup_wrapping(call, data),
            Deed::Rewrap => self.rewrap(call, data).await,
            _ => Err(Fault::internal("a path of the system's has no deed")),
        }
    }
}

/// A moment as Vault writes it: RFC 3339, in UTC.
fn time_text(seconds: u64) -> String {
    let moment = i64::try_from(seconds).ok().and_then(|seconds| time::UtcDateTime::from_unix_timestamp(seconds).ok());
    moment.and_then(|moment| moment.format(&time::format_description::well_known::Rfc3339).ok()).unwrap_or_default()
}
