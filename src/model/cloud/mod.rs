//! Keys in clouds: where one is, by whose word it is used, and what each service does with each kind of key. The tables say it once:
//! registrations, errors, backends and the documentation follow them.
//!
//! The clouds' post-quantum keys have no rows yet; they come as rows of a kind that signs messages.

mod aws;
mod azure;
mod google;
mod place;

pub use place::{ARN, CloudCredentials, CloudKey, CloudPlace, aws_region, google_account};

use super::{CipherScheme, Hash, KeyKind, KeyUsage, KeyUsages, SignatureScheme};

/// A key service, by the name that Vault's API has for keys there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloudService {
    /// AWS KMS.
    AwsKms,
    /// Azure Key Vault, and Azure Managed HSM.
    AzureKeyVault,
    /// Google Cloud KMS.
    GcpCkms,
}

impl CloudService {
    /// Every service.
    pub const ALL: [CloudService; 3] = [CloudService::AwsKms, CloudService::AzureKeyVault, CloudService::GcpCkms];

    /// The type of its managed keys: `awskms`, `azurekeyvault`, `gcpckms`.
    pub const fn name(self) -> &'static str {
        match self {
            CloudService::AwsKms => "awskms",
            CloudService::AzureKeyVault => "azurekeyvault",
            CloudService::GcpCkms => "gcpckms",
        }
    }

    /// The service of this name, if it is one's.
    pub fn from_name(name: &str) -> Option<CloudService> {
        CloudService::ALL.into_iter().find(|service| service.name() == name)
    }

    /// What it calls itself.
    pub const fn title(self) -> &'static str {
        match self {
            CloudService::AwsKms => "AWS KMS",
            CloudService::AzureKeyVault => "Azure Key Vault",
            CloudService::GcpCkms => "Google Cloud KMS",
        }
    }

    /// Every kind of key that it has, and that is used here.
    pub const fn kinds(self) -> &'static [CloudKind] {
        match self {
            CloudService::AwsKms => aws::KINDS,
            CloudService::AzureKeyVault => azure::KINDS,
            CloudService::GcpCkms => google::KINDS,
        }
    }
}

impl std::fmt::Display for CloudService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a service lets a key do: most keys there do one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloudUse {
    /// Signatures.
    Sign,
    /// Decryption of what is encrypted with its public half.
    Decrypt,
    /// MACs.
    Mac,
    /// Signatures, and decryption: one key may do both.
    SignOrDecrypt,
}

impl CloudUse {
    /// The usages of a managed key that go with it.
    pub fn usages(self) -> KeyUsages {
        let usages: &[KeyUsage] = match self {
            CloudUse::Sign => &[KeyUsage::Sign, KeyUsage::Verify],
            CloudUse::Decrypt => &[KeyUsage::Encrypt, KeyUsage::Decrypt],
            CloudUse::Mac => &[KeyUsage::Mac],
            CloudUse::SignOrDecrypt => &[KeyUsage::Sign, KeyUsage::Verify, KeyUsage::Encrypt, KeyUsage::Decrypt],
        };
        usages.iter().copied().collect()
    }
}

/// One way in which a kind of key signs. Of a scheme that takes the message, the hash is [`Hash::None`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloudSigning {
    /// The scheme; of PSS, whatever the salt: services take one as long as the hash.
    pub scheme: SignatureScheme,
    /// The hash of what is signed.
    pub hash: Hash,
    /// What the service calls it.
    pub native: &'static str,
}

/// One kind of key in one service, for one use.
#[derive(Debug)]
pub struct CloudKind {
    /// Where.
    pub service: CloudService,
    /// What a registration calls its type, in capitals: `RSA`, `ECDSA`, …
    pub key_type: &'static str,
    /// What key it is.
    pub kind: KeyKind,
    /// What for.
    pub does: CloudUse,
    /// What the service calls such a key.
    pub native: &'static str,
    /// Its signatures.
    pub signs: &'static [CloudSigning],
    /// Its ways of decryption, of a secret key of encryption too, by the service's names.
    pub decrypts: &'static [(CipherScheme, &'static str)],
    /// Its MACs, by the service's names.
    pub macs: &'static [(Hash, &'static str)],
    /// Most bytes of a message that is signed whole, made a MAC of, or encrypted with a secret key.
    pub message_max: usize,
}

