//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{aws, azure, google};

/// The key services of three clouds, for tests: real cryptography, and quotas, times and faults that are steered from outside.
#[derive(Debug, Parser)]
#[command(name = "cloud-sim")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) cloud: Cloud,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cloud {
    /// Azure Key Vault and Azure Managed HSM.
    Azure(azure::Options),
    /// Google Cloud KMS.
    Google(google::Options),
    /// AWS KMS: faults and quotas in front of another emulator, or answers without work.
    Aws(aws::Options),
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Where to listen; port 0 is a free one. The line that is printed says which.
    #[arg(long, global = true, default_value = "127.0.0.1:0")]
    pub(crate) listen: String,
    /// Where to be steered, with plain HTTP.
    #[arg(long, global = true, default_value = "127.0.0.1:0")]
    pub(crate) control: String,
    /// Speak TLS, and write the certificate that clients must trust to this file, as PEM.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) tls: Option<PathBuf>,
    /// One more name or address for the server's certificate; wildcards as well.
    #[arg(long = "name", global = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// End when the standard input is closed, and so with the process that started this.
    #[arg(long, global = true)]
    pub(crate) until_stdin_closes: bool,
}
