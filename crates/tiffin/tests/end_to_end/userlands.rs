//! Bases that are not Debian, on Debian's own programs.

use std::{fs, process::Command};

use crate::build::Small;
use crate::harness::*;
use crate::steps::{built, in_box};

/// The reference stack's base with another os-release and a repository of its own in it.
const UBUNTU: &str = r#"
set -e
root=$2/root
mkdir -p "$root" "$2/own/DEBIAN"
blob=$(tar -xOf "$1" manifest.json | grep -o 'blobs/sha256/[0-9a-f]*' | sed -n 2p)
tar -xOf "$1" "$blob" | tar -xzp --numeric-owner -C "$root"
cat >"$root/usr/lib/os-release" <<END
PRETTY_NAME="Ubuntu"
NAME="Ubuntu"
ID=ubuntu
ID_LIKE=debian
VERSION_CODENAME=$3
END
mkdir -p "$root/srv/repository"
cat >"$2/own/DEBIAN/control" <<END
Package: of-$3
Version: 1
Architecture: all
Maintainer: Vendor <vendor@acme.example>
Description: nothing
END
cd "$root/srv/repository"
dpkg-deb --build --root-owner-group "$2/own" own.deb >/dev/null
{
    cat "$2/own/DEBIAN/control"
    echo "Filename: ./own.deb"
    echo "Size: $(stat -c %s own.deb)"
    echo "SHA256: $(sha256sum own.deb | cut -d ' ' -f 1)"
} >Packages
{
    echo "Date: Wed, 01 Jan 2025 00:00:00 UTC"
    echo "SHA256:"
    echo " $(sha256sum Packages | cut -d ' ' -f 1) $(stat -c %s Packages) Packages"
} >Release
echo "deb [trusted=yes] file:/srv/repository ./" >"$root/etc/apt/sources.list"
tar -C "$root" --sort=name --mtime=@0 --numeric-owner -cf "$2/base.tar" .
rm -r "$root" "$2/own"
"#;

/// The build machine's sources are Debian's. Nor are package lists of one system those of another.
#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn ubuntus_own_sources_serve_it() {
    for codename in ["jammy", "noble"] {
        let tasks = format!(
            r#"    - apt: {{name: of-{codename}}}
    - command: apt-get indextargets --format "$(REPO_URI)"
      register: targets
    - assert: {{that: "targets.stdout and targets.stdout_lines | reject('search', '^file:/srv/repository/') | list == []"}}
    - copy: {{content: '{}', dest: /etc/of}}
"#,
            unique("ubuntu")
        );
        let small = Small::new(&tasks);
        let script = ["-c", UBUNTU, "sh"];
        let mut make = Command::new("sh");
        make.args(script).arg(archive()).arg(small.dir.path());
        must(make.arg(codename));
        small.write(
            "tiffin.yaml",
            "name: test/small\nbase: rootfs:base.tar\nplaybook: site.yml\n",
        );
        let said = built(&small);
        assert!(!said.contains("lists are not fetched"), "{said}");
        assert_eq!(
            in_box(&small, "etc/apt/sources.list").0,
            "deb [trusted=yes] file:/srv/repository ./"
        );
        let (status, _) = in_box(&small, "var/lib/dpkg/status");
        assert!(status.contains(&format!("Package: of-{codename}\n")));
        fs::remove_file(small.dir.path().join("base.tar")).unwrap();
    }
}
