//! Bodies too large for memory: handed over as a file, or to whoever takes them piece by piece. Both are driven from outside, on a
//! thread that may block.

use std::fmt;
use std::fs::File;
use std::pin::Pin;

use super::{Fault, Response};

/// The body of an answer, made only when it is sent: making it may take longer than a deadline.
pub struct Download(Box<dyn FnOnce() -> Result<FileBody, Fault> + Send>);

/// A body that is there.
pub struct FileBody {
    /// From its beginning.
    pub file: File,
    /// Its length.
    pub bytes: u64,
    /// Kept until it is sent.
    pub held: Box<dyn Send>,
}

impl Download {
    /// What `make` makes.
    pub fn new(make: impl FnOnce() -> Result<FileBody, Fault> + Send + 'static) -> Download {
        Download(Box::new(make))
    }

    /// Makes it. Blocks.
    pub fn make(self) -> Result<FileBody, Fault> {
        (self.0)()
    }
}

/// Takes the body of a request whose asker was found good before it was read.
pub trait Intake: Send {
    /// The next piece. Blocks. Refused, it wants no other.
    fn take(&mut self, piece: &[u8]) -> Result<(), Fault>;

    /// It is whole. What is begun thereby goes on if nobody waits for it.
    fn end(self: Box<Self>) -> Ending;
}

/// What comes of a body.
pub type Ending = Pin<Box<dyn Future<Output = Result<Response, Fault>> + Send>>;

/// Where the body of a request goes.
pub struct Upload(pub Box<dyn Intake>);

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Download")
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upload")
    }
}
