//! How fast a service may be asked: at its configured quota, or at what it demonstrably accepts when that is less. A pure
//! machine: the clock is passed in.
//!
//! Throttled, the service's own bucket was empty when that request came. So what it accepted from one refusal to another,
//! over the time between them, is its rate, however deep the bucket is. On a refusal this
//!
//! - pauses: a tenth of a second, longer each time nothing was accepted since the last one, or as long as the service says;
//!   with chance in it, since other daemons may share the quota;
//! - falls to that rate; or to half of what it allowed, where too little was accepted yet to tell;
//! - goes up again in steps of half a second, each only if the one before was used and the service accepted some of it: a tenth
//!   more, a fifth more, and on ever faster once it has taken everything it can have saved up meanwhile, and has refused
//!   nothing for as long as it counts.
//!
//! A pause that the service asks for is kept to by all, so each refusal costs as much of the quota. What the service saves up meanwhile
//! is not known, all of it or nothing; so its rate is looked for between what it accepted in all of the time and what it did while it was
//! asked, near what it bore in the last step. That is kept to for as long as the pause, longer once refusals have confirmed it, and the
//! way up is steeper then: seconds after the service has recovered it is found out, and until then few requests are refused. Who is
//! said to count by long windows, and accepts anew much sooner than one lasts, is treated as one who does not.
//!
//! Requests are told apart by whether they were sent before or after the fall: a volley in flight is refused once, not often.

use std::time::{Duration, Instant};

use super::bucket::{Bucket, LONGEST};
use super::quota::Quota;
use super::tally::Tally;
use crate::model::Dice;

/// First pause after a refusal.
const PAUSE: Duration = Duration::from_millis(80);
/// Longest pause nobody asked for.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// By how much longer than the pause it may be, by chance; at most by half of it.
const LATER_MAX: Duration = Duration::from_millis(250);
/// The same of a pause that the service asked for: all that come back then come at a rate that it accepts.
const LATER_PART: u32 = 10;
/// Longest pause a service may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(500);
/// What a step allows, in parts of what was found. The last of these is taken again and again. Who counts over a long time
/// lets all of that go at once: of it no more than it holds.
const GENTLE: [f64; 3] = [1.0, 1.1, 1.2];
const GENTLE_LONG: [f64; 2] = [1.0, 1.15];
const BOLD: [f64; 8] = [1.3, 1.7, 2.5, 4.5, 10.0, 30.0, 100.0, 1000.0];
/// The same where each refusal costs a pause that the service asks for: nearer to what was found, and then up in half the time.
const GENTLE_TOLD: [f64; 3] = [1.0, 1.07, 1.18];
const BOLD_TOLD: [f64; 6] = [1.5, 2.5, 5.0, 12.0, 100.0, 1000.0];
/// What was found is kept to for as long as such a pause; for so many times as long once refusals have confirmed it; and for so
/// long at most.
const HOLDS: [u32; 3] = [1, 2, 3];
const HOLD_MAX: Duration = Duration::from_secs(5);
/// What was found is confirmed by what differs from it by less than this part.
const ALIKE: f64 = 0.2;
/// What each step allows more, where a guess is all there is of a service that counts over a long time: it refuses nothing
/// until all of the window is used.
const CAUTIOUS: f64 = 1.06;
/// Bold is who was not refused for so many windows, one of them whole wherever they begin.
const CALM_WINDOWS: u32 = 2;
/// What was saved up while the service was left alone is waited for so many times as long, to be used up.
const OWES: u32 = 2;
/// A service accepts anew after this part of a window at the soonest, if it counts by such windows; and if not, over so long a time.
const SHORT_PART: f64 = 0.6;
const SHORT: Duration = Duration::from_secs(1);
/// Falls in a row with nothing accepted between them, after which it may count by long windows again.
const DRY_LONG: u32 = 5;
/// So much accepted tells a rate.
const ENOUGH: f64 = 8.0;
/// So long a time tells a rate by how little was accepted.
const LONG: Duration = Duration::from_secs(4);
/// Without a refusal for so long nothing is held against the service.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// A guess is at least the quota divided by this.
const GUESSED_MIN: f64 = 16.0;
/// A throttled service is asked as often at least, in parts of its quota, and once in ten seconds.
const LEAST_PART: f64 = 1000.0;
const LEAST: f64 = 0.1;
/// What may go at once below the quota, in seconds of the rate.
const THROTTLED_BURST: f64 = 0.02;

