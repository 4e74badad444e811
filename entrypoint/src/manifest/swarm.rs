//! A stack of Docker Swarm: `docker stack deploy`.

use super::compose::{hardening, healthcheck};
use super::describe::{Description, Part};
use super::quote::{comment, compose, yaml};
use super::text::{Text, environment, head};
use crate::exit::Result;

pub fn write(d: &Description) -> Result<String> {
    let mut text = head(d, "for Docker Swarm", "swarm", "stack.yaml", "#");
    text.line(&format!("# Start and upgrade: docker stack deploy --resolve-image never --compose-file stack.yaml {}", d.name));
    let whole = d.parts.iter().all(|part| part.role.is_none());
    if whole && !d.volumes.is_empty() {
        text.line("# Its volumes live on one node, which has the image loaded:");
        text.line(&format!(
            "#   docker node update --label-add {}=data NODE",
            d.name
        ));
    }
    for secret in &d.secrets {
        text.line(&format!(
            "#   docker secret create {}-{} FILE   # {}",
            d.name,
            secret.name,
            comment(&secret.note)
        ));
    }
    if !whole {
        text.line("# Boxes of roles keep nothing: databases are elsewhere, and every node needs the image.");
    }
    text.lines(["version: \"3.9\"", "", "services:"]);
    for part in &d.parts {
        service(&mut text, d, part);
    }
    if whole && !d.volumes.is_empty() {
        text.line("").line("volumes:");
        for mount in &d.volumes {
            text.line(&format!("  {}: {{}}", mount.name));
        }
    }
    if !d.secrets.is_empty() {
        text.line("").line("secrets:");
        for secret in &d.secrets {
            text.line(&format!(
                "  {}: {{external: true, name: {}-{}}}",
                secret.name, d.name, secret.name
            ));
        }
    }
    Ok(text.end())
}

fn service(text: &mut Text, d: &Description, part: &Part) {
    let whole = part.role.is_none();
    text.line(&format!("  {}:", part.name));
    text.line(&format!("    image: {}", compose(&d.image)));
    if !part.ports.is_empty() {
        text.line("    ports:");
        for port in &part.ports {
            text.line(&format!("      - {{published: {port}, target: {port}}}"));
        }
    }
    if !d.volumes.is_empty() {
        text.line("    volumes:");
    }
    for mount in &d.volumes {
        let path = compose(&mount.path);
        text.line(&match whole {
            true => format!(
                "      - {{type: volume, source: {}, target: {path}}}",
                mount.name
            ),
            false => format!("      - {{type: tmpfs, target: {path}}}"),
        });
    }
    text.line("    environment:");
    for (name, value) in part.settings() {
        text.line(&format!("      {name}: {}", compose(&value)));
    }
    environment(text, &d.settings, "      ");
    if !d.secrets.is_empty() {
        text.line("    secrets:");
        for secret in &d.secrets {
            text.line(&format!("      - {}", secret.name));
        }
    }
    text.line(&format!("    stop_grace_period: {}s", d.grace));
    healthcheck(text, d);
    hardening(text, d);
    text.line("    deploy:")
        .line(&format!("      replicas: {}", part.replicas));
    if whole && !d.volumes.is_empty() {
        text.line(&format!(
            "      placement: {{constraints: [\"node.labels.{} == data\"]}}",
            d.name
        ));
    }
    text.line(match (whole, part.single || part.job) {
        (true, _) => "      update_config: {order: stop-first, failure_action: pause}  # two boxes never share a volume",
        (_, true) => "      update_config: {order: stop-first, failure_action: pause}  # never two at a time",
        // A new box is ready before an old one is told to stop.
        _ => "      update_config: {order: start-first, parallelism: 1, failure_action: rollback}",
    });
    text.line(match part.job {
        true => "      restart_policy: {condition: on-failure, delay: 5s}  # it ends when its jobs are done",
        false => "      restart_policy: {condition: any, delay: 5s}",
    });
    text.lines([
        "      resources:",
        "        limits:",
        "          pids: 4096",
    ]);
    if let Some(memory) = d.memory {
        text.line(&format!("          memory: {memory}M"));
    }
    if let Some(cpus) = &d.cpus {
        text.line(&format!("          cpus: {}", yaml(cpus)));
    }
    text.lines([
        "    logging:",
        "      driver: json-file",
        "      options: {max-size: \"10m\", max-file: \"5\"}",
    ]);
}
