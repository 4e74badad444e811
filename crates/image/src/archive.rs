//! One tar that is an OCI image layout (image-spec, image-layout.md) and what `docker
//! save` writes at once. Engines pick what they know: Docker before 29 and container-structure-test read
//! `manifest.json`, containerd, podman and umoci read `index.json`; the blobs are shared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::atomic::{self, Partial};
use crate::compress::{digest, hex};
use crate::tarball::{BLOCK, END, Header, Type, padding};
use crate::{Compression, Config, Error, Layer, Progress, Reference};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Of the whole file: 64 hexadecimal digits, as `sha256sum` prints them.
    pub sha256: String,
    /// Bytes of the whole file.
    pub size: u64,
    /// `sha256:…`
    pub manifest_digest: String,
    /// `sha256:…`; Docker's image ID.
    pub config_digest: String,
}

/// Writes the image to `out`, under each of the `references` (`acme/backend:v1`).
///
/// `layers` are in order, the lowest first; their blobs are verified while they are
/// copied. The outer tar is not compressed: the layers are, and engines load it faster so.
/// `manifest.json` has the references as given, `index.json` fully qualified.
///
/// The file appears whole or not at all; the bytes depend on the arguments alone.
///
/// # Errors
///
/// No space (told before anything is written), a reference that is not one or lacks its
/// tag, a blob that is missing or damaged, a history that does not fit the layers.
pub fn write_archive(
    out: &Path,
    references: &[String],
    config: &Config,
    layers: &[Layer],
    progress: &(dyn Progress + Sync),
) -> Result<Archive, Error> {
    let fail = |reason: &str| Error::Archive {
        path: out.to_owned(),
        reason: reason.to_owned(),
    };
    if !config.history.is_empty() && config.history.len() != layers.len() {
        return Err(fail("the history must have one line for each layer"));
    }
    let documents = Documents::new(references, config, layers).map_err(|error| match error {
        Some(error) => Error::Reference(error),
        None => fail("every reference needs a tag"),
    })?;

    let small = documents.files();
    let mut seen = BTreeSet::new();
    // Two layers may be the same bytes; the archive has them once.
    let blobs: Vec<&Layer> = layers
        .iter()
        .filter(|layer| seen.insert(&layer.digest))
        .collect();
    let needed = needed(&small, &blobs);
    let (device, free) = atomic::space(out);
    if free < needed {
        return Err(Error::NoSpace {
            path: out.to_owned(),
            device,
            needed: Some(needed),
            free,
        });
    }

    let mut tar = Tar {
        out: Partial::new(atomic::parent(out))?,
        hash: Hashing::new(),
        size: 0,
        mtime: config.created_epoch,
    };
    let write =
        |result: io::Result<()>| result.map_err(|error| Error::write(out, Some(needed))(error));
    for (path, content) in &small {
        write(match content {
            Some(content) => tar.file(path, content),
            None => tar.header(path, Type::Directory),
        })?;
    }
    for layer in blobs {
        copy(&mut tar, out, needed, layer, progress)?;
    }
    write(tar.put(&[0; END as usize]))?;
    let Tar {
        out: file,
        hash,
        size,
        ..
    } = tar;
    file.persist(out)?;
    Ok(Archive {
        sha256: hex(hash.end()),
        size,
        manifest_digest: documents.manifest_digest,
        config_digest: documents.config_digest,
    })
}

