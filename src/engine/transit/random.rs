//! `random(/:source)(/:bytes)`: random bytes of the host's generator. The seal here is a file, which has none to give: as in Vault
//! without a seal's entropy, `source=seal` gives the same bytes with a warning.

use std::sync::Arc;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::Transit;
use super::hash::Format;
use crate::model::{Data, Fault, Fields, Response};

/// The most bytes of one request; where they are to come from the seal, fewer.
const BYTES_MAX: i64 = 10 << 20;
const SEAL_BYTES_MAX: i64 = 128 << 10;
/// Bytes made before other tasks of the worker get their turn; a multiple of three.
const STEP: usize = 96 << 10;

impl Transit {
    /// `POST random(/:source)(/:bytes)`; a path of one part names either.
    pub(super) async fn random(self: Arc<Self>, first: String, second: String, data: Data) -> Result<Response, Fault> {
        let mut fields = Fields::below(&data, &["urlbytes"]);
        let (in_path, bytes_in_path) = match second.is_empty() && first.parse::<i64>().is_ok() {
            true => (String::new(), first),
            false => (first, second),
        };
        let source = Some(in_path).filter(|source| !source.is_empty()).or(fields.filled("source")?);
        let given = fields.integer("bytes")?.unwrap_or(32);
        let bytes = match bytes_in_path.as_str() {
            "" => given,
            text => text.parse().map_err(|_| Fault::invalid(format!("error parsing url-set byte count: {text:?}")))?,
        };
        let format = Format::parse(&mut fields, Format::Base64)?;
        fields.refuse(&["drbg"])?;
        let mut warnings = fields.warnings();
        let most = match source.as_deref() {
            None | Some("" | "platform") => BYTES_MAX,
            Some("seal") => {
                warnings.push("no seal/entropy augmentation available, using platform entropy source".into());
                SEAL_BYTES_MAX
            }
            Some("all") => SEAL_BYTES_MAX,
            Some(other) => {
                let known = "must be \"platform\" or \"seal\", or \"all\"";
                return Err(Fault::invalid(format!("unsupported entropy source {other:?}; {known}")));
            }
        };
        if bytes < 1 {
            return Err(Fault::invalid("\"bytes\" cannot be less than 1"));
        }
        if bytes > most {
            return Err(Fault::invalid(format!("\"bytes\" must be less than {most}")));
        }
        let mut text = String::new();
        let mut left = usize::try_from(bytes).unwrap_or(0);
        let mut step = Zeroizing::new(vec![0; left.min(STEP)]);
        while left > 0 {
            let now = left.min(STEP);
            let filled = SystemRandom::new().fill(&mut step[..now]);
            filled.map_err(|_| Fault::internal("the system's random generator fails"))?;
            format.append(&step[..now], &mut text);
            left -= now;
            if left > 0 {
                tokio::task::yield_now().await;
            }
        }
        let mut data = Data::new();
        data.insert("random_bytes".into(), text.into());
        Ok(Response::with_warnings(data, warnings))
    }
}
