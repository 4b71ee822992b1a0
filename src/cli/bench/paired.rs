//! Two sides in turns: Keyway, and what it is compared with. Machines are noisy, and only what ran side by side can be
//! compared: each round gives one ratio.

use std::path::Path;
use std::time::Duration;

use tokio::sync::Mutex;

use super::args::{Bench, OwnKey, What};
use super::baseline::Baseline;
use super::child::{self, Child};
use super::echo::Echo;
use super::over_http::HttpWork;
use super::prepare::{Nonce, Preparation};
use super::report::Measurement;
use super::settings::Settings;
use super::side::{Ran, Server, Side};
use super::spec::{KeyName, Load};
use super::target::{Key, Target};
use super::work::Work;
use super::{Failure, closed, dev, runtime};
use crate::client::{Framed, Http};
use crate::wire::proto;

/// Rounds that are run before those that count.
const WARM_UP: u16 = 2;
/// Items of a batch of Transit, where the arguments do not say.
const BATCH: u16 = 1000;

/// Keyway and the bare token, or the echo, in turns.
pub(super) fn run(args: &Bench, what: What, settings: &Settings, home: &Path) -> Result<Vec<Measurement>, Failure> {
    let (_, config) = settings.write(home)?;
    let target = Target::open(&args.token, settings, &config)?;
    let keys = names(args).iter().map(|name| target.key(name, "")).collect::<Result<Vec<_>, _>>()?;
    let mut child = Child::start(home, settings)?;
    runtime()?.block_on(child.take_on(args.burden, home))?;
    let mut prepared = Preparation::new(&child, &settings.library, settings.token.as_deref());
    let mut measured = Vec::new();
    for key in &keys {
        runtime()?.block_on(async {
            prepared.key("", key).await?;
            child.settle().await
        })?;
        let asked = runtime()?.block_on(asked(&mut prepared, args, what, key, home))?;
        if let (What::Echo, Asked::Framed(work)) = (what, &asked) {
            measured.extend(against_echo(args, &child, key, work, home)?);
            continue;
        }
        if what == What::Overhead {
            measured.extend(loads(args, &child, &key.shown, &asked, None)?);
            continue;
        }
        if what == What::Ocsp {
            measured.extend(against_http(args, &child, &key.shown, &asked, ("health", HttpWork::health()))?);
            continue;
        }
        let mut baseline = Baseline::open(target.slots(), key)?;
        let mut bare = |load: Load, span| Side::measure(&Server::None, || baseline.run(load.in_flight(), span));
        measured.extend(loads(args, &child, &key.shown, &asked, Some(("bare", &mut bare)))?);
    }
    if what == What::Batches && target.may_generate() {
        let name = runtime()?.block_on(prepared.cipher())?;
        let asked = Asked::Http(HttpWork::encrypt(name, args.rounds.batch.unwrap_or(BATCH)));
        measured.extend(against_http(args, &child, "aes256", &asked, ("single", HttpWork::encrypt(name, 1)))?);
    }
    Ok(measured)
}

/// What is asked of the daemon.
enum Asked {
    Framed(Work),
    Http(HttpWork),
}

/// Connections to the daemon, of one kind for all that is asked.
enum Connected {
    Framed(Vec<Framed>),
    Http(Vec<Mutex<Http>>),
}

impl Asked {
    /// The loads it is measured under.
    fn loads(&self, args: &Bench) -> Result<Vec<Load>, Failure> {
        let load = |clients, depth| Load { clients, depth };
        match (self, args.rounds.loads.as_slice()) {
            (Asked::Framed(_), []) => Ok(vec![load(1, 1), load(8, 1), load(32, 1), load(8, 16)]),
            // More than `ocsp_signatures` at once are told to try later.
            (Asked::Http(_), []) if args.what == Some(What::OcspNonce) => Ok(vec![load(1, 1), load(8, 1)]),
            (Asked::Http(_), []) => Ok(vec![load(1, 1), load(8, 1), load(32, 1)]),
            (Asked::Http(_), given) if given.iter().any(|load| load.depth > 1) => Err(Failure::usage(
                "a connection of the HTTP wire carries one request at a time: give -loads of depth 1, such as 32x1",
            )),
            (_, given) => Ok(given.to_vec()),
        }
    }

    async fn connect(&self, child: &Child, load: Load) -> Result<Connected, Failure> {
        Ok(match self {
            Asked::Framed(_) => Connected::Framed(child.clients("", proto::Class::Interactive, load.clients).await?),
            Asked::Http(_) => Connected::Http((0..load.clients).map(|_| Mutex::new(child.http_bound())).collect()),
        })
    }

    async fn run(&self, load: Load, connected: &Connected, span: Duration) -> Result<Ran, Failure> {
        match (self, connected) {
            (Asked::Framed(work), Connected::Framed(clients)) => {
                Ok(Ran::of(ask(load, clients, work, span).await?)?.times(work.each()))
            }
            (Asked::Http(work), Connected::Http(clients)) => {
                let tally = closed::run(load, span, |client, number| work.ask(&clients[client], number)).await?;
                Ok(Ran::of(tally)?.times(work.pieces))
            }
            _ => Err(Failure::new("connections of another wire")),
        }
    }
}

