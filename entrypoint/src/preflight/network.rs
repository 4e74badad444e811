//! Whether what settings name can be found and reached.
//!
//! The binary has no resolver: `/etc/hosts` is read here, and for other names the box's
//! own `getent` is asked, which goes by all that the box's programs go by.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use contract::{Contract, Kind, Setting};

use super::Check;
use crate::engine::Engine;
use crate::root::Root;
use crate::settings::{Resolved, is_secret, text_of};

/// For one name, and for one connection.
const LOOKUP: Duration = Duration::from_secs(4);
const CONNECT: Duration = Duration::from_secs(3);
/// Each is a thread.
const MOST: usize = 64;
/// Addresses of a name that are tried.
const ADDRESSES: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    setting: String,
    host: String,
    port: Option<u16>,
    /// A web address may be the box's own, seen from outside.
    web: bool,
    /// The name of SRV records, which the box's `getent` does not read.
    srv: bool,
}

/// All at the same time.
pub fn checks(
    contract: &Contract,
    root: &Root,
    resolved: &Resolved,
    engine: &Engine<'_>,
) -> Vec<Check> {
    let value = |name: &str| -> Option<String> {
        let setting = contract.settings.get(name)?;
        let text = match resolved.values.get(name) {
            Some((value, _)) => text_of(value),
            None if is_secret(setting) || resolved.to_generate.contains_key(name) => return None,
            None => engine
                .text(&format!("{{{{ {} }}}}", setting.variable))
                .ok()?,
        };
        (!text.is_empty()).then_some(text)
    };
    let mut targets = targets(contract, &value);
    targets.truncate(MOST);
    let hosts = root.read("/etc/hosts").ok().flatten().unwrap_or_default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = targets
            .iter()
            .map(|target| scope.spawn(|| check(target, &hosts)))
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect()
    })
}

fn targets(contract: &Contract, value: &dyn Fn(&str) -> Option<String>) -> Vec<Target> {
    let mut targets = Vec::new();
    for (name, setting) in &contract.settings {
        let Some(text) = value(name) else { continue };
        match setting.kind {
            Kind::Host => targets.push(Target {
                setting: name.clone(),
                host: bare(&text),
                port: port_of(contract, name, setting).and_then(|port| value(&port)?.parse().ok()),
                web: false,
                srv: false,
            }),
            // The address of a database is a secret where it holds a password.
            Kind::Url | Kind::Secret => targets.extend(of_url(name, &text)),
            _ => {}
        }
    }
    // The bundled servers need not run now.
    targets.retain(|target| !is_local(&target.host));
    targets.dedup();
    targets
}

/// The setting of the port that goes with a host: `DB_PORT` with `DB_HOST` or `DB_SERVER`.
fn port_of(contract: &Contract, name: &str, setting: &Setting) -> Option<String> {
    let stem = |text: &str| {
        let ends = ["_host", "_server", "_hostname", "_address"];
        let lower = text.to_ascii_lowercase();
        ends.iter()
            .find_map(|end| lower.strip_suffix(end).map(str::to_owned))
    };
    let wanted: Vec<String> = [name, &setting.variable]
        .into_iter()
        .filter_map(stem)
        .map(|stem| stem + "_port")
        .collect();
    let mut ports = contract
        .settings
        .iter()
        .filter(|(_, other)| other.kind == Kind::Port);
    let found = ports.find(|(name, other)| {
        wanted.contains(&name.to_ascii_lowercase())
            || wanted.contains(&other.variable.to_ascii_lowercase())
    });
    found.map(|(name, _)| name.clone())
}

