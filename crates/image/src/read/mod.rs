//! An image as it was handed over: in an archive that docker, podman, buildah, skopeo or
//! Tiffin wrote, or pulled from a registry. All of it is input from outside.
//!
//! Documents are verified when they are read. A layer's blob is verified as a whole before
//! the first byte of it is looked at, and what comes out of it against its diff_id.

mod container;
mod documents;

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::compress::{digest, hex};
use crate::decompress::{Bounded, Compression, READ, plain};
use crate::untar::{Entry, Reader};
use crate::{Error, Progress, Reference, Silent};

pub(crate) use container::Part;
use container::{Container, damaged};
pub(crate) use documents::{Descriptor, Listing, MAX_DOCUMENT, check_digest, is_hex};
pub use documents::{Execution, History, Platform, Settings};

use documents::{DockerImage, Layout};

/// Engines refuse more.
const MAX_LAYERS: usize = 127;

/// How deep one index may lie in another; containerd's own archives have two.
const MAX_DEPTH: usize = 4;

/// Which of an archive's two tables of contents is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `manifest.json`, what `docker save` writes.
    Docker,
    /// `index.json`, an OCI image layout.
    Oci,
    /// Both where both are there: they must name the same image.
    Any,
}

/// An image of which the documents are known and verified, and the blobs are at hand.
#[derive(Debug, Clone)]
pub struct Image {
    /// Where it came from, for people.
    pub name: String,
    /// As others call it: `acme/backend:v1`.
    pub tags: Vec<String>,
    /// `sha256:…`, Docker's image ID. It covers the content of all layers.
    pub config_digest: String,
    /// `sha256:…`, unless the archive has no manifest.
    pub manifest_digest: Option<String>,
    /// The manifest as it is written.
    pub(crate) manifest: Option<Vec<u8>>,
    pub settings: Settings,
    /// The configuration as it is written.
    pub config: Vec<u8>,
    /// The lowest first.
    pub layers: Vec<ImageLayer>,
}

/// A layer that somebody else made.
#[derive(Debug, Clone)]
pub struct ImageLayer {
    /// `sha256:…` of the tar before compression.
    pub diff_id: String,
    /// `sha256:…` of the blob, where a manifest says so.
    pub digest: Option<String>,
    pub(crate) part: Part,
}

impl Image {
    /// Finds the image for `platform` in the archive at `path`. `scratch` is a directory
    /// for what must be decompressed to be read; nothing stays there.
    ///
    /// # Errors
    ///
    /// No image, more than one, or one for another platform; a document that is damaged or
    /// not what its digest says.
    pub fn open(
        path: &Path,
        format: Format,
        platform: &Platform,
        scratch: &Path,
    ) -> Result<Image, Error> {
        let container = Container::open(path, scratch)?;
        let archive = Archive {
            name: path.display().to_string(),
            container: &container,
            platform,
        };
        match format {
            Format::Docker => archive.docker(),
            Format::Oci => archive.oci(),
            Format::Any if container.get("index.json").is_none() => archive.docker(),
            Format::Any if container.get("manifest.json").is_none() => archive.oci(),
            Format::Any => archive.both(),
        }
    }
}

struct Archive<'a> {
    name: String,
    container: &'a Container,
    platform: &'a Platform,
}

