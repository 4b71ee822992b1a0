//! `keys/:name/set-certificate`: the certificate of a version's public key, and those above it. Kept and shown for clients; here
//! nothing depends on it.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::{Decode, Encode};
use x509_cert::Certificate;
use x509_cert::ext::pkix::BasicConstraints;

use super::Transit;
use super::key::{KeyRecord, TransitKey};
use crate::crypto;
use crate::engine::Call;
use crate::model::{Data, Fault, Fields, PublicKey, Response};
use crate::store::Write;

/// Certificates of one chain.
const CHAIN_MAX: usize = 16;
/// Bytes of PEM of one chain, and of all of one key: every record is kept in memory.
const CHAIN_BYTES: usize = 64 * 1024;
const KEY_BYTES: usize = 1024 * 1024;
/// The second is an old one.
const LABELS: [&str; 2] = ["CERTIFICATE", "X509 CERTIFICATE"];

/// A certificate as it was given.
struct Given {
    der: Vec<u8>,
    parsed: Certificate,
}

impl Transit {
    /// `POST keys/:name/set-certificate`.
    pub(super) async fn set_certificate(
        self: Arc<Self>,
        call: Call,
        name: String,
        data: Data,
    ) -> Result<Response, Fault> {
        let mut fields = Fields::below(&data, &["name"]);
        let asked = fields.integer("version")?;
        let pem = fields.filled("certificate_chain")?.unwrap_or_default();
        let warnings = fields.warnings();
        let chain = parse(&pem)?;
        self.change(move |transit| {
            let absent = || Fault::invalid(format!("key with provided name '{name}' not found"));
            let mut table = HashMap::clone(&transit.table.load());
            let key = table.get(&name).ok_or_else(absent)?;
            let (record, number) = certified(key, asked, chain)?;
            transit.store.commit_now(vec![Write::put_record(transit.records.key(&name), &record)?])?;
            tracing::info!(
                namespace = %call.mount.namespace, mount = call.mount.path, key = name, version = number,
                uid = call.caller.peer.uid, "certificate of a transit key set"
            );
            let mut shown = Data::new();
            shown.insert("name".into(), name.as_str().into());
            shown.insert("type".into(), record.type_name().into());
            // So it is called in Vault's answer, and in no other place.
            shown.insert("certificate-chain".into(), pem.into());
            table.insert(name, Arc::new(TransitKey::open(record)?));
            transit.table.store(Arc::new(table));
            Ok(Response::with_warnings(shown, warnings))
        })
        .await
    }
}

/// The key's record with this chain, and the version that has it.
fn certified(key: &TransitKey, asked: Option<i64>, chain: Vec<Given>) -> Result<(KeyRecord, u32), Fault> {
    let mut record = key.record.clone();
    if record.own.as_ref().is_some_and(|own| !own.supports().1) {
        return Err(Fault::invalid(format!("key type '{}' does not support signing", record.type_name())));
    }
    let number = match asked {
        None | Some(0) => key.latest(),
        Some(number) => u32::try_from(number).unwrap_or(0),
    };
    let version = key.version(number).ok_or_else(|| refused("the key has no such version"))?;
    check(&chain, version.public_key()?, record.type_name())?;
    let place = usize::try_from(number - record.oldest()).unwrap_or(usize::MAX);
    let version = record.versions.get_mut(place).ok_or_else(|| Fault::internal("a version has no record"))?;
    version.certificate_chain = chain.iter().map(|one| STANDARD.encode(&one.der)).collect();
    let bytes = |record: &KeyRecord| -> usize {
        record.versions.iter().flat_map(|version| &version.certificate_chain).map(String::len).sum()
    };
    if bytes(&record) > KEY_BYTES {
        let what = format!("the certificates of all versions of a key: at most {KEY_BYTES} bytes are kept; trim it");
        return Err(Fault::TooLarge { what });
    }
    Ok((record, number))
}

fn refused(why: &str) -> Fault {
    Fault::invalid(format!("failed to persist certificate chain: {why}"))
}

