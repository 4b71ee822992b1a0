//! Everything that can go wrong for a client, as one closed type.

use std::borrow::Cow;
use std::time::Duration;

use super::Namespace;

/// Where a request was whose deadline passed while the service of its key did nothing for that key, for want of quota.
pub const QUEUED_BY_QUOTA: &str = "queued, since the service of its key throttles";

/// Where a request was whose deadline passed before any member had proven to hold its key: its token was coming up.
pub const QUEUED_UNPROVEN: &str = "queued, since its key's token is not up yet or is asked for the key";

/// Why a request has no [`super::Outcome`].
///
/// A fault says whose fault it is, whether a retry can help and under which label it is counted; each wire turns it into
/// its own answer in one place. It carries facts for an operator and never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A bounded queue is full. Tells only of the caller's own namespace.
    Overloaded {
        /// The tenant whose bound, or whose share of the lane's bound, is reached.
        namespace: Namespace,
        /// The bound.
        limit: usize,
        /// What it counts: `queued jobs`.
        unit: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// The deadline passed.
    DeadlineExceeded {
        /// Where the request was then: `queued`, `started`.
        stage: &'static str,
    },
    /// Keyway cannot do it now: starting, draining, storage refusing.
    Unavailable {
        /// What, and what to do.
        what: String,
    },
    /// No member that holds the key serves now.
    KeyUnavailable {
        /// The managed key.
        key: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The device answered with an error of its own.
    DeviceError {
        /// The call and its native code: `C_Sign: CKR_DEVICE_ERROR (0x30)`.
        what: String,
    },
    /// The device did not answer in time.
    DeviceStuck {
        /// The call.
        what: String,
    },
    /// The device refused our credentials; nobody tries again before they change.
    CredentialsRefused {
        /// Which token, why, and what to do.
        what: String,
    },
    /// The key found is not the key recorded.
    KeyMismatch {
        /// The managed key.
        key: String,
        /// What differs, and what to do.
        reason: String,
    },
    /// The verb has no meaning on this path (HTTP 405).
    UnsupportedOperation,
    /// Neither the key's kind nor its backend can do this.
    NotSupported {
        /// What cannot be done.
        what: String,
    },
    /// The request itself is wrong. The text is the answer clients see: Vault's own where Vault has one.
    InvalidRequest {
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// The key, or its service, says that a ciphertext is not its own, or was changed. No other trouble is told so: a client may
    /// take what it has for lost.
    NotDecrypted {
        /// In whose words.
        what: String,
    },
    /// A request body, frame or batch larger than its limit.
    TooLarge {
        /// What, and the limit.
        what: String,
    },
    /// The caller may not.
    PermissionDenied,
    /// What a request names, such as a token or the accessor of one, is not for its caller to name (HTTP 403).
    TokenRefused {
        /// Vault's word for it.
        reason: Cow<'static, str>,
    },
    /// There is no such thing.
    NotFound {
        /// What was not found; empty where Vault answers an empty list of errors.
        what: String,
    },
    /// A configured quota is used up.
    QuotaExceeded {
        /// Which.
        what: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// An administrator has locked the namespace, or one that it lies in.
    Locked {
        /// The one to be unlocked.
        namespace: Namespace,
    },
    /// No audit device has recorded it.
    Unrecorded {
        /// What each of them says.
        why: String,
        /// Whether it was done all the same, and only its answer is withheld.
        done: bool,
    },
    /// The barrier is closed.
    Sealed,
    /// Not initialised yet: `keyway operator init` comes first.
    NotInitialized,
    /// A state that cannot be. A bug of ours.
    Internal {
        /// What was found.
        what: String,
    },
}

/// The stable label of a fault, for metrics, logs and the framed wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultLabel {
    /// See [`Fault::Overloaded`].
    Overloaded,
    /// See [`Fault::DeadlineExceeded`].
    DeadlineExceeded,
    /// See [`Fault::Unavailable`].
    Unavailable,
    /// See [`Fault::KeyUnavailable`].
    KeyUnavailable,
    /// See [`Fault::DeviceError`].
    DeviceError,
    /// See [`Fault::DeviceStuck`].
    DeviceStuck,
    /// See [`Fault::CredentialsRefused`].
    CredentialsRefused,
    /// See [`Fault::KeyMismatch`].
    KeyMismatch,
    /// See [`Fault::NotSupported`].
    NotSupported,
    /// See [`Fault::InvalidRequest`].
    InvalidRequest,
    /// See [`Fault::PermissionDenied`].
    PermissionDenied,
    /// See [`Fault::NotFound`].
    NotFound,
    /// See [`Fault::QuotaExceeded`].
    QuotaExceeded,
    /// See [`Fault::Sealed`].
    Sealed,
    /// See [`Fault::Internal`].
    Internal,
}

impl FaultLabel {
    /// Every label.
    pub const ALL: [FaultLabel; 15] = [
        FaultLabel::Overloaded,
        FaultLabel::DeadlineExceeded,
        FaultLabel::Unavailable,
        FaultLabel::KeyUnavailable,
        FaultLabel::DeviceError,
        FaultLabel::DeviceStuck,
        FaultLabel::CredentialsRefused,
        FaultLabel::KeyMismatch,
        FaultLabel::NotSupported,
        FaultLabel::InvalidRequest,
        FaultLabel::PermissionDenied,
        FaultLabel::NotFound,
        FaultLabel::QuotaExceeded,
        FaultLabel::Sealed,
        FaultLabel::Internal,
    ];

    /// The label itself.
    pub const fn as_str(self) -> &'static str {
        match self {
            FaultLabel::Overloaded => "overloaded",
            FaultLabel::DeadlineExceeded => "deadline_exceeded",
            FaultLabel::Unavailable => "unavailable",
            FaultLabel::KeyUnavailable => "key_unavailable",
            FaultLabel::DeviceError => "device_error",
            FaultLabel::DeviceStuck => "device_stuck",
            FaultLabel::CredentialsRefused => "credentials_refused",
            FaultLabel::KeyMismatch => "key_mismatch",
            FaultLabel::NotSupported => "not_supported",
            FaultLabel::InvalidRequest => "invalid_request",
            FaultLabel::PermissionDenied => "permission_denied",
            FaultLabel::NotFound => "not_found",
            FaultLabel::QuotaExceeded => "quota_exceeded",
            FaultLabel::Sealed => "sealed",
            FaultLabel::Internal => "internal",
        }
    }
}

impl Fault {
    /// A request that is wrong, with the text the client sees.
    pub fn invalid(reason: impl Into<String>) -> Fault {
        Fault::InvalidRequest { reason: reason.into() }
    }

    /// A ciphertext that is not the key's.
    pub fn not_decrypted(what: impl Into<String>) -> Fault {
        Fault::NotDecrypted { what: what.into() }
    }

    /// A bug of ours.
    pub fn internal(what: impl Into<String>) -> Fault {
        Fault::Internal { what: what.into() }
    }

    /// Something absent, where Vault answers 404 with an empty list of errors.
    pub const fn absent() -> Fault {
        Fault::NotFound { what: String::new() }
    }

    /// The label it is counted under.
    pub const fn label(&self) -> FaultLabel {
        match self {
            Fault::Overloaded { .. } => FaultLabel::Overloaded,
            Fault::DeadlineExceeded { .. } => FaultLabel::DeadlineExceeded,
            Fault::Unavailable { .. } | Fault::Locked { .. } | Fault::Unrecorded { .. } => FaultLabel::Unavailable,
            Fault::KeyUnavailable { .. } => FaultLabel::KeyUnavailable,
            Fault::DeviceError { .. } => FaultLabel::DeviceError,
            Fault::DeviceStuck { .. } => FaultLabel::DeviceStuck,
            Fault::CredentialsRefused { .. } => FaultLabel::CredentialsRefused,
            Fault::KeyMismatch { .. } => FaultLabel::KeyMismatch,
            Fault::UnsupportedOperation | Fault::NotSupported { .. } => FaultLabel::NotSupported,
            Fault::InvalidRequest { .. } | Fault::NotDecrypted { .. } | Fault::TooLarge { .. } => {
                FaultLabel::InvalidRequest
            }
            Fault::PermissionDenied | Fault::TokenRefused { .. } => FaultLabel::PermissionDenied,
            Fault::NotFound { .. } => FaultLabel::NotFound,
            Fault::QuotaExceeded { .. } => FaultLabel::QuotaExceeded,
            Fault::Sealed | Fault::NotInitialized => FaultLabel::Sealed,
            Fault::Internal { .. } => FaultLabel::Internal,
        }
    }

    /// Whether the same request can succeed later, or elsewhere, unchanged.
    pub const fn retryable(&self) -> bool {
        if let Fault::Unrecorded { done: true, .. } = self {
            return false;
        }
        matches!(
            self.label(),
            FaultLabel::Overloaded
                | FaultLabel::DeadlineExceeded
                | FaultLabel::Unavailable
                | FaultLabel::KeyUnavailable
                | FaultLabel::DeviceError
                | FaultLabel::DeviceStuck
                | FaultLabel::QuotaExceeded
                | FaultLabel::Sealed
        )
    }

    /// Whether a job that ended so was refused or taken back before any device heard of it. Where this is false it may have
    /// been done.
    pub fn left_the_device_alone(&self) -> bool {
        matches!(
            self,
            Fault::Overloaded { .. }
                | Fault::DeadlineExceeded { stage: "queued" | QUEUED_BY_QUOTA | QUEUED_UNPROVEN | "arriving" }
        )
    }

    /// When to try again, where we know.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Fault::Overloaded { retry_after, .. } | Fault::QuotaExceeded { retry_after, .. } => Some(*retry_after),
            Fault::Unavailable { .. } => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

impl std::fmt::Display for Fault {
    /// One line for an operator or a client. No secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Overloaded { namespace, limit, unit, .. } => {
                write!(f, "overloaded: namespace {namespace} has reached its bound of {limit} {unit}; try again later")
            }
            Fault::DeadlineExceeded { stage } => write!(f, "deadline exceeded while the request was {stage}"),
            Fault::Unavailable { what } => write!(f, "unavailable: {what}"),
            Fault::KeyUnavailable { key, reason } => write!(f, "managed key {key:?} is unavailable: {reason}"),
            Fault::DeviceError { what } => write!(f, "device error: {what}"),
            Fault::DeviceStuck { what } => write!(f, "the device does not answer: {what}"),
            Fault::CredentialsRefused { what } => write!(f, "credentials refused: {what}"),
            Fault::KeyMismatch { key, reason } => write!(f, "managed key {key:?} is not the key recorded: {reason}"),
            Fault::UnsupportedOperation => f.write_str("unsupported operation"),
            Fault::NotSupported { what } => write!(f, "not supported: {what}"),
            Fault::InvalidRequest { reason } => f.write_str(reason),
            Fault::NotDecrypted { what } => f.write_str(what),
            Fault::TooLarge { what } => write!(f, "too large: {what}"),
            Fault::PermissionDenied => f.write_str("permission denied"),
            Fault::TokenRefused { reason } => f.write_str(reason),
            Fault::NotFound { what } if what.is_empty() => f.write_str("not found"),
            Fault::NotFound { what } => f.write_str(what),
            Fault::QuotaExceeded { what, .. } => write!(f, "quota exceeded: {what}"),
            Fault::Locked { namespace } => write!(
                f,
                "API access to this namespace has been locked by an administrator - {:?} must be unlocked to gain access.",
                namespace.as_str().trim_end_matches('/')
            ),
            Fault::Unrecorded { why, done: false } => {
                write!(f, "not recorded, and so not done: {why}; the operator has to mend an audit device")
            }
            Fault::Unrecorded { why, done: true } => write!(
                f,
                "done, but its answer is withheld, since it is not recorded: {why}; the operator has to mend an audit device"
            ),
            Fault::Sealed => f.write_str("Vault is sealed"),
            Fault::NotInitialized => f.write_str("Keyway is not initialized: run `keyway operator init`"),
            Fault::Internal { what } => write!(f, "internal error: {what}"),
        }
    }
}

impl std::error::Error for Fault {}
