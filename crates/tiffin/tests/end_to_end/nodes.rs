//! The box on a Swarm of three engines, one of which dies.
//!
//! Each engine is a machine of its own as far as it can tell: its own processes, mounts and
//! network, the last with an overlay network (VXLAN) over a bridge between them. When its first
//! process is killed, the kernel ends all that is left of it, as a power cut would.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::*;

/// Runs a line of shell that must succeed.
fn shell(line: &str) -> String {
    must(Command::new("sh").args(["-ec", line]))
}

/// The bridge, in a network namespace of its own.
struct Switch {
    name: String,
}

impl Switch {
    fn new() -> Switch {
        let name = unique("switch");
        shell(&format!(
            "ip netns add {name}; ip -n {name} link add bridge type bridge; ip -n {name} link set bridge up"
        ));
        Switch { name }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
    }
}

struct Node {
    name: String,
    address: String,
    dir: tempfile::TempDir,
    /// Of the engine's namespaces.
    first: Child,
}

impl Node {
    fn new(switch: &Switch, number: u32) -> Node {
        let name = unique("node");
        let address = format!("10.213.0.{number}");
        let sw = &switch.name;
        shell(&format!(
            "ip netns add {name}; ip -n {sw} link add p{number} type veth peer name eth0 netns {name}\n\
             ip -n {sw} link set p{number} master bridge up; ip -n {name} link set lo up\n\
             ip -n {name} addr add {address}/24 dev eth0; ip -n {name} link set eth0 up"
        ));
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display();
        fs::write(dir.path().join("daemon.json"), "{}").unwrap();
        // Nothing of the machine's own engine is seen: not its sockets, not its key.
        let start = format!(
            "mount -t tmpfs tmpfs /run; [ ! -d /etc/docker ] || mount -t tmpfs tmpfs /etc/docker\n\
             exec dockerd --config-file {root}/daemon.json --data-root {root}/data --exec-root {root}/exec \
             --pidfile {root}/pid --host unix://{root}/docker.sock --bridge none --cgroup-parent /{name} >{root}/log 2>&1"
        );
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{name}"));
        command.args(["unshare", "--mount", "--pid", "--fork", "--kill-child"]);
        command.args(["--mount-proc", "sh", "-ec", &start]);
        let first = command.stdin(Stdio::null()).spawn().unwrap();
        let node = Node {
            name,
            address,
            dir,
            first,
        };
        let answers = || output(&mut node.docker(&["version"])).status.success();
        assert!(within(Duration::from_secs(60), answers), "{}", node.log());
        node
    }

    fn docker(&self, words: &[&str]) -> Command {
        let mut command = docker(words);
        let socket = self.dir.path().join("docker.sock");
        command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
        command
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// All of it, at once.
    fn die(&mut self) {
        let _ = self.first.kill();
        let _ = self.first.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.die();
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
        // Groups of processes that are gone; the kernel lets go of them in its own time.
        let none_left = || {
            let line = format!(
                "find /sys/fs/cgroup -depth -type d -path '*/{name}*' -exec rmdir {{}} + 2>/dev/null; \
                 [ -z \"$(find /sys/fs/cgroup -type d -name '{name}')\" ]",
                name = self.name
            );
            output(Command::new("sh").args(["-c", &line]))
                .status
                .success()
        };
        within(Duration::from_secs(20), none_left);
    }
}

/// Three engines with the image, and the stack on them; `nodes[0]` is asked.
struct Cluster {
    nodes: Vec<Node>,
    network: String,
    stack: String,
    // Dropped last.
    _switch: Switch,
}

impl Cluster {
    fn new() -> Cluster {
        let switch = Switch::new();
        let nodes: Vec<Node> = (1..=3).map(|number| Node::new(&switch, number)).collect();
        let archive = archive();
        for node in &nodes {
            must(node.docker(&["load", "--quiet", "--input"]).arg(&archive));
        }
        let first = &nodes[0];
        must(&mut first.docker(&["swarm", "init", "--advertise-addr", &first.address]));
        let token = must(&mut first.docker(&["swarm", "join-token", "--quiet", "manager"]));
        for node in &nodes[1..] {
            let to = format!("{}:2377", first.address);
            must(&mut node.docker(&["swarm", "join", "--token", &token, &to]));
        }
        let network = unique("overlay");
        let create = [
            "network",
            "create",
            "--driver",
            "overlay",
            "--attachable",
            &network,
        ];
        must(&mut first.docker(&create));
        Cluster {
            nodes,
            network,
            stack: unique("stack"),
            _switch: switch,
        }
    }

    /// In the network of the stack, on the first node.
    fn run(&self, name: &str, flags: &[&str], entrypoint: &str, words: &[&str]) {
        let mut command = self.docker(&["run", "-d", "--name", name, "--network", &self.network]);
        command
            .args(flags)
            .args(["--entrypoint", entrypoint, &image()]);
        must(command.args(words));
    }

