//! A mount with very many certificates and revocations, for `keyway bench`: what would take hours to issue is written to its
//! store at once, as issuing and revoking would have written it. Nothing else uses this.

use super::ca_certificate::CaCertificate;
use super::records::Records;
use super::revocation::Revocation;
use super::serial::Serial;
use super::validity;
use super::x509::X509;
use crate::model::{Fault, Namespace};
use crate::store::{Store, Write};

/// Certificates of one commit.
const STEP: u64 = 4096;

/// Fills one mount. The daemon whose store it is must not run.
#[derive(Clone)]
pub struct Filling {
    store: Store,
    records: Records,
    /// A certificate of the mount, and where its serial number begins and ends.
    certificate: Vec<u8>,
    serial: std::ops::Range<usize>,
    revocation: Revocation,
}

impl Filling {
    /// Fills the mount of this UUID with the likes of `certificate`, which `issuer` (both DER) signed.
    pub fn new(
        store: Store,
        namespace: &Namespace,
        uuid: &str,
        certificate: &[u8],
        issuer: &[u8],
    ) -> Result<Filling, Fault> {
        let own = X509::parse(certificate, "the certificate")?.serial.bytes().to_vec();
        let start = certificate.windows(own.len()).position(|window| window == own).unwrap_or_default();
        let signer = CaCertificate::parse(issuer)?.signer;
        Ok(Filling {
            store,
            records: Records::of(namespace, uuid),
            certificate: certificate.to_vec(),
            serial: start..start + own.len(),
            revocation: Revocation { time: validity::now(), issuer: String::new(), signer },
        })
    }

    /// Adds so many certificates, all revoked or none. Blocks for the disk.
    pub fn add(&self, certificates: u64, are_revoked: bool) -> Result<(), Fault> {
        let mut left = certificates;
        while left > 0 {
            let step = left.min(STEP);
            let mut writes = Vec::new();
            for _ in 0..step {
                let serial = Serial::random()?;
                let mut value = self.certificate.clone();
                let place = value.get_mut(self.serial.clone()).filter(|place| place.len() == serial.bytes().len());
                // Few serial numbers are of another length.
                let Some(place) = place else { continue };
                place.copy_from_slice(serial.bytes());
                writes.push(Write::Put { key: self.records.certificate(&serial), version: 1, value });
                if are_revoked {
                    writes.push(Write::put_record(self.records.revocation(&serial), &self.revocation)?);
                }
                left -= 1;
            }
            self.store.commit_now(writes)?;
        }
        Ok(())
    }
}
