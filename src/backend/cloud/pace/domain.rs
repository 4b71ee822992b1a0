//! A quota domain, and threads before it.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::breaker::{Breaker, BreakerState, Pass};
use super::in_flight::InFlight;
use super::line::{Line, Waiter};
use super::outage::{Change, News, Outage, Told, Why};
use super::quota::Quota;
use super::rate::{Leave, Rate, Sent};
use super::standing::Standing;
use crate::backend::Turn;
use crate::model::Dice;

/// Who waits looks so often whether that is still wanted; of many who wait each more seldom, so that all together wake up no more
/// often than so many would; and so seldom at the most. Its turn and its deadline wake it by themselves.
const LOOKS: Duration = Duration::from_millis(100);
const LOOKING: usize = 16;
const LOOKS_MAX: Duration = Duration::from_secs(2);
/// A pause that is longer is not waited for in line.
const LONG_PAUSE: Duration = Duration::from_millis(250);
/// Failures in a row that open a breaker.
const FAILURES: u32 = 5;

/// Why somebody may not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its turn did not come in time, or it is wanted no longer.
    GaveUp {
        /// When to try again at the earliest, by what is known.
        earliest: Instant,
        /// Whether less than the quota is allowed, since the service throttled lately.
        is_throttled: bool,
    },
    /// Its turn cannot come in time.
    TooLate {
        /// When to try again at the earliest.
        earliest: Instant,
    },
    /// The service throttles, and nothing is sent for a while.
    Paused {
        /// When it is asked again.
        until: Instant,
    },
    /// The service does not answer, for any key of this domain.
    DomainOpen {
        /// When it is tried again.
        until: Instant,
    },
    /// The service does not answer for this key.
    KeyOpen {
        /// When it is tried again.
        until: Instant,
    },
}

impl Refusal {
    /// When to try again at the earliest.
    pub(crate) fn earliest(self) -> Instant {
        match self {
            Refusal::GaveUp { earliest, .. } | Refusal::TooLate { earliest } => earliest,
            Refusal::Paused { until } | Refusal::DomainOpen { until } | Refusal::KeyOpen { until } => until,
        }
    }
}

/// What a service counts together.
pub(crate) struct Domain {
    state: Mutex<State>,
    gates: Mutex<Gates>,
    outage: Outage,
}

/// The ways in that there are, and how many were made.
#[derive(Default)]
struct Gates {
    made: u64,
    alive: Vec<Weak<Gate>>,
}

/// How a domain stands. A pure machine: the clock is passed in, and nobody sleeps in here.
pub(super) struct State {
    quota: Quota,
    rate: Rate,
    in_flight: InFlight,
    breaker: Breaker,
    /// The key whose requests fail, since one was answered last.
    failing: Failing,
    pub(super) line: Line<Result<Granted, Refusal>>,
    dice: Dice,
    sent: u64,
    throttled: u64,
    failed: u64,
    breaker_refused: u64,
    throttling: Told,
}

/// Whose requests fail in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failing {
    None,
    One(u64),
    Several,
}

/// Leave that was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    sent: Sent,
    /// Whether it is to show that the domain is well again.
    probe: bool,
}

/// What the first of the line hears.
enum Heard {
    Granted(Granted),
    Refused(Refusal),
    /// Not before then; `None`: not before an answer.
    Later(Option<Instant>),
}

/// One key's way into its domain.
pub(crate) struct Gate {
    /// Tells it from others.
    number: u64,
    domain: Arc<Domain>,
    breaker: Mutex<Breaker>,
    outage: Outage,
    /// Units a request of it costs.
    cost: f64,
}

impl Domain {
    /// A domain with this quota, nothing known against it.
    pub(crate) fn new(quota: Quota) -> Arc<Domain> {
        let (quota, now) = (quota.bounded(), Instant::now());
        let (gates, state, outage) = (Mutex::default(), Mutex::new(State::new(quota, now)), Outage::default());
        Arc::new(Domain { state, gates, outage })
    }

