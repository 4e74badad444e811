//! The image configuration (image-spec, config.md), with Docker's health check.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Layer;

/// What an engine is told about the image. Empty fields are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// Seconds since 1970.
    pub created_epoch: u64,
    pub author: Option<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Absolute paths.
    pub volumes: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// `SIGTERM`.
    pub stop_signal: Option<String>,
    pub healthcheck: Option<Healthcheck>,
    pub working_dir: Option<String>,
    /// `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// What made each layer, lowest first: shown by `docker history`. One a layer, or none at all.
    pub history: Vec<String>,
}

/// Docker's extension of the configuration; podman and containerd keep it too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `["CMD", program, argument…]` or `["CMD-SHELL", command line]`.
    pub test: Vec<String>,
    pub interval_s: u64,
    pub timeout_s: u64,
    pub start_period_s: u64,
    pub retries: u32,
}

impl Config {
    /// The JSON document; the same bytes for the same values.
    pub(crate) fn json(&self, layers: &[Layer]) -> Vec<u8> {
        let created = rfc3339(self.created_epoch);
        let set = |names: &[String]| names.iter().map(|name| (name.clone(), Empty {})).collect();
        let document = Document {
            created: &created,
            author: self.author.as_deref(),
            architecture: &self.architecture,
            os: &self.os,
            config: Execution {
                user: self.user.as_deref(),
                exposed_ports: set(&self.exposed_ports),
                env: &self.env,
                entrypoint: &self.entrypoint,
                cmd: &self.cmd,
                volumes: set(&self.volumes),
                working_dir: self.working_dir.as_deref(),
                labels: &self.labels,
                stop_signal: self.stop_signal.as_deref(),
                healthcheck: self.healthcheck.as_ref().map(|check| Check {
                    test: &check.test,
                    interval: nanoseconds(check.interval_s),
                    timeout: nanoseconds(check.timeout_s),
                    start_period: nanoseconds(check.start_period_s),
                    retries: check.retries,
                }),
            },
            rootfs: RootFs {
                kind: "layers",
                diff_ids: layers.iter().map(|layer| layer.diff_id.as_str()).collect(),
            },
            history: self
                .history
                .iter()
                .map(|created_by| History {
                    created: &created,
                    created_by,
                })
                .collect(),
        };
        serde_json::to_vec(&document).expect("text and numbers always serialise")
    }
}

/// `2026-11-21T05:22:34Z` from seconds since 1970 (RFC 3339).
pub fn rfc3339(epoch: u64) -> String {
    let (days, second) = (epoch / 86_400, epoch % 86_400);
    // Years begin in March here, so that the leap day is the last one of a year and the
    // months' lengths repeat every five months; eras of 400 years repeat exactly.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = year + era * 400 + carry;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn nanoseconds(seconds: u64) -> u64 {
    seconds.saturating_mul(1_000_000_000).min(i64::MAX as u64)
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Document<'a> {
    created: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<&'a str>,
    architecture: &'a str,
    os: &'a str,
    config: Execution<'a>,
    rootfs: RootFs<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<History<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Execution<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<String, Empty>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    env: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    entrypoint: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    cmd: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<String, Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<Check<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Check<'a> {
    test: &'a [String],
    interval: u64,
    timeout: u64,
    start_period: u64,
    retries: u32,
}

#[derive(Serialize)]
struct RootFs<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    diff_ids: Vec<&'a str>,
}

#[derive(Serialize)]
struct History<'a> {
    created: &'a str,
    created_by: &'a str,
}
