//! CAs above and below each other, with keys in a token, judged by openssl.

use std::path::Path;

use keyway::model::Verb;
use serde_json::{Value, json};

use crate::daemon::{Daemon, Setup};
use crate::openssl::{P256, openssl, request};
use crate::token::Token;

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn put(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), format!("{}\n", text.trim())).unwrap();
}

/// A PKI mount whose certificates may live long.
async fn mount(daemon: &Daemon, path: &str) {
    let settings = json!({"type": "pki", "config": {"max_lease_ttl": "87600h"}});
    daemon.write(&format!("sys/mounts/{path}"), settings).await;
}

/// A public path, asked without a token.
async fn public(daemon: &Daemon, path: &str) -> Vec<u8> {
    let mut http = daemon.http();
    http.token = None;
    let answer = http.request(Verb::Read, path, &Default::default()).await.unwrap();
    assert_eq!(answer.status, 200, "{path}");
    answer.body.to_vec()
}

#[tokio::test]
async fn two_tiers_on_two_mounts_verify_and_survive_a_restart() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    daemon.managed_key("root", json!({"mechanism": "0x1041", "curve": "P384"})).await;
    daemon.managed_key("sub", json!({"mechanism": "0x000d", "key_bits": 2048})).await;
    mount(&daemon, "outer").await;
    mount(&daemon, "sub").await;
    let root = json!({"managed_key_name": "root", "common_name": "Root", "ttl": "80000h", "issuer_name": "r1"});
    let root = daemon.write("outer/root/generate/kms", root).await;
    put(folder, "root.pem", &text(&root["certificate"]));

    // A request of a PSS key, signed by openssl's word good, and by the other mount's root.
    let asked =
        json!({"managed_key_name": "sub", "common_name": "Sub CA", "key_name": "sub-1", "add_basic_constraints": true});
    let asked = daemon.write("sub/intermediate/generate/kms", asked).await;
    put(folder, "sub.csr", &text(&asked["csr"]));
    let shown = openssl(folder, &["req", "-in", "sub.csr", "-verify", "-noout", "-text"]).unwrap();
    assert!(shown.contains("rsassaPss"), "{shown}");
    let key = daemon.read("sub/key/sub-1").await;
    assert_eq!((&key["managed_key_name"], &key["key_type"]), (&json!("sub"), &json!("rsa")));
    assert_eq!(daemon.refused("sub/root/generate/internal", json!({"common_name": "x"})).await.0, 400);
    let listed = daemon.http().request(Verb::List, "outer/issuers", &Default::default()).await.unwrap();
    assert_eq!(listed.json()["data"]["keys"], json!([root["issuer_id"]]));
    assert_eq!(public(&daemon, "outer/issuer/r1/pem").await, public(&daemon, "outer/ca/pem").await);
    let mut stranger = daemon.http();
    stranger.token = None;
    let guarded = stranger.request(Verb::Read, "outer/issuer/r1", &Default::default()).await.unwrap();
    assert_eq!(guarded.status, 403);

    // The root signs it for names of one domain; what came back issues, and openssl judges the whole chain.
    let below = json!({"csr": asked["csr"], "use_csr_values": true, "ttl": "70000h", "max_path_length": 0,
        "permitted_dns_domains": "example.com"});
    let below = daemon.write("outer/root/sign-intermediate", below).await;
    put(folder, "sub.pem", &text(&below["certificate"]));
    let bundle = format!("{}\n{}", text(&below["certificate"]), text(&root["certificate"]));
    let imported = daemon.write("sub/intermediate/set-signed", json!({ "certificate": bundle })).await;
    assert_eq!(imported["mapping"][text(&imported["imported_issuers"][0])], asked["key_id"]);
    let role = json!({"key_type": "any", "allow_any_name": true, "ttl": "72h"});
    daemon.write("sub/roles/any", role).await;
    request(folder, "www", P256, "DNS:www.example.com");
    let csr = std::fs::read_to_string(folder.join("www.csr")).unwrap();
    let leaf = daemon.write("sub/sign/any", json!({ "csr": csr })).await;
    assert_eq!(leaf["ca_chain"], json!([below["certificate"], root["certificate"]]));
    put(folder, "leaf.pem", &text(&leaf["certificate"]));
    for (issuer, file) in [("outer/crl/pem", "root.crl"), ("sub/crl/pem", "sub.crl")] {
        put(folder, file, &String::from_utf8(public(&daemon, issuer).await).unwrap());
    }
    let crls = ["-crl_check_all", "-CRLfile", "root.crl", "-CRLfile", "sub.crl"];
    let verify = ["verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "sub.pem"];
    openssl(folder, &[&verify[..], &crls, &["leaf.pem"]].concat()).unwrap();
    request(folder, "evil", P256, "DNS:www.example.org");
    let csr = std::fs::read_to_string(folder.join("evil.csr")).unwrap();
    let (status, told) = daemon.refused("sub/sign/any", json!({ "csr": csr })).await;
    assert!(status == 400 && told.contains("name constraints"), "{status} {told}");

    // The managed key of an issuer stays while the issuer does.
    let (status, told) = {
        let answer = daemon.ask(Verb::Delete, "sys/managed-keys/pkcs11/root", json!({})).await;
        (answer.status, answer.json()["errors"][0].to_string())
    };
    assert!(status == 400 && told.contains("in use by key"), "{status} {told}");

    let root_token = daemon.root_token.clone();
    drop(daemon);
    let mut daemon = Daemon::start(&token, Setup::default());
    daemon.root_token = root_token;
    assert_eq!(daemon.read("outer/issuer/r1").await["issuer_id"], root["issuer_id"]);
    assert_eq!(daemon.read("sub/config/keys").await["default"], asked["key_id"]);
}