fn odd(error: der::Error) -> Fault {
    Fault::internal(format!("a certificate cannot be written as it was read: {error}"))
}

/// The certificates in PEM, of any line width.
fn parse(pem: &str) -> Result<Vec<Given>, Fault> {
    if pem.len() > CHAIN_BYTES {
        return Err(Fault::TooLarge { what: format!("certificate_chain: at most {CHAIN_BYTES} bytes are taken") });
    }
    let undecoded = || Fault::invalid("could not decode a PEM block in the certificate chain");
    let mut chain = Vec::new();
    let mut left = pem.trim();
    while !left.is_empty() {
        if chain.len() == CHAIN_MAX {
            return Err(Fault::invalid(format!("certificate_chain: at most {CHAIN_MAX} certificates are taken")));
        }
        let (_, rest) = left.split_once("-----BEGIN ").ok_or_else(undecoded)?;
        let (label, rest) = rest.split_once("-----").ok_or_else(undecoded)?;
        let (body, rest) = rest.split_once("-----END ").ok_or_else(undecoded)?;
        let (end, rest) = rest.split_once("-----").ok_or_else(undecoded)?;
        if end != label {
            return Err(undecoded());
        }
        if !LABELS.contains(&label) {
            return Err(Fault::invalid(format!("certificate_chain: a PEM block {label:?} is no certificate")));
        }
        let body: Vec<u8> = body.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let der = STANDARD.decode(body).map_err(|_| undecoded())?;
        let wrong = |error| Fault::invalid(format!("failed to parse certificate in the certificate chain: {error}"));
        chain.push(Given { parsed: Certificate::from_der(&der).map_err(wrong)?, der });
        left = rest.trim();
    }
    Ok(chain)
}

/// Refuses a chain that does not begin with a leaf for this public key, or has another leaf in it.
fn check(chain: &[Given], public: &PublicKey, kind: &str) -> Result<(), Fault> {
    let (leaf, above) = chain
        .split_first()
        .ok_or_else(|| refused("expected at least one certificate in the parsed certificate chain"))?;
    if is_ca(leaf)? == Some(true) {
        return Err(refused("certificate in the first position is not a leaf certificate"));
    }
    for certificate in above {
        if is_ca(certificate)? == Some(false) {
            return Err(refused("provided certificate chain contains more than one leaf certificate"));
        }
    }
    let spki = leaf.parsed.tbs_certificate().subject_public_key_info().to_der().map_err(odd)?;
    let no_match = "could not validate key match between leaf certificate key and key version in transit";
    let certified = crypto::parse_spki(&spki).map_err(|fault| refused(&format!("{no_match}: {fault}")))?;
    if certified.kind != public.kind {
        return Err(refused(&format!(
            "{no_match}: provided leaf certificate public key algorithm '{}' does not match the transit key type '{kind}'",
            certified.kind
        )));
    }
    // Not the whole SubjectPublicKeyInfo: libraries differ in how they write its parameters.
    if crypto::subject_public_key(&certified)? != crypto::subject_public_key(public)? {
        return Err(refused("leaf certificate public key does not match the key version selected"));
    }
    Ok(())
}

/// What a certificate says of itself; many old ones say nothing.
fn is_ca(given: &Given) -> Result<Option<bool>, Fault> {
    let constraints = given.parsed.tbs_certificate().get_extension::<BasicConstraints>();
    let wrong = |error| refused(&format!("the basic constraints of a certificate are malformed: {error}"));
    Ok(constraints.map_err(wrong)?.map(|(_, constraints)| constraints.ca))
}

/// A chain as it is stored, in PEM.
pub(super) fn chain_text(chain: &[String]) -> Result<String, Fault> {
    let damaged = |_| Fault::internal("a Transit key's record holds a certificate that cannot be read");
    let pem = |one: &String| Ok(crypto::pem("CERTIFICATE", &STANDARD.decode(one).map_err(damaged)?));
    let pems: Result<Vec<String>, Fault> = chain.iter().map(pem).collect();
    Ok(pems?.concat().trim_end().to_owned())
}
