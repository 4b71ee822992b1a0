//! Load on the framed wire: every answer is checked with the public key in software, and counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use keyway::client::{ClientError, Framed, Identity};
use keyway::crypto;
use keyway::model::{Hash, PublicKey, SaltLength, Secret, SignInput, SignatureScheme};
use keyway::wire::proto;

use crate::daemon::{LIMIT, wait_for};
use crate::rig::Rig;

/// What is asked, and how.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) namespace: &'static str,
    pub(crate) key: &'static str,
    pub(crate) class: proto::Class,
    pub(crate) connections: usize,
    /// Calls in flight on each.
    pub(crate) depth: usize,
    /// The deadline of each call.
    pub(crate) deadline: Duration,
    /// With a pace, a call every so often in all, whatever the answers; at most `depth` in flight.
    pub(crate) pace: Option<Duration>,
}

impl Default for Load {
    fn default() -> Load {
        let class = proto::Class::Interactive;
        Load { namespace: "", key: "doc", class, connections: 4, depth: 4, deadline: LIMIT, pace: None }
    }
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) asked: u64,
    pub(crate) done: u64,
    /// Signatures that are none.
    pub(crate) wrong: u64,
    /// Refused, by the fault's label.
    pub(crate) failed: BTreeMap<String, u64>,
    /// What the first of each label said.
    pub(crate) said: BTreeMap<String, String>,
    /// Not answered at all, or twice.
    pub(crate) lost: u64,
    /// The longest that an answer took to come.
    pub(crate) slowest: Duration,
}

impl Tally {
    /// Every call was answered once, and by a signature that verifies.
    pub(crate) fn assert_none_lost(&self) {
        assert!(self.done > 0 && self.done == self.asked, "{self:#?}");
        self.assert_whole();
    }

    /// Every call was answered once, and no signature was wrong.
    pub(crate) fn assert_whole(&self) {
        let answered = self.done + self.failed.values().sum::<u64>();
        assert!(self.lost == 0 && self.wrong == 0 && answered == self.asked, "{self:#?}");
    }

    /// The same, and who was refused was so for one of these reasons.
    pub(crate) fn assert_only(&self, labels: &[&str]) {
        self.assert_whole();
        assert!(self.failed.keys().all(|label| labels.contains(&label.as_str())), "{self:#?}");
    }

    pub(crate) fn failed(&self, label: &str) -> u64 {
        self.failed.get(label).copied().unwrap_or(0)
    }

    fn add(&mut self, other: Tally) {
        self.asked += other.asked;
        self.done += other.done;
        self.wrong += other.wrong;
        self.lost += other.lost;
        self.slowest = self.slowest.max(other.slowest);
        for (label, count) in other.failed {
            *self.failed.entry(label).or_default() += count;
        }
        for (label, said) in other.said {
            self.said.entry(label).or_insert(said);
        }
    }
}

/// Load that goes on until it is stopped, on a thread of its own.
pub(crate) struct Running {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    asked: Arc<AtomicU64>,
    thread: Option<JoinHandle<Tally>>,
}

impl Running {
    /// Signatures so far.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits for so many signatures more.
    pub(crate) fn until_done(&self, more: u64) {
        let before = self.done();
        wait_for("signatures", || (self.done() >= before + more).then_some(()));
    }

    /// Waits until so many calls more were sent.
    pub(crate) fn until_asked(&self, more: u64) {
        let asked = || self.asked.load(Ordering::Relaxed);
        let before = asked();
        wait_for("calls", || (asked() >= before + more).then_some(()));
    }

