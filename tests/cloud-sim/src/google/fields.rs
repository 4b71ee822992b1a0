//! The fields of requests and answers: JSON as protocol buffers map it.

use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD};
use base64::engine::{DecodePaddingMode, Engine as _, GeneralPurposeConfig};
use serde_json::{Map, Value, json};

use super::algorithm::{ALGORITHMS, Algorithm, Word};
use super::failure::Failure;

/// Both alphabets are accepted, with or without padding.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD_LENIENT: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_LENIENT: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// The body or the query of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Map<String, Value>);

/// Bytes that came, and whether their checksum came with them and was right.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) bytes: Vec<u8>,
    pub(super) verified: bool,
}

/// A field under its other name: `keyRingId` and `key_ring_id`.
fn snake(camel: &str) -> String {
    let mut name = String::with_capacity(camel.len() + 4);
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

impl Fields {
    /// Those of a body; an empty one has none.
    pub(super) fn of_body(body: &[u8]) -> Result<Fields, Failure> {
        if body.is_empty() {
            return Ok(Fields::default());
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Fields(fields)),
            Ok(_) => Err(Failure::invalid("Invalid JSON payload received. Expected an object.")),
            Err(error) => Err(Failure::invalid(format!("Invalid JSON payload received. {error}"))),
        }
    }

    /// Those of a query or a form.
    pub(super) fn of_form(form: &str) -> Fields {
        let decoded = |text: &str| {
            let text = text.replace('+', " ");
            percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
        };
        let pairs = form.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Fields(pairs.map(|(name, value)| (decoded(name), Value::String(decoded(value)))).collect())
    }

    /// A field that was given and is not null.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        let found = self.0.get(name).or_else(|| self.0.get(&snake(name)));
        found.filter(|value| !value.is_null())
    }

    /// The fields of a field.
    pub(super) fn inner(&self, name: &str) -> Result<Option<Fields>, Failure> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Fields(fields.clone()))),
            Some(_) => Err(wrong(name)),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Failure> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(name)),
        }
    }

    /// A flag of a query or a body.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Failure> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::String(text)) if text == "true" => Ok(true),
            Some(Value::String(text)) if text == "false" || text.is_empty() => Ok(false),
            Some(_) => Err(wrong(name)),
        }
    }

    /// A number, which may come as a string.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, Failure> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => number.as_i64().ok_or_else(|| wrong(name)).map(Some),
            Some(Value::String(text)) => text.parse().map_err(|_| wrong(name)).map(Some),
            Some(_) => Err(wrong(name)),
        }
    }

    /// Bytes; none where they are absent or empty, which is the same on this wire.
    pub(super) fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let bytes = STANDARD_LENIENT.decode(text).or_else(|_| URL_LENIENT.decode(text));
        let bytes =
            bytes.map_err(|_| Failure::invalid(format!("Invalid value at '{name}' (TYPE_BYTES), not base64.")))?;
        Ok((!bytes.is_empty()).then_some(bytes))
    }

    /// Refuses bytes whose checksum came with them and is wrong. Answers whether it came.
    pub(super) fn check(&self, bytes: &[u8], name: &str) -> Result<bool, Failure> {
        let field = format!("{name}Crc32c");
        let Some(expected) = self.number(&field)? else { return Ok(false) };
        if expected != i64::from(crc32c::crc32c(bytes)) {
            let message =
                format!("The checksum in field {} did not match the data in field {}.", snake(&field), snake(name));
            return Err(Failure::invalid(message));
        }
        Ok(true)
    }

    /// Bytes with their checksum, if that came; empty where they are absent.
    pub(super) fn checked(&self, name: &str) -> Result<Checked, Failure> {
        let bytes = self.bytes(name)?.unwrap_or_default();
        let verified = self.check(&bytes, name)?;
        Ok(Checked { bytes, verified })
    }

    /// A word by its name or number; unspecified is as good as absent.
    pub(super) fn word<W: Word>(&self, name: &str) -> Result<Option<W>, Failure> {
        let of = |number: i64| W::WORDS.iter().find(|(_, known, _)| *known == number).map(|(word, ..)| *word);
        match self.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) if number.as_i64() == Some(0) => Ok(None),
            Some(Value::Number(number)) => number.as_i64().and_then(of).ok_or_else(|| wrong(name)).map(Some),
            Some(Value::String(text)) if text.ends_with("UNSPECIFIED") => Ok(None),
            Some(Value::String(text)) => {
                let word = W::WORDS.iter().find(|(.., known)| known == text).map(|(word, ..)| *word);
                word.or_else(|| text.parse().ok().and_then(of)).ok_or_else(|| wrong(name)).map(Some)
            }
            Some(_) => Err(wrong(name)),
        }
    }

    /// An algorithm by its name or number.
    pub(super) fn algorithm(&self, name: &str) -> Result<Option<&'static Algorithm>, Failure> {
        let found = match self.get(name) {
            None => return Ok(None),
            Some(Value::Number(number)) if number.as_i64() == Some(0) => return Ok(None),
            Some(Value::Number(number)) => {
                let number = number.as_i64();
                ALGORITHMS.iter().find(|algorithm| Some(algorithm.number) == number)
            }
            Some(Value::String(text)) if text.ends_with("UNSPECIFIED") => return Ok(None),
            Some(Value::String(text)) => ALGORITHMS.iter().find(|algorithm| algorithm.name == text),
            Some(_) => None,
        };
        found.ok_or_else(|| wrong(name)).map(Some)
    }
}

