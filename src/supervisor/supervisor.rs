//! The handle the rest of the daemon holds of the [`overseer`](super::overseer), the actor that knows every member.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use super::guarded::Guarded;
use super::overseer::{Overseer, Ping, Start, StopAll, ToMember};
use super::pins::PinMemory;
use super::pools::{Home, Pools, not_there};
use super::reconfigure::Reconfigure;
use super::route::{FoundAt, KeyRoute, KeySpec, PreparedKey, Routes};
use super::slot_actor::{Adopt, Prepare};
use crate::backend::Backend;
use crate::config::{Grants, KmsPool, KmsService, Limits, NamespaceSettings, VerifyAfterSign};
use crate::model::{Deadline, Fault, KeyIdentity, Namespace, Secret, TokenSelector};
use crate::pace::Pace;
use crate::telemetry::Telemetry;

/// One KMS library, as configured.
#[derive(Clone)]
pub struct Library {
    /// Its name.
    pub name: String,
    /// The file of its code: two libraries of one file reach the same tokens.
    pub file: PathBuf,
    /// How its tokens are reached.
    pub backend: Arc<dyn Backend>,
    /// The PIN of its tokens, if it is given here.
    pub pin: Option<Secret>,
    /// Sessions per token; `None` takes the profile's default.
    pub sessions: Option<usize>,
    /// Limit of one signature; `None` takes the profile's default.
    pub call_sign: Option<Duration>,
    /// Time without work after which a session exercises a key, zero for never; `None` takes the profile's default.
    pub keep_alive: Option<Duration>,
    /// Which signatures are verified before they leave.
    pub verify: VerifyAfterSign,
    /// Worker processes of each token.
    pub workers: usize,
    /// Whether each device the backend opens is a process of its own.
    pub isolated: bool,
    /// Whether its tokens are known to compute on this host's own cores; else their calls are looked at.
    pub computes_here: bool,
    /// Whether to log in even where a token says that it allows one last try before it locks.
    pub final_pin_try: bool,
    /// Whose managed keys may name it.
    pub namespaces: Grants,
    /// The cloud's key service that it is, if it is one.
    pub service: Option<Arc<KmsService>>,
}

/// What others may know of a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryInfo {
    /// Its name, as configured.
    pub name: String,
    /// Whether it carries a PIN, so that keys may leave theirs out.
    pub has_pin: bool,
    /// Whether it is a pool, whose members name their tokens themselves.
    pub is_pool: bool,
    /// Whose managed keys may name it; to the others it is not there.
    pub namespaces: Grants,
    /// The cloud's key service that it is, if it is one.
    pub service: Option<Arc<KmsService>>,
}

/// The supervisor, as the rest of the daemon holds it. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    pub(super) shared: Arc<Shared>,
    pub(super) address: Addr<Overseer>,
}

/// What the handle and the actor share.
pub(super) struct Shared {
    pub(super) pools: Pools,
    pub(super) routes: Arc<Routes>,
    pub(super) known: ArcSwap<Known>,
    pub(super) guarded: Arc<Guarded>,
}

/// What is told of the configuration.
#[derive(Default)]
pub(super) struct Known {
    libraries: Arc<[LibraryInfo]>,
    /// Where the keys of each library or pool, by its name in lower case, may be.
    places: HashMap<String, Vec<Place>>,
    tokens_per_namespace: usize,
}

/// Tokens of a library: one, or whichever a key names.
#[derive(Clone)]
struct Place {
    /// The library, in lower case.
    library: String,
    file: PathBuf,
    token: Option<TokenSelector>,
}

impl Place {
    /// Whether a key may be found here, where `token` is named, that was found there.
    fn may_lead_to(&self, token: Option<&TokenSelector>, found: &FoundAt, found_in: &Path) -> bool {
        self.file == found_in
            && match self.token.as_ref().or(token) {
                Some(TokenSelector::Label(label)) => *label == found.token_label,
                Some(TokenSelector::Serial(serial)) => *serial == found.serial,
                // Of two names only one of which is a slot's number, nobody can tell before both are open.
                Some(slot @ TokenSelector::Slot(_)) => match &found.token {
                    other @ TokenSelector::Slot(_) => self.library != found.library || slot == other,
                    TokenSelector::Label(_) | TokenSelector::Serial(_) | TokenSelector::Cloud(_) => true,
                },
                Some(TokenSelector::Cloud(key)) => {
                    // By another's word it may be in another account.
                    matches!(&found.token, TokenSelector::Cloud(found)
                        if found.is_named_as(key) && found.credentials == key.credentials)
                }
                None => true,
            }
    }
}

