//! Leases of certificates, where a role says `generate_lease`: revoking one revokes its certificate. A lease is a record that
//! comes with its certificate in one commit, named by the path that issued it and its serial number. Another, named by its end,
//! finds those that are over: they go by themselves, with nothing to revoke. None is kept in memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::issuer::Issuer;
use super::records::Records;
use super::serial::Serial;
use super::{Pki, validity};
use crate::apart;
use crate::engine::Call;
use crate::model::{Fault, LeaseRequest, Response};
use crate::store::{Versioned, Write};

/// Names that one list has.
const LISTED: usize = 10_000;
/// Leases that are ended together.
const STEP: usize = 256;

/// What is stored of a lease. Its name says the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    /// In Unix seconds.
    issued: u64,
    /// When its certificate ends, in Unix seconds.
    expires: u64,
}

impl Versioned for Stored {
    const VERSION: u16 = 1;
}

/// What is stored of its end: whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    path: String,
    serial: String,
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
pub(super) fn records(records: &Records, path: &str, serial: &Serial, expires: u64) -> Result<[Write; 2], Fault> {
    let end = End { path: path.to_owned(), serial: serial.record_name() };
    let stored = Stored { issued: validity::now(), expires };
    Ok([
        Write::put_record(records.lease(path, serial), &stored)?,
        Write::put_record(records.lease_end(expires, serial), &end)?,
    ])
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
        loop {
            let paths = self.leased_paths(path)?;
            if paths.is_empty() {
                return Ok(());
            }
            for path in paths {
                let collection = self.records.leases(&path);
                loop {
                    let step = self.store.read_all::<Stored>(self.records.namespace(), &collection, None, STEP)?;
                    if step.is_empty() {
                        break;
                    }
                    let found = |(name, stored): (String, Stored)| {
                        let serial = Serial::parse(&name);
                        let serial = serial.ok_or_else(|| Fault::internal(format!("a lease is called {name:?}")))?;
                        Ok(Found { path: path.clone(), serial, stored })
                    };
                    let found = step.into_iter().map(found).collect::<Result<Vec<_>, Fault>>()?;
                    self.end_leases(call, &found, issuers).await?;
                }
            }
        }
    }

    /// Revokes what these are for, then removes them: cut short, they are still there to be revoked.
    async fn end_leases(&self, call: &Call, leases: &[Found], issuers: &mut Vec<Arc<Issuer>>) -> Result<(), Fault> {
        let serials: Vec<Serial> = leases.iter().map(|lease| lease.serial).collect();
        self.revoke_all(call, &serials, issuers).await?;
        self.store.commit(leases.iter().flat_map(|lease| lease.removal(&self.records)).collect()).await
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
                [self.records.named_lease_end(name), self.records.named_lease(&end.path, &end.serial)]
            };
            let writes = over.iter().flat_map(removal).map(|key| Write::Delete { key }).collect();
            self.store.commit(writes).await?;
        }
    }
}

impl Found {
    fn show(&self, call: &Call) -> Response {
        let Stored { issued, expires } = self.stored;
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

    fn removal(&self, records: &Records) -> [Write; 2] {
        [records.lease(&self.path, &self.serial), records.lease_end(self.stored.expires, &self.serial)]
            .map(|key| Write::Delete { key })
    }
}
