//! What can be seen of the daemon's members and configuration from outside.

use std::time::SystemTime;

use super::{Fault, Namespace};

/// Where a member stands: one slot of an HSM, in this process or in one worker process.
///
/// ```text
///              up          first session         all sessions
///   probing ────────► warming ────────────────────────────► serving
///    ▲   │               │                        ▲    │  ▲    │
///    │   │ not there     │ cannot be logged in    │    │  │    │ a session is refused,
///    │   ▼               ▼                        │    ▼  │    ▼ or does not return
///    │  backing off ◄────┴──── lost, broken ──────┴── degraded ────► stuck
///    │   │                                                             │ process ended, or calls return
///    └───┴─────────────────────────────────────────────────────────────┘
///
///   refused ◄── from everywhere: its PIN is refused, or a signature of it is wrong.
///               Left only when an operator gives another PIN, has its library configured anew, or restarts.
/// ```
///
/// Lost logins and modules bring a member from serving to backing off and at once to probing: its jobs wait for it during some quick
/// tries. When those have failed, the jobs are answered, and the next try comes after a pause that doubles. Who did much since it came
/// up is given quick tries again. One degraded since the token had no room for a session asks for it again in a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// Looking for its library and token.
    Probing,
    /// Logged in, opening sessions and proving keys; the first sessions pull work already.
    Warming,
    /// Pulling work.
    Serving,
    /// Pulling work with fewer sessions than wanted.
    Degraded,
    /// Waiting before the next try.
    BackingOff,
    /// Its PIN or one of its signatures was refused: waits for an operator.
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
    /// The pool it is in; its own name where it is alone.
    pub pool: String,
    /// The KMS library's name.
    pub library: String,
    /// The token: its label, `serial N` or `slot N`.
    pub token: String,
    /// Which worker process of the token, from 1; 0 where the library is loaded in the daemon.
    pub worker: u32,
    /// The token's serial number, once seen.
    pub serial: Option<String>,
    /// Where it stands.
    pub state: MemberState,
    /// Why, where it is not serving, saying what to do.
    pub reason: Option<Fault>,
    /// Sessions open now.
    pub sessions: usize,
    /// Keys it has proven to hold.
    pub keys: usize,
}

/// How far a managed key is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySetStatus {
    /// The namespace it is bound to.
    pub namespace: Namespace,
    /// Its name.
    pub key: String,
    /// Members that are to hold it.
    pub members: usize,
    /// Those of them that have proven to.
    pub holders: usize,
}

/// The daemon's members, or those that concern a namespace.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// One entry a member, in the order they were made.
    pub members: Vec<MemberStatus>,
    /// The names of KMS libraries and pools.
    pub libraries: Vec<String>,
    /// One entry for each managed key that was used, in no order.
    pub key_sets: Vec<KeySetStatus>,
}

/// The configuration in force, and the file it was read from.
#[derive(Clone, Debug)]
pub struct ConfigurationStatus {
    /// When it was read.
    pub loaded: SystemTime,
    /// Whether the file was refused when it was read again since.
    pub refused: bool,
    /// What of the file is not in force until a restart, a line each.
    pub needs_restart: Vec<String>,
}
