//! From an issuer to its root: which certificates of a mount stand above which.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::ca_certificate::CaCertificate;
use crate::model::Fault;

/// The longest chain that is looked for.
const CHAIN_MAX: usize = 16;

/// Who signed whom among the certificates of a mount.
pub(super) struct Chains<'a> {
    certificates: &'a [Arc<CaCertificate>],
    /// For each certificate, those that signed it, apart from itself.
    parents: Vec<Vec<usize>>,
}

impl<'a> Chains<'a> {
    /// Looks at every certificate once. Costs one verification for each pair that fits by name.
    pub(super) fn new(certificates: &'a [Arc<CaCertificate>]) -> Result<Chains<'a>, Fault> {
        let mut by_subject: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (index, certificate) in certificates.iter().enumerate() {
            by_subject.entry(&certificate.x509.subject).or_default().push(index);
        }
        let mut parents = Vec::with_capacity(certificates.len());
        for (index, child) in certificates.iter().enumerate() {
            let mut found = Vec::new();
            // A root is the end of its chain, whoever signed its key as well.
            let candidates = if child.is_root() { None } else { by_subject.get(&child.x509.issuer[..]) };
            for candidate in candidates.into_iter().flatten().copied().filter(|candidate| *candidate != index) {
                if let Some(parent) = certificates.get(candidate)
                    && parent.signed(&child.x509)?
                {
                    found.push(candidate);
                }
            }
            parents.push(found);
        }
        Ok(Chains { certificates, parents })
    }

    /// The certificate at `index` and those above it, nearest first: the shortest way to a root, or else the longest way
    /// there is.
    pub(super) fn of(&self, index: usize) -> Vec<Arc<CaCertificate>> {
        let mut ways = VecDeque::from([vec![index]]);
        let mut longest = vec![index];
        while let Some(way) = ways.pop_front() {
            let Some(end) = way.last().copied() else { continue };
            if way.len() > longest.len() {
                longest.clone_from(&way);
            }
            if self.certificates.get(end).is_some_and(|certificate| certificate.is_root()) {
                longest = way;
                break;
            }
            // Cross-signed CAs may sign each other: no certificate stands twice in a chain.
            let above = self.parents.get(end).into_iter().flatten().filter(|parent| !way.contains(parent));
            for parent in above.filter(|_| way.len() < CHAIN_MAX) {
                ways.push_back(way.iter().copied().chain([*parent]).collect());
            }
        }
        longest.into_iter().filter_map(|index| self.certificates.get(index).cloned()).collect()
    }
}
