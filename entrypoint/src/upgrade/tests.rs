use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use contract::Contract;
use tempfile::TempDir;

use super::rollback::Wanted;
use super::*;
use crate::exit::Code;

thread_local! {
    /// Renames until the process is gone.
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
}

pub fn may_go_on() -> io::Result<()> {
    match LEFT.get() {
        0 => Err(io::Error::other("killed")),
        left => {
            LEFT.set(left - 1);
            Ok(())
        }
    }
}

struct Home {
    directory: TempDir,
}

fn contract(version: &str) -> Contract {
    serde_json::from_value(serde_json::json!({
        "format": contract::FORMAT,
        "product": {"name": "acme/x", "title": "X", "version": version},
        "services": {"mongod": {"data": ["/data/mongodb"]}},
        "volumes": [{"path": "/data"}, {"path": "/files"}],
        "upgrade": {"from": "v1", "stops": ["v4"]}
    }))
    .unwrap()
}

impl Home {
    /// Volumes that v1 wrote.
    fn new() -> Home {
        let directory = tempfile::tempdir().unwrap();
        let home = Home { directory };
        for (path, content) in [
            ("data/mongodb/WiredTiger", "engine"),
            ("data/mongodb/journal/1", "one"),
            ("data/uploads/a", "a"),
            ("data/uploads/b", "b"),
            ("data/settings.env", "A=1"),
            ("files/report", "report"),
            ("data/.tiffin/settings.json", "{\"P\": \"old\"}"),
            ("data/.tiffin/version", "v1\n"),
        ] {
            home.write(path, content);
        }
        home
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path().join(path)).unwrap_or_default()
    }

    /// What `version` says and does.
    fn with<T>(&self, version: &str, set: &[(&str, &str)], f: impl FnOnce(&Upgrade<'_>) -> T) -> T {
        let (contract, root) = (contract(version), Root::new(self.path()));
        let state = State::new(&contract, &root);
        let set = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let environment = Environment {
            variables: set.collect(),
            ..Environment::default()
        };
        f(&Upgrade::new(&contract, &root, &state, &environment))
    }

    /// As a start does, up to the services.
    fn start(&self, version: &str) -> Result<Decision> {
        self.with(version, &[], |upgrade| {
            upgrade.look()?;
            upgrade.recover()?;
            let decision = upgrade.look()?;
            upgrade.begin(&databases())?;
            Ok(decision)
        })
    }

    /// What v2's migration and services do: in place, new, removed, replaced.
    fn migrate(&self) {
        self.write("data/mongodb/WiredTiger", "changed in place");
        self.write("data/mongodb/new", "new");
        fs::remove_file(self.path().join("data/mongodb/journal/1")).unwrap();
        fs::remove_file(self.path().join("data/uploads/a")).unwrap();
        fs::remove_file(self.path().join("data/uploads/b")).unwrap();
        self.write("data/uploads/b", "replaced");
        self.write("data/cache/x", "x");
        self.write("files/second", "second");
        self.write(
            "data/.tiffin/settings.json",
            "{\"P\": \"old\", \"Q\": \"new\"}",
        );
        self.write("data/.tiffin/done.json", "{\"job\": \"v2\"}");
    }

    /// All that is the user's or remembered, by path.
    fn seen(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        let mut left = vec![self.path().to_owned()];
        while let Some(path) = left.pop() {
            let name = path.strip_prefix(self.path()).unwrap();
            let name = name.to_string_lossy().into_owned();
            let ours = name.contains(".tiffin/copies") || name == "files/.tiffin";
            if ours {
                continue;
            }
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
                out.insert(name, format!("{:o}", meta.mode()));
            } else {
                out.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
        out
    }
}

fn databases() -> Vec<Database> {
    vec![Database {
        path: "/data/mongodb".to_owned(),
        service: "mongod".to_owned(),
    }]
}

#[test]
fn an_upgrade_that_succeeds_is_noted_and_its_copy_kept() {
    let home = Home::new();
    assert_eq!(
        home.start("v2").unwrap(),
        Decision::Forward { unclear: false }
    );
    assert_eq!(
        home.text("data/.tiffin/version"),
        "v1\n",
        "not before it is done"
    );
    home.migrate();
    home.with("v2", &[], |upgrade| {
        upgrade.migrated();
        upgrade.complete();
        assert!(!upgrade.is_under_way().unwrap());
        assert_eq!(upgrade.copies.list().len(), 1);
    });
    assert_eq!(home.text("data/.tiffin/version"), "v2\n");
    assert_eq!(home.text("data/uploads/b"), "replaced");
    assert_eq!(home.start("v2").unwrap(), Decision::Same);
    // Backward is refused, and a stop cannot be skipped.
    let before = home.seen();
    assert_eq!(home.start("v1").unwrap_err().code, Code::Config);
    assert!(
        home.start("v5")
            .unwrap_err()
            .message
            .contains("v4 may not be skipped")
    );
    assert_eq!(home.seen(), before);
}

/// Whatever rename the process is killed before, the next start of either version finds
/// the data as it was.
#[test]
fn the_way_back_can_be_cut_anywhere() {
    for (next, migrated) in [("v1", false), ("v2", false), ("v1", true)] {
        let mut ways = 0;
        for left in 0.. {
            let home = Home::new();
            let before = home.seen();
            home.start("v2").unwrap();
            home.migrate();
            let after = home.seen();
            if migrated {
                home.with("v2", &[], |upgrade| upgrade.migrated());
            }
            LEFT.set(left);
            let cut = home.with("v1", &[], |upgrade| upgrade.recover()).is_err();
            LEFT.set(usize::MAX);
            home.with(next, &[], |upgrade| {
                upgrade.look().unwrap();
                upgrade.recover().unwrap();
                assert!(!upgrade.is_under_way().unwrap());
                let kept = upgrade.copies.list();
                assert_eq!(kept.len(), usize::from(migrated), "{kept:?}");
            });
            assert_eq!(home.seen(), before, "cut before rename {left}");
            if migrated && !cut {
                // What users may have written is not lost: the way forward again.
                let wanted = Wanted {
                    yes: true,
                    version: Some("v2".to_owned()),
                    ..Wanted::default()
                };
                home.with("v1", &[], |upgrade| upgrade.rollback(&wanted))
                    .unwrap();
                let mut forward = home.seen();
                // Copied before it was written.
                forward.remove("data/.tiffin/upgrade.begun.json");
                let mut after = after;
                after.remove("data/.tiffin/upgrade.begun.json");
                assert_eq!(forward, after);
            }
            ways += 1;
            if !cut {
                break;
            }
        }
        assert!(ways > 8, "{ways} ways");
    }
}

#[test]
fn what_is_migrated_is_not_put_back_behind_the_users_back() {
    let home = Home::new();
    home.start("v2").unwrap();
    home.migrate();
    home.with("v2", &[], |upgrade| upgrade.migrated());
    assert_eq!(home.start("v2").unwrap(), Decision::Same);
    assert_eq!(home.text("data/uploads/b"), "replaced");
    // A later version begins with what is there.
    assert_eq!(
        home.start("v3").unwrap(),
        Decision::Forward { unclear: false }
    );
    assert_eq!(home.text("data/.tiffin/version"), "v2\n");
    assert_eq!(home.text("data/uploads/b"), "replaced");
    // And gives that back when it fails.
    home.write("data/uploads/c", "by v3");
    home.with("v3", &[], |upgrade| upgrade.give_up()).unwrap();
    assert_eq!(home.text("data/.tiffin/version"), "v2\n");
}

#[test]
fn a_rollback_changes_places_and_can_be_taken_back() {
    let home = Home::new();
    let before = home.seen();
    home.start("v2").unwrap();
    home.migrate();
    home.with("v2", &[], |upgrade| {
        upgrade.migrated();
        upgrade.complete();
    });
    let after = home.seen();
    let go = |version: &str, yes| {
        let wanted = Wanted {
            yes,
            version: Some(version.to_owned()),
            ..Wanted::default()
        };
        home.with("v2", &[], |upgrade| upgrade.rollback(&wanted))
    };
    assert_eq!(go("v1", false).unwrap(), Code::Failed);
    assert_eq!(home.seen(), after, "nothing without --yes");
    assert_eq!(go("v9", true).unwrap_err().code, Code::Config);
    go("v1", true).unwrap();
    assert_eq!(home.seen(), before);
    assert_eq!(home.start("v1").unwrap(), Decision::Same);
    go("v2", true).unwrap();
    assert_eq!(home.seen(), after);
}

#[test]
fn without_a_copy_an_upgrade_can_only_go_on() {
    let home = Home::new();
    let off = [(COPY, "off")];
    home.with("v2", &off, |upgrade| upgrade.begin(&databases()))
        .unwrap();
    home.migrate();
    home.with("v2", &off, |upgrade| upgrade.give_up()).unwrap();
    assert_eq!(home.text("data/uploads/b"), "replaced");
    for other in ["v1", "v3"] {
        let failure = home.start(other).unwrap_err();
        assert!(
            failure.message.contains("did not come to its end"),
            "{failure}"
        );
    }
    assert_eq!(home.start("v2").unwrap(), Decision::Same);
    home.with("v2", &off, |upgrade| upgrade.complete());
    assert_eq!(home.text("data/.tiffin/version"), "v2\n");
}

#[test]
fn as_many_copies_are_kept_as_are_wanted() {
    let home = Home::new();
    for (version, keep, left) in [
        ("v2", "2", 1),
        ("v3", "2", 2),
        ("v4", "1", 1),
        ("v4.1", "0", 0),
    ] {
        let set = [(KEEP, keep)];
        home.with(version, &set, |upgrade| {
            upgrade.begin(&databases()).unwrap();
            upgrade.complete();
            assert_eq!(upgrade.copies.list().len(), left, "{version}");
        });
    }
}

#[test]
fn a_journal_that_leads_elsewhere_is_refused() {
    let home = Home::new();
    for copy in ["../../../etc", "/etc", ".", "", "a/b"] {
        let journal = serde_json::json!({"from": "v1", "to": "v2", "copy": copy, "aside": "x"});
        home.write("data/.tiffin/upgrade.begun.json", &journal.to_string());
        assert_eq!(home.start("v1").unwrap_err().code, Code::Config, "{copy}");
    }
}

#[test]
fn new_volumes_and_old_ones_without_a_version() {
    let home = Home::new();
    fs::remove_file(home.path().join("data/.tiffin/version")).unwrap();
    assert_eq!(
        home.start("v2").unwrap(),
        Decision::Forward { unclear: true }
    );
    let empty = Home {
        directory: tempfile::tempdir().unwrap(),
    };
    fs::create_dir(empty.path().join("data")).unwrap();
    assert_eq!(empty.start("v2").unwrap(), Decision::New);
}