/// A request that was let go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sent {
    pub(super) number: u64,
    pub(super) at: Instant,
    cost: f64,
    /// The cost of all requests up to it, itself included.
    total: f64,
}

/// What is said to who wants to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Leave {
    Go(Sent),
    /// Not before then.
    At(Instant),
    /// Not before the service has answered what was sent.
    AfterAnswer,
}

/// The rate of one quota.
#[derive(Debug)]
pub(super) struct Rate {
    quota: Quota,
    bucket: Bucket,
    /// Cost a second that is allowed now.
    allowed: f64,
    found: Option<Found>,
    /// What was known last, of a service that throttles no longer.
    before: Option<(Sent, f64)>,
    /// Nothing is sent before.
    paused_until: Option<Instant>,
    /// After refusals with nothing accepted between them, one request goes ahead of the others.
    trial: Trial,
    next_number: u64,
    total: f64,
    /// What was accepted in the last window.
    tally: Tally,
    /// Whether the service was seen to count by less than the window that it is said to.
    counts_short: bool,
    dice: Dice,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Trial {
    None,
    Wanted,
    Sent(u64),
}

/// What is known of a service that throttles.
#[derive(Debug)]
struct Found {
    /// What it accepts, in cost a second.
    rate: f64,
    /// Whether that was measured, not guessed.
    measured: bool,
    /// A request that met an empty bucket, from which on is measured.
    empty: Sent,
    /// The cost of what was refused since.
    refused: f64,
    /// The cost of what was accepted since, as far as answered.
    accepted: f64,
    /// The first request after the fall.
    fell_at: u64,
    /// When the request was sent that brought the fall, and when it began to send again.
    fell_with: Instant,
    calm_from: Instant,
    /// How long nothing was sent since what is measured from, but for the last time.
    rested: Duration,
    /// Falls in a row with nothing accepted between them.
    dry: u32,
    any_accepted: bool,
    /// As long as the service asked to be left alone.
    told: Duration,
    /// What was allowed in the last step since that the service bore.
    borne: Option<f64>,
    /// How often refusals confirmed what was found.
    confirmed: usize,
    /// When the first was sent since the fall that was accepted, and the first since the fall before.
    resumed: Option<Instant>,
    resumed_before: Option<Instant>,
    step: Step,
}

#[derive(Debug)]
struct Step {
    index: usize,
    from: Instant,
    /// Its first request, and the cost of all before it.
    first: u64,
    before: f64,
    /// Whether one of its requests was accepted.
    accepted: bool,
    /// Whether somebody had to wait in it.
    wanted: bool,
}

impl Rate {
    pub(super) fn new(quota: Quota, dice: Dice, now: Instant) -> Rate {
        Rate {
            quota,
            bucket: Bucket::new(quota.per_second, quota.burst, now),
            allowed: quota.per_second,
            found: None,
            before: None,
            paused_until: None,
            trial: Trial::None,
            next_number: 1,
            total: 0.0,
            tally: Tally::new(quota.window, now),
            counts_short: false,
            dice,
        }
    }

    /// Another quota from now on.
    pub(super) fn set_quota(&mut self, quota: Quota, now: Instant) {
        self.quota = quota;
        (self.found, self.before, self.counts_short) = (None, None, false);
        self.tally = Tally::new(quota.window, now);
        self.allow(quota.per_second, now);
    }

    /// Cost a second that is allowed now.
    pub(super) fn allowed(&self) -> f64 {
        self.allowed
    }

    /// Whether it allows less than the quota.
    pub(super) fn is_throttled(&self) -> bool {
        self.found.is_some()
    }

    /// Nothing is sent before; it may be over.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Leave for one request of this cost, if it can go now.
    pub(super) fn ask(&mut self, cost: f64, now: Instant) -> Leave {
        if let Some(until) = self.paused_until {
            if now < until {
                return Leave::At(until);
            }
            self.paused_until = None;
        }
        self.step(now);
        if matches!(self.trial, Trial::Sent(_)) {
            return Leave::AfterAnswer;
        }
        if !self.bucket.take(cost, now) {
            if let Some(found) = &mut self.found {
                found.step.wanted = true;
            }
            return Leave::At(self.bucket.next(cost));
        }
        self.total += cost;
        let sent = Sent { number: self.next_number, at: now, cost, total: self.total };
        self.next_number += 1;
        if self.trial == Trial::Wanted {
            self.trial = Trial::Sent(sent.number);
        }
        Leave::Go(sent)
    }

