//! A unit that runs the box with Docker.

use super::describe::{Description, Value};
use super::quote::{comment, csv, unit};
use super::text::{head, more};
use crate::exit::Result;

pub fn write(d: &Description) -> Result<String> {
    let (name, image) = (&d.name, &d.image);
    let mut text = head(
        d,
        "for systemd with Docker",
        "systemd",
        &format!("/etc/systemd/system/{name}.service"),
        "#",
    );
    text.line(&format!("# Start: systemctl enable --now {name}"));
    for secret in &d.secrets {
        text.line(&format!(
            "# Secret: /etc/{name}/secrets/{}, chmod 600: {}",
            secret.name,
            comment(&secret.note)
        ));
    }
    for line in &d.settings {
        if matches!(line.value, Value::Required) {
            text.line(&format!(
                "# REQUIRED, the box refuses to start while it is empty: {}: {}",
                line.name,
                comment(&line.note)
            ));
        }
    }
    more(&mut text, d);
    text.line("");
    text.line("[Unit]").line(&format!(
        "Description={}",
        comment(&d.title).replace('%', "%%").trim_end_matches('\\')
    ));
    text.lines([
        "Requires=docker.service",
        "After=docker.service network-online.target",
        "Wants=network-online.target",
        "",
    ]);
    text.lines(["[Service]", "Restart=always", "RestartSec=5"]);
    // A start that Docker makes wait is none that hangs; the box has limits of its own.
    text.line("TimeoutStartSec=infinity")
        .line(&format!("TimeoutStopSec={}", d.grace + 30));
    text.line(&format!("ExecStartPre=-/usr/bin/docker rm --force {name}"));
    let mut words = vec![
        format!("--rm --name {name}"),
        format!("--stop-timeout {}", d.grace),
        "--log-driver none".to_owned(),
    ];
    for port in &d.ports {
        words.push(format!("--publish {port}:{port}"));
    }
    for mount in &d.volumes {
        let target = csv(&format!("target={}", mount.path));
        words.push(format!(
            "--mount {}",
            unit(&format!(
                "type=volume,source={name}-{},{target}",
                mount.name
            ))
        ));
    }
    for line in &d.settings {
        match &line.value {
            Value::Given(value) => {
                words.push(format!("--env {}", unit(&format!("{}={value}", line.name))))
            }
            Value::Required => words.push(format!("--env {}=", line.name)),
            Value::Default(_) => {}
        }
    }
    for secret in &d.secrets {
        words.push(format!(
            "--mount type=bind,source=/etc/{name}/secrets/{0},target=/run/secrets/{0},readonly",
            secret.name
        ));
    }
    if d.read_only {
        words.push("--read-only".to_owned());
    }
    let added: Vec<String> = d
        .capabilities
        .iter()
        .map(|name| format!("--cap-add {name}"))
        .collect();
    words.push(format!("--cap-drop ALL {}", added.join(" ")));
    words.push("--security-opt no-new-privileges --pids-limit 4096".to_owned());
    words.extend(d.memory.map(|memory| format!("--memory {memory}m")));
    words.extend(d.cpus.as_ref().map(|cpus| format!("--cpus {cpus}")));
    words.push(unit(image));
    text.line(&format!(
        "ExecStart=/usr/bin/docker run \\\n  {}",
        words.join(" \\\n  ")
    ));
    text.line(&format!(
        "ExecStop=/usr/bin/docker stop --time {} {name}",
        d.grace
    ));
    text.lines(["", "[Install]", "WantedBy=multi-user.target"]);
    Ok(text.end())
}
