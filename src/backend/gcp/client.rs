//! The calls of one key. What is sent has its checksum beside it and what is answered is compared with its own, so that bytes
//! which were lost on the way are neither signed nor taken for a signature.

use std::sync::Arc;

use bytes::Bytes;
use google_cloud_kms_v1::model::crypto_key::CryptoKeyPurpose;
use google_cloud_kms_v1::model::crypto_key_version::CryptoKeyVersionAlgorithm;
use google_cloud_kms_v1::model::{CryptoKey, CryptoKeyVersionTemplate, ProtectionLevel};

use super::mechanism::{How, Opening, Request, Sealing, request};
use super::sealing::{crc, key_of, open, seal};
use super::{Shared, fault, find};
use crate::backend::cloud::pace::{self, Domain, Gate, Quota};
use crate::backend::cloud::{self, Call, Found, Service};
use crate::backend::{BackendError, KeyTemplate};
use crate::model::{CipherScheme, CloudKey, CloudPlace, CloudService, CloudUse, Fault, KeyOperation, wiped};

/// A key in Google Cloud KMS.
pub(super) struct GcpKey {
    /// The ring, by its whole name.
    ring: String,
    /// The key in it.
    id: String,
    /// The version, by its whole name.
    version: String,
    /// What it is registered as.
    algorithm: &'static str,
    /// The quota domain: the project, the location and where the service is.
    domain: String,
    /// The same of what is counted for the project as a whole.
    project: String,
    /// What it is called in messages.
    title: String,
    shared: Arc<Shared>,
    service: Arc<Service>,
}

impl GcpKey {
    /// None where the key is another service's.
    pub(super) fn new(key: &CloudKey, shared: Arc<Shared>, service: Arc<Service>) -> Option<GcpKey> {
        let CloudPlace::Google { project, region, key_ring, version, algorithm } = &key.place else { return None };
        let ring = format!("projects/{project}/locations/{region}/keyRings/{key_ring}");
        let version = format!("{ring}/cryptoKeys/{}/cryptoKeyVersions/{version}", key.name);
        let endpoint = key.endpoint.as_deref().unwrap_or_default();
        let domain = [project, region, endpoint].join(" ").trim_end().to_owned();
        let project = [project, endpoint].join(" ").trim_end().to_owned();
        let (id, title) = (key.name.clone(), format!("Google Cloud KMS key {key}"));
        Some(GcpKey { ring, id, version, algorithm, domain, project, title, shared, service })
    }

