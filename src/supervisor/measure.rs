//! The lane as `benches/lane.rs` measures it: real jobs, a real key set, no token. Nothing else uses this.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::job::Pending;
use super::lane::{Lane, LaneLimits, Pulled, Wake};
use super::pool::Pool;
use super::route::{Holder, KeyRoute, KeySpec, MemberId};
use super::seats::Seat;
use crate::backend::KeySelector;
use crate::config::Limits;
use crate::model::{
    Class, Deadline, Fault, Hash, KeyIdentity, KeyKind, KeyOperation, Namespace, PublicKey, SignInput, SignatureScheme,
    Terms,
};
use crate::telemetry::Telemetry;

const MEMBER: MemberId = MemberId(0);

/// A lane with one key in each of some namespaces, all held by one member.
pub struct Probe {
    pool: Pool,
    keys: Vec<(Arc<KeyRoute>, Terms)>,
}

/// A session of a [`Probe`].
pub struct ProbeSession<'a> {
    probe: &'a Probe,
    seat: Seat,
    batch: VecDeque<super::job::Job>,
}

impl Probe {
    /// A lane with default bounds and this many namespaces.
    pub fn new(namespaces: usize) -> Probe {
        let lane = LaneLimits::new(&Limits::default(), Wake::Chain);
        let pool = Pool::new("probe", Lane::new(lane, Arc::default()), Telemetry::new());
        pool.lane.begin_epoch(MEMBER, 1);
        let keys = (0..namespaces).map(|number| key(&pool, &format!("n{number}"))).collect();
        Probe { pool, keys }
    }

    /// Queues one job of the namespace of this number.
    ///
    /// # Errors
    ///
    /// As for any job: the lane is full.
    pub fn push(&self, number: usize) -> Result<Pending, Fault> {
        let (key, terms) = &self.keys[number % self.keys.len()];
        key.submit(operation(), *terms)
    }

    /// A session at the lane.
    pub fn session(&self) -> ProbeSession<'_> {
        let seat = Seat::new(MEMBER, 1);
        self.pool.lane.sit(&seat);
        ProbeSession { probe: self, seat, batch: VecDeque::new() }
    }

    /// Lets sessions end once the lane is empty.
    pub fn close(&self) {
        self.pool.lane.close();
    }
}

impl ProbeSession<'_> {
    /// Waits for jobs, takes and answers a batch of them. Answers how many; `None` once the lane is closed and empty.
    pub fn serve(&mut self) -> Option<usize> {
        match self.probe.pool.lane.pull(&self.seat, &mut self.batch, None) {
            Pulled::Jobs => {}
            Pulled::Idle | Pulled::End => return None,
        }
        let jobs = self.batch.len();
        for mut job in self.batch.drain(..) {
            job.end();
            job.answer(Ok(Bytes::new()));
        }
        Some(jobs)
    }
}

fn operation() -> KeyOperation {
    let input = SignInput::Message(Bytes::from_static(b"m"));
    KeyOperation::Sign { scheme: SignatureScheme::Ed25519, hash: Hash::None, input }
}

fn key(pool: &Pool, namespace: &str) -> (Arc<KeyRoute>, Terms) {
    let namespace = Namespace::from_path(namespace);
    let spec = KeySpec {
        uuid: "u".into(),
        name: "k".into(),
        namespace: namespace.clone(),
        library: "probe".into(),
        token: None,
        pin: None,
        selector: KeySelector { label: Some("k".into()), id: None, secret: false, cloud: None },
        generate: None,
        taken: Vec::new(),
        recorded: None,
        max_parallel: None,
    };
    let identity = KeyIdentity::from(PublicKey { kind: KeyKind::Ed25519, spki: Bytes::new() });
    let route = Arc::new(KeyRoute::new(&spec, &identity, pool));
    route.add_holder(Holder { member: MEMBER, epoch: 1, handle: 7 });
    (0..100).for_each(|_| route.learn(&operation(), Duration::from_micros(10), 1));
    let terms = Terms { class: Class::Interactive, deadline: Deadline::after(Duration::from_secs(86_400)) };
    (route, terms)
}
