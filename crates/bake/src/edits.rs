//! `copy: content=`, lineinfile and their like as templates of whole files.
//!
//! The finished file is the template's text, but where a task's value stands in it the raw
//! argument is rendered instead. It stands in a variable of the template's own
//! (`tiffin_value_1`), so that it means exactly what it means in a task. Parity is then
//! proven as for every template. What cannot be found, or not once only, stays as it is
//! and is reported.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use contract::{Value, Variables};

use crate::{
    capture::{EditEvent, Event, TemplateEvent},
    lookups,
};

pub const VALUE: &str = "tiffin_value_";

/// What a task wrote and no start writes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    pub dest: String,
    pub task: String,
    pub reason: String,
    /// The variables behind it.
    pub names: Vec<String>,
}

/// A file that comes from variables.
pub struct Written {
    pub event: TemplateEvent,
    /// Why no start can write it again.
    pub problem: Option<String>,
}

/// All files that tasks wrote from variables, in the order of writing. `read` answers a
/// file of the finished box, `settings` are the variables that an operator may set.
pub fn files<'a>(
    events: impl Iterator<Item = &'a Event>,
    settings: &BTreeSet<&str>,
    read: impl Fn(&str) -> Option<Vec<u8>>,
) -> (Vec<Written>, Vec<Fixed>) {
    let mut order: Vec<&str> = Vec::new();
    let mut writers: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in events {
        let dest = match event {
            Event::Template(t) => t.dest.as_str(),
            Event::Edit(e) => e.dest.as_str(),
            _ => continue,
        };
        order.retain(|other| *other != dest);
        order.push(dest);
        let list = writers.entry(dest).or_default();
        if is_whole(event) {
            list.clear(); // nothing is left of what was there
        }
        list.push(event);
    }
    let (mut written, mut fixed) = (Vec::new(), Vec::new());
    for dest in order {
        let Some(content) = read(dest) else {
            continue; // a later task removed it
        };
        if let (Event::Template(template), later) = writers[dest].split_first().expect("one wrote")
        {
            let problem = (content != template.result.as_bytes()).then(|| changed_by(later));
            written.push(Written {
                event: template.clone(),
                problem,
            });
            continue;
        }
        let edits: Vec<&EditEvent> = writers[dest].iter().filter_map(|e| edit(e)).collect();
        let whole = String::from_utf8(content).ok();
        let made = Made::new(whole.as_deref(), &edits, settings);
        written.extend(made.event.map(|event| Written {
            event,
            problem: None,
        }));
        fixed.extend(made.fixed);
    }
    (written, fixed)
}

fn edit(event: &Event) -> Option<&EditEvent> {
    match event {
        Event::Edit(edit) => Some(edit),
        _ => None,
    }
}

fn is_whole(event: &Event) -> bool {
    edit(event).is_none_or(|edit| matches!(edit.module.as_str(), "copy" | "assemble"))
}

fn changed_by(later: &[&Event]) -> String {
    let tasks: Vec<String> = later
        .iter()
        .filter_map(|e| edit(e))
        .map(|e| format!("`{}` ({})", e.task, e.module))
        .collect();
    match tasks.is_empty() {
        true => "another task changed the file after the template wrote it".into(),
        false => format!(
            "the file was changed after the template wrote it, by {}",
            tasks.join(", ")
        ),
    }
}

/// One file's edits, put together.
#[derive(Default)]
struct Made {
    event: Option<TemplateEvent>,
    fixed: Vec<Fixed>,
}

