//! Two sides in turns: Keyway, and what it is compared with. Machines are noisy, and only what ran side by side can be
//! compared: each round gives one ratio.

use std::path::Path;
use std::time::Duration;

use super::args::{Bench, OwnKey, What};
use super::baseline::Baseline;
use super::child::{self, Child};
use super::echo::Echo;
use super::prepare::Preparation;
use super::report::Measurement;
use super::settings::Settings;
use super::side::{Ran, Server, Side};
use super::spec::{KeyName, Load};
use super::target::{Key, Target};
use super::work::Work;
use super::{Failure, closed, dev, runtime};
use crate::client::Framed;
use crate::wire::proto;

/// Rounds that are run before those that count.
const WARM_UP: u16 = 2;

/// Keyway and the bare token, or the echo, in turns.
pub(super) fn run(args: &Bench, what: What, settings: &Settings, home: &Path) -> Result<Vec<Measurement>, Failure> {
    let (_, config) = settings.write(home)?;
    let target = Target::open(&args.token, settings, &config)?;
    let keys = names(args).iter().map(|name| target.key(name, "")).collect::<Result<Vec<_>, _>>()?;
    let child = Child::start(home, settings)?;
    let mut prepared = Preparation::new(&child, &settings.library, settings.token.as_deref());
    let mut measured = Vec::new();
    for key in &keys {
        let work = runtime()?.block_on(async {
            prepared.key("", key).await?;
            child.settle().await?;
            if what != What::Certificates {
                return Ok(Work::sign(key));
            }
            prepared.authority("", key, home).await.map(|work| work.batched(args.rounds.batch))
        })?;
        if what == What::Echo {
            measured.extend(against_echo(args, &child, key, &work, home)?);
            continue;
        }
        let mut baseline = Baseline::open(target.slots(), key)?;
        let mut bare = |load: Load, span| Side::measure(&Server::None, || baseline.run(load.in_flight(), span));
        measured.extend(loads(args, &child, key, &work, Some(("bare", &mut bare)))?);
    }
    Ok(measured)
}

/// The daemon on keys in its memory: alone, or in turns with the echo.
pub(super) fn run_fake(args: &Bench, what: What, home: &Path) -> Result<Vec<Measurement>, Failure> {
    let child = Child::start_fake(home)?;
    let key = Key::fake();
    let mut prepared = Preparation::new(&child, dev::LIBRARY, Some(dev::TOKEN));
    runtime()?.block_on(prepared.key("", &key))?;
    let work = Work::sign(&key);
    if what == What::Echo {
        return against_echo(args, &child, &key, &work, home);
    }
    loads(args, &child, &key, &work, None)
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
    loads(args, child, key, work, Some(("echo", &mut side)))
}

/// What Keyway is compared with: its name, and a run of so many requests in flight for so long.
type Reference<'r> = (&'static str, &'r mut dyn FnMut(Load, Duration) -> Result<Side, Failure>);

/// All rounds of all loads with one key.
fn loads(
    args: &Bench,
    child: &Child,
    key: &Key,
    work: &Work,
    mut reference: Option<Reference<'_>>,
) -> Result<Vec<Measurement>, Failure> {
    let runtime = runtime()?;
    let daemon = Server::Process(child.pid());
    let span = Duration::from_millis(args.rounds.round_ms);
    let mut measured = Vec::new();
    for &load in &args.rounds.loads {
        let clients = runtime.block_on(child.clients("", proto::Class::Interactive, load.clients))?;
        let ask = || Ok(Ran::of(runtime.block_on(ask(load, &clients, work, span))?)?.times(work.each()));
        let through = || Side::measure(&daemon, ask);
        let name = reference.as_ref().map(|(name, _)| *name);
        let mut measurement = Measurement::new(&key.shown, load, name);
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
        clients.iter().for_each(Framed::close);
        eprintln!("{}", measurement.line());
        measured.push(measurement);
    }
    Ok(measured)
}

async fn ask(load: Load, clients: &[Framed], work: &Work, span: Duration) -> Result<super::tally::Tally, Failure> {
    closed::run(load, span, move |client, number| work.ask(&clients[client], number)).await
}
