//! The upstream client and a real supervisord against the entrypoint. `TIFFIN_TOOLS` names
//! the venv that `ci/setup test` makes; without it these tests are skipped, in words.

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Ended, TestBox};

fn tools() -> Option<PathBuf> {
    let tools = std::env::var_os("TIFFIN_TOOLS").map(PathBuf::from);
    match &tools {
        Some(tools) => assert!(
            tools.join("bin/supervisorctl").exists(),
            "no supervisorctl in {}: run `make setup-test`",
            tools.display()
        ),
        None => eprintln!("skipped: TIFFIN_TOOLS does not name a venv with supervisor"),
    }
    tools
}

const PROGRAMS: &str = "\
[program:web]
command=ROOT/bin/web
startsecs=1 ; web
stopsignal=INT

[program:late]
command=/bin/sleep 1000
autostart=false
priority=5
user=root
directory=/tmp
environment=A=\"1\"

[program:once]
command=/bin/sleep 0.3
startsecs=0
autorestart=false

[program:bad]
command=/bin/sh -c \"sleep 0.3; exit 3\"
startsecs=0
autostart=false
autorestart=false

[program:quick]
command=/bin/false
startretries=0
autostart=false

[program:missing]
command=/nonexistent/program
autostart=false

[program:notexec]
command=/etc/passwd
autostart=false

[program:directory]
command=/etc
autostart=false

[program:cat]
command=/bin/cat

[program:joined]
command=ROOT/bin/web
redirect_stderr=true

[program:many]
command=/bin/sleep 1000
process_name=%(program_name)s_%(process_num)02d
numprocs=2
stdout_logfile=NONE
stderr_logfile=/dev/stderr
stderr_logfile_maxbytes=0
exitcodes=0,7

[program:a]
command=/bin/sleep 1000

[program:b]
command=/bin/sleep 1000
priority=3

[group:pair]
programs=a,b
priority=7
";

fn configuration(socket: &str, extra: &str) -> String {
    format!(
        "[unix_http_server]\nfile={socket}\nchmod=0700\nusername=operator\npassword=p\u{e4}ssword\n\
         [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\
         [supervisord]\nidentifier=test-box\n{extra}\n[supervisorctl]\nserverurl=unix://{socket}\nusername=operator\npassword=p\u{e4}ssword\n\
         {PROGRAMS}"
    )
}

fn supervised() -> TestBox {
    let mut b = TestBox::new();
    b.script(
        "web",
        "trap 'exit 0' INT TERM\necho one; echo two\necho wrong >&2\nwhile :; do sleep 0.05; done",
    );
    b.file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    b.file("/etc/supervisord.conf", &configuration("/run/sup.sock", ""));
    b.unit(
        "supervisor.service",
        "[Service]\nExecStart=/usr/bin/supervisord -n -c /etc/supervisord.conf\n",
    );
    b
}

