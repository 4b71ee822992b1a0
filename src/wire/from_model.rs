//! From the model to the framed wire's messages.

use bytes::Bytes;

use super::envelope;
use super::proto;
use crate::model::{Fault, IssuedCertificate, Outcome, RequestId};

/// What a request is called by that was asked under no name.
const NAMELESS: RequestId = RequestId([0; 16]);

/// The reply to the call `id`. Where that is a generic request, `request` is what it is called by.
pub fn reply(id: u64, request: Option<RequestId>, result: Result<Outcome, Fault>) -> proto::Reply {
    use proto::reply::Result as Answer;
    let answer = match result {
        Ok(Outcome::Signature { signature, key_version }) => {
            Answer::Signature(proto::Signature { signature, key_version })
        }
        Ok(Outcome::Verdict { valid }) => Answer::Verdict(proto::Verdict { valid }),
        Ok(Outcome::Ciphertext { ciphertext, key_version }) => {
            Answer::Ciphertext(proto::Ciphertext { ciphertext, key_version })
        }
        Ok(Outcome::Plaintext(plaintext)) => Answer::Plaintext(proto::Plaintext { plaintext: plaintext.into_bytes() }),
        Ok(Outcome::Mac { mac, key_version }) => Answer::Mac(proto::MacValue { mac, key_version }),
        Ok(Outcome::Certificate(issued)) => Answer::Certificate(certificate(issued)),
        Ok(Outcome::Certificates { results, chain }) => {
            Answer::Certificates(proto::Certificates { results: results.into_iter().map(part).collect(), chain })
        }
        Ok(Outcome::Response(response)) => {
            let rendered = envelope::render(response, request.unwrap_or(NAMELESS));
            Answer::Response(proto::Response {
                status: u32::from(rendered.status),
                body: rendered.body,
                content_type: rendered.content_type.to_owned(),
            })
        }
        Ok(Outcome::Download(_) | Outcome::Upload(_)) => {
            Answer::Fault(fault_message(&Fault::internal("what goes over HTTP alone was answered to a frame")))
        }
        Err(fault) => Answer::Fault(fault_message(&fault)),
    };
    proto::Reply { id, result: Some(answer) }
}

fn certificate(issued: IssuedCertificate) -> proto::Certificate {
    proto::Certificate {
        certificate: issued.certificate,
        chain: issued.chain,
        serial: issued.serial,
        expiration: issued.expiration,
        lease_id: issued.lease_id,
    }
}

/// One of the answers to many requests.
fn part(result: Result<IssuedCertificate, Fault>) -> proto::CertificateResult {
    use proto::certificate_result::Result as Part;
    let part = match result {
        Ok(issued) => Part::Certificate(certificate(issued)),
        Err(fault) => Part::Fault(fault_message(&fault)),
    };
    proto::CertificateResult { result: Some(part) }
}

/// A fault on the framed wire: the one place that turns it into an answer there.
pub fn fault_message(fault: &Fault) -> proto::Fault {
    let retry_after = fault.retry_after().map_or(0, |after| u32::try_from(after.as_millis()).unwrap_or(u32::MAX));
    proto::Fault {
        label: fault.label().as_str().to_owned(),
        message: fault.to_string(),
        retryable: fault.retryable(),
        retry_after_ms: retry_after,
    }
}

/// The bytes of a JSON value.
pub(super) fn json(value: &serde_json::Value) -> Bytes {
    // A Value has string keys only and always serializes.
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}
