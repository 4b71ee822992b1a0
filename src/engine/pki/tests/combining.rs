//! Stories of CRLs that clients write or bring, judged by openssl.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// What openssl reads in a CRL that it has verified.
async fn shown(desk: &Desk, crl: &str) -> String {
    desk.put("read.pem", crl);
    desk.put("root.pem", &String::from_utf8(desk.raw("ca/pem").await.1).unwrap());
    let told = desk.openssl(&["crl", "-in", "read.pem", "-CAfile", "root.pem", "-noout", "-text"]);
    assert!(desk.try_openssl(&["crl", "-in", "read.pem", "-CAfile", "root.pem", "-noout"]).is_ok());
    told
}

async fn signed(desk: &Desk, body: Value) -> String {
    text(&desk.write("issuer/default/sign-revocation-list", body).await.unwrap()["crl"])
}

fn entry(serial: &str, time: Value) -> Value {
    json!({"serial_number": serial, "revocation_time": time})
}

#[tokio::test]
async fn crls_of_one_issuer_become_one() {
    let desk = Desk::with_root().await;
    let (leaf, serial) = desk.leaf("a.example").await;
    desk.write("revoke", json!({ "serial_number": serial })).await.unwrap();
    let own = String::from_utf8(desk.raw("crl/pem").await.1).unwrap();
    let elsewhere = json!({"crl_number": 7, "revoked_certs": [
        entry(&serial, json!("2020-01-01T00:00:00Z")),
        entry("0b", json!(1_600_000_000)),
        entry("00:c0-ff.ee", json!("1600000000")),
    ]});
    let elsewhere = signed(&desk, elsewhere).await;
    let body = json!({"crls": [own, elsewhere], "crl_number": 42, "next_update": "24h"});
    let answer = desk.write("issuer/default/resign-crls", body).await.unwrap();
    let told = shown(&desk, &text(&answer["crl"])).await;
    assert_eq!(told.matches("Serial Number:").count(), 3, "{told}");
    assert!(told.contains(&serial.replace(':', "").to_uppercase()) && told.contains("Serial Number: C0FFEE"), "{told}");
    assert!(told.contains("Jan  1 00:00:00 2020 GMT"), "the earliest time: {told}");
    assert!(told.contains("X509v3 CRL Number: \n                42") && !told.contains("Delta"), "{told}");
    let warning = format!("Duplicate serial {serial} with different revocation times detected");
    assert!(answer["warnings"][0].as_str().unwrap().starts_with(&warning), "{answer}");
    desk.put("leaf.pem", &leaf);
    let check = ["verify", "-crl_check", "-CAfile", "root.pem", "-CRLfile", "read.pem", "leaf.pem"];
    assert!(desk.try_openssl(&check).unwrap_err().contains("certificate revoked"));
    // As DER, and as a delta CRL; and it was nobody's but the asker's.
    let body = json!({"crls": own, "delta_crl_base_number": 3, "format": "DER"});
    let answer = desk.write("issuer/default/resign-crls", body).await.unwrap();
    let der = STANDARD.decode(text(&answer["crl"])).unwrap();
    let told = shown(&desk, &crate::engine::pki::pem::encode("X509 CRL", &der).unwrap()).await;
    assert!(told.contains("Delta CRL Indicator: critical") && told.contains(&serial.replace(':', "").to_uppercase()));
    assert_eq!(String::from_utf8(desk.raw("crl/pem").await.1).unwrap(), own);
}

#[tokio::test]
async fn what_another_key_signed_is_not_signed_anew() {
    let (desk, other) = (Desk::with_root().await, Desk::with_root().await);
    let own = String::from_utf8(desk.raw("crl/pem").await.1).unwrap();
    let foreign = String::from_utf8(other.raw("crl/pem").await.1).unwrap();
    let mut der = desk.raw("crl").await.1;
    let at = der.len() / 3;
    der[at] ^= 1;
    let altered = crate::engine::pki::pem::encode("X509 CRL", &der).unwrap();
    let root = String::from_utf8(desk.raw("ca/pem").await.1).unwrap();
    for (body, told) in [
        (json!({"crls": [own, foreign]}), "CRL index: 1 was not signed by requested issuer"),
        (json!({"crls": [root]}), "failed decoding crl 0: invalid crl; should be one PEM block only"),
        (json!({"crls": [format!("{own}\n{own}")]}), "one PEM block only"),
        (json!({"crls": ["x"]}), "one PEM block only"),
        (json!({}), "expected 1 to 100 CRLs in PEM, not 0"),
        (json!({"crls": vec!["x"; 101]}), "not 101"),
        (json!({"crls": [own], "crl_number": -1}), "crl_number parameter must be 0 or greater"),
        (json!({"crls": [own], "delta_crl_base_number": -2}), "delta_crl_base_number parameter must be -1 or greater"),
        (json!({"crls": [own], "next_update": "0s"}), "next_update parameter must be greater than 0"),
        (json!({"crls": [own], "next_update": "-5s"}), "next_update parameter must be greater than 0"),
        (json!({"crls": [own], "next_update": "soon"}), "invalid value for next_update"),
        (json!({"crls": [own], "format": "pkcs7"}), "unknown format value of pkcs7"),
    ] {
        let refused = message(desk.write("issuer/default/resign-crls", body.clone()).await);
        assert!(refused.contains(told), "{told}: {refused}");
    }
    let refused = message(desk.write("issuer/default/resign-crls", json!({"crls": [altered]})).await);
    assert!(refused.contains("CRL index: 0 was not signed") || refused.contains("malformed"), "{refused}");
    assert!(message(desk.write("issuer/nobody/resign-crls", json!({"crls": [own]})).await).contains("nobody"));
    let usage = json!({"usage": "read-only,issuing-certificates"});
    desk.send(Verb::Patch, "issuer/default", usage).await.unwrap();
    for path in ["issuer/default/resign-crls", "issuer/default/sign-revocation-list"] {
        let refused = message(desk.write(path, json!({"crls": [own]})).await);
        assert!(refused.contains("requested usage crl-signing"), "{refused}");
    }
}

