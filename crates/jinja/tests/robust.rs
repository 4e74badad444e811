//! What must hold for any template and any value: no panic, no value in an error.

use contract::{Parity, Template, Variables};
use jinja::{Scope, evaluate, render, render_text, supported};
use proptest::prelude::*;
use serde_json::{Value, json};

const CANARY: &str = "hunter2-canary";

fn template(body: &str) -> Template {
    Template {
        dest: "/out".into(),
        source: "redis.conf.j2".into(),
        task: String::new(),
        uid: 0,
        gid: 0,
        mode: "0644".into(),
        body: body.to_owned(),
        options: Default::default(),
        variables: Variables::new(),
        includes: Default::default(),
        parity: Parity::Identical,
        link: false,
        notify: Vec::new(),
        validate: None,
    }
}

fn variables(value: Value) -> Variables {
    value.as_object().cloned().unwrap_or_default()
}

#[test]
fn errors_never_hold_values() {
    let vars = variables(json!({
        "secret": CANARY,
        "list": [CANARY],
        "map": { CANARY: CANARY },
        "bad": format!("{{{{ '{CANARY}' {CANARY} +"),
        "worse": format!("{CANARY} {{% {CANARY} %}}"),
        "loop_a": format!("{CANARY}{{{{ loop_b }}}}"),
        "loop_b": format!("{CANARY}{{{{ loop_a }}}}"),
    }));
    let settings = Variables::new();
    let scope = Scope::new(&settings, &[&vars]);
    let bodies = [
        "{{ secret + 1 }}",
        "{{ secret - list }}",
        "{{ secret / 2 }}",
        "{{ map[secret].x }}",
        "{{ nope[secret] }}",
        "{{ secret | from_json }}",
        "{{ secret | from_yaml | combine({}) }}",
        "{{ secret | int + list }}",
        "{{ bad }}",
        "{{ worse }}",
        "{{ loop_a }}",
        "{{ secret.nope() }}",
        "{{ secret() }}",
        "{{ list | sum }}",
        "{{ secret | regex_search('(') }}",
        "{{ 'x' | regex_search(secret ~ '(') }}",
        "{{ secret | b64decode }}",
        "{{ secret | to_datetime }}",
        "{% include secret %}",
        "{% set a, b = list %}",
        "{{ secret % (1, 2) }}",
        "{{ secret.format(1)[99] }}",
        "{{ list.index(1) }}",
        "{{ map.pop(1) }}",
        "{{ secret < 1 }}",
        "{{ range(secret) }}",
        "{{ lookup(secret) }}",
        "{{ secret | human_to_bytes }}",
        "{{ 'x' is version(secret, secret) }}",
        "{{ lookup('file', '/' ~ secret) }}",
        "{% for x in 1 %}{% endfor %}{{ secret }}",
        "{{ secret is nope }}",
        "{{ secret | nope }}",
        "{{ namespace(secret) }}",
        "{{ dict(secret) }}",
        "{{ list | map(secret) | list }}",
    ];
    for body in bodies {
        if let Err(error) = render(&template(body), &scope) {
            for shown in [
                format!("{error}"),
                format!("{error:?}"),
                format!("{error:#}"),
            ] {
                let allowed = body.contains("lookup(secret)") || body.contains("map(secret)");
                assert!(allowed || !shown.contains(CANARY), "{body}: {shown}");
            }
        }
    }
}

#[test]
fn errors_say_what_where_and_why() {
    let vars = variables(json!({ "url": "redis://{{ host }}", "a": "{{ b }}", "b": "{{ a }}" }));
    let settings = Variables::new();
    let scope = Scope::new(&settings, &[&vars]);
    let error = |body: &str| render(&template(body), &scope).unwrap_err().to_string();
    assert_eq!(
        error("one\n{{ nope }}\n"),
        "cannot render redis.conf.j2, line 2: nope is undefined"
    );
    assert!(error("{{ a }}").contains("a -> b -> a"));
    assert!(error("{{ url }}").contains("host"));
    assert!(error("{{ x | to_toml }}").contains("to_toml"));
}

