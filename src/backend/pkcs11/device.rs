//! One slot with a token in it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cryptoki::session::{Session as NativeSession, UserType};
use cryptoki::slot::{Limit, Slot, TokenInfo};
use cryptoki::types::RawAuthPin;
use parking_lot::Mutex;

use super::client::{Initialized, Module};
use super::fault::{self, Function};
use super::session::Pkcs11Session;
use crate::backend::{BackendError, Device, DeviceInfo, Fate, PinFlags, Session};
use crate::config::Profile;
use crate::model::{Fault, Secret, TokenSelector};

pub(super) struct Pkcs11Device {
    // The session before the module: it is closed first.
    anchor: Mutex<Option<NativeSession>>,
    module: Arc<Initialized>,
    slot: Slot,
    info: DeviceInfo,
    profile: Profile,
}

/// Opens the token; initialises the module anew where that may bring the token, if nothing of the module is in use.
pub(super) fn open(
    module: &Arc<Module>,
    token: &TokenSelector,
    configured: Option<Profile>,
) -> Result<Box<dyn Device>, BackendError> {
    let mut initialized = module.initialized(configured.unwrap_or_default())?;
    let profile = configured.unwrap_or_else(|| detect(&initialized));
    let mut found = find_token(&initialized, token, profile);
    if initialized.outdated.load(Ordering::Relaxed) || is_missing(&found) {
        module.initialize_anew(initialized, profile)?;
        initialized = module.initialized(profile)?;
        found = find_token(&initialized, token, profile);
    }
    let Some((slot, info)) = found? else {
        let what = format!(
            "token {token} is not there ({}); insert or initialise it, or correct token_label or slot",
            module.path().display()
        );
        return Err(BackendError::new(Fate::BackOff, Fault::Unavailable { what }));
    };
    let info = device_info(&info, profile);
    Ok(Box::new(Pkcs11Device { anchor: Mutex::default(), module: initialized, slot, info, profile }))
}

type Found = Result<Option<(Slot, TokenInfo)>, BackendError>;

/// Whether another initialisation may help: the module has read its tokens before this one came, or was finalised by
/// other hands.
fn is_missing(found: &Found) -> bool {
    match found {
        Ok(found) => found.is_none(),
        Err(error) => error.fate == Fate::Reinitialize,
    }
}

fn find_token(module: &Initialized, token: &TokenSelector, profile: Profile) -> Found {
    let slots = module
        .context
        .get_slots_with_token()
        .map_err(|error| fault::from_cryptoki(profile, Function::GetSlotList, &error))?;
    // A token whose information cannot be read is not the one: some modules answer nonsense for some slots.
    let readable = slots.into_iter().filter_map(|slot| Some((slot, module.context.get_token_info(slot).ok()?)));
    let mut matching: Vec<(Slot, TokenInfo)> = readable
        .filter(|(slot, info)| match token {
            TokenSelector::Slot(number) => slot.id() == *number,
            TokenSelector::Label(label) => info.label() == label && info.token_initialized(),
            TokenSelector::Serial(serial) => info.serial_number() == serial && info.token_initialized(),
        })
        .collect();
    if matching.len() > 1 {
        let serials: Vec<&str> = matching.iter().map(|(_, info)| info.serial_number()).collect();
        let what = format!("token {token} is ambiguous: serials {}; name it by its serial", serials.join(", "));
        return Err(BackendError::new(Fate::BackOff, Fault::Unavailable { what }));
    }
    Ok(matching.pop())
}

/// The profile the module's own words speak for.
fn detect(module: &Initialized) -> Profile {
    let said = module.context.get_library_info();
    said.map(|said| Profile::detect(said.manufacturer_id(), said.library_description())).unwrap_or_default()
}

fn device_info(info: &TokenInfo, profile: Profile) -> DeviceInfo {
    let limit = |limit| match limit {
        Limit::Max(most) if most > 0 => usize::try_from(most).ok(),
        _ => None,
    };
    let max_sessions = match (limit(info.max_session_count()), limit(info.max_rw_session_count())) {
        (Some(all), Some(rw)) => Some(all.min(rw)),
        (one, other) => one.or(other),
    };
    let (serial, label) = (info.serial_number().to_owned(), info.label().to_owned());
    DeviceInfo { serial, label, max_sessions, profile }
}

impl Pkcs11Device {
    /// Every session is a read/write session: keys are generated in them, and some HSMs (AWS CloudHSM) have no others.
    fn native_session(&self) -> Result<NativeSession, BackendError> {
        self.module
            .context
            .open_rw_session(self.slot)
            .map_err(|error| fault::from_cryptoki(self.profile, Function::OpenSession, &error))
    }
}

impl Device for Pkcs11Device {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn pin_flags(&self) -> Result<PinFlags, BackendError> {
        let info = self
            .module
            .context
            .get_token_info(self.slot)
            .map_err(|error| fault::from_cryptoki(self.profile, Function::GetTokenInfo, &error))?;
        Ok(PinFlags { final_try: info.user_pin_final_try(), locked: info.user_pin_locked() })
    }

    fn login(&self, pin: &Secret) -> Result<(), BackendError> {
        use cryptoki::error::{Error, RvError};
        let mut anchor = self.anchor.lock();
        let session = self.native_session()?;
        let pin = RawAuthPin::new(Box::new(pin.expose().to_vec()));
        match session.login_with_raw(UserType::User, &pin) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                *anchor = Some(session);
                Ok(())
            }
            Err(error) => {
                // SoftHSM goes on saying so when the PIN has been set by another process.
                let unset = matches!(error, Error::Pkcs11(RvError::UserPinNotInitialized, _));
                self.module.outdated.fetch_or(unset, Ordering::Relaxed);
                Err(fault::from_login(self.profile, &self.info, &error))
            }
        }
    }

    fn open_session(&self) -> Result<Box<dyn Session>, BackendError> {
        let native = self.native_session()?;
        Ok(Box::new(Pkcs11Session::new(native, Arc::clone(&self.module), self.profile)))
    }
}
