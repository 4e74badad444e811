//! Units as Debian 12 and 13 ship them, and both parsers on anything at all.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use services::{Kind, Resource, RestartWhen, StopScope, supervisord, systemd};

fn unit(name: &str, texts: &[&str]) -> services::Parsed<services::Service> {
    systemd::parse(name, texts).unwrap()
}

#[test]
fn nginx() {
    let parsed = unit("nginx.service", &[include_str!("fixtures/nginx.service")]);
    let service = &parsed.value;
    assert_eq!(
        service.kind,
        Kind::Forking {
            pid_file: Some("/run/nginx.pid".to_owned())
        }
    );
    assert_eq!(
        service.commands.start[0].words,
        ["/usr/sbin/nginx", "-g", "daemon on; master_process on;"]
    );
    assert!(service.commands.stop[0].ignore_failure);
    assert_eq!(
        (service.stopping.scope, service.stopping.timeout),
        (StopScope::Main, Some(Duration::from_secs(5)))
    );
    assert_eq!(parsed.warnings, [""; 0]);
}

#[test]
fn redis() {
    let parsed = unit(
        "redis-server.service",
        &[include_str!("fixtures/redis-server.service")],
    );
    let service = &parsed.value;
    assert_eq!(service.kind, Kind::Notify);
    assert_eq!(service.identity.user.as_deref(), Some("redis"));
    assert_eq!(
        (
            service.directories[0].path.as_str(),
            service.directories[0].mode
        ),
        ("/run/redis", 0o2755)
    );
    assert_eq!((service.umask, service.stopping.timeout), (0o007, None));
    assert_eq!(
        (service.limits[0].resource, service.limits[0].soft),
        (Resource::OpenFiles, Some(65535))
    );
    assert_eq!(service.aliases, ["redis"]);
    assert!(parsed.not_applied.iter().any(|key| key == "ProtectSystem"));
    assert_eq!(parsed.warnings, [""; 0]);
}

#[test]
fn mongod_as_mongodb_packages_it() {
    let parsed = unit("mongod.service", &[include_str!("fixtures/mongod.service")]);
    let service = &parsed.value;
    assert_eq!(
        service.kind,
        Kind::Simple {
            settle: Duration::ZERO
        }
    );
    assert_eq!(
        service.commands.start[0].words,
        ["/usr/bin/mongod", "--config", "/etc/mongod.conf"]
    );
    let who = &service.identity;
    assert_eq!(
        (who.user.as_deref(), who.group.as_deref()),
        (Some("mongodb"), Some("mongodb"))
    );
    let file = &service.environment_files[0];
    assert_eq!(
        (file.path.as_str(), file.optional),
        ("/etc/default/mongod", true)
    );
    let said = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        service.environment,
        [
            said("MONGODB_CONFIG_OVERRIDE_NOFORK", "1"),
            said("GLIBC_TUNABLES", "glibc.pthread.rseq=0")
        ]
    );
    let limits: Vec<_> = service
        .limits
        .iter()
        .map(|l| (l.resource, l.soft, l.hard))
        .collect();
    let infinity = |resource| (resource, None, None);
    let of_64000 = |resource| (resource, Some(64_000), Some(64_000));
    assert_eq!(
        limits,
        [
            infinity(Resource::FileSize),
            infinity(Resource::Cpu),
            infinity(Resource::AddressSpace),
            of_64000(Resource::OpenFiles),
            of_64000(Resource::Processes),
            infinity(Resource::MemoryLock),
        ]
    );
    assert_eq!(service.directories[0].path, "/run/mongodb");
    assert_eq!(parsed.not_applied, ["TasksMax", "TasksAccounting"]);
    assert_eq!(parsed.warnings, [""; 0]);
    // Up to 7.0, for Red Hat's family, it forked.
    let service = unit(
        "mongod.service",
        &[
            include_str!("fixtures/mongod.service"),
            "[Service]\nType=forking\nPIDFile=/var/run/mongodb/mongod.pid\n",
        ],
    )
    .value;
    assert_eq!(
        service.kind,
        Kind::Forking {
            pid_file: Some("/var/run/mongodb/mongod.pid".to_owned())
        }
    );
}

