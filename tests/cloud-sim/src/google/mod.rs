//! (This folder is another's; until it is there, nothing is offered.)

use clap::Args;

use crate::control::Control;
use crate::server::{Orders, Refusal, Request, Response, Service, Subject, json};

/// Names for the server's certificate.
pub(crate) const NAMES: &[&str] = &[];

#[derive(Debug, Args)]
pub(crate) struct Options {}

pub(crate) struct Google {}

impl Google {
    pub(crate) fn new(_options: &Options, _url: &str) -> Result<Google, String> {
        Err("not there yet".into())
    }
}

impl Service for Google {
    const CLOUD: &'static str = "google";

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
