//! What made-up objects say of themselves.

use std::slice;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_ATTRIBUTE_TYPE, CK_ULONG, CKA_ALWAYS_AUTHENTICATE, CKA_ALWAYS_SENSITIVE, CKA_CLASS, CKA_DECRYPT,
    CKA_DERIVE, CKA_EC_PARAMS, CKA_EC_POINT, CKA_ENCRYPT, CKA_EXTRACTABLE, CKA_ID, CKA_KEY_TYPE, CKA_LABEL, CKA_LOCAL,
    CKA_MODIFIABLE, CKA_MODULUS, CKA_MODULUS_BITS, CKA_NEVER_EXTRACTABLE, CKA_PRIME_1, CKA_PRIME_2, CKA_PRIVATE,
    CKA_PRIVATE_EXPONENT, CKA_PUBLIC_EXPONENT, CKA_PUBLIC_KEY_INFO, CKA_SENSITIVE, CKA_SIGN, CKA_SIGN_RECOVER,
    CKA_SUBJECT, CKA_TOKEN, CKA_UNWRAP, CKA_VALUE, CKA_VALUE_LEN, CKA_VERIFY, CKA_VERIFY_RECOVER, CKA_WRAP, CKK_AES,
    CKK_EC, CKK_GENERIC_SECRET, CKK_RSA, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY, CKO_SECRET_KEY, CKR_ATTRIBUTE_SENSITIVE,
    CKR_ATTRIBUTE_TYPE_INVALID, CKR_BUFFER_TOO_SMALL,
};

use super::key::Key;
use crate::call::Answer;
use crate::settings::KeyKind;

/// The object identifier of P-256.
pub(super) const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// 65537.
const PUBLIC_EXPONENT: &[u8] = &[1, 0, 1];
/// The length of an attribute that is not to be had.
const UNAVAILABLE: CK_ULONG = CK_ULONG::MAX;

/// The private or the public half of a key pair; or a secret key, which has no second half.
#[derive(Clone, Copy)]
pub(super) struct Object<'k> {
    pub(super) key: &'k Key,
    pub(super) private: bool,
}

