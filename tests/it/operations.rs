//! What keys do, wherever they are: one suite for a token and for every cloud. The product's own tables say what a kind of key
//! claims to do; all of it is asked for, and openssl is the judge. A kind of key is a row of those tables, and no more.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::managed_keys::Mechanism;
use keyway::model::{CipherScheme, CloudService, Hash, SignatureScheme, Verb};
use serde_json::{Value, json};

use crate::cloud_rig::{AwsRig, CloudRig};
use crate::daemon::{Daemon, Setup};
use crate::kinds::{Holder, Kind, hashes};
use crate::openssl::{P256, openssl, request};
use crate::token::{self, Token};

const MESSAGE: &[u8] = b"We, the undersigned, agree: 48 bytes, 3 blocks.\n";
/// ML-DSA, which openssl does not judge: `post_quantum` tells of it.
const ML_DSA: u64 = 0x001d;

/// One holder, and a folder for openssl.
struct Suite {
    holder: Holder,
    folder: tempfile::TempDir,
}

fn raw(made: &Value, member: &str) -> Vec<u8> {
    STANDARD.decode(made[member].as_str().unwrap().strip_prefix("vault:v1:").unwrap()).unwrap()
}

/// One bit of it is another.
fn changed(value: &Value) -> String {
    let (front, text) = value.as_str().unwrap().rsplit_once(':').unwrap();
    let mut bytes = STANDARD.decode(text).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    format!("{front}:{}", STANDARD.encode(bytes))
}

/// What a client asks for that wants a signature made so.
fn signing(scheme: SignatureScheme, hash: Hash) -> Value {
    let mut asked = json!({"input": STANDARD.encode(MESSAGE)});
    match scheme {
        SignatureScheme::Ed25519 | SignatureScheme::MlDsa => return asked,
        SignatureScheme::Ecdsa => {}
        SignatureScheme::RsaPkcs1 => asked["signature_algorithm"] = "pkcs1v15".into(),
        SignatureScheme::RsaPss { .. } => {
            asked["signature_algorithm"] = "pss".into();
            asked["salt_length"] = "hash".into();
        }
    }
    asked["hash_algorithm"] = hash.name().into();
    asked["prehashed"] = (hash == Hash::None).into();
    asked
}

impl Suite {
    fn daemon(&self) -> &Daemon {
        self.holder.daemon()
    }

