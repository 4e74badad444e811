//! Docker Compose: the Compose specification, as docker-compose reads it from 1.27 and
//! `docker compose` always did.

use super::describe::Description;
use super::quote::{compose, yaml};
use super::text::{Text, after, environment, head};
use crate::exit::Result;

pub fn write(d: &Description) -> Result<String> {
    let mut text = head(d, "for Docker Compose", "compose", "compose.yaml", "#");
    text.line("# Start:   docker compose up --detach")
        .line("# Upgrade: write it again with the new image, then the same command")
        .line("");
    text.line("services:").line(&format!("  {}:", d.name));
    text.line(&format!("    image: {}", compose(&d.image)))
        .line("    restart: unless-stopped");
    if !d.ports.is_empty() {
        text.line("    ports:  # of the host: of the box");
        for port in &d.ports {
            text.line(&format!("      - \"{port}:{port}\""));
        }
    }
    if !d.volumes.is_empty() {
        text.line("    volumes:  # all that must last");
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
        text.line("    secrets:  # seen by the box in /run/secrets");
        for secret in &d.secrets {
            text.line(&format!("      - {}", secret.name));
        }
    }
    text.line(&format!("    stop_grace_period: {}s", d.grace));
    healthcheck(&mut text, d);
    hardening(&mut text, d);
    text.line("    pids_limit: 4096");
    if let Some(memory) = d.memory {
        text.line(&format!("    mem_limit: {memory}m"));
    }
    if let Some(cpus) = &d.cpus {
        text.line(&format!("    cpus: {}", yaml(cpus)));
    }
    text.lines([
        "    security_opt: [\"no-new-privileges:true\"]",
        "    logging:  # bounded: Docker's default grows without end",
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
        text.line("")
            .line("secrets:  # files beside this one, chmod 600");
        for secret in &d.secrets {
            text.line(&format!("  {}:{}", secret.name, after(&secret.note)));
            text.line(&format!("    file: ./secrets/{}", secret.name));
        }
    }
    Ok(text.end())
}

/// The image has one; this one asks as often as somebody who waits wants to know.
pub fn healthcheck(text: &mut Text, d: &Description) {
    text.lines([
        "    healthcheck:",
        "      test: [\"CMD\", \"tiffin\", \"health\", \"--ready\"]",
        "      interval: 5s",
        "      timeout: 5s",
        "      retries: 6",
    ]);
    text.line(&format!("      start_period: {}s", d.start));
}

/// What Compose files and stacks have alike.
pub fn hardening(text: &mut Text, d: &Description) {
    if d.read_only {
        text.line("    read_only: true");
    }
    text.line("    cap_drop: [ALL]");
    text.line(&format!("    cap_add: [{}]", d.capabilities.join(", ")));
}
