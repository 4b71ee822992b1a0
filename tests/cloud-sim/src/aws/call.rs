//! What a request asks: its operation, its key, and what is metered together with it.

use serde_json::Value;

use crate::server::{Request, Subject};

const TARGET: &str = "TrentService.";

/// A request for KMS.
pub(super) struct Call {
    pub(super) operation: String,
    /// Its fields; null where there are none that can be read.
    pub(super) fields: Value,
}

impl Call {
    pub(super) fn of(request: &Request) -> Option<Call> {
        let target = request.headers().get("x-amz-target")?.to_str().ok()?;
        let operation = target.strip_prefix(TARGET)?.to_owned();
        let fields = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
        Some(Call { operation, fields })
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.fields[name].as_str()
    }

    /// The key as it is called here: its id, or `alias/<name>`.
    pub(super) fn key(&self) -> Option<String> {
        self.text("KeyId").map(short)
    }

    pub(super) fn subject(&self, region: &str) -> Subject {
        let bucket = Some(format!("{region}/{}", self.family()));
        Subject { operation: self.operation.clone(), bucket, key: self.key() }
    }

    /// AWS meters cryptographic operations by the family of the key, which the algorithm tells, and others each by itself.
    fn family(&self) -> &str {
        let algorithm = ["SigningAlgorithm", "EncryptionAlgorithm"].iter().find_map(|name| self.text(name));
        match (self.operation.as_str(), algorithm) {
            (_, Some(name)) if name.starts_with("RSA") => "rsa",
            (_, Some(name)) if name.starts_with("ECDSA") || name.starts_with("ED25519") => "ecc",
            (_, Some(name)) if name.starts_with("ML_DSA") => "ml-dsa",
            ("Encrypt" | "Decrypt" | "ReEncrypt" | "GenerateMac" | "VerifyMac", _) => "symmetric",
            (operation, _) if operation.starts_with("Generate") => "symmetric",
            (operation, _) => operation,
        }
    }
}

/// A key's ARN, cut down to its id or alias.
pub(super) fn short(name: &str) -> String {
    match name.strip_prefix("arn:").and_then(|arn| arn.rsplit_once(':')) {
        Some((_, resource)) => resource.strip_prefix("key/").unwrap_or(resource).to_owned(),
        None => name.to_owned(),
    }
}

/// The region of a request, from whatever it is signed for.
pub(super) fn region(request: &Request) -> String {
    super::signature::Signature::of(request).map_or_else(|_| "nowhere".into(), |signature| signature.region)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    fn call(operation: &str, fields: &Value) -> Call {
        let request = hyper::http::Request::builder()
            .header("x-amz-target", format!("{TARGET}{operation}"))
            .body(Bytes::from(fields.to_string()));
        Call::of(&request.unwrap()).unwrap()
    }

    #[test]
    fn what_is_metered_together_is_told_by_the_algorithm() {
        for (operation, algorithm, family) in [
            ("Sign", json!({"SigningAlgorithm": "RSASSA_PSS_SHA_256"}), "rsa"),
            ("Verify", json!({"SigningAlgorithm": "ECDSA_SHA_384"}), "ecc"),
            ("Sign", json!({"SigningAlgorithm": "ED25519_SHA_512"}), "ecc"),
            ("Decrypt", json!({"EncryptionAlgorithm": "RSAES_OAEP_SHA_256"}), "rsa"),
            ("Decrypt", json!({"EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}), "symmetric"),
            ("Encrypt", json!({}), "symmetric"),
            ("GenerateMac", json!({"MacAlgorithm": "HMAC_SHA_256"}), "symmetric"),
            ("GenerateDataKey", json!({}), "symmetric"),
            ("DescribeKey", json!({}), "DescribeKey"),
        ] {
            assert_eq!(call(operation, &algorithm).family(), family, "{operation} {algorithm}");
        }
    }

    #[test]
    fn a_key_has_one_name_here() {
        let id = "1234abcd-12ab-34cd-56ef-1234567890ab";
        let named = |name: &str| call("Sign", &json!({"KeyId": name})).key().unwrap();
        assert_eq!(named(id), id);
        assert_eq!(named(&format!("arn:aws:kms:eu-west-1:000000000000:key/{id}")), id);
        assert_eq!(named("alias/ca"), "alias/ca");
        assert_eq!(named("arn:aws:kms:eu-west-1:000000000000:alias/ca"), "alias/ca");
    }
}