    /// Asks no more, and waits for all answers.
    pub(crate) fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What the connections share.
struct Shared {
    load: Load,
    public: PublicKey,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    asked: Arc<AtomicU64>,
}

impl Load {
    /// Begins to ask.
    pub(crate) async fn start(self, rig: &Rig) -> Running {
        let public = rig.public_key(self.namespace, self.key).await;
        let identity =
            Identity { token: Secret::from(rig.daemon.root_token.as_str()), namespace: self.namespace.to_owned() };
        let path = rig.daemon.socket().with_extension("sock.framed");
        let (stop, done, asked) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let shared =
            Shared { load: self, public, stop: Arc::clone(&stop), done: Arc::clone(&done), asked: Arc::clone(&asked) };
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let connect = || Framed::connect(&path, &identity, shared.load.class, Some(shared.load.deadline));
                let mut connections = Vec::new();
                for _ in 0..shared.load.connections {
                    connections.push(connect().await.unwrap());
                }
                let work = connections.iter().enumerate().map(|(number, connection)| shared.serve(number, connection));
                let mut all = Tally::default();
                futures_util::future::join_all(work).await.into_iter().for_each(|tally| all.add(tally));
                all.lost += connections.iter().map(Framed::unasked).sum::<u64>();
                all
            })
        };
        Running { stop, done, asked, thread: Some(std::thread::spawn(run)) }
    }

    /// Asks until so many signatures were made.
    pub(crate) async fn run(self, rig: &Rig, signatures: u64) -> Tally {
        let running = self.start(rig).await;
        running.until_done(signatures);
        running.stop()
    }
}

impl Shared {
    async fn serve(&self, connection: usize, framed: &Framed) -> Tally {
        let mut tally = Tally::default();
        let mut in_flight = FuturesUnordered::new();
        let begun = Instant::now();
        loop {
            let stopped = self.stop.load(Ordering::Relaxed);
            while !stopped && in_flight.len() < self.load.depth && self.is_due(tally.asked, begun) {
                let input = format!("{connection} asks for the {}th time", tally.asked);
                tally.asked += 1;
                self.asked.fetch_add(1, Ordering::Relaxed);
                in_flight.push(self.ask(framed, input));
            }
            if in_flight.is_empty() && stopped {
                return tally;
            }
            // The next call may be due before an answer comes, or none any more.
            let wake = tokio::time::sleep(Duration::from_millis(2));
            tokio::select! {
                Some((input, answer, took)) = in_flight.next() => {
                    tally.slowest = tally.slowest.max(took);
                    self.judge(&mut tally, &input, answer);
                }
                () = wake => {}
            }
        }
    }

    fn is_due(&self, asked: u64, begun: Instant) -> bool {
        let Some(pace) = self.load.pace else { return true };
        let each = pace * u32::try_from(self.load.connections).unwrap();
        begun.elapsed() >= each * u32::try_from(asked).unwrap()
    }

    async fn ask(
        &self,
        framed: &Framed,
        input: String,
    ) -> (String, Option<Result<proto::Signature, ClientError>>, Duration) {
        let begun = Instant::now();
        let sign = proto::Sign {
            mount: "transit".into(),
            key: self.load.key.into(),
            input: input.clone().into(),
            ..Default::default()
        };
        // The daemon answers at the deadline at the latest.
        let answer = tokio::time::timeout(self.load.deadline + LIMIT / 2, framed.sign(sign)).await.ok();
        (input, answer, begun.elapsed())
    }

    fn judge(&self, tally: &mut Tally, input: &str, answer: Option<Result<proto::Signature, ClientError>>) {
        let refused = |tally: &mut Tally, label: String, said: String| {
            *tally.failed.entry(label.clone()).or_default() += 1;
            tally.said.entry(label).or_insert(said);
        };
        match answer {
            None => tally.lost += 1,
            Some(Ok(signature)) if self.is_good(input, &signature.signature) => {
                tally.done += 1;
                self.done.fetch_add(1, Ordering::Relaxed);
            }
            Some(Ok(_)) => tally.wrong += 1,
            Some(Err(ClientError::Refused { label, message, .. })) => refused(tally, label, message),
            Some(Err(error)) => refused(tally, "broken".into(), error.to_string()),
        }
    }

    fn is_good(&self, input: &str, signature: &[u8]) -> bool {
        let digest = SignInput::Digest(crypto::digest(Hash::Sha2_256, input.as_bytes()).unwrap());
        let (scheme, salt) = (SignatureScheme::Ecdsa, SaltLength::Auto);
        crypto::verify(&self.public, scheme, salt, Hash::Sha2_256, &digest, signature).unwrap()
    }
}
