//! What a header's namespace and a target address: the router's answer beside that of a model which knows two lists and
//! compares texts.

use std::sync::LazyLock;

use keyway::config::{Limits, Storage};
use keyway::front;
use keyway::model::Namespace;
use keyway::namespace::{Namespaces, NewMount};
use keyway::store::{Ephemeral, Store};

/// The namespaces of the world that is asked: one inside another, some that begin alike, and some whose names look like the
/// beginning of an OCSP request.
pub const NAMESPACES: [&str; 10] =
    ["a/", "a/b/", "a/b/c/", "ab/", "b/", "a/ocsp/", "a/ocsp/M/", "team.one/", "team.one/ci/", "A/"];

/// Its mounts: the namespace of each, and its path there.
pub const MOUNTS: [(&str, &str); 12] = [
    ("", "pki/"),
    ("", "deep/er/pki/"),
    ("", "x/ocsp/M/"),
    ("", "y/sys/"),
    ("", "z/auth/token/"),
    ("a/", "pki/"),
    ("a/b/", "pki/"),
    ("a/b/c/", "transit/"),
    ("ab/", "pki/"),
    ("a/ocsp/M/", "pki/"),
    ("team.one/", "pki.int/"),
    ("b/", "pki/ocsp/"),
];

/// The longest path, decoded, in bytes.
const PATH_BYTES: usize = 4096;

/// What a request addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Nothing: the target says what no path of the API says.
    Refused,
    /// Nothing of the API's.
    Elsewhere,
    /// Something.
    To {
        /// The namespace, as `a/b/`; the root is empty.
        namespace: String,
        /// The mount's path there, if there is one.
        mount: Option<String>,
        /// What is left of the path, after the namespace.
        path: String,
    },
}

/// What the model says is addressed.
pub fn expected(header: &str, target: &str) -> Route {
    let Some(raw) = target.strip_prefix("/v1/") else { return Route::Elsewhere };
    let Some(decoded) = decoded(raw) else { return Route::Refused };
    let Some(path) = taken(&decoded) else { return Route::Refused };
    let named: Vec<&str> = header.split('/').filter(|part| !part.is_empty()).collect();
    let below = if named == ["root"] { String::new() } else { named.iter().map(|part| format!("{part}/")).collect() };

    // The longest beginning that is a namespace, counted in whole parts, the last of which always stays.
    let whole = format!("{below}{path}");
    let exists = |end: &usize| NAMESPACES.contains(&&whole[..*end]) && *end >= below.len();
    let ends = whole.match_indices('/').map(|(slash, _)| slash + 1).filter(|end| *end > below.len());
    let end = ends.filter(exists).max().unwrap_or(below.len());
    let (mut namespace, mut rest) = (whole[..end].to_owned(), whole[end..].to_owned());
    let mount = || {
        let own = MOUNTS.iter().filter(|(of, _)| *of == namespace);
        own.map(|(_, mount)| *mount).find(|mount| rest.starts_with(mount)).map(str::to_owned)
    };
    let mount = mount();
    // No namespace is called `sys` or `auth`: what comes before names one, be it there or not.
    let parts: Vec<&str> = rest.split('/').collect();
    let api = parts.iter().position(|part| ["sys", "auth"].contains(part)).filter(|at| *at + 1 < parts.len());
    if let Some(at) = api
        && at > 0
        && mount.is_none()
        && parts[..at].iter().all(|part| !part.is_empty())
    {
        namespace.extend(parts[..at].iter().map(|part| format!("{part}/")));
        rest = parts[at..].join("/");
    }
    Route::To { namespace, mount, path: rest }
}

/// A text whose `%XX` are bytes; `None` if these are no UTF-8.
fn decoded(raw: &str) -> Option<String> {
    let (mut bytes, mut left) = (Vec::new(), raw.as_bytes());
    while let Some((first, rest)) = left.split_first() {
        let hex = |byte: u8| char::from(byte).to_digit(16);
        match (first, rest) {
            (b'%', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                bytes.push(u8::try_from(hex(*high)? * 16 + hex(*low)?).ok()?);
                left = after;
            }
            _ => {
                bytes.push(*first);
                left = rest;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// The path, if it is one. One that ends in what may be an OCSP request keeps all its slashes; of any other the last one goes.
fn taken(path: &str) -> Option<&str> {
    let fits = |part: &&str| !["", ".", ".."].contains(part) && !part.chars().any(char::is_control);
    let is_plain = |path: &str| path.split('/').all(|part| fits(&part));
    if path.len() <= PATH_BYTES
        && let Some((before, request)) = path.split_once("/ocsp/")
        && request.starts_with('M')
        && request.chars().all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c))
        && !before.split('/').any(|part| part == "sys")
    {
        return is_plain(before).then_some(path);
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    (path.len() <= PATH_BYTES && is_plain(path)).then_some(path)
}

/// Asks the router, and compares.
pub fn check(header: &str, target: &str) {
    static WORLD: LazyLock<Namespaces> = LazyLock::new(world);
    let found = match front::read_path(target) {
        Err(_) => Route::Refused,
        Ok(None) => Route::Elsewhere,
        Ok(Some(path)) => {
            let below = Namespace::from_client(header);
            let (namespace, rest) = WORLD.locate(&below, &path);
            // Whatever a model says: a path leads down, no byte of it is lost, and none is made up.
            assert!(namespace == below || namespace.is_below(&below), "{header:?} {target:?}: {namespace}");
            assert_eq!(format!("{}{rest}", namespace.as_str()), format!("{}{path}", below.as_str()));
            let routed = WORLD.route(&namespace, rest);
            if let Some((mount, inside)) = &routed {
                assert_eq!((&mount.namespace, format!("{}{inside}", mount.path).as_str()), (&namespace, rest));
            }
            let mount = routed.map(|(mount, _)| mount.path.clone());
            Route::To { namespace: namespace.as_str().to_owned(), mount, path: rest.to_owned() }
        }
    };
    assert_eq!(found, expected(header, target), "{header:?} {target:?}");
}

fn world() -> Namespaces {
    let seal = Box::new(Ephemeral::new().expect("there is randomness"));
    let store = Store::open(&Storage::Memory, seal).expect("memory opens");
    store.initialize().expect("it is new");
    let namespaces = Namespaces::new(store, &NAMESPACES.map(Namespace::from_path), &Limits::default());
    namespaces.load().expect("nothing is stored");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime is built");
    for (namespace, path) in MOUNTS {
        let new = NewMount { path: path.to_owned(), engine: "pki".to_owned(), ..NewMount::default() };
        runtime.block_on(namespaces.enable(&Namespace::from_path(namespace), new)).expect("it can be mounted");
    }
    namespaces
}
