//! Where a store is kept, and by which seal: what is left of it while it is sealed, and opens it again.

use std::path::Path;
use std::sync::Arc;

use super::embedded::Embedded;
use super::memory::{Kept, Memory};
use super::physical::Physical;
use super::records::Store;
use super::seal::RootKeyWrap;
use crate::config;
use crate::model::Fault;
use crate::pace::Pace;

/// A store that may be open or not. There should be one of these for a store, and one [`Store`] of it at a time.
pub struct Place {
    storage: config::Storage,
    seal: Arc<dyn RootKeyWrap>,
    /// The one before it, which may have wrapped the root key.
    former: Option<Arc<dyn RootKeyWrap>>,
    /// That of the writing thread.
    pace: Pace,
    /// The entries themselves, where no file has them.
    kept: Kept,
}

/// Why a store did not open. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unopened {
    /// It is damaged, open elsewhere, or of another seal.
    Storage(Fault),
    /// The seal does not give the root key.
    Seal(Fault),
}

impl Unopened {
    /// What an operator is told.
    pub fn into_fault(self) -> Fault {
        match self {
            Unopened::Storage(fault) | Unopened::Seal(fault) => fault,
        }
    }
}

impl Place {
    /// What the configuration names. Nothing is opened yet.
    pub fn new(storage: &config::Storage, seal: Box<dyn RootKeyWrap>) -> Place {
        let (former, pace, kept) = (None, Pace::default(), Kept::default());
        Place { storage: storage.clone(), seal: Arc::from(seal), former, pace, kept }
    }

    /// Has the thread that writes go by this pace.
    #[must_use]
    pub fn at(self, pace: Pace) -> Place {
        Place { pace, ..self }
    }

    /// Has the seal take over from another one, where that has wrapped the root key.
    #[must_use]
    pub fn formerly(self, former: Option<Box<dyn RootKeyWrap>>) -> Place {
        Place { former: former.map(Arc::from), ..self }
    }

    /// Opens the store and, if it is initialised, its root key. Blocks for the disk, and for as long as the seal takes.
    pub fn open(&self) -> Result<Store, Unopened> {
        let physical: Box<dyn Physical> = match &self.storage {
            config::Storage::Redb { path } => {
                Box::new(Embedded::open(path, self.pace.clone()).map_err(Unopened::Storage)?)
            }
            config::Storage::Memory => Box::new(Memory::open(&self.kept)),
        };
        Store::over(physical, Arc::clone(&self.seal), self.former.clone())
    }

    /// The store's file, if it has one.
    pub(super) fn path(&self) -> Option<&Path> {
        match &self.storage {
            config::Storage::Redb { path } => Some(path),
            config::Storage::Memory => None,
        }
    }

    /// The seals that may have wrapped the root key, the present one first.
    pub(super) fn seals(&self) -> Vec<&dyn RootKeyWrap> {
        [Some(&self.seal), self.former.as_ref()].into_iter().flatten().map(AsRef::as_ref).collect()
    }

    /// Whether a seal that does not give the root key may do so later by itself: then it is worth to be asked again.
    pub fn may_open_later(&self) -> bool {
        self.seal.may_return() || self.former.as_ref().is_some_and(|former| former.may_return())
    }

    /// The kind of seal, as [`Store::seal_kind`] has it.
    pub fn seal_kind(&self) -> &'static str {
        self.seal.kind()
    }

    /// The kind of storage, as [`Store::storage_kind`] has it.
    pub fn storage_kind(&self) -> &'static str {
        match self.storage {
            config::Storage::Redb { .. } => super::embedded::KIND,
            config::Storage::Memory => super::memory::KIND,
        }
    }
}