/// Copies a layer's blob and makes sure that it is what its digest says.
fn copy(
    tar: &mut Tar,
    out: &Path,
    needed: u64,
    layer: &Layer,
    progress: &(dyn Progress + Sync),
) -> Result<(), Error> {
    let damaged = |reason: String| Error::Blob {
        path: layer.blob.clone(),
        reason,
    };
    let mut blob = File::open(&layer.blob).map_err(Error::io("open", &layer.blob))?;
    let length = blob
        .metadata()
        .map_err(Error::io("read", &layer.blob))?
        .len();
    if length != layer.size {
        return Err(damaged(format!(
            "it has {length} bytes instead of {}",
            layer.size
        )));
    }
    let write =
        |result: io::Result<()>| result.map_err(|error| Error::write(out, Some(needed))(error));
    write(tar.header(&blob_path(&layer.digest), Type::File { size: layer.size }))?;
    let hash = Hashing::new();
    let mut buffers: [Piece; BUFFERS] = std::array::from_fn(|_| Piece::default());
    let mut left = layer.size;
    for at in (0..BUFFERS).cycle() {
        if left == 0 {
            break;
        }
        let room = CHUNK.min(usize::try_from(left).unwrap_or(usize::MAX));
        let buffer = &mut buffers[at];
        if Arc::get_mut(buffer).is_none() {
            *buffer = Piece::default();
        }
        let bytes = Arc::get_mut(buffer).expect("nobody else has it");
        bytes.resize(room, 0);
        let count = match blob.read(bytes) {
            Ok(0) => {
                return Err(damaged(
                    "it became shorter while it was being read".to_owned(),
                ));
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io("read", &layer.blob)(error)),
        };
        left -= count as u64;
        bytes.truncate(count);
        hash.update(buffer);
        write(tar.put_piece(buffer))?;
        progress.bytes(count as u64);
    }
    let found = digest(hash.end());
    if found != layer.digest {
        return Err(damaged(format!("it is damaged: its digest is {found}")));
    }
    write(tar.pad(layer.size))
}

