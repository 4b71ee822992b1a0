//! From files to one [`Config`]: which stanzas there are, how often each may stand, and what must not be missing.

use std::path::Path;

use hcl::edit::Span;
use hcl::edit::structure::Block;

use super::document::{Document, Problem, Problems};
use super::pools;
use super::reader::Reader;
use super::seals;
use super::services;
use super::{
    Config, KmsLibrary, KmsPool, KmsService, Limits, Listener, LogFormat, LogLevel, Memory, NamespaceSettings, Seal,
    Storage, Telemetry, stanzas,
};

/// The label a stanza carries.
#[derive(Clone, Copy)]
enum Label {
    None,
    /// Its kind, of which there is one.
    Kind(&'static str),
    /// Its kind, of several.
    Kinds(&'static [&'static str]),
    /// A name of the operator's.
    Name,
}

/// Every stanza, with the label it must carry.
const STANZAS: [(&str, Label); 9] = [
    ("listener", Label::Kind("unix")),
    ("storage", Label::Kind("redb")),
    ("seal", Label::Kinds(&["file", "pkcs11"])),
    ("kms_library", Label::Kind("pkcs11")),
    ("kms_pool", Label::Name),
    ("kms_service", Label::Kinds(services::NAMES)),
    ("namespace", Label::Name),
    ("telemetry", Label::None),
    ("limits", Label::None),
];

impl Config {
    /// Reads a file, or every `.hcl` file of a folder in the order of their names, as if they were one.
    ///
    /// # Errors
    ///
    /// All that is wrong, each with its place.
    pub fn load(path: &Path) -> Result<Config, Problems> {
        let whole = |error: std::io::Error| Problem {
            file: path.to_owned(),
            place: None,
            message: format!("cannot be read: {error}"),
        };
        let mut files = vec![path.to_owned()];
        if path.is_dir() {
            let entries = std::fs::read_dir(path).map_err(|error| Problems(vec![whole(error)]))?;
            let hcl = |file: &std::path::PathBuf| file.extension().is_some_and(|extension| extension == "hcl");
            files = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(hcl).collect();
            files.sort();
        }
        if files.is_empty() {
            let message = "expected .hcl files in this folder".to_owned();
            return Err(Problems(vec![Problem { file: path.to_owned(), place: None, message }]));
        }
        let (read, wrong): (Vec<_>, Vec<_>) =
            files.iter().map(|file| Document::read(file)).partition(|document| document.is_ok());
        let wrong: Vec<Problem> = wrong.into_iter().filter_map(Result::err).collect();
        if !wrong.is_empty() {
            return Err(Problems(wrong));
        }
        Config::from_documents(&read.into_iter().filter_map(Result::ok).collect::<Vec<_>>())
    }

    /// Reads a text as if it were the file `path`.
    ///
    /// # Errors
    ///
    /// All that is wrong, each with its place.
    pub fn parse(path: &Path, text: &str) -> Result<Config, Problems> {
        Config::from_documents(&[Document::new(path, text)])
    }

    fn from_documents(documents: &[Document]) -> Result<Config, Problems> {
        let mut draft = Draft::default();
        for document in documents {
            draft.read(document);
        }
        draft.finish(documents)
    }
}

/// What was read so far. A single setting carries the place it was first set at.
#[derive(Default)]
struct Draft {
    listeners: Vec<(Listener, String)>,
    storage: Option<(Storage, String)>,
    seal: Option<(seals::Draft, String)>,
    former_seal: Option<(seals::Draft, String)>,
    kms_libraries: Vec<(KmsLibrary, String)>,
    kms_pools: Vec<(KmsPool, String)>,
    kms_services: Vec<(KmsService, String)>,
    namespaces: Vec<(NamespaceSettings, String)>,
    telemetry: Option<(Telemetry, String)>,
    limits: Option<(Limits, String)>,
    publish_dir: Option<(String, String)>,
    core_dumps: Option<(bool, String)>,
    lock_memory: Option<(bool, String)>,
    log_level: Option<(LogLevel, String)>,
    log_format: Option<(LogFormat, String)>,
    warnings: Vec<String>,
    problems: Vec<Problem>,
}

impl Draft {
    fn read(&mut self, document: &Document) {
        let body = match document.body() {
            Ok(body) => body,
            Err(problem) => return self.problems.push(problem),
        };
        let names: Vec<&str> = STANZAS.iter().map(|(name, _)| *name).collect();
        let mut problems = Vec::new();
        let mut top = Reader::new(document, &body, String::new(), 0, &mut problems).allow_blocks(&names);
        let here = |name: &str| document.pointer(body.get_attribute(name).and_then(|found| found.key.span()));
        let publish_dir = top.text("publish_dir");
        once(&mut self.publish_dir, publish_dir, here("publish_dir"), "publish_dir", &mut top);
        let dumps = top.flag("core_dumps");
        once(&mut self.core_dumps, dumps, here("core_dumps"), "core_dumps", &mut top);
        let lock = top.flag("lock_memory");
        once(&mut self.lock_memory, lock, here("lock_memory"), "lock_memory", &mut top);
        let level = top.choice("log_level", &stanzas::LOG_LEVELS);
        once(&mut self.log_level, level, here("log_level"), "log_level", &mut top);
        let format = top.choice("log_format", &stanzas::LOG_FORMATS);
        once(&mut self.log_format, format, here("log_format"), "log_format", &mut top);
        top.finish();
        for block in body.blocks() {
            let name = block.ident.as_str();
            if let Some((_, label)) = STANZAS.iter().find(|(stanza, _)| *stanza == name) {
                match title(document, *label, block) {
                    Err(problem) => problems.push(problem),
                    Ok(title) => self.stanza(document, name, title, block, &mut problems),
                }
            }
        }
        problems.sort_by_key(|problem| problem.place);
        self.problems.append(&mut problems);
    }

