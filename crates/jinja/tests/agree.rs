//! Random variables and expressions mean the same to Ansible and to this crate.
//!
//! One long-lived `tests/expected.py --stream` answers for Ansible; without an installed
//! Ansible there is nothing to compare with, which only a machine that is no CI may say.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use contract::{Parity, Template, Variables};
use jinja::Scope;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

struct Ansible {
    process: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Ansible {
    fn start() -> Option<Ansible> {
        let python = "/usr/bin/python3";
        let there = Command::new(python)
            .args(["-c", "import ansible.template"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !there {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must have Ansible: ci/setup test installs it"
            );
            return None;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/expected.py");
        let mut process = Command::new(python)
            .args([script, "--stream"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Ansible {
            questions: process.stdin.take(),
            answers: BufReader::new(process.stdout.take().unwrap()),
            process,
        })
    }

    /// The text that Ansible renders; `None` where it refuses.
    fn render(&mut self, template: &str, variables: &Variables) -> Option<String> {
        let case = json!({ "template": template, "variables": variables });
        let questions = self.questions.as_mut().unwrap();
        writeln!(questions, "{case}").unwrap();
        questions.flush().unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).expect("Ansible answers each case");
        answer["text"].as_str().map(str::to_owned)
    }
}

impl Drop for Ansible {
    fn drop(&mut self) {
        drop(self.questions.take());
        let _ = self.process.wait();
    }
}

fn ours(template: &str, variables: &Variables) -> Result<String, jinja::Error> {
    let settings = Variables::new();
    let template = Template {
        dest: "/out".into(),
        source: "case.j2".into(),
        task: String::new(),
        uid: 0,
        gid: 0,
        mode: "0644".into(),
        body: template.to_owned(),
        options: Default::default(),
        variables: Variables::new(),
        includes: Default::default(),
        parity: Parity::Identical,
        link: false,
        notify: Vec::new(),
        validate: None,
    };
    jinja::render(&template, &Scope::new(&settings, &[variables]))
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,6}",
        "[ a-zA-Z0-9:#'\"\\-_./,=%@é\n]{0,12}",
        Just("yes".to_owned()),
        Just("0123".to_owned()),
        Just("1.5".to_owned()),
        Just("10.1.2.3/24".to_owned()),
        Just("2026-11-21 10:20:30".to_owned()),
        Just("/srv/data/app.conf".to_owned()),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-20i64..2000).prop_map(Value::from),
        Just(json!(1.5)),
        Just(json!(1e20)),
        text().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-d]|[a-z ]{1,6}", inner), 0..4)
                .prop_map(|items| Value::Object(items.into_iter().collect())),
        ]
    })
}

const NAMES: [&str; 4] = ["one", "two", "three", "four"];

