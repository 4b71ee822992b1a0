//! What very many managed keys cost, in very many namespaces, that stand for a few keys which they share: a start, memory, and
//! the time to a signature.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::args::{Bench, OwnKey, Registered};
use super::child::Child;
use super::footprint::memory;
use super::settings::Settings;
use super::spec::KeyName;
use super::statistics::Summary;
use super::target::Target;
use super::{Failure, Format, output, runtime};
use crate::cli::output::say;
use crate::config::Config;
use crate::managed_keys::measure::Template;
use crate::model::{Namespace, Verb};
use crate::namespace;
use crate::store::{Store, Write, seal_from_config};

/// Starts that are timed.
const STARTS: usize = 3;
/// Managed keys that sign for the first time since the start, at the most.
const FIRST_SIGNATURES: u32 = 1000;
/// Managed keys that are registered while all the others are there.
const CHANGES: u32 = 50;
/// Changes of one commit.
const STEP: usize = 4096;

/// What was seen with so many.
struct Seen {
    registrations: u32,
    /// From the start to the first answer, by starts.
    start_ms: Vec<f64>,
    /// From the start to the first signature, by a key that no one had asked for, by starts.
    first_ms: Vec<f64>,
    /// Before the first signature, and after those of many keys.
    idle_kib: u64,
    used_kib: u64,
    /// A signature by a key that no one had asked for since the start, and another by the same.
    signature_ms: Vec<f64>,
    again_ms: Vec<f64>,
    /// A managed key registered.
    change_ms: Vec<f64>,
    /// `sys/keyway/status` of the root namespace.
    status_ms: f64,
}

pub(super) fn run(args: &Bench, format: Format, home: &Path) -> Result<ExitCode, Failure> {
    let many = &args.registered;
    let settings = Settings::new(&args.token, &[])?.shared_by(many.namespaces);
    let (_, config) = settings.write(home)?;
    let target = Target::open(&args.token, &settings, &config)?;
    let own = KeyName::Own(args.token.keys.first().copied().unwrap_or(OwnKey::P256));
    let child = Child::start(home, &settings)?;
    let token = child.token().to_owned();
    for number in 0..many.real_keys {
        let key = target.key(&own, &format!("shared-{number}"))?;
        let mut managed = json!({
            "library": settings.library, "key_label": key.label, "any_mount": true, "mechanism": key.mechanism(),
        });
        if let Some(label) = &settings.token {
            managed["token_label"] = label.as_str().into();
        }
        let path = format!("sys/managed-keys/pkcs11/{}", real_key(number));
        runtime()?.block_on(async {
            child.ask("", Verb::Write, &path, managed).await?;
            child.ask("", Verb::Write, &format!("{path}/test/sign"), json!({})).await
        })?;
    }
    drop(target);
    drop(child);
    let stage = Stage { home, settings: &settings, token, many };
    let few = stage.seen(0)?;
    eprintln!("writing {} managed keys in {} namespaces", many.registrations, many.namespaces);
    let begun = Instant::now();
    fill(&config, many)?;
    eprintln!("written in {:.0} s", begun.elapsed().as_secs_f64());
    print(format, many, &[few, stage.seen(many.registrations)?])
}

/// The managed key of the root namespace that a key of the token has.
fn real_key(number: u32) -> String {
    format!("real-{number}")
}

/// The managed keys of the namespaces take turns.
fn place(registration: u32, many: &Registered) -> (Namespace, String) {
    let namespace = Namespace::from_path(&format!("n{:05}", registration % many.namespaces));
    (namespace, format!("key-{}", registration / many.namespaces))
}

/// Writes to the store of the daemon, which does not run.
fn fill(config: &Config, many: &Registered) -> Result<(), Failure> {
    let store = Store::open(&config.storage, seal_from_config(&config.seal)?)?;
    let real = |number| Template::of(&store, &Namespace::root(), &real_key(number));
    let templates = (0..many.real_keys).map(real).collect::<Result<Vec<_>, _>>()?;
    let namespaces = (0..many.namespaces).map(|number| {
        let (namespace, _) = place(number, many);
        namespace::measure::make(&namespace, number as usize)
    });
    let registrations = (0..many.registrations).zip(templates.iter().cycle()).map(|(number, template)| {
        let (namespace, name) = place(number, many);
        template.copy(&namespace, &name)
    });
    let mut writes: Vec<Write> = Vec::new();
    for write in namespaces.chain(registrations) {
        writes.push(write?);
        if writes.len() >= STEP {
            store.commit_now(std::mem::take(&mut writes))?;
        }
    }
    Ok(store.commit_now(writes)?)
}

/// What every step needs.
struct Stage<'a> {
    home: &'a Path,
    settings: &'a Settings,
    token: String,
    many: &'a Registered,
}

