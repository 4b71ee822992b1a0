//! One request on its way through the devices: its record, and that of its answer.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::device::Device;
use super::entry::{Text, TooLong};
use super::ticket::{Taken, Ticket};
use crate::model::{Data, Fault, Operation, RequestId, Response, Verb};

/// Who asks, where a token is known.
#[derive(Clone, Copy, Debug)]
pub struct Bearer<'a> {
    /// The token's accessor.
    pub accessor: &'a str,
    /// The token's name for people.
    pub display_name: &'a str,
    /// The names of its policies.
    pub policies: &'a [String],
    /// What its maker noted of it.
    pub meta: &'a BTreeMap<String, String>,
    /// When it was made, in Unix seconds.
    pub issued: u64,
}

/// The mount that a request is for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place<'a> {
    /// Its type.
    pub kind: &'a str,
    /// Its path, ending in `/`.
    pub point: &'a str,
    /// Its accessor.
    pub accessor: &'a str,
    /// Members of requests whose values are written as they are.
    pub clear_in_requests: &'a [String],
    /// Members of answers, likewise.
    pub clear_in_answers: &'a [String],
}

/// A request, as its record tells it.
#[derive(Debug)]
pub struct Asked<'a> {
    /// What its answer is called by, too.
    pub id: RequestId,
    /// What is asked, and by whom.
    pub operation: &'a Operation,
    /// What that does, in Vault's words: `update`.
    pub verb: &'static str,
    /// What it says, as its form over HTTP would.
    pub data: Cow<'a, Data>,
    /// Whose token it came with.
    pub bearer: Option<Bearer<'a>>,
    /// The mount.
    pub place: Place<'a>,
    /// The id of its namespace.
    pub namespace_id: &'a str,
    /// Whether policies allow it.
    pub is_allowed: bool,
    /// Why it is not run.
    pub refused: Option<&'a Fault>,
}

/// What came of a request.
#[derive(Clone, Copy, Debug)]
pub enum Answered<'a> {
    /// An answer.
    Response(&'a Response),
    /// The answer to a typed operation, as its form over HTTP would have it.
    Typed(&'a Data),
    /// None.
    Fault(&'a Fault),
    /// It was given up before there was one.
    Nobody,
}

/// The devices that a request is recorded by.
pub struct Recorder {
    pub(super) devices: Arc<Vec<Arc<Device>>>,
    pub(super) bytes_max: usize,
}

/// A request that was recorded, and whose answer is to be. Dropped before that, it is recorded that nobody waited for it.
#[must_use = "its answer is to be recorded"]
pub struct Recording {
    bytes_max: usize,
    /// The devices, each with what its two records have in common.
    devices: Vec<(Arc<Device>, Vec<u8>)>,
    clear: Vec<String>,
    verb: Option<Verb>,
    is_answered: bool,
}

impl Recorder {
    /// Forms the record of a request, and hands it to the devices.
    ///
    /// # Errors
    ///
    /// [`Fault::TooLarge`] if it is longer than a record may be.
    pub fn request(self, asked: &Asked<'_>) -> Result<(Recording, Taken), Fault> {
        let most = self.bytes_max;
        let too_long = |TooLong| Fault::TooLarge {
            what: format!(
                "the record of this request has more than {most} bytes, the most that audit devices are given: ask for less \
                 at once, or have the operator raise limits {{ audit_record_bytes }}"
            ),
        };
        let mut formed = Vec::with_capacity(self.devices.len());
        for device in self.devices.iter() {
            let common = device.text(most).common(asked).map_err(too_long)?;
            let record = device.text(most).asked(&common, asked.refused).map_err(too_long)?;
            formed.push((Arc::clone(device), common, record));
        }
        let (ticket, now) = (Ticket::of(formed.len()), Instant::now());
        let mut devices = Vec::with_capacity(formed.len());
        for (device, common, record) in formed {
            device.push(record, ticket.clone(), now);
            devices.push((device, common));
        }
        let verb = match &asked.operation.body {
            crate::model::Body::Request(request) => Some(request.verb),
            _ => None,
        };
        let (clear, is_answered) = (asked.place.clear_in_answers.to_vec(), false);
        let recording = Recording { bytes_max: most, devices, clear, verb, is_answered };
        let taken = recording.taken(ticket);
        Ok((recording, taken))
    }
}

impl Recording {
    /// Forms the record of what came of the request, and hands it to the devices that have that of the request.
    pub fn answer(mut self, answered: &Answered<'_>) -> Taken {
        let ticket = self.hand_over(answered);
        self.taken(ticket)
    }

    fn hand_over(&mut self, answered: &Answered<'_>) -> Ticket {
        self.is_answered = true;
        let (ticket, now) = (Ticket::of(self.devices.len()), Instant::now());
        for (device, common) in &self.devices {
            let text = || -> Text<'_> { device.text(self.bytes_max) };
            let formed = text().answered(common, answered, &self.clear, self.verb);
            match formed.or_else(|TooLong| text().answered_at_length(common)) {
                Ok(record) => device.push(record, ticket.clone(), now),
                Err(TooLong) => ticket.failed(format!("audit device {}: the record is too long", device.path)),
            }
        }
        ticket
    }

    fn taken(&self, ticket: Ticket) -> Taken {
        let longest = self.devices.iter().map(|(device, _)| device.settings.write_timeout).max();
        Taken::new(ticket, longest.unwrap_or(Duration::ZERO))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.is_answered {
            self.hand_over(&Answered::Nobody);
        }
    }
}
