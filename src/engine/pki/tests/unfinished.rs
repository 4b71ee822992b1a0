//! What a key was asked to sign, and what became of it is not known.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::*;

impl Desk {
    /// What `certs/unfinished` lists.
    async fn unfinished(&self) -> Vec<String> {
        match self.send(Verb::List, "certs/unfinished", json!({})).await {
            Ok(answer) => {
                let listed = data(answer);
                listed["keys"].as_array().unwrap().iter().map(text).collect()
            }
            Err(Fault::NotFound { .. }) => Vec::new(),
            Err(fault) => panic!("{fault}"),
        }
    }

    /// Asks for a certificate, and leaves once the key has taken it.
    async fn leave_while_signing(&self) {
        let csr = self.p256_csr("/CN=left.example", "");
        let key = self.keys.get("ca");
        key.record.hangs.store(true, Ordering::Relaxed);
        let asked = self.write("sign/any", json!({ "csr": csr }));
        let held = async {
            while key.record.held.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            answer = asked => panic!("answered: {answer:?}"),
            left = tokio::time::timeout(Duration::from_secs(30), held) => left.unwrap(),
        }
        key.record.hangs.store(false, Ordering::Relaxed);
        key.record.held.store(0, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn whose_asker_left_while_the_token_signed_is_unfinished() {
    let desk = Desk::with_root().await;
    desk.leave_while_signing().await;
    let listed = desk.unfinished().await;
    assert_eq!(listed.len(), 1);
    // Also where others are issued meanwhile, before anyone looks.
    desk.leave_while_signing().await;
    let (_, serial) = desk.leaf("a.example").await;
    let listed = desk.unfinished().await;
    assert_eq!(listed.len(), 2);
    assert!(!listed.contains(&serial));
    assert_eq!(desk.restarted().unfinished().await, listed);
}

#[tokio::test]
async fn a_crash_before_the_doubt_is_noted_loses_none() {
    let desk = Desk::with_root().await;
    desk.leave_while_signing().await;
    assert_eq!(desk.restarted().unfinished().await.len(), 1);
}

#[tokio::test]
async fn what_no_token_heard_of_is_not_in_doubt() {
    let desk = Desk::with_root().await;
    let csr = desk.p256_csr("/CN=a.example", "");
    let record = &desk.keys.get("ca").record;
    record.is_gone.store(true, Ordering::Relaxed);
    desk.write("sign/any", json!({ "csr": csr })).await.unwrap_err();
    record.is_gone.store(false, Ordering::Relaxed);
    for stage in ["queued", crate::model::QUEUED_UNPROVEN, "arriving"] {
        *record.fails.lock() = Some(Fault::DeadlineExceeded { stage });
        desk.write("sign/any", json!({ "csr": csr })).await.unwrap_err();
    }
    assert_eq!(desk.unfinished().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_a_token_failed_at_may_exist() {
    let desk = Desk::with_root().await;
    let csr = desk.p256_csr("/CN=a.example", "");
    let key = desk.keys.get("ca");
    let faults = [
        Fault::DeviceError { what: "C_Sign: CKR_DEVICE_ERROR (0x30)".into() },
        Fault::DeviceStuck { what: "C_Sign".into() },
        Fault::DeadlineExceeded { stage: "started" },
    ];
    for (count, fault) in faults.into_iter().enumerate() {
        *key.record.fails.lock() = Some(fault);
        desk.write("sign/any", json!({ "csr": csr })).await.unwrap_err();
        assert_eq!(desk.unfinished().await.len(), count + 1);
    }
    // Of a batch, all.
    *key.record.fails.lock() = Some(Fault::DeviceStuck { what: "C_Sign".into() });
    let (results, _) = desk.batched("any", desk.csrs(&["a.example", "b.example", "c.example"])).await;
    assert!(results.iter().all(Result::is_err));
    assert_eq!(desk.unfinished().await.len(), 6);
    *key.record.fails.lock() = None;
    // A CA's certificate whose signature does not verify.
    key.record.lies.store(true, Ordering::Relaxed);
    let refused = desk.write("root/sign-intermediate", json!({ "csr": csr, "common_name": "Below" })).await;
    assert!(message(refused).contains("does not verify"));
    assert_eq!(desk.unfinished().await.len(), 7);
}
