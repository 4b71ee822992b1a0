//! Vault's client in Python drives Keyway as it drives Vault.

use serde_json::json;

use crate::daemon::Daemon;
use crate::python;
use crate::token::Token;

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
    let arguments = [daemon.socket().display().to_string(), daemon.root_token.clone()];
    python::run(&python, "hvac_story.py", &arguments);
}
