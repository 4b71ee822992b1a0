//! AWS's client alone, as a program without Keyway has it.

use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{MessageType, SigningAlgorithmSpec};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use crate::client::Cloud;

/// A client, and the key it signs with.
pub(crate) struct Direct {
    client: aws_sdk_kms::Client,
    key: String,
}

impl Direct {
    pub(crate) fn new(cloud: &Cloud, key: &str) -> Direct {
        // AWS's default, which this build leaves out.
        let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        let config = aws_sdk_kms::Config::builder()
            .http_client(http.build_https())
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&cloud.url)
            .region(Region::new("eu-west-1"))
            .credentials_provider(Credentials::new("AKIDTEST", "secret", None, None, "bench"))
            .retry_config(RetryConfig::disabled());
        Direct { client: aws_sdk_kms::Client::from_conf(config.build()), key: key.to_owned() }
    }

    pub(crate) async fn sign(&self) -> bool {
        let call = self.client.sign().key_id(&self.key).message(Blob::new([7; 32])).message_type(MessageType::Digest);
        call.signing_algorithm(SigningAlgorithmSpec::EcdsaSha256).send().await.is_ok()
    }
}