    fn openssl(&self, arguments: &[&str]) -> String {
        openssl(self.folder.path(), arguments).unwrap_or_else(|told| panic!("{arguments:?}: {told}"))
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.folder.path().join(name), bytes).unwrap();
    }

    /// Asks for what must be refused, in words of what the key is.
    async fn refused(&self, kind: &Kind, path: &str, asked: Value) {
        let (status, told) = self.daemon().refused(path, asked.clone()).await;
        let words = [&*kind.told, kind.uncertified.unwrap_or("does not allow usage"), "does not allow usage"];
        let why = words.iter().any(|word| told.contains(word));
        assert!(status == 400 && why, "{path} {asked}: {status} {told}");
    }

    /// All that there is to ask of keys of these kinds.
    async fn run(holder: Holder, kinds: &[Kind]) {
        let mut suite = Suite { holder, folder: tempfile::tempdir().unwrap() };
        suite.put("message", MESSAGE);
        request(suite.folder.path(), "www", P256, "DNS:www.example.com");
        suite.daemon().write("sys/mounts/transit", json!({"type": "transit"})).await;
        let top = kinds.iter().find(|kind| kind.certifies());
        for kind in kinds {
            suite.registers(kind).await;
            suite.signs(kind).await;
            suite.encrypts(kind).await;
            suite.makes_macs(kind).await;
        }
        if let Some(top) = top {
            suite.makes_root("top", top).await;
        }
        for kind in kinds {
            suite.certifies(kind).await;
        }
        // It serves what it served, with the same keys, after a restart: what is asked before they are proven waits.
        let made = suite.holder.made();
        suite.holder = suite.holder.restart();
        for kind in kinds {
            suite.signs_once(kind).await;
            suite.encrypts(kind).await;
            suite.makes_macs(kind).await;
        }
        assert_eq!((made, suite.holder.made()), (kinds.len() as u64, kinds.len() as u64));
    }

    /// A key is made when it is first used, and what is secret of its registration is told to nobody.
    async fn registers(&self, kind: &Kind) {
        let (daemon, path) = (self.daemon(), self.holder.path(&kind.name));
        let (given, made) = (self.holder.fields(kind), self.holder.made());
        daemon.write(&path, given.clone()).await;
        assert_eq!(self.holder.made(), made, "{} before it is used", kind.name);
        let shown = daemon.read(&path).await;
        for (field, value) in given.as_object().unwrap() {
            let secret = ["access_key", "secret_key", "client_secret", "credentials", "pin"].contains(&&**field);
            let told = if secret { json!("redacted") } else { value.clone() };
            let same = shown[field].to_string().eq_ignore_ascii_case(&told.to_string());
            assert!(same || field == "usages" || field == "mechanism", "{field} of {}: {shown}", kind.name);
            assert!(!secret || !shown.to_string().contains(&value.to_string()), "{field} of {}: {shown}", kind.name);
        }
        daemon.transit_key_on(&kind.name).await;
        assert_eq!(self.holder.made(), made + 1, "{}", kind.name);
        // What was read can be written back, as it is or without what is secret.
        let mut bare = shown.clone();
        bare.as_object_mut().unwrap().retain(|_, value| *value != "redacted");
        for fields in [shown, bare] {
            daemon.write(&path, fields).await;
        }
        assert_eq!(self.holder.made(), made + 1, "{}", kind.name);
    }

    async fn signs_once(&self, kind: &Kind) {
        if let Some((scheme, hash)) = kind.signs.first() {
            self.signs_so(kind, *scheme, *hash).await;
        }
    }

    async fn signs(&self, kind: &Kind) {
        let (name, daemon) = (&kind.name, self.daemon());
        let (sign, test) = (format!("transit/sign/{name}"), format!("{}/test/sign", self.holder.path(name)));
        if kind.signs.is_empty() {
            for (path, asked) in [(&sign, json!({"input": STANDARD.encode(MESSAGE)})), (&test, json!({}))] {
                self.refused(kind, path, asked).await;
            }
            return;
        }
        daemon.write(&test, json!({})).await;
        for (scheme, hash) in &kind.signs {
            self.signs_so(kind, *scheme, *hash).await;
        }
        let takes_message = kind.signs.iter().all(|(scheme, _)| scheme.takes_message());
        if let Some(most) = kind.message_max.filter(|_| takes_message) {
            let (status, told) = daemon.refused(&sign, json!({"input": STANDARD.encode(vec![7; most + 1])})).await;
            assert!(status == 413 && told.contains(&format!("at most {most}")), "{name}: {status} {told}");
        }
        let pss = SignatureScheme::RsaPss { salt: 0 };
        for scheme in [pss, SignatureScheme::RsaPkcs1].into_iter().filter(|_| kind.is_rsa()) {
            // Which hashes of a scheme a token knows, it says itself.
            let unknown = kind.message_max.is_none() && kind.signs.iter().any(|(known, _)| *known == scheme);
            for hash in hashes().filter(|hash| !unknown && !kind.signs.contains(&(scheme, *hash))) {
                self.refused(kind, &sign, signing(scheme, hash)).await;
            }
        }
        if let Some((_, hash)) = kind.signs.iter().find(|(scheme, _)| *scheme == pss && kind.message_max.is_some()) {
            let mut asked = signing(pss, *hash);
            asked["salt_length"] = "0".into();
            let (status, told) = daemon.refused(&sign, asked).await;
            assert!(status == 400 && told.contains("a salt as long as the hash"), "{name}: {status} {told}");
        }
    }

    /// A signature of the message, judged here, by openssl, and by Transit.
    async fn signs_so(&self, kind: &Kind, scheme: SignatureScheme, hash: Hash) {
        let (name, daemon) = (&kind.name, self.daemon());
        let mut asked = signing(scheme, hash);
        let signed = daemon.write(&format!("transit/sign/{name}"), asked.clone()).await;
        self.put("signature", raw(&signed, "signature"));
        let document = daemon.read(&format!("transit/keys/{name}")).await;
        let public = document["keys"]["1"]["public_key"].as_str().unwrap();
        self.put("key.pub", public);
        let flag = format!("-{}", hash.name().replace("sha2-", "sha"));
        let verify = match (scheme, hash) {
            (SignatureScheme::Ed25519, _) => {
                // Vault's form is the key's bytes alone; openssl wants what it is before them (RFC 8410, 4).
                let front = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
                self.put("key.pub", [&front[..], &STANDARD.decode(public).unwrap()].concat());
                vec!["pkeyutl", "-verify", "-inkey", "key.pub", "-keyform", "DER", "-rawin"]
            }
            (_, Hash::None) => vec!["pkeyutl", "-verify", "-inkey", "key.pub"],
            (SignatureScheme::RsaPss { .. }, _) => {
                vec!["dgst", &flag, "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]
            }
            _ => vec!["dgst", &flag],
        };
        let of = match verify[0] {
            "dgst" => &["-verify", "key.pub", "-signature", "signature", "message"],
            _ => &["-pubin", "-sigfile", "signature", "-in", "message"],
        };
        let verify = [&verify[..], of].concat();
        let said = self.openssl(&verify);
        assert!(said.contains("Verified"), "{name} {scheme:?} {hash:?}: {said}");
        asked["signature"] = signed["signature"].clone();
        for (input, valid) in [(MESSAGE, true), (&MESSAGE[1..], false)] {
            asked["input"] = STANDARD.encode(input).into();
            let checked = daemon.write(&format!("transit/verify/{name}"), asked.clone()).await;
            assert_eq!(checked["valid"], valid, "{name} {scheme:?} {hash:?}");
        }
    }

    async fn encrypts(&self, kind: &Kind) {
        let (name, daemon) = (&kind.name, self.daemon());
        let (encrypt, decrypt) = (format!("transit/encrypt/{name}"), format!("transit/decrypt/{name}"));
        let plaintext = STANDARD.encode(MESSAGE);
        if kind.ciphers.is_empty() {
            return self.refused(kind, &encrypt, json!({ "plaintext": plaintext })).await;
        }
        let reads = async |asked: &Value| {
            assert_eq!(daemon.write(&decrypt, asked.clone()).await["plaintext"], plaintext, "{name} {asked}");
        };
        for (scheme, padding) in kind.paddings() {
            let mut asked = json!({ "plaintext": plaintext, "padding_scheme": padding.unwrap_or_default() });
            let is_cbc = matches!(scheme, CipherScheme::AesCbc { .. });
            if padding.is_none() && !is_cbc {
                asked["associated_data"] = STANDARD.encode("aad").into();
            }
            asked["ciphertext"] = daemon.write(&encrypt, asked.clone()).await["ciphertext"].clone();
            reads(&asked).await;
            if is_cbc {
                if scheme == (CipherScheme::AesCbc { padded: false }) {
                    let (status, _) = daemon.refused(&encrypt, json!({"plaintext": STANDARD.encode("x")})).await;
                    assert_eq!(status, 400, "{name}");
                }
                continue;
            }
            let mut wrong = asked.clone();
            wrong["ciphertext"] = changed(&asked["ciphertext"]).into();
            if scheme == CipherScheme::RsaPkcs1 {
                // Some refuse it; others make up something, so that nobody learns whether the padding was right.
                let answer = daemon.ask(Verb::Write, &decrypt, wrong).await;
                let made_up = answer.status == 200 && answer.json()["data"]["plaintext"] != plaintext;
                assert!(answer.status == 400 || made_up, "{name}: {} {}", answer.status, answer.json());
            } else {
                assert_eq!(daemon.refused(&decrypt, wrong).await.0, 400, "{name} {scheme:?}");
            }
            if padding.is_some() {
                asked["ciphertext"] = self.seals(kind, scheme).await.into();
                reads(&asked).await;
            } else {
                asked["associated_data"] = STANDARD.encode("other").into();
                assert_eq!(daemon.refused(&decrypt, asked).await.0, 400, "{name} {scheme:?}");
            }
        }
    }

    /// The message as openssl encrypts it for the key.
    async fn seals(&self, kind: &Kind, scheme: CipherScheme) -> String {
        let document = self.daemon().read(&format!("transit/keys/{}", kind.name)).await;
        self.put("key.pub", document["keys"]["1"]["public_key"].as_str().unwrap());
        let mut encrypt =
            vec!["pkeyutl", "-encrypt", "-pubin", "-inkey", "key.pub", "-in", "message", "-out", "sealed"];
        let (digest, mask);
        if let CipherScheme::RsaOaep { hash } = scheme {
            let hash = hash.name().replace("sha2-", "sha");
            (digest, mask) = (format!("rsa_oaep_md:{hash}"), format!("rsa_mgf1_md:{hash}"));
            encrypt.extend(["-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", &digest, "-pkeyopt", &mask]);
        }
        self.openssl(&encrypt);
        format!("vault:v1:{}", STANDARD.encode(std::fs::read(self.folder.path().join("sealed")).unwrap()))
    }

    async fn makes_macs(&self, kind: &Kind) {
        let (name, daemon) = (&kind.name, self.daemon());
        let path = |hash: Hash| format!("transit/hmac/{name}/{}", hash.name());
        let input = json!({"input": STANDARD.encode(MESSAGE)});
        // SHA-3 has no HMAC in Vault's words, whatever the key.
        let sha_2 = hashes().filter(|hash| !hash.name().starts_with("sha3") && !kind.macs.contains(hash));
        for hash in sha_2.take(if kind.macs.is_empty() { 1 } else { 9 }) {
            let (status, told) = self.daemon().refused(&path(hash), input.clone()).await;
            assert!(status == 400 && (told.contains(name) || told.contains(&kind.told)), "{name} {hash:?}: {told}");
        }
        for hash in &kind.macs {
            let made = daemon.write(&path(*hash), input.clone()).await;
            assert_eq!(raw(&made, "hmac").len(), hash.digest_bytes(), "{name}");
            let verify = format!("transit/verify/{name}/{}", hash.name());
            for (hmac, valid) in [(made["hmac"].clone(), true), (changed(&made["hmac"]).into(), false)] {
                let asked = json!({"input": input["input"], "hmac": hmac});
                assert_eq!(daemon.write(&verify, asked).await["valid"], valid, "{name} {hash:?}");
            }
            if let Some(most) = kind.message_max {
                let (status, told) =
                    daemon.refused(&path(*hash), json!({"input": STANDARD.encode(vec![7; most + 1])})).await;
                assert!(status == 413 && told.contains(&format!("at most {most}")), "{name}: {status} {told}");
            }
        }
    }

    fn put_pem(&self, name: &str, made: &Value) {
        self.put(name, format!("{}\n", made.as_str().unwrap().trim()));
    }

    /// A mount with a root by this key. Its certificate is in a file of the mount's name.
    async fn makes_root(&self, mount: &str, kind: &Kind) -> Value {
        let settings = json!({"type": "pki", "config": {"max_lease_ttl": "87600h"}});
        self.daemon().write(&format!("sys/mounts/{mount}"), settings).await;
        let root = json!({"managed_key_name": kind.name, "common_name": mount, "ttl": "80000h"});
        let root = self.daemon().write(&format!("{mount}/root/generate/kms"), root).await;
        self.put_pem(&format!("{mount}.pem"), &root["certificate"]);
        root
    }

    /// A root by the key; and below another mount's root, an intermediate CA by it.
    async fn certifies(&self, kind: &Kind) {
        let (name, daemon) = (&kind.name, self.daemon());
        let (root, below) = (format!("{name}-root"), format!("{name}-below"));
        let intermediate = format!("{below}/intermediate/generate/kms");
        if !kind.certifies() {
            let settings = json!({"type": "pki"});
            daemon.write(&format!("sys/mounts/{below}"), settings).await;
            let asked = json!({"managed_key_name": name, "common_name": "x"});
            for path in [&format!("{below}/root/generate/kms"), &intermediate] {
                self.refused(kind, path, asked.clone()).await;
            }
            return;
        }
        self.makes_root(&root, kind).await;
        self.issues(kind, &root, &["-CAfile", &format!("{root}.pem")]).await;

        let settings = json!({"type": "pki", "config": {"max_lease_ttl": "87600h"}});
        daemon.write(&format!("sys/mounts/{below}"), settings).await;
        let asked = json!({"managed_key_name": name, "common_name": below});
        let asked = daemon.write(&intermediate, asked).await;
        self.put_pem("below.csr", &asked["csr"]);
        self.openssl(&["req", "-in", "below.csr", "-verify", "-noout"]);
        let signed = json!({"csr": asked["csr"], "use_csr_values": true, "ttl": "70000h"});
        let signed = daemon.write("top/root/sign-intermediate", signed).await;
        self.put_pem("below.pem", &signed["certificate"]);
        let bundle = [&signed["certificate"], &signed["issuing_ca"]].map(|pem| pem.as_str().unwrap().trim());
        daemon.write(&format!("{below}/intermediate/set-signed"), json!({"certificate": bundle.join("\n")})).await;
        self.put("top.crl", self.crl("top").await);
        let chain = ["-crl_check_all", "-CRLfile", "top.crl", "-CAfile", "top.pem", "-untrusted", "below.pem"];
        self.issues(kind, &below, &chain).await;
    }

    async fn crl(&self, mount: &str) -> bytes::Bytes {
        let answer = self.daemon().ask(Verb::Read, &format!("{mount}/crl/pem"), json!({})).await;
        assert_eq!(answer.status, 200, "{mount}");
        answer.body
    }

    /// What a mount issues is good, until it is revoked.
    async fn issues(&self, kind: &Kind, mount: &str, chain: &[&str]) {
        let daemon = self.daemon();
        let role = json!({"key_type": "ec", "key_bits": 256, "allow_any_name": true, "ttl": "72h"});
        daemon.write(&format!("{mount}/roles/any"), role).await;
        let csr = std::fs::read_to_string(self.folder.path().join("www.csr")).unwrap();
        let leaf = daemon.write(&format!("{mount}/sign/any"), json!({ "csr": csr })).await;
        let revoked = daemon.write(&format!("{mount}/issue/any"), json!({"common_name": "b.example.com"})).await;
        daemon.write(&format!("{mount}/revoke"), json!({"serial_number": revoked["serial_number"]})).await;
        self.put("own.crl", self.crl(mount).await);
        self.put_pem("leaf.pem", &leaf["certificate"]);
        self.put_pem("revoked.pem", &revoked["certificate"]);
        let verify = [&["verify", "-x509_strict", "-crl_check", "-CRLfile", "own.crl"], chain].concat();
        self.openssl(&[&verify[..], &["leaf.pem"]].concat());
        let refused = openssl(self.folder.path(), &[&verify[..], &["revoked.pem"]].concat()).unwrap_err();
        assert!(refused.contains("revoked"), "{mount}: {refused}");
        let shown = self.openssl(&["x509", "-in", "leaf.pem", "-noout", "-text"]);
        assert_eq!(
            shown.contains("rsassaPss"),
            kind.is_pss(),
            "{mount}: PSS is for who asks, or where there is nothing else"
        );
    }
}

