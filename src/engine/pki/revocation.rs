//! What is stored of a revocation.

use serde::{Deserialize, Serialize};

use super::ca_certificate::SignerId;
use crate::model::Fault;
use crate::store::Versioned;

/// That a certificate is revoked. The record is named by its serial number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Revocation {
    /// Unix seconds.
    pub(super) time: u64,
    /// The id of the issuer, as it was then.
    pub(super) issuer: String,
    /// Who signed the certificate. Unlike the issuer's id it is the same again once a deleted issuer is imported anew.
    pub(super) signer: SignerId,
    /// `notAfter` of the certificate, in Unix seconds: it may be tidied away before its revocation is. Those recorded by
    /// earlier versions do not say, and are found by their certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) not_after: Option<u64>,
}

impl Versioned for Revocation {
    const VERSION: u16 = 2;

    /// Format 1 named no issuer: `upgrade` adds it when a mount starts, before anything reads a revocation.
    fn upgrade(version: u16, _: &[u8]) -> Result<Revocation, Fault> {
        Err(Fault::internal(format!("a revocation of format {version} was left when the mount started")))
    }
}
