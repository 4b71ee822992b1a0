//! The main job: a CA on a token, certificates in bulk, revocation.

use serde_json::json;

use crate::daemon::Daemon;
use crate::openssl::{P256, RSA, openssl, request};
use crate::token::Token;

#[tokio::test]
async fn a_folder_of_requests_becomes_certificates_that_openssl_accepts() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let root = daemon.certificate_authority().await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("root.pem"), root).unwrap();
    let san = "DNS:a.example.com,IP:10.0.0.1,URI:spiffe://example.com/a,email:a@example.com";
    for n in 0..6 {
        request(folder.path(), &format!("host-{n}"), if n == 0 { RSA } else { P256 }, san);
    }
    for n in 6..60 {
        std::fs::copy(at(&format!("host-{}.csr", n % 6)), at(&format!("host-{n}.csr"))).unwrap();
    }
    std::fs::write(at("broken.csr"), "no request at all").unwrap();
    let folder_text = folder.path().to_str().unwrap();
    let done = daemon.cli(&["pki", "sign-batch", folder_text, "--role", "any", "--quiet"]);
    let printed = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.status.code(), Some(2), "{printed}{}", String::from_utf8_lossy(&done.stderr));
    assert!(printed.contains("60 certificates in") && printed.contains("broken.csr: neither PEM nor DER"), "{printed}");
    let mut arguments = vec!["verify".to_owned(), "-CAfile".into(), "root.pem".into()];
    arguments.extend((0..60).map(|n| format!("host-{n}.crt")));
    let verdict = openssl(folder.path(), &arguments.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    assert_eq!(verdict.matches(": OK").count(), 60, "{verdict}");
    let shown = openssl(folder.path(), &["x509", "-in", "host-7.crt", "-noout", "-ext", "subjectAltName"]).unwrap();
    for part in ["DNS:a.example.com", "IP Address:10.0.0.1", "URI:spiffe://example.com/a", "email:a@example.com"] {
        assert!(shown.contains(part), "{shown}");
    }
    assert!(daemon.metric("keyway_certificates_issued_total") >= 60.0);
    let log = daemon.log();
    assert_eq!(log.matches("INFO certificate issued serial=").count(), 60, "{log}");
}

#[tokio::test]
async fn a_revoked_certificate_is_on_the_published_crl() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let root = daemon.certificate_authority().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("root.pem"), root).unwrap();
    request(folder.path(), "web", P256, "DNS:web.example.com");
    let csr = std::fs::read_to_string(folder.path().join("web.csr")).unwrap();
    let issued = daemon.write("pki/sign/any", json!({"csr": csr})).await;
    std::fs::write(folder.path().join("web.crt"), issued["certificate"].as_str().unwrap()).unwrap();
    let serial = issued["serial_number"].as_str().unwrap();
    let found = daemon.read(&format!("pki/cert/{serial}")).await;
    assert_eq!(found["certificate"].as_str().unwrap().trim(), issued["certificate"].as_str().unwrap().trim());

    let crl = || {
        let mut found = Vec::new();
        collect(&daemon.folder.join("published"), &mut found);
        let crl = found.into_iter().find(|path| path.ends_with("crl.der"));
        crl.expect("a published CRL")
    };
    daemon.write("pki/revoke", json!({"serial_number": serial})).await;
    openssl(folder.path(), &["crl", "-inform", "DER", "-in", crl().to_str().unwrap(), "-out", "crl.pem"]).unwrap();
    let check = ["verify", "-crl_check", "-CAfile", "root.pem", "-CRLfile", "crl.pem", "web.crt"];
    let verdict = openssl(folder.path(), &check).unwrap_err();
    assert!(verdict.contains("certificate revoked"), "{verdict}");
}

fn collect(folder: &std::path::Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() { collect(&entry.path(), into) } else { into.push(entry.path()) }
    }
}
