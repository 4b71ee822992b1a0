//! Vault's text forms: `vault:v1:` and base64, and Go's words on base64 that is none.

use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD, URL_SAFE_NO_PAD};
use base64::{DecodeError, Engine as _};
use bytes::Bytes;

use crate::model::{Fault, Marshaling, SecretBytes};

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
    let (version, value) = split(text, "signature", "signature")?;
    let decoded = match marshaling {
        Marshaling::Asn1 => STANDARD.decode(value),
        Marshaling::Jws => URL_SAFE.decode(value),
    };
    let decoded = decoded.map_err(|_| Fault::invalid("invalid base64 signature value"))?;
    Ok((version, decoded.into()))
}

/// What is before a value's version, the version, and the value: of a `signature`, `ciphertext` or `HMAC`.
fn split<'t>(text: &'t str, value: &str, no_prefix: &str) -> Result<(u32, &'t str), Fault> {
    let rest = text.strip_prefix(PREFIX).ok_or_else(|| Fault::invalid(format!("invalid {no_prefix}: no prefix")))?;
    let (version, encoded) =
        rest.split_once(':').ok_or_else(|| Fault::invalid(format!("invalid {value}: wrong number of fields")))?;
    let version =
        version.parse().map_err(|_| Fault::invalid(format!("invalid {value}: version number could not be decoded")))?;
    Ok((version, encoded))
}

/// The text of a ciphertext or an HMAC.
pub(super) fn sealed(version: u32, value: &[u8]) -> String {
    signature(version, value, Marshaling::Asn1)
}

/// The version a ciphertext's text names, and the ciphertext. Version 0 is the first.
pub(super) fn parse_ciphertext(text: &str) -> Result<(u32, Bytes), Fault> {
    let (version, encoded) = split(text, "ciphertext", "ciphertext")?;
    let decoded = STANDARD.decode(encoded);
    let decoded = decoded.map_err(|_| Fault::invalid("invalid ciphertext: could not decode base64"))?;
    Ok((version.max(1), decoded.into()))
}

/// The version an HMAC's text names, and the HMAC.
pub(super) fn parse_hmac(text: &str) -> Result<(u32, Bytes), Fault> {
    let (version, encoded) = split(text, "HMAC", "HMAC to verify")?;
    let decoded = STANDARD.decode(encoded).map_err(|error| {
        Fault::invalid(format!("unable to decode verification HMAC as base64: {}", illegal(encoded, error)))
    })?;
    Ok((version, decoded.into()))
}

/// The bytes of an input.
pub(super) fn input(text: &str) -> Result<Bytes, Fault> {
    STANDARD
        .decode(text)
        .map(Bytes::from)
        .map_err(|error| Fault::invalid(format!("unable to decode input as base64: {}", illegal(text, error))))
}

/// The bytes of an input that is nobody else's to see.
pub(super) fn secret_input(text: &str) -> Result<SecretBytes, Fault> {
    STANDARD
        .decode(text)
        .map(SecretBytes::new)
        .map_err(|error| Fault::invalid(format!("unable to decode input as base64: {}", illegal(text, error))))
}

/// The bytes of a plaintext.
pub(super) fn plaintext(text: &str) -> Result<SecretBytes, Fault> {
    STANDARD.decode(text).map(SecretBytes::new).map_err(|error| Fault::invalid(illegal(text, error)))
}

/// The bytes of a field that goes with a plaintext or ciphertext.
pub(super) fn field(name: &str, text: &str) -> Result<Bytes, Fault> {
    let failed = |_| Fault::invalid(format!("failed to base64-decode {name}"));
    STANDARD.decode(text).map(Bytes::from).map_err(failed)
}

/// Go's words on base64 that is none.
fn illegal(text: &str, error: DecodeError) -> String {
    let at = match error {
        DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol { offset: at, .. } => at,
        DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => text.len(),
    };
    format!("illegal base64 data at input byte {at}")
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
    fn what_is_wrong_with_a_ciphertext_or_an_hmac_is_said_in_vaults_words() {
        for (text, reason) in [
            ("AA==", "invalid ciphertext: no prefix"),
            ("vault:v1", "invalid ciphertext: wrong number of fields"),
            ("vault:vx:AA==", "invalid ciphertext: version number could not be decoded"),
            ("vault:v1:?", "invalid ciphertext: could not decode base64"),
        ] {
            assert_eq!(parse_ciphertext(text), Err(Fault::invalid(reason)), "{text}");
        }
        for (text, reason) in [
            ("AA==", "invalid HMAC to verify: no prefix"),
            ("vault:v1", "invalid HMAC: wrong number of fields"),
            ("vault:vx:AA==", "invalid HMAC: version number could not be decoded"),
            ("vault:v1:?", "unable to decode verification HMAC as base64: illegal base64 data at input byte 0"),
        ] {
            assert_eq!(parse_hmac(text), Err(Fault::invalid(reason)), "{text}");
        }
        assert_eq!(parse_ciphertext("vault:v0:AA=="), Ok((1, Bytes::from_static(&[0]))));
        assert_eq!(plaintext("A").unwrap_err(), Fault::invalid("illegal base64 data at input byte 1"));
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
            let _ = parse_hmac(&text);
            let _ = plaintext(&text);
        }

        #[test]
        fn a_ciphertext_is_read_as_it_was_written(version in 1..u32::MAX, value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let text = sealed(version, &value);
            prop_assert_eq!(parse_ciphertext(&text), Ok((version, Bytes::from(value.clone()))));
            prop_assert_eq!(parse_hmac(&text), Ok((version, Bytes::from(value))));
        }

        #[test]
        fn any_text_is_a_ciphertext_or_an_error(text in "(vault:v)?[0-9+-]{0,12}:{0,2}[ -~]{0,40}") {
            if let Ok((version, value)) = parse_ciphertext(&text) {
                // What is taken is written so again, but for a version of 0 and leading zeros.
                prop_assert!(version > 0);
                let again = sealed(version, &value);
                prop_assert_eq!(parse_ciphertext(&again), Ok((version, value)));
            }
        }
    }
}
