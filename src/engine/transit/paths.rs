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
