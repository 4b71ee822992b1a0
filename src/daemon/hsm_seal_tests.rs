//! The seal in an HSM, on a token in memory.

use std::path::Path;

use super::*;
use crate::backend::fake::{FakeBackend, PIN};
use crate::config::{Config, Seal};

#[derive(Default)]
struct Notes(Mutex<Option<Vec<u8>>>);

impl SealNotes for Notes {
    fn read(&self) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.0.lock().clone())
    }

    fn write(&self, note: &[u8]) -> Result<(), Fault> {
        *self.0.lock() = Some(note.to_vec());
        Ok(())
    }
}

/// The seal as a process has it.
fn seal(token: &FakeBackend, pin: &str, generate: bool) -> HsmSeal {
    let text = format!(
        "listener \"unix\" {{ address = \"/run/k.sock\" }}\nstorage \"redb\" {{ path = \"/var/k.redb\" }}\n\
         seal \"pkcs11\" {{\n library = \"/opt/hsm.so\"\n token_label = \"t\"\n pin = \"{pin}\"\n key_label = \"k\"\n \
         generate_key = {generate}\n}}\n"
    );
    let config = Config::parse(Path::new("k.hcl"), &text).unwrap();
    let Seal::Pkcs11(seal) = &config.seal else { panic!("{:?}", config.seal) };
    HsmSeal::new(seal, Arc::new(token.clone()), Arc::default(), &config.limits, false)
}

fn root_key() -> Secret {
    Secret::new([5; 32])
}

#[test]
fn a_root_key_is_wrapped_by_a_key_that_is_made_once() {
    let (token, notes) = (FakeBackend::default(), Notes::default());
    let absent = seal(&token, PIN, false).wrap(&root_key(), &notes).unwrap_err().to_string();
    assert!(absent.contains("holds no secret key \"k\"") && absent.contains("token t"), "{absent}");
    let one = seal(&token, PIN, true).wrap(&root_key(), &notes).unwrap();
    let two = seal(&token, PIN, true).wrap_again(&root_key(), &notes).unwrap();
    assert_eq!(token.generated(), 1);
    assert_ne!(one, two, "an IV was used twice");
    for wrapped in [&one, &two] {
        assert_eq!(seal(&token, PIN, false).open(wrapped, &notes).unwrap().expose(), root_key().expose());
        for index in 0..wrapped.len() {
            let mut changed = wrapped.clone();
            changed[index] ^= 1;
            assert!(seal(&token, PIN, false).open(&changed, &notes).is_err(), "byte {index}");
        }
    }
    assert!(seal(&token, PIN, false).open(&[], &notes).is_err());
    assert!(seal(&token, PIN, false).open(&one[..5], &notes).is_err());
}

#[test]
fn another_key_under_the_label_is_told_from_one_that_does_not_work() {
    let (token, notes) = (FakeBackend::default(), Notes::default());
    let wrapped = seal(&token, PIN, true).wrap(&root_key(), &notes).unwrap();
    token.replace("k").unwrap();
    let told = seal(&token, PIN, true).open(&wrapped, &notes).unwrap_err().to_string();
    assert!(told.contains("is not the key that wrapped"), "{told}");
    token.refuse(|_| Some(Fault::DeviceError { what: "C_DecryptInit: CKR_DEVICE_ERROR".into() }));
    let told = seal(&token, PIN, true).open(&wrapped, &notes).unwrap_err().to_string();
    assert!(told.contains("CKR_DEVICE_ERROR") && !told.contains("is not the key"), "{told}");
}

#[test]
fn a_wrong_pin_is_tried_once_by_whatever_process() {
    let (token, notes) = (FakeBackend::default(), Notes::default());
    let wrapped = seal(&token, PIN, true).wrap(&root_key(), &notes).unwrap();
    let logins = token.logins();
    let wrong = seal(&token, "0000", false);
    for _ in 0..3 {
        let told = wrong.open(&wrapped, &notes).unwrap_err();
        assert!(matches!(told, Fault::CredentialsRefused { .. }), "{told}");
        assert!(!told.to_string().contains("0000"));
    }
    assert!(seal(&token, "0000", false).open(&wrapped, &notes).is_err());
    assert_eq!(token.logins(), logins + 1);
    seal(&token, PIN, false).open(&wrapped, &notes).unwrap();
    token.leave_one_pin_try();
    let told = seal(&token, PIN, false).open(&wrapped, &notes).unwrap_err().to_string();
    assert!(told.contains("one last try"), "{told}");
}

#[test]
fn a_refused_pin_is_known_again_for_its_token_alone() {
    let token = |serial: &str, label: &str| TokenIdentity::new("maker", "model", serial, label);
    let (own, wrong) = (token("1234", "ca"), Secret::from("wrong"));
    let note = note(&own, &wrong).unwrap();
    assert!(is_noted(&note, &own, &wrong));
    assert!(!is_noted(&note, &own, &Secret::from("right")));
    assert!(!is_noted(&note, &token("5678", "ca"), &wrong) && !is_noted(&note, &token("1234", "other"), &wrong));
    assert!(!is_noted(&[], &own, &wrong));
    assert!(!note.windows(5).any(|window| window == b"wrong"));
}

#[test]
fn a_pin_noted_by_the_serial_number_alone_is_still_known() {
    let (salt, mut hash) = ([7; SALT_BYTES], [0; HASH_BYTES]);
    let salted = [&salt[..], b"1234"].concat();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, &salted, b"wrong", &mut hash);
    let note = [&salt[..], &hash].concat();
    let token = |serial: &str| TokenIdentity::new("maker", "model", serial, "ca");
    assert!(is_noted(&note, &token("1234"), &Secret::from("wrong")));
    assert!(!is_noted(&note, &token("5678"), &Secret::from("wrong")));
}