#[test]
fn signals_times_types_and_the_host_name() {
    let simple = Kind::Simple {
        settle: Duration::ZERO,
    };
    for type_ in ["simple", "exec", "idle"] {
        let text = format!("[Service]\nType={type_}\nExecStart=/a\n");
        let parsed = unit("x.service", &[&text]);
        assert_eq!(
            (parsed.value.kind, parsed.warnings.len()),
            (simple.clone(), 0)
        );
    }
    for (said, signal) in [("SIGQUIT", 3), ("USR2", 12), ("SIGWINCH", 28), ("9", 9)] {
        let text = format!("[Service]\nExecStart=/a\nKillSignal={said}\n");
        let parsed = unit("x.service", &[&text]);
        assert_eq!(parsed.value.stopping.signal, signal, "{said}");
        assert_eq!(parsed.warnings, [""; 0]);
    }
    for (said, delay) in [("2", 2000), ("500ms", 500), ("1min 30s", 90_000), ("0", 0)] {
        let text = format!("[Service]\nExecStart=/a\nRestartSec={said}\n");
        let delay = Some(Duration::from_millis(delay));
        assert_eq!(unit("x.service", &[&text]).value.restart.delay, delay);
    }
    let parsed = unit(
        "x.service",
        &["[Service]\nExecStart=/a\nKillSignal=SIGFOO\nRestartSec=soon\n"],
    );
    assert_eq!(
        parsed.warnings,
        [
            "KillSignal=SIGFOO is ignored: it is not a signal",
            "RestartSec=soon is ignored: it is not a time span"
        ]
    );
    let text = "[Unit]\nDescription=on %H\n[Service]\nExecStart=/a --name=%H-%l %%H\n";
    let parsed = systemd::parse_on("box.corp.example", "x.service", &[text]).unwrap();
    assert_eq!(parsed.value.description, "on box.corp.example");
    assert_eq!(
        parsed.value.commands.start[0].words[1..],
        ["--name=box.corp.example-box", "%H"]
    );
    assert_eq!(parsed.warnings, [""; 0]);
}

#[test]
fn a_start_limits_interval_was_ignored_in_silence() {
    let limit = |keys: &str| {
        let parsed = unit(
            "x.service",
            &[&format!("[Unit]\n{keys}[Service]\nExecStart=/a\n")],
        );
        (parsed.value.restart.limit, parsed.warnings)
    };
    assert_eq!(limit(""), (Some(5), Vec::new()));
    assert_eq!(limit("StartLimitBurst=3\n"), (Some(3), Vec::new()));
    assert_eq!(limit("StartLimitIntervalSec=0\n"), (None, Vec::new()));
    let told = "StartLimitIntervalSec=500 has no effect: quick deaths are counted in a row";
    assert_eq!(
        limit("StartLimitIntervalSec=500\nStartLimitBurst=3\n"),
        (Some(3), vec![told.to_owned()])
    );
}

#[test]
fn a_template_unit_knows_its_instance() {
    let service = unit(
        "redis-server@two.service",
        &[include_str!("fixtures/redis-server@.service")],
    )
    .value;
    assert!(
        service.commands.start[0]
            .words
            .iter()
            .any(|word| word.contains("two")),
        "{:?}",
        service.commands.start
    );
}

#[test]
fn cron_ssh_supervisor_memcached() {
    let cron = unit("cron.service", &[include_str!("fixtures/cron.service")]);
    assert_eq!(cron.value.stopping.scope, StopScope::MainKeepRest);
    assert!(cron.value.environment_files[0].optional);
    assert_eq!(
        cron.value.commands.start[0].argv(|_| None),
        ["/usr/sbin/cron", "-f"]
    );
    let ssh = unit("ssh.service", &[include_str!("fixtures/ssh.service")]);
    assert_eq!(ssh.value.restart.prevent_codes, [255]);
    assert!(!ssh.value.conditions[0].exists);
    let supervisor = unit(
        "supervisor.service",
        &[include_str!("fixtures/supervisor.service")],
    );
    assert_eq!(
        supervisor.value.restart.delay,
        Some(Duration::from_secs(50))
    );
    let memcached = unit(
        "memcached.service",
        &[include_str!("fixtures/memcached.service")],
    );
    for parsed in [cron, ssh, supervisor, memcached] {
        assert_eq!(parsed.warnings, [""; 0], "{}", parsed.value.name);
    }
}

