//! The upstream client and a real supervisord against the entrypoint. `TIFFIN_TOOLS` names
//! the venv that `ci/setup test` makes; without it these tests are skipped, in words.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

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
command=/bin/true
startsecs=0
autorestart=false

[program:bad]
command=/bin/sh -c \"exit 3\"
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
