//! The nouns every other room speaks in: what is asked ([`Operation`]), what is answered ([`Outcome`]), what can go
//! wrong ([`Fault`]), and the words for keys, callers, mounts and time limits between them.
//!
//! This room must not know: any wire, any store, any backend, any runtime. It does no I/O and reads no clock except
//! through [`Deadline`].

mod algorithm;
mod auth;
mod caller;
mod class;
mod cloud;
mod deadline;
mod dice;
mod each_second;
pub mod endpoint;
mod fault;
mod fields;
pub(crate) mod held;
mod job;
mod key;
mod lease;
mod mount;
mod namespace;
mod operation;
mod outcome;
pub mod part;
#[cfg(test)]
pub(crate) mod recorder;
mod request_id;
pub(crate) mod schedule;
#[cfg(test)]
mod schedule_tests;
mod secret;
mod shards;
mod status;
mod stream;
mod tally;
mod token;
mod under_way;

pub use algorithm::{CipherScheme, Curve, Hash, KeyKind, Marshaling, MlDsa, RsaPadding, SaltLength, SignatureScheme};
pub use auth::{Auth, WrapInfo};
pub use caller::{Caller, Origin, PeerCredentials, TokenId, Unit, Wire};
pub use class::Class;
pub use cloud::{
    ARN, CloudCredentials, CloudKey, CloudKind, CloudPlace, CloudService, CloudSigning, CloudUse, aws_region,
    each_once, google_account,
};
pub use deadline::Deadline;
pub(crate) use dice::Dice;
pub use each_second::EachSecond;
pub use endpoint::{AnswerKind, Endpoint, EngineType, Field, FieldDefault, FieldKind};
pub use fault::{Fault, FaultLabel, QUEUED_BY_QUOTA, QUEUED_UNPROVEN};
pub use fields::{Fields, parse_duration};
pub use job::{
    BLOCK_BYTES, CHECK_ASSOCIATED_DATA, Cipher, Digest, ENVELOPE_ASSOCIATED_DATA, GCM_IV_BYTES, GCM_TAG_BYTES,
    KeyOperation, SignInput, Terms, is_own_associated_data,
};
pub use key::{CheckMethod, CheckValue, KeyIdentity, KeyUsage, KeyUsages, PublicKey};
pub use lease::{Lease, LeaseRequest};
pub use mount::{IF_MODIFIED_SINCE, LAST_MODIFIED, Listing, Mount, MountConfig};
pub use namespace::{NAMESPACE_BYTES, Namespace};
pub use operation::{
    Body, Capability, CertificateRequest, CertificatesRequest, Data, DecryptRequest, EncryptRequest, MacRequest,
    Operation, Request, SignRequest, Verb, VerifyRequest,
};
pub use outcome::{IssuedCertificate, Outcome, Response};
pub use request_id::RequestId;
pub use secret::{Secret, SecretBytes, WipedBuffer, wiped};
pub use shards::Shards;
pub use status::{ConfigurationStatus, KeySetStatus, MemberState, MemberStatus, Status};
pub use stream::{Download, Ending, FileBody, Intake, Upload};
pub use tally::Tally;
pub use token::TokenSelector;
pub use under_way::{Begun, UnderWay};