impl Archive<'_> {
    fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::Image {
            image: self.name.clone(),
            reason: reason.into(),
        }
    }

    fn part(&self, name: &str) -> Result<&Part, Error> {
        self.container
            .get(name)
            .ok_or_else(|| self.wrong(format!("the file {name} is missing in it")))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, Error> {
        let part = self.part(name)?;
        if part.size > MAX_DOCUMENT {
            return Err(self.wrong(format!("{name} is too large for what it is")));
        }
        part.bytes()
            .map_err(|error| self.wrong(format!("{name} cannot be read: {error}")))
    }

    /// A document that is named by its digest.
    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let hex = check_digest(&descriptor.digest).map_err(|reason| self.wrong(reason))?;
        let bytes = self.document(&format!("blobs/sha256/{hex}"))?;
        verify(&bytes, &descriptor.digest).map_err(|reason| self.wrong(reason))?;
        Ok(bytes)
    }

    /// Engines read one table or the other, and must find the same in both.
    fn both(&self) -> Result<Image, Error> {
        let (image, other) = (self.oci()?, self.docker()?);
        if image.config_digest != other.config_digest {
            return Err(self.wrong(format!(
                "its index.json and manifest.json name two images: {} and {}",
                image.config_digest, other.config_digest
            )));
        }
        let differs = |(one, other): (&ImageLayer, &ImageLayer)| {
            one.digest.is_some() && other.digest.is_some() && one.digest != other.digest
        };
        if image.layers.iter().zip(&other.layers).any(differs) {
            return Err(self.wrong("its index.json and manifest.json name different layers"));
        }
        let full = |names: &[String]| -> BTreeSet<String> {
            // A bare tag says nothing of the rest of the name.
            let names = names.iter().filter(|name| name.contains(':'));
            names
                .map(|name| match name.parse::<Reference>() {
                    Ok(name) => name.fully_qualified(),
                    Err(_) => name.clone(),
                })
                .collect()
        };
        let (names, others) = (full(&image.tags), full(&other.tags));
        if !names.is_empty() && !others.is_empty() && names != others {
            let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
            return Err(self.wrong(format!(
                "its index.json calls it {}, its manifest.json {}",
                list(names),
                list(others)
            )));
        }
        Ok(image)
    }

    fn docker(&self) -> Result<Image, Error> {
        if self.container.get("manifest.json").is_none() {
            return Err(self.wrong("it has no manifest.json, so `docker save` did not write it"));
        }
        let text = self.document("manifest.json")?;
        let images: Vec<DockerImage> =
            parse(&text).map_err(|reason| self.wrong(format!("manifest.json: {reason}")))?;
        let mut mine = Vec::new();
        let mut others = Vec::new();
        for image in images {
            let config = self.document(&image.config)?;
            // Old archives name it `HEX.json`, new ones `blobs/sha256/HEX`.
            let name = image.config.rsplit('/').next().unwrap_or_default();
            let name = name.strip_suffix(".json").unwrap_or(name);
            let found = digest(Sha256::new_with_prefix(&config));
            if is_hex(name) && found != format!("sha256:{name}") {
                return Err(self.wrong(format!(
                    "{} is damaged: its digest is {found}",
                    image.config
                )));
            }
            let settings = self.settings(&config)?;
            if matches(&settings, self.platform) {
                mine.push((image, config, settings, found));
            } else {
                others.push(of(&settings));
            }
        }
        let (image, config, settings, config_digest) =
            self.only(mine, others, |(image, ..)| image.repo_tags.join(" "))?;
        let files = image.layers.iter().map(|name| {
            let part = self.part(name)?;
            let hex = name.strip_prefix("blobs/sha256/");
            let digest = hex
                .filter(|hex| is_hex(hex))
                .map(|hex| format!("sha256:{hex}"));
            Ok((digest, part.clone()))
        });
        let files = files.collect::<Result<Vec<_>, Error>>()?;
        assemble(
            self.name.clone(),
            image.repo_tags.clone(),
            None,
            (config_digest, config, settings),
            files,
        )
    }

    fn oci(&self) -> Result<Image, Error> {
        if self.container.get("index.json").is_none() {
            return Err(self.wrong("it has no index.json, so it is no OCI archive"));
        }
        // Some tools leave it out; a version that nobody knows is another format.
        if self.container.get("oci-layout").is_some() {
            let text = self.document("oci-layout")?;
            let layout: Layout =
                parse(&text).map_err(|reason| self.wrong(format!("oci-layout: {reason}")))?;
            if layout.version != "1.0.0" {
                return Err(self.wrong(format!(
                    "its oci-layout is of version `{}`, and only 1.0.0 is known",
                    layout.version.escape_default()
                )));
            }
        }
        let text = self.document("index.json")?;
        let index: Listing =
            parse(&text).map_err(|reason| self.wrong(format!("index.json: {reason}")))?;
        let mut mine: Vec<Candidate> = Vec::new();
        let mut others = Vec::new();
        let list = index.manifests.unwrap_or_default();
        self.search(&list, MAX_DEPTH, &mut mine, &mut others)?;
        let found = self.only(mine, others, |found| found.names.join(" "))?;
        let mut files = Vec::new();
        for layer in &found.layers {
            let hex = check_digest(&layer.digest).map_err(|reason| self.wrong(reason))?;
            let part = self.part(&format!("blobs/sha256/{hex}"))?;
            if part.size != layer.size {
                return Err(self.wrong(format!(
                    "the layer {} has {} bytes instead of {}",
                    layer.digest, part.size, layer.size
                )));
            }
            files.push((Some(layer.digest.clone()), part.clone()));
        }
        assemble(
            self.name.clone(),
            found.names,
            Some((found.digest, found.manifest)),
            (found.config_digest, found.config, found.settings),
            files,
        )
    }

    fn search(
        &self,
        list: &[Descriptor],
        depth: usize,
        mine: &mut Vec<Candidate>,
        others: &mut Vec<Platform>,
    ) -> Result<(), Error> {
        if depth == 0 {
            return Err(self.wrong("its indexes are nested too deep"));
        }
        for descriptor in list {
            if let Some(platform) = &descriptor.platform
                && platform != self.platform
            {
                // An attestation is for the platform `unknown`.
                if platform.os != "unknown" {
                    others.push(platform.clone());
                }
                continue;
            }
            let names = [
                "io.containerd.image.name",
                "org.opencontainers.image.ref.name",
            ]
            .into_iter()
            .find_map(|key| descriptor.annotations.get(key))
            .cloned();
            if let Some(known) = mine.iter_mut().find(|c| c.digest == descriptor.digest) {
                known.names.extend(names);
                continue;
            }
            let text = self.blob(descriptor)?;
            let listing: Listing = parse(&text)
                .map_err(|reason| self.wrong(format!("{}: {reason}", descriptor.digest)))?;
            check(&listing, &descriptor.media_type)
                .map_err(|reason| self.wrong(format!("{}: {reason}", descriptor.digest)))?;
            if let Some(list) = &listing.manifests {
                let before = mine.len();
                self.search(list, depth - 1, mine, others)?;
                for found in &mut mine[before..] {
                    found.names.extend(names.clone());
                }
                continue;
            }
            let (Some(config), Some(layers)) = (listing.config, listing.layers) else {
                return Err(self.wrong(format!(
                    "{} is neither an index nor a manifest",
                    descriptor.digest
                )));
            };
            let bytes = self.blob(&config)?;
            let settings = self.settings(&bytes)?;
            if !matches(&settings, self.platform) {
                others.push(of(&settings));
                continue;
            }
            mine.push(Candidate {
                names: names.into_iter().collect(),
                digest: descriptor.digest.clone(),
                manifest: text,
                config_digest: config.digest,
                config: bytes,
                settings,
                layers,
            });
        }
        Ok(())
    }

    fn settings(&self, config: &[u8]) -> Result<Settings, Error> {
        parse(config).map_err(|reason| self.wrong(format!("its configuration: {reason}")))
    }

    /// The one image that is meant.
    fn only<T>(
        &self,
        mut mine: Vec<T>,
        others: Vec<Platform>,
        name: impl Fn(&T) -> String,
    ) -> Result<T, Error> {
        if mine.len() > 1 {
            let names: Vec<String> = mine.iter().map(name).collect();
            return Err(self.wrong(format!(
                "it holds {} images: {}",
                mine.len(),
                names.join(", ")
            )));
        }
        match (mine.pop(), others.is_empty()) {
            (Some(one), _) => Ok(one),
            (None, true) => Err(self.wrong("it holds no image")),
            (None, false) => Err(self.wrong(other_platforms(self.platform, &others))),
        }
    }
}