    /// When a request of this cost can go, if time alone lets it.
    pub(super) fn next(&self, cost: f64) -> Option<Instant> {
        let waits_for_answer = matches!(self.trial, Trial::Sent(_));
        let next = self.bucket.next(cost);
        (!waits_for_answer).then(|| self.paused_until.map_or(next, |pause| pause.max(next)))
    }

    /// No request of this cost can go before, with `ahead` to be sent before it.
    pub(super) fn earliest(&self, cost: f64, ahead: f64, to_come: usize, now: Instant) -> Instant {
        let pause = self.paused_until.unwrap_or(now).max(now);
        // The rate changes by answers alone; with one to come it may be the whole quota soon.
        let by_tokens = if ahead == 0.0 && to_come == 0 {
            self.bucket.next(cost)
        } else {
            let seconds = (ahead - self.quota.burst).max(0.0) / self.quota.per_second;
            now + Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST)
        };
        pause.max(by_tokens)
    }

    /// The service accepted it.
    pub(super) fn accepted(&mut self, sent: Sent, now: Instant) {
        self.over(sent);
        self.tally.add(sent.cost, now);
        if let Some(found) = &mut self.found {
            if sent.number > found.empty.number {
                found.accepted += sent.cost;
            }
            if sent.number >= found.fell_at && !std::mem::replace(&mut found.any_accepted, true) {
                found.resumed = Some(sent.at);
                // Who counts whole windows accepts anew when one begins, and not until the next one does.
                let cycle = found.resumed_before.map(|before| sent.at.saturating_duration_since(before));
                self.counts_short |= cycle.is_some_and(|cycle| cycle < self.quota.window.mul_f64(SHORT_PART));
            }
            found.step.accepted |= sent.number >= found.step.first;
        }
        self.step(now);
    }

    /// It came to nothing that says anything about the quota.
    pub(super) fn over(&mut self, sent: Sent) {
        if self.trial == Trial::Sent(sent.number) {
            self.trial = Trial::None;
        }
    }

    /// The service refused it for its quota.
    pub(super) fn throttled(&mut self, sent: Sent, retry_after: Option<Duration>, now: Instant) {
        self.over(sent);
        let asked = retry_after.map(|pause| pause.min(RETRY_AFTER_MAX));
        match &mut self.found {
            Some(found) if sent.number < found.fell_at => {
                if sent.number > found.empty.number {
                    found.refused += sent.cost;
                }
                // It is the same event: later by no more chance.
                if let Some(pause) = asked {
                    self.pause(pause, Duration::ZERO, now);
                }
            }
            _ => self.fall(sent, asked, now),
        }
    }

    fn fall(&mut self, sent: Sent, asked: Option<Duration>, now: Instant) {
        let found = self.found.take();
        let dry = found.as_ref().map_or(0, |found| if found.any_accepted { 0 } else { found.dry + 1 });
        let resumed_before = found.as_ref().and_then(|found| found.resumed_before_next(sent.cost));
        if dry >= DRY_LONG || asked.is_some_and(|asked| asked >= self.quota.window / 2) {
            self.counts_short = false;
        }
        let known = found.as_ref().filter(|found| found.measured).map(|found| (found.rate, found.confirmed));
        let in_window = self.tally.sum(now);
        let mut fallen = self.judge(found, sent, in_window, asked);
        let least = LEAST.min(self.quota.per_second / GUESSED_MIN).max(self.quota.per_second / LEAST_PART);
        fallen.rate = fallen.rate.min(self.allowed).max(least);
        fallen.confirmed = match known {
            Some((rate, confirmed)) if (fallen.rate - rate).abs() <= ALIKE * rate => confirmed + 1,
            _ => 0,
        };
        fallen.told = asked.unwrap_or_default();
        (fallen.borne, fallen.resumed, fallen.resumed_before) = (None, None, resumed_before);
        fallen.dry = dry;
        let own = PAUSE.saturating_mul(1 << dry.min(8)).min(PAUSE_MAX);
        let later = asked.map_or(LATER_MAX.min(own / 2), |asked| LATER_MAX.min(asked / LATER_PART));
        let until = self.pause(asked.unwrap_or(own).max(own), later, now);
        fallen.fell_at = self.next_number;
        (fallen.fell_with, fallen.calm_from) = (sent.at, until);
        fallen.any_accepted = false;
        fallen.step = Step::new(0, until, self.next_number, self.total);
        self.trial = if dry > 0 { Trial::Wanted } else { Trial::None };
        let rate = fallen.rate;
        self.found = Some(fallen);
        self.allow(rate, now);
        self.bucket.empty(until);
    }

