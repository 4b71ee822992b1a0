//! A tidying at work: in steps of so many records, each on a thread that may block, and nothing held between them.
//!
//! What a step removes is committed before memory forgets it, and steps remember nothing: one that was killed leaves what
//! the next tidying finds. A revocation goes only when its certificate has ended, `safety_buffer` has passed, and a complete
//! CRL made after that end has listed it (RFC 5280, 3.3), where CRLs are made at all: one that lacks it is made anew before it
//! goes, or, where the clock makes CRLs, waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::super::ca_certificate::SignerId;
use super::super::crl::off_worker;
use super::super::crls::Whole;
use super::super::registry::Registry;
use super::super::revocation::Revocation;
use super::super::serial::Serial;
use super::super::{Pki, intents, validity, x509};
use super::status::{Halt, Tally};
use super::targets::Targets;
use crate::engine::Call;
use crate::model::{Class, Deadline, Fault};
use crate::store::Write;

/// Records of one step.
const STEP: usize = 512;
/// Serial numbers that one log line names.
const TOLD: usize = 20;
/// How far the clock may have gone forward by itself, in seconds at least: what is longer than `safety_buffer` and this makes
/// it one that nothing is removed by.
const JUMP_MIN: u64 = 3600;
/// How long the reading of revocations is waited for: longer than any takes.
const LOAD_TIME: Duration = Duration::from_secs(3600);
/// How long a CRL is waited for.
const CRL_TIME: Duration = Duration::from_secs(120);

/// One tidying.
pub(super) struct Run {
    pki: Arc<Pki>,
    call: Call,
    targets: Targets,
    cancelled: watch::Receiver<bool>,
    /// When it began, in Unix seconds: what ends later is for the next one.
    began: u64,
    /// Whether a step was made, so that the next one comes after a pause.
    is_under_way: bool,
    /// Signers some of whose revocations went.
    touched: BTreeSet<SignerId>,
}

/// What a step came to.
#[derive(Default)]
struct Step {
    /// The name of the last record it looked at; `None` at the end.
    last: Option<String>,
    /// How many it looked at.
    seen: usize,
    tally: Tally,
    /// Records that cannot be judged, and stay.
    odd: Vec<String>,
    /// Signers whose CRLs must list something before it goes.
    waiting: BTreeSet<SignerId>,
    touched: BTreeSet<SignerId>,
}

impl Run {
    /// One that is to begin.
    pub(super) fn new(pki: Arc<Pki>, call: Call, targets: Targets, cancelled: watch::Receiver<bool>) -> Run {
        let call = Call { class: Class::Control, ..call };
        let touched = BTreeSet::new();
        Run { pki, call, targets, cancelled, began: validity::now(), is_under_way: false, touched }
    }

    /// Tidies. What was removed before a failure or a cancellation stays removed.
    pub(super) async fn run(mut self) -> Result<(), Halt> {
        self.check_clock()?;
        let whole = self.whole().await?;
        let removed = self.remove(whole).await;
        let touched = std::mem::take(&mut self.touched);
        let compacted = self.compact(touched.clone(), whole).await;
        removed?;
        compacted?;
        for signer in touched {
            if self.makes_crls_at_once(&signer) {
                self.make_crl(&signer).await?;
            }
        }
        Ok(())
    }

    /// Refuses to judge by a clock that went forward while the daemon ran, as a wrong time server has it do: whatever seems to
    /// have ended may not have.
    fn check_clock(&self) -> Result<(), Fault> {
        let ahead = self.pki.tidy.clock_ahead(self.began);
        if ahead > self.targets.safety_buffer.max(JUMP_MIN) {
            return Err(Fault::Unavailable {
                what: format!(
                    "the system's clock went forward by {ahead} seconds since this mount was loaded, more than safety_buffer: \
                     nothing was removed. If the clock is right now, restart the daemon and tidy again"
                ),
            });
        }
        Ok(())
    }

    /// Waits until the revocations are read: what goes leaves memory too.
    async fn whole(&mut self) -> Result<Whole, Halt> {
        let pki = Arc::clone(&self.pki);
        tokio::select! {
            whole = pki.crls.whole_by(Deadline::after(LOAD_TIME)) => Ok(whole?),
            _ = self.cancelled.wait_for(|cancelled| *cancelled) => Err(Halt::Cancelled),
        }
    }

