//! What a build learns from a playbook: every form of task that writes a file, handlers,
//! vaulted variables and facts.

use std::process::Command;

use contract::{Contract, Parity, Variables};
use serde_json::json;

use crate::{
    build::Small,
    harness::{must, must_fail, output, with_current_ansible},
};

const PLAY: &str = r#"
- hosts: all
  gather_facts: false
  vars:
    port: 6379
    pairs: {first: "{{ port }}", second: two}
    list: ["{{ port }}", b]
    app: {port: "{{ port }}", names: [x, y]}
    ports: [{regexp: "^Listen ", line: "Listen {{ port }}"}]
  handlers:
    - name: write late
      template: {src: t.j2, dest: /etc/t/handler}
    - name: restart app
      listen: app changed
      service: {name: "{{ 'app' }}", state: restarted}
    - name: reload programs
      command: supervisorctl restart worker:one
    - name: of nobody
      service: {name: app, state: restarted}
  tasks:
    - file: {path: /etc/t, state: directory}
    - copy: {src: app.service, dest: /etc/systemd/system/app.service}
    - template: {src: t.j2, dest: /etc/t/short}
      notify: [write late, app changed]
    - ansible.builtin.template: {src: t.j2, dest: /etc/t/fqcn}
      notify: [restart app, reload programs]
    - template: {src: t.j2, dest: "/etc/t/loop-{{ item }}"}
      loop: "{{ list }}"
    - template: {src: t.j2, dest: "/etc/t/items-{{ item }}"}
      with_items: [one, two]
      notify: "acme.stack.web : reload web"
    - template: {src: t.j2, dest: "/etc/t/dict-{{ item.key }}"}
      with_dict: "{{ pairs }}"
    - include_role: {name: local, tasks_from: more}
    - import_role: {name: acme.stack.web}
    - name: to somebody else
      template: {src: t.j2, dest: "{{ playbook_dir }}/delegated"}
      delegate_to: localhost
    - copy: {content: "port={{ port }}\n", dest: /etc/t/content}
    - copy: {content: "{{ app }}", dest: /etc/t/content.json}
    - copy: {content: "keep {{ '{{ this }}' }}\nhost x\n", dest: /etc/t/lines}
    - lineinfile: {path: /etc/t/lines, line: "{{ item.key }} {{ item.value }}"}
      with_dict: "{{ pairs }}"
    - lineinfile: {path: /etc/t/lines, regexp: "^host", line: "host :{{ port }}"}
    - blockinfile: {path: /etc/t/lines, block: "in a block {{ port }}\nand more"}
    - copy: {content: "Listen 80\n", dest: /etc/t/ports}
    - lineinfile: {path: /etc/t/ports, regexp: "{{ item.regexp }}", line: "{{ item.line }}"}
      with_items: "{{ ports }}"
    - name: where the setting says
      lineinfile: {path: "/etc/t/at-{{ port }}", line: "{{ item }} {{ port }}", create: true}
      loop: "{{ list }}"
    - community.general.ini_file: {path: /etc/t/ini, section: s, option: port, value: "{{ port }}"}
    - community.general.ini_file: {path: /etc/t/ini, section: s, option: fixed, value: "no"}
    - name: twice the same
      copy: {content: "6379\n6379\n", dest: /etc/t/twice}
    - name: which of them
      replace: {path: /etc/t/twice, regexp: "6379", replace: "{{ port }}"}
    - name: written and edited
      template: {src: t.j2, dest: /etc/t/edited}
    - name: add a line
      lineinfile: {path: /etc/t/edited, line: fixed}
    - name: a user's shell
      command: "echo {{ port }}"
"#;

fn small() -> Small {
    let small = Small::new("");
    small.write("site.yml", PLAY);
    small.write("t.j2", "port {{ port }}{{ item | default('') }}\n");
    small.write(
        "app.service",
        "[Service]\nExecStart=/bin/sleep 9\n[Install]\nWantedBy=multi-user.target\n",
    );
    small.write(
        "roles/local/tasks/more.yml",
        "- template: {src: role.j2, dest: /etc/t/role}\n",
    );
    small.write("roles/local/templates/role.j2", "{{ own }}\n");
    small.write("roles/local/defaults/main.yml", "own: 'role {{ port }}'\n");
    let web = "collections/ansible_collections/acme/stack/roles/web";
    small.write(
        &format!("{web}/tasks/main.yml"),
        "- ansible.builtin.template: {src: web.j2, dest: /etc/t/collection}\n  notify: reload web\n",
    );
    small.write(&format!("{web}/templates/web.j2"), "web {{ port }}\n");
    small.write(
        &format!("{web}/handlers/main.yml"),
        "- name: reload web\n  ansible.builtin.systemd: {name: app, state: reloaded}\n",
    );
    small.write(
        "tiffin.yaml",
        "name: test/small\nplaybook: site.yml\nsettings:\n  PORT: {type: port}\nservices:\n  app: {ready: {tcp: \"127.0.0.1:{{ port }}\"}}\n",
    );
    small
}

