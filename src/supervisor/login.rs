//! Logging in, as the control thread of a member does it: at most one native call for a PIN, ever, where the token says that
//! it is wrong.

use std::time::Duration;

use super::control::{Control, Reach};
use super::pins::{Login, PinHash, Place, Standing, UNANSWERED_MAX};
use super::route::{KeySpec, MemberId};
use super::same_token::{Name, Rival};
use crate::backend::{BackendError, Device, Fate, LoginAnswer, TokenIdentity};
use crate::config::Pin;
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
    /// Logs in with the first of `pins` that the token takes; one native call for each at the most, and none for those it
    /// refused before. Members of one token, in whatever process, come one after the other (the caller has the turn), so
    /// that a PIN one of them had refused is not tried by the next.
    pub(super) fn log_in(
        &self,
        device: &dyn Device,
        place: &Place,
        pins: &[(Pin, Secret)],
        cause: Option<&'static str>,
    ) -> Result<LoggedIn, BackendError> {
        let guest = match self.rival(place)? {
            Rival::Host(host) => return Ok(LoggedIn::Known(host)),
            Rival::Guest(guest) => Some(guest),
            Rival::None | Rival::Twice(_) => None,
        };
        let pins = self.in_order(&place.token, pins)?;
        for (_, hash) in &pins {
            match self.to.logins.standing(place, hash) {
                Standing::Same(login) => return Ok(LoggedIn::As(login, guest)),
                Standing::Other => {}
                Standing::Nobody => return self.try_each(device, place, &pins, cause, guest),
            }
        }
        Err(refused(&place.token, "it is logged in with another PIN; give every key of it the same PIN"))
    }

    /// What the PINs are now. Those that cannot be had are told of, and left out: others may be the token's. The token and
    /// whoever asks for it may be another tenant's, who is not told where a PIN stands.
    pub(super) fn fetch(&mut self, pins: &[Pin]) -> Result<Vec<(Pin, Secret)>, BackendError> {
        let Name { library, token, .. } = &self.to.name;
        let mut seen = Vec::new();
        let mut fetched = Vec::new();
        for pin in pins {
            match pin.fetch() {
                Ok(secret) => {
                    seen.push(secret.clone());
                    fetched.push((pin.clone(), secret));
                }
                Err(why) => {
                    tracing::warn!(library, %token, reference = ?pin.reference(), why, "a PIN cannot be fetched")
                }
            }
        }
        self.fetched = seen;
        if fetched.is_empty() {
            let what = format!(
                "token {token}: what the pin of its managed keys refers to cannot be fetched; the daemon's log says why, and it \
                 is tried again"
            );
            return Err(back_off(Fault::Unavailable { what }));
        }
        Ok(fetched)
    }

    /// Whether one of these PINs is another now than when they were fetched last.
    pub(super) fn has_other_pins(&self, pins: &[Pin]) -> bool {
        pins.iter().filter_map(|pin| pin.fetch().ok()).any(|pin| !self.fetched.contains(&pin))
    }

    /// The PINs with their hashes, the one first that the token took last: wrong ones before it might lock it.
    fn in_order<'p>(
        &self,
        token: &TokenIdentity,
        pins: &'p [(Pin, Secret)],
    ) -> Result<Vec<(&'p Secret, PinHash)>, BackendError> {
        let memory = &self.to.pins;
        let taken = memory.taken(token).map_err(back_off)?;
        let hash = |pin: &'p Secret| Ok((pin, memory.hash(token, pin).map_err(back_off)?));
        let mut hashed = pins.iter().map(|(_, pin)| hash(pin)).collect::<Result<Vec<_>, BackendError>>()?;
        hashed.sort_by_key(|(_, hash)| Some(*hash) != taken);
        Ok(hashed)
    }

    fn try_each(
        &self,
        device: &dyn Device,
        place: &Place,
        pins: &[(&Secret, PinHash)],
        cause: Option<&'static str>,
        guest: Option<MemberId>,
    ) -> Result<LoggedIn, BackendError> {
        let token = &place.token;
        let mut why = None;
        for (pin, hash) in pins {
            let known = self.known(token, hash)?;
            let error = match known {
                // What the token says now is better to know than what it said once.
                Some(known) => why.take().unwrap_or(known),
                None => {
                    self.check_flags(device, token)?;
                    match self.try_pin(device, place, pin, *hash, cause) {
                        Ok(login) => return Ok(LoggedIn::As(login, guest)),
                        Err(error) if is_wrong(&error) => error,
                        Err(error) => return Err(error),
                    }
                }
            };
            why = Some(error);
        }
        Err(why.unwrap_or_else(|| refused(token, "there is no PIN for it")))
    }

    /// Why this PIN is not to be tried, if so it is.
    fn known(&self, token: &TokenIdentity, hash: &PinHash) -> Result<Option<BackendError>, BackendError> {
        let Reach { pins, logins, .. } = &self.to;
        if logins.refused(token, hash) || pins.refused(token, hash).map_err(back_off)? {
            let why = "it refused this PIN before and is not asked again; configure another PIN";
            return Ok(Some(refused(token, why)));
        }
        let unanswered = pins.unanswered(token, hash).map_err(back_off)?;
        let may_be_forced = self.to.final_pin_try && !logins.was_forced(token, hash);
        if unanswered >= UNANSWERED_MAX && !may_be_forced && !self.is_vouched_for(token, hash)? {
            let why = "logins with this PIN came to no answer twice, and the token may count them; log in once with the \
                       vendor's tool, then restart with -force-final-pin-try if the PIN configured is right";
            return Ok(Some(refused(token, why)));
        }
        Ok(None)
    }

    /// Whether the token took this PIN before, by what this process or an earlier one saw: whatever fails now is another
    /// matter.
    fn is_vouched_for(&self, token: &TokenIdentity, hash: &PinHash) -> Result<bool, BackendError> {
        let Reach { pins, logins, .. } = &self.to;
        Ok(logins.took(token, hash) || pins.taken(token).map_err(back_off)?.as_ref() == Some(hash))
    }

    /// Makes durable that a PIN nobody vouches for is about to be tried; how often it was before. Whoever kills the daemon
    /// while the token thinks does not have it tried for ever.
    fn begin_try(&self, token: &TokenIdentity, hash: &PinHash) -> Result<Option<u8>, BackendError> {
        if self.is_vouched_for(token, hash)? {
            return Ok(None);
        }
        let memory = &self.to.pins;
        let before = memory.unanswered(token, hash).map_err(back_off)?;
        if before >= UNANSWERED_MAX {
            self.to.logins.force(token, *hash);
        }
        memory.remember_unanswered(token, hash, before.saturating_add(1)).map_err(back_off)?;
        Ok(Some(before))
    }

    /// The token answered: this try does not count, nor, where the PIN is now known for right or wrong, do those before.
    fn end_try(&self, token: &TokenIdentity, hash: &PinHash, unanswered: u8) {
        if let Err(fault) = self.to.pins.remember_unanswered(token, hash, unanswered) {
            tracing::warn!(
                library = self.to.name.library, token = token.label, serial = token.serial, %fault,
                "that a login was answered could not be stored: after a restart it counts as one that was not"
            );
        }
    }

    /// Refuses where the token is locked, or would be by one more wrong PIN.
    fn check_flags(&self, device: &dyn Device, token: &TokenIdentity) -> Result<(), BackendError> {
        let flags = device.pin_flags()?;
        if flags.locked {
            return Err(refused(token, "its user PIN is locked; have the security officer reset it"));
        }
        if flags.final_try && !self.to.final_pin_try {
            let why = "it allows one last try before it locks; log in once with the vendor's tool and the right PIN, or \
                       restart with -force-final-pin-try if the PIN configured is right";
            return Err(refused(token, why));
        }
        Ok(())
    }

    /// Exactly one native call.
    fn try_pin(
        &self,
        device: &dyn Device,
        place: &Place,
        pin: &Secret,
        hash: PinHash,
        cause: Option<&'static str>,
    ) -> Result<Login, BackendError> {
        let token = &place.token;
        let begun = self.begin_try(token, &hash)?;
        let result = device.login(pin);
        let said = match &result {
            Ok(_) => LoginLabel::Ok,
            Err(error) if error.fate == Fate::Retire => LoginLabel::Refused,
            Err(_) => LoginLabel::Failed,
        };
        self.to.metrics.login(cause, said);
        let logins = &self.to.logins;
        let begun = begun.filter(|_| !result.as_ref().is_err_and(is_unanswered));
        let outcome = match result {
            Ok(LoginAnswer::Already) if logins.took_another(token, &hash) => {
                let what = format!(
                    "token {:?} (serial {}): a session that is still open keeps it logged in with another PIN, so that this \
                     one cannot be told right or wrong; it is tried again when that session has closed: where it never \
                     does, restart Keyway",
                    token.label, token.serial
                );
                Err(back_off(Fault::Unavailable { what }))
            }
            Ok(_) => {
                self.remember_taken(token, &hash);
                Ok(logins.enter(place, hash))
            }
            Err(error) => {
                if is_wrong(&error) {
                    self.remember_refused(token, hash);
                }
                Err(error)
            }
        };
        // Only now: what it answered is durable.
        if let Some(before) = begun {
            let is_known = outcome.as_ref().map_or_else(is_wrong, |_| true);
            self.end_try(token, &hash, if is_known { 0 } else { before });
        }
        outcome
    }

    fn remember_refused(&self, token: &TokenIdentity, hash: PinHash) {
        // First where nothing can go wrong: a store that fails must not have the PIN tried again.
        self.to.logins.remember(token, hash);
        if let Err(fault) = self.to.pins.remember(token, &hash) {
            tracing::error!(
                library = self.to.name.library, token = token.label, serial = token.serial, %fault,
                "a PIN was refused, and that could not be stored: it will be tried again after a restart; correct it before"
            );
        }
    }

    fn remember_taken(&self, token: &TokenIdentity, hash: &PinHash) {
        let memory = &self.to.pins;
        let known = memory.taken(token).is_ok_and(|taken| taken.as_ref() == Some(hash));
        if !known && let Err(fault) = memory.remember_taken(token, hash) {
            tracing::warn!(
                library = self.to.name.library, token = token.label, serial = token.serial, %fault,
                "that a PIN was taken could not be stored: after a restart others may be tried before it"
            );
        }
    }

    /// Who else is logged in to the token we opened.
    fn rival(&self, place: &Place) -> Result<Rival, BackendError> {
        let rival = self.to.sightings.rival(&self.to.name, place);
        let Rival::Twice(other) = &rival else { return Ok(rival) };
        let (library, own, serial) = (&self.to.name.library, &self.to.name.token, &place.token.serial);
        let what = format!(
            "token {own} of kms_library {library:?} is token {other} (serial {serial}), which is a member of a kms_pool already: \
             only that one serves; take one of the two out of the configuration and reload it"
        );
        tracing::error!(library, token = %own, same = %other, serial, "ONE TOKEN IS TWO MEMBERS of pools");
        Err(back_off(Fault::Unavailable { what }))
    }

    /// A key that carries its own PIN is served only if that is the PIN that logged in. Never a second login.
    pub(super) fn check_pin(&self, spec: &KeySpec) -> Result<(), BackendError> {
        let (Some(pin), Some(device), Some(login)) = (&spec.pin, &self.device, &self.login) else { return Ok(()) };
        let pin = pin.fetch().map_err(|why| {
            let what = format!("the pin of managed key {:?} cannot be fetched: {why}", spec.name);
            BackendError::keep(Fault::CredentialsRefused { what })
        })?;
        let hash = self.to.pins.hash(&device.info().token, &pin).map_err(back_off)?;
        if login.is(&hash) {
            return Ok(());
        }
        let what = format!(
            "managed key {:?} carries another PIN than the one token {:?} is logged in with; correct its pin, or leave it out \
             where the kms_library has one",
            spec.name,
            device.info().token.label
        );
        Err(BackendError::keep(Fault::CredentialsRefused { what }))
    }
}

