//! Clients that mean no good, or are broken.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::BytesMut;
use keyway::client::ClientError;
use keyway::model::Verb;
use keyway::wire::{frame, proto};
use prost::Message;
use serde_json::json;

use crate::audit_refusals::{call, hello};
use crate::daemon::{Daemon, LIMIT, Setup, wait_for};
use crate::token::Token;

/// Sends bytes as they are; answers what comes back until the daemon closes or falls silent.
fn raw(daemon: &Daemon, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = Vec::new();
    // A reset is an answer too.
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn malformed_requests_are_told_so_and_disturb_nobody() {
    let token = Token::new();
    let daemon =
        Daemon::with(&token, Setup { more: "limits { http_body_bytes = \"64KiB\" }", ..Setup::default() }).await;
    let request = |path: &str, body: &str| {
        let (token, len) = (&daemon.root_token, body.len());
        format!("POST /v1/{path} HTTP/1.1\r\nHost: k\r\nX-Vault-Token: {token}\r\nContent-Length: {len}\r\n\r\n{body}")
    };
    for (bytes, expected) in [
        ("complete nonsense\r\n\r\n".to_owned(), "400"),
        (request("sys/mounts/x", "{\"type\":"), "400"),
        (request("sys/mounts/x", "[1,2]"), "400"),
        (request("sys/mounts/x", &"x".repeat(70_000)), "413"),
        (request("no/such/path", "{}"), "404"),
        (request("%ff%fe", "{}"), "40"),
        (format!("GET /v1/{} HTTP/1.1\r\nHost: k\r\n\r\n", "a".repeat(100_000)), "4"),
    ] {
        let answer = raw(&daemon, bytes.as_bytes());
        let start: String = bytes.chars().take(60).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{start}: {answer}");
    }
    // After an error that leaves the request's end known, the connection goes on.
    let mut http = daemon.http();
    assert_eq!(http.request(Verb::Write, "no/such/path", &Default::default()).await.unwrap().status, 404);
    assert_eq!(http.request(Verb::Read, "sys/health", &Default::default()).await.unwrap().status, 200);
}

#[tokio::test]
async fn long_bodies_are_read_only_of_those_who_have_a_token_and_of_a_few_at_a_time() {
    const BYTES: usize = 1 << 20;
    let token = Token::new();
    let more = "limits {\n http_body_bytes = \"1MiB\"\n http_bodies_bytes = \"2MiB\"\n}";
    let daemon = Daemon::with(&token, Setup { more, ..Setup::default() }).await;
    let head = |token: &str| {
        format!(
            "POST /v1/sys/mounts/x HTTP/1.1\r\nHost: k\r\nX-Vault-Token: {token}\r\nContent-Length: {BYTES}\r\n\r\n"
        )
    };
    // Not one of these bodies ever comes to its end: the answer does not wait for it.
    let begin = |token: &str| {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(head(token).as_bytes()).unwrap();
        // It may be refused before all of it is written.
        let _ = stream.write_all(&vec![b' '; BYTES - 1]);
        stream
    };
    let answer = |mut stream: UnixStream| {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8(answer.into()).unwrap()
    };
    assert_eq!(answer(begin("wrong")), "HTTP/1.1 403");
    // There is room for two, whichever they are.
    let held: Vec<UnixStream> = (0..3).map(|_| begin(&daemon.root_token)).collect();
    let told = wait_for("the room to be taken", || {
        held.iter().find_map(|mut stream| {
            stream.set_nonblocking(true).unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).is_ok().then_some(answer)
        })
    });
    assert_eq!(&told, b"HTTP/1.1 503");
    // Short ones need none of it.
    assert_eq!(daemon.ask(Verb::Write, "no/such/path", json!({})).await.status, 404);
    drop(held);
    wait_for("the room to be free", || {
        let mut stream = begin(&daemon.root_token);
        // One that is refused still may not be written to its end.
        let _ = stream.write_all(b" ");
        let mut answer = [0; 12];
        (stream.read_exact(&mut answer).is_ok() && &answer == b"HTTP/1.1 400").then_some(())
    });
}

