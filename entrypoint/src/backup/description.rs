//! What an archive says about itself: its first member, and the names of the two members
//! that are not data.

use serde::{Deserialize, Serialize};

/// The first member.
pub const DESCRIPTION: &str = "tiffin-backup.json";
/// The last member: `sha256sum -c` reads it after `tar -xzf`.
pub const SUMS: &str = "SHA256SUMS";
/// Raised by every change that an older box would misread.
pub const FORMAT: u32 = 1;

/// Keys that are not known are for later versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Always [`FORMAT`].
    pub format: u32,
    pub product: String,
    pub title: String,
    /// Of the box that took the backup.
    pub version: String,
    /// RFC 3339, UTC.
    pub created: String,
    pub host: String,
    /// Whose content follows, each under its own path without the first slash.
    pub volumes: Vec<String>,
    pub databases: Vec<Database>,
    /// What the archive does not hold because it is not on the volumes.
    pub elsewhere: Vec<Elsewhere>,
    /// What is on the volumes and was left out.
    pub left_out: Vec<String>,
    /// As counted before the files were read.
    pub files: u64,
    pub bytes: u64,
    /// How long the databases took no writes, in milliseconds.
    pub writes_blocked_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    pub service: String,
    pub directories: Vec<String>,
    pub taken: Taken,
}

/// How the files of a database came into the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Taken {
    /// Copied while it took no writes.
    Frozen,
    /// It did not run.
    Stopped,
    /// It ran, and the recipe names no way to freeze it.
    Running,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    pub service: String,
    pub reason: String,
}

impl Description {
    /// For people, a few lines.
    pub fn text(&self) -> String {
        let mut out = format!(
            "{} {}, taken {} on {}: about {} files, {} bytes of {}\n",
            self.product,
            self.version,
            self.created,
            self.host,
            self.files,
            self.bytes,
            self.volumes.join(", ")
        );
        for database in &self.databases {
            let how = match database.taken {
                Taken::Frozen => "consistent, copied while it took no writes",
                Taken::Stopped => "it did not run",
                Taken::Running => "copied while it ran: it recovers as after a power cut",
            };
            out.push_str(&format!(
                "  {}: {} ({how})\n",
                database.service,
                database.directories.join(", ")
            ));
        }
        for other in &self.elsewhere {
            out.push_str(&format!(
                "  {}: NOT in this backup, its data is elsewhere ({})\n",
                other.service, other.reason
            ));
        }
        if !self.left_out.is_empty() {
            out.push_str(&format!("  left out: {}\n", self.left_out.join(", ")));
        }
        // From outside: nothing that moves a terminal's cursor.
        out.chars()
            .filter(|c| *c == '\n' || !c.is_control())
            .collect()
    }
}
