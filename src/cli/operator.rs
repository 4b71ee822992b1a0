//! `operator`: what is done once, or to the daemon as a whole, whatever namespace is worked in.

use std::process::ExitCode;
use std::time::Duration;

use super::args::{Connection, Format};
use super::{Failure, output, runtime};
use crate::cli::output::say;
use crate::client::Answer;
use crate::model::{Data, Verb};

/// How long sealing and unsealing may take: requests and tokens are waited for.
const PATIENCE: Duration = Duration::from_secs(60);

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
    say!(
        "up, be it a file or in an HSM, apart from the store's file. Go on with: export VAULT_TOKEN=<the token above>"
    );
    Ok(ExitCode::SUCCESS)
}

pub(super) fn seal(connect: &Connection) -> Result<ExitCode, Failure> {
    write(connect, "sys/seal")?.success()?;
    say!("Sealed: the keys are wiped from memory. Go on with: keyway operator unseal");
    Ok(ExitCode::SUCCESS)
}

pub(super) fn unseal(connect: &Connection, format: Format) -> Result<ExitCode, Failure> {
    let body = write(connect, "sys/unseal")?.success()?.json();
    if format == Format::Json {
        output::print(format, &body)?;
    } else {
        say!("Unsealed by its seal of type {}", output::plain(&body["type"]));
    }
    Ok(ExitCode::SUCCESS)
}

fn write(connect: &Connection, path: &str) -> Result<Answer, Failure> {
    let mut http = connect.http()?;
    http.namespace = None;
    http.deadline = Some(PATIENCE);
    Ok(runtime()?.block_on(http.request(Verb::Write, path, &Data::new()))?)
}
