//! How a secret of a managed key is stored.

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::model::Secret;

/// In hexadecimal; wiped when dropped. The barrier encrypts it with the record that it is in.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct SecretRecord(#[serde(with = "hex::serde")] Vec<u8>);

impl Drop for SecretRecord {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl SecretRecord {
    pub(super) fn of(secret: &Secret) -> SecretRecord {
        SecretRecord(secret.expose().to_vec())
    }

    /// The secret; `None` where it is empty.
    pub(super) fn open(&self) -> Option<Secret> {
        (!self.0.is_empty()).then(|| Secret::new(self.0.clone()))
    }
}
