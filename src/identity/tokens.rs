//! The tokens there are: read by every request without a lock, changed one at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::clock::Clock;
use super::policy::Policies;
use super::shares::Shares;
use super::token::{COLLECTION, ROOT_POLICY, Token, TokenRecord, parse_id};
use super::tree::Tree;
use super::unix::UnixRoles;
use crate::config::Limits;
use crate::model::{Caller, Fault, Namespace, Secret, Tally, TokenId};
use crate::store::{Changes, RecordKey, Store, Write};

/// Tokens at most.
pub(super) const TOKENS_MAX: usize = 1_000_000;
/// The collection of what was done once and for all.
const ONCE: &str = "identity";
/// The record that says that a root token was made, even if it was revoked since.
const ROOT_MADE: &str = "root-token-made";
/// Characters of a token's random part: about 143 bits.
const RANDOM_CHARS: usize = 24;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The tokens. Cheap to clone.
#[derive(Clone)]
pub struct Identity(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) store: Store,
    policies: Policies,
    unix_roles: UnixRoles,
    /// Live tokens of one uid in one tenant's namespaces that it got by `auth/unix/login`.
    pub(super) logins_per_uid: usize,
    /// Every token that is good but for its end. A request looks up one, and takes no lock.
    pub(super) tokens: papaya::HashMap<TokenId, Arc<Token>, RandomState>,
    /// What else leads to them. Held while `tokens` is changed and while the change is queued at the store, never longer:
    /// so changes are stored in the order they were made in.
    pub(super) tree: Mutex<Tree>,
    /// Tokens whose uses are counted: while there is none, no request looks.
    pub(super) counted: AtomicUsize,
    /// The answers that tokens hold. Never held while another lock is asked for.
    pub(super) shares: Mutex<Shares>,
    /// Tokens and roles of one namespace and all below it at most.
    pub(super) tokens_max: usize,
    pub(super) roles_max: usize,
    /// How many roles there are. Changed by `role_changes` only.
    pub(super) roles: Mutex<Tally>,
    pub(super) role_changes: Changes,
    /// Tokens that are gone here and could not be deleted in the store.
    pub(super) undeleted: Mutex<Vec<TokenId>>,
    /// Tokens that ended, until somebody asks for them.
    pub(super) ended: Mutex<Vec<TokenId>>,
    pub(super) clock: Clock,
    root_made: AtomicBool,
}

impl Identity {
    /// The tokens of this store. Nothing is read before [`Identity::load`].
    pub fn new(store: Store, limits: &Limits) -> Identity {
        Identity::at(store, limits, Clock::default())
    }

    pub(super) fn at(store: Store, limits: &Limits, clock: Clock) -> Identity {
        Identity(Arc::new(Inner {
            policies: Policies::new(store.clone(), limits),
            unix_roles: UnixRoles::new(store.clone(), limits),
            logins_per_uid: limits.unix_logins_per_uid,
            tokens_max: limits.client_tokens_per_namespace,
            roles_max: limits.token_roles_per_namespace,
            roles: Mutex::default(),
            role_changes: Changes::default(),
            store,
            tokens: papaya::HashMap::default(),
            tree: Mutex::default(),
            counted: AtomicUsize::new(0),
            shares: Mutex::new(Shares::new(limits)),
            undeleted: Mutex::default(),
            ended: Mutex::default(),
            clock,
            root_made: AtomicBool::default(),
        }))
    }

    /// Reads the policies and the tokens from the store, and deletes those that ended meanwhile with all below them. Blocks for the disk.
    pub fn load(&self) -> Result<(), Fault> {
        let inner = &self.0;
        inner.policies.load()?;
        inner.unix_roles.load()?;
        self.load_roles()?;
        let records = inner.store.read_all::<TokenRecord>(&Namespace::root(), COLLECTION, None, TOKENS_MAX)?;
        let mut ids = Vec::with_capacity(records.len());
        {
            let mut tree = inner.tree.lock();
            for (name, record) in records {
                let id = parse_id(&name)?;
                let token = Arc::new(record.into_token()?);
                inner.hold(&mut tree, id, &token);
                ids.push(id);
            }
        }
        let made = inner.store.get(&root_made())?.is_some();
        inner.root_made.store(made, Ordering::Release);
        self.sweep(&ids)
    }

    /// Whether the first root token was made: only then is initialisation over.
    pub fn is_initialized(&self) -> bool {
        self.0.root_made.load(Ordering::Acquire)
    }

    /// What a token is looked up by. Before initialisation every token has the same id, which none is kept under.
    pub fn identify(&self, token: &Secret) -> TokenId {
        TokenId(self.0.store.keyed_hash("token", token.expose()).unwrap_or_default())
    }

