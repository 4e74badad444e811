//! Image layers and archives as bytes: a directory becomes a layer blob, layer blobs
//! become one file that `docker load`, `podman load`, `skopeo` and `umoci` all take.
//!
//! The bytes depend on the inputs alone: neither the clock, the number of threads, the
//! order in which a directory lists its names nor the place of the tree shows in them.
//! Nothing here knows what an image is *for*; whoever calls decides what belongs in it.
//!
//! Every file appears under its final name only when it is whole and on disk (see
//! [`write_layer`] and [`write_archive`]).

mod archive;
mod atomic;
mod compress;
mod config;
mod decompress;
mod error;
mod layer;
mod progress;
mod read;
pub mod registry;
mod tarball;
mod union;
mod unpack;
mod untar;
mod walk;
mod xattr;

pub use archive::{Archive, write_archive};
pub use atomic::{PARTIAL, remove_leftovers};
pub use compress::{Packing, sha256};
pub use config::{Config, Healthcheck, rfc3339};
pub use decompress::Compression;
pub use error::Error;
pub use layer::{
    Content, Entry, Layer, LayerOptions, layer_from_entries, tree_digest, write_layer,
};
pub use progress::{Progress, Silent};
pub use read::{Execution, Format, History, Image, ImageLayer, Platform, Settings};
pub use reference::{InvalidReference, Reference};
pub use union::{UnionFile, union_files};
pub use unpack::unpack_root;
pub use untar::{Entry as LayerEntry, Flag};
pub use walk::Source;
