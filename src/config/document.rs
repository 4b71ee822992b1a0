//! The text of configuration files, where things stand in it, and what is wrong with it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use hcl::edit::structure::Body;

/// A configuration file larger than this is none.
const SIZE_MAX: u64 = 1 << 20;
/// Brackets within brackets; more would be a mistake, and cost the parser its stack.
const DEPTH_MAX: usize = 32;

/// Everything found wrong with a configuration, in the order of the text; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Line and column, from 1, in characters; `None` where it is about the whole file.
    pub place: Option<(usize, usize)>,
    /// What is wrong, and what was expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.file.display(), self.message),
            None => write!(f, "{}: {}", self.file.display(), self.message),
        }
    }
}

/// A text in HCL: a file, or what was sent as one.
pub struct Document {
    pub(super) path: PathBuf,
    text: String,
}

impl Document {
    /// This text, which messages call `path`.
    pub fn new(path: &Path, text: &str) -> Document {
        Document { path: path.to_owned(), text: text.to_owned() }
    }

    pub(super) fn read(path: &Path) -> Result<Document, Problem> {
        let whole = |message: String| Problem { file: path.to_owned(), place: None, message };
        let found = std::fs::metadata(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
        if found.len() > SIZE_MAX {
            return Err(whole(format!("is {} bytes long; a configuration has at most {SIZE_MAX}", found.len())));
        }
        let text = std::fs::read_to_string(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
        Ok(Document::new(path, &text))
    }

    /// The syntax tree.
    ///
    /// # Errors
    ///
    /// Where the text is no HCL, or has too many brackets within each other.
    pub fn body(&self) -> Result<Body, Problem> {
        if let Some(at) = self.too_deep() {
            return Err(self.problem(at, format!("expected at most {DEPTH_MAX} brackets within each other")));
        }
        hcl::edit::parser::parse_body(&self.text).map_err(|error| Problem {
            file: self.path.clone(),
            place: Some((error.location().line(), error.location().column())),
            message: error.message().replace('\n', "; "),
        })
    }

    fn too_deep(&self) -> Option<usize> {
        let mut depth = 0_usize;
        for (at, byte) in self.text.bytes().enumerate() {
            match byte {
                b'{' | b'[' | b'(' => depth += 1,
                b'}' | b']' | b')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > DEPTH_MAX {
                return Some(at);
            }
        }
        None
    }

    /// What is wrong at a byte of the text.
    pub fn problem(&self, at: usize, message: String) -> Problem {
        Problem { file: self.path.clone(), place: Some(self.place(at)), message }
    }

    /// Line and column of a byte of the text.
    pub(super) fn place(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line_begins = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_begins..).map_or(0, |line| line.chars().count());
        (before.matches('\n').count() + 1, column + 1)
    }

    /// `file:line:column`, to point at from elsewhere.
    pub(super) fn pointer(&self, span: Option<Range<usize>>) -> String {
        let (line, column) = self.place(span.map_or(0, |span| span.start));
        format!("{}:{line}:{column}", self.path.display())
    }
}
