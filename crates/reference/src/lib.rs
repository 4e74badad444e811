//! Image references, by the grammar of the distribution project (`reference/regexp.go`):
//! `[registry[:port]/]path[:tag][@digest]`.

use std::fmt;
use std::str::FromStr;

/// The longest name, registry included (distribution, `NameTotalLengthMax`).
const MAX_NAME: usize = 255;

/// A checked image reference, such as `registry.acme.example/acme/backend:v1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: Option<String>,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use `{text}` as an image name: {reason}")]
pub struct InvalidReference {
    pub text: String,
    pub reason: &'static str,
}

impl Reference {
    /// From its parts. The path's first component may not look like a registry.
    pub fn new(
        registry: Option<&str>,
        path: &str,
        tag: &str,
    ) -> Result<Reference, InvalidReference> {
        let text = match registry {
            Some(registry) => format!("{registry}/{path}:{tag}"),
            None => format!("{path}:{tag}"),
        };
        let fail = |reason| InvalidReference {
            text: text.clone(),
            reason,
        };
        if let Some(registry) = registry {
            Reference::check_registry(registry).map_err(fail)?;
        }
        Reference::check_path(path).map_err(fail)?;
        Reference::check_tag(tag).map_err(fail)?;
        let reference: Reference = text.parse()?;
        if reference.path != path || reference.registry.as_deref() != registry {
            return Err(fail(
                "a registry needs a dot or a port, and a path must not begin with one",
            ));
        }
        Ok(reference)
    }

    pub fn registry(&self) -> Option<&str> {
        self.registry.as_deref()
    }

    /// The name without registry, tag and digest.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// `sha256:…`.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// With everything that engines add when it is missing: `docker.io/library/redis:latest`.
    pub fn fully_qualified(&self) -> String {
        let path = match (&self.registry, self.path.contains('/')) {
            (None, false) => format!("docker.io/library/{}", self.path),
            (None, true) => format!("docker.io/{}", self.path),
            (Some(registry), false) if registry == "docker.io" => {
                format!("docker.io/library/{}", self.path)
            }
            (Some(registry), _) => format!("{registry}/{}", self.path),
        };
        match (&self.tag, &self.digest) {
            (Some(tag), _) => format!("{path}:{tag}"),
            (None, Some(digest)) => format!("{path}@{digest}"),
            (None, None) => format!("{path}:latest"),
        }
    }

    /// Checks a name without registry and tag: lower-case components between slashes.
    pub fn check_path(path: &str) -> Result<(), &'static str> {
        if path.is_empty() {
            return Err("it is empty");
        }
        if path.len() > MAX_NAME {
            return Err("it is longer than 255 characters");
        }
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err("names are lower-case");
        }
        if path.split('/').all(component) {
            Ok(())
        } else {
            Err(
                "between slashes stand lower-case letters and digits, with `.`, `_`, `__` or `-` inside only",
            )
        }
    }

    /// Checks `host` or `host:port`.
    pub fn check_registry(registry: &str) -> Result<(), &'static str> {
        const FORM: &str = "a registry is a host name with an optional port, without `https://`";
        if registry.contains('/') {
            return Err(FORM);
        }
        let (host, port) = match registry.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (registry, None),
        };
        if let Some(port) = port
            && !(port.bytes().all(|byte| byte.is_ascii_digit())
                && port.parse::<u16>().is_ok_and(|port| port > 0))
        {
            return Err("the port of a registry is a number from 1 to 65535");
        }
        let address = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let valid = match address {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.split('.').all(|part| {
                let bytes = part.as_bytes();
                !part.is_empty()
                    && bytes
                        .iter()
                        .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
                    && bytes[0] != b'-'
                    && bytes[bytes.len() - 1] != b'-'
            }),
        };
        if valid { Ok(()) } else { Err(FORM) }
    }

    /// Checks a tag, such as a version: at most 128 of `A-Z a-z 0-9 _ . -`.
    pub fn check_tag(tag: &str) -> Result<(), &'static str> {
        let first = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let rest = |byte: u8| first(byte) || matches!(byte, b'.' | b'-');
        match tag.as_bytes() {
            [] => Err("the tag is empty"),
            [..] if tag.len() > 128 => Err("the tag is longer than 128 characters"),
            [start, others @ ..] if first(*start) && others.iter().all(|byte| rest(*byte)) => {
                Ok(())
            }
            _ => Err(
                "a tag is made of letters, digits, `_`, `.` and `-`, and begins with none of the last two",
            ),
        }
    }
}

/// `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`
fn component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    alphanumeric(*first)
        && alphanumeric(*last)
        && bytes.split(|byte| alphanumeric(*byte)).all(|between| {
            matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|byte| *byte == b'-')
        })
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Reference, InvalidReference> {
        let fail = |reason| InvalidReference {
            text: text.to_owned(),
            reason,
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        if let Some(digest) = digest {
            let hex = digest.strip_prefix("sha256:").unwrap_or_default();
            if hex.len() != 64
                || !hex
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            {
                return Err(fail("a digest is `sha256:` and 64 hexadecimal digits"));
            }
        }
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag {
            Reference::check_tag(tag).map_err(fail)?;
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if first == "localhost" || first.contains(['.', ':']) => {
                (Some(first), path)
            }
            _ => (None, name),
        };
        if name.len() > MAX_NAME {
            return Err(fail("it is longer than 255 characters"));
        }
        if let Some(registry) = registry {
            Reference::check_registry(registry).map_err(fail)?;
        }
        Reference::check_path(path).map_err(fail)?;
        Ok(Reference {
            registry: registry.map(str::to_owned),
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }
}

impl fmt::Display for Reference {
    /// As it was given.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        f.write_str(&self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}
