//! PEM (RFC 7468), read leniently (any line width, text around it) and written strictly.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::pem::LineEnding;
use zeroize::Zeroizing;

use crate::model::Fault;

/// The label of certificates.
pub(super) const CERTIFICATE: &str = "CERTIFICATE";
/// The label of CRLs.
pub(super) const CRL: &str = "X509 CRL";
/// The labels of private keys in clear: PKCS#8, PKCS#1, SEC 1.
pub(super) const PRIVATE_KEYS: [&str; 3] = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];
/// The labels of PKCS#10 requests; the second is an old one.
pub(super) const REQUESTS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

/// The bytes of the one block in `text`, if its label is among `labels`. `None` if there is none, more than one, or one
/// that is damaged.
pub(super) fn decode(text: &str, labels: &[&str]) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    if !labels.contains(&label) {
        return None;
    }
    let (body, rest) = rest.split_once("-----END ")?;
    let (end_label, rest) = rest.split_once("-----")?;
    if end_label != label || rest.contains("-----BEGIN ") {
        return None;
    }
    // It may be of a private key.
    let mut digits = Zeroizing::new(Vec::with_capacity(body.len()));
    digits.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    STANDARD.decode(digits.as_slice()).ok()
}

/// Every block of `text` with its label, in order. `None` if one is damaged.
pub(super) fn decode_all(text: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let mut blocks = Vec::new();
    let mut left = text;
    while let Some((_, rest)) = left.split_once("-----BEGIN ") {
        let (label, rest) = rest.split_once("-----")?;
        let (body, rest) = rest.split_once("-----END ")?;
        let (end_label, rest) = rest.split_once("-----")?;
        if end_label != label {
            return None;
        }
        // A key is not read any further than that it is one: an encrypted one has headers, and one in clear leaves no copy.
        let is_key = label.ends_with("PRIVATE KEY");
        let digits = || body.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect::<Vec<u8>>();
        blocks.push((label.to_owned(), if is_key { Vec::new() } else { STANDARD.decode(digits()).ok()? }));
        left = rest;
    }
    Some(blocks)
}

/// PEM with line feeds, ending in one.
pub(super) fn encode(label: &'static str, der: &[u8]) -> Result<String, Fault> {
    der::pem::encode_string(label, LineEnding::LF, der)
        .map_err(|error| Fault::internal(format!("a {label} cannot be written as PEM: {error}")))
}

/// PEM as Vault answers it: without the last line feed.
pub(super) fn encode_trimmed(label: &'static str, der: &[u8]) -> Result<String, Fault> {
    let mut text = encode(label, der)?;
    text.truncate(text.trim_end().len());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_block_is_read_whatever_its_line_ends() {
        let text = encode(CERTIFICATE, &[7; 100]).unwrap();
        assert_eq!(decode(&text, &[CERTIFICATE]).unwrap(), vec![7; 100]);
        assert_eq!(decode(&text.replace('\n', "\r\n"), &[CERTIFICATE]).unwrap(), vec![7; 100]);
        assert_eq!(decode(&format!("subject=x\n{text}"), &[CERTIFICATE]).unwrap(), vec![7; 100]);
        assert_eq!(decode(&text, &REQUESTS), None);
        assert_eq!(decode(&format!("{text}{text}"), &[CERTIFICATE]), None);
        assert!(!encode_trimmed(CERTIFICATE, &[7]).unwrap().ends_with('\n'));
    }

    #[test]
    fn a_bundle_is_read_block_by_block() {
        let one = encode(CERTIFICATE, &[1]).unwrap();
        let key = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nxx\n-----END EC PRIVATE KEY-----";
        let read = decode_all(&format!("text\n{one}{key}\n{one}")).unwrap();
        let labels: Vec<&str> = read.iter().map(|(label, _)| label.as_str()).collect();
        assert_eq!(labels, [CERTIFICATE, "EC PRIVATE KEY", CERTIFICATE]);
        assert_eq!(read[2].1, [1]);
        assert_eq!(decode_all("nothing"), Some(Vec::new()));
        assert_eq!(decode_all("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"), None);
        assert_eq!(decode_all("-----BEGIN CERTIFICATE-----\nAA=="), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in "(-----BEGIN |-----END |CERTIFICATE|-----|[A-Za-z=\n ]|\\PC){0,40}") {
            let _ = (decode(&text, &[CERTIFICATE]), decode_all(&text));
        }
    }
}
