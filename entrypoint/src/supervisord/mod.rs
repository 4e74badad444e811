//! supervisord's protocol: XML-RPC over HTTP, its methods, faults and words. Bytes in,
//! bytes out; who serves it is `supervise::rpc`.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable
    )
)]

pub mod faults;
pub mod http;
pub mod methods;
pub mod words;
pub mod xmlrpc;

/// `{SHA}` and 40 digits, or the password itself. Takes as long for a wrong one.
pub fn login_matches(wanted: &(String, String), authorization: Option<&str>) -> bool {
    let Some((user, password)) = authorization.and_then(basic) else {
        return false;
    };
    let password = match wanted.1.strip_prefix("{SHA}") {
        Some(_) => {
            use sha1::Digest as _;
            let digest = sha1::Sha1::digest(password.as_bytes());
            let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{{SHA}}{digits}")
        }
        None => password,
    };
    equal(&wanted.0, &user) & equal(&wanted.1, &password)
}

fn equal(a: &str, b: &str) -> bool {
    a.len() == b.len()
        && a.bytes()
            .zip(b.bytes())
            .fold(0, |sum, (a, b)| sum | (a ^ b))
            == 0
}

fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, text) = header.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(xmlrpc::base64(text)?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_plain_and_hashed() {
        let is = |password: &str, header: &str| {
            login_matches(&("user".to_owned(), password.to_owned()), Some(header))
        };
        // user:pass and user:nope
        assert!(is("pass", "Basic dXNlcjpwYXNz"));
        assert!(is(
            "{SHA}9d4e1e23bd5b727046a9e3b4b7db57bd8d6ee684",
            "basic dXNlcjpwYXNz"
        ));
        for header in [
            "Basic dXNlcjpub3Bl",
            "Basic",
            "Basic !",
            "Digest dXNlcjpwYXNz",
            "",
        ] {
            assert!(!is("pass", header), "{header}");
        }
        assert!(!login_matches(&("user".to_owned(), String::new()), None));
    }
}
