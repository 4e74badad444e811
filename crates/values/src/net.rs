//! Hosts, URLs and addresses of mail.

use std::net::{IpAddr, Ipv6Addr};

/// A host name (RFC 1123) or an IP address, an IPv6 one in brackets too.
pub fn is_host(text: &str) -> bool {
    if let Some(inner) = text.strip_prefix('[') {
        return inner
            .strip_suffix(']')
            .is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok());
    }
    if text.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    // 10.0.0.256 is a mistyped address: no top-level domain is a number.
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253
        && !last.bytes().all(|b| b.is_ascii_digit())
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                // Underscores are no host names, but Compose services have them.
                && label
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        })
}

/// `scheme://[user[:password]@]host[:port][,host[:port]…][/…]`, as of RFC 3986; databases
/// have more than one host, sockets have none.
pub fn is_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let scheme_good = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    let letters_good = rest.chars().all(|c| {
        c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}')
    });
    if !scheme_good || !letters_good || !escapes_are_whole(rest) {
        return false;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() {
        return path.len() > 1 && path.starts_with('/');
    }
    let hosts = authority
        .rsplit_once('@')
        .map_or(authority, |(_, hosts)| hosts);
    hosts.split(',').all(is_host_and_port)
}

fn is_host_and_port(text: &str) -> bool {
    let after_brackets = text.rfind(']').map_or(0, |at| at + 1);
    match text[after_brackets..].find(':') {
        Some(at) => {
            let (host, port) = text.split_at(after_brackets + at);
            is_host(host) && port[1..].parse::<u16>().is_ok_and(|port| port > 0)
        }
        None => is_host(text),
    }
}

/// Every `%` is followed by two hexadecimal digits.
fn escapes_are_whole(text: &str) -> bool {
    text.split('%')
        .skip(1)
        .all(|after| after.len() >= 2 && after.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
}

/// `user@host` as SMTP takes it (RFC 5321), without a quoted user or a display name.
pub fn is_email(text: &str) -> bool {
    let Some((user, host)) = text.rsplit_once('@') else {
        return false;
    };
    let atom = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    user.len() <= 64
        && user
            .split('.')
            .all(|part| !part.is_empty() && part.chars().all(atom))
        && !host.starts_with('[')
        && is_host(host)
}
