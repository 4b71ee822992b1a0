//! The lines the code keeps: which room may name which, how long a file and a function may be.

use std::path::{Path, PathBuf};

/// The rooms and what each may name besides itself. A path in a room may name more.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("wire", &["model"]),
    ("config", &["model"]),
    ("crypto", &["model"]),
    ("socket.rs", &[]),
    ("apart.rs", &["model"]),
    ("pace.rs", &[]),
    ("telemetry", &["config", "model"]),
    ("store", &["config", "model", "pace", "telemetry"]),
    ("backend", &["config", "crypto", "model", "telemetry"]),
    ("supervisor", &["backend", "config", "crypto", "model", "pace", "telemetry"]),
    ("managed_keys", &["config", "crypto", "model", "store", "supervisor", "telemetry"]),
    ("namespace", &["config", "model", "store", "telemetry"]),
    ("identity", &["apart", "config", "model", "namespace", "store", "telemetry"]),
    ("audit", &["config", "model", "store", "telemetry"]),
    ("engine", &["apart", "config", "crypto", "managed_keys", "model", "store", "telemetry"]),
    (
        "system",
        &[
            "apart",
            "audit",
            "config",
            "crypto",
            "identity",
            "managed_keys",
            "model",
            "namespace",
            "store",
            "supervisor",
            "telemetry",
        ],
    ),
    ("dispatch", &["apart", "audit", "config", "engine", "identity", "model", "namespace", "system", "telemetry"]),
    ("front", &["apart", "config", "dispatch", "model", "pace", "socket", "telemetry", "wire"]),
    ("client", &["model", "socket", "wire"]),
    ("cli", &["client", "config", "crypto", "model", "system", "telemetry", "wire"]),
    ("cli/recover.rs", &["config", "daemon", "model"]),
    ("cli/server.rs", &["client", "config", "daemon", "model", "telemetry", "wire"]),
    ("cli/dev.rs", &["client", "config", "daemon", "model", "telemetry", "wire"]),
    ("cli/worker.rs", &["backend"]),
    (
        "cli/bench",
        &[
            "backend",
            "cli",
            "client",
            "config",
            "crypto",
            "engine",
            "managed_keys",
            "model",
            "namespace",
            "socket",
            "store",
            "telemetry",
            "wire",
        ],
    ),
    (
        "daemon",
        &[
            "audit",
            "backend",
            "config",
            "crypto",
            "dispatch",
            "engine",
            "front",
            "identity",
            "managed_keys",
            "model",
            "namespace",
            "store",
            "supervisor",
            "system",
            "telemetry",
            "wire",
        ],
    ),
    // A token in software for the tests of the rooms above it, and tests that order its errors.
    ("managed_keys/registry_tests.rs", &["backend", "crypto", "managed_keys", "model", "store"]),
    ("managed_keys/software_token.rs", &["backend", "config", "crypto", "model", "store", "supervisor", "telemetry"]),
];

/// Engines know nothing of each other.
const ENGINES: [&str; 2] = ["pki", "transit"];

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 70;
/// Functions that are longer, and why. The list only shrinks.
const LONG_FUNCTIONS: &[(&str, &str)] = &[];

struct Source {
    /// Below `src/`, or below `tests/`.
    path: String,
    text: String,
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    assert!(!found.is_empty(), "no sources below {}", root.display());
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push(Source { path: path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), text });
        }
    }
}

/// The rooms a source names, each with the number of the line.
fn named(text: &str) -> Vec<(usize, String)> {
    let mut rooms = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for after in code.split("crate::").skip(1) {
            let room: String = after.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
            rooms.push((number + 1, room));
        }
    }
    rooms
}

