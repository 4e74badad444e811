//! How services run by what units and the recipe say, as the kernel tells it.

mod common;

use common::TestBox;
use serde_json::json;

const CHOWN: u64 = 1;
const KILL: u64 = 1 << 5;
const SETPCAP: u64 = 1 << 8;
const NET_BIND_SERVICE: u64 = 1 << 10;

/// A mask or number of `/proc/PID/status`, as a service saw it.
fn seen(b: &TestBox, service: &str, name: &str) -> u64 {
    let text = b.wait_for(&format!("/seen/{service}"));
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let mask = line.and_then(|line| line.strip_prefix(":\t")).unwrap();
    u64::from_str_radix(mask, 16).unwrap()
}

#[test]
fn the_recipe_narrows_programs_units_and_jobs() {
    let mut b = TestBox::new();
    b.file("/seen/.dir", "");
    use std::os::unix::fs::PermissionsExt as _;
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(b.path("/seen"), open.clone()).unwrap();
    std::fs::set_permissions(b.dir.path(), open).unwrap();
    b.file(
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
    );
    b.file("/etc/group", "root:x:0:\nnogroup:x:65534:\n");
    b.script(
        "look",
        "grep -E '^(Cap...|NoNewPrivs):' /proc/self/status >ROOT/seen/$1.new; mv ROOT/seen/$1.new ROOT/seen/$1; [ $1 = job ] || exec sleep 1000",
    );
    b.unit(
        "supervisor.service",
        "[Service]\nExecStart=/usr/bin/supervisord -n -c /etc/supervisord.conf\n",
    );
    b.file(
        "/etc/supervisord.conf",
        "[supervisord]\n[program:web]\ncommand=ROOT/bin/look web\nstartsecs=0\nuser=nobody\n",
    );
    b.unit(
        "none.service",
        "[Service]\nExecStart=ROOT/bin/look none\nCapabilityBoundingSet=CAP_CHOWN\n",
    );
    b.unit(
        "wide.service",
        "[Service]\nExecStart=ROOT/bin/look wide\nNoNewPrivileges=yes\n",
    );
    b.put(
        "services",
        "web",
        json!({"capability_bounding_set": ["NET_BIND_SERVICE"], "ambient_capabilities": ["CAP_NET_BIND_SERVICE"], "no_new_privileges": true}),
    );
    // It is in the place of what the unit says.
    b.put("services", "none", json!({"capability_bounding_set": []}));
    b.put("services", "wide", json!({"no_new_privileges": false}));
    b.put(
        "jobs",
        "job",
        json!({"command": format!("{}/bin/look job", b.dir.path().display()), "every": "1h"}),
    );
    b.put(
        "services",
        "job",
        json!({"capability_bounding_set": ["KILL", "CHOWN"]}),
    );
    let running = b.start().until(&b, "web ready");
    b.run(&["start", "job"]).exits(0);
    let wide = seen(&b, "wide", "CapBnd");
    assert_eq!(seen(&b, "wide", "NoNewPrivs"), 0);
    assert_eq!(seen(&b, "none", "NoNewPrivs"), 0);
    assert_eq!(seen(&b, "web", "NoNewPrivs"), 1);
    // As far as whoever runs the test has them.
    let is_root = is_root_here();
    if wide & SETPCAP != 0 && is_root {
        assert_eq!(seen(&b, "none", "CapBnd"), 0);
        assert_eq!(seen(&b, "none", "CapEff"), 0);
        assert_eq!(seen(&b, "job", "CapBnd"), wide & (CHOWN | KILL));
        assert_eq!(seen(&b, "job", "CapEff"), wide & (CHOWN | KILL));
        for set in ["CapBnd", "CapPrm", "CapEff", "CapAmb", "CapInh"] {
            assert_eq!(seen(&b, "web", set), wide & NET_BIND_SERVICE, "{set}");
        }
    }
    running.stop().exits(0);
}

fn is_root_here() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A box whose services write to ROOT/seen/NAME what they are.
fn a_box_that_looks() -> TestBox {
    use std::os::unix::fs::PermissionsExt as _;
    let b = TestBox::new();
    b.file("/seen/.dir", "");
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(b.path("/seen"), open.clone()).unwrap();
    std::fs::set_permissions(b.dir.path(), open).unwrap();
    b.script(
        "look",
        "{ cat /proc/self/status /proc/self/limits; echo \"oom: $(cat /proc/self/oom_score_adj)\"; echo \"nice: $(nice)\"; echo \"in: $PWD\"; } >ROOT/seen/$1.new; mv ROOT/seen/$1.new ROOT/seen/$1; exec sleep 1000",
    );
    b
}

