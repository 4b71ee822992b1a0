//! The Transit engine: signatures, encryption and MACs by named keys, each version of which is a managed key.
//!
//! What requests need is in a snapshot: the hot path reads no store. HTTP's paths and the hot operations meet in
//! `sign.rs`, `verify.rs`, `cipher.rs` and `hmac.rs`. This room must not know: any wire, who may call, the PKI engine, or any key but as a handle.

mod auto_rotate;
mod batch;
mod certificate;
mod cipher;
mod config;
mod csr;
mod datakey;
mod decrypt;
mod encrypt;
mod export;
mod fields;
mod hash;
mod hmac;
mod key;
mod keys;
mod making;
mod options;
mod own_type;
mod paths;
mod random;
mod records;
mod rewrap;
mod rotate;
mod sign;
mod strangers;
mod text;
mod verify;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;

use super::batch_room::BatchRoom;
use super::{Answer, Call, Engine, Services, table};
use crate::managed_keys::ManagedKeys;
use crate::model::{
    DecryptRequest, EncryptRequest, EngineType, Fault, MacRequest, Mount, Outcome, Request, Response, SecretBytes,
    SignRequest, Terms, UnderWay, VerifyRequest,
};
use crate::store::{Changes, Store, Write};
use auto_rotate::AutoRotations;
use cipher::Encrypted;
use hmac::Made;
use key::TransitKey;
use making::Making;
use records::Records;
use sign::Signed;
pub use strangers::{ReadText, read_batch, read_ciphertext, read_hmac, read_signature, write_text};

/// The keys of a mount, by their names.
type Table = HashMap<String, Arc<TransitKey>, RandomState>;

/// One mount of the Transit engine.
pub struct Transit {
    store: Store,
    keys: ManagedKeys,
    records: Records,
    table: ArcSwap<Table>,
    changes: Changes,
    /// Keys that are being made in the mount's token.
    making: Making,
    /// Keys that are rotated by the clock.
    auto_rotations: AutoRotations,
    /// How long a token may take to make one: its turn, and the making itself.
    making_span: Duration,
    /// The most items of one batch.
    batch_items: usize,
    /// Items of one batch that are under way at once.
    batch_room: BatchRoom,
    /// Signatures that were begun at once.
    under_way: UnderWay,
}

/// What can be asked of an engine of this type.
pub fn describe(name: &'static str) -> EngineType {
    EngineType { name, endpoints: table::endpoints(paths::TABLE), parts: fields::PARTS }
}

/// Makes the engine of a mount, as its records in the store have it.
pub fn new(mount: &Mount, services: &Services) -> Result<Arc<dyn Engine>, Fault> {
    Ok(Transit::load(mount, services)?)
}

impl Transit {
    fn load(mount: &Mount, services: &Services) -> Result<Arc<Transit>, Fault> {
        let records = Records::new(mount);
        let limits = &services.limits;
        Ok(Arc::new(Transit {
            table: ArcSwap::from_pointee(records.load(&services.store)?),
            store: services.store.clone(),
            keys: services.keys.clone(),
            records,
            changes: Changes::default(),
            making: Making::default(),
            auto_rotations: AutoRotations::default(),
            making_span: limits.call_generate + limits.deadline_max,
            batch_items: limits.batch_items,
            batch_room: services.batches.of(&mount.namespace),
            under_way: UnderWay::default(),
        }))
    }

    /// Runs a change of the table of keys: after those before it, to its end even if its asker leaves.
    async fn change<T: Send + 'static>(
        self: Arc<Self>,
        change: impl FnOnce(&Transit) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let (changes, namespace) = (self.changes.clone(), self.records.namespace().clone());
        changes.run(&namespace, move || change(&self)).await
    }

    /// The key of this name, as it is now.
    fn key(&self, name: &str) -> Option<Arc<TransitKey>> {
        self.table.load().get(name).cloned()
    }
}

impl Engine for Transit {
    fn handle(self: Arc<Self>, call: Call, request: Request) -> Answer {
        table::handle(paths::TABLE, self, call, request)
    }

    /// As in Vault, only `encrypt/:name` makes a difference.
    fn exists(&self, path: &str) -> Option<bool> {
        path.strip_prefix("encrypt/").map(|name| self.key(name).is_some())
    }

    fn sign(self: Arc<Self>, call: Call, request: SignRequest) -> Answer {
        Box::pin(async move {
            let Signed { signature, key_version } = self.sign_typed(&call, request).await?;
            Ok(Outcome::Signature { signature, key_version })
        })
    }

    fn sign_at_once(&self, mount: &Mount, terms: Terms, request: SignRequest) -> Result<Answer, SignRequest> {
        if !options::takes_no_time(&request) {
            return Err(request);
        }
        let begun = self.under_way.begin();
        Ok(match self.begin_signing(mount, terms, request) {
            Ok(signing) => Box::pin(async move {
                let _begun = begun;
                let Signed { signature, key_version } = signing.made().await?;
                Ok(Outcome::Signature { signature, key_version })
            }),
            Err(fault) => Box::pin(std::future::ready(Err(fault))),
        })
    }

    fn is_under_way(&self) -> bool {
        self.under_way.is_any()
    }

    fn verify(self: Arc<Self>, call: Call, request: VerifyRequest) -> Answer {
        Box::pin(async move { Ok(Outcome::Verdict { valid: self.verify_typed(&call, request).await? }) })
    }

    fn encrypt(self: Arc<Self>, call: Call, request: EncryptRequest) -> Answer {
        Box::pin(async move {
            let Encrypted { ciphertext, key_version } = self.encrypt_typed(&call, request).await?;
            Ok(Outcome::Ciphertext { ciphertext, key_version })
        })
    }

    fn decrypt(self: Arc<Self>, call: Call, request: DecryptRequest) -> Answer {
        Box::pin(async move {
            let plaintext = self.decrypt_typed(&call, request).await?;
            Ok(Outcome::Plaintext(SecretBytes::lent(plaintext)))
        })
    }

    fn mac(self: Arc<Self>, call: Call, request: MacRequest) -> Answer {
        Box::pin(async move {
            let Made { mac, key_version } = self.mac_typed(&call, request).await?;
            Ok(Outcome::Mac { mac, key_version })
        })
    }

    fn maintain(self: Arc<Self>, call: Call) -> Answer {
        Box::pin(async move {
            self.rotate_due(&call);
            Ok(Response::Empty.into())
        })
    }

    fn close(&self, _mount: &Mount) {
        self.making.close();
    }

    fn removal(&self, mount: &Mount) -> Result<Vec<Write>, Fault> {
        self.close(mount);
        let mut writes =
            vec![Write::Delete { key: self.records.keys_config() }, Write::Delete { key: self.records.cache_config() }];
        for (name, key) in self.table.load().iter() {
            writes.extend(self.key_removal(mount, name, key));
        }
        Ok(writes)
    }
}