#[tokio::test]
async fn bodies_that_would_take_far_more_memory_than_their_text_are_refused_unread() {
    const ITEMS: usize = 10_000;
    let token = Token::new();
    let more = "limits {\n http_body_bytes = \"4MiB\"\n http_body_values = 90000\n http_bodies_bytes = \"18MiB\"\n}";
    let daemon = Daemon::with(&token, Setup { more, ..Setup::default() }).await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    let post = |token: &str, body: &str| {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let len = body.len();
        let head = "POST /v1/transit/sign/doc HTTP/1.1\r\nHost: k\r\nConnection: close\r\n";
        let head = format!("{head}X-Vault-Token: {token}\r\nContent-Length: {len}\r\n\r\n");
        // It may be refused before all of it is written.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        let mut answer = Vec::new();
        // A reset is an answer too.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let many = |item: &str, count: usize| format!("{{\"batch_input\":[{}]}}", vec![item; count].join(","));
    let root = &daemon.root_token;
    // More values than one body may have.
    let told = post(root, &many("0", 90_000));
    assert!(told.starts_with("HTTP/1.1 413") && told.contains("http_body_values"), "{told}");
    // Fewer, but they take more than there is for all bodies together: 180 KB that would be 20 MB.
    let told = post(root, &many("{\"a\":0}", 22_500));
    assert!(told.starts_with("HTTP/1.1 413") && told.contains("http_bodies_bytes"), "{told}");
    // A short one that is heavy is not read of just anybody.
    let told = post("wrong", &many("{\"a\":0}", 100));
    assert!(told.starts_with("HTTP/1.1 403"), "{told}");
    // The largest batch there may be, with all that an item may say, and signs of lists and objects in a text. No item is
    // one that a token need see.
    let item = r#"{"input":"[{,\"[{,","context":"","reference":"a","a":1,"b":2,"c":3}"#;
    let told = post(root, &many(item, ITEMS));
    assert_eq!(told.matches("\"reference\":\"a\"").count(), ITEMS, "{}", told.chars().take(400).collect::<String>());
    // And all of it is given back.
    let told = post(root, &many(item, ITEMS));
    assert_eq!(told.matches("\"reference\":\"a\"").count(), ITEMS);
    // The same on the other wire, and its connection goes on.
    let framed = daemon.framed().await;
    for (data, limit) in [(many("0", 90_000), "http_body_values"), (many("{\"a\":0}", 22_500), "http_bodies_bytes")] {
        let (verb, path) = (proto::Verb::Write.into(), "transit/sign/doc".to_owned());
        let told = framed.request(proto::Request { verb, path, data: data.into() }).await;
        let refused = matches!(&told, Err(ClientError::Refused { message, .. }) if message.contains(limit));
        assert!(refused, "{told:?}");
    }
    framed.ping("still here".into()).await.unwrap();
}

#[tokio::test]
async fn malformed_frames_end_their_own_connection_only() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let good = daemon.framed().await;
    let path = daemon.socket().with_extension("sock.framed");
    for bytes in [
        &b"\xff\xff\xff\xffxxxx"[..],
        b"\x00\x00\x00\x04\xff\xff\xff\xff",
        b"\x00\x00\x00\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x00",
    ] {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    assert_eq!(good.ping("still there?".into()).await.unwrap(), "still there?");
    // A bad request in a good frame leaves the connection as it was.
    let junk = proto::SignCertificate { mount: "pki".into(), role: "x".into(), csr: "junk".into(), data: "{".into() };
    assert!(good.sign_certificate(junk).await.is_err());
    assert_eq!(good.ping("and now?".into()).await.unwrap(), "and now?");
}

#[tokio::test]
async fn a_full_lane_answers_overloaded_at_once_and_recovers() {
    let token = Token::new();
    let more = "limits {\n lane_jobs = 4\n requests_per_connection = 1024\n}";
    let daemon = Daemon::with(&token, Setup { more, ..Setup::default() }).await;
    daemon.transit_key("doc", json!({"mechanism": "0x0001", "key_bits": 4096})).await;
    let framed = daemon.framed().await;
    let sign =
        || proto::Sign { mount: "transit".into(), key: "doc".into(), input: "x".into(), ..proto::Sign::default() };
    let all = futures_util::future::join_all((0..400).map(|_| framed.sign(sign()))).await;
    let refused: Vec<String> = all.iter().filter_map(|result| Some(result.as_ref().err()?.to_string())).collect();
    assert!(!refused.is_empty() && refused.len() < 400, "{} were refused", refused.len());
    assert!(refused.iter().all(|told| told.contains("overloaded")), "{refused:?}");
    framed.sign(sign()).await.unwrap();
    assert!(daemon.metric("keyway_requests_total{operation=\"sign\",outcome=\"overloaded\",wire=\"framed\"}") > 0.0);
}

#[tokio::test]
async fn a_thousand_silent_connections_and_one_that_leaves_hurt_only_themselves() {
    let token = Token::new();
    let daemon =
        Daemon::with(&token, Setup { more: "limits { connections_per_uid = 1100 }", ..Setup::default() }).await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    let good = daemon.framed().await;
    let path = daemon.socket().with_extension("sock.framed");
    let silent: Vec<UnixStream> = (0..1024).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let sign =
        || proto::Sign { mount: "transit".into(), key: "doc".into(), input: "x".into(), ..proto::Sign::default() };
    // One that leaves in the middle of its batch.
    let leaving = daemon.framed().await;
    let cut: Vec<_> = (0..200).map(|_| leaving.call(proto::call::Operation::Sign(sign()))).collect();
    leaving.close();
    drop((cut, leaving));
    for _ in 0..50 {
        good.sign(sign()).await.unwrap();
    }
    wait_for("the connections' count", || {
        (daemon.metric("keyway_connections{wire=\"framed\"}") >= 1024.0).then_some(())
    });
    drop(silent);
    wait_for("the connections' end", || (daemon.metric("keyway_connections{wire=\"framed\"}") < 10.0).then_some(()));
}

/// By the order of answers, not by the clock: on one worker thread, pings come between many verifications, which are
/// answered on the spot.
#[tokio::test]
async fn a_flood_that_is_answered_on_the_spot_leaves_others_their_turn() {
    const VERIFICATIONS: usize = 4000;
    let token = Token::new();
    let daemon = Daemon::with(&token, Setup { more: "limits { workers = 1 }", ..Setup::default() }).await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    let (good, flood) = (daemon.framed().await, daemon.framed().await);
    let (mount, key, input) = ("transit".into(), "doc".into(), "x".into());
    let sign = proto::Sign { mount, key, input, key_version: 1, ..proto::Sign::default() };
    let proto::Signature { signature, .. } = good.sign(sign.clone()).await.unwrap();
    let verify = || flood.verify(proto::Verify { signed: Some(sign.clone()), signature: signature.clone() });
    let mut all = std::pin::pin!(futures_util::future::join_all((0..VERIFICATIONS).map(|_| verify())));
    let mut pings = 0;
    let verdicts = loop {
        tokio::select! {
            verdicts = &mut all => break verdicts,
            pong = good.ping("x".into()) => {
                pong.unwrap();
                pings += 1;
            }
        }
    };
    assert!(verdicts.into_iter().all(Result::unwrap));
    assert!(pings >= 20, "{pings} pings were answered beside {VERIFICATIONS} verifications");
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let token = Token::new();
    let daemon = Daemon::with(&token, Setup { more: "limits { client_io = \"1s\" }", ..Setup::default() }).await;
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let request = b"GET /v1/sys/health HTTP/1.1\r\nHost: k\r\n\r\n".repeat(100);
    // Until neither side's buffer takes more, or the daemon has hung up.
    while stream.write_all(&request).is_ok() {}
    let good = daemon.ask(Verb::Read, "sys/health", json!({})).await;
    assert_eq!(good.status, 200);
    wait_for("the end of the one that does not read", || {
        (daemon.metric("keyway_connections{wire=\"http\"}") < 1.0).then_some(())
    });
}

/// Nor does it keep what it has asked as it was when it asked: that is judged when it is run.
#[tokio::test]
async fn a_client_that_reads_late_is_judged_as_late() {
    /// With the greeting, as many as are begun at once; their answers are more than is kept unsent and in the socket.
    const READS: u64 = 14;
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let rules = format!("path \"x\" {{ capabilities = [\"read\"] }}\n# {}", "long ".repeat(26_000));
    daemon.write("sys/policies/acl/long", json!({"policy": rules})).await;
    let made = daemon.ask(Verb::Write, "auth/token/create", json!({"policies": ["root"]})).await.json();
    let theirs = made["auth"]["client_token"].as_str().unwrap();
    let request = |verb: proto::Verb, path: &str, data: &serde_json::Value| {
        let data = if data.is_null() { Vec::new() } else { data.to_string().into_bytes() };
        proto::call::Operation::Request(proto::Request { verb: verb.into(), path: path.into(), data: data.into() })
    };
    let mut asked = hello(theirs);
    for id in 2..2 + READS {
        asked.extend(call(id, request(proto::Verb::Read, "sys/policies/acl/long", &json!(null))));
    }
    let late = json!({"policy": "path \"y\" { capabilities = [\"read\"] }"});
    asked.extend(call(2 + READS, request(proto::Verb::Write, "sys/policies/acl/late", &late)));
    let mut stream = UnixStream::connect(daemon.socket().with_extension("sock.framed")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(&asked).unwrap();
    // With the first byte of an answer, all has been begun that is at once, and no more is while so much is unsent.
    let mut inbox = BytesMut::zeroed(1);
    stream.read_exact(&mut inbox).unwrap();
    daemon.write("auth/token/revoke", json!({"token": theirs})).await;
    let mut part = vec![0; 64 << 10];
    let last = loop {
        let reply = frame::next_frame(&mut inbox, 1 << 20).unwrap().map(|bytes| proto::Reply::decode(bytes).unwrap());
        match reply {
            Some(reply) if reply.id == 2 + READS => break reply,
            Some(_) => {}
            None => {
                let read = stream.read(&mut part).unwrap();
                assert!(read > 0, "it was cut off");
                inbox.extend_from_slice(&part[..read]);
            }
        }
    };
    let Some(proto::reply::Result::Fault(fault)) = last.result else { panic!("{last:?}") };
    assert!(fault.message.contains("permission denied"), "{fault:?}");
    assert_eq!(daemon.ask(Verb::Read, "sys/policies/acl/late", json!({})).await.status, 404);
}
