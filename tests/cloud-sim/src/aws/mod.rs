//! (This folder is another's; until it is there, nothing is offered.)

use clap::Args;

use crate::control::Control;
use crate::server::{Orders, Refusal, Request, Response, Service, Subject, json};

/// Names for the server's certificate.
pub(crate) const NAMES: &[&str] = &[];

#[derive(Debug, Args)]
pub(crate) struct Options {}

pub(crate) struct Aws {}

impl Aws {
    pub(crate) fn new(_options: &Options, _url: &str) -> Result<Aws, String> {
        Err("not there yet".into())
    }
}

impl Service for Aws {
    const CLOUD: &'static str = "aws";

    fn subject(&self, _request: &Request) -> Subject {
        Subject::default()
    }

    async fn serve(&self, _: Request, _: &Subject, _: Orders, _: &Control) -> Response {
        json(501, &serde_json::json!({}))
    }

    fn refuse(&self, _: &Subject, _: &Refusal) -> Response {
        json(501, &serde_json::json!({}))
    }
}
