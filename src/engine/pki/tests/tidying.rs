//! Stories of tidying. What has ended is planted: a certificate of today's with an end in the past.

use std::time::Instant;

use super::super::intents::Intent;
use super::super::revocation::Revocation;
use super::super::serial::Serial;
use super::super::{pem, validity};
use super::*;
use crate::store::Write;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

impl Desk {
    /// Stores certificates under these serial numbers that ended so long ago.
    async fn plant(&self, serials: impl IntoIterator<Item = u32>, ago: u64) {
        let end = validity::encode_time(validity::now() - ago).unwrap();
        let (leaf, _) = self.leaf("planted.example").await;
        let mut der = pem::decode(&leaf, &[pem::CERTIFICATE]).unwrap();
        let x509 = super::super::x509::X509::parse(&der, "it").unwrap();
        let present = validity::encode_time(x509.not_after).unwrap();
        let at = der.windows(present.len()).position(|bytes| bytes == present).unwrap();
        der[at..at + present.len()].copy_from_slice(&end);
        let put =
            |index| Write::Put { key: self.pki.records.certificate(&serial(index)), version: 1, value: der.clone() };
        self.store.commit_now(serials.into_iter().map(put).collect()).unwrap();
    }

    /// Revokes what was planted, while it was still good, as an earlier version noted it.
    fn revoke_planted(&self, serials: impl IntoIterator<Item = u32>) {
        let issuer = Arc::clone(self.pki.authority.load().default_issuer().unwrap());
        let time = validity::now() - 365 * DAY;
        let own = self.pki.crls.of(issuer.signer());
        for index in serials {
            let (issuer, signer) = (issuer.id().to_owned(), issuer.signer().clone());
            let revocation = Revocation { time, issuer, signer, not_after: None };
            let write = Write::put_record(self.pki.records.revocation(&serial(index)), &revocation).unwrap();
            self.store.commit_now(vec![write]).unwrap();
            own.revoked(self.whole()).add(serial(index), time).unwrap();
        }
    }

    fn count(&self, kind: &str) -> usize {
        self.store.list(self.pki.records.namespace(), &self.pki.records.collection(kind), None, 10_000).unwrap().len()
    }

    fn has(&self, index: u32) -> (bool, bool, bool) {
        let records = &self.pki.records;
        (
            self.store.get(&records.certificate(&serial(index))).unwrap().is_some(),
            self.store.get(&records.revocation(&serial(index))).unwrap().is_some(),
            self.pki.crls.time(&serial(index)).unwrap().is_some(),
        )
    }

    /// Tidies to the end; the status.
    pub(super) async fn tidy(&self, body: Value) -> Value {
        match self.send(Verb::Write, "tidy", body).await.unwrap() {
            Response::Accepted { warnings } => assert!(warnings[0].contains("successfully started"), "{warnings:?}"),
            other => panic!("not begun: {other:?}"),
        }
        self.tidied().await
    }

