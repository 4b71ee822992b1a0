//! `sign`: a file, with a Transit key, over the framed wire.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use super::args::{Connection, SignArgs};
use super::{Failure, output, runtime};
use crate::wire::proto;

pub(super) fn run(connect: &Connection, args: &SignArgs) -> Result<ExitCode, Failure> {
    let input = read(&args.input)?;
    let signature = runtime()?.block_on(async {
        let client = connect.framed(proto::Class::Interactive).await?;
        let sign = proto::Sign {
            mount: args.mount.clone(),
            key: args.key.clone(),
            input: input.into(),
            ..proto::Sign::default()
        };
        Ok::<_, Failure>(client.sign(sign).await?)
    })?;
    if args.output == Path::new("-") {
        output::bytes(&signature.signature)?;
    } else {
        std::fs::write(&args.output, &signature.signature)
            .map_err(|error| Failure::new(format!("{}: {error}", args.output.display())))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    std::fs::read(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}
