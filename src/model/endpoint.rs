//! What can be asked at a path, as told to those who ask for a description of the API. Every table of paths is made of
//! these, so that what is described is what is routed.

use super::Verb;

/// One verb at one pattern of paths.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// What may be done there.
    pub verb: Verb,
    /// Below a mount, or from `sys/` and `auth/` on. `:name` stands for one part of a path, `*name` for one or more.
    pub pattern: &'static str,
    /// One sentence for people.
    pub about: &'static str,
    /// Answered without a token.
    pub is_public: bool,
    /// Whether policies must grant `sudo` for it, too.
    pub needs_sudo: bool,
    /// Let through whatever quotas say: what must go on when everything else is held back.
    pub is_exempt: bool,
    /// What the request may say beside its path, in groups that several endpoints share.
    pub fields: &'static [&'static [Field]],
    /// Whether a write may make what is not there.
    pub creates: bool,
    /// The media type of a request that is no JSON.
    pub sent: Option<&'static str>,
    /// What comes back.
    pub answer: AnswerKind,
    /// Whether nothing comes back where the asker has it already (HTTP 304).
    pub is_conditional: bool,
}

/// The form of the answer to a request that went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// JSON in Vault's envelope, or nothing at all (HTTP 204).
    Envelope,
    /// The same, with the status of what was only begun (HTTP 202); or without, where it was under way already.
    Begun,
    /// JSON without an envelope.
    Bare,
    /// Bytes of this media type, or nothing at all (HTTP 204).
    Raw(&'static str),
}

/// A field of a request.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: FieldKind,
    /// One sentence for people.
    pub about: &'static str,
    /// Whether the request is refused without it.
    pub is_required: bool,
    /// What it is when absent, if that can be said in one word.
    pub default: Option<FieldDefault>,
    /// The values there are; none listed: any.
    pub one_of: &'static [&'static str],
}

/// What a field holds. Everything but lists of objects may also come as text, as Vault has it.
#[derive(Clone, Copy, Debug)]
pub enum FieldKind {
    /// A string.
    Text,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// Seconds, or text like `72h`.
    Duration,
    /// A list of strings, or text with commas.
    List,
    /// An object whose members are up to the client.
    Map,
    /// An object with these members.
    Object(&'static [Field]),
    /// A list of objects with these members.
    Objects(&'static [Field]),
}

/// What a field is when absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldDefault {
    /// This text.
    Text(&'static str),
    /// This boolean.
    Boolean(bool),
    /// This number (seconds, if it is a duration).
    Number(i64),
}

/// An engine a mount may have.
#[derive(Clone, Debug)]
pub struct EngineType {
    /// The mount's `type`.
    pub name: &'static str,
    /// What can be asked below its mounts.
    pub endpoints: Vec<Endpoint>,
    /// The parts its patterns leave open.
    pub parts: &'static [Field],
}

/// What is read at a path by those with a token. `about` is a sentence for people.
pub const fn read(pattern: &'static str, about: &'static str) -> Endpoint {
    Endpoint::new(Verb::Read, pattern, about)
}

/// What is listed there.
pub const fn list(pattern: &'static str, about: &'static str) -> Endpoint {
    Endpoint::new(Verb::List, pattern, about)
}

/// What is done there by a request with a body.
pub const fn write(pattern: &'static str, about: &'static str) -> Endpoint {
    Endpoint::new(Verb::Write, pattern, about)
}

/// What is changed in part there.
pub const fn patch(pattern: &'static str, about: &'static str) -> Endpoint {
    Endpoint::new(Verb::Patch, pattern, about)
}

/// What is deleted there.
pub const fn delete(pattern: &'static str, about: &'static str) -> Endpoint {
    Endpoint::new(Verb::Delete, pattern, about)
}

impl Endpoint {
    const fn new(verb: Verb, pattern: &'static str, about: &'static str) -> Endpoint {
        let answer = AnswerKind::Envelope;
        Endpoint {
            verb,
            pattern,
            about,
            is_public: false,
            needs_sudo: false,
            is_exempt: false,
            fields: &[],
            creates: false,
            sent: None,
            answer,
            is_conditional: false,
        }
    }

    /// This, answered without a token.
    pub const fn public(mut self) -> Endpoint {
        self.is_public = true;
        self
    }

    /// This, for which policies must grant `sudo`, too.
    pub const fn sudo(mut self) -> Endpoint {
        self.needs_sudo = true;
        self
    }

    /// This, which no quota holds back.
    pub const fn unlimited(mut self) -> Endpoint {
        self.is_exempt = true;
        self
    }

    /// Whether no quota holds it back: nor is anything that is answered without a token, but for logins.
    pub const fn is_unlimited(&self) -> bool {
        self.is_exempt || self.is_public
    }

    /// This, of requests that may say these fields beside their path.
    pub const fn takes(mut self, fields: &'static [&'static [Field]]) -> Endpoint {
        self.fields = fields;
        self
    }

    /// This, which may make what is not there.
    pub const fn creating(mut self) -> Endpoint {
        self.creates = true;
        self
    }

    /// This, of requests whose body is of a media type.
    pub const fn sent_as(mut self, media_type: &'static str) -> Endpoint {
        self.sent = Some(media_type);
        self
    }

    /// This, answered with bytes of a media type.
    pub const fn answers(mut self, media_type: &'static str) -> Endpoint {
        self.answer = AnswerKind::Raw(media_type);
        self
    }

    /// This, of which nothing comes back where the asker has it already.
    pub const fn conditional(mut self) -> Endpoint {
        self.is_conditional = true;
        self
    }

    /// This, answered when it has begun.
    pub const fn begun(mut self) -> Endpoint {
        self.answer = AnswerKind::Begun;
        self
    }

    /// This, answered without an envelope.
    pub const fn bare(mut self) -> Endpoint {
        self.answer = AnswerKind::Bare;
        self
    }

    /// The names of the parts the pattern leaves open, in order.
    pub fn open_parts(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.pattern.split('/').filter_map(|part| part.strip_prefix([':', '*']))
    }
}

impl Field {
    const fn new(name: &'static str, kind: FieldKind, about: &'static str) -> Field {
        Field { name, kind, about, is_required: false, default: None, one_of: &[] }
    }