#[test]
fn its_answers_are_those_of_a_real_supervisord() {
    let Some(tools) = tools() else { return };
    let b = supervised();
    let socket = b.path("/run/theirs.sock");
    let extra = format!(
        "nodaemon=true\nuser=root\nlogfile={0}/theirs.log\npidfile={0}/theirs.pid\nchildlogdir={0}",
        b.dir.path().display()
    );
    b.file(
        "/theirs.conf",
        &configuration(socket.to_str().unwrap(), &extra),
    );
    // The script changes both files; the box reads this one.
    std::os::unix::fs::symlink("etc/supervisord.conf", b.path("/theirs.conf.box")).unwrap();
    let running = b.start();
    common::wait("the socket", || {
        b.path("/run/sup.sock").exists().then_some(())
    });
    let output = Command::new(tools.join("bin/python"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/supervisord/compare.py"))
        .arg(tools.join("bin/supervisord"))
        .arg(b.path("/theirs.conf"))
        .arg(socket)
        .arg(b.path("/run/sup.sock"))
        .env("TZ", "UTC")
        .output()
        .unwrap();
    let ended = Ended::of(output);
    ended.exits(0).says(" calls compared, 0 different");
    running.end().exits(0).says("supervisorctl: shutdown");
}

/// The upstream client, asked as scripts ask it.
struct Client<'a> {
    tools: PathBuf,
    b: &'a TestBox,
}

impl Client<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.tools.join("bin/supervisorctl"));
        command
            .args(["-u", "operator", "-p", "p\u{e4}ssword", "-s"])
            .arg(format!("unix://{}", self.b.path("/run/sup.sock").display()))
            .args(words)
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn says(&self, words: &str, code: i32, text: &str) -> Ended {
        let words: Vec<&str> = words.split(' ').collect();
        let ended = Ended::of(self.command(&words).output().unwrap());
        ended.exits(code).says(text);
        ended
    }

    fn status(&self, name: &str, text: &str) {
        common::wait(text, || {
            let output = self.command(&["status", name]).output().unwrap();
            String::from_utf8_lossy(&output.stdout)
                .contains(text)
                .then_some(())
        });
    }

    /// Follows until `wanted` was seen.
    fn follows(&self, words: &[&str], input: &[u8], wanted: &str) {
        let mut child = self
            .command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(
            lines.any(|line| line.unwrap().contains(wanted)),
            "{words:?} ended without {wanted}"
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn the_upstream_client_works_unchanged() {
    let Some(tools) = tools() else { return };
    let b = supervised();
    let running = b.start();
    common::wait("the socket", || {
        b.path("/run/sup.sock").exists().then_some(())
    });
    let client = Client { tools, b: &b };
    client.status("web", "RUNNING");
    client.status("once", "EXITED");
    client.status("pair:a", "RUNNING");
    // LSB: 3 is not running, 4 is unknown.
    client
        .says(
            "status",
            3,
            "late                             STOPPED   Not started",
        )
        .says("web                              RUNNING   pid ")
        .says("many:many_00                     RUNNING   pid ");
    client.says("status web", 0, ", uptime 0:00:");
    client.says("status nope", 4, "nope: ERROR (no such process)");
    client.says("stop web", 0, "web: stopped");
    client.says("stop web", 0, "web: ERROR (not running)");
    client.says("start web", 0, "web: started");
    client.says("start web", 0, "web: ERROR (already started)");
    client.says("start missing", 1, "missing: ERROR (no such file)");
    client.says("start quick", 7, "quick: ERROR (spawn error)");
    client.says("restart web", 0, "web: started");
    client.says("restart pair:*", 0, "pair:a: started");
    client.says("signal CONT web", 0, "web: signalled");
    client.says("signal NOPE web", 1, "web: ERROR (bad signal name)");
    client.says(
        "avail",
        0,
        "many:many_01                     in use    auto      999:999",
    );
    client.says("version", 0, "4.3.0");
    client.says("pid", 0, &running.pid().to_string());
    client.says("pid late", 7, "0");
    b.wait_log("web | two");
    client.says("tail web", 0, "one\ntwo\n");
    client.says("tail -5 web stderr", 0, "rong\n");
    client.says("clear web", 0, "web: cleared");
    assert_eq!(client.says("tail web", 0, "").out, "\n");
    client.says("maintail", 0, "web is ready");
    client.follows(&["maintail", "-f"], b"", "web is ready");
    client.follows(
        &["fg", "cat"],
        "gr\u{fc}\u{df}e\n".as_bytes(),
        "gr\u{fc}\u{df}e",
    );
    client.follows(&["tail", "-f", "cat"], b"", "gr\u{fc}\u{df}e");
    client.says("reread", 0, "No config updates to processes");
    // Somebody changes the files.
    let text = std::fs::read_to_string(b.path("/etc/supervisord.conf")).unwrap();
    let text = text
        .replace("[program:late]", "[program:fresh]")
        .replace("command=/bin/cat", "command=/bin/cat -");
    b.file("/etc/supervisord.conf", &text);
    let pid = client.says("pid web", 0, "").out;
    client
        .says("reread", 0, "fresh: available")
        .says("cat: changed")
        .says("late: disappeared");
    client
        .says("update", 0, "late: stopped")
        .says("cat: updated process group")
        .says("fresh: added process group")
        .says("late: removed process group");
    client.says("status late", 4, "no such");
    client.status("cat", "RUNNING");
    assert_eq!(client.says("pid web", 0, "").out, pid, "it was not changed");
    client.says("start fresh", 0, "fresh: started");
    client.says("stop fresh", 0, "fresh: stopped");
    client.says("remove fresh", 0, "fresh: removed process group");
    client.says("add fresh", 0, "fresh: added process group");
    client.says("remove web", 1, "ERROR: process/group still running: web");
    client.says("stop all", 0, "pair:b: stopped");
    Ended::of(client.command(&["start", "all"]).output().unwrap())
        .says("many:many_01: started")
        .says("missing: ERROR (no such file)");
    client.says("reload", 0, "Restarted supervisord");
    client.status("web", "RUNNING");
    client.status("fresh", "STOPPED   Not started");
    // Somebody without the password.
    let mut stranger = Command::new(client.tools.join("bin/supervisorctl"));
    stranger
        .arg("-s")
        .arg(format!("unix://{}", b.path("/run/sup.sock").display()))
        .args(["-p", "x", "-u", "operator", "status"])
        .stdin(Stdio::null());
    Ended::of(stranger.output().unwrap()).says("Server requires authentication");
    client.says("shutdown", 0, "Shut down");
    running.end().exits(0);
}

#[test]
fn the_upstream_client_works_over_tcp_with_a_password() {
    let Some(tools) = tools() else { return };
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let mut b = TestBox::new();
    b.unit(
        "supervisor.service",
        "[Service]\nExecStart=/usr/bin/supervisord -n -c /etc/supervisord.conf\n",
    );
    // The password is `secret`, as `{SHA}` has it.
    b.file(
        "/etc/supervisord.conf",
        &format!(
            "[inet_http_server]\nport={address}\nusername=operator\npassword={{SHA}}e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4\n\
             [supervisord]\n[program:web]\ncommand=/bin/sleep 1000\nstartsecs=0\n"
        ),
    );
    let running = b.start().until(&b, "web ready");
    let client = |password: &str, words: &[&str]| {
        let output = Command::new(tools.join("bin/supervisorctl"))
            .args(["-s", &format!("http://{address}"), "-u", "operator"])
            .args(["-p", password])
            .args(words)
            .stdin(Stdio::null())
            .output();
        Ended::of(output.unwrap())
    };
    client("secret", &["status"])
        .exits(0)
        .says("RUNNING   pid ");
    client("secret", &["stop", "web"])
        .exits(0)
        .says("web: stopped");
    b.wait_status("web stopped");
    for wrong in ["Secret", "", "e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4"] {
        client(wrong, &["start", "web"]).says("Server requires authentication");
    }
    b.wait_status("web stopped");
    client("secret", &["start", "web"])
        .exits(0)
        .says("web: started");
    running.stop().exits(0);
}

#[test]
fn ansibles_module_works_unchanged() {
    let Some(tools) = tools() else { return };
    let b = supervised();
    let running = b.start();
    let client = Client { tools, b: &b };
    common::wait("the socket", || {
        b.path("/run/sup.sock").exists().then_some(())
    });
    client.status("web", "RUNNING");
    // A task, what it says and the state afterwards.
    let play = |name: &str, state: &str, says: &str| {
        let arguments = format!(
            "name={name} state={state} username=operator password=p\u{e4}ssword supervisorctl_path={} server_url=unix://{} signal=CONT",
            client.tools.join("bin/supervisorctl").display(),
            b.path("/run/sup.sock").display()
        );
        let output = Command::new("ansible")
            .args(["localhost", "-i", "localhost,", "-c", "local", "-o"])
            .args(["-e", "ansible_python_interpreter=/usr/bin/python3"])
            .args(["-m", "community.general.supervisorctl", "-a", &arguments])
            .env("LC_ALL", "C.UTF-8")
            .env("ANSIBLE_HOME", b.path("/ansible"))
            .output()
            .unwrap();
        Ended::of(output).says(says);
    };
    play("web", "started", "\"changed\": false");
    play("web", "stopped", "\"changed\": true");
    play("web", "started", "\"changed\": true");
    play("pair:", "restarted", "\"changed\": true");
    play("web", "signalled", "\"changed\": true");
    play("late", "absent", "\"changed\": true");
    play("late", "present", "\"changed\": true");
    play("late", "present", "\"changed\": false");
    play("nope", "started", "FAILED");
    running.stop().exits(0);
}
