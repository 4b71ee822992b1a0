//! The language of steering: one line, one command.

use std::time::Duration;

use cryptoki_sys::CK_RV;

use crate::ckr;
use crate::clock::{self, Span};
use crate::function::Function;
use crate::shared::SERVERS;

/// Which slots a command is about: `*`, or a slot's number, or its token's label or serial number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector(String);

impl Selector {
    pub(crate) fn all() -> Selector {
        Selector("*".into())
    }

    pub(crate) fn selects(&self, id: u64, label: &str, serial: &str) -> bool {
        self.0 == "*" || self.0 == label || self.0 == serial || self.0.parse() == Ok(id)
    }
}

/// What a slot can be set to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Setting {
    Service(Option<Span>),
    Parallel(u64),
    RoundTrip(Duration),
    /// The most sessions, and whether the token's information tells so.
    Sessions {
        most: Option<u64>,
        told: bool,
    },
    Idle(Option<Duration>),
    /// Whether the token tells a time that is none.
    BadClock(bool),
}

/// What happens to a call that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// Answered so instead of being done.
    Fail(CK_RV),
    /// Done, and then answered so.
    Late(CK_RV),
    Delay(Span),
    Hang,
    Abort,
    WrongSignature,
    /// Done, and told to be longer than there is room for.
    WrongLength,
}

/// Which of the calls that match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frequency {
    Nth(u64),
    Every(u64),
    First(u64),
    /// Every one until the module is finalised.
    UntilFinalized,
}

impl Frequency {
    /// Whether the call of this number, from 1, is one.
    pub(crate) fn takes(self, call: u64) -> bool {
        match self {
            Frequency::Nth(number) => call == number,
            Frequency::Every(step) => call.is_multiple_of(step),
            Frequency::First(most) => call <= most,
            Frequency::UntilFinalized => true,
        }
    }
}

/// A rule for calls.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) action: Action,
    /// No function: every one.
    pub(crate) function: Option<Function>,
    /// No slot: every call, whether it is about a slot or not.
    pub(crate) slot: Option<Selector>,
    pub(crate) frequency: Frequency,
}

/// When handles begin to name another key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Swap {
    pub(crate) label: String,
    pub(crate) other: String,
    /// Only in sessions opened after the command.
    pub(crate) at_reconnect: bool,
    /// Only when the key is used: its attributes stay those of the key that was asked for.
    pub(crate) in_use_only: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    Set(Selector, Setting),
    Rule(Rule),
    Release,
    Clear,
    Reset,
    Log(bool),
    DropSessions(Selector),
    ForgetLogin(Selector),
    ForgetHandles(Selector),
    /// As if other code of the process had finalised the module.
    Finalize,
    Unlock(Selector),
    Remove(Selector),
    /// The token is back, or will be once the module is initialised anew.
    Return {
        slot: Selector,
        anew: bool,
    },
    /// Slots get other numbers, or exchange them.
    Renumber {
        rotate: bool,
        now: bool,
    },
    Swap(Selector, Swap),
    Report,
    Help,
}

/// What `help` answers.
pub(crate) const HELP: &str = "slot S service none|fixed TIME|lognormal MEAN SIGMA; slot S parallel N; \
slot S roundtrip TIME; slot S sessions N [hidden]|unlimited; slot S idle TIME|never; \
slot S clock good|malformed; \
fail|late FUNCTION [slot S] CKR [nth N|every K|first N|until-finalized]; delay FUNCTION [slot S] TIME [..]; \
hang|abort|wrong-length FUNCTION [slot S] [..]; wrong-signature [slot S] [..]; release; clear; reset; drop-sessions [slot S]; \
forget-login [slot S]; forget-handles [slot S]; finalize; unlock [slot S]; remove slot S; return slot S [anew]; \
renumber [rotate] [now]; swap slot S now|reconnect LABEL OTHER [use]; log on|off; report; help";

/// The words of a line that are not read yet.
struct Words(std::vec::IntoIter<String>);

impl Words {
    fn of(line: &str) -> Result<Words, String> {
        let mut words = Vec::new();
        let mut rest = line.trim_start();
        while !rest.is_empty() {
            let (word, after) = match rest.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').ok_or("a quotation mark is missing")?,
                None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
            };
            words.push(word.to_owned());
            rest = after.trim_start();
        }
        Ok(Words(words.into_iter()))
    }

    fn next(&mut self, what: &str) -> Result<String, String> {
        self.0.next().ok_or_else(|| format!("{what} is missing"))
    }

    fn number(&mut self, what: &str) -> Result<u64, String> {
        let word = self.next(what)?;
        word.parse().ok().filter(|number| *number > 0).ok_or_else(|| format!("{what}: {word:?} is no number above 0"))
    }

    fn time(&mut self) -> Result<Duration, String> {
        clock::parse(&self.next("a time")?)
    }

    /// Takes the next word if it is this one.
    fn takes(&mut self, word: &str) -> bool {
        let found = self.0.as_slice().first().is_some_and(|next| next == word);
        if found {
            self.0.next();
        }
        found
    }

    fn slot(&mut self) -> Result<Option<Selector>, String> {
        if self.takes("slot") { self.next("a slot").map(|slot| Some(Selector(slot))) } else { Ok(None) }
    }

    fn slot_or_all(&mut self) -> Result<Selector, String> {
        Ok(self.slot()?.unwrap_or_else(Selector::all))
    }

    fn needed_slot(&mut self) -> Result<Selector, String> {
        self.slot()?.ok_or_else(|| "a slot is missing: slot NUMBER, LABEL, SERIAL or *".to_owned())
    }

    fn frequency(&mut self) -> Result<Frequency, String> {
        if self.takes("nth") {
            return self.number("nth").map(Frequency::Nth);
        }
        if self.takes("first") {
            return self.number("first").map(Frequency::First);
        }
        if self.takes("every") {
            return self.number("every").map(Frequency::Every);
        }
        if self.takes("until-finalized") {
            return Ok(Frequency::UntilFinalized);
        }
        Ok(Frequency::Every(1))
    }

    fn rule(&mut self, action: impl FnOnce(&mut Words) -> Result<Action, String>) -> Result<Command, String> {
        let name = self.next("a function")?;
        let function = if name == "*" { None } else { Some(Function::named(&name)?) };
        let slot = self.slot()?;
        let action = action(self)?;
        Ok(Command::Rule(Rule { action, function, slot, frequency: self.frequency()? }))
    }
}

