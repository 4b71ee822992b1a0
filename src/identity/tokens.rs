//! Tokens.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::model::{Caller, Capability, Fault, Namespace, Secret, TokenId};
use crate::store::{RecordKey, Store, Versioned, Write};

/// Tokens at most.
const TOKENS_MAX: usize = 1_000_000;
const COLLECTION: &str = "tokens";
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
    tokens: ArcSwap<HashMap<TokenId, Arc<Token>>>,
}

impl Identity {
    /// The tokens of this store. Nothing is read before [`Identity::load`].
    pub fn new(store: Store) -> Identity {
        Identity(Arc::new(Inner { store, tokens: ArcSwap::default() }))
    }

    /// Reads the tokens from the store.
    pub fn load(&self) -> Result<(), Fault> {
        let records = self.0.store.read_all::<Token>(&Namespace::root(), COLLECTION, None, TOKENS_MAX)?;
        let token = |(name, token): (String, Token)| {
            let id: [u8; 32] = hex::decode(&name).ok()?.try_into().ok()?;
            Some((TokenId(id), Arc::new(token)))
        };
        self.0.tokens.store(Arc::new(records.into_iter().filter_map(token).collect()));
        Ok(())
    }

    /// What a token is looked up by. Before initialisation every token has the same id, which none is kept under.
    pub fn identify(&self, token: &Secret) -> TokenId {
        TokenId(self.0.store.keyed_hash("token", token.expose()).unwrap_or_default())
    }

    /// Makes a root token: `given`, or a random one.
    pub async fn create_root(&self, given: Option<Secret>) -> Result<Secret, Fault> {
        let token = match given {
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
        self.0.store.commit(vec![Write::put_record(key, &entry)?]).await?;
        let entry = Arc::new(entry);
        self.0.tokens.rcu(|tokens| {
            let mut tokens = HashMap::clone(tokens);
            tokens.insert(id, Arc::clone(&entry));
            tokens
        });
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

    /// Whether the caller may use `capability` on a path of `namespace`. Only root tokens exist so far, which may
    /// everything; the path is asked for when a token has less.
    pub fn authorize<'p>(
        &self,
        caller: &Caller,
        _namespace: &Namespace,
        _path: impl FnOnce() -> std::borrow::Cow<'p, str>,
        _capability: Capability,
    ) -> Result<(), Fault> {
        let tokens = self.0.tokens.load();
        let token = caller.token.and_then(|id| tokens.get(&id)).ok_or(Fault::PermissionDenied)?;
        if token.policies.iter().any(|policy| policy == "root") { Ok(()) } else { Err(Fault::PermissionDenied) }
    }
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
    use super::*;
    use crate::config::Storage;
    use crate::model::{PeerCredentials, Wire};
    use crate::store::Ephemeral;

    fn caller(identity: &Identity, token: Option<&Secret>) -> Caller {
        let peer = PeerCredentials { uid: 1, gid: 1, pid: None };
        Caller { peer, token: token.map(|token| identity.identify(token)), wire: Wire::Http }
    }

    #[tokio::test]
    async fn a_token_opens_until_it_is_revoked_and_survives_a_restart() {
        let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap())).unwrap();
        store.initialize().unwrap();
        let identity = Identity::new(store.clone());
        let token = identity.create_root(None).await.unwrap();
        assert!(token.expose_str().unwrap().starts_with("hvs."));
        let again = Identity::new(store);
        again.load().unwrap();
        let good = caller(&again, Some(&token));
        assert_eq!(again.token(&good).unwrap().policies, ["root"]);
        assert_eq!(again.token(&caller(&again, None)), Err(Fault::PermissionDenied));
        assert_eq!(again.token(&caller(&again, Some(&Secret::from("hvs.wrong")))), Err(Fault::PermissionDenied));
        again.revoke(good.token.unwrap()).await.unwrap();
        assert_eq!(again.token(&good), Err(Fault::PermissionDenied));
    }
}
