//! The table of the engine's paths.

use super::Transit;
use crate::engine::table::{Row, answer, now, row};
use crate::model::Verb;

/// The first row that fits counts.
pub(super) const TABLE: &[Row<Transit>] = &[
    row(Verb::List, "keys", |transit, _, _| now(transit.list_keys())),
    row(Verb::Read, "keys/:", |transit, _, target| now(transit.read_key(&target.name))),
    row(Verb::Write, "keys/:", |transit, call, target| answer(transit.create_key(call, target.name, target.data))),
    row(Verb::Delete, "keys/:", |transit, call, target| answer(transit.delete_key(call, target.name))),
    row(Verb::Write, "keys/:/config", |transit, _, target| answer(transit.configure_key(target.name, target.data))),
    row(Verb::Write, "keys/:/rotate", |transit, call, target| {
        answer(transit.rotate_key(call, target.name, target.data))
    }),
    row(Verb::Write, "keys/:/trim", |transit, call, target| answer(transit.trim_key(call, target.name, target.data))),
    row(Verb::Write, "keys/:/csr", |transit, call, target| answer(transit.make_csr(call, target.name, target.data))),
    row(Verb::Write, "keys/:/set-certificate", |transit, call, target| {
        answer(transit.set_certificate(call, target.name, target.data))
    }),
    row(Verb::Read, "cache-config", |transit, _, _| answer(transit.read_cache_config())),
    row(Verb::Write, "cache-config", |transit, _, target| answer(transit.write_cache_config(target.data))),
    row(Verb::Read, "config/keys", |transit, _, _| answer(transit.read_keys_config())),
    row(Verb::Write, "config/keys", |transit, _, target| answer(transit.write_keys_config(target.data))),
    row(Verb::Write, "encrypt/:", |transit, call, target| {
        answer(transit.encrypt_by_path(call, target.name, target.data))
    }),
    row(Verb::Write, "decrypt/:", |transit, call, target| {
        answer(transit.decrypt_by_path(call, target.name, target.data))
    }),
    row(Verb::Write, "rewrap/:", |transit, call, target| {
        answer(transit.rewrap_by_path(call, target.name, target.data))
    }),
    row(Verb::Write, "datakey/:/:", |transit, call, target| {
        answer(transit.datakey(call, target.name, target.second, target.data))
    }),
    row(Verb::Write, "datakeys/:/:", |transit, call, target| {
        answer(transit.datakeys(call, target.name, target.second, target.data))
    }),
    row(Verb::Write, "hmac/:", |transit, call, target| {
        answer(transit.hmac_by_path(call, target.name, target.second, target.data))
    }),
    row(Verb::Write, "hmac/:/:", |transit, call, target| {
        answer(transit.hmac_by_path(call, target.name, target.second, target.data))
    }),
    row(Verb::Write, "random", |transit, _, target| answer(transit.random(target.name, target.second, target.data))),
    row(Verb::Write, "random/:", |transit, _, target| answer(transit.random(target.name, target.second, target.data))),
    row(Verb::Write, "random/:/:", |transit, _, target| {
        answer(transit.random(target.name, target.second, target.data))
    }),
    row(Verb::Write, "hash", |transit, _, target| answer(transit.hash(target.name, target.data))),
    row(Verb::Write, "hash/:", |transit, _, target| answer(transit.hash(target.name, target.data))),
    row(Verb::Read, "export/public-key/:", |transit, _, target| {
        now(transit.export_public(&target.name, "", &target.data))
    }),
    row(Verb::Read, "export/public-key/:/:", |transit, _, target| {
        now(transit.export_public(&target.name, &target.second, &target.data))
    }),
    row(Verb::Read, "export/certificate-chain/:", |transit, _, target| {
        now(transit.export_chain(&target.name, "", &target.data))
    }),
    row(Verb::Read, "export/certificate-chain/:/:", |transit, _, target| {
        now(transit.export_chain(&target.name, &target.second, &target.data))
    }),
    row(Verb::Read, "export/:/:", |transit, _, target| now(transit.refuse_export(&target.name, &target.second))),
    row(Verb::Write, "sign/:", |transit, call, target| {
        answer(transit.sign_by_path(call, target.name, target.second, target.data))
    }),
    row(Verb::Write, "sign/:/:", |transit, call, target| {
        answer(transit.sign_by_path(call, target.name, target.second, target.data))
    }),
    row(Verb::Write, "verify/:", |transit, call, target| {
        answer(transit.verify_by_path(call, target.name, target.second, target.data))
    }),
    row(Verb::Write, "verify/:/:", |transit, call, target| {
        answer(transit.verify_by_path(call, target.name, target.second, target.data))
    }),
];