/// What the innermost path that is listed may name, and the room it is in.
fn allowed(path: &str) -> Option<(&'static str, &'static [&'static str])> {
    let inside = |place: &str| path == place || path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'));
    let listed = ARROWS.iter().filter(|(place, _)| inside(place)).max_by_key(|(place, _)| place.len())?;
    Some((listed.0.split('/').next().unwrap_or_default(), listed.1))
}

#[test]
fn every_room_names_only_the_rooms_below_it() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        if ["lib.rs", "main.rs"].contains(&source.path.as_str()) {
            continue;
        }
        let Some((room, may_name)) = allowed(&source.path) else {
            wrong.push(format!("{} is in no room that is known here", source.path));
            continue;
        };
        for (line, named) in named(&source.text) {
            if named != room && !may_name.contains(&named.as_str()) {
                wrong.push(format!("src/{}:{line} names {named:?}, which {room} must not know", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_engine_names_another() {
    for source in sources("src/engine") {
        for other in ENGINES.iter().filter(|engine| !source.path.starts_with(**engine)) {
            let shared = !source.path.contains('/');
            let names_it = source.text.contains(&format!("engine::{other}"));
            assert!(shared || !names_it, "src/engine/{} names engine::{other}", source.path);
        }
    }
}

#[test]
fn files_and_functions_fit_in_a_head() {
    let mut wrong = Vec::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES {
            wrong.push(format!("{} has {lines} lines; {FILE_LINES} are the most", source.path));
        }
        for (name, lines) in functions(&source.text) {
            let excepted = LONG_FUNCTIONS.contains(&(source.path.as_str(), name.as_str()));
            if (lines > FUNCTION_LINES) != excepted {
                wrong.push(format!("{}: fn {name} has {lines} lines; {FUNCTION_LINES} are the most", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Who raises the version of a type's records says so there, too, or snapshots of it would be refused.
#[test]
fn the_formats_that_have_changed_are_known_to_who_restores_snapshots() {
    let format = |line: &str| line.trim().trim_end_matches([';', ')', ',']).rsplit(' ').next()?.parse::<u16>().ok();
    let mut written = Vec::new();
    let mut listed = Vec::new();
    for source in sources("src").iter().filter(|source| !source.path.ends_with("tests.rs")) {
        let code = source.text.split("#[cfg(test)]").next().unwrap_or_default();
        written.extend(code.lines().filter(|line| line.contains("VERSION: u16 =")).filter_map(format));
        if source.path == "daemon/formats.rs" {
            listed.extend(code.lines().filter(|line| line.starts_with("    (\"")).filter_map(format));
        }
    }
    assert!(written.len() > 20, "{written:?}");
    written.retain(|format| *format > 1);
    written.sort_unstable();
    listed.sort_unstable();
    assert_eq!(listed, written, "CHANGED in src/daemon/formats.rs, and every VERSION above 1");
}

/// The functions of a formatted source, each with its number of lines: from its `fn` to the brace below it.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let Some(name) = function_name(code) else { continue };
        let closing = |line: &&str| line.strip_prefix(indent).is_some_and(|rest| rest == "}" || rest.ends_with("};"));
        let one_line = code.ends_with(';') || code.ends_with('}');
        let length = if one_line { 1 } else { lines[start..].iter().position(closing).unwrap_or(0) + 1 };
        found.push((name.to_owned(), length));
    }
    found
}

fn function_name(code: &str) -> Option<&str> {
    let (before, after) = code.split_once("fn ")?;
    let words = ["pub", "const", "async", "unsafe", "extern", "\"C\"", "pub(crate)", "pub(super)", "pub(in", "crate)"];
    before.split_whitespace().all(|word| words.contains(&word)).then(|| after.split(['(', '<']).next()).flatten()
}

#[test]
fn the_measure_of_functions_is_right() {
    let text =
        "fn one() {}\nimpl A {\n    pub(crate) async fn two(\n        a: u8,\n    ) -> u8 {\n        a\n    }\n}\n";
    assert_eq!(functions(text), [("one".to_owned(), 1), ("two".to_owned(), 5)]);
}
