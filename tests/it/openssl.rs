//! openssl, as maker of requests and as judge.

use std::path::Path;
use std::process::Command;

/// Runs openssl in a folder; answers what it printed if it was content.
pub(crate) fn openssl(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr))) }
}

/// Makes a key and a request for it: `NAME.pem` and `NAME.csr`.
pub(crate) fn request(folder: &Path, name: &str, key: &[&str], san: &str) {
    let (pem, csr) = (format!("{name}.pem"), format!("{name}.csr"));
    let mut make = vec!["genpkey", "-out", &pem];
    make.extend(key);
    openssl(folder, &make).unwrap();
    let subject = format!("/CN={name}.example.com");
    let san = format!("subjectAltName={san}");
    openssl(folder, &["req", "-new", "-key", &pem, "-subj", &subject, "-addext", &san, "-out", &csr]).unwrap();
}

pub(crate) const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
pub(crate) const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
pub(crate) const ED25519: &[&str] = &["-algorithm", "ED25519"];
