//! How a member fares, as a machine without a clock, a thread or a token: what happened goes in, what to do comes out. The
//! states and their meaning are drawn at [`MemberState`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::pool::BackOff;
use crate::backend::Fate;
use crate::model::MemberState;

/// Who was refused one more session asks again after so long, and later and later.
const ASK_FIRST: Duration = Duration::from_millis(100);

/// Evictions are counted over so long.
const BREAKER_WINDOW: Duration = Duration::from_secs(10);
/// So many evictions of each session within the window, and the member is taken down: it is not its sessions that are ill. Not
/// while its sessions do more than they fail: with fresh ones it serves, and down it would not.
const BREAKER_ROUNDS: usize = 3;
/// At most so many operations count of what a session did before it was evicted: what a member did long ago says nothing.
const SERVED_MAX: usize = 4;

/// So many operations done since it came up earn a member one more of its quick tries. Whose library dies again and again, but does
/// much in between, is brought up at once each time; whose dies at every call is not.
const SERVED_FOR_A_TRY: usize = 8;

/// Quick tries of a member that served well until now, before its jobs are told that it is down; and the pauses before
/// them: long enough together for others to let go of a module, and for a process to start.
const QUICK_TRIES: [Duration; 5] = [
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(1000),
];

/// What happened to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Its token is open and logged in to; so many sessions are wanted of it, and up to `most` while there is work for them.
    CameUp { sessions: usize, most: usize },
    /// There is work that no session is free for.
    Short,
    /// Time has passed.
    Clock,
    /// It could not be brought up.
    StayedDown(Fate),
    /// A session pulls work.
    SessionOpened,
    /// A session that was being opened was refused.
    SessionRefused(Fate),
    /// A session has ended, without an error.
    SessionEnded,
    /// A session has ended with an error it could not mend by itself.
    SessionLost(Fate),
    /// A session met an error, and opens itself anew; so many operations it had done since it was opened.
    SessionEvicted { served: usize },
    /// A call of a session does not return; whether it had been opened before.
    SessionStuck { opened: bool },
    /// A call that did not return has returned after all, or its process was ended.
    StuckEnded,
    /// A key could not be proven, for more than the key's own reasons.
    ProofFailed(Fate),
    /// A signature made by it was wrong.
    WrongSignature,
    /// Others found that the library's state is lost.
    LibraryLost,
    /// It is to be tried again at once: a PIN was given that was not tried before.
    NewPin,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Stay,
    /// Bring it up now.
    BringUp,
    /// Let go of its sessions, and…
    TakeDown(Again),
}

/// When a member that was taken down is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// In a moment: it served well until now, and its jobs wait for it.
    Soon(Duration),
    /// After a pause.
    After(Duration),
    /// When an operator has done something about it.
    Never,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Health {
    state: MemberState,
    up: bool,
    /// Sessions it is to have, whatever there is to do.
    wanted: usize,
    /// So many more while there is work for them, and the most of all.
    more: usize,
    most: usize,
    /// The token has no room for more than so many until then, since one was refused.
    room: usize,
    full_until: Option<Instant>,
    /// How long it does without before it asks again.
    asks: BackOff,
    /// Operations done since it came up.
    served: usize,
    opening: usize,
    open: usize,
    stuck: usize,
    /// When sessions were evicted, and what each had done.
    evicted: VecDeque<(Instant, usize)>,
    back_off: BackOff,
    /// Quick tries made since it was last given them.
    quick_tries: usize,
    quick_since: Option<Instant>,
    settles_after: Duration,
    /// Who did not serve that long is given quick tries once in so long.
    rests_for: Duration,
    serving_since: Option<Instant>,
}

impl Health {
    /// A member nobody has tried to bring up. Pauses between tries grow from `probe_min` to `probe_max`.
    pub(super) fn new(probe_min: Duration, probe_max: Duration) -> Health {
        Health {
            state: MemberState::Probing,
            up: false,
            wanted: 0,
            more: 0,
            most: 0,
            room: usize::MAX,
            full_until: None,
            asks: BackOff::new(probe_min.min(ASK_FIRST), probe_max),
            served: 0,
            opening: 0,
            open: 0,
            stuck: 0,
            evicted: VecDeque::new(),
            back_off: BackOff::new(probe_min, probe_max),
            quick_tries: QUICK_TRIES.len(),
            quick_since: None,
            settles_after: probe_min,
            rests_for: probe_max,
            serving_since: None,
        }
    }

