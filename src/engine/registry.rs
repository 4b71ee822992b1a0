//! The engines there are: the one place that names them all.

use super::{Factory, pki, transit};
use crate::model::EngineType;

/// An engine there is.
struct Known {
    name: &'static str,
    make: Factory,
    describe: fn(&'static str) -> EngineType,
}

const ENGINES: &[Known] = &[
    Known { name: "pki", make: pki::new, describe: pki::describe },
    Known { name: "transit", make: transit::new, describe: transit::describe },
];

/// The types a mount may have.
pub fn types() -> Vec<EngineType> {
    ENGINES.iter().map(|known| (known.describe)(known.name)).collect()
}

/// How to make an engine of this type.
pub fn factory(engine: &str) -> Option<Factory> {
    ENGINES.iter().find(|known| known.name == engine).map(|known| known.make)
}
