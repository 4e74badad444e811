//! The bundle as a tar.gz, one file after the other.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;

pub struct Archive<W: Write> {
    tar: tar::Builder<GzEncoder<W>>,
    folder: String,
    /// Seconds since 1970.
    time: u64,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W, folder: &str, time: SystemTime) -> Self {
        Archive {
            tar: tar::Builder::new(GzEncoder::new(out, Compression::default())),
            folder: folder.to_owned(),
            time: time
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs(),
        }
    }

    pub fn add(&mut self, name: &str, content: &[u8]) -> std::io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.time);
        self.tar
            .append_data(&mut header, format!("{}/{name}", self.folder), content)
    }

    pub fn finish(self) -> std::io::Result<()> {
        self.tar.into_inner()?.finish()?.flush()
    }
}
