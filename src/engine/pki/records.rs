//! The names of the records of one mount.

use super::ca_certificate::SignerId;
use super::serial::Serial;
use crate::model::{Fault, Mount, Namespace};
use crate::store::{RecordKey, Store, Write};

/// Every kind of record there is, but for leases: those have a collection for each path that issues.
const KINDS: [&str; 10] =
    ["config", "issuers", "keys", "roles", "certs", "revoked", "crls", "intents", "unfinished", LEASE_ENDS];
/// What the collections of leases begin with.
const LEASES: &str = "leases/";
const LEASE_ENDS: &str = "lease-ends";
/// What the collections of the leases of one token begin with.
const LEASES_BY_TOKEN: &str = "token-leases/";
/// Records removed in one commit; more than these are removed beforehand.
const REMOVED_AT_ONCE: usize = 4096;

/// Makes the names of a mount's records: in the mount's namespace, in collections that begin with its UUID.
#[derive(Clone, Debug)]
pub(super) struct Records {
    namespace: Namespace,
    prefix: String,
}

impl Records {
    /// Those of `mount`.
    pub(super) fn new(mount: &Mount) -> Records {
        Records::of(&mount.namespace, &mount.uuid)
    }

    /// Those of the mount with this UUID.
    pub(super) fn of(namespace: &Namespace, uuid: &str) -> Records {
        Records { namespace: namespace.clone(), prefix: format!("pki/{uuid}") }
    }

    /// The namespace they are in.
    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The collection of a kind.
    pub(super) fn collection(&self, kind: &str) -> String {
        [&self.prefix, "/", kind].concat()
    }

    /// Which issuer is the default one.
    pub(super) fn issuers_config(&self) -> RecordKey {
        self.key("config", "issuers")
    }

    /// Which key is the default one.
    pub(super) fn keys_config(&self) -> RecordKey {
        self.key("config", "keys")
    }

    /// Which issuer was the default one, while a mount had one.
    pub(super) fn only_issuer(&self) -> RecordKey {
        self.key("config", "default-issuer")
    }

    /// The addresses of the mount.
    pub(super) fn cluster(&self) -> RecordKey {
        self.key("config", "cluster")
    }

    /// The settings of CRLs and OCSP.
    pub(super) fn crl_config(&self) -> RecordKey {
        self.key("config", "crl")
    }

    /// When it is tidied by the clock.
    pub(super) fn auto_tidy(&self) -> RecordKey {
        self.key("config", "auto-tidy")
    }

    /// When the mount was last tidied.
    pub(super) fn last_tidy(&self) -> RecordKey {
        self.key("config", "tidy")
    }

    /// The URLs of the mount.
    pub(super) fn urls(&self) -> RecordKey {
        self.key("config", "urls")
    }

    /// An issuer.
    pub(super) fn issuer(&self, id: &str) -> RecordKey {
        self.key("issuers", id)
    }

    /// A key.
    pub(super) fn key_entry(&self, id: &str) -> RecordKey {
        self.key("keys", id)
    }

    /// A role.
    pub(super) fn role(&self, name: &str) -> RecordKey {
        self.key("roles", name)
    }

    /// A certificate: its value is DER.
    pub(super) fn certificate(&self, serial: &Serial) -> RecordKey {
        self.key("certs", &serial.record_name())
    }

    /// What some who issue at the same time are about to sign.
    pub(super) fn intents(&self, name: &str) -> RecordKey {
        self.key("intents", name)
    }

    /// What was about to be signed when the daemon was killed; `serial` as certificates' records are named.
    pub(super) fn unfinished(&self, serial: &str) -> RecordKey {
        self.key("unfinished", serial)
    }

    /// A revocation.
    pub(super) fn revocation(&self, serial: &Serial) -> RecordKey {
        self.key("revoked", &serial.record_name())
    }

    /// The collection of the leases of a path that issues; that of all of them begins with that of the empty path.
    pub(super) fn leases(&self, path: &str) -> String {
        self.collection(&format!("{LEASES}{path}"))
    }

