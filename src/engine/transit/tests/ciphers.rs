//! Encryption, decryption, MACs, data keys and what needs no key.

use super::*;

const BOTH: &str = "encrypt,decrypt";

impl Desk {
    /// A Transit key on an AES key of this mechanism.
    async fn aes(&self, name: &str, mechanism: &str) {
        self.key(name, mechanism, json!({"key_bits": 256, "usages": BOTH})).await;
    }

    async fn hmac_key(&self, name: &str, mechanism: &str) {
        self.key(name, mechanism, json!({"usages": "mac"})).await;
    }

    /// A batch: its status, and its results.
    async fn batch(&self, path: &str, data: Value) -> (u16, Vec<Value>) {
        let (status, data) = match self.ask(Verb::Write, path, data).await.unwrap() {
            Response::Failed { status, data, .. } => (status, data),
            Response::Data { data, .. } => (200, data),
            other => panic!("{other:?}"),
        };
        (status, data["batch_results"].as_array().unwrap().clone())
    }

    async fn encrypted(&self, name: &str, data: Value) -> String {
        text(&self.write(&format!("encrypt/{name}"), data).await.unwrap().0, "ciphertext").to_owned()
    }
}

fn with(data: &Value, more: Value) -> Value {
    let mut all = data.clone();
    all.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    all
}

#[test]
fn every_kind_of_key_that_encrypts_decrypts_in_its_own_way() {
    desk(|desk, _| async move {
        desk.aes("gcm", "0x1087").await;
        desk.aes("pad", "0x1085").await;
        desk.aes("cbc", "0x1082").await;
        desk.key("rsa", "0x0001", json!({"key_bits": 2048, "usages": BOTH})).await;
        desk.key("oaep", "0x0009", json!({"key_bits": 2048, "usages": BOTH})).await;
        desk.key("oaep1", "0x0009", json!({"key_bits": 2048, "usages": BOTH, "rsa_oaep_hash": "sha1"})).await;
        for (name, plaintext, options) in [
            ("gcm", "", json!({})),
            ("gcm", "a secret", json!({"associated_data": STANDARD.encode("aad")})),
            ("pad", "", json!({})),
            ("pad", "a secret", json!({})),
            ("cbc", "sixteen letters.", json!({})),
            ("rsa", "a secret", json!({})),
            ("rsa", "a secret", json!({"padding_scheme": "pkcs1v15"})),
            ("oaep", "a secret", json!({"padding_scheme": "oaep"})),
            ("oaep1", "a secret", json!({})),
        ] {
            let plaintext = STANDARD.encode(plaintext);
            let asked = with(&options, json!({"plaintext": plaintext}));
            let (made, warnings) = desk.write(&format!("encrypt/{name}"), asked.clone()).await.unwrap();
            assert_eq!((&made["key_version"], warnings.len()), (&json!(1), 0), "{name}");
            assert!(text(&made, "ciphertext").starts_with("vault:v1:"));
            // No two are alike: IVs and paddings are random.
            assert_ne!(desk.encrypted(name, asked).await, text(&made, "ciphertext"), "{name}");
            let decrypt = with(&options, json!({"ciphertext": made["ciphertext"]}));
            let (read, _) = desk.write(&format!("decrypt/{name}"), decrypt).await.unwrap();
            assert_eq!(text(&read, "plaintext"), plaintext, "{name}");
        }
    });
}

