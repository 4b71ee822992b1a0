//! CRLs (RFC 5280, 5), one for each signer, numbered: complete ones, made anew at each revocation or by the clock, before they
//! run out, and on demand; and delta CRLs, of what was revoked since the complete one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use const_oid::db::rfc5280::{ID_CE_CRL_NUMBER, ID_CE_DELTA_CRL_INDICATOR};
use tokio::sync::OnceCell;

use super::algorithm::SignatureAlgorithm;
use super::asn1::{bit_string, encode, explicit, extension, sequence};
use super::ca_certificate::SignerId;
use super::certificate::wrong_signature;
use super::crls::{SignerCrl, Whole};
use super::issuer::Issuer;
use super::issuer_usage::IssuerUsage;
use super::revoked::{Covered, Entries};
use super::signatory::Signatory;
use super::signing_key::SigningKey;
use super::validity::{self, encode_time};
use super::{Pki, extensions, pem};
use crate::engine::Call;
use crate::model::{Class, Deadline, Fault, KeyOperation, PublicKey, SignInput, Terms};
use crate::store::{Record, RecordKey, Write};

/// How long a delta CRL is good for, in intervals of its making, and in seconds at least: clients hold on to it for so long.
const DELTA_INTERVALS: u64 = 4;
const DELTA_LIFETIME_MIN: u64 = 3600;
/// CRLs of more entries are put together on another thread, so that no worker is held up.
const ENTRIES_INLINE: usize = 2000;
/// How long making one CRL may take.
const BUILD_TIME: std::time::Duration = std::time::Duration::from_secs(60);
/// What is logged and told of each kind.
const COMPLETE: &str = "CRL";
const DELTA: &str = "delta CRL";
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
    /// How many revocations it lists.
    pub(super) entries: usize,
    /// When it began to be served, in Unix seconds.
    pub(super) shown: u64,
    /// Up to which count of changes it lists them.
    pub(super) changes: u64,
    pub(super) der: Bytes,
    /// Made when it is first asked for: of a large CRL it is many megabytes that few want.
    pub(super) pem: OnceCell<Bytes>,
}

impl Crl {
    /// Whether half of its life is over.
    pub(super) fn is_aging(&self, now: u64) -> bool {
        now >= self.this_update + (self.next_update - self.this_update) / 2
    }

    fn new(number: u64, this_update: u64, next_update: u64, entries: usize, der: Bytes) -> Crl {
        let shown = validity::now();
        Crl { number, this_update, next_update, entries, shown, changes: 0, der, pem: OnceCell::new() }
    }

    /// PEM, without a last line feed. Those who come together wait for one making.
    pub(super) async fn pem(&self) -> Result<Bytes, Fault> {
        let der = self.der.clone();
        let make = || off_worker(self.entries > ENTRIES_INLINE, move || pem::encode_trimmed(pem::CRL, &der));
        Ok(self.pem.get_or_try_init(async || make().await.map(Bytes::from)).await?.clone())
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
        Ok(Crl::new(crl_number, this_update, next_update, entries, der.into()))
    }
}

/// Which revocations a CRL lists.
#[derive(Clone, Copy)]
enum Scope {
    Complete,
    /// Those since the complete CRL of this number.
    Since(u64),
}

impl Scope {
    /// What such a CRL of `issuer` says of itself, encoded.
    fn extension(self, issuer: &Issuer) -> Result<Vec<u8>, Fault> {
        match self {
            // RFC 5280, 5.2.6: where its delta CRLs are.
            Scope::Complete => issuer.freshest_crl.clone(),
            // RFC 5280, 5.2.4.
            Scope::Since(base) => extension(ID_CE_DELTA_CRL_INDICATOR, true, &encode(&base)?),
        }
    }
}

/// What a CRL will say, but for its entries.
pub(super) struct Head {
    pub(super) number: u64,
    /// In Unix seconds.
    pub(super) this_update: u64,
    /// In Unix seconds.
    pub(super) next_update: u64,
    /// Extensions beside the issuer's key and the number, encoded.
    pub(super) extensions: Vec<u8>,
}

/// A CRL about to be signed.
struct Unsigned {
    head: Head,
    covered: Covered,
    entries: usize,
    algorithm: SignatureAlgorithm,
    identifier: Vec<u8>,
    tbs: Bytes,
    operation: KeyOperation,
}

