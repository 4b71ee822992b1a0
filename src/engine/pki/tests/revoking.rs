//! Stories of revocations and CRLs.

use std::sync::atomic::Ordering;

use super::*;

async fn crl_text(desk: &Desk) -> String {
    desk.put("crl.pem", &String::from_utf8(desk.raw("crl/pem").await.1).unwrap());
    desk.put("root.pem", &String::from_utf8(desk.raw("ca/pem").await.1).unwrap());
    let checked = desk.openssl(&["crl", "-in", "crl.pem", "-CAfile", "root.pem", "-noout", "-text"]);
    assert!(desk.try_openssl(&["crl", "-in", "crl.pem", "-CAfile", "root.pem", "-noout"]).is_ok());
    checked
}

fn crl_number(desk: &Desk) -> u64 {
    desk.crl().crl.load().as_ref().map_or(0, |crl| crl.number)
}

#[tokio::test]
async fn a_revoked_certificate_verifies_no_longer() {
    let desk = Desk::with_root().await;
    let (good, _) = desk.leaf("good.example").await;
    let (bad, serial) = desk.leaf("bad.example").await;
    let before = crl_number(&desk);
    let answer = desk.write("revoke", json!({"serial_number": serial.replace(':', "-")})).await.unwrap();
    assert_eq!(answer["state"], "revoked");
    assert_eq!(answer["warnings"], json!([]));
    assert!(crl_number(&desk) > before);

    let shown = crl_text(&desk).await;
    assert!(shown.contains(&serial.replace(':', "").to_uppercase()), "{shown}");
    desk.put("good.pem", &good);
    desk.put("bad.pem", &bad);
    let check = |name| desk.try_openssl(&["verify", "-crl_check", "-CAfile", "root.pem", "-CRLfile", "crl.pem", name]);
    check("good.pem").unwrap();
    assert!(check("bad.pem").unwrap_err().contains("certificate revoked"));

    let read = desk.read(&format!("cert/{serial}")).await.unwrap();
    assert_eq!(read["revocation_time"], answer["revocation_time"]);
    assert_eq!(read["revocation_time_rfc3339"], answer["revocation_time_rfc3339"]);
    // Asked again, it answers the same and makes no new CRL.
    let (number, again) = (crl_number(&desk), desk.write("revoke", json!({ "serial_number": serial })).await.unwrap());
    assert_eq!((again, crl_number(&desk)), (answer, number));
    assert_eq!(desk.published("crl.der"), desk.raw("crl").await.1);
}

