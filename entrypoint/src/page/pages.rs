//! The pages themselves. They work without JavaScript, which only spares the reload.

use std::fmt::Write as _;

use super::facts;
use super::html::escape;
use super::serve::{About, Answer, History};
use crate::control::{self, Status, short_bytes, short_time};
use crate::preflight::Level;
use crate::settings::origin;
use crate::start;
use crate::support::Redactor;
use crate::volume::State;

pub fn style() -> Answer {
    Answer {
        kind: "text/css; charset=utf-8",
        ..Answer::text(200, include_str!("style.css"))
    }
}

pub fn script() -> Answer {
    Answer {
        kind: "text/javascript; charset=utf-8",
        ..Answer::text(200, include_str!("page.js"))
    }
}

/// The token leaves the address at once. A page, not a redirection: what a page of our own
/// leads to is sent the cookie, whoever linked to that page.
pub fn opened() -> Answer {
    Answer::html(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Status</title>\
         <meta http-equiv=refresh content=\"0;url=/\"><link rel=stylesheet href=/style.css>\
         <main><p><a href=/>Go on to the status page</a></main></html>"
            .to_owned(),
    )
}

pub fn closed() -> Answer {
    Answer {
        status: 401,
        ..Answer::html(
            "<!doctype html><html lang=en><meta charset=utf-8><title>Status</title>\
             <meta name=viewport content=\"width=device-width\"><link rel=stylesheet href=/style.css>\
             <main class=closed><h1>This page needs its link</h1><p>On the machine that runs the box, ask for it:\
             <pre><code>docker exec BOX tiffin status-page</code></pre></main></html>"
                .to_owned(),
        )
    }
}

pub fn page(about: &About, path: &str) -> Answer {
    match path {
        "/" => overview(about),
        "/settings" => settings(about),
        "/logs" => logs(about, None),
        "/status" => status(about),
        _ => match path.strip_prefix("/logs/") {
            Some(name) => logs(about, Some(name)),
            None => Answer::text(
                404,
                "there are /, /settings, /logs, /logs/NAME and /status\n",
            ),
        },
    }
}

/// The words of `status --json`.
fn status(about: &About) -> Answer {
    let services = about.services();
    match services.and_then(|services| control::report(&about.root, &services).ok()) {
        Some(report) => Answer {
            kind: "application/json",
            ..Answer::text(200, &format!("{report:#}\n"))
        },
        None => Answer::text(503, "the box does not answer\n"),
    }
}

fn frame(about: &About, here: &str, title: &str, body: &str) -> Answer {
    let product = &about.contract.product;
    let link = |path: &str, name: &str| {
        let current = if path == here {
            " aria-current=page"
        } else {
            ""
        };
        format!("<a href={path}{current}>{name}</a>")
    };
    let links: String = [
        ("/", "Services"),
        ("/settings", "Settings"),
        ("/logs", "Logs"),
    ]
    .map(|(path, name)| link(path, name))
    .concat();
    Answer::html(format!(
        "<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n\
         <meta name=viewport content=\"width=device-width, initial-scale=1\">\n\
         <meta name=color-scheme content=\"light dark\">\n<title>{title} – {product}</title>\n\
         <link rel=stylesheet href=/style.css>\n<script src=/page.js defer></script>\n\
         <noscript><meta http-equiv=refresh content=10></noscript>\n</head>\n<body>\n\
         <a class=skip href=#main>To the content</a>\n\
         <header><p class=product>{product} <span class=version>{version}</span></p>\
         <nav aria-label=Pages>{links}</nav></header>\n<main id=main>\n{body}</main>\n\
         <footer><span data-live=time id=time>As of {now}</span></footer>\n</body>\n</html>\n",
        product = escape(&product.title),
        version = escape(&product.version),
        now = crate::log::rfc3339(std::time::SystemTime::now()),
    ))
}

fn overview(about: &About) -> Answer {
    let Some(services) = about.services() else {
        let body =
            "<h1>Services</h1><p class=\"verdict bad\" role=status>The box does not answer.</p>";
        return frame(about, "/", "Services", body);
    };
    let mut body = String::from("<h1>Services</h1>\n");
    let ill: Vec<&Status> = services.iter().filter(|service| !service.healthy).collect();
    let (class, verdict) = match ill[..] {
        [] => ("good", "All services are ready".to_owned()),
        [one] => ("bad", format!("{} is {}", one.name, one.state)),
        _ => (
            "bad",
            format!("{} of {} services are not ready", ill.len(), services.len()),
        ),
    };
    let _ = writeln!(
        body,
        "<p class=\"verdict {class}\" id=verdict data-live=verdict role=status aria-live=polite>{}</p>",
        escape(&verdict)
    );
    table(&mut body, &services, &about.history());
    checks(&mut body, about);
    body.push_str("<section aria-labelledby=box><h2 id=box>This box</h2><dl>");
    for fact in facts::facts(about) {
        let _ = write!(
            body,
            "<dt>{}</dt><dd>{}</dd>",
            escape(fact.name),
            escape(&fact.value).replace('\n', "<br>")
        );
    }
    body.push_str("</dl></section>\n");
    frame(about, "/", "Services", &body)
}

