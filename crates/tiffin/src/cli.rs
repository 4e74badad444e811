//! What may be typed. Words only: what they mean is decided in the verb's own file.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Packs a backend into one image tarball, by running its own Ansible playbooks.
#[derive(Parser)]
#[command(name = "tiffin", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

const EXIT_CODES: &str = "Exit codes:
  0    done
  1    the build failed: the message says what, why and what to do
  2    wrong usage
  3    `diff` found a difference, or `lint` something that must not be shipped,
       or `cache verify` something damaged, or `verify` a wrong signature
  78   the recipe is wrong
  130  interrupted";

#[derive(Subcommand)]
pub enum Verb {
    /// Bake the box of a recipe and write its archive.
    Build(Build),
    /// List, shrink or check what builds keep.
    Cache(Cache),
    /// Show what an archive holds.
    Inspect(Inspect),
    /// Tell in which layers and files two archives differ, and why.
    Diff(Diff),
    /// Look for what should not be in a box: secrets, identity, waste.
    Lint(Lint),
    /// Send an archive's image to a registry.
    #[command(after_help = REGISTRIES)]
    Push(Push),
    /// Check an archive against its signature and the vendor's public key.
    Verify(Verify),
    /// The first process of a sandbox.
    #[command(name = bake::sandbox::init::VERB, hide = true)]
    SandboxInit,
}

/// For `push`, and for a recipe's `base: docker://…`.
const REGISTRIES: &str = "Environment:
  DOCKER_CONFIG        directory of Docker's config.json, where `docker login` keeps credentials [~/.docker]
  TIFFIN_MIRRORS       HOST=MIRROR,…: asked first when a base is pulled; `http://` before a mirror is allowed
  TIFFIN_REGISTRY_CA   certificates of authorities, in PEM; /etc/docker/certs.d/HOST/*.crt are read anyway
  TIFFIN_PLAIN_HTTP    HOST,…: spoken to without encryption; hosts of this machine may be anyway
  HTTPS_PROXY, HTTP_PROXY, NO_PROXY, SSL_CERT_FILE  as usual; a host of this machine is asked without a proxy";

#[derive(Args)]
pub struct Push {
    /// What `tiffin build` wrote, or another OCI archive.
    #[arg(value_name = "ARCHIVE")]
    pub archive: PathBuf,
    /// Where to: HOST/REPO:TAG.
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Another repository there, which may have some of the layers already.
    #[arg(long, value_name = "REPO")]
    pub mount_from: Option<String>,
    /// How to show progress.
    #[arg(long, value_enum, default_value_t = ProgressMode::Auto)]
    pub progress: ProgressMode,
}

#[derive(Args)]
pub struct Cache {
    #[command(subcommand)]
    pub verb: CacheVerb,
    /// The cache [default: where `tiffin build` keeps it].
    #[arg(long, env = "TIFFIN_CACHE", value_name = "DIR", global = true)]
    pub cache: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum CacheVerb {
    /// Layers with their size, and sums.
    List,
    /// Remove what was unused longest. What a running build uses stays.
    Prune {
        /// So much may stay.
        #[arg(long, value_name = "SIZE", default_value = "20G")]
        keep: String,
    },
    /// Read everything and name what is damaged.
    Verify,
}

#[derive(Args)]
pub struct Inspect {
    #[arg(value_name = "ARCHIVE")]
    pub archive: PathBuf,
    /// List every file that a box would show, with the layer that has it.
    #[arg(long)]
    pub files: bool,
    /// For programs.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Diff {
    #[arg(value_name = "A")]
    pub one: PathBuf,
    #[arg(value_name = "B")]
    pub other: PathBuf,
}

#[derive(Args)]
pub struct Lint {
    #[arg(value_name = "ARCHIVE")]
    pub archive: PathBuf,
}

#[derive(Args)]
pub struct Verify {
    #[arg(value_name = "ARCHIVE")]
    pub archive: PathBuf,
    /// The vendor's public key: minisign's file, or its second line.
    #[arg(long, value_name = "PUBKEY")]
    pub key: String,
    /// The signature [default: ARCHIVE.minisig].
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
}

#[derive(Args)]
pub struct Build {
    /// The recipe.
    #[arg(short, long, default_value = "tiffin.yaml", value_name = "RECIPE")]
    pub file: PathBuf,
    /// Where NAME-VERSION.tar, its checksum, NAME-VERSION.cdx.json and NAME-latest.tar appear.
    #[arg(short, long, default_value = "dist", value_name = "DIR")]
    pub output: PathBuf,
    /// The box's version, which is the image's tag [default: what `git describe` says].
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// Where layers and packages are kept between builds.
    #[arg(long, env = "TIFFIN_CACHE", value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// How large the cache may be: after a good build what was unused longest is removed.
    #[arg(
        long,
        env = "TIFFIN_CACHE_SIZE",
        value_name = "SIZE",
        default_value = "20G"
    )]
    pub cache_size: String,
    /// Bake every layer again, whatever the cache holds.
    #[arg(long)]
    pub no_cache: bool,
    /// Use no network: only packages that earlier builds with this cache have fetched.
    #[arg(long)]
    pub offline: bool,
    /// The static entrypoint to put into the box [default: beside this program].
    #[arg(long, env = "TIFFIN_ENTRYPOINT", value_name = "FILE")]
    pub entrypoint: Option<PathBuf>,
    /// Open a shell in the root file system of a layer that failed.
    #[arg(long)]
    pub shell_on_failure: bool,
    /// Clamp file times to this many seconds since 1970 [default: of the last commit].
    #[arg(long, env = "SOURCE_DATE_EPOCH", value_name = "SECONDS")]
    pub epoch: Option<u64>,
    /// Sign the archive with this secret key of minisign; its password, when it has one, is
    /// in TIFFIN_SIGN_PASSWORD.
    #[arg(long, env = "TIFFIN_SIGN_KEY", value_name = "KEYFILE")]
    pub sign: Option<PathBuf>,
    /// How to show progress.
    #[arg(long, value_enum, default_value_t = ProgressMode::Auto)]
    pub progress: ProgressMode,
    /// Show Ansible's whole output.
    #[arg(short, long)]
    pub verbose: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// Bars on a terminal, plain lines elsewhere.
    Auto,
    /// Lines that stay, on a terminal too.
    Plain,
    /// One JSON document a line, for programs.
    Json,
    /// Warnings and errors only.
    Quiet,
}
