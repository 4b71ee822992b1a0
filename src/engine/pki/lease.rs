//! Leases of certificates, where a role says `generate_lease`: revoking one revokes its certificate. A lease is a record that
//! comes with its certificate in one commit, named by the path that issued it and its serial number. Another, named by its end,
//! finds those that are over: they go by themselves, with nothing to revoke. A third stands by the token that the certificate was
//! asked for with: when that ends, its leases do. None is kept in memory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::issuer::Issuer;
use super::records::Records;
use super::serial::Serial;
use super::{Pki, validity};
use crate::apart;
use crate::engine::{Call, GoneTokens};
use crate::model::{Fault, LeaseRequest, Response, TokenId};
use crate::store::{Versioned, Write};

/// Names that one list has.
const LISTED: usize = 10_000;
/// Leases that are ended together.
const STEP: usize = 256;

/// The lease that a certificate is to have.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The path it is named by.
    pub(super) path: String,
    /// The token it was asked for with, which takes it along when it ends; none where nobody showed one.
    pub(super) token: Option<TokenId>,
}

/// What is stored of a lease. Its name says the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    /// In Unix seconds.
    issued: u64,
    /// When its certificate ends, in Unix seconds.
    expires: u64,
    /// The hash of its token in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl Versioned for Stored {
    const VERSION: u16 = 1;
}

/// What is stored of its end: whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    path: String,
    serial: String,
    /// The hash of its token in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

/// What is stored of a lease by its token: where it stands. Its name is its certificate's serial number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OfToken {
    path: String,
}

impl Versioned for OfToken {
    const VERSION: u16 = 1;
}

impl Versioned for End {
    const VERSION: u16 = 1;
}

/// One that is there.
struct Found {
    path: String,
    serial: Serial,
    stored: Stored,
}

/// The path below the mount that leases are named by: of `sign/:role` and its like, perhaps below an issuer.
pub(super) fn path(issuer: Option<&str>, verb: &str, role: &str) -> String {
    match issuer {
        Some(issuer) => format!("issuer/{issuer}/{verb}/{role}"),
        None => format!("{verb}/{role}"),
    }
}

/// A lease's id.
pub(super) fn id(mount: &str, path: &str, serial: &Serial) -> String {
    format!("{mount}{path}/{}", serial.record_name())
}

/// The records of a lease that begins now.
pub(super) fn records(records: &Records, wanted: &Wanted, serial: &Serial, expires: u64) -> Result<Vec<Write>, Fault> {
    let (path, name) = (&wanted.path, serial.record_name());
    let token = wanted.token.map(|token| hex::encode(token.0));
    let of_token = token
        .as_ref()
        .map(|token| Write::put_record(records.lease_by_token(token, &name), &OfToken { path: path.clone() }));
    let end = End { path: path.clone(), serial: name, token: token.clone() };
    let stored = Stored { issued: validity::now(), expires, token };
    let lease = Write::put_record(records.lease(path, serial), &stored);
    let end = Write::put_record(records.lease_end(expires, serial), &end);
    [lease, end].into_iter().chain(of_token).collect()
}

impl Pki {
    /// Answers what is asked about this mount's leases.
    pub(super) async fn answer_lease(self: Arc<Self>, call: Call, asked: LeaseRequest) -> Result<Response, Fault> {
        match asked {
            LeaseRequest::Lookup(path) => Ok(self.lease(&path)?.ok_or_else(Fault::absent)?.show(&call)),
            LeaseRequest::List(path) => {
                // It may be long.
                apart::run(&call.mount.namespace, move || self.list_leases(&path)).await?
            }
            LeaseRequest::Revoke(path) => {
                let found = self.lease(&path)?.ok_or_else(Fault::absent)?;
                let mut issuers = Vec::new();
                let ended = self.end_leases(&call, &[found], &mut issuers).await;
                self.tell_of_leases(&call, &issuers).await;
                ended.map(|()| Response::Empty)
            }
            LeaseRequest::RevokeBelow(path) => {
                let mut issuers = Vec::new();
                let ended = self.end_leases_below(&call, &path, &mut issuers).await;
                self.tell_of_leases(&call, &issuers).await;
                ended.map(|()| Response::Empty)
            }
        }
    }

    /// The lease that a path below the mount names, unless it is over.
    fn lease(&self, path: &str) -> Result<Option<Found>, Fault> {
        let Some((path, name)) = path.rsplit_once('/') else { return Ok(None) };
        // A serial number has many spellings, and a lease one name.
        let Some(serial) = Serial::parse(name).filter(|serial| serial.record_name() == name) else { return Ok(None) };
        let stored = self.store.read::<Stored>(&self.records.lease(path, &serial))?;
        let found = stored.filter(|stored| stored.expires > validity::now());
        Ok(found.map(|stored| Found { path: path.to_owned(), serial, stored }))
    }