#[tokio::test]
async fn keys_in_a_token_do_what_their_mechanisms_do() {
    let rsa = |bits: u32| json!({ "key_bits": bits });
    let curve = |name: &str| json!({ "curve": name });
    let mut kinds = vec![
        Kind::of_token("p256", 0x1041, &curve("P256")),
        Kind::of_token("p384", 0x1041, &curve("P384")),
        Kind::of_token("p521", 0x1041, &curve("P521")),
        Kind::of_token("pkcs1-2048", 0x0001, &rsa(2048)),
        Kind::of_token("pkcs1-3072", 0x0001, &rsa(3072)),
        Kind::of_token("pss", 0x000d, &rsa(2048)),
        Kind::of_token("oaep", 0x0009, &rsa(2048)),
        Kind::of_token("ed25519", 0x1057, &json!({})),
    ];
    for bits in [128, 192, 256] {
        let ciphers = [("cbc", 0x1082), ("padded", 0x1085), ("gcm", 0x1087)];
        kinds.extend(ciphers.map(|(name, number)| Kind::of_token(&format!("{name}-{bits}"), number, &rsa(bits))));
    }
    let macs = [0x0221, 0x0251, 0x0256, 0x0261, 0x0271];
    kinds.extend(macs.map(|number| Kind::of_token(&format!("mac-{number:x}"), number, &json!({}))));
    // Every mechanism that does something is asked for it, and what is asked for is all that it does.
    for number in (0..=0xffff).filter(|number| *number != ML_DSA && !Mechanism(*number).uses().is_empty()) {
        let text = format!("{number:#06x}");
        let kind = kinds.iter().find(|kind| kind.fields["mechanism"] == text);
        assert_eq!(kind.map(Kind::usages), Some(Mechanism(number).uses()), "{text}");
    }
    // Kryoptic makes no key on this curve.
    if token::profile() != "kryoptic" {
        kinds.push(Kind::of_token("secp256k1", 0x1041, &curve("secp256k1")));
    }
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    Suite::run(Holder::Token { daemon, token }, &kinds).await;
}

