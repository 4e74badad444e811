//! From a registry onto this disk.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use reqwest::StatusCode;
use reqwest::blocking::Response;
use reqwest::header::{ACCEPT, CONTENT_RANGE, RANGE};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use super::client::{ATTEMPTS, Registry, limited};
use super::{Fault, Options, Result};
use crate::compress::{digest, hash_all};
use crate::read::{
    Descriptor, Image, Listing, MAX_DOCUMENT, Part, Platform, Settings, assemble, check,
    check_digest, matches, of, other_platforms, parse, verify,
};
use crate::{Error, Progress, Reference};

const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// An image in a registry, of which the documents are here and verified.
pub struct Remote {
    reference: Reference,
    /// `None` where what lies on this disk is all there is.
    registry: Option<Registry>,
    /// `sha256:…`
    pub manifest_digest: String,
    /// `sha256:…`, Docker's image ID. It covers the content of all layers.
    pub config_digest: String,
    pub settings: Settings,
    manifest: Vec<u8>,
    config: Vec<u8>,
    layers: Vec<Descriptor>,
}

impl Remote {
    /// Asks mirrors, then the registry itself, for the image for `platform`.
    ///
    /// # Errors
    ///
    /// A host that cannot be reached or refuses, and documents that are not what their
    /// digest says.
    pub fn find(
        reference: &Reference,
        platform: &Platform,
        options: &Options,
    ) -> std::result::Result<Remote, Error> {
        let full: Reference = reference
            .fully_qualified()
            .parse()
            .expect("a reference stays one when it is qualified");
        let host = full.registry().expect("it is qualified");
        let mirrors = options
            .mirrors
            .iter()
            .filter(|(of, _)| of == host)
            .map(|(_, mirror)| mirror.as_str());
        let mut last = None;
        for host in mirrors.chain([host]) {
            match find(host, reference, &full, platform, options) {
                Ok(found) => return Ok(found),
                Err(fault) if fault.elsewhere => last = Some(fault),
                Err(fault) => return Err(fault.about("pull", reference)),
            }
        }
        Err(last
            .expect("there is one host at least")
            .about("pull", reference))
    }

    /// The image without asking anybody: its [documents](Self::documents) and layers lie in
    /// `blobs` by the names that [`fetch`](Self::fetch) gives.
    ///
    /// # Errors
    ///
    /// A document that is not there, or is not what its digest says.
    pub fn kept(
        reference: &Reference,
        manifest_digest: &str,
        blobs: &Path,
    ) -> std::result::Result<Remote, Error> {
        kept(reference, manifest_digest, blobs).map_err(|fault| fault.about("pull", reference))
    }

    /// Digest and content of manifest and configuration.
    pub fn documents(&self) -> [(&str, &[u8]); 2] {
        [
            (&self.manifest_digest, &self.manifest),
            (&self.config_digest, &self.config),
        ]
    }

    /// Fetches what `blobs` does not hold yet. A blob that was half fetched when a build
    /// was killed is continued.
    pub fn fetch(
        &self,
        blobs: &Path,
        progress: &dyn Progress,
    ) -> std::result::Result<Image, Error> {
        fs::create_dir_all(blobs).map_err(Error::io("create", blobs))?;
        let mut files = Vec::new();
        for layer in &self.layers {
            let part = self.blob(layer, blobs, progress)?;
            files.push((Some(layer.digest.clone()), part));
        }
        assemble(
            self.reference.to_string(),
            vec![self.reference.to_string()],
            Some((self.manifest_digest.clone(), self.manifest.clone())),
            (
                self.config_digest.clone(),
                self.config.clone(),
                self.settings.clone(),
            ),
            files,
        )
    }

