//! One registry: where it is, how it is spoken to, and what is tried again.

use std::collections::HashMap;
use std::fs;
use std::sync::Mutex;
use std::thread::sleep;
use std::time::Duration;

use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{StatusCode, Url, redirect};
use serde::Deserialize;

use super::auth::{self, Challenge, Credentials};
use super::{Fault, Options, Result, is_local};

/// How often a request is made in all, and the pause before the second; it doubles.
pub(super) const ATTEMPTS: u32 = 5;
pub(super) const PAUSE: Duration = Duration::from_millis(300);

/// For connecting, and for each piece of an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// No answer of an authority or a registry's refusal is longer.
const MAX_ANSWER: u64 = 1 << 20;

/// A registry at one address.
pub struct Registry {
    /// `HOST[:PORT]`, for people and for credentials.
    pub(super) host: String,
    base: Url,
    client: Client,
    credentials: Option<Credentials>,
    /// By scope.
    tokens: Mutex<HashMap<String, String>>,
}

impl Registry {
    /// Finds out how `host` is to be spoken to. `host` may begin with `http://`.
    pub(super) fn open(host: &str, options: &Options) -> Result<Registry> {
        let (host, explicit) = match host.strip_prefix("http://") {
            Some(host) => (host, true),
            None => (host, options.plain.iter().any(|plain| plain == host)),
        };
        let client = client(host, options)?;
        let url = |scheme: &str| {
            Url::parse(&format!("{scheme}://{host}/"))
                .map_err(|_| Fault::new(format!("`{host}` is no host")))
        };
        let mut base = url("https")?;
        if explicit {
            base = url("http")?;
        } else if is_local(host) {
            // Docker does the same: a registry of this machine may have no certificate.
            let probe = client.get(base.join("v2/").expect("a path")).send();
            // One whose certificate nobody trusts has one all the same.
            if probe.is_err_and(|error| {
                (error.is_connect() || error.is_request()) && untrusted(&error).is_none()
            }) {
                base = url("http")?;
            }
        }
        Ok(Registry {
            host: host.to_owned(),
            base,
            client,
            credentials: auth::credentials(options.docker_config.as_deref(), host)?,
            tokens: Mutex::default(),
        })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn url(&self, path: &str) -> Url {
        self.base
            .join(path)
            .expect("names and digests were checked")
    }

    /// Where a registry sends one: a full address, or a path on it.
    pub(super) fn location(&self, response: &Response) -> Result<Url> {
        let location = response
            .headers()
            .get("location")
            .and_then(|value| value.to_str().ok())
            .and_then(|text| response.url().join(text).ok())
            .ok_or_else(|| Fault::new(format!("{} does not say where to upload to", self.host)))?;
        // Credentials go with it.
        if location.host_str() != self.base.host_str()
            || (location.scheme() != self.base.scheme() && location.scheme() != "https")
        {
            return Err(Fault::new(format!(
                "{} sends an upload to another host",
                self.host
            )));
        }
        Ok(location)
    }

    /// Makes a request, authorised for `scope` (`repository:acme/backend:pull`), again
    /// after what may pass.
    pub(super) fn send(
        &self,
        scope: &str,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Response> {
        let mut refused = false;
        let mut attempt = 1;
        loop {
            let mut asked = request();
            if let Some(token) = self.authorization(scope) {
                asked = asked.header(AUTHORIZATION, token);
            }
            let pause = match asked.send() {
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && !refused => {
                    // Once: a token may have expired, or there was none.
                    refused = true;
                    self.authorise(&response, scope)?;
                    continue;
                }
                Ok(response) if attempt < ATTEMPTS && may_pass(response.status()) => {
                    asked_pause(&response)
                }
                Ok(response) => return Ok(response),
                Err(error)
                    if attempt < ATTEMPTS
                        && !error.is_redirect()
                        && untrusted(&error).is_none() =>
                {
                    None
                }
                Err(error) => return Err(self.unreachable(error)),
            };
            sleep(pause.unwrap_or(PAUSE * 2u32.pow(attempt - 1)));
            attempt += 1;
        }
    }

    /// The header that was good for `scope` last.
    pub(super) fn authorization(&self, scope: &str) -> Option<String> {
        self.tokens
            .lock()
            .expect("not poisoned")
            .get(scope)
            .cloned()
    }

    /// Without the address: it may hold somebody's signature.
    pub(super) fn unreachable(&self, error: reqwest::Error) -> Fault {
        let error = error.without_url();
        if let Some(why) = untrusted(&error) {
            let reason = format!("the certificate of {} is not trusted: {why}", self.host);
            let hint = format!(
                "name the certificate of its authority in TIFFIN_REGISTRY_CA, or put it into /etc/docker/certs.d/{}/ca.crt",
                self.host
            );
            return Fault {
                elsewhere: true,
                ..Fault::new(reason).hint(hint)
            };
        }
        // The outermost says only that something failed.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        let reason = format!("{} cannot be reached: {cause}", self.host);
        Fault {
            elsewhere: true,
            ..Fault::new(reason)
        }
    }

    fn authorise(&self, response: &Response, scope: &str) -> Result<()> {
        let login = format!("`docker login {}` keeps credentials for it", self.host);
        let asked = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| auth::challenge(value.to_str().ok()?))
            .next()
            .ok_or_else(|| {
                Fault::new(format!(
                    "{} asks for credentials in an unknown way",
                    self.host
                ))
            })?;
        let header = match asked {
            Challenge::Basic => match &self.credentials {
                Some(Credentials::Password { user, password }) => auth::basic(user, password),
                _ => {
                    return Err(
                        Fault::new(format!("{} asks for a password", self.host)).hint(login)
                    );
                }
            },
            Challenge::Bearer { realm, service, .. } => {
                format!(
                    "Bearer {}",
                    self.token(&realm, service.as_deref(), scope, &login)?
                )
            }
        };
        self.tokens
            .lock()
            .expect("not poisoned")
            .insert(scope.to_owned(), header);
        Ok(())
    }

    fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        login: &str,
    ) -> Result<String> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let mut url = Url::parse(realm)
            .map_err(|_| Fault::new(format!("{} names no place for tokens", self.host)))?;
        let plain = url.scheme() == "http" && self.base.scheme() == "http";
        if url.scheme() != "https" && !plain {
            return Err(Fault::new(format!(
                "{} would have the password sent unencrypted",
                self.host
            )));
        }
        let mut pairs: Vec<(&str, &str)> = service.map(|s| ("service", s)).into_iter().collect();
        pairs.extend(scope.split(' ').map(|scope| ("scope", scope)));
        let request = match &self.credentials {
            Some(Credentials::Identity(token)) => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                form.append_pair("grant_type", "refresh_token")
                    .append_pair("client_id", "tiffin")
                    .append_pair("refresh_token", token);
                for (key, value) in pairs {
                    form.append_pair(key, value);
                }
                self.client
                    .post(url)
                    .header("Content-Type", "application/x-www-form-urlencoded")
                    .body(form.finish())
            }
            other => {
                url.query_pairs_mut().extend_pairs(pairs);
                let request = self.client.get(url);
                match other {
                    Some(Credentials::Password { user, password }) => {
                        request.header(AUTHORIZATION, auth::basic(user, password))
                    }
                    _ => request,
                }
            }
        };
        let mut attempt = 1;
        let answer = loop {
            let again = request.try_clone().expect("its body is text");
            match again.send() {
                Ok(answer) if attempt == ATTEMPTS || !may_pass(answer.status()) => break answer,
                Err(error) if attempt == ATTEMPTS || untrusted(&error).is_some() => {
                    return Err(self.unreachable(error));
                }
                _ => sleep(PAUSE * 2u32.pow(attempt - 1)),
            }
            attempt += 1;
        };
        if !answer.status().is_success() {
            let reason = format!("{} refuses the credentials: {}", self.host, answer.status());
            return Err(Fault::new(reason).hint(login));
        }
        let body = limited(answer, MAX_ANSWER).map_err(Fault::new)?;
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| Fault::new(format!("{} gives no token", self.host)))?;
        answer
            .token
            .or(answer.access_token)
            .filter(|token| !token.is_empty())
            .ok_or_else(|| Fault::new(format!("{} gives no token", self.host)))
    }

    /// What a registry says with anything but success.
    pub(super) fn refusal(&self, what: &str, response: Response) -> Fault {
        #[derive(Deserialize)]
        struct Answer {
            errors: Vec<Line>,
        }
        #[derive(Deserialize)]
        struct Line {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let status = response.status();
        let said = limited(response, MAX_ANSWER)
            .ok()
            .and_then(|body| serde_json::from_slice::<Answer>(&body).ok())
            .and_then(|answer| answer.errors.into_iter().next())
            .map(|line| match line.message.is_empty() {
                true => line.code,
                false => line.message,
            })
            // Words of somebody else, shown on a terminal.
            .map(|text| {
                text.chars()
                    .filter(|c| !c.is_control())
                    .take(200)
                    .collect::<String>()
            })
            .filter(|text| !text.is_empty());
        let why = said.map_or_else(
            || status.to_string(),
            |said| format!("{said} ({})", status.as_u16()),
        );
        let fault = match status {
            StatusCode::NOT_FOUND => Fault::new(format!("{} has no {what}: {why}", self.host)),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Fault::new(format!("{} refuses {what}: {why}", self.host)).hint(format!(
                    "`docker login {}` keeps credentials for it",
                    self.host
                ))
            }
            _ => Fault::new(format!("{} fails at {what}: {why}", self.host)),
        };
        Fault {
            elsewhere: true,
            ..fault
        }
    }
}

