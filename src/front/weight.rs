//! How much memory a body takes once it is read, told from its text as it arrives. The text says little of that: two bytes
//! may become an object, which takes hundreds. Must not know who sends it, or what it asks for.

/// What a value takes in an object or a list, with its name and the room they grow into.
const VALUE: usize = 128;
/// What an object takes beside that. However few its members are, it has room for eleven.
const OBJECT: usize = 640;
/// What a list takes beside that: it begins with room for four.
const LIST: usize = 128;

/// The weight of one body, added up piece by piece. Of what is no JSON it is a guess, which does no harm: that is refused.
pub(super) struct Scales {
    /// Whether it may be a form, by its media type.
    may_be_form: bool,
    reading: Reading,
    text: usize,
    values: usize,
    objects: usize,
    lists: usize,
}

#[derive(Clone, Copy)]
enum Reading {
    Blanks,
    Form,
    Json,
    Text,
    /// What follows a backslash.
    Escaped,
}

impl Scales {
    pub(super) fn new(may_be_form: bool) -> Scales {
        Scales { may_be_form, reading: Reading::Blanks, text: 0, values: 0, objects: 0, lists: 0 }
    }

    /// The next piece of the text.
    pub(super) fn add(&mut self, piece: &[u8]) {
        self.text = self.text.saturating_add(piece.len());
        for &byte in piece {
            self.reading = match self.reading {
                Reading::Blanks if byte.is_ascii_whitespace() => Reading::Blanks,
                Reading::Blanks => self.begin(byte),
                Reading::Form => self.form(byte),
                Reading::Json => self.json(byte),
                Reading::Text => match byte {
                    b'"' => Reading::Json,
                    b'\\' => Reading::Escaped,
                    _ => Reading::Text,
                },
                Reading::Escaped => Reading::Text,
            };
        }
    }

    fn begin(&mut self, first: u8) -> Reading {
        self.values = 1;
        if self.may_be_form && !begins_json(first) { self.form(first) } else { self.json(first) }
    }

    /// Whatever follows an ampersand is one field more; what is before the first, be it nothing, counts as one.
    fn form(&mut self, byte: u8) -> Reading {
        self.values += usize::from(byte == b'&');
        Reading::Form
    }

    /// Whatever follows a comma is one value more, and so is the first in an object or a list.
    fn json(&mut self, byte: u8) -> Reading {
        self.values += usize::from(matches!(byte, b'{' | b'[' | b','));
        self.objects += usize::from(byte == b'{');
        self.lists += usize::from(byte == b'[');
        if byte == b'"' { Reading::Text } else { Reading::Json }
    }

    /// The values of JSON, or the fields of a form: never fewer than there are, and more only by what is empty.
    pub(super) fn values(&self) -> usize {
        self.values
    }

    /// What it takes in memory in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        let read = self.values.saturating_mul(VALUE).saturating_add(self.objects.saturating_mul(OBJECT));
        self.text.saturating_add(read).saturating_add(self.lists.saturating_mul(LIST))
    }

    /// Whether it is a form. Clients such as curl send JSON under a form's name too.
    pub(super) fn is_form(&self) -> bool {
        matches!(self.reading, Reading::Form)
    }
}

fn begins_json(first: u8) -> bool {
    matches!(first, b'{' | b'[')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> usize {
        let mut scales = Scales::new(false);
        scales.add(text.as_bytes());
        scales.values()
    }

    #[test]
    fn values_are_counted_outside_of_texts_only() {
        for (text, expected) in [
            ("", 0),
            (" \n\t", 0),
            ("7", 1),
            (r#"{"a":1}"#, 2),
            (r#"{"a":[1,2],"b":{"c":null}}"#, 6),
            (r#"["{[,","]}",","]"#, 4),
            (r#"["\"{[,\\",1]"#, 3),
            (r#"["\\",[],"\\\"[,"]"#, 5),
            (r#"{"{,\"[":"\u005b,"}"#, 2),
        ] {
            assert_eq!(values(text), expected, "{text}");
        }
    }

    #[test]
    fn pieces_weigh_what_the_whole_weighs() {
        let text = br#" {"a\"[":"\\","b":[{"c":"\\\",{"},{}]} "#;
        let mut whole = Scales::new(true);
        whole.add(text);
        let mut pieces = Scales::new(true);
        text.iter().for_each(|byte| pieces.add(std::slice::from_ref(byte)));
        assert_eq!((pieces.values(), pieces.bytes()), (whole.values(), whole.bytes()));
        assert_eq!(whole.bytes(), text.len() + whole.values() * VALUE + 3 * OBJECT + LIST);
    }

    #[test]
    fn fields_of_a_form_count_whatever_stands_in_them() {
        let scales = |text: &str| {
            let mut scales = Scales::new(true);
            scales.add(text.as_bytes());
            (scales.is_form(), scales.values())
        };
        assert_eq!(scales("a=\"&b=[,&c"), (true, 3));
        assert_eq!(scales(" &a=1"), (true, 2));
        assert_eq!(scales(" {\"a\":\"&&\"}"), (false, 2));
        assert_eq!(scales(""), (false, 0));
    }

    /// By what each size is in memory: a change of the library's shows here.
    #[test]
    fn nothing_takes_much_more_than_it_weighs() {
        use serde_json::Value;
        // Eleven names and eleven values are kept at the least.
        assert!(11 * (size_of::<String>() + size_of::<Value>()) <= OBJECT);
        assert!(4 * size_of::<Value>() <= LIST);
        // A list has room for twice its values; of an object's, half of the room may be empty.
        assert!(2 * (size_of::<String>() + size_of::<Value>()) + 16 <= VALUE);
    }
}
