//! Leases of certificates.

use super::super::records::Records;
use super::super::serial::Serial;
use super::*;
use crate::model::{CertificatesRequest, Lease, LeaseRequest};
use crate::store::Write;

impl Desk {
    async fn leased_root() -> Desk {
        let desk = Desk::with_root().await;
        let role = json!({"allow_any_name": true, "key_type": "ec", "generate_lease": true, "ttl": "1h"});
        desk.write("roles/leased", role).await.unwrap();
        desk
    }

    /// What is issued at a path, with its lease.
    async fn leased(&self, path: &str, body: Value) -> (Value, Lease) {
        match self.send(Verb::Write, path, body).await.unwrap() {
            Response::Leased { data, lease, .. } => (Value::Object(data), lease),
            other => panic!("no lease: {other:?}"),
        }
    }

    async fn ask(&self, asked: LeaseRequest) -> Result<Response, Fault> {
        match Arc::clone(&self.pki).lease(self.call(), asked).await? {
            Outcome::Response(response) => Ok(response),
            other => panic!("not a response: {other:?}"),
        }
    }

    async fn below(&self, path: &str) -> Vec<String> {
        match self.ask(LeaseRequest::List(path.into())).await {
            Ok(response) => serde_json::from_value(data(response)["keys"].clone()).unwrap(),
            Err(fault) => {
                assert_eq!(fault, Fault::absent());
                Vec::new()
            }
        }
    }

    fn lease_records(&self) -> (usize, usize) {
        let (store, records) = (&self.store, &self.pki.records);
        let collections = store.collections(records.namespace(), &records.leases(""), 100).unwrap();
        let count = |collection: &str| store.list(records.namespace(), collection, None, 10_000).unwrap().len();
        (collections.iter().map(|collection| count(collection)).sum(), count(&records.lease_ends()))
    }
}

/// The part of an id below the mount.
fn rest(lease: &Lease) -> String {
    lease.id.strip_prefix("pki/").unwrap().to_owned()
}

#[tokio::test]
async fn a_lease_ends_with_its_certificate_and_takes_it_along() {
    let desk = Desk::leased_root().await;
    let (issued, lease) = desk.leased("issue/leased", json!({"common_name": "a.example"})).await;
    let serial = text(&issued["serial_number"]);
    assert_eq!(lease.id, format!("pki/issue/leased/{}", serial.replace(':', "")));
    assert!((3590..=3600).contains(&lease.duration), "{lease:?}");
    let shown = data(desk.ask(LeaseRequest::Lookup(rest(&lease))).await.unwrap());
    assert_eq!(
        (&shown["id"], &shown["renewable"], &shown["last_renewal"]),
        (&json!(lease.id), &json!(false), &Value::Null)
    );
    assert!(shown["ttl"].as_u64().unwrap() <= lease.duration);
    assert!(text(&shown["expire_time"]) > text(&shown["issue_time"]));

    desk.ask(LeaseRequest::Revoke(rest(&lease))).await.unwrap();
    assert!(desk.read(&format!("cert/{serial}")).await.unwrap()["revocation_time"].as_u64().unwrap() > 0);
    assert!(desk.crl().revoked(desk.whole()).time(&Serial::parse(&serial).unwrap()).is_some());
    assert_eq!(desk.lease_records(), (0, 0));
    for asked in [LeaseRequest::Lookup(rest(&lease)), LeaseRequest::Revoke(rest(&lease))] {
        assert_eq!(desk.ask(asked).await, Err(Fault::absent()));
    }
}

#[tokio::test]
async fn leases_are_listed_and_revoked_below_a_path() {
    let desk = Desk::leased_root().await;
    let other = json!({"allow_any_name": true, "key_type": "ec", "generate_lease": true});
    desk.write("roles/leased-too", other).await.unwrap();
    let csr = json!({"csr": desk.p256_csr("/CN=a.example", "")});
    let name = json!({"common_name": "a.example"});
    let (one, _) = desk.leased("issue/leased", name.clone()).await;
    let (two, _) = desk.leased("sign/leased", csr.clone()).await;
    let (three, _) = desk.leased("issue/leased-too", name).await;
    let (four, lease) = desk.leased("issuer/default/sign/leased", csr.clone()).await;
    let (five, _) = desk.leased("sign-verbatim/leased", csr).await;
    assert!(lease.id.starts_with("pki/issuer/default/sign/leased/"));
    let serial = |issued: &Value| text(&issued["serial_number"]);
    let plain = |issued: &Value| serial(issued).replace(':', "");
    assert_eq!(desk.below("").await, ["issue/", "issuer/", "sign-verbatim/", "sign/"]);
    assert_eq!(desk.below("issue").await, ["leased-too/", "leased/"]);
    assert_eq!(desk.below("issue/leased").await, [plain(&one)]);
    assert!(desk.below("issue/lease").await.is_empty());

    desk.ask(LeaseRequest::RevokeBelow("issue/leased".into())).await.unwrap();
    let revoked = async |issued: &Value| {
        desk.read(&format!("cert/{}", serial(issued))).await.unwrap()["revocation_time"].as_u64().unwrap() > 0
    };
    assert!(revoked(&one).await && !revoked(&two).await && !revoked(&three).await);
    // Revoked before, or gone: the lease ends all the same.
    desk.write("revoke", json!({"serial_number": serial(&two)})).await.unwrap();
    let gone = desk.pki.records.certificate(&Serial::parse(&serial(&three)).unwrap());
    desk.store.commit(vec![Write::Delete { key: gone }]).await.unwrap();
    desk.ask(LeaseRequest::RevokeBelow(String::new())).await.unwrap();
    assert!(revoked(&four).await && revoked(&five).await);
    assert_eq!(desk.lease_records(), (0, 0));
    desk.ask(LeaseRequest::RevokeBelow(String::new())).await.unwrap();
}

