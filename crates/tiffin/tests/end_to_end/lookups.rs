//! Lookups in templates: a start repeats what they answered while building, a setting that
//! would ask something else is refused, and a secret becomes a setting.

use std::{fs, process::Command};

use contract::{Contract, Parity, Variables};
use serde_json::json;

use crate::{
    build::Small,
    harness::{must, must_fail, with_current_ansible},
};

const TEMPLATE: &str = "\
port {{ port }}
file {{ lookup('file', 'words.txt') }}
both {{ query('file', 'words.txt', 'more.txt') | join('+') }}
env {{ lookup('env', 'LOOKUP_MARK') }} {{ lookup('ansible.builtin.env', 'LOOKUP_NONE') | default('unset', true) }}
pipe {{ lookup('pipe', 'echo $((6 * 7))') }}
lines {{ lookup('lines', 'printf \"a\\\\nb\\\\n\"', wantlist=True) }}
ini {{ lookup('ini', 'user section=app file=app.ini') }}
csv {{ lookup('csvfile', 'b file=table.csv delimiter=,') }}
url {{ lookup('url', page) }}
found {{ lookup('first_found', ['files/nowhere.txt', 'files/words.txt']) | basename }}
glob {{ lookup('fileglob', 'files/*.csv') | basename }}
none {{ lookup('file', 'nowhere.txt', errors='ignore') | default('none', true) }}
behind {{ behind }}
inner {{ lookup('template', 'inner.j2') }}
named {{ lookup('vars', 'chosen_' ~ 'one') }}
";

