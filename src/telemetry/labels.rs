//! The values labels may take.

use crate::model::{Body, FaultLabel, Operation, Verb};

/// What kind of operation was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationLabel {
    /// The hot operation sign.
    Sign,
    /// The hot operation verify.
    Verify,
    /// The hot operation encrypt.
    Encrypt,
    /// The hot operation decrypt.
    Decrypt,
    /// The hot operation MAC.
    Mac,
    /// The hot operation sign certificate.
    SignCertificate,
    /// The same for many requests at once.
    SignCertificates,
    /// A generic read.
    Read,
    /// A generic write.
    Write,
    /// A generic patch.
    Patch,
    /// A generic delete.
    Delete,
    /// A generic list.
    List,
}

impl OperationLabel {
    /// Every label.
    pub const ALL: [OperationLabel; 12] = [
        OperationLabel::Sign,
        OperationLabel::Verify,
        OperationLabel::Encrypt,
        OperationLabel::Decrypt,
        OperationLabel::Mac,
        OperationLabel::SignCertificate,
        OperationLabel::SignCertificates,
        OperationLabel::Read,
        OperationLabel::Write,
        OperationLabel::Patch,
        OperationLabel::Delete,
        OperationLabel::List,
    ];

    /// The label of an operation.
    pub fn of(operation: &Operation) -> OperationLabel {
        match &operation.body {
            Body::Sign(_) => OperationLabel::Sign,
            Body::Verify(_) => OperationLabel::Verify,
            Body::Encrypt(_) => OperationLabel::Encrypt,
            Body::Decrypt(_) => OperationLabel::Decrypt,
            Body::Mac(_) => OperationLabel::Mac,
            Body::SignCertificate(_) => OperationLabel::SignCertificate,
            Body::SignCertificates(_) => OperationLabel::SignCertificates,
            Body::Request(request) => match request.verb {
                Verb::Read => OperationLabel::Read,
                Verb::Write => OperationLabel::Write,
                Verb::Patch => OperationLabel::Patch,
                Verb::Delete => OperationLabel::Delete,
                Verb::List => OperationLabel::List,
            },
        }
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }

    /// Its text.
    pub const fn label(self) -> &'static str {
        match self {
            OperationLabel::Sign => "sign",
            OperationLabel::Verify => "verify",
            OperationLabel::Encrypt => "encrypt",
            OperationLabel::Decrypt => "decrypt",
            OperationLabel::Mac => "mac",
            OperationLabel::SignCertificate => "sign_certificate",
            OperationLabel::SignCertificates => "sign_certificates",
            OperationLabel::Read => "read",
            OperationLabel::Write => "write",
            OperationLabel::Patch => "patch",
            OperationLabel::Delete => "delete",
            OperationLabel::List => "list",
        }
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutcomeLabel {
    /// With an outcome.
    Ok,
    /// With a fault.
    Fault(FaultLabel),
}

impl OutcomeLabel {
    pub(super) const COUNT: usize = FaultLabel::ALL.len() + 1;

    pub(super) fn index(self) -> usize {
        match self {
            OutcomeLabel::Ok => 0,
            OutcomeLabel::Fault(label) => 1 + label as usize,
        }
    }

    /// Its text: `ok`, or the fault's label.
    pub const fn label(self) -> &'static str {
        match self {
            OutcomeLabel::Ok => "ok",
            OutcomeLabel::Fault(label) => label.as_str(),
        }
    }
}

/// How an OCSP request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OcspLabel {
    /// By a signature made for it.
    Signed,
    /// By one made before.
    Kept,
    /// It could not be read.
    Malformed,
    /// It asked for what is not answered for.
    Unauthorized,
    /// It was told to come later.
    TryLater,
    /// It failed.
    Failed,
}

impl OcspLabel {
    /// Every label.
    pub const ALL: [OcspLabel; 6] = [
        OcspLabel::Signed,
        OcspLabel::Kept,
        OcspLabel::Malformed,
        OcspLabel::Unauthorized,
        OcspLabel::TryLater,
        OcspLabel::Failed,
    ];

    /// Its text.
    pub const fn label(self) -> &'static str {
        match self {
            OcspLabel::Signed => "signed",
            OcspLabel::Kept => "kept",
            OcspLabel::Malformed => "malformed",
            OcspLabel::Unauthorized => "unauthorized",
            OcspLabel::TryLater => "try_later",
            OcspLabel::Failed => "failed",
        }
    }
}

/// How a tidying ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TidyLabel {
    /// It came to its end.
    Finished,
    /// It was told to stop, by a client or by the daemon's or the mount's end.
    Cancelled,
    /// It failed.
    Failed,
}

impl TidyLabel {
    /// Every label.
    pub const ALL: [TidyLabel; 3] = [TidyLabel::Finished, TidyLabel::Cancelled, TidyLabel::Failed];

    /// Its text.
    pub const fn label(self) -> &'static str {
        match self {
            TidyLabel::Finished => "finished",
            TidyLabel::Cancelled => "cancelled",
            TidyLabel::Failed => "failed",
        }
    }
}

/// Why a connection was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The daemon's bound on open connections.
    Connections,
    /// The bound on one uid's.
    PerUid,
    /// The listener does not allow this uid or gid.
    Peer,
    /// The kernel has no file descriptor left for it.
    Descriptors,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Refusal; 4] = [Refusal::Connections, Refusal::PerUid, Refusal::Peer, Refusal::Descriptors];

    /// Its text.
    pub const fn label(self) -> &'static str {
        match self {
            Refusal::Connections => "connections",
            Refusal::PerUid => "connections_per_uid",
            Refusal::Peer => "peer",
            Refusal::Descriptors => "descriptors",
        }
    }
}

/// The type of an audit device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuditLabel {
    /// A file.
    File,
    /// A socket.
    Socket,
    /// The local log.
    Syslog,
}

impl AuditLabel {
    /// Every type.
    pub const ALL: [AuditLabel; 3] = [AuditLabel::File, AuditLabel::Socket, AuditLabel::Syslog];

    /// Its text.
    pub const fn label(self) -> &'static str {
        match self {
            AuditLabel::File => "file",
            AuditLabel::Socket => "socket",
            AuditLabel::Syslog => "syslog",
        }
    }
}

/// What became of a login call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoginLabel {
    /// Logged in.
    Ok,
    /// The token refused the PIN, or is locked: it is not asked again.
    Refused,
    /// Another error.
    Failed,
}

impl LoginLabel {
    /// Every one.
    pub const ALL: [LoginLabel; 3] = [LoginLabel::Ok, LoginLabel::Refused, LoginLabel::Failed];

    /// Its text.
    pub const fn label(self) -> &'static str {
        match self {
            LoginLabel::Ok => "ok",
            LoginLabel::Refused => "refused",
            LoginLabel::Failed => "failed",
        }
    }
}
