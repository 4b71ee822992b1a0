//! The three classes of work a lane tells apart.

/// How urgent a job is. A client may lower its class; only configuration raises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// CRLs and probes: at most a tenth of a lane.
    Control,
    /// Somebody waits for this one answer.
    Interactive,
    /// Batches and bulk tools: never starved, never first.
    Bulk,
}

impl Class {
    /// Every class, most urgent first.
    pub const ALL: [Class; 3] = [Class::Control, Class::Interactive, Class::Bulk];

    /// The label used in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Class::Control => "control",
            Class::Interactive => "interactive",
            Class::Bulk => "bulk",
        }
    }
}
