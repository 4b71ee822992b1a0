//! From an issuer to its root: which certificates of a mount stand above which.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::ca_certificate::CaCertificate;
use crate::model::Fault;

/// The most certificates of one name and key identifier that are tried as a certificate's issuer.
const CANDIDATES_MAX: usize = 32;

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
            let named = candidates.into_iter().flatten().copied().filter(|candidate| {
                let other = certificates.get(*candidate).filter(|_| *candidate != index);
                other.is_some_and(|other| other.is_named_in(&child.x509))
            });
            for candidate in named.take(CANDIDATES_MAX) {
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

    /// The certificate at `index` and those above it, nearest first: the shortest way to a root, or else the longest of the
    /// shortest ways there are.
    pub(super) fn of(&self, index: usize) -> Vec<Arc<CaCertificate>> {
        // Each certificate is come to once, from below: cross-signed CAs may sign each other.
        let mut from: HashMap<usize, usize> = HashMap::from([(index, index)]);
        let mut to_visit = VecDeque::from([index]);
        let mut end = index;
        while let Some(next) = to_visit.pop_front() {
            end = next;
            if self.certificates.get(next).is_some_and(|certificate| certificate.is_root()) {
                break;
            }
            for parent in self.parents.get(next).into_iter().flatten() {
                from.entry(*parent).or_insert_with(|| {
                    to_visit.push_back(*parent);
                    next
                });
            }
        }
        let mut way = vec![end];
        while let Some(below) = way.last().and_then(|last| from.get(last)).filter(|below| Some(*below) != way.last()) {
            way.push(*below);
        }
        way.into_iter().rev().filter_map(|index| self.certificates.get(index).cloned()).collect()
    }
}