/// The same row, by what no two have alike: the table itself may be there more than once in an optimized program.
impl PartialEq for CloudKind {
    fn eq(&self, other: &CloudKind) -> bool {
        let row = |kind: &CloudKind| (kind.service, kind.key_type, kind.native, kind.does);
        row(self) == row(other)
    }
}

impl Eq for CloudKind {}

impl std::hash::Hash for CloudKind {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.service, self.native).hash(state);
    }
}

impl CloudKind {
    /// The service's name for a signature so made, if it makes such.
    pub fn signing(&self, scheme: SignatureScheme, hash: Hash) -> Option<&'static str> {
        let alike = |known: &&CloudSigning| match (known.scheme, scheme) {
            (SignatureScheme::RsaPss { .. }, SignatureScheme::RsaPss { .. }) => known.hash == hash,
            (own, asked) => own == asked && known.hash == hash,
        };
        self.signs.iter().find(alike).map(|known| known.native)
    }

    /// The service's name for decryption of what was encrypted so, if it does that.
    pub fn decryption(&self, scheme: CipherScheme) -> Option<&'static str> {
        self.decrypts.iter().find(|(known, _)| *known == scheme).map(|(_, native)| *native)
    }

    /// How a secret key of this kind encrypts, where the service makes no two ciphertexts of one plaintext alike: what it is known
    /// again by is then that it opens what it sealed.
    pub fn sealing(&self) -> Option<CipherScheme> {
        let is_aes = matches!(self.kind, KeyKind::Aes { .. });
        let repeats = self.decryption(CipherScheme::AesCbc { padded: false }).is_some();
        self.decrypts.first().filter(|_| is_aes && !repeats).map(|(scheme, _)| *scheme)
    }

    /// Whether what is encrypted for it can go into an envelope, so that it may be of any length.
    pub fn takes_envelopes(&self) -> bool {
        let is_rsa = matches!(self.kind, KeyKind::Rsa { .. });
        let of_azure = self.service == CloudService::AzureKeyVault;
        (is_rsa && of_azure) || self.decryption(CipherScheme::ServiceAead).is_some()
    }

    /// The service's name for a MAC with this hash, if it makes such.
    pub fn mac(&self, hash: Hash) -> Option<&'static str> {
        self.macs.iter().find(|(known, _)| *known == hash).map(|(_, native)| *native)
    }

    /// The hashes of its signatures, by Vault's names, for who is told what it does.
    pub fn hashes(&self) -> String {
        each_once(self.signs.iter().map(|known| known.hash.name())).join(", ")
    }
}

/// These without those that came before: what is named in a list is named in it once.
pub fn each_once<T: PartialEq>(all: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut known = Vec::new();
    for one in all {
        if !known.contains(&one) {
            known.push(one);
        }
    }
    known
}

impl std::fmt::Display for CloudKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.service, self.native)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hash_is_named_once() {
        let both = |kind: &&CloudKind| kind.native == "RSA_2048" && kind.does == CloudUse::Sign;
        let kind = CloudService::AwsKms.kinds().iter().find(both).unwrap();
        assert_eq!(kind.hashes(), "sha2-256, sha2-384, sha2-512");
    }

    #[test]
    fn a_row_is_itself_wherever_it_is_kept_and_no_other() {
        for service in CloudService::ALL {
            for (place, row) in service.kinds().iter().enumerate() {
                assert_eq!(CloudKind { ..*row }, *row);
                assert!(service.kinds()[place + 1..].iter().all(|other| other != row), "{row:?} is there twice");
            }
        }
    }
}