    /// The paths at and below `path` that have leases, and no more than a list has. Blocks.
    fn leased_paths(&self, path: &str) -> Result<Vec<String>, Fault> {
        let (all, namespace) = (self.records.leases(""), self.records.namespace());
        let (mut paths, mut below) = (Vec::new(), all.clone());
        if !path.is_empty() {
            if !self.store.list(namespace, &self.records.leases(path), None, 1)?.is_empty() {
                paths.push(path.to_owned());
            }
            below = format!("{all}{path}/");
        }
        let found = self.store.collections(namespace, &below, LISTED)?;
        paths.extend(found.iter().filter_map(|collection| collection.strip_prefix(&all)).map(str::to_owned));
        Ok(paths)
    }

    fn list_leases(&self, path: &str) -> Result<Response, Fault> {
        let paths = self.leased_paths(path)?;
        let (mut names, mut is_cut) = (BTreeSet::new(), paths.len() >= LISTED);
        for found in paths {
            let below = found.strip_prefix(path).unwrap_or(&found).trim_start_matches('/');
            match below.split('/').next().filter(|part| !part.is_empty()) {
                Some(part) => drop(names.insert(format!("{part}/"))),
                None => {
                    let collection = self.records.leases(&found);
                    let listed = self.store.list(self.records.namespace(), &collection, None, LISTED)?;
                    is_cut |= listed.len() == LISTED;
                    names.extend(listed);
                }
            }
        }
        if names.is_empty() {
            return Err(Fault::absent());
        }
        let keys = json!({ "keys": names });
        let told = is_cut.then(|| format!("there may be more: at most {LISTED} are listed"));
        Ok(Response::with_warnings(keys.as_object().cloned().unwrap_or_default(), told.into_iter().collect()))
    }

    /// Revokes what leases below a path are for, a step at a time. Notes the issuers that revoked something.
    async fn end_leases_below(&self, call: &Call, path: &str, issuers: &mut Vec<Arc<Issuer>>) -> Result<(), Fault> {
        let mut ended = Ok(());
        loop {
            let paths = self.leased_paths(path)?;
            if paths.is_empty() {
                return Ok(());
            }
            for path in paths {
                let collection = self.records.leases(&path);
                let mut after: Option<String> = None;
                loop {
                    let namespace = self.records.namespace();
                    let step = self.store.read_all::<Stored>(namespace, &collection, after.as_deref(), STEP)?;
                    let Some((last, _)) = step.last() else { break };
                    after = Some(last.clone());
                    let found = |(name, stored): (String, Stored)| {
                        let serial = Serial::parse(&name);
                        let serial = serial.ok_or_else(|| Fault::internal(format!("a lease is called {name:?}")))?;
                        Ok(Found { path: path.clone(), serial, stored })
                    };
                    let found = step.into_iter().map(found).collect::<Result<Vec<_>, Fault>>()?;
                    ended = ended.and(self.end_leases(call, &found, issuers).await);
                }
            }
            // Those that could not be ended are there still.
            ended.clone()?;
        }
    }

    /// Revokes what these are for, then removes them: cut short, they are still there to be revoked. So are those that fail,
    /// the first of which is answered.
    async fn end_leases(&self, call: &Call, leases: &[Found], issuers: &mut Vec<Arc<Issuer>>) -> Result<(), Fault> {
        let serials: Vec<Serial> = leases.iter().map(|lease| lease.serial).collect();
        let done = self.revoke_all(call, &serials, issuers).await;
        let ended = leases.iter().zip(&done).filter(|(_, revoked)| revoked.is_ok());
        let removals: Vec<Write> = ended.flat_map(|(lease, _)| lease.removal(&self.records)).collect();
        if !removals.is_empty() {
            self.store.commit(removals).await?;
        }
        done.into_iter().collect()
    }