const FILTERS: &[&str] = &[
    "abs",
    "b64encode",
    "basename",
    "batch(2) | list",
    "bool",
    "capitalize",
    "center(9)",
    "combine({'x': 1})",
    "comment",
    "count",
    "default('d')",
    "default('d', true)",
    "dict2items",
    "dictsort",
    "dirname",
    "difference([1, 'a'])",
    "first",
    "flatten",
    "float",
    "format(1)",
    "from_json",
    "from_yaml",
    "hash('sha256')",
    "human_readable",
    "human_to_bytes",
    "indent(2)",
    "int",
    "int(7)",
    "intersect(['a', 1])",
    "items2dict",
    "join(',')",
    "last",
    "length",
    "list",
    "lower",
    "map('string') | list",
    "map('upper') | join",
    "max",
    "md5",
    "min",
    "quote",
    "regex_escape",
    "regex_findall('[a-z]')",
    "regex_replace('a(.)', 'b\\\\1')",
    "regex_search('[0-9]+')",
    "reject('none') | list",
    "replace('a', 'bb')",
    "reverse | list",
    "round",
    "round(1)",
    "select | list",
    "sort",
    "split(',')",
    "split",
    "splitext",
    "string",
    "sum",
    "symmetric_difference(['a'])",
    "ternary('y', 'n')",
    "title",
    "to_json",
    "to_nice_json",
    "to_nice_json(indent=2)",
    "to_nice_yaml",
    "to_nice_yaml(indent=2)",
    "to_uuid",
    "to_yaml",
    "tojson",
    "trim",
    "truncate(5)",
    "union(['a', 2])",
    "unique",
    "upper",
    "urlencode",
    "urlsplit",
    "wordcount",
    "wordwrap(5)",
    "zip([1, 2]) | list",
    "product([1, 2]) | list",
    "groupby('a')",
    "selectattr('a', 'defined') | list",
    "map(attribute='a') | list",
    "to_datetime",
    "strftime(0)",
    "path_join",
    "relpath('/srv')",
    "ansible.utils.ipaddr('network')",
    "random(seed='s')",
    "shuffle(seed='s')",
    "pprint",
    "zip_longest([1], fillvalue=0) | list",
    "regex_replace('^', '> ')",
    "slice(2) | list",
    "map('default', 'x') | list",
    "extract({'a': 1})",
    "checksum",
    "e",
    "xmlattr",
    "striptags",
    "b64encode | b64decode",
    "to_json | from_json",
    "to_yaml | from_yaml",
];

const TESTS: &[&str] = &[
    "defined",
    "none",
    "string",
    "number",
    "mapping",
    "sequence",
    "iterable",
    "boolean",
    "integer",
    "float",
    "true",
    "false",
    "truthy",
    "falsy",
    "even",
    "odd",
    "divisibleby(3)",
    "match('a')",
    "search('1')",
    "regex('[a-z]$')",
    "version('1.2', '<')",
    "contains('a')",
    "in ['a', 1]",
    "subset([1, 'a'])",
    "superset([1])",
    "lower",
    "upper",
    "url",
    "sameas true",
    "eq(1)",
    "gt(3)",
];

const METHODS: &[&str] = &[
    "upper()",
    "split()",
    "split('a')",
    "strip()",
    "replace('a', 'b')",
    "startswith('a')",
    "items() | list",
    "keys() | list",
    "values() | list",
    "get('a')",
    "get('zz', 5)",
    "title()",
    "format(1, a=2)",
    "join(['x', 'y'])",
    "splitlines()",
    "zfill(6)",
    "count('a')",
    "find('b')",
    "ljust(5)",
    "partition(':')",
    "rsplit('.', 1)",
    "isdigit()",
    "index(1)",
    "copy()",
];

fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => prop::sample::select(NAMES.to_vec()).prop_map(str::to_owned),
        1 => (0i64..100).prop_map(|number| number.to_string()),
        1 => Just("'text'".to_owned()),
        1 => Just("[1, 'a', none]".to_owned()),
        1 => Just("{'a': 1, 'b': [true]}".to_owned()),
        1 => Just("missing".to_owned()),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        let filters = prop::sample::select(FILTERS.to_vec());
        let tests = prop::sample::select(TESTS.to_vec());
        let methods = prop::sample::select(METHODS.to_vec());
        let operators = prop::sample::select(vec![
            "+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", ">=", "in", "and", "or",
        ]);
        prop_oneof![
            6 => (inner.clone(), filters).prop_map(|(value, filter)| format!("{value} | {filter}")),
            2 => (inner.clone(), tests).prop_map(|(value, test)| format!("({value}) is {test}")),
            2 => (inner.clone(), methods).prop_map(|(value, method)| format!("({value}).{method}")),
            3 => (inner.clone(), operators, inner.clone())
                .prop_map(|(left, operator, right)| format!("({left}) {operator} ({right})")),
            1 => (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a} if {b} else {c})")),
            1 => inner.clone().prop_map(|value| format!("({value})[0]")),
            1 => inner.clone().prop_map(|value| format!("({value}).a")),
            1 => inner.clone().prop_map(|value| format!("({value})[1:]")),
            1 => inner.prop_map(|value| format!("[{value}, 1]")),
        ]
    })
}

