//! The data volume: its lock, its directories, and what is remembered on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

use contract::Contract;
use rustix::fs::{Access, FlockOperation};
use rustix::io::Errno;

use crate::exit::{Code, Failure, Result};
use crate::root::{Owned, Root, cannot_create, mode};
use crate::sys;

/// What the entrypoint remembers, on the first volume; in the container when it has none.
pub struct State<'a> {
    root: &'a Root,
    directory: String,
    /// The volumes.
    folders: Vec<String>,
}

/// Generated values, by setting.
const SETTINGS: &str = "settings.json";
/// Settings that were given, by name; no values.
const GIVEN: &str = "given.json";
/// One-shot jobs that are done, with the version that ran them.
const DONE: &str = "done.json";
/// Salted hashes of the values with which they ran.
const AGAIN: &str = "again.json";
/// Whose the directories are; see `owners`. It is about what lies there, so it goes back with
/// no copy.
const OWNERS: &str = "owners.json";

/// The version whose data it is.
const VERSION: &str = "version";
/// All of these, which belong to the data: passwords that databases know, jobs that ran.
pub const REMEMBERED: [&str; 5] = [SETTINGS, GIVEN, DONE, AGAIN, VERSION];

/// Ours, and nobody else's.
pub fn own(mode: u32) -> Owned {
    Owned {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mode,
    }
}

/// What MongoDB and Redis write when they first run, and nobody bakes into an image.
const DATABASES: [&str; 4] = ["WiredTiger", "dump.rdb", "appendonlydir", "appendonly.aof"];

/// What earlier starts left.
#[derive(Default)]
pub struct Kept {
    pub values: BTreeMap<String, String>,
    /// Why nothing may be generated.
    pub lost: Option<String>,
    /// Settings that an earlier start was given.
    pub given: BTreeSet<String>,
}

/// The values whose change makes a job run again. They may be secrets: only a salted hash
/// is ever written.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Watched(Vec<(String, String)>);

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

impl Watched {
    pub fn new(values: impl IntoIterator<Item = (String, String)>) -> Self {
        Watched(values.into_iter().collect())
    }

    fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }

    /// `salt:hash`, in hexadecimal.
    fn hash(&self, salt: &str) -> String {
        use sha2::Digest as _;
        let mut hash = sha2::Sha256::new_with_prefix(salt);
        for (name, value) in &self.0 {
            for text in [name, value] {
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(text);
            }
        }
        let hex: String = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{salt}:{hex}")
    }

    fn is_same(&self, hash: &str) -> bool {
        hash.split_once(':')
            .is_some_and(|(salt, _)| self.hash(salt) == hash)
    }
}

/// Held for as long as the box runs; the kernel releases it, however the box ends.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "the lock is the open file")] File);

const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

impl<'a> State<'a> {
    pub fn new(contract: &Contract, root: &'a Root) -> Self {
        let directory = match contract.volumes.first() {
            Some(volume) => format!("{}/.tiffin", volume.path.trim_end_matches('/')),
            None => "/var/lib/tiffin".to_owned(),
        };
        let folders = contract.volumes.iter();
        let folders = folders
            .map(|volume| volume.path.trim_end_matches('/').to_owned())
            .collect();
        State {
            root,
            directory,
            folders,
        }
    }

