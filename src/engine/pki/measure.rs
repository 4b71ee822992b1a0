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
    /// Fills the mount of this UUID with the likes of `certificate`, which `issuer` (both DER) signed. [`Fault::Internal`] if
    /// its serial number begins with a zero byte: one in 128 does, and the next certificate will do.
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

    /// Adds those numbered `numbers` of `certificates` in all, with serial numbers in rising order, evenly spread: a store
    /// takes them many times faster than in the order of chance. Of `certificates`, `revoked` are revoked, spread as evenly.
    /// Blocks for the disk.
    pub fn add(&self, numbers: std::ops::Range<u64>, certificates: u64, revoked: u64) -> Result<(), Fault> {
        let mut writes = Vec::new();
        // The first 8 bytes; the first bit is that of a positive number, the second one keeps them all of one length.
        const FIRST: u64 = 1 << 62;
        let spacing = FIRST / (certificates + 1);
        for number in numbers {
            let serial = serial(FIRST + number * spacing)?;
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

/// One that begins so, and goes on by chance.
fn serial(first: u64) -> Result<Serial, Fault> {
    let chance = Serial::random()?;
    let mut bytes = first.to_be_bytes().to_vec();
    bytes.extend(chance.bytes().iter().rev().chain(&[0; SERIAL]).take(SERIAL - bytes.len()));
    Serial::from_bytes(&bytes).ok_or_else(|| Fault::internal("a serial number is zero or too long"))
}
