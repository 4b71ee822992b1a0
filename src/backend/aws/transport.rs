//! Requests of AWS's clients on the connections that all clients of the service share: of the service, and of whoever gives out
//! credentials.

use std::time::Duration;

use aws_sdk_kms::config::SharedHttpClient;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http_body_util::BodyExt;
use hyper::http::Request;

use crate::backend::cloud::{Transport, Undelivered};

/// These connections, for AWS's clients.
pub(super) fn of(connections: Transport) -> SharedHttpClient {
    SharedHttpClient::new(Shared(connections))
}

#[derive(Debug)]
struct Shared(Transport);

impl HttpClient for Shared {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector { connections: self.0.clone(), limit: settings.read_timeout() })
    }
}

#[derive(Debug)]
struct Connector {
    connections: Transport,
    /// How long an answer may take, the connection included. That of a connection is the service's own.
    limit: Option<Duration>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (connections, limit) = (self.connections.clone(), self.limit);
        HttpConnectorFuture::new(async move {
            let Some(limit) = limit else { return answer(&connections, request).await };
            let answered = tokio::time::timeout(limit, answer(&connections, request)).await;
            answered.unwrap_or_else(|late| Err(ConnectorError::timeout(late.into())))
        })
    }
}

async fn answer(connections: &Transport, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(ConnectorError::user)?.to_bytes();
    let answer = connections.send(Request::from_parts(head, body)).await.map_err(told)?;
    HttpResponse::try_from(answer.map(SdkBody::from)).map_err(|error| ConnectorError::other(error.into(), None))
}

fn told(error: Undelivered) -> ConnectorError {
    match error {
        Undelivered::Unsent(_) => ConnectorError::user(error.into()),
        Undelivered::Unconnected(_) if error.is_late() => ConnectorError::timeout(error.into()).never_connected(),
        Undelivered::Unconnected(_) | Undelivered::NoTunnel(_) => ConnectorError::io(error.into()).never_connected(),
        Undelivered::Broken(_) => ConnectorError::io(error.into()),
        Undelivered::TooLong | Undelivered::Again { .. } => ConnectorError::other(error.into(), None),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use aws_sdk_kms::config::retry::RetryConfig;
    use aws_sdk_kms::config::timeout::TimeoutConfig;
    use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};

    use super::*;
    use crate::backend::BackendError;
    use crate::backend::aws::fault;
    use crate::backend::cloud::{ANSWER_MAX, Service};
    use crate::config::KmsService;
    use crate::model::CloudService;
    use crate::telemetry::Telemetry;

    /// The length of a key's description as it is read at a URL, where an answer may take so long.
    fn described(url: &str, limit: Duration) -> Result<usize, BackendError> {
        let service = Service::start(&KmsService::new(CloudService::AwsKms), &Telemetry::new()).unwrap();
        let config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(of(service.transport().unwrap()))
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().read_timeout(limit).build())
            .credentials_provider(Credentials::new("AKID", "secret", None, None, "test"))
            .region(Region::from_static("eu-west-1"))
            .endpoint_url(url);
        let client = aws_sdk_kms::Client::from_conf(config.build());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(client.describe_key().key_id("k").send());
        let answer = answer.map_err(|error| fault::of("DescribeKey", "key k", &error))?;
        Ok(answer.key_metadata().and_then(|key| key.description()).map_or(0, str::len))
    }

    /// The same of a server that answers once, with so many bytes of it.
    fn answered(bytes: usize) -> Result<usize, BackendError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 8192]).unwrap();
            let body = format!("{{\"KeyMetadata\": {{\"KeyId\": \"k\", \"Description\": \"{}\"}}}}", "x".repeat(bytes));
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            // Whoever has read enough hangs up.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        });
        let answer = described(&url, Duration::from_secs(60));
        server.join().unwrap();
        answer
    }

    #[test]
    fn no_more_of_an_answer_is_read_than_there_may_be() {
        assert_eq!(answered(ANSWER_MAX / 2).unwrap(), ANSWER_MAX / 2);
        let error = answered(ANSWER_MAX * 8).unwrap_err();
        let told = error.fault.to_string();
        assert!(told.contains("an answer that cannot be read: an answer of more than"), "{told}");
        assert_eq!(error.cause, "unreadable_answer");
    }

    #[test]
    fn why_there_is_no_answer_is_told_in_metrics() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        // Who is connected and hears nothing waits no longer than its client lets it.
        let late = described(&url, Duration::from_millis(50)).unwrap_err();
        assert_eq!(late.cause, "timeout", "{}", late.fault);
        drop(listener);
        let refused = described(&url, Duration::from_secs(60)).unwrap_err();
        assert_eq!(refused.cause, "connection", "{}", refused.fault);
        assert!(refused.fault.to_string().contains("refused"), "{}", refused.fault);
    }
}