    pub(super) fn state(&self) -> MemberState {
        self.state
    }

    /// Whether its token is open and logged in to.
    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    /// Sessions that pull work.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Whether the token had no room for one more when it was asked last.
    pub(super) fn is_full(&self) -> bool {
        self.room != usize::MAX
    }

    /// Sessions being opened.
    pub(super) fn opening(&self) -> usize {
        self.opening
    }

    /// Threads inside calls that do not return.
    pub(super) fn stuck(&self) -> usize {
        self.stuck
    }

    /// How many sessions should be opened next: as many as pull work already, so that a token that comes back is not
    /// overrun; and never more threads than twice the sessions wanted, so that one that hangs does not eat threads for ever.
    pub(super) fn to_open(&self) -> usize {
        if !self.up || self.opening > 0 {
            return 0;
        }
        let wanted = self.wanted + self.more;
        let missing = wanted.min(self.room).saturating_sub(self.open);
        let room = (2 * wanted).saturating_sub(self.open + self.stuck);
        missing.min(room).min(self.open.max(1))
    }

    /// Counts the sessions that are being opened now.
    pub(super) fn note_opening(&mut self, sessions: usize) {
        self.opening += sessions;
        self.settle();
    }

    /// Takes note of how many operations its sessions have done since it came up, as far as those that do are still there.
    pub(super) fn note_served(&mut self, operations: usize) {
        self.served = self.served.max(operations);
    }

    /// Takes note of what happened, and says what to do.
    pub(super) fn on(&mut self, event: Event, now: Instant) -> Step {
        if self.state == MemberState::Refused && event != Event::NewPin {
            return Step::Stay;
        }
        match event {
            Event::NewPin => return self.new_pin(),
            Event::CameUp { sessions, most } => self.come_up(sessions, most),
            Event::StayedDown(fate) => return self.take_down(fate, now),
            Event::WrongSignature => return self.take_down(Fate::Retire, now),
            // Whatever the word for it, what is not up cannot be lost.
            _ if !self.up => {}
            Event::LibraryLost => return self.take_down(Fate::Reinitialize, now),
            Event::SessionLost(fate) if !spares_others(fate) || self.open <= 1 => return self.take_down(fate, now),
            // One that could not be opened anew, say: another is opened in its place.
            Event::SessionLost(_) => self.open -= 1,
            // A device that is asked too much is not helped by being asked for new sessions and logins.
            Event::ProofFailed(Fate::Keep | Fate::FindAgain | Fate::BackOff | Fate::Throttled) => {}
            Event::ProofFailed(fate) => return self.take_down(fate, now),
            Event::SessionRefused(fate) => return self.session_refused(fate, now),
            Event::SessionOpened => {
                self.opening = self.opening.saturating_sub(1);
                self.open += 1;
                if self.full_until.is_none() && self.open >= self.room {
                    self.room = usize::MAX;
                    self.asks.reset();
                }
                self.serving_since.get_or_insert(now);
            }
            Event::Clock => self.look_whether_full(now),
            Event::Short => {
                self.look_whether_full(now);
                if self.full_until.is_some() {
                    return Step::Stay;
                }
                let twice = 2 * (self.wanted + self.more);
                self.more = twice.min(self.most).saturating_sub(self.wanted).max(self.more);
            }
            Event::SessionEnded => {
                self.open = self.open.saturating_sub(1);
                self.more = self.more.min((self.open + self.opening).saturating_sub(self.wanted));
            }
            Event::SessionEvicted { served } => {
                if self.breaker_opens(served, now) {
                    return self.take_down(Fate::Reinitialize, now);
                }
            }
            Event::SessionStuck { opened } => {
                let from = if opened { &mut self.open } else { &mut self.opening };
                *from = from.saturating_sub(1);
                self.stuck += 1;
            }
            Event::StuckEnded => self.stuck = self.stuck.saturating_sub(1),
        }
        self.settle();
        Step::Stay
    }