    /// Makes the root token: `given`, or a random one. Refused if one was ever made, even if it was revoked since.
    pub async fn create_root(&self, given: Option<Secret>) -> Result<Secret, Fault> {
        let secret = match given {
            Some(given) if given.is_empty() => return Err(Fault::invalid("the root token must not be empty")),
            Some(given) => given,
            None => random_token()?,
        };
        let id = TokenId(self.0.store.keyed_hash("token", secret.expose())?);
        let record = TokenRecord {
            creation_time: self.0.clock.now(),
            ..TokenRecord::everlasting(new_accessor(), vec![ROOT_POLICY.into()], "root".into())
        };
        let token = Arc::new(record.into_token()?);
        let once = Write::Create { key: root_made(), version: 1, value: Vec::new() };
        let write = token.create(id, &token.lock())?;
        self.0.store.commit(vec![once, write]).await.map_err(|fault| match fault {
            Fault::InvalidRequest { .. } => Fault::invalid("Vault is already initialized"),
            other => other,
        })?;
        self.0.hold(&mut self.0.tree.lock(), id, &token);
        self.0.root_made.store(true, Ordering::Release);
        Ok(secret)
    }

    /// The caller's token, if it is good now; or, if it shows none and is let in without, what its process is due in this
    /// namespace, in the form of a token that nobody bears. A missing and a wrong one are refused alike.
    ///
    /// One that has no uses left is good here: the request that took the last one may still ask who it is.
    pub fn token(&self, caller: &Caller, namespace: &Namespace) -> Result<Arc<Token>, Fault> {
        let found = match caller.token {
            Some(id) => self.0.find(id),
            None if caller.implicit => self.0.unix_roles.due(caller, namespace),
            None => None,
        };
        found.ok_or(Fault::PermissionDenied)
    }

    /// The caller's token, if it is good now, in this namespace, for another request.
    pub fn valid(&self, caller: &Caller, namespace: &Namespace) -> Result<Arc<Token>, Fault> {
        let token = self.token(caller, namespace)?;
        if is_valid(&token, namespace) { Ok(token) } else { Err(Fault::PermissionDenied) }
    }

    /// What `look` makes of the caller's token, if it is [`Identity::valid`]. Every request looks at one, and most at the same:
    /// they do not meet at its counter.
    pub(super) fn look_at_valid<R>(
        &self,
        caller: &Caller,
        namespace: &Namespace,
        look: impl FnOnce(&Token) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let Some(id) = caller.token else { return look(&*self.valid(caller, namespace)?) };
        let looked = self.0.look_at(id, |token| is_valid(token, namespace).then(|| look(token)));
        looked.flatten().unwrap_or(Err(Fault::PermissionDenied))
    }

    /// The policies.
    pub fn policies(&self) -> &Policies {
        &self.0.policies
    }

    /// The roles of `auth/unix`.
    pub fn unix_roles(&self) -> &UnixRoles {
        &self.0.unix_roles
    }
}

/// Whether a token that has not ended is good in this namespace, for another request.
fn is_valid(token: &Token, namespace: &Namespace) -> bool {
    token.uses() != Some(0) && token.reaches(namespace)
}

impl Inner {
    /// The token with this id, if it has not ended.
    pub(super) fn find(&self, id: TokenId) -> Option<Arc<Token>> {
        self.look_at(id, Arc::clone)
    }

    /// What `look` makes of it.
    fn look_at<R>(&self, id: TokenId, look: impl FnOnce(&Arc<Token>) -> R) -> Option<R> {
        let tokens = self.tokens.pin();
        let token = tokens.get(&id)?;
        // Those without an end need not ask for the time.
        token.ends().is_none_or(|ends| self.clock.now() < ends).then(|| look(token))
    }

    /// Takes a token in: from here on it is good.
    pub(super) fn hold(&self, tree: &mut Tree, id: TokenId, token: &Arc<Token>) {
        if token.uses().is_some() {
            self.counted.fetch_add(1, Ordering::AcqRel);
        }
        if let Some((share, bytes)) = token.wrapped() {
            self.shares.lock().hold(share, bytes);
        }
        tree.add(id, token);
        self.tokens.pin().insert(id, Arc::clone(token));
    }
}

fn root_made() -> RecordKey {
    RecordKey::new(&Namespace::root(), ONCE, ROOT_MADE)
}

/// A new accessor: random, and no part of the token it names.
pub(super) fn new_accessor() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// A token in Vault's form: `hvs.` and random characters.
pub(super) fn random_token() -> Result<Secret, Fault> {
    let random = SystemRandom::new();
    let mut token = Vec::with_capacity(4 + RANDOM_CHARS);
    token.extend_from_slice(b"hvs.");
    let mut byte = [0; 1];
    while token.len() < 4 + RANDOM_CHARS {
        random.fill(&mut byte).map_err(|_| Fault::internal("the system's random generator fails"))?;
        // Bytes from 248 on would make some characters likelier than others.
        if byte[0] < 248 {
            token.push(BASE62[usize::from(byte[0]) % BASE62.len()]);
        }
    }
    Ok(Secret::new(token))
}
