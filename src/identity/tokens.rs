//! Tokens.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use super::policy::Policies;
use crate::model::{Caller, Fault, Namespace, Secret, TokenId};
use crate::store::{RecordKey, Store, Versioned, Write};

/// Tokens at most.
const TOKENS_MAX: usize = 1_000_000;
const COLLECTION: &str = "tokens";
/// The collection of what was done once and for all.
const ONCE: &str = "identity";
/// The record that says that a root token was made, even if it was revoked since.
const ROOT_MADE: &str = "root-token-made";
/// Characters of a token's random part: about 143 bits.
const RANDOM_CHARS: usize = 24;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What is known of a token; never the token itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Names it without being it.
    pub accessor: String,
    /// The names of its policies; `root` may do everything.
    pub policies: Vec<String>,
    /// For people.
    pub display_name: String,
    /// When it was made, in Unix seconds.
    pub creation_time: u64,
}

impl Versioned for Token {
    const VERSION: u16 = 1;
}

/// The tokens. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    store: Store,
    policies: Policies,
    tokens: ArcSwap<HashMap<TokenId, Arc<Token>, RandomState>>,
    root_made: AtomicBool,
}

impl Identity {
    /// The tokens of this store. Nothing is read before [`Identity::load`].
    pub fn new(store: Store) -> Identity {
        let policies = Policies::new(store.clone());
        Identity(Arc::new(Inner { store, policies, tokens: ArcSwap::default(), root_made: AtomicBool::default() }))
    }

    /// Reads the tokens and the policies from the store.
    pub fn load(&self) -> Result<(), Fault> {
        self.0.policies.load()?;
        let records = self.0.store.read_all::<Token>(&Namespace::root(), COLLECTION, None, TOKENS_MAX)?;
        let token = |(name, token): (String, Token)| {
            let id = hex::decode(&name).ok().and_then(|id| id.try_into().ok());
            let id = id.ok_or_else(|| Fault::internal("a token's record has a name that is no token id"))?;
            Ok((TokenId(id), Arc::new(token)))
        };
        let tokens = records.into_iter().map(token).collect::<Result<_, Fault>>()?;
        let made = self.0.store.get(&root_made())?.is_some();
        self.0.tokens.store(Arc::new(tokens));
        self.0.root_made.store(made, Ordering::Release);
        Ok(())
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
        let token = match given {
            Some(given) if given.is_empty() => return Err(Fault::invalid("the root token must not be empty")),
            Some(given) => given,
            None => random_token()?,
        };
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let entry = Token {
            accessor: uuid::Uuid::new_v4().simple().to_string(),
            policies: vec!["root".into()],
            display_name: "root".into(),
            creation_time: created.as_secs(),
        };
        let id = TokenId(self.0.store.keyed_hash("token", token.expose())?);
        let key = RecordKey::new(&Namespace::root(), COLLECTION, hex::encode(id.0));
        let once = Write::Create { key: root_made(), version: 1, value: Vec::new() };
        self.0.store.commit(vec![once, Write::put_record(key, &entry)?]).await.map_err(|fault| match fault {
            Fault::InvalidRequest { .. } => Fault::invalid("Vault is already initialized"),
            other => other,
        })?;
        let entry = Arc::new(entry);
        self.0.tokens.rcu(|tokens| {
            let mut tokens = HashMap::clone(tokens);
            tokens.insert(id, Arc::clone(&entry));
            tokens
        });
        self.0.root_made.store(true, Ordering::Release);
        Ok(token)
    }

    /// Ends a token: the next request with it is refused.
    pub async fn revoke(&self, id: TokenId) -> Result<(), Fault> {
        self.0.tokens.rcu(|tokens| {
            let mut tokens = HashMap::clone(tokens);
            tokens.remove(&id);
            tokens
        });
        let key = RecordKey::new(&Namespace::root(), COLLECTION, hex::encode(id.0));
        self.0.store.commit(vec![Write::Delete { key }]).await
    }

    /// The caller's token, if it is good here and now. A missing and a wrong one are refused alike.
    pub fn token(&self, caller: &Caller) -> Result<Arc<Token>, Fault> {
        let id = caller.token.ok_or(Fault::PermissionDenied)?;
        self.0.tokens.load().get(&id).cloned().ok_or(Fault::PermissionDenied)
    }

