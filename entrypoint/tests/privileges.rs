//! What the recipe takes away from services, as the kernel tells it.

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
