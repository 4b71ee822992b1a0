//! Answers kept for whoever shows a token that is good once.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::shares::{ANSWER_BYTES_MAX, Place};
use super::token::{self, Token, TokenRecord, WRAPPING_POLICY, parse_id};
use super::tokens::{Identity, TOKENS_MAX, new_accessor, random_token};
use super::ttl::MAX_TTL;
use crate::model::{Auth, Data, Fault, Lease, Namespace, Response, Secret, TokenId, WrapInfo};
use crate::store::{RecordKey, Versioned, Write};

/// The collection of the answers, by the ids of their tokens.
const COLLECTION: &str = "wrapped";
/// Answers deleted by one commit.
const DELETED_AT_ONCE: usize = 4_000;

/// Vault's words on a token that holds no answer, or holds none any more.
const INVALID: &str = "wrapping token is not valid or does not exist";

/// How an answer is stored.
#[derive(Serialize, Deserialize)]
struct Answer {
    data: Option<Data>,
    warnings: Vec<String>,
    lease: Option<(String, u64)>,
    auth: Option<StoredAuth>,
}

#[derive(Serialize, Deserialize)]
struct StoredAuth {
    client_token: Zeroizing<String>,
    accessor: String,
    policies: Vec<String>,
    metadata: BTreeMap<String, String>,
    lease_duration: u64,
    renewable: bool,
    orphan: bool,
    num_uses: u64,
}

impl Versioned for Answer {
    const VERSION: u16 = 1;
}

impl Identity {
    /// Keeps an answer for `ttl` seconds, at most 32 days, and answers the token that it is given out for. Durable when this
    /// answers. What is no data in Vault's envelope is answered as it is.
    pub async fn wrap(
        &self,
        place: Place,
        namespace: &Namespace,
        path: String,
        ttl: u64,
        answer: Response,
    ) -> Result<Response, Fault> {
        let answer = match Answer::of(answer) {
            Ok(kept) => kept,
            Err(plain) => return Ok(*plain),
        };
        let secret = random_token()?;
        let (write, bytes) = answer.put(self.identify(&secret))?;
        let ttl = ttl.min(MAX_TTL);
        let record = TokenRecord {
            creation_time: self.0.clock.now(),
            namespace: namespace.as_str().to_owned(),
            path,
            creation_ttl_seconds: ttl,
            explicit_max_ttl_seconds: ttl,
            wrapped_for: Some(place.share.asker.clone()),
            wrapped_bytes: bytes,
            ..wrapping_record()
        };
        let (token, secret) = self.make(record, Some(secret), vec![write]).await?;
        Ok(answer.told(&token, secret))
    }

    /// The token of an answer that is there.
    pub fn wrapping(&self, id: TokenId) -> Result<Arc<Token>, Fault> {
        let found = self.0.find(id).filter(|token| token.is_wrapping() && token.uses() != Some(0));
        found.ok_or_else(|| Fault::invalid(INVALID))
    }

    /// The answer that a token holds. Of many that ask at once, one gets it; it is gone for good before it leaves.
    pub async fn unwrap(&self, id: TokenId) -> Result<Response, Fault> {
        let (answer, gone) = self.take_answer(id)?;
        self.delete(gone).await?;
        Ok(answer.into_response())
    }

    /// Puts an answer behind another token. The first is good for nothing then; it stays as good as it was if the other cannot
    /// be made. Takes no more room than there was, so no bound stands in its way. Ends even if its asker leaves.
    pub async fn rewrap(&self, id: TokenId) -> Result<Response, Fault> {
        let (this, secret) = (self.clone(), random_token()?);
        let rewrapping = tokio::spawn(async move { this.rewrap_as(id, secret).await });
        rewrapping.await.unwrap_or_else(|_| Err(Fault::Unavailable { what: "the daemon is going down".into() }))
    }

    pub(super) async fn rewrap_as(&self, id: TokenId, secret: Secret) -> Result<Response, Fault> {
        let old = self.wrapping(id)?;
        let answer = self.read_answer(id)?;
        let new_id = TokenId(self.0.store.keyed_hash("token", secret.expose())?);
        let now = self.0.clock.now();
        let (put, bytes) = answer.put(new_id)?;
        let record = TokenRecord {
            creation_time: now,
            namespace: old.namespace.as_str().to_owned(),
            path: old.path.clone(),
            creation_ttl_seconds: old.creation_ttl,
            explicit_max_ttl_seconds: old.creation_ttl,
            ends: Some(now.saturating_add(old.creation_ttl)),
            uses: Some(1),
            wrapped_for: old.wrapped().map(|(share, _)| share.asker.clone()),
            wrapped_bytes: bytes,
            ..wrapping_record()
        };
        let new = Arc::new(record.into_token()?);
        let mut writes = vec![new.create(new_id, &new.lock())?, put];
        writes.extend([token::key(id), key(id)].map(|key| Write::Delete { key }));
        let stored = {
            let mut tree = self.0.tree.lock();
            // Of those that ask at once, one has it.
            if self.0.take_out(&mut tree, id).is_empty() {
                return Err(Fault::invalid(INVALID));
            }
            self.0.hold(&mut tree, new_id, &new);
            self.0.store.commit(writes)
        };
        if let Err(fault) = stored.await {
            self.put_back(id, &old, new_id, &answer).await;
            return Err(fault);
        }
        Ok(answer.told(&new, secret))
    }

