//! How many answers are kept behind tokens, and of how many bytes: those of one namespace and all below it together, and the
//! share of one who asks.
//!
//! Whoever asks has a share as a token; all tokens that a user's logins gave, and what was made by those, have the user's.
//! Answers do not count as tokens: however many there are, nobody's login fails for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;

use super::token::Token;
use super::tokens::{Identity, Inner};
use crate::config::Limits;
use crate::model::{Caller, Fault, Namespace};

/// Answers kept at a time, of all namespaces.
const ANSWERS_MAX: usize = 100_000;
/// The largest answer that is kept, in bytes of JSON. A place holds as many until the answer is there.
pub(super) const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What the answer of a login may come to at the most: the texts of its token, in JSON. Strangers who ask for one must not fill
/// the place of others until they are refused.
const LOGIN_BYTES: usize = 128 << 10;
/// When to come again: by then some may have been taken, or have ended.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Who asked for an answer to be kept, in a tenant's namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Share {
    /// The tenant.
    pub(super) tenant: Namespace,
    /// The user or the token, as it is stored with the answer's token.
    pub(super) asker: String,
}

/// What is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kept {
    answers: usize,
    bytes: usize,
}

/// Everything that is kept, and what is about to be.
#[derive(Debug)]
pub(super) struct Shares {
    askers: HashMap<Share, Kept, RandomState>,
    tenants: HashMap<Namespace, Kept, RandomState>,
    all: usize,
    of_asker: Kept,
    of_tenant: Kept,
}

/// Room for one answer, until it is kept or it is known that there is none.
pub struct Place {
    inner: Arc<Inner>,
    pub(super) share: Share,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inner.shares.lock().give(&self.share, self.bytes);
    }
}

impl Identity {
    /// Room for an answer that the caller asks for in a namespace: taken before there is any, so that none is lost for want of
    /// it.
    ///
    /// # Errors
    ///
    /// [`Fault::QuotaExceeded`] where the caller, or the namespace with what lies above and below it, has as much kept as it may.
    pub fn place(&self, caller: &Caller, namespace: &Namespace) -> Result<Place, Fault> {
        self.place_for(caller, namespace, ANSWER_BYTES_MAX)
    }

    /// The same for the answer of a login, by whoever asks for one.
    pub fn place_of_login(&self, caller: &Caller, namespace: &Namespace) -> Result<Place, Fault> {
        self.place_for(caller, namespace, LOGIN_BYTES)
    }

    fn place_for(&self, caller: &Caller, namespace: &Namespace, bytes: usize) -> Result<Place, Fault> {
        let token = self.token(caller, namespace).ok();
        let by_token = caller.token.filter(|_| token.is_some());
        let uid = token.as_deref().map_or(Some(caller.peer.uid), Token::uid);
        // What holds an answer asks in the name of who had it kept: else each would bring a share along.
        let kept_for = token.as_deref().and_then(Token::wrapped).map(|(share, _)| share.asker.clone());
        let asker = kept_for.unwrap_or_else(|| match (by_token, uid) {
            (Some(id), None) => hex::encode(id.0),
            (_, uid) => format!("uid {}", uid.unwrap_or(caller.peer.uid)),
        });
        let share = Share { tenant: namespace.tenant(), asker };
        self.0.shares.lock().take(&share, bytes)?;
        Ok(Place { inner: Arc::clone(&self.0), share, bytes })
    }
}

impl Shares {
    pub(super) fn new(limits: &Limits) -> Shares {
        let of_asker = Kept { answers: limits.wrapped_answers_per_asker, bytes: limits.wrapped_bytes_per_asker };
        let of_tenant =
            Kept { answers: limits.wrapped_answers_per_namespace, bytes: limits.wrapped_bytes_per_namespace };
        Shares { askers: HashMap::default(), tenants: HashMap::default(), all: 0, of_asker, of_tenant }
    }

    /// Takes room for one answer of so many bytes at the most.
    fn take(&mut self, share: &Share, bytes: usize) -> Result<(), Fault> {
        let asker = self.askers.get(share).copied().unwrap_or_default();
        let refused = |what: String| Err(Fault::QuotaExceeded { what, retry_after: RETRY_AFTER });
        let names = ("wrapped_answers_per_asker", "wrapped_bytes_per_asker");
        if let Some(most) = asker.and(bytes).exceeds(self.of_asker, names) {
            return refused(format!(
                "{most} of your answers are kept behind tokens, as limits allows: unwrap some or let some end, wrap them for a \
                 shorter time, or have the operator raise it"
            ));
        }
        let tenant = self.tenants.get(&share.tenant).copied().unwrap_or_default();
        let names = ("wrapped_answers_per_namespace", "wrapped_bytes_per_namespace");
        if let Some(most) = tenant.and(bytes).exceeds(self.of_tenant, names) {
            return refused(format!(
                "{most} of answers of namespace {} and those below it are kept behind tokens, as limits allows: unwrap some, let \
                 some end, or have the operator raise it",
                share.tenant
            ));
        }
        if self.all >= ANSWERS_MAX {
            let what = format!("{ANSWERS_MAX} answers are kept behind tokens; some must be taken first");
            return Err(Fault::Unavailable { what });
        }
        self.hold(share, bytes);
        Ok(())
    }

    /// An answer of so many bytes is kept.
    pub(super) fn hold(&mut self, share: &Share, bytes: usize) {
        self.all += 1;
        let asker = self.askers.entry(share.clone()).or_default();
        *asker = asker.and(bytes);
        let tenant = self.tenants.entry(share.tenant.clone()).or_default();
        *tenant = tenant.and(bytes);
    }

    /// It is no more.
    pub(super) fn give(&mut self, share: &Share, bytes: usize) {
        self.all = self.all.saturating_sub(1);
        if self.askers.get_mut(share).is_some_and(|kept| kept.fewer(bytes)) {
            self.askers.remove(share);
        }
        if self.tenants.get_mut(&share.tenant).is_some_and(|kept| kept.fewer(bytes)) {
            self.tenants.remove(&share.tenant);
        }
    }
}

impl Kept {
    /// With one answer more, of so many bytes.
    fn and(self, bytes: usize) -> Kept {
        Kept { answers: self.answers.saturating_add(1), bytes: self.bytes.saturating_add(bytes) }
    }

    /// Takes one off; whether nothing is left.
    fn fewer(&mut self, bytes: usize) -> bool {
        self.answers = self.answers.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.answers == 0
    }

    /// If it is more than may be: what may be, by the name of its limit.
    fn exceeds(self, most: Kept, (answers, bytes): (&str, &str)) -> Option<String> {
        if self.answers > most.answers {
            return Some(format!("{} ({answers})", most.answers));
        }
        (self.bytes > most.bytes).then(|| format!("nearly {} bytes ({bytes})", most.bytes))
    }
}
