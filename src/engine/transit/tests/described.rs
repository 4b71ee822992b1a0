//! What the table of paths says of the fields of requests is what the handlers read. That they read nothing else holds for
//! every test of the engine; that they read all of it is tried here.

use super::*;

#[test]
fn every_field_that_is_listed_is_read() {
    desk(|desk, _| async move {
        desk.ec().await;
        desk.key("aes", "0x1087", json!({"key_bits": 256, "usages": "encrypt,decrypt"})).await;
        desk.key("mac", "0x0251", json!({"key_bits": 256, "usages": "mac"})).await;
        desk.key("rsa", "0x0009", json!({"key_bits": 2048, "usages": "encrypt,decrypt"})).await;
        let (one, none) = (STANDARD.encode("one"), json!({}));
        let sealed = desk.write("encrypt/aes", json!({"plaintext": one})).await.unwrap().0;
        let sealed = json!([{"ciphertext": sealed["ciphertext"]}]);
        for (verb, path, data) in [
            (Verb::Write, "keys/new", json!({"type": "hmac"})),
            (Verb::Write, "keys/doc/config", none.clone()),
            (Verb::Write, "keys/doc/rotate", none.clone()),
            (Verb::Write, "keys/doc/trim", none.clone()),
            (Verb::Write, "keys/doc/csr", none.clone()),
            (Verb::Write, "keys/doc/set-certificate", none.clone()),
            (Verb::Write, "cache-config", none.clone()),
            (Verb::Write, "config/keys", none.clone()),
            (Verb::Write, "encrypt/aes", json!({"batch_input": [{"plaintext": one}]})),
            (Verb::Write, "decrypt/aes", json!({"batch_input": sealed})),
            (Verb::Write, "rewrap/aes", json!({"batch_input": sealed})),
            (Verb::Write, "datakey/plaintext/aes", none.clone()),
            (Verb::Write, "datakeys/plaintext/aes", none.clone()),
            (Verb::Write, "hmac/mac", json!({"batch_input": [{"input": one}]})),
            (Verb::Write, "hmac/mac/sha2-256", json!({"batch_input": [{"input": one}]})),
            (Verb::Write, "random", none.clone()),
            (Verb::Write, "random/8", none.clone()),
            (Verb::Write, "random/platform/8", none.clone()),
            (Verb::Write, "hash", json!({"input": one})),
            (Verb::Write, "hash/sha2-512", json!({"input": one})),
            (Verb::Read, "export/public-key/doc", none.clone()),
            (Verb::Read, "export/public-key/doc/1", none.clone()),
            (Verb::Write, "sign/doc", json!({"batch_input": [{"input": one}]})),
            (Verb::Write, "sign/doc/sha2-512", json!({"batch_input": [{"input": one}]})),
            (Verb::Write, "verify/doc", json!({"batch_input": [{"input": one, "signature": "x"}]})),
            (Verb::Write, "verify/mac", json!({"batch_input": [{"input": one, "hmac": "x"}]})),
            (Verb::Write, "verify/doc/sha2-512", json!({"batch_input": [{"input": one, "signature": "x"}]})),
            (Verb::Write, "verify/mac/sha2-512", json!({"batch_input": [{"input": one, "hmac": "x"}]})),
        ] {
            // Whether it goes well is of no account here.
            let _ = desk.ask(verb, path, data).await;
        }
        let readings = desk.readings.lock();
        let unread = recorder::unread(&table::endpoints(paths::TABLE), &readings);
        assert!(unread.is_empty(), "{}", unread.join("\n"));
    });
}

#[test]
fn every_part_of_a_path_is_described() {
    for endpoint in table::endpoints(paths::TABLE) {
        for part in endpoint.open_parts() {
            assert!(fields::PARTS.iter().any(|field| field.name == part), "{}: {part}", endpoint.pattern);
        }
    }
}
