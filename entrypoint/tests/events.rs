//! supervisord's event listeners and FastCGI programs, with programs that speak the protocols.

mod common;

use std::io::Read as _;
use std::os::unix::net::UnixStream;

use common::{TestBox, wait};

/// Notes all that it hears, and ends when it hears that everything does.
const EARS: &str = "\
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
out = open('ROOT/events', 'a')
def say(text):
    sys.stdout.write(text)
    sys.stdout.flush()
while True:
    say('READY\\n')
    head = dict(word.split(':') for word in sys.stdin.readline().split())
    body = sys.stdin.read(int(head['len']))
    out.write(head['eventname'] + ' ' + body.strip() + '\\n')
    out.flush()
    say('RESULT 2\\nOK')
    if head['eventname'] == 'SUPERVISOR_STATE_CHANGE_STOPPING': break
";

fn supervised(programs: &str) -> TestBox {
    let mut b = TestBox::new();
    b.unit(
        "supervisor.service",
        "[Service]\nExecStart=/usr/bin/supervisord -n -c /etc/supervisord.conf\n",
    );
    b.file(
        "/etc/supervisord.conf",
        &format!("[supervisord]\n{programs}"),
    );
    b
}

#[test]
fn a_listener_hears_of_processes_groups_and_the_end() {
    let b = supervised(
        "[eventlistener:ears]\ncommand=/usr/bin/python3 ROOT/ears.py\nstartsecs=0\nbuffer_size=100\n\
         events=PROCESS_STATE,PROCESS_GROUP_ADDED,SUPERVISOR_STATE_CHANGE\n\
         [program:web]\ncommand=/bin/sleep 1000\nstartsecs=0\n\
         [program:bad]\ncommand=/bin/sh -c \"exit 3\"\nstartsecs=0\nautostart=false\nautorestart=false\n",
    );
    b.file("/ears.py", EARS);
    let running = b.start().until(&b, "web ready");
    let heard = |wanted: &str| {
        wait(wanted, || {
            let text = std::fs::read_to_string(b.path("/events")).ok()?;
            text.contains(wanted).then_some(text)
        })
    };
    heard("PROCESS_STATE_RUNNING processname:web");
    b.run(&["stop", "web"]).exits(0);
    heard("PROCESS_STATE_STOPPED processname:web");
    b.run(&["start", "bad"]);
    heard("PROCESS_STATE_EXITED processname:bad");
    running.stop().exits(0);
    let text = b.wait_for("/events");
    // PIDs are whatever they are, but of a process the same ones.
    let told: Vec<String> = text
        .lines()
        .filter(|line| !line.contains("processname:ears"))
        .map(|line| match line.rsplit_once("pid:") {
            Some((line, pid)) => {
                assert!(pid.parse::<i32>().unwrap() > 1, "{text}");
                format!("{line}pid:N")
            }
            None => line.to_owned(),
        })
        .collect();
    assert_eq!(
        told,
        [
            "PROCESS_GROUP_ADDED groupname:bad",
            "PROCESS_GROUP_ADDED groupname:ears",
            "PROCESS_GROUP_ADDED groupname:web",
            "SUPERVISOR_STATE_CHANGE_RUNNING ",
            "PROCESS_STATE_STARTING processname:web groupname:web from_state:STOPPED tries:0",
            "PROCESS_STATE_RUNNING processname:web groupname:web from_state:STARTING pid:N",
            "PROCESS_STATE_STOPPING processname:web groupname:web from_state:RUNNING pid:N",
            "PROCESS_STATE_STOPPED processname:web groupname:web from_state:STOPPING pid:N",
            "PROCESS_STATE_STARTING processname:bad groupname:bad from_state:STOPPED tries:0",
            "PROCESS_STATE_RUNNING processname:bad groupname:bad from_state:STARTING pid:N",
            "PROCESS_STATE_EXITED processname:bad groupname:bad from_state:RUNNING expected:0 pid:N",
            "SUPERVISOR_STATE_CHANGE_STOPPING ",
        ]
    );
}

#[test]
fn two_processes_of_a_fastcgi_program_share_one_socket() {
    let b = supervised(
        "[fcgi-program:app]\ncommand=/usr/bin/python3 ROOT/app.py\nsocket=unix:///run/app.sock\nsocket_mode=0660\n\
         process_name=%(program_name)s_%(process_num)d\nnumprocs=2\nstartsecs=0\nautorestart=true\n",
    );
    // Who has one connection cannot have the other meanwhile.
    b.file(
        "/app.py",
        "import os, socket\ns = socket.socket(fileno=0)\nwhile True:\n    c, _ = s.accept()\n    c.sendall(b'%d\\n' % os.getpid())\n    c.recv(1)\n    c.close()\n",
    );
    let running = b.start().until(&b, "app:app_1 ready");
    let ask = || {
        let mut stream = UnixStream::connect(b.path("/run/app.sock")).unwrap();
        // Who waits in vain fails.
        let limit = std::time::Duration::from_secs(20);
        stream.set_read_timeout(Some(limit)).unwrap();
        let mut text = String::new();
        let mut byte = [0];
        while stream.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            text.push(char::from(byte[0]));
        }
        (stream, text.parse::<i32>().unwrap())
    };
    let inode = || {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let meta = std::fs::metadata(b.path("/run/app.sock")).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o660);
        meta.ino()
    };
    let before = inode();
    let (first, one) = ask();
    let (second, other) = ask();
    assert_ne!(one, other);
    drop((first, second));
    // One that dies takes no connection with it: they wait for whoever is next.
    for pid in [one, other] {
        let killed = std::process::Command::new("/bin/kill")
            .args(["-KILL", &pid.to_string()])
            .status();
        assert!(killed.unwrap().success());
    }
    let (first, one_again) = ask();
    let (second, other_again) = ask();
    let all = [one, other, one_again, other_again];
    let distinct: std::collections::BTreeSet<i32> = all.into_iter().collect();
    assert_eq!(distinct.len(), 4, "{all:?}");
    assert_eq!(inode(), before);
    drop((first, second));
    running.stop().exits(0);
}