impl Shared {
    /// Tells of the configuration as it is now.
    pub(super) fn know<'l>(&self, libraries: impl Iterator<Item = &'l Library>, pools: &[KmsPool], limits: &Limits) {
        let library = |library: &Library| {
            let (name, has_pin) = (library.name.clone(), library.pin.is_some());
            let (namespaces, service) = (library.namespaces.clone(), library.service.clone());
            LibraryInfo { name, has_pin, is_pool: false, namespaces, service }
        };
        let pool = |pool: &KmsPool| {
            let (name, namespaces) = (pool.name.clone(), pool.namespaces.clone());
            LibraryInfo { name, has_pin: true, is_pool: true, namespaces, service: None }
        };
        let libraries: Vec<&Library> = libraries.collect();
        let files: HashMap<String, &PathBuf> =
            libraries.iter().map(|library| (library.name.to_lowercase(), &library.file)).collect();
        let place = |library: &str, token: Option<TokenSelector>| {
            let library = library.to_lowercase();
            files.get(&library).map(|file| Place { library, file: (*file).clone(), token })
        };
        let of_libraries = libraries
            .iter()
            .map(|library| (library.name.to_lowercase(), place(&library.name, None).into_iter().collect()));
        let of_pools = pools.iter().map(|pool| {
            let members = pool.members.iter();
            let places = members.filter_map(|member| place(&member.library, Some(member.token.clone()))).collect();
            (pool.name.to_lowercase(), places)
        });
        let places = of_libraries.chain(of_pools).collect();
        let libraries = libraries.into_iter().map(library).chain(pools.iter().map(pool)).collect();
        let known = Known { libraries, places, tokens_per_namespace: limits.tokens_per_namespace };
        self.known.store(Arc::new(known));
    }

    /// The names of the libraries, in their order.
    pub(super) fn library_names(&self) -> Vec<String> {
        let known = self.known.load();
        known.libraries.iter().filter(|known| !known.is_pool).map(|library| library.name.clone()).collect()
    }

    /// Refuses a key whose namespace may not use its library or pool, in the words of one that is not there.
    pub(super) fn check_grant(&self, spec: &KeySpec) -> Result<(), Fault> {
        let known = self.known.load();
        let named = known.libraries.iter().find(|library| library.name.eq_ignore_ascii_case(&spec.library));
        match named {
            Some(library) if !library.namespaces.allow(&spec.namespace) => {
                Err(not_there(&spec.library, library.is_pool))
            }
            Some(LibraryInfo { service: Some(service), .. }) => check_service(service, spec),
            _ => Ok(()),
        }
    }

    /// The pool and members of a key, if its namespace may use them.
    pub(super) fn home(&self, spec: &KeySpec) -> Result<Home, Fault> {
        self.check_grant(spec)?;
        self.pools.find(&spec.library, spec.token.as_ref())
    }

    /// What the log says of a key that nobody serves.
    pub(super) fn unserved(&self, spec: &KeySpec) -> &'static str {
        match self.check_grant(spec) {
            Ok(()) => "managed key is not served",
            Err(_) => {
                "managed key is not served: its kms_library or kms_pool is not for its namespace any more; name it in \
                 `namespaces` there, or delete the key"
            }
        }
    }
}

/// Refuses a key in a cloud whose namespace may not use it as it was registered any more.
fn check_service(service: &KmsService, spec: &KeySpec) -> Result<(), Fault> {
    let Some(TokenSelector::Cloud(key)) = &spec.token else { return Ok(()) };
    let name = service.service.name();
    let field = if key.credentials.are_the_daemons() && !service.lends_credentials_to(&spec.namespace) {
        "own_credentials"
    } else if key.is_elsewhere() && !service.lets_name_endpoints(&spec.namespace) {
        "endpoints"
    } else {
        return Ok(());
    };
    Err(Fault::Unavailable {
        what: format!("namespace {} is not named in {field} of kms_service {name:?} any more", spec.namespace),
    })
}

