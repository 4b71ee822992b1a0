//! What can be seen of the daemon's members from outside.

/// Where a member (one slot) stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// Looking for its library and token.
    Probing,
    /// Logged in, opening sessions and proving keys.
    Warming,
    /// Pulling work.
    Serving,
    /// Pulling work with fewer sessions than wanted.
    Degraded,
    /// Waiting before the next try.
    BackingOff,
    /// Its PIN was refused: waits for an operator.
    Refused,
    /// Every thread of it is inside a call that does not return.
    Stuck,
}

impl MemberState {
    /// Every state, for gauges.
    pub const ALL: [MemberState; 7] = [
        MemberState::Probing,
        MemberState::Warming,
        MemberState::Serving,
        MemberState::Degraded,
        MemberState::BackingOff,
        MemberState::Refused,
        MemberState::Stuck,
    ];

    /// The label used in metrics, logs and `keyway status`.
    pub const fn label(self) -> &'static str {
        match self {
            MemberState::Probing => "probing",
            MemberState::Warming => "warming",
            MemberState::Serving => "serving",
            MemberState::Degraded => "degraded",
            MemberState::BackingOff => "backing_off",
            MemberState::Refused => "refused",
            MemberState::Stuck => "stuck",
        }
    }
}

/// One member, as it stands.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    /// The KMS library's name.
    pub library: String,
    /// The token: its label, or `slot N`.
    pub token: String,
    /// The token's serial number, once seen.
    pub serial: Option<String>,
    /// Where it stands.
    pub state: MemberState,
    /// Why, where it is not serving: one line for an operator, saying what to do.
    pub reason: Option<String>,
    /// Sessions open now.
    pub sessions: usize,
    /// Keys it has proven to hold.
    pub keys: usize,
}

/// The daemon's members.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// One entry a member, in the order they were made.
    pub members: Vec<MemberStatus>,
}