    /// Another quota from now on. What was found out under the old one is forgotten.
    pub(crate) fn set_quota(&self, quota: Quota) {
        let (quota, now) = (quota.bounded(), Instant::now());
        let mut state = self.state.lock();
        if state.quota != quota {
            state.quota = quota;
            state.rate.set_quota(quota, now);
            state.in_flight.set_most(quota.max_in_flight);
            state.serve(now);
        }
    }

    /// A key's way in. A request of it costs so many units of the quota, at least 1.
    pub(crate) fn gate(self: &Arc<Self>, cost: u32) -> Arc<Gate> {
        let gate = self.side_gate(cost);
        let mut gates = self.gates.lock();
        gates.alive.retain(|gate| gate.strong_count() > 0);
        gates.alive.push(Arc::downgrade(&gate));
        gate
    }

    /// The way in of what is asked about a key, and not of it: it is none of those whose failures are compared.
    pub(crate) fn side_gate(self: &Arc<Self>, cost: u32) -> Arc<Gate> {
        let mut gates = self.gates.lock();
        gates.made += 1;
        Arc::new(Gate {
            number: gates.made,
            domain: Arc::clone(self),
            breaker: Mutex::new(Breaker::new(FAILURES)),
            outage: Outage::default(),
            cost: f64::from(cost.clamp(1, 10_000)),
        })
    }

    /// How it stands.
    pub(crate) fn standing(&self) -> Standing {
        let gates: Vec<Arc<Gate>> = self.gates.lock().alive.iter().filter_map(Weak::upgrade).collect();
        let keys_open = gates.iter().filter(|gate| gate.breaker() != BreakerState::Closed).count();
        let state = self.state.lock();
        Standing {
            sent: state.sent,
            throttled: state.throttled,
            failed: state.failed,
            breaker_refused: state.breaker_refused,
            waiting: state.line.len(),
            in_flight: state.in_flight.count(),
            in_flight_limit: state.in_flight.limit(),
            allowed_per_second: state.rate.allowed(),
            quota_per_second: state.quota.per_second,
            is_throttled: state.rate.is_throttled(),
            breaker: state.breaker.state(Instant::now()),
            keys_open,
        }
    }

    /// Leave for a request of this gate, waiting for its turn.
    fn enter(&self, gate: &Gate, turn: &Turn<'_>) -> Result<Granted, Refusal> {
        let (cost, until) = (gate.cost, turn.until);
        let mut now = Instant::now();
        let mut state = self.state.lock();
        if let Some(until) = state.paused_until(now) {
            return Err(Refusal::Paused { until });
        }
        if state.line.is_empty() {
            match state.turn(cost, now) {
                Heard::Granted(granted) => return Ok(granted),
                Heard::Refused(refusal) => return Err(refusal),
                Heard::Later(_) => {}
            }
        }
        let (waiter, mut look) = (Waiter::new(gate.number, cost, turn.class), now + state.looks());
        let earliest = state.earliest(&waiter, now);
        if earliest > until {
            return Err(Refusal::TooLate { earliest });
        }
        state.line.join(turn, &waiter);
        if state.line.is_first(&waiter) {
            state.serve(now);
        }
        loop {
            if let Some(answer) = waiter.answer() {
                return answer;
            }
            if now >= until {
                return Err(state.give_up(&waiter, now));
            }
            if now >= look {
                // Not under the lock: whoever is asked may have one of its own. Meanwhile it may have been told.
                let is_wanted = MutexGuard::unlocked(&mut state, || (turn.is_wanted)());
                now = Instant::now();
                look = now + state.looks();
                if !is_wanted {
                    return waiter.answer().unwrap_or_else(|| Err(state.give_up(&waiter, now)));
                }
                continue;
            }
            let first = state.line.is_first(&waiter);
            let wake = if first { state.next_turn(cost) } else { None };
            if first {
                state.line.first_sleeps(wake);
            }
            waiter.bell.wait_until(&mut state, wake.map_or(until, |wake| wake.min(until)).min(look));
            now = Instant::now();
            if state.line.is_first(&waiter) {
                state.serve(now);
            }
        }
    }

