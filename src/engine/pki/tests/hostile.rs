//! Requests nobody should take.

use proptest::prelude::*;

use super::super::{pem, requested_key};
use super::*;

fn refused(der: &[u8]) -> String {
    message(requested_key(der))
}

fn der(csr: &str) -> Vec<u8> {
    pem::decode(csr, &pem::REQUESTS).unwrap()
}

#[test]
fn weak_keys_and_weak_signatures_are_refused() {
    let desk = Desk::new(&[]);
    for (key, expected) in [
        (&["rsa:1024"][..], "2048 to 8192 bits"),
        (&["rsa:2048", "-sha1"], "weak hash"),
        (&["rsa:2048", "-md5"], "weak hash"),
        (&["ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-sha1"], "weak hash"),
        (&["ec", "-pkeyopt", "ec_paramgen_curve:P-224"], "not supported"),
        (&["ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"], "has no certificates"),
        (&["rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"], "not supported"),
        (&["ed448"], "not supported"),
    ] {
        let text = refused(&der(&desk.csr(key, "/CN=a.example", "")));
        assert!(text.contains(expected), "{key:?}: {text}");
    }
}

#[test]
fn a_request_with_odd_content_is_refused() {
    let desk = Desk::new(&[]);
    for (subject, sans, expected) in [
        ("/CN=a.example", "DNS:a b.example", "not a valid DNS name"),
        ("/CN=a.example", "email:nobody", "not a valid email address"),
        ("/CN=a.example", "URI:nowhere", "not a valid URI"),
        ("/CN=a\nb", "", "control characters"),
    ] {
        let text = refused(&der(&desk.p256_csr(subject, sans)));
        assert!(text.contains(expected), "{subject} {sans}: {text}");
    }
    assert!(refused(&vec![0x30; 70_000]).contains("at most"));
    assert!(refused(&[]).contains("malformed"));
    let mut trailing = der(&desk.p256_csr("/CN=a.example", ""));
    trailing.push(0);
    assert!(refused(&trailing).contains("malformed"));
}

#[test]
fn a_request_signed_by_another_key_is_refused() {
    let desk = Desk::new(&[]);
    let (one, other) = (der(&desk.p256_csr("/CN=a.example", "")), der(&desk.p256_csr("/CN=a.example", "")));
    let (info, _, _) = super::super::x509::split(&one).unwrap();
    let (_, algorithm, signature) = super::super::x509::split(&other).unwrap();
    let mixed = super::super::asn1::sequence(&[info, algorithm, signature]).unwrap();
    assert!(refused(&mixed).contains("does not verify"));
    assert!(requested_key(&one).is_ok());
}

#[tokio::test]
async fn text_that_is_no_request_is_refused() {
    let desk = Desk::with_root().await;
    for csr in [
        json!(""),
        json!("hello"),
        json!(7),
        json!("-----BEGIN CERTIFICATE REQUEST-----\n!\n-----END CERTIFICATE REQUEST-----"),
    ] {
        let refused = message(desk.write("sign/any", json!({ "csr": csr })).await);
        assert!(refused.contains("csr"), "{csr}: {refused}");
    }
    let huge = "A".repeat(200_000);
    assert!(matches!(desk.write("sign/any", json!({ "csr": huge })).await, Err(Fault::TooLarge { .. })));
    let (_, root) = desk.raw("ca/pem").await;
    let refused = message(desk.write("sign/any", json!({"csr": String::from_utf8(root).unwrap()})).await);
    assert!(refused.contains("CERTIFICATE REQUEST"), "{refused}");
}

/// A request with every kind of name, made once.
fn sample() -> &'static [u8] {
    static SAMPLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    SAMPLE.get_or_init(|| {
        let sans = "DNS:a.example,email:a@b.example,URI:urn:a:b,IP:10.0.0.1,otherName:1.2.3.4;UTF8:x";
        der(&Desk::new(&[]).p256_csr("/O=Corp/CN=a.example/UID=me", sans))
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(requested_key(&bytes).is_err());
    }

    #[test]
    fn a_request_changed_anywhere_is_refused(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let mut changed = sample().to_vec();
        let at = at.index(changed.len());
        changed[at] ^= flip;
        prop_assert!(requested_key(&changed).is_err());
    }

    #[test]
    fn a_request_cut_or_grown_is_refused(
        at in any::<prop::sample::Index>(),
        gone in 1_usize..40,
        grown in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut changed = sample().to_vec();
        let at = at.index(changed.len());
        let end = (at + gone).min(changed.len());
        prop_assume!(changed[at..end] != grown[..]);
        changed.splice(at..end, grown);
        prop_assert!(requested_key(&changed).is_err());
    }
}
