//! Stores of the version before, when a mount had one issuer whose record held its key: made into what is read now, once,
//! before anything else reads them.
//!
//! The issuer's record is changed last: until then a start that was cut short begins anew.

use serde::Deserialize;

use super::algorithm::SignatureAlgorithm;
use super::ca_certificate::CaCertificate;
use super::issuer::{IssuerRecord, IssuerSettings};
use super::key::{self, Key};
use super::pem;
use super::records::Records;
use super::registry::{IssuersConfig, KeysConfig};
use super::revocation::Revocation;
use super::signing_key::KeySource;
use crate::model::{Fault, Mount};
use crate::store::{RecordKey, Store, Write};

/// Revocations changed in one commit.
const STEP: usize = 4096;

/// An issuer of format 1.
#[derive(Deserialize)]
struct OnlyIssuer {
    id: String,
    name: String,
    key_name: String,
    key_id: String,
    managed_key: String,
    algorithm: SignatureAlgorithm,
    certificate: String,
}

/// The record that said which issuer there is.
#[derive(Deserialize)]
struct OnlyDefault {
    id: String,
}

/// A revocation of format 1.
#[derive(Deserialize)]
struct OnlyTime {
    time: u64,
}

/// Upgrades the records of `mount`, if they are old. Blocks for the disk.
pub(super) fn run(mount: &Mount, keys: &KeySource, store: &Store, records: &Records) -> Result<(), Fault> {
    let Some(default) = store.get(&records.only_issuer())? else { return Ok(()) };
    let default: OnlyDefault = read(&records.only_issuer(), &default.value)?;
    let place = records.issuer(&default.id);
    let lost = || Fault::internal(format!("the record of issuer {} is gone", default.id));
    let old: OnlyIssuer = read(&place, &store.get(&place)?.ok_or_else(lost)?.value)?;
    let damaged = || Fault::internal(format!("the stored certificate of issuer {} is damaged: no PEM", old.id));
    let certificate = CaCertificate::parse(&pem::decode(&old.certificate, &[pem::CERTIFICATE]).ok_or_else(damaged)?)?;
    revocations(&old.id, &certificate, store, records)?;

    let mut key = Key::new(old.key_name, &old.managed_key, &certificate.public_key)?.record;
    key.id = old.key_id;
    let issuer = IssuerRecord {
        id: old.id.clone(),
        key_id: key.id.clone(),
        certificate: old.certificate,
        revoked: None,
        settings: IssuerSettings {
            name: old.name,
            revocation_signature_algorithm: Some(old.algorithm),
            ..IssuerSettings::default()
        },
    };
    let issuers = IssuersConfig { default: old.id.clone(), ..IssuersConfig::default() };
    let mut writes = vec![
        Write::put_record(records.key_entry(&key.id), &key)?,
        Write::put_record(place, &issuer)?,
        Write::put_record(records.issuers_config(), &issuers)?,
        Write::put_record(records.keys_config(), &KeysConfig { default: key.id.clone() })?,
        Write::Delete { key: records.only_issuer() },
    ];
    if let Some(crl) = store.get(&records.only_crl(&old.id))? {
        writes.push(Write::Put { key: records.crl(&certificate.signer), version: crl.version, value: crl.value });
        writes.push(Write::Delete { key: records.only_crl(&old.id) });
    }
    writes.extend(keys.note_use(mount, &old.managed_key, &key::user(&key.id)));
    writes.extend(keys.drop_use(mount, &old.managed_key, &format!("issuer {}", old.id)));
    store.commit_now(writes)?;
    tracing::info!(
        mount = %mount.path, namespace = %mount.namespace, issuer = old.id, key = key.id,
        "records of the version before were upgraded: the issuer and its key are apart now"
    );
    Ok(())
}

fn revocations(issuer: &str, certificate: &CaCertificate, store: &Store, records: &Records) -> Result<(), Fault> {
    let (namespace, collection) = (records.namespace(), records.collection("revoked"));
    let mut last: Option<String> = None;
    loop {
        let step = store.scan(namespace, &collection, last.as_deref(), STEP)?;
        let Some((name, _)) = step.last() else { return Ok(()) };
        last = Some(name.clone());
        let mut writes = Vec::new();
        for (name, record) in step.into_iter().filter(|(_, record)| record.version == 1) {
            let place = RecordKey::new(namespace, collection.clone(), name);
            let OnlyTime { time } = read(&place, &record.value)?;
            let (issuer, signer) = (issuer.to_owned(), certificate.signer.clone());
            let revocation = Revocation { time, issuer, signer, not_after: None };
            writes.push(Write::put_record(place, &revocation)?);
        }
        if !writes.is_empty() {
            store.commit_now(writes)?;
        }
    }
}

fn read<'v, T: Deserialize<'v>>(place: &RecordKey, value: &'v [u8]) -> Result<T, Fault> {
    serde_json::from_slice(value).map_err(|error| {
        Fault::internal(format!("{place} of the version before does not parse at column {}", error.column()))
    })
}