#[test]
fn what_a_key_does_not_do_is_refused_with_what_it_does() {
    desk(|desk, _| async move {
        desk.ec().await;
        desk.aes("gcm", "0x1087").await;
        desk.aes("cbc", "0x1082").await;
        desk.key("oaep", "0x0009", json!({"key_bits": 2048, "usages": BOTH})).await;
        desk.hmac_key("mac", "0x0251").await;
        let plaintext = STANDARD.encode("x");
        let encrypt = async |name: &str, more: Value| {
            desk.refused(&format!("encrypt/{name}"), with(&json!({"plaintext": plaintext}), more)).await
        };
        for (name, more, told) in [
            ("absent", json!({}), "encryption key not found"),
            ("doc", json!({}), "managed key \"doc\" does not allow usage \"encrypt\": add it to the key's usages"),
            ("oaep", json!({"padding_scheme": "pkcs1v15"}), "registered for OAEP"),
            ("gcm", json!({"padding_scheme": "oaep"}), "registered for AES"),
            (
                "gcm",
                json!({"padding_scheme": "x931"}),
                "padding_scheme \"x931\" is not supported: use oaep or pkcs1v15",
            ),
            ("oaep", json!({"associated_data": "eA=="}), "associated_data provided for non-AEAD cipher suite rsa-2048"),
            ("cbc", json!({"associated_data": "eA=="}), "associated_data provided for non-AEAD cipher suite AES-CBC"),
            ("cbc", json!({}), "plaintext has 1 bytes; this key encrypts whole blocks of 16"),
            ("oaep", json!({"nonce": "eA=="}), "nonce and iv are for AES keys"),
            ("gcm", json!({"nonce": "eA=="}), "the nonce or iv has 1 bytes; this key takes one of 12"),
            ("oaep", json!({"plaintext": STANDARD.encode([7; 191])}), "encrypts at most 190 bytes"),
            ("gcm", json!({"plaintext": "?"}), "illegal base64 data at input byte 0"),
            ("gcm", json!({"plaintext": null}), "missing plaintext to encrypt"),
            (
                "gcm",
                json!({"key_version": 2}),
                "requested version for encryption is higher than the latest key version",
            ),
            ("gcm", json!({"key_version": -1}), "requested version for encryption is negative"),
        ] {
            let found = encrypt(name, more).await;
            assert!(found.contains(told), "{name}: {found}");
        }
        for (name, ciphertext, told) in [
            ("absent", "vault:v1:AAAA", "encryption key not found"),
            ("gcm", "", "missing ciphertext to decrypt"),
            ("gcm", "AAAA", "invalid ciphertext: no prefix"),
            ("gcm", "vault:v2:AAAA", "invalid ciphertext: version is too new"),
            ("gcm", "vault:v1:AAAA", "invalid ciphertext length"),
            ("cbc", "vault:v1:AAAA", "invalid ciphertext length"),
            ("oaep", "vault:v1:AAAA", "invalid ciphertext length"),
        ] {
            assert_eq!(desk.refused(&format!("decrypt/{name}"), json!({"ciphertext": ciphertext})).await, told);
        }
        let told = desk.refused("sign/gcm", json!({"input": plaintext})).await;
        assert!(told.contains("does not allow usage \"sign\""), "{told}");
        let told = desk.refused("hmac/gcm", json!({"input": plaintext})).await;
        assert!(told.contains("making HMACs with managed key \"gcm\""), "{told}");
    });
}

#[test]
fn a_ciphertext_that_was_changed_and_another_associated_data_are_the_callers_fault() {
    desk(|desk, _| async move {
        desk.aes("gcm", "0x1087").await;
        let aad = STANDARD.encode("aad");
        let made = desk.encrypted("gcm", json!({"plaintext": STANDARD.encode("x"), "associated_data": aad})).await;
        let mut bytes = STANDARD.decode(made.strip_prefix("vault:v1:").unwrap()).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        for asked in [
            json!({"ciphertext": made}),
            json!({"ciphertext": made, "associated_data": STANDARD.encode("other")}),
            json!({"ciphertext": format!("vault:v1:{}", STANDARD.encode(bytes)), "associated_data": aad}),
        ] {
            let fault = desk.write("decrypt/gcm", asked).await.unwrap_err();
            assert!(matches!(fault, Fault::NotDecrypted { .. }), "{fault}");
        }
        assert!(desk.write("decrypt/gcm", json!({"ciphertext": made, "associated_data": aad})).await.is_ok());
    });
}

