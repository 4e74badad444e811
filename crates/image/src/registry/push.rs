//! From an archive into a registry.

use std::io::Read;
use std::thread::sleep;
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE};
use reqwest::{StatusCode, Url};

use super::client::{ATTEMPTS, PAUSE, Registry, asked_pause, may_pass};
use super::{Fault, Options, Result};
use crate::read::{Image, Part};
use crate::{Error, Progress, Reference};

/// What is sent at once, and sent again when a connection breaks.
const CHUNK: u64 = 8 << 20;

/// For one chunk over a slow line.
const PATIENCE: Duration = Duration::from_secs(600);

/// What was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// `sha256:…`
    pub manifest_digest: String,
    /// Blobs that were sent; the others were there already.
    pub sent: usize,
}

impl Image {
    /// Sends the image to a registry under `reference`, which needs a tag. `mount_from` is
    /// another repository of the same registry that probably has some of the layers.
    ///
    /// # Errors
    ///
    /// A host that cannot be reached or refuses; a blob that is damaged here.
    pub fn push(
        &self,
        reference: &Reference,
        mount_from: Option<&str>,
        options: &Options,
        progress: &dyn Progress,
    ) -> std::result::Result<Pushed, Error> {
        let fail = |fault: Fault| fault.about("push", reference);
        let full: Reference = reference
            .fully_qualified()
            .parse()
            .expect("a reference stays one when it is qualified");
        let Some(tag) = full.tag() else {
            return Err(fail(Fault::new("it needs a tag and no digest")));
        };
        let (Some(manifest), Some(digest)) = (&self.manifest, &self.manifest_digest) else {
            return Err(fail(
                Fault::new(format!("{} has no manifest of its own", self.name))
                    .hint("push an OCI archive, such as the one that `tiffin build` writes"),
            ));
        };
        // What is damaged here must not be mistaken for a fault of the registry, nor part
        // of it be sent.
        for layer in &self.layers {
            layer.check(&self.name)?;
        }
        let host = full.registry().expect("it is qualified");
        let registry = Registry::open(host, options).map_err(fail)?;
        let mut scope = format!("repository:{}:pull,push", full.path());
        if let Some(from) = mount_from {
            scope += &format!(" repository:{from}:pull");
        }
        let upload = Upload {
            registry: &registry,
            path: full.path(),
            scope,
            mount_from,
            progress,
        };
        let mut sent = 0;
        let mut done = Vec::new();
        for layer in &self.layers {
            let digest = layer.digest.as_deref().expect("a manifest names them");
            if done.contains(&digest) {
                continue;
            }
            done.push(digest);
            sent += usize::from(
                upload
                    .blob(digest, &Body::Part(&layer.part))
                    .map_err(fail)?,
            );
        }
        let config = Body::Bytes(&self.config);
        sent += usize::from(upload.blob(&self.config_digest, &config).map_err(fail)?);
        upload.manifest(tag, manifest, digest).map_err(fail)?;
        Ok(Pushed {
            manifest_digest: digest.clone(),
            sent,
        })
    }
}

enum Body<'a> {
    Part(&'a Part),
    Bytes(&'a [u8]),
}

impl Body<'_> {
    fn size(&self) -> u64 {
        match self {
            Body::Part(part) => part.size,
            Body::Bytes(bytes) => bytes.len() as u64,
        }
    }

    fn chunk(&self, from: u64) -> Result<Vec<u8>> {
        let length = CHUNK.min(self.size() - from);
        match self {
            Body::Bytes(bytes) => Ok(bytes[from as usize..(from + length) as usize].to_vec()),
            Body::Part(part) => {
                let part = Part {
                    offset: part.offset + from,
                    size: length,
                    ..(*part).clone()
                };
                let mut chunk = Vec::new();
                part.reader()
                    .read_to_end(&mut chunk)
                    .map_err(|error| Fault::new(format!("{}: {error}", part.path.display())))?;
                Ok(chunk)
            }
        }
    }
}

/// Whether an upload can be continued after such an answer to a part of it.
fn may_go_on(status: StatusCode) -> bool {
    may_pass(status)
        || matches!(
            status,
            // Another part than the next one; a token that expired; an upload that was forgotten.
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND
        )
}

struct Upload<'a> {
    registry: &'a Registry,
    path: &'a str,
    scope: String,
    mount_from: Option<&'a str>,
    progress: &'a dyn Progress,
}

