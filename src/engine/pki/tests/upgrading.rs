//! Stores that the version before wrote.

use super::*;
use crate::engine::pki::records::Records;
use crate::store::Write;

/// The records of a mount with a root, as the version before wrote them.
struct Old {
    records: Records,
    issuer: String,
    key: String,
}

impl Old {
    /// Makes old ones of a desk's new ones, with everything else as it is.
    fn of(desk: &Desk) -> Old {
        let records = Records::new(&desk.mount);
        let authority = desk.pki.authority.load_full();
        let issuer = authority.default_issuer().unwrap();
        let (id, key) = (issuer.id().to_owned(), issuer.record.key_id.clone());
        let old = json!({
            "id": id, "name": "root-1", "key_id": key, "key_name": "hsm-1", "managed_key": "ca",
            "algorithm": {"ecdsa": "Sha256"}, "certificate": format!("{}\n", issuer.certificate.pem),
        });
        let put = |key, value: Value| Write::Put { key, version: 1, value: serde_json::to_vec(&value).unwrap() };
        let crl = desk.store.get(&records.crl(issuer.signer())).unwrap().unwrap();
        let mut writes = vec![
            put(records.issuer(&id), old),
            put(records.only_issuer(), json!({ "id": id })),
            Write::Delete { key: records.key_entry(&key) },
            Write::Delete { key: records.issuers_config() },
            Write::Delete { key: records.keys_config() },
            Write::Delete { key: records.crl(issuer.signer()) },
            Write::Put { key: records.only_crl(&id), version: crl.version, value: crl.value },
        ];
        for (name, _) in desk.store.scan(records.namespace(), &records.collection("revoked"), None, 100).unwrap() {
            let serial = super::super::serial::Serial::parse(&name).unwrap();
            let time = desk.pki.crls.time(&serial).unwrap().unwrap();
            writes.push(put(records.revocation(&serial), json!({ "time": time })));
        }
        desk.store.commit_now(writes).unwrap();
        Old { records, issuer: id, key }
    }
}

#[tokio::test]
async fn a_store_of_the_version_before_opens_as_it_was() {
    let desk = Desk::with_root().await;
    let (_, serial) = desk.leaf("bad.example").await;
    desk.write("revoke", json!({ "serial_number": serial })).await.unwrap();
    let (ca, crl) = (desk.raw("ca").await, desk.raw("crl").await);
    let old = Old::of(&desk);

    let after = desk.restarted();
    assert_eq!((after.raw("ca").await, after.raw("crl").await), (ca.clone(), crl.clone()));
    let issuer = after.read("issuer/root-1").await.unwrap();
    assert_eq!((&issuer["issuer_id"], &issuer["key_id"]), (&json!(old.issuer), &json!(old.key)));
    assert_eq!(issuer["revocation_signature_algorithm"], "ECDSAWithSHA256");
    let key = after.read("key/default").await.unwrap();
    assert_eq!((&key["key_id"], &key["key_name"]), (&json!(old.key), &json!("hsm-1")));
    assert_eq!((&key["managed_key_id"], &key["key_type"]), (&json!("ca"), &json!("ec")));
    assert!(after.read(&format!("cert/{serial}")).await.unwrap()["revocation_time"].as_u64().unwrap() > 0);
    let (leaf, _) = after.leaf("a.example").await;
    after.verify(&leaf).await.unwrap();

    // Nothing old is left, and the next start has nothing to do.
    assert_eq!(after.store.get(&old.records.only_issuer()).unwrap(), None);
    assert_eq!(after.store.get(&old.records.only_crl(&old.issuer)).unwrap(), None);
    let again = after.restarted();
    assert_eq!((again.raw("ca").await, again.raw("crl").await), (ca, crl));
    again.write("crl/rotate", json!({})).await.unwrap();
    assert_eq!(again.crl().crl.load().as_ref().unwrap().entries, 1);
}
