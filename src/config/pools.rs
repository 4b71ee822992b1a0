//! `kms_pool "name" { member { … } }` and `namespace "path" { … }`: the stanzas whose label is a name of the operator's.

use hcl::edit::Span;
use hcl::edit::structure::Block;

use super::document::{Document, Problem};
use super::reader::{Reader, text};
use super::reference;
use super::{Grants, KmsLibrary, KmsPool, NamespaceSettings, PoolMember};
use crate::model::{CloudService, Namespace, TokenSelector};

/// Members of one pool.
const MEMBERS_MAX: usize = 64;
/// What stands in metrics where there is no pool: so none may be called.
pub const NO_POOL: &str = "none";
/// What `weight` may be.
const WEIGHTS: std::ops::RangeInclusive<usize> = 1..=1000;

/// A pool; the second answer says whether a PIN stands in the file itself.
pub(super) fn kms_pool(stanza: &mut Reader<'_>, block: &Block, name: &str) -> Option<(KmsPool, bool)> {
    let mut members = Vec::new();
    let mut any_inline = false;
    let mut whole = true;
    if name.contains('/') || name.eq_ignore_ascii_case(NO_POOL) {
        stanza.refuse(format!(
            "no kms_pool may be called {name:?}: metrics call tokens that are in no kms_pool \"LIBRARY/TOKEN\", and none at \
             all {NO_POOL:?}; choose a name without \"/\""
        ));
        whole = false;
    }
    for nested in block.body.blocks().filter(|nested| nested.ident.as_str() == "member") {
        let mut reader = stanza.nested(nested, format!("a member of kms_pool {name:?}"));
        if !nested.labels.is_empty() {
            reader.refuse("expected member { … }, without a label");
        }
        match member(&mut reader) {
            Some((member, inline)) => {
                any_inline |= inline;
                members.push(member);
            }
            None => whole = false,
        }
        reader.finish();
    }
    if whole && (members.is_empty() || members.len() > MEMBERS_MAX) {
        stanza.refuse(format!("a kms_pool has from 1 to {MEMBERS_MAX} stanzas member {{ library, token_label, … }}"));
        return None;
    }
    let namespaces = Grants::read(stanza);
    whole.then(|| (KmsPool { name: name.to_owned(), members, namespaces }, any_inline))
}

fn member(stanza: &mut Reader<'_>) -> Option<(PoolMember, bool)> {
    let library = stanza.required("library");
    let token = stanza.token("a member");
    let pin = stanza.parsed("pin", |expression| reference::fetch(text(expression)?));
    let mut sessions = 0;
    stanza.count("max_sessions", 1..=1024, &mut sessions);
    let (pin, inline) = pin.map_or((None, false), |(pin, inline)| (Some(pin), inline));
    let max_sessions = (sessions > 0).then_some(sessions);
    Some((PoolMember { library: library?, token: token?, pin, max_sessions }, inline))
}

pub(super) fn namespace(stanza: &mut Reader<'_>, label: &str) -> Option<NamespaceSettings> {
    let mut weight = 1;
    stanza.count("weight", WEIGHTS, &mut weight);
    let path = Namespace::from_path(label);
    if let Err(wrong) = path.check() {
        stanza.refuse(format!("namespace {label:?}: {wrong}"));
        return None;
    }
    Some(NamespaceSettings { path, weight: u32::try_from(weight).unwrap_or(1) })
}

/// What only shows when everything is read: names in common, members of libraries that are not there, members of two
/// pools, members without a PIN.
pub(super) fn check(pools: &[(KmsPool, String)], libraries: &[(KmsLibrary, String)]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen: Vec<(String, &TokenSelector, &str)> = Vec::new();
    let names = libraries.iter().map(|(library, here)| ("kms_library", &library.name, here));
    for (stanza, name, here) in names.chain(pools.iter().map(|(pool, here)| ("kms_pool", &pool.name, here))) {
        if let Some(service) = CloudService::from_name(&name.to_lowercase()) {
            wrong.push(format!("{here}: no {stanza} may be called {name:?}, which is the name of {}", service.title()));
        }
    }
    for (pool, here) in pools {
        if let Some((_, first)) = libraries.iter().find(|(library, _)| library.name.eq_ignore_ascii_case(&pool.name)) {
            wrong.push(format!("{here}: kms_pool {:?} and a kms_library share one name, at {first}", pool.name));
        }
        for member in &pool.members {
            let whose = format!("{here}: kms_pool {:?}: member {}", pool.name, member.token);
            let found = libraries.iter().find(|(library, _)| library.name.eq_ignore_ascii_case(&member.library));
            match found {
                None => wrong.push(format!("{whose}: there is no kms_library {:?}", member.library)),
                Some((library, _)) if library.pin.is_none() && member.pin.is_none() => {
                    wrong.push(format!("{whose} needs a pin: kms_library {:?} has none", member.library));
                }
                Some(_) => {}
            }
            let library = member.library.to_lowercase();
            if let Some((_, _, first)) = seen.iter().find(|known| known.0 == library && *known.1 == member.token) {
                wrong.push(format!("{whose} of {:?} is in kms_pool {first:?} already", member.library));
            }
            seen.push((library, &member.token, &pool.name));
        }
    }
    wrong
}

/// The name a stanza carries as its label, or what is wrong with it.
pub(super) fn label<'b>(document: &Document, block: &'b Block) -> Result<&'b str, Problem> {
    match block.labels.as_slice() {
        [label] if !label.as_str().is_empty() => Ok(label.as_str()),
        labels => {
            let at = labels.first().and_then(Span::span).or(block.ident.span());
            let name = block.ident.as_str();
            Err(document.problem(at.map_or(0, |span| span.start), format!("expected {name} \"NAME\" {{ … }}")))
        }
    }
}
