//! Vault's text forms: `vault:v1:` and base64, and Go's words on base64 that is none.

use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD, URL_SAFE_NO_PAD};
use base64::{DecodeError, Engine as _};
use bytes::Bytes;

use crate::model::{Fault, Marshaling};

/// What begins every value.
const PREFIX: &str = "vault:v";

/// Padding may be missing or there: clients differ.
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The text of a signature.
pub(super) fn signature(version: u32, signature: &[u8], marshaling: Marshaling) -> String {
    let mut text = format!("{PREFIX}{version}:");
    match marshaling {
        Marshaling::Asn1 => STANDARD.encode_string(signature, &mut text),
        Marshaling::Jws => URL_SAFE_NO_PAD.encode_string(signature, &mut text),
    }
    text
}

/// The version a signature's text names, and the signature.
pub(super) fn parse_signature(text: &str, marshaling: Marshaling) -> Result<(u32, Bytes), Fault> {
    let rest = text.strip_prefix(PREFIX).ok_or_else(|| Fault::invalid("invalid signature: no prefix"))?;
    let (version, value) =
        rest.split_once(':').ok_or_else(|| Fault::invalid("invalid signature: wrong number of fields"))?;
    let version =
        version.parse().map_err(|_| Fault::invalid("invalid signature: version number could not be decoded"))?;
    let decoded = match marshaling {
        Marshaling::Asn1 => STANDARD.decode(value),
        Marshaling::Jws => URL_SAFE.decode(value),
    };
    let decoded = decoded.map_err(|_| Fault::invalid("invalid base64 signature value"))?;
    Ok((version, decoded.into()))
}

/// The bytes of an input.
pub(super) fn input(text: &str) -> Result<Bytes, Fault> {
    STANDARD.decode(text).map(Bytes::from).map_err(|error| {
        let at = match error {
            DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol { offset: at, .. } => at,
            DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => text.len(),
        };
        Fault::invalid(format!("unable to decode input as base64: illegal base64 data at input byte {at}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_signature_is_read_as_it_was_written() {
        for marshaling in [Marshaling::Asn1, Marshaling::Jws] {
            let text = signature(3, &[0xfb, 0xff, 1], marshaling);
            assert_eq!(parse_signature(&text, marshaling), Ok((3, Bytes::from_static(&[0xfb, 0xff, 1]))));
        }
        assert_eq!(signature(1, &[0xfb, 0xff], Marshaling::Asn1), "vault:v1:+/8=");
        assert_eq!(signature(1, &[0xfb, 0xff], Marshaling::Jws), "vault:v1:-_8");
    }

    #[test]
    fn what_is_wrong_with_a_signature_is_said_in_vaults_words() {
        for (text, reason) in [
            ("", "invalid signature: no prefix"),
            ("v1:AA==", "invalid signature: no prefix"),
            ("vault:v1", "invalid signature: wrong number of fields"),
            ("vault:vx:AA==", "invalid signature: version number could not be decoded"),
            ("vault:v-1:AA==", "invalid signature: version number could not be decoded"),
            ("vault:v1:AA", "invalid base64 signature value"),
        ] {
            assert_eq!(parse_signature(text, Marshaling::Asn1), Err(Fault::invalid(reason)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_value_or_an_error(text in "(vault:v)?[0-9]{0,12}:?[ -~]{0,40}") {
            let _ = parse_signature(&text, Marshaling::Asn1);
            let _ = parse_signature(&text, Marshaling::Jws);
            let _ = input(&text);
        }
    }
}
