//! Lookups answer what the builder kept of them, and nothing else.

use contract::{Parity, Template, Variables};
use jinja::{FROZEN, Scope, reach, render, render_text};
use serde_json::{Value, json};

fn map(value: Value) -> Variables {
    value.as_object().cloned().unwrap()
}

fn kept() -> Variables {
    map(json!({
        "name": "b",
        "db": "{{ lookup('password', 'credentials/db') }}",
        FROZEN: [
            {"name": "file", "terms": ["a"], "options": {}, "result": ["one {{ name }}"]},
            {"name": "file", "terms": ["a", "b"], "options": {"rstrip": false}, "result": ["1", "2\n"]},
            {"name": "file", "terms": ["gone"], "options": {}, "result": null},
            {"name": "env", "terms": ["API_TOKEN"], "options": {}, "secret": true},
            {"name": "password", "terms": ["credentials/db"], "options": {}, "variables": ["db_secret"]},
            {"name": "acme.stack.table", "terms": [{"a": [1, 2.5]}], "options": {}, "result": [{"x": 1}]},
        ],
    }))
}

fn text(template: &str, settings: Value) -> Result<String, String> {
    let settings = map(settings);
    render_text(template, &Scope::new(&settings, &[&kept()])).map_err(|error| error.to_string())
}

#[test]
fn the_same_arguments_have_the_same_answer() {
    for (template, answer) in [
        ("{{ lookup('file', 'a') }}", "one {{ name }}"),
        (
            "{{ lookup('ansible.builtin.file', 'a') }}",
            "one {{ name }}",
        ),
        ("{{ query('file', 'a', name, rstrip=False) | length }}", "2"),
        ("{{ lookup('file', 'a', 'b', rstrip=false) }}", "1,2\n"),
        ("{{ lookup('acme.stack.table', {'a': [1, 2.5]}).x }}", "1"),
        (
            "{{ lookup('file', 'gone', errors='ignore') | default('-', true) }}",
            "-",
        ),
        ("{{ query('file', 'gone', errors='ignore') }}", "[]"),
        (
            "{{ lookup('password', 'credentials/db') }}/{{ db }}",
            "S{{/S{{",
        ),
        ("{{ query('varnames', '.') | length }}", "3"),
    ] {
        let settings = json!({"db_secret": "S{{"});
        assert_eq!(
            text(template, settings).as_deref(),
            Ok(answer),
            "{template}"
        );
    }
}

#[test]
fn other_arguments_are_an_error_that_names_the_lookup() {
    for (template, settings, why) in [
        (
            "{{ lookup('file', name) }}",
            json!({"name": "c"}),
            "`file` was made with other arguments",
        ),
        (
            "{{ lookup('file', 'a', rstrip=false) }}",
            json!({}),
            "`file` was made with other arguments",
        ),
        (
            "{{ lookup('file', 'gone') }}",
            json!({}),
            "`file` failed while building",
        ),
        (
            "{{ lookup('pipe', 'id') }}",
            json!({}),
            "`pipe` was not made like this",
        ),
        (
            "{{ lookup('env', 'API_TOKEN') }}",
            json!({}),
            "`env` answered while building may be a secret",
        ),
        (
            "{{ lookup('password', 'credentials/db') }}",
            json!({}),
            "db_secret",
        ),
        (
            "{{ lookup('password', 'elsewhere') }}",
            json!({}),
            "`password` makes a secret",
        ),
    ] {
        let error = text(template, settings).unwrap_err();
        assert!(error.contains(why), "{template}: {error}");
    }
}

#[test]
fn malformed_records_answer_nothing() {
    for records in [
        json!(1),
        json!([1, null, []]),
        json!([{"name": "file"}]),
        json!([{"name": "file", "terms": "a", "result": ["x"]}]),
        json!([{"name": "file", "terms": ["a"], "options": [], "result": "x"}]),
        json!([{"name": "file", "terms": ["a"], "options": {}, "variables": "x"}]),
    ] {
        let variables = map(json!({FROZEN: records.clone()}));
        let nothing = Variables::new();
        let scope = Scope::new(&nothing, &[&variables]);
        let answer = render_text("{{ lookup('file', 'a') }}", &scope);
        assert!(answer.is_err(), "{records}: {answer:?}");
    }
}

#[test]
fn a_setting_reaches_what_it_answers_for() {
    let template = Template {
        dest: "/out".into(),
        source: "db.j2".into(),
        task: String::new(),
        uid: 0,
        gid: 0,
        mode: "0644".into(),
        body: "{{ lookup('password', 'credentials/db') }}".into(),
        options: Default::default(),
        variables: kept(),
        includes: Default::default(),
        parity: Parity::Identical,
        link: false,
        notify: Vec::new(),
        validate: None,
    };
    assert!(reach::template(&template, &Variables::new()).has("db_secret"));
    let given = map(json!({"db_secret": "S"}));
    assert_eq!(
        render(&template, &Scope::new(&given, &[])).as_deref(),
        Ok("S")
    );
}
