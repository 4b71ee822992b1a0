//! `operator init`.

use std::process::ExitCode;

use super::args::{Connection, Format};
use super::{Failure, output, runtime};
use crate::cli::output::say;
use crate::model::{Data, Verb};

pub(super) fn init(connect: &Connection, format: Format) -> Result<ExitCode, Failure> {
    let mut http = connect.http()?;
    // It is done once for the whole daemon, whatever namespace is worked in.
    http.namespace = None;
    let body = runtime()?.block_on(http.request(Verb::Write, "sys/init", &Data::new()))?.success()?.json();
    if format == Format::Json {
        output::print(format, &body)?;
        return Ok(ExitCode::SUCCESS);
    }
    say!("Root token: {}", output::plain(&body["root_token"]));
    say!("");
    say!(
        "Keep it safe: it is shown this once, and kept nowhere. The seal opens by itself at every start: back its key"
    );
    say!("file up, apart from the store's file. Go on with: export VAULT_TOKEN=<the token above>");
    Ok(ExitCode::SUCCESS)
}
