//! What requests to this engine may say, by path and beside it, for the description of the API. A test holds these lists to
//! what the handlers read.

use crate::model::Field;

/// The parts that the patterns of `paths` leave open.
pub(super) const PARTS: &[Field] = &[
    Field::text("role", "The name of a role."),
    Field::text("name", "The name of a role."),
    Field::text("issuer_ref", "An issuer's id or name, or `default`."),
    Field::text("key_ref", "A key's id or name, or `default`."),
    Field::text("serial", "A certificate's serial number, in hexadecimal pairs with colons or hyphens."),
    Field::text("req", "An OCSP request in base64."),
    Field::text("exported", "Where the key comes from.").one_of(&["kms", "internal", "existing", "exported"]),
];
