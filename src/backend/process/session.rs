//! A session, served by a thread of a worker process.
//!
//! Performance-critical: a batch is one write, and its answers come as few reads as the worker makes of them.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use bytes::Bytes;

use super::child::Process;
use super::message::{ANSWER_MAX, Answer, Command, FRAME_MAX, INPUT_MAX, put_jobs};
use super::pair::{Frames, put_frame};
use crate::backend::{BackendError, BatchJob, Fate, FoundKey, KeySelector, KeyTemplate, Session};
use crate::model::{Fault, KeyKind, KeyOperation};
use zeroize::Zeroize;

/// Bytes of input beyond which a batch is cut into several frames.
const BATCH_BYTES: usize = 256 << 10;
/// Bytes kept for the next frame.
const KEPT_BYTES: usize = 64 << 10;

pub(super) struct ProcessSession {
    frames: Frames,
    out: Vec<u8>,
    process: Arc<Process>,
    /// What the worker's session said last, until somebody asks.
    computes_here: Option<bool>,
}

/// What came of the jobs of one frame.
enum Ran {
    All,
    /// So many were answered, the last with an error that ends the batch.
    EndedAfter(usize),
}

impl ProcessSession {
    /// Waits until the worker has the session open. `stream` is the daemon's end of its pair.
    pub(super) fn open(stream: UnixStream, process: Arc<Process>) -> Result<ProcessSession, BackendError> {
        let mut session = ProcessSession { frames: Frames::new(stream), out: Vec::new(), process, computes_here: None };
        session.done()?;
        Ok(session)
    }

    fn done(&mut self) -> Result<(), BackendError> {
        match self.answer()? {
            Answer::Done => Ok(()),
            Answer::Failed(error) => Err(error),
            _ => Err(self.process.talked_nonsense()),
        }
    }

