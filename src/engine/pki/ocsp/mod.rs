//! OCSP: what anyone may ask about a certificate, and what the issuer's key says of it (RFC 6960).

mod request;
mod response;
#[cfg(test)]
mod tests;

pub(super) use request::{BYTES_MAX, Request};
pub(super) use response::{Refusal, Status, Unsigned};