    fn stanza(&mut self, document: &Document, name: &str, title: String, block: &Block, problems: &mut Vec<Problem>) {
        let span = block.ident.span();
        let here = document.pointer(span.clone());
        let begin = span.map_or(0, |span| span.start);
        let mut stanza = Reader::new(document, &block.body, title, begin, problems);
        match name {
            "listener" => {
                let found = stanzas::listener(&mut stanza);
                let same = |known: &Listener, new: &Listener| known.address == new.address;
                unique(&mut self.listeners, found, here, same, "a listener of this address", &mut stanza);
            }
            "kms_library" => {
                let found = stanzas::kms_library(&mut stanza);
                if let Some((library, true)) = &found {
                    self.warnings.push(inline_pin(&here, "kms_library", &library.name));
                }
                let found = found.map(|(library, _)| library);
                let same = |known: &KmsLibrary, new: &KmsLibrary| known.name.eq_ignore_ascii_case(&new.name);
                unique(&mut self.kms_libraries, found, here, same, "a kms_library of this name", &mut stanza);
            }
            "kms_pool" => {
                stanza = stanza.allow_blocks(&["member"]);
                let label = block.labels.first().map_or("", |label| label.as_str());
                let found = pools::kms_pool(&mut stanza, block, label);
                if let Some((pool, true)) = &found {
                    self.warnings.push(inline_pin(&here, "kms_pool", &pool.name));
                }
                let found = found.map(|(pool, _)| pool);
                let same = |known: &KmsPool, new: &KmsPool| known.name.eq_ignore_ascii_case(&new.name);
                unique(&mut self.kms_pools, found, here, same, "a kms_pool of this name", &mut stanza);
            }
            "kms_service" => {
                stanza = stanza.allow_blocks(&[services::QUOTA]);
                self.kms_service(&mut stanza, block, here);
            }
            "namespace" => {
                let label = block.labels.first().map_or("", |label| label.as_str());
                let found = pools::namespace(&mut stanza, label);
                let same = |known: &NamespaceSettings, new: &NamespaceSettings| known.path == new.path;
                unique(&mut self.namespaces, found, here, same, "a namespace of this path", &mut stanza);
            }
            "storage" => {
                let found = stanzas::storage(&mut stanza);
                once(&mut self.storage, found, here, name, &mut stanza);
            }
            "seal" => {
                let kind = block.labels.first().map_or("", |label| label.as_str());
                let found = seals::seal(&mut stanza, kind);
                if let Some((seals::Draft::Pkcs11(seals::Pkcs11Draft { inline: true, .. }), _)) = &found {
                    self.warnings.push(inline_pin(&here, "seal", "pkcs11"));
                }
                match found {
                    Some((seal, true)) => once(&mut self.former_seal, Some(seal), here, name, &mut stanza),
                    Some((seal, false)) => once(&mut self.seal, Some(seal), here, name, &mut stanza),
                    None => {}
                }
            }
            "telemetry" => {
                let found = stanzas::telemetry(&mut stanza);
                once(&mut self.telemetry, Some(found), here, name, &mut stanza);
            }
            _ => {
                let mut limits = Limits::default();
                limits.read(&mut stanza);
                once(&mut self.limits, Some(limits), here, name, &mut stanza);
            }
        }
        stanza.finish();
    }

    fn kms_service(&mut self, stanza: &mut Reader<'_>, block: &Block, here: String) {
        let name = block.labels.first().map_or("", |label| label.as_str());
        let found = services::kms_service(stanza, block, name);
        let same = |known: &KmsService, new: &KmsService| known.service == new.service;
        unique(&mut self.kms_services, found, here, same, "a kms_service of this name", stanza);
    }

