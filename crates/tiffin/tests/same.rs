//! The same inputs give the same bytes, whoever builds them, where and when.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Small, can_build, must, said};

/// Commits what a vendor has in git, all at one date.
fn commit(small: &Small) {
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(small.dir.path()).args(words);
        for who in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{who}_NAME"), "Vendor")
                .env(format!("GIT_{who}_EMAIL"), "vendor@acme.example")
                .env(format!("GIT_{who}_DATE"), "2025-06-30T12:00:00+05:00");
        }
        must(&mut command);
    };
    git(&["init", "--quiet"]);
    git(&["add", "site.yml", "motd"]);
    git(&["commit", "--quiet", "--message", "Everything."]);
}

#[test]
fn neither_place_nor_time_nor_machine_shows_in_a_box() {
    if !can_build() {
        return;
    }
    let (mut sums, mut built) = (Vec::new(), Vec::new());
    for other in [false, true] {
        // Each has its own directory, recipe, cache and output.
        let small = Small::new(100_000);
        commit(&small);
        let build = small.build();
        let (program, words) = (build.get_program().to_owned(), build.get_args());
        let mut command = match other {
            false => Command::new(program),
            true => {
                let mut command = Command::new("taskset");
                let script = "umask 077; exec \"$@\"";
                command.args(["--cpu-list", "0", "sh", "-c", script, "sh"]);
                command.arg(program);
                command
            }
        };
        command.args(words).env_remove("SOURCE_DATE_EPOCH");
        command.env_remove("TIFFIN_CACHE");
        if other {
            let (tmp, home) = (small.at("other tmp"), small.at("home"));
            fs::create_dir(&tmp).unwrap();
            fs::create_dir(&home).unwrap();
            command
                .current_dir("/usr")
                .env("TMPDIR", tmp)
                .env("HOME", home)
                .env("USER", "somebody")
                .env("TZ", "Pacific/Kiritimati")
                .env("LANG", "C")
                .env("LC_ALL", "POSIX")
                .env("COLUMNS", "40");
        }
        must(&mut command);
        let names = ["small-v1.tar.sha256", "small-v1.cdx.json"];
        sums.push(names.map(|name| fs::read_to_string(small.at("dist").join(name)).unwrap()));
        // The date is that of the commit.
        let archive = small.archive().display().to_string();
        let told =
            must(Command::new(env!("CARGO_BIN_EXE_tiffin")).args(["inspect", "--json", &archive]));
        assert!(told.contains("2025-06-30T07:00:00Z"), "{told}");
        built.push(small);
    }
    let differences = |one: &Small, other: &Path| {
        let mut command = Command::new("diffoscope");
        command.args(["--text", "-"]).arg(one.archive()).arg(other);
        command.output().ok()
    };
    let Some(out) = differences(&built[0], &built[1].archive()) else {
        assert!(std::env::var_os("CI").is_none(), "CI must have diffoscope");
        assert_eq!(sums[0], sums[1]);
        return;
    };
    assert!(
        out.status.success() && said(&out).is_empty(),
        "{}",
        said(&out)
    );
    assert_eq!(sums[0], sums[1]);
    let other = differences(&built[0], &built[1].at("dist/small-v1.cdx.json"));
    assert_eq!(other.unwrap().status.code(), Some(1), "it can tell");
}
