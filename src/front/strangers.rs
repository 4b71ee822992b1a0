//! What the HTTP wire reads of strangers' bytes itself, to be had without a socket: for those who try it with bytes of any
//! kind. Heads are hyper's to read.

use super::weight::Scales;
use super::{http, path};
use crate::model::{Data, Fault};

/// A body, weighed and read.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    /// Whether it was taken for a form.
    pub is_form: bool,
    /// How many values it was found to have before it was read.
    pub values: usize,
    /// How much memory it was found to take once it is read, in bytes.
    pub bytes: usize,
    /// What it says, if it can be read.
    pub data: Result<Data, Fault>,
}

/// The path below `/v1/` of a request's target, decoded; `None` if it is elsewhere.
pub fn read_path(target: &str) -> Result<Option<String>, Fault> {
    path::below_v1(target)
}

/// The parameters of a query.
pub fn read_query(query: &str) -> Result<Data, Fault> {
    http::parameters(Some(query))
}

/// A body that arrives in these pieces, and whose media type may be a form's.
pub fn read_body(pieces: &[&[u8]], may_be_form: bool) -> Body {
    let mut scales = Scales::new(may_be_form);
    pieces.iter().for_each(|piece| scales.add(piece));
    let is_form = scales.is_form();
    let data = http::parse_body(&pieces.concat(), is_form);
    Body { is_form, values: scales.values(), bytes: scales.bytes(), data }
}
