//! `issuer/:ref/resign-crls` and `issuer/:ref/sign-revocation-list`: CRLs of what a client says. They are signed and answered;
//! none is stored, served, or counted among the mount's own, and their numbers are the client's to choose.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_CRL_NUMBER, ID_CE_DELTA_CRL_INDICATOR};
use serde_json::Value;

use super::asn1::{encode, extension, sequence};
use super::crl::{Head, off_worker};
use super::issuer::Issuer;
use super::revoked::Entries;
use super::serial::Serial;
use super::validity::{self, encode_time};
use super::{Pki, foreign_crl, pem};
use crate::engine::Call;
use crate::model::{Data, Fault, Fields, Response, parse_duration};

/// How long a CRL is good for that does not say: 72 hours, in seconds.
const NEXT_UPDATE: u64 = 72 * 3600;
/// The longest it may be: a hundred years, in seconds.
const NEXT_UPDATE_MAX: u64 = 100 * 366 * 86400;
/// The most CRLs put together.
const CRLS_MAX: usize = 100;
/// The most extensions of a CRL, or of one of its entries.
const EXTENSIONS_MAX: usize = 32;
/// The most warnings on serial numbers that come twice.
const WARNINGS_MAX: usize = 20;
/// Texts longer than this are read on another thread.
const BYTES_INLINE: usize = 16 << 10;
/// More entries than these are.
const ENTRIES_INLINE: usize = 200;
/// Extensions that are not the client's to write.
const RESERVED: [(ObjectIdentifier, &str); 3] = [
    (ID_CE_AUTHORITY_KEY_IDENTIFIER, "authority key"),
    (ID_CE_CRL_NUMBER, "crl number"),
    (ID_CE_DELTA_CRL_INDICATOR, "delta crl"),
];

/// What both say of the CRL they ask for.
struct Wish {
    number: u64,
    /// Of the CRL that it is a delta to.
    base: Option<u64>,
    /// In seconds.
    lifetime: u64,
    is_der: bool,
}

impl Wish {
    fn parse(fields: &mut Fields<'_>) -> Result<Wish, Fault> {
        let is_der = match fields.filled("format")?.map(|format| format.to_lowercase()).as_deref() {
            None | Some("pem") => false,
            Some("der") => true,
            Some(other) => return Err(Fault::invalid(format!("unknown format value of {other}"))),
        };
        let lifetime = match fields.filled("next_update")? {
            None => NEXT_UPDATE,
            Some(text) => next_update(&text)?,
        };
        let number = u64::try_from(fields.integer("crl_number")?.unwrap_or(0))
            .map_err(|_| Fault::invalid("crl_number parameter must be 0 or greater"))?;
        let base = match fields.integer("delta_crl_base_number")? {
            None | Some(-1) => None,
            Some(base) => Some(
                u64::try_from(base)
                    .map_err(|_| Fault::invalid("delta_crl_base_number parameter must be -1 or greater"))?,
            ),
        };
        Ok(Wish { number, base, lifetime, is_der })
    }

    /// The head of the CRL, with these extensions beside its own.
    fn head(&self, mut extensions: Vec<u8>) -> Result<Head, Fault> {
        if let Some(base) = self.base {
            extensions.extend(extension(ID_CE_DELTA_CRL_INDICATOR, true, &encode(&base)?)?);
        }
        let now = validity::now();
        Ok(Head { number: self.number, this_update: now, next_update: now + self.lifetime, extensions })
    }
}

fn next_update(text: &str) -> Result<u64, Fault> {
    let too_short = || Fault::invalid("next_update parameter must be greater than 0");
    if text.trim().starts_with('-') {
        return Err(too_short());
    }
    match parse_duration(text).map(|span| span.as_secs()) {
        Some(0) => Err(too_short()),
        Some(seconds @ 1..=NEXT_UPDATE_MAX) => Ok(seconds),
        _ => Err(Fault::invalid(format!(
            "invalid value for next_update: {text:?} is not a time such as \"72h\", at most 100 years"
        ))),
    }
}