    fn databases(&self) {
        self.run("databases", &[], "/bin/sh", &["-c", &Databases::script()]);
        let ping = [
            "exec",
            "databases",
            "redis-cli",
            "-p",
            "6380",
            "-a",
            Databases::PASSWORD,
            "ping",
        ];
        let answers = || output(&mut self.docker(&ping)).stdout.starts_with(b"PONG");
        assert!(
            within(Duration::from_secs(90), answers),
            "the databases do not answer"
        );
    }

    fn start(&self, scale: &str) {
        for name in ["MONGODB_PASSWORD", "REDIS_PASSWORD"] {
            let mut command = self.docker(&["secret", "create", &format!("backend-{name}"), "-"]);
            let mut child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            use std::io::Write as _;
            let mut input = child.stdin.take().unwrap();
            input.write_all(Databases::PASSWORD.as_bytes()).unwrap();
            drop(input);
            assert!(child.wait().unwrap().success());
        }
        let mut command = self.docker(&["run", "--rm", "--network", "none"]);
        command.args(Databases::settings_of("databases"));
        let words = ["manifest", "swarm", "--scale", scale];
        let text = must(command.arg(image()).args(words));
        self.deploy(&text, &self.network);
    }
}

impl Stack for Cluster {
    fn name(&self) -> &str {
        &self.stack
    }

    fn docker(&self, words: &[&str]) -> Command {
        self.nodes[0].docker(words)
    }
}

/// Addresses of the boxes of a role on a node.
fn addresses(cluster: &Cluster, node: &Node, role: &str) -> Vec<String> {
    let label = format!(
        "label=com.docker.swarm.service.name={}",
        cluster.service(role)
    );
    let found = must(&mut node.docker(&["ps", "--quiet", "--filter", &label]));
    let format = format!(
        "{{{{(index .NetworkSettings.Networks \"{}\").IPAddress}}}}",
        cluster.network
    );
    let address = |id: &str| must(&mut node.docker(&["inspect", "-f", &format, id]));
    found.lines().map(address).collect()
}

#[test]
#[ignore = "needs a baked box, root and a network of its own: make test-long"]
fn long_a_node_dies_under_load_and_only_its_own_requests_fail() {
    let mut cluster = Cluster::new();
    cluster.databases();
    cluster.start("web=3,worker=4");
    for (role, replicas) in [
        ("web", "3/3"),
        ("worker", "4/4"),
        ("scheduler", "1/1"),
        ("migrate", "0/1"),
    ] {
        cluster.until(role, replicas, 300);
    }
    let spread: Vec<usize> = cluster
        .nodes
        .iter()
        .map(|node| addresses(&cluster, node, "web").len())
        .collect();
    assert_eq!(spread, [1, 1, 1]);

    let script: PathBuf = cluster.nodes[0].dir.path().join("load.py");
    fs::write(&script, include_str!("load.py")).unwrap();
    let mount = format!("{}:/load.py:ro", script.display());
    let tasks = format!("tasks.{}", cluster.service("web"));
    cluster.run(
        "load",
        &["-v", &mount],
        "/usr/bin/python3",
        &["/load.py", &tasks, "300"],
    );

    cluster.update("web");
    cluster.update("worker");
    let dead = addresses(&cluster, &cluster.nodes[2], "web");
    assert!(!dead.is_empty(), "no web box is on the node that dies");
    assert!(!addresses(&cluster, &cluster.nodes[2], "worker").is_empty());
    cluster.nodes[2].die();
    let is_down =
        || must(&mut cluster.docker(&["node", "ls", "--format", "{{.Status}}"])).contains("Down");
    assert!(
        within(Duration::from_secs(90), is_down),
        "{}",
        cluster.nodes[0].log()
    );
    for (role, replicas) in [("web", "3/3"), ("worker", "4/4"), ("scheduler", "1/1")] {
        cluster.until(role, replicas, 120);
    }
    cluster.scale("web", 5);
    cluster.scale("web", 2);
    cluster.scale("worker", 2);
    let state = |what: &str| must(&mut cluster.docker(&["inspect", "-f", what, "load"]));
    assert_eq!(
        state("{{.State.Running}}"),
        "true",
        "the load was over before the changes were"
    );
    let over = || state("{{.State.Running}}") == "false";
    assert!(within(Duration::from_secs(540), over));
    let said = must(&mut cluster.docker(&["logs", "load"]));
    let told: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    eprintln!("{told}\nthe node that died had {dead:?}");
    let failures = told["failures"].as_array().unwrap();
    let of_the_dead = |failure: &serde_json::Value| {
        let text = failure.as_str().unwrap();
        dead.iter().any(|address| {
            text.contains(&format!("'{address}: ")) || text.contains(&format!("\"{address}: "))
        })
    };
    let others: Vec<_> = failures
        .iter()
        .filter(|failure| !of_the_dead(failure))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(told["lost"], serde_json::json!([]), "{told}");
    assert!(
        told["boxes"].as_u64() >= Some(8) && told["jobs"].as_u64() >= Some(50),
        "{told}"
    );
}