#[tokio::test]
async fn what_is_over_goes_by_itself_and_nothing_else() {
    let desk = Desk::leased_root().await;
    let (issued, lease) = desk.leased("issue/leased", json!({"common_name": "a.example"})).await;
    // As it is stored, but that it ended a moment ago.
    let records: &Records = &desk.pki.records;
    let over = Serial::new().unwrap();
    let now = super::super::validity::now();
    let writes = super::super::lease::records(records, "issue/leased", &over, now - 1).unwrap();
    desk.store.commit(writes.to_vec()).await.unwrap();
    assert_eq!(desk.lease_records(), (2, 2));
    let path = format!("issue/leased/{}", over.record_name());
    assert_eq!(desk.ask(LeaseRequest::Lookup(path)).await, Err(Fault::absent()));
    Arc::clone(&desk.pki).maintain(desk.call()).await.unwrap();
    assert_eq!(desk.lease_records(), (1, 1));
    desk.ask(LeaseRequest::Lookup(rest(&lease))).await.unwrap();
    // A restart changes nothing.
    desk.restarted().ask(LeaseRequest::Revoke(rest(&lease))).await.unwrap();
    assert_eq!(desk.lease_records(), (0, 0));
    let serial = Serial::parse(&text(&issued["serial_number"])).unwrap();
    assert!(desk.store.get(&records.revocation(&serial)).unwrap().is_some());
}

#[tokio::test]
async fn many_end_step_by_step() {
    let desk = Desk::leased_root().await;
    let now = super::super::validity::now();
    // Of certificates that are not there any more.
    let add = async |path: &str, expires: u64| {
        let mut writes = Vec::new();
        for _ in 0..600 {
            let serial = Serial::new().unwrap();
            writes.extend(super::super::lease::records(&desk.pki.records, path, &serial, expires).unwrap());
        }
        desk.store.commit(writes).await.unwrap();
    };
    add("issue/leased", now - 1).await;
    add("sign/leased", now + 1000).await;
    add("sign/other", now + 1000).await;
    assert_eq!(desk.lease_records(), (1800, 1800));
    Arc::clone(&desk.pki).maintain(desk.call()).await.unwrap();
    assert_eq!(desk.lease_records(), (1200, 1200));
    assert_eq!(desk.below("sign/other").await.len(), 600);
    desk.ask(LeaseRequest::RevokeBelow("sign".into())).await.unwrap();
    assert_eq!(desk.lease_records(), (0, 0));
}

#[tokio::test]
async fn a_batch_has_leases_and_a_removed_mount_none() {
    let desk = Desk::leased_root().await;
    let csr = super::super::pem::decode(&desk.p256_csr("/CN=a.example", ""), &super::super::pem::REQUESTS).unwrap();
    let csrs = vec![csr.into(); 3];
    let request = CertificatesRequest { mount: "pki".into(), role: "leased".into(), csrs, data: Default::default() };
    let answer = Arc::clone(&desk.pki).sign_certificates(desk.call(), request).await.unwrap();
    let Outcome::Certificates { results, .. } = answer else { panic!("{answer:?}") };
    for issued in results {
        let issued = issued.unwrap();
        assert_eq!(issued.lease_id, format!("pki/sign/leased/{}", issued.serial.replace(':', "")));
    }
    assert_eq!(desk.lease_records(), (3, 3));
    desk.store.commit(desk.pki.removal(&desk.mount).unwrap()).await.unwrap();
    assert_eq!(desk.lease_records(), (0, 0));
}

#[tokio::test]
async fn a_name_that_is_no_leases_leads_nowhere() {
    let desk = Desk::leased_root().await;
    let (issued, lease) = desk.leased("issue/leased", json!({"common_name": "a.example"})).await;
    let serial = text(&issued["serial_number"]);
    for path in [
        String::new(),
        "issue".into(),
        "issue/leased".into(),
        "issue/leased/".into(),
        format!("issue/leased/{serial}"),
        format!("sign/leased/{}", serial.replace(':', "")),
        format!("{}/x", rest(&lease)),
    ] {
        for asked in [LeaseRequest::Lookup(path.clone()), LeaseRequest::Revoke(path.clone())] {
            assert_eq!(desk.ask(asked).await, Err(Fault::absent()), "{path}");
        }
    }
    assert_eq!(desk.lease_records(), (1, 1));
}