impl Unsigned {
    /// Encodes the TBSCertList and makes its digest.
    fn new(head: Head, issuer: &Issuer, algorithm: SignatureAlgorithm, entries: &Entries) -> Result<Unsigned, Fault> {
        let identifier = algorithm.identifier()?;
        // RFC 5280, 5.1.2.6: an empty list is left out.
        let chunks: Vec<&[u8]> = entries.chunks.iter().map(AsRef::as_ref).collect();
        let revoked = if entries.count == 0 { Vec::new() } else { sequence(&chunks)? };
        let number = extension(ID_CE_CRL_NUMBER, false, &encode(&head.number)?)?;
        let authority = extensions::authority_key_identifier(&issuer.certificate.key_identifier)?;
        let extensions = explicit(0, &[&sequence(&[&authority, &number, &head.extensions])?])?;
        let tbs: Bytes = sequence(&[
            // version v2
            &[0x02, 0x01, 0x01],
            &identifier,
            &issuer.certificate.x509.subject,
            &encode_time(head.this_update)?,
            &encode_time(head.next_update)?,
            &revoked,
            &extensions,
        ])?
        .into();
        let operation = algorithm.operation(&tbs)?;
        let (covered, entries) = (entries.covered(), entries.count);
        Ok(Unsigned { head, covered, entries, algorithm, identifier, tbs, operation })
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
        let Head { number, this_update, next_update, .. } = self.head;
        let crl = Crl::new(number, this_update, next_update, self.entries, der.into());
        Ok(Crl { changes: self.covered.changes, ..crl })
    }

    fn verifies(&self, key: &PublicKey, input: &SignInput, signature: &[u8]) -> Result<bool, Fault> {
        self.algorithm.verify_input(key, input, signature)
    }
}

impl Pki {
    /// Makes the next CRLs of a signer: a complete one if one is wanted, and a delta CRL where there are such. One at a time:
    /// see `rebuild`.
    pub(super) async fn make_crls(&self, call: &Call, signer: &SignerId, own: &SignerCrl) -> Result<(), Fault> {
        let whole = self.crls.whole_by(Deadline::after(BUILD_TIME)).await?;
        let config = self.crl_config.load_full();
        if config.disable {
            return Err(Fault::invalid("this mount makes no CRLs: disable is set in config/crl"));
        }
        let authority = self.authority.load_full();
        let gone = || Fault::invalid("no issuer of this signer has its key here and the usage crl-signing any more");
        let issuer = authority.crl_issuer(signer).ok_or_else(gone)?;
        let base = own.crl.load().as_ref().map(|crl| crl.number);
        if own.wants_complete.swap(false, Ordering::Relaxed) || base.is_none() {
            let made = self.make_crl(call, issuer, (own, whole), Scope::Complete, config.expiry.seconds).await;
            // Who comes next wants it no less.
            made.inspect_err(|_| own.wants_complete.store(true, Ordering::Relaxed))?;
        }
        let base = own.crl.load().as_ref().map(|crl| crl.number);
        if let Some(base) = base.filter(|_| config.enable_delta) {
            let lifetime = (DELTA_INTERVALS * config.delta_rebuild_interval.seconds).max(DELTA_LIFETIME_MIN);
            let lifetime = lifetime.min(config.expiry.seconds);
            self.make_crl(call, issuer, (own, whole), Scope::Since(base), lifetime).await?;
        }
        Ok(())
    }

