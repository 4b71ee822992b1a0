//! `sign/:role` for many requests at once: they share the records that one certificate has for itself, and reach the key
//! together. Each has an answer of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;

use super::Pki;
use super::certificate::{Intended, Prepared, Signed};
use super::compiled_role::CompiledRole;
use super::csr::Csr;
use super::issuer_usage::IssuerUsage;
use super::leaf::{Certified, Draft, Plan};
use super::request::SignFields;
use super::signatory::Signatory;
use crate::engine::hold;
use crate::engine::{Call, together};
use crate::model::{CertificatesRequest, Class, Fault, Outcome};

/// How long requests are judged before other tasks of the worker get their turn.
const TURN: Duration = Duration::from_micros(300);

/// What all certificates of a batch have in common.
struct Desk {
    pki: Arc<Pki>,
    call: Call,
    signatory: Signatory,
    role: String,
    compiled: Arc<CompiledRole>,
    fields: SignFields,
}

impl Pki {
    /// The hot operation. What all have in common, such as the role, is refused for all.
    pub(super) async fn sign_requests(
        self: Arc<Self>,
        mut call: Call,
        request: CertificatesRequest,
    ) -> Result<Outcome, Fault> {
        let (count, most) = (request.csrs.len(), self.batch_items);
        if count == 0 {
            return Err(Fault::invalid("csrs is empty: expected certificate requests in DER"));
        }
        if count > most {
            return Err(Fault::TooLarge {
                what: format!("csrs has {count} certificate requests; at most {most} are taken"),
            });
        }
        // Like every batch, unless it is of a lower class already.
        call.class = if call.class == Class::Interactive { Class::Bulk } else { call.class };
        let fields = SignFields::parse(&request.data, None, &super::sign::ELSEWHERE)?;
        let compiled = self.role(&request.role)?;
        let authority = self.authority.load_full();
        let issuer = authority.issuer(&compiled.role.issuer_ref)?;
        let signatory = self.signatory(&call.mount, issuer, IssuerUsage::IssuingCertificates)?;
        let room = self.batch_room.clone();
        let desk = Arc::new(Desk { pki: self, call, signatory, role: request.role, compiled, fields });
        let mut answers = Vec::with_capacity(count);
        for group in request.csrs.chunks(room.window()) {
            let drafts = desk.judge(group).await;
            // Begun, it goes to its end even if the asker leaves: what is signed is stored.
            let place = room.enter(group.len(), desk.call.deadline).await?;
            let work = Arc::clone(&desk).certify(drafts);
            let certified = tokio::spawn(hold::going_on(async move {
                let _held = place;
                work.await
            }));
            let certified = certified.await;
            answers.extend(certified.map_err(|_| Fault::internal("issuing certificates panicked"))?);
        }
        let chain = issuer.chain_above(desk.fields.remove_roots_from_chain).map(|link| link.x509.der.clone()).collect();
        let results = answers.into_iter().map(|answer| answer.map(|certified| certified.alone())).collect();
        Ok(Outcome::Certificates { results, chain })
    }
}

impl Desk {
    /// Makes drafts of what may be signed of these requests.
    async fn judge(&self, csrs: &[Bytes]) -> Vec<Result<Draft, Fault>> {
        let mut drafts = Vec::with_capacity(csrs.len());
        let mut turn = Instant::now();
        for csr in csrs {
            if turn.elapsed() >= TURN {
                tokio::task::yield_now().await;
                turn = Instant::now();
            }
            drafts.push(self.draft(csr));
        }
        drafts
    }

    fn draft(&self, csr: &[u8]) -> Result<Draft, Fault> {
        let csr = Csr::parse(csr)?;
        self.compiled.role.check_key(csr.public_key.kind)?;
        let plan = self.compiled.plan(Some(&csr), &self.fields, &self.call.mount.config, &self.signatory.issuer)?;
        let plan = Plan { lease: self.compiled.lease(&self.call, None, "sign", &self.role), ..plan };
        plan.draft(&self.signatory, &csr.public_key)
    }

    /// Has the drafts signed and stores them: what is intended is one record, and what was signed one commit.
    async fn certify(self: Arc<Self>, drafts: Vec<Result<Draft, Fault>>) -> Vec<Result<Certified, Fault>> {
        let Desk { pki, signatory, .. } = &*self;
        let is_stored = drafts.iter().flatten().any(|draft| draft.is_stored);
        let prepared = drafts.into_iter().map(|draft| draft.map(|draft| draft.prepared)).collect();
        let intended = through(prepared, |all| async move {
            match is_stored {
                true => Prepared::record_all(all, &pki.intents, signatory.issuer.id()).await,
                false => Ok(all.into_iter().map(Prepared::unrecorded).collect()),
            }
        });
        let signed = self.sign(intended.await).await;
        let issued = through(signed, |all| async move {
            match is_stored {
                true => Signed::store_all(all, &pki.store, &pki.records).await,
                false => Ok(all.into_iter().map(Signed::unstored).collect()),
            }
        });
        let tell = |issued| pki.certified(&self.call, signatory, &self.role, issued, is_stored, Vec::new());
        issued.await.into_iter().map(|issued| issued.map(tell)).collect()
    }

    /// Has them signed. Their jobs reach the lane in one go.
    async fn sign(&self, intended: Vec<Result<Intended, Fault>>) -> Vec<Result<Signed, Fault>> {
        let (key, terms) = (&self.signatory.key, self.call.terms());
        let signing = intended.into_iter().map(|intended| async move { intended?.sign(key, terms).await });
        let mut all = std::pin::pin!(join_all(signing));
        std::future::poll_fn(|context| together(|| all.as_mut().poll(context))).await
    }
}

/// Takes those that went well so far through `step`. Where that fails, it has failed for each of them.
async fn through<T, U, F>(items: Vec<Result<T, Fault>>, step: impl FnOnce(Vec<T>) -> F) -> Vec<Result<U, Fault>>
where
    F: Future<Output = Result<Vec<U>, Fault>>,
{
    let mut good = Vec::with_capacity(items.len());
    let faults: Vec<Option<Fault>> = items.into_iter().map(|item| item.map(|item| good.push(item)).err()).collect();
    if good.is_empty() {
        return faults.into_iter().flatten().map(Err).collect();
    }
    let mut done = match step(good).await {
        Ok(done) => Ok(done.into_iter()),
        Err(fault) => Err(fault),
    };
    let mut next = || match &mut done {
        Ok(done) => done.next().ok_or_else(|| Fault::internal("a step lost some of a batch")),
        Err(fault) => Err(fault.clone()),
    };
    faults.into_iter().map(|fault| fault.map_or_else(&mut next, Err)).collect()
}