fn template() -> impl Strategy<Value = String> {
    prop_oneof![
        expression().prop_map(|value| format!("{{{{ {value} }}}}\n")),
        expression().prop_map(|value| format!("a {{{{ {value} }}}} b")),
        (expression(), expression()).prop_map(|(condition, value)| format!(
            "{{% if {condition} %}}\n{{{{ {value} }}}}\n{{% else %}}\nno\n{{% endif %}}\n"
        )),
        (expression(), expression()).prop_map(|(list, value)| format!(
            "{{% for item in {list} %}}\n- {{{{ item }}}} {{{{ loop.index }}}} {{{{ {value} }}}}\n{{% endfor %}}\n"
        )),
        (expression(), expression()).prop_map(|(first, second)| format!(
            "{{% set x = {first} %}}\n{{{{ x }}}} {{{{ x | default({second}) }}}}\n"
        )),
    ]
}

#[test]
fn ansible_and_this_crate_agree() {
    let Some(mut ansible) = Ansible::start() else {
        eprintln!("skipped: no Ansible is installed");
        return;
    };
    let cases = std::env::var("AGREE_CASES").map_or(600, |cases| cases.parse().unwrap());
    let config = Config {
        cases,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    };
    let variables = (
        prop::collection::vec(value(), 2),
        expression(),
        expression(),
        template(),
    );
    let collect = std::env::var_os("AGREE_CASES").is_some();
    let (mut rendered, mut errors) = (0, Vec::new());
    let ansible = std::cell::RefCell::new(&mut ansible);
    let counts = std::cell::RefCell::new((&mut rendered, &mut errors));
    // The same cases in every run, so that a change is judged by itself; AGREE_CASES explores.
    let mut runner = if collect {
        TestRunner::new(config)
    } else {
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        TestRunner::new_with_rng(config, rng)
    };
    let result = runner.run(&variables, |(values, three, four, template)| {
        let mut variables = Variables::new();
        for (name, value) in NAMES.iter().zip(values) {
            variables.insert((*name).to_owned(), value);
        }
        // Variables that refer to variables, but not to themselves.
        let three = three.replace("three", "one").replace("four", "two");
        let four = four.replace("four", "three");
        variables.insert("three".into(), json!(format!("{{{{ {three} }}}}")));
        variables.insert("four".into(), json!(format!("v {{{{ {four} }}}}")));
        let Some(theirs) = ansible.borrow_mut().render(&template, &variables) else {
            // What Ansible refuses no build has written.
            let _ = ours(&template, &variables);
            return Ok(());
        };
        let mut counts = counts.borrow_mut();
        *counts.0 += 1;
        match ours(&template, &variables) {
            Ok(text) if collect && text != theirs => {
                counts.1.push(format!(
                    "DIFFERS {template:?} {variables:?}\n  {text:?}\n  {theirs:?}"
                ));
            }
            Ok(text) => prop_assert_eq!(text, theirs, "{} {:?}", template, variables),
            Err(error) => counts.1.push(format!("{template:?} {error}")),
        }
        Ok(())
    });
    if let Err(problem) = result {
        panic!("{problem}");
    }
    if collect {
        eprintln!(
            "{rendered} rendered, {} errors\n{}",
            errors.len(),
            errors.join("\n")
        );
    }
    assert!(
        rendered > cases as usize / 10,
        "too few cases are rendered: {rendered}"
    );
    // An error leaves a file as Ansible wrote it; it must stay the exception.
    assert!(
        errors.len() * 20 <= rendered,
        "{} of {rendered} cases end in an error:\n{}",
        errors.len(),
        errors.join("\n")
    );
}
