//! The functions of PKCS#11 v2.40, in the order of its function list.

macro_rules! functions {
    ($($name:ident)*) => {
        /// One function, by its name in the standard.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(non_camel_case_types, clippy::enum_variant_names, reason = "PKCS#11 names its functions so")]
        #[repr(u8)]
        pub(crate) enum Function {
            $($name,)*
        }

        /// All of them.
        pub(crate) const ALL: &[Function] = &[$(Function::$name,)*];

        impl Function {
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Function::$name => stringify!($name),)*
                }
            }
        }
    };
}

functions! {
    C_Initialize C_Finalize C_GetInfo C_GetFunctionList C_GetSlotList C_GetSlotInfo C_GetTokenInfo C_GetMechanismList
    C_GetMechanismInfo C_InitToken C_InitPIN C_SetPIN C_OpenSession C_CloseSession C_CloseAllSessions C_GetSessionInfo
    C_GetOperationState C_SetOperationState C_Login C_Logout C_CreateObject C_CopyObject C_DestroyObject C_GetObjectSize
    C_GetAttributeValue C_SetAttributeValue C_FindObjectsInit C_FindObjects C_FindObjectsFinal C_EncryptInit C_Encrypt
    C_EncryptUpdate C_EncryptFinal C_DecryptInit C_Decrypt C_DecryptUpdate C_DecryptFinal C_DigestInit C_Digest
    C_DigestUpdate C_DigestKey C_DigestFinal C_SignInit C_Sign C_SignUpdate C_SignFinal C_SignRecoverInit C_SignRecover
    C_VerifyInit C_Verify C_VerifyUpdate C_VerifyFinal C_VerifyRecoverInit C_VerifyRecover C_DigestEncryptUpdate
    C_DecryptDigestUpdate C_SignEncryptUpdate C_DecryptVerifyUpdate C_GenerateKey C_GenerateKeyPair C_WrapKey
    C_UnwrapKey C_DeriveKey C_SeedRandom C_GenerateRandom C_GetFunctionStatus C_CancelFunction C_WaitForSlotEvent
}

/// How many there are.
pub(crate) const COUNT: usize = ALL.len();

impl Function {
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    pub(crate) fn named(name: &str) -> Result<Function, String> {
        let found = ALL.iter().find(|function| function.name() == name).copied();
        found.ok_or_else(|| format!("{name:?} is no function of PKCS#11 v2.40"))
    }

    /// Whether the device works for it: these take its service time.
    pub(crate) const fn is_served(self) -> bool {
        use Function as F;
        matches!(
            self,
            F::C_Sign
                | F::C_SignFinal
                | F::C_SignRecover
                | F::C_Verify
                | F::C_VerifyFinal
                | F::C_VerifyRecover
                | F::C_Encrypt
                | F::C_EncryptFinal
                | F::C_Decrypt
                | F::C_DecryptFinal
                | F::C_GenerateKey
                | F::C_GenerateKeyPair
                | F::C_WrapKey
                | F::C_UnwrapKey
                | F::C_DeriveKey
        )
    }

    /// Whether it needs a user who is logged in, for it uses or makes private objects.
    pub(crate) const fn is_private(self) -> bool {
        use Function as F;
        matches!(
            self,
            F::C_SignInit
                | F::C_Sign
                | F::C_SignUpdate
                | F::C_SignFinal
                | F::C_SignRecoverInit
                | F::C_SignRecover
                | F::C_DecryptInit
                | F::C_Decrypt
                | F::C_DecryptUpdate
                | F::C_DecryptFinal
                | F::C_GenerateKey
                | F::C_GenerateKeyPair
                | F::C_WrapKey
                | F::C_UnwrapKey
                | F::C_DeriveKey
                | F::C_Logout
        )
    }

    /// Whether a bad object handle is a bad key handle to it.
    pub(crate) fn takes_key(self) -> bool {
        self.name().ends_with("Init") || matches!(self, Function::C_DigestKey | Function::C_DeriveKey)
    }
}
