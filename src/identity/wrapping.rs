//! Answers kept for whoever shows a token that is good once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::token::{self, Token, TokenRecord, WRAPPING_POLICY, parse_id};
use super::tokens::{Identity, TOKENS_MAX, new_accessor, random_token};
use super::ttl::MAX_TTL;
use crate::model::{Auth, Data, Fault, Lease, Namespace, Response, Secret, TokenId, WrapInfo};
use crate::store::{RecordKey, Versioned, Write};

/// The collection of the answers, by the ids of their tokens.
const COLLECTION: &str = "wrapped";
/// Answers kept at a time.
const ANSWERS_MAX: usize = 100_000;
/// The largest answer that is kept, in bytes of JSON.
const ANSWER_BYTES_MAX: usize = 1 << 20;
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
        namespace: &Namespace,
        path: String,
        ttl: u64,
        answer: Response,
    ) -> Result<Response, Fault> {
        match Answer::of(answer) {
            Ok(kept) => self.keep(namespace.clone(), path, ttl.min(MAX_TTL), &kept, Vec::new()).await,
            Err(plain) => Ok(*plain),
        }
    }

    /// The token of an answer that is there.
    pub fn wrapping(&self, id: TokenId) -> Result<Arc<Token>, Fault> {
        let found = self.0.find(id).filter(|token| token.is_wrapping() && token.uses() != Some(0));
        found.ok_or_else(|| Fault::invalid(INVALID))
    }

    /// The answer that a token holds. Of many that ask at once, one gets it; it is gone for good before it leaves.
    pub async fn unwrap(&self, id: TokenId) -> Result<Response, Fault> {
        let (_, answer, gone) = self.take_answer(id)?;
        self.delete(gone).await?;
        Ok(answer.into_response())
    }

    /// Puts an answer behind another token. The first is good for nothing then.
    pub async fn rewrap(&self, id: TokenId) -> Result<Response, Fault> {
        let (token, answer, gone) = self.take_answer(id)?;
        let keys = gone.iter().flat_map(|id| [token::key(*id), key(*id)]);
        let beside = keys.map(|key| Write::Delete { key }).collect();
        self.keep(token.namespace.clone(), token.path.clone(), token.creation_ttl, &answer, beside).await
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
    fn take_answer(&self, id: TokenId) -> Result<(Arc<Token>, Answer, Vec<TokenId>), Fault> {
        let token = self.wrapping(id)?;
        let answer = self.0.store.read::<Answer>(&key(id))?.ok_or_else(|| Fault::invalid(INVALID))?;
        let gone = self.take_out(id);
        if gone.is_empty() { Err(Fault::invalid(INVALID)) } else { Ok((token, answer, gone)) }
    }

    async fn keep(
        &self,
        namespace: Namespace,
        path: String,
        ttl: u64,
        answer: &Answer,
        mut beside: Vec<Write>,
    ) -> Result<Response, Fault> {
        if self.0.wrapping.load(Ordering::Acquire) >= ANSWERS_MAX {
            let what = format!("{ANSWERS_MAX} answers are kept behind tokens; some must be taken first");
            return Err(Fault::Unavailable { what });
        }
        let secret = random_token()?;
        let write = Write::put_record(key(self.identify(&secret)), answer)?;
        if let Write::Put { value, .. } = &write
            && value.len() > ANSWER_BYTES_MAX
        {
            let what = format!("the answer has {} bytes; at most {ANSWER_BYTES_MAX} are wrapped", value.len());
            return Err(Fault::TooLarge { what });
        }
        beside.push(write);
        let wrapped_accessor = answer.auth.as_ref().map(|auth| auth.accessor.clone()).unwrap_or_default();
        let record = TokenRecord {
            creation_time: self.0.clock.now(),
            namespace: namespace.as_str().to_owned(),
            path,
            creation_ttl_seconds: ttl,
            explicit_max_ttl_seconds: ttl,
            num_uses: 1,
            ..TokenRecord::everlasting(new_accessor(), vec![WRAPPING_POLICY.to_owned()], String::new())
        };
        let (token, secret) = self.make(record, Some(secret), beside).await?;
        Ok(Response::Wrapped(WrapInfo {
            token: secret,
            accessor: token.accessor.clone(),
            ttl,
            creation_time: token.creation_time,
            creation_path: token.path.clone(),
            wrapped_accessor,
        }))
    }
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
