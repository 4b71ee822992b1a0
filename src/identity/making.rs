//! How tokens are made: for those who ask by a token of theirs, and for those who log in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::rules::{self, Wish};
use super::token::{Token, TokenRecord};
use super::tokens::{Identity, TOKENS_MAX, new_accessor, random_token};
use super::ttl::{self, Wanted};
use super::unix::login_of;
use super::using;
use crate::model::{Auth, Caller, Fault, Namespace, Secret, TokenId};
use crate::store::Write;

/// The longest a token that its maker chooses may be, in bytes.
const ID_BYTES_MAX: usize = 1024;
/// When to come again who has too many tokens of logins: some of them may have ended by then.
const LOGINS_PAUSE: Duration = Duration::from_secs(1);

/// A token to make for somebody who has proven otherwise who they are. Zero stands for Vault's default.
#[derive(Clone, Debug)]
pub struct Login {
    /// Where the login was asked for.
    pub namespace: Namespace,
    /// The path it was asked for at: `auth/unix/login`.
    pub path: String,
    /// The policies they are due.
    pub policies: Vec<String>,
    /// Leave `default` out of them.
    pub no_default_policy: bool,
    /// For people.
    pub display_name: String,
    /// Who they are, as far as the login knows.
    pub meta: BTreeMap<String, String>,
    /// The user who logged in, as the kernel numbers it.
    pub uid: Option<u32>,
    /// Seconds the token lives.
    pub ttl: u64,
    /// Seconds it may be made to live, unless it has a period.
    pub max_ttl: u64,
    /// Seconds it may live all in all.
    pub explicit_max_ttl: u64,
    /// Seconds it is renewed for each time.
    pub period: u64,
    /// How often it may be used.
    pub num_uses: u64,
}

impl Identity {
    /// Makes a token for a login: an orphan that may be renewed. It is durable when this answers.
    pub async fn login(&self, login: Login) -> Result<(Auth, Vec<String>), Fault> {
        let policies = rules::sanitized(&login.policies, !login.no_default_policy);
        rules::check_assignable(&policies)?;
        if policies.iter().any(|policy| policy == super::ROOT_POLICY) {
            return Err(Fault::invalid("auth methods cannot create root tokens"));
        }
        let now = self.0.clock.now();
        let wanted = Wanted {
            ttl: login.ttl,
            max_ttl: login.max_ttl,
            period: login.period,
            explicit_max_ttl: login.explicit_max_ttl,
            start: now,
            increment: 0,
        };
        let (ttl, warnings) = ttl::effective(&wanted, now)?;
        let record = TokenRecord {
            creation_time: now,
            namespace: login.namespace.as_str().to_owned(),
            path: login.path,
            meta: login.meta,
            creation_ttl_seconds: ttl,
            explicit_max_ttl_seconds: login.explicit_max_ttl,
            period_seconds: login.period,
            renewable: true,
            num_uses: login.num_uses,
            by_uid: login.uid,
            ..TokenRecord::everlasting(new_accessor(), policies, login.display_name)
        };
        let (token, secret) = self.make(record, None, Vec::new()).await?;
        Ok((using::auth(&token, secret, token.creation_ttl), warnings))
    }

    /// Makes a token for the caller, whose token is its parent unless it is to be an orphan.
    pub async fn create(
        &self,
        caller: &Caller,
        namespace: &Namespace,
        wish: Wish,
    ) -> Result<(Auth, Vec<String>), Fault> {
        let parent = self.token(caller, namespace)?;
        if parent.is_implicit() {
            return Err(Fault::invalid(
                "who shows no token makes none: log in at auth/unix/login, and make it with the token from there",
            ));
        }
        let role = match &wish.role {
            Some(name) => {
                Some(self.role(namespace, name)?.ok_or_else(|| Fault::invalid(format!("unknown role {name}")))?)
            }
            None => None,
        };
        let may_sudo = self.may_sudo(caller, namespace, &rules::path(&wish, None));
        let given = wish.id.clone();
        if let Some(given) = &given {
            check_id(given)?;
        }
        let now = self.0.clock.now();
        let rules::Judged { mut record, is_orphan, mut warnings } =
            rules::judge(wish, role.as_ref(), &parent, namespace, may_sudo, now)?;
        record.parent = caller.token.filter(|_| !is_orphan).map(|id| hex::encode(id.0));
        record.accessor = new_accessor();
        record.by_uid = parent.by_uid;
        let (token, secret) = self.make(record, given, Vec::new()).await?;
        tracing::info!(
            %namespace, accessor = token.accessor, parent = parent.accessor, policies = ?token.policies, "token made"
        );
        let absent = token.policies.iter().filter(|policy| !self.policies().exists(namespace, policy));
        warnings.extend(absent.map(|policy| format!("Policy {policy:?} does not exist")));
        Ok((using::auth(&token, secret, token.creation_ttl), warnings))
    }

