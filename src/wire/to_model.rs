//! From the framed wire's messages to the model.

use bytes::Bytes;

use super::proto;
use crate::model::{
    Body, CertificateRequest, CertificatesRequest, Data, DecryptRequest, EncryptRequest, Fault, Hash, MacRequest,
    Marshaling, Request, RsaPadding, SaltLength, SecretBytes, SignRequest, SignatureScheme, Verb, VerifyRequest,
};

/// What a call asks for.
#[derive(Debug)]
pub enum CallBody {
    /// The connection's own business: who asks.
    Hello(proto::Hello),
    /// Is anybody there?
    Ping(Bytes),
    /// An operation.
    Operation(Body),
}

/// Reads a call's operation.
pub fn parse_call(operation: Option<proto::call::Operation>) -> Result<CallBody, Fault> {
    use proto::call::Operation;
    match operation {
        None => Err(Fault::invalid("the call has no operation this version knows")),
        Some(Operation::Hello(hello)) => Ok(CallBody::Hello(hello)),
        Some(Operation::Ping(ping)) => Ok(CallBody::Ping(ping.payload)),
        Some(Operation::Sign(sign)) => Ok(CallBody::Operation(Body::Sign(sign_request(sign)?))),
        Some(Operation::Verify(verify)) => {
            let signed = verify.signed.ok_or_else(|| Fault::invalid("verify: `signed` is missing"))?;
            let request = VerifyRequest { signed: sign_request(signed)?, signature: verify.signature };
            Ok(CallBody::Operation(Body::Verify(request)))
        }
        Some(Operation::Encrypt(encrypt)) => Ok(CallBody::Operation(Body::Encrypt(EncryptRequest {
            mount: encrypt.mount,
            key: encrypt.key,
            key_version: encrypt.key_version,
            plaintext: SecretBytes::lent(encrypt.plaintext),
            associated_data: encrypt.associated_data,
            padding: padding(encrypt.padding)?,
        }))),
        Some(Operation::Decrypt(decrypt)) => Ok(CallBody::Operation(Body::Decrypt(DecryptRequest {
            mount: decrypt.mount,
            key: decrypt.key,
            key_version: decrypt.key_version,
            ciphertext: decrypt.ciphertext,
            associated_data: decrypt.associated_data,
            padding: padding(decrypt.padding)?,
        }))),
        Some(Operation::Mac(mac)) => Ok(CallBody::Operation(Body::Mac(MacRequest {
            mount: mac.mount,
            key: mac.key,
            key_version: mac.key_version,
            input: SecretBytes::lent(mac.input),
            hash: hash(mac.hash)?,
        }))),
        Some(Operation::SignCertificate(sign)) => Ok(CallBody::Operation(Body::SignCertificate(CertificateRequest {
            mount: sign.mount,
            role: sign.role,
            csr: sign.csr,
            data: data(&sign.data)?,
        }))),
        Some(Operation::SignCertificates(sign)) => {
            Ok(CallBody::Operation(Body::SignCertificates(CertificatesRequest {
                mount: sign.mount,
                role: sign.role,
                csrs: sign.csrs,
                data: data(&sign.data)?,
            })))
        }
        Some(Operation::Request(request)) => {
            let verb = match proto::Verb::try_from(request.verb) {
                Ok(proto::Verb::Read) => Verb::Read,
                Ok(proto::Verb::Write) => Verb::Write,
                Ok(proto::Verb::Patch) => Verb::Patch,
                Ok(proto::Verb::Delete) => Verb::Delete,
                Ok(proto::Verb::List) => Verb::List,
                Err(_) => return Err(unknown("verb", request.verb)),
            };
            let data = data(&request.data)?;
            Ok(CallBody::Operation(Body::Request(Request {
                verb,
                path: request.path,
                data,
                raw: Bytes::new(),
                if_modified_since: None,
            })))
        }
    }
}

fn sign_request(sign: proto::Sign) -> Result<SignRequest, Fault> {
    let salt = match (sign.salt_as_hash, sign.salt_length) {
        (true, _) => SaltLength::Hash,
        (false, None) => SaltLength::Auto,
        (false, Some(bytes)) => {
            SaltLength::Bytes(u16::try_from(bytes).map_err(|_| Fault::invalid("salt_length is over 65535"))?)
        }
    };
    let scheme = match proto::Padding::try_from(sign.padding) {
        Ok(proto::Padding::Default) => None,
        Ok(proto::Padding::Pss) => Some(SignatureScheme::RsaPss { salt: 0 }),
        Ok(proto::Padding::Pkcs1v15) => Some(SignatureScheme::RsaPkcs1),
        Err(_) => return Err(unknown("padding", sign.padding)),
    };
    let marshaling = match proto::Marshaling::try_from(sign.marshaling) {
        Ok(proto::Marshaling::Asn1) => Marshaling::Asn1,
        Ok(proto::Marshaling::Jws) => Marshaling::Jws,
        Err(_) => return Err(unknown("marshaling", sign.marshaling)),
    };
    Ok(SignRequest {
        mount: sign.mount,
        key: sign.key,
        key_version: sign.key_version,
        input: sign.input,
        prehashed: sign.prehashed,
        hash: hash(sign.hash)?,
        scheme,
        salt,
        marshaling,
    })
}

fn padding(value: i32) -> Result<Option<RsaPadding>, Fault> {
    Ok(match proto::EncryptionPadding::try_from(value).map_err(|_| unknown("padding", value))? {
        proto::EncryptionPadding::Default => None,
        proto::EncryptionPadding::Oaep => Some(RsaPadding::Oaep),
        proto::EncryptionPadding::Pkcs1v15 => Some(RsaPadding::Pkcs1v15),
    })
}

fn hash(value: i32) -> Result<Option<Hash>, Fault> {
    Ok(match proto::Hash::try_from(value).map_err(|_| unknown("hash", value))? {
        proto::Hash::Default => None,
        proto::Hash::None => Some(Hash::None),
        proto::Hash::Sha1 => Some(Hash::Sha1),
        proto::Hash::Sha2224 => Some(Hash::Sha2_224),
        proto::Hash::Sha2256 => Some(Hash::Sha2_256),
        proto::Hash::Sha2384 => Some(Hash::Sha2_384),
        proto::Hash::Sha2512 => Some(Hash::Sha2_512),
        proto::Hash::Sha3224 => Some(Hash::Sha3_224),
        proto::Hash::Sha3256 => Some(Hash::Sha3_256),
        proto::Hash::Sha3384 => Some(Hash::Sha3_384),
        proto::Hash::Sha3512 => Some(Hash::Sha3_512),
    })
}

/// A JSON object; no bytes are an empty one.
fn data(bytes: &[u8]) -> Result<Data, Fault> {
    if bytes.is_empty() {
        return Ok(Data::new());
    }
    serde_json::from_slice(bytes).map_err(|error| Fault::invalid(format!("data is not a JSON object: {error}")))
}

fn unknown(field: &str, value: i32) -> Fault {
    Fault::invalid(format!("{field} {value} is not one this version knows"))
}