    async fn look_up(&self) -> Result<Option<Found>, BackendError> {
        let kms = &self.shared.client;
        let generation = self.shared.keeper.generation();
        let answered = kms.get_crypto_key_version().set_name(&self.version).send().await;
        let answered = match answered {
            Err(error) if self.is_renewed(&error, generation).await => {
                kms.get_crypto_key_version().set_name(&self.version).send().await
            }
            answered => answered,
        };
        let version = match answered.map_err(|error| fault::of("GetCryptoKeyVersion", &self.title, &error)) {
            Ok(version) => version,
            Err(error) if fault::is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        if !find::is_of(&version.name, &self.version) {
            return Err(self.by_another("GetCryptoKeyVersion"));
        }
        let kind = find::kind_of(&version, self.algorithm, &self.title)?;
        find::check_state(&version, &self.title)?;
        if kind.kind.is_secret() {
            return Ok(Some(find::secret(&version, kind)));
        }
        let published = kms.get_public_key().set_name(&self.version).send().await;
        let published = published.map_err(|error| fault::of("GetPublicKey", &self.title, &error))?;
        find::found(version.name, kind, &published, &self.title).map(Some)
    }

    /// Makes a key in an HSM, in a ring that is there. Its version can be used a little later.
    async fn make(&self, template: &KeyTemplate) -> Result<Found, BackendError> {
        let kinds = CloudService::GcpCkms.kinds();
        let row = kinds.iter().find(|row| row.native == self.algorithm && row.kind == template.kind);
        let row = row.ok_or_else(|| BackendError::keep(Fault::internal("a key of no algorithm")))?;
        let purpose = match row.does {
            CloudUse::Sign => CryptoKeyPurpose::AsymmetricSign,
            CloudUse::Decrypt if row.decryption(CipherScheme::ServiceAead).is_some() => {
                CryptoKeyPurpose::EncryptDecrypt
            }
            CloudUse::Decrypt if row.kind.is_secret() => CryptoKeyPurpose::RawEncryptDecrypt,
            CloudUse::Decrypt => CryptoKeyPurpose::AsymmetricDecrypt,
            CloudUse::Mac => CryptoKeyPurpose::Mac,
            CloudUse::SignOrDecrypt => return Err(cloud::not_supported(row, "signatures and decryption")),
        };
        let versions = CryptoKeyVersionTemplate::new()
            .set_algorithm(CryptoKeyVersionAlgorithm::from(self.algorithm))
            .set_protection_level(ProtectionLevel::Hsm);
        let key = CryptoKey::new().set_purpose(purpose).set_version_template(versions);
        let call = self.shared.client.create_crypto_key().set_parent(&self.ring).set_crypto_key_id(&self.id);
        call.set_crypto_key(key).send().await.map_err(|error| fault::of("CreateCryptoKey", &self.title, &error))?;
        Err(find::being_made(&self.title))
    }

    /// Asks once more where bytes were lost on the way, or the token was refused and there is another.
    async fn work(&self, found: &Found, operation: &KeyOperation) -> Result<Bytes, BackendError> {
        let asked = request(found, operation)?;
        let generation = self.shared.keeper.generation();
        let lost = match self.ask(found, &asked).await {
            Err(Unanswered::Refused(error)) if self.is_renewed(&error, generation).await => false,
            Err(Unanswered::Wrong(error)) if fault::is_checksum(&error) => true,
            answered => return answered.map_err(|error| self.classed(&asked, error)),
        };
        if lost {
            tracing::warn!(key = found.id, "a checksum was wrong; the call is made once more");
        }
        self.ask(found, &asked).await.map_err(|error| self.classed(&asked, error))
    }

    /// After an error of the token: whether there is another.
    async fn is_renewed(&self, error: &google_cloud_gax::error::Error, generation: u64) -> bool {
        fault::is_about_the_token(error) && self.shared.keeper.renew(generation).await
    }

    fn classed(&self, asked: &Request, error: Unanswered) -> BackendError {
        match error {
            Unanswered::Refused(error) => fault::of(asked.call(), &self.title, &error),
            Unanswered::Wrong(error) => error,
        }
    }

    async fn ask(&self, found: &Found, asked: &Request) -> Result<Bytes, Unanswered> {
        let kms = &self.shared.client;
        let call = asked.call();
        let checked = |bytes: Bytes, sent: Option<i64>, verified: bool| {
            if !verified {
                return Err(Unanswered::Wrong(fault::checksum(call, &self.title, "the request")));
            }
            if sent != Some(crc(&bytes)) {
                return Err(Unanswered::Wrong(fault::checksum(call, &self.title, "the answer")));
            }
            Ok(bytes)
        };
        match asked {
            Request::Digest(digest, bytes) => {
                let call = kms.asymmetric_sign().set_name(&found.id).set_digest(digest.clone());
                let made = call.set_digest_crc32c(crc(bytes)).send().await?;
                self.same(asked, found, &made.name)?;
                checked(made.signature, made.signature_crc32c, made.verified_digest_crc32c)
            }
            Request::Data(data) => {
                let call = kms.asymmetric_sign().set_name(&found.id).set_data(data.clone());
                let made = call.set_data_crc32c(crc(data)).send().await?;
                self.same(asked, found, &made.name)?;
                checked(made.signature, made.signature_crc32c, made.verified_data_crc32c)
            }
            Request::Decrypt(ciphertext) => {
                let call = kms.asymmetric_decrypt().set_name(&found.id).set_ciphertext(ciphertext.clone());
                let made = call.set_ciphertext_crc32c(crc(ciphertext)).send().await?;
                let plain = checked(made.plaintext, made.plaintext_crc32c, made.verified_ciphertext_crc32c)?;
                Ok(wiped(plain.into()))
            }
            Request::Seal(sealing) => {
                let sealed = seal(kms, &found.id, sealing).await?;
                self.same(asked, found, &sealed.by)?;
                Ok([&sealed.iv[..], &checked(sealed.made, sealed.sent, sealed.verified)?].concat().into())
            }
            Request::Open(opening) => {
                let opened = open(kms, &found.id, opening).await?;
                Ok(wiped(checked(opened.made, opened.sent, opened.verified)?.into()))
            }
            Request::Mac(message) => {
                let call = kms.mac_sign().set_name(&found.id).set_data(message.clone().into_bytes());
                let made = call.set_data_crc32c(crc(message.expose())).send().await?;
                self.same(asked, found, &made.name)?;
                checked(made.mac, made.mac_crc32c, made.verified_data_crc32c)
            }
        }
    }

    /// Refuses an answer by another key than the one that was asked.
    fn same(&self, asked: &Request, found: &Found, name: &str) -> Result<(), Unanswered> {
        if name == found.id {
            return Ok(());
        }
        Err(Unanswered::Wrong(self.by_another(asked.call())))
    }

    fn by_another(&self, call: &str) -> BackendError {
        cloud::ill("unreadable_answer", format!("{}: {call}: an answer by another key", self.title))
    }
}

impl Request {
    fn call(&self) -> &'static str {
        match self {
            Request::Digest(..) | Request::Data(_) => "AsymmetricSign",
            Request::Decrypt(_) => "AsymmetricDecrypt",
            Request::Seal(Sealing { how: How::Own, .. }) => "Encrypt",
            Request::Seal(_) => "RawEncrypt",
            Request::Open(Opening { how: How::Own, .. }) => "Decrypt",
            Request::Open(_) => "RawDecrypt",
            Request::Mac(_) => "MacSign",
        }
    }
}