impl Stage<'_> {
    /// Starts a few times, and asks the last.
    fn seen(&self, registrations: u32) -> Result<Seen, Failure> {
        let (mut start_ms, mut first_ms, mut idle_kib) = (Vec::new(), Vec::new(), 0);
        let mut last = None;
        let runtime = runtime()?;
        for _ in 0..STARTS {
            drop(last.take());
            let begun = Instant::now();
            let child = Child::start_again(self.home, self.settings, &self.token)?;
            start_ms.push(milliseconds(child.started_in));
            idle_kib = memory(child.pid())?;
            runtime.block_on(self.sign(&child, registrations, registrations.saturating_sub(1)))?;
            first_ms.push(milliseconds(begun.elapsed()));
            last = Some(child);
        }
        let child = last.ok_or_else(|| Failure::new("there is no daemon"))?;
        let (mut signature_ms, mut again_ms, mut change_ms) = (Vec::new(), Vec::new(), Vec::new());
        let asked = FIRST_SIGNATURES.min(registrations.max(self.many.real_keys));
        for number in 0..asked {
            // Of all namespaces, the last ones first: what is served from the start are others.
            let which = registrations.saturating_sub(1 + number);
            let which = if registrations == 0 { number } else { which };
            signature_ms.push(runtime.block_on(self.sign(&child, registrations, which))?);
            again_ms.push(runtime.block_on(self.sign(&child, registrations, which))?);
        }
        let used_kib = memory(child.pid())?;
        let fields = runtime.block_on(child.ask("", Verb::Read, "sys/managed-keys/pkcs11/real-0", json!({})))?;
        let mut managed = json!({"any_mount": true});
        for name in ["library", "token_label", "key_label", "mechanism"] {
            if !fields[name].is_null() && fields[name] != "" {
                managed[name] = fields[name].clone();
            }
        }
        for number in 0..CHANGES {
            let begun = Instant::now();
            let path = format!("sys/managed-keys/pkcs11/change-{registrations}-{number}");
            runtime.block_on(child.ask("", Verb::Write, &path, managed.clone()))?;
            change_ms.push(milliseconds(begun.elapsed()));
        }
        let begun = Instant::now();
        runtime.block_on(child.ask("", Verb::Read, "sys/keyway/status", json!({})))?;
        let status_ms = milliseconds(begun.elapsed());
        Ok(Seen { registrations, start_ms, first_ms, idle_kib, used_kib, signature_ms, again_ms, change_ms, status_ms })
    }

    /// Has a managed key sign; one of the root's, while there are no others. How long that took, in milliseconds.
    async fn sign(&self, child: &Child, registrations: u32, number: u32) -> Result<f64, Failure> {
        let (namespace, name) = match registrations {
            0 => (Namespace::root(), real_key(number % self.many.real_keys)),
            _ => place(number, self.many),
        };
        let begun = Instant::now();
        let path = format!("sys/managed-keys/pkcs11/{name}/test/sign");
        child.ask(namespace.as_str(), Verb::Write, &path, json!({})).await?;
        Ok(milliseconds(begun.elapsed()))
    }
}

fn print(format: Format, many: &Registered, seen: &[Seen]) -> Result<ExitCode, Failure> {
    let median = |figures: &[f64]| Summary::of(figures).median;
    if format == Format::Json {
        let seen: Vec<Value> = seen
            .iter()
            .map(|seen| {
                json!({
                    "registrations": seen.registrations, "start_ms": seen.start_ms, "first_signature_ms": seen.first_ms,
                    "idle_kib": seen.idle_kib, "used_kib": seen.used_kib, "keys_used": seen.signature_ms.len(),
                    "signature_ms": median(&seen.signature_ms), "again_ms": median(&seen.again_ms),
                    "change_ms": median(&seen.change_ms), "status_ms": seen.status_ms,
                })
            })
            .collect();
        let body = json!({
            "what": "registrations", "namespaces": many.namespaces, "real_keys": many.real_keys, "seen": seen,
        });
        output::print(format, &body)?;
        return Ok(ExitCode::SUCCESS);
    }
    say!("{} namespaces, {} keys on the token; medians", many.namespaces, many.real_keys);
    say!(
        "{:>13} {:>9} {:>15} {:>9} {:>9} {:>13} {:>9} {:>10} {:>10}",
        "registrations",
        "start ms",
        "1st signature",
        "idle KiB",
        "used KiB",
        "key's 1st ms",
        "again ms",
        "change ms",
        "status ms"
    );
    for seen in seen {
        say!(
            "{:>13} {:>9.0} {:>15.0} {:>9} {:>9} {:>13.2} {:>9.2} {:>10.2} {:>10.1}",
            seen.registrations,
            median(&seen.start_ms),
            median(&seen.first_ms),
            seen.idle_kib,
            seen.used_kib,
            median(&seen.signature_ms),
            median(&seen.again_ms),
            median(&seen.change_ms),
            seen.status_ms
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
