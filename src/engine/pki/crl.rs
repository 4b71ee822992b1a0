//! CRLs (RFC 5280, 5): full ones, one for each signer, numbered, made anew at each revocation, before they run out, and on
//! demand.

use std::sync::Arc;

use bytes::Bytes;
use const_oid::db::rfc5280::ID_CE_CRL_NUMBER;

use super::algorithm::SignatureAlgorithm;
use super::asn1::{bit_string, encode, explicit, extension, sequence};
use super::ca_certificate::SignerId;
use super::certificate::wrong_signature;
use super::crls::SignerCrl;
use super::issuer::Issuer;
use super::issuer_usage::IssuerUsage;
use super::revoked::Entries;
use super::signing_key::SigningKey;
use super::validity::{self, encode_time};
use super::{Pki, extensions, pem};
use crate::engine::Call;
use crate::model::{Class, Deadline, Fault, KeyOperation, PublicKey, SignInput, Terms};
use crate::store::{Record, Write};

/// How long a CRL is good for: 72 hours, as Vault's.
const LIFETIME: u64 = 72 * 3600;
/// CRLs of more entries are put together on another thread, so that no worker is held up.
const ENTRIES_INLINE: usize = 2000;
/// How long making one CRL may take.
const BUILD_TIME: std::time::Duration = std::time::Duration::from_secs(60);
/// Version of the stored form: number, this update, next update, entries (big-endian, 8 bytes each), DER.
const STORED_VERSION: u16 = 1;

/// A CRL, stored and ready to be served.
#[derive(Clone, Debug)]
pub(super) struct Crl {
    /// Strictly rising.
    pub(super) number: u64,
    /// In Unix seconds.
    pub(super) this_update: u64,
    /// In Unix seconds.
    pub(super) next_update: u64,
    /// How many revocations it covers.
    pub(super) entries: usize,
    pub(super) der: Bytes,
    /// PEM, without a last line feed.
    pub(super) pem: Bytes,
}

impl Crl {
    /// Whether half of its life is over.
    pub(super) fn is_aging(&self, now: u64) -> bool {
        now >= self.this_update + (self.next_update - self.this_update) / 2
    }

    fn new(number: u64, this_update: u64, next_update: u64, entries: usize, der: Bytes) -> Result<Crl, Fault> {
        let pem = pem::encode_trimmed(pem::CRL, &der)?.into();
        Ok(Crl { number, this_update, next_update, entries, der, pem })
    }

    fn stored(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(32 + self.der.len());
        for number in [self.number, self.this_update, self.next_update, self.entries as u64] {
            value.extend_from_slice(&number.to_be_bytes());
        }
        value.extend_from_slice(&self.der);
        value
    }

    /// Reads a stored CRL.
    pub(super) fn from_stored(record: &Record) -> Result<Crl, Fault> {
        let damaged = || Fault::internal("the stored CRL is damaged, or of a newer Keyway");
        if record.version != STORED_VERSION {
            return Err(damaged());
        }
        let number = |index: usize| {
            let bytes = record.value.get(index * 8..index * 8 + 8)?;
            Some(u64::from_be_bytes(bytes.try_into().ok()?))
        };
        let read = || Some((number(0)?, number(1)?, number(2)?, usize::try_from(number(3)?).ok()?));
        let (crl_number, this_update, next_update, entries) = read().ok_or_else(damaged)?;
        if next_update < this_update {
            return Err(damaged());
        }
        let der = record.value.get(32..).unwrap_or_default().to_vec();
        Crl::new(crl_number, this_update, next_update, entries, der.into())
    }
}

/// A CRL about to be signed.
struct Unsigned {
    number: u64,
    this_update: u64,
    entries: usize,
    algorithm: SignatureAlgorithm,
    identifier: Vec<u8>,
    tbs: Bytes,
    operation: KeyOperation,
}

impl Unsigned {
    /// Encodes the TBSCertList and makes its digest.
    fn new(
        number: u64,
        issuer: &Issuer,
        algorithm: SignatureAlgorithm,
        entries: &Entries,
        now: u64,
    ) -> Result<Unsigned, Fault> {
        let identifier = algorithm.identifier()?;
        // RFC 5280, 5.1.2.6: an empty list is left out.
        let chunks: Vec<&[u8]> = entries.chunks.iter().map(AsRef::as_ref).collect();
        let revoked = if entries.count == 0 { Vec::new() } else { sequence(&chunks)? };
        let number_extension = extension(ID_CE_CRL_NUMBER, false, &encode(&number)?)?;
        let authority = extensions::authority_key_identifier(&issuer.certificate.key_identifier)?;
        let extensions = explicit(0, &[&sequence(&[&authority, &number_extension])?])?;
        let tbs: Bytes = sequence(&[
            // version v2
            &[0x02, 0x01, 0x01],
            &identifier,
            &issuer.certificate.x509.subject,
            &encode_time(now)?,
            &encode_time(now + LIFETIME)?,
            &revoked,
            &extensions,
        ])?
        .into();
        let operation = algorithm.operation(&tbs)?;
        Ok(Unsigned { number, this_update: now, entries: entries.count, algorithm, identifier, tbs, operation })
    }

