//! The status page: who may see it, what it shows, and what hostile names and lines become.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Running, TestBox, wait};
use serde_json::{Value, json};

struct Page {
    b: TestBox,
    address: String,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

const HOSTILE: &str =
    "<script>document.title='owned'</script><img src=x onerror=alert(1)> & \"quoted\"";

impl Page {
    fn new() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        let mut b = TestBox::new();
        b.env("TIFFIN_STATUS_PAGE", &address);
        b.contract["product"]["title"] = json!("Acme <b>Reports</b>");
        b.put(
            "settings",
            "TITLE",
            json!({"variable": "title", "type": "string"}),
        );
        b.put(
            "settings",
            "PASSWORD",
            json!({"variable": "password", "type": "secret"}),
        );
        b.env("TITLE", HOSTILE).env("PASSWORD", "hunter2hunter2");
        b.file("/line", &format!("{HOSTILE} hunter2hunter2\n"));
        b.script("web", "cat ROOT/line; echo told; exec sleep 1000");
        b.script(
            "worker",
            "[ -e ROOT/once ] && exec sleep 1000; touch ROOT/once; sleep 0.2; exit 3",
        );
        b.unit(
            "web.service",
            "[Unit]\nDescription=Answers <i>requests</i>\n[Service]\nExecStart=ROOT/bin/web\n",
        );
        b.unit(
            "worker.service",
            "[Service]\nExecStart=ROOT/bin/worker\nRestart=always\n",
        );
        Page { b, address }
    }

    fn start(&self) -> Running {
        let running = self.b.start().until(&self.b, "status-page ready");
        self.b.wait_log("told");
        wait("the page", || TcpStream::connect(&self.address).ok());
        running
    }

    fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    fn get(&self, path: &str, more: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: box\r\n{more}\r\n"))
    }

    fn token(&self) -> String {
        let link = self.b.run(&["status-page"]).exits(0).out.clone();
        link.trim().rsplit('/').next().unwrap().to_owned()
    }

    fn seen(&self, path: &str) -> Answer {
        self.get(
            path,
            &format!("Cookie: a=b; tiffin-status-page={}\r\n", self.token()),
        )
    }
}

