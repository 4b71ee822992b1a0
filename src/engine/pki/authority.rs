//! What a mount issues with, as one snapshot: its issuers ready to issue, its keys, the defaults and the URLs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ca_certificate::SignerId;
use super::chain::Chains;
use super::cluster::Cluster;
use super::extensions;
use super::issuer::Issuer;
use super::ocsp::Responders;
use super::records::Records;
use super::registry::{IssuerEntry, Registry};
use super::urls::Urls;
use super::validity;
use super::x509::X509;
use crate::model::Fault;
use crate::store::Store;

/// A mount's issuers and keys at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Authority {
    pub(super) registry: Registry,
    pub(super) urls: Urls,
    pub(super) cluster: Cluster,
    /// By id.
    pub(super) issuers: BTreeMap<String, Arc<Issuer>>,
    /// Those that answer OCSP requests.
    pub(super) responders: Responders,
    default: Option<Arc<Issuer>>,
    /// When it began to be as it is, in Unix seconds: strictly rising, whatever the clock does.
    pub(super) changed: u64,
}

impl Authority {
    /// What the store has.
    pub(super) fn load(store: &Store, records: &Records) -> Result<Authority, Fault> {
        let urls = store.read(&records.urls())?.unwrap_or_default();
        let cluster = store.read(&records.cluster())?.unwrap_or_default();
        Authority::new(Registry::load(store, records)?, urls, cluster)
    }

    /// Makes the issuers of a registry ready.
    pub(super) fn new(registry: Registry, urls: Urls, cluster: Cluster) -> Result<Authority, Fault> {
        let entries: Vec<&IssuerEntry> = registry.issuers.values().collect();
        let certificates: Vec<_> = entries.iter().map(|entry| Arc::clone(&entry.certificate)).collect();
        let chains = Chains::new(&certificates)?;
        let mut issuers = BTreeMap::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let record = Arc::clone(&entry.record);
            let links = record.settings.manual_chain.iter().filter_map(|id| registry.issuers.get(id));
            let manual: Vec<_> = links.map(|link| Arc::clone(&link.certificate)).collect();
            let issuer = Issuer {
                certificate: Arc::clone(&entry.certificate),
                key: registry.keys.get(&record.key_id).cloned(),
                chain: if manual.is_empty() { chains.of(index) } else { manual },
                leaf_extensions: leaf_extensions(entry, &urls, &cluster),
                freshest_crl: freshest_crl(entry, &urls, &cluster),
                record,
            };
            issuers.insert(issuer.id().to_owned(), Arc::new(issuer));
        }
        let default = issuers.get(&registry.issuers_config.default).cloned();
        let responders = Responders::new(default.iter().chain(issuers.values()));
        let changed = validity::now();
        Ok(Authority { registry, urls, cluster, issuers, responders, default, changed })
    }

    /// This with other URLs.
    pub(super) fn with_urls(&self, urls: Urls) -> Result<Authority, Fault> {
        Authority::new(self.registry.clone(), urls, self.cluster.clone()).map(|next| next.after(self))
    }

    /// This with other addresses of the mount.
    pub(super) fn with_cluster(&self, cluster: Cluster) -> Result<Authority, Fault> {
        Authority::new(self.registry.clone(), self.urls.clone(), cluster).map(|next| next.after(self))
    }

    /// This with other issuers and keys.
    pub(super) fn with_registry(&self, registry: Registry) -> Result<Authority, Fault> {
        Authority::new(registry, self.urls.clone(), self.cluster.clone()).map(|next| next.after(self))
    }

    fn after(self, before: &Authority) -> Authority {
        Authority { changed: self.changed.max(before.changed + 1), ..self }
    }

    /// The issuer that `reference` means: an id, a name, or `default`.
    pub(super) fn issuer(&self, reference: &str) -> Result<&Arc<Issuer>, Fault> {
        let id = self.registry.issuer_id(reference)?;
        self.issuers.get(id).ok_or_else(|| Fault::internal(format!("issuer {id} is known and not ready")))
    }

    /// The default issuer, if there is one.
    pub(super) fn default_issuer(&self) -> Option<&Arc<Issuer>> {
        self.default.as_ref()
    }

    /// The issuer that signed a certificate, one with a key before others. Costs a verification for each that fits by name.
    pub(super) fn issuer_of(&self, certificate: &X509) -> Result<Option<&Arc<Issuer>>, Fault> {
        let mut found = None;
        for issuer in self.issuers.values().filter(|issuer| issuer.certificate.is_named_in(certificate)) {
            if issuer.certificate.signed(certificate)? {
                if issuer.key.is_some() {
                    return Ok(Some(issuer));
                }
                found = found.or(Some(issuer));
            }
        }
        Ok(found)
    }

    /// The issuer that a certificate names, which proves nothing: for showing only.
    pub(super) fn issuer_by_names(&self, certificate: &X509) -> Option<&Arc<Issuer>> {
        self.default.iter().chain(self.issuers.values()).find(|issuer| issuer.certificate.is_named_in(certificate))
    }

    /// The issuer that signs the CRLs of `signer`: of its issuers that may, the default before others.
    pub(super) fn crl_issuer(&self, signer: &SignerId) -> Option<&Arc<Issuer>> {
        let mut issuers = self.default.iter().chain(self.issuers.values());
        issuers.find(|issuer| issuer.signer() == signer && issuer.signs_crls())
    }

    /// The signers that have CRLs made.
    pub(super) fn crl_signers(&self) -> BTreeSet<&SignerId> {
        self.issuers.values().filter(|issuer| issuer.signs_crls()).map(|issuer| issuer.signer()).collect()
    }
}

fn leaf_extensions(entry: &IssuerEntry, urls: &Urls, cluster: &Cluster) -> Result<Vec<u8>, Fault> {
    let urls = entry.record.settings.urls.as_ref().unwrap_or(urls);
    let mut bytes = extensions::authority_key_identifier(&entry.certificate.key_identifier)?;
    bytes.extend(extensions::of_urls(&cluster.fill(urls, &entry.record.id)?)?);
    Ok(bytes)
}

fn freshest_crl(entry: &IssuerEntry, urls: &Urls, cluster: &Cluster) -> Result<Vec<u8>, Fault> {
    let urls = entry.record.settings.urls.as_ref().unwrap_or(urls);
    let delta = Urls {
        delta_crl_distribution_points: urls.delta_crl_distribution_points.clone(),
        enable_templating: urls.enable_templating,
        ..Urls::default()
    };
    extensions::of_urls(&cluster.fill(&delta, &entry.record.id)?)
}
