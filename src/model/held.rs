//! How much is queued: in jobs, and in bytes of the messages they carry. A lane has bounds of both.

/// What is queued, of all or of one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) jobs: usize,
    pub(crate) bytes: usize,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    Jobs,
    Bytes,
}

impl Held {
    /// One job more, that carries so many bytes.
    pub(crate) fn enter(&mut self, bytes: usize) {
        self.jobs += 1;
        self.bytes += bytes;
    }

    /// One less.
    pub(crate) fn leave(&mut self, bytes: usize) {
        self.jobs -= 1;
        self.bytes -= bytes;
    }

    /// This and that.
    pub(crate) fn and(self, other: Held) -> Held {
        Held { jobs: self.jobs + other.jobs, bytes: self.bytes + other.bytes }
    }

    pub(crate) fn of(&self, measure: Measure) -> usize {
        match measure {
            Measure::Jobs => self.jobs,
            Measure::Bytes => self.bytes,
        }
    }
}

impl Measure {
    /// What a bound of it counts, as an operator reads it.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Measure::Jobs => "queued jobs",
            Measure::Bytes => "bytes of queued messages",
        }
    }
}