#[test]
fn a_clients_own_iv_is_used_and_stands_in_front() {
    desk(|desk, _| async move {
        desk.aes("gcm", "0x1087").await;
        desk.aes("pad", "0x1085").await;
        for (name, field, iv) in
            [("gcm", "nonce", &[3_u8; 12][..]), ("pad", "iv", &[3; 16]), ("pad", "nonce", &[4; 16])]
        {
            let made = desk.encrypted(name, json!({"plaintext": "eA==", field: STANDARD.encode(iv)})).await;
            let bytes = STANDARD.decode(made.strip_prefix("vault:v1:").unwrap()).unwrap();
            assert!(bytes.starts_with(iv));
            let decrypt = format!("decrypt/{name}");
            for more in [json!({}), json!({field: STANDARD.encode(iv)})] {
                let read = desk.write(&decrypt, with(&json!({"ciphertext": made}), more)).await.unwrap().0;
                assert_eq!(read["plaintext"], "eA==");
            }
            let other = STANDARD.encode(vec![9; iv.len()]);
            let told = desk.refused(&decrypt, json!({"ciphertext": made, field: other})).await;
            assert_eq!(told, "the ciphertext was made with another nonce or iv");
        }
        let told = desk.refused("encrypt/gcm", json!({"plaintext": "eA==", "nonce": "eA==", "iv": "eA=="})).await;
        assert_eq!(told, "only one of nonce and iv may be given");
    });
}

#[test]
fn batches_answer_each_item_and_a_status_for_all() {
    desk(|desk, _| async move {
        desk.aes("gcm", "0x1087").await;
        let good = json!({"plaintext": "eA==", "reference": "a"});
        let bad = json!({"plaintext": "?", "reference": "b"});
        let (status, made) = desk.batch("encrypt/gcm", json!({"batch_input": [good, good]})).await;
        assert_eq!((status, made[0]["reference"].clone(), made[1]["key_version"].clone()), (200, json!("a"), json!(1)));
        let (status, mixed) = desk.batch("encrypt/gcm", json!({"batch_input": [good, bad]})).await;
        assert_eq!(status, 400);
        assert_eq!(mixed[1], json!({"error": "illegal base64 data at input byte 0", "reference": "b"}));
        assert!(mixed[0]["ciphertext"].is_string());
        for (code, status) in [(207, 207), (600, 400), (101, 400), (1, 400), (-1, 400)] {
            let asked = json!({"batch_input": [good, bad], "partial_failure_response_code": code});
            assert_eq!(desk.batch("encrypt/gcm", asked).await.0, status);
            let asked = json!({"batch_input": [bad], "partial_failure_response_code": code});
            assert_eq!(desk.batch("encrypt/gcm", asked).await.0, 400);
        }
        let ciphertext = made[0]["ciphertext"].clone();
        let asked = json!({"batch_input": [{"ciphertext": ciphertext}, {"ciphertext": "", "reference": "c"}]});
        let (status, read) = desk.batch("decrypt/gcm", asked).await;
        assert_eq!((status, &read[0]), (400, &json!({"plaintext": "eA==", "reference": ""})));
        assert_eq!(read[1], json!({"error": "missing ciphertext to decrypt", "plaintext": "", "reference": "c"}));
        let asked = json!({"batch_input": [{"ciphertext": ciphertext}, {"ciphertext": "x"}]});
        let (status, again) = desk.batch("rewrap/gcm", asked).await;
        assert_eq!((status, again[1]["error"].clone()), (200, json!("invalid ciphertext: no prefix")));
        assert!(again[0]["ciphertext"].is_string());
        for (path, asked, told) in [
            ("encrypt/gcm", json!({"batch_input": []}), "missing batch input to process"),
            ("encrypt/gcm", json!({"batch_input": [{}]}), "'[0].plaintext' missing plaintext to encrypt"),
            ("decrypt/gcm", json!({"batch_input": [{}]}), "'[0].ciphertext' missing ciphertext to decrypt"),
            (
                "encrypt/gcm",
                json!({"batch_input": [good, with(&good, json!({"context": "eA=="}))]}),
                "context should be set",
            ),
        ] {
            let found = desk.refused(path, asked).await;
            assert!(found.contains(told), "{found}");
        }
    });
}

