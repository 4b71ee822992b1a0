//! An issuer: its record, and, ready for use, everything about it that every certificate needs, made once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::algorithm::SignatureAlgorithm;
use super::ca_certificate::{CaCertificate, SignerId};
use super::issuer_usage::{IssuerUsage, IssuerUsages, LeafNotAfterBehavior};
use super::key::Key;
use super::name_constraints;
use super::san::AlternativeNames;
use super::urls::Urls;
use crate::model::Fault;
use crate::store::Versioned;

/// What is stored of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IssuerRecord {
    pub(super) id: String,
    /// Empty where its key is not here: then it only stands in chains.
    pub(super) key_id: String,
    /// PEM.
    pub(super) certificate: String,
    /// When it was revoked, in Unix seconds.
    pub(super) revoked: Option<u64>,
    pub(super) settings: IssuerSettings,
}

/// What an operator may change about an issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IssuerSettings {
    /// Empty if it has none.
    pub(super) name: String,
    pub(super) leaf_not_after_behavior: LeafNotAfterBehavior,
    /// Ids of the issuers of its chain, itself first; empty lets Keyway find them.
    pub(super) manual_chain: Vec<String>,
    pub(super) usage: IssuerUsages,
    /// How it signs CRLs; `None` is what suits its key.
    pub(super) revocation_signature_algorithm: Option<SignatureAlgorithm>,
    /// Its own URLs, in place of all those of `config/urls`.
    pub(super) urls: Option<Urls>,
}

impl Versioned for IssuerRecord {
    const VERSION: u16 = 2;

    /// Format 1 had the key inside: `upgrade` splits it when a mount starts, before anything reads an issuer.
    fn upgrade(version: u16, _: &[u8]) -> Result<IssuerRecord, Fault> {
        Err(Fault::internal(format!("an issuer of format {version} was left when the mount started")))
    }
}

/// An issuer, ready to issue.
#[derive(Clone, Debug)]
pub(super) struct Issuer {
    pub(super) record: Arc<IssuerRecord>,
    pub(super) certificate: Arc<CaCertificate>,
    pub(super) key: Option<Arc<Key>>,
    /// Its certificate and those above it, nearest first.
    pub(super) chain: Vec<Arc<CaCertificate>>,
    /// AuthorityKeyIdentifier, AuthorityInfoAccess and CRL pointers of what it issues, encoded; or why it cannot issue.
    pub(super) leaf_extensions: Result<Vec<u8>, Fault>,
    /// Where its CRLs say that delta CRLs are, encoded; nothing if nowhere.
    pub(super) freshest_crl: Result<Vec<u8>, Fault>,
}

impl Issuer {
    /// Its id.
    pub(super) fn id(&self) -> &str {
        &self.record.id
    }

    /// Its name; empty if it has none.
    pub(super) fn name(&self) -> &str {
        &self.record.settings.name
    }

    /// Who signs, whichever of that signer's certificates this is.
    pub(super) fn signer(&self) -> &SignerId {
        &self.certificate.signer
    }

    /// Refuses a use that its settings do not allow, and everything once it is revoked but what revocation needs.
    pub(super) fn require(&self, usage: IssuerUsage) -> Result<(), Fault> {
        if self.record.revoked.is_some() && usage == IssuerUsage::IssuingCertificates {
            return Err(Fault::invalid(format!("issuer [{}] is revoked and issues no more", self.told())));
        }
        if self.record.settings.usage.allow(usage) {
            return Ok(());
        }
        Err(Fault::invalid(format!(
            "requested usage {} for issuer [{}] but only had usage {}",
            usage.name(),
            self.told(),
            self.record.settings.usage.names()
        )))
    }

    /// Its key; an issuer whose key is not here signs nothing.
    pub(super) fn key(&self) -> Result<&Arc<Key>, Fault> {
        self.key.as_ref().ok_or_else(|| {
            Fault::invalid(format!(
                "unable to fetch corresponding key for issuer {}; unable to use this issuer for signing: its certificate \
                 is here, its key is not",
                self.id()
            ))
        })
    }

    /// Whether it can sign CRLs, as far as can be told without its token.
    pub(super) fn signs_crls(&self) -> bool {
        self.key.is_some() && self.record.settings.usage.allow(IssuerUsage::CrlSigning)
    }

    /// Refuses names that its certificate, or one above it, excludes or does not permit.
    pub(super) fn check_names(&self, subject: &[u8], names: &AlternativeNames, is_leaf: bool) -> Result<(), Fault> {
        let mut constraints = self.chain.iter().filter_map(|link| link.name_constraints.as_ref());
        constraints.try_for_each(|constraints| name_constraints::check(constraints, subject, names, is_leaf))
    }

    /// Its certificate and those above it, nearest first, as they go with what it signs.
    pub(super) fn chain_above(&self, without_roots: bool) -> impl Iterator<Item = &Arc<CaCertificate>> {
        self.chain.iter().filter(move |link| !(without_roots && link.is_root()))
    }

    /// Whether its certificate, or one above it, constrains names at all.
    pub(super) fn constrains_names(&self) -> bool {
        self.chain.iter().any(|link| link.name_constraints.is_some())
    }

    /// How many CAs may follow below a CA that it signs, where that asks for `wanted`: never more than what it and those
    /// above it leave. `None` is no limit.
    pub(super) fn path_length_below(&self, wanted: Option<u8>) -> Result<Option<u8>, Fault> {
        // RFC 5280, 4.2.1.9: what is self-issued does not count.
        let mut between = 0_u8;
        let mut left: Option<u8> = None;
        for link in &self.chain {
            if let Some(length) = link.path_length {
                let after = length.checked_sub(between).and_then(|length| length.checked_sub(1)).ok_or_else(|| {
                    Fault::invalid(format!(
                        "signing certificate has a max path length of zero, and cannot issue further CA certificates: issuer \
                         [{}]",
                        self.told()
                    ))
                })?;
                left = Some(left.map_or(after, |least| least.min(after)));
            }
            between = between.saturating_add(u8::from(!link.is_root()));
        }
        match (wanted, left) {
            (Some(wanted), Some(left)) if wanted > left => Err(Fault::invalid(format!(
                "max_path_length {wanted} is more than issuer [{}] can give: at most {left}",
                self.told()
            ))),
            (wanted, left) => Ok(wanted.or(left)),
        }
    }

    /// As Vault's errors name it.
    fn told(&self) -> String {
        if self.name().is_empty() {
            format!("id:{}", self.id())
        } else {
            format!("id:{} / name:{}", self.id(), self.name())
        }
    }
}