#[tokio::test]
async fn two_issuers_of_a_mount_sign_and_revoke_apart() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    daemon.managed_key("one", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    daemon.managed_key("two", json!({"mechanism": "0x0001", "key_bits": 2048})).await;
    mount(&daemon, "pki").await;
    for name in ["one", "two"] {
        let root = json!({"managed_key_name": name, "common_name": name, "ttl": "80000h", "issuer_name": name});
        daemon.write("pki/root/generate/kms", root).await;
    }
    // What the mechanism of its key does not make would be the end of an issuer's CRLs.
    let pss = json!({"revocation_signature_algorithm": "SHA256WithRSAPSS"});
    for verb in [Verb::Patch, Verb::Write] {
        let answer = daemon.ask(verb, "pki/issuer/two", pss.clone()).await;
        let told = answer.json()["errors"][0].as_str().unwrap().to_owned();
        assert!(answer.status == 400 && told.contains("revocation_signature_algorithm cannot be"), "{told}");
    }
    let longer = json!({"revocation_signature_algorithm": "SHA384WithRSA"});
    assert_eq!(daemon.ask(Verb::Patch, "pki/issuer/two", longer).await.status, 200);
    assert_eq!(daemon.read("pki/crl/rotate").await["success"], true);
    let role = json!({"key_type": "any", "allow_any_name": true, "ttl": "72h", "issuer_ref": "two"});
    daemon.write("pki/roles/two", role).await;
    // What a patch does not name stays.
    let patched = daemon.ask(Verb::Patch, "pki/roles/two", json!({"ttl": "1h"})).await.json()["data"].clone();
    assert_eq!((&patched["ttl"], &patched["issuer_ref"]), (&json!(3600), &json!("two")));
    request(folder, "www", P256, "DNS:www.example.com");
    let csr = std::fs::read_to_string(folder.join("www.csr")).unwrap();
    let mut serials = Vec::new();
    for (path, issuer) in [("pki/issuer/one/sign/two", "one"), ("pki/sign/two", "two")] {
        let signed = daemon.write(path, json!({ "csr": csr })).await;
        let ca = public(&daemon, &format!("pki/issuer/{issuer}/pem")).await;
        put(folder, &format!("{issuer}.pem"), &String::from_utf8(ca).unwrap());
        put(folder, "leaf.pem", &text(&signed["certificate"]));
        openssl(folder, &["verify", "-x509_strict", "-CAfile", &format!("{issuer}.pem"), "leaf.pem"]).unwrap();
        serials.push(text(&signed["serial_number"]));
    }
    daemon.write("pki/revoke", json!({"serial_number": serials[1]})).await;
    let shown = async |issuer: &str| {
        put(
            folder,
            "crl.pem",
            &String::from_utf8(public(&daemon, &format!("pki/issuer/{issuer}/crl/pem")).await).unwrap(),
        );
        let checked =
            openssl(folder, &["crl", "-in", "crl.pem", "-CAfile", &format!("{issuer}.pem"), "-noout", "-text"]);
        checked.unwrap()
    };
    assert!(shown("one").await.contains("No Revoked Certificates"));
    assert!(shown("two").await.contains(&serials[1].replace(':', "").to_uppercase()));
    let id = text(&daemon.read("pki/issuer/two").await["issuer_id"]);
    let published = std::fs::read(daemon.folder.join(format!("published/root/pki/issuer/{id}/crl.der"))).unwrap();
    assert_eq!(published, public(&daemon, "pki/issuer/two/crl/der").await);
}

#[tokio::test]
async fn keys_made_for_clients_serve_tls_and_hold_up_nobody() {
    let token = Token::new();
    let daemon = Daemon::with(&token, Setup { more: "limits { workers = 1 }", ..Setup::default() }).await;
    let root = daemon.certificate_authority().await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    put(folder, "root.pem", &root);
    for (kind, bits) in [("rsa", 2048), ("ec", 256)] {
        let role = json!({"key_type": kind, "key_bits": bits, "allow_any_name": true});
        daemon.write(&format!("pki/roles/{kind}"), role).await;
        let asked = json!({"common_name": "www.example.com", "ttl": "1h", "private_key_format": "pkcs8"});
        let issued = daemon.write(&format!("pki/issue/{kind}"), asked).await;
        put(folder, "leaf.pem", &text(&issued["certificate"]));
        put(folder, "key.pem", &text(&issued["private_key"]));
        openssl(
            folder,
            &["verify", "-x509_strict", "-verify_hostname", "www.example.com", "-CAfile", "root.pem", "leaf.pem"],
        )
        .unwrap();
        // A key and a certificate that do not belong together make no PKCS#12 file.
        let both =
            ["pkcs12", "-export", "-in", "leaf.pem", "-inkey", "key.pem", "-passout", "pass:x", "-out", "both.p12"];
        openssl(folder, &both).unwrap();
    }
    // While keys are made, the only worker answers others.
    daemon.write("pki/roles/big", json!({"key_type": "rsa", "key_bits": 4096, "allow_any_name": true})).await;
    let making: Vec<_> = (0..4)
        .map(|_| {
            let mut http = daemon.http();
            http.deadline = Some(crate::daemon::LIMIT);
            tokio::spawn(async move {
                let asked = json!({"common_name": "big.example.com"});
                http.request(Verb::Write, "pki/issue/big", asked.as_object().unwrap()).await.unwrap().status
            })
        })
        .collect();
    let mut answered = 0;
    while !making.iter().all(tokio::task::JoinHandle::is_finished) {
        daemon.read("pki/roles/big").await;
        answered += 1;
    }
    for made in making {
        assert_eq!(made.await.unwrap(), 200);
    }
    assert!(answered > 4, "{answered} answers meanwhile");
}