#[test]
fn a_device_that_fails_an_item_is_an_error_of_ours_unless_a_user_erred_too() {
    desk(|desk, token| async move {
        desk.aes("gcm", "0x1087").await;
        let good = json!({"plaintext": "eA=="});
        let made = desk.encrypted("gcm", good.clone()).await;
        // Where it meets the proof that comes before a session's first operation, that finds another way.
        let failing = async |asked: Value| loop {
            token.fail_next_for_good(Fault::DeviceError { what: "it burns".into() });
            let (status, results) = desk.batch("encrypt/gcm", asked.clone()).await;
            if results[0].get("error").is_some() {
                return (status, results);
            }
        };
        let (status, failed) = failing(json!({"batch_input": [good]})).await;
        assert_eq!((status, failed[0]["error"].clone()), (500, json!("device error: it burns")));
        assert_eq!(failing(json!({"batch_input": [good, {"plaintext": "?"}]})).await.0, 400);
        let fault = loop {
            token.fail_next_for_good(Fault::DeviceError { what: "it burns".into() });
            if let Err(fault) = desk.write("rewrap/gcm", json!({"batch_input": [{"ciphertext": made}]})).await {
                break fault;
            }
        };
        assert!(matches!(fault, Fault::DeviceError { .. }), "{fault}");
    });
}

#[test]
fn macs_are_made_and_verified_by_the_key() {
    desk(|desk, _| async move {
        desk.hmac_key("mac", "0x0251").await;
        desk.hmac_key("long", "0x0271").await;
        let input = STANDARD.encode("message");
        let hmac = |made: Data| made["hmac"].clone();
        let made = hmac(desk.write("hmac/mac", json!({"input": input})).await.unwrap().0);
        assert_eq!(made, hmac(desk.write("hmac/mac/sha2-256", json!({"input": input})).await.unwrap().0));
        let long = hmac(desk.write("hmac/long", json!({"input": input})).await.unwrap().0);
        let bytes =
            |value: &Value| STANDARD.decode(value.as_str().unwrap().strip_prefix("vault:v1:").unwrap()).unwrap();
        assert_eq!((bytes(&made).len(), bytes(&long).len()), (32, 64));
        let valid = async |input: &str, hmac: &Value| {
            desk.write("verify/mac", json!({"input": input, "hmac": hmac})).await.unwrap().0["valid"].clone()
        };
        assert_eq!(valid(&input, &made).await, true);
        assert_eq!(valid(&STANDARD.encode("massage"), &made).await, false);
        assert_eq!(valid(&input, &long).await, false);
        let asked = json!({"batch_input": [{"input": input, "reference": "r"}, {}]});
        let (status, results) = desk.batch("hmac/mac", asked).await;
        assert_eq!((status, &results[0]), (200, &json!({"hmac": made, "reference": "r"})));
        assert_eq!(results[1], json!({"error": "missing input for HMAC", "reference": ""}));
        let asked = json!({"batch_input": [{"input": input, "hmac": made}, {"input": input, "hmac": "x"}]});
        let (status, results) = desk.batch("verify/mac", asked).await;
        assert_eq!((status, &results[0]), (200, &json!({"valid": true, "reference": ""})));
        assert_eq!(results[1]["error"], "invalid HMAC to verify: no prefix");
        for (path, asked, told) in [
            ("hmac/absent", json!({"input": input}), "encryption key not found"),
            ("hmac/mac", json!({}), "missing input for HMAC"),
            (
                "hmac/mac",
                json!({"input": "?"}),
                "unable to decode input as base64: illegal base64 data at input byte 0",
            ),
            ("hmac/mac/sha2-512", json!({"input": input}), "makes HMACs with sha2-256, and not with sha2-512"),
            ("hmac/mac/md5", json!({"input": input}), "unsupported algorithm \"md5\""),
            (
                "hmac/mac",
                json!({"input": input, "key_version": 2}),
                "key version does not exist; latest key version is 1",
            ),
            ("verify/mac", json!({"input": input}), "neither a 'signature' nor an 'hmac' were given to verify"),
            (
                "verify/mac",
                json!({"input": input, "hmac": "a", "signature": "b"}),
                "provide one of 'signature' or 'hmac'",
            ),
            ("verify/mac", json!({"input": input, "hmac": "vault:v2:AA=="}), "invalid HMAC: version is too new"),
            ("verify/mac", json!({"input": input, "signature": "vault:v1:AA=="}), "not allow usage \"verify\""),
            (
                "verify/mac",
                json!({"batch_input": [{"input": input, "hmac": made}, {"input": input}]}),
                "elements of batch_input must all provide 'hmac'",
            ),
        ] {
            let found = desk.refused(path, asked).await;
            assert!(found.contains(told), "{path}: {found}");
        }
    });
}

