//! `hash(/:algorithm)`: a digest of what the client sends. No key has to do with it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::options::hashed;
use super::{Transit, hmac, text};
use crate::model::{Data, Fault, Fields, Hash, Response};

/// How bytes are written in an answer.
#[derive(Clone, Copy)]
pub(super) enum Format {
    Hex,
    Base64,
}

impl Format {
    /// The format a request asks for; `default` where it does not.
    pub(super) fn parse(fields: &mut Fields<'_>, default: Format) -> Result<Format, Fault> {
        match fields.filled("format")?.as_deref() {
            None => Ok(default),
            Some("hex") => Ok(Format::Hex),
            Some("base64") => Ok(Format::Base64),
            Some(other) => {
                let known = "must be \"hex\" or \"base64\"";
                Err(Fault::invalid(format!("unsupported encoding format {other:?}; {known}")))
            }
        }
    }

    /// Appends bytes. In base64, all but the last must be a multiple of three.
    pub(super) fn append(self, bytes: &[u8], text: &mut String) {
        match self {
            Format::Hex => text.push_str(&hex::encode(bytes)),
            Format::Base64 => STANDARD.encode_string(bytes, text),
        }
    }
}

impl Transit {
    /// `POST hash(/:algorithm)`.
    pub(super) async fn hash(self: Arc<Self>, algorithm: String, data: Data) -> Result<Response, Fault> {
        let mut fields = Fields::below(&data, &["urlalgorithm"]);
        let input = fields.text("input")?.ok_or_else(|| Fault::invalid("input missing"))?;
        let input = text::input(&input)?;
        let format = Format::parse(&mut fields, Format::Hex)?;
        let hash = hmac::algorithm(&mut fields, &algorithm)?.unwrap_or(Hash::Sha2_256);
        if hash == Hash::Sha1 {
            return Err(Fault::invalid("unsupported algorithm \"sha1\""));
        }
        let digest = hashed(hash, &input).await?;
        let mut sum = String::new();
        format.append(digest.as_bytes(), &mut sum);
        let mut data = Data::new();
        data.insert("sum".into(), sum.into());
        Ok(Response::with_warnings(data, fields.warnings()))
    }
}
