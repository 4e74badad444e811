//! The JSON documents of both formats, as others write them: Go leaves out what is empty,
//! or writes `null`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Of any document; containerd takes 20 MiB, registries 4.
pub(crate) const MAX_DOCUMENT: u64 = 8 << 20;

/// image-spec, descriptor.md.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, deserialize_with = "null")]
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) platform: Option<Platform>,
}

/// For which machine an image is, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// `amd64`
    #[serde(default)]
    pub architecture: String,
    /// `linux`
    #[serde(default)]
    pub os: String,
}

impl Platform {
    /// That of the machine that this runs on.
    pub fn here() -> Platform {
        Platform {
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
            .to_owned(),
            os: "linux".to_owned(),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// An index, or a manifest: which one it is shows in what it lists, and both at once is
/// somebody's trick (CVE-2021-41190).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listing {
    pub(crate) manifests: Option<Vec<Descriptor>>,
    pub(crate) config: Option<Descriptor>,
    pub(crate) layers: Option<Vec<Descriptor>>,
    /// Of Docker's manifests before 2016, which nothing verifies.
    pub(crate) fs_layers: Option<serde_json::Value>,
}

/// image-spec, image-layout.md.
#[derive(Debug, Deserialize)]
pub(crate) struct Layout {
    #[serde(rename = "imageLayoutVersion")]
    pub(crate) version: String,
}

/// An entry of `manifest.json` (moby, image/spec/v1.2.md).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerImage {
    pub(crate) config: String,
    #[serde(default, deserialize_with = "null")]
    pub(crate) repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "null")]
    pub(crate) layers: Vec<String>,
}

/// image-spec, config.md: what others put into it and somebody here asks for.
#[derive(Debug, Clone, Deserialize)]
pub struct Settings {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    pub created: Option<String>,
    pub author: Option<String>,
    #[serde(default, deserialize_with = "null")]
    pub config: Execution,
    pub(crate) rootfs: RootFs,
    #[serde(default, deserialize_with = "null")]
    pub history: Vec<History>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Execution {
    pub user: Option<String>,
    /// `NAME=value`.
    #[serde(default, deserialize_with = "null")]
    pub env: Vec<String>,
    #[serde(default, deserialize_with = "null")]
    pub entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "null")]
    pub cmd: Vec<String>,
    pub working_dir: Option<String>,
    pub stop_signal: Option<String>,
    #[serde(default, deserialize_with = "null")]
    pub labels: BTreeMap<String, String>,
    /// `80/tcp`.
    #[serde(default, deserialize_with = "names")]
    pub exposed_ports: Vec<String>,
    #[serde(default, deserialize_with = "names")]
    pub volumes: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default, deserialize_with = "null")]
    pub(crate) diff_ids: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct History {
    pub created_by: Option<String>,
    pub comment: Option<String>,
    #[serde(default)]
    pub empty_layer: bool,
}

fn null<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Go's sets: `{"80/tcp": {}}`.
fn names<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let set: Option<BTreeMap<String, serde::de::IgnoredAny>> = Option::deserialize(from)?;
    Ok(set.unwrap_or_default().into_keys().collect())
}

/// `sha256:` and 64 lower-case digits: nothing else is a digest here, so none can be a path
/// (CVE-2024-3727).
pub(crate) fn check_digest(digest: &str) -> Result<&str, String> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if is_hex(hex) => Ok(hex),
        _ => Err(format!(
            "`{digest}` is not `sha256:` and 64 hexadecimal digits"
        )),
    }
}

pub(crate) fn is_hex(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