    /// Checks the signature and puts the CRL together.
    fn signed(self, key: &str, public_key: &PublicKey, signature: &[u8]) -> Result<Crl, Fault> {
        let KeyOperation::Sign { input, .. } = &self.operation else {
            return Err(Fault::internal("a CRL is signed"));
        };
        if !self.verifies(public_key, input, signature)? {
            return Err(wrong_signature(key, "the CRL"));
        }
        let der = sequence(&[&self.tbs, &self.identifier, &bit_string(signature)?])?;
        Crl::new(self.number, self.this_update, self.this_update + LIFETIME, self.entries, der.into())
    }

    fn verifies(&self, key: &PublicKey, input: &SignInput, signature: &[u8]) -> Result<bool, Fault> {
        self.algorithm.verify_input(key, input, signature)
    }
}

impl Pki {
    /// Makes, signs, stores and publishes the next CRL of a signer. One at a time: see `rebuild`.
    pub(super) async fn make_crl(&self, call: &Call, signer: &SignerId, own: &SignerCrl) -> Result<(), Fault> {
        let authority = self.authority.load_full();
        let gone = || Fault::invalid("no issuer of this signer has its key here and the usage crl-signing any more");
        let issuer = authority.crl_issuer(signer).ok_or_else(gone)?;
        let signatory = self.signatory(&call.mount, issuer, IssuerUsage::CrlSigning)?;
        let (issuer, key) = (signatory.issuer, signatory.key);
        let algorithm = crl_algorithm(&issuer, &key)?;
        let entries = own.revoked.lock().entries();
        let is_large = entries.count > ENTRIES_INLINE;
        let (number, now) = (own.next_number(), validity::now());
        let signer = Arc::clone(&issuer);
        let unsigned = off_worker(is_large, move || Unsigned::new(number, &signer, algorithm, &entries, now)).await?;
        let terms = Terms { class: Class::Control, deadline: Deadline::after(BUILD_TIME) };
        let signature = key.sign(unsigned.operation.clone(), terms).await?;
        let (name, public_key) = (key.name().to_owned(), issuer.certificate.public_key.clone());
        let (record_key, store) = (self.records.crl(issuer.signer()), self.store.clone());
        let store_signed = move || -> Result<_, Fault> {
            let crl = unsigned.signed(&name, &public_key, &signature)?;
            let write = Write::Put { key: record_key, version: STORED_VERSION, value: crl.stored() };
            // The number is durable before the CRL leaves: it is stored with it.
            if is_large {
                store.commit_now(vec![write])?;
                return Ok((crl, None));
            }
            Ok((crl, Some(store.commit(vec![write]))))
        };
        let (crl, commit) = off_worker(is_large, store_signed).await?;
        if let Some(commit) = commit {
            commit.await?;
        }
        tracing::info!(
            number = crl.number, entries = crl.entries, issuer = %issuer.id(), key = key.name(),
            mount = %call.mount.path, namespace = %call.mount.namespace, "CRL signed"
        );
        own.crl.store(Some(Arc::new(crl)));
        self.telemetry.crl_signed();
        // Those of the same signer serve the same CRL.
        let authority = self.authority.load_full();
        for same in authority.issuers.values().filter(|same| same.signer() == issuer.signer()) {
            self.publish_crl(call, same).await;
        }
        Ok(())
    }
}

/// How an issuer signs CRLs and OCSP answers: as it says, or else as suits its key.
pub(super) fn crl_algorithm(issuer: &Issuer, key: &SigningKey) -> Result<SignatureAlgorithm, Fault> {
    match issuer.record.settings.revocation_signature_algorithm {
        Some(algorithm) => Ok(algorithm),
        None => SignatureAlgorithm::choose(issuer.certificate.public_key.kind, 0, key.prefers_pss()?),
    }
}

/// Runs `work` here, or on a thread that may block if it is long. At most two at a time for a mount: its CRL and files.
pub(super) async fn off_worker<T: Send + 'static>(
    is_long: bool,
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    if !is_long {
        return work();
    }
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|_| Err(Fault::Unavailable { what: "the daemon is going down; try again".into() }))
}
