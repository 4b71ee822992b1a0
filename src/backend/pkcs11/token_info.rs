//! What the module says of itself, of its slots and of the tokens in them.

use std::time::Duration;

use cryptoki_sys::{
    CK_EFFECTIVELY_INFINITE, CK_FLAGS, CK_INFO, CK_SLOT_ID, CK_TOKEN_INFO, CK_ULONG, CK_UNAVAILABLE_INFORMATION,
    CKF_TOKEN_INITIALIZED, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED, CKR_BUFFER_TOO_SMALL, CKR_GENERAL_ERROR,
    CKR_OK,
};

use super::class::Function;
use super::fault::{self, NativeError};
use super::setup::Setup;
use crate::backend::TokenIdentity;
use crate::config::Profile;

/// No module has more slots: one that says so makes no sense.
const SLOTS_MAX: usize = 1 << 16;
/// So often the slots may become more between two calls.
const LOOKS: usize = 4;
/// SoftHSM2 does not say who a token is whose files another process writes in this moment: pauses, in milliseconds, before it is asked
/// again.
const MOMENTS: [u64; 3] = [1, 5, 20];

/// What a token says of itself. Its time counts for nothing: a clock may tell nonsense, as that of a token without a battery.
pub(super) struct TokenInfo(CK_TOKEN_INFO);

impl TokenInfo {
    pub(super) fn read(setup: &Setup, slot: CK_SLOT_ID, profile: Profile) -> Result<TokenInfo, NativeError> {
        let mut info = CK_TOKEN_INFO::default();
        let mut rv = setup.get_token_info(slot, &mut info);
        for pause in MOMENTS {
            if profile != Profile::SoftHsm || rv != CKR_GENERAL_ERROR {
                break;
            }
            std::thread::sleep(Duration::from_millis(pause));
            rv = setup.get_token_info(slot, &mut info);
        }
        fault::check(profile, Function::GetTokenInfo, rv)?;
        Ok(TokenInfo(info))
    }

    pub(super) fn label(&self) -> String {
        text(&self.0.label)
    }

    pub(super) fn serial(&self) -> String {
        text(&self.0.serialNumber)
    }

    /// Fit to be shown.
    pub(super) fn identity(&self) -> TokenIdentity {
        TokenIdentity::new(&text(&self.0.manufacturerID), &text(&self.0.model), &self.serial(), &self.label())
    }

    fn says(&self, flag: CK_FLAGS) -> bool {
        self.0.flags & flag != 0
    }

    pub(super) fn is_initialized(&self) -> bool {
        self.says(CKF_TOKEN_INITIALIZED)
    }

    pub(super) fn is_final_try(&self) -> bool {
        self.says(CKF_USER_PIN_FINAL_TRY)
    }

    pub(super) fn is_locked(&self) -> bool {
        self.says(CKF_USER_PIN_LOCKED)
    }

    /// The most read/write sessions; `None` if it does not tell, or knows no limit.
    pub(super) fn max_sessions(&self) -> Option<usize> {
        let limit = |most: CK_ULONG| match most {
            CK_EFFECTIVELY_INFINITE | CK_UNAVAILABLE_INFORMATION => None,
            most => usize::try_from(most).ok(),
        };
        match (limit(self.0.ulMaxSessionCount), limit(self.0.ulMaxRwSessionCount)) {
            (Some(all), Some(rw)) => Some(all.min(rw)),
            (one, other) => one.or(other),
        }
    }
}

/// The slots with a token in them.
pub(super) fn slots(setup: &Setup, profile: Profile) -> Result<Vec<CK_SLOT_ID>, NativeError> {
    let mut count = 0;
    fault::check(profile, Function::GetSlotList, setup.count_slots(&mut count))?;
    for _ in 0..LOOKS {
        let room = usize::try_from(count).ok().filter(|room| *room <= SLOTS_MAX).ok_or_else(|| senseless(count))?;
        let mut slots = vec![0; room];
        match setup.get_slot_list(&mut slots, &mut count) {
            CKR_BUFFER_TOO_SMALL => continue,
            rv => fault::check(profile, Function::GetSlotList, rv)?,
        }
        let there = usize::try_from(count).ok().filter(|there| *there <= room).ok_or_else(|| senseless(count))?;
        slots.truncate(there);
        return Ok(slots);
    }
    Err(fault::from_rv(profile, Function::GetSlotList, CKR_BUFFER_TOO_SMALL))
}

fn senseless(count: CK_ULONG) -> NativeError {
    fault::unreadable(Function::GetSlotList, &format!("{count} slots"))
}

/// The profile the module's own words speak for.
pub(super) fn detect(setup: &Setup) -> Profile {
    let mut info = CK_INFO::default();
    match setup.get_info(&mut info) {
        CKR_OK => Profile::detect(&text(&info.manufacturerID), &text(&info.libraryDescription)),
        _ => Profile::default(),
    }
}

/// A field that is filled up with blanks.
fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).trim_end_matches(' ').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_limit_of_sessions_counts_and_what_is_none_does_not() {
        let info = |all, rw| {
            TokenInfo(CK_TOKEN_INFO { ulMaxSessionCount: all, ulMaxRwSessionCount: rw, ..CK_TOKEN_INFO::default() })
        };
        assert_eq!(info(8, 4).max_sessions(), Some(4));
        assert_eq!(info(CK_EFFECTIVELY_INFINITE, 4).max_sessions(), Some(4));
        assert_eq!(info(8, CK_UNAVAILABLE_INFORMATION).max_sessions(), Some(8));
        assert_eq!(info(CK_EFFECTIVELY_INFINITE, CK_UNAVAILABLE_INFORMATION).max_sessions(), None);
    }

    #[test]
    fn texts_end_before_their_blanks() {
        assert_eq!(
            (text(b"my ca   "), text(b"full"), text(b"\xff  ")),
            ("my ca".into(), "full".into(), "\u{fffd}".into())
        );
    }
}
