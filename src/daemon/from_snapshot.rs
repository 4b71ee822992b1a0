//! A store made of a snapshot alone, while no daemon runs: what an operator does who has lost the machine.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use super::{Start, formats, open_seal};
use crate::config::{Config, Storage};
use crate::model::Fault;
use crate::store::Place;
use crate::telemetry::Telemetry;

/// Makes the store that the configuration names of the snapshot in `file`; answers how many records it has. Blocks for the
/// disk, and for the seal.
///
/// # Errors
/// There is a store already, the seal does not open this one, or it is not whole: then there is none afterwards. And where
/// root would make a file that the daemon's user cannot open.
pub fn make_store(config: &Config, file: &mut File, final_pin_try: bool) -> Result<u64, Fault> {
    check_user(&config.storage)?;
    let start = Start { final_pin_try, ..Start::default() };
    let telemetry = Telemetry::new();
    // No managed key is here to be kept from the seal's.
    let open_seal = |seal| open_seal(seal, config, &start, &Arc::default(), &telemetry);
    let former = config.former_seal.as_ref().map(open_seal).transpose()?;
    Place::new(&config.storage, open_seal(&config.seal)?).formerly(former).restore(file, formats::known)
}

/// Refuses to be root where the store's folder is another user's.
fn check_user(storage: &Storage) -> Result<(), Fault> {
    let Storage::Redb { path } = storage else { return Ok(()) };
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    let owner = folder.metadata().map_err(|error| Fault::Unavailable {
        what: format!("{}, the folder of the store: {error}; make it, for the user Keyway runs as", folder.display()),
    })?;
    if owner.uid() == 0 || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Fault::invalid(format!(
        "{} belongs to uid {}, and Keyway could not open what root makes there: do this as that user (sudo -u '#{}' …)",
        folder.display(),
        owner.uid(),
        owner.uid()
    )))
}