    /// Whether no answer within this time is a sign that the service is ill.
    fn is_silence(&self, took: Duration) -> bool {
        self.state.lock().in_flight.is_silence(took)
    }

    /// How a request of the gate of this number ended. Answers what there is to tell of the domain, and of its rate. Of an end
    /// that nobody tells of it is nothing: what has changed is for the next one.
    fn end(&self, gate: u64, granted: Granted, end: End) -> (Option<Change>, Option<Change>) {
        let now = Instant::now();
        let is_alone = matches!(end, End::Failed)
            && self.gates.lock().alive.iter().filter(|gate| gate.strong_count() > 0).count() == 1;
        let mut state = self.state.lock();
        state.ended(gate, granted, end, is_alone, now);
        if matches!(end, End::Lost | End::Untold) {
            return (None, None);
        }
        let is_throttled = state.rate.is_throttled();
        let rate = state.throttling.look(is_throttled, now);
        (self.outage.look(state.breaker.state(now) == BreakerState::Closed, now), rate)
    }
}

impl State {
    pub(super) fn new(quota: Quota, now: Instant) -> State {
        State {
            quota,
            rate: Rate::new(quota, Dice::new(), now),
            in_flight: InFlight::new(quota.max_in_flight),
            breaker: Breaker::new(FAILURES),
            failing: Failing::None,
            line: Line::new(),
            dice: Dice::new(),
            sent: 0,
            throttled: 0,
            failed: 0,
            breaker_refused: 0,
            throttling: Told::default(),
        }
    }

    /// A request of the gate of this number ended; whether that is the only one there is.
    pub(super) fn ended(&mut self, gate: u64, granted: Granted, end: End, is_alone: bool, now: Instant) {
        let sent = granted.sent;
        match end {
            End::Succeeded(latency) => {
                self.in_flight.answered(sent.number, latency);
                self.rate.accepted(sent, now);
                self.answered();
            }
            End::Answered => {
                self.rate.accepted(sent, now);
                self.answered();
            }
            End::Throttled(retry_after) => {
                self.throttled += 1;
                self.rate.throttled(sent, retry_after, now);
                self.answered();
                if let Some(until) = self.paused_until(now) {
                    self.send_away(Refusal::Paused { until });
                }
            }
            End::Failed => {
                self.failed += 1;
                self.rate.over(sent);
                // One key of several that fails alone has a breaker of its own, and is no sign of the service.
                self.failing = match self.failing {
                    Failing::None => Failing::One(gate),
                    Failing::One(other) if other == gate => Failing::One(gate),
                    Failing::One(_) | Failing::Several => Failing::Several,
                };
                if self.failing == Failing::Several || is_alone {
                    self.in_flight.failed(sent.number);
                }
                let State { breaker, failing, dice, .. } = self;
                if breaker.failed(sent.at, granted.probe, *failing == Failing::Several, dice, now)
                    && let Pass::No(until) = breaker.check(now)
                {
                    self.breaker_refused += self.line.len() as u64;
                    self.send_away(Refusal::DomainOpen { until });
                }
            }
            End::Lost | End::Untold => {
                self.failed += u64::from(matches!(end, End::Lost));
                self.rate.over(sent);
                if granted.probe {
                    self.breaker.gave_up();
                }
            }
        }
        self.in_flight.over();
        self.serve(now);
    }

