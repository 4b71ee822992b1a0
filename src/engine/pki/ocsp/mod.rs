//! OCSP: what anyone may ask about a certificate, and what the issuer's key says of it (RFC 6960).

mod cache;
mod request;
mod responder;
mod response;
#[cfg(test)]
mod tests;

pub(super) use request::{CertId, Request};
pub(super) use responder::{CONTENT_TYPE, Responder, Responders};
pub(super) use response::{Refusal, Status, Unsigned};
