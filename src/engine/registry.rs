//! The engines there are: the one place that names them all.

use super::{Factory, pki, transit};
use crate::model::EngineType;

/// Each engine's type, how to make one, and what can be asked of one.
const ENGINES: &[(&str, Factory, fn(&'static str) -> EngineType)] =
    &[("pki", pki::new, pki::describe), ("transit", transit::new, transit::describe)];

/// The types a mount may have.
pub fn types() -> Vec<EngineType> {
    ENGINES.iter().map(|(name, _, describe)| describe(name)).collect()
}

/// How to make an engine of this type.
pub fn factory(engine: &str) -> Option<Factory> {
    ENGINES.iter().find(|(name, ..)| *name == engine).map(|(_, factory, _)| *factory)
}
