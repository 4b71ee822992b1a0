//! cloud-sim: the key services of three clouds for tests, whose quotas, times and faults are steered while they are in use.
//!
//! ```sh
//! cloud-sim azure --tls /tmp/ca.pem --name '*.vault.azure.net'
//! # {"control":"http://127.0.0.1:41213","url":"https://127.0.0.1:36107"}
//! curl http://127.0.0.1:41213/            # how to steer it
//! ```
//!
//! One process is one cloud. A request comes in through `server`, which asks `control` what is to happen to it: whether a
//! quota forbids it, how long it takes, which faults it meets. What is left of it goes to a [`Service`](server::Service),
//! one per cloud. Those know the cloud's paths, words and errors, and nothing of faults, quotas and time. `keys` has the
//! cryptography, which is real; it knows no cloud.
//!
//! It is for whoever writes a program that uses such keys and wants to see, in a test, that it survives bad days. It knows
//! nothing of that program.

mod arguments;
mod aws;
mod azure;
mod control;
mod counts;
mod faults;
mod google;
mod keys;
mod line;
mod quota;
mod server;
mod tls;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::arguments::{Arguments, Cloud, Common};
use crate::control::Control;
use crate::server::{Service, Site};
use crate::tls::Tls;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("cloud-sim: {error}");
    ExitCode::FAILURE
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let common = arguments.common;
    match arguments.cloud {
        Cloud::Azure(options) => offer(&common, azure::NAMES, |url| azure::Azure::new(&options, url)).await,
        Cloud::Google(options) => offer(&common, google::NAMES, |url| google::Google::new(&options, url)).await,
        Cloud::Aws(options) => offer(&common, aws::NAMES, |url| aws::Aws::new(&options, url)).await,
    }
}

/// Serves a cloud until it is told to stop. The service is made when the address it has is known.
async fn offer<S: Service>(
    common: &Common,
    names: &[&str],
    make: impl FnOnce(&str) -> Result<S, String>,
) -> Result<(), String> {
    let listener = bind(&common.listen).await?;
    let steering = bind(&common.control).await?;
    let tls = match &common.tls {
        Some(file) => Some(Tls::new(file, names.iter().copied().chain(common.names.iter().map(String::as_str)))?),
        None => None,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", address(&listener)?);
    let control = Arc::new(Control::new(S::CLOUD));
    let site = Arc::new(Site::new(make(&url)?, Arc::clone(&control), tls));
    announce(&serde_json::json!({"url": url, "control": format!("http://{}", address(&steering)?)}))?;

    let (stop, stopped) = watch::channel(false);
    let serving = server::serve(listener, site, stopped.clone());
    let steered = control::serve(steering, control, stopped);
    let ending = async {
        told_to_stop(common.until_stdin_closes).await;
        // Both servers may have failed and gone.
        let _ = stop.send(true);
    };
    tokio::join!(serving, steered, ending);
    Ok(())
}

async fn bind(address: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("{address} cannot be listened on: {error}"))
}

fn address(listener: &TcpListener) -> Result<std::net::SocketAddr, String> {
    listener.local_addr().map_err(|error| error.to_string())
}

/// One line, for whoever started this.
fn announce(line: &serde_json::Value) -> Result<(), String> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| error.to_string())
}

/// Waits for SIGTERM or SIGINT, or for the end of the standard input if that is to be the end.
async fn told_to_stop(until_stdin_closes: bool) {
    let (closed, mut stdin) = watch::channel(false);
    // A thread, since a read of a terminal cannot be given up. It keeps its end, so that nothing comes from it before.
    std::thread::spawn(move || {
        if until_stdin_closes {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = closed.send(true);
        }
    });
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = stdin.changed(), if until_stdin_closes => {}
    }
}
