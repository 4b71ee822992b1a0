//! Stories of OCSP, told by openssl: it asks, and judges what is answered.

use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

impl Desk {
    /// Has openssl write a request for certificates in PEM; `more` are options of `openssl ocsp`.
    fn ocsp_request(&self, certificates: &[&str], more: &[&str]) -> Vec<u8> {
        let mut arguments = vec!["ocsp", "-issuer", "root.pem", "-reqout", "request.der"];
        arguments.extend(more);
        let names: Vec<String> = (0..certificates.len()).map(|index| format!("asked{index}.pem")).collect();
        for (name, certificate) in names.iter().zip(certificates) {
            self.put(name, certificate);
            arguments.extend(["-cert", name]);
        }
        self.openssl(&arguments);
        std::fs::read(self.folder.path().join("request.der")).unwrap()
    }

    async fn ocsp_post(&self, request: &[u8]) -> Vec<u8> {
        let request = Request {
            verb: Verb::Write,
            path: "ocsp".into(),
            data: Default::default(),
            raw: request.to_vec().into(),
            if_modified_since: None,
        };
        match Arc::clone(&self.pki).handle(self.call(), request).await.unwrap() {
            Outcome::Response(Response::Raw { content_type: "application/ocsp-response", body }) => body.to_vec(),
            other => panic!("no OCSP response: {other:?}"),
        }
    }

