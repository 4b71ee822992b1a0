//! `kms_service "awskms" { … }`: what is allowed of a cloud's key service, and how it is called. Without its stanza a service is
//! there all the same, with the defaults.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hcl::edit::structure::Block;

use super::VerifyAfterSign;
use super::grants::{Grants, NamespaceList};
use super::reader::Reader;
use super::stanzas::VERIFICATIONS;
use crate::model::{CloudService, Namespace};

/// The labels of the stanza.
pub(super) const NAMES: &[&str] = &["awskms", "azurekeyvault", "gcpckms"];

/// How long one call may take.
const CALLS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(10);
/// How often something is asked on connections that are kept: less often, and those that are idle have ended.
const WARM_INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(240);
/// The stanzas within.
pub(super) const QUOTA: &str = "quota";
/// Most bytes of a file of certificates.
const CA_FILE_MAX: u64 = 1 << 20;

/// `kms_service "awskms" { … }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsService {
    /// Which.
    pub service: CloudService,
    /// Whose managed keys may be there, and which keys several of them may have.
    pub namespaces: Grants,
    /// Who beside the root namespace may use the daemon's own credentials, and credential files of this host.
    pub own_credentials: NamespaceList,
    /// Who beside the root namespace may name another endpoint than the service's public one.
    pub endpoints: NamespaceList,
    /// The limit of one call, its connection included: 100 ms to 10 s.
    pub call: Duration,
    /// Calls that one key may have under way at once.
    pub max_sessions: usize,
    /// Connections that are kept open to each endpoint that keys are at, for whoever calls next: 0 to 64.
    pub warm_connections: usize,
    /// How often something is asked on them where no call uses them: 100 ms to 4 min. It is to be shorter than what the service, and
    /// whatever is on the way there, ends idle connections after. AWS's load balancers do so after 60 s unless they are told
    /// otherwise, Azure's after 4 min, Google's front ends after 10 min.
    pub warm_interval: Duration,
    /// Which signatures are verified in software before they leave.
    pub verify_after_sign: VerifyAfterSign,
    /// Certificates (PEM) that are trusted beside the system's, for private endpoints.
    pub ca_certificates: Option<Arc<Vec<u8>>>,
    /// Where they stand.
    pub ca_file: Option<PathBuf>,
    /// What may be asked of a family of keys, where that is not what the service allows by default.
    pub quotas: BTreeMap<String, ServiceQuota>,
}

/// `quota "rsa" { per_second = 500 }` of a `kms_service`: of every account, project, vault and region each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceQuota {
    /// Units a second: requests, or what the service weighs them.
    pub per_second: Option<usize>,
    /// Units that may go at once after a pause.
    pub burst: Option<usize>,
    /// Requests under way at most.
    pub max_in_flight: Option<usize>,
}

impl KmsService {
    /// A service of which the configuration says nothing.
    pub fn new(service: CloudService) -> KmsService {
        KmsService {
            service,
            namespaces: Grants::default(),
            own_credentials: NamespaceList::default(),
            endpoints: NamespaceList::default(),
            call: Duration::from_secs(3),
            max_sessions: 32,
            warm_connections: 2,
            warm_interval: Duration::from_secs(45),
            verify_after_sign: VerifyAfterSign::default(),
            ca_certificates: None,
            ca_file: None,
            quotas: BTreeMap::new(),
        }
    }

    /// Whether a namespace's keys may be used by the daemon's own word.
    pub fn lends_credentials_to(&self, namespace: &Namespace) -> bool {
        namespace.is_root() || self.own_credentials.has(namespace)
    }

    /// Whether a namespace's keys may be at another endpoint.
    pub fn lets_name_endpoints(&self, namespace: &Namespace) -> bool {
        namespace.is_root() || self.endpoints.has(namespace)
    }
}

/// Every service, as configured or by default.
pub(super) fn all(configured: Vec<KmsService>) -> Vec<KmsService> {
    let of = |service| configured.iter().find(|known| known.service == service).cloned();
    CloudService::ALL.into_iter().map(|service| of(service).unwrap_or_else(|| KmsService::new(service))).collect()
}

pub(super) fn kms_service(stanza: &mut Reader<'_>, block: &Block, name: &str) -> Option<KmsService> {
    let mut service = KmsService::new(CloudService::from_name(name)?);
    service.namespaces = Grants::read(stanza);
    service.own_credentials = NamespaceList::read(stanza, "own_credentials");
    service.endpoints = NamespaceList::read(stanza, "endpoints");
    stanza.duration("call", CALLS, &mut service.call);
    stanza.count("max_sessions", 1..=1024, &mut service.max_sessions);
    stanza.count("warm_connections", 0..=64, &mut service.warm_connections);
    stanza.duration("warm_interval", WARM_INTERVALS, &mut service.warm_interval);
    service.verify_after_sign = stanza.choice("verify_after_sign", &VERIFICATIONS).unwrap_or_default();
    service.ca_file = stanza.text("ca_file").map(PathBuf::from);
    if let Some(path) = &service.ca_file {
        match certificates(path) {
            Ok(pem) => service.ca_certificates = Some(Arc::new(pem)),
            Err(message) => stanza.refuse_field("ca_file", format!("ca_file {}: {message}", path.display())),
        }
    }
    for nested in block.body.blocks().filter(|nested| nested.ident.as_str() == QUOTA) {
        let families = families(service.service);
        let given: Vec<&str> = nested.labels.iter().map(|label| label.as_str()).collect();
        let mut reader = stanza.nested(nested, format!("{QUOTA} {:?} of kms_service {name:?}", given.join(" ")));
        match given[..] {
            [family] if families.contains(&family) => {
                let quota = quota(&mut reader);
                if service.quotas.insert(family.to_owned(), quota).is_some() {
                    reader.refuse(format!("there is a {QUOTA} {family:?} already"));
                }
            }
            _ => reader.refuse(format!("expected {QUOTA} \"FAMILY\" {{ … }} with one of {}", families.join(", "))),
        }
        reader.finish();
    }
    Some(service)
}

fn quota(stanza: &mut Reader<'_>) -> ServiceQuota {
    let mut count = |name| {
        let mut number = 0;
        stanza.count(name, 1..=1_000_000, &mut number);
        (number > 0).then_some(number)
    };
    let (per_second, burst) = (count("per_second"), count("burst"));
    ServiceQuota { per_second, burst, max_in_flight: count("max_in_flight") }
}

/// The families of keys, and of what is asked about keys, that a service counts apart.
pub fn families(service: CloudService) -> &'static [&'static str] {
    match service {
        CloudService::AwsKms => &["rsa", "ecc", "ml-dsa", "symmetric", "look-up", "creation"],
        CloudService::AzureKeyVault => &["vault", "managed HSM", "creation"],
        CloudService::GcpCkms => &["cryptographic", "look-up", "creation"],
    }
}

fn certificates(path: &std::path::Path) -> Result<Vec<u8>, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > CA_FILE_MAX {
        return Err(format!("at most {CA_FILE_MAX} bytes are read, and it has {size}"));
    }
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let begins = b"-----BEGIN CERTIFICATE-----";
    if pem.windows(begins.len()).any(|window| window == begins) {
        return Ok(pem);
    }
    Err("expected certificates in PEM".to_owned())
}