fn table(body: &mut String, services: &[Status], history: &History) {
    body.push_str(
        "<div class=wide id=services data-live=services><table><caption class=unseen>Services and how they are</caption>\
         <thead><tr><th scope=col>Service<th scope=col>State<th scope=col class=number>For\
         <th scope=col class=number>Restarts<th scope=col class=number>Memory<th scope=col class=number>CPU time\
         <th scope=col>History</tr></thead><tbody>\n",
    );
    for service in services {
        let class = match (service.healthy, service.ready, service.enabled) {
            (true, true, _) => "good",
            (true, ..) => "calm",
            (false, ..) if service.state == "failed" => "bad",
            _ => "busy",
        };
        let name = escape(&service.name);
        let dash = || "–".to_owned();
        let _ = write!(
            body,
            "<tr><th scope=row><a href=\"/logs/{name}\">{name}</a><small>{}</small>\
             <td><span class=\"state {class}\">{}</span><td class=number>{}<td class=number>{}\
             <td class=number>{}<td class=number>{}<td>",
            escape(&service.description),
            escape(&service.state),
            short_time(service.seconds),
            service.restarts,
            service.memory.map_or_else(dash, short_bytes),
            service
                .cpu_seconds
                .map_or_else(dash, |seconds| format!("{seconds:.1} s")),
        );
        let last = service.last_end.as_ref().map(|last| format!("last {last}"));
        let notes: Vec<&str> = [service.note.as_str(), last.as_deref().unwrap_or_default()]
            .into_iter()
            .filter(|note| !note.is_empty())
            .collect();
        let note = escape(&notes.join("; "));
        let changes = history
            .get(&service.name)
            .filter(|changes| changes.len() > 1);
        match changes {
            Some(changes) => {
                let _ = write!(
                    body,
                    "<details id=\"h-{name}\"><summary>{}</summary><ol>",
                    if note.is_empty() {
                        format!("{} changes", changes.len() - 1)
                    } else {
                        note
                    }
                );
                for change in changes {
                    let (since, state) = (escape(&change.since), escape(&change.state));
                    let _ = write!(body, "<li><time>{since}</time> {state}");
                }
                body.push_str("</ol></details>");
            }
            None => body.push_str(&note),
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</tbody></table></div>\n");
}

fn checks(body: &mut String, about: &About) {
    body.push_str(
        "<section aria-labelledby=machine><h2 id=machine>Machine and disk</h2><div class=wide id=checks data-live=checks>\
         <table><caption class=unseen>What the box found of the machine</caption>\
         <thead><tr><th scope=col>Check<th scope=col>Level<th scope=col>Found</tr></thead><tbody>\n",
    );
    for check in facts::checks(about) {
        let (class, word) = match check.level {
            Level::Ok => ("good", "ok"),
            Level::Warning => ("busy", "warning"),
            Level::Error => ("bad", "error"),
        };
        let _ = write!(
            body,
            "<tr><th scope=row>{}<td><span class=\"state {class}\">{word}</span><td>{}",
            escape(&check.name),
            escape(&check.found)
        );
        if let Some(advice) = &check.advice {
            let _ = write!(body, "<small>{}</small>", escape(advice));
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</tbody></table></div></section>\n");
}

fn settings(about: &About) -> Answer {
    let state = State::new(&about.contract, &about.root);
    let mut body = String::from("<h1>Settings</h1>\n");
    match start::resolve(&about.contract, &state, &about.environment) {
        Ok(resolved) => {
            body.push_str(
                "<p class=hint>As they are now on disk and in the container; a reload or a start makes them count.</p>\
                 <div class=wide id=settings data-live=settings><table><caption class=unseen>Settings</caption>\
                 <thead><tr><th scope=col>Setting<th scope=col>Value<th scope=col>From</tr></thead><tbody>\n",
            );
            for row in origin::rows(&about.contract, &resolved) {
                let _ = writeln!(
                    body,
                    "<tr><th scope=row>{}<td><code>{}</code><td>{}</tr>",
                    escape(row.name),
                    escape(&row.value),
                    escape(&row.origin)
                );
            }
            body.push_str("</tbody></table></div>\n");
        }
        Err(failure) => {
            let _ = writeln!(
                body,
                "<p class=\"verdict bad\">The next start will be refused</p><pre>{}</pre>",
                escape(&failure.to_string())
            );
        }
    }
    frame(about, "/settings", "Settings", &body)
}

fn logs(about: &About, name: Option<&str>) -> Answer {
    let Some(lines) = about.lines(name) else {
        return Answer {
            status: 404,
            ..frame(
                about,
                "/logs",
                "Logs",
                "<h1>Logs</h1><p>There is no service of that name.</p>\n",
            )
        };
    };
    let services = about.services().unwrap_or_default();
    let mut body = format!(
        "<h1>Logs{}</h1>\n<nav class=services aria-label=Services>",
        name.map_or_else(String::new, |name| format!(" of {}", escape(name)))
    );
    let names = services.iter().map(|service| service.name.as_str());
    for other in ["", "tiffin"].into_iter().chain(names) {
        let current = if Some(other).filter(|other| !other.is_empty()) == name {
            " aria-current=page"
        } else {
            ""
        };
        let shown = if other.is_empty() {
            "all services".to_owned()
        } else {
            escape(other)
        };
        let slash = if other.is_empty() { "" } else { "/" };
        let _ = write!(
            body,
            "<a href=\"/logs{slash}{}\"{current}>{shown}</a>",
            escape(other)
        );
    }
    body.push_str("</nav>\n<div class=log id=log data-live=log tabindex=0 role=log aria-label=\"Recent lines\"><pre>");
    // Pictures of this page are sent around.
    let redactor = Redactor::new(&about.contract, &about.root, &about.environment);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    for line in redactor.redact(&text).lines() {
        match line.split_once(" | ").filter(|_| name != Some("tiffin")) {
            Some((service, rest)) => {
                let _ = writeln!(body, "<b>{}</b> {}", escape(service), escape(rest));
            }
            None => {
                let _ = writeln!(body, "{}", escape(line));
            }
        }
    }
    body.push_str("</pre></div>\n");
    frame(about, "/logs", "Logs", &body)
}
