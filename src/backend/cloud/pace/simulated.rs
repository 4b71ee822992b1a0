//! A service with a quota and a daemon before it, in simulated time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::in_flight::InFlight;
use super::quota::Quota;
use super::rate::{Leave, Rate, Sent};
use crate::model::Dice;

/// How a service counts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Counting {
    /// A token bucket, so many seconds of its rate deep.
    Bucket { depth: f64 },
    /// So many seconds at a time, beginning with this part of them gone.
    Windows { seconds: f64, phase: f64 },
}

/// A service.
#[derive(Debug)]
pub(super) struct Service {
    counting: Counting,
    rate: f64,
    held: f64,
    at: f64,
    pub(super) latency: f64,
    /// A part of the latency more or less, by chance.
    pub(super) jitter: f64,
    /// Whether it says when to come again, in whole seconds rounded up, and so many at least.
    pub(super) says_when: bool,
    pub(super) least_wait: f64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) at: f64,
    pub(super) accepted: bool,
}

/// Ends of requests: in nanoseconds, so that they can be ordered.
type Answers = BinaryHeap<Reverse<(u64, usize)>>;

/// A daemon that asks a service.
pub(super) struct World {
    pub(super) service: Service,
    pub(super) rate: Rate,
    pub(super) in_flight: InFlight,
    pub(super) dice: Dice,
    start: Instant,
    pub(super) now: f64,
    answers: Answers,
    /// All that was ever sent, whether it was accepted, and when to come again.
    pending: Vec<(Sent, bool, Option<Duration>)>,
    pub(super) events: Vec<Event>,
    /// Requests that wait, and the part of the next one that has come.
    waiting: f64,
    /// Requests a second that want to be sent, and the most that wait.
    pub(super) offered: f64,
    pub(super) waiting_max: f64,
}

impl Service {
    pub(super) fn new(counting: Counting, rate: f64, latency: f64) -> Service {
        let (held, at, jitter, says_when, least_wait) = (0.0, 0.0, 0.2, false, 1.0);
        let mut service = Service { counting, rate, held, at, latency, jitter, says_when, least_wait };
        service.held = service.most();
        service
    }

    fn most(&self) -> f64 {
        match self.counting {
            Counting::Bucket { depth } => (self.rate * depth).max(2.0),
            Counting::Windows { seconds, .. } => (self.rate * seconds).max(2.0),
        }
    }

    fn fill(&mut self, now: f64) {
        match self.counting {
            Counting::Bucket { .. } => self.held = (self.held + (now - self.at).max(0.0) * self.rate).min(self.most()),
            Counting::Windows { seconds, phase } => {
                let window = |at: f64| ((at + phase * seconds) / seconds).floor();
                if window(now) > window(self.at) {
                    self.held = self.most();
                }
            }
        }
        self.at = self.at.max(now);
    }

    /// Another quota from now on: what was used in this window counts against it.
    fn set_rate(&mut self, rate: f64, now: f64) {
        self.fill(now);
        let before = self.most();
        self.rate = rate;
        self.held = match self.counting {
            Counting::Bucket { .. } => self.held.min(self.most()),
            Counting::Windows { .. } => self.held + self.most() - before,
        };
    }

    fn accepts(&mut self, now: f64) -> bool {
        self.fill(now);
        let accepts = self.held >= 1.0 - 1e-9;
        self.held -= if accepts { 1.0 } else { 0.0 };
        accepts
    }

    fn retry_after(&self, now: f64) -> Option<Duration> {
        let wait = match self.counting {
            Counting::Bucket { .. } => (1.0 - self.held) / self.rate,
            Counting::Windows { seconds, phase } => seconds - (now + phase * seconds) % seconds,
        };
        self.says_when.then(|| Duration::from_secs_f64(wait.ceil().max(self.least_wait)))
    }
}

fn nanoseconds(seconds: f64) -> u64 {
    u64::try_from(Duration::from_secs_f64(seconds).as_nanos()).unwrap()
}