    /// A lease of a certificate that was issued at a path.
    pub(super) fn lease(&self, path: &str, serial: &Serial) -> RecordKey {
        self.named_lease(path, &serial.record_name())
    }

    /// The same; `serial` as certificates' records are named.
    pub(super) fn named_lease(&self, path: &str, serial: &str) -> RecordKey {
        RecordKey::new(&self.namespace, self.leases(path), serial)
    }

    /// The collection of the leases that were made with a token, by its hash in hexadecimal; those of all whose hashes begin so
    /// begin with that of the beginning.
    pub(super) fn leases_by_token(&self, token: &str) -> String {
        self.collection(&format!("{LEASES_BY_TOKEN}{token}"))
    }

    /// Where the lease of this serial number, as certificates' records are named, stands that was made with a token.
    pub(super) fn lease_by_token(&self, token: &str, serial: &str) -> RecordKey {
        RecordKey::new(&self.namespace, self.leases_by_token(token), serial)
    }

    /// The collection of the ends of all leases, the first to end first.
    pub(super) fn lease_ends(&self) -> String {
        self.collection(LEASE_ENDS)
    }

    /// The end of a lease: when, in Unix seconds.
    pub(super) fn lease_end(&self, expires: u64, serial: &Serial) -> RecordKey {
        self.named_lease_end(&format!("{expires:016x}-{}", serial.record_name()))
    }

    /// The same, by its record's name.
    pub(super) fn named_lease_end(&self, name: &str) -> RecordKey {
        self.key(LEASE_ENDS, name)
    }

    /// Whether the end of this record's name is over.
    pub(super) fn lease_is_over(name: &str, now: u64) -> bool {
        name.split('-').next().and_then(|digits| u64::from_str_radix(digits, 16).ok()).is_none_or(|end| end <= now)
    }

    /// The last CRL of a signer.
    pub(super) fn crl(&self, signer: &SignerId) -> RecordKey {
        self.key("crls", signer.as_str())
    }

    /// The last delta CRL of a signer.
    pub(super) fn delta_crl(&self, signer: &SignerId) -> RecordKey {
        self.key("crls", &format!("{}-delta", signer.as_str()))
    }

    /// The last CRL of the only issuer, while a mount had one.
    pub(super) fn only_crl(&self, issuer: &str) -> RecordKey {
        self.key("crls", issuer)
    }

    /// The changes that remove every record. Of certificates and revocations beyond a bound, the first are removed here and
    /// now, blocking, so that what is left fits one commit; should that commit then fail, disabling the mount again
    /// finishes it.
    pub(super) fn removal(&self, store: &Store) -> Result<Vec<Write>, Fault> {
        let mut writes = Vec::new();
        let mut leases = store.collections(&self.namespace, &self.collection(LEASES), REMOVED_AT_ONCE)?;
        leases.extend(store.collections(&self.namespace, &self.collection(LEASES_BY_TOKEN), REMOVED_AT_ONCE)?);
        let below = format!("{}/", self.prefix);
        let leases = leases.iter().filter_map(|collection| collection.strip_prefix(&below));
        for kind in KINDS.into_iter().chain(leases) {
            let collection = self.collection(kind);
            loop {
                let names = store.list(&self.namespace, &collection, None, REMOVED_AT_ONCE)?;
                let is_last = names.len() < REMOVED_AT_ONCE;
                let deletions =
                    names.into_iter().map(|name| Write::Delete { key: self.key(kind, &name) }).collect::<Vec<_>>();
                if is_last && writes.len() + deletions.len() <= REMOVED_AT_ONCE {
                    writes.extend(deletions);
                    break;
                }
                store.commit_now(deletions)?;
            }
        }
        Ok(writes)
    }

    fn key(&self, kind: &str, name: &str) -> RecordKey {
        RecordKey::new(&self.namespace, self.collection(kind), name)
    }
}
