//! What this engine reads of strangers' texts, to be had without a mount: for those who try it with texts of any kind.

use bytes::Bytes;

use super::batch::Batch;
use super::cipher::Extras;
use super::text;
use crate::model::{Data, Fault, Fields, Marshaling};

/// What a text such as `vault:v1:…` says: the version of the key, and what it made.
pub type ReadText = Result<(u32, Bytes), Fault>;

/// What a text says where a ciphertext is expected, as in `decrypt/:name`.
pub fn read_ciphertext(text: &str) -> ReadText {
    text::parse_ciphertext(text)
}

/// What a text says where a signature is expected, as in `verify/:name`.
pub fn read_signature(text: &str, marshaling: Marshaling) -> ReadText {
    text::parse_signature(text, marshaling)
}

/// What a text says where an HMAC is expected, as in `verify/:name`.
pub fn read_hmac(text: &str) -> ReadText {
    text::parse_hmac(text)
}

/// The text that says this: of a signature, and with [`Marshaling::Asn1`] of a ciphertext or an HMAC.
pub fn write_text(version: u32, made: &[u8], marshaling: Marshaling) -> String {
    text::signature(version, made, marshaling)
}

/// What each item of a request's `batch_input`, of no more than `most`, says where ciphertexts are expected.
pub fn read_batch(data: &Data, most: usize) -> Result<Vec<ReadText>, Fault> {
    let Some(batch) = Batch::parse(&mut Fields::new(data), most)? else { return Ok(Vec::new()) };
    batch.require("ciphertext", "ciphertext to decrypt")?;
    batch.check_contexts()?;
    let read = |item: usize| {
        Extras::parse(&mut Fields::new(batch.item(item)?))?;
        text::parse_ciphertext(batch.text(item, "ciphertext")?.unwrap_or_default())
    };
    Ok((0..batch.items().len()).map(read).collect())
}