    /// Whether a request of this cost may go now.
    fn turn(&mut self, cost: f64, now: Instant) -> Heard {
        let pass = self.breaker.check(now);
        if let Pass::No(until) = pass {
            self.breaker_refused += 1;
            return Heard::Refused(Refusal::DomainOpen { until });
        }
        if self.in_flight.is_full() {
            return Heard::Later(None);
        }
        match self.rate.ask(cost, now) {
            Leave::At(at) => Heard::Later(Some(at)),
            Leave::AfterAnswer => Heard::Later(None),
            Leave::Go(sent) => {
                self.sent += 1;
                self.in_flight.sent(sent.number);
                Heard::Granted(Granted { sent, probe: self.breaker.pass(now) == Pass::Probe })
            }
        }
    }

    /// Gives leave to the first ones of the line, as many as can go, and sees to it that the next one wakes in time.
    pub(super) fn serve(&mut self, now: Instant) {
        while let Some(first) = self.line.first() {
            let cost = first.cost;
            match self.turn(cost, now) {
                Heard::Granted(granted) => self.line.tell_first(Ok(granted)),
                Heard::Refused(refusal) => self.line.tell_first(Err(refusal)),
                Heard::Later(Some(next)) => return self.line.wake_first(next),
                // Whoever brings the answer comes here again.
                Heard::Later(None) => return,
            }
        }
    }

    /// How often who waits looks whether that is still wanted.
    pub(super) fn looks(&self) -> Duration {
        let shares = u32::try_from(1 + self.line.len() / LOOKING).unwrap_or(u32::MAX);
        LOOKS.saturating_mul(shares).min(LOOKS_MAX)
    }

    /// When the first of the line can try again, if time alone lets it.
    pub(super) fn next_turn(&self, cost: f64) -> Option<Instant> {
        if self.in_flight.is_full() { None } else { self.rate.next(cost) }
    }

    fn answered(&mut self) {
        self.breaker.answered();
        self.failing = Failing::None;
    }

    /// Nobody waits for a service that does not answer, or is left alone for long.
    fn send_away(&mut self, why: Refusal) {
        while !self.line.is_empty() {
            self.line.tell_first(Err(why));
        }
    }

    /// Until when nothing is sent, where that is long.
    fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.rate.paused_until().filter(|until| *until > now + LONG_PAUSE)
    }

    fn give_up(&mut self, waiter: &Arc<Waiter<Result<Granted, Refusal>>>, now: Instant) -> Refusal {
        let was_first = self.line.is_first(waiter);
        self.line.leave(waiter);
        if was_first {
            self.line.first_sleeps(None);
            self.serve(now);
        }
        Refusal::GaveUp { earliest: self.earliest(waiter, now), is_throttled: self.rate.is_throttled() }
    }

    /// Before when one that comes now has no turn for sure. Others of its own key and class alone are surely before it.
    fn earliest(&self, waiter: &Waiter<Result<Granted, Refusal>>, now: Instant) -> Instant {
        let to_come = self.in_flight.count() + self.line.len();
        self.rate.earliest(waiter.cost, self.line.ahead_of(waiter), to_come, now)
    }
}

impl Gate {
    /// Leave to send one request, waiting for its turn.
    ///
    /// # Errors
    ///
    /// Says why not. At once if a breaker is open, or if it is known that no turn can come in time.
    pub(crate) fn admit(self: &Arc<Self>, turn: &Turn<'_>) -> Result<Permit, Refusal> {
        if let Pass::No(until) = self.breaker.lock().check(Instant::now()) {
            return Err(self.refused(until));
        }
        let granted = self.domain.enter(self, turn)?;
        // Looked at again: it may have opened meanwhile, and one alone passes where it is to be tried.
        let pass = self.breaker.lock().pass(Instant::now());
        let permit = Permit { gate: Arc::clone(self), granted, key_probe: pass == Pass::Probe, told: false };
        match pass {
            Pass::No(until) => Err(self.refused(until)),
            Pass::Yes | Pass::Probe => Ok(permit),
        }
    }

    fn refused(&self, until: Instant) -> Refusal {
        self.domain.state.lock().breaker_refused += 1;
        Refusal::KeyOpen { until }
    }

