//! Requests and responses, with openssl at the other end.

use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::super::algorithm::{CertificateHash, SignatureAlgorithm};
use super::super::serial::Serial;
use super::request::BYTES_MAX;
use super::*;
use crate::crypto;
use crate::model::Hash;

fn openssl(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

/// A CA made by openssl, whose key is known here, and three serial numbers of its certificates.
fn authority(folder: &Path) {
    let make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key"];
    openssl(folder, &[&make[..], &["-subj", "/CN=CA", "-out", "ca.pem"]].concat());
}

#[test]
fn openssl_reads_what_is_answered_and_is_told_each_state() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    authority(folder);
    let ask = ["ocsp", "-issuer", "ca.pem", "-sha256", "-serial", "0x7f01", "-serial", "0x81", "-serial", "3"];
    openssl(folder, &[&ask[..], &["-reqout", "request.der"]].concat());
    let request = Request::parse(&std::fs::read(folder.join("request.der")).unwrap()).unwrap();
    let serials: Vec<_> = request.certificates.iter().map(|id| id.serial.unwrap()).collect();
    assert_eq!(serials, [&[0x7f, 1][..], &[0x81], &[3]].map(|bytes| Serial::from_bytes(bytes).unwrap()));
    assert!(request.nonce.is_some() && request.certificates.iter().all(|id| id.hash == Hash::Sha2_256));

    // Signed by the CA's key, through openssl.
    let spki = openssl_bytes(folder, &["x509", "-in", "ca.pem", "-noout", "-pubkey"]);
    std::fs::write(folder.join("ca.pub"), spki).unwrap();
    let spki = openssl_bytes(folder, &["pkey", "-pubin", "-in", "ca.pub", "-outform", "DER"]);
    let key = crypto::parse_spki(&spki).unwrap();
    let identifier = super::super::extensions::key_identifier(&key).unwrap();
    let states = [Status::Good, Status::Revoked(1_700_000_000), Status::Unknown];
    let states: Vec<_> = request.certificates.iter().zip(states).collect();
    let now = super::super::validity::now();
    let algorithm = SignatureAlgorithm::Ecdsa(CertificateHash::Sha256);
    let nonce = request.nonce.as_deref();
    let unsigned = Unsigned::new(algorithm, &identifier, &states, nonce, now, Some(now + 3600)).unwrap();
    std::fs::write(folder.join("data"), &unsigned.data).unwrap();
    let signature = openssl_bytes(folder, &["dgst", "-sha256", "-sign", "ca.key", "data"]);
    std::fs::write(folder.join("response.der"), unsigned.signed(&signature).unwrap()).unwrap();

    let read = ["-respin", "response.der", "-CAfile", "ca.pem", "-reqin", "request.der", "-resp_text"];
    let said = openssl(folder, &[&["ocsp", "-verify_other", "ca.pem"][..], &read].concat());
    assert!(said.contains("Response verify OK") && !said.contains("Nonce Verify"), "{said}");
    for expected in ["Cert Status: good", "Cert Status: revoked", "Cert Status: unknown", "Revocation Time: Nov 14"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

fn openssl_bytes(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    output.stdout
}

#[test]
fn a_refusal_is_read_by_openssl() {
    let folder = tempfile::tempdir().unwrap();
    for (refusal, expected) in [
        (Refusal::Malformed, "malformedrequest"),
        (Refusal::Internal, "internalerror"),
        (Refusal::TryLater, "trylater"),
        (Refusal::Unauthorized, "unauthorized"),
    ] {
        std::fs::write(folder.path().join("refusal.der"), refusal.encode().unwrap()).unwrap();
        let arguments = ["ocsp", "-respin", "refusal.der", "-noverify"];
        let output = Command::new("openssl").args(arguments).current_dir(folder.path()).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_request_without_nonce_or_with_an_odd_one() {
    let folder = tempfile::tempdir().unwrap();
    authority(folder.path());
    let ask = ["ocsp", "-issuer", "ca.pem", "-serial", "1", "-no_nonce", "-reqout", "plain.der"];
    openssl(folder.path(), &ask);
    let plain = std::fs::read(folder.path().join("plain.der")).unwrap();
    let read = Request::parse(&plain).unwrap();
    assert_eq!((read.nonce, read.certificates[0].hash), (None, Hash::Sha1));
    assert!(Request::parse(&[]).is_none() && Request::parse(&[&plain[..], &[0]].concat()).is_none());
    assert!(Request::parse(&vec![0x30; BYTES_MAX + 1]).is_none());
    assert!(Request::parse(&plain[..plain.len() - 1]).is_none());
    // Negative and zero serial numbers are of no certificate.
    let mut odd = plain.clone();
    *odd.last_mut().unwrap() = 0x80;
    assert_eq!(Request::parse(&odd).unwrap().certificates[0].serial, None);
}

proptest! {
    #[test]
    fn any_bytes_are_a_request_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Request::parse(&bytes);
    }
}
