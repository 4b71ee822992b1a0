//! The corpus of the fuzz targets, so that it stays alive: every file of it, given to what its target tries.

use std::path::Path;

#[expect(unreachable_pub, reason = "public to the fuzz targets")]
#[path = "../fuzz/src/lib.rs"]
pub(crate) mod targets;

#[test]
fn every_file_of_the_corpus_is_taken_by_its_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let (mut folders, mut bytes) = (0, 0);
    for folder in std::fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap()) {
        let name = folder.file_name().into_string().unwrap();
        let (_, target) = targets::TARGETS.iter().find(|(known, _)| *known == name).expect("a folder is of a target");
        let mut files = 0;
        for file in std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap()) {
            let input = std::fs::read(file.path()).unwrap();
            // A failure names the file.
            println!("{}", file.path().display());
            target(&input);
            (files, bytes) = (files + 1, bytes + input.len());
        }
        assert!(files > 0, "{name} has no files");
        folders += 1;
    }
    assert_eq!(folders, targets::TARGETS.len());
    assert!(bytes < 100_000, "the corpus has {bytes} bytes: make it smaller with -merge=1");
}

#[test]
fn what_is_good_in_the_corpus_is_taken() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let read = |name: &str| std::fs::read(corpus.join(name)).unwrap();
    let text = |name: &str| String::from_utf8(read(name)).unwrap();
    for name in ["p256", "p384", "p521", "rsa2048", "rsa3072", "ed25519", "pss", "bare", "ca"] {
        assert!(keyway::engine::pki::requested_key(&read(&format!("csr/{name}"))).is_ok(), "{name}");
    }
    for (name, count) in [("bundle", 2), ("p384", 1), ("p521", 1), ("rsa", 1), ("text", 1), ("crlf", 1)] {
        let found = keyway::engine::pki::imported_certificates(&text(&format!("pem/{name}"))).unwrap();
        assert_eq!(found.len(), count, "{name}");
    }
    for (name, holds) in [("pkcs8", true), ("sec1", true), ("pkcs1", true), ("ed25519", true), ("of-another", false)] {
        let shown = text(&format!("pem/key-{name}"));
        let (certificate, key) = shown.split_once('\0').unwrap();
        assert_eq!(keyway::engine::pki::holds_key_of(certificate, key), Ok(holds), "{name}");
    }
    assert!(keyway::engine::pki::pem_request(&text("pem/request")).is_ok());
    for name in ["sha1", "sha256", "sha384", "sha512", "nonce", "several"] {
        assert!(keyway::engine::pki::is_ocsp_request(&read(&format!("ocsp/{name}"))), "{name}");
    }
    for name in ["gcm", "rsa", "ecdsa", "hmac", "zero", "empty"] {
        assert!(keyway::engine::transit::read_ciphertext(&text(&format!("ciphertext/{name}"))).is_ok(), "{name}");
    }
}
