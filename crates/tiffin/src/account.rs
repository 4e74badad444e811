//! What `tiffin build` says at its end: which files follow the settings, which stay as they
//! were made and why, and what each setting reaches.
//!
//! All that is well is one line, however many templates there are. No line holds a value
//! of a variable but the first differing one of a template whose task is not `no_log`.

use bake::{Account, account::Reach};
use contract::{Contract, Parity, Setting};

/// So many names are shown before the rest is counted.
const SHOWN: usize = 6;
/// Of a differing line.
const WIDTH: usize = 120;

pub fn lines(contract: &Contract, account: &Account) -> Vec<String> {
    let count = |of: fn(&Parity) -> bool| {
        let templates = contract.templates.iter();
        templates.filter(|t| of(&t.parity)).count()
    };
    let all = contract.templates.len();
    let identical = count(|p| *p == Parity::Identical);
    let differing = count(|p| matches!(p, Parity::Differs { .. }));
    let failed = all - identical - differing;
    let mut lines = vec![format!(
        "templates: {all} captured, {identical} render identically{}",
        match differing + failed {
            0 => String::new(),
            _ => format!(", {differing} differ, {failed} cannot be rendered again"),
        }
    )];
    for template in &contract.templates {
        let stays = format!("  {} stays as Ansible wrote it", template.dest);
        match &template.parity {
            Parity::Identical => {}
            Parity::Differs {
                line,
                ansible,
                tiffin,
            } => {
                lines.push(format!("{stays}: line {line} differs"));
                lines.push(format!("    Ansible: {}", cut(ansible)));
                lines.push(format!("    Tiffin:  {}", cut(tiffin)));
            }
            Parity::Failed { reason } => {
                lines.push(format!("{stays}: {reason}"));
                lines.push(format!("    task: {}", template.task));
            }
        }
    }
    if !account.fixed.is_empty() {
        let count = account.fixed.len();
        lines.push(format!(
            "edits: {count} from variables stay as Ansible made them"
        ));
        for fixed in &account.fixed {
            lines.push(format!("  {}: {}", fixed.dest, fixed.reason));
            lines.push(format!("    task: {}", fixed.task));
        }
    }
    if !account.left_out.is_empty() {
        lines.push("left out:".into());
        lines.extend(account.left_out.iter().map(|line| format!("  {line}")));
    }
    if !account.recorded.is_empty() {
        lines.push("recorded, not done:".into());
        let told = account.recorded.iter();
        lines.extend(told.map(|(what, why)| format!("  {what}: {why}")));
    }
    if !account.ran.started.is_empty() {
        let names: Vec<&str> = account.ran.started.iter().map(String::as_str).collect();
        lines.push(format!("ran while it was baked: {}", names.join(", ")));
    }
    for (directory, files, bytes) in &account.ran.aside {
        let files = match files {
            1 => "1 file".to_owned(),
            files => format!("{files} files"),
        };
        lines.push(format!(
            "  {files} ({}) that appeared in {directory} then are not in the box: a volume hides them",
            crate::printer::size(*bytes)
        ));
    }
    if !contract.settings.is_empty() {
        lines.push(format!("settings: {}", contract.settings.len()));
    }
    let nothing = Reach::default();
    for (name, setting) in &contract.settings {
        lines.extend(of_setting(
            name,
            setting,
            account.reach.get(name).unwrap_or(&nothing),
        ));
    }
    if !contract.facts.is_empty() {
        lines.push(format!(
            "computed at each start: {}",
            contract.facts.join(", ")
        ));
    }
    lines
}

fn of_setting(name: &str, setting: &Setting, reach: &Reach) -> Vec<String> {
    let mut reached = Vec::new();
    if !setting.files.is_empty() {
        reached.push(some(&setting.files));
    }
    if !reach.services.is_empty() {
        reached.push(format!("when or how {} starts", some(&reach.services)));
    }
    let mut lines = vec![match reached.is_empty() {
        true => format!("  {name} -> nothing but its own check"),
        false => format!("  {name} -> {}", reached.join("; ")),
    }];
    if !reach.fixed.is_empty() {
        lines.push(format!("    fixed at build: {}", some(&reach.fixed)));
    }
    lines
}

fn some(names: &[String]) -> String {
    let mut text = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(WIDTH) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bake::Fixed;
    use serde_json::json;

    fn contract(templates: usize) -> Contract {
        let template = |n: usize| {
            let parity = match n {
                0 => {
                    json!({"result": "differs", "line": 3, "ansible": "a".repeat(500), "tiffin": "b"})
                }
                1 => json!({"result": "failed", "reason": "no such filter"}),
                _ => json!({"result": "identical"}),
            };
            json!({
                "dest": format!("/etc/{n}"), "source": "t.j2", "task": format!("task {n}"), "uid": 0, "gid": 0,
                "mode": "0644", "body": "", "parity": parity,
            })
        };
        let files: Vec<String> = (2..templates).map(|n| format!("/etc/{n}")).collect();
        serde_json::from_value(json!({
            "format": 2,
            "product": {"name": "a", "title": "a", "version": "v"},
            "settings": {"PORT": {"variable": "port", "type": "port", "files": files}},
            "templates": (0..templates).map(template).collect::<Vec<_>>(),
            "facts": ["ansible_hostname"],
        }))
        .unwrap()
    }

    #[test]
    fn two_hundred_templates_need_no_more_lines_than_twenty() {
        let account = Account::default();
        let (few, many) = (
            lines(&contract(20), &account),
            lines(&contract(200), &account),
        );
        assert_eq!(few.len(), many.len());
        assert!(many.iter().all(|line| line.len() < 200), "{many:#?}");
        assert_eq!(
            many[0],
            "templates: 200 captured, 198 render identically, 1 differ, 1 cannot be rendered again"
        );
        assert!(
            many.iter().any(|l| l.contains("/etc/7 and 192 more")),
            "{many:#?}"
        );
    }

    #[test]
    fn everything_that_stays_is_named_with_task_and_reason() {
        let mut account = Account {
            fixed: vec![Fixed {
                dest: "/etc/x".into(),
                task: "set x".into(),
                reason: "lineinfile: its text stands 2 times in the file".into(),
                names: vec!["port".into()],
            }],
            left_out: vec!["task `far` was delegated to elsewhere".into()],
            recorded: vec![("sysctl a=1".into(), "the kernel is the machine's".into())],
            ..Account::default()
        };
        account.ran.started.insert("mongod".into());
        account.ran.aside = vec![("/data/mongodb".into(), 57, 2_100_000)];
        let reach = Reach {
            services: vec!["web".into()],
            fixed: vec!["task `useradd` (user)".into()],
        };
        account.reach.insert("PORT".into(), reach);
        let text = lines(&contract(3), &account).join("\n");
        for said in [
            "/etc/0 stays as Ansible wrote it: line 3 differs",
            "/etc/1 stays as Ansible wrote it: no such filter",
            "task: task 1",
            "/etc/x: lineinfile: its text stands 2 times",
            "task: set x",
            "task `far` was delegated",
            "ran while it was baked: mongod",
            "sysctl a=1: the kernel is the machine's",
            "57 files (2.1 MB) that appeared in /data/mongodb",
            "PORT -> /etc/2; when or how web starts",
            "fixed at build: task `useradd` (user)",
            "computed at each start: ansible_hostname",
        ] {
            assert!(text.contains(said), "`{said}` is missing:\n{text}");
        }
    }
}