impl Pki {
    /// `POST issuer/:ref/resign-crls`: the entries of several CRLs of one issuer in one.
    pub(super) async fn resign_crls(&self, call: &Call, reference: &str, data: &Data) -> Result<Response, Fault> {
        let mut fields = Fields::below(data, &["issuer_ref"]);
        let wish = Wish::parse(&mut fields)?;
        let texts = fields.list("crls")?.unwrap_or_default();
        if texts.is_empty() || texts.len() > CRLS_MAX {
            return Err(Fault::invalid(format!("crls: expected 1 to {CRLS_MAX} CRLs in PEM, not {}", texts.len())));
        }
        let issuer = Arc::clone(self.authority.load().issuer(reference)?);
        let (signer, entries_max) = (Arc::clone(&issuer), self.crl_config.load().entries_max());
        let is_large = texts.iter().map(String::len).sum::<usize>() > BYTES_INLINE;
        let (entries, told) = off_worker(is_large, move || combined(&texts, &signer, entries_max)).await?;
        let mut warnings = fields.warnings();
        warnings.extend(told);
        self.answer_crl(call, &issuer, &wish, Vec::new(), entries, warnings).await
    }

    /// `POST issuer/:ref/sign-revocation-list`: a CRL of what the request lists.
    pub(super) async fn sign_revocation_list(
        &self,
        call: &Call,
        reference: &str,
        mut data: Data,
    ) -> Result<Response, Fault> {
        let (entries, more) = (taken(&mut data, "revoked_certs")?, taken(&mut data, "extensions")?);
        let mut fields = Fields::below(&data, &["issuer_ref"]);
        let wish = Wish::parse(&mut fields)?;
        check_count(entries.len(), self.crl_config.load().entries_max())?;
        let extensions = extensions(&more)?;
        let issuer = Arc::clone(self.authority.load().issuer(reference)?);
        let entries = off_worker(entries.len() > ENTRIES_INLINE, move || listed(&entries)).await?;
        self.answer_crl(call, &issuer, &wish, extensions, entries, fields.warnings()).await
    }

    async fn answer_crl(
        &self,
        call: &Call,
        issuer: &Arc<Issuer>,
        wish: &Wish,
        extensions: Vec<u8>,
        entries: Entries,
        warnings: Vec<String>,
    ) -> Result<Response, Fault> {
        let count = entries.count;
        let crl = self.sign_crl(call, issuer, wish.head(extensions)?, entries).await?;
        tracing::info!(
            number = wish.number, base = wish.base, entries = count, issuer = %issuer.id(), mount = %call.mount.path,
            namespace = %call.mount.namespace, uid = call.caller.peer.uid, pid = call.caller.peer.pid,
            "CRL signed as a client wrote it"
        );
        let text = match wish.is_der {
            true => STANDARD.encode(&crl.der),
            false => pem::encode(pem::CRL, &crl.der)?,
        };
        let mut data = Data::new();
        data.insert("crl".into(), text.into());
        Ok(Response::with_warnings(data, warnings))
    }
}

fn check_count(count: usize, most: usize) -> Result<(), Fault> {
    if count > most {
        return Err(Fault::invalid(format!(
            "the CRL would have {count} entries, and max_crl_entries allows {most}: raise that with config/crl"
        )));
    }
    Ok(())
}

/// Encoded entries, as a CRL lists them.
fn encoded(entries: Vec<u8>, count: usize) -> Entries {
    Entries { chunks: vec![entries.into()], count, changes: 0, since: 0 }
}

/// What these CRLs of `issuer` list together, each serial number once, with its earliest time; and what is to be told of that.
fn combined(texts: &[String], issuer: &Issuer, entries_max: usize) -> Result<(Entries, Vec<String>), Fault> {
    let mut times: BTreeMap<Serial, u64> = BTreeMap::new();
    let mut differing = BTreeSet::new();
    for (index, text) in texts.iter().enumerate() {
        let one_block =
            || Fault::invalid(format!("failed decoding crl {index}: invalid crl; should be one PEM block only"));
        let der = pem::decode(text, &[pem::CRL]).ok_or_else(one_block)?;
        for (serial, time) in foreign_crl::read(&der, &issuer.certificate.public_key, index)? {
            let first = times.entry(serial).or_insert(time);
            if *first != time {
                differing.insert(serial);
                *first = time.min(*first);
            }
        }
        check_count(times.len(), entries_max)?;
    }
    let mut bytes = Vec::new();
    for (serial, time) in &times {
        bytes.extend(sequence(&[&serial.der(), &encode_time(*time)?])?);
    }
    let told = |serial: &Serial| {
        format!("Duplicate serial {serial} with different revocation times detected, using oldest revocation time")
    };
    let mut warnings: Vec<String> = differing.iter().take(WARNINGS_MAX).map(told).collect();
    if differing.len() > WARNINGS_MAX {
        warnings.push(format!("so have {} other serial numbers", differing.len() - WARNINGS_MAX));
    }
    Ok((encoded(bytes, times.len()), warnings))
}