struct Candidate {
    names: Vec<String>,
    digest: String,
    manifest: Vec<u8>,
    config_digest: String,
    config: Vec<u8>,
    settings: Settings,
    layers: Vec<Descriptor>,
}

pub(crate) fn other_platforms(wanted: &Platform, others: &[Platform]) -> String {
    let mut names: Vec<String> = others.iter().map(Platform::to_string).collect();
    names.sort();
    names.dedup();
    format!("it is for {}, not for {wanted}", names.join(", "))
}

pub(crate) fn matches(settings: &Settings, platform: &Platform) -> bool {
    of(settings) == *platform
}

pub(crate) fn of(settings: &Settings) -> Platform {
    Platform {
        architecture: settings.architecture.clone(),
        os: settings.os.clone(),
    }
}

pub(crate) fn parse<'a, T: serde::Deserialize<'a>>(text: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| format!("it is malformed: {error}"))
}

/// A document that could be read as two things is refused (CVE-2021-41190).
pub(crate) fn check(listing: &Listing, media_type: &str) -> Result<(), String> {
    if listing.fs_layers.is_some() {
        return Err("it is a manifest of Docker before 1.10, which nothing verifies".into());
    }
    let index = listing.manifests.is_some();
    if index && (listing.layers.is_some() || listing.config.is_some()) {
        return Err("it is an index and a manifest at once".into());
    }
    let says_index = media_type.contains("index") || media_type.contains("manifest.list");
    if !media_type.is_empty() && says_index != index {
        return Err(format!("it is not the {media_type} that it is called"));
    }
    Ok(())
}

pub(crate) fn verify(bytes: &[u8], wanted: &str) -> Result<(), String> {
    let found = digest(Sha256::new_with_prefix(bytes));
    match found == wanted {
        true => Ok(()),
        false => Err(format!(
            "the blob {wanted} is damaged: its digest is {found}"
        )),
    }
}

