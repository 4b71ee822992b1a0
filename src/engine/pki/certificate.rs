//! Certificates: prepared and linted, then recorded by their serial numbers, then signed, then stored, then answered, each a type of its own, so that none of it can be
//! left out or done in another order.

use bytes::Bytes;

use super::algorithm::SignatureAlgorithm;
use super::asn1::{bit_string, sequence};
use super::extensions;
use super::intents::{Intent, Intents, Recorded};
use super::lease::Wanted;
use super::lint::{self, Advice, Rules};
use super::records::Records;
use super::serial::Serial;
use super::signing_key::SigningKey;
use super::validity::Validity;
use super::{lease, validity};
use crate::model::{Fault, Lease, PublicKey, Terms};
use crate::store::{Store, Write};

/// `[0] EXPLICIT` INTEGER 2 (RFC 5280, 4.1.2.1).
const VERSION_3: [u8; 5] = [0xA0, 3, 2, 1, 2];

/// The parts of a certificate, each checked and encoded already.
pub(super) struct Parts<'a> {
    /// How it will be signed.
    pub(super) algorithm: SignatureAlgorithm,
    /// DER of the issuer's Name.
    pub(super) issuer: &'a [u8],
    /// When it is valid.
    pub(super) validity: Validity,
    /// DER of the subject's Name.
    pub(super) subject: &'a [u8],
    /// The key it certifies.
    pub(super) public_key: &'a PublicKey,
    /// What it is held to.
    pub(super) rules: Rules,
    /// What becomes of it where it should be otherwise.
    pub(super) advice: Advice,
    /// Its extensions, encoded, in order.
    pub(super) extensions: &'a [&'a [u8]],
}

/// A certificate ready to be signed, under a serial number of its own.
pub(super) struct Prepared {
    serial: Serial,
    validity: Validity,
    algorithm: SignatureAlgorithm,
    identifier: Vec<u8>,
    tbs: Bytes,
    /// Its lease, if it is to have one.
    lease: Option<Wanted>,
    /// What its asker is to be told of it.
    advice: Vec<String>,
}

/// A certificate about to be signed, whose serial number is durable, unless nothing of it is to be stored.
pub(super) struct Intended {
    prepared: Prepared,
    recorded: Option<Recorded>,
}

/// A certificate signed, and not yet anybody's to have.
pub(super) struct Signed {
    /// Until it is stored.
    recorded: Option<Recorded>,
    serial: Serial,
    validity: Validity,
    der: Bytes,
    lease: Option<Wanted>,
}

/// A certificate that may be answered: stored durably, or of a role that says not to.
pub(super) struct Issued {
    serial: Serial,
    validity: Validity,
    der: Bytes,
    lease: Option<Wanted>,
}

impl Prepared {
    /// Encodes the TBSCertificate (RFC 5280, 4.1), once, and holds it to its rules.
    pub(super) fn new(parts: &Parts<'_>) -> Result<Prepared, Fault> {
        let serial = Serial::new()?;
        let identifier = parts.algorithm.identifier()?;
        let tbs = sequence(&[
            &VERSION_3,
            &serial.der(),
            &identifier,
            parts.issuer,
            &parts.validity.encode()?,
            parts.subject,
            &parts.public_key.spki,
            &extensions::list(parts.extensions)?,
        ])?;
        let advice = lint::check(&tbs, parts.rules, parts.advice)?;
        let (validity, algorithm, tbs) = (parts.validity, parts.algorithm, tbs.into());
        Ok(Prepared { serial, validity, algorithm, identifier, tbs, lease: None, advice })
    }

    /// What should be otherwise with it, to be told to its asker.
    pub(super) fn advice(&self) -> &[String] {
        &self.advice
    }

    /// With a lease, stored when it is, if it is to have one.
    pub(super) fn leased(self, lease: Option<Wanted>) -> Prepared {
        Prepared { lease, ..self }
    }

    /// Makes durable that `issuer` is about to sign it.
    pub(super) async fn record(self, intents: &Intents, issuer: &str) -> Result<Intended, Fault> {
        let recorded = Some(intents.record(self.intent(issuer)).await?);
        Ok(Intended { prepared: self, recorded })
    }

    /// The same for many, in one record.
    pub(super) async fn record_all(
        all: Vec<Prepared>,
        intents: &Intents,
        issuer: &str,
    ) -> Result<Vec<Intended>, Fault> {
        let recorded = intents.record_all(all.iter().map(|prepared| prepared.intent(issuer))).await?;
        let pairs = all.into_iter().zip(recorded);
        Ok(pairs.map(|(prepared, recorded)| Intended { prepared, recorded: Some(recorded) }).collect())
    }

    fn intent(&self, issuer: &str) -> Intent {
        Intent::new(&self.serial, issuer, self.validity.not_after)
    }

