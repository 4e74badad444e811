//! podman's quadlet: a `.container` file that systemd's generator makes a unit of.

use super::describe::{Description, Value};
use super::quote::{comment, unit, unit_text};
use super::text::head;
use crate::exit::{Code, Failure, Result};

/// The registry that Docker means by a name without one.
const DOCKER: &str = "docker.io";

pub fn write(d: &Description) -> Result<String> {
    let name = &d.name;
    let file = format!("/etc/containers/systemd/{name}.container");
    let mut text = head(
        d,
        "for podman's quadlet (podman 4.7 or newer)",
        "quadlet",
        &file,
        "#",
    );
    text.line(&format!(
        "# Start: systemctl daemon-reload && systemctl start {name}"
    ));
    for secret in &d.secrets {
        text.line(&format!(
            "# Secret: podman secret create {name}-{} FILE   ({})",
            secret.name,
            comment(&secret.note)
        ));
    }
    text.line("").line("[Unit]").line(&format!(
        "Description={}",
        comment(&d.title).replace('%', "%%").trim_end_matches('\\')
    ));
    text.lines([
        "After=network-online.target",
        "Wants=network-online.target",
        "",
        "[Container]",
    ]);
    // Docker's archives are loaded under the name that Docker would give them.
    let registry = d
        .image
        .split('/')
        .next()
        .is_some_and(|first| first.contains(['.', ':']) && d.image.contains('/'));
    let image = match registry {
        true => d.image.clone(),
        false => format!("{DOCKER}/{}", d.image),
    };
    text.line(&format!("Image={}", image.replace('%', "%%")))
        .line("Pull=never");
    text.line(&format!("ContainerName={name}"));
    for port in &d.ports {
        text.line(&format!("PublishPort={port}:{port}"));
    }
    for mount in &d.volumes {
        if mount.path.contains([':', '\n', '\r']) {
            return Err(Failure::new(
                Code::Config,
                format!(
                    "cannot write a quadlet: the volume's path `{}` has a colon or a line end",
                    mount.path.escape_debug()
                ),
            ));
        }
        // The generator takes the rest of the line as it stands, quotes too, and quotes it.
        text.line(&format!(
            "Volume={name}-{}:{}",
            mount.name,
            unit_text(&mount.path)
        ));
    }
    for line in &d.settings {
        let note = comment(&line.note);
        if !note.is_empty() && !matches!(line.value, Value::Default(_)) {
            text.line(&format!("# {note}"));
        }
        text.line(&match &line.value {
            // The generator hands it to ExecStart=, where $ begins a variable.
            Value::Given(value) => {
                format!("Environment={}", unit(&format!("{}={value}", line.name)))
            }
            Value::Required => format!(
                "# REQUIRED: the box refuses to start while it is empty.\nEnvironment={}=",
                line.name
            ),
            Value::Default(value) => {
                format!("#Environment={}", unit(&format!("{}={value}", line.name)))
            }
        });
    }
    for secret in &d.secrets {
        text.line(&format!(
            "Secret={name}-{0},type=mount,target={0}",
            secret.name
        ));
    }
    if d.read_only {
        text.line("ReadOnly=true");
    }
    text.line("DropCapability=all")
        .line(&format!("AddCapability={}", d.capabilities.join(" ")));
    text.line("NoNewPrivileges=true");
    text.lines([
        "HealthCmd=tiffin health --ready",
        "HealthInterval=30s",
        "HealthRetries=3",
    ]);
    text.line(&format!("HealthStartPeriod={}s", d.start));
    let mut more = vec![
        format!("--stop-timeout {}", d.grace),
        "--pids-limit 4096".to_owned(),
    ];
    more.extend(d.memory.map(|memory| format!("--memory {memory}m")));
    more.extend(d.cpus.as_ref().map(|cpus| format!("--cpus {cpus}")));
    text.line(&format!("PodmanArgs={}", more.join(" ")));
    text.lines(["", "[Service]", "Restart=always"]);
    text.line(&format!(
        "TimeoutStartSec=300\nTimeoutStopSec={}",
        d.grace + 30
    ));
    text.lines(["", "[Install]", "WantedBy=multi-user.target default.target"]);
    Ok(text.end())
}
