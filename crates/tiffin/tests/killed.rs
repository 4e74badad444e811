//! `kill -9` at any moment of a build.

mod common;

use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Small, can_build, must, tiffin};

/// Processes that were orphaned by what is killed become this one's children.
fn children() -> Vec<i32> {
    let mut found = Vec::new();
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(
            text.split_whitespace()
                .map(|pid| pid.parse::<i32>().unwrap()),
        );
    }
    found
}

/// Waits until nothing runs that a killed build has started.
fn nothing_runs(when: &str) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let left = children();
        if left.is_empty() {
            return;
        }
        for pid in &left {
            let pid = rustix::process::Pid::from_raw(*pid);
            let _ = rustix::process::waitpid(pid, rustix::process::WaitOptions::NOHANG);
        }
        let names = || {
            left.iter()
                .map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default())
                .collect::<Vec<_>>()
        };
        assert!(Instant::now() < end, "{when}: still running: {:?}", names());
        sleep(Duration::from_millis(20));
    }
}

/// Kills builds at `count` moments that are spread over a whole one, from the first
/// reading of the recipe to the last name that a file gets.
fn killed_at(count: u32) {
    if !can_build() {
        return;
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let small = Small::new(8_000_000);
    let began = Instant::now();
    must(&mut small.build());
    let mut whole = began.elapsed();
    let (dist, cache) = (small.at("dist"), small.at("cache"));
    let finals = [
        "small-v1.tar",
        "small-v1.tar.sha256",
        "small-v1.cdx.json",
        "small-latest.tar",
    ];
    let good = finals.map(|name| fs::read(dist.join(name)).unwrap());
    let (mut ended, mut index) = (0, 0);
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    while index < count {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let jitter = (seed >> 33) as f64 / f64::from(1_u32 << 31);
        let moment = whole.mul_f64((f64::from(index) + jitter) / f64::from(count));
        let when = format!("killed {moment:?} after the start, of {whole:?}");
        // Onto nothing, or over what is there.
        let mut build = small.build();
        if index % 2 == 0 {
            let _ = fs::remove_dir_all(&cache);
            let _ = fs::remove_dir_all(&dist);
        } else {
            build.arg("--no-cache");
        }
        let began = Instant::now();
        let mut child = build
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        sleep(moment);
        child.kill().unwrap();
        let status = child.wait().unwrap();
        nothing_runs(&when);
        if let Some(code) = status.code() {
            assert_eq!(code, 0, "{when}");
            // Faster than the one that was measured: not killed, so not counted.
            whole = began.elapsed().min(whole.mul_f64(0.95));
            ended += 1;
            assert!(ended <= count, "builds end before they are killed");
            continue;
        }
        index += 1;
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let place = small.dir.path().display().to_string();
        assert!(!mounts.contains(&place), "{when}: {mounts}");
        whole_or_absent(&small, &finals, &good, &when);
        let shown = cache.display().to_string();
        if cache.exists() {
            let verified = tiffin(&["cache", "verify", "--cache", &shown]);
            assert_eq!(verified, (0, String::new()), "{when}");
        }
        must(&mut small.build());
        for (name, bytes) in finals.iter().zip(&good) {
            assert!(
                fs::read(dist.join(name)).unwrap() == *bytes,
                "{when}: {name}"
            );
        }
        let work = fs::read_dir(cache.join("work")).unwrap().count();
        assert_eq!(work, 0, "{when}: work of a killed build is left");
    }
    eprintln!("{count} builds were killed; a whole one takes {whole:?}");
}

/// Under its final name a file is there as it must be, or not at all.
fn whole_or_absent(small: &Small, finals: &[&str; 4], good: &[Vec<u8>; 4], when: &str) {
    for entry in fs::read_dir(small.at("dist"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().into_string().unwrap();
        match finals.iter().position(|known| *known == name) {
            Some(at) => {
                let bytes = fs::read(entry.path()).unwrap();
                assert!(bytes == good[at], "{when}: {name} is not what it is called");
            }
            None => assert!(name.starts_with(".tiffin-partial-"), "{when}: {name}"),
        }
    }
}

#[test]
fn a_killed_build_leaves_nothing_wrong() {
    killed_at(5);
}

#[test]
#[ignore = "200 builds: make test-long"]
fn a_build_that_is_killed_at_200_moments_leaves_nothing_wrong() {
    killed_at(200);
}