    /// The policies.
    pub fn policies(&self) -> &Policies {
        &self.0.policies
    }
}

fn root_made() -> RecordKey {
    RecordKey::new(&Namespace::root(), ONCE, ROOT_MADE)
}

/// A token in Vault's form: `hvs.` and random characters.
fn random_token() -> Result<Secret, Fault> {
    let random = SystemRandom::new();
    let mut token = b"hvs.".to_vec();
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

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::config::{Pace, Storage};
    use crate::identity::Rights;
    use crate::model::{PeerCredentials, Wire};
    use crate::store::Ephemeral;

    fn identity() -> Identity {
        let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap()), Pace::Prompt).unwrap();
        store.initialize().unwrap();
        Identity::new(store)
    }

    fn caller(identity: &Identity, token: Option<&Secret>) -> Caller {
        let peer = PeerCredentials { uid: 1, gid: 1, pid: None };
        Caller { peer, token: token.map(|token| identity.identify(token)), wire: Wire::Http }
    }

    fn authorize(identity: &Identity, caller: &Caller) -> Result<(), Fault> {
        let rights = identity.rights(caller, &Namespace::root(), || Cow::Borrowed("sys/mounts"), false);
        rights.map(|rights| assert!(matches!(rights, Rights::Everything)))
    }

    #[tokio::test]
    async fn a_token_opens_until_it_is_revoked_and_survives_a_restart() {
        let identity = identity();
        let token = identity.create_root(None).await.unwrap();
        let again = Identity::new(identity.0.store.clone());
        again.load().unwrap();
        let good = caller(&again, Some(&token));
        assert_eq!(again.token(&good).unwrap().policies, ["root"]);
        assert_eq!(authorize(&again, &good), Ok(()));
        for bad in [caller(&again, None), caller(&again, Some(&Secret::from("hvs.wrong")))] {
            assert_eq!(again.token(&bad), Err(Fault::PermissionDenied));
            assert_eq!(authorize(&again, &bad), Err(Fault::PermissionDenied));
        }
        again.revoke(good.token.unwrap()).await.unwrap();
        assert_eq!(again.token(&good), Err(Fault::PermissionDenied));
        assert_eq!(authorize(&again, &good), Err(Fault::PermissionDenied));
        again.load().unwrap();
        assert_eq!(authorize(&again, &good), Err(Fault::PermissionDenied), "revoked for good");
    }

    #[tokio::test]
    async fn a_random_token_has_vaults_form_and_a_given_one_is_taken_as_it_is() {
        let token = identity().create_root(None).await.unwrap();
        let text = token.expose_str().unwrap();
        assert_eq!(text.len(), 28);
        assert!(text.strip_prefix("hvs.").unwrap().chars().all(|c| c.is_ascii_alphanumeric()));
        let dev = identity();
        dev.create_root(Some(Secret::from("root"))).await.unwrap();
        assert_eq!(authorize(&dev, &caller(&dev, Some(&Secret::from("root")))), Ok(()));
        assert!(identity().create_root(Some(Secret::from(""))).await.is_err());
    }

    #[tokio::test]
    async fn there_is_one_root_token_even_after_it_was_revoked() {
        let identity = identity();
        assert!(!identity.is_initialized());
        let token = identity.create_root(None).await.unwrap();
        identity.revoke(identity.identify(&token)).await.unwrap();
        let again = Identity::new(identity.0.store.clone());
        again.load().unwrap();
        assert!(again.is_initialized());
        let refused = again.create_root(None).await.unwrap_err();
        assert_eq!(refused, Fault::invalid("Vault is already initialized"));
    }

    #[tokio::test]
    async fn the_token_itself_is_kept_nowhere() {
        let identity = identity();
        let token = identity.create_root(Some(Secret::from("hvs.onlyTheHashOfThisIsKept"))).await.unwrap();
        let text = token.expose_str().unwrap();
        let root = Namespace::root();
        for collection in identity.0.store.collections(&root, "", 100).unwrap() {
            for (name, record) in identity.0.store.scan(&root, &collection, None, 100).unwrap() {
                assert!(!name.contains(text) && !String::from_utf8_lossy(&record.value).contains(text));
            }
        }
    }
}
