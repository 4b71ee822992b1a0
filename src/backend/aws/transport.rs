//! Connections of every client of this backend, and how much of an answer is read: of the service, and of whoever gives out
//! credentials.

use std::time::Duration;

use aws_sdk_kms::config::SharedHttpClient;

use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use http_body_util::Limited;

use crate::backend::cloud::ANSWER_MAX;
use crate::config::KmsService;

/// Connections that are idle are kept so long: a handshake takes longer than a call.
const IDLE: Duration = Duration::from_secs(300);

/// Connections with these settings.
pub(super) fn transport(settings: &KmsService) -> Result<SharedHttpClient, String> {
    let mut builder = aws_smithy_http_client::Builder::new()
        .pool_idle_timeout(IDLE)
        .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc));
    if let Some(pem) = &settings.ca_certificates {
        let trusted = TrustStore::empty().with_native_roots(true).with_pem_certificate(pem.as_slice());
        let context = TlsContext::builder().with_trust_store(trusted).build();
        builder = builder.tls_context(context.map_err(|error| format!("ca_file: {error}"))?);
    }
    Ok(SharedHttpClient::new(Bounded(builder.build_https())))
}

/// A client that reads no more of an answer than there may be.
#[derive(Debug)]
struct Bounded(SharedHttpClient);

impl HttpClient for Bounded {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(BoundedConnector(self.0.http_connector(settings, components)))
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.validate_base_client_config(components, config)
    }

    fn validate_final_config(&self, components: &RuntimeComponents, config: &ConfigBag) -> Result<(), BoxError> {
        self.0.validate_final_config(components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.0.connector_metadata()
    }
}

#[derive(Debug)]
struct BoundedConnector(SharedHttpConnector);

impl HttpConnector for BoundedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let mut answer = answer.await?;
            let body = std::mem::replace(answer.body_mut(), SdkBody::taken());
            *answer.body_mut() = SdkBody::from_body_1_x(Limited::new(body, ANSWER_MAX));
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use aws_sdk_kms::config::retry::RetryConfig;
    use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};

    use super::*;
    use crate::backend::aws::fault;
    use crate::model::CloudService;

    /// The description of a key as it is read of an answer with one of so many bytes.
    fn described(bytes: usize) -> Result<usize, String> {
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(transport(&KmsService::new(CloudService::AwsKms)).unwrap())
            .retry_config(RetryConfig::disabled())
            .credentials_provider(Credentials::new("AKID", "secret", None, None, "test"))
            .region(Region::from_static("eu-west-1"))
            .endpoint_url(url)
            .build();
        let client = aws_sdk_kms::Client::from_conf(config);
        let answer = runtime.block_on(client.describe_key().key_id("k").send());
        drop((client, runtime));
        server.join().unwrap();
        match answer {
            Ok(answer) => Ok(answer.key_metadata().and_then(|key| key.description()).map_or(0, str::len)),
            Err(error) => Err(fault::of("DescribeKey", "key k", &error).fault.to_string()),
        }
    }

    #[test]
    fn no_more_of_an_answer_is_read_than_there_may_be() {
        assert_eq!(described(ANSWER_MAX / 2), Ok(ANSWER_MAX / 2));
        let told = described(ANSWER_MAX * 8).unwrap_err();
        assert!(told.contains("an answer (HTTP 200) that cannot be read"), "{told}");
    }
}