#[test]
fn a_drop_in_resets_lists_and_keeps_the_rest() {
    let service = unit(
        "x.service",
        &[
            "[Service]\nExecStart=/bin/a\nEnvironment=A=1 \"B=2 3\"\nRestart=no\n",
            "[Service]\nExecStart=\nExecStart=-@/bin/b name %p\nEnvironment=C=%%\nRestart=on-failure\n",
        ],
    )
    .value;
    let command = &service.commands.start[0];
    assert_eq!(
        (
            command.words.join(" ").as_str(),
            command.argv0.as_deref(),
            command.ignore_failure
        ),
        ("/bin/b x", Some("name"), true)
    );
    let pairs: Vec<_> = service
        .environment
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(pairs, ["A=1", "B=2 3", "C=%"]);
    assert_eq!(service.restart.when, RestartWhen::OnFailure);
}

#[test]
fn what_cannot_run_is_an_error_and_what_is_unknown_a_warning() {
    for text in [
        "",
        "[Unit]\n",
        "[Service]\nType=simple\n",
        "[Service]\nExecStart=/a\nExecStart=/b\n",
        "[Service]\nExecStart='/a\n",
    ] {
        assert!(systemd::parse("x.service", &[text]).is_err(), "{text}");
    }
    let parsed = unit(
        "x.service",
        &["[Service]\nExecStart=/a\nRestrat=always\nLimitNOFILE=many\n"],
    );
    assert_eq!(
        parsed.warnings,
        [
            "unknown key Restrat=",
            "LimitNOFILE=many is ignored: it is not a number, a size or infinity"
        ]
    );
}

fn programs(text: &str) -> Result<services::Parsed<Vec<services::Service>>, services::Error> {
    let environment = BTreeMap::from([("PORT".to_owned(), "8000".to_owned())]);
    supervisord::parse(
        &[supervisord::File {
            path: "/etc/supervisor/supervisord.conf",
            text,
        }],
        &environment,
    )
}

#[test]
fn a_program_with_everything() {
    let parsed = programs(
        "[program:web]\ncommand=/opt/venv/bin/gunicorn -b :%(ENV_PORT)s \"a b\" ; comment\nuser=www\nautorestart=true\nstartsecs=5\nstartretries=7\nstopsignal=QUIT\nstopwaitsecs=60\nstopasgroup=true\npriority=10\ndirectory=%(here)s\numask=027\nenvironment=A=\"1,2\",B=x\nstdout_logfile=/srv/own.log\nwrong=1\n[eventlistener:x]\ncommand=y\nevents=TICK_5, process_state\nresult_handler=a:b\n[strange]\n[group:all]\nprograms=web,gone\n",
    )
    .unwrap();
    let web = &parsed.value[0];
    assert_eq!(web.name, "all:web");
    assert_eq!(
        web.commands.start[0].argv(|_| None),
        ["/opt/venv/bin/gunicorn", "-b", ":8000", "a b"]
    );
    assert_eq!(
        (web.restart.when, web.restart.limit),
        (RestartWhen::Always, Some(8))
    );
    assert_eq!(
        (
            web.stopping.signal,
            web.stopping.scope,
            web.stopping.timeout
        ),
        (3, StopScope::All, Some(Duration::from_secs(60)))
    );
    assert_eq!(
        web.working_directory.as_ref().unwrap().path,
        "/etc/supervisor"
    );
    assert!(
        web.environment
            .contains(&("A".to_owned(), "1,2".to_owned()))
    );
    let warnings = parsed.warnings.join("\n");
    for wanted in [
        "unknown key `wrong`",
        "unknown section [strange]",
        "names the program `gone`",
    ] {
        assert!(warnings.contains(wanted), "{warnings}");
    }
    let not_applied = parsed.not_applied.join("\n");
    for wanted in ["/srv/own.log", "result_handler (Python code"] {
        assert!(not_applied.contains(wanted), "{not_applied}");
    }
}