    /// What is known of the service with this refusal.
    fn judge(&self, found: Option<Found>, sent: Sent, in_window: f64, asked: Option<Duration>) -> Found {
        let anew = |rate: f64, measured: bool| Found {
            rate,
            measured,
            empty: sent,
            refused: 0.0,
            accepted: 0.0,
            fell_at: 0,
            fell_with: sent.at,
            calm_from: sent.at,
            rested: Duration::ZERO,
            dry: 0,
            any_accepted: false,
            told: Duration::ZERO,
            borne: None,
            confirmed: 0,
            resumed: None,
            resumed_before: None,
            step: Step::new(0, sent.at, 0, 0.0),
        };
        let least_guess = self.quota.per_second / GUESSED_MIN;
        let (window, by_window) = (self.window(), in_window / self.quota.window.as_secs_f64());
        let Some(mut found) = found else {
            let guess = match (self.counts_long(), asked) {
                // What it saves up in so long a time would go at once.
                (false, Some(pause)) if pause >= LONG => least_guess,
                (false, _) => self.guess(sent),
                // A window that is used up so early held far less than was sent.
                (true, Some(pause)) if pause > window / 4 => least_guess,
                (true, _) => by_window.max(least_guess),
            };
            return anew(guess, false);
        };
        let is_told = !found.told.is_zero() && !self.counts_long();
        found.refused += sent.cost;
        let span = sent.at.saturating_duration_since(found.empty.at);
        let taken = (sent.total - found.empty.total - found.refused).max(0.0);
        let much = taken >= ENOUGH * sent.cost;
        let long = if self.counts_long() { window * 2 } else { LONG };
        // What is refused for the rest of a window tells nothing new.
        let tells = found.any_accepted || !self.counts_long();
        if tells && (span >= long || (much && span >= window / 2)) {
            let by_refusals = (taken + sent.cost / 2.0) / span.as_secs_f64();
            let rate = match self.counts_long() {
                _ if is_told => found.rate_beside_pause(taken, by_refusals, self.allowed, sent.at),
                true if span < window => by_window.min(by_refusals),
                true => by_window,
                false => by_refusals,
            };
            return anew(rate, true);
        }
        if is_told && found.accepted > 0.0 {
            found.rate = found.guess_beside_pause(taken, sent.at);
        } else if !found.measured {
            let half = found.rate / 2.0;
            found.rate = half.max(least_guess);
        }
        found.rested = found.rested_by(sent.at);
        found
    }

    /// What the service may accept: half of what is allowed, or all it did since it last refused, when that is more.
    fn guess(&self, sent: Sent) -> f64 {
        let half = self.allowed / 2.0;
        let Some((empty, refused)) = self.before else { return half };
        let span = sent.at.saturating_duration_since(empty.at);
        if span < STEP || span > FORGOTTEN {
            return half;
        }
        half.max((sent.total - empty.total - refused - sent.cost) / span.as_secs_f64())
    }

    /// Sends nothing for so long, and by chance up to so much longer.
    fn pause(&mut self, pause: Duration, later: Duration, now: Instant) -> Instant {
        let until = now + pause + later.mul_f64(self.dice.part());
        let until = self.paused_until.map_or(until, |already| already.max(until));
        self.paused_until = Some(until);
        self.bucket.empty(until);
        if let Some(found) = &mut self.found {
            found.calm_from = found.calm_from.max(until);
            found.step.from = found.step.from.max(until);
        }
        until
    }

    /// Whether the service may count whole windows, so long that a client would notice being refused for the rest of one.
    fn counts_long(&self) -> bool {
        self.quota.window >= LONG && !self.counts_short
    }

    /// The span over which the service counts, as far as is known.
    fn window(&self) -> Duration {
        if self.counts_short { self.quota.window.min(SHORT) } else { self.quota.window }
    }

    fn allow(&mut self, rate: f64, now: Instant) {
        self.allowed = rate;
        let burst =
            if self.found.is_some() { (rate * THROTTLED_BURST).clamp(1.0, self.quota.burst) } else { self.quota.burst };
        self.bucket.set(rate, burst, now);
    }

