//! What requests to this engine may say, by path and beside it, for the description of the API. A test holds these lists to
//! what the handlers read.

use crate::model::Field;

/// The parts that the patterns of `paths` leave open.
pub(super) const PARTS: &[Field] = &[
    Field::text("name", "The name of a key."),
    Field::text("urlalgorithm", "A hash."),
    Field::text("urlbytes", "How many bytes."),
    Field::text("source", "Where random bytes come from."),
    Field::text("plaintext", "Whether the new key is also answered in the clear.").one_of(&["plaintext", "wrapped"]),
    Field::text("type", "The kind of key to export."),
    Field::text("version", "A version of a key, or `latest`."),
];
