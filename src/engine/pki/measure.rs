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

/// Changes of one commit.
const STEP: usize = 4096;
/// Bytes of a serial number.
const SERIAL: usize = 20;

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
        let parsed = X509::parse(certificate, "the certificate")?;
        let (own, not_after) = (parsed.serial.bytes().to_vec(), Some(parsed.not_after));
        let start = certificate.windows(own.len()).position(|window| window == own);
        let start = start.filter(|_| own.len() == SERIAL);
        let start = start.ok_or_else(|| Fault::internal("the serial number of the certificate is too short"))?;
        let signer = CaCertificate::parse(issuer)?.signer;
        Ok(Filling {
            store,
            records: Records::of(namespace, uuid),
            certificate: certificate.to_vec(),
            serial: start..start + own.len(),
            revocation: Revocation { time: validity::now(), issuer: String::new(), signer, not_after },
        })
    }

    /// Adds those numbered `numbers` of `certificates` in all, as if one had been issued each millisecond until now. Of
    /// `certificates`, `revoked` are revoked, spread evenly. Blocks for the disk.
    pub fn add(&self, numbers: std::ops::Range<u64>, certificates: u64, revoked: u64) -> Result<(), Fault> {
        let mut writes = Vec::new();
        let begun = (validity::now() * 1000).saturating_sub(certificates);
        for number in numbers {
            let serial = Serial::at(begun + number)?;
            let mut value = self.certificate.clone();
            if let Some(place) = value.get_mut(self.serial.clone()).filter(|place| place.len() == serial.bytes().len())
            {
                place.copy_from_slice(serial.bytes());
            }
            writes.push(Write::Put { key: self.records.certificate(&serial), version: 1, value });
            let until = |number: u64| u128::from(number) * u128::from(revoked) / u128::from(certificates.max(1));
            if until(number) < until(number + 1) {
                writes.push(Write::put_record(self.records.revocation(&serial), &self.revocation)?);
            }
            if writes.len() >= STEP {
                self.store.commit_now(std::mem::take(&mut writes))?;
            }
        }
        self.store.commit_now(writes)
    }
}