/// Why there is no answer.
enum Unanswered {
    /// By the service's word, or on the way.
    Refused(google_cloud_gax::error::Error),
    /// There is one, and it is wrong.
    Wrong(BackendError),
}

impl From<google_cloud_gax::error::Error> for Unanswered {
    fn from(error: google_cloud_gax::error::Error) -> Unanswered {
        Unanswered::Refused(error)
    }
}

impl GcpKey {
    fn domain_of(&self, family: &str, domain: &str) -> (Arc<Domain>, u32) {
        let (quota, cost) = pace::google(family).unwrap_or((Quota::per_second(1.0), 1));
        (self.service.domains.domain(domain, self.service.quota(family, quota)), cost)
    }

    fn side_gate(&self, family: &str) -> Arc<Gate> {
        let (domain, cost) = self.domain_of(family, &format!("{} {family}", self.project));
        domain.side_gate(cost)
    }
}

impl cloud::Client for GcpKey {
    /// By project and location.
    fn gate(&self, _: &Found) -> Arc<Gate> {
        let (domain, cost) = self.domain_of("cryptographic", &self.domain);
        domain.gate(cost)
    }

    fn looks(&self) -> Arc<Gate> {
        self.side_gate("look-up")
    }

    fn makes(&self) -> Arc<Gate> {
        self.side_gate("creation")
    }

    fn find(&self) -> Call<'_, Option<Found>> {
        Box::pin(self.look_up())
    }

    /// All versions of a key decrypt what one of them made in the service's own form: they are one there.
    fn lasting_name(&self, found: &Found) -> String {
        let is_own = found.kind.decryption(CipherScheme::ServiceAead).is_some();
        if is_own { key_of(&found.id).to_owned() } else { found.id.clone() }
    }

    fn generate<'a>(&'a self, template: &'a KeyTemplate) -> Call<'a, Found> {
        Box::pin(self.make(template))
    }

    fn check(&self, found: &Found, operation: &KeyOperation) -> Result<(), BackendError> {
        request(found, operation).map(drop)
    }

    fn perform<'a>(&'a self, found: &'a Found, operation: &'a KeyOperation) -> Call<'a, Bytes> {
        Box::pin(self.work(found, operation))
    }
}
