//! The fields of a typed operation and of its answer, as HTTP would have them: policies may be about these, and records are.
//! What is as it is by default is left out of a request, since it need not say it.

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use serde_json::Value;

use crate::model::{
    Body, CertificateRequest, CertificatesRequest, Data, DecryptRequest, EncryptRequest, Fault, IssuedCertificate,
    MacRequest, Marshaling, Outcome, RsaPadding, SaltLength, SignRequest, SignatureScheme, VerifyRequest,
};

/// The labels of PEM.
const REQUEST: &str = "CERTIFICATE REQUEST";
const CERTIFICATE: &str = "CERTIFICATE";

/// What the operation says. Of many requests at once, `csr` is a list, which is judged by each of its items.
pub(super) fn fields(body: &Body) -> Data {
    match body {
        Body::Sign(request) => signing(request),
        Body::Verify(request) => verification(request),
        Body::Encrypt(request) => encryption(request),
        Body::Decrypt(request) => decryption(request),
        Body::Mac(request) => authentication(request),
        Body::SignCertificate(CertificateRequest { csr, data, .. }) => certificate(pem(REQUEST, csr), data),
        Body::SignCertificates(CertificatesRequest { csrs, data, .. }) => {
            certificate(csrs.iter().map(|csr| pem(REQUEST, csr)).collect(), data)
        }
        Body::Request(request) => request.data.clone(),
    }
}

fn text(bytes: &[u8]) -> Value {
    BASE64_STANDARD.encode(bytes).into()
}

fn of_key(key_version: u32) -> Data {
    let mut data = Data::new();
    if key_version > 0 {
        data.insert("key_version".into(), key_version.into());
    }
    data
}

fn signing(request: &SignRequest) -> Data {
    let mut data = of_key(request.key_version);
    data.insert("input".into(), text(&request.input));
    if request.prehashed {
        data.insert("prehashed".into(), true.into());
    }
    if let Some(hash) = request.hash {
        data.insert("hash_algorithm".into(), hash.name().into());
    }
    match request.scheme {
        Some(SignatureScheme::RsaPss { .. }) => drop(data.insert("signature_algorithm".into(), "pss".into())),
        Some(SignatureScheme::RsaPkcs1) => drop(data.insert("signature_algorithm".into(), "pkcs1v15".into())),
        _ => {}
    }
    match request.salt {
        SaltLength::Auto => {}
        SaltLength::Hash => drop(data.insert("salt_length".into(), "hash".into())),
        SaltLength::Bytes(bytes) => drop(data.insert("salt_length".into(), bytes.into())),
    }
    if request.marshaling == Marshaling::Jws {
        data.insert("marshaling_algorithm".into(), "jws".into());
    }
    data
}

fn verification(request: &VerifyRequest) -> Data {
    let mut data = signing(&request.signed);
    data.remove("key_version");
    // Over HTTP it is in the text before the signature.
    let version = request.signed.key_version;
    let signature = BASE64_STANDARD.encode(&request.signature);
    data.insert("signature".into(), format!("vault:v{version}:{signature}").into());
    data
}

fn extras(mut data: Data, associated_data: &[u8], padding: Option<RsaPadding>) -> Data {
    if !associated_data.is_empty() {
        data.insert("associated_data".into(), text(associated_data));
    }
    if let Some(padding) = padding {
        let name = match padding {
            RsaPadding::Oaep => "oaep",
            RsaPadding::Pkcs1v15 => "pkcs1v15",
        };
        data.insert("padding_scheme".into(), name.into());
    }
    data
}

fn encryption(request: &EncryptRequest) -> Data {
    let mut data = of_key(request.key_version);
    data.insert("plaintext".into(), text(request.plaintext.expose()));
    extras(data, &request.associated_data, request.padding)
}

fn decryption(request: &DecryptRequest) -> Data {
    let mut data = Data::new();
    let ciphertext = BASE64_STANDARD.encode(&request.ciphertext);
    data.insert("ciphertext".into(), format!("vault:v{}:{ciphertext}", request.key_version.max(1)).into());
    extras(data, &request.associated_data, request.padding)
}

fn authentication(request: &MacRequest) -> Data {
    let mut data = of_key(request.key_version);
    data.insert("input".into(), text(request.input.expose()));
    if let Some(hash) = request.hash {
        data.insert("algorithm".into(), hash.name().into());
    }
    data
}

fn certificate(csr: Value, data: &Data) -> Data {
    let mut data = data.clone();
    data.insert("csr".into(), csr);
    data
}