    /// Makes a token good again that was to go for another, which could not be stored.
    async fn put_back(&self, id: TokenId, old: &Arc<Token>, new_id: TokenId, answer: &Answer) {
        let gone = self.take_out(new_id);
        // In the store first: who unwraps it takes it from there. The disk may have failed after the other was written.
        let writes = || {
            let mut writes = vec![old.put(id, &old.lock())?, answer.put(id)?.0];
            writes.extend([token::key(new_id), key(new_id)].map(|key| Write::Delete { key }));
            Ok::<_, Fault>(writes)
        };
        let store = self.0.store.clone();
        let stored = match writes() {
            Ok(writes) => tokio::task::spawn_blocking(move || store.commit_now(writes)).await,
            Err(fault) => Ok(Err(fault)),
        };
        if !matches!(stored, Ok(Ok(()))) {
            tracing::warn!(
                "an answer could not be put behind another token, nor be stored again behind the one it had"
            );
            self.0.undeleted.lock().extend(gone);
        }
        let mut tree = self.0.tree.lock();
        old.lock().is_over = false;
        self.0.hold(&mut tree, id, old);
    }

    /// At a start: deletes answers whose tokens are gone.
    pub(super) fn sweep_wrapped(&self) -> Result<(), Fault> {
        let names = self.0.store.list(&Namespace::root(), COLLECTION, None, TOKENS_MAX)?;
        let mut lost = Vec::new();
        for name in names {
            let id = parse_id(&name)?;
            if self.0.tokens.pin().get(&id).is_none() {
                lost.push(Write::Delete { key: key(id) });
            }
        }
        lost.chunks(DELETED_AT_ONCE).try_for_each(|chunk| self.0.store.commit_now(chunk.to_vec()))
    }

    /// Takes an answer's token out of memory: from here on nobody else gets it. What is to be deleted comes with it.
    fn take_answer(&self, id: TokenId) -> Result<(Answer, Vec<TokenId>), Fault> {
        self.wrapping(id)?;
        let answer = self.read_answer(id)?;
        let gone = self.take_out(id);
        if gone.is_empty() { Err(Fault::invalid(INVALID)) } else { Ok((answer, gone)) }
    }

    fn read_answer(&self, id: TokenId) -> Result<Answer, Fault> {
        self.0.store.read(&key(id))?.ok_or_else(|| Fault::invalid(INVALID))
    }
}

/// What all tokens that hold answers have in common.
fn wrapping_record() -> TokenRecord {
    let record = TokenRecord::everlasting(new_accessor(), vec![WRAPPING_POLICY.to_owned()], String::new());
    TokenRecord { num_uses: 1, ..record }
}

impl Answer {
    /// What is stored of an answer; the answer itself, if it is none that is wrapped.
    fn of(answer: Response) -> Result<Answer, Box<Response>> {
        let plain = |data, warnings| Answer { data, warnings, lease: None, auth: None };
        Ok(match answer {
            Response::Data { data, warnings, .. } => plain(Some(data), warnings),
            Response::Leased { data, warnings, lease } => {
                Answer { lease: Some((lease.id, lease.duration)), ..plain(Some(data), warnings) }
            }
            Response::Auth { auth, warnings } => Answer { auth: Some(StoredAuth::of(auth)), ..plain(None, warnings) },
            Response::Dated { response, .. } => return Answer::of(*response),
            other => return Err(Box::new(other)),
        })
    }

    /// The change that stores it, and its size in bytes.
    fn put(&self, id: TokenId) -> Result<(Write, usize), Fault> {
        let write = Write::put_record(key(id), self)?;
        let bytes = match &write {
            Write::Put { value, .. } | Write::Create { value, .. } => value.len(),
            Write::Delete { .. } => 0,
        };
        if bytes > ANSWER_BYTES_MAX {
            let what = format!("the answer has {bytes} bytes; at most {ANSWER_BYTES_MAX} are wrapped");
            return Err(Fault::TooLarge { what });
        }
        Ok((write, bytes))
    }

    /// What is told of the token that it is behind.
    fn told(&self, token: &Token, secret: Secret) -> Response {
        Response::Wrapped(WrapInfo {
            token: secret,
            accessor: token.accessor.clone(),
            ttl: token.creation_ttl,
            creation_time: token.creation_time,
            creation_path: token.path.clone(),
            wrapped_accessor: self.auth.as_ref().map(|auth| auth.accessor.clone()).unwrap_or_default(),
        })
    }

    fn into_response(self) -> Response {
        let Answer { data, warnings, lease, auth } = self;
        if let Some(auth) = auth {
            return Response::Auth { auth: auth.into_auth(), warnings };
        }
        let data = data.unwrap_or_default();
        match lease {
            Some((id, duration)) => Response::Leased { data, warnings, lease: Lease { id, duration } },
            None => Response::with_warnings(data, warnings),
        }
    }
}

impl StoredAuth {
    fn of(auth: Auth) -> StoredAuth {
        StoredAuth {
            client_token: Zeroizing::new(auth.client_token.expose_str().unwrap_or_default().to_owned()),
            accessor: auth.accessor,
            policies: auth.policies,
            metadata: auth.metadata,
            lease_duration: auth.lease_duration,
            renewable: auth.renewable,
            orphan: auth.orphan,
            num_uses: auth.num_uses,
        }
    }

    fn into_auth(self) -> Auth {
        Auth {
            client_token: Secret::from(self.client_token.as_str()),
            accessor: self.accessor,
            policies: self.policies,
            metadata: self.metadata,
            lease_duration: self.lease_duration,
            renewable: self.renewable,
            orphan: self.orphan,
            num_uses: self.num_uses,
        }
    }
}

/// The record of the answer that a token holds.
pub(super) fn key(id: TokenId) -> RecordKey {
    RecordKey::new(&Namespace::root(), COLLECTION, hex::encode(id.0))
}