    /// What openssl reads in an answer to the last request, if it verifies.
    fn ocsp_told(&self, answer: &[u8]) -> String {
        std::fs::write(self.folder.path().join("answer.der"), answer).unwrap();
        let read = [
            "ocsp",
            "-respin",
            "answer.der",
            "-reqin",
            "request.der",
            "-CAfile",
            "root.pem",
            "-resp_text",
            "-verify_other",
            "root.pem",
        ];
        let output = Command::new("openssl").args(read).current_dir(self.folder.path()).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    pub(super) async fn ocsp(&self, certificates: &[&str], more: &[&str]) -> String {
        self.put("root.pem", &String::from_utf8(self.raw("ca/pem").await.1).unwrap());
        let answer = self.ocsp_post(&self.ocsp_request(certificates, more)).await;
        self.ocsp_told(&answer)
    }

    fn signatures(&self, key: &str) -> usize {
        self.keys.get(key).record.signatures.load(Ordering::Relaxed)
    }
}

fn is_good(told: &str) -> bool {
    told.contains("Response verify OK") && told.contains("Cert Status: good") && !told.contains("WARNING")
}

#[tokio::test]
async fn good_revoked_and_never_issued() {
    let desk = Desk::with_root().await;
    let (leaf, serial) = desk.leaf("a.example").await;
    for hash in ["-sha1", "-sha256", "-sha384", "-sha512"] {
        let told = desk.ocsp(&[&leaf], &[hash]).await;
        assert!(is_good(&told) && told.contains("OCSP Nonce"), "{hash}: {told}");
    }
    let (other, _) = desk.leaf("b.example").await;
    let told = desk.ocsp(&[&leaf, &other], &["-no_nonce"]).await;
    assert_eq!(told.matches("Cert Status: good").count(), 2, "{told}");
    desk.write("revoke", json!({"serial_number": serial})).await.unwrap();
    let told = desk.ocsp(&[&leaf], &["-no_nonce"]).await;
    assert!(told.contains("Response verify OK") && told.contains("Cert Status: revoked"), "{told}");
    let told = desk.ocsp(&[], &["-serial", "0x1234"]).await;
    assert!(told.contains("Response verify OK") && told.contains("Cert Status: unknown"), "{told}");
    // The root is of the mount, too.
    let root = String::from_utf8(desk.raw("ca/pem").await.1).unwrap();
    assert!(is_good(&desk.ocsp(&[&root], &[]).await));
    assert!(is_good(&desk.restarted().ocsp(&[&other], &[]).await));
}

#[tokio::test]
async fn a_certificate_that_was_not_stored_is_unknown_until_it_is_revoked() {
    let desk = Desk::with_root().await;
    desk.write("roles/fleeting", json!({"allow_any_name": true, "key_type": "any", "no_store": true})).await.unwrap();
    let csr = desk.p256_csr("/CN=a.example", "");
    let leaf = text(&desk.write("sign/fleeting", json!({ "csr": csr })).await.unwrap()["certificate"]);
    assert!(desk.ocsp(&[&leaf], &[]).await.contains("Cert Status: unknown"));
    desk.write("revoke", json!({ "certificate": leaf })).await.unwrap();
    assert!(desk.ocsp(&[&leaf], &[]).await.contains("Cert Status: revoked"));
}

#[tokio::test]
async fn the_same_question_costs_one_signature_until_the_answer_changes() {
    let desk = Desk::with_root().await;
    let (leaf, serial) = desk.leaf("a.example").await;
    let before = desk.signatures("ca");
    for _ in 0..5 {
        assert!(is_good(&desk.ocsp(&[&leaf], &["-no_nonce"]).await));
    }
    assert_eq!(desk.signatures("ca"), before + 1);
    // By path, with slashes, it is the same question.
    let text = STANDARD.encode(desk.ocsp_request(&[&leaf], &["-no_nonce"]));
    let (content_type, answer) = desk.raw(&format!("ocsp/{text}")).await;
    assert_eq!((content_type, desk.signatures("ca")), ("application/ocsp-response", before + 1));
    assert!(is_good(&desk.ocsp_told(&answer)));
    // A nonce is for one asker only, and what was never issued is not kept.
    for more in [&["-sha1"][..], &["-no_nonce", "-serial", "0x99"]] {
        let before = desk.signatures("ca");
        for _ in 0..2 {
            desk.ocsp(&[&leaf], more).await;
        }
        assert_eq!(desk.signatures("ca"), before + 2, "{more:?}");
    }
    desk.write("revoke", json!({"serial_number": serial})).await.unwrap();
    assert!(desk.ocsp(&[&leaf], &["-no_nonce"]).await.contains("Cert Status: revoked"));
    // Signed behind those who have a token.
    assert_eq!(
        desk.keys.get("ca").record.bulk.load(Ordering::Relaxed),
        desk.signatures("ca") - signed_by_others(&desk)
    );
}

/// The signatures that are not OCSP answers: of CRLs, the root and the leaf.
fn signed_by_others(desk: &Desk) -> usize {
    desk.keys.get("ca").record.control.load(Ordering::Relaxed) + 2
}

#[tokio::test]
async fn who_may_not_answer_says_so_and_signs_nothing() {
    let desk = Desk::with_root().await;
    let (leaf, _) = desk.leaf("a.example").await;
    let refused = |told: String, expected: &str| assert!(told.contains(expected), "{expected}: {told}");
    desk.write("config/crl", json!({"ocsp_disable": true})).await.unwrap();
    refused(desk.ocsp(&[&leaf], &[]).await, "unauthorized");
    desk.write("config/crl", json!({"ocsp_disable": false})).await.unwrap();
    desk.send(Verb::Patch, "issuer/default", json!({"usage": "issuing-certificates,crl-signing"})).await.unwrap();
    let before = desk.signatures("ca");
    refused(desk.ocsp(&[&leaf], &["-no_nonce"]).await, "unauthorized");
    desk.send(Verb::Patch, "issuer/default", json!({"usage": "ocsp-signing"})).await.unwrap();
    assert!(is_good(&desk.ocsp(&[&leaf], &["-no_nonce"]).await));
    assert_eq!(desk.signatures("ca"), before + 1);
    // Another CA's certificate, and what is no request.
    let other = Desk::with_root().await;
    let (foreign, _) = other.leaf("a.example").await;
    other.ocsp(&[&foreign], &[]).await;
    let request = std::fs::read(other.folder.path().join("request.der")).unwrap();
    refused(desk.ocsp_told(&desk.ocsp_post(&request).await), "unauthorized");
    refused(desk.ocsp_told(&desk.ocsp_post(b"no").await), "malformedrequest");
    refused(desk.ocsp_told(&desk.raw("ocsp/MEIw%%").await.1), "malformedrequest");
    desk.keys.get("ca").record.is_gone.store(true, Ordering::Relaxed);
    refused(desk.ocsp(&[&leaf], &[]).await, "trylater");
    // What was answered before is answered still.
    assert!(is_good(&desk.ocsp(&[&leaf], &["-no_nonce"]).await));
    desk.keys.get("ca").record.is_gone.store(false, Ordering::Relaxed);
    // A wrong signature does not leave, and another member may make a right one.
    desk.keys.get("ca").record.lies.store(true, Ordering::Relaxed);
    refused(desk.ocsp(&[&leaf], &[]).await, "trylater");
}

#[tokio::test]
async fn every_kind_of_key_answers_and_says_how_long_it_holds() {
    for (kind, pss) in
        [(KeyKind::Rsa { bits: 2048 }, false), (KeyKind::Rsa { bits: 2048 }, true), (KeyKind::Ed25519, false)]
    {
        let desk = Desk::new(&[("ca", kind)]);
        let root = json!({"common_name": "Root", "managed_key_name": "ca", "ttl": "87600h", "use_pss": pss});
        desk.write("root/generate/kms", root).await.unwrap();
        desk.write("roles/any", json!({"allow_any_name": true, "key_type": "any"})).await.unwrap();
        if pss {
            let algorithm = json!({"revocation_signature_algorithm": "SHA256WithRSAPSS"});
            desk.send(Verb::Patch, "issuer/default", algorithm).await.unwrap();
        }
        let (leaf, _) = desk.leaf("a.example").await;
        let told = desk.ocsp(&[&leaf], &["-no_nonce"]).await;
        assert!(is_good(&told) && told.contains("Next Update"), "{kind} {pss}: {told}");
        assert_eq!(told.contains("rsassaPss"), pss, "{told}");
        desk.write("config/crl", json!({"ocsp_expiry": 0})).await.unwrap();
        let told = desk.ocsp(&[&leaf], &["-no_nonce"]).await;
        assert!(is_good(&told) && !told.contains("Next Update"), "{kind} {pss}: {told}");
    }
}
