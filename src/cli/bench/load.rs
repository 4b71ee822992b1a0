//! Clients that keep a number of requests in flight.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use hdrhistogram::Histogram;
use parking_lot::Mutex;

use super::Failure;
use crate::client::Framed;
use crate::wire::proto;

/// What is signed: a digest, so that neither side hashes.
pub(super) const DIGEST: [u8; 32] = [0x5a; 32];
/// Longest latency told apart: a minute, in microseconds.
const LATENCY_MAX_US: u64 = 60_000_000;

/// So many clients, each with so many requests in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) clients: usize,
    pub(super) depth: usize,
}

/// What every request asks.
pub(super) enum Work {
    Sign(proto::Sign),
    /// For these requests (DER), one after the other.
    Certify {
        role: String,
        requests: Vec<Bytes>,
    },
}

/// What came of it.
pub(super) struct Ran {
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) took: Duration,
    /// In microseconds.
    pub(super) latency: Option<Histogram<u64>>,
}

impl Work {
    /// Signatures with the Transit key of this name.
    pub(super) fn sign(key: &str) -> Work {
        Work::Sign(proto::Sign {
            mount: "transit".into(),
            key: key.to_owned(),
            input: Bytes::from_static(&DIGEST),
            prehashed: true,
            ..proto::Sign::default()
        })
    }

    async fn ask(&self, client: &Framed, number: usize) -> bool {
        match self {
            Work::Sign(sign) => client.sign(sign.clone()).await.is_ok(),
            Work::Certify { role, requests } => {
                let csr = requests.get(number % requests.len().max(1)).cloned().unwrap_or_default();
                let data = Bytes::new();
                let request = proto::SignCertificate { mount: "pki".into(), role: role.clone(), csr, data };
                client.sign_certificate(request).await.is_ok()
            }
        }
    }
}

impl Load {
    /// Reads `CLIENTSxDEPTH`.
    pub(super) fn parse(text: &str) -> Result<Load, Failure> {
        let wrong = || Failure::usage(format!("{text:?}: expected CLIENTSxDEPTH, such as 8x16"));
        let (clients, depth) = text.split_once('x').ok_or_else(wrong)?;
        let number = |text: &str| text.parse().ok().filter(|number| (1..=1024).contains(number)).ok_or_else(wrong);
        Ok(Load { clients: number(clients)?, depth: number(depth)? })
    }

    /// Requests in flight in all.
    pub(super) fn in_flight(self) -> usize {
        self.clients * self.depth
    }

    /// Keeps the clients busy for `span`.
    pub(super) async fn run(self, clients: &[Framed], work: &Work, span: Duration) -> Ran {
        let begun = Instant::now();
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).ok().map(Mutex::new);
        let latency_ref = latency.as_ref();
        let askers = clients.iter().enumerate().flat_map(|(index, client)| {
            (0..self.depth).map(move |place| async move {
                let (mut done, mut failed) = (0_u64, 0_u64);
                let mut number = index * self.depth + place;
                while begun.elapsed() < span {
                    let asked = Instant::now();
                    if work.ask(client, number).await {
                        done += 1
                    } else {
                        failed += 1
                    }
                    number += self.in_flight();
                    if let Some(latency) = latency_ref {
                        let took = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
                        latency.lock().saturating_record(took);
                    }
                }
                (done, failed)
            })
        });
        let counts = join_all(askers).await;
        let (done, failed) = counts.into_iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        Ran { done, failed, took: begun.elapsed(), latency: latency.map(Mutex::into_inner) }
    }
}
