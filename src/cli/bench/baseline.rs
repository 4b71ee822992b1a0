//! The loop Keyway is compared with: sessions of this process, each on a thread of its own, two calls a signature.

use std::time::{Duration, Instant};

use super::load::{DIGEST, Ran};
use super::{BenchKey, Failure, dev};
use crate::backend::{Device, KeySelector, Session, registry};
use crate::config::Limits;
use crate::model::{Curve, Digest, Fault, Hash, KeyKind, KeyOperation, SignInput, SignatureScheme, TokenSelector};

/// Sessions on the bare token.
pub(super) struct Baseline {
    sessions: Vec<(Box<dyn Session>, u64)>,
    kind: KeyKind,
    operation: KeyOperation,
    _device: Box<dyn Device>,
}

impl Baseline {
    /// Logs in and finds the key.
    pub(super) fn open(key: BenchKey, label: &str, sessions: usize) -> Result<Baseline, Failure> {
        let library = dev::library(false)?;
        let fault = |error: crate::backend::BackendError| Failure::new(error.fault);
        let backend = registry::open(&library, Limits::default().call_open);
        let device = backend.open(&TokenSelector::Label(dev::TOKEN.into())).map_err(fault)?;
        if let Some(pin) = &library.pin {
            device.login(pin).map_err(fault)?;
        }
        let selector = KeySelector { label: Some(label.to_owned()), id: None };
        let mut opened = Vec::new();
        for _ in 0..sessions {
            let mut session = device.open_session().map_err(fault)?;
            let found = session.find(&selector).map_err(fault)?;
            let found = found.ok_or_else(|| Failure::new(format!("the key {label:?} is not on the token")))?;
            opened.push((session, found.handle));
        }
        let (kind, scheme) = match key {
            BenchKey::P256 => (KeyKind::Ec(Curve::P256), SignatureScheme::Ecdsa),
            BenchKey::Rsa2048 => (KeyKind::Rsa { bits: 2048 }, SignatureScheme::RsaPkcs1),
        };
        let digest = Digest::new(&DIGEST).ok_or_else(|| Fault::internal("a digest is too long"))?;
        let operation = KeyOperation::Sign { scheme, hash: Hash::Sha2_256, input: SignInput::Digest(digest) };
        Ok(Baseline { sessions: opened, kind, operation, _device: device })
    }

    /// Signs for `span` on as many sessions as there would be requests in flight, all of them at most.
    pub(super) fn run(&mut self, in_flight: usize, span: Duration) -> Result<Ran, Failure> {
        let (kind, operation) = (self.kind, &self.operation);
        let begun = Instant::now();
        let counts: Vec<Result<u64, Fault>> = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .sessions
                .iter_mut()
                .take(in_flight)
                .map(|(session, handle)| {
                    scope.spawn(move || {
                        let mut count = 0;
                        while begun.elapsed() < span {
                            session.perform(*handle, kind, operation).map_err(|error| error.fault)?;
                            count += 1;
                        }
                        Ok(count)
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(Fault::internal("a thread died"))))
                .collect()
        });
        let done = counts.into_iter().sum::<Result<u64, Fault>>()?;
        Ok(Ran { done, failed: 0, took: begun.elapsed(), latency: None })
    }
}
