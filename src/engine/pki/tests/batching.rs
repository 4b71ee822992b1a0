//! `sign/:role` for many requests at once.

use std::sync::atomic::Ordering;
use std::task::Poll;

use bytes::Bytes;
use serde_json::json;

use super::super::pem;
use super::*;
use crate::engine::holding;
use crate::model::{CertificatesRequest, Data, IssuedCertificate};
use crate::store::RecordKey;

fn der(csr: &str) -> Bytes {
    pem::decode(csr, &pem::REQUESTS).unwrap().into()
}

impl Desk {
    pub(super) fn csrs(&self, names: &[&str]) -> Vec<Bytes> {
        names.iter().map(|name| der(&self.p256_csr(&format!("/CN={name}"), ""))).collect()
    }

    fn batch(&self, role: &str, csrs: Vec<Bytes>, data: Value) -> crate::engine::Answer {
        let data: Data = data.as_object().cloned().unwrap();
        let request = CertificatesRequest { mount: "pki".into(), role: role.into(), csrs, data };
        Arc::clone(&self.pki).sign_certificates(self.call(), request)
    }

    pub(super) async fn batched(
        &self,
        role: &str,
        csrs: Vec<Bytes>,
    ) -> (Vec<Result<IssuedCertificate, Fault>>, Vec<Bytes>) {
        match self.batch(role, csrs, json!({})).await.unwrap() {
            Outcome::Certificates { results, chain } => (results, chain),
            other => panic!("no certificates: {other:?}"),
        }
    }

    fn stored(&self, serial: &str) -> Option<Vec<u8>> {
        let serial = super::super::serial::Serial::parse(serial).unwrap();
        self.store.get(&self.pki.records.certificate(&serial)).unwrap().map(|stored| stored.value)
    }

    fn names(&self, kind: &str) -> Vec<String> {
        let records = &self.pki.records;
        self.store.list(records.namespace(), &records.collection(kind), None, 1000).unwrap()
    }

    fn intents(&self) -> Vec<RecordKey> {
        self.names("intents").iter().map(|name| self.pki.records.intents(name)).collect()
    }
}

#[tokio::test]
async fn each_request_is_answered_for_itself_and_in_its_place() {
    let desk = Desk::with_root().await;
    desk.write("roles/web", json!({"allowed_domains": "example.com", "allow_subdomains": true, "key_type": "any"}))
        .await
        .unwrap();
    let mut csrs = desk.csrs(&["a.example.com", "a.elsewhere.org", "b.example.com", "c.example.com"]);
    csrs.insert(3, Bytes::from_static(b"no request"));
    let rsa = desk.csr(&["rsa:2048"], "/CN=d.example.com", "");
    csrs.push(der(&rsa));
    let (results, chain) = desk.batched("web", csrs).await;
    let (_, root) = desk.raw("ca").await;
    assert_eq!(chain, [root]);
    let said: Vec<String> =
        results.iter().map(|result| result.as_ref().map_or_else(Fault::to_string, |_| String::new())).collect();
    for (place, expected) in ["", "elsewhere.org", "", "malformed", "", ""].iter().enumerate() {
        assert!(said[place].contains(expected) && said[place].is_empty() == expected.is_empty(), "{place}: {said:?}");
    }
    for (place, name) in [(0, "a.example.com"), (2, "b.example.com"), (4, "c.example.com"), (5, "d.example.com")] {
        let issued = results[place].as_ref().unwrap();
        assert!(issued.chain.is_empty());
        let certificate = pem::encode(pem::CERTIFICATE, &issued.certificate).unwrap();
        desk.verify(&certificate).await.unwrap();
        assert!(desk.text(&certificate).contains(&format!("DNS:{name}")), "{place}");
        assert_eq!(desk.stored(&issued.serial).unwrap(), issued.certificate);
    }
    let key = desk.keys.get("ca");
    assert_eq!(key.record.bulk.load(Ordering::Relaxed), 4, "a batch is bulk");
}

#[tokio::test]
async fn a_batch_shares_its_records() {
    let desk = Desk::with_root().await;
    let one = desk.csrs(&["a.example"]).remove(0);
    let earlier = desk.intents().len();
    let before = desk.store.stats();
    let (results, _) = desk.batched("any", vec![one; 64]).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let after = desk.store.stats();
    assert_eq!(after.commits - before.commits, 2, "one of what is intended, one of the certificates");
    // The next one to be written takes it away.
    assert!(desk.intents().len() <= earlier + 1);
    assert!(desk.names("unfinished").is_empty());
}

#[tokio::test]
async fn what_all_have_in_common_is_refused_for_all() {
    let desk = Desk::with_root().await;
    let csrs = desk.csrs(&["a.example"]);
    for (role, csrs, data, expected) in [
        ("nobody", csrs.clone(), json!({}), "unknown role"),
        ("any", Vec::new(), json!({}), "csrs is empty"),
        ("any", csrs.clone(), json!({"ttl": "soon"}), "ttl"),
        ("any", vec![csrs[0].clone(); desk.pki.batch_items + 1], json!({}), "at most 10000"),
    ] {
        let refused = message(desk.batch(role, csrs, data).await);
        assert!(refused.contains(expected), "{refused}");
    }
    desk.keys.get("ca").record.is_gone.store(true, Ordering::Relaxed);
    let (results, _) = desk.batched("any", vec![csrs[0].clone(); 3]).await;
    assert!(results.iter().all(|result| result.as_ref().is_err_and(Fault::retryable)), "{results:?}");
    assert!(desk.names("unfinished").is_empty());
}

#[tokio::test]
async fn a_role_without_a_store_leaves_no_record() {
    let desk = Desk::with_root().await;
    desk.write("roles/brief", json!({"allow_any_name": true, "key_type": "any", "no_store": true})).await.unwrap();
    let (before, intents) = (desk.names("certs").len(), desk.intents().len());
    let (results, _) = desk.batched("brief", desk.csrs(&["a.example", "b.example"])).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!((desk.names("certs").len(), desk.intents().len()), (before, intents));
}

#[tokio::test]
async fn what_was_begun_is_stored_though_nobody_waits_and_holds_its_place_until_then() {
    let desk = Desk::with_root().await;
    let csrs = vec![desk.csrs(&["a.example"]).remove(0); 5];
    let before = desk.names("certs").len();
    // Such as the place of a quota.
    let held = Arc::new(());
    let mut answer = Box::pin(holding(Arc::clone(&held), desk.batch("any", csrs, json!({}))));
    // Each look judges one of them at least; then all are handed over to be signed.
    for _ in 0..6 {
        let looked = std::future::poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await;
        assert!(looked.is_pending());
    }
    drop(answer);
    assert_eq!(Arc::strong_count(&held), 2, "it is held as long as there is work");
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while Arc::strong_count(&held) > 1 {
        assert!(std::time::Instant::now() < end, "they were not stored");
        tokio::task::yield_now().await;
    }
    assert_eq!(desk.names("certs").len(), before + 5);
}