/// What Kryoptic says is no more than that it failed.
#[tokio::test]
async fn a_curve_that_a_token_does_not_make_is_told_as_such() {
    if token::profile() != "kryoptic" {
        return;
    }
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    daemon.managed_key("key", json!({"mechanism": "0x1041", "curve": "secp256k1"})).await;
    let (status, told) = daemon.refused("sys/managed-keys/pkcs11/key/test/sign", json!({})).await;
    assert!(status >= 400 && told.contains("C_GenerateKeyPair"), "{status} {told}");
}

/// The kinds of a service that are of this key type, if that is what there is to say of them.
fn kinds(service: CloudService, more: &Value, fits: impl Fn(&str) -> bool) -> Vec<Kind> {
    let kinds = service.kinds().iter().filter(|kind| fits(kind.key_type));
    kinds.flat_map(|kind| Kind::all_of_cloud(kind, more)).collect()
}

#[tokio::test]
async fn keys_in_aws_do_what_their_kinds_do() {
    let Some(aws) = AwsRig::emulated(Setup::default()).await else { return };
    Suite::run(Holder::Aws(aws), &kinds(CloudService::AwsKms, &json!({}), |_| true)).await;
}

#[tokio::test]
async fn keys_in_an_azure_key_vault_do_what_their_kinds_do() {
    let kinds = kinds(CloudService::AzureKeyVault, &json!({}), |name| name != "OCT-HSM");
    Suite::run(Holder::Cloud(CloudRig::azure("").await), &kinds).await;
}

#[tokio::test]
async fn keys_in_an_azure_managed_hsm_do_what_their_kinds_do() {
    let managed = json!({"resource": "managedhsm.azure.net"});
    let kinds = kinds(CloudService::AzureKeyVault, &managed, |name| name.ends_with("-HSM"));
    Suite::run(Holder::Cloud(CloudRig::azure("").await), &kinds).await;
}

#[tokio::test]
async fn keys_in_google_do_what_their_kinds_do() {
    // Large keys take long to make, and are waited for so long as four calls may take.
    let rig = CloudRig::google("call = \"10s\"").await;
    Suite::run(Holder::Cloud(rig), &kinds(CloudService::GcpCkms, &json!({}), |_| true)).await;
}