    fn blob(
        &self,
        layer: &Descriptor,
        blobs: &Path,
        progress: &dyn Progress,
    ) -> std::result::Result<Part, Error> {
        let fail = |fault: Fault| fault.about("pull", &self.reference);
        let hex = check_digest(&layer.digest).map_err(|reason| fail(Fault::new(reason)))?;
        let place = blobs.join(hex);
        let part = |file: File| Part {
            file: Arc::new(file),
            path: place.clone(),
            offset: 0,
            size: layer.size,
        };
        let whole = |place: &Path| -> Option<File> {
            let mut file = File::open(place).ok()?;
            let mut hash = Sha256::new();
            hash_all(&mut file, &mut hash).ok()?;
            (digest(hash) == layer.digest).then_some(file)
        };
        if let Some(file) = whole(&place) {
            return Ok(part(file));
        }
        let Some(registry) = &self.registry else {
            let reason = format!(
                "the blob {} is not in the cache, or damaged there, and this build has no network",
                layer.digest
            );
            return Err(fail(Fault::new(reason)));
        };
        // One build at a time fetches a blob; the others find it.
        let partial = blobs.join(format!("{hex}.download"));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&partial)
            .map_err(Error::write(&partial, None))?;
        flock(&file, FlockOperation::LockExclusive)
            .map_err(|error| Error::io("lock", &partial)(error.into()))?;
        if let Some(file) = whole(&place) {
            let _ = fs::remove_file(&partial);
            return Ok(part(file));
        }
        let (device, free) = crate::atomic::space(&place);
        let have = file.metadata().map_err(Error::io("read", &partial))?.len();
        if layer.size.saturating_sub(have) > free {
            return Err(Error::NoSpace {
                path: place,
                device,
                needed: Some(layer.size - have),
                free,
            });
        }
        self.download(registry, layer, &mut file, &partial, progress, &fail)?;
        file.sync_all().map_err(Error::write(&partial, None))?;
        fs::rename(&partial, &place).map_err(Error::io("rename the finished", &place))?;
        Ok(part(file))
    }

    fn download(
        &self,
        registry: &Registry,
        layer: &Descriptor,
        file: &mut File,
        path: &Path,
        progress: &dyn Progress,
        fail: &dyn Fn(Fault) -> Error,
    ) -> std::result::Result<(), Error> {
        let host = &registry.host;
        let mut hash = Sha256::new();
        let mut have = hash_all(file, &mut hash).map_err(Error::io("read", path))?;
        if have > layer.size {
            (have, hash) = (0, Sha256::new());
        }
        let mut idle = 0;
        while have < layer.size {
            let mut response = self.open(registry, &layer.digest, have).map_err(fail)?;
            if response.status() == StatusCode::OK {
                // It knows no ranges.
                (have, hash) = (0, Sha256::new());
            }
            file.set_len(have).map_err(Error::write(path, None))?;
            file.seek(SeekFrom::Start(have))
                .map_err(Error::write(path, None))?;
            let before = have;
            let mut buffer = vec![0; 1 << 17];
            let broken = loop {
                match response.read(&mut buffer) {
                    Ok(0) => break (have < layer.size).then(|| "it breaks off".to_owned()),
                    Ok(count) => {
                        have += count as u64;
                        if have > layer.size {
                            let _ = fs::remove_file(path);
                            return Err(fail(Fault::new(format!(
                                "the blob {} that {host} sends is longer than {} bytes",
                                layer.digest, layer.size
                            ))));
                        }
                        hash.update(&buffer[..count]);
                        file.write_all(&buffer[..count])
                            .map_err(Error::write(path, Some(layer.size)))?;
                        progress.bytes(count as u64);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => break Some(error.to_string()),
                }
            };
            if let Some(reason) = broken {
                // As long as something comes it goes on, as from a train.
                idle = if have > before { 0 } else { idle + 1 };
                if idle >= ATTEMPTS {
                    return Err(fail(Fault::new(format!(
                        "the blob {} of {host}: {reason}",
                        layer.digest
                    ))));
                }
            }
        }
        let found = digest(hash);
        if found != layer.digest {
            let _ = fs::remove_file(path);
            return Err(fail(Fault::new(format!(
                "the blob {} that {host} sent is damaged: its digest is {found}",
                layer.digest
            ))));
        }
        Ok(())
    }

    /// A blob from byte `from` on.
    fn open(&self, registry: &Registry, digest: &str, from: u64) -> Result<Response> {
        let path = path(&self.reference);
        let url = registry.url(&format!("v2/{path}/blobs/{digest}"));
        let response = registry.send(&scope(&path), || {
            let request = registry.client().get(url.clone());
            match from {
                0 => request,
                from => request.header(RANGE, format!("bytes={from}-")),
            }
        })?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::PARTIAL_CONTENT if from > 0 => {
                let start = response
                    .headers()
                    .get(CONTENT_RANGE)
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or_default();
                match start.starts_with(&format!("bytes {from}-")) {
                    true => Ok(response),
                    false => Err(Fault::new(format!(
                        "{} sends another part of {digest} than was asked for",
                        registry.host
                    ))),
                }
            }
            _ => Err(registry.refusal(&format!("blob {digest}"), response)),
        }
    }
}