/// The words of the line that begins so.
fn words(text: &str, beginning: &str) -> String {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(beginning));
    let words = lines
        .next()
        .unwrap_or_else(|| panic!("{beginning}: {text}"));
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn what_a_unit_says_of_its_process_holds() {
    let mut b = a_box_that_looks();
    b.file(
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nother:x:1234:1234::/:/bin/sh\n",
    );
    b.file(
        "/etc/group",
        "root:x:0:\nother:x:1234:\nshared:x:2345:\nlogs:x:3456:\nmedia:x:4567:other\n",
    );
    let identity = match is_root_here() {
        true => "User=other\nGroup=shared\nSupplementaryGroups=logs 5678\n",
        false => "",
    };
    b.unit(
        "app.service",
        &format!(
            "[Service]\nExecStart=ROOT/bin/look app\n{identity}UMask=0027\nNice=11\nOOMScoreAdjust=321\n\
             LimitNOFILE=200:300\nLimitCORE=0\nLimitSTACK=4M\nWorkingDirectory=ROOT/seen\n"
        ),
    );
    let running = b.start();
    let told = b.wait_for("/seen/app");
    if is_root_here() {
        assert_eq!(words(&told, "Uid:"), "1234 1234 1234 1234");
        assert_eq!(words(&told, "Gid:"), "2345 2345 2345 2345");
        // Its own of /etc/group are among them, as with systemd.
        assert_eq!(words(&told, "Groups:"), "2345 3456 4567 5678");
    }
    assert_eq!(words(&told, "Umask:"), "0027");
    assert_eq!(words(&told, "nice:"), "11");
    assert_eq!(words(&told, "oom:"), "321");
    assert_eq!(words(&told, "Max open files"), "200 300 files");
    assert_eq!(words(&told, "Max core file size"), "0 0 bytes");
    assert_eq!(words(&told, "Max stack size"), "4194304 4194304 bytes");
    let here = b.path("/seen");
    assert_eq!(words(&told, "in:"), here.to_str().unwrap());
    running.stop().exits(0);
}

#[test]
fn the_recipe_says_how_programs_and_units_run() {
    let mut b = a_box_that_looks();
    b.unit(
        "supervisor.service",
        "[Service]\nExecStart=/usr/bin/supervisord -n -c /etc/supervisord.conf\nNice=12\nOOMScoreAdjust=100\nLimitNOFILE=400\nLimitCORE=0\n",
    );
    b.file(
        "/etc/supervisord.conf",
        "[supervisord]\n[program:web]\ncommand=ROOT/bin/look web\nstartsecs=0\n\
         [program:plain]\ncommand=ROOT/bin/look plain\nstartsecs=0\n",
    );
    b.unit(
        "unit.service",
        "[Service]\nExecStart=ROOT/bin/look unit\nNice=10\nOOMScoreAdjust=200\nLimitNOFILE=500\nLimitCORE=0\n",
    );
    for name in ["web", "unit"] {
        b.put(
            "services",
            name,
            json!({"nice": 14, "oom_score_adj": 345, "limits": {"nofile": "128:256", "stack": "2M"}}),
        );
    }
    let running = b.start();
    for (name, nice, oom, files) in [
        ("web", "14", "345", "128 256 files"),
        ("unit", "14", "345", "128 256 files"),
        // What the recipe does not speak of is as the unit says.
        ("plain", "12", "100", "400 400 files"),
    ] {
        let told = b.wait_for(&format!("/seen/{name}"));
        assert_eq!(words(&told, "nice:"), nice, "{name}");
        assert_eq!(words(&told, "oom:"), oom, "{name}");
        assert_eq!(words(&told, "Max open files"), files, "{name}");
        assert_eq!(words(&told, "Max core file size"), "0 0 bytes", "{name}");
        if name != "plain" {
            assert_eq!(words(&told, "Max stack size"), "2097152 2097152 bytes");
        }
    }
    running.stop().exits(0);
}

#[test]
fn a_capability_that_does_not_exist_starts_nothing() {
    let mut b = TestBox::new();
    b.unit("web.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    b.put(
        "services",
        "web",
        json!({"capability_bounding_set": ["FLY"]}),
    );
    b.start()
        .end()
        .exits(78)
        .says("cannot start web: its capabilities: there is no FLY");
}