impl Made {
    fn new(content: Option<&str>, edits: &[&EditEvent], settings: &BTreeSet<&str>) -> Made {
        let mut made = Made::default();
        let mut variables = Variables::new();
        let mut placed: Vec<(Range<usize>, &EditEvent)> = Vec::new();
        for edit in edits {
            if edit.raw.is_none() && edit.variables.is_empty() {
                continue; // it depends on nothing
            }
            let found = content
                .ok_or_else(|| "the file is no text".to_owned())
                .and_then(|content| {
                    free_of(edit, settings)?;
                    place(edit, content)
                })
                .and_then(|range| {
                    let same =
                        |(r, e): &(Range<usize>, &EditEvent)| *r == range && e.raw == edit.raw;
                    if placed.iter().any(same) {
                        return Ok(None); // the same task in another layer
                    }
                    let clash = |(r, _): &&(Range<usize>, &EditEvent)| {
                        r.start < range.end && range.start < r.end
                    };
                    match placed.iter().find(clash) {
                        Some((_, other)) => Err(format!("`{}` writes the same place", other.task)),
                        None => agree(&mut variables, edit).map(|()| Some(range)),
                    }
                });
            match found {
                Ok(Some(range)) => placed.push((range, edit)),
                Ok(None) => {}
                // Facts about the machine and the host's own name are fixed as they are.
                Err(_) if !edit.variables.keys().any(|n| !is_fact(n)) => {}
                Err(reason) => made.fixed.push(Fixed {
                    dest: edit.dest.clone(),
                    task: edit.task.clone(),
                    reason: format!("{}: {reason}", edit.module),
                    names: behind(edit),
                }),
            }
        }
        placed.sort_by_key(|(range, _)| range.start);
        if let (Some(content), false) = (content, placed.is_empty()) {
            made.event = Some(template(content, &placed, variables));
        }
        made
    }
}

fn is_fact(name: &str) -> bool {
    name.starts_with("ansible_") || name.starts_with("inventory_hostname")
}

fn behind(edit: &EditEvent) -> Vec<String> {
    let names = edit.variables.keys().chain(&edit.place).chain(&edit.when);
    let names: BTreeSet<&String> = names.collect();
    names.into_iter().cloned().collect()
}

/// A start only knows the value anew: where it belongs and whether, the build decided.
fn free_of(edit: &EditEvent, settings: &BTreeSet<&str>) -> Result<(), String> {
    let depends = |names: &[String]| {
        let found = names.iter().find(|n| settings.contains(n.as_str()));
        found.cloned()
    };
    if let Some(name) = depends(&edit.place) {
        return Err(format!("where it writes depends on `{name}`"));
    }
    if let Some(name) = depends(&edit.when) {
        return Err(format!("whether it runs (`when`) depends on `{name}`"));
    }
    Ok(())
}

fn agree(variables: &mut Variables, edit: &EditEvent) -> Result<(), String> {
    let other = edit
        .variables
        .iter()
        .filter(|(name, _)| *name != jinja::FROZEN)
        .find(|(name, value)| variables.get(*name).is_some_and(|known| known != *value));
    if let Some((name, _)) = other {
        return Err(format!(
            "`{name}` means something else in another task that writes the file"
        ));
    }
    lookups::add(variables, lookups::of(&edit.variables)).map_err(|name| {
        format!("the lookup `{name}` answered something else in another task that writes the file")
    })?;
    let others = edit
        .variables
        .iter()
        .filter(|(name, _)| *name != jinja::FROZEN);
    variables.extend(others.map(|(name, value)| (name.clone(), value.clone())));
    Ok(())
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(true) => Some("True".into()),
        Value::Bool(false) => Some("False".into()),
        _ => None,
    }
}

/// The one place in the file where an edit's value stands.
fn place(edit: &EditEvent, content: &str) -> Result<Range<usize>, String> {
    let arg = |name: &str| edit.args.get(name).and_then(text);
    let is = |name: &str, wanted: &str| arg(name).is_some_and(|v| v.eq_ignore_ascii_case(wanted));
    if is("state", "absent") {
        return Err("it removes (state=absent)".into());
    }
    if edit.raw.is_none() {
        return Err("what it writes is not followed".into());
    }
    if edit.module == "copy" && (edit.value.is_object() || edit.value.is_array()) {
        return Ok(0..content.len());
    }
    let Some(value) = text(&edit.value) else {
        return Err("its value is no text".into());
    };
    if edit.module == "copy" && value == content {
        return Ok(0..content.len());
    }
    if value.is_empty() {
        return Err("its value is empty".into());
    }
    let found = match edit.module.as_str() {
        "copy" => lines(content, &value),
        "lineinfile" if is("backrefs", "true") && has_references(&value) => {
            return Err("its line holds back references".into());
        }
        "lineinfile" => lines(content, &value),
        "blockinfile" => block(content, &value, &arg),
        "replace" if has_references(&value) => {
            return Err("its text holds back references".into());
        }
        "replace" => ranges(content, &value),
        "ini_file" => ini(content, &value, &arg),
        _ => return Err("what it writes is not followed".into()),
    };
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err("its text is not in the finished file".into()),
        many => Err(format!("its text stands {} times in the file", many.len())),
    }
}