    async fn remove(&mut self, whole: Whole) -> Result<(), Halt> {
        if self.targets.tidy_cert_store {
            self.certificates().await?;
            self.unfinished().await?;
        }
        if self.targets.tidy_revoked_certs || self.targets.tidy_revoked_cert_issuer_associations {
            self.revocations(whole).await?;
        }
        if self.targets.tidy_expired_issuers {
            self.between_steps().await?;
            self.issuers().await?;
        }
        Ok(())
    }

    /// Pauses as asked, unless it is to stop.
    async fn between_steps(&mut self) -> Result<(), Halt> {
        let pause = self.targets.pause_duration;
        if std::mem::replace(&mut self.is_under_way, true) && !pause.is_zero() {
            // What comes of it is seen below.
            let _ = tokio::time::timeout(pause, self.cancelled.wait_for(|cancelled| *cancelled)).await;
        }
        if *self.cancelled.borrow() { Err(Halt::Cancelled) } else { Ok(()) }
    }

    /// Runs one step and notes what it came to.
    async fn step(
        &mut self,
        what: &str,
        seen: &mut usize,
        work: impl FnOnce(&Pki) -> Result<Step, Fault> + Send + 'static,
    ) -> Result<Step, Halt> {
        self.between_steps().await?;
        let pki = Arc::clone(&self.pki);
        let step = off_worker(true, move || work(&pki)).await?;
        *seen += step.seen;
        let (tally, message) = (step.tally.clone(), format!("Tidying {what}: checked {seen} entries"));
        self.pki.telemetry.tidied(tally.certificates, tally.revocations);
        self.pki.tidy.progress(message, |sum| {
            sum.certificates += tally.certificates;
            sum.revocations += tally.revocations;
            sum.unfinished += tally.unfinished;
            sum.missing_issuers += tally.missing_issuers;
        });
        if !step.odd.is_empty() {
            let told: Vec<&str> = step.odd.iter().take(TOLD).map(String::as_str).collect();
            tracing::warn!(
                mount = %self.call.mount.path, namespace = %self.call.mount.namespace, count = step.odd.len(),
                serials = told.join(" "),
                "tidy cannot tell when these certificates end, and leaves what is stored of them: their records are damaged \
                 or gone"
            );
        }
        self.touched.extend(step.touched.iter().cloned());
        Ok(step)
    }

    async fn certificates(&mut self) -> Result<(), Halt> {
        let ends_before = self.began.saturating_sub(self.targets.safety_buffer);
        let (mut last, mut seen) = (None, 0);
        loop {
            let after = last.take();
            let work = move |pki: &Pki| pki.tidy_certificates(after.as_deref(), ends_before);
            last = self.step("certificate store", &mut seen, work).await?.last;
            if last.is_none() {
                return Ok(());
            }
        }
    }

    async fn unfinished(&mut self) -> Result<(), Halt> {
        let ends_before = self.began.saturating_sub(self.targets.safety_buffer);
        let (mut last, mut seen) = (None, 0);
        loop {
            let after: Option<String> = last.take();
            let work = move |pki: &Pki| {
                let found = intents::tidy(&pki.store, &pki.records, after.as_deref(), STEP, ends_before)?;
                let tally = Tally { unfinished: found.removed as u64, ..Tally::default() };
                Ok(Step { last: found.last, seen: found.seen, tally, ..Step::default() })
            };
            last = self.step("unfinished certificates", &mut seen, work).await?.last;
            if last.is_none() {
                return Ok(());
            }
        }
    }

    async fn revocations(&mut self, whole: Whole) -> Result<(), Halt> {
        let ends_before = self.began.saturating_sub(self.targets.safety_buffer);
        let (mut last, mut seen) = (None, 0);
        let (mut made, mut waits, mut is_again) = (BTreeSet::new(), false, false);
        loop {
            let (after, mut targets): (Option<String>, Targets) = (last.clone(), self.targets.clone());
            // Looked after the first time.
            targets.tidy_revoked_cert_issuer_associations &= !is_again;
            let work = move |pki: &Pki| pki.tidy_revocations(after.as_deref(), &targets, ends_before, whole);
            let step = self.step("revoked certificates", &mut seen, work).await?;
            let is_due = |signer: &&SignerId| !made.contains(*signer) && self.makes_crls_at_once(signer);
            let due: Vec<SignerId> = step.waiting.iter().filter(is_due).cloned().collect();
            is_again = !due.is_empty();
            for signer in due {
                self.make_crl(&signer).await?;
                made.insert(signer);
            }
            if is_again {
                seen -= step.seen;
                continue;
            }
            waits |= !step.waiting.is_empty();
            last = step.last;
            if last.is_none() {
                break;
            }
        }
        if waits {
            tracing::info!(
                mount = %self.call.mount.path, namespace = %self.call.mount.namespace,
                "tidy leaves revocations that no complete CRL made after their certificates' ends has listed yet; the one \
                 after the next scheduled CRL removes them"
            );
        }
        Ok(())
    }