impl Command {
    pub(crate) fn parse(line: &str) -> Result<Command, String> {
        let mut words = Words::of(line)?;
        let command = Command::read(&mut words)?;
        match words.0.next() {
            None => Ok(command),
            Some(word) => Err(format!("{word:?} is too much")),
        }
    }

    fn read(words: &mut Words) -> Result<Command, String> {
        let word = words.next("a command")?;
        Ok(match word.as_str() {
            "slot" => Command::Set(Selector(words.next("a slot")?), setting(words)?),
            "fail" => words.rule(|words| Ok(Action::Fail(ckr::parse(&words.next("a return value")?)?)))?,
            "late" => words.rule(|words| Ok(Action::Late(ckr::parse(&words.next("a return value")?)?)))?,
            "delay" => words.rule(|words| Ok(Action::Delay(span(words)?)))?,
            "hang" => words.rule(|_| Ok(Action::Hang))?,
            "abort" => words.rule(|_| Ok(Action::Abort))?,
            "wrong-length" => words.rule(|_| Ok(Action::WrongLength))?,
            "wrong-signature" => {
                let slot = words.slot()?;
                let frequency = words.frequency()?;
                Command::Rule(Rule { action: Action::WrongSignature, function: None, slot, frequency })
            }
            "release" => Command::Release,
            "clear" => Command::Clear,
            "reset" => Command::Reset,
            "log" => match words.next("on or off")?.as_str() {
                "on" => Command::Log(true),
                "off" => Command::Log(false),
                other => return Err(format!("log {other:?}: say on or off")),
            },
            "drop-sessions" => Command::DropSessions(words.slot_or_all()?),
            "forget-login" => Command::ForgetLogin(words.slot_or_all()?),
            "forget-handles" => Command::ForgetHandles(words.slot_or_all()?),
            "finalize" => Command::Finalize,
            "unlock" => Command::Unlock(words.slot_or_all()?),
            "remove" => Command::Remove(words.needed_slot()?),
            "return" => Command::Return { slot: words.needed_slot()?, anew: words.takes("anew") },
            "renumber" => Command::Renumber { rotate: words.takes("rotate"), now: words.takes("now") },
            "swap" => swap(words)?,
            "report" => Command::Report,
            "help" => Command::Help,
            other => return Err(format!("{other:?} is no command; help lists them")),
        })
    }
}

fn swap(words: &mut Words) -> Result<Command, String> {
    let slot = words.needed_slot()?;
    let at_reconnect = match words.next("now or reconnect")?.as_str() {
        "now" => false,
        "reconnect" => true,
        other => return Err(format!("swap {other:?}: say now or reconnect")),
    };
    let (label, other) = (words.next("a label")?, words.next("another label")?);
    let in_use_only = words.takes("use");
    Ok(Command::Swap(slot, Swap { label, other, at_reconnect, in_use_only }))
}

fn setting(words: &mut Words) -> Result<Setting, String> {
    Ok(match words.next("what to set")?.as_str() {
        "service" if words.takes("none") => Setting::Service(None),
        "service" => Setting::Service(Some(span(words)?)),
        "parallel" => match words.number("parallel")? {
            servers if servers <= SERVERS as u64 => Setting::Parallel(servers),
            _ => return Err(format!("parallel: at most {SERVERS}")),
        },
        "roundtrip" => Setting::RoundTrip(words.time()?),
        "sessions" if words.takes("unlimited") => Setting::Sessions { most: None, told: true },
        "sessions" => {
            let most = Some(words.number("sessions")?);
            Setting::Sessions { most, told: !words.takes("hidden") }
        }
        "idle" if words.takes("never") => Setting::Idle(None),
        "idle" => Setting::Idle(Some(words.time()?)),
        "clock" => match words.next("good or malformed")?.as_str() {
            "good" => Setting::BadClock(false),
            "malformed" => Setting::BadClock(true),
            other => return Err(format!("clock {other:?}: say good or malformed")),
        },
        other => return Err(format!("{other:?}: a slot has service, parallel, roundtrip, sessions, idle and clock")),
    })
}

/// `TIME`, `fixed TIME` or `lognormal MEAN SIGMA`.
fn span(words: &mut Words) -> Result<Span, String> {
    if !words.takes("lognormal") {
        words.takes("fixed");
        return words.time().map(Span::Fixed);
    }
    let mean = words.time()?;
    let word = words.next("sigma")?;
    let sigma = word.parse().ok().filter(|sigma: &f64| (0.0..=4.0).contains(sigma));
    Ok(Span::Lognormal { mean, sigma: sigma.ok_or_else(|| format!("sigma: {word:?} is not between 0 and 4"))? })
}
