//! What a client gets when a token is made for it, or renewed.

use std::collections::BTreeMap;

use super::Secret;

/// A token that holds an answer, and gives it out once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrapInfo {
    /// The token itself.
    pub token: Secret,
    /// Names it without being it.
    pub accessor: String,
    /// Seconds it lives.
    pub ttl: u64,
    /// When it was made, in Unix seconds.
    pub creation_time: u64,
    /// The path whose answer it holds.
    pub creation_path: String,
    /// The accessor of the token in that answer; empty if there is none.
    pub wrapped_accessor: String,
}

/// A token, and what is to be known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// The token itself; empty where only its bearer knows it.
    pub client_token: Secret,
    /// Names it without being it.
    pub accessor: String,
    /// The names of its policies.
    pub policies: Vec<String>,
    /// What its maker noted of it.
    pub metadata: BTreeMap<String, String>,
    /// Seconds it has left; 0 if it does not end.
    pub lease_duration: u64,
    /// Whether it may be renewed.
    pub renewable: bool,
    /// Whether no other token takes it along when it ends.
    pub orphan: bool,
    /// How often it may be used; 0 sets no limit.
    pub num_uses: u64,
}