/// `\1`, `\g<name>` (Python's re).
fn has_references(text: &str) -> bool {
    text.as_bytes()
        .windows(2)
        .any(|pair| pair[0] == b'\\' && (pair[1].is_ascii_digit() || pair[1] == b'g'))
}

fn ranges(content: &str, value: &str) -> Vec<Range<usize>> {
    let found = content.match_indices(value);
    found.map(|(at, _)| at..at + value.len()).collect()
}

/// Where the value stands as whole lines.
fn lines(content: &str, value: &str) -> Vec<Range<usize>> {
    let begins = |at: usize| at == 0 || content[..at].ends_with('\n');
    let ends = |at: usize| {
        at == content.len() || content[at..].starts_with('\n') || content[..at].ends_with('\n')
    };
    let mut found = ranges(content, value);
    found.retain(|range| begins(range.start) && ends(range.end));
    found
}

fn block(content: &str, value: &str, arg: &impl Fn(&str) -> Option<String>) -> Vec<Range<usize>> {
    let marker = arg("marker").unwrap_or_else(|| "# {mark} ANSIBLE MANAGED BLOCK".into());
    let mark = |name: &str, default: &str| {
        let word = arg(name).unwrap_or_else(|| default.into());
        marker.replace("{mark}", &word) + "\n"
    };
    let before = mark("marker_begin", "BEGIN");
    let newline = if value.ends_with('\n') { "" } else { "\n" };
    let after = mark("marker_end", "END");
    let whole = format!("{before}{value}{newline}{}", after.trim_end());
    let inside = |range: Range<usize>| {
        let start = range.start + before.len();
        start..start + value.len()
    };
    lines(content, &whole).into_iter().map(inside).collect()
}

fn ini(content: &str, value: &str, arg: &impl Fn(&str) -> Option<String>) -> Vec<Range<usize>> {
    let wanted = arg("section").unwrap_or_default();
    let Some(option) = arg("option") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let (mut at, mut within) = (0, wanted.is_empty());
    for line in content.split_inclusive('\n') {
        let bare = line.trim_end_matches('\n');
        if bare.starts_with('[') {
            within = !wanted.is_empty() && bare.starts_with(&format!("[{wanted}]"));
        } else if within
            && let Some((key, given)) = bare.split_once('=')
            && key.trim() == option
            && given.trim_start_matches([' ', '\t']) == value
        {
            let end = at + bare.len();
            found.push(end - value.len()..end);
        }
        at += line.len();
    }
    found
}