    /// Revokes what leases are for whose tokens are gone.
    pub(super) async fn end_leases_of_gone(self: Arc<Self>, call: Call, gone: GoneTokens) -> Result<Response, Fault> {
        let mut issuers = Vec::new();
        let mut ended = Ok(());
        match gone {
            GoneTokens::These(tokens) => {
                for token in tokens.iter() {
                    tokio::task::yield_now().await;
                    ended = ended.and(self.end_leases_of_one(&call, &hex::encode(token.0), &mut issuers).await);
                }
            }
            GoneTokens::AllBut(is_there) => {
                // Issued meanwhile, a lease says it again.
                self.has_leases_of_tokens.store(false, Ordering::Relaxed);
                let has_some = !self.tokens_with_leases("", 1)?.is_empty();
                self.has_leases_of_tokens.fetch_or(has_some, Ordering::Relaxed);
                // A list of them all may be longer than lists are.
                let beginnings: u16 = if has_some { 256 } else { 0 };
                for beginning in 0..beginnings {
                    for token in self.tokens_with_leases(&format!("{beginning:02x}"), LISTED)? {
                        let id = hex::decode(&token).ok().and_then(|bytes| bytes.try_into().ok()).map(TokenId);
                        if !id.is_some_and(|id| is_there(id)) {
                            ended = ended.and(self.end_leases_of_one(&call, &token, &mut issuers).await);
                        }
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
        self.tell_of_leases(&call, &issuers).await;
        ended.map(|()| Response::Empty)
    }

    /// The hashes of the tokens that leases were made with, in hexadecimal, of those that begin so.
    fn tokens_with_leases(&self, beginning: &str, most: usize) -> Result<Vec<String>, Fault> {
        let all = self.records.leases_by_token("");
        let found = self.store.collections(self.records.namespace(), &self.records.leases_by_token(beginning), most)?;
        Ok(found.iter().filter_map(|collection| collection.strip_prefix(&all)).map(str::to_owned).collect())
    }

    /// Revokes what the leases of one token are for, a step at a time.
    async fn end_leases_of_one(&self, call: &Call, token: &str, issuers: &mut Vec<Arc<Issuer>>) -> Result<(), Fault> {
        let (namespace, collection) = (self.records.namespace(), self.records.leases_by_token(token));
        let (mut after, mut ended): (Option<String>, _) = (None, Ok(()));
        loop {
            let step = self.store.read_all::<OfToken>(namespace, &collection, after.as_deref(), STEP)?;
            let Some((last, _)) = step.last() else { return ended };
            after = Some(last.clone());
            let mut found = Vec::with_capacity(step.len());
            let mut stray = Vec::new();
            for (name, OfToken { path }) in step {
                let stored = self.store.read::<Stored>(&self.records.named_lease(&path, &name))?;
                match (Serial::parse(&name), stored) {
                    (Some(serial), Some(stored)) => found.push(Found { path, serial, stored }),
                    _ => stray.push(Write::Delete { key: self.records.lease_by_token(token, &name) }),
                }
            }
            ended = ended.and(self.end_leases(call, &found, issuers).await);
            if !stray.is_empty() {
                self.store.commit(stray).await?;
            }
            let (mount, namespace, leases) = (&call.mount.path, &call.mount.namespace, found.len());
            tracing::info!(%mount, %namespace, leases, "leases ended with the token that they were made with");
        }
    }

    /// Has the CRLs made that are due since leases ended.
    async fn tell_of_leases(self: &Arc<Self>, call: &Call, issuers: &[Arc<Issuer>]) {
        for issuer in issuers {
            if let Some(warning) = self.crl_if_due(call, issuer).await {
                let (mount, namespace) = (&call.mount.path, &call.mount.namespace);
                tracing::warn!(%mount, %namespace, warning, "a lease was revoked");
            }
        }
    }

    /// Removes the leases that are over.
    pub(super) async fn drop_ended_leases(&self) -> Result<(), Fault> {
        loop {
            let (namespace, ends) = (self.records.namespace(), self.records.lease_ends());
            let step = self.store.read_all::<End>(namespace, &ends, None, STEP)?;
            let now = validity::now();
            let over: Vec<(String, End)> =
                step.into_iter().take_while(|(name, _)| Records::lease_is_over(name, now)).collect();
            if over.is_empty() {
                return Ok(());
            }
            let removal = |(name, end): &(String, End)| {
                let of_token = end.token.as_ref().map(|token| self.records.lease_by_token(token, &end.serial));
                let lease = self.records.named_lease(&end.path, &end.serial);
                [Some(self.records.named_lease_end(name)), Some(lease), of_token].into_iter().flatten()
            };
            let writes = over.iter().flat_map(removal).map(|key| Write::Delete { key }).collect();
            self.store.commit(writes).await?;
        }
    }
}

impl Found {
    fn show(&self, call: &Call) -> Response {
        let Stored { issued, expires, .. } = self.stored;
        let value = json!({
            "id": id(&call.mount.path, &self.path, &self.serial),
            "issue_time": validity::rfc3339(issued),
            "expire_time": validity::rfc3339(expires),
            "last_renewal": null,
            "renewable": false,
            "ttl": expires.saturating_sub(validity::now()),
        });
        Response::data(value.as_object().cloned().unwrap_or_default())
    }

    fn removal(&self, records: &Records) -> Vec<Write> {
        let of_token =
            self.stored.token.as_ref().map(|token| records.lease_by_token(token, &self.serial.record_name()));
        let keys = [records.lease(&self.path, &self.serial), records.lease_end(self.stored.expires, &self.serial)];
        keys.into_iter().chain(of_token).map(|key| Write::Delete { key }).collect()
    }
}