/// Takes a list out of a request.
fn taken(data: &mut Data, name: &'static str) -> Result<Vec<Value>, Fault> {
    match data.remove(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) if text.is_empty() => Ok(Vec::new()),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(Fault::invalid(format!("field {name:?}: expected a list of objects"))),
    }
}

/// The entries that a request lists.
fn listed(entries: &[Value]) -> Result<Entries, Fault> {
    let mut seen: BTreeMap<Serial, usize> = BTreeMap::new();
    let mut bytes = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let failed =
            |what: &str, why: String| Fault::invalid(format!("failed parsing {what} from entry {index}: {why}"));
        let Some(entry) = entry.as_object() else {
            return Err(Fault::invalid(format!("revoked_certs: entry {index} is not a map")));
        };
        let mut entry = Fields::inside("revoked_certs", entry);
        let serial = serial(entry.value("serial_number")).map_err(|why| failed("serial_number", why))?;
        if let Some(first) = seen.insert(serial, index) {
            return Err(Fault::invalid(format!(
                "duplicate serial number: {serial}, original entry {first} and {index}"
            )));
        }
        let time = time(entry.value("revocation_time")).map_err(|why| failed("revocation_time", why))?;
        let own = match entry.value("extensions") {
            None => Vec::new(),
            Some(Value::String(text)) if text.is_empty() => Vec::new(),
            Some(Value::Array(items)) => extensions(items).map_err(|fault| failed("extensions", fault.to_string()))?,
            Some(_) => return Err(failed("extensions", "'extensions' field did not contain a slice".into())),
        };
        // RFC 5280, 5.1: an empty list of extensions is left out.
        let own = if own.is_empty() { own } else { sequence(&[&own])? };
        bytes.extend(sequence(&[&serial.der(), &encode_time(time)?, &own])?);
    }
    Ok(encoded(bytes, entries.len()))
}

fn serial(value: Option<&Value>) -> Result<Serial, String> {
    let Some(value) = value else { return Err("missing 'serial_number' field".into()) };
    let text = value.as_str().ok_or("'serial_number' field value was not a string")?;
    let text: String = text.chars().filter(|letter| !matches!(letter, '.' | ' ')).collect();
    Serial::parse(&text).ok_or_else(|| "'serial_number' is not a positive number of at most 20 bytes in hex".into())
}

/// A time: Unix seconds, or RFC 3339.
fn time(value: Option<&Value>) -> Result<u64, String> {
    let known = match value {
        None => return Err("missing 'revocation_time' field".into()),
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.parse().ok().or_else(|| validity::parse_not_after(text).ok()),
        Some(_) => None,
    };
    known.filter(|time| *time <= validity::LAST).ok_or_else(|| "it is neither Unix seconds nor RFC 3339".into())
}

/// Extensions that a request lists, encoded.
fn extensions(items: &[Value]) -> Result<Vec<u8>, Fault> {
    if items.len() > EXTENSIONS_MAX {
        return Err(Fault::invalid(format!("there are more than {EXTENSIONS_MAX} extensions")));
    }
    let (mut seen, mut bytes) = (BTreeSet::new(), Vec::new());
    for (index, item) in items.iter().enumerate() {
        let failed = |why: String| Fault::invalid(format!("failed parsing extension entry {index}: {why}"));
        let Some(item) = item.as_object() else {
            return Err(Fault::invalid(format!("extension entry {index} not a map")));
        };
        let mut item = Fields::inside("extensions", item);
        let id = match item.value("id") {
            None => return Err(failed("missing id field".into())),
            Some(id) => id.as_str().and_then(|text| ObjectIdentifier::new(text).ok()),
        };
        let id = id.ok_or_else(|| failed("'id' is not an object identifier such as 2.5.29.20".into()))?;
        if let Some((_, name)) = RESERVED.iter().find(|(reserved, _)| *reserved == id) {
            return Err(failed(format!("{name} object identifier ({id}) is reserved")));
        }
        let critical = item.boolean("critical").map_err(|fault| failed(fault.to_string()))?;
        let value = match item.value("value") {
            None => return Err(failed("missing 'value' field".into())),
            Some(value) => value.as_str().and_then(|text| STANDARD.decode(text).ok()),
        };
        let value = value.ok_or_else(|| failed("'value' is not base64".into()))?;
        if !seen.insert(id) {
            return Err(Fault::invalid(format!("duplicate extension id: {id}")));
        }
        bytes.extend(extension(id, critical.unwrap_or(false), &value)?);
    }
    Ok(bytes)
}