fn wrong(name: &str) -> Failure {
    Failure::invalid(format!("Invalid value at '{name}'."))
}

/// An answer being made.
#[derive(Debug)]
pub(super) struct Answer {
    fields: Map<String, Value>,
    /// Whether words are sent as numbers.
    numbers: bool,
    /// Whether checksums are to be wrong.
    spoilt: bool,
}

impl Answer {
    pub(super) fn new(numbers: bool, spoilt: bool) -> Answer {
        Answer { fields: Map::new(), numbers, spoilt }
    }

    /// An answer of the same manner for a part of this one.
    pub(super) fn part(&self) -> Answer {
        Answer::new(self.numbers, self.spoilt)
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    pub(super) fn set_part(&mut self, name: &str, part: Answer) {
        self.fields.insert(name.to_owned(), part.value());
    }

    pub(super) fn set_word<W: Word>(&mut self, name: &str, word: W) {
        let (number, text) = word.words();
        self.set(name, if self.numbers { json!(number) } else { json!(text) });
    }

    pub(super) fn set_algorithm(&mut self, name: &str, algorithm: &Algorithm) {
        self.set(name, if self.numbers { json!(algorithm.number) } else { json!(algorithm.name) });
    }

    /// Bytes and their checksum.
    pub(super) fn set_bytes(&mut self, name: &str, bytes: &[u8]) {
        self.set(name, STANDARD.encode(bytes));
        self.set_checksum(&format!("{name}Crc32c"), bytes);
    }

    pub(super) fn set_checksum(&mut self, name: &str, bytes: &[u8]) {
        let checksum = crc32c::crc32c(bytes) ^ u32::from(self.spoilt);
        self.set(name, checksum.to_string());
    }

    /// Says that a checksum of the request was right. Where it is not said, it was not looked at.
    pub(super) fn set_verified(&mut self, name: &str, verified: bool) {
        if verified && !self.spoilt {
            self.set(name, true);
        }
    }

    pub(super) fn value(self) -> Value {
        Value::Object(self.fields)
    }
}

#[cfg(test)]
mod tests {
    use super::super::algorithm::{Protection, Purpose};
    use super::*;

    fn body(text: &str) -> Fields {
        Fields::of_body(text.as_bytes()).unwrap()
    }

    #[test]
    fn fields_are_read_as_protocol_buffers_map_them() {
        let fields = body(r#"{"purpose": "MAC", "protectionLevel": 2, "data": "_-8", "data_crc32c": "1", "x": null}"#);
        assert_eq!(fields.word("purpose").unwrap(), Some(Purpose::Mac));
        assert_eq!(fields.word("protectionLevel").unwrap(), Some(Protection::Hsm));
        assert_eq!(fields.bytes("data").unwrap(), Some(vec![0xff, 0xef]));
        assert!(fields.get("x").is_none());
        assert!(fields.word::<Purpose>("protectionLevel").is_err());
        assert_eq!(body(r#"{"algorithm": 12}"#).algorithm("algorithm").unwrap().unwrap().name, "EC_SIGN_P256_SHA256");
        assert!(body(r#"{"algorithm": "EC_SIGN_P257"}"#).algorithm("algorithm").is_err());
        let query = Fields::of_form("keyRingId=a%2Bb+c&skipInitialVersionCreation=true");
        assert_eq!(query.text("keyRingId").unwrap(), Some("a+b c"));
        assert!(query.flag("skipInitialVersionCreation").unwrap());
    }

    #[test]
    fn a_wrong_checksum_is_refused_and_a_right_one_is_confirmed() {
        let crc = crc32c::crc32c(b"abc");
        let right = body(&format!(r#"{{"data": "YWJj", "dataCrc32c": "{crc}"}}"#)).checked("data").unwrap();
        assert!(right.verified && right.bytes == b"abc");
        assert!(!body(r#"{"data": "YWJj"}"#).checked("data").unwrap().verified);
        assert!(body(r#"{"data": "YWJj", "dataCrc32c": "5"}"#).checked("data").is_err());
    }
}