    pub fn root(&self) -> &'a Root {
        self.root
    }

    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.directory)
    }

    /// Where it is remembered: `/data/.tiffin`.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// # Errors
    ///
    /// [`Code::Locked`] when another box holds it, with what that box wrote about itself.
    pub fn lock(&self, who: &str) -> Result<Lock> {
        self.root.directory(&self.directory, own(0o700))?;
        let path = self.file("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.root.path(&path))
            .map_err(|error| cannot_create("the lock", &path, &error))?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            let _ = (&file).take(256).read_to_string(&mut holder);
            return Err(Failure::new(
                Code::Locked,
                format!(
                    "cannot use the volume of {}: another running box has locked it ({})",
                    self.directory,
                    holder.trim()
                ),
            )
            .hint("stop that container first, or give this one a volume of its own"));
        }
        let write = |file: &mut File| -> std::io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{who}")
        };
        write(&mut file).map_err(|error| cannot_create("the lock", &path, &error))?;
        Ok(Lock(file))
    }

    /// What earlier starts know about secrets.
    ///
    /// # Errors
    ///
    /// When a file is damaged: nothing may be generated in place of what it held.
    pub fn kept(&self) -> Result<Kept> {
        let found = self.json(SETTINGS)?;
        let lost = match found {
            Some(_) => None,
            None => self.signs_of_data()?.map(|sign| {
                format!(
                    "{} is gone, which held what the first start generated, and the volume has data ({sign}): \
                     nothing is generated over that",
                    self.file(SETTINGS)
                )
            }),
        };
        Ok(Kept {
            values: found.unwrap_or_default(),
            lost,
            given: self.json(GIVEN)?.unwrap_or_default().into_keys().collect(),
        })
    }

    /// A file that only a box which has run leaves on its volume.
    fn signs_of_data(&self) -> Result<Option<String>> {
        let version = self.file(VERSION);
        if self.root.read(&version)?.is_some() {
            return Ok(Some(version));
        }
        let folders = self.folders.iter().flat_map(|folder| {
            let below = self
                .root
                .names(folder)
                .into_iter()
                .map(move |name| format!("{folder}/{name}"));
            std::iter::once(folder.clone()).chain(below)
        });
        let signs = folders.flat_map(|folder| DATABASES.map(|name| format!("{folder}/{name}")));
        let mut found = signs.filter(|path| self.root.path(path).symlink_metadata().is_ok());
        Ok(found.next())
    }

    /// Remembers which settings were given, so that no later start generates them; from
    /// here on the file of generated values exists, even when it is empty.
    pub fn remember<'n>(&self, given: impl Iterator<Item = &'n String>) -> Result<()> {
        if self.json(SETTINGS)?.is_none() {
            self.write(SETTINGS, &BTreeMap::new())?;
        }
        let old = self.json(GIVEN)?.unwrap_or_default();
        let mut new = old.clone();
        new.extend(given.map(|name| (name.clone(), String::new())));
        match new == old {
            true => Ok(()),
            false => self.write(GIVEN, &new),
        }
    }

    fn json(&self, name: &str) -> Result<Option<BTreeMap<String, String>>> {
        usable(self.root, &self.directory)?;
        let path = self.file(name);
        let Some(text) = self.root.read(&path)? else {
            return Ok(None);
        };
        // The cause is left out: it could quote a value.
        serde_json::from_str(&text).map(Some).map_err(|_| {
            let failure = Failure::new(Code::Config, format!("cannot read {path}: it is not what this box wrote"));
            match name {
                SETTINGS => failure.hint(
                    "it holds the generated passwords: restore it from a backup of the volume; where there is none, \
                     remove it, and the next start names each password that it wants to be given",
                ),
                OWNERS => failure.hint("remove the file: the next start takes the directories as they are"),
                _ => failure.hint("remove the file; the jobs that run once run again then"),
            }
        })
    }

    /// Whose the volumes' directories are.
    pub fn owners(&self) -> Result<BTreeMap<String, String>> {
        Ok(self.json(OWNERS)?.unwrap_or_default())
    }

    pub fn remember_owners(&self, owners: &BTreeMap<String, String>) -> Result<()> {
        self.write(OWNERS, owners)
    }

    fn write(&self, name: &str, values: &BTreeMap<String, String>) -> Result<()> {
        let path = self.file(name);
        let text = format!("{:#}\n", serde_json::json!(values));
        self.root
            .replace(&path, text.as_bytes(), own(0o600))
            .map_err(|error| cannot_create("the file", &path, &error))
    }

    /// Makes a value for each name and keeps all of them before any is used.
    pub fn generate(&self, wanted: &BTreeMap<String, u16>) -> Result<BTreeMap<String, String>> {
        let mut kept = self.json(SETTINGS)?.unwrap_or_default();
        let mut made = BTreeMap::new();
        for (name, length) in wanted {
            let value = match kept.get(name) {
                Some(value) => value.clone(),
                None => random(usize::from(*length))?,
            };
            kept.insert(name.clone(), value.clone());
            made.insert(name.clone(), value);
        }
        self.write(SETTINGS, &kept)?;
        Ok(made)
    }

    /// A token that the box keeps in a file of its own; made when there is none.
    pub fn kept_token(&self, name: &str, length: usize) -> Result<String> {
        let path = self.file(name);
        let kept = self.root.read(&path)?.unwrap_or_default();
        if kept.trim().len() == length {
            return Ok(kept.trim().to_owned());
        }
        let token = random(length)?;
        self.root
            .replace(&path, format!("{token}\n").as_bytes(), own(0o600))
            .map_err(|error| cannot_create("the file", &path, &error))?;
        Ok(token)
    }

    /// Whether a one-shot job has run for this version, and with these values.
    pub fn is_done(&self, service: &str, version: &str, again: &Watched) -> Result<bool> {
        if self
            .json(DONE)?
            .unwrap_or_default()
            .get(service)
            .map(String::as_str)
            != Some(version)
        {
            return Ok(false);
        }
        let hashes = self.json(AGAIN)?.unwrap_or_default();
        Ok(again.is_nothing() || hashes.get(service).is_some_and(|hash| again.is_same(hash)))
    }

    pub fn mark_done(&self, service: &str, version: &str, again: &Watched) -> Result<()> {
        let mut hashes = self.json(AGAIN)?.unwrap_or_default();
        if !again.is_nothing() {
            hashes.insert(service.to_owned(), again.hash(&random(16)?));
            self.write(AGAIN, &hashes)?;
        }
        let mut done = self.json(DONE)?.unwrap_or_default();
        done.insert(service.to_owned(), version.to_owned());
        self.write(DONE, &done)
    }

    /// The version that wrote the data.
    pub fn version(&self) -> Result<Option<String>> {
        let text = self.root.read(&self.file(VERSION))?;
        Ok(text.map(|text| text.trim().to_owned()))
    }

    /// A box has run with the volume.
    pub fn has_data(&self) -> Result<bool> {
        Ok(self.signs_of_data()?.is_some())
    }

    pub fn record_version(&self, version: &str) -> Result<()> {
        let path = self.file(VERSION);
        if self.version()?.as_deref() == Some(version) {
            return Ok(());
        }
        self.root
            .replace(&path, format!("{version}\n").as_bytes(), own(0o600))
            .map_err(|error| cannot_create("the file", &path, &error))
    }
}

