//! Leaf certificates: from a plan, which says only what was allowed, to a certificate that is signed, stored and answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use der::flagset::FlagSet;
use serde_json::{Value, json};
use x509_cert::ext::pkix::KeyUsages;

use super::algorithm::SignatureAlgorithm;
use super::ca_certificate::CaCertificate;
use super::certificate::{Issued, Parts, Prepared};
use super::crl::off_worker;
use super::format::Format;
use super::issuer::Issuer;
use super::lease::Wanted;
use super::lint::{Advice, Rules};
use super::private_key::PrivateKeyFormat;
use super::san::AlternativeNames;
use super::signatory::Signatory;
use super::validity::{Beyond, Validity};
use super::{Pki, extensions, key};
use crate::crypto::GeneratedKey;
use crate::engine::Call;
use crate::model::{Fault, IssuedCertificate, Lease, PublicKey, Response};

/// What a certificate will say.
pub(super) struct Plan {
    /// DER of the subject.
    pub(super) subject: Vec<u8>,
    /// The alternative names; they are among `extensions`, too.
    pub(super) names: AlternativeNames,
    pub(super) validity: Validity,
    /// What its key may be used for, as far as a key of its kind can be.
    pub(super) key_usages: FlagSet<KeyUsages>,
    /// Encoded: all but the key usage, the key identifiers and what its issuer adds.
    pub(super) extensions: Vec<u8>,
    /// What it is held to.
    pub(super) rules: Rules,
    /// What becomes of it where it should be otherwise.
    pub(super) advice: Advice,
    pub(super) signature_bits: u32,
    pub(super) use_pss: bool,
    pub(super) is_stored: bool,
    /// A CA's certificate: its signature is checked before anyone gets it.
    pub(super) is_ca: bool,
    /// The SubjectKeyIdentifier, where it is not the key's digest.
    pub(super) key_identifier: Option<Vec<u8>>,
    /// Its lease, if it is to have one.
    pub(super) lease: Option<Wanted>,
    pub(super) warnings: Vec<String>,
}

/// A planned certificate as its issuer is to sign it.
pub(super) struct Draft {
    pub(super) prepared: Prepared,
    pub(super) is_stored: bool,
    /// A CA's certificate: its signature is checked before anyone gets it.
    is_ca: bool,
    pub(super) warnings: Vec<String>,
}

/// A certificate issued, and what was noticed on the way.
pub(super) struct Certified {
    issued: Issued,
    lease: Option<Lease>,
    warnings: Vec<String>,
}

impl Certified {
    /// As the hot operation answers it, without a chain.
    pub(super) fn alone(&self) -> IssuedCertificate {
        let issued = &self.issued;
        IssuedCertificate {
            certificate: issued.der().clone(),
            chain: Vec::new(),
            serial: issued.serial().to_string(),
            expiration: issued.expiration(),
            lease_id: self.lease.as_ref().map(|lease| lease.id.clone()).unwrap_or_default(),
        }
    }
}

impl Plan {
    /// This as `issuer` may sign it: within the name constraints, and with an end that is not `beyond` its own.
    pub(super) fn within(self, issuer: &Issuer, beyond: Beyond) -> Result<Plan, Fault> {
        issuer.check_names(&self.subject, &self.names, !self.is_ca)?;
        let (validity, warning) = self.validity.bounded(issuer.certificate.x509.not_after, beyond)?;
        Ok(Plan { validity, warnings: self.warnings.into_iter().chain(warning).collect(), ..self })
    }

    /// Makes of it what `signatory` is to sign for `public_key`.
    pub(super) fn draft(self, signatory: &Signatory, public_key: &PublicKey) -> Result<Draft, Fault> {
        let issuer = &signatory.issuer;
        let identifier = match self.key_identifier {
            Some(stated) => stated,
            None => extensions::key_identifier(public_key)?.to_vec(),
        };
        let prepared = Prepared::new(&Parts {
            algorithm: signatory.algorithm(self.signature_bits, self.use_pss)?,
            issuer: &issuer.certificate.x509.subject,
            validity: self.validity,
            subject: &self.subject,
            public_key,
            rules: self.rules,
            advice: self.advice,
            extensions: &[
                &extensions::leaf_key_usage(self.key_usages, public_key.kind)?,
                &self.extensions,
                &extensions::subject_key_identifier(&identifier)?,
                issuer.leaf_extensions.as_ref().map_err(Fault::clone)?,
            ],
        })?;
        let prepared = prepared.leased(self.lease);
        let warnings = self.warnings.into_iter().chain(prepared.advice().iter().cloned()).collect();
        Ok(Draft { prepared, is_stored: self.is_stored, is_ca: self.is_ca, warnings })
    }
}