#[tokio::test]
async fn a_list_is_signed_with_the_extensions_it_names() {
    let desk = Desk::with_root().await;
    let reason = json!([{"id": "2.5.29.21", "value": STANDARD.encode([0x0A, 1, 1])}]);
    let mut compromised = entry("0a:0b", json!(1_700_000_000));
    compromised["extensions"] = reason;
    let more = json!([{"id": "1.2.3.4", "critical": "true", "value": "BQA="}]);
    let body =
        json!({"crl_number": "9", "delta_crl_base_number": 8, "revoked_certs": [compromised], "extensions": more});
    let told = shown(&desk, &signed(&desk, body).await).await;
    assert!(told.contains("Key Compromise") && told.contains("1.2.3.4: critical"), "{told}");
    assert!(told.contains("Delta CRL Indicator: critical\n                8"), "{told}");
    assert!(shown(&desk, &signed(&desk, json!({})).await).await.contains("No Revoked Certificates"));
    // Long ones are put together off the worker.
    let many: Vec<Value> = (1..=3000).map(|index| entry(&format!("{index:08x}"), json!(1_700_000_000))).collect();
    let told = shown(&desk, &signed(&desk, json!({ "revoked_certs": many })).await).await;
    assert_eq!(told.matches("Serial Number:").count(), 3000);
    let combined = desk
        .write("issuer/default/resign-crls", json!({"crls": [signed(&desk, json!({"revoked_certs": many})).await]}));
    assert_eq!(shown(&desk, &text(&combined.await.unwrap()["crl"])).await.matches("Serial Number:").count(), 3000);

    desk.write("config/crl", json!({"max_crl_entries": 2})).await.unwrap();
    let one = entry("0a", json!(1));
    for (body, told) in [
        (json!({"revoked_certs": [one, entry("0b", json!(1)), entry("0c", json!(1))]}), "max_crl_entries allows 2"),
        (
            json!({"revoked_certs": [one, entry("00:0a", json!(1))]}),
            "duplicate serial number: 0a, original entry 0 and 1",
        ),
        (json!({"revoked_certs": ["0a"]}), "entry 0 is not a map"),
        (json!({"revoked_certs": "0a"}), "expected a list of objects"),
        (json!({"revoked_certs": [{"revocation_time": 1}]}), "failed parsing serial_number from entry 0: missing"),
        (json!({"revoked_certs": [entry("zz", json!(1))]}), "failed parsing serial_number from entry 0"),
        (json!({"revoked_certs": [{"serial_number": "0a"}]}), "failed parsing revocation_time from entry 0: missing"),
        (json!({"revoked_certs": [entry("0a", json!("yesterday"))]}), "failed parsing revocation_time from entry 0"),
        (json!({"revoked_certs": [entry("0a", json!(u64::MAX))]}), "failed parsing revocation_time from entry 0"),
        (json!({"extensions": ["x"]}), "extension entry 0 not a map"),
        (json!({"extensions": [{"value": ""}]}), "failed parsing extension entry 0: missing id field"),
        (json!({"extensions": [{"id": "one", "value": ""}]}), "not an object identifier"),
        (json!({"extensions": [{"id": "1.2.3"}]}), "missing 'value' field"),
        (json!({"extensions": [{"id": "1.2.3", "value": "*"}]}), "'value' is not base64"),
        (json!({"extensions": [{"id": "1.2.3", "critical": "no", "value": ""}]}), "true or false"),
        (
            json!({"extensions": [{"id": "2.5.29.20", "value": ""}]}),
            "crl number object identifier (2.5.29.20) is reserved",
        ),
        (
            json!({"extensions": [{"id": "2.5.29.27", "value": ""}]}),
            "delta crl object identifier (2.5.29.27) is reserved",
        ),
        (json!({"extensions": [{"id": "2.5.29.35", "value": ""}]}), "authority key object identifier"),
        (
            json!({"extensions": [{"id": "1.2.3", "value": "BQA="}, {"id": "1.2.3", "value": "BQA="}]}),
            "duplicate extension id: 1.2.3",
        ),
    ] {
        let refused = message(desk.write("issuer/default/sign-revocation-list", body.clone()).await);
        assert!(refused.contains(told), "{told}: {refused}");
    }
}
