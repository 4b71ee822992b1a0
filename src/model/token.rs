//! Which token of a PKCS#11 library, or which key in a cloud, which is as good as a token with one key.

use std::sync::Arc;

use super::CloudKey;

/// Names one token, or one cloud key. Slot numbers change with every start of many modules; labels and serial numbers do not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TokenSelector {
    /// By its label (`CK_TOKEN_INFO.label`, trailing blanks removed). The usual choice.
    Label(String),
    /// By its serial number (`CK_TOKEN_INFO.serialNumber`, trailing blanks removed), where labels repeat.
    Serial(String),
    /// By slot number.
    Slot(u64),
    /// No token, but one key in a cloud.
    Cloud(Arc<CloudKey>),
}

/// Of two tokens, the texts differ: a label that could be taken for another selector is quoted.
impl std::fmt::Display for TokenSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TokenSelector::Label(label) if misleads(label) => write!(f, "{label:?}"),
            TokenSelector::Label(label) => f.write_str(label),
            TokenSelector::Serial(serial) => write!(f, "serial {serial}"),
            TokenSelector::Slot(slot) => write!(f, "slot {slot}"),
            TokenSelector::Cloud(key) => key.fmt(f),
        }
    }
}

/// Whether a label begins as what is no label does, or as a quoted one.
fn misleads(label: &str) -> bool {
    ["serial ", "slot ", "\""].iter().any(|start| label.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::TokenSelector::{Label, Serial, Slot};

    #[test]
    fn no_two_tokens_have_one_text() {
        let label = |label: &str| Label(label.into());
        let texts = [
            (label("slot 3"), "\"slot 3\""),
            (Slot(3), "slot 3"),
            (label("serial 3"), "\"serial 3\""),
            (Serial("3".into()), "serial 3"),
            (label("\"slot 3\""), r#""\"slot 3\"""#),
            (Serial("\"3\"".into()), "serial \"3\""),
            (label("slot3"), "slot3"),
            (label("my slot 3"), "my slot 3"),
            (label("Prod CA / 1"), "Prod CA / 1"),
        ];
        for (token, text) in texts {
            assert_eq!(token.to_string(), text);
        }
    }
}