    fn send(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> Result<(), BackendError> {
        self.out.clear();
        put_frame(&mut self.out, put);
        if self.out.len() > FRAME_MAX {
            self.out = Vec::new();
            let what = format!("a worker process takes up to {} MiB at once", FRAME_MAX >> 20);
            return Err(BackendError::keep(Fault::TooLarge { what }));
        }
        let sent = self.frames.send(&self.out).map_err(|_| self.process.died());
        // There may have been plaintexts in it.
        self.out.as_mut_slice().zeroize();
        // One long message does not hold its memory for good.
        if self.out.capacity() > KEPT_BYTES {
            self.out = Vec::new();
        }
        sent
    }

    fn answer(&mut self) -> Result<Answer, BackendError> {
        self.answer_to(0)
    }

    /// The answer to an input of so many bytes.
    fn answer_to(&mut self, input: usize) -> Result<Answer, BackendError> {
        match self.frames.next(ANSWER_MAX + input) {
            Ok(Some(frame)) => {
                let answer = Answer::decode(frame);
                // It may have been a plaintext.
                frame.zeroize();
                answer.map_err(|_| self.process.talked_nonsense())
            }
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Err(self.process.talked_nonsense()),
            Ok(None) | Err(_) => Err(self.process.died()),
        }
    }

    /// The answer to a job with an input of so many bytes. Before that to the `first` of a frame there may be news of the token.
    fn output(&mut self, first: bool, input: usize) -> Result<Answer, BackendError> {
        match self.answer_to(input)? {
            Answer::ComputesHere(here) if first => {
                self.computes_here = Some(here);
                self.answer_to(input)
            }
            answer => Ok(answer),
        }
    }

    fn ask(&mut self, command: &Command) -> Result<Option<FoundKey>, BackendError> {
        self.send(|out| command.encode(out))?;
        match self.answer()? {
            Answer::Found(found) => Ok(found),
            Answer::Failed(error) => Err(error),
            _ => Err(self.process.talked_nonsense()),
        }
    }

    /// Runs the jobs of one frame. The first of them is `first` of the batch.
    fn run_frame(
        &mut self,
        first: usize,
        jobs: &[BatchJob<'_>],
        each: &mut dyn FnMut(usize, Result<Bytes, BackendError>),
    ) -> Ran {
        let mut lost = self.send(|out| put_jobs(out, jobs)).err();
        for (index, job) in jobs.iter().enumerate() {
            let answer = match &lost {
                Some(error) => Err(error.clone()),
                None => self.output(index == 0, job.operation.input().len()),
            };
            let result = match answer {
                Ok(Answer::Output(output)) => Ok(output),
                Ok(Answer::Failed(error)) => {
                    let ends = error.fate != Fate::Keep;
                    each(first + index, Err(error));
                    if ends {
                        return Ran::EndedAfter(index + 1);
                    }
                    continue;
                }
                Ok(_) => Err(self.process.talked_nonsense()),
                Err(error) => Err(error),
            };
            // Any job not answered may have ended the worker: all are told.
            lost = result.as_ref().err().cloned();
            each(first + index, result);
        }
        if lost.is_some() { Ran::EndedAfter(jobs.len()) } else { Ran::All }
    }
}

/// How many of `jobs`, at least one, make one frame.
fn fitting(jobs: &[BatchJob<'_>]) -> usize {
    let mut bytes = 0;
    let fits = |job: &&BatchJob<'_>| {
        bytes += job.operation.size();
        bytes <= BATCH_BYTES
    };
    jobs.iter().take_while(fits).count().max(1)
}

impl Session for ProcessSession {
    fn find(&mut self, selector: &KeySelector) -> Result<Option<FoundKey>, BackendError> {
        self.ask(&Command::Find(selector.clone()))
    }

    fn generate(&mut self, template: &KeyTemplate) -> Result<FoundKey, BackendError> {
        let found = self.ask(&Command::Generate(template.clone()))?;
        found.ok_or_else(|| self.process.talked_nonsense())
    }

    fn perform(&mut self, handle: u64, kind: KeyKind, operation: &KeyOperation) -> Result<Bytes, BackendError> {
        let mut answer = Err(BackendError::keep(Fault::internal("a job was not answered")));
        self.perform_batch(&[BatchJob { handle, kind, operation }], &mut |_, result| answer = result);
        answer
    }

    fn check_alive(&mut self) -> Result<(), BackendError> {
        self.send(|out| Command::CheckAlive.encode(out))?;
        self.done()
    }

    fn computes_here(&mut self) -> Option<bool> {
        self.computes_here.take()
    }

    fn batches(&self) -> bool {
        true
    }

    fn perform_batch(
        &mut self,
        jobs: &[BatchJob<'_>],
        each: &mut dyn FnMut(usize, Result<Bytes, BackendError>),
    ) -> usize {
        let mut told = 0;
        while told < jobs.len() {
            let rest = &jobs[told..];
            if rest[0].operation.size() > INPUT_MAX {
                let what = format!("a worker process takes inputs of up to {} MiB", INPUT_MAX >> 20);
                each(told, Err(BackendError::keep(Fault::TooLarge { what })));
                told += 1;
                continue;
            }
            let count = fitting(rest);
            match self.run_frame(told, &rest[..count], each) {
                Ran::All => told += count,
                Ran::EndedAfter(answered) => return told + answered,
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Cipher, SecretBytes};

    #[test]
    fn a_frame_is_cut_by_all_that_its_jobs_carry() {
        let operation = |plaintext: usize, associated_data: usize| KeyOperation::Encrypt {
            cipher: Cipher::AesGcm { iv: [0; 12], associated_data: vec![0; associated_data].into() },
            plaintext: SecretBytes::new(vec![0; plaintext]),
        };
        let kind = KeyKind::Aes { bits: 256 };
        for (plaintext, associated_data, fit) in [
            (1, 0, 9),
            (BATCH_BYTES / 4, 0, 4),
            (1, BATCH_BYTES / 2 - 1, 2),
            (1, BATCH_BYTES, 1),
            (BATCH_BYTES + 1, 0, 1),
        ] {
            let operation = operation(plaintext, associated_data);
            let jobs = vec![BatchJob { handle: 0, kind, operation: &operation }; 9];
            assert_eq!(fitting(&jobs), fit, "{plaintext} {associated_data}");
        }
    }
}
