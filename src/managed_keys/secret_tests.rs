//! Stories about secret keys, on a token of software keys behind the real supervisor.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::managed_keys::software_token::{SoftwareToken, no_mounts, story};
use crate::model::{Cipher, Class, Deadline, Hash, KeyKind, KeyOperation, SecretBytes, Terms};

const AES: KeyKind = KeyKind::Aes { bits: 256 };
const HMAC: KeyKind = KeyKind::Hmac { bits: 256 };

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

fn gcm() -> Cipher {
    Cipher::AesGcm { iv: [1; 12], associated_data: Bytes::new() }
}

/// A managed key of the root namespace, found by its name, and used once.
async fn ready(keys: &ManagedKeys, name: &str, more: Value) -> Result<Handle, Fault> {
    write(keys, &Namespace::root(), name, name, more).await;
    let handle = keys.find(&Namespace::root(), "pkcs11", name).expect("a key");
    handle.identified(soon()).await.map(|(handle, _)| handle)
}

async fn write(keys: &ManagedKeys, namespace: &Namespace, name: &str, label: &str, more: Value) {
    let mut fields = json!({
        "library": "hsm", "token_label": "t", "key_label": label, "mechanism": "0x1087", "usages": "encrypt,decrypt,mac",
    });
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    keys.write(namespace, "pkcs11", name, fields.as_object().unwrap()).await.unwrap();
}

async fn run(handle: &Handle, operation: KeyOperation) -> Result<Bytes, Fault> {
    handle.submit(operation, Terms { class: Class::Interactive, deadline: soon() })?.await
}

async fn encrypt(handle: &Handle, plaintext: &[u8]) -> Result<Bytes, Fault> {
    run(handle, KeyOperation::Encrypt { cipher: gcm(), plaintext: SecretBytes::new(plaintext.to_vec()) }).await
}

async fn decrypt(handle: &Handle, made: &Bytes) -> Result<Bytes, Fault> {
    run(handle, KeyOperation::Decrypt { cipher: gcm(), ciphertext: made.slice(12..) }).await
}

fn again(keys: &ManagedKeys, token: &SoftwareToken) -> ManagedKeys {
    let again = ManagedKeys::new(keys.0.store.clone(), token.supervisor(), &Limits::default());
    again.load(&[Namespace::root()], no_mounts()).unwrap();
    again
}

#[test]
fn a_secret_key_is_generated_encrypts_and_is_known_again_after_a_restart() {
    story(|keys, token| async move {
        let aes = ready(&keys, "aes", json!({"allow_generate_key": true, "key_bits": 256})).await.unwrap();
        assert_eq!(token.generated(), 1);
        let made = encrypt(&aes, b"plaintext").await.unwrap();
        let later = again(&keys, &token).find(&Namespace::root(), "pkcs11", "aes").unwrap();
        assert_eq!(later.entry.ready.as_ref().unwrap().identity.kind(), AES);
        let begun = std::time::Instant::now();
        // The token proves itself first.
        let plaintext = loop {
            match decrypt(&later, &made).await {
                Err(Fault::KeyUnavailable { .. }) if begun.elapsed() < Duration::from_secs(30) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                plaintext => break plaintext.unwrap(),
            }
        };
        assert_eq!(plaintext, &b"plaintext"[..]);
        let mac = ready(&keys, "mac", json!({"mechanism": "0x0271", "allow_generate_key": true})).await.unwrap();
        let message = SecretBytes::new(b"message".to_vec());
        let made = run(&mac, KeyOperation::Mac { hash: Hash::Sha2_512, message }).await.unwrap();
        assert_eq!(made.len(), 64);
    });
}

