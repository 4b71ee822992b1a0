//! Which token of a PKCS#11 library.

/// Names one token. Slot numbers change with every start of many modules; labels and serial numbers do not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TokenSelector {
    /// By its label (`CK_TOKEN_INFO.label`, trailing blanks removed). The usual choice.
    Label(String),
    /// By its serial number (`CK_TOKEN_INFO.serialNumber`, trailing blanks removed), where labels repeat.
    Serial(String),
    /// By slot number.
    Slot(u64),
}

impl std::fmt::Display for TokenSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TokenSelector::Label(label) => f.write_str(label),
            TokenSelector::Serial(serial) => write!(f, "serial {serial}"),
            TokenSelector::Slot(slot) => write!(f, "slot {slot}"),
        }
    }
}