#[test]
fn nobody_sees_it_without_the_token() {
    let page = Page::new();
    let running = page.start();
    let token = page.token();
    assert_eq!(token.len(), 40);
    for path in [
        "/",
        "/logs",
        "/logs/web",
        "/settings",
        "/status",
        "/nothing",
    ] {
        for more in [
            "",
            "Cookie: tiffin-status-page=\r\n",
            "Cookie: tiffin-status-page=x\r\n",
            "Authorization: Bearer \r\n",
        ] {
            let answer = page.get(path, more);
            assert_eq!(answer.status, 401, "{path} {more}");
            assert!(
                !answer.body.contains("worker") && !answer.body.contains("Acme"),
                "{}",
                answer.body
            );
        }
    }
    assert_eq!(page.get("/open/wrong", "").status, 401);
    let opened = page.get(&format!("/open/{token}"), "");
    assert!(
        opened.head.contains("HttpOnly; SameSite=Strict"),
        "{}",
        opened.head
    );
    // The page that the token leads to is another one, whose address does not hold it.
    assert!(opened.body.contains("url=/") && !opened.body.contains(&token));
    assert_eq!(page.seen("/").status, 200);
    assert_eq!(
        page.get("/", &format!("Authorization: Bearer {token}\r\n"))
            .status,
        200
    );
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(page.b.path("/data/.tiffin/status-page-token"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    running.stop().exits(0);
    // It is kept.
    let running = page.start();
    assert_eq!(page.token(), token);
    running.stop().exits(0);
}

#[test]
fn it_shows_how_the_box_is_and_no_markup_of_others() {
    let page = Page::new();
    let running = page.start();
    // Not in its first life.
    wait("the restart", || {
        let out = page.b.run(&["status"]).out;
        let mut lines = out.lines();
        lines
            .any(|line| {
                line.starts_with("worker") && line.contains(" ready ") && line.contains("code 3")
            })
            .then_some(())
    });
    let services = page.seen("/");
    for wanted in [
        "worker",
        "exited with code 3",
        "status-page",
        "Answers &lt;i&gt;requests&lt;/i&gt;",
        "disk /data",
    ] {
        assert!(
            services.body.contains(wanted),
            "{wanted}: {}",
            services.body
        );
    }
    let settings = page.seen("/settings").body;
    assert!(
        settings.contains("environment variable TITLE"),
        "{settings}"
    );
    let logs = page.seen("/logs/web").body;
    assert!(logs.contains("told"), "{logs}");
    assert!(page.seen("/logs/tiffin").body.contains("settings given"));
    assert_eq!(page.seen("/logs/nobody").status, 404);
    for body in [&services.body, &settings, &logs] {
        assert!(!body.contains("hunter2"), "{body}");
        assert!(
            !body.contains("<img") && !body.contains("<script>") && !body.contains("<b>Reports"),
            "{body}"
        );
    }
    assert!(
        services
            .head
            .contains("Content-Security-Policy: default-src 'none'")
    );
    assert!(services.head.contains("Cache-Control: no-store"));
    let status: Value = serde_json::from_str(&page.seen("/status").body).unwrap();
    let same: Value = serde_json::from_str(&page.b.run(&["status", "--json"]).out).unwrap();
    let names = |value: &Value| -> Vec<String> {
        value["services"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["name"].to_string())
            .collect()
    };
    assert_eq!(names(&status), names(&same));
    running.stop().exits(0);
}

/// The value of a line of "This box".
fn fact(body: &str, name: &str) -> String {
    let (_, rest) = body
        .split_once(&format!("<dt>{name}</dt><dd>"))
        .unwrap_or_else(|| panic!("no {name} in {body}"));
    rest.split_once("</dd>").unwrap().0.to_owned()
}

/// The states that the page's history of a service has, the newest first.
fn history(body: &str, service: &str) -> Vec<String> {
    let Some((_, rest)) = body.split_once(&format!("<details id=\"h-{service}\">")) else {
        return Vec::new();
    };
    let (list, _) = rest.split_once("</ol>").unwrap();
    let items = list.split("</time> ").skip(1);
    items
        .map(|item| item.split('<').next().unwrap().to_owned())
        .collect()
}

#[test]
fn it_shows_quick_restarts_certificates_backups_and_whose_data_it_is() {
    let mut page = Page::new();
    page.b.env("TIFFIN_BACKUP_SCHEDULE", "*:*:*");
    page.b.env("TIFFIN_BACKUP_KEEP", "2");
    for (name, kind) in [("CERT", "certificate"), ("KEY", "key")] {
        let variable = name.to_lowercase();
        let setting = json!({"variable": variable, "type": kind});
        page.b.put("settings", name, setting);
        page.b.put("variables", &variable, json!(""));
    }
    let web = json!({"certificate": "CERT", "key": "KEY", "names": "portal.test"});
    page.b.put("certificates", "web", web);
    let running = page.start();
    wait("a restart of its own", || {
        let states = history(&page.seen("/").body, "worker");
        (states.len() > 1).then_some(())
    });
    let before = history(&page.seen("/").body, "web").len();
    // Quicker than anybody looks: in the same state before and after.
    page.b.run(&["restart", "web"]).exits(0);
    let body = page.seen("/").body;
    let states = history(&body, "web");
    assert!(states.len() >= 2 && states.len() > before, "{body}");
    assert!(states.iter().all(|state| state == "ready"), "{states:?}");
    // And no change is none.
    assert_eq!(history(&page.seen("/").body, "web"), states);

    let backups = wait("two backups", || {
        let kept = fact(&page.seen("/").body, "Kept backups");
        (kept.split("<br>").count() == 2).then_some(kept)
    });
    let mut times = backups.split("<br>").map(|line| {
        assert!(line.starts_with("/data/backups/test-v1-20"), "{backups}");
        assert!(line.ends_with("K)"), "{backups}");
        line.to_owned()
    });
    assert!(times.next() > times.next(), "the newest first: {backups}");
    let body = page.seen("/").body;
    let last = fact(&body, "Scheduled backups");
    assert!(
        last.starts_with("last good: 20") && last.contains("/data/backups/test-v1-"),
        "{last}"
    );
    assert_eq!(fact(&body, "Data written by"), "v1");
    assert!(body.contains("certificate web"), "{body}");
    running.stop().exits(0);
}

#[test]
fn hostile_clients_hold_up_neither_the_page_nor_the_box() {
    let page = Page::new();
    let running = page.start();
    let token = page.token();
    assert_eq!(page.send("POST / HTTP/1.1\r\n\r\n").status, 405);
    assert_eq!(
        page.send(&format!(
            "GET / HTTP/1.1\r\nX: {}\r\n\r\n",
            "x".repeat(40_000)
        ))
        .status,
        400
    );
    assert_eq!(
        page.get(
            "/../../etc/passwd",
            &format!("Authorization: Bearer {token}\r\n")
        )
        .status,
        404
    );
    // As many as are served at once say nothing; the box answers all the same, and the page
    // once their time is over.
    let silent: Vec<_> = (0..40)
        .map(|_| TcpStream::connect(&page.address).unwrap())
        .collect();
    let begun = Instant::now();
    page.b.run(&["status"]).exits(0);
    assert!(begun.elapsed() < Duration::from_secs(3));
    wait("the page", || {
        let mut stream = TcpStream::connect(&page.address).ok()?;
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.starts_with("HTTP/1.1 401").then_some(())
    });
    drop(silent);
    running.stop().exits(0);
}

#[test]
fn a_port_that_cannot_be_had_is_an_error_of_the_start_and_off_is_off() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut page = Page::new();
    page.b
        .environment
        .retain(|(name, _)| name != "TIFFIN_STATUS_PAGE");
    page.b
        .run(&["status-page"])
        .exits(1)
        .says("the status page is off");
    page.b.env(
        "TIFFIN_STATUS_PAGE",
        &taken.local_addr().unwrap().to_string(),
    );
    page.b.run(&["start"]).exits(73).says("TIFFIN_STATUS_PAGE");
    page.b
        .environment
        .retain(|(name, _)| name != "TIFFIN_STATUS_PAGE");
    page.b.env("TIFFIN_STATUS_PAGE", "9001");
    page.b
        .run(&["check"])
        .exits(78)
        .says("an IP address and a port");
}

/// Red, green and blue in the upper left corner. Of a PNG's first pixel every filter leaves what
/// it was.
fn first_pixel(png: &[u8]) -> [u8; 3] {
    let (mut at, mut compressed) = (8, Vec::new());
    while at < png.len() {
        let length = u32::from_be_bytes(png[at..at + 4].try_into().unwrap()) as usize;
        let data = &png[at + 8..at + 8 + length];
        match &png[at + 4..at + 8] {
            // 8 bits each, with or without a fourth channel.
            b"IHDR" => assert!(data[8] == 8 && matches!(data[9], 2 | 6), "{data:?}"),
            b"IDAT" => compressed.extend_from_slice(data),
            _ => {}
        }
        at += length + 12;
    }
    let mut head = [0; 4];
    let mut reader = flate2::read::ZlibDecoder::new(&compressed[..]);
    reader.read_exact(&mut head).unwrap();
    [head[1], head[2], head[3]]
}

/// Chromium, as people have it: no resource from elsewhere, nothing that the policy refuses,
/// and pictures to look at under `target/status-page`.
#[test]
fn a_browser_shows_it_in_dark_light_and_narrow() {
    let chromium = Path::new("/usr/bin/chromium");
    if !chromium.exists() {
        assert!(
            std::env::var_os("CI").is_none(),
            "chromium is missing: make setup-test"
        );
        eprintln!("skipped: there is no /usr/bin/chromium");
        return;
    }
    let page = Page::new();
    let running = page.start();
    // Not in its first life.
    wait("the restart", || {
        let out = page.b.run(&["status"]).out;
        let mut lines = out.lines();
        lines
            .any(|line| {
                line.starts_with("worker") && line.contains(" ready ") && line.contains("code 3")
            })
            .then_some(())
    });
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../status-page");
    std::fs::create_dir_all(&pictures).unwrap();
    let link = page
        .b
        .run(&["status-page"])
        .out
        .trim()
        .replace("localhost", "127.0.0.1");
    let profile = tempfile::tempdir().unwrap();
    let browse = |more: &[&str], url: &str| {
        let mut command = Command::new("timeout");
        command.args([
            "60",
            "/usr/bin/chromium",
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-dev-shm-usage",
            "--enable-logging=stderr",
            "--virtual-time-budget=4000",
        ]);
        command
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(more)
            .arg(url);
        let out = command.output().unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(
            !said.contains("Content Security Policy") && !said.contains("Refused to"),
            "{said}"
        );
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    // The token's page leads on to the page itself, and the cookie lasts.
    let first = browse(&["--dump-dom"], &link);
    assert!(first.contains("Acme &lt;b&gt;Reports&lt;/b&gt;"), "{first}");
    let base = format!("http://{}", page.address);
    let logs = browse(&["--dump-dom"], &format!("{base}/logs/web"));
    assert!(
        logs.contains("&lt;script&gt;document.title") && !logs.contains("<title>owned"),
        "{logs}"
    );
    for (name, path, size, dark) in [
        ("services-light", "/", "1280,1100", false),
        ("services-dark", "/", "1280,1100", true),
        ("services-narrow", "/", "400,1600", false),
        ("settings-dark", "/settings", "1280,500", true),
        ("logs-light", "/logs", "1280,600", false),
    ] {
        let file = pictures.join(format!("{name}.png"));
        let _ = std::fs::remove_file(&file);
        let mut more = vec![
            format!("--screenshot={}", file.display()),
            format!("--window-size={size}"),
        ];
        if dark {
            more.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        browse(&more, &format!("{base}{path}"));
        let bytes = std::fs::read(&file).unwrap();
        assert!(
            bytes.starts_with(b"\x89PNG") && bytes.len() > 5000,
            "{}",
            file.display()
        );
        let corner = first_pixel(&bytes);
        let is_right = |value: &u8| match dark {
            true => *value < 80,
            false => *value > 200,
        };
        assert!(corner.iter().all(is_right), "{name}: {corner:?}");
    }
    running.stop().exits(0);
}