#[tokio::test]
async fn what_cannot_be_revoked_is_refused() {
    let desk = Desk::with_root().await;
    let root = data(desk.send(Verb::List, "certs", json!({})).await.unwrap())["keys"][0].clone();
    let (leaf, serial) = desk.leaf("a.example").await;
    for (body, expected) in [
        (json!({}), "must be provided"),
        (json!({"serial_number": serial, "certificate": leaf}), "not both"),
        (json!({"serial_number": "0a:0b"}), "certificate with serial 0a:0b not found."),
        (json!({"serial_number": "zz"}), "not a serial number"),
        (json!({"serial_number": root}), "adding issuer"),
        (json!({"certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}), "malformed"),
    ] {
        let refused = message(desk.write("revoke", body.clone()).await);
        assert!(refused.contains(expected), "{body}: {refused}");
    }
    let other = Desk::with_root().await;
    let (foreign, _) = other.leaf("a.example").await;
    assert!(message(desk.write("revoke", json!({ "certificate": foreign })).await).contains("not issued by"));
}

#[tokio::test]
async fn a_certificate_that_was_not_stored_is_revoked_by_itself() {
    let desk = Desk::with_root().await;
    desk.write("roles/fleeting", json!({"allow_any_name": true, "key_type": "any", "no_store": true})).await.unwrap();
    let csr = desk.p256_csr("/CN=a.example", "");
    let issued = desk.write("sign/fleeting", json!({ "csr": csr })).await.unwrap();
    let serial = text(&issued["serial_number"]);
    assert!(desk.write("revoke", json!({ "serial_number": serial })).await.is_err());
    desk.write("revoke", json!({"certificate": issued["certificate"]})).await.unwrap();
    assert!(crl_text(&desk).await.contains(&serial.replace(':', "").to_uppercase()));
    assert!(desk.read(&format!("cert/{serial}")).await.is_ok());
}

#[tokio::test]
async fn revocations_that_come_together_share_a_crl() {
    let desk = Desk::with_root().await;
    let mut serials = Vec::new();
    let csr = desk.p256_csr("/CN=a.example", "");
    for _ in 0..20 {
        serials.push(text(&desk.write("sign/any", json!({ "csr": csr })).await.unwrap()["serial_number"]));
    }
    let before = crl_number(&desk);
    let revoked = serials.iter().map(|serial| desk.write("revoke", json!({ "serial_number": serial })));
    for outcome in futures_util::future::join_all(revoked).await {
        assert_eq!(outcome.unwrap()["warnings"], json!([]));
    }
    assert!(crl_number(&desk) - before <= 3, "{} CRLs", crl_number(&desk) - before);
    let shown = crl_text(&desk).await.to_lowercase();
    assert!(serials.iter().all(|serial| shown.contains(&serial.replace(':', ""))));
    // CRLs are the least urgent class.
    assert!(desk.keys.get("ca").record.control.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn a_revocation_outlives_a_device_that_is_gone() {
    let desk = Desk::with_root().await;
    let (_, serial) = desk.leaf("a.example").await;
    let record = &desk.keys.get("ca").record;
    record.is_gone.store(true, Ordering::Relaxed);
    let answer = desk.write("revoke", json!({ "serial_number": serial })).await.unwrap();
    assert!(answer["warnings"].to_string().contains("the CRL could not be made yet"), "{answer}");
    let failed = Arc::clone(&desk.pki).maintain(desk.call()).await;
    assert!(matches!(failed, Err(Fault::KeyUnavailable { .. })));

    // After a restart the revocation is still known, and the next look at the clock puts it on a CRL.
    let after = desk.restarted();
    assert!(!crl_text(&after).await.contains(&serial.replace(':', "").to_uppercase()));
    let before = crl_number(&after);
    record.is_gone.store(false, Ordering::Relaxed);
    Arc::clone(&after.pki).maintain(after.call()).await.unwrap();
    assert!(crl_text(&after).await.contains(&serial.replace(':', "").to_uppercase()));
    assert!(crl_number(&after) > before);
}

#[tokio::test]
async fn a_wrong_signature_never_becomes_the_crl() {
    let desk = Desk::with_root().await;
    let before = desk.raw("crl").await;
    desk.keys.get("ca").record.lies.store(true, Ordering::Relaxed);
    assert!(matches!(desk.read("crl/rotate").await, Err(Fault::DeviceError { .. })));
    assert_eq!(desk.raw("crl").await, before);
}

#[tokio::test]
async fn crl_numbers_rise_across_rotations_and_restarts() {
    let desk = Desk::with_root().await;
    let mut last = crl_number(&desk);
    for _ in 0..3 {
        assert_eq!(desk.read("crl/rotate").await.unwrap()["success"], json!(true));
        assert!(crl_number(&desk) > last);
        last = crl_number(&desk);
    }
    let after = desk.restarted();
    assert_eq!(crl_number(&after), last);
    after.write("crl/rotate", json!({})).await.unwrap();
    assert!(crl_number(&after) > last);
}

#[tokio::test]
async fn a_crl_is_made_anew_at_half_its_life_and_not_before() {
    let desk = Desk::with_root().await;
    let crl = desk.crl().crl.load_full().unwrap();
    assert_eq!(crl.next_update - crl.this_update, 72 * 3600);
    assert!(!crl.is_aging(crl.this_update + 35 * 3600));
    assert!(crl.is_aging(crl.this_update + 36 * 3600));
    let before = crl_number(&desk);
    Arc::clone(&desk.pki).maintain(desk.call()).await.unwrap();
    assert_eq!(crl_number(&desk), before);
    let old = crate::engine::pki::crl::Crl {
        this_update: crl.this_update - 40 * 3600,
        next_update: crl.next_update - 40 * 3600,
        ..(*crl).clone()
    };
    desk.crl().crl.store(Some(Arc::new(old)));
    Arc::clone(&desk.pki).maintain(desk.call()).await.unwrap();
    assert!(crl_number(&desk) > before);
}

#[tokio::test]
async fn a_long_crl_is_made_off_the_worker_and_verifies() {
    let desk = Desk::with_root().await;
    {
        let own = desk.crl();
        let mut revoked = own.revoked(desk.whole());
        for index in 1..=5000_u32 {
            let serial = crate::engine::pki::serial::Serial::from_bytes(&index.to_be_bytes()).unwrap();
            revoked.add(serial, 1_800_000_000).unwrap();
        }
    }
    desk.read("crl/rotate").await.unwrap();
    let shown = crl_text(&desk).await;
    assert_eq!(shown.matches("Serial Number:").count(), 5000);
}

#[tokio::test]
async fn whoever_shows_the_private_key_may_have_its_certificate_revoked() {
    let desk = Desk::with_root().await;
    let kinds: [(&[&str], &str); 4] = [
        (&["rsa:2048"], "rsa"),
        (&["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "ec"),
        (&["ec", "-pkeyopt", "ec_paramgen_curve:P-521"], "ec"),
        (&["ed25519"], "pkey"),
    ];
    let mut other = desk.openssl(&["genpkey", "-algorithm", "ed25519"]);
    for (kind, older) in kinds {
        for form in ["pkey", older] {
            let csr = desk.csr(kind, "/CN=a.example", "");
            let issued = desk.write("sign/any", json!({ "csr": csr })).await.unwrap();
            let mut serial = json!({"serial_number": issued["serial_number"]});
            let older: &[&str] = if form == "rsa" { &["-traditional"] } else { &[] };
            let key = desk.openssl(&[&[form, "-in", "key.pem"][..], older].concat());
            for (wrong, expected) in
                [(other.as_str(), "is not that of"), ("", "is empty"), ("-----BEGIN PRIVATE KEY-----", "one PEM block")]
            {
                serial["private_key"] = wrong.into();
                assert!(message(desk.write("revoke-with-key", serial.clone()).await).contains(expected), "{expected}");
            }
            serial["private_key"] = key.as_str().into();
            let answer = desk.write("revoke-with-key", serial).await.unwrap();
            assert_eq!((&answer["state"], &answer["warnings"]), (&json!("revoked"), &json!([])), "{kind:?} {form}");
            other = key;
        }
    }
}