fn rendered(contract: &Contract, dest: &str, settings: serde_json::Value) -> String {
    let found = contract.templates.iter().find(|t| t.dest == dest);
    let template = found.unwrap_or_else(|| panic!("{dest} is not captured"));
    assert_eq!(template.parity, Parity::Identical, "{dest}");
    let settings: Variables = settings.as_object().unwrap().clone();
    let scope = jinja::Scope::new(&settings, &[&contract.variables]);
    jinja::render(template, &scope).unwrap()
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn every_form_of_task_that_writes_a_file_is_captured_or_named() {
    every_form(|_| true);
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn every_form_of_task_is_captured_by_a_current_ansible_too() {
    every_form(with_current_ansible);
}

/// `prepare` says whether the build's Ansible is there.
fn every_form(prepare: impl Fn(&mut Command) -> bool) {
    let small = small();
    let mut build = small.build();
    if !prepare(&mut build) {
        return;
    }
    let out = output(&mut build);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
    let contract = small.contract();
    let port = |dest: &str| rendered(&contract, dest, json!({"port": 7}));
    assert_eq!(port("/etc/t/short"), "port 7\n");
    assert_eq!(port("/etc/t/fqcn"), "port 7\n");
    assert_eq!(port("/etc/t/handler"), "port 7\n");
    // The item is followed too, though the file's name is what it was at build.
    assert_eq!(port("/etc/t/loop-6379"), "port 77\n");
    assert_eq!(port("/etc/t/loop-b"), "port 7b\n");
    assert_eq!(port("/etc/t/items-two"), "port 7two\n");
    assert_eq!(
        port("/etc/t/dict-first"),
        "port 7{'key': 'first', 'value': 7}\n"
    );
    assert_eq!(port("/etc/t/role"), "role 7\n");
    assert_eq!(port("/etc/t/collection"), "web 7\n");
    assert_eq!(port("/etc/t/content"), "port=7\n");
    assert_eq!(
        port("/etc/t/content.json"),
        "{\"port\": 7, \"names\": [\"x\", \"y\"]}"
    );
    assert_eq!(
        port("/etc/t/lines"),
        "keep {{ this }}\nhost :7\nfirst 7\nsecond two\n# BEGIN ANSIBLE MANAGED BLOCK\nin a block 7\nand more\n# END ANSIBLE MANAGED BLOCK\n"
    );
    // Where it stands does not depend on what it says, though one item holds both.
    assert_eq!(port("/etc/t/ports"), "Listen 7\n");
    assert!(port("/etc/t/ini").contains("port = 7\nfixed = no\n"));

    for line in [
        "task `to somebody else` was delegated to localhost",
        "/etc/t/twice: replace: its text stands 2 times in the file",
        "/etc/t/edited stays as Ansible wrote it: the file was changed after the template wrote it, by `add a line` (lineinfile)",
        "/etc/t/at-6379: lineinfile: where it writes depends on `port`",
        "when or how app starts",
        "task `a user's shell` (command)",
    ] {
        assert!(said.contains(line), "`{line}` is missing:\n{said}");
    }
    assert!(
        !contract
            .templates
            .iter()
            .any(|t| t.dest.contains("delegated"))
    );

    let handlers = serde_json::to_value(&contract.handlers).unwrap();
    let app = |action: &str| json!([{"service": "app", "action": action}]);
    assert_eq!(handlers["restart app"], app("restart"));
    assert_eq!(handlers["app changed"], app("restart"));
    assert_eq!(handlers["reload web"], app("reload"));
    assert_eq!(handlers["acme.stack.web : reload web"], app("reload"));
    assert_eq!(handlers.get("of nobody"), None);
    assert_eq!(
        handlers["reload programs"],
        json!([{"service": "one", "action": "restart"}])
    );
    let short = contract.templates.iter().find(|t| t.dest == "/etc/t/short");
    assert_eq!(short.unwrap().notify, ["write late", "app changed"]);
}

const VAULTED: &str = r#"
- hosts: all
  gather_facts: true
  vars:
    user: admin
    hidden: canary9hidden
  tasks:
    - template: {src: secrets.j2, dest: /etc/secrets, mode: "0600"}
      no_log: true
    - template: {src: private.j2, dest: /etc/private, mode: "0600"}
      no_log: true
    - template: {src: user.j2, dest: /etc/user}
    - template: {src: facts.j2, dest: /etc/facts}
"#;
const WHOLE: &str = "whole_token: canary9whole\nwhole_flag: true\n";

fn vaulted() -> Small {
    let small = Small::new("");
    small.write("site.yml", VAULTED);
    // No password opens these: none is asked for.
    let text = "!vault |\n      $ANSIBLE_VAULT;1.1;AES256\n      6361 6e617279\n";
    small.write(
        "group_vars/all/inline.yml",
        &format!("token: {text}db:\n  user: u\n  password: {text}unused: {text}"),
    );
    small.write(
        "secrets.j2",
        "{{ user }} {{ token }} {{ db.user }}:{{ db.password }}{% if whole_flag | default(false) %} {{ whole_token }}{% endif %}\n",
    );
    small.write("private.j2", "{{ hidden }}\n");
    small.write("user.j2", "{{ user }} {{ db.user }}\n");
    small.write(
        "facts.j2",
        "{{ ansible_processor_vcpus }} {{ ansible_facts['memtotal_mb'] }} {{ ansible_default_ipv4.address | default('') }} {{ ansible_hostname }}\n",
    );
    small.write("tiffin.yaml", "name: test/small\nplaybook: site.yml\n");
    small
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_vaulted_value_becomes_a_setting_and_is_nowhere_in_the_box() {
    let small = vaulted();
    let said = must_all(&mut small.build());
    let contract = small.contract();
    let names: Vec<&str> = contract.settings.keys().map(String::as_str).collect();
    assert_eq!(names, ["DB_PASSWORD", "TOKEN"], "{said}");
    assert!(contract.settings.values().all(|s| s.required && s.secret));
    let given = json!({"token": "T", "db_password": "P"});
    assert_eq!(rendered(&contract, "/etc/secrets", given), "admin T u:P\n");

    // The task's variable is nobody's but its own: it stays as it is, and says so.
    assert!(
        said.contains("/etc/private stays") && said.contains("hidden") && said.contains("public"),
        "{said}"
    );
    let text = serde_json::to_string(&contract).unwrap();
    assert!(
        !text.contains("canary9") && !text.contains("tiffin-placeholder"),
        "{text}"
    );

    assert_eq!(
        contract.facts,
        [
            "ansible_default_ipv4",
            "ansible_facts.memtotal_mb",
            "ansible_hostname",
            "ansible_processor_vcpus"
        ]
    );
    assert!(contract.variables["ansible_hostname"].is_null());
    assert!(
        said.contains("computed at each start: ansible_default_ipv4"),
        "{said}"
    );

    small.write(
        "tiffin.yaml",
        "name: test/small\nplaybook: site.yml\npublic: [hidden]\nfrozen_facts: yes\nsettings:\n  DB_SECRET: {variable: db_password, type: secret, generate: 24}\n",
    );
    must_all(&mut small.build());
    let contract = small.contract();
    assert_eq!(
        rendered(&contract, "/etc/private", json!({})),
        "canary9hidden\n"
    );
    assert!(contract.facts.is_empty());
    let secret = &contract.settings["DB_SECRET"];
    assert!(secret.generate == Some(24) && !secret.required);
    assert!(!contract.settings.contains_key("DB_PASSWORD"));
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_file_that_is_vaulted_as_a_whole_gives_its_names_alone() {
    let small = vaulted();
    small.write("group_vars/all/whole.yml", WHOLE);
    small.write(
        "tiffin.yaml",
        "name: test/small\nplaybook: site.yml\npublic: [whole_flag]\n",
    );
    small.write("password", "vault\n");
    let at = |name: &str| small.dir.path().join(name);
    must(
        Command::new("ansible-vault")
            .args(["encrypt", "--vault-password-file"])
            .arg(at("password"))
            .arg(at("group_vars/all/whole.yml")),
    );
    let said = must_fail(&mut small.build(), 1);
    assert!(said.contains("vault"), "{said}");
    must_all(
        small
            .build()
            .env("ANSIBLE_VAULT_PASSWORD_FILE", at("password")),
    );
    let contract = small.contract();
    assert!(contract.settings.contains_key("WHOLE_TOKEN"));
    let given = json!({"token": "T", "db_password": "P", "whole_token": "W"});
    assert_eq!(
        rendered(&contract, "/etc/secrets", given),
        "admin T u:P W\n"
    );
    assert!(
        !serde_json::to_string(&contract)
            .unwrap()
            .contains("canary9whole")
    );
}

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn a_secret_that_a_task_hashes_stops_the_build() {
    let settings = "settings:\n  TOKEN: {type: secret, generate: 32}\n";
    for task in [
        "user: {name: app, password: \"{{ token | password_hash('sha512', 'salt') }}\"}",
        "shell: echo {{ token | hash('sha1') }} > /etc/hash",
        "set_fact: {digest: \"{{ token | md5 }}\"}",
    ] {
        let small = Small::new(&format!("    - name: hide it\n      {task}\n"));
        small.write(
            "tiffin.yaml",
            &format!("name: test/small\nplaybook: site.yml\n{settings}"),
        );
        let said = must_fail(&mut small.build(), 1);
        assert!(
            said.contains("TOKEN") && said.contains("task `hide it`"),
            "{said}"
        );
    }
    // A start can do that again.
    let small = Small::new("    - template: {src: hash.j2, dest: /etc/hash}\n");
    small.write("hash.j2", "{{ token | hash('sha1') }}\n");
    small.write(
        "tiffin.yaml",
        &format!("name: test/small\nplaybook: site.yml\n{settings}"),
    );
    must_all(&mut small.build());
}

/// Both streams of a command that must succeed.
fn must_all(command: &mut Command) -> String {
    must_fail(command, 0)
}
