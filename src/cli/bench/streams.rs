//! Streams of requests, each on a thread with a runtime of its own, as programs on one host would be: alone, if that is
//! wanted, and all together.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Barrier;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget};

use super::args::{Bench, Streams};
use super::child::Child;
use super::paired::names;
use super::prepare::Preparation;
use super::schedule::Schedule;
use super::settings::Settings;
use super::side::Server;
use super::spec::{KeyName, Pace, StreamSpec, WorkName};
use super::stream_report::{self, Run};
use super::tally::Tally;
use super::target::Target;
use super::work::Work;
use super::{Failure, Format, closed, open, runtime};
use crate::client::Framed;
use crate::wire::proto;

/// How often the progress is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// One stream, ready to run.
struct Stream {
    spec: StreamSpec,
    work: Work,
}

/// What became of one stream.
pub(super) struct Ended {
    pub(super) tally: Tally,
    /// Answers that belonged to no request.
    pub(super) double: u64,
}

pub(super) fn run(args: &Bench, format: Format, home: &Path) -> Result<ExitCode, Failure> {
    let specs = specs(args);
    if specs.is_empty() {
        return Err(Failure::usage("give a -stream, such as key=p256,rate=200, or a -rate"));
    }
    let settings = Settings::new(&args.token, &specs)?;
    let (_, config) = settings.write(home)?;
    let target = Target::open(&args.token, &settings, &config)?;
    let keys = specs.iter().map(|spec| target.key(&spec.key, &spec.namespace)).collect::<Result<Vec<_>, _>>()?;
    let child = Child::start(home, &settings)?;
    let mut prepared = Preparation::new(&child, &settings.library, settings.token.as_deref());
    let mut streams = Vec::new();
    for (place, (spec, key)) in specs.into_iter().zip(&keys).enumerate() {
        let work = runtime()?.block_on(async {
            prepared.key(&spec.namespace, key).await?;
            match (spec.work, args.streams.verify) {
                (WorkName::Certificate, false) => prepared.authority(&spec.namespace, key, home).await,
                (WorkName::Certificate, true) => Err(Failure::usage("-verify checks signatures, not certificates")),
                (WorkName::Sign, false) => Ok(Work::sign(key)),
                (WorkName::Sign, true) => Work::checked(key, place as u64)
                    .ok_or_else(|| Failure::new(format!("the public key of {:?} is not known", key.shown))),
            }
        })?;
        streams.push(Stream { spec, work });
    }
    runtime()?.block_on(child.settle())?;
    let mut alone = Vec::new();
    if args.streams.alone {
        for stream in &streams {
            eprintln!("{} alone, {} s", stream_report::title(&stream.spec), args.streams.duration);
            alone.push(together(&args.streams, &child, std::slice::from_ref(stream))?);
        }
    }
    eprintln!("{} together, {} s", streams.len(), args.streams.duration);
    let whole = together(&args.streams, &child, &streams)?;
    let specs: Vec<&StreamSpec> = streams.iter().map(|stream| &stream.spec).collect();
    stream_report::print(format, &args.streams, &specs, &alone, &whole)?;
    let sound = |run: &Run| run.ended.iter().all(|ended| ended.tally.wrong + ended.tally.lost() + ended.double == 0);
    let sound = alone.iter().chain([&whole]).all(sound);
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The streams, or one for each key where only a rate is given; every one with what it did not say.
fn specs(args: &Bench) -> Vec<StreamSpec> {
    let of_rate = |rate: f64| {
        names(args).into_iter().map(move |key| StreamSpec {
            name: None,
            namespace: String::new(),
            weight: None,
            key,
            class: proto::Class::Interactive,
            work: WorkName::Sign,
            pace: Pace::Open { rate, arrivals: None, clients: None },
        })
    };
    let mut specs = args.streams.streams.clone();
    specs.extend(args.streams.rate.into_iter().flat_map(of_rate));
    for spec in &mut specs {
        if let Pace::Open { arrivals, clients, .. } = &mut spec.pace {
            arrivals.get_or_insert(args.streams.arrivals);
            clients.get_or_insert(args.streams.clients.into());
        }
    }
    specs
}

/// Runs streams at the same time.
fn together(args: &Streams, child: &Child, streams: &[Stream]) -> Result<Run, Failure> {
    let span = Duration::from_secs(args.duration);
    let (ready, daemon) = (Barrier::new(streams.len()), Server::Process(child.pid()));
    let before = daemon.cpu()?;
    let ended: Result<Vec<Ended>, Failure> = std::thread::scope(|scope| {
        let threads: Vec<_> = streams
            .iter()
            .enumerate()
            .map(|(place, stream)| {
                let ready = &ready;
                scope.spawn(move || one(child, stream, place as u64, span, ready))
            })
            .collect();
        show_progress(args.duration, || threads.iter().all(ScopedJoinHandle::is_finished));
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|ended| ended.unwrap_or_else(|_| Err(Failure::new("a stream's thread died")))).collect()
    });
    let cpu = daemon.cpu()?.zip(before).map(|(after, before)| after.saturating_sub(before));
    Ok(Run { ended: ended?, cpu: cpu.unwrap_or_default() })
}

/// Shows the seconds that have passed, if a terminal looks on, until all is done.
fn show_progress(seconds: u64, done: impl Fn() -> bool) {
    let bar = ProgressBar::with_draw_target(Some(seconds), ProgressDrawTarget::stderr());
    let begun = Instant::now();
    while !done() {
        bar.set_position(begun.elapsed().as_secs().min(seconds));
        std::thread::sleep(LOOK);
    }
    bar.finish_and_clear();
}

fn one(child: &Child, stream: &Stream, seed: u64, span: Duration, ready: &Barrier) -> Result<Ended, Failure> {
    let (spec, work) = (&stream.spec, &stream.work);
    let connected = runtime().and_then(|runtime| {
        let clients = runtime.block_on(child.clients(&spec.namespace, spec.class, connections(spec)))?;
        Ok((runtime, clients))
    });
    // The others wait for this one, whatever became of it.
    ready.wait();
    let (runtime, clients) = connected?;
    let clients = clients.as_slice();
    let ask = move |client: usize, number: u64| work.ask(&clients[client], number);
    let tally = match spec.pace {
        Pace::Closed(load) => runtime.block_on(closed::run(load, span, ask))?,
        Pace::Open { rate, arrivals, .. } => {
            let schedule = Schedule::new(rate, arrivals.unwrap_or(super::args::Arrivals::Fixed), seed);
            runtime.block_on(open::run(schedule, clients.len(), span, ask))?
        }
    };
    Ok(Ended { tally, double: clients.iter().map(Framed::unasked).sum() })
}

fn connections(spec: &StreamSpec) -> usize {
    match spec.pace {
        Pace::Closed(load) => load.clients,
        Pace::Open { clients, .. } => clients.unwrap_or(1),
    }
}

/// How results name a key.
pub(super) fn key_name(key: &KeyName) -> String {
    match key {
        KeyName::Own(own) => super::target::kind_name(*own).to_owned(),
        KeyName::Label(label) => label.clone(),
    }
}
