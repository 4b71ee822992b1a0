//! Another configuration while requests are served. Part of the overseer: the members that do not fit it leave, others come in
//! their places, and what waits in the lanes waits for those.

use std::collections::HashSet;
use std::sync::Arc;

use actix::prelude::*;

use super::leaving::Leave;
use super::overseer::Overseer;
use super::pools::not_there;
use super::regroup::Regrouped;
use super::route::{KeyRoute, MemberId};
use super::slot_actor::Adopt;
use super::supervisor::{Change, Remade};
use crate::model::Fault;

/// Managed keys that are named when a library is gone: tenants may register very many.
const LOST_SHOWN: usize = 32;

/// Takes another configuration over. Answered when the members that go have been told, and those that come were started.
pub(super) struct Reconfigure(pub(super) Change);

impl Message for Reconfigure {
    type Result = ();
}

impl Handler<Reconfigure> for Overseer {
    type Result = ();

    fn handle(&mut self, Reconfigure(change): Reconfigure, _: &mut Self::Context) {
        self.regroup(change);
        if self.pools_wanted {
            self.bring_up_pools();
        }
    }
}

impl Overseer {
    /// Has the members that do not fit it leave, and makes others in their places, which are not brought up yet.
    pub(super) fn regroup(&mut self, change: Change) {
        // What was let go of before is none of this.
        self.let_go();
        let Regrouped { gone, left, fresh } = self.shared.pools.regroup(&change);
        self.libraries.retain(|name, _| change.has(name));
        let Change { made, libraries, pools, limits } = change;
        for Remade { library, .. } in made {
            self.libraries.insert(library.name.to_lowercase(), library);
        }
        (self.limits, self.pools) = (limits, pools);
        let in_order = libraries.iter().filter_map(|name| self.libraries.get(&name.to_lowercase()));
        self.shared.know(in_order, &self.pools, &self.limits);
        // In this order: jobs wait for who comes before those who go are out of the key sets.
        let lost = self.lead_anew(&fresh);
        left.iter().for_each(|pool| pool.hand_on());
        let why = Fault::Unavailable { what: "its library was configured anew; try again".into() };
        for member in &gone {
            self.unstarted.remove(&member.id);
            if let Some((_, address)) = self.slots.remove(&member.id) {
                let last = left.iter().any(|pool| Arc::ptr_eq(pool, &member.pool));
                address.do_send(Leave { why: why.clone(), last });
            }
        }
        let served = |pool: &Arc<_>| gone.iter().any(|member| Arc::ptr_eq(&member.pool, pool));
        left.iter().filter(|pool| !served(pool)).for_each(|pool| pool.close());
        lost.iter().for_each(|route| route.lane().sweep());
        // Of members that stay more may be known than the configuration says.
        self.shared.pools.keep_pace();
    }

    /// Has every managed key served where it is now to be, and by whom. Answers the routes of those that are served nowhere.
    fn lead_anew(&mut self, fresh: &HashSet<MemberId>) -> Vec<Arc<KeyRoute>> {
        let (mut lost, mut newly_lost) = (Vec::new(), 0);
        let adopted: Vec<Adopt> = self.adopted.values().cloned().collect();
        for Adopt { spec, route } in adopted {
            // Its namespace may use it again, or the library is there again.
            let was_closed = [true, false].map(|is_pool| not_there(&spec.library, is_pool));
            let was_closed = route.absence().is_some_and(|fault| was_closed.contains(&fault));
            match self.shared.home(&spec) {
                Err(fault) => {
                    if route.absence().as_ref() != Some(&fault) {
                        newly_lost += 1;
                        if newly_lost <= LOST_SHOWN {
                            let what = self.shared.unserved(&spec);
                            tracing::error!(key = spec.name, namespace = %spec.namespace, %fault, "{what}");
                        }
                    }
                    // Members that stay might serve it again.
                    self.have_forgotten(&spec.uuid, &fault);
                    route.nobody_holds(fault);
                    lost.push(route);
                }
                Ok((pool, members)) => {
                    let comes = |id: &MemberId| was_closed || fresh.contains(id);
                    let come: Vec<MemberId> = members.iter().map(|member| member.id).filter(comes).collect();
                    if come.is_empty() && route.leads_to(&pool.lane) {
                        continue;
                    }
                    let proving = members.iter().filter(|member| member.may_prove()).map(|member| member.id);
                    let route = self.shared.routes.lead_to(&spec, &route, &pool, proving);
                    // Also of a key that nobody held: what was in the way may be so no more.
                    come.into_iter().for_each(|member| route.expect_holder(member));
                    self.adopt(Adopt { spec, route });
                }
            }
        }
        if newly_lost > LOST_SHOWN {
            tracing::error!(
                more = newly_lost - LOST_SHOWN,
                "and more managed keys are not served: keyway status shows them"
            );
        }
        lost
    }
}
