//! Certificates of which nobody knows whether they exist.

use std::time::Duration;

use keyway::model::Verb;
use serde_json::{Value, json};

use crate::daemon::{Daemon, Setup, wait_for};
use crate::openssl::{P256, request};
use crate::token::Token;

async fn unfinished(daemon: &Daemon) -> Value {
    let answer = daemon.ask(Verb::List, "pki/certs/unfinished", json!({})).await;
    if answer.status == 404 { json!([]) } else { answer.json()["data"]["keys"].clone() }
}

#[tokio::test]
async fn whoever_leaves_while_the_token_signs_leaves_a_certificate_in_doubt() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.certificate_authority().await;
    let folder = tempfile::tempdir().unwrap();
    request(folder.path(), "www", P256, "DNS:www.example.com");
    let csr = std::fs::read_to_string(folder.path().join("www.csr")).unwrap();
    daemon.write("pki/sign/any", json!({ "csr": csr })).await;
    assert_eq!(unfinished(&daemon).await, json!([]));

    let signed = token.calls("C_Sign");
    token.steer("hang C_Sign");
    let mut http = daemon.http();
    // Time enough to get as far as the token, and then too little.
    http.deadline = Some(Duration::from_secs(2));
    let data = json!({ "csr": csr });
    let asked = http.request(Verb::Write, "pki/sign/any", data.as_object().unwrap());
    assert_eq!(asked.await.unwrap().status, 504);
    wait_for("the token to be asked", || (token.calls("C_Sign") > signed).then_some(()));
    let listed = unfinished(&daemon).await;
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert!(daemon.log().contains("these certificates may exist"), "{}", daemon.log());
    token.steer("release");

    // It stays so, whatever comes after.
    wait_for("the token to sign again", || {
        let answer = daemon.cli(&["write", "-field=serial_number", "pki/sign/any", &format!("csr={csr}")]);
        answer.status.success().then_some(())
    });
    daemon.signal("KILL");
    let root_token = daemon.root_token.clone();
    drop(daemon);
    let mut daemon = Daemon::start(&token, Setup::default());
    daemon.root_token = root_token;
    let serial = listed[0].as_str().unwrap();
    assert!(unfinished(&daemon).await.as_array().unwrap().contains(&json!(serial)));
    let read = daemon.ask(Verb::Read, &format!("pki/cert/{serial}"), json!({})).await;
    assert_eq!(read.status, 404);
}
