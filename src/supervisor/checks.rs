//! Whether what a token or a cloud answered is right, before anybody gets it: which answers a session looks at, and what it
//! makes of one that is wrong. Part of the session thread.

use bytes::Bytes;

use super::job::Work;
use super::proof;
use super::session_thread::SessionThread;
use crate::backend::{BackendError, Fate, Session};
use crate::config::VerifyAfterSign;
use crate::crypto;
use crate::model::{Fault, Hash, KeyOperation, PublicKey, SaltLength, SignInput, SignatureScheme};

/// After one operation in so many the key is verified, where that is sampled.
const SAMPLE: u64 = 512;

impl SessionThread {
    pub(super) fn is_sampled(&self, operations: &mut u64) -> bool {
        let number = *operations;
        *operations += 1;
        match self.verify {
            VerifyAfterSign::Always => true,
            VerifyAfterSign::Sampled => number % SAMPLE == SAMPLE - 1,
            VerifyAfterSign::Never => false,
        }
    }

    /// Refuses a signature that the recorded public key does not verify: the token signed with another key, or wrongly. By
    /// the `first` one of a key, it is the session's handle that is wrong: the key is found and proven again, once.
    pub(super) fn check(&self, work: &Work, signature: &Bytes, first: bool) -> Result<(), BackendError> {
        match self.is_right(work, signature) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.stranger(work, first)),
            Err(fault @ Fault::DeviceError { .. }) => Err(BackendError::keep(fault)),
            // What cannot be checked was not promised to be, unless everything is.
            Err(fault) if self.verify == VerifyAfterSign::Always => Err(BackendError::keep(fault)),
            Err(_) => Ok(()),
        }
    }

    /// Refuses a handle that does not prove to be the key; as for [`SessionThread::check`]'s signatures.
    pub(super) fn is_known(
        &self,
        session: &mut dyn Session,
        work: &Work,
        handle: u64,
        first: bool,
    ) -> Result<(), BackendError> {
        if proof::is_key(session, handle, work.key.identity())? { Ok(()) } else { Err(self.stranger(work, first)) }
    }

    /// The error of a handle that is another key's.
    fn stranger(&self, work: &Work, first: bool) -> BackendError {
        let key = work.key.name().to_owned();
        if first {
            self.metrics.key_mismatch();
            let reason = "its handle is another key's in a session just opened: it is found and proven anew".into();
            let fault = Fault::KeyMismatch { key, reason };
            return BackendError { fault, fate: Fate::FindAgain, cause: "key_mismatch" };
        }
        self.metrics.wrong_signature();
        let reason =
            "a signature it made does not verify under the recorded public key, or a proof not as recorded: its \
                      member serves no more; check the token, then restart"
                .into();
        BackendError::new(Fate::Retire, Fault::KeyMismatch { key, reason })
    }

    fn is_right(&self, work: &Work, signature: &Bytes) -> Result<bool, Fault> {
        let (KeyOperation::Sign { scheme, hash, input }, Some(public)) =
            (&work.operation, work.key.identity().public())
        else {
            return Err(Fault::internal("a signature by a key without a public half"));
        };
        match scheme {
            SignatureScheme::RsaPss { salt } => match is_right_pss(public, *salt, *hash, input, signature) {
                // Of a token it was not promised.
                Err(Fault::DeviceError { .. }) if !self.flow_control => Ok(true),
                result => result,
            },
            scheme => crypto::verify(public, *scheme, SaltLength::Auto, *hash, input, signature),
        }
    }
}

/// A salt as long as was asked for is checked fast. Of another length it is the same key's all the same, which is in no doubt then; but
/// of no use to who asked for it.
fn is_right_pss(
    public: &PublicKey,
    salt: u16,
    hash: Hash,
    input: &SignInput,
    signature: &Bytes,
) -> Result<bool, Fault> {
    let scheme = SignatureScheme::RsaPss { salt };
    let with = |salt| crypto::verify(public, scheme, salt, hash, input, signature);
    if with(SaltLength::Bytes(salt))? {
        return Ok(true);
    }
    if with(SaltLength::Auto)? {
        let what = format!("it makes PSS signatures with another salt than one of {salt} bytes, which was asked for");
        return Err(Fault::DeviceError { what });
    }
    Ok(false)
}

/// What a failed decryption comes to. Many devices have but one word for bytes that do not decrypt and for trouble of their own;
/// clients could have sessions closed by sending the former. Where the key is well in this session, and fails the same bytes in the
/// same way again, they are at fault.
pub(super) fn decrypt_again(
    session: &mut dyn Session,
    work: &Work,
    handle: u64,
    error: BackendError,
) -> Result<Bytes, BackendError> {
    let identity = work.key.identity();
    if !matches!(proof::is_key(session, handle, identity), Ok(true)) {
        return Err(error);
    }
    match session.perform(handle, identity.kind(), &work.operation) {
        Err(again) if again.cause == error.cause => {
            let reason = format!("the token refuses the input twice, and nothing else: {}", again.fault);
            Err(BackendError { fault: Fault::not_decrypted(reason), fate: Fate::Keep, cause: again.cause })
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SoftwareKey;
    use crate::model::KeyKind;

    #[test]
    fn a_signature_with_another_salt_than_asked_for_is_refused_as_that() {
        let key = SoftwareKey::generate(KeyKind::Rsa { bits: 2048 }).unwrap();
        let (hash, scheme) = (Hash::Sha2_256, SignatureScheme::RsaPss { salt: 32 });
        let [input, other] = [&b"one"[..], b"other"].map(|text| SignInput::Digest(crypto::digest(hash, text).unwrap()));
        let made = key.perform(&KeyOperation::Sign { scheme, hash, input: input.clone() }).unwrap();
        let right = |salt, input| is_right_pss(key.public(), salt, hash, input, &made);
        assert_eq!((right(32, &input), right(32, &other)), (Ok(true), Ok(false)));
        assert_eq!(right(20, &other), Ok(false));
        assert!(matches!(right(20, &input), Err(Fault::DeviceError { what }) if what.contains("salt than one of 20")));
    }
}