    /// Whether tidying has CRLs of this signer made: they are made, and not by the clock alone.
    fn makes_crls_at_once(&self, signer: &SignerId) -> bool {
        !self.pki.crl_config.load().auto_rebuild && self.pki.makes_crls(signer)
    }

    async fn make_crl(&self, signer: &SignerId) -> Result<(), Fault> {
        let call = Call { deadline: Deadline::after(CRL_TIME), ..self.call.clone() };
        self.pki.rebuild_crl(&call, signer).await
    }

    /// Frees CRLs and memory of what went. The clock makes the CRLs if nothing else does.
    async fn compact(&self, signers: BTreeSet<SignerId>, whole: Whole) -> Result<(), Fault> {
        let pki = Arc::clone(&self.pki);
        let compact = move || {
            for signer in &signers {
                let own = pki.crls.of(signer);
                while own.revoked(whole).compact()? {}
                own.revoked(whole).note_removals();
            }
            Ok(())
        };
        off_worker(true, compact).await
    }

    /// Issuers that have ended: never the default, and their keys stay.
    async fn issuers(&mut self) -> Result<(), Halt> {
        let ends_before = self.began.saturating_sub(self.targets.issuer_safety_buffer);
        let remove = move |registry: &mut Registry| {
            let default = registry.issuers_config.default.clone();
            let ended = registry.issuers.values().filter(|issuer| issuer.certificate.x509.not_after < ends_before);
            let ended: Vec<_> = ended.cloned().collect();
            for issuer in ended.iter().filter(|issuer| issuer.record.id != default) {
                registry.remove_issuer(&issuer.record.id);
            }
            Ok((ended, default))
        };
        let authority = self.pki.authority.load_full();
        if authority.issuers.values().all(|issuer| issuer.certificate.x509.not_after >= ends_before) {
            // Nothing changes, and nobody need forget what it made of the issuers.
            return Ok(());
        }
        let (mount, namespace) = (&self.call.mount.path, &self.call.mount.namespace);
        let (ended, default) = self.pki.edit(&self.call, remove).await?;
        for issuer in &ended {
            let (id, name) = (issuer.record.id.as_str(), issuer.record.settings.name.as_str());
            if *id == default {
                tracing::warn!(
                    issuer = id, name, %mount, %namespace,
                    "this issuer has ended and would be removed, but it is the default: choose another with config/issuers"
                );
                continue;
            }
            tracing::info!(
                issuer = id, name, serial = %issuer.certificate.x509.serial, key = issuer.record.key_id, %mount, %namespace,
                certificate = issuer.certificate.pem,
                "issuer that had ended removed by tidy; its key stays, and its certificate can be imported again"
            );
        }
        let removed = ended.iter().filter(|issuer| issuer.record.id != default).count() as u64;
        self.pki.tidy.progress("Tidying expired issuers".into(), |sum| sum.issuers += removed);
        Ok(())
    }
}

impl Pki {
    /// Whether CRLs of this signer are made.
    fn makes_crls(&self, signer: &SignerId) -> bool {
        !self.crl_config.load().disable && self.authority.load().crl_issuer(signer).is_some()
    }

    fn tidy_certificates(&self, after: Option<&str>, ends_before: u64) -> Result<Step, Fault> {
        let page = self.store.scan(self.records.namespace(), &self.records.collection("certs"), after, STEP)?;
        let (mut step, mut writes, mut gone) = (Step::default(), Vec::new(), Vec::new());
        for (name, record) in &page {
            let found = Serial::parse(name).zip(x509::not_after(&record.value));
            let Some((serial, end)) = found else {
                step.odd.push(name.clone());
                continue;
            };
            if end < ends_before {
                writes.extend(self.keep_end(&serial, end)?);
                writes.push(Write::Delete { key: self.records.certificate(&serial) });
                gone.push(serial);
            }
        }
        self.store.commit_now(writes)?;
        gone.iter().for_each(|serial| self.counts.removed(serial));
        step.tally.certificates = gone.len() as u64;
        step.seen = page.len();
        step.last = last_of(page);
        Ok(step)
    }

