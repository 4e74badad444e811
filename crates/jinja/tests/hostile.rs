//! No template hangs, crashes or exhausts memory: it ends in text or in an error.

use contract::{Parity, Template, Variables};
use jinja::{Scope, render};
use serde_json::json;

fn run(body: &str) -> Result<String, jinja::Error> {
    let settings = Variables::new();
    let variables = json!({
        "items_": [1, 2, 3], "on": true, "l": ["a"], "d": [{"n": 1}], "s": "text",
        "loop_a": "{{ loop_b }}", "loop_b": "{{ loop_c }}", "loop_c": "{{ loop_a }}",
    });
    let variables = variables.as_object().cloned().unwrap();
    let template = Template {
        dest: "/out".into(),
        source: "hostile.j2".into(),
        task: String::new(),
        uid: 0,
        gid: 0,
        mode: "0644".into(),
        body: body.to_owned(),
        options: Default::default(),
        variables: Variables::new(),
        includes: [
            ("self.j2", "{% include 'self.j2' %}"),
            ("look.j2", "{{ lookup('template', 'look.j2') }}"),
        ]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into(),
        parity: Parity::Identical,
        link: false,
        notify: Vec::new(),
        validate: None,
    };
    render(&template, &Scope::new(&settings, &[&variables]))
}

/// In kB, the most that this process has held.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn bombs_end_in_an_error() {
    let grow = "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}";
    let lists = "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}";
    let long = "0123456789".repeat(20);
    let bombs = [
        "{{ range(10 ** 12) | list }}".to_owned(),
        "{{ range(1000000) | unique | length }}".into(),
        "{% for i in range(1000000) %}{% for j in range(1000000) %}{% endfor %}{% endfor %}".into(),
        "{% set r = range(100000) %}{% for i in r %}{% for j in r %}x{% endfor %}{% endfor %}".into(),
        format!("{{% set r = range(900000) %}}{{% for i in r %}}{{% for j in r %}}{long}{{% endfor %}}{{% endfor %}}"),
        "{{ 'x' * 10 ** 12 }}".into(),
        "{{ [1] * 10 ** 12 }}".into(),
        "{{ 2 ** 100000000 }}".into(),
        "{{ '%999999999d' % 1 }}".into(),
        "{{ '%*d' % (999999999, 1) }}".into(),
        "{{ '{:999999999}'.format(1) }}".into(),
        "{{ ('a' * 10 ** 7).replace('a', 'b' * 10 ** 7) }}".into(),
        "{{ ('a' * 10 ** 7) | replace('', 'b' * 10 ** 7) }}".into(),
        "{{ range(100000) | join('a' * 10 ** 7) }}".into(),
        "{{ ('a\n' * 10 ** 7) | indent(10000) }}".into(),
        "{{ ('a' * 10 ** 7) | regex_replace('a', 'b' * 10 ** 6) }}".into(),
        "{{ ('a' * 10 ** 8) | list | length }}".into(),
        "{{ ('a\n' * 10 ** 7) | comment(decoration='x' * 10 ** 6) }}".into(),
        "{{ ('a ' * 10 ** 7) | wordwrap(1, wrapstring='x' * 10 ** 6) }}".into(),
        "{{ range(1000) | product(range(1000), range(1000)) | list }}".into(),
        "{{ range(60) | permutations(40) | list }}".into(),
        "{{ query('nested', range(1000), range(1000), range(1000)) }}".into(),
        "{{ query('sequence', 'start=1 end=999999999999') }}".into(),
        format!("{grow}{{% set ns.x = ns.x ~ ns.x %}}{{% endfor %}}{{{{ ns.x | length }}}}"),
        format!("{grow}{{% set ns.x = ns.x + ns.x %}}{{% endfor %}}{{{{ ns.x | length }}}}"),
        format!("{lists}{{% set ns.x = ns.x + ns.x %}}{{% endfor %}}{{{{ ns.x | length }}}}"),
        format!("{lists}{{% set ns.x = [ns.x, ns.x] %}}{{% endfor %}}{{{{ ns.x }}}}"),
        format!("{lists}{{% set ns.x = [ns.x, ns.x] %}}{{% endfor %}}{{{{ ns.x | to_json }}}}"),
        format!("{lists}{{% set ns.x = [ns.x, ns.x] %}}{{% endfor %}}{{{{ ns.x | to_nice_yaml }}}}"),
        format!("{lists}{{% set ns.x = [ns.x, ns.x] %}}{{% endfor %}}{{{{ ns.x | flatten | length }}}}"),
        format!("{lists}{{% set ns.x = {{'a': ns.x, 'b': ns.x}} %}}{{% endfor %}}{{{{ ns.x == [ns.x] or ns.x | hash }}}}"),
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}".into(),
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}".into(),
        "{% include 'self.j2' %}".into(),
        "{{ lookup('template', 'look.j2') }}".into(),
        "{{ loop_a }}".into(),
        "{{ 'x' | password_hash(salt='a', rounds=999999999) }}".into(),
        "{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab' | regex_search('^((a+)+)\\\\1$') }}{{ nope }}".into(),
        "{{ 'a' | regex_search('(((a{1000}){1000}){1000})') }}".into(),
        "{% set l = [] %}{% for i in range(1000000) %}{% set _ = l.append('x' * 100000) %}{% endfor %}".into(),
    ];
    for bomb in &bombs {
        let answer = run(bomb);
        assert!(answer.is_err(), "not refused: {bomb:.200}");
    }
    assert!(peak() < 3_000_000, "{} kB were needed", peak());
}

