//! Encryption with symmetric keys, in front of an emulator that makes and keeps them and has no cryptography of its own for them:
//! AES-256-GCM, with the encryption context as what is authenticated beside.
//!
//! A key's value follows from its id, so that copies of a multi-Region key are one key in all processes that stand in front of one
//! emulator. A ciphertext says which key made it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use serde_json::{Value, json};

use super::call::{Call, short};
use super::error::{Error, good};
use super::upstream::Upstream;
use crate::keys::{self, Gcm, Hash, Key};
use crate::server::{Orders, Request, Response};

const PLAINTEXT_MAX: usize = 4096;
const CIPHERTEXT_MAX: usize = 6144;
/// How a ciphertext begins; behind it the length of the key's id in one byte.
const MARK: &[u8; 4] = b"\x01\x02\x02\x00";
const NONCE: usize = 12;
const TAG: usize = 16;
/// What is not done here, lest what it makes be of no use to the rest.
const REFUSED: [&str; 5] = [
    "ReEncrypt",
    "GenerateDataKey",
    "GenerateDataKeyWithoutPlaintext",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
];

/// The answer to a call that encrypts or decrypts with a symmetric key; `None` to every other.
pub(super) async fn answer(
    call: &Call,
    request: &Request,
    orders: Orders,
    upstream: &Upstream,
) -> Option<Result<Response, Error>> {
    if REFUSED.contains(&call.operation.as_str()) {
        let what = format!("{} is not done here", call.operation);
        return Some(Err(Error::bad("UnsupportedOperationException", what)));
    }
    if !matches!(call.operation.as_str(), "Encrypt" | "Decrypt") {
        return None;
    }
    // Whoever decrypts may leave the key out: the ciphertext says it.
    let sealed = || parse(&bytes(call, "CiphertextBlob").unwrap_or_default()).map(|sealed| sealed.key);
    let named = call.text("KeyId").map(str::to_owned);
    let key = match named.clone().or_else(sealed) {
        Some(key) => key,
        None => return Some(Err(invalid_ciphertext())),
    };
    match described(request, &key, upstream).await {
        Err(error) => Some(Err(error)),
        // By an error the service does not say that there is no key that a ciphertext names.
        Ok(Err(_)) if named.is_none() => Some(Err(invalid_ciphertext())),
        Ok(Err(response)) => Some(Ok(response)),
        Ok(Ok(key)) if key["KeySpec"] != "SYMMETRIC_DEFAULT" => None,
        Ok(Ok(key)) => Some(perform(call, &key, orders)),
    }
}

/// What the emulator says of a key, or its error.
async fn described(request: &Request, key: &str, upstream: &Upstream) -> Result<Result<Value, Response>, Error> {
    let body = Bytes::from(json!({ "KeyId": key }).to_string());
    let mut asked = request.clone().map(|_| body.clone());
    asked.headers_mut().insert("x-amz-target", HeaderValue::from_static("TrentService.DescribeKey"));
    asked.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    let answer = upstream.pass(&asked).await.map_err(|error| Error::new(502, "KMSInternalException", error))?;
    if answer.status() != 200 {
        return Ok(Err(answer));
    }
    let read = serde_json::from_slice::<Value>(answer.body());
    let unreadable = |_| Error::new(502, "KMSInternalException", "an answer that cannot be read");
    Ok(Ok(read.map_err(unreadable)?["KeyMetadata"].take()))
}

fn perform(call: &Call, key: &Value, orders: Orders) -> Result<Response, Error> {
    let arn = key["Arn"].as_str().unwrap_or_default();
    match key["KeyState"].as_str() {
        Some("Enabled") => {}
        Some("Disabled") => return Err(Error::disabled(arn)),
        _ => return Err(Error::pending_deletion(arn)),
    }
    if call.text("EncryptionAlgorithm").is_some_and(|name| name != "SYMMETRIC_DEFAULT") {
        return Err(Error::bad("InvalidKeyUsageException", "The key has no such algorithm."));
    }
    let (context, id) = (context(call)?, short(arn));
    let value = Hash::Sha256.digest(format!("the value of a symmetric key of an emulated cloud: {id}").as_bytes());
    let own = Key::of_aes(value)?;
    let aes = if orders.other_key { own.other()? } else { &own };
    let mut answer = json!({"KeyId": arn, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"});
    if call.operation == "Encrypt" {
        let plaintext = bytes(call, "Plaintext").unwrap_or_default();
        if !(1..=PLAINTEXT_MAX).contains(&plaintext.len()) {
            let what = "1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length \
                        less than or equal to 4096, and greater than or equal to 1";
            return Err(Error::validation(what));
        }
        let nonce = keys::random(NONCE)?;
        let sealed = aes.gcm_encrypt(&nonce, &context, &plaintext)?;
        let length = u8::try_from(id.len()).map_err(|_| Error::validation("an id of more than 255 bytes"))?;
        let made = [&MARK[..], &[length], id.as_bytes(), &nonce, &sealed.tag, &sealed.ciphertext].concat();
        answer["CiphertextBlob"] = STANDARD.encode(made).into();
        return Ok(good(&answer));
    }
    let sealed = bytes(call, "CiphertextBlob").unwrap_or_default();
    if !(1..=CIPHERTEXT_MAX).contains(&sealed.len()) {
        return Err(Error::validation(
            "1 validation error detected: Value at 'ciphertextBlob' has no length from 1 to 6144",
        ));
    }
    let sealed = parse(&sealed).ok_or_else(invalid_ciphertext)?;
    if sealed.key != id {
        let what = "The key ID in the request does not identify a CMK that can perform this operation.";
        return Err(Error::bad("IncorrectKeyException", what));
    }
    let opened = aes.gcm_decrypt(&sealed.nonce, &context, &sealed.gcm).map_err(|_| invalid_ciphertext())?;
    answer["Plaintext"] = STANDARD.encode(opened).into();
    Ok(good(&answer))
}

struct Sealed {
    key: String,
    nonce: Vec<u8>,
    gcm: Gcm,
}

fn parse(bytes: &[u8]) -> Option<Sealed> {
    let (length, rest) = bytes.strip_prefix(MARK)?.split_first()?;
    let (id, rest) = rest.split_at_checked(usize::from(*length))?;
    let (nonce, rest) = rest.split_at_checked(NONCE)?;
    let (tag, ciphertext) = rest.split_at_checked(TAG)?;
    let gcm = Gcm { ciphertext: ciphertext.to_vec(), tag: tag.to_vec() };
    Some(Sealed { key: String::from_utf8(id.to_vec()).ok()?, nonce: nonce.to_vec(), gcm })
}

fn bytes(call: &Call, name: &str) -> Option<Vec<u8>> {
    STANDARD.decode(call.text(name)?).ok()
}

/// The encryption context, in one order.
fn context(call: &Call) -> Result<Vec<u8>, Error> {
    let context = &call.fields["EncryptionContext"];
    let pairs: BTreeMap<String, String> = match context {
        Value::Null => BTreeMap::new(),
        context => serde_json::from_value(context.clone())
            .map_err(|_| Error::validation("EncryptionContext is no map of texts"))?,
    };
    serde_json::to_vec(&pairs).map_err(|_| Error::validation("EncryptionContext cannot be read"))
}

/// The service does not say what is wrong.
fn invalid_ciphertext() -> Error {
    Error::bad("InvalidCiphertextException", "")
}