fn template(
    content: &str,
    placed: &[(Range<usize>, &EditEvent)],
    mut variables: Variables,
) -> TemplateEvent {
    let mut options = serde_json::Map::new();
    let (open, close) = if ["{{", "{%", "{#"].iter().any(|mark| content.contains(mark)) {
        // The file's own braces mean nothing here.
        let mark = (0..)
            .map(|n| format!("tiffin{n}"))
            .find(|mark| !content.contains(mark))
            .expect("a text is finite");
        for (name, text) in [
            ("variable_start_string", format!("<<{mark}<")),
            ("variable_end_string", format!(">{mark}>>")),
            ("block_start_string", format!("<%{mark}<")),
            ("block_end_string", format!(">{mark}%>")),
            ("comment_start_string", format!("<#{mark}<")),
            ("comment_end_string", format!(">{mark}#>")),
        ] {
            options.insert(name.into(), text.into());
        }
        (format!("<<{mark}<"), format!(">{mark}>>"))
    } else {
        ("{{".to_owned(), "}}".to_owned())
    };
    let mut body = String::new();
    let mut at = 0;
    for (number, (range, edit)) in placed.iter().enumerate() {
        let name = format!("{VALUE}{}", number + 1);
        // `copy` writes lists and maps as JSON.
        let json = edit.value.is_object() || edit.value.is_array();
        let filter = if json { " | to_json" } else { "" };
        body += &content[at..range.start];
        body += &format!("{open} {name}{filter} {close}");
        at = range.end;
        variables.insert(name, edit.raw.clone().unwrap_or_default());
    }
    body += &content[at..];
    let edits = || placed.iter().map(|(_, edit)| *edit);
    let all = |of: fn(&EditEvent) -> &Vec<String>| -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for item in edits().flat_map(of) {
            if !all.contains(item) {
                all.push(item.clone());
            }
        }
        all
    };
    let words = |of: fn(&EditEvent) -> &String| {
        let words: BTreeSet<&str> = edits().map(|e| of(e).as_str()).collect();
        words.into_iter().collect::<Vec<_>>().join(", ")
    };
    TemplateEvent {
        dest: placed[0].1.dest.clone(),
        source: words(|e| &e.module),
        task: words(|e| &e.task),
        body,
        options,
        result: content.to_owned(),
        variables,
        expressions: Variables::new(),
        includes: BTreeMap::new(),
        missing: all(|e| &e.missing),
        dynamic: all(|e| &e.dynamic),
        bound: all(|e| &e.bound),
        place: all(|e| &e.place),
        when: all(|e| &e.when),
        notify: all(|e| &e.notify),
        validate: edits().rev().find_map(|e| e.validate.clone()),
        no_log: edits().any(|e| e.no_log),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture;
    use contract::Parity;
    use serde_json::json;
    use std::path::Path;

    fn edit(module: &str, raw: &str, value: &str, args: Value) -> Event {
        let edit = json!({
            "module": module, "dest": "/f", "task": format!("set {value}"), "raw": raw, "value": value,
            "args": args, "variables": {"port": "1", "host": "h"},
        });
        Event::Edit(serde_json::from_value(edit).unwrap())
    }

    /// The file with `port` at 2, and what is fixed.
    fn changed(content: &str, events: &[Event]) -> (Option<String>, Vec<Fixed>) {
        let (written, fixed) = files(events.iter(), &BTreeSet::from(["port"]), |_| {
            Some(content.into())
        });
        let written = written.first().map(|written| {
            let template = capture::template(&written.event, Path::new("/"));
            let mut pairs = [(&written.event, template)];
            let variables = capture::settle(&mut pairs, &BTreeSet::new(), &[]);
            let [(_, template)] = pairs;
            assert_eq!(template.parity, Parity::Identical, "{template:?}");
            let settings = json!({"port": "2"});
            let scope = jinja::Scope::new(settings.as_object().unwrap(), &[&variables]);
            jinja::render(&template, &scope).unwrap()
        });
        (written, fixed)
    }

    fn follows(before: &str, after: &str, events: &[Event]) {
        let (now, fixed) = changed(before, events);
        assert_eq!(now.as_deref(), Some(after));
        assert_eq!(fixed, []);
    }

    #[test]
    fn each_kind_of_edit_follows_its_variable() {
        let none = json!({});
        follows(
            "a=1\n\n",
            "a=2\n\n",
            &[edit("copy", "a={{ port }}\n\n", "a=1\n\n", none.clone())],
        );
        follows(
            "x\nport 1",
            "x\nport 2",
            &[edit(
                "lineinfile",
                "port {{ port }}",
                "port 1",
                none.clone(),
            )],
        );
        follows(
            "x\n# BEGIN ANSIBLE MANAGED BLOCK\na 1\nb\n# END ANSIBLE MANAGED BLOCK\ny\n",
            "x\n# BEGIN ANSIBLE MANAGED BLOCK\na 2\nb\n# END ANSIBLE MANAGED BLOCK\ny\n",
            &[edit(
                "blockinfile",
                "a {{ port }}\nb\n",
                "a 1\nb\n",
                none.clone(),
            )],
        );
        follows(
            "[a]\no = 1\n[b]\no = 1\n",
            "[a]\no = 1\n[b]\no = 2\n",
            &[edit(
                "ini_file",
                "{{ port }}",
                "1",
                json!({"section": "b", "option": "o"}),
            )],
        );
        follows(
            "listen :1;\n",
            "listen :2;\n",
            &[edit("replace", "listen :{{ port }};", "listen :1;", none)],
        );
    }

    #[test]
    fn the_braces_of_a_file_are_its_own() {
        let content = "log {{ x }} {% y %} {# z #}\nport 1\n";
        let event = edit("lineinfile", "port {{ port }}", "port 1", json!({}));
        follows(content, &content.replace('1', "2"), &[event]);
    }

    #[test]
    fn many_edits_of_one_file_follow_together() {
        let events = [
            edit("lineinfile", "a {{ port }}", "a 1", json!({})),
            edit("lineinfile", "b {{ port }}", "b 1", json!({})),
            // Another layer runs it again.
            edit("lineinfile", "a {{ port }}", "a 1", json!({})),
        ];
        follows("b 1\na 1\n", "b 2\na 2\n", &events);
    }

    #[test]
    fn what_cannot_be_followed_is_named_with_its_reason() {
        let line = |args| edit("lineinfile", "port {{ port }}", "port 1", args);
        let because = |content: &str, event: Event| {
            let (now, fixed) = changed(content, &[event]);
            assert_eq!(now, None);
            let [fixed] = fixed.as_slice() else {
                panic!("{fixed:?}")
            };
            assert!(fixed.names.contains(&"port".to_owned()));
            fixed.reason.clone()
        };
        assert!(because("port 1\nport 1\n", line(json!({}))).contains("2 times"));
        assert!(because("export 1\n", line(json!({}))).contains("not in the finished file"));
        assert!(because("x\n", line(json!({"state": "absent"}))).contains("state=absent"));
        let back = edit(
            "lineinfile",
            r"\1 {{ port }}",
            r"\1 1",
            json!({"backrefs": true}),
        );
        assert!(because("a 1\n", back).contains("back references"));
        let other = edit("cron", "{{ port }}", "1", json!({}));
        assert!(because("1\n", other).contains("not followed"));
        for (key, said) in [("place", "where it writes"), ("when", "whether it runs")] {
            let Event::Edit(mut event) = line(json!({})) else {
                unreachable!()
            };
            match key {
                "place" => event.place = vec!["port".into()],
                _ => event.when = vec!["port".into()],
            }
            assert!(because("port 1\n", Event::Edit(event)).contains(said));
        }
    }

    #[test]
    fn a_template_that_a_later_task_edits_names_that_task() {
        let template = json!({
            "event": "template", "dest": "/f", "source": "f.j2", "task": "t", "body": "{{ port }}\n",
            "result": "1\n", "variables": {"port": "1"},
        });
        let template: Event = serde_json::from_value(template).unwrap();
        let fixed = Event::Edit(EditEvent {
            module: "lineinfile".into(),
            dest: "/f".into(),
            task: "add a line".into(),
            ..Default::default()
        });
        let events = [template.clone(), fixed];
        let (written, _) = files(events.iter(), &BTreeSet::new(), |_| {
            Some(b"1\nx\n".to_vec())
        });
        let problem = written[0].problem.as_deref().unwrap_or_default();
        assert!(problem.contains("`add a line` (lineinfile)"), "{problem}");
        // Written last, it is whole again.
        let events = [&events[1], &template];
        let (written, _) = files(events.into_iter(), &BTreeSet::new(), |_| {
            Some(b"1\n".to_vec())
        });
        assert_eq!(written[0].problem, None);
    }

    #[test]
    fn tasks_without_variables_need_no_report() {
        let (now, fixed) = changed(
            "x\n",
            &[Event::Edit(EditEvent {
                module: "lineinfile".into(),
                dest: "/f".into(),
                ..Default::default()
            })],
        );
        assert_eq!((now, fixed), (None, Vec::new()));
    }
}