#[test]
fn the_chain_of_a_recursion_is_named() {
    let error = run("{{ loop_a }}").unwrap_err().to_string();
    assert!(
        error.contains("loop_a -> loop_b -> loop_c -> loop_a"),
        "{error}"
    );
}

/// Each of these is wrong for Jinja, too.
#[test]
fn five_hundred_malformed_templates_end_in_an_error() {
    let openings = [
        "{{",
        "{%",
        "{{ s |",
        "{% if",
        "{% for x in",
        "{{ s[",
        "{{ (",
        "{{ 'a",
        "{% set",
        "{#",
    ];
    let middles = [
        "", " ", "s", "1 +", "| |", "s..x", "][", "not", "in in", "\"", "**", "s(", "{", "is",
        "x =", "@", "s if", ",,", "0x", "$s", "~", "% }", "else", "\u{1}", "é é",
    ];
    let endings = ["", "}", "%", "{{", " endfor"];
    let (mut count, mut accepted) = (0, Vec::new());
    for opening in openings {
        for middle in middles {
            for ending in endings {
                let body = format!("text {opening} {middle} {ending}");
                count += 1;
                if run(&body).is_ok() {
                    accepted.push(body);
                }
            }
        }
    }
    for (open, close) in [
        ("{% if on %}", "{% endfor %}"),
        ("{% for x in l %}", "{% endif %}"),
        ("{% macro m() %}", ""),
    ] {
        count += 1;
        if run(&format!("{open}x{close}")).is_ok() {
            accepted.push(open.to_owned());
        }
    }
    assert!(count >= 500, "{count}");
    assert!(accepted.is_empty(), "accepted: {accepted:?}");
}

#[test]
fn mutated_templates_end_in_text_or_error() {
    let sources = [
        include_str!("cases/blocks.yaml"),
        include_str!("cases/lists.yaml"),
        include_str!("cases/more.yaml"),
        include_str!("cases/strings.yaml"),
    ];
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    for round in 0..600 {
        let mut chars: Vec<char> = sources[round % sources.len()].chars().collect();
        for _ in 0..=next(6) {
            let at = next(chars.len());
            match next(5) {
                0 => drop(chars.remove(at)),
                1 => chars.insert(
                    at,
                    [
                        '{', '}', '%', '(', ']', '|', '"', '\\', '-', '.', '\u{1}', 'é',
                    ][next(12)],
                ),
                2 => chars.truncate(at.max(1)),
                3 => chars.extend_from_within(at..(at + 40).min(chars.len())),
                _ => {
                    let other = next(chars.len());
                    chars.swap(at, other);
                }
            }
        }
        let text: String = chars.into_iter().collect();
        let _ = run(&text);
    }
}
