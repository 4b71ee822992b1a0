//! Stories of a mount whose revocations are not read yet.

use futures_util::FutureExt;

use super::super::revocation::Revocation;
use super::super::serial::Serial;
use super::*;
use crate::store::{Versioned, Write};

/// Revocations beside those of a story, so many that they are read on another thread.
const OTHERS: u32 = 5000;

impl Desk {
    /// Stores revocations of certificates that were not kept, as if they had been made here.
    fn revoke_others(&self) {
        let issuer = Arc::clone(self.pki.authority.load().default_issuer().unwrap());
        let write = |index: u32| {
            let (issuer, signer) = (issuer.id().to_owned(), issuer.signer().clone());
            let revocation = Revocation { time: 1_800_000_000, issuer, signer, not_after: None };
            let serial = Serial::from_bytes(&[&[0x20; 16][..], &index.to_be_bytes()].concat()).unwrap();
            Write::put_record(self.pki.records.revocation(&serial), &revocation).unwrap()
        };
        self.store.commit_now((0..OTHERS).map(write).collect()).unwrap();
    }

    /// A restart in which nobody has begun to read revocations.
    fn restarted_unread(&self) -> Desk {
        Desk::unread(self.store.clone(), Arc::clone(&self.keys))
    }

    /// The status of a certificate, as openssl reads it in an OCSP answer that verifies.
    async fn status(&self, leaf: &str) -> String {
        let told = self.ocsp(&[leaf], &["-no_nonce"]).await;
        assert!(told.contains("Response verify OK"), "{told}");
        told.lines().find_map(|line| line.trim().strip_prefix("Cert Status: ")).unwrap().to_owned()
    }

    /// The serial numbers that the default issuer's CRL lists.
    async fn listed(&self) -> String {
        self.put("crl.pem", &String::from_utf8(self.raw("crl/pem").await.1).unwrap());
        self.openssl(&["crl", "-in", "crl.pem", "-noout", "-text"]).to_lowercase()
    }
}

fn is_in(listed: &str, serial: &str) -> bool {
    listed.contains(&serial.replace(':', ""))
}

#[tokio::test]
async fn certificates_are_issued_before_revocations_are_read_and_whatever_needs_those_waits() {
    let before = Desk::with_root().await;
    let (bad, bad_serial) = before.leaf("bad.example").await;
    let (leaf, serial) = before.leaf("a.example").await;
    before.write("revoke", json!({ "serial_number": bad_serial })).await.unwrap();
    before.revoke_others();

    let desk = before.restarted_unread();
    let (new, new_serial) = desk.leaf("new.example").await;
    // What is asked of one certificate is known, also when it is asked again; so is the last CRL.
    for _ in 0..2 {
        assert_eq!(desk.status(&bad).await, "revoked");
        assert_eq!((desk.status(&leaf).await, desk.status(&new).await), ("good".into(), "good".into()));
    }
    assert!(desk.read(&format!("cert/{bad_serial}")).await.unwrap()["revocation_time"].as_u64() > Some(0));
    let last = desk.raw("crl").await;
    assert!(is_in(&desk.listed().await, &bad_serial));
    // Looking after the mount makes no CRL of a part, and does not wait.
    desk.pki.crls.stop();
    Arc::clone(&desk.pki).maintain(desk.call()).await.unwrap();
    assert_eq!(desk.raw("crl").await, last);

    let desk = before.restarted_unread();
    let mut revoking = desk.write("revoke", json!({ "serial_number": serial })).boxed();
    let mut rotating = desk.read("crl/rotate").boxed();
    for _ in 0..100 {
        assert!((&mut revoking).now_or_never().is_none());
        assert!((&mut rotating).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    assert_eq!((desk.status(&leaf).await, desk.raw("crl").await), ("good".into(), last));
    desk.pki.crls.begin();
    assert_eq!(revoking.await.unwrap()["warnings"], json!([]));
    assert_eq!(rotating.await.unwrap()["success"], json!(true));
    assert_eq!((desk.status(&leaf).await, desk.status(&bad).await), ("revoked".into(), "revoked".into()));
    let listed = desk.listed().await;
    assert!(is_in(&listed, &serial) && is_in(&listed, &bad_serial) && !is_in(&listed, &new_serial));
    assert_eq!(listed.matches("serial number:").count(), OTHERS as usize + 2);
    assert_eq!(desk.crl().revoked(desk.whole()).len(), OTHERS as usize + 2);
}

#[tokio::test]
async fn a_crl_that_is_due_at_the_start_is_made_once_revocations_are_read() {
    let before = Desk::with_root().await;
    let (_, serial) = before.leaf("a.example").await;
    before.keys.get("ca").record.is_gone.store(true, std::sync::atomic::Ordering::Relaxed);
    before.write("revoke", json!({ "serial_number": serial })).await.unwrap();
    before.keys.get("ca").record.is_gone.store(false, std::sync::atomic::Ordering::Relaxed);
    before.revoke_others();
    let desk = before.restarted_unread();
    assert!(!is_in(&desk.listed().await, &serial));
    // It begins by itself, and goes on behind who looks after the mount.
    Arc::clone(&desk.pki).maintain(desk.call()).await.unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !is_in(&desk.listed().await, &serial) {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(desk.listed().await.matches("serial number:").count(), OTHERS as usize + 1);
}

#[tokio::test]
async fn a_mount_whose_revocations_cannot_be_read_issues_and_does_nothing_that_would_miss_one() {
    let before = Desk::with_root().await;
    let (leaf, serial) = before.leaf("a.example").await;
    let (bad, bad_serial) = before.leaf("bad.example").await;
    before.write("revoke", json!({ "serial_number": bad_serial })).await.unwrap();
    let (newer, last) = (Serial::parse("7f:01").unwrap(), before.raw("crl").await);
    let place = before.pki.records.revocation(&newer);
    let unknown = Write::Put { key: place.clone(), version: Revocation::VERSION + 1, value: b"{}".to_vec() };
    before.store.commit_now(vec![unknown]).unwrap();

    let desk = before.restarted();
    desk.leaf("new.example").await;
    for refused in [
        desk.write("revoke", json!({ "serial_number": serial })).await.map(drop),
        desk.read("crl/rotate").await.map(drop),
    ] {
        let told = message(refused);
        assert!(told.contains("could not be read") && told.contains("run the version that wrote it"), "{told}");
    }
    let status = desk.tidy(json!({"tidy_cert_store": true, "tidy_revoked_certs": true})).await;
    assert!(status["state"] == "Error" && status["error"].to_string().contains("could not be read"), "{status}");
    assert_eq!((desk.status(&bad).await, desk.status(&leaf).await), ("revoked".into(), "good".into()));
    assert_eq!(desk.raw("crl").await, last);

    // Looked after again, it is read again.
    desk.store.commit_now(vec![Write::Delete { key: place }]).unwrap();
    Arc::clone(&desk.pki).maintain(desk.call()).await.unwrap();
    desk.write("revoke", json!({ "serial_number": serial })).await.unwrap();
    assert!(is_in(&desk.listed().await, &serial) && is_in(&desk.listed().await, &bad_serial));
    assert_eq!(desk.status(&leaf).await, "revoked");
}
