//! Stories of `config/crl` and delta CRLs, judged by openssl.

use super::super::crl::Crl;
use super::*;

/// What openssl reads in a CRL that it has verified.
async fn crl_text(desk: &Desk, path: &str) -> String {
    desk.put("read.pem", &String::from_utf8(desk.raw(path).await.1).unwrap());
    desk.put("root.pem", &String::from_utf8(desk.raw("ca/pem").await.1).unwrap());
    desk.openssl(&["crl", "-in", "read.pem", "-CAfile", "root.pem", "-noout", "-text"])
}

async fn with_deltas() -> Desk {
    let desk = Desk::with_root().await;
    let urls = json!({"delta_crl_distribution_points": "http://ca.example/delta"});
    desk.write("config/urls", urls).await.unwrap();
    let config = json!({"auto_rebuild": true, "enable_delta": true, "delta_rebuild_interval": "1s", "expiry": "48h"});
    let answer = desk.write("config/crl", config).await.unwrap();
    assert_eq!((&answer["expiry"], &answer["enable_delta"]), (&json!("48h"), &json!(true)));
    desk.read("crl/rotate").await.unwrap();
    desk
}

fn lists(shown: &str, serial: &str) -> bool {
    shown.contains(&serial.replace(':', "").to_uppercase())
}

fn number_after(shown: &str, what: &str) -> u64 {
    let rest = shown.split_once(what).unwrap_or_else(|| panic!("no {what:?}: {shown}")).1;
    let digits = rest.lines().nth(1).unwrap().trim();
    digits.strip_prefix("0x").map_or_else(|| digits.parse(), |hex| u64::from_str_radix(hex, 16)).unwrap()
}

#[tokio::test]
async fn a_delta_crl_lists_what_the_complete_one_lacks() {
    let desk = with_deltas().await;
    let base = crl_text(&desk, "crl/pem").await;
    assert!(base.contains("Freshest CRL") && base.contains("http://ca.example/delta"), "{base}");
    let empty = crl_text(&desk, "crl/delta/pem").await;
    assert!(empty.contains("Delta CRL Indicator: critical") && !empty.contains("Freshest"), "{empty}");
    assert!(empty.contains("No Revoked Certificates"), "{empty}");
    let (leaf, serial) = desk.leaf("a.example").await;
    desk.write("revoke", json!({"serial_number": serial})).await.unwrap();
    // The complete one waits for its time.
    assert_eq!(crl_text(&desk, "crl/pem").await, base);
    desk.read("crl/rotate-delta").await.unwrap();
    let delta = crl_text(&desk, "crl/delta/pem").await;
    assert!(lists(&delta, &serial), "{delta}");
    let base_number = number_after(&base, "CRL Number");
    assert_eq!(number_after(&delta, "Delta CRL Indicator"), base_number);
    assert!(number_after(&delta, "X509v3 CRL Number") > number_after(&empty, "X509v3 CRL Number"));
    // openssl puts both together.
    desk.put("leaf.pem", &leaf);
    desk.put("base.pem", &String::from_utf8(desk.raw("crl/pem").await.1).unwrap());
    let both = ["verify", "-crl_check", "-use_deltas", "-extended_crl", "-CAfile", "root.pem", "-CRLfile", "base.pem"];
    let told = desk.try_openssl(&[&both[..], &["-CRLfile", "read.pem", "leaf.pem"]].concat());
    assert!(told.as_ref().is_err_and(|told| told.contains("certificate revoked")), "{told:?}");
    assert_eq!(desk.published("delta-crl.der"), desk.raw("crl/delta").await.1);
    assert_eq!(
        desk.read("cert/delta-crl").await.unwrap()["certificate"],
        desk.read("issuer/default/crl/delta").await.unwrap()["crl"]
    );

    // The next complete one has it, and its delta CRL is empty again; so they are after a restart.
    desk.read("crl/rotate").await.unwrap();
    assert!(lists(&crl_text(&desk, "crl/pem").await, &serial));
    let last = crl_text(&desk, "crl/delta/pem").await;
    assert!(!lists(&last, &serial) && number_after(&last, "Delta CRL Indicator") > base_number);
    let after = desk.restarted();
    assert_eq!(crl_text(&after, "crl/delta/pem").await, last);
    let (_, second) = after.leaf("b.example").await;
    after.write("revoke", json!({"serial_number": second})).await.unwrap();
    let again = after.restarted();
    again.read("crl/rotate-delta").await.unwrap();
    let delta = crl_text(&again, "crl/delta/pem").await;
    assert!(lists(&delta, &second), "{delta}");
    assert!(number_after(&delta, "X509v3 CRL Number") > number_after(&last, "X509v3 CRL Number"));
}