    /// Leaves no trace of it, for a role with `no_store`.
    pub(super) fn unrecorded(self) -> Intended {
        Intended { prepared: self, recorded: None }
    }
}

impl Intended {
    /// Has it signed.
    pub(super) async fn sign(mut self, key: &SigningKey, terms: Terms) -> Result<Signed, Fault> {
        let signature = self.ask(key, terms).await?;
        self.assemble(&signature)
    }

    /// Has it signed, and checks that the signature is the key's.
    pub(super) async fn sign_and_verify(
        mut self,
        key: &SigningKey,
        public_key: &PublicKey,
        terms: Terms,
    ) -> Result<Signed, Fault> {
        let signature = self.ask(key, terms).await?;
        let Prepared { algorithm, tbs, .. } = &self.prepared;
        if !algorithm.verify(public_key, tbs, &signature)? {
            return Err(wrong_signature(key.name(), "the CA certificate"));
        }
        self.assemble(&signature)
    }

    /// Its signature. From when the key's lane has the job until the certificate is stored, it may exist.
    async fn ask(&mut self, key: &SigningKey, terms: Terms) -> Result<Bytes, Fault> {
        let signing = key.submit(self.prepared.algorithm.operation(&self.prepared.tbs)?, terms)?;
        self.recorded.iter_mut().for_each(Recorded::asked);
        let signature = signing.await;
        if signature.as_ref().is_err_and(Fault::left_the_device_alone) {
            self.recorded.iter_mut().for_each(Recorded::settled);
        }
        signature
    }

    fn assemble(self, signature: &[u8]) -> Result<Signed, Fault> {
        let Prepared { serial, validity, identifier, tbs, lease, .. } = self.prepared;
        let der = sequence(&[&tbs, &identifier, &bit_string(signature)?])?;
        Ok(Signed { recorded: self.recorded, serial, validity, der: der.into(), lease })
    }
}

impl Signed {
    /// DER.
    pub(super) fn der(&self) -> &Bytes {
        &self.der
    }

    /// Stores it, together with `others`; resolves when that is durable.
    pub(super) async fn store(self, store: &Store, records: &Records, others: Vec<Write>) -> Result<Issued, Fault> {
        store.commit(self.writes(records, others)?).await?;
        Ok(self.issued())
    }

    /// Stores many, all or none; resolves when that is durable.
    pub(super) async fn store_all(all: Vec<Signed>, store: &Store, records: &Records) -> Result<Vec<Issued>, Fault> {
        let mut writes = Vec::new();
        for signed in &all {
            writes = signed.writes(records, writes)?;
        }
        store.commit(writes).await?;
        Ok(all.into_iter().map(Signed::issued).collect())
    }

    /// The same, blocking: part of a change.
    pub(super) fn store_now(self, store: &Store, records: &Records, others: Vec<Write>) -> Result<Issued, Fault> {
        store.commit_now(self.writes(records, others)?)?;
        Ok(self.issued())
    }

    fn writes(&self, records: &Records, others: Vec<Write>) -> Result<Vec<Write>, Fault> {
        let mut writes = others;
        // Created, never replaced: a serial number is used once.
        writes.push(Write::Create { key: records.certificate(&self.serial), version: 1, value: self.der.to_vec() });
        if let Some(wanted) = &self.lease {
            writes.extend(lease::records(records, wanted, &self.serial, self.validity.not_after)?);
        }
        Ok(writes)
    }

    /// Lets it go unstored, for a role with `no_store`.
    pub(super) fn unstored(self) -> Issued {
        Issued { lease: None, ..self.issued() }
    }

    fn issued(mut self) -> Issued {
        // What is stored needs no intent.
        self.recorded.iter_mut().for_each(Recorded::settled);
        Issued { serial: self.serial, validity: self.validity, der: self.der, lease: self.lease }
    }
}

impl Issued {
    /// Its serial number.
    pub(super) fn serial(&self) -> Serial {
        self.serial
    }

    /// `notAfter` in Unix seconds.
    pub(super) fn expiration(&self) -> i64 {
        i64::try_from(self.validity.not_after).unwrap_or(i64::MAX)
    }

    /// DER.
    pub(super) fn der(&self) -> &Bytes {
        &self.der
    }

    /// Its lease, on the mount with this path.
    pub(super) fn lease(&self, mount: &str) -> Option<Lease> {
        let path = &self.lease.as_ref()?.path;
        let duration = self.validity.not_after.saturating_sub(validity::now());
        Some(Lease { id: lease::id(mount, path, &self.serial), duration })
    }
}

/// A device that answers signatures which do not verify.
pub(super) fn wrong_signature(key: &str, what: &str) -> Fault {
    Fault::DeviceError {
        what: format!(
            "the signature of managed key {key:?} on {what} does not verify under the key's recorded public key; nothing \
             was issued"
        ),
    }
}
