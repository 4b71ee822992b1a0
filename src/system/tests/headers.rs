//! The headers that a mount's tuning lets in and out.

use super::*;

#[test]
fn headers_with_a_meaning_are_kept_and_others_are_told() {
    story(|client| async move {
        let config = json!({"passthrough_request_headers": "If-Modified-Since"});
        client.write("sys/mounts/pki", json!({"type": "pki", "config": config})).await;
        let shown = client.read("sys/mounts/pki").await["config"].clone();
        assert_eq!(shown["passthrough_request_headers"], json!(["If-Modified-Since"]));
        assert_eq!(shown.get("allowed_response_headers"), None);
        let tune = json!({"allowed_response_headers": ["Last-Modified", "Date"], "passthrough_request_headers": "A,B"});
        let warnings = ["No engine reads these request headers: [A B]", "No engine answers with these headers: [Date]"];
        assert_eq!(client.warnings("sys/mounts/pki/tune", tune).await, warnings);
        let many = json!({"passthrough_request_headers": vec!["A"; 65]});
        assert_eq!(
            client.refused(Verb::Write, "sys/mounts/pki/tune", many).await,
            "passthrough_request_headers has more than 64 headers"
        );
        let shown = client.read("sys/mounts/pki/tune").await;
        assert_eq!(shown["passthrough_request_headers"], json!(["A", "B"]));
        assert_eq!(shown["allowed_response_headers"], json!(["Last-Modified", "Date"]));
    });
}