#[test]
fn keys_that_a_service_misses_are_one_warning() {
    let warnings = |text: &str, drop_in: &str| {
        let text = format!("[Service]\nExecStart=/x\n{text}");
        unit("x.service", &[&text, drop_in]).warnings
    };
    for (key, harmless) in [
        ("OnFailure=alarm.service", "OnFailure="),
        ("SendSIGKILL=no", "SendSIGKILL=true"),
        ("SendSIGHUP=yes", "SendSIGHUP=no"),
        ("DynamicUser=yes", "DynamicUser=false"),
        ("StandardOutput=file:/srv/log", "StandardOutput=journal"),
        ("StandardInput=socket", "StandardInput=null"),
        (
            "ConditionVirtualization=!container",
            "ConditionVirtualization=",
        ),
        ("FinalKillSignal=SIGABRT", "FinalKillSignal=SIGKILL"),
        ("PassEnvironment=A B", "PassEnvironment="),
        ("RootDirectory=/srv", "RootDirectory="),
    ] {
        let section = match key.starts_with("On") || key.starts_with("Cond") {
            true => "[Unit]\n",
            false => "",
        };
        let name = key.split('=').next().unwrap();
        let wanted = format!("without effect in a box: {name}=");
        assert_eq!(
            warnings(&format!("{section}{key}\n"), ""),
            [wanted],
            "{key}"
        );
        let harmless = format!("{section}{harmless}\n");
        assert_eq!(warnings(&harmless, ""), [""; 0], "{harmless}");
        let reset = format!("[Service]\n{harmless}");
        assert_eq!(
            warnings(&format!("{section}{key}\n"), &reset),
            [""; 0],
            "{key}"
        );
    }
    assert_eq!(
        warnings(
            "UnsetEnvironment=A\nNonBlocking=1\nMemoryMax=1G\nPrivateTmp=1\n",
            ""
        ),
        ["without effect in a box: UnsetEnvironment=, NonBlocking="]
    );
}

#[test]
fn what_supervisord_would_do_besides_is_named() {
    let parsed = programs(
        "[supervisord]\nlogfile=/x\nminfds=9\nlogfil=/x\n[rpcinterface:supervisor]\nx=y\n[rpcinterface:other]\nx=y\n\
         [group:g]\nprograms=a\nprioriti=1\n[program:a]\ncommand=/a\nstdout_capture_maxbytes=1MB\nstderr_capture_maxbytes=1MB\n\
         [eventlistener:l]\ncommand=/l\nevents=TICK_60,process_communication_stdout,EVENT\n",
    )
    .unwrap();
    let file = "/etc/supervisor/supervisord.conf";
    let told = |line: &str| line.replace(file, "F");
    let warnings: Vec<String> = parsed.warnings.iter().map(|w| told(w)).collect();
    assert_eq!(
        warnings,
        [
            "F: [supervisord]: unknown key `logfil`",
            "F: [group:g]: unknown key `prioriti`"
        ]
    );
    let not_applied: Vec<String> = parsed.not_applied.iter().map(|w| told(w)).collect();
    assert_eq!(
        not_applied,
        [
            "F: [supervisord]: without effect in a box: minfds",
            "F: [rpcinterface:other] is Python code, and is not called",
            "F: [program:a]: without effect in a box: stdout_capture_maxbytes, stderr_capture_maxbytes",
            "F: [eventlistener:l]: without effect in a box: events PROCESS_COMMUNICATION (no output is captured)",
        ]
    );
    for (events, name) in [
        ("TICK_7", "TICK_7"),
        ("process_stat", "PROCESS_STAT"),
        ("EVENTS", "EVENTS"),
    ] {
        let text = format!("[eventlistener:l]\ncommand=/l\nevents=TICK_5,{events}\n");
        let error = programs(&text).unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("there is no event {name}")),
            "{error}"
        );
    }
}

