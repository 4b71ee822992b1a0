//! The Rust client of both wires: the CLI and the benches use it, and other programs can.
//!
//! [`Http`] asks one thing at a time and sees what any Vault client sees. [`Framed`] keeps many calls in flight on one
//! connection. This room must not know the daemon: only its wires.

mod framed;
mod http;

use std::path::PathBuf;

pub use framed::{Framed, Identity};
pub use http::{Answer, Http};

use crate::model::Fault;

/// Why a call came to nothing. Each says in one line what to do.
#[derive(Debug)]
pub enum ClientError {
    /// The address is not one of a Unix socket.
    Address {
        /// What was given.
        address: String,
    },
    /// The socket cannot be reached.
    Connect {
        /// Its path.
        path: PathBuf,
        /// The system's word.
        error: std::io::Error,
    },
    /// The connection broke in the middle.
    Broken {
        /// What was seen.
        what: String,
    },
    /// The daemon answered with a fault.
    Refused {
        /// The fault's label, or HTTP's status.
        label: String,
        /// What it said.
        message: String,
        /// Whether the same call can succeed later.
        retryable: bool,
    },
}

impl std::fmt::Display for ClientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ClientError::Address { address } => {
                write!(f, "{address:?} is no address of Keyway: use unix:///path/of/the.sock")
            }
            ClientError::Connect { path, error } => {
                let advice = match error.kind() {
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                        "is the daemon running, and is this its address?"
                    }
                    std::io::ErrorKind::PermissionDenied => "the socket's mode or owner does not let this user in",
                    _ => "see the daemon's log",
                };
                write!(f, "cannot connect to {}: {error}; {advice}", path.display())
            }
            ClientError::Broken { what } => write!(f, "the connection broke: {what}; see the daemon's log"),
            ClientError::Refused { label, message, .. } => write!(f, "{message} ({label})"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<Fault> for ClientError {
    fn from(fault: Fault) -> ClientError {
        ClientError::Refused {
            label: fault.label().as_str().to_owned(),
            message: fault.to_string(),
            retryable: fault.retryable(),
        }
    }
}

/// The socket's path in an address such as `unix:///run/keyway/keyway.sock`, or a bare absolute path.
pub fn socket_path(address: &str) -> Result<PathBuf, ClientError> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    if path.starts_with('/') {
        Ok(PathBuf::from(path))
    } else {
        Err(ClientError::Address { address: address.to_owned() })
    }
}
