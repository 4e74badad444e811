//! What the writers tell while they work. Who draws it is the caller's affair.

/// Told from the thread that called, so it need not be quick, but it delays the writing.
pub trait Progress {
    /// So many more bytes of the tree (or of the blobs) were read.
    fn bytes(&self, _read: u64) {}

    /// Something that does not stop the writing but that somebody should look at; one
    /// line without an end of line.
    fn warning(&self, _text: &str) {}
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}