#[test]
fn listeners_and_fastcgi_programs_are_programs_with_a_role() {
    let parsed = programs(
        "[supervisord]\nenvironment=FOO=bar\n[eventlistener:x]\ncommand=/x %(ENV_FOO)s\nevents=TICK_5,process_state\n\
         [fcgi-program:php]\ncommand=/php\nnumprocs=2\nprocess_name=%(program_name)s_%(process_num)d\nsocket=unix:///run/php.sock\nsocket_mode=0770\nsocket_owner=www\n",
    )
    .unwrap();
    assert_eq!(parsed.warnings, [""; 0]);
    let [x, php, _] = &parsed.value[..] else {
        panic!("{:?}", parsed.value)
    };
    let program = x.program.as_ref().unwrap();
    assert_eq!(program.command, "/x bar");
    assert_eq!(program.priority, -1);
    let listener = program.listener.as_ref().unwrap();
    assert_eq!(listener.events, ["TICK_5", "PROCESS_STATE"]);
    assert_eq!(php.name, "php:php_0");
    let socket = php.program.as_ref().unwrap().socket.as_ref().unwrap();
    assert_eq!(
        socket.address,
        services::FastCgiAddress::Unix {
            path: "/run/php.sock".to_owned(),
            mode: 0o770,
            owner: Some("www".to_owned())
        }
    );
    for text in [
        "[eventlistener:x]\ncommand=y\n",
        "[eventlistener:x]\ncommand=y\nevents=TICK_5\nredirect_stderr=true\n",
        "[fcgi-program:x]\ncommand=y\n",
        "[fcgi-program:x]\ncommand=y\nsocket=tcp://example.org:1\n",
    ] {
        assert!(programs(text).is_err(), "{text}");
    }
}

#[test]
fn program_errors_name_file_section_and_key() {
    let error = programs("[program:x]\ncommand=/bin/x %(ENV_NOPE)s\n")
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "/etc/supervisor/supervisord.conf: [program:x] command: `%(ENV_NOPE)s` needs the environment variable NOPE, which is not set"
    );
    for text in [
        "[program:x]\n",
        "[program:x]\ncommand=a\nnumprocs=2\n",
        "[program:x]\ncommand=a\nstopsignal=NO\n",
        "[program:x]\ncommand='\n",
        // Found by the fuzz target: as with supervisord, whose own message names the letter.
        "[program:]\ncommand=a\n",
        "[program:x y]\ncommand=a\n",
        "[program:x]\ncommand=a\nprocess_name=x:y\n",
        "[program:x]\ncommand=a\nprocess_name=x\u{1b}[2J\n",
        "[program:x]\ncommand=a\n[group:a/b]\nprograms=x\n",
    ] {
        assert!(programs(text).is_err(), "{text}");
    }
    assert_eq!(
        programs("[program: x ]\ncommand=a\n").unwrap().value[0].name,
        "x"
    );
}

#[test]
fn debians_supervisord_conf() {
    let text = "[unix_http_server]\nfile=/var/run/supervisor.sock   ; (the path)\n\n[supervisord]\nlogfile=/var/log/supervisor/supervisord.log ; (main)\n\n[include]\nfiles = /etc/supervisor/conf.d/*.conf more/*.ini\n";
    let file = supervisord::File {
        path: "/etc/supervisor/supervisord.conf",
        text,
    };
    assert_eq!(
        supervisord::includes(file, &BTreeMap::new()).unwrap(),
        [
            "/etc/supervisor/conf.d/*.conf",
            "/etc/supervisor/more/*.ini"
        ]
    );
    assert_eq!(programs(text).unwrap().warnings, [""; 0]);
}

proptest! {
    #[test]
    fn no_unit_makes_the_parser_panic(text in "(?s).{0,300}", key in "[A-Za-z]{3,18}", value in ".{0,60}") {
        let _ = systemd::parse("a@b.service", &[&text]);
        let _ = systemd::parse("x", &[&format!("[Service]\nExecStart=/x\n{key}={value}\nExecStartPre={value}\nLimitNOFILE={value}\nRestartSec={value}\n")]);
        let _ = systemd::environment_file(&text);
    }

    #[test]
    fn no_configuration_makes_the_parser_panic(text in "(?s).{0,300}", value in ".{0,60}") {
        let _ = programs(&text);
        let _ = programs(&format!("[program:{value}]\ncommand={value}\nprocess_name={value}%(process_num)d\nnumprocs={value}\nenvironment={value}\n[group:g]\nprograms={value}\n"));
    }
}
