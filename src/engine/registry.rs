//! The engines there are: the one place that names them all.

use super::{Factory, pki, transit};

/// Each engine's type and how to make one.
const ENGINES: &[(&str, Factory)] = &[("pki", pki::new), ("transit", transit::new)];

/// The types a mount may have.
pub fn types() -> Vec<&'static str> {
    ENGINES.iter().map(|(name, _)| *name).collect()
}

/// How to make an engine of this type.
pub fn factory(engine: &str) -> Option<Factory> {
    ENGINES.iter().find(|(name, _)| *name == engine).map(|(_, factory)| *factory)
}