    fn come_up(&mut self, sessions: usize, most: usize) {
        self.up = true;
        self.wanted = sessions.max(1);
        (self.more, self.most, self.room, self.full_until) = (0, most, usize::MAX, None);
        self.asks.reset();
        self.served = 0;
        (self.opening, self.open, self.stuck) = (0, 0, 0);
        self.evicted.clear();
        self.state = MemberState::Warming;
    }

    fn new_pin(&mut self) -> Step {
        if self.up || self.state != MemberState::Refused {
            return Step::Stay;
        }
        self.back_off.reset();
        self.state = MemberState::Probing;
        Step::BringUp
    }

    /// One more session was refused: go on with those there are, and ask again in a while. Without any, the token is of no use now.
    fn session_refused(&mut self, fate: Fate, now: Instant) -> Step {
        self.opening = self.opening.saturating_sub(1);
        if !spares_others(fate) || self.open == 0 {
            return self.take_down(fate, now);
        }
        self.more = self.open.saturating_sub(self.wanted);
        (self.room, self.full_until) = (self.open, Some(now + self.asks.pause()));
        self.settle();
        Step::Stay
    }

    /// Whoever was refused a session may ask for one more, once it has waited.
    fn look_whether_full(&mut self, now: Instant) {
        if self.full_until.is_some_and(|until| now >= until) {
            (self.room, self.full_until) = (self.open + 1, None);
        }
    }

    fn breaker_opens(&mut self, served: usize, now: Instant) -> bool {
        self.evicted.push_back((now, served.min(SERVED_MAX)));
        while self.evicted.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > BREAKER_WINDOW) {
            self.evicted.pop_front();
        }
        let served: usize = self.evicted.iter().map(|(_, served)| served).sum();
        self.evicted.len() > BREAKER_ROUNDS * (self.wanted + self.more) && served < self.evicted.len()
    }

    fn take_down(&mut self, fate: Fate, now: Instant) -> Step {
        let was_up = std::mem::replace(&mut self.up, false);
        (self.opening, self.open, self.stuck) = (0, 0, 0);
        let serving_since = self.serving_since.take();
        if fate == Fate::Retire {
            self.state = MemberState::Refused;
            return Step::TakeDown(Again::Never);
        }
        self.state = MemberState::BackingOff;
        self.quick_tries = self.quick_tries.saturating_sub(std::mem::take(&mut self.served) / SERVED_FOR_A_TRY);
        let span = |since| now.saturating_duration_since(since);
        if let Some(since) = serving_since.filter(|_| was_up) {
            let lasted = span(since) > self.settles_after;
            if lasted {
                self.back_off.reset();
            }
            // Jobs wait for one that served for a moment only as well, but not again and again.
            if lasted || self.quick_since.is_none_or(|last| span(last) > self.rests_for) {
                (self.quick_tries, self.quick_since) = (0, Some(now));
            }
        }
        match QUICK_TRIES.get(self.quick_tries) {
            Some(pause) => {
                self.quick_tries += 1;
                Step::TakeDown(Again::Soon(*pause))
            }
            None => Step::TakeDown(Again::After(self.back_off.pause())),
        }
    }

    /// The pause is over.
    pub(super) fn probe(&mut self) -> Step {
        if self.up || self.state == MemberState::Refused {
            return Step::Stay;
        }
        self.state = MemberState::Probing;
        Step::BringUp
    }

    /// Brings the state in line with the sessions there are.
    fn settle(&mut self) {
        if !self.up {
            return;
        }
        self.state = match (self.open, self.opening, self.stuck) {
            (0, 0, 1..) if self.to_open() == 0 => MemberState::Stuck,
            (0, _, _) => MemberState::Warming,
            (_, _, 1..) => MemberState::Degraded,
            (open, _, _) if open >= self.wanted => MemberState::Serving,
            _ if self.is_full() => MemberState::Degraded,
            (_, 0, _) if self.to_open() == 0 => MemberState::Degraded,
            _ => MemberState::Warming,
        };
    }
}

/// Whether what befell a session says nothing of the others.
fn spares_others(fate: Fate) -> bool {
    matches!(fate, Fate::Keep | Fate::Reopen | Fate::BackOff | Fate::Throttled)
}
