//! `sys/managed-keys`: registrations, and the operator's own test of one.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use bytes::Bytes;

use super::{Call, System};
use crate::crypto;
use crate::model::{Class, Data, Fault, Fields, Hash, KeyOperation, KeyUsage, Response, SaltLength, SignInput, Terms};

/// Bytes signed by a test.
const TEST_BYTES: usize = 64;

impl System {
    pub(super) fn list_keys(&self, call: &Call, kind: &str) -> Result<Response, Fault> {
        self.keys.require_type(&call.namespace, kind)?;
        let names = self.keys.names(&call.namespace, kind);
        if names.is_empty() { Err(Fault::absent()) } else { Ok(Response::keys(names)) }
    }

    pub(super) fn read_key(&self, call: &Call, kind: &str, name: &str) -> Result<Response, Fault> {
        self.keys.require_type(&call.namespace, kind)?;
        self.keys.show(&call.namespace, kind, name).map(Response::data)
    }

    pub(super) async fn write_key(&self, call: &Call, kind: &str, name: &str, data: &Data) -> Result<Response, Fault> {
        self.keys.require_type(&call.namespace, kind)?;
        let warnings = self.keys.write(&call.namespace, kind, name, data).await?;
        tracing::info!(namespace = %call.namespace, key = name, uid = call.caller.peer.uid, "managed key written");
        Ok(if warnings.is_empty() { Response::Empty } else { Response::with_warnings(Data::new(), warnings) })
    }

    pub(super) async fn delete_key(&self, call: &Call, kind: &str, name: &str) -> Result<Response, Fault> {
        self.keys.require_type(&call.namespace, kind)?;
        let (namespaces, namespace) = (self.namespaces.clone(), call.namespace.clone());
        self.keys.delete(&call.namespace, kind, name, move || namespaces.mounts(&namespace)).await?;
        tracing::info!(namespace = %call.namespace, key = name, uid = call.caller.peer.uid, "managed key deleted");
        Ok(Response::Empty)
    }

    /// Signs random data and verifies it. Generates the key where that is allowed and it is missing.
    pub(super) async fn test_sign(&self, call: &Call, kind: &str, name: &str, data: &Data) -> Result<Response, Fault> {
        self.keys.require_type(&call.namespace, kind)?;
        let mut fields = Fields::new(data);
        let use_pss = fields.boolean("use_pss")?;
        let hash = match fields.filled("hash_algorithm")? {
            None => None,
            Some(name) => {
                let known = Hash::from_name(&name).filter(|hash| *hash != Hash::None);
                Some(known.ok_or_else(|| Fault::invalid(format!("unsupported hash algorithm {name:?}")))?)
            }
        };
        let handle = self.keys.find(&call.namespace, kind, name)?;
        let hash = hash.unwrap_or_else(|| handle.lent().default_hash());
        // Both before the key is touched: one that cannot sign must not be generated for it.
        handle.require(KeyUsage::Sign)?;
        let scheme = handle.tested_scheme(use_pss, u16::try_from(hash.digest_bytes()).unwrap_or(0))?;
        let (handle, public) = handle.ready(call.deadline).await?;
        let mut message = vec![0; TEST_BYTES];
        SystemRandom::new().fill(&mut message).map_err(|_| Fault::internal("the system's random generator fails"))?;
        let (hash, input) = if scheme.takes_message() {
            (Hash::None, SignInput::Message(Bytes::from(message)))
        } else {
            (hash, SignInput::Digest(crypto::digest(hash, &message)?))
        };
        let operation = KeyOperation::Sign { scheme, hash, input: input.clone() };
        let terms = Terms { class: Class::Interactive, deadline: call.deadline };
        let signature = handle.submit(operation, terms)?.await?;
        if crypto::verify(&public, scheme, SaltLength::Hash, hash, &input, &signature)? {
            let warnings = fields.warnings();
            let quiet = warnings.is_empty();
            return Ok(if quiet { Response::Empty } else { Response::with_warnings(Data::new(), warnings) });
        }
        // Of its own salt it is the key's all the same.
        if crypto::verify(&public, scheme, SaltLength::Auto, hash, &input, &signature)? {
            let what = format!("managed key {name:?} makes PSS signatures whose salt is not as long as the hash");
            return Err(Fault::DeviceError { what });
        }
        let reason = "a test signature does not verify under its recorded public key".into();
        Err(Fault::KeyMismatch { key: name.to_owned(), reason })
    }
}