    /// Takes the next step up when it is time.
    fn step(&mut self, now: Instant) {
        let (quota, window, counts_long) = (self.quota, self.window(), self.counts_long());
        let Some(found) = &mut self.found else { return };
        let (passed, calm) =
            (now.saturating_duration_since(found.step.from), now.saturating_duration_since(found.calm_from));
        if calm > FORGOTTEN.max(quota.window * 3) {
            self.found = None;
            return self.allow(quota.per_second, now);
        }
        let is_told = !found.told.is_zero() && !counts_long;
        let gentle: &[f64] = match is_told {
            true => &GENTLE_TOLD,
            false if counts_long => &GENTLE_LONG,
            false => &GENTLE,
        };
        let bold: &[f64] = if is_told { &BOLD_TOLD } else { &BOLD };
        let length = match found.step.index {
            0 if is_told => (found.told * HOLDS[found.confirmed.min(HOLDS.len() - 1)]).clamp(STEP, HOLD_MAX),
            index if is_told && index >= gentle.len() => STEP / 2,
            _ => STEP,
        };
        if passed < length || !found.step.accepted {
            return;
        }
        let used = self.total - found.step.before >= 0.7 * self.allowed * passed.as_secs_f64() - 1.0;
        let owed = found.rate * now.saturating_duration_since(found.empty.at).as_secs_f64() - found.accepted + 1.0;
        let cautious = counts_long && !found.measured;
        if used {
            found.borne = Some(self.allowed);
        }
        let index = match found.step.index {
            same if !used && !found.step.wanted => same,
            last if !cautious
                && last + 1 == gentle.len()
                && (calm < window * if counts_long { CALM_WINDOWS } else { 1 }
                    || (owed > 0.0 && calm < LONG.max(found.told * OWES))) =>
            {
                last
            }
            index => index + 1,
        };
        found.step = Step::new(index, now, self.next_number, self.total);
        let allowed = found.rate
            * match cautious {
                true => CAUTIOUS.powi(i32::try_from(index).unwrap_or(i32::MAX)),
                false => gentle.iter().chain(bold).nth(index).or(bold.last()).copied().unwrap_or(1.0),
            };
        if allowed >= quota.per_second {
            self.before = self.found.take().map(|found| (found.empty, found.refused));
        }
        self.allow(allowed.min(quota.per_second), now);
    }
}

impl Found {
    /// When the service began to accept again after this fall, for the next one. Unless it said itself until when it would not, it must
    /// have accepted much since: what costs little may be accepted among what costs much.
    fn resumed_before_next(&self, cost: f64) -> Option<Instant> {
        match self.resumed {
            Some(_) if self.told.is_zero() && self.accepted < ENOUGH * cost => None,
            Some(resumed) => Some(resumed),
            None => self.resumed_before,
        }
    }

    /// What a service may accept of which too little is known to tell: between what it accepted in all of the time, and what it did in
    /// that in which it was asked; and no more than it was thought to.
    fn guess_beside_pause(&self, taken: f64, now: Instant) -> f64 {
        let span = now.saturating_duration_since(self.empty.at).as_secs_f64().max(0.001);
        // Of what is not answered yet, half may have been accepted.
        let likely = (self.accepted + taken.max(self.accepted)) / 2.0;
        let (least, most) = (likely / span, likely / self.active(now));
        (least * most).sqrt().min(self.rate * if self.measured { 0.85 } else { 0.5 }).max(least)
    }

    /// How long nothing was sent since what is measured from.
    fn rested_by(&self, now: Instant) -> Duration {
        self.rested + self.calm_from.min(now).saturating_duration_since(self.fell_with)
    }

    /// For how many seconds it was asked since then.
    fn active(&self, now: Instant) -> f64 {
        let span = now.saturating_duration_since(self.empty.at);
        span.saturating_sub(self.rested_by(now)).as_secs_f64().max(0.001)
    }

    /// What a service accepts that was left alone for a while, for that long, by its word. What it saved up meanwhile is unknown: all
    /// that came, or nothing.
    fn rate_beside_pause(&self, taken: f64, least: f64, allowed: f64, now: Instant) -> f64 {
        let most = (taken / self.active(now)).max(least);
        match self.borne {
            // Far above what was found, there was little time at what it bore in the end.
            Some(borne) if borne > most && self.step.index >= GENTLE_TOLD.len() => {
                (most * borne.min(2.0 * most)).sqrt()
            }
            Some(borne) => borne.clamp(least, most),
            None => (least + most.min(allowed)) / 2.0,
        }
    }
}

impl Step {
    fn new(index: usize, from: Instant, first: u64, before: f64) -> Step {
        Step { index, from, first, before, accepted: false, wanted: false }
    }
}
