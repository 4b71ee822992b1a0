//! One token: what never changes of it, and what does; and how it is stored.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use super::shares::Share;
use crate::model::{Fault, Namespace, TokenId};
use crate::store::{RecordKey, Versioned, Write};

/// The collection of all tokens, in the root namespace whatever theirs is: they are found by what their bearers show.
pub(super) const COLLECTION: &str = "tokens";
/// The policy of tokens that may do everything.
pub const ROOT_POLICY: &str = "root";
/// The policy of tokens that hold an answer, and may do nothing but hand it out. No token is given it.
pub(super) const WRAPPING_POLICY: &str = "response-wrapping";
/// The most bytes that all texts of a token have together, and the most policies and notes it has: every token is kept in memory.
const TEXTS_BYTES: usize = 16 << 10;
const ITEMS_MAX: usize = 256;
/// The longest of them.
const TEXT_BYTES: usize = 1024;
/// Stands for "never" and for "as often as they like".
const UNBOUNDED: u64 = u64::MAX;

/// What is known of a token; never the token itself.
#[derive(Debug)]
pub struct Token {
    /// Names it without being it.
    pub accessor: String,
    /// The names of its policies, sorted; `root` may do everything.
    pub policies: Vec<String>,
    /// For people.
    pub display_name: String,
    /// When it was made, in Unix seconds.
    pub creation_time: u64,
    /// Where it was made: it works there and below.
    pub namespace: Namespace,
    /// The path it was made at.
    pub path: String,
    /// What its maker noted of it.
    pub meta: BTreeMap<String, String>,
    /// The role it was made by; empty without one.
    pub role: String,
    /// Seconds it was to live when it was made; 0 is for ever.
    pub creation_ttl: u64,
    /// Seconds it may live all in all; 0 sets no such limit.
    pub explicit_max_ttl: u64,
    /// Seconds it is renewed for each time, without end; 0 for tokens without a period.
    pub period: u64,
    /// Whether it may be renewed.
    pub renewable: bool,
    /// How often it was to be used when it was made; 0 sets no such limit.
    pub num_uses: u64,
    /// The user whose login gave it, or gave the token that it was made by.
    pub(super) by_uid: Option<u32>,
    /// What is kept behind it.
    wrapped: Option<Box<(Share, usize)>>,
    /// When it ends, in Unix seconds. Written under the lock of `changing`.
    ends: AtomicU64,
    /// How often it may be used yet. Written under the lock of `changing`.
    uses: AtomicU64,
    /// Its record is written under this lock, so that what is stored last is what came last.
    changing: Mutex<Changing>,
}

/// What changes of a token beside its end and its uses.
#[derive(Debug)]
pub(super) struct Changing {
    /// The token that goes before it does; none for an orphan.
    pub(super) parent: Option<TokenId>,
    /// When it was last renewed.
    pub(super) renewed: Option<u64>,
    /// It was revoked: nothing is to be stored of it any more.
    pub(super) is_over: bool,
}

impl Token {
    /// Whether it may do everything: in another namespace than the root, a policy `root` means nothing.
    pub fn is_root(&self) -> bool {
        self.namespace.is_root() && self.policies.iter().any(|policy| policy == ROOT_POLICY)
    }

    /// Whether it holds an answer, and is good for nothing else.
    pub fn is_wrapping(&self) -> bool {
        self.wrapped.is_some()
    }

    /// The share of those who ask that the answer behind it counts for, and its size in bytes.
    pub(super) fn wrapped(&self) -> Option<(&Share, usize)> {
        self.wrapped.as_deref().map(|(share, bytes)| (share, *bytes))
    }

    /// The user whose share of answers kept it has; `None` if it has its own.
    pub(super) fn uid(&self) -> Option<u32> {
        self.by_uid
    }

    /// Whether nobody bears it: it stands for what a process is due without a token.
    pub fn is_implicit(&self) -> bool {
        self.accessor.is_empty()
    }

    /// Whether it works in a namespace: its own, and those below.
    pub fn reaches(&self, namespace: &Namespace) -> bool {
        namespace.as_str().starts_with(self.namespace.as_str())
    }

    /// When it ends, in Unix seconds; `None` if it does not.
    pub fn ends(&self) -> Option<u64> {
        Some(self.ends.load(Ordering::Acquire)).filter(|ends| *ends != UNBOUNDED)
    }