fn client(host: &str, options: &Options) -> Result<Client> {
    // The one of reqwest's own choice needs cmake.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("tiffin/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE)
        .redirect(redirect::Policy::custom(|attempt| {
            let before = attempt.previous().last().map(|url| url.scheme().to_owned());
            if attempt.previous().len() > 5 {
                attempt.error("too many redirections")
            } else if before.as_deref() == Some("https") && attempt.url().scheme() != "https" {
                attempt.error("it redirects to an unencrypted address")
            } else {
                attempt.follow()
            }
        }));
    let mut files: Vec<std::path::PathBuf> = options.authority.iter().cloned().collect();
    if let Ok(entries) = fs::read_dir(options.certificates.join(host)) {
        let of_host = entries.flatten().map(|entry| entry.path());
        files.extend(of_host.filter(|path| path.extension().is_some_and(|e| e == "crt")));
    }
    if is_local(host) {
        // As Docker: a proxy leads to other machines.
        builder = builder.no_proxy();
    }
    let mut authorities = Vec::new();
    for file in files {
        let wrong = |reason: String| Fault::new(format!("{}: {reason}", file.display()));
        let text = fs::read(&file).map_err(|error| wrong(error.to_string()))?;
        let found = reqwest::Certificate::from_pem_bundle(&text).unwrap_or_default();
        if found.is_empty() {
            return Err(wrong("it holds no certificate".into()));
        }
        authorities.extend(found);
    }
    if !authorities.is_empty() {
        builder = builder.tls_certs_merge(authorities);
    }
    builder
        .build()
        .map_err(|error| Fault::new(format!("no HTTP client: {error}")))
}

