//! What the arguments say in small languages of their own: loads, streams and members of a pool.

use std::path::PathBuf;

use clap::ValueEnum;

use super::args::{Arrivals, OwnKey};
use crate::wire::proto;

/// Most clients of one stream, and most requests each keeps in flight.
const LOAD_MAX: usize = 1024;
/// Highest rate a stream may have, in requests a second: one thread sends them.
const RATE_MAX: f64 = 1e6;

/// So many clients, each with so many requests in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Load {
    pub(super) clients: usize,
    pub(super) depth: usize,
}

impl Load {
    /// Reads `CLIENTSxDEPTH`.
    pub(super) fn parse(text: &str) -> Result<Load, String> {
        let wrong = || format!("expected CLIENTSxDEPTH, such as 8x16, each from 1 to {LOAD_MAX}, not {text:?}");
        let (clients, depth) = text.split_once('x').ok_or_else(wrong)?;
        let number = |text: &str| text.parse().ok().filter(|number| (1..=LOAD_MAX).contains(number)).ok_or_else(wrong);
        Ok(Load { clients: number(clients)?, depth: number(depth)? })
    }

    /// Requests in flight in all.
    pub(super) fn in_flight(self) -> usize {
        self.clients * self.depth
    }
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.clients, self.depth)
    }
}

/// Reads a rate in requests a second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| *rate > 0.0 && *rate <= RATE_MAX);
    rate.ok_or_else(|| format!("expected requests a second, above 0 and up to {RATE_MAX}, not {text:?}"))
}

/// A key as the arguments name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum KeyName {
    /// One of the bench's own.
    Own(OwnKey),
    /// One of the operator's, by its label.
    Label(String),
}

/// What every request of a stream asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum WorkName {
    Sign,
    Certificate,
}

/// When a stream sends its requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::cli) enum Pace {
    /// The next when one is answered.
    Closed(Load),
    /// When they are due, whatever the answers do. What is not said is as the arguments say.
    Open { rate: f64, arrivals: Option<Arrivals>, clients: Option<usize> },
}

/// `-stream`.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct StreamSpec {
    pub(super) name: Option<String>,
    /// Empty: the root namespace.
    pub(super) namespace: String,
    /// The namespace's, in the daemon's configuration.
    pub(super) weight: Option<u16>,
    pub(super) key: KeyName,
    pub(super) class: proto::Class,
    pub(super) work: WorkName,
    pub(super) pace: Pace,
}

impl StreamSpec {
    /// Reads `key=p256,load=8x16,…`.
    pub(super) fn parse(text: &str) -> Result<StreamSpec, String> {
        let mut fields = Fields::read(text)?;
        let key = fields.take("key").ok_or("expected key=p256, key=rsa2048 or key=LABEL")?;
        let (load, wanted_rate) = (fields.take("load"), fields.take("rate"));
        let arrivals: Option<Arrivals> = fields.choice("arrivals")?;
        let clients: Option<usize> = fields.number("clients", LOAD_MAX)?;
        let pace = match (load, wanted_rate) {
            (Some(load), None) if arrivals.is_none() && clients.is_none() => Pace::Closed(Load::parse(load)?),
            (Some(_), None) => return Err("arrivals and clients belong to rate, not to load".into()),
            (None, Some(wanted)) => Pace::Open { rate: rate(wanted)?, arrivals, clients },
            _ => return Err("expected one of load=CLIENTSxDEPTH and rate=N".into()),
        };
        let spec = StreamSpec {
            name: fields.take("name").map(str::to_owned),
            namespace: fields.take("namespace").unwrap_or_default().trim_matches('/').to_owned(),
            weight: fields.number("weight", 1000)?,
            key: OwnKey::from_str(key, false).map_or_else(|_| KeyName::Label(key.to_owned()), KeyName::Own),
            class: match fields.take("class") {
                None | Some("interactive") => proto::Class::Interactive,
                Some("bulk") => proto::Class::Bulk,
                Some(other) => return Err(format!("expected class=interactive or class=bulk, not {other:?}")),
            },
            work: fields.choice("work")?.unwrap_or(WorkName::Sign),
            pace,
        };
        if spec.weight.is_some() && spec.namespace.is_empty() {
            return Err("weight belongs to a namespace: give namespace=PATH with it".into());
        }
        fields.finish().map(|()| spec)
    }
}

/// `-member`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct MemberSpec {
    pub(super) library: Option<PathBuf>,
    pub(super) token: String,
    pub(super) pin: Option<String>,
    pub(super) sessions: Option<u16>,
}