    /// Makes, signs, stores and publishes one CRL.
    async fn make_crl(
        &self,
        call: &Call,
        issuer: &Arc<Issuer>,
        (own, whole): (&SignerCrl, Whole),
        scope: Scope,
        lifetime: u64,
    ) -> Result<(), Fault> {
        let signatory = self.signatory(&call.mount, issuer, IssuerUsage::CrlSigning)?;
        let (issuer, key) = (signatory.issuer, signatory.key);
        let algorithm = crl_algorithm(&issuer, &key)?;
        let (entries, kind, record_key) = match scope {
            Scope::Complete => (own.revoked(whole).entries(), COMPLETE, self.records.crl(issuer.signer())),
            Scope::Since(_) => (own.revoked(whole).entries_since()?, DELTA, self.records.delta_crl(issuer.signer())),
        };
        let covered = entries.covered();
        let is_large = entries.count > ENTRIES_INLINE;
        let now = validity::now();
        let extensions = scope.extension(&issuer)?;
        let head = Head { number: own.next_number(), this_update: now, next_update: now + lifetime, extensions };
        let signer = Arc::clone(&issuer);
        let unsigned = off_worker(is_large, move || Unsigned::new(head, &signer, algorithm, &entries)).await?;
        let terms = Terms { class: Class::Control, deadline: Deadline::after(BUILD_TIME) };
        let signature = key.sign(unsigned.operation.clone(), terms).await?;
        let crl = self.store_crl(unsigned, record_key, &key, &issuer, signature).await?;
        tracing::info!(
            kind, number = crl.number, entries = crl.entries, issuer = %issuer.id(), key = key.name(),
            mount = %call.mount.path, namespace = %call.mount.namespace, "CRL signed"
        );
        // Signing and storing it took time.
        let place = match scope {
            Scope::Complete => &own.crl,
            Scope::Since(_) => &own.delta,
        };
        // Later than the one before, whatever the clock does.
        let before = place.load().as_ref().map_or(0, |before| before.shown + 1);
        let crl = Crl { shown: validity::now().max(before), ..crl };
        match scope {
            Scope::Complete => {
                own.crl.store(Some(Arc::new(crl)));
                own.revoked(whole).covered(&covered);
            }
            Scope::Since(_) => own.delta.store(Some(Arc::new(crl))),
        }
        self.telemetry.crl_signed();
        // Those of the same signer serve the same CRL.
        let authority = self.authority.load_full();
        for same in authority.issuers.values().filter(|same| same.signer() == issuer.signer()) {
            self.publish_crl(call, same).await;
        }
        Ok(())
    }

    /// Signs a CRL that is its asker's alone: neither stored nor served.
    pub(super) async fn sign_crl(
        &self,
        call: &Call,
        issuer: &Arc<Issuer>,
        head: Head,
        entries: Entries,
    ) -> Result<Crl, Fault> {
        let Signatory { issuer, key } = self.signatory(&call.mount, issuer, IssuerUsage::CrlSigning)?;
        let (algorithm, is_large) = (crl_algorithm(&issuer, &key)?, entries.count > ENTRIES_INLINE);
        let signer = Arc::clone(&issuer);
        let unsigned = off_worker(is_large, move || Unsigned::new(head, &signer, algorithm, &entries)).await?;
        let signature = key.sign(unsigned.operation.clone(), call.terms()).await?;
        let (name, public_key) = (key.name().to_owned(), issuer.certificate.public_key.clone());
        let crl = off_worker(is_large, move || unsigned.signed(&name, &public_key, &signature)).await?;
        self.telemetry.crl_signed();
        Ok(crl)
    }

    /// Checks the signature, and stores the CRL: its number is durable before it leaves.
    async fn store_crl(
        &self,
        unsigned: Unsigned,
        record_key: RecordKey,
        key: &SigningKey,
        issuer: &Issuer,
        signature: Bytes,
    ) -> Result<Crl, Fault> {
        let is_large = unsigned.entries > ENTRIES_INLINE;
        let (name, public_key) = (key.name().to_owned(), issuer.certificate.public_key.clone());
        let store = self.store.clone();
        let store_signed = move || -> Result<_, Fault> {
            let crl = unsigned.signed(&name, &public_key, &signature)?;
            let write = Write::Put { key: record_key, version: STORED_VERSION, value: crl.stored() };
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
        Ok(crl)
    }
}

/// How an issuer signs CRLs and OCSP answers: as it says, or else as suits its key.
pub(super) fn crl_algorithm(issuer: &Issuer, key: &SigningKey) -> Result<SignatureAlgorithm, Fault> {
    match issuer.record.settings.revocation_signature_algorithm {
        Some(algorithm) => Ok(algorithm),
        None => key.algorithm(issuer.certificate.public_key.kind, 0, false),
    }
}

/// Runs `work` here, or on a thread that may block if it is long. At most three at a time for a mount: its CRL, its files, and
/// a step of tidying.
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