    /// How often it may be used yet; `None` if that is not limited.
    pub fn uses(&self) -> Option<u64> {
        Some(self.uses.load(Ordering::Acquire)).filter(|uses| *uses != UNBOUNDED)
    }

    /// Whether no other token takes it along when it ends.
    pub fn is_orphan(&self) -> bool {
        self.changing.lock().parent.is_none()
    }

    /// When it was last renewed, in Unix seconds.
    pub fn renewed(&self) -> Option<u64> {
        self.changing.lock().renewed
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock()
    }

    /// Sets the end. The lock is the word that nobody else writes the record.
    pub(super) fn set_ends(&self, _lock: &mut Changing, ends: u64) {
        self.ends.store(ends, Ordering::Release);
    }

    /// Sets how often it may be used yet.
    pub(super) fn set_uses(&self, _lock: &mut Changing, uses: u64) {
        self.uses.store(uses, Ordering::Release);
    }

    /// The change that stores it as it is now.
    pub(super) fn put(&self, id: TokenId, lock: &Changing) -> Result<Write, Fault> {
        Write::put_record(key(id), &self.record(lock))
    }

    /// The change that stores it as one that must not be there yet.
    pub(super) fn create(&self, id: TokenId, lock: &Changing) -> Result<Write, Fault> {
        Write::create_record(key(id), &self.record(lock))
    }

    fn record(&self, lock: &Changing) -> TokenRecord {
        TokenRecord {
            accessor: self.accessor.clone(),
            policies: self.policies.clone(),
            display_name: self.display_name.clone(),
            creation_time: self.creation_time,
            namespace: self.namespace.as_str().to_owned(),
            path: self.path.clone(),
            meta: self.meta.clone(),
            role: self.role.clone(),
            creation_ttl_seconds: self.creation_ttl,
            explicit_max_ttl_seconds: self.explicit_max_ttl,
            period_seconds: self.period,
            renewable: self.renewable,
            num_uses: self.num_uses,
            parent: lock.parent.map(|parent| hex::encode(parent.0)),
            ends: self.ends(),
            uses: self.uses(),
            renewed: lock.renewed,
            by_uid: self.by_uid,
            wrapped_for: self.wrapped().map(|(share, _)| share.asker.clone()),
            wrapped_bytes: self.wrapped().map_or(0, |(_, bytes)| bytes),
        }
    }
}

/// How a token is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TokenRecord {
    pub(super) accessor: String,
    pub(super) policies: Vec<String>,
    pub(super) display_name: String,
    pub(super) creation_time: u64,
    pub(super) namespace: String,
    pub(super) path: String,
    pub(super) meta: BTreeMap<String, String>,
    pub(super) role: String,
    pub(super) creation_ttl_seconds: u64,
    pub(super) explicit_max_ttl_seconds: u64,
    pub(super) period_seconds: u64,
    pub(super) renewable: bool,
    pub(super) num_uses: u64,
    pub(super) parent: Option<String>,
    pub(super) ends: Option<u64>,
    pub(super) uses: Option<u64>,
    pub(super) renewed: Option<u64>,
    /// These came later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) by_uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) wrapped_for: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) wrapped_bytes: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The first format: there was one root token, without end.
#[derive(Deserialize)]
struct FirstRecord {
    accessor: String,
    policies: Vec<String>,
    display_name: String,
    creation_time: u64,
}

impl Versioned for TokenRecord {
    const VERSION: u16 = 2;

    fn upgrade(version: u16, value: &[u8]) -> Result<TokenRecord, Fault> {
        if version != 1 {
            return Err(Fault::internal(format!("there was no format {version} of a token")));
        }
        let first: FirstRecord = serde_json::from_slice(value).map_err(|_| Fault::internal("it does not parse"))?;
        Ok(TokenRecord {
            creation_time: first.creation_time,
            ..TokenRecord::everlasting(first.accessor, first.policies, first.display_name)
        })
    }
}

