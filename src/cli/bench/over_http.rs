//! Requests over the HTTP wire: one at a time on each connection, as HTTP/1.1 has it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::target::Key;
use crate::client::{Answer, ClientError, Http};
use crate::model::{Data, Verb};

/// Shorter than any OCSP answer that says something; longer than one that only says why not.
const OCSP_BYTES_MIN: usize = 100;

/// The same requests, over and over.
pub(super) struct HttpWork {
    asks: Vec<Ask>,
    /// What one answer counts for.
    pub(super) pieces: u16,
    is_good: fn(&Answer) -> bool,
}

struct Ask {
    verb: Verb,
    path: String,
    data: Data,
}

impl Ask {
    fn new(verb: Verb, path: String, data: &Value) -> Ask {
        Ask { verb, path, data: data.as_object().cloned().unwrap_or_default() }
    }
}

impl HttpWork {
    /// Certificates whose keys the daemon makes.
    pub(super) fn issue(mount: &str) -> HttpWork {
        let data = json!({"common_name": "host.example.com"});
        let asks = vec![Ask::new(Verb::Write, format!("{mount}/issue/issue"), &data)];
        HttpWork { asks, pieces: 1, is_good: |answer| answer.json()["data"]["private_key"].is_string() }
    }

    /// OCSP answers to these requests (DER).
    pub(super) fn ocsp(mount: &str, requests: &[Bytes]) -> HttpWork {
        let path = |request: &Bytes| format!("{mount}/ocsp/{}", STANDARD.encode(request));
        // A slash at the end of a path is none of the request.
        let paths = requests.iter().map(path).filter(|path| !path.ends_with('/'));
        let asks = paths.map(|path| Ask::new(Verb::Read, path, &Value::Null)).collect();
        HttpWork { asks, pieces: 1, is_good: |answer| answer.body.len() >= OCSP_BYTES_MIN }
    }

    /// What costs the daemon next to nothing but the wire.
    pub(super) fn health() -> HttpWork {
        let asks = vec![Ask::new(Verb::Read, "sys/health".into(), &Value::Null)];
        HttpWork { asks, pieces: 1, is_good: |answer| !answer.body.is_empty() }
    }

    /// Signatures, so many to a request.
    pub(super) fn sign(key: &Key, items: u16) -> HttpWork {
        let item = |number: u16| {
            let mut digest = [0x5a; 32];
            digest[..2].copy_from_slice(&number.to_be_bytes());
            json!({"input": STANDARD.encode(digest)})
        };
        let data = json!({
            "batch_input": (0..items).map(item).collect::<Vec<_>>(), "prehashed": true,
            "hash_algorithm": "sha2-256", "signature_algorithm": "pkcs1v15",
        });
        HttpWork::batch(format!("transit/sign/{}", key.name), &data, items)
    }

    /// Encryptions of 32 bytes each, so many to a request.
    pub(super) fn encrypt(key: &str, items: u16) -> HttpWork {
        let item = json!({"plaintext": STANDARD.encode([0x5a; 32])});
        let data = json!({"batch_input": vec![item; usize::from(items)]});
        HttpWork::batch(format!("transit/encrypt/{key}"), &data, items)
    }

    fn batch(path: String, data: &Value, items: u16) -> HttpWork {
        let asks = vec![Ask::new(Verb::Write, path, data)];
        HttpWork { asks, pieces: items, is_good: |answer| !has(&answer.body, b"\"error\"") }
    }

    /// Asks for the `number`th; answers whether what came is good.
    pub(super) async fn ask(&self, client: &Mutex<Http>, number: u64) -> Result<bool, ClientError> {
        let place = usize::try_from(number).unwrap_or(0) % self.asks.len().max(1);
        let Some(Ask { verb, path, data }) = self.asks.get(place) else { return Ok(false) };
        let answer = client.lock().await.request(*verb, path, data).await?.success()?;
        Ok((self.is_good)(&answer))
    }
}

fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_with_an_error_in_it_is_not_good() {
        let work = HttpWork::encrypt("doc", 2);
        let answer = |body: &str| Answer { status: 200, body: Bytes::copy_from_slice(body.as_bytes()) };
        assert!((work.is_good)(&answer(r#"{"data":{"batch_results":[{"ciphertext":"vault:v1:AA"}]}}"#)));
        assert!(!(work.is_good)(&answer(r#"{"data":{"batch_results":[{"error":"no"}]}}"#)));
    }
}