fn rendered(
    contract: &Contract,
    dest: &str,
    settings: serde_json::Value,
) -> Result<String, String> {
    let found = contract.templates.iter().find(|t| t.dest == dest);
    let template = found.unwrap_or_else(|| panic!("{dest} is not captured"));
    assert_eq!(template.parity, Parity::Identical, "{dest}");
    let settings: Variables = settings.as_object().unwrap().clone();
    let scope = jinja::Scope::new(&settings, &[&contract.variables]);
    jinja::render(template, &scope).map_err(|error| error.to_string())
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_start_repeats_what_lookups_answered_to_the_same_arguments() {
    repeated(|_| true);
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_start_repeats_what_lookups_of_a_current_ansible_answered() {
    repeated(with_current_ansible);
}

/// `prepare` says whether the build's Ansible is there.
fn repeated(prepare: impl Fn(&mut Command) -> bool) {
    let small = Small::new(
        "    - template: {src: t.j2, dest: /etc/looked}\n    - template: {src: which.j2, dest: /etc/which}\n    - copy: {content: \"{{ port }} {{ lookup('file', 'words.txt') }}\\n\", dest: /etc/copied}\n",
    );
    let page = format!("file://{}/files/words.txt", small.dir.path().display());
    small.write("t.j2", TEMPLATE);
    small.write("which.j2", "{{ lookup('file', which ~ '.txt') }}\n");
    small.write("inner.j2", "of {{ port }} and {{ only_here }}");
    small.write("files/words.txt", "two {{ words }}\n");
    small.write("files/more.txt", "more\n");
    small.write("files/app.ini", "[app]\nuser=ini-user\n");
    small.write("files/table.csv", "a,1\nb,2\n");
    small.write(
        "group_vars/all.yml",
        &format!("port: 80\nwhich: more\npage: {page}\nonly_here: '{{{{ chosen_one }}}}'\nchosen_one: 'chosen {{{{ port }}}}'\nbehind: \"{{{{ lookup('env', mark) }}}}\"\nmark: LOOKUP_MARK\n"),
    );
    small.write(
        "tiffin.yaml",
        "name: test/small\nplaybook: site.yml\nsettings:\n  PORT: {type: port}\n  WHICH: {}\n  MARK: {}\n",
    );
    let mut build = small.build();
    if !prepare(&mut build) {
        return;
    }
    let said = must_fail(build.env("LOOKUP_MARK", "marked"), 0);
    let contract = small.contract();
    let expected = "\
port 81
file two {{ words }}
both two {{ words }}+more
env marked unset
pipe 42
lines ['a', 'b']
ini ini-user
csv 2
url two {{ words }}
found words.txt
glob table.csv
none none
behind marked
inner of 81 and chosen 81
named chosen 81
";
    assert_eq!(
        rendered(&contract, "/etc/looked", json!({"port": 81})).as_deref(),
        Ok(expected)
    );
    assert_eq!(
        rendered(&contract, "/etc/copied", json!({"port": 81})).as_deref(),
        Ok("81 two {{ words }}\n")
    );
    assert_eq!(
        rendered(&contract, "/etc/which", json!({})).as_deref(),
        Ok("more\n")
    );
    // What was not asked while building is an error that names the lookup, not a guess.
    for (dest, settings, lookup) in [
        (
            "/etc/which",
            json!({"which": "words2"}),
            "the lookup `file` was made with other arguments",
        ),
        (
            "/etc/looked",
            json!({"mark": "HOME"}),
            "the lookup `env` was made with other arguments",
        ),
    ] {
        let error = rendered(&contract, dest, settings).unwrap_err();
        assert!(error.contains(lookup), "{error}");
    }
    // The account said so.
    for line in [
        "WHICH -> /etc/which",
        "what lookups answered for /etc/which",
        "what lookups answered for /etc/looked",
    ] {
        assert!(said.contains(line), "`{line}` is missing:\n{said}");
    }
    let port = said.split("  PORT -> ").nth(1).unwrap();
    let port = port.split("\n  WHICH").next().unwrap();
    assert!(!port.contains("what lookups answered"), "{said}");
}

const SECRETS: &str = r#"
- hosts: all
  gather_facts: false
  vars:
    db_password: "{{ lookup('password', 'credentials/database length=24') }}"
    user: u
  tasks:
    - template: {src: db.j2, dest: /etc/db, mode: "0600"}
    - template: {src: direct.j2, dest: /etc/direct, mode: "0600"}
    - template: {src: vaulted.j2, dest: /etc/vaulted, mode: "0600"}
    - template: {src: pem.j2, dest: /etc/pem, mode: "0600"}
    - template: {src: env.j2, dest: /etc/env, mode: "0600"}
    - template: {src: hidden.j2, dest: /etc/hidden, mode: "0600"}
      no_log: true
"#;

fn secrets() -> Small {
    let small = Small::new("");
    small.write("site.yml", SECRETS);
    small.write("db.j2", "{{ user }}:{{ db_password }}\n");
    small.write(
        "direct.j2",
        "{{ lookup('password', playbook_dir ~ '/credentials/admin chars=digits length=6') }}\n",
    );
    small.write(
        "vaulted.j2",
        "{{ user }} {{ lookup('file', 'server.key') }}\n",
    );
    small.write(
        "env.j2",
        "{{ user }} {{ lookup('env', 'SOME_API_TOKEN') }}\n",
    );
    small.write("hidden.j2", "{{ lookup('pipe', 'cat files/piped') }}\n");
    small.write("files/server.key", "canary9vaulted\n");
    small.write("files/piped", "canary9piped\n");
    small.write("password", "vault\n");
    // Left by an earlier run on a host.
    small.write("credentials/database", "canary9database\n");
    small.write("tiffin.yaml", "name: test/small\nplaybook: site.yml\n");
    small.write("pem.j2", "{{ lookup('file', 'tls.pem') }}\n");
    small.write("files/tls.pem", "-----BEGIN PRIVATE KEY-----\ncanary9pem\n");
    let at = |name: &str| small.dir.path().join(name);
    must(
        Command::new("ansible-vault")
            .args(["encrypt", "--vault-password-file"])
            .arg(at("password"))
            .args([at("files/server.key"), at("files/tls.pem")]),
    );
    small
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_secret_that_a_lookup_answers_becomes_a_setting_or_is_named() {
    let small = secrets();
    let said = must_fail(
        small
            .build()
            .env(
                "ANSIBLE_VAULT_PASSWORD_FILE",
                small.dir.path().join("password"),
            )
            .env("SOME_API_TOKEN", "canary9token"),
        0,
    );
    let text = small.contract_text();
    assert!(
        !text.contains("canary9") && !text.contains("tiffin-placeholder"),
        "{text}"
    );
    assert!(!said.contains("canary9"), "{said}");
    let contract = small.contract();
    let names: Vec<&str> = contract.settings.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["CREDENTIALS_ADMIN", "DB_PASSWORD", "SERVER", "TLS"],
        "{said}"
    );
    assert!(contract.settings.values().all(|setting| setting.secret));
    let setting = |name: &str| {
        let setting = &contract.settings[name];
        (setting.generate, setting.required, setting.files.clone())
    };
    assert_eq!(
        setting("DB_PASSWORD"),
        (Some(24), false, vec!["/etc/db".into()])
    );
    // Letters would not do.
    assert_eq!(
        setting("CREDENTIALS_ADMIN"),
        (None, true, vec!["/etc/direct".into()])
    );
    assert_eq!(setting("SERVER"), (None, true, vec!["/etc/vaulted".into()]));
    assert_eq!(setting("TLS"), (None, true, vec!["/etc/pem".into()]));
    assert_eq!(contract.settings["TLS"].kind, contract::Kind::Key);
    let given = json!({"db_password": "D{{", "credentials_admin": "123456", "server": "K"});
    for (dest, expected) in [
        ("/etc/db", "u:D{{\n"),
        ("/etc/direct", "123456\n"),
        ("/etc/vaulted", "u K\n"),
    ] {
        assert_eq!(
            rendered(&contract, dest, given.clone()).as_deref(),
            Ok(expected)
        );
    }
    for line in [
        "/etc/env stays as Ansible wrote it: cannot render env.j2, line 1: what the lookup `env` answered while building may be a secret",
        "/etc/hidden stays as Ansible wrote it: the task is marked no_log, and nothing says that the lookup `pipe` may be in the box",
    ] {
        assert!(said.contains(line), "`{line}` is missing:\n{said}");
    }
    // The playbook's own passwords were neither read nor made.
    let credentials = small.dir.path().join("credentials");
    assert_eq!(fs::read_dir(credentials).unwrap().count(), 1);
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_secret_of_a_lookup_that_no_template_could_renew_stops_the_build() {
    for (task, why) in [
        (
            "shell: echo {{ lookup('password', 'credentials/app') }} > /etc/app",
            "its value ended in /etc/app",
        ),
        (
            "template: {src: hash.j2, dest: /etc/hash}",
            "its value ended in /etc/hash",
        ),
        (
            "template: {src: pipe.j2, dest: /etc/pipe}",
            "the lookup pipe",
        ),
    ] {
        let small = Small::new(&format!("    - name: hide it\n      {task}\n"));
        small.write(
            "hash.j2",
            "{{ lookup('password', 'credentials/app encrypt=sha512_crypt') }}\n",
        );
        small.write(
            "pipe.j2",
            "{{ lookup('pipe', 'echo ' ~ lookup('password', 'credentials/app') ~ '| md5sum') }}\n",
        );
        let said = must_fail(&mut small.build(), 1);
        assert!(
            said.contains("CREDENTIALS_APP") && said.contains(why),
            "{said}"
        );
    }
}