fn kept(reference: &Reference, manifest_digest: &str, blobs: &Path) -> Result<Remote> {
    let document = |what: &str, digest: &str| -> Result<Vec<u8>> {
        let place = blobs.join(check_digest(digest).map_err(Fault::new)?);
        let fail = |problem: &dyn std::fmt::Display| {
            Fault::new(format!(
                "its {what} in the cache, {}: {problem}",
                place.display()
            ))
        };
        let bytes = fs::read(&place).map_err(|error| fail(&error))?;
        verify(&bytes, digest).map_err(|problem| fail(&problem))?;
        Ok(bytes)
    };
    let manifest = document("manifest", manifest_digest)?;
    let listing: Listing = parse(&manifest).map_err(Fault::new)?;
    let (Some(config), Some(layers)) = (listing.config, listing.layers) else {
        return Err(Fault::new(
            "what the cache has of it is no manifest of an image",
        ));
    };
    let bytes = document("configuration", &config.digest)?;
    Ok(Remote {
        reference: reference.clone(),
        registry: None,
        manifest_digest: manifest_digest.to_owned(),
        manifest,
        config_digest: config.digest,
        settings: parse(&bytes).map_err(Fault::new)?,
        config: bytes,
        layers,
    })
}

fn path(reference: &Reference) -> String {
    let full = reference.fully_qualified();
    let full: Reference = full.parse().expect("a reference stays one");
    full.path().to_owned()
}

fn scope(path: &str) -> String {
    format!("repository:{path}:pull")
}

fn find(
    host: &str,
    reference: &Reference,
    full: &Reference,
    platform: &Platform,
    options: &Options,
) -> Result<Remote> {
    let registry = Registry::open(host, options)?;
    let path = full.path();
    let tag = full.tag().unwrap_or("latest");
    // A digest wins: whoever gives both wants exactly this.
    let name = reference.digest().unwrap_or(tag);
    let (mut found, mut text, mut listing) = manifest(&registry, path, name)?;
    if let Some(list) = &listing.manifests {
        let here = |d: &&Descriptor| d.platform.as_ref() == Some(platform);
        let Some(one) = list.iter().find(here) else {
            let others: Vec<Platform> = list
                .iter()
                .filter_map(|d| d.platform.clone())
                .filter(|p| p.os != "unknown")
                .collect();
            return Err(Fault::new(other_platforms(platform, &others)));
        };
        check_digest(&one.digest).map_err(Fault::new)?;
        (found, text, listing) = manifest(&registry, path, &one.digest)?;
    }
    let (Some(config), Some(layers)) = (listing.config, listing.layers) else {
        return Err(Fault::new(format!("{host} gives no manifest of an image")));
    };
    for digest in layers.iter().chain([&config]).map(|d| &d.digest) {
        check_digest(digest).map_err(Fault::new)?;
    }
    let url = registry.url(&format!("v2/{path}/blobs/{}", config.digest));
    let response = registry.send(&scope(path), || registry.client().get(url.clone()))?;
    if !response.status().is_success() {
        return Err(registry.refusal("configuration", response));
    }
    let bytes = limited(response, MAX_DOCUMENT).map_err(Fault::new)?;
    verify(&bytes, &config.digest).map_err(Fault::new)?;
    let settings: Settings = parse(&bytes).map_err(Fault::new)?;
    if !matches(&settings, platform) {
        return Err(Fault::new(other_platforms(platform, &[of(&settings)])));
    }
    Ok(Remote {
        reference: reference.clone(),
        registry: Some(registry),
        manifest_digest: found,
        manifest: text,
        config_digest: config.digest,
        settings,
        config: bytes,
        layers,
    })
}

/// Digest, text and content of a manifest or an index.
fn manifest(registry: &Registry, path: &str, name: &str) -> Result<(String, Vec<u8>, Listing)> {
    let url = registry.url(&format!("v2/{path}/manifests/{name}"));
    let response = registry.send(&scope(path), || {
        registry.client().get(url.clone()).header(ACCEPT, MANIFESTS)
    })?;
    if !response.status().is_success() {
        return Err(registry.refusal(&format!("{path}:{name}"), response));
    }
    let header = |name: &str| {
        let value = response.headers().get(name)?.to_str().ok()?;
        Some(value.split(';').next()?.trim().to_owned())
    };
    let (media_type, said) = (
        header("content-type").unwrap_or_default(),
        header("docker-content-digest"),
    );
    let bytes = limited(response, MAX_DOCUMENT).map_err(Fault::new)?;
    let found = digest(Sha256::new_with_prefix(&bytes));
    let asked = name.starts_with("sha256:").then(|| name.to_owned());
    if let Some(wanted) = asked
        .or(said)
        .filter(|digest| digest.starts_with("sha256:"))
    {
        verify(&bytes, &wanted).map_err(Fault::new)?;
    }
    let listing: Listing = parse(&bytes).map_err(Fault::new)?;
    // What is no media type of an image says nothing about it.
    let media_type = match media_type.contains("manifest") || media_type.contains("index") {
        true => media_type,
        false => String::new(),
    };
    check(&listing, &media_type).map_err(Fault::new)?;
    Ok((found, bytes, listing))
}
