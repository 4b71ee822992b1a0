//! `sys/leases`: what was given for a time. The mount that a lease's id lies in keeps it, and knows what giving it back means.

use std::sync::Arc;

use super::{Call, LeaseCall, System};
use crate::model::{Data, Fault, Fields, LeaseRequest, Mount, Outcome, Response};

/// Vault's words on a lease that is not there.
const INVALID: &str = "invalid lease";

impl System {
    /// `lookup`: the lease that the data names.
    pub(super) async fn lookup_lease(&self, call: &Call, data: &Data) -> Result<Response, Fault> {
        let id = Fields::new(data).filled("lease_id")?.ok_or_else(|| Fault::invalid("lease_id must be specified"))?;
        self.ask_lease(call, &id, LeaseRequest::Lookup).await?.ok_or_else(|| Fault::invalid(INVALID))
    }

    /// `lookup/:prefix`: the names right below a path.
    pub(super) async fn list_leases(&self, call: &Call, prefix: &str) -> Result<Response, Fault> {
        self.ask_lease(call, prefix, LeaseRequest::List).await?.ok_or_else(Fault::absent)
    }

    /// `renew`: refused, as a certificate's end does not move.
    pub(super) async fn renew_lease(&self, call: &Call, id: &str, data: &Data) -> Result<Response, Fault> {
        let id = lease_id(id, data)?;
        match self.ask_lease(call, &id, LeaseRequest::Lookup).await? {
            Some(_) => Err(Fault::invalid("lease is not renewable")),
            None => Err(Fault::invalid("lease not found")),
        }
    }

    /// `revoke`: answered when it is done, be it queued or not (`sync`). A lease that is not there has ended already.
    pub(super) async fn revoke_lease(&self, call: &Call, id: &str, data: &Data) -> Result<Response, Fault> {
        let id = lease_id(id, data)?;
        self.ask_lease(call, &id, LeaseRequest::Revoke).await.map(|_| Response::Empty)
    }

    /// `revoke-prefix/:prefix`: all leases below a path.
    pub(super) async fn revoke_leases(&self, call: &Call, prefix: &str) -> Result<Response, Fault> {
        self.ask_lease(call, prefix, LeaseRequest::RevokeBelow).await.map(|_| Response::Empty)
    }

    /// Asks the mount that a path lies in, with the rest of the path. `None`: nothing is there.
    async fn ask_lease(
        &self,
        call: &Call,
        path: &str,
        ask: impl FnOnce(String) -> LeaseRequest,
    ) -> Result<Option<Response>, Fault> {
        let path = format!("{}/", path.trim_matches('/'));
        let Some((mount, rest)) = self.namespaces.route(&call.namespace, &path) else { return Ok(None) };
        let asked = ask(rest.trim_end_matches('/').to_owned());
        let call = LeaseCall {
            mount: Arc::<Mount>::clone(&mount),
            caller: call.caller.clone(),
            deadline: call.deadline,
            asked,
        };
        match (self.leases)(call).await {
            Ok(Outcome::Response(response)) => Ok(Some(response)),
            Ok(_) => Err(Fault::internal("a lease had a typed outcome")),
            Err(Fault::NotFound { .. }) => Ok(None),
            Err(fault) => Err(fault),
        }
    }
}

/// The id in the path, or in the data.
fn lease_id(in_path: &str, data: &Data) -> Result<String, Fault> {
    let in_data = Fields::new(data).filled("lease_id")?;
    let id = if in_path.is_empty() { in_data } else { Some(in_path.to_owned()) };
    id.ok_or_else(|| Fault::invalid("lease_id must be specified"))
}
