//! Who is asking.

use std::sync::Arc;

/// The kernel's word on the process at the other end of a Unix socket, taken when it connected (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Process id, where the kernel tells it.
    pub pid: Option<i32>,
}

/// What else the kernel said of that process when it connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Its supplementary groups, sorted; none where the kernel does not tell.
    pub groups: Vec<u32>,
    /// The systemd unit it ran in.
    pub unit: Unit,
}

/// The systemd unit of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Unit {
    /// A unit of the system, by its whole name: `backup.service`.
    Named(String),
    /// None of the system's: a user's session, say.
    Other,
    /// The kernel does not tell: it is older than Linux 6.5, `/proc` hides the process, or it had ended.
    #[default]
    Untold,
}

impl Unit {
    /// The unit's name, if it is one of the system's.
    pub fn name(&self) -> Option<&str> {
        match self {
            Unit::Named(name) => Some(name),
            Unit::Other | Unit::Untold => None,
        }
    }
}

/// The wire a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// Vault's HTTP API.
    Http,
    /// The framed API.
    Framed,
}

impl Wire {
    /// The label used in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Wire::Http => "http",
            Wire::Framed => "framed",
        }
    }
}

/// The keyed hash of a token, under a key of this daemon. It finds the token's entry and tells nothing else; it is not
/// a proof that such a token exists.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub [u8; 32]);

impl std::fmt::Debug for TokenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenId({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// One asker, as far as it has said who it is. Whether its token is (still) good is judged at each request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The process, by the kernel's word.
    pub peer: PeerCredentials,
    /// More of the kernel's word on it.
    pub origin: Arc<Origin>,
    /// The token it presented, if any.
    pub token: Option<TokenId>,
    /// Whether its process counts for itself where it shows no token: the listener's `implicit_auth`.
    pub implicit: bool,
    /// The wire it uses.
    pub wire: Wire,
}

impl Caller {
    /// A caller who has shown no token, and of whose process no more is known.
    pub fn new(peer: PeerCredentials, wire: Wire) -> Caller {
        Caller { peer, origin: Arc::default(), token: None, implicit: false, wire }
    }
}
