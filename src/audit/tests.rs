//! Devices without a daemon: what a record says, and what becomes of one that nobody can write.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;
use crate::config::{Limits, Storage};
use crate::model::{
    Body, Caller, Class, Data, Deadline, Fault, Namespace, Operation, PeerCredentials, Request, RequestId, Response,
    Secret, Verb, Wire,
};
use crate::store::{Ephemeral, Store};
use crate::telemetry::Telemetry;

const ID: RequestId = RequestId([7; 16]);

fn store() -> Store {
    let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap())).unwrap();
    store.initialize().unwrap();
    store
}

fn audit(store: &Store) -> Audit {
    Audit::new(store.clone(), &Limits::default(), Telemetry::new())
}

async fn enable(audit: &Audit, name: &str, options: &[(&str, &str)]) -> Result<(), Fault> {
    let options: BTreeMap<String, String> =
        options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    audit.enable(NewDevice { path: name.into(), kind: "file".into(), options, ..NewDevice::default() }).await
}

fn operation(verb: Verb, data: Value) -> Operation {
    let peer = PeerCredentials { uid: 1, gid: 2, pid: Some(3) };
    Operation {
        namespace: Namespace::from_path("a"),
        caller: Caller::new(peer, Wire::Http),
        token: Some(std::sync::Arc::new(Secret::from("hvs.secret"))),
        id: Some(ID),
        arrived: Instant::now(),
        deadline: Deadline::after(Duration::from_secs(30)),
        class: Class::Interactive,
        wrap_ttl: None,
        body: Body::Request(Request {
            verb,
            path: "x/y".into(),
            data: data.as_object().unwrap().clone(),
            raw: Default::default(),
            if_modified_since: None,
        }),
    }
}

fn asked<'a>(operation: &'a Operation, clear: &'a [String]) -> Asked<'a> {
    let Body::Request(Request { data, .. }) = &operation.body else { panic!("typed") };
    Asked {
        id: ID,
        operation,
        verb: "update",
        data: Cow::Borrowed(data),
        bearer: None,
        place: Place { clear_in_requests: clear, clear_in_answers: clear, ..Place::default() },
        namespace_id: "abcde",
        is_allowed: true,
        refused: None,
    }
}