/// What is asked of this key, and made ready for it in the daemon.
async fn asked(
    prepared: &mut Preparation<'_>,
    args: &Bench,
    what: What,
    key: &Key,
    home: &Path,
) -> Result<Asked, Failure> {
    Ok(match what {
        What::Certificates => {
            let work = prepared.authority("", key, home).await?;
            Asked::Framed(work.batched(args.rounds.batch.unwrap_or(1)))
        }
        What::Issue => Asked::Http(prepared.issuing(key, home).await?),
        What::Ocsp => Asked::Http(prepared.ocsp(key, Nonce::None, home).await?),
        What::OcspNonce => Asked::Http(prepared.ocsp(key, Nonce::Each, home).await?),
        What::Batches => Asked::Http(HttpWork::sign(key, args.rounds.batch.unwrap_or(BATCH))),
        What::Sign
        | What::Echo
        | What::Overhead
        | What::Footprint
        | What::Stored
        | What::Registrations
        | What::Streams => Asked::Framed(Work::sign(key)),
    })
}

/// What is asked over the HTTP wire, in turns with something else that is.
fn against_http(
    args: &Bench,
    child: &Child,
    key: &str,
    asked: &Asked,
    (name, other): (&'static str, HttpWork),
) -> Result<Vec<Measurement>, Failure> {
    let (runtime, other, server) = (runtime()?, Asked::Http(other), Server::Process(child.pid()));
    let mut connected: (usize, Connected) = (0, Connected::Http(Vec::new()));
    let mut side = |load: Load, span| {
        if connected.0 != load.clients {
            connected = (load.clients, runtime.block_on(other.connect(child, load))?);
        }
        Side::measure(&server, || runtime.block_on(other.run(load, &connected.1, span)))
    };
    loads(args, child, key, asked, Some((name, &mut side)))
}

/// The daemon on keys in its memory: alone, or in turns with the echo.
pub(super) fn run_fake(args: &Bench, what: What, home: &Path) -> Result<Vec<Measurement>, Failure> {
    let mut child = Child::start_fake(home)?;
    runtime()?.block_on(child.take_on(args.burden, home))?;
    let key = Key::fake();
    let mut prepared = Preparation::new(&child, dev::LIBRARY, Some(dev::TOKEN));
    runtime()?.block_on(prepared.key("", &key))?;
    let work = Work::sign(&key);
    if what == What::Echo {
        return against_echo(args, &child, &key, &work, home);
    }
    loads(args, &child, &key.shown, &Asked::Framed(work), None)
}

/// The keys the arguments name.
pub(super) fn names(args: &Bench) -> Vec<KeyName> {
    let own = |key: &OwnKey| KeyName::Own(*key);
    let labels: Vec<KeyName> = args.token.key_labels.iter().cloned().map(KeyName::Label).collect();
    if labels.is_empty() { args.token.keys.iter().map(own).collect() } else { labels }
}

fn against_echo(args: &Bench, child: &Child, key: &Key, work: &Work, home: &Path) -> Result<Vec<Measurement>, Failure> {
    let runtime = runtime()?;
    let signature = runtime.block_on(async {
        let clients = child.clients("", proto::Class::Interactive, 1).await?;
        let Some((client, Work::Sign { sign, .. })) = clients.first().zip(Some(work)) else {
            return Err(Failure::new("only signatures are echoed"));
        };
        Ok(client.sign(sign.clone()).await?.signature)
    })?;
    let folder = tempfile::tempdir_in(home)?;
    let echo = Echo::start(folder.path(), signature)?;
    let server = Server::Thread(echo.thread.clone());
    let mut connected: (usize, Vec<Framed>) = (0, Vec::new());
    let mut side = |load: Load, span| {
        if connected.0 != load.clients {
            let connecting = child::connect(&echo.socket, "", "", proto::Class::Interactive, load.clients);
            connected = (load.clients, runtime.block_on(connecting)?);
        }
        Side::measure(&server, || Ran::of(runtime.block_on(ask(load, &connected.1, work, span))?))
    };
    loads(args, child, &key.shown, &Asked::Framed(work.clone()), Some(("echo", &mut side)))
}

/// What Keyway is compared with: its name, and a run of so many requests in flight for so long.
type Reference<'r> = (&'static str, &'r mut dyn FnMut(Load, Duration) -> Result<Side, Failure>);

/// All rounds of all loads with one key.
fn loads(
    args: &Bench,
    child: &Child,
    key: &str,
    asked: &Asked,
    mut reference: Option<Reference<'_>>,
) -> Result<Vec<Measurement>, Failure> {
    let runtime = runtime()?;
    let daemon = Server::Process(child.pid());
    let span = Duration::from_millis(args.rounds.round_ms);
    let mut measured = Vec::new();
    for load in asked.loads(args)? {
        let connected = runtime.block_on(asked.connect(child, load))?;
        let through = || Side::measure(&daemon, || runtime.block_on(asked.run(load, &connected, span)));
        let name = reference.as_ref().map(|(name, _)| *name);
        let mut measurement = Measurement::new(key, load, name);
        for round in 0..args.rounds.rounds + WARM_UP {
            let (direct, through) = match &mut reference {
                None => (None, through()?),
                // Whoever goes second finds a warm machine: they take turns at that too.
                Some((_, direct)) if round % 2 == 0 => (Some(direct(load, span)?), through()?),
                Some((_, direct)) => {
                    let through = through()?;
                    (Some(direct(load, span)?), through)
                }
            };
            if round >= WARM_UP {
                measurement.push(direct, through);
            }
        }
        if let Connected::Framed(clients) = &connected {
            clients.iter().for_each(Framed::close);
        }
        eprintln!("{}", measurement.line());
        measured.push(measurement);
    }
    Ok(measured)
}

async fn ask(load: Load, clients: &[Framed], work: &Work, span: Duration) -> Result<super::tally::Tally, Failure> {
    closed::run(load, span, move |client, number| work.ask(&clients[client], number)).await
}
