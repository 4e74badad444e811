use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};

use super::*;

/// What a user can see of a tree, by path: kind, mode, time, target or content.
fn seen(tree: &Path) -> BTreeMap<PathBuf, String> {
    let mut out = BTreeMap::new();
    let mut left = vec![tree.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            String::new()
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else if meta.is_file() {
            format!("{:?}", fs::read(&path).unwrap())
        } else {
            format!("{:?}", meta.file_type())
        };
        let told = format!(
            "{:o} {}:{} {}.{} {content}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        out.insert(path.strip_prefix(tree).unwrap().to_owned(), told);
    }
    out
}

/// A tree with one of everything; what a link leads to lies outside it.
fn sample(home: &Path) -> PathBuf {
    let tree = home.join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::write(home.join("outside"), "secret").unwrap();
    fs::write(tree.join("a/file"), "content").unwrap();
    fs::hard_link(tree.join("a/file"), tree.join("second")).unwrap();
    fs::write(tree.join("empty"), "").unwrap();
    symlink("../../outside", tree.join("a/b/link")).unwrap();
    symlink("/nowhere", tree.join("dangling")).unwrap();
    symlink("a", tree.join("to-directory")).unwrap();
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 2 << 20).unwrap();
    sparse.set_len(4 << 20).unwrap();
    fs::set_permissions(tree.join("a/file"), fs::Permissions::from_mode(0o4640)).unwrap();
    fs::set_permissions(tree.join("a/b"), fs::Permissions::from_mode(0o1770)).unwrap();
    sys::mknodat(
        sys::CWD,
        tree.join("pipe"),
        FileType::Fifo,
        Mode::from_raw_mode(0o622),
        0,
    )
    .unwrap();
    let old = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    fs::File::open(tree.join("a/file"))
        .unwrap()
        .set_times(old)
        .unwrap();
    fs::File::open(tree.join("a/b"))
        .unwrap()
        .set_times(old)
        .unwrap();
    tree
}

#[test]
fn a_copy_is_as_the_original_and_its_own() {
    let home = tempfile::tempdir().unwrap();
    let tree_ = sample(home.path());
    let attribute = c"user.colour";
    let file = fs::File::open(tree_.join("a/file")).unwrap();
    let has_attributes =
        sys::fsetxattr(&file, attribute, b"green", sys::XattrFlags::empty()).is_ok();
    let to = home.path().join("copy");
    let size = tree(&tree_, &to, Rules::default()).unwrap();
    assert_eq!(seen(&tree_), seen(&to));
    assert_eq!(size.entries, seen(&tree_).len() as u64);
    let inode = |path: &str| fs::metadata(to.join(path)).unwrap().ino();
    assert_eq!(inode("a/file"), inode("second"), "one file with two names");
    assert_ne!(
        inode("a/file"),
        fs::metadata(tree_.join("a/file")).unwrap().ino()
    );
    let sparse = fs::metadata(to.join("sparse")).unwrap();
    assert!(sparse.blocks() * 512 < 1 << 20, "holes stay holes");
    if has_attributes {
        let copied = fs::File::open(to.join("a/file")).unwrap();
        let mut value = [0; 16];
        let length = sys::fgetxattr(&copied, attribute, &mut value).unwrap();
        assert_eq!(&value[..length], b"green");
    }
    assert!(tree(&tree_, &to, Rules::default()).is_err(), "it exists");
}

#[test]
fn hard_links_are_made_where_files_are_replaced_whole_and_not_in_databases() {
    let home = tempfile::tempdir().unwrap();
    let tree_ = sample(home.path());
    fs::create_dir_all(tree_.join("db/inner")).unwrap();
    fs::write(tree_.join("db/inner/data"), "in place").unwrap();
    fs::create_dir(tree_.join("mine")).unwrap();
    fs::write(tree_.join("mine/copies"), "x").unwrap();
    let (apart, skip) = ([tree_.join("db")], [tree_.join("mine")]);
    let rules = Rules {
        link: true,
        apart: &apart,
        skip: &skip,
    };
    let to = home.path().join("copy");
    let measured = measure(&tree_, rules).unwrap();
    let size = tree(&tree_, &to, rules).unwrap();
    assert!(!to.join("mine").exists());
    assert_eq!(measured.entries, size.entries);
    assert!(measured.bytes <= 8192, "only the database: {measured:?}");
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let same = |path: &str| inode(&to.join(path)) == inode(&tree_.join(path));
    assert!(!same("db/inner/data"));
    assert!(same("a/file") || shares(home.path()));
    let mut expected = seen(&tree_);
    expected.retain(|path, _| !path.starts_with("mine"));
    assert_eq!(seen(&to), expected);
}

#[test]
fn a_link_in_the_place_of_a_tree_is_not_followed() {
    let home = tempfile::tempdir().unwrap();
    let tree_ = sample(home.path());
    symlink(&tree_, home.path().join("link")).unwrap();
    let link = home.path().join("link");
    assert!(measure(&link, Rules::default()).is_err());
    assert!(tree(&link, &home.path().join("copy"), Rules::default()).is_err());
    assert!(!home.path().join("copy").exists());
    let nothing = measure(&home.path().join("nothing"), Rules::default()).unwrap();
    assert_eq!(nothing, Size::default());
}

#[test]
fn a_tree_that_is_too_deep_is_refused_in_words() {
    let home = tempfile::tempdir().unwrap();
    let mut path = home.path().join("tree");
    for _ in 0..DEPTH + 2 {
        path.push("d");
    }
    fs::create_dir_all(&path).unwrap();
    let problem = measure(&home.path().join("tree"), Rules::default()).unwrap_err();
    assert!(
        problem.to_string().contains("within each other"),
        "{problem}"
    );
}

/// On a file system that shares nothing, the measure is what a copy takes.
#[test]
fn the_measure_is_what_a_copy_takes() {
    let home = tempfile::tempdir().unwrap();
    let tree_ = home.path().join("tree");
    fs::create_dir(&tree_).unwrap();
    for at in 0..20 {
        fs::write(tree_.join(format!("{at}")), vec![at; 100_000]).unwrap();
    }
    let size = measure(&tree_, Rules::default()).unwrap();
    assert!((2_000_000..2_200_000).contains(&size.bytes), "{size:?}");
    let free = room(home.path()).unwrap();
    assert!(free.bytes > 0);
    let copied = tree(&tree_, &home.path().join("copy"), Rules::default()).unwrap();
    if !shares(home.path()) {
        assert_eq!(copied.bytes, 2_000_000);
    }
}