impl World {
    pub(super) fn new(quota: Quota, service: Service, seed: u64) -> World {
        let start = Instant::now();
        World {
            service,
            rate: Rate::new(quota, Dice::seeded(seed ^ 0x9E37_79B9_7F4A_7C15), start),
            in_flight: InFlight::new(quota.max_in_flight),
            dice: Dice::seeded(seed.wrapping_mul(2) + 1),
            start,
            now: 0.0,
            answers: Answers::new(),
            pending: Vec::new(),
            events: Vec::new(),
            waiting: 0.0,
            offered: quota.per_second,
            waiting_max: 64.0,
        }
    }

    pub(super) fn instant(&self, at: f64) -> Instant {
        self.start + Duration::from_secs_f64(at)
    }

    pub(super) fn set_service_rate(&mut self, rate: f64) {
        self.service.set_rate(rate, self.now);
    }

    /// Lives until then.
    pub(super) fn run_until(&mut self, end: f64) {
        while self.now < end {
            let wake = self.send_all();
            let answer =
                self.answers.peek().map_or(f64::INFINITY, |Reverse((at, _))| Duration::from_nanos(*at).as_secs_f64());
            let arrival = self.now + (1.0 - self.waiting).max(0.0) / self.offered;
            let arrival = if self.waiting >= 1.0 { f64::INFINITY } else { arrival + 1e-9 };
            let next = wake.min(answer).min(arrival).min(end).max(self.now);
            self.waiting = (self.waiting + (next - self.now) * self.offered).min(self.waiting_max);
            self.now = next;
            while let Some(Reverse((at, index))) = self.answers.peek().copied()
                && at <= nanoseconds(self.now)
            {
                self.answers.pop();
                self.answer(index);
            }
        }
    }

    /// Sends what may go, and says when more may.
    fn send_all(&mut self) -> f64 {
        while self.waiting >= 1.0 && !self.in_flight.is_full() {
            let now = self.instant(self.now);
            match self.rate.ask(1.0, now) {
                Leave::Go(sent) => self.send(sent),
                Leave::At(at) => {
                    // Threads wake late.
                    let late = 0.0005 * self.dice.part();
                    return at.saturating_duration_since(self.start).as_secs_f64().max(self.now) + late;
                }
                Leave::AfterAnswer => break,
            }
        }
        f64::INFINITY
    }

    fn send(&mut self, sent: Sent) {
        self.waiting -= 1.0;
        self.in_flight.sent(sent.number);
        let latency = self.service.latency * (1.0 + self.service.jitter * (2.0 * self.dice.part() - 1.0));
        let arrives = self.now + self.service.latency * (0.2 + 0.05 * self.dice.part());
        let accepted = self.service.accepts(arrives);
        let retry_after = if accepted { None } else { self.service.retry_after(arrives) };
        // A refusal costs no work.
        let answered = if accepted { self.now + latency } else { self.now + latency * 0.5 };
        self.events.push(Event { at: self.now, accepted });
        let index = self.pending.len();
        self.pending.push((sent, accepted, retry_after));
        self.answers.push(Reverse((nanoseconds(answered), index)));
    }

    fn answer(&mut self, index: usize) {
        let (sent, accepted, retry_after) = self.pending[index];
        let now = self.instant(self.now);
        let latency = now.saturating_duration_since(sent.at);
        if accepted {
            self.in_flight.answered(sent.number, latency);
            self.rate.accepted(sent, now);
        } else {
            self.rate.throttled(sent, retry_after, now);
        }
        self.in_flight.over();
    }

    /// Requests sent in a span, and how many of them were accepted.
    pub(super) fn between(&self, from: f64, to: f64) -> (f64, f64) {
        let inside = self.events.iter().filter(|event| event.at >= from && event.at < to);
        inside.fold((0.0, 0.0), |(sent, accepted), event| (sent + 1.0, accepted + f64::from(u8::from(event.accepted))))
    }

    /// The most requests sent in any span so long that begins at `from` or later and ends by `to`, and when the last one was.
    pub(super) fn most_in(&self, span: f64, from: f64, to: f64) -> (f64, f64) {
        let (mut first, mut most) = (0, (0.0, from));
        for (index, event) in self.events.iter().enumerate() {
            if event.at < from {
                first = index + 1;
                continue;
            }
            if event.at > to {
                break;
            }
            while self.events[first].at <= event.at - span {
                first += 1;
            }
            let inside = f64::from(u32::try_from(index + 1 - first).unwrap());
            if inside > most.0 {
                most = (inside, event.at);
            }
        }
        most
    }
}