/// Why a server's certificate was refused, when that is what failed.
fn untrusted(error: &reqwest::Error) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(rustls::Error::InvalidCertificate(why)) = inner.downcast_ref() {
            return Some(match why {
                rustls::CertificateError::UnknownIssuer => "its authority is unknown".to_owned(),
                other => other.to_string(),
            });
        }
        // An I/O error names the source of what it holds as its own, and never what it holds.
        cause = match inner.downcast_ref::<std::io::Error>() {
            Some(error) => error.get_ref().map(|held| held as _),
            None => inner.source(),
        };
    }
    None
}

pub(super) fn may_pass(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        )
}

/// What a busy registry asks for, within reason.
pub(super) fn asked_pause(response: &Response) -> Option<Duration> {
    let seconds: u64 = response
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds.min(60)))
}

/// The body, which must not be longer than `limit`.
pub(super) fn limited(response: Response, limit: u64) -> std::result::Result<Vec<u8>, String> {
    use std::io::Read;
    let mut body = Vec::new();
    response
        .take(limit + 1)
        .read_to_end(&mut body)
        .map_err(|error| format!("the answer breaks off: {error}"))?;
    match body.len() as u64 > limit {
        true => Err("the answer is too long".to_owned()),
        false => Ok(body),
    }
}
