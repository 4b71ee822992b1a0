//! What very many certificates cost: a start, memory, issuance, and a CRL of very many entries while certificates are issued.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::future::join;
use serde_json::json;

use super::args::{Bench, OwnKey};
use super::child::Child;
use super::footprint::{memory, peak, reset_peak};
use super::prepare::Preparation;
use super::settings::Settings;
use super::side::Ran;
use super::spec::{KeyName, Load};
use super::statistics::Summary;
use super::stored_report::{CrlSeen, Seen, print};
use super::target::Target;
use super::work::Work;
use super::{Failure, Format, closed, runtime};
use crate::client::Framed;
use crate::config::Config;
use crate::engine::pki::measure::Filling;
use crate::model::{Namespace, Verb};
use crate::store::{Store, seal_from_config};
use crate::wire::proto;

/// What issuing is measured with.
pub(super) const LOAD: Load = Load { clients: 8, depth: 16 };
/// Starts that are timed.
const STARTS: usize = 3;
/// Threads that fill the store: they encrypt while another one writes.
const FILLERS: u64 = 2;
/// CRLs that are timed with nothing else to do.
const CRLS: usize = 5;

pub(super) fn run(args: &Bench, format: Format, home: &Path) -> Result<ExitCode, Failure> {
    let (certificates, revoked) = (args.stored.certificates, args.stored.revoked.min(args.stored.certificates));
    let settings = Settings::new(&args.token, &[])?;
    let (_, config) = settings.write(home)?;
    let own = KeyName::Own(args.token.keys.first().copied().unwrap_or(OwnKey::P256));
    let name = args.token.key_labels.first().map_or(own, |label| KeyName::Label(label.clone()));
    let key = Target::open(&args.token, &settings, &config)?.key(&name, "")?;
    let child = Child::start(home, &settings)?;
    let work = runtime()?.block_on(async {
        let mut prepared = Preparation::new(&child, &settings.library, settings.token.as_deref());
        prepared.key("", &key).await?;
        prepared.authority("", &key, home).await
    })?;
    let Work::Certify { mount, .. } = &work else { return Err(Failure::new("only certificates are stored")) };
    let mut bench = Stage { args, home, settings: &settings, work: &work, mount, token: child.token().to_owned() };
    let template = bench.template(&child)?;
    drop(child);
    let (empty, child) = bench.seen(0)?;
    drop(child);
    eprintln!("writing {certificates} certificates, {revoked} of them revoked");
    let begun = Instant::now();
    template.fill(&config, certificates, revoked)?;
    eprintln!("written in {:.0} s", begun.elapsed().as_secs_f64());
    let (full, child) = bench.seen(certificates)?;
    let crl = bench.crl(&child)?;
    let rotation = args.stored.rotate.then(|| bench.rotation(&child)).transpose()?;
    print(format, &[empty, full], &crl, rotation.as_ref())
}

/// What every step needs.
pub(super) struct Stage<'a> {
    pub(super) args: &'a Bench,
    home: &'a Path,
    settings: &'a Settings,
    work: &'a Work,
    mount: &'a str,
    token: String,
}

/// What the store is filled with the likes of.
struct Template {
    uuid: String,
    certificate: Vec<u8>,
    issuer: Vec<u8>,
}