#[tokio::test]
async fn the_date_of_a_crl_never_goes_back_with_the_clock() {
    let desk = with_deltas().await;
    // Both are of a clock that was ahead, and has been set right since.
    let own = desk.crl();
    let ahead = own.crl.load_full().unwrap().shown + 100_000;
    for place in [&own.crl, &own.delta] {
        let crl = Crl::clone(&place.load_full().unwrap());
        place.store(Some(Arc::new(Crl { shown: ahead, ..crl })));
    }
    for more in 1..3 {
        desk.read("crl/rotate").await.unwrap();
        desk.read("crl/rotate-delta").await.unwrap();
        let [complete, delta] = [&own.crl, &own.delta].map(|place| place.load_full().unwrap().shown);
        assert!(complete == ahead + more && delta >= ahead + more, "{ahead}: {complete} {delta}");
    }
}

#[tokio::test]
async fn crls_are_made_by_the_clock_where_that_is_asked() {
    let desk = with_deltas().await;
    let (_, serial) = desk.leaf("a.example").await;
    desk.write("revoke", json!({"serial_number": serial})).await.unwrap();
    let own = desk.crl();
    let config = desk.pki.crl_config.load_full();
    assert!(!own.is_due(&config, desk.whole()) && !lists(&crl_text(&desk, "crl/pem").await, &serial));
    // The delta CRL has waited for its interval.
    let delta = own.delta.load_full().unwrap();
    let old = crate::engine::pki::crl::Crl { this_update: delta.this_update - 1, ..(*delta).clone() };
    own.delta.store(Some(Arc::new(old)));
    Arc::clone(&desk.pki).maintain(desk.call()).await.unwrap();
    assert!(lists(&crl_text(&desk, "crl/delta/pem").await, &serial));
    assert!(!own.is_delta_due(&config, desk.whole()));
    // Within the time of grace the complete one is made anew.
    let crl = own.crl.load_full().unwrap();
    assert_eq!(crl.next_update - crl.this_update, 48 * 3600);
    let old = crate::engine::pki::crl::Crl { next_update: crl.next_update - 36 * 3600, ..(*crl).clone() };
    own.crl.store(Some(Arc::new(old)));
    Arc::clone(&desk.pki).maintain(desk.call()).await.unwrap();
    assert!(lists(&crl_text(&desk, "crl/pem").await, &serial));
}

#[tokio::test]
async fn crls_that_are_disabled_are_not_made_and_the_bound_on_entries_holds() {
    let desk = Desk::with_root().await;
    let (_, first) = desk.leaf("a.example").await;
    let (_, second) = desk.leaf("b.example").await;
    assert!(message(desk.read("crl/rotate-delta").await).contains("enable_delta"));
    desk.write("config/crl", json!({"disable": true, "max_crl_entries": 1})).await.unwrap();
    let before = desk.raw("crl").await;
    let answer = desk.write("revoke", json!({"serial_number": first})).await.unwrap();
    assert_eq!((answer["warnings"].clone(), desk.raw("crl").await), (json!([]), before));
    assert!(message(desk.read("crl/rotate").await).contains("disable is set"));
    assert!(message(desk.write("revoke", json!({"serial_number": second})).await).contains("max_crl_entries"));
    let revoked = data(desk.send(Verb::List, "certs/revoked", json!({})).await.unwrap());
    assert_eq!(revoked["keys"], json!([first]));
    let after = desk.restarted();
    assert_eq!(after.read("config/crl").await.unwrap()["max_crl_entries"], json!(1));
    after.write("config/crl", json!({"disable": false, "max_crl_entries": -1})).await.unwrap();
    after.write("revoke", json!({"serial_number": second})).await.unwrap();
    assert!(lists(&crl_text(&after, "crl/pem").await, &first));
}