/// What an answer to a typed operation says. `marshaling` is how the request wanted a signature to be written.
pub(super) fn answer(outcome: &Outcome, marshaling: Marshaling) -> Data {
    let mut data = Data::new();
    let sealed = |version: u32, text: String| Value::from(format!("vault:v{version}:{text}"));
    match outcome {
        Outcome::Signature { signature, key_version } => {
            let text = match marshaling {
                Marshaling::Asn1 => BASE64_STANDARD.encode(signature),
                Marshaling::Jws => BASE64_URL_SAFE_NO_PAD.encode(signature),
            };
            data.insert("signature".into(), sealed(*key_version, text));
            data.insert("key_version".into(), (*key_version).into());
        }
        Outcome::Verdict { valid } => drop(data.insert("valid".into(), (*valid).into())),
        Outcome::Ciphertext { ciphertext, key_version } => {
            data.insert("ciphertext".into(), sealed(*key_version, BASE64_STANDARD.encode(ciphertext)));
            data.insert("key_version".into(), (*key_version).into());
        }
        Outcome::Plaintext(plaintext) => drop(data.insert("plaintext".into(), text(plaintext.expose()))),
        Outcome::Mac { mac, key_version } => {
            data.insert("hmac".into(), sealed(*key_version, BASE64_STANDARD.encode(mac)));
        }
        Outcome::Certificate(issued) => return issued_certificate(issued),
        Outcome::Certificates { results, chain } => {
            let told = |result: &Result<IssuedCertificate, Fault>| match result {
                Ok(issued) => Value::Object(issued_certificate(issued)),
                Err(fault) => Value::Object(Data::from_iter([("error".into(), Value::from(fault.to_string()))])),
            };
            data.insert("certificates".into(), results.iter().map(told).collect());
            data.insert("ca_chain".into(), chain.iter().map(|link| pem(CERTIFICATE, link)).collect());
        }
        // Its own data are recorded; of a stream, that it began.
        Outcome::Response(_) | Outcome::Download(_) | Outcome::Upload(_) => {}
    }
    data
}

fn issued_certificate(issued: &IssuedCertificate) -> Data {
    let mut data = Data::new();
    data.insert("certificate".into(), pem(CERTIFICATE, &issued.certificate));
    if !issued.chain.is_empty() {
        data.insert("ca_chain".into(), issued.chain.iter().map(|link| pem(CERTIFICATE, link)).collect());
    }
    data.insert("serial_number".into(), issued.serial.as_str().into());
    data.insert("expiration".into(), issued.expiration.into());
    if !issued.lease_id.is_empty() {
        data.insert("lease_id".into(), issued.lease_id.as_str().into());
    }
    data
}

fn pem(label: &str, der: &[u8]) -> Value {
    let lines: Vec<String> = BASE64_STANDARD
        .encode(der)
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----", lines.join("\n")).into()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::model::Hash;

    #[test]
    fn a_typed_request_says_what_its_form_over_http_would() {
        let plain = SignRequest {
            mount: "transit".into(),
            key: "doc".into(),
            key_version: 0,
            input: Bytes::from_static(b"a contract"),
            prehashed: false,
            hash: None,
            scheme: None,
            salt: SaltLength::Auto,
            marshaling: Marshaling::Asn1,
        };
        let input = json!("YSBjb250cmFjdA==");
        assert_eq!(json!(signing(&plain)), json!({"input": input}));
        let odd = SignRequest {
            key_version: 3,
            prehashed: true,
            hash: Some(Hash::Sha2_512),
            scheme: Some(SignatureScheme::RsaPss { salt: 0 }),
            salt: SaltLength::Bytes(20),
            marshaling: Marshaling::Jws,
            ..plain
        };
        let said = json!({
            "key_version": 3, "input": input, "prehashed": true, "hash_algorithm": "sha2-512",
            "signature_algorithm": "pss", "salt_length": 20, "marshaling_algorithm": "jws",
        });
        assert_eq!(json!(signing(&odd)), said);
        let verify = VerifyRequest { signed: odd, signature: Bytes::from_static(b"s") };
        assert_eq!(verification(&verify)["signature"], "vault:v3:cw==");
        let data = json!({"common_name": "a"}).as_object().unwrap().clone();
        let batch = CertificatesRequest {
            mount: "pki".into(),
            role: "web".into(),
            csrs: vec![Bytes::from_static(b"1"), Bytes::from_static(b"2")],
            data,
        };
        let said = fields(&Body::SignCertificates(batch));
        assert_eq!((&said["common_name"], said["csr"].as_array().unwrap().len()), (&json!("a"), 2));
        assert!(said["csr"].as_array().unwrap().iter().all(|csr| csr.as_str().unwrap().contains("BEGIN")));
    }
}