    /// The change that has a revocation say when its certificate ended, where so far only the certificate does.
    fn keep_end(&self, serial: &Serial, end: u64) -> Result<Option<Write>, Fault> {
        if self.crls.time(serial)?.is_none() {
            return Ok(None);
        }
        let key = self.records.revocation(serial);
        match self.store.read::<Revocation>(&key)? {
            Some(revocation) if revocation.not_after.is_none() => {
                Write::put_record(key, &Revocation { not_after: Some(end), ..revocation }).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn tidy_revocations(
        &self,
        after: Option<&str>,
        targets: &Targets,
        ends_before: u64,
        whole: Whole,
    ) -> Result<Step, Fault> {
        let (namespace, collection) = (self.records.namespace(), self.records.collection("revoked"));
        let page = self.store.read_all::<Revocation>(namespace, &collection, after, STEP)?;
        let (mut step, mut writes) = (Step::default(), Vec::new());
        let mut gone: BTreeMap<SignerId, Vec<Serial>> = BTreeMap::new();
        let mut uncounted = Vec::new();
        for (name, revocation) in &page {
            let end = if targets.tidy_revoked_certs { self.end_of(name, revocation)? } else { None };
            let found = Serial::parse(name).zip(end);
            if let Some((serial, end)) = found.filter(|(_, end)| *end < ends_before) {
                if !self.makes_crls(&revocation.signer)
                    || self.crls.of(&revocation.signer).has_listed(&serial, end, whole)
                {
                    if self.counts.are_kept() && self.store.get(&self.records.certificate(&serial))?.is_some() {
                        uncounted.push(serial);
                    }
                    writes.push(Write::Delete { key: self.records.revocation(&serial) });
                    writes.push(Write::Delete { key: self.records.certificate(&serial) });
                    gone.entry(revocation.signer.clone()).or_default().push(serial);
                    continue;
                }
                step.waiting.insert(revocation.signer.clone());
            } else if targets.tidy_revoked_certs && found.is_none() {
                step.odd.push(name.clone());
            }
            if targets.tidy_revoked_cert_issuer_associations {
                writes.extend(self.associate(name, revocation, &mut step.tally)?);
            }
        }
        self.store.commit_now(writes)?;
        uncounted.iter().for_each(|serial| self.counts.removed(serial));
        for (signer, serials) in gone {
            let own = self.crls.of(&signer);
            let mut revoked = own.revoked(whole);
            step.tally.revocations += serials.iter().filter(|serial| revoked.remove(serial)).count() as u64;
            step.touched.insert(signer);
        }
        step.seen = page.len();
        step.last = last_of(page);
        Ok(step)
    }

    /// When a revoked certificate ends, in Unix seconds: as its revocation says, or else the certificate.
    fn end_of(&self, name: &str, revocation: &Revocation) -> Result<Option<u64>, Fault> {
        let Some(serial) = Serial::parse(name).filter(|_| revocation.not_after.is_none()) else {
            return Ok(revocation.not_after);
        };
        let record = self.store.get(&self.records.certificate(&serial))?;
        Ok(record.and_then(|record| x509::not_after(&record.value)))
    }

    /// The change that has a revocation name an issuer of its signer, where the one it names is gone.
    fn associate(&self, name: &str, revocation: &Revocation, tally: &mut Tally) -> Result<Option<Write>, Fault> {
        let authority = self.authority.load();
        if authority.issuers.contains_key(&revocation.issuer) {
            return Ok(None);
        }
        tally.missing_issuers += 1;
        let same = authority.issuers.values().find(|issuer| *issuer.signer() == revocation.signer);
        let Some((serial, issuer)) = Serial::parse(name).zip(same) else { return Ok(None) };
        let revocation = Revocation { issuer: issuer.id().to_owned(), ..revocation.clone() };
        Write::put_record(self.records.revocation(&serial), &revocation).map(Some)
    }
}

/// Where the next step goes on; nowhere after a page that is not full.
fn last_of<T>(page: Vec<(String, T)>) -> Option<String> {
    let is_full = page.len() == STEP;
    page.into_iter().next_back().map(|(name, _)| name).filter(|_| is_full)
}