#[test]
fn settings_are_literal_and_win() {
    let vars = variables(json!({ "pw": "default", "conf": "pass={{ pw }}", "n": 1 }));
    let settings = variables(json!({ "pw": "{{ 7 * 7 }}" }));
    let scope = Scope::new(&settings, &[&vars]);
    assert_eq!(
        render_text("{{ conf }}!", &scope).unwrap(),
        "pass={{ 7 * 7 }}!"
    );
    let mut own = template("{{ pw }} {{ n }}");
    own.variables = variables(json!({ "pw": "task", "n": 2 }));
    assert_eq!(render(&own, &scope).unwrap(), "{{ 7 * 7 }} 2");
}

#[test]
fn expressions_keep_their_type() {
    let vars = variables(json!({ "host": "127.0.0.1", "on": true, "port": 1 }));
    let settings = Variables::new();
    let scope = Scope::new(&settings, &[&vars]);
    assert_eq!(
        evaluate("host in ['127.0.0.1']", &scope).unwrap(),
        json!(true)
    );
    assert_eq!(
        evaluate("{'a': [port, 1.5, none]}", &scope).unwrap(),
        json!({"a": [1, 1.5, null]})
    );
    assert!(evaluate("nope", &scope).is_err());
    assert!(evaluate("nope == 1", &scope).is_err());
    assert!(evaluate("true if nope else false", &scope).is_err());
    assert_eq!(evaluate("nope.x.y | default(3)", &scope).unwrap(), json!(3));
}

#[test]
fn every_kind_is_listed() {
    let all = supported();
    for (kind, name) in [
        ("filter", "to_nice_yaml"),
        ("test", "version"),
        ("function", "range"),
        ("lookup", "template"),
    ] {
        assert!(
            all.iter().any(|(k, n)| *k == kind && n == name),
            "{kind} {name}"
        );
    }
}

#[test]
fn nesting_is_refused_before_the_stack_ends() {
    let settings = Variables::new();
    let scope = Scope::new(&settings, &[]);
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("-", ""),
        ("not ", ""),
        ("{1:", "}"),
    ] {
        let text = format!("{}1{}", open.repeat(5000), close.repeat(5000));
        let _ = evaluate(&text, &scope);
    }
    let _ = evaluate(&format!("1{}", " + 1".repeat(3000)), &scope);
    let _ = evaluate(&format!("1{}", " or 1".repeat(3000)), &scope);
    let _ = evaluate(&format!("x{}", ".a".repeat(3000)), &scope);
    let _ = evaluate(&format!("1{}", "|abs".repeat(3000)), &scope);
    let _ = render_text(&"{% if 1 %}".repeat(3000), &scope);
    let _ = render_text(
        "{% set l = [] %}{% set _ = l.append(l) %}{{ l }}{{ l == l }}{{ l | to_json }}",
        &scope,
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6).prop_map(Value::from_iter),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn writing_values_never_panics(value in any_json()) {
        let settings = variables(json!({ "v": value }));
        let scope = Scope::new(&settings, &[]);
        for body in ["{{ v }}", "{{ v | to_json }}", "{{ v | to_nice_json }}", "{{ v | to_yaml }}", "{{ v | to_nice_yaml }}", "{{ v | string | literal }}"] {
            let _ = render(&template(body), &scope);
        }
        let back = evaluate("v | to_json | from_json == v", &scope);
        prop_assert!(back.is_err() || back == Ok(json!(true)), "to_json does not read back");
    }

    #[test]
    fn any_text_is_rendered_or_refused(text in "\\PC{0,40}") {
        let settings = Variables::new();
        let scope = Scope::new(&settings, &[]);
        let _ = render(&template(&text), &scope);
        let _ = evaluate(&text, &scope);
        let _ = render_text(&format!("{{{{ {text} }}}}{{% if {text} %}}x{{% endif %}}"), &scope);
    }
}