impl Pki {
    /// Has a planned certificate signed for `public_key`, and stores it. `role` is for the log.
    pub(super) async fn certify(
        &self,
        call: &Call,
        signatory: &Signatory,
        plan: Plan,
        public_key: &PublicKey,
        role: &str,
    ) -> Result<Certified, Fault> {
        let Draft { prepared, is_stored, is_ca, warnings } = plan.draft(signatory, public_key)?;
        let Signatory { issuer, key } = signatory;
        let intended = match is_stored {
            true => prepared.record(&self.intents, issuer.id()).await?,
            false => prepared.unrecorded(),
        };
        let signed = match is_ca {
            true => intended.sign_and_verify(key, &issuer.certificate.public_key, call.terms()).await?,
            false => intended.sign(key, call.terms()).await?,
        };
        let issued = match is_stored {
            true => signed.store(&self.store, &self.records, Vec::new()).await?,
            false => signed.unstored(),
        };
        Ok(self.certified(call, signatory, role, issued, is_stored, warnings))
    }

    /// Notes which certificates may exist that are not stored. Where nobody issues, no commit takes this along.
    pub(super) async fn note_doubts(&self) -> Result<(), Fault> {
        if !self.intents.are_in_doubt() {
            return Ok(());
        }
        let intents = self.intents.clone();
        off_worker(true, move || intents.note_doubts()).await
    }

    /// Counts a certificate that may be answered, and tells of it.
    pub(super) fn certified(
        &self,
        call: &Call,
        signatory: &Signatory,
        role: &str,
        issued: Issued,
        is_stored: bool,
        warnings: Vec<String>,
    ) -> Certified {
        if is_stored {
            self.counts.stored(&issued.serial());
        }
        self.telemetry.certificate_issued();
        tracing::info!(
            serial = %issued.serial(), issuer = %signatory.issuer.id(), role, key = signatory.key.name(),
            mount = %call.mount.path, namespace = %call.mount.namespace, uid = call.caller.peer.uid,
            pid = call.caller.peer.pid, "certificate issued"
        );
        let lease = issued.lease(&call.mount.path);
        if lease.is_some() && call.caller.token.is_some() {
            self.has_leases_of_tokens.store(true, Ordering::Relaxed);
        }
        Certified { lease, issued, warnings }
    }
}

impl Signatory {
    /// How it signs certificates: RSA with the hash of `signature_bits`, and PSS where that is asked or its key's mechanism
    /// says so.
    pub(super) fn algorithm(&self, signature_bits: u32, use_pss: bool) -> Result<SignatureAlgorithm, Fault> {
        self.key.algorithm(self.issuer.certificate.public_key.kind, signature_bits, use_pss)
    }
}

/// The answer to a request for a certificate.
pub(super) struct SignAnswer {
    certified: Certified,
    format: Format,
    /// The issuer's certificate.
    issuing_ca: Arc<CaCertificate>,
    /// Those that lead to a root, nearest first.
    chain: Vec<Arc<CaCertificate>>,
}

impl SignAnswer {
    /// A certificate in the form its request asks for.
    pub(super) fn new(certified: Certified, issuer: &Issuer, format: Format, without_roots: bool) -> SignAnswer {
        let chain = issuer.chain_above(without_roots).cloned().collect();
        SignAnswer { certified, format, issuing_ca: Arc::clone(&issuer.certificate), chain }
    }

    /// As the hot operation answers it.
    pub(super) fn certificate(self) -> IssuedCertificate {
        let chain = self.chain.iter().map(|link| Bytes::clone(&link.x509.der)).collect();
        IssuedCertificate { chain, ..self.certified.alone() }
    }

    /// As HTTP answers it, together with the key made for it.
    pub(super) fn with_key(self, key: &GeneratedKey, key_format: PrivateKeyFormat) -> Result<Response, Fault> {
        let format = self.format;
        let written = key_format.write(key, format)?;
        let mut response = self.response()?;
        let (Response::Data { data, .. } | Response::Leased { data, .. }) = &mut response else {
            return Err(Fault::internal("a certificate is not answered as data"));
        };
        if format == Format::PemBundle {
            let bundle = data.get("certificate").and_then(Value::as_str).unwrap_or_default();
            data.insert("certificate".into(), [written.as_str(), bundle].join("\n").into());
        }
        data.insert("private_key".into(), written.as_str().into());
        data.insert("private_key_type".into(), key::kind_name(key.public.kind).into());
        Ok(response)
    }

    /// As HTTP answers it.
    pub(super) fn response(self) -> Result<Response, Fault> {
        let (format, issued) = (self.format, &self.certified.issued);
        let chain = self.chain.iter().map(|link| format.ca(link)).collect::<Result<Vec<String>, Fault>>()?;
        let mut certificate = format.certificate(issued.der())?;
        if format == Format::PemBundle {
            for above in &chain {
                certificate = format!("{certificate}\n{above}");
            }
        }
        let answer = json!({
            "certificate": certificate,
            "issuing_ca": format.ca(&self.issuing_ca)?,
            "ca_chain": chain,
            "serial_number": issued.serial().to_string(),
            "expiration": issued.expiration(),
        });
        let Value::Object(data) = answer else { return Err(Fault::internal("an answer is no object")) };
        let Certified { lease, warnings, .. } = self.certified;
        Ok(match lease {
            Some(lease) => Response::Leased { data, warnings, lease },
            None => Response::with_warnings(data, warnings),
        })
    }
}
