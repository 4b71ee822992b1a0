//! Reads the fields of one stanza by name and type. What is left over at the end is unknown, and said to be.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use hcl::edit::Span;
use hcl::edit::expr::{Expression, ObjectKey, ObjectValue};
use hcl::edit::structure::{Block, Body, Structure};

use super::document::{Document, Problem};
use crate::model::{TokenSelector, parse_duration};

/// One stanza being read.
pub(super) struct Reader<'a> {
    document: &'a Document,
    body: &'a Body,
    /// How the stanza is called in messages; empty at the top level.
    name: String,
    /// Where it begins.
    begin: usize,
    /// Names of blocks that are allowed here, and read by others.
    blocks: &'a [&'a str],
    asked: BTreeSet<&'static str>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        document: &'a Document,
        body: &'a Body,
        name: String,
        begin: usize,
        problems: &'a mut Vec<Problem>,
    ) -> Reader<'a> {
        Reader { document, body, name, begin, blocks: &[], asked: BTreeSet::new(), problems }
    }

    pub(super) fn allow_blocks(mut self, blocks: &'a [&'a str]) -> Self {
        self.blocks = blocks;
        self
    }

    /// A stanza within this one.
    pub(super) fn nested<'b>(&'b mut self, block: &'b Block, name: String) -> Reader<'b> {
        let begin = block.ident.span().map_or(self.begin, |span| span.start);
        Reader::new(self.document, &block.body, name, begin, self.problems)
    }

    /// Notes what is wrong with the stanza as a whole.
    pub(super) fn refuse(&mut self, message: impl Into<String>) {
        self.problems.push(self.document.problem(self.begin, message.into()));
    }

    /// Notes what is wrong with a field that was read already; with the stanza, if it has no such field.
    pub(super) fn refuse_field(&mut self, name: &str, message: String) {
        let span = self.body.get_attribute(name).and_then(|attribute| attribute.key.span());
        self.refuse_at(span, message);
    }

    fn refuse_at(&mut self, span: Option<Range<usize>>, message: String) {
        let at = span.map_or(self.begin, |span| span.start);
        self.problems.push(self.document.problem(at, message));
    }

    fn find(&mut self, name: &'static str) -> Option<&'a Expression> {
        self.asked.insert(name);
        self.body.get_attribute(name).map(|attribute| &attribute.value)
    }

    /// Any field: `read` makes a value of it or says what was expected.
    pub(super) fn parsed<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Expression) -> Result<T, String>,
    ) -> Option<T> {
        let expression = self.find(name)?;
        match read(expression) {
            Ok(value) => Some(value),
            Err(message) => {
                self.refuse_at(expression.span(), format!("{name}: {message}"));
                None
            }
        }
    }

    /// A token, by one of the three ways to name it; `whose` is what it is of.
    pub(super) fn token(&mut self, whose: &str) -> Option<TokenSelector> {
        let label = self.text("token_label").map(TokenSelector::Label);
        let serial = self.text("serial").map(TokenSelector::Serial);
        let slot = self.parsed("slot", |expression| {
            let number = expression.as_number().and_then(|number| number.as_u64());
            number.map(TokenSelector::Slot).ok_or_else(|| "expected a slot's number".to_owned())
        });
        let mut named = [label, serial, slot].into_iter().flatten();
        let token = named.next();
        if token.is_none() || named.next().is_some() {
            self.refuse(format!("{whose} names its token by exactly one of token_label, serial and slot"));
            return None;
        }
        token
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &'static str) -> Option<bool> {
        self.parsed(name, |expression| expression.as_bool().ok_or_else(|| "expected true or false".to_owned()))
    }

    /// Whether the field is given at all.
    pub(super) fn has(&self, name: &str) -> bool {
        self.body.get_attribute(name).is_some()
    }

    /// A string that is not empty.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        self.parsed(name, |expression| text(expression).map(str::to_owned))
    }

    /// Like [`text`](Self::text), for a field without which there is no stanza.
    pub(super) fn required(&mut self, name: &'static str) -> Option<String> {
        if self.body.get_attribute(name).is_none() {
            self.asked.insert(name);
            self.refuse(format!("{} needs the field {name:?}", self.name));
            return None;
        }
        self.text(name)
    }

    pub(super) fn required_path(&mut self, name: &'static str) -> Option<PathBuf> {
        self.required(name).map(PathBuf::from)
    }

    /// One of these words.
    pub(super) fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&str, T)]) -> Option<T> {
        self.parsed(name, |expression| {
            let words = || choices.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(", ");
            let given = text(expression).map_err(|_| format!("expected one of {}", words()))?;
            let found = choices.iter().find(|(word, _)| *word == given).map(|(_, value)| *value);
            found.ok_or_else(|| format!("expected one of {}, not {given:?}", words()))
        })
    }

    /// A truth.
    pub(super) fn boolean(&mut self, name: &'static str) -> Option<bool> {
        self.parsed(name, |expression| {
            expression.as_bool().ok_or_else(|| "expected true or false, without quotes".to_owned())
        })
    }

    /// A whole number in a range.
    pub(super) fn count(&mut self, name: &'static str, range: RangeInclusive<usize>, into: &mut usize) {
        let read = self.parsed(name, |expression| {
            number(expression)
                .and_then(|number| usize::try_from(number).ok())
                .filter(|number| range.contains(number))
                .ok_or_else(|| format!("expected a whole number from {} to {}", range.start(), range.end()))
        });
        *into = read.unwrap_or(*into);
    }

    /// A whole number in a range, of any type.
    pub(super) fn small<N>(&mut self, name: &'static str, range: RangeInclusive<usize>, into: &mut N)
    where
        N: Copy + TryFrom<usize> + TryInto<usize>,
    {
        let mut number = (*into).try_into().unwrap_or(0);
        self.count(name, range, &mut number);
        *into = number.try_into().unwrap_or(*into);
    }

    /// A size: bytes, or a string with the unit `KiB` or `MiB`.
    pub(super) fn bytes(&mut self, name: &'static str, range: RangeInclusive<usize>, into: &mut usize) {
        let read = self.parsed(name, |expression| {
            number(expression)
                .and_then(|number| usize::try_from(number).ok())
                .or_else(|| text(expression).ok().and_then(size))
                .filter(|size| range.contains(size))
                .ok_or_else(|| {
                    let (least, most) = (range.start(), range.end());
                    format!("expected a size from {least} to {most} bytes, such as 65536, \"64KiB\" or \"1MiB\"")
                })
        });
        *into = read.unwrap_or(*into);
    }

    /// A duration: a string with a unit, or whole seconds.
    pub(super) fn duration(&mut self, name: &'static str, range: RangeInclusive<Duration>, into: &mut Duration) {
        let read = self.parsed(name, |expression| {
            duration(expression).filter(|duration| range.contains(duration)).ok_or_else(|| {
                format!(
                    "expected a duration from {:?} to {:?}, such as \"250us\" or \"5s\"",
                    range.start(),
                    range.end()
                )
            })
        });
        *into = read.unwrap_or(*into);
    }

    /// A duration in a range, or zero, which is never.
    pub(super) fn duration_or_never(
        &mut self,
        name: &'static str,
        range: RangeInclusive<Duration>,
        into: &mut Duration,
    ) {
        let read = self.parsed(name, |expression| {
            let allowed = |given: &Duration| given.is_zero() || range.contains(given);
            duration(expression).filter(allowed).ok_or_else(|| {
                let (least, most) = (range.start(), range.end());
                format!("expected a duration from {least:?} to {most:?}, such as \"30s\", or \"0s\" for never")
            })
        });
        *into = read.unwrap_or(*into);
    }

    /// Texts by name, such as an environment.
    pub(super) fn texts(&mut self, name: &'static str) -> BTreeMap<String, String> {
        let read = self.parsed(name, |expression| {
            let expected = || "expected names and strings, such as { NAME = \"value\" }".to_owned();
            let pair = |(key, value): (&ObjectKey, &ObjectValue)| {
                let key = key.as_ident().map(|ident| ident.as_str()).or(key.as_expr().and_then(Expression::as_str));
                Some((key?.to_owned(), value.expr().as_str()?.to_owned()))
            };
            let object = expression.as_object().ok_or_else(expected)?;
            object.iter().map(pair).collect::<Option<BTreeMap<_, _>>>().ok_or_else(expected)
        });
        read.unwrap_or_default()
    }

    /// A list of numbers, such as uids.
    pub(super) fn ids(&mut self, name: &'static str) -> Vec<u32> {
        let read = self.parsed(name, |expression| {
            let items = expression.as_array().map(|array| array.iter().map(id).collect::<Option<Vec<u32>>>());
            items.flatten().ok_or_else(|| "expected a list of numbers, such as [1000, 1001]".to_owned())
        });
        read.unwrap_or_default()
    }

    /// Says what is in the stanza that nobody asked for.
    pub(super) fn finish(mut self) {
        let fields = || {
            let asked: Vec<&str> = self.asked.iter().copied().chain(self.blocks.iter().copied()).collect();
            asked.join(", ")
        };
        let whose = if self.name.is_empty() { "here".to_owned() } else { format!("in {}", self.name) };
        let mut unknown = Vec::new();
        for structure in self.body {
            match structure {
                Structure::Attribute(attribute) if !self.asked.contains(attribute.key.as_str()) => {
                    let key = attribute.key.as_str();
                    let message = if self.blocks.contains(&key) {
                        format!("{key} is a stanza: expected {key} {{ … }}, without \"=\"")
                    } else {
                        format!("unknown field {key:?}; expected {whose}: {}", fields())
                    };
                    unknown.push((attribute.key.span(), message));
                }
                Structure::Block(block) if !self.blocks.contains(&block.ident.as_str()) => {
                    let ident = block.ident.as_str();
                    let message = if self.asked.contains(ident) {
                        format!("{ident} is a field: expected {ident} = …")
                    } else {
                        format!("unknown stanza {ident:?}; expected {whose}: {}", fields())
                    };
                    unknown.push((block.ident.span(), message));
                }
                _ => {}
            }
        }
        for (span, message) in unknown {
            self.refuse_at(span, message);
        }
    }
}

/// The text of a string that is neither empty nor a template.
pub(super) fn text(expression: &Expression) -> Result<&str, String> {
    match expression.as_str() {
        Some("") => Err("expected a string that is not empty".to_owned()),
        Some(text) => Ok(text),
        None if expression.is_template() => Err("expected a plain string, without ${…}".to_owned()),
        None => Err("expected a string in quotes".to_owned()),
    }
}

fn number(expression: &Expression) -> Option<u64> {
    expression.as_number().and_then(|number| number.as_u64())
}

fn duration(expression: &Expression) -> Option<Duration> {
    let seconds = number(expression).map(Duration::from_secs);
    seconds.or_else(|| text(expression).ok().and_then(parse_duration))
}

fn id(expression: &Expression) -> Option<u32> {
    number(expression).and_then(|number| u32::try_from(number).ok())
}

fn size(text: &str) -> Option<usize> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let unit = match unit {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}