    /// Makes a token of this record, with what is to be stored beside it. It is good at once, and durable when this
    /// answers, before which nobody knows it.
    pub(super) async fn make(
        &self,
        mut record: TokenRecord,
        given: Option<Secret>,
        beside: Vec<Write>,
    ) -> Result<(Arc<Token>, Secret), Fault> {
        record.check_size()?;
        let secret = given.map_or_else(random_token, Ok)?;
        let id = TokenId(self.0.store.keyed_hash("token", secret.expose())?);
        record.ends =
            (record.creation_ttl_seconds > 0).then(|| record.creation_time.saturating_add(record.creation_ttl_seconds));
        record.uses = (record.num_uses > 0).then_some(record.num_uses);
        let token = Arc::new(record.into_token()?);
        let stored = {
            let mut tree = self.0.tree.lock();
            if tree.len() >= TOKENS_MAX {
                let what = format!("there are {TOKENS_MAX} tokens; some must end first");
                return Err(Fault::Unavailable { what });
            }
            if let Some(uid) = login_of(&token)
                && tree.logins(&token.namespace, uid) >= self.0.logins_per_uid
            {
                return Err(too_many_logins(uid, &token.namespace.tenant(), self.0.logins_per_uid));
            }
            let most = self.0.tokens_max;
            if !token.is_wrapping() && tree.of_tenant(&token.namespace) >= most {
                return Err(too_many_tokens(&token.namespace.tenant(), most));
            }
            if self.0.tokens.pin().get(&id).is_some() {
                return Err(Fault::invalid("cannot create a token with a duplicate ID"));
            }
            let parent = token.lock().parent;
            if parent.is_some_and(|parent| self.0.find(parent).is_none()) {
                return Err(Fault::PermissionDenied);
            }
            let mut writes = vec![token.create(id, &token.lock())?];
            writes.extend(beside);
            self.0.hold(&mut tree, id, &token);
            self.0.store.commit(writes)
        };
        if let Err(fault) = stored.await {
            // Deleted as well: the disk may have failed after it was written.
            let gone = self.take_out(id);
            self.delete(gone).await.ok();
            return Err(fault);
        }
        Ok((token, secret))
    }
}

fn too_many_tokens(tenant: &Namespace, most: usize) -> Fault {
    Fault::invalid(format!(
        "namespace {tenant} and those below it have {most} tokens together, as limits {{ client_tokens_per_namespace }} allows: \
         revoke some, let some end, or have the operator raise it"
    ))
}

fn too_many_logins(uid: u32, namespace: &Namespace, limit: usize) -> Fault {
    Fault::QuotaExceeded {
        what: format!(
            "uid {uid} has {limit} live tokens of auth/unix/login in namespace {namespace} and those below it, as many as it may: \
             revoke those that are done with, or have the role's token_ttl end them sooner"
        ),
        retry_after: LOGINS_PAUSE,
    }
}

/// A token that its maker chooses must not look like one that was made here.
fn check_id(given: &Secret) -> Result<(), Fault> {
    let text = given.expose_str().unwrap_or_default();
    if text.len() > ID_BYTES_MAX {
        return Err(Fault::invalid(format!("custom token ID is longer than {ID_BYTES_MAX} bytes")));
    }
    if ["hvs.", "s."].iter().any(|prefix| text.starts_with(prefix)) {
        return Err(Fault::invalid("custom token ID cannot have the 'hvs.' or 's.' prefix"));
    }
    if text.contains('.') {
        return Err(Fault::invalid("custom token ID cannot have '.' in it"));
    }
    Ok(())
}