/// `mongodb://user:password@a:1,b:2/x` names two. What is no URL names none.
fn of_url(setting: &str, text: &str) -> Vec<Target> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Vec::new();
    };
    let scheme = scheme.to_ascii_lowercase();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // A password with a slash that is not escaped: where the host begins nobody can say, and
    // what is taken for it is shown.
    if rest[authority.len()..].contains('@') {
        return Vec::new();
    }
    let hosts = authority
        .rsplit_once('@')
        .map_or(authority, |(_, hosts)| hosts);
    let usual = match scheme.as_str() {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        "mongodb" => Some(27_017),
        "redis" | "rediss" => Some(6379),
        "sentinel" => Some(26_379),
        "postgres" | "postgresql" => Some(5432),
        "mysql" | "mariadb" => Some(3306),
        "amqp" => Some(5672),
        "amqps" => Some(5671),
        "ldap" => Some(389),
        "ldaps" => Some(636),
        "smtp" => Some(25),
        "smtps" => Some(465),
        // Of sockets there is nothing to connect to.
        _ if scheme.contains("unix") => return Vec::new(),
        _ => None,
    };
    let target = |part: &str| {
        let after = part.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = match part[after..].find(':') {
            Some(at) => (
                &part[..after + at],
                Some(part[after + at + 1..].parse().ok()?),
            ),
            None => (part, usual),
        };
        let good = !host.is_empty()
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b))
            && !host.starts_with('-');
        good.then(|| Target {
            setting: setting.to_owned(),
            host: bare(host),
            port,
            web: matches!(scheme.as_str(), "http" | "https" | "ws" | "wss"),
            srv: scheme.ends_with("+srv"),
        })
    };
    hosts.split(',').filter_map(target).collect()
}

fn bare(host: &str) -> String {
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned()
}

fn is_local(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.is_loopback() || address.is_unspecified())
}

fn check(target: &Target, hosts: &str) -> Check {
    let Target {
        setting,
        host,
        port,
        web,
        srv,
    } = target;
    let name = format!("reach {setting}");
    if *srv {
        let found = format!("{host}: DNS has its servers (SRV), which preflight does not look up");
        return Check::ok(&name, found);
    }
    let bad = |found: String, advice: String| match web {
        true => Check::warning(
            &name,
            found,
            format!("{advice}; where it is the box's own address, that is no fault"),
        ),
        false => Check::error(&name, found, advice),
    };
    let addresses = match addresses(host, hosts) {
        Ok(addresses) => addresses,
        Err(Unknown::Unasked(reason)) => {
            return Check::warning(
                &name,
                format!("{host}: {reason}"),
                "check by hand that the name can be found",
            );
        }
        Err(Unknown::No(reason)) => {
            return bad(
                format!("{host}: {reason}"),
                "check the name, and the DNS server that the container has: --dns, or an entry with --add-host".to_owned(),
            );
        }
    };
    let Some(port) = port else {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        return Check::ok(
            &name,
            format!(
                "{host} is {}; no port to try is known",
                addresses.join(", ")
            ),
        );
    };
    match reach(&addresses, *port) {
        Ok((address, took)) => Check::ok(
            &name,
            format!(
                "{host} port {port} answers at {address} after {} ms",
                took.as_millis()
            ),
        ),
        Err(reason) => bad(
            format!("{host} port {port}: {reason}"),
            "check that the server runs, and that firewalls let this container reach it".to_owned(),
        ),
    }
}

fn reach(addresses: &[IpAddr], port: u16) -> Result<(IpAddr, Duration), String> {
    let begun = Instant::now();
    let mut last = "it has no address".to_owned();
    for address in addresses {
        let left = CONNECT.saturating_sub(begun.elapsed());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&SocketAddr::new(*address, port), left) {
            Ok(_) => return Ok((*address, begun.elapsed())),
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                last = format!("{address} does not answer within {} s", CONNECT.as_secs());
            }
            Err(error) => last = format!("{address}: {}", crate::sys::text_of(&error)),
        }
    }
    Err(last)
}

#[derive(Debug, PartialEq, Eq)]
enum Unknown {
    /// There is nobody to ask.
    Unasked(String),
    No(String),
}

fn addresses(host: &str, hosts: &str) -> Result<Vec<IpAddr>, Unknown> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let known: Vec<IpAddr> = hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words
                .any(|word| word.eq_ignore_ascii_case(host))
                .then_some(address)
        })
        .collect();
    match known.is_empty() {
        false => Ok(known),
        true => asked(host),
    }
}