    /// Waits until none is under way; the status.
    async fn tidied(&self) -> Value {
        let begun = Instant::now();
        loop {
            let status = self.read("tidy-status").await.unwrap();
            if !["Running", "Cancelling"].contains(&status["state"].as_str().unwrap()) {
                return status;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{status}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn crl_text(&self, path: &str) -> String {
        self.put("crl.pem", &String::from_utf8(self.raw(path).await.1).unwrap());
        self.put("root.pem", &String::from_utf8(self.raw("ca/pem").await.1).unwrap());
        self.openssl(&["crl", "-in", "crl.pem", "-CAfile", "root.pem", "-noout", "-text"])
    }

    fn crl_number(&self) -> u64 {
        self.crl().crl.load().as_ref().map_or(0, |crl| crl.number)
    }
}

fn serial(index: u32) -> Serial {
    Serial::from_bytes(&(0x7000_0000 + index).to_be_bytes()).unwrap()
}

fn lists(shown: &str, index: u32) -> bool {
    shown.contains(&format!("Serial Number: {:X}", 0x7000_0000 + index))
}

#[tokio::test]
async fn what_has_ended_leaves_the_store_and_nothing_else_does() {
    let desk = Desk::with_root().await;
    desk.plant(0..1300, 73 * HOUR).await;
    desk.plant(1300..1303, 71 * HOUR).await;
    let intent = |not_after| Intent { serial: "0a".into(), issuer: "i".into(), not_after, time: 1 };
    for (name, end) in [("0a", validity::now() - 73 * HOUR), ("0b", validity::now() - 71 * HOUR)] {
        let write = Write::put_record(desk.pki.records.unfinished(name), &intent(end)).unwrap();
        desk.store.commit_now(vec![write]).unwrap();
    }
    let before = desk.count("certs");
    let idle = desk.read("tidy-status").await.unwrap();
    assert_eq!((&idle["state"], &idle["safety_buffer"]), (&json!("Inactive"), &Value::Null));
    assert_eq!(idle["internal_backend_uuid"], desk.mount.uuid);
    // Another part of the mount is tidied, and this is not touched.
    let status = desk.tidy(json!({"tidy_revoked_certs": true})).await;
    assert_eq!((&status["state"], desk.count("certs")), (&json!("Finished"), before));
    let status = desk.tidy(json!({"tidy_cert_store": true})).await;
    assert_eq!((&status["state"], &status["cert_store_deleted_count"]), (&json!("Finished"), &json!(1300)));
    assert_eq!((&status["unfinished_deleted_count"], &status["safety_buffer"]), (&json!(1), &json!(259_200)));
    assert_eq!((&status["message"], &status["error"]), (&Value::Null, &Value::Null));
    assert!(status["time_started"].as_str().unwrap() <= status["time_finished"].as_str().unwrap());
    assert_eq!((desk.count("certs"), desk.count("unfinished")), (before - 1300, 1));
    assert!(desk.has(1300).0 && !desk.has(0).0);
    let metrics = desk.pki.telemetry.render();
    assert!(metrics.contains("keyway_certificates_tidied_total 1300"), "{metrics}");
    assert!(metrics.contains("keyway_tidy_runs_total{result=\"finished\"} 2"), "{metrics}");
    let status = desk.tidy(json!({"tidy_cert_store": true, "safety_buffer": "1s"})).await;
    assert_eq!((&status["cert_store_deleted_count"], desk.count("unfinished")), (&json!(3), 0));
    // When it last ran outlives a restart.
    let after = desk.restarted().read("tidy-status").await.unwrap();
    assert_eq!(after["state"], "Inactive");
    assert_eq!(after["last_auto_tidy_finished"], status["last_auto_tidy_finished"]);
}

#[tokio::test]
async fn nothing_is_removed_by_a_clock_that_went_forward() {
    let desk = Desk::with_root().await;
    desk.plant(0..2, 73 * HOUR).await;
    desk.pki.tidy.jump(74 * HOUR);
    let status = desk.tidy(json!({"tidy_cert_store": true})).await;
    assert_eq!((&status["state"], desk.has(0).0), (&json!("Error"), true));
    assert!(text(&status["error"]).contains("clock went forward by"), "{status}");
    // Whoever leaves more time than that has nothing to fear, nor has anybody after a restart.
    desk.tidy(json!({"tidy_cert_store": true, "safety_buffer": "75h"})).await;
    let status = desk.restarted().tidy(json!({"tidy_cert_store": true})).await;
    assert_eq!((&status["state"], desk.has(0).0), (&json!("Finished"), false));
}

#[tokio::test]
async fn revocations_leave_with_their_certificates_and_the_crl_is_made_anew() {
    let desk = Desk::with_root().await;
    desk.plant(0..700, 73 * HOUR).await;
    desk.plant(700..702, 71 * HOUR).await;
    desk.revoke_planted(0..702);
    let (_, good) = desk.leaf("good.example").await;
    desk.write("revoke", json!({ "serial_number": good })).await.unwrap();
    let before = desk.crl_number();
    assert!(lists(&desk.crl_text("crl/pem").await, 0));
    let status = desk.tidy(json!({"tidy_revoked_certs": true})).await;
    assert_eq!((&status["state"], &status["revoked_cert_deleted_count"]), (&json!("Finished"), &json!(700)));
    assert_eq!((desk.has(0), desk.has(700)), ((false, false, false), (true, true, true)));
    let shown = desk.crl_text("crl/pem").await;
    assert_eq!(shown.matches("Serial Number:").count(), 3);
    assert!(lists(&shown, 701) && shown.contains(&good.replace(':', "").to_uppercase()), "{shown}");
    // It was on one CRL after its end, so one more is enough.
    assert_eq!(desk.crl_number(), before + 1);
    let after = desk.restarted();
    assert_eq!((after.crl().revoked(after.whole()).len(), after.crl_number()), (3, before + 1));
    assert!(!after.crl().is_due(&after.pki.crl_config.load(), after.whole()));
    // With nothing to remove, no CRL is signed.
    after.tidy(json!({"tidy_revocation_list": true})).await;
    assert_eq!(after.crl_number(), before + 1);
}

#[tokio::test]
async fn a_revocation_stays_until_a_complete_crl_made_after_its_end_has_it() {
    let desk = Desk::with_root().await;
    desk.read("crl/rotate").await.unwrap();
    desk.plant(0..2, 73 * HOUR).await;
    desk.revoke_planted(0..2);
    // By the clock: it waits for the next scheduled one. Delta CRLs list it until then.
    let config = json!({"auto_rebuild": true, "enable_delta": true, "delta_rebuild_interval": "1s"});
    desk.write("config/crl", config).await.unwrap();
    let before = desk.crl_number();
    let status = desk.tidy(json!({"tidy_revoked_certs": true})).await;
    assert_eq!((&status["state"], &status["revoked_cert_deleted_count"]), (&json!("Finished"), &json!(0)));
    assert_eq!((desk.has(0), desk.crl_number()), ((true, true, true), before));
    desk.read("crl/rotate-delta").await.unwrap();
    assert!(lists(&desk.crl_text("crl/delta/pem").await, 0));
    desk.read("crl/rotate").await.unwrap();
    let listed = desk.crl_number();
    let status = desk.tidy(json!({"tidy_revoked_certs": true})).await;
    assert_eq!((&status["revoked_cert_deleted_count"], desk.has(0)), (&json!(2), (false, false, false)));
    // The clock makes the next one, which is without it; a delta CRL says nothing of it.
    assert_eq!(desk.crl_number(), listed);
    desk.read("crl/rotate-delta").await.unwrap();
    assert!(!lists(&desk.crl_text("crl/delta/pem").await, 0));
    desk.read("crl/rotate").await.unwrap();
    assert!(!lists(&desk.crl_text("crl/pem").await, 0));
}

#[tokio::test]
async fn where_each_revocation_makes_a_crl_the_one_it_lacks_is_made_first() {
    let desk = Desk::with_root().await;
    desk.read("crl/rotate").await.unwrap();
    desk.plant(0..600, 73 * HOUR).await;
    desk.revoke_planted(0..600);
    // None has it yet, and none can be made: they stay.
    let record = &desk.keys.get("ca").record;
    record.is_gone.store(true, std::sync::atomic::Ordering::Relaxed);
    let status = desk.tidy(json!({"tidy_revoked_certs": true})).await;
    assert_eq!((&status["state"], desk.has(0)), (&json!("Error"), (true, true, true)));
    assert!(status["error"].as_str().is_some_and(|told| !told.is_empty()));
    record.is_gone.store(false, std::sync::atomic::Ordering::Relaxed);
    let before = desk.crl_number();
    let status = desk.tidy(json!({"tidy_revoked_certs": true, "tidy_revoked_cert_issuer_associations": true})).await;
    assert_eq!((&status["state"], &status["revoked_cert_deleted_count"]), (&json!("Finished"), &json!(600)));
    // One number went with the failure.
    assert_eq!((desk.has(0), desk.crl_number()), ((false, false, false), before + 3));
    // Where no CRLs are made, none is waited for.
    desk.write("config/crl", json!({"disable": true})).await.unwrap();
    desk.plant(0..2, 73 * HOUR).await;
    desk.revoke_planted(0..2);
    let status = desk.tidy(json!({"tidy_revoked_certs": true})).await;
    assert_eq!((&status["state"], desk.has(0)), (&json!("Finished"), (false, false, false)));
}

#[tokio::test]
async fn a_revocation_outlives_its_certificate_and_knows_its_end() {
    let desk = Desk::with_root().await;
    desk.plant(0..2, 73 * HOUR).await;
    desk.revoke_planted(0..2);
    desk.read("crl/rotate").await.unwrap();
    let status = desk.tidy(json!({"tidy_cert_store": true})).await;
    assert_eq!((&status["cert_store_deleted_count"], desk.has(0)), (&json!(2), (false, true, true)));
    let status = desk.restarted().tidy(json!({"tidy_revoked_certs": true})).await;
    assert_eq!(status["revoked_cert_deleted_count"], json!(2));
    // One of which nobody knows the end stays, and so does a record that is no certificate; the rest goes.
    desk.plant(3..6, 73 * HOUR).await;
    let key = desk.pki.records.certificate(&serial(3));
    desk.store.commit_now(vec![Write::Put { key, version: 1, value: vec![0x30, 0] }]).unwrap();
    desk.revoke_planted(5..8);
    desk.read("crl/rotate").await.unwrap();
    let status = desk.tidy(json!({"tidy_cert_store": true, "tidy_revoked_certs": true})).await;
    assert_eq!(status["state"], "Finished");
    let found = [3, 4, 5, 6].map(|index| desk.has(index));
    assert_eq!(found, [(true, false, false), (false, false, false), (false, false, false), (false, true, true)]);
    // A new revocation says by itself when its certificate ends.
    let (leaf, number) = desk.leaf("a.example").await;
    desk.write("revoke", json!({ "serial_number": number })).await.unwrap();
    let key = desk.pki.records.revocation(&Serial::parse(&number).unwrap());
    let end = desk.store.read::<Revocation>(&key).unwrap().unwrap().not_after;
    let der = pem::decode(&leaf, &[pem::CERTIFICATE]).unwrap();
    assert_eq!(end, super::super::x509::not_after(&der));
}

#[tokio::test]
async fn what_was_killed_in_the_middle_is_finished_by_the_next() {
    let desk = Desk::with_root().await;
    desk.plant(0..4, 73 * HOUR).await;
    desk.revoke_planted(0..4);
    desk.read("crl/rotate").await.unwrap();
    let before = desk.crl_number();
    // A step was committed, and the daemon ended before memory and the CRL followed.
    let gone = [0, 1]
        .into_iter()
        .flat_map(|index| [desk.pki.records.revocation(&serial(index)), desk.pki.records.certificate(&serial(index))]);
    desk.store.commit_now(gone.map(|key| Write::Delete { key }).collect()).unwrap();
    let after = desk.restarted();
    Arc::clone(&after.pki).maintain(after.call()).await.unwrap();
    let shown = after.crl_text("crl/pem").await;
    assert!(!lists(&shown, 0) && lists(&shown, 2) && after.crl_number() == before + 1, "{shown}");
    let status = after.tidy(json!({"tidy_revoked_certs": true})).await;
    assert_eq!((&status["revoked_cert_deleted_count"], after.has(2)), (&json!(2), (false, false, false)));
    assert!(after.crl_text("crl/pem").await.contains("No Revoked Certificates"));
}

#[tokio::test]
async fn one_runs_at_a_time_and_stops_when_it_is_told_to() {
    let desk = Desk::with_root().await;
    desk.plant(0..1100, 73 * HOUR).await;
    let idle = desk.write("tidy-cancel", json!({})).await.unwrap();
    assert!(idle["warnings"][0].as_str().unwrap().contains("none is currently running"));
    let long = json!({"tidy_cert_store": true, "pause_duration": "1h"});
    assert!(matches!(desk.send(Verb::Write, "tidy", long.clone()).await.unwrap(), Response::Accepted { .. }));
    let again = desk.write("tidy", long.clone()).await.unwrap();
    assert_eq!(again["warnings"], json!(["Tidy operation already in progress."]));
    assert_eq!(desk.read("tidy-status").await.unwrap()["pause_duration"], "1h0m0s");
    assert_eq!(desk.write("tidy-cancel", json!({})).await.unwrap()["state"], "Cancelling");
    let status = desk.tidied().await;
    assert_eq!((&status["state"], status["error"].is_null()), (&json!("Cancelled"), true));
    // A mount that is disabled, or a daemon that drains, has none any more.
    assert!(matches!(desk.send(Verb::Write, "tidy", long.clone()).await.unwrap(), Response::Accepted { .. }));
    Engine::stop(&*desk.pki);
    assert_eq!(desk.tidied().await["state"], "Cancelled");
    assert_eq!(desk.write("tidy", long).await.unwrap()["warnings"].as_array().unwrap().len(), 1);
    assert!(desk.has(1099).0);
}

#[tokio::test]
async fn expired_issuers_go_but_never_the_default() {
    let desk = Desk::with_root().await;
    let ended = |name: &str, from: &str, to: &str| {
        let request = ["req", "-x509", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        let subject = format!("/CN={name}");
        let more = ["-keyout", "own.key", "-subj", &subject, "-out", "own.pem"];
        desk.openssl(&[&request[..], &more].concat());
        let csr = ["x509", "-x509toreq", "-in", "own.pem", "-signkey", "own.key", "-out", "own.csr"];
        desk.openssl(&csr);
        desk.put(
            "ca.cnf",
            "[ca]\ndefault_ca=c\n[c]\ndatabase=index.txt\nnew_certs_dir=.\nrand_serial=yes\n\
            default_md=sha256\npolicy=p\nunique_subject=no\nx509_extensions=e\n[p]\ncommonName=supplied\n\
            [e]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash",
        );
        std::fs::write(desk.folder.path().join("index.txt"), "").unwrap();
        let sign = ["ca", "-batch", "-selfsign", "-config", "ca.cnf", "-keyfile", "own.key", "-in", "own.csr"];
        desk.openssl(&[&sign[..], &["-startdate", from, "-enddate", to, "-notext", "-out", "ca.pem"]].concat());
        std::fs::read_to_string(desk.folder.path().join("ca.pem")).unwrap()
    };
    let old = ended("Old", "20100101000000Z", "20200101000000Z");
    let older = ended("Older", "20090101000000Z", "20190101000000Z");
    let mut ids = Vec::new();
    for certificate in [old, older] {
        let imported = desk.write("issuers/import/cert", json!({ "pem_bundle": certificate })).await.unwrap();
        ids.push(text(&imported["imported_issuers"][0]));
    }
    desk.write("config/issuers", json!({"default": ids[0]})).await.unwrap();
    let status = desk.tidy(json!({"tidy_expired_issuers": true, "issuer_safety_buffer": "876000h"})).await;
    assert_eq!((&status["state"], &status["expired_issuers_deleted_count"]), (&json!("Finished"), &json!(0)));
    let keys = data(desk.send(Verb::List, "keys", json!({})).await.unwrap());
    let status = desk.tidy(json!({"tidy_expired_issuers": true})).await;
    assert_eq!((&status["state"], &status["expired_issuers_deleted_count"]), (&json!("Finished"), &json!(1)));
    let left = data(desk.send(Verb::List, "issuers", json!({})).await.unwrap());
    assert_eq!(left["keys"].as_array().unwrap().len(), 2);
    assert!(left["keys"].to_string().contains(&ids[0]) && !left["keys"].to_string().contains(&ids[1]));
    assert_eq!(data(desk.send(Verb::List, "keys", json!({})).await.unwrap()), keys);
}

#[tokio::test]
async fn revocations_find_an_issuer_of_their_signer_again() {
    let desk = Desk::with_root().await;
    let (_, number) = desk.leaf("a.example").await;
    desk.write("revoke", json!({ "serial_number": number })).await.unwrap();
    let root = String::from_utf8(desk.raw("ca/pem").await.1).unwrap();
    desk.send(Verb::Delete, "issuer/default", json!({})).await.unwrap();
    let status = desk.tidy(json!({"tidy_revoked_cert_issuer_associations": true})).await;
    assert_eq!((&status["state"], &status["missing_issuer_cert_count"]), (&json!("Finished"), &json!(1)));
    let imported = desk.write("issuers/import/cert", json!({ "pem_bundle": root })).await.unwrap();
    let status = desk.tidy(json!({"tidy_revoked_cert_issuer_associations": true})).await;
    assert_eq!(status["missing_issuer_cert_count"], json!(1));
    let key = desk.pki.records.revocation(&Serial::parse(&number).unwrap());
    let issuer = desk.store.read::<Revocation>(&key).unwrap().unwrap().issuer;
    assert_eq!(json!([issuer]), imported["imported_issuers"]);
    let status = desk.tidy(json!({"tidy_revoked_cert_issuer_associations": true})).await;
    assert_eq!(status["missing_issuer_cert_count"], json!(0));
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_and_what_is_not_here_does_nothing() {
    let desk = Desk::with_root().await;
    for (body, told) in [
        (json!({"safety_buffer": 0}), "safety_buffer must be greater than zero"),
        (json!({"revocation_queue_safety_buffer": 0}), "revocation_queue_safety_buffer must be greater"),
        (json!({"tidy_cert_metadata": true}), "Vault Enterprise"),
        (json!({"tidy_cert_store": "perhaps"}), "true or false"),
    ] {
        let refused = message(desk.write("tidy", body.clone()).await);
        assert!(refused.contains(told), "{body}: {refused}");
    }
    match desk.send(Verb::Write, "tidy", json!({"x": 1})).await.unwrap() {
        Response::Accepted { warnings } => {
            assert!(warnings[0].contains("[x]") && warnings[1].contains("no tidy operations were set"), "{warnings:?}");
        }
        other => panic!("{other:?}"),
    }
    desk.tidied().await;
    let elsewhere = json!({"tidy_acme": true, "tidy_revocation_queue": true, "tidy_cross_cluster_revoked_certs": true,
        "tidy_move_legacy_ca_bundle": true, "tidy_cmpv2_nonce_store": true});
    let status = desk.tidy(elsewhere).await;
    assert_eq!((&status["state"], &status["tidy_acme"]), (&json!("Finished"), &json!(true)));
}

async fn maintain(desk: &Desk) {
    Arc::clone(&desk.pki).maintain(desk.call()).await.unwrap();
}

#[tokio::test]
async fn it_comes_by_the_clock_and_restarts_neither_hasten_nor_postpone_it() {
    let desk = Desk::with_root().await;
    desk.plant(0..3, 73 * HOUR).await;
    assert!(message(desk.write("config/auto-tidy", json!({"enabled": true})).await).contains("no tidy operations"));
    let config = json!({"enabled": true, "tidy_cert_store": true, "interval_duration": "12h"});
    let answer = desk.write("config/auto-tidy", config).await.unwrap();
    assert_eq!((&answer["enabled"], &answer["interval_duration"]), (&json!(true), &json!(43_200)));
    // The interval begins now.
    maintain(&desk).await;
    assert_eq!(desk.read("tidy-status").await.unwrap()["state"], "Inactive");
    desk.pki.tidy.age(11 * HOUR);
    maintain(&desk).await;
    assert_eq!(desk.read("tidy-status").await.unwrap()["state"], "Inactive");
    desk.pki.tidy.age(HOUR + 1);
    maintain(&desk).await;
    let status = desk.tidied().await;
    assert_eq!((&status["state"], &status["cert_store_deleted_count"]), (&json!("Finished"), &json!(3)));
    // It ran, so the next one waits again, also after a restart; a new mount waits a while whatever is due.
    desk.plant(0..3, 73 * HOUR).await;
    maintain(&desk).await;
    assert_eq!(desk.tidied().await["time_started"], status["time_started"]);
    let after = desk.restarted();
    assert_eq!(after.read("config/auto-tidy").await.unwrap()["tidy_cert_store"], json!(true));
    maintain(&after).await;
    assert_eq!(after.read("tidy-status").await.unwrap()["state"], "Inactive");
    let last = super::super::tidy::LastTidy { time: validity::now() - 13 * HOUR };
    after.store.commit_now(vec![Write::put_record(after.pki.records.last_tidy(), &last).unwrap()]).unwrap();
    let again = after.restarted();
    maintain(&again).await;
    assert_eq!(again.read("tidy-status").await.unwrap()["state"], "Inactive");
    again.pki.tidy.age(900);
    maintain(&again).await;
    assert_eq!(again.tidied().await["cert_store_deleted_count"], json!(3));
    let last = again.store.read::<super::super::tidy::LastTidy>(&again.pki.records.last_tidy()).unwrap().unwrap();
    assert!(last.time + HOUR > validity::now());
}

/// Waits until the counts are whole; the status.
async fn counted(desk: &Desk) -> Value {
    let begun = Instant::now();
    loop {
        maintain(desk).await;
        let status = desk.read("tidy-status").await.unwrap();
        if status["warnings"] == json!([]) {
            return status;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{status}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn certificates_are_counted_where_that_is_asked() {
    let desk = Desk::with_root().await;
    desk.plant(0..10, 73 * HOUR).await;
    let of =
        |status: &Value| [&status["current_cert_store_count"], &status["current_revoked_cert_count"]].map(Value::clone);
    assert_eq!(of(&counted(&desk).await), [Value::Null, Value::Null]);
    let refused = desk.write("config/auto-tidy", json!({"publish_stored_certificate_count_metrics": true})).await;
    assert!(message(refused).contains("without first maintaining"));
    let both = json!({"maintain_stored_certificate_counts": true, "publish_stored_certificate_count_metrics": true});
    desk.write("config/auto-tidy", both).await.unwrap();
    let before = desk.count("certs") as u64;
    assert_eq!(of(&counted(&desk).await), [json!(before), json!(0)]);
    let (_, serial) = desk.leaf("a.example").await;
    desk.write("revoke", json!({ "serial_number": serial })).await.unwrap();
    assert_eq!(of(&counted(&desk).await), [json!(before + 1), json!(1)]);
    desk.revoke_planted(0..2);
    desk.tidy(json!({"tidy_revoked_certs": true})).await;
    desk.tidy(json!({"tidy_cert_store": true})).await;
    assert_eq!(of(&counted(&desk).await), [json!(desk.count("certs")), json!(1)]);
    assert_eq!(desk.count("certs") as u64, before + 1 - 10);
    let shown = format!("keyway_certificates_stored{{namespace=\"root\",mount=\"pki/\"}} {}", desk.count("certs"));
    assert!(desk.pki.telemetry.render().contains(&shown), "{}", desk.pki.telemetry.render());
    let after = desk.restarted();
    assert_eq!(of(&counted(&after).await), [json!(desk.count("certs")), json!(1)]);
    after.write("config/auto-tidy", json!({"publish_stored_certificate_count_metrics": false})).await.unwrap();
    maintain(&after).await;
    assert!(!after.pki.telemetry.render().contains("keyway_certificates_stored{"));
}
