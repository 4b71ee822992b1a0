//! Clients in Python: Vault's own, which drives Keyway as it drives Vault, the README's of the framed API, and one that reads the
//! description of the API and asks whatever fits it, and what does not.

use serde_json::json;

use crate::daemon::Daemon;
use crate::python;
use crate::token::{LABEL, Token};

#[tokio::test]
async fn hvac_finds_what_it_knows_of_vault() {
    let Some(python) = python::python() else { return };
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let p256 = json!({"mechanism": "0x1041", "curve": "P256"});
    let aes = json!({"mechanism": "0x1087", "key_bits": 256, "usages": "encrypt,decrypt"});
    for (name, fields) in [
        ("ca", &p256),
        ("next-ca", &p256),
        ("documents", &json!({"mechanism": "0x0001", "key_bits": 2048})),
        ("aes", &aes),
        ("next-aes", &aes),
        ("mac", &json!({"mechanism": "0x0251", "key_bits": 256, "usages": "mac"})),
    ] {
        daemon.managed_key(name, fields.clone()).await;
    }
    let arguments = [daemon.socket().display().to_string(), daemon.root_token.clone(), LABEL.to_owned()];
    python::run(&python, "hvac_story.py", &arguments);
}

#[tokio::test]
async fn the_python_client_of_the_readme_works_as_it_stands_there() {
    let Some(python) = python::python() else { return };
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.certificate_authority().await;
    daemon.write("pki/roles/servers", json!({"key_type": "any", "allow_any_name": true})).await;
    daemon.transit_key("documents", json!({"mechanism": "0x0001", "key_bits": 2048})).await;
    let generated = tempfile::tempdir().unwrap();
    let arguments = [
        env!("CARGO_MANIFEST_DIR").to_owned(),
        daemon.socket().with_extension("sock.framed").display().to_string(),
        daemon.root_token.clone(),
        generated.path().display().to_string(),
    ];
    python::run(&python, "framed_story.py", &arguments);
}

#[tokio::test]
async fn whatever_is_asked_the_answer_is_as_described_and_no_error_of_the_servers() {
    let Some(python) = python::python() else { return };
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let arguments =
        [daemon.socket().display().to_string(), daemon.root_token.clone(), "hsm".to_owned(), LABEL.to_owned()];
    let told = python::run(&python, "openapi_story.py", &arguments);
    println!("{told}");
    // Nor did one hide behind an answer that was right.
    let log = daemon.log();
    let odd: Vec<&str> =
        log.lines().filter(|line| line.contains("panicked") || line.contains("this is a bug")).collect();
    assert!(odd.is_empty(), "{}", odd.join("\n"));
}