#[test]
fn data_keys_come_encrypted_and_if_asked_as_they_are() {
    desk(|desk, _| async move {
        desk.aes("gcm", "0x1087").await;
        let (made, _) = desk.write("datakey/plaintext/gcm", json!({"bits": 512})).await.unwrap();
        assert_eq!(STANDARD.decode(text(&made, "plaintext")).unwrap().len(), 64);
        let read = desk.write("decrypt/gcm", json!({"ciphertext": made["ciphertext"]})).await.unwrap().0;
        assert_eq!(read["plaintext"], made["plaintext"]);
        let (wrapped, _) = desk.write("datakey/wrapped/gcm", json!({})).await.unwrap();
        assert_eq!((wrapped.get("plaintext"), &wrapped["key_version"]), (None, &json!(1)));
        let (pairs, _) = desk.write("datakeys/plaintext/gcm", json!({"count": 3, "bits": 128})).await.unwrap();
        let keys = pairs["key_pairs"].as_array().unwrap();
        assert_eq!((keys.len(), &pairs["key_version"]), (3, &json!(1)));
        assert_ne!(keys[0]["plaintext"], keys[1]["plaintext"]);
        for (path, asked, told) in [
            ("datakey/other/gcm", json!({}), "Invalid path, must be 'plaintext' or 'wrapped'"),
            ("datakey/wrapped/gcm", json!({"bits": 64}), "invalid bit length"),
            ("datakey/wrapped/absent", json!({}), "encryption key not found"),
            ("datakeys/wrapped/gcm", json!({"count": 0}), "count must be at least 1"),
            (
                "datakeys/wrapped/gcm",
                json!({"count": 101}),
                "too large: count is 101; at most 100 keys are made at once",
            ),
        ] {
            assert_eq!(desk.refused(path, asked).await, told);
        }
    });
}

#[test]
fn random_bytes_and_digests_need_no_key() {
    desk(|desk, _| async move {
        let random = async |path: &str, data: Value| desk.write(path, data).await.unwrap();
        let bytes = |data: &Data| STANDARD.decode(text(data, "random_bytes")).unwrap().len();
        assert_eq!(bytes(&random("random", json!({})).await.0), 32);
        assert_eq!(bytes(&random("random/7", json!({})).await.0), 7);
        assert_eq!(bytes(&random("random/platform/300000", json!({"bytes": 5})).await.0), 300_000);
        let (seal, warnings) = random("random/seal/8", json!({"format": "hex"})).await;
        assert_eq!((text(&seal, "random_bytes").len(), warnings.len()), (16, 1));
        for (path, asked, told) in [
            ("random/0", json!({}), "\"bytes\" cannot be less than 1"),
            ("random/seal/200000", json!({}), "\"bytes\" must be less than 131072"),
            (
                "random/moon",
                json!({}),
                "unsupported entropy source \"moon\"; must be \"platform\" or \"seal\", or \"all\"",
            ),
            ("random", json!({"format": "raw"}), "unsupported encoding format \"raw\"; must be \"hex\" or \"base64\""),
            ("hash", json!({}), "input missing"),
            ("hash/sha1", json!({"input": ""}), "unsupported algorithm \"sha1\""),
        ] {
            assert_eq!(desk.refused(path, asked).await, told);
        }
        let abc = STANDARD.encode("abc");
        let sum = random("hash", json!({"input": abc})).await.0;
        assert_eq!(sum["sum"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let sum = random("hash/sha3-224", json!({"input": abc, "format": "base64"})).await.0;
        let digest = STANDARD.decode(text(&sum, "sum")).unwrap();
        assert_eq!(hex::encode(digest), "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf");
    });
}
