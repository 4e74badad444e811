//! The binary that goes into a box needs nothing from it. Building it takes a minute, so
//! `TIFFIN_ENTRYPOINT` names one that is built already.

use std::process::Command;

#[test]
fn it_names_no_interpreter_and_no_library() {
    let Ok(path) = std::env::var("TIFFIN_ENTRYPOINT") else {
        eprintln!("skipped: TIFFIN_ENTRYPOINT does not name the static binary");
        return;
    };
    let bytes = std::fs::read(&path).unwrap();
    let u16_at = |at: usize| usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()));
    let u64_at = |at: usize| {
        usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap()
    };
    assert_eq!(&bytes[..5], b"\x7fELF\x02");
    let (table, size, count) = (u64_at(32), u16_at(54), u16_at(56));
    for header in (0..count).map(|n| table + n * size) {
        let kind = u32::from_le_bytes(bytes[header..header + 4].try_into().unwrap());
        assert_ne!(kind, 3, "PT_INTERP: it needs a dynamic loader");
        if kind == 2 {
            // PT_DYNAMIC of a position-independent static binary: relocations only.
            let (from, length) = (u64_at(header + 8), u64_at(header + 32));
            let needed = (from..from + length)
                .step_by(16)
                .take_while(|at| u64_at(*at) != 0)
                .any(|at| u64_at(at) == 1);
            assert!(!needed, "DT_NEEDED: it needs a shared library");
        }
    }
    let ldd = Command::new("ldd").arg(&path).output().unwrap();
    let said =
        String::from_utf8_lossy(&ldd.stdout).into_owned() + &String::from_utf8_lossy(&ldd.stderr);
    assert!(
        said.contains("statically linked") || said.contains("not a dynamic executable"),
        "{said}"
    );
    assert!(
        bytes.len() <= 5_000_000,
        "{} bytes are more than 5 MB",
        bytes.len()
    );
}