impl TokenRecord {
    /// Refuses a token of more texts than are kept.
    pub(super) fn check_size(&self) -> Result<(), Fault> {
        if self.policies.len() > ITEMS_MAX || self.meta.len() > ITEMS_MAX {
            return Err(Fault::invalid(format!("a token has at most {ITEMS_MAX} policies and as many notes")));
        }
        let notes = self.meta.keys().chain(self.meta.values());
        let texts = self.policies.iter().chain(notes).chain([&self.display_name, &self.role]);
        let lengths: Vec<usize> = texts.map(String::len).collect();
        if lengths.iter().any(|length| *length > TEXT_BYTES) {
            return Err(Fault::invalid(format!("no text of a token is longer than {TEXT_BYTES} bytes")));
        }
        if lengths.iter().sum::<usize>() + self.path.len() > TEXTS_BYTES {
            return Err(Fault::invalid(format!(
                "the policies, notes (meta) and names of a token have at most {TEXTS_BYTES} bytes together"
            )));
        }
        Ok(())
    }

    /// An orphan of the root namespace without end, as the first root token is.
    pub(super) fn everlasting(accessor: String, policies: Vec<String>, display_name: String) -> TokenRecord {
        TokenRecord {
            accessor,
            policies,
            display_name,
            creation_time: 0,
            namespace: String::new(),
            path: "auth/token/root".to_owned(),
            meta: BTreeMap::new(),
            role: String::new(),
            creation_ttl_seconds: 0,
            explicit_max_ttl_seconds: 0,
            period_seconds: 0,
            renewable: false,
            num_uses: 0,
            parent: None,
            ends: None,
            uses: None,
            renewed: None,
            by_uid: None,
            wrapped_for: None,
            wrapped_bytes: 0,
        }
    }

    pub(super) fn into_token(self) -> Result<Token, Fault> {
        let parent = self.parent.as_deref().map(parse_id).transpose()?;
        let namespace = Namespace::from_path(&self.namespace);
        // Of those that were made before askers had shares, nobody knows for whom.
        let is_wrapping = self.policies.iter().any(|policy| policy == WRAPPING_POLICY);
        let share = || Share { tenant: namespace.tenant(), asker: self.wrapped_for.unwrap_or_default() };
        let wrapped = is_wrapping.then(|| Box::new((share(), self.wrapped_bytes)));
        Ok(Token {
            accessor: self.accessor,
            policies: self.policies,
            display_name: self.display_name,
            creation_time: self.creation_time,
            namespace,
            by_uid: self.by_uid,
            wrapped,
            path: self.path,
            meta: self.meta,
            role: self.role,
            creation_ttl: self.creation_ttl_seconds,
            explicit_max_ttl: self.explicit_max_ttl_seconds,
            period: self.period_seconds,
            renewable: self.renewable,
            num_uses: self.num_uses,
            ends: AtomicU64::new(self.ends.unwrap_or(UNBOUNDED)),
            uses: AtomicU64::new(self.uses.unwrap_or(UNBOUNDED)),
            changing: Mutex::new(Changing { parent, renewed: self.renewed, is_over: false }),
        })
    }
}

/// The record of a token.
pub(super) fn key(id: TokenId) -> RecordKey {
    RecordKey::new(&Namespace::root(), COLLECTION, hex::encode(id.0))
}

/// The id that a record's name, or its parent, is.
pub(super) fn parse_id(text: &str) -> Result<TokenId, Fault> {
    let id = hex::decode(text).ok().and_then(|id| id.try_into().ok()).map(TokenId);
    id.ok_or_else(|| Fault::internal("a token's record names what is no token id"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Record;

    #[test]
    fn a_token_of_the_first_format_is_an_orphan_without_end() {
        let value = br#"{"accessor":"a","policies":["root"],"display_name":"root","creation_time":7}"#;
        let record = Record { version: 1, value: value.to_vec() };
        let token = record.decode::<TokenRecord>(&key(TokenId([1; 32]))).unwrap().into_token().unwrap();
        assert_eq!((token.accessor.as_str(), token.creation_time, token.is_root()), ("a", 7, true));
        assert_eq!((token.ends(), token.uses(), token.is_orphan()), (None, None, true));
        assert!(token.reaches(&Namespace::from_path("a/b")) && !token.renewable);
    }

    #[test]
    fn a_token_works_in_its_namespace_and_below() {
        let mut record = TokenRecord::everlasting("a".into(), vec!["p".into()], "d".into());
        record.namespace = "a/".into();
        let token = record.into_token().unwrap();
        for (namespace, reached) in [("a", true), ("a/b", true), ("", false), ("ab", false), ("b", false)] {
            assert_eq!(token.reaches(&Namespace::from_path(namespace)), reached, "{namespace}");
        }
    }
}