/// Puts layers and diff_ids together.
pub(crate) fn assemble(
    name: String,
    tags: Vec<String>,
    manifest: Option<(String, Vec<u8>)>,
    (config_digest, config, settings): (String, Vec<u8>, Settings),
    files: Vec<(Option<String>, Part)>,
) -> Result<Image, Error> {
    let wrong = |reason: String| Error::Image {
        image: name.clone(),
        reason,
    };
    let diff_ids = &settings.rootfs.diff_ids;
    if diff_ids.len() != files.len() {
        return Err(wrong(format!(
            "it has {} layers, but its configuration names {}",
            files.len(),
            diff_ids.len()
        )));
    }
    if files.len() > MAX_LAYERS {
        return Err(wrong(format!("it has more than {MAX_LAYERS} layers")));
    }
    let mut layers = Vec::new();
    for (diff_id, (digest, part)) in diff_ids.iter().zip(files) {
        check_digest(diff_id).map_err(wrong)?;
        layers.push(ImageLayer {
            diff_id: diff_id.clone(),
            digest,
            part,
        });
    }
    let (manifest_digest, manifest) = manifest.unzip();
    Ok(Image {
        name,
        tags,
        config_digest,
        manifest_digest,
        manifest,
        settings,
        config,
        layers,
    })
}

impl ImageLayer {
    /// Bytes of the blob.
    pub fn size(&self) -> u64 {
        self.part.size
    }

    /// What its first bytes say of it.
    pub fn compression(&self, image: &str) -> Result<Compression, Error> {
        match plain(self.part.reader()) {
            Ok((compression, _)) => Ok(compression),
            Err(error) => Err(Error::Image {
                image: image.to_owned(),
                reason: format!("the layer {} cannot be read: {error}", self.shown()),
            }),
        }
    }

    /// Shows `visit` each entry with its content, in the order of the layer; `image` is the
    /// name for errors. The blob is verified first, the content at the end.
    ///
    /// Gives the compression and the bytes of the tar.
    pub fn entries(
        &self,
        image: &str,
        progress: &dyn Progress,
        visit: &mut dyn FnMut(&Entry, &mut dyn Read) -> io::Result<()>,
    ) -> Result<(Compression, u64), Error> {
        let wrong = |reason: String| Error::Image {
            image: image.to_owned(),
            reason,
        };
        let unreadable = |error: io::Error| {
            wrong(format!(
                "the layer {} cannot be read: {error}",
                self.shown()
            ))
        };
        self.read(
            READ,
            progress,
            |reader| {
                while let Some(entry) = reader.next().map_err(unreadable)? {
                    visit(&entry, reader).map_err(unreadable)?;
                }
                Ok(())
            },
            wrong,
        )
    }

    /// What the layer is called in errors.
    pub(crate) fn shown(&self) -> &str {
        self.digest.as_deref().unwrap_or(&self.diff_id)
    }

    /// Reads the blob once: it must be what its digest says. `image` is the name for errors.
    pub fn check(&self, image: &str) -> Result<(), Error> {
        self.verify(&Silent).map_err(|reason| Error::Image {
            image: image.to_owned(),
            reason,
        })
    }

    fn verify(&self, progress: &dyn Progress) -> Result<(), String> {
        let Some(wanted) = &self.digest else {
            return Ok(());
        };
        let mut hash = Sha256::new();
        let mut reader = self.part.reader();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    hash.update(&buffer[..count]);
                    progress.bytes(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("the layer {wanted} cannot be read: {error}")),
            }
        }
        let found = digest(hash);
        match found == *wanted {
            true => Ok(()),
            false => Err(format!(
                "the layer {wanted} is damaged: its digest is {found}"
            )),
        }
    }

    /// Verifies the blob, then shows `visit` the tar in it; at the end its content must be
    /// what the diff_id says. Gives the compression and the plain bytes.
    /// `ratio` bounds how much larger it may become.
    pub(crate) fn read(
        &self,
        ratio: u64,
        progress: &dyn Progress,
        visit: impl FnOnce(&mut Reader<&mut dyn Read>) -> Result<(), Error>,
        wrong: impl Fn(String) -> Error,
    ) -> Result<(Compression, u64), Error> {
        self.verify(progress).map_err(&wrong)?;
        let unreadable = |error: io::Error| {
            wrong(format!(
                "the layer {} cannot be read: {}",
                self.shown(),
                damaged(error)
            ))
        };
        let (compression, stream) = plain(self.part.reader()).map_err(unreadable)?;
        let mut stream = Hashing {
            inner: Bounded::new(stream, self.part.size, ratio),
            hash: Sha256::new(),
            size: 0,
        };
        let mut reader = Reader::new(&mut stream as &mut dyn Read);
        visit(&mut reader)?;
        // What follows the end of the tar belongs to the diff_id too.
        io::copy(&mut stream, &mut io::sink()).map_err(unreadable)?;
        let found = format!("sha256:{}", hex(stream.hash));
        if found != self.diff_id {
            return Err(wrong(format!(
                "the content of the layer {} is not what the configuration says: {found} instead of {}",
                self.shown(),
                self.diff_id
            )));
        }
        Ok((compression, stream.size))
    }
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
    size: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}