/// Makes what the playbooks made and an empty volume hides.
pub fn directories(contract: &Contract, root: &Root) -> Result<()> {
    for volume in &contract.volumes {
        for directory in &volume.directories {
            let mode = mode(&directory.mode).ok_or_else(|| {
                Failure::new(
                    Code::Internal,
                    format!(
                        "cannot make {}: its mode `{}` in the contract is not octal",
                        directory.path, directory.mode
                    ),
                )
            })?;
            root.directory(
                &directory.path,
                Owned {
                    uid: directory.uid,
                    gid: directory.gid,
                    mode,
                },
            )?;
            usable(root, &directory.path)?;
        }
    }
    Ok(())
}

/// A database that may not write says so late, and in words of its own.
///
/// # Errors
///
/// [`Code::CannotCreate`] when the directory is there and somebody else's.
pub fn usable(root: &Root, path: &str) -> Result<()> {
    let full = root.path(path);
    if rustix::fs::access(&full, Access::WRITE_OK | Access::EXEC_OK) != Err(Errno::ACCESS) {
        return Ok(());
    }
    let owner = std::fs::metadata(&full).map_or_else(
        |_| "somebody else".to_owned(),
        |found| format!("{}:{}", found.uid(), found.gid()),
    );
    Err(Failure::new(
        Code::CannotCreate,
        format!(
            "cannot use {path}: it belongs to {owner}, and the box runs as {}",
            sys::who()
        ),
    )
    .hint(format!(
        "run the box as it ran before, or give the volume to its user once: chown -R {} {path}",
        sys::who()
    )))
}

