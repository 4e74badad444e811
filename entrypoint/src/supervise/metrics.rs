//! Prometheus' text format, version 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::time::Duration;

use super::machine::STATES;
use super::usage::Usage;
use crate::backup::schedule::Last;

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub struct Sample<'a> {
    pub service: &'a str,
    pub state: &'static str,
    pub up: bool,
    pub restarts: u32,
    /// Since its main process was started, while that runs.
    pub uptime: Option<Duration>,
    pub usage: Usage,
}

/// `health` is live, ready and started.
/// `backup` is there when backups are scheduled.
pub fn text(
    version: &str,
    uptime: Duration,
    health: [bool; 3],
    degraded: bool,
    services: &[Sample<'_>],
    ends: &BTreeMap<&str, i64>,
    backup: Option<&Last>,
) -> String {
    let mut out = String::new();
    family(
        &mut out,
        "tiffin_info",
        "gauge",
        "The box's version; always 1.",
    );
    let version = escaped(version);
    line(
        &mut out,
        "tiffin_info",
        &format!("version=\"{version}\""),
        1,
    );
    let box_wide = [
        ("tiffin_live", "Whether /livez says yes.", health[0]),
        ("tiffin_ready", "Whether /readyz says yes.", health[1]),
        ("tiffin_started", "Whether /startupz says yes.", health[2]),
        (
            "tiffin_degraded",
            "Whether the box goes on without a service that was given up.",
            degraded,
        ),
    ];
    for (name, help, yes) in box_wide {
        family(&mut out, name, "gauge", help);
        line(&mut out, name, "", u8::from(yes));
    }
    let name = "tiffin_uptime_seconds";
    family(
        &mut out,
        name,
        "gauge",
        "Time since the box began to start its services.",
    );
    line(&mut out, name, "", uptime.as_secs_f64());
    if !ends.is_empty() {
        let name = "tiffin_certificate_not_after_seconds";
        let help = "When the certificate ends, as Unix time.";
        family(&mut out, name, "gauge", help);
        for (certificate, end) in ends {
            let labels = format!("certificate=\"{}\"", escaped(certificate));
            line(&mut out, name, &labels, end);
        }
    }
    let name = "tiffin_service_state";
    family(
        &mut out,
        name,
        "gauge",
        "1 for the state that the service is in.",
    );
    for sample in services {
        for state in STATES {
            let labels = format!("service=\"{}\",state=\"{state}\"", escaped(sample.service));
            line(&mut out, name, &labels, u8::from(*state == sample.state));
        }
    }
    let mut each = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Sample<'_>) -> f64| {
        family(&mut out, name, kind, help);
        for sample in services {
            let labels = format!("service=\"{}\"", escaped(sample.service));
            line(&mut out, name, &labels, value(sample));
        }
    };
    each(
        "tiffin_service_ready",
        "gauge",
        "Whether what needs the service may run.",
        &|sample| f64::from(u8::from(sample.up)),
    );
    each(
        "tiffin_service_restarts_total",
        "counter",
        "How often the service was restarted after its end.",
        &|sample| f64::from(sample.restarts),
    );
    each(
        "tiffin_service_uptime_seconds",
        "gauge",
        "Time since the service was started; 0 while its main process does not run.",
        &|sample| sample.uptime.unwrap_or_default().as_secs_f64(),
    );
    each(
        "tiffin_service_processes",
        "gauge",
        "Processes of the service.",
        &|sample| f64::from(sample.usage.processes),
    );
    #[allow(clippy::cast_precision_loss, reason = "a metric is a float")]
    each(
        "tiffin_service_resident_memory_bytes",
        "gauge",
        "Resident memory, summed over the service's processes; shared pages count in each.",
        &|sample| sample.usage.memory as f64,
    );
    each(
        "tiffin_service_cpu_seconds_total",
        "counter",
        "CPU time of the service's processes, in user and system mode.",
        &|sample| sample.usage.cpu.as_secs_f64(),
    );
    if let Some(last) = backup {
        let figures = [
            (
                "tiffin_backup_last_success_timestamp_seconds",
                "When the last good scheduled backup was whole; 0 before the first.",
                last.good.unwrap_or(0),
            ),
            (
                "tiffin_backup_last_success_bytes",
                "The size of that backup.",
                last.bytes,
            ),
            (
                "tiffin_backup_failed",
                "Whether the last scheduled backup failed.",
                u64::from(last.failed.is_some()),
            ),
        ];
        for (name, help, value) in figures {
            family(&mut out, name, "gauge", help);
            line(&mut out, name, "", value);
        }
    }
    out
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: impl Display) {
    let _ = match labels {
        "" => writeln!(out, "{name} {value}"),
        labels => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

/// A label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_their_label() {
        let sample = Sample {
            service: "a\"} 1\n\\x",
            state: "ready",
            up: true,
            restarts: 2,
            uptime: None,
            usage: Usage::default(),
        };
        let text = text(
            "v1",
            Duration::from_millis(1500),
            [true, false, true],
            false,
            &[sample],
            &BTreeMap::from([("web", 1_800_000_000)]),
            Some(&Last {
                good: Some(1_800_000_001),
                failed: Some("why".to_owned()),
                ..Last::default()
            }),
        );
        assert!(text.contains("\ntiffin_backup_last_success_timestamp_seconds 1800000001\n"));
        assert!(text.contains("\ntiffin_backup_failed 1\n"));
        assert!(
            text.contains(
                "\ntiffin_certificate_not_after_seconds{certificate=\"web\"} 1800000000\n"
            )
        );
        assert!(text.contains("tiffin_service_restarts_total{service=\"a\\\"} 1\\n\\\\x\"} 2\n"));
        assert!(
            text.contains("\ntiffin_ready 0\n") && text.contains("\ntiffin_uptime_seconds 1.5\n")
        );
        assert_eq!(text.matches("state=\"ready\"} 1\n").count(), 1);
        assert!(text.ends_with('\n') && !text.contains("\n\n"));
    }
}
