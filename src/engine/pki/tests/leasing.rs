//! Leases of certificates.

use super::super::lease::Wanted;
use super::super::records::Records;
use super::super::serial::Serial;
use super::*;
use crate::engine::GoneTokens;
use crate::model::{CertificatesRequest, Lease, LeaseRequest, TokenId};
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

    fn leases_by_token(&self) -> usize {
        let (store, records) = (&self.store, &self.pki.records);
        let collections = store.collections(records.namespace(), &records.leases_by_token(""), 100).unwrap();
        let count = |collection: &String| store.list(records.namespace(), collection, None, 10_000).unwrap().len();
        collections.iter().map(count).sum()
    }

    /// Has a certificate issued with the token whose hash is all of this byte.
    async fn issued_with(&self, token: u8) -> String {
        let body = json!({"common_name": "a.example"});
        let data = body.as_object().cloned().unwrap();
        let path = "issue/leased".to_owned();
        let request = Request { verb: Verb::Write, path, data, raw: Default::default(), if_modified_since: None };
        let mut call = self.call();
        call.caller.token = Some(TokenId([token; 32]));
        match Arc::clone(&self.pki).handle(call, request).await.unwrap() {
            Outcome::Response(Response::Leased { data, .. }) => text(&data["serial_number"]),
            other => panic!("no lease: {other:?}"),
        }
    }

    async fn is_revoked(&self, serial: &str) -> bool {
        self.read(&format!("cert/{serial}")).await.unwrap()["revocation_time"].as_u64().unwrap() > 0
    }

    async fn end_leases_of(&self, gone: GoneTokens) {
        Arc::clone(&self.pki).end_leases_of(self.call(), gone).await.unwrap();
    }
}

/// A lease at a path, of the token whose hash is all of this byte.
fn wanted(path: &str, token: Option<u8>) -> Wanted {
    Wanted { path: path.into(), token: token.map(|byte| TokenId([byte; 32])) }
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
    let writes = super::super::lease::records(records, &wanted("issue/leased", Some(7)), &over, now - 1).unwrap();
    desk.store.commit(writes).await.unwrap();
    assert_eq!((desk.lease_records(), desk.leases_by_token()), ((2, 2), 1));
    let path = format!("issue/leased/{}", over.record_name());
    assert_eq!(desk.ask(LeaseRequest::Lookup(path)).await, Err(Fault::absent()));
    Arc::clone(&desk.pki).maintain(desk.call()).await.unwrap();
    assert_eq!((desk.lease_records(), desk.leases_by_token()), ((1, 1), 0));
    desk.ask(LeaseRequest::Lookup(rest(&lease))).await.unwrap();
    // A restart changes nothing.
    desk.restarted().ask(LeaseRequest::Revoke(rest(&lease))).await.unwrap();
    assert_eq!(desk.lease_records(), (0, 0));
    let serial = Serial::parse(&text(&issued["serial_number"])).unwrap();
    assert!(desk.store.get(&records.revocation(&serial)).unwrap().is_some());
}

#[tokio::test]
async fn leases_end_with_the_token_they_were_made_with() {
    let desk = Desk::leased_root().await;
    let mut serials = Vec::new();
    for token in [1, 1, 2, 0xff] {
        serials.push(desk.issued_with(token).await);
    }
    let (unborne, lease) = desk.leased("issue/leased", json!({"common_name": "a.example"})).await;
    assert_eq!((desk.lease_records(), desk.leases_by_token()), ((5, 5), 4));
    desk.end_leases_of(GoneTokens::These([3, 2].map(|byte| TokenId([byte; 32])).into())).await;
    let revoked = async || {
        let mut revoked = Vec::new();
        for serial in &serials {
            revoked.push(desk.is_revoked(serial).await);
        }
        revoked
    };
    assert_eq!(revoked().await, [false, false, true, false]);
    // A mount that was looked through when it had none has them all the same.
    let other = Desk::leased_root().await;
    other.end_leases_of(GoneTokens::AllBut(Arc::new(|_| false))).await;
    let serial = other.issued_with(7).await;
    other.end_leases_of(GoneTokens::These([TokenId([7; 32])].into())).await;
    assert!(other.is_revoked(&serial).await);
    // What is given back before is nobody's any more.
    let first = format!("issue/leased/{}", serials[0].replace(':', ""));
    desk.ask(LeaseRequest::Revoke(first)).await.unwrap();
    assert_eq!((desk.lease_records(), desk.leases_by_token()), ((3, 3), 2));
    // After a restart, say: what the list of those that ended did not tell.
    desk.end_leases_of(GoneTokens::AllBut(Arc::new(|token| token.0[0] == 1))).await;
    assert_eq!(revoked().await, [true, false, true, true]);
    desk.end_leases_of(GoneTokens::AllBut(Arc::new(|_| false))).await;
    assert_eq!(revoked().await, [true; 4]);
    assert_eq!((desk.lease_records(), desk.leases_by_token()), ((1, 1), 0));
    assert!(!desk.is_revoked(&text(&unborne["serial_number"])).await);
    desk.ask(LeaseRequest::Lookup(rest(&lease))).await.unwrap();
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
            writes.extend(
                super::super::lease::records(&desk.pki.records, &wanted(path, None), &serial, expires).unwrap(),
            );
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
    desk.issued_with(1).await;
    assert_eq!((desk.lease_records(), desk.leases_by_token()), ((4, 4), 1));
    desk.store.commit(desk.pki.removal(&desk.mount).unwrap()).await.unwrap();
    assert_eq!((desk.lease_records(), desk.leases_by_token()), ((0, 0), 0));
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
