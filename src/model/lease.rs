//! Leases: what a client was given for a time, and may give back before that.

/// A lease, as it stands beside what was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What it is named by: a path, below that of its mount.
    pub id: String,
    /// For how long, in seconds, when it was given. It is never renewed.
    pub duration: u64,
}

/// What is asked about leases, by a path below a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseRequest {
    /// What is known of the one with this path.
    Lookup(String),
    /// The names right below this path; empty for the mount.
    List(String),
    /// End the one with this path.
    Revoke(String),
    /// End all below this path; empty for the mount.
    RevokeBelow(String),
}