fn asked(host: &str) -> Result<Vec<IpAddr>, Unknown> {
    let mut child = Command::new("getent")
        .args(["ahosts", host])
        .env_clear()
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|_| Unknown::Unasked("the box has no `getent` to look it up with".to_owned()))?;
    let until = Instant::now() + LOOKUP;
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.success(),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Unknown::No(format!(
                    "no DNS server answers within {} s",
                    LOOKUP.as_secs()
                )));
            }
        }
    };
    // Some lines, which fit into the pipe.
    let mut text = String::new();
    if let Some(stdout) = child.stdout.take() {
        let _ = stdout.take(16 << 10).read_to_string(&mut text);
    }
    let mut found: Vec<IpAddr> = text
        .lines()
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect();
    found.dedup();
    found.truncate(ADDRESSES);
    match ended && !found.is_empty() {
        true => Ok(found),
        false => Err(Unknown::No("the name is not known".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::net::TcpListener;

    fn named(
        settings: serde_json::Value,
        values: &[(&str, &str)],
    ) -> Vec<(String, Option<u16>, bool)> {
        let contract: Contract = serde_json::from_value(serde_json::json!({
            "format": contract::FORMAT,
            "product": {"name": "acme/x", "title": "X", "version": "v1"},
            "settings": settings,
        }))
        .unwrap();
        let values: BTreeMap<&str, &str> = values.iter().copied().collect();
        let found = targets(&contract, &|name| {
            values.get(name).map(|text| (*text).to_owned())
        });
        found
            .into_iter()
            .map(|target| (target.host, target.port, target.web))
            .collect()
    }

    #[test]
    fn settings_name_hosts_with_their_ports() {
        let settings = serde_json::json!({
            "MONGODB_HOST": {"variable": "mongodb_host", "type": "host"},
            "MONGODB_PORT": {"variable": "mongodb_port", "type": "port"},
            "MAIL_SERVER": {"variable": "smtp_host", "type": "host"},
            "SMTP": {"variable": "smtp_port", "type": "port"},
            "REDIS_HOST": {"variable": "redis_host", "type": "host"},
            "QUEUE": {"variable": "queue", "type": "secret"},
            "PUBLIC_URL": {"variable": "public_url", "type": "url"},
        });
        let found = named(
            settings,
            &[
                ("MONGODB_HOST", "db.corp.example"),
                ("MONGODB_PORT", "27018"),
                ("MAIL_SERVER", "mail.corp.example"),
                ("SMTP", "587"),
                ("REDIS_HOST", "127.0.0.1"),
                ("QUEUE", "amqp://u:p/w@a.example,[2001:db8::1]:5673/v"),
                ("PUBLIC_URL", "https://portal.example/x"),
            ],
        );
        let wanted = [
            ("mail.corp.example", 587, false),
            ("db.corp.example", 27_018, false),
            ("portal.example", 443, true),
        ];
        let wanted: Vec<_> = wanted
            .map(|(host, port, web)| (host.to_owned(), Some(port), web))
            .into();
        // A password with a slash in it makes no URL of which anything could be said.
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_url_names_each_of_its_hosts() {
        let found = |text| -> Vec<(String, Option<u16>)> {
            of_url("X", text)
                .into_iter()
                .map(|target| (target.host, target.port))
                .collect()
        };
        let one = |host: &str, port| (host.to_owned(), Some(port));
        assert_eq!(
            found("mongodb://u:p%40@a.example:1,b.example,[2001:db8::1]:7/db?x=1"),
            [
                one("a.example", 1),
                one("b.example", 27_017),
                one("2001:db8::1", 7)
            ]
        );
        let sentinels = found("sentinel://:p@a.example,b.example:5000/?master=x&tls=true");
        assert_eq!(
            sentinels,
            [one("a.example", 26_379), one("b.example", 5000)]
        );
        let srv = of_url("X", "mongodb+srv://u:p@cluster.example/db");
        assert!(srv.len() == 1 && srv[0].srv, "{srv:?}");
        let said = format!("{:?}", check(&srv[0], ""));
        assert!(
            said.contains("cluster.example: DNS has its servers"),
            "{said}"
        );
        assert_eq!(found("hunter2"), []);
        assert_eq!(found("redis://-oProxy=1"), []);
    }

    #[test]
    fn who_listens_is_reached_and_who_does_not_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let here = addresses("db.test", "# x\n127.0.0.1 other db.test # ours\n").unwrap();
        assert_eq!(reach(&here, port).unwrap().0, here[0]);
        drop(listener);
        let reason = reach(&here, port).unwrap_err();
        assert_eq!(reason, "127.0.0.1: Connection refused");
        assert!(matches!(
            addresses("nobody.invalid", ""),
            Err(Unknown::No(_))
        ));
    }
}