impl MemberSpec {
    /// Reads `token=LABEL,library=PATH,…`.
    pub(super) fn parse(text: &str) -> Result<MemberSpec, String> {
        let mut fields = Fields::read(text)?;
        let spec = MemberSpec {
            library: fields.take("library").map(PathBuf::from),
            token: fields.take("token").ok_or("expected token=LABEL")?.to_owned(),
            pin: fields.take("pin").map(str::to_owned),
            sessions: fields.number("sessions", LOAD_MAX)?,
        };
        fields.finish().map(|()| spec)
    }
}

/// `name=value,…`, each at most once.
struct Fields<'t> {
    pairs: Vec<(&'t str, &'t str)>,
    /// Names that were asked for.
    known: Vec<&'static str>,
}

impl<'t> Fields<'t> {
    fn read(text: &'t str) -> Result<Fields<'t>, String> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for part in text.split(',') {
            let pair = part.split_once('=').filter(|(_, value)| !value.is_empty());
            let (name, value) = pair.ok_or_else(|| format!("expected NAME=VALUE, not {part:?}"))?;
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(format!("{name} is given twice"));
            }
            pairs.push((name, value));
        }
        Ok(Fields { pairs, known: Vec::new() })
    }

    fn take(&mut self, name: &'static str) -> Option<&'t str> {
        self.known.push(name);
        let place = self.pairs.iter().position(|(known, _)| *known == name)?;
        Some(self.pairs.swap_remove(place).1)
    }

    /// A number from 1 to `most`.
    fn number<N: TryFrom<usize>>(&mut self, name: &'static str, most: usize) -> Result<Option<N>, String> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (1..=most).contains(number)).and_then(|n| N::try_from(n).ok());
        number.map(Some).ok_or_else(|| format!("expected {name} from 1 to {most}, not {text:?}"))
    }

    fn choice<C: ValueEnum>(&mut self, name: &'static str) -> Result<Option<C>, String> {
        let Some(text) = self.take(name) else { return Ok(None) };
        C::from_str(text, false).map(Some).map_err(|_| {
            let all: Vec<_> = C::value_variants().iter().filter_map(ValueEnum::to_possible_value).collect();
            let names: Vec<&str> = all.iter().map(clap::builder::PossibleValue::get_name).collect();
            format!("expected {name} to be one of {}, not {text:?}", names.join(", "))
        })
    }

    /// Refuses what nobody asked for.
    fn finish(self) -> Result<(), String> {
        match self.pairs.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("there is no field {name:?}; there are {}", self.known.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_says_who_asks_what_and_when() {
        let spec = StreamSpec::parse("namespace=team-a/,weight=3,key=p256,class=bulk,load=8x16").unwrap();
        assert_eq!((spec.namespace.as_str(), spec.weight), ("team-a", Some(3)));
        assert_eq!((spec.key, spec.class), (KeyName::Own(OwnKey::P256), proto::Class::Bulk));
        assert_eq!(spec.pace, Pace::Closed(Load { clients: 8, depth: 16 }));
        let spec = StreamSpec::parse("key=My CA,rate=200.5,arrivals=poisson,clients=2,work=certificate").unwrap();
        assert_eq!((spec.key, spec.namespace.as_str()), (KeyName::Label("My CA".into()), ""));
        assert_eq!((spec.class, spec.work), (proto::Class::Interactive, WorkName::Certificate));
        assert_eq!(spec.pace, Pace::Open { rate: 200.5, arrivals: Some(Arrivals::Poisson), clients: Some(2) });
    }

    #[test]
    fn what_a_stream_cannot_mean_is_refused_with_what_it_could() {
        for (text, word) in [
            ("load=8x16", "key="),
            ("key=p256", "load=CLIENTSxDEPTH and rate=N"),
            ("key=p256,load=8x16,rate=3", "one of load"),
            ("key=p256,load=8", "8x16"),
            ("key=p256,load=0x1", "from 1"),
            ("key=p256,rate=0", "above 0"),
            ("key=p256,rate=inf", "above 0"),
            ("key=p256,load=1x1,clients=2", "belong to rate"),
            ("key=p256,load=1x1,weight=2", "namespace=PATH"),
            ("key=p256,rate=1,weight=2000,namespace=a", "1 to 1000"),
            ("key=p256,rate=1,arrivals=often", "fixed, poisson"),
            ("key=p256,rate=1,key=p256", "twice"),
            ("key=p256,rate=1,colour=red", "\"colour\""),
            ("key=p256,rate", "NAME=VALUE"),
        ] {
            let error = StreamSpec::parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_member_is_a_token_of_some_library() {
        let member = MemberSpec::parse("token=b,library=/opt/b.so,pin=env:B,sessions=4").unwrap();
        assert_eq!(member.library, Some("/opt/b.so".into()));
        assert_eq!((member.token.as_str(), member.pin.as_deref(), member.sessions), ("b", Some("env:B"), Some(4)));
        assert!(MemberSpec::parse("library=/opt/b.so").unwrap_err().contains("token="));
    }
}