/// The records of a file, but for the first, which tells of nothing.
fn records(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn every_value_is_hashed_but_those_that_the_mount_leaves_in_clear() {
    run(async {
        let (store, folder) = (store(), tempfile::tempdir().unwrap());
        let (audit, path) = (audit(&store), folder.path().join("log"));
        enable(&audit, "file", &[("file_path", path.to_str().unwrap())]).await.unwrap();
        let data = json!({
            "pin": 9876, "name": "n", "clear": {"deep": "text"}, "list": ["a", {"b": "c"}, null, true], "flag": false,
        });
        let (operation, clear) = (operation(Verb::Write, data), ["clear".to_owned()]);
        let (recording, taken) = audit.recorder().unwrap().unwrap().request(&asked(&operation, &clear)).unwrap();
        taken.by(None).await.unwrap();
        let told = Data::from_iter([("count".into(), json!(3)), ("secret".into(), json!("s"))]);
        recording.answer(&Answered::Response(&Response::data(told))).by(None).await.unwrap();
        let hash = |text: &str| json!(audit.hash("file", text.as_bytes()).unwrap());
        let [request, response] = &records(&path)[..] else { panic!("two records") };
        let said = json!({
            "pin": hash("9876"), "name": hash("n"), "clear": {"deep": "text"},
            "list": [hash("a"), {"b": hash("c")}, null, true], "flag": false,
        });
        assert_eq!(request["request"]["data"], said);
        assert_eq!(request["request"]["peer"], json!({"uid": 1, "gid": 2, "pid": 3}));
        assert_eq!(request["request"]["namespace"], json!({"id": "abcde", "path": "a/"}));
        assert_eq!(request["auth"]["client_token"], hash("hvs.secret"));
        assert_eq!((&response["request"], &response["auth"]), (&request["request"], &request["auth"]));
        assert_eq!(response["response"]["data"], json!({"count": 3, "secret": hash("s")}));
        assert_eq!(audit.hash("other", b"x"), None);
    });
}

#[test]
fn the_key_of_a_device_is_its_own_and_outlives_the_daemon() {
    run(async {
        let store = store();
        let first = audit(&store);
        for name in ["one", "two"] {
            enable(&first, name, &[("file_path", "discard")]).await.unwrap();
        }
        let hash = |audit: &Audit, name: &str| audit.hash(name, b"x").unwrap();
        assert_ne!(hash(&first, "one"), hash(&first, "two"));
        let second = audit(&store);
        assert!(second.recorder().unwrap().is_none(), "off until it is loaded");
        second.load().unwrap();
        assert_eq!(hash(&first, "one"), hash(&second, "one"));
        assert_eq!(second.list().len(), 2);
        second.close();
        assert!(second.recorder().unwrap().is_none());
    });
}

#[test]
fn devices_have_bounds_and_plain_names() {
    run(async {
        let audit = audit(&store());
        for bad in ["", "a b", "../x", "a//b", &"x".repeat(200)] {
            assert!(enable(&audit, bad, &[("file_path", "discard")]).await.is_err(), "{bad:?}");
        }
        for number in 0..16 {
            enable(&audit, &format!("d{number}/x"), &[("file_path", "discard")]).await.unwrap();
        }
        let refused = enable(&audit, "more", &[("file_path", "discard")]).await.unwrap_err().to_string();
        assert!(refused.contains("16 audit devices"), "{refused}");
        let refused = enable(&audit, "d1", &[("file_path", "discard")]).await.unwrap_err().to_string();
        assert!(refused.contains("already in use at d1/x/"), "{refused}");
        assert!(audit.disable("d1/x").await.unwrap() && !audit.disable("d1/x").await.unwrap());
    });
}

#[test]
fn who_leaves_before_the_answer_is_recorded_and_what_a_device_began_with_it_ends_with() {
    run(async {
        let (store, folder) = (store(), tempfile::tempdir().unwrap());
        let (audit, path) = (audit(&store), folder.path().join("log"));
        enable(&audit, "file", &[("file_path", path.to_str().unwrap())]).await.unwrap();
        let operation = operation(Verb::Read, json!({}));
        let begin = || audit.recorder().unwrap().unwrap().request(&asked(&operation, &[])).unwrap();
        let (recording, taken) = begin();
        taken.by(None).await.unwrap();
        drop(recording);
        let (recording, taken) = begin();
        taken.by(None).await.unwrap();
        audit.disable("file").await.unwrap();
        recording.answer(&Answered::Response(&Response::Empty)).by(None).await.unwrap();
        let all = records(&path);
        assert_eq!(all.len(), 4, "a device that is turned off gets the answer, too");
        let (recording, taken) =
            Recorder { devices: Default::default(), bytes_max: 1 }.request(&asked(&operation, &[])).unwrap();
        taken.by(None).await.unwrap();
        recording.answer(&Answered::Response(&Response::Empty)).by(None).await.unwrap();
        assert_eq!(all[1]["error"], "the asker left before the answer");
    });
}

#[test]
fn a_record_is_no_longer_than_it_may_be() {
    run(async {
        let (store, folder) = (store(), tempfile::tempdir().unwrap());
        let path = folder.path().join("log");
        let limits = Limits { audit_record_bytes: 65_536, ..Limits::default() };
        let audit = Audit::new(store, &limits, Telemetry::new());
        enable(&audit, "file", &[("file_path", path.to_str().unwrap()), ("elide_list_responses", "true")])
            .await
            .unwrap();
        let many: Vec<&str> = vec!["x"; 1000];
        let long = operation(Verb::Write, json!({"many": many}));
        let refused = audit.recorder().unwrap().unwrap().request(&asked(&long, &[])).err().unwrap().to_string();
        assert!(refused.contains("65536 bytes") && refused.contains("audit_record_bytes"), "{refused}");
        let short = operation(Verb::List, json!({}));
        let answer = async |data: Value| {
            let (recording, taken) = audit.recorder().unwrap().unwrap().request(&asked(&short, &[])).unwrap();
            taken.by(None).await.unwrap();
            let response = Response::data(data.as_object().unwrap().clone());
            recording.answer(&Answered::Response(&response)).by(None).await.unwrap();
        };
        answer(json!({"keys": many})).await;
        answer(json!({"others": many})).await;
        let all = records(&path);
        assert_eq!(all[1]["response"]["data"], json!({"keys": 1000}));
        assert!(all[3]["response"]["elided"].is_string(), "{}", all[3]);
    });
}
