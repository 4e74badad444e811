//! As much of HTTP/1.1 as supervisord's clients speak: requests with a bounded head and a
//! body of known length, answers whole or in chunks.

/// More than any client sends before the body.
const HEAD_LIMIT: usize = 16 << 10;
pub const BODY_LIMIT: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Decoded, without its query.
    pub path: String,
    pub authorization: Option<String>,
    pub cookie: Option<String>,
    pub keep_alive: bool,
    pub body: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// Not all of it is there yet.
    More,
    /// A request and how many bytes it took.
    Request(Request, usize),
    /// The status to answer with before the connection is closed.
    Refused(u16),
}

pub fn parse(bytes: &[u8]) -> Parsed {
    // supervisorctl's log reader ends its request with an empty line too many.
    let skip = bytes
        .iter()
        .take_while(|b| matches!(b, b'\r' | b'\n'))
        .count();
    let rest = &bytes[skip..];
    let Some((head, from)) = head(rest) else {
        return if rest.len() > HEAD_LIMIT || skip > HEAD_LIMIT {
            Parsed::Refused(400)
        } else {
            Parsed::More
        };
    };
    let Ok(head) = std::str::from_utf8(&rest[..head]) else {
        return Parsed::Refused(400);
    };
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split_ascii_whitespace();
    let (Some(method), Some(target), version, None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Parsed::Refused(400);
    };
    let mut keep_alive = match version {
        Some("HTTP/1.1") => true,
        Some("HTTP/1.0") | None => false,
        Some(_) => return Parsed::Refused(400),
    };
    let mut length = 0_usize;
    let mut authorization = None;
    let mut cookie = None;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            return Parsed::Refused(400);
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => match value.parse() {
                Ok(number) if number <= BODY_LIMIT => length = number,
                Ok(_) => return Parsed::Refused(413),
                Err(_) => return Parsed::Refused(400),
            },
            "transfer-encoding" => return Parsed::Refused(411),
            "connection" if value.eq_ignore_ascii_case("close") => keep_alive = false,
            "connection" if value.eq_ignore_ascii_case("keep-alive") => keep_alive = true,
            "authorization" => authorization = Some(value.to_owned()),
            "cookie" => cookie = Some(value.to_owned()),
            _ => {}
        }
    }
    let end = from + length;
    if rest.len() < end {
        return Parsed::More;
    }
    let path = target.split(['?', '#', ';']).next().unwrap_or_default();
    Parsed::Request(
        Request {
            method: method.to_owned(),
            path: unquote(path),
            authorization,
            cookie,
            keep_alive,
            body: rest[from..end].to_vec(),
        },
        skip + end,
    )
}

/// Where the head ends and where the body begins.
fn head(bytes: &[u8]) -> Option<(usize, usize)> {
    let window = &bytes[..bytes.len().min(HEAD_LIMIT)];
    let mut at = 0;
    while let Some(found) = window[at..].iter().position(|b| *b == b'\n') {
        let end = at + found;
        match &window[end + 1..] {
            [b'\r', b'\n', ..] => return Some((end, end + 3)),
            [b'\n', ..] => return Some((end, end + 2)),
            _ => at = end + 1,
        }
    }
    None
}

/// `%C3%B6`; what is no UTF-8 afterwards names nothing that exists.
fn unquote(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let digits = (byte == b'%').then(|| {
            let digit = |b: Option<u8>| char::from(b?).to_digit(16);
            Some(digit(ahead.next())? * 16 + digit(ahead.next())?)
        });
        match digits.flatten().and_then(|code| u8::try_from(code).ok()) {
            Some(code) => {
                out.push(code);
                bytes = ahead;
            }
            None => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        411 => "Length Required",
        413 => "Request Entity Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Bad Request",
    }
}

pub fn answer(status: u16, content_type: &str, body: &[u8], keep_alive: bool) -> Vec<u8> {
    let more = match status {
        401 => "WWW-Authenticate: Basic realm=\"default\"\r\n",
        405 => "Allow: GET, HEAD\r\n",
        _ => "",
    };
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let mut out = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{more}Connection: {connection}\r\n\r\n",
        reason(status),
        body.len()
    )
    .into_bytes();
    out.extend_from_slice(body);
    out
}

pub fn refuse(status: u16) -> Vec<u8> {
    let text = format!("{status} {}\n", reason(status));
    answer(status, "text/plain", text.as_bytes(), false)
}

/// The head of an answer whose end is not known; its parts are [`chunk`]s.
pub const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain;charset=utf-8\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";

pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut out = format!("{:x}\r\n", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CALL: &[u8] = b"POST /RPC2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nAuthorization: Basic eA==\r\n\r\nabcGET";

    #[test]
    fn a_request_is_known_when_it_is_whole() {
        for end in 0..CALL.len() - 3 {
            assert_eq!(parse(&CALL[..end]), Parsed::More, "{end}");
        }
        let Parsed::Request(request, used) = parse(CALL) else {
            panic!("{:?}", parse(CALL))
        };
        assert_eq!(used, CALL.len() - 3);
        assert_eq!((request.path.as_str(), request.keep_alive), ("/RPC2", true));
        assert_eq!(request.body, b"abc");
        assert_eq!(request.authorization.as_deref(), Some("Basic eA=="));
    }

    #[test]
    fn names_are_decoded_and_the_query_is_dropped() {
        let Parsed::Request(request, _) =
            parse(b"\r\nGET /logtail/test_%C3%B6%/stdout?x HTTP/1.0\n\n")
        else {
            panic!()
        };
        assert_eq!(request.path, "/logtail/test_\u{f6}%/stdout");
        assert!(!request.keep_alive);
    }

    #[test]
    fn what_is_too_large_or_broken_is_refused_before_it_is_kept() {
        let refused = |text: &[u8], status| assert_eq!(parse(text), Parsed::Refused(status));
        refused(b"POST / HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n", 413);
        refused(b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400);
        refused(
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            411,
        );
        refused(b"POST / HTTP/2\r\n\r\n", 400);
        refused(b"POST\r\n\r\n", 400);
        refused(b"GET / HTTP/1.1\r\nnothing\r\n\r\n", 400);
        refused(&vec![b'a'; HEAD_LIMIT + 1], 400);
        refused(&vec![b'\n'; HEAD_LIMIT + 1], 400);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_and_none_is_read_twice(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Parsed::Request(_, used) = parse(&bytes) {
                prop_assert!(used > 0 && used <= bytes.len());
            }
        }

        #[test]
        fn mangled_requests_too(at in 0..CALL.len(), byte: u8) {
            let mut bytes = CALL.to_vec();
            bytes[at] = byte;
            if let Parsed::Request(_, used) = parse(&bytes) {
                prop_assert!(used <= bytes.len());
            }
        }
    }
}
