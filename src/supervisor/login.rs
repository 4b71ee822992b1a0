//! Logging in, as the control thread of a member does it: at most one native call for a PIN, and none where it is known what
//! would come of it.

use super::control::{Control, Reach};
use super::pins::{Login, Standing};
use super::route::{KeySpec, MemberId};
use super::same_token::{Name, Rival};
use crate::backend::{BackendError, Device, DeviceInfo, Fate};
use crate::model::{Fault, Secret};
use crate::telemetry::LoginLabel;

/// What logging in comes to, where nothing failed.
pub(super) enum LoggedIn {
    /// Logged in; and members that are so by another name are to hand their keys over.
    As(Login, Option<MemberId>),
    /// Members of another name are to have the keys.
    Known(MemberId),
}

impl Control {
    /// One native call at the most. Members of one token, in whatever process, come one after the other (the caller has the
    /// turn), so that a PIN one of them had refused is not tried by the next.
    pub(super) fn log_in(
        &self,
        device: &dyn Device,
        info: &DeviceInfo,
        pin: &Secret,
        cause: Option<&'static str>,
    ) -> Result<LoggedIn, BackendError> {
        let Reach { name: Name { library, .. }, process, pins, logins, .. } = &self.to;
        let hash = pins.hash(&info.serial, pin).map_err(back_off)?;
        let guest = match self.rival(info)? {
            Rival::Host(host) => return Ok(LoggedIn::Known(host)),
            Rival::Guest(guest) => Some(guest),
            Rival::None | Rival::Twice(_) => None,
        };
        match logins.standing(library, *process, &info.serial, &hash) {
            Standing::Same(login) => return Ok(LoggedIn::As(login, guest)),
            Standing::Other => {
                return Err(refused(info, "it is logged in with another PIN; give every key of it the same PIN"));
            }
            Standing::Nobody => {}
        }
        if logins.refused(&info.serial, &hash) || pins.refused(&info.serial, &hash).map_err(back_off)? {
            return Err(refused(info, "it refused this PIN before and is not asked again; configure another PIN"));
        }
        if logins.in_doubt(&info.serial, &hash) {
            let why = "logins with this PIN came to no answer twice, and the token may count them; log in once with the \
                       vendor's tool, then restart";
            return Err(refused(info, why));
        }
        let flags = device.pin_flags()?;
        if flags.locked {
            return Err(refused(info, "its user PIN is locked; have the security officer reset it"));
        }
        if flags.final_try && !self.to.final_pin_try {
            let why = "it allows one last try before it locks; log in once with the vendor's tool and the right PIN, or \
                       restart with -force-final-pin-try if the PIN configured is right";
            return Err(refused(info, why));
        }
        let result = device.login(pin);
        let said = match &result {
            Ok(()) => LoginLabel::Ok,
            Err(error) if error.fate == Fate::Retire => LoginLabel::Refused,
            Err(_) => LoginLabel::Failed,
        };
        self.to.metrics.login(cause, said);
        match result {
            Ok(()) => Ok(LoggedIn::As(logins.enter(library, *process, &info.serial, hash), guest)),
            Err(error) => {
                if matches!(error.cause, "worker_died" | "CKR_VENDOR_DEFINED" | "unreadable_answer") {
                    logins.doubt(&info.serial, hash);
                }
                // A locked or expired PIN may be the right one again, when the security officer has seen to it.
                let wrong = !matches!(error.cause, "CKR_PIN_LOCKED" | "CKR_PIN_EXPIRED");
                if error.fate == Fate::Retire && wrong {
                    // First where nothing can go wrong: a store that fails must not have the PIN tried again.
                    logins.remember(&info.serial, hash);
                    if let Err(fault) = pins.remember(&info.serial, &hash) {
                        tracing::error!(
                            library, token = info.label, serial = info.serial, %fault,
                            "a PIN was refused, and that could not be stored: it will be tried again after a restart; \
                             correct it before"
                        );
                    }
                }
                Err(error)
            }
        }
    }

    /// Who else is logged in to the token we opened.
    fn rival(&self, info: &DeviceInfo) -> Result<Rival, BackendError> {
        let rival = self.to.sightings.rival(&self.to.name, info);
        let Rival::Twice(other) = &rival else { return Ok(rival) };
        let (library, own) = (&self.to.name.library, &self.to.name.token);
        let what = format!(
            "token {own} of kms_library {library:?} is token {other} (serial {}), which is a member of a kms_pool already: only \
             that one serves; take one of the two out of the configuration and restart",
            info.serial
        );
        tracing::error!(library, token = %own, same = %other, serial = info.serial, "ONE TOKEN IS TWO MEMBERS of pools");
        Err(back_off(Fault::Unavailable { what }))
    }

    /// A key that carries its own PIN is served only if that is the PIN that logged in. Never a second login.
    pub(super) fn check_pin(&self, spec: &KeySpec) -> Result<(), BackendError> {
        let (Some(pin), Some(device), Some(login)) = (&spec.pin, &self.device, &self.login) else { return Ok(()) };
        let hash = self.to.pins.hash(&device.info().serial, pin).map_err(back_off)?;
        if login.is(&hash) {
            return Ok(());
        }
        let what = format!(
            "managed key {:?} carries another PIN than the one token {:?} is logged in with; correct its pin, or leave it out \
             where the kms_library has one",
            spec.name,
            device.info().label
        );
        Err(BackendError::keep(Fault::CredentialsRefused { what }))
    }
}

fn refused(info: &DeviceInfo, why: &str) -> BackendError {
    let what = format!("token {:?} (serial {}): {why}", info.label, info.serial);
    BackendError::new(Fate::Retire, Fault::CredentialsRefused { what })
}

pub(super) fn back_off(fault: Fault) -> BackendError {
    BackendError::new(Fate::BackOff, fault)
}
