//! 8 GB of a hole: in bounded memory, small in the archive, and never without a word.

mod common;

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::{Small, can_build, said};

/// The most memory that a program may have used.
const MOST: u64 = 256 << 20;

/// Both streams of a command that must succeed, and its peak of resident memory.
fn peak(command: &mut Command) -> (String, u64) {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let watch = std::thread::spawn(move || {
        let mut peak = 0;
        // The kernel keeps the peak itself, so that looking seldom misses nothing but the end.
        while let Ok(text) = fs::read_to_string(&status) {
            let Some(line) = text.lines().find(|line| line.starts_with("VmHWM:")) else {
                break;
            };
            let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            peak = peak.max(kilobytes << 10);
            sleep(Duration::from_millis(5));
        }
        peak
    });
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", said(&out));
    (said(&out), watch.join().unwrap())
}

fn holds(sparse: &str) {
    if !can_build() {
        return;
    }
    let small = Small::new(10_000);
    small.recipe(&format!(
        "layers: [{{name: hole, steps: [{{run: truncate -s {sparse} /srv/hole}}]}}]\n"
    ));
    let tiffin = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tiffin"));
        let (told, peak) = peak(command.args(words));
        assert!(peak > 1 << 20 && peak <= MOST, "{words:?}: {peak} bytes");
        eprintln!("{:?}: {} MB at most", words[0], peak / 1_000_000);
        told
    };
    let archive = small.archive().display().to_string();
    let cache = small.at("cache").display().to_string();
    let build = small.build();
    let words: Vec<&str> = build
        .get_args()
        .map(|word| word.to_str().unwrap())
        .collect();
    // Also when the layer comes from the cache.
    for _ in 0..2 {
        let told = tiffin(&words);
        let warning = "warning: /srv/hole is sparse: its ";
        assert!(told.contains(warning), "{told}");
    }
    let bytes = fs::metadata(&archive).unwrap().len();
    assert!(bytes < 30_000_000, "{bytes} bytes");
    let size: u64 = sparse.trim_end_matches(['M', 'G']).parse().unwrap();
    let size = size << if sparse.ends_with('G') { 30 } else { 20 };
    let told = tiffin(&["inspect", "--json", &archive]);
    let json: serde_json::Value = serde_json::from_str(&told).unwrap();
    let layers = json["layers"].as_array().unwrap().iter();
    let largest = layers.map(|layer| layer["uncompressed"].as_u64().unwrap());
    assert!(largest.max().unwrap() > size, "{told}");
    tiffin(&["diff", &archive, &archive]);
    tiffin(&["cache", "verify", "--cache", &cache]);
}

#[test]
fn a_sparse_file_is_packed_in_bounded_memory_and_told() {
    holds("300M");
}

#[test]
#[ignore = "reads and compresses 8 GB: make test-long"]
fn a_sparse_file_of_8_gb_is_packed_in_bounded_memory_and_told() {
    holds("8G");
}
