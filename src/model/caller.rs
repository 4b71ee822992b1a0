//! Who is asking.

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
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The process, by the kernel's word.
    pub peer: PeerCredentials,
    /// The token it presented, if any.
    pub token: Option<TokenId>,
    /// The wire it uses.
    pub wire: Wire,
}
