//! The first use of a key: every member that may hold it is asked. It is generated only where it is certain that none does.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;

use super::pool::Member;
use super::route::{KeySpec, PreparedKey};
use super::slot_actor::{Prepare, Reply, SlotActor};
use crate::model::Fault;

/// How long the others are waited for once one member has found the key: long enough for those that are up to say whether
/// theirs is the same, and no longer than a client waits.
const OTHERS_MAX: Duration = Duration::from_secs(2);

/// A member that may hold the key.
pub(super) struct Candidate {
    pub(super) member: Arc<Member>,
    pub(super) address: Addr<SlotActor>,
}

impl Candidate {
    async fn ask(&self, spec: KeySpec) -> Result<PreparedKey, Fault> {
        let (reply, answer) = oneshot::channel();
        self.address.do_send(Prepare { spec, reply });
        let dropped = || Fault::Unavailable { what: "the token's actor dropped the request; try again".into() };
        answer.await.unwrap_or_else(|_| Err(dropped()))
    }

    /// As an operator knows it.
    fn name(&self) -> String {
        format!("token {} of kms_library {:?}", self.member.token, self.member.library)
    }
}

/// Finds `spec`'s key, or generates it, and answers the asker.
pub(super) async fn prepare(candidates: Vec<Candidate>, spec: KeySpec, reply: Reply) {
    // An asker that left needs no answer.
    let _ = reply.send(find_or_generate(&candidates, spec).await);
}

async fn find_or_generate(candidates: &[Candidate], spec: KeySpec) -> Result<PreparedKey, Fault> {
    let only_find = KeySpec { generate: None, ..spec.clone() };
    let asked = candidates.iter().map(|candidate| {
        let spec = only_find.clone();
        async move { (candidate, candidate.ask(spec).await) }
    });
    let mut answers: FuturesUnordered<_> = asked.collect();
    let mut found: Vec<(&Candidate, PreparedKey)> = Vec::new();
    let mut absent = None;
    let mut failed: Vec<(&Candidate, Fault)> = Vec::new();
    loop {
        let next = match found.is_empty() {
            true => answers.next().await,
            false => tokio::time::timeout(OTHERS_MAX, answers.next()).await.unwrap_or_default(),
        };
        match next {
            None => break,
            Some((candidate, Ok(key))) => found.push((candidate, key)),
            Some((_, Err(fault @ Fault::NotFound { .. }))) => absent = Some(fault),
            Some((candidate, Err(fault))) => failed.push((candidate, fault)),
        }
    }
    if let Some((first, key)) = found.first() {
        return match found.iter().find(|(_, other)| other.public != key.public) {
            Some((other, _)) => Err(differ(&spec, first, other)),
            None => Ok(key.clone()),
        };
    }
    match (absent, failed.into_iter().next()) {
        // Nobody can tell whether the silent one holds it: another of its name would be a second key.
        (Some(_), Some((silent, fault))) => {
            let reason = format!("no other member holds it, and {} does not serve: {fault}", silent.name());
            Err(Fault::KeyUnavailable { key: spec.name, reason })
        }
        (None, Some((_, fault))) => Err(fault),
        (Some(absent), None) => match (candidates.first(), &spec.generate) {
            (Some(first), Some(_)) => {
                if candidates.iter().any(|other| other.member.token != first.member.token) {
                    tracing::warn!(
                        key = spec.name,
                        token = first.name(),
                        "generating the key on one member only: copy it to the others with the vendor's tool; they join \
                         when they are next looked at"
                    );
                }
                first.ask(spec).await
            }
            _ => Err(absent),
        },
        (None, None) => Err(Fault::internal("a key without candidates")),
    }
}

fn differ(spec: &KeySpec, one: &Candidate, other: &Candidate) -> Fault {
    let reason = format!(
        "{} and {} hold different keys under its label or id; copy one to the other, or name them apart by key_id",
        one.name(),
        other.name()
    );
    Fault::KeyMismatch { key: spec.name.clone(), reason }
}