    /// One that holds a string.
    pub const fn text(name: &'static str, about: &'static str) -> Field {
        Field::new(name, FieldKind::Text, about)
    }

    /// One that holds `true` or `false`.
    pub const fn boolean(name: &'static str, about: &'static str) -> Field {
        Field::new(name, FieldKind::Boolean, about)
    }

    /// One that holds a whole number.
    pub const fn integer(name: &'static str, about: &'static str) -> Field {
        Field::new(name, FieldKind::Integer, about)
    }

    /// One that holds a number.
    pub const fn number(name: &'static str, about: &'static str) -> Field {
        Field::new(name, FieldKind::Number, about)
    }

    /// One that holds a span of time.
    pub const fn duration(name: &'static str, about: &'static str) -> Field {
        Field::new(name, FieldKind::Duration, about)
    }

    /// One that holds a list of strings.
    pub const fn list(name: &'static str, about: &'static str) -> Field {
        Field::new(name, FieldKind::List, about)
    }

    /// One that holds an object of the client's.
    pub const fn map(name: &'static str, about: &'static str) -> Field {
        Field::new(name, FieldKind::Map, about)
    }

    /// One that holds an object with these members.
    pub const fn object(name: &'static str, members: &'static [Field], about: &'static str) -> Field {
        Field::new(name, FieldKind::Object(members), about)
    }

    /// One that holds a list of objects with these members.
    pub const fn objects(name: &'static str, members: &'static [Field], about: &'static str) -> Field {
        Field::new(name, FieldKind::Objects(members), about)
    }

    /// This, without which a request is refused.
    pub const fn required(mut self) -> Field {
        self.is_required = true;
        self
    }

    /// This, with what it is when absent.
    pub const fn or(mut self, default: FieldDefault) -> Field {
        self.default = Some(default);
        self
    }

    /// This, which is one of these values.
    pub const fn one_of(mut self, values: &'static [&'static str]) -> Field {
        self.one_of = values;
        self
    }
}
