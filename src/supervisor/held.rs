//! How much is queued: in jobs, and in bytes of the messages they carry. A lane has bounds of both.

/// What is queued, of all or of one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) jobs: usize,
    pub(super) bytes: usize,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    Jobs,
    Bytes,
}

impl Held {
    /// One job more, that carries so many bytes.
    pub(super) fn enter(&mut self, bytes: usize) {
        self.jobs += 1;
        self.bytes += bytes;
    }

    /// One less.
    pub(super) fn leave(&mut self, bytes: usize) {
        self.jobs -= 1;
        self.bytes -= bytes;
    }

    pub(super) fn of(&self, measure: Measure) -> usize {
        match measure {
            Measure::Jobs => self.jobs,
            Measure::Bytes => self.bytes,
        }
    }
}

impl Measure {
    /// What a bound of it counts, as an operator reads it.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Measure::Jobs => "queued jobs",
            Measure::Bytes => "bytes of queued messages",
        }
    }
}