#[test]
fn usages_and_the_mechanism_bound_what_a_secret_key_does() {
    story(|keys, token| async move {
        token.make("aes", b"", AES);
        token.make("mac", b"", HMAC);
        let aes = ready(&keys, "aes", json!({"usages": "encrypt"})).await.unwrap();
        let made = encrypt(&aes, b"x").await.unwrap();
        let told = decrypt(&aes, &made).await.unwrap_err().to_string();
        assert_eq!(told, "managed key \"aes\" does not allow usage \"decrypt\": add it to the key's usages");
        let message = || SecretBytes::new(Vec::new());
        let refused = run(&aes, KeyOperation::Mac { hash: Hash::Sha2_256, message: message() }).await.unwrap_err();
        assert!(matches!(refused, Fault::NotSupported { .. }), "{refused}");
        let no_pair = aes.ready(soon()).await.map(|_| ()).unwrap_err();
        assert!(matches!(no_pair, Fault::NotSupported { .. }), "{no_pair}");
        // Under the label of a secret key of another kind, and where no private key is.
        let wrong = ready(&keys, "mac", json!({})).await.map(|_| ()).unwrap_err().to_string();
        assert!(wrong.contains("the key on the token is hmac-256"), "{wrong}");
        let absent = ready(&keys, "aes2", json!({"key_label": "aes", "mechanism": "0x1041"})).await.map(|_| ());
        assert!(absent.unwrap_err().to_string().contains("holds no such key"));
    });
}

#[test]
fn an_operator_is_told_of_usages_that_allow_nothing() {
    story(|keys, _| async move {
        let warned = async |mechanism: &str, usages: &str| {
            let fields = json!({
                "library": "hsm", "token_label": "t", "key_label": "k", "mechanism": mechanism, "usages": usages,
            });
            keys.write(&Namespace::root(), "pkcs11", "k", fields.as_object().unwrap()).await.unwrap()
        };
        let told = "usages allow nothing that CKM_AES_GCM (0x1087) does: add some of encrypt, decrypt to them";
        assert_eq!(warned("0x1087", "").await, [told]);
        for (mechanism, usages) in [("0x1087", "decrypt"), ("0x0251", "mac"), ("0x1041", ""), ("0x1108", "")] {
            assert!(warned(mechanism, usages).await.is_empty(), "{mechanism}");
        }
    });
}

#[test]
fn a_handle_that_came_to_name_another_secret_key_encrypts_for_nobody() {
    story(|keys, token| async move {
        token.make("aes", b"", AES);
        token.make("mac", b"", HMAC);
        let aes = ready(&keys, "aes", json!({})).await.unwrap();
        let mac = ready(&keys, "mac", json!({"mechanism": "0x0251"})).await.unwrap();
        // No session has used them yet: what the control session has proven is not what these handles are now.
        token.backend().replace("aes").unwrap();
        token.backend().replace("mac").unwrap();
        let message = SecretBytes::new(b"message".to_vec());
        for refused in
            [encrypt(&aes, b"plaintext").await, run(&mac, KeyOperation::Mac { hash: Hash::Sha2_256, message }).await]
        {
            let fault = refused.unwrap_err();
            assert!(matches!(fault, Fault::KeyMismatch { .. } | Fault::KeyUnavailable { .. }), "{fault}");
        }
        // Nor does a daemon that starts on what is recorded serve it.
        let later = again(&keys, &token).find(&Namespace::root(), "pkcs11", "aes").unwrap();
        let fault = encrypt(&later, b"plaintext").await.unwrap_err();
        assert!(matches!(fault, Fault::KeyMismatch { .. } | Fault::KeyUnavailable { .. }), "{fault}");
    });
}

#[test]
fn a_ciphertext_that_was_changed_is_the_callers_fault() {
    story(|keys, token| async move {
        token.make("aes", b"", AES);
        let aes = ready(&keys, "aes", json!({})).await.unwrap();
        let mut made = encrypt(&aes, b"plaintext").await.unwrap().to_vec();
        *made.last_mut().unwrap() ^= 1;
        let fault = decrypt(&aes, &made.into()).await.unwrap_err();
        assert_eq!(fault, Fault::not_decrypted("the ciphertext does not decrypt"));
        assert!(encrypt(&aes, b"plaintext").await.is_ok());
    });
}

#[test]
fn a_secret_key_belongs_to_the_namespace_that_recorded_it_first() {
    story(|keys, token| async move {
        token.make("aes", b"", AES);
        let team = Namespace::from_path("team");
        write(&keys, &team, "mine", "aes", json!({})).await;
        keys.find(&team, "pkcs11", "mine").unwrap().identified(soon()).await.map(|_| ()).unwrap();
        let refused = ready(&keys, "aes", json!({"mechanism": "0x1085"})).await.map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("holds no such key for this namespace"), "{refused}");
    });
}