    /// The key's breaker.
    pub(crate) fn breaker(&self) -> BreakerState {
        self.breaker.lock().state(Instant::now())
    }

    /// The domain that it leads to.
    pub(crate) fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }

    /// What failed last of the key's requests.
    pub(crate) fn key_failure(&self) -> String {
        self.outage.reason()
    }

    /// What failed last of the requests of its domain, in a word that says nothing of whose they were.
    pub(crate) fn domain_cause(&self) -> &'static str {
        self.domain.outage.cause()
    }

    /// The same with all that was said, which may be another's business: for the log.
    pub(crate) fn domain_failure(&self) -> String {
        self.domain.outage.reason()
    }

    pub(super) fn breaker_mut(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock()
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Succeeded(Duration),
    Answered,
    Throttled(Option<Duration>),
    Failed,
    Lost,
    Untold,
}

/// Leave to send one request. Dropped without a word it says nothing of the service.
#[must_use = "the request is sent while it lives, and it is told how that ended"]
pub(crate) struct Permit {
    gate: Arc<Gate>,
    granted: Granted,
    key_probe: bool,
    told: bool,
}

impl Permit {
    /// The service answered that the caller, the key or our credentials are in the wrong: it is well. How fast it says so, says
    /// nothing of how fast it works.
    pub(crate) fn answered(mut self) -> News {
        self.gate.breaker_mut().answered();
        self.tell(End::Answered)
    }

    /// The service did what it was asked for, within so long.
    pub(crate) fn succeeded(mut self, latency: Duration) -> News {
        self.gate.breaker_mut().answered();
        self.tell(End::Succeeded(latency))
    }

    /// The service refused for its quota, and may have said when to come again.
    pub(crate) fn throttled(mut self, retry_after: Option<Duration>) -> News {
        self.gate.breaker_mut().answered();
        self.tell(End::Throttled(retry_after))
    }

    /// Whose it is.
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// No answer, or one that says the service is ill: reset, timeout, 5xx.
    pub(crate) fn failed(mut self, why: Why<'_>) -> News {
        self.gate.domain.outage.note(why);
        self.key_failed(why);
        self.tell(End::Failed)
    }

    /// It failed before the service was asked, for what is the key's own business: no sign of the service.
    pub(crate) fn failed_alone(mut self, why: Why<'_>) -> News {
        self.key_failed(why);
        self.tell(End::Lost)
    }

    fn key_failed(&self, why: Why<'_>) {
        self.gate.outage.note(why);
        let (sent, probe, mut dice) = (self.granted.sent.at, self.key_probe, Dice::new());
        self.gate.breaker_mut().failed(sent, probe, true, &mut dice, Instant::now());
    }

    /// No answer, and whoever asked sees to it that it is not asked too often: counted, and no breaker opens for it.
    pub(crate) fn lost(mut self) {
        if self.key_probe {
            self.gate.breaker_mut().gave_up();
        }
        self.end(End::Lost);
    }

    /// No answer came in the time that its asker had, which may be too short to say anything of the service.
    pub(crate) fn given_up(self, took: Duration, why: Why<'_>) -> News {
        if self.gate.domain.is_silence(took) { self.failed(why) } else { News::default() }
    }

    fn end(&mut self, end: End) -> (Option<Change>, Option<Change>) {
        self.told = true;
        self.gate.domain.end(self.gate.number, self.granted, end)
    }

    fn tell(&mut self, end: End) -> News {
        let (domain, rate) = self.end(end);
        // Of one key among many that fail there is nothing to tell beside.
        let is_closed = self.gate.breaker() == BreakerState::Closed;
        let is_alone = is_closed || !self.gate.domain.outage.is_on();
        let key = if is_alone { self.gate.outage.look(is_closed, Instant::now()) } else { None };
        News { key, domain, rate }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.told {
            if self.key_probe {
                self.gate.breaker_mut().gave_up();
            }
            self.end(End::Untold);
        }
    }
}