impl Stage<'_> {
    /// Issues one certificate, and allows CRLs of any size.
    fn template(&self, child: &Child) -> Result<Template, Failure> {
        runtime()?.block_on(async {
            let mounts = child.ask("", Verb::Read, "sys/mounts", json!({})).await?;
            let uuid = mounts[format!("{}/", self.mount)]["uuid"].as_str().unwrap_or_default().to_owned();
            let unbounded = json!({"max_crl_entries": -1});
            child.ask("", Verb::Write, &format!("{}/config/crl", self.mount), unbounded).await?;
            let clients = child.clients("", proto::Class::Interactive, 1).await?;
            let client = clients.first().ok_or_else(|| Failure::new("there is no connection"))?;
            let answer = self.work.certificate(client, 0).await?;
            let issuer = answer.chain.first().ok_or_else(|| Failure::new("a certificate came without its issuer's"))?;
            Ok(Template { uuid, certificate: answer.certificate.to_vec(), issuer: issuer.to_vec() })
        })
    }

    /// Starts a few times, and issues with the last.
    fn seen(&mut self, certificates: u64) -> Result<(Seen, Child), Failure> {
        let mut seen =
            Seen { certificates, start_ms: Vec::new(), first_ms: Vec::new(), idle_kib: 0, rates: Vec::new() };
        let mut last = None;
        for _ in 0..STARTS {
            drop(last.take());
            let begun = Instant::now();
            let child = Child::start_again(self.home, self.settings, &self.token)?;
            seen.start_ms.push(milliseconds(child.started_in));
            runtime()?.block_on(async {
                child.settle().await?;
                let clients = child.clients("", proto::Class::Interactive, 1).await?;
                for client in &clients {
                    self.work.certificate(client, 0).await?;
                }
                Ok::<_, Failure>(())
            })?;
            seen.first_ms.push(milliseconds(begun.elapsed()));
            last = Some(child);
        }
        let child = last.ok_or_else(|| Failure::new("there is no daemon"))?;
        seen.idle_kib = memory(child.pid())?;
        let runtime = runtime()?;
        let clients = runtime.block_on(child.clients("", proto::Class::Interactive, LOAD.clients))?;
        for _ in 0..self.args.rounds.rounds {
            seen.rates.push(runtime.block_on(self.issue(&clients))?.per_second);
        }
        Ok((seen, child))
    }

    /// Makes CRLs alone, and then while certificates are issued, in turns with issuing alone.
    fn crl(&self, child: &Child) -> Result<CrlSeen, Failure> {
        let runtime = runtime()?;
        let rotate = format!("{}/crl/rotate", self.mount);
        let rotate = async || {
            let begun = Instant::now();
            child.ask("", Verb::Read, &rotate, json!({})).await.map(|_| milliseconds(begun.elapsed()))
        };
        reset_peak(child.pid())?;
        let mut alone_ms = Vec::new();
        for _ in 0..CRLS {
            alone_ms.push(runtime.block_on(rotate())?);
        }
        let alone_kib = peak(child.pid())?;
        let clients = runtime.block_on(child.clients("", proto::Class::Interactive, LOAD.clients))?;
        let (mut ratios, mut beside_ms, mut p99) = (Vec::new(), Vec::new(), [0; 2]);
        for _ in 0..self.args.rounds.rounds {
            let alone = runtime.block_on(self.issue(&clients))?;
            let making = async {
                let begun = Instant::now();
                let mut took = Vec::new();
                while begun.elapsed() < self.span() {
                    took.push(rotate().await?);
                }
                Ok::<_, Failure>(took)
            };
            let (beside, took) = runtime.block_on(join(self.issue(&clients), making));
            let beside = beside?;
            beside_ms.extend(took?);
            ratios.push(beside.per_second / alone.per_second);
            for (worst, ran) in p99.iter_mut().zip([alone, beside]) {
                *worst = ran.latency.value_at_quantile(0.99).max(*worst);
            }
        }
        let der = runtime.block_on(child.read_raw(&format!("{}/crl", self.mount)))?;
        Ok(CrlSeen {
            entries: self.args.stored.revoked,
            bytes: der.len(),
            alone_ms,
            beside_ms,
            peak_kib: [alone_kib, peak(child.pid())?],
            ratio: Summary::of(&ratios),
            p99_us: p99,
        })
    }

    pub(super) async fn issue(&self, clients: &[Framed]) -> Result<Ran, Failure> {
        Ran::of(closed::run(LOAD, self.span(), |client, number| self.work.ask(&clients[client], number)).await?)
    }

    fn span(&self) -> Duration {
        Duration::from_millis(self.args.rounds.round_ms)
    }
}

impl Template {
    /// Writes to the store of the daemon, which does not run.
    fn fill(&self, config: &Config, certificates: u64, revoked: u64) -> Result<(), Failure> {
        let store = Store::open(&config.storage, seal_from_config(&config.seal)?)?;
        let filling = Filling::new(store, &Namespace::root(), &self.uuid, &self.certificate, &self.issuer)?;
        // Each in rising order, side by side.
        let until =
            |filler: u64| certificates / FILLERS * filler + (certificates % FILLERS) * u64::from(filler == FILLERS);
        std::thread::scope(|scope| {
            let fillers: Vec<_> = (0..FILLERS)
                .map(|filler| {
                    let filling = filling.clone();
                    let numbers = until(filler)..until(filler + 1);
                    scope.spawn(move || filling.add(numbers, certificates, revoked))
                })
                .collect();
            fillers.into_iter().try_for_each(|filler| match filler.join() {
                Ok(outcome) => outcome.map_err(Failure::new),
                Err(_) => Err(Failure::new("a thread that filled the store ended by a panic")),
            })
        })
    }
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