    fn finish(mut self, documents: &[Document]) -> Result<Config, Problems> {
        if self.problems.is_empty() {
            let missing = [
                (self.listeners.is_empty(), "listener \"unix\" { address = \"/run/keyway/keyway.sock\" }"),
                (self.storage.is_none(), "storage \"redb\" { path = \"/var/lib/keyway/keyway.redb\" }"),
                (self.seal.is_none(), "seal \"file\" { path = \"/var/lib/keyway/seal.key\" }"),
            ];
            let file = documents.first().map(|document| document.path.clone()).unwrap_or_default();
            for (_, example) in missing.iter().filter(|(missing, _)| *missing) {
                let message = format!("expected a stanza such as {example}");
                self.problems.push(Problem { file: file.clone(), place: None, message });
            }
            // These carry their places themselves.
            for message in pools::check(&self.kms_pools, &self.kms_libraries) {
                self.problems.push(Problem { file: file.clone(), place: None, message });
            }
        }
        let (seal, former_seal) = self.finish_seals(documents);
        let (Some((storage, _)), Some(seal), true) = (self.storage, seal, self.problems.is_empty()) else {
            return Err(Problems(self.problems));
        };
        let memory = Memory {
            core_dumps: self.core_dumps.is_some_and(|(dumps, _)| dumps),
            lock: self.lock_memory.is_none_or(|(lock, _)| lock),
        };
        Ok(Config {
            listeners: self.listeners.into_iter().map(|(listener, _)| listener).collect(),
            storage,
            seal,
            former_seal,
            memory,
            kms_libraries: self.kms_libraries.into_iter().map(|(library, _)| library).collect(),
            kms_pools: self.kms_pools.into_iter().map(|(pool, _)| pool).collect(),
            kms_services: services::all(self.kms_services.into_iter().map(|(service, _)| service).collect()),
            namespaces: self.namespaces.into_iter().map(|(namespace, _)| namespace).collect(),
            telemetry: self.telemetry.map(|(telemetry, _)| telemetry).unwrap_or_default(),
            limits: self.limits.map(|(limits, _)| limits).unwrap_or_default(),
            publish_dir: self.publish_dir.map(|(folder, _)| folder.into()),
            log_level: self.log_level.map(|(level, _)| level).unwrap_or_default(),
            log_format: self.log_format.map(|(format, _)| format).unwrap_or_default(),
            warnings: self.warnings,
        })
    }
}

impl Draft {
    /// The seal and the former one, with their libraries. What is wrong with them is noted.
    fn finish_seals(&mut self, documents: &[Document]) -> (Option<Seal>, Option<Seal>) {
        let file = documents.first().map(|document| document.path.clone()).unwrap_or_default();
        let (libraries, problems) = (&self.kms_libraries, &mut self.problems);
        let mut finish = |draft: Option<(seals::Draft, String)>| {
            let (draft, here) = draft?;
            let wrong = |message| Problem { file: file.clone(), place: None, message: format!("{here}: {message}") };
            draft.finish(libraries).map_err(|message| problems.push(wrong(message))).ok()
        };
        (finish(self.seal.take()), finish(self.former_seal.take()))
    }
}

/// How a stanza is called in messages; or that its label is wrong.
fn title(document: &Document, label: Label, block: &Block) -> Result<String, Problem> {
    let name = block.ident.as_str();
    let given: Vec<&str> = block.labels.iter().map(|label| label.as_str()).collect();
    let message = match label {
        Label::Name => return pools::label(document, block).map(|label| format!("{name} {label:?}")),
        Label::Kind(kind) if given == [kind] => return Ok(format!("{name} {kind:?}")),
        Label::Kinds(kinds) if matches!(given[..], [kind] if kinds.contains(&kind)) => {
            return Ok(format!("{name} {:?}", given[0]));
        }
        Label::None if given.is_empty() => return Ok(name.to_owned()),
        Label::Kind(kind) => format!("expected {name} {kind:?} {{ … }}"),
        Label::Kinds(kinds) => {
            let forms: Vec<String> = kinds.iter().map(|kind| format!("{name} {kind:?} {{ … }}")).collect();
            format!("expected {}", forms.join(" or "))
        }
        Label::None => format!("expected {name} {{ … }}, without a label"),
    };
    let at = block.labels.first().and_then(Span::span).or(block.ident.span());
    Err(document.problem(at.map_or(0, |span| span.start), message))
}

fn inline_pin(here: &str, stanza: &str, name: &str) -> String {
    format!(
        "{here}: a PIN of {stanza} {name:?} stands in the file; \"env:\", \"file:\" or \"credential:\" keeps it out"
    )
}

/// Keeps what may be set once.
fn once<T>(kept: &mut Option<(T, String)>, found: Option<T>, here: String, name: &str, stanza: &mut Reader<'_>) {
    match (kept.as_ref(), found) {
        (Some((_, first)), Some(_)) => stanza.refuse_field(name, format!("{name} is set already, at {first}")),
        (None, Some(found)) => *kept = Some((found, here)),
        (_, None) => {}
    }
}

/// Keeps what may be set often, under different names.
fn unique<T>(
    kept: &mut Vec<(T, String)>,
    found: Option<T>,
    here: String,
    same: impl Fn(&T, &T) -> bool,
    what: &str,
    stanza: &mut Reader<'_>,
) {
    let Some(found) = found else { return };
    match kept.iter().find(|(known, _)| same(known, &found)) {
        Some((_, first)) => stanza.refuse(format!("there is {what} already, at {first}")),
        None => kept.push((found, here)),
    }
}