/// What a supervisor supervises.
pub struct Plan {
    /// The libraries.
    pub libraries: Vec<Library>,
    /// Tokens that hold copies of the same keys.
    pub pools: Vec<KmsPool>,
    /// The weights of namespaces; others have 1.
    pub namespaces: Vec<NamespaceSettings>,
    /// Every bound.
    pub limits: Limits,
}

/// What another configuration changes of a [`Plan`].
pub struct Change {
    /// The libraries that are new, and those whose members are to be made anew.
    pub made: Vec<Remade>,
    /// The names of all libraries there are now, in their order.
    pub libraries: Vec<String>,
    /// Every pool there is now.
    pub pools: Vec<KmsPool>,
    /// The bounds by which members are made from now on. Those of lanes stay as they were at the start.
    pub limits: Limits,
}

/// A library that is new, or configured anew.
pub struct Remade {
    /// As it is now.
    pub library: Library,
    /// Whether its code runs elsewhere than before: it is another file, or in another process.
    pub elsewhere: bool,
}

impl Change {
    /// Whether the members of this library, in lower case, cannot stay.
    pub(super) fn touches(&self, library: &str) -> bool {
        self.made.iter().any(|made| made.library.name.eq_ignore_ascii_case(library)) || !self.has(library)
    }

    /// Whether there is this library now.
    pub(super) fn has(&self, library: &str) -> bool {
        self.libraries.iter().any(|name| name.eq_ignore_ascii_case(library))
    }
}

impl Supervisor {
    /// Starts it on the running actix system.
    pub fn start(plan: Plan, pins: Arc<dyn PinMemory>, telemetry: Telemetry) -> Supervisor {
        let Plan { libraries, pools, namespaces, limits } = plan;
        let shared = Arc::new(Shared {
            pools: Pools::new(&libraries, &pools, &namespaces, &limits, &telemetry),
            routes: Arc::default(),
            known: ArcSwap::default(),
            guarded: Arc::default(),
        });
        shared.know(libraries.iter(), &pools, &limits);
        let start = Start { shared: Arc::clone(&shared), libraries, pools, limits, pins, telemetry };
        Supervisor { shared, address: Overseer::start(start) }
    }

    /// The pace of the daemon's threads: tokens that compute on this host's own cores come before them.
    pub fn pace(&self) -> Pace {
        self.shared.pools.pace.clone()
    }

    /// The libraries and pools configured.
    pub fn libraries(&self) -> Arc<[LibraryInfo]> {
        Arc::clone(&self.shared.known.load().libraries)
    }

    /// Whether a key of this library or pool, and of this token where it names one, may be the one that was found there. Told
    /// by names: no token is opened for it.
    pub fn may_lead_to(&self, library: &str, token: Option<&TokenSelector>, found: &FoundAt) -> bool {
        let known = self.shared.known.load();
        let Some([Place { file, .. }]) = known.places.get(&found.library).map(Vec::as_slice) else { return false };
        let places = known.places.get(&library.to_lowercase());
        places.is_some_and(|places| places.iter().any(|place| place.may_lead_to(token, found, file)))
    }

    /// The tokens where a key of this library or pool, and of this token where it names one, may be, as far as the code of
    /// `own` may reach them.
    pub fn tokens_of(&self, library: &str, token: Option<&TokenSelector>, own: &str) -> Vec<TokenSelector> {
        let known = self.shared.known.load();
        let places = |name: &str| known.places.get(&name.to_lowercase()).map(Vec::as_slice).unwrap_or_default();
        let is_reached = |place: &&Place| places(own).iter().any(|own| own.file == place.file);
        let theirs = places(library).iter().filter(is_reached);
        theirs.filter_map(|place| place.token.as_ref().or(token).cloned()).collect()
    }

    /// The keys that guard the store, which no managed key may stand for.
    pub fn guarded(&self) -> &Arc<Guarded> {
        &self.shared.guarded
    }

