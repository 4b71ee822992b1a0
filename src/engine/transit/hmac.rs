//! `hmac/:name`, and `verify/:name` with an HMAC: by the key's token, which alone has the secret key. HTTP's paths and the hot
//! operation meet here.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;

use super::Transit;
use super::batch::{self, Batch};
use super::key::{TransitKey, Version};
use super::text;
use crate::engine::Call;
use crate::managed_keys::KeyRef;
use crate::model::{Data, Fault, Fields, Hash, KeyOperation, MacRequest, Response, SecretBytes};

/// A MAC made.
pub(super) struct Made {
    pub(super) mac: Bytes,
    pub(super) key_version: u32,
}

/// The hash that a request names; `None` takes the key's own.
pub(super) fn algorithm(fields: &mut Fields<'_>, in_path: &str) -> Result<Option<Hash>, Fault> {
    let named = fields.filled("algorithm")?;
    let named = Some(in_path.to_owned()).filter(|name| !name.is_empty()).or(named);
    let known = |name: &String| Hash::from_name(name).filter(|hash| *hash != Hash::None);
    named.map(|name| known(&name).ok_or_else(|| Fault::invalid(format!("unsupported algorithm {name:?}")))).transpose()
}

impl Transit {
    /// The hot operation.
    pub(super) async fn mac_typed(&self, call: &Call, request: MacRequest) -> Result<Made, Fault> {
        let key = self.encryption_key(&request.key)?;
        let version = version_to_mac(&key, request.key_version.into())?;
        self.mac_one(call, version, request.hash, request.input).await
    }

    /// `POST hmac/:name(/:algorithm)`.
    pub(super) async fn hmac_by_path(
        self: Arc<Self>,
        mut call: Call,
        name: String,
        hash: String,
        data: Data,
    ) -> Result<Response, Fault> {
        let key = self.encryption_key(&name)?;
        let mut fields = Fields::below(&data, &["name", "urlalgorithm"]);
        let version = fields.integer("key_version")?.unwrap_or(0);
        let hash = algorithm(&mut fields, &hash)?;
        let batch = Batch::parse(&mut fields, self.batch_items)?;
        let input = fields.text("input")?;
        let warnings = fields.warnings();
        let missing = || Fault::invalid("missing input for HMAC");
        // What is wrong with the version is wrong with every item.
        let version = version_to_mac(&key, version)?;
        let Some(batch) = batch else {
            let input = text::secret_input(&input.ok_or_else(missing)?)?;
            let made = self.mac_one(&call, version, hash, input).await?;
            return Ok(Response::with_warnings(made.show(), warnings));
        };
        call.class = batch::class(call.class);
        let (this, call, batch) = (&self, &call, &batch);
        let results = batch
            .run(&self.batch_room, call.deadline, |item| async move {
                let input = text::secret_input(batch.text(item, "input")?.ok_or_else(missing)?)?;
                this.mac_one(call, version, hash, input).await
            })
            .await;
        let show = |result: Result<Made, Fault>| match result {
            Ok(made) => made.show(),
            Err(fault) => batch::error(&fault),
        };
        Ok(batch.response(results.into_iter().map(show), warnings))
    }

    /// Makes the MAC of one message.
    pub(super) async fn mac_one(
        &self,
        call: &Call,
        version: Version<'_>,
        hash: Option<Hash>,
        message: SecretBytes,
    ) -> Result<Made, Fault> {
        let handle = self.keys.resolve(&call.mount, KeyRef::Uuid(version.managed_key))?;
        let hash = handle.mac_hash(hash)?;
        let mac = handle.submit(KeyOperation::Mac { hash, message }, call.terms())?.await?;
        Ok(Made { mac, key_version: version.number })
    }

    /// Whether the text of an HMAC is that of this input.
    pub(super) async fn verify_hmac(
        &self,
        call: &Call,
        key: &TransitKey,
        hash: Option<Hash>,
        input: &str,
        hmac: &str,
    ) -> Result<bool, Fault> {
        let input = text::secret_input(input)?;
        let (number, hmac) = text::parse_hmac(hmac)?;
        require_hmacs(key)?;
        if number > key.latest() {
            return Err(Fault::invalid("invalid HMAC: version is too new"));
        }
        if number < key.record.min_decryption_version {
            return Err(Fault::invalid("cannot verify HMAC: version is too old (disallowed by policy)"));
        }
        let version = key.version(number).ok_or_else(|| no_version(key))?;
        let made = self.mac_one(call, version, hash, input).await?;
        Ok(verify_slices_are_equal(&made.mac, &hmac).is_ok())
    }
}

/// The version to make a MAC with: 0 asks for the latest.
pub(super) fn version_to_mac(key: &TransitKey, asked: i64) -> Result<Version<'_>, Fault> {
    require_hmacs(key)?;
    let latest = key.latest();
    let number = match asked {
        0 => latest,
        below if below < 0 => return Err(Fault::invalid("key version does not exist (cannot be negative)")),
        asked => u32::try_from(asked).unwrap_or(u32::MAX),
    };
    if number < key.record.min_encryption_version {
        return Err(Fault::invalid("cannot generate HMAC: version is too old (disallowed by policy)"));
    }
    key.version(number).ok_or_else(|| no_version(key))
}

/// Refuses a type that makes none here; of a managed key, its mechanism says that.
fn require_hmacs(key: &TransitKey) -> Result<(), Fault> {
    match key.record.own.as_ref().filter(|own| !own.makes_hmacs()) {
        None => Ok(()),
        Some(own) => Err(Fault::NotSupported {
            what: format!(
                "HMACs with a key of type {}, beside which no HMAC key is kept here: create one of type hmac for them",
                own.name()
            ),
        }),
    }
}

fn no_version(key: &TransitKey) -> Fault {
    Fault::invalid(format!("key version does not exist; latest key version is {}", key.latest()))
}

impl Made {
    fn show(&self) -> Data {
        let mut data = Data::new();
        data.insert("hmac".into(), text::sealed(self.key_version, &self.mac).into());
        data
    }
}
