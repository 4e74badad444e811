//! A stack of Docker Swarm: `docker stack deploy`.

use super::compose::{hardening, healthcheck};
use super::describe::Description;
use super::quote::{comment, compose, yaml};
use super::text::{environment, head};
use crate::exit::Result;

pub fn write(d: &Description) -> Result<String> {
    let mut text = head(d, "for Docker Swarm", "swarm", "stack.yaml", "#");
    text.line(&format!("# Start and upgrade: docker stack deploy --resolve-image never --compose-file stack.yaml {}", d.name));
    if !d.volumes.is_empty() {
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
    text.lines(["version: \"3.9\"", "", "services:"])
        .line(&format!("  {}:", d.name));
    text.line(&format!("    image: {}", compose(&d.image)));
    if !d.ports.is_empty() {
        text.line("    ports:");
        for port in &d.ports {
            text.line(&format!("      - {{published: {port}, target: {port}}}"));
        }
    }
    if !d.volumes.is_empty() {
        text.line("    volumes:");
        for mount in &d.volumes {
            text.line(&format!(
                "      - {{type: volume, source: {}, target: {}}}",
                mount.name,
                compose(&mount.path)
            ));
        }
    }
    text.line("    environment:");
    environment(&mut text, &d.settings, "      ");
    if !d.secrets.is_empty() {
        text.line("    secrets:");
        for secret in &d.secrets {
            text.line(&format!("      - {}", secret.name));
        }
    }
    text.line(&format!("    stop_grace_period: {}s", d.grace));
    healthcheck(&mut text, d);
    hardening(&mut text, d);
    text.lines(["    deploy:", "      replicas: 1"]);
    if !d.volumes.is_empty() {
        text.line(&format!(
            "      placement: {{constraints: [\"node.labels.{} == data\"]}}",
            d.name
        ));
    }
    text.lines([
        "      update_config: {order: stop-first, failure_action: pause}  # two boxes never share a volume",
        "      restart_policy: {condition: any, delay: 5s}",
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
    if !d.volumes.is_empty() {
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