    /// Takes another configuration over. Members that do not fit it finish what they have in hand and go; others come in
    /// their places, and what waits in the lanes waits for those, within its deadline.
    pub async fn reconfigure(&self, change: Change) {
        // A supervisor that is gone has nothing left to change.
        let _ = self.address.send(Reconfigure(change)).await;
    }

    /// Brings up the members of configured pools, whether a key needs them yet or not: so a dead one is seen before. Not
    /// before the store is open, since it remembers refused PINs.
    pub fn bring_up_pools(&self) {
        self.address.do_send(ToMember::BringUpPools);
    }

    /// Tokens that the managed keys of one namespace may name beside those that the configuration names.
    pub fn tokens_per_namespace(&self) -> usize {
        self.shared.known.load().tokens_per_namespace
    }

    /// Whether the configuration names this token of a library, as a member of a pool.
    pub fn is_configured(&self, library: &str, token: &TokenSelector) -> bool {
        self.shared.pools.is_configured(library, token)
    }

    /// Finds a key on the members that may hold it, or generates it on one of them where that is allowed, and has it proven.
    /// From then on it is served. [`Fault::NotFound`] means that every member serves, and none holds such a key. Its token
    /// is in use until [`Supervisor::release`].
    pub async fn prepare(&self, spec: KeySpec, deadline: Deadline) -> Result<PreparedKey, Fault> {
        self.shared.check_grant(&spec)?;
        self.name_token(&spec)?;
        let (reply, answer) = oneshot::channel();
        self.address.do_send(ToMember::Prepare(Prepare { spec, reply }));
        match tokio::time::timeout_at(deadline.instant().into(), answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Fault::Unavailable { what: "the supervisor dropped the request; try again".into() }),
            Err(_) => Err(Fault::DeadlineExceeded { stage: "waiting for the token" }),
        }
    }

    /// Registers a key whose identity is known: its route, which members join once they have proven to hold it. Until those
    /// that are up or coming up have said, its jobs wait for them. Called again for the same key, it changes the key's
    /// settings. Its token is in use until [`Supervisor::release`].
    pub fn adopt(&self, spec: KeySpec, identity: &KeyIdentity) -> Arc<KeyRoute> {
        // Named in any case: the grant may come back.
        let found = self.name_token(&spec).and_then(|home| self.shared.check_grant(&spec).map(|()| home));
        let pool = found.as_ref().map_or_else(|_| self.shared.pools.nowhere(), |(pool, _)| pool);
        let route = self.shared.routes.get_or_make(&spec, identity, pool);
        match found {
            Ok((_, members)) => {
                members.iter().filter(|member| member.may_prove()).for_each(|member| route.expect_holder(member.id));
            }
            Err(fault) => {
                tracing::error!(key = spec.name, namespace = %spec.namespace, %fault, "{}", self.shared.unserved(&spec));
                route.nobody_holds(fault);
            }
        }
        // One that nobody can hold is still seen in the metrics.
        self.address.do_send(ToMember::Adopt(Adopt { spec, route: Arc::clone(&route) }));
        route
    }

    /// Serves a key no longer.
    pub fn forget(&self, uuid: &str) {
        self.shared.routes.remove(uuid);
        self.address.do_send(ToMember::Forget(uuid.to_owned()));
    }

    /// The same, and the managed key needs its token no longer: it was deleted. The last key that
    /// leaves a token which the configuration does not name takes it along: its sessions close, and it logs out.
    pub fn release(&self, uuid: &str) {
        self.forget(uuid);
        self.shared.pools.release(uuid);
        self.let_go();
    }

    /// Shows nothing more of a namespace that is gone.
    pub fn forget_namespace(&self, namespace: &Namespace) {
        self.shared.pools.all().iter().for_each(|pool| pool.forget(namespace));
    }

    /// The managed key names another token than this now.
    pub fn leave_token(&self, uuid: &str, library: &str, token: Option<&TokenSelector>) {
        self.shared.pools.leave(uuid, library, token);
        self.let_go();
    }

    /// The pool and members of a key's token, which is in use from now on.
    fn name_token(&self, spec: &KeySpec) -> Result<Home, Fault> {
        let home = self.shared.pools.name(&spec.uuid, &spec.library, spec.token.as_ref());
        self.let_go();
        home
    }

    fn let_go(&self) {
        if self.shared.pools.has_retired() {
            self.address.do_send(ToMember::LetGo);
        }
    }

    /// Waits until every member serves its keys or has failed its first try, `limit` at the longest: so that the first
    /// requests after a start find their keys ready. Keys in clouds are waited for no longer than `of_clouds`: one that is
    /// silent is nobody else's business.
    pub async fn settle(&self, limit: Duration, of_clouds: Duration) {
        let begun = Instant::now();
        let limit_of = |token: &TokenSelector| if matches!(token, TokenSelector::Cloud(_)) { of_clouds } else { limit };
        let is_awaited = || {
            let members = self.shared.pools.members();
            members.iter().any(|member| !member.is_settled() && begun.elapsed() < limit_of(&member.token))
        };
        while is_awaited() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until the actor that owns the members has taken a turn since. False if it is gone.
    pub async fn answers(&self) -> bool {
        self.address.send(Ping).await.is_ok()
    }

    /// Lets the lanes run empty, `limit` at the longest, and ends every session. Answers how many jobs were cut off.
    pub async fn shut_down(&self, limit: Duration) -> usize {
        let pools = self.shared.pools.all();
        pools.iter().for_each(|pool| pool.lane.close());
        let depth = || pools.iter().map(|pool| pool.lane.depth()).sum::<usize>();
        let end = Instant::now() + limit;
        while depth() > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let cut = depth();
        pools.iter().for_each(|pool| pool.lane.abandon());
        // A supervisor that is gone has nothing left to stop.
        let _ = self.address.send(StopAll).await;
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::KeySelector;
    use crate::model::{CloudCredentials, CloudKey, CloudPlace, CloudService};

    fn key(credentials: CloudCredentials, endpoint: Option<&str>) -> CloudKey {
        let (name, endpoint) = ("alias/ca".to_owned(), endpoint.map(str::to_owned));
        CloudKey { name, place: CloudPlace::Aws { region: None }, endpoint, credentials, replicas: Vec::new() }
    }

    fn given(access_key: &str) -> CloudCredentials {
        CloudCredentials::Aws { access_key: access_key.into(), secret_key: Secret::from("s") }
    }

    fn refused(namespace: &str, key: CloudKey) -> Option<String> {
        let spec = KeySpec {
            uuid: "u".into(),
            name: "ca".into(),
            namespace: Namespace::from_path(namespace),
            library: "awskms".into(),
            token: Some(TokenSelector::Cloud(Arc::new(key))),
            pin: None,
            selector: KeySelector { label: None, id: None, secret: false, cloud: None },
            generate: None,
            taken: Vec::new(),
            recorded: None,
            max_parallel: None,
        };
        check_service(&KmsService::new(CloudService::AwsKms), &spec).err().map(|fault| fault.to_string())
    }

    #[test]
    fn what_a_service_lends_to_a_namespace_no_more_its_keys_do_not_get() {
        let own = || key(CloudCredentials::Own, None);
        assert!(refused("team", own()).is_some_and(|told| told.contains("own_credentials")));
        let elsewhere = || key(given("A"), Some("http://kms"));
        assert!(refused("team", elsewhere()).is_some_and(|told| told.contains("endpoints")));
        for (namespace, key) in [("", own()), ("", elsewhere()), ("team", key(given("A"), None))] {
            assert_eq!(refused(namespace, key), None);
        }
    }

    #[test]
    fn a_name_in_a_cloud_is_anothers_where_it_is_by_anothers_word() {
        let cloud = |credentials| TokenSelector::Cloud(Arc::new(key(credentials, None)));
        let place = Place { library: "awskms".into(), file: "awskms".into(), token: None };
        let found = FoundAt {
            library: "awskms".into(),
            token: cloud(given("A")),
            serial: "alias/ca".into(),
            token_label: "alias/ca".into(),
            label: "alias/ca".into(),
            id: Vec::new(),
        };
        let leads = |token| place.may_lead_to(Some(&token), &found, Path::new("awskms"));
        assert!(leads(cloud(given("A"))) && !leads(cloud(given("B"))) && !leads(cloud(CloudCredentials::Own)));
    }
}
