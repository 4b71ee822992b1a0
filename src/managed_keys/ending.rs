//! The end of a namespace: its managed keys are served no more, and what they name is given back. The keys in the tokens stay.

use std::sync::Arc;

use super::registry::{Entry, ManagedKeys};
use crate::model::{Fault, Namespace};

impl ManagedKeys {
    /// Serves no key of a namespace that was deleted, gives their tokens and claims back, and takes no more of them until
    /// [`ManagedKeys::reopen_namespace`]. Their records are for who called to remove.
    pub async fn end_namespace(&self, namespace: &Namespace) -> Result<(), Fault> {
        let (this, own) = (self.clone(), namespace.clone());
        self.changes().run(namespace, move || this.end_namespace_now(&own)).await
    }

    fn end_namespace_now(&self, namespace: &Namespace) -> Result<(), Fault> {
        let entries: Vec<Arc<Entry>> = self.table().entries(namespace).cloned().collect();
        self.change_table(|table| {
            table.end(namespace);
            Arc::make_mut(&mut table.closed).insert(namespace.clone());
        });
        self.end_claims(namespace);
        self.forget_bindings(|mount| mount.namespace == *namespace);
        entries.iter().for_each(|entry| self.let_go(entry));
        self.supervisor().forget_namespace(namespace);
        tracing::info!(%namespace, keys = entries.len(), "the managed keys of a deleted namespace are released");
        Ok(())
    }

    /// Takes keys of a namespace again: what was left of the one that was deleted is gone.
    pub async fn reopen_namespace(&self, namespace: &Namespace) -> Result<(), Fault> {
        let (this, own) = (self.clone(), namespace.clone());
        let reopen = move || {
            this.change_table(|table| {
                Arc::make_mut(&mut table.closed).remove(&own);
            });
            Ok(())
        };
        self.changes().run(namespace, reopen).await
    }

    /// Refuses a key of a namespace that is being deleted. Part of a change.
    pub(super) fn check_open(&self, namespace: &Namespace) -> Result<(), Fault> {
        if self.table().closed.contains(namespace) {
            return Err(Fault::invalid(format!("namespace {:?} is being deleted", namespace.as_str())));
        }
        Ok(())
    }
}