impl Upload<'_> {
    /// Whether the blob had to be sent.
    fn blob(&self, digest: &str, body: &Body) -> Result<bool> {
        let registry = self.registry;
        if self.is_there(digest)? {
            return Ok(false);
        }
        let Some(mut location) = self.begin(digest)? else {
            return Ok(false);
        };
        let (mut at, mut told) = (0, 0);
        let mut failures = 0;
        while at < body.size() {
            let chunk = body.chunk(at)?;
            let length = chunk.len() as u64;
            let range = format!("{at}-{}", at + length - 1);
            // Not sent again blindly: the registry may have taken a part of it.
            let sent = self.once(&location, &range, chunk);
            match sent {
                Ok(response) if response.status() == StatusCode::ACCEPTED => {
                    location = registry.location(&response)?;
                    at += length;
                    failures = 0;
                    self.progress.bytes(at.saturating_sub(told));
                    told = told.max(at);
                }
                Ok(response) if !may_go_on(response.status()) => {
                    return Err(registry.refusal("upload", response));
                }
                other => {
                    failures += 1;
                    if failures >= ATTEMPTS {
                        return Err(match other {
                            Ok(response) => registry.refusal("upload", response),
                            Err(fault) => fault,
                        });
                    }
                    let asked = other.ok().and_then(|response| asked_pause(&response));
                    sleep(asked.unwrap_or(PAUSE * 2u32.pow(failures - 1)));
                    let before = at;
                    (location, at) = match self.resume(&location)? {
                        Some(state) => state,
                        // It was started anew, or forgets what takes long.
                        None => match self.begin(digest)? {
                            Some(location) => (location, 0),
                            None => return Ok(false),
                        },
                    };
                    if at > before {
                        // As long as something gets through it goes on.
                        failures = 0;
                    }
                }
            }
        }
        let mut url = location;
        url.query_pairs_mut().append_pair("digest", digest);
        let done = registry.send(&self.scope, || {
            registry
                .client()
                .put(url.clone())
                .header("Content-Length", "0")
        })?;
        match done.status() {
            StatusCode::CREATED => Ok(true),
            // The answer to the first of several attempts got lost.
            StatusCode::NOT_FOUND if self.is_there(digest)? => Ok(true),
            _ => Err(registry.refusal("upload", done)),
        }
    }

    fn is_there(&self, digest: &str) -> Result<bool> {
        let registry = self.registry;
        let url = registry.url(&format!("v2/{}/blobs/{digest}", self.path));
        let found = registry.send(&self.scope, || registry.client().head(url.clone()))?;
        Ok(found.status().is_success())
    }

    /// Where to upload to; `None` when the registry had the blob in the other repository.
    fn begin(&self, digest: &str) -> Result<Option<Url>> {
        let registry = self.registry;
        let mut url = registry.url(&format!("v2/{}/blobs/uploads/", self.path));
        if let Some(from) = self.mount_from {
            url.query_pairs_mut()
                .append_pair("mount", digest)
                .append_pair("from", from);
        }
        let begun = registry.send(&self.scope, || registry.client().post(url.clone()))?;
        match begun.status() {
            StatusCode::CREATED => Ok(None),
            StatusCode::ACCEPTED => registry.location(&begun).map(Some),
            _ => Err(registry.refusal("upload", begun)),
        }
    }

    fn once(
        &self,
        location: &Url,
        range: &str,
        chunk: Vec<u8>,
    ) -> Result<reqwest::blocking::Response> {
        let registry = self.registry;
        let mut request = registry
            .client()
            .patch(location.clone())
            .timeout(PATIENCE)
            .header(CONTENT_RANGE, range)
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(chunk);
        if let Some(token) = registry.authorization(&self.scope) {
            request = request.header("Authorization", token);
        }
        request.send().map_err(|error| registry.unreachable(error))
    }

    /// How far the registry came (distribution-spec, Pushing a blob in chunks); `None` when it
    /// knows nothing of the upload. Asking renews a token that has expired, too.
    fn resume(&self, location: &Url) -> Result<Option<(Url, u64)>> {
        let registry = self.registry;
        let state = registry.send(&self.scope, || registry.client().get(location.clone()))?;
        match state.status() {
            StatusCode::NO_CONTENT => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(registry.refusal("upload", state)),
        }
        let range = state
            .headers()
            .get("range")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let last = range
            .trim_start_matches("bytes=")
            .rsplit('-')
            .next()
            .and_then(|last| last.parse::<u64>().ok());
        // `0-0` is what an upload without any byte has too.
        let at = match last {
            None | Some(0) => 0,
            Some(last) => last + 1,
        };
        let location = registry.location(&state).unwrap_or(location.clone());
        Ok(Some((location, at)))
    }

    fn manifest(&self, tag: &str, manifest: &[u8], digest: &str) -> Result<()> {
        let registry = self.registry;
        let url = registry.url(&format!("v2/{}/manifests/{tag}", self.path));
        let media_type = serde_json::from_slice::<serde_json::Value>(manifest)
            .ok()
            .and_then(|manifest| Some(manifest.get("mediaType")?.as_str()?.to_owned()))
            .unwrap_or_else(|| "application/vnd.oci.image.manifest.v1+json".to_owned());
        let done = registry.send(&self.scope, || {
            registry
                .client()
                .put(url.clone())
                .header(CONTENT_TYPE, &media_type)
                .body(manifest.to_vec())
        })?;
        if done.status() != StatusCode::CREATED {
            return Err(registry.refusal("manifest", done));
        }
        let said = done.headers().get("docker-content-digest");
        match said.and_then(|value| value.to_str().ok()) {
            Some(said) if said != digest => Err(Fault::new(format!(
                "{} took it for {said} instead of {digest}",
                registry.host
            ))),
            _ => Ok(()),
        }
    }
}