/// Whether a login was refused because the PIN is wrong. A locked or expired one may be the right one again, when the security
/// officer has seen to it.
fn is_wrong(error: &BackendError) -> bool {
    error.fate == Fate::Retire && !["CKR_PIN_LOCKED", "CKR_PIN_EXPIRED", "CKR_NEW_PIN_MODE"].contains(&error.cause)
}

/// Whether a login came to no answer, or to one that nobody can read: it may have been a wrong PIN.
fn is_unanswered(error: &BackendError) -> bool {
    matches!(error.cause, "worker_died" | "CKR_VENDOR_DEFINED" | "unreadable_answer")
}

/// The turn to log in did not come. Never is one taken that others have: a login whose outcome nobody knows is theirs.
pub(super) fn others_log_in(token: &TokenIdentity, waited: Duration) -> BackendError {
    let what = format!(
        "token {:?} (serial {}): another login to it has not returned for {} ms and more, and two at once might lock it; it is \
         tried again when that one has: where it never does, restart Keyway",
        token.label,
        token.serial,
        waited.as_millis()
    );
    back_off(Fault::Unavailable { what })
}

/// The turn to come up did not come.
pub(super) fn others_come_up(to: &Reach) -> BackendError {
    let what = format!(
        "token {} of kms_library {:?}: another worker process of the token is coming up, for {} ms and more; this one is tried \
         again when that one is up or down",
        to.name.token,
        to.name.library,
        to.wait.as_millis()
    );
    back_off(Fault::Unavailable { what })
}

fn refused(token: &TokenIdentity, why: &str) -> BackendError {
    let what = format!("token {:?} (serial {}): {why}", token.label, token.serial);
    BackendError::new(Fate::Retire, Fault::CredentialsRefused { what })
}

pub(super) fn back_off(fault: Fault) -> BackendError {
    BackendError::new(Fate::BackOff, fault)
}
