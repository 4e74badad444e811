//! `docker run`, as a script of the POSIX shell.

use super::describe::{Description, Value};
use super::quote::{comment, csv, shell};
use super::text::{head, more};
use crate::exit::Result;

pub fn write(d: &Description) -> Result<String> {
    let mut text = head(d, "for docker run", "docker-run", "run.sh", "#");
    more(&mut text, d);
    text.line("set -eu");
    if !d.secrets.is_empty() {
        text.line("# Secrets are files below ./secrets, chmod 600:");
        for secret in &d.secrets {
            text.line(&format!("#   {}: {}", secret.name, comment(&secret.note)));
        }
    }
    let mut words = vec![
        "--detach".to_owned(),
        format!("--name {}", d.name),
        "--restart unless-stopped".to_owned(),
        format!("--stop-timeout {}", d.grace),
    ];
    for port in &d.ports {
        words.push(format!("--publish {port}:{port}"));
    }
    for mount in &d.volumes {
        let target = csv(&format!("target={}", mount.path));
        words.push(format!(
            "--mount {}",
            shell(&format!(
                "type=volume,source={}-{},{target}",
                d.name, mount.name
            ))
        ));
    }
    for line in &d.settings {
        match &line.value {
            Value::Given(value) => words.push(format!(
                "--env {}",
                shell(&format!("{}={value}", line.name))
            )),
            Value::Required => words.push(format!("--env {0}=\"${{{0}:?required}}\"", line.name)),
            Value::Default(_) => {}
        }
    }
    for secret in &d.secrets {
        // A bind mount, unlike --volume, is refused when there is no such file.
        words.push(format!(
            "--mount \"type=bind,source=$PWD/secrets/{0},target=/run/secrets/{0},readonly\"",
            secret.name
        ));
    }
    if d.read_only {
        words.push("--read-only".to_owned());
    }
    words.push("--cap-drop ALL".to_owned());
    words.extend(
        d.capabilities
            .iter()
            .map(|name| format!("--cap-add {name}")),
    );
    words.push("--security-opt no-new-privileges".to_owned());
    words.push("--pids-limit 4096".to_owned());
    words.extend(d.memory.map(|memory| format!("--memory {memory}m")));
    words.extend(d.cpus.as_ref().map(|cpus| format!("--cpus {cpus}")));
    words.push("--log-driver json-file --log-opt max-size=10m --log-opt max-file=5".to_owned());
    words.push(shell(&d.image));
    text.line(&format!("docker run \\\n  {}", words.join(" \\\n  ")));
    Ok(text.end())
}
