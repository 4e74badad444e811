//! A job of HashiCorp Nomad for its docker driver.

use super::describe::{Description, Value};
use super::quote::hcl;
use super::text::{after, head};
use crate::exit::Result;

pub fn write(d: &Description) -> Result<String> {
    let name = &d.name;
    // Nomad asks over HTTP, on a port that nothing else uses.
    let health = (9000..)
        .find(|port| !d.ports.contains(port))
        .unwrap_or(9000);
    let mut text = head(d, "for Nomad", "nomad", "box.nomad.hcl", "#");
    text.line("# Start and upgrade: nomad job run box.nomad.hcl");
    for mount in &d.volumes {
        text.line(&format!(
            "# Of its node's client: host_volume \"{name}-{}\" {{ path = \"…\" }}",
            mount.name
        ));
    }
    text.line(&format!(
        "# Of its node's client: max_kill_timeout = \"{}s\"",
        d.grace
    ));
    for secret in &d.secrets {
        text.line(&format!(
            "# Secret: nomad var put nomad/jobs/{name} {}=…{}",
            secret.name,
            after(&secret.note)
        ));
    }
    text.line("")
        .line(&format!("job {} {{", hcl(name)))
        .line("  type = \"service\"")
        .line("");
    text.line("  group \"box\" {")
        .line("    count = 1")
        .line("")
        .line("    network {");
    for port in &d.ports {
        text.line(&format!(
            "      port \"p{port}\" {{\n        static = {port}\n        to     = {port}\n      }}"
        ));
    }
    text.line(&format!(
        "      port \"health\" {{\n        to = {health}\n      }}"
    ))
    .line("    }");
    for mount in &d.volumes {
        text.line("")
            .line(&format!("    volume {} {{", hcl(&mount.name)));
        text.line("      type   = \"host\"")
            .line(&format!(
                "      source = {}",
                hcl(&format!("{name}-{}", mount.name))
            ))
            .line("    }");
    }
    text.line("").line("    service {");
    text.line(&format!("      name     = {}", hcl(name)))
        .line("      provider = \"nomad\"")
        .line("      port     = \"health\"");
    text.lines([
        "",
        "      check {",
        "        type     = \"http\"",
        "        path     = \"/readyz\"",
        "        interval = \"10s\"",
        "        timeout  = \"5s\"",
        "      }",
        "    }",
        "",
        "    update {",
    ]);
    text.line(&format!("      healthy_deadline  = \"{}s\"", d.start))
        .line(&format!("      progress_deadline = \"{}s\"", d.start + 300))
        .line("    }");
    text.line("")
        .line(&format!("    task {} {{", hcl(name)))
        .line("      driver       = \"docker\"");
    text.line(&format!("      kill_timeout = \"{}s\"", d.grace))
        .line("")
        .line("      config {");
    text.line(&format!("        image           = {}", hcl(&d.image)));
    let ports: Vec<String> = d
        .ports
        .iter()
        .map(|port| format!("\"p{port}\""))
        .chain(["\"health\"".to_owned()])
        .collect();
    text.line(&format!("        ports           = [{}]", ports.join(", ")));
    text.line(&format!("        readonly_rootfs = {}", d.read_only))
        .line("        cap_drop        = [\"all\"]");
    let capabilities: Vec<String> = d
        .capabilities
        .iter()
        .map(|c| format!("\"{}\"", c.to_ascii_lowercase()))
        .collect();
    text.line(&format!(
        "        cap_add         = [{}]",
        capabilities.join(", ")
    ));
    text.line("        security_opt    = [\"no-new-privileges\"]")
        .line("        pids_limit      = 4096");
    text.line("      }");
    for mount in &d.volumes {
        text.line("")
            .line("      volume_mount {")
            .line(&format!("        volume      = {}", hcl(&mount.name)));
        text.line(&format!("        destination = {}", hcl(&mount.path)))
            .line("      }");
    }
    text.line("")
        .line("      env {")
        .line(&format!("        TIFFIN_HTTP = \"0.0.0.0:{health}\""));
    for line in d.settings.iter().filter(|line| line.name != "TIFFIN_HTTP") {
        let (name, note) = (&line.name, after(&line.note));
        text.line(&match &line.value {
            Value::Given(value) => format!("        {name} = {}{note}", hcl(value)),
            Value::Required => format!("        {name} = \"\"  # REQUIRED: the box refuses to start while it is empty{note}"),
            Value::Default(value) => format!("        # {name} = {}{note}", hcl(value)),
        });
    }
    for secret in &d.secrets {
        text.line(&format!("        {0}_FILE = \"/secrets/{0}\"", secret.name));
    }
    text.line("      }");
    for secret in &d.secrets {
        let data = format!(
            "{{{{ with nomadVar \"nomad/jobs/{name}\" }}}}{{{{ .{} }}}}{{{{ end }}}}",
            secret.name
        );
        text.line("")
            .line("      template {")
            .line(&format!("        data        = {}", hcl(&data)));
        text.line(&format!(
            "        destination = \"secrets/{}\"",
            secret.name
        ))
        .line("        perms       = \"0400\"")
        .line("        change_mode = \"restart\"")
        .line("      }");
    }
    if d.memory.is_some() || d.cpus.is_some() {
        text.line("").line("      resources {");
        if let Some(memory) = d.memory {
            text.line(&format!("        memory = {memory}  # MB"));
        }
        if let Some(cpus) = &d.cpus {
            // Whole cores: anything else would be in MHz of a machine that is not known here.
            let cores = cpus.parse::<f64>().map_or(1, |cpus| cpus.ceil() as u64);
            text.line(&format!("        cores  = {cores}"));
        }
        text.line("      }");
    }
    text.lines(["    }", "  }", "}"]);
    Ok(text.end())
}