impl Object<'_> {
    /// The value of an attribute. An error where it has none, or does not tell.
    fn value(&self, kind: CK_ATTRIBUTE_TYPE) -> Answer<Vec<u8>> {
        let (key, elliptic) = (self.key, self.key.kind == KeyKind::P256);
        let flag = |value: bool| vec![u8::from(value)];
        let number = |value: CK_ULONG| value.to_ne_bytes().to_vec();
        if let Some(value) = key.secret() {
            let aes = key.kind == KeyKind::Aes256;
            match kind {
                CKA_CLASS => return Ok(number(CKO_SECRET_KEY)),
                CKA_KEY_TYPE => return Ok(number(if aes { CKK_AES } else { CKK_GENERIC_SECRET })),
                CKA_VALUE_LEN => return Ok(number(value.len() as CK_ULONG)),
                CKA_ENCRYPT | CKA_DECRYPT => return Ok(flag(aes)),
                CKA_SIGN | CKA_VERIFY => return Ok(flag(!aes)),
                CKA_PUBLIC_KEY_INFO | CKA_EC_PARAMS | CKA_MODULUS | CKA_PUBLIC_EXPONENT => {
                    return Err(CKR_ATTRIBUTE_TYPE_INVALID);
                }
                // The rest is as of a private key.
                _ => {}
            }
        }
        let material = || key.material().ok_or(CKR_ATTRIBUTE_TYPE_INVALID);
        Ok(match kind {
            CKA_CLASS => number(if self.private { CKO_PRIVATE_KEY } else { CKO_PUBLIC_KEY }),
            CKA_KEY_TYPE => number(if elliptic { CKK_EC } else { CKK_RSA }),
            CKA_LABEL => key.label.clone().into_bytes(),
            CKA_ID => key.id.clone(),
            CKA_SUBJECT => Vec::new(),
            CKA_TOKEN => flag(true),
            CKA_PRIVATE | CKA_SIGN if kind == CKA_PRIVATE || self.private => flag(self.private),
            CKA_VERIFY if !self.private => flag(true),
            CKA_SENSITIVE | CKA_ALWAYS_SENSITIVE | CKA_NEVER_EXTRACTABLE if self.private => flag(true),
            CKA_EXTRACTABLE | CKA_ALWAYS_AUTHENTICATE | CKA_DECRYPT | CKA_SIGN_RECOVER | CKA_UNWRAP if self.private => {
                flag(false)
            }
            CKA_ENCRYPT | CKA_VERIFY_RECOVER | CKA_WRAP if !self.private => flag(false),
            CKA_MODIFIABLE | CKA_LOCAL | CKA_DERIVE => flag(false),
            CKA_PUBLIC_KEY_INFO => material()?.info.clone(),
            CKA_EC_PARAMS if elliptic => P256.to_vec(),
            CKA_EC_POINT if elliptic && !self.private => {
                let point = &material()?.public;
                [&[4, u8::try_from(point.len()).unwrap_or(0)], &point[..]].concat()
            }
            CKA_MODULUS if !elliptic => material()?.public.clone(),
            CKA_PUBLIC_EXPONENT if !elliptic => PUBLIC_EXPONENT.to_vec(),
            CKA_MODULUS_BITS if !elliptic && !self.private => number(2048),
            CKA_VALUE | CKA_PRIVATE_EXPONENT | CKA_PRIME_1 | CKA_PRIME_2 if self.private => {
                return Err(CKR_ATTRIBUTE_SENSITIVE);
            }
            _ => return Err(CKR_ATTRIBUTE_TYPE_INVALID),
        })
    }

    /// Whether it has every value of a template.
    pub(super) fn matches(&self, template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)]) -> bool {
        template.iter().all(|(kind, wanted)| self.value(*kind).as_ref() == Ok(wanted))
    }

    /// Writes the values that a caller asks for.
    ///
    /// # Safety
    ///
    /// Each attribute's value must be null or have as much room as it says.
    pub(super) unsafe fn write(&self, attributes: &mut [CK_ATTRIBUTE]) -> Answer {
        let mut worst = Ok(());
        for attribute in attributes {
            let written = self.value(attribute.type_).and_then(|value| {
                let room = std::mem::replace(&mut attribute.ulValueLen, value.len() as CK_ULONG);
                if attribute.pValue.is_null() {
                    return Ok(());
                }
                if room < attribute.ulValueLen {
                    return Err(CKR_BUFFER_TOO_SMALL);
                }
                // SAFETY: as the caller says, there is room for `room` bytes, and these are fewer.
                unsafe { attribute.pValue.cast::<u8>().copy_from_nonoverlapping(value.as_ptr(), value.len()) };
                Ok(())
            });
            if written.is_err() {
                attribute.ulValueLen = UNAVAILABLE;
                worst = written;
            }
        }
        worst
    }
}

/// A template as a caller gave it.
///
/// # Safety
///
/// `template` must be null or point to `len` attributes, each with a value as long as it says.
pub(super) unsafe fn read(template: *const CK_ATTRIBUTE, len: CK_ULONG) -> Vec<(CK_ATTRIBUTE_TYPE, Vec<u8>)> {
    if template.is_null() {
        return Vec::new();
    }
    // SAFETY: as the caller says.
    let attributes = unsafe { slice::from_raw_parts(template, usize::try_from(len).unwrap_or(0)) };
    let value = |attribute: &CK_ATTRIBUTE| match attribute.pValue.is_null() {
        true => Vec::new(),
        false => {
            let len = usize::try_from(attribute.ulValueLen).unwrap_or(0);
            // SAFETY: as the caller says.
            unsafe { slice::from_raw_parts(attribute.pValue.cast::<u8>(), len) }.to_vec()
        }
    };
    attributes.iter().map(|attribute| (attribute.type_, value(attribute))).collect()
}
