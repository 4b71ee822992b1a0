//! Very many namespaces, for `keyway bench`: they are written to the store of a daemon that does not run, as the API would
//! have written them. Nothing else uses this.

use super::made;
use crate::model::{Fault, Namespace};
use crate::store::Write;

/// The change that makes a namespace of the root, the `number`th.
pub fn make(namespace: &Namespace, number: usize) -> Result<Write, Fault> {
    made::numbered(namespace, number)
}