/// Bytes of the whole archive.
fn needed(small: &[(String, Option<&[u8]>)], blobs: &[&Layer]) -> u64 {
    let file = |size: u64| BLOCK + size + padding(size);
    let small: u64 = small
        .iter()
        .map(|(_, content)| file(content.map_or(0, <[u8]>::len) as u64))
        .sum();
    let blobs: u64 = blobs.iter().map(|layer| file(layer.size)).sum();
    small + blobs + END
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

/// The JSON files of both formats.
struct Documents {
    config: Vec<u8>,
    config_digest: String,
    manifest: Vec<u8>,
    manifest_digest: String,
    index: Vec<u8>,
    docker: Vec<u8>,
}

impl Documents {
    /// An error of `None` is a reference without a tag.
    fn new(
        references: &[String],
        config: &Config,
        layers: &[Layer],
    ) -> Result<Documents, Option<crate::InvalidReference>> {
        let config = config.json(layers);
        let config_digest = sha256(&config);
        let media_types: Vec<String> = layers
            .iter()
            .map(|layer| match layer.compression {
                Compression::None => LAYER.to_owned(),
                Compression::Gzip => format!("{LAYER}+gzip"),
                Compression::Zstd => format!("{LAYER}+zstd"),
            })
            .collect();
        let manifest = json(&Manifest {
            schema_version: 2,
            media_type: MANIFEST,
            config: Descriptor::new(CONFIG, &config_digest, config.len() as u64),
            layers: layers
                .iter()
                .zip(&media_types)
                .map(|(layer, kind)| Descriptor::new(kind, &layer.digest, layer.size))
                .collect(),
        });
        let manifest_digest = sha256(&manifest);

        let mut manifests = Vec::new();
        for reference in references {
            let reference: Reference = reference.parse().map_err(Some)?;
            let tag = reference.tag().ok_or(None)?;
            let mut descriptor = Descriptor::new(MANIFEST, &manifest_digest, manifest.len() as u64);
            descriptor
                .annotations
                .insert("io.containerd.image.name", reference.fully_qualified());
            descriptor
                .annotations
                .insert("org.opencontainers.image.ref.name", tag.to_owned());
            manifests.push(descriptor);
        }
        if manifests.is_empty() {
            manifests.push(Descriptor::new(
                MANIFEST,
                &manifest_digest,
                manifest.len() as u64,
            ));
        }
        let index = json(&Index {
            schema_version: 2,
            media_type: INDEX,
            manifests,
        });
        let docker = json(&[DockerManifest {
            config: blob_path(&config_digest),
            repo_tags: references,
            layers: layers
                .iter()
                .map(|layer| blob_path(&layer.digest))
                .collect(),
        }]);
        Ok(Documents {
            config,
            config_digest,
            manifest,
            manifest_digest,
            index,
            docker,
        })
    }

    /// In the order of the archive: what says where things are comes first, so that a
    /// reader of a stream needs no second pass. Directories have no content; they have
    /// entries because oci-image-tool asks for them.
    fn files(&self) -> Vec<(String, Option<&[u8]>)> {
        vec![
            (
                "oci-layout".to_owned(),
                Some(br#"{"imageLayoutVersion":"1.0.0"}"#),
            ),
            ("index.json".to_owned(), Some(&self.index)),
            ("manifest.json".to_owned(), Some(&self.docker)),
            ("blobs".to_owned(), None),
            ("blobs/sha256".to_owned(), None),
            (blob_path(&self.manifest_digest), Some(&self.manifest)),
            (blob_path(&self.config_digest), Some(&self.config)),
        ]
    }
}

/// Bytes that several threads look at.
type Piece = Arc<Vec<u8>>;

/// Read and hashed at once.
const CHUNK: usize = 1 << 20;

/// When the fifth is on its way, the first has been hashed (see [`Hashing`]).
const BUFFERS: usize = 5;

/// A hash on a thread of its own: an archive is hashed as a whole and each blob in it once more,
/// and while one processor does one of them, another does the other, and the disk writes.
struct Hashing {
    pieces: SyncSender<Piece>,
    thread: JoinHandle<Sha256>,
}

impl Hashing {
    fn new() -> Hashing {
        let (pieces, queue) = mpsc::sync_channel::<Piece>(2);
        let thread = thread::spawn(move || {
            let mut hash = Sha256::new();
            for piece in queue {
                hash.update(&*piece);
            }
            hash
        });
        Hashing { pieces, thread }
    }

    fn update(&self, piece: &Piece) {
        self.pieces
            .send(Arc::clone(piece))
            .expect("hashing does not panic");
    }

    fn end(self) -> Sha256 {
        drop(self.pieces);
        self.thread.join().expect("hashing does not panic")
    }
}

struct Tar {
    out: Partial,
    hash: Hashing,
    size: u64,
    mtime: u64,
}

impl Tar {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put_piece(&Arc::new(bytes.to_vec()))
    }

    fn put_piece(&mut self, piece: &Piece) -> io::Result<()> {
        self.hash.update(piece);
        self.size += piece.len() as u64;
        self.out.write_all(piece)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        self.put(&[0; BLOCK as usize][..padding(size) as usize])
    }

    fn header(&mut self, path: &str, kind: Type) -> io::Result<()> {
        let header = Header {
            path: path.as_bytes(),
            mode: if kind == Type::Directory {
                0o755
            } else {
                0o644
            },
            uid: 0,
            gid: 0,
            mtime: self.mtime,
            kind,
            xattrs: &BTreeMap::new(),
        };
        self.put(&header.bytes())
    }

    fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let size = content.len() as u64;
        self.header(path, Type::File { size })?;
        self.put(content)?;
        self.pad(size)
    }
}

fn sha256(bytes: &[u8]) -> String {
    digest(Sha256::new_with_prefix(bytes))
}

fn json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("text and numbers always serialise")
}

/// image-spec, descriptor.md.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, String>,
}

impl<'a> Descriptor<'a> {
    fn new(media_type: &'a str, digest: &'a str, size: u64) -> Descriptor<'a> {
        Descriptor {
            media_type,
            digest,
            size,
            annotations: BTreeMap::new(),
        }
    }
}

/// image-spec, manifest.md. The media type is always written (CVE-2021-41190).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: Descriptor<'a>,
    layers: Vec<Descriptor<'a>>,
}

/// image-spec, image-index.md.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<Descriptor<'a>>,
}

/// What `docker save` writes (moby, image/spec/v1.2.md).
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest<'a> {
    config: String,
    repo_tags: &'a [String],
    layers: Vec<String>,
}
