//! Stories of mounts that go.

use std::task::Poll;

use super::*;

#[test]
fn a_mount_goes_with_its_quotas_though_nobody_waits() {
    story(|client| async move {
        client.write("sys/mounts/transit", json!({"type": "transit"})).await;
        let quotas = [("sys/quotas/rate-limit/doc", "rate"), ("sys/quotas/concurrency/doc", "requests")];
        for (quota, much) in quotas {
            client.write(quota, json!({"path": "transit/sign/doc", much: 3})).await;
        }
        let mut asked = Box::pin(client.ask(Verb::Delete, "sys/mounts/transit", json!({})));
        let begun = std::future::poll_fn(|context| Poll::Ready(asked.as_mut().poll(context))).await;
        assert!(begun.is_pending());
        // Whoever asked has closed the connection.
        drop(asked);
        let end = std::time::Instant::now() + Duration::from_secs(30);
        for (path, _) in quotas {
            while client.ask(Verb::Read, path, json!({})).await.is_ok() {
                assert!(std::time::Instant::now() < end, "{path} stays");
                tokio::task::yield_now().await;
            }
        }
        assert!(client.ask(Verb::Read, "sys/mounts/transit", json!({})).await.is_err());
    });
}
