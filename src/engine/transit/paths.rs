//! The table of the engine's paths.

use super::{Transit, fields};
use crate::engine::table::{Row, answer, now, row};
use crate::model::endpoint::{delete, list, read, write};

/// The first row that fits counts.
pub(super) const TABLE: &[Row<Transit>] = &[
    row(list("keys", "Lists the keys."), |transit, _, _| now(transit.list_keys())),
    row(read("keys/:name", "Reads a key and its versions."), |transit, _, target| now(transit.read_key(&target.name))),
    row(
        write("keys/:name", "Makes a key.").creating().takes(&[fields::KEY, fields::MANAGED]),
        |transit, call, target| answer(transit.create_key(call, target.name, target.data)),
    ),
    row(delete("keys/:name", "Deletes a key."), |transit, call, target| answer(transit.delete_key(call, target.name))),
    row(write("keys/:name/config", "Changes the settings of a key.").takes(&[fields::CONFIG]), |transit, _, target| {
        answer(transit.configure_key(target.name, target.data))
    }),
    row(write("keys/:name/rotate", "Adds a version to a key.").takes(&[fields::MANAGED]), |transit, call, target| {
        answer(transit.rotate_key(call, target.name, target.data))
    }),
    row(
        write("keys/:name/trim", "Deletes the oldest versions of a key.").takes(&[fields::TRIM]),
        |transit, call, target| answer(transit.trim_key(call, target.name, target.data)),
    ),
    row(
        write("keys/:name/csr", "Makes a certificate request by a key.").takes(&[fields::CSR]),
        |transit, call, target| answer(transit.make_csr(call, target.name, target.data)),
    ),
    row(
        write("keys/:name/set-certificate", "Keeps a certificate chain with a version of a key.")
            .takes(&[fields::CHAIN]),
        |transit, call, target| answer(transit.set_certificate(call, target.name, target.data)),
    ),
    row(read("cache-config", "Reads the size of the cache of keys."), |transit, _, _| {
        answer(transit.read_cache_config())
    }),
    row(
        write("cache-config", "Changes the size of the cache of keys.").takes(&[fields::CACHE_CONFIG]),
        |transit, _, target| answer(transit.write_cache_config(target.data)),
    ),
    row(read("config/keys", "Reads the settings of every key to come."), |transit, _, _| {
        answer(transit.read_keys_config())
    }),
    row(
        write("config/keys", "Changes the settings of every key to come.").takes(&[fields::KEYS_CONFIG]),
        |transit, _, target| answer(transit.write_keys_config(target.data)),
    ),
    row(
        write("encrypt/:name", "Encrypts with a key.").creating().takes(&[fields::ENCRYPT, fields::EXTRAS]),
        |transit, call, target| answer(transit.encrypt_by_path(call, target.name, target.data)),
    ),
    row(
        write("decrypt/:name", "Decrypts with a key.").takes(&[fields::DECRYPT, fields::EXTRAS]),
        |transit, call, target| answer(transit.decrypt_by_path(call, target.name, target.data)),
    ),
    row(
        write("rewrap/:name", "Encrypts a ciphertext anew with the latest version of its key.")
            .takes(&[fields::REWRAP, fields::EXTRAS]),
        |transit, call, target| answer(transit.rewrap_by_path(call, target.name, target.data)),
    ),
    row(
        write("datakey/:plaintext/:name", "Makes a random key, encrypted with a key.")
            .takes(&[fields::DATA_KEY, fields::EXTRAS]),
        |transit, call, target| answer(transit.datakey(call, target.name, target.second, target.data)),
    ),
    row(
        write("datakeys/:plaintext/:name", "Makes random keys, encrypted with a key.").takes(&[
            fields::DATA_KEY,
            fields::COUNT,
            fields::EXTRAS,
        ]),
        |transit, call, target| answer(transit.datakeys(call, target.name, target.second, target.data)),
    ),
    row(write("hmac/:name", "Makes an HMAC with a key.").takes(&[fields::HMAC]), |transit, call, target| {
        answer(transit.hmac_by_path(call, target.name, target.second, target.data))
    }),
    row(
        write("hmac/:name/:urlalgorithm", "Makes an HMAC with a key, by this hash.").takes(&[fields::HMAC]),
        |transit, call, target| answer(transit.hmac_by_path(call, target.name, target.second, target.data)),
    ),
    row(write("random", "Answers random bytes.").takes(&[fields::RANDOM]), |transit, _, target| {
        answer(transit.random(target.name, target.second, target.data))
    }),
    row(write("random/:urlbytes", "Answers this many random bytes.").takes(&[fields::RANDOM]), |transit, _, target| {
        answer(transit.random(target.name, target.second, target.data))
    }),
    row(
        write("random/:source/:urlbytes", "Answers this many random bytes of a source.").takes(&[fields::RANDOM]),
        |transit, _, target| answer(transit.random(target.name, target.second, target.data)),
    ),
    row(write("hash", "Hashes bytes.").takes(&[fields::HASH]), |transit, _, target| {
        answer(transit.hash(target.name, target.data))
    }),
    row(write("hash/:urlalgorithm", "Hashes bytes by this hash.").takes(&[fields::HASH]), |transit, _, target| {
        answer(transit.hash(target.name, target.data))
    }),
    row(read("export/public-key/:name", "The public keys of a key.").takes(&[fields::EXPORT]), |transit, _, target| {
        now(transit.export_public(&target.name, "", &target.data))
    }),
    row(
        read("export/public-key/:name/:version", "The public key of a version of a key.").takes(&[fields::EXPORT]),
        |transit, _, target| now(transit.export_public(&target.name, &target.second, &target.data)),
    ),
    row(read("export/certificate-chain/:name", "The certificates of a key."), |transit, _, target| {
        now(transit.export_chain(&target.name, "", &target.data))
    }),
    row(
        read("export/certificate-chain/:name/:version", "The certificates of a version of a key."),
        |transit, _, target| now(transit.export_chain(&target.name, &target.second, &target.data)),
    ),
    row(read("export/:type/:name", "Refused: no key leaves its token."), |transit, _, target| {
        now(transit.refuse_export(&target.name, &target.second))
    }),
    row(
        write("sign/:name", "Signs with a key.").takes(&[fields::SIGNATURE, fields::SIGN_BATCH]),
        |transit, call, target| answer(transit.sign_by_path(call, target.name, target.second, target.data)),
    ),
    row(
        write("sign/:name/:urlalgorithm", "Signs with a key, by this hash.")
            .takes(&[fields::SIGNATURE, fields::SIGN_BATCH]),
        |transit, call, target| answer(transit.sign_by_path(call, target.name, target.second, target.data)),
    ),
    row(
        write("verify/:name", "Checks a signature or an HMAC.").takes(&[fields::SIGNATURE, fields::VERIFY]),
        |transit, call, target| answer(transit.verify_by_path(call, target.name, target.second, target.data)),
    ),
    row(
        write("verify/:name/:urlalgorithm", "Checks a signature or an HMAC, by this hash.")
            .takes(&[fields::SIGNATURE, fields::VERIFY]),
        |transit, call, target| answer(transit.verify_by_path(call, target.name, target.second, target.data)),
    ),
];