/// Letters and digits, each as likely as any other.
fn random(length: usize) -> Result<String> {
    let mut out = String::with_capacity(length);
    while out.len() < length {
        let mut bytes = [0_u8; 64];
        let count = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| {
                Failure::new(
                    Code::Internal,
                    format!("cannot generate a secret: getrandom: {error}"),
                )
            })?;
        // 248 is the last multiple of 62: a remainder would favour the first letters.
        let letters = bytes[..count]
            .iter()
            .filter(|byte| **byte < 248)
            .map(|byte| char::from(LETTERS[usize::from(byte % 62)]));
        out.extend(letters.take(length - out.len()));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract() -> Contract {
        serde_json::from_value(serde_json::json!({
            "format": 2,
            "product": {"name": "acme/x", "title": "X", "version": "v1"},
            "volumes": [{"path": "/data"}]
        }))
        .unwrap()
    }

    #[test]
    fn a_generated_value_is_kept_and_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let contract = contract();
        let state = State::new(&contract, &root);
        let _lock = state.lock("box").unwrap();
        let wanted = BTreeMap::from([("PASSWORD".to_owned(), 40)]);
        let first = state.generate(&wanted).unwrap();
        assert_eq!(first["PASSWORD"].len(), 40);
        assert!(first["PASSWORD"].bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_eq!(state.generate(&wanted).unwrap(), first);
        let mode = |path| {
            std::fs::metadata(root.path(path))
                .unwrap()
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!(
            (mode("/data/.tiffin"), mode("/data/.tiffin/settings.json")),
            (0o700, 0o600)
        );
    }

    #[test]
    fn a_second_box_is_refused_and_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let contract = contract();
        let lock = State::new(&contract, &root)
            .lock("acme/x v1 on host-a")
            .unwrap();
        let error = State::new(&contract, &root).lock("other").unwrap_err();
        assert_eq!(error.code, Code::Locked);
        assert!(error.message.contains("acme/x v1 on host-a"), "{error}");
        drop(lock);
        State::new(&contract, &root).lock("other").unwrap();
    }

    #[test]
    fn what_was_generated_is_missed_when_the_volume_has_data() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let contract = contract();
        let state = State::new(&contract, &root);
        assert!(state.kept().unwrap().lost.is_none(), "an empty volume");
        std::fs::create_dir_all(root.path("/data/mongodb")).unwrap();
        assert!(
            state.kept().unwrap().lost.is_none(),
            "an empty directory of an image"
        );
        std::fs::write(root.path("/data/mongodb/WiredTiger"), "").unwrap();
        let lost = state.kept().unwrap().lost.unwrap();
        assert!(lost.contains("/data/mongodb/WiredTiger"), "{lost}");
        let _lock = state.lock("box").unwrap();
        state.remember(["TOKEN".to_owned()].iter()).unwrap();
        let kept = state.kept().unwrap();
        assert_eq!(
            (kept.lost, kept.given),
            (None, BTreeSet::from(["TOKEN".to_owned()]))
        );
        state.record_version("v1").unwrap();
        std::fs::remove_file(root.path("/data/.tiffin/settings.json")).unwrap();
        assert!(
            state
                .kept()
                .unwrap()
                .lost
                .unwrap()
                .contains("/data/.tiffin/version")
        );
        for damage in ["", "CANARY", "[]", "{\"A\": 1}"] {
            std::fs::write(root.path("/data/.tiffin/settings.json"), damage).unwrap();
            let Err(failure) = state.kept() else {
                panic!("`{damage}` is taken")
            };
            assert_eq!(failure.code, Code::Config);
            assert!(!failure.to_string().contains("CANARY"), "{failure}");
        }
    }

    #[test]
    fn a_job_is_done_for_a_version_and_for_the_values_it_watches() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let contract = contract();
        let state = State::new(&contract, &root);
        let watched = |value: &str| Watched::new([("EMAIL".to_owned(), value.to_owned())]);
        let nothing = Watched::default();
        state.mark_done("job", "v1", &nothing).unwrap();
        assert!(state.is_done("job", "v1", &nothing).unwrap());
        assert!(!state.is_done("job", "v2", &nothing).unwrap());
        assert!(
            !state.is_done("job", "v1", &watched("CANARY")).unwrap(),
            "never ran with it"
        );
        state.mark_done("job", "v1", &watched("CANARY")).unwrap();
        assert!(state.is_done("job", "v1", &watched("CANARY")).unwrap());
        assert!(!state.is_done("job", "v1", &watched("other")).unwrap());
        let kept = std::fs::read_to_string(root.path("/data/.tiffin/again.json")).unwrap();
        assert!(
            !kept.contains("CANARY") && !format!("{:?}", watched("CANARY")).contains("CANARY"),
            "{kept}"
        );
    }
}
