//! Runs `ansible-playbook` on the build machine against a sandbox.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use recipe::{Layer, Recipe};
use serde_json::Value;

use crate::{
    Progress,
    error::{Error, Result},
    interrupt, reads,
    sandbox::Sandbox,
};

/// The name of the one host that every play of a bake runs on.
pub const HOST: &str = "box";

/// What watches a play; the first is started, the others lie beside it.
const LAUNCHER: [(&str, &str); 10] = [
    ("launcher.py", include_str!("../assets/launcher.py")),
    ("tiffin_carry.py", include_str!("../assets/tiffin_carry.py")),
    (
        "tiffin_closure.py",
        include_str!("../assets/tiffin_closure.py"),
    ),
    (
        "tiffin_compiled.py",
        include_str!("../assets/tiffin_compiled.py"),
    ),
    ("tiffin_edits.py", include_str!("../assets/tiffin_edits.py")),
    (
        "tiffin_handlers.py",
        include_str!("../assets/tiffin_handlers.py"),
    ),
    (
        "tiffin_lookups.py",
        include_str!("../assets/tiffin_lookups.py"),
    ),
    ("tiffin_reads.py", include_str!("../assets/tiffin_reads.py")),
    (
        "tiffin_records.py",
        include_str!("../assets/tiffin_records.py"),
    ),
    ("tiffin_vault.py", include_str!("../assets/tiffin_vault.py")),
];
const CONNECTION: &str = include_str!("../assets/connection/tiffin.py");
/// Where a system's Python may lie: the usual place, and that of Red Hat's family for its own
/// programs alone.
const PYTHONS: [&str; 2] = ["/usr/bin/python3", "/usr/libexec/platform-python"];
const MACHINE: &str = include_str!("../assets/bin/machine");
const STAND_INS: [(&str, &str); 9] = [
    ("brought-along", include_str!("../assets/bin/brought-along")),
    ("systemctl", include_str!("../assets/bin/systemctl")),
    ("service", include_str!("../assets/bin/service")),
    ("supervisorctl", include_str!("../assets/bin/supervisorctl")),
    ("hostnamectl", MACHINE),
    ("sysctl", MACHINE),
    ("mount", MACHINE),
    ("umount", MACHINE),
    ("ufw", MACHINE),
];
/// How much of a failing task's output is kept.
const OUTPUT_LINES: usize = 200;

/// Everything that runs in a bake besides the playbook: part of each layer's key.
pub fn assets() -> Vec<&'static str> {
    STAND_INS
        .iter()
        .chain(&LAUNCHER)
        .map(|(_, text)| *text)
        .chain([CONNECTION])
        .collect()
}

/// The box's own Python, which runs modules and stand-ins. Where there is none yet, tasks can
/// only be `raw`, and may install the usual one.
pub fn python(sandbox: &Sandbox) -> &'static str {
    let there = |path: &&str| sandbox.open_file(path).is_ok();
    PYTHONS.into_iter().find(there).unwrap_or(PYTHONS[0])
}

/// Writes the stand-ins into `bin`, which is first on the PATH in the sandbox.
pub fn write_stand_ins(bin: &Path, python: &str) -> Result<()> {
    for (name, text) in STAND_INS {
        let path = bin.join(name);
        let text = text.replacen(PYTHONS[0], python, 1);
        fs::write(&path, text).map_err(Error::io("write", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(Error::io("write", &path))?;
    }
    Ok(())
}

pub struct Ansible<'a> {
    recipe: &'a Recipe,
    /// The interpreter that Ansible is installed for.
    python: PathBuf,
    pub version: String,
    /// This build's own, with it gone.
    pub dir: PathBuf,
    /// The last is this build's own, of the box.
    inventories: Vec<PathBuf>,
    /// Of the inventory: all that the one host is in.
    pub groups: Vec<String>,
    variables: PathBuf,
}

impl<'a> Ansible<'a> {
    /// Writes what Ansible reads below `dir`: plugin, inventory, variables.
    pub fn prepare(
        recipe: &'a Recipe,
        dir: &Path,
        variables: &serde_json::Map<String, Value>,
    ) -> Result<Ansible<'a>> {
        let program = find_program("ansible-playbook").ok_or_else(|| Error::Spawn {
            program: "ansible-playbook".into(),
            source: std::io::Error::from(std::io::ErrorKind::NotFound),
        })?;
        let python = interpreter(&program)?;
        let out = Command::new(&python)
            .args([
                "-c",
                "import ansible, jinja2; print(ansible.__version__, jinja2.__version__)",
            ])
            .output()
            .map_err(|source| Error::Spawn {
                program: python.display().to_string(),
                source,
            })?;
        let version = String::from_utf8_lossy(&out.stdout).trim().to_owned();

        let write = |path: &Path, text: &str| -> Result<()> {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(Error::io("make", parent))?;
            }
            fs::write(path, text).map_err(Error::io("write", path))?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))
                .map_err(Error::io("write", path))
        };
        for (name, text) in LAUNCHER {
            write(&dir.join(name), text)?;
        }
        write(&dir.join("connection/tiffin.py"), CONNECTION)?;
        let file = dir.join("variables.json");
        write(&file, &Value::Object(variables.clone()).to_string())?;

        let mut ansible = Ansible {
            recipe,
            python,
            version,
            dir: dir.to_owned(),
            inventories: Vec::new(),
            groups: Vec::new(),
            variables: file,
        };
        if let Some(inventory) = &recipe.inventory {
            ansible.inventories.push(inventory.clone());
        }
        let groups = if recipe.groups.is_empty() {
            ansible.inventory_groups()?
        } else {
            recipe.groups.clone()
        };
        let own = dir.join("inventory/box.json");
        write(&own, &inventory(&groups, PYTHONS[0]).to_string())?;
        ansible.inventories.push(own);
        ansible.groups = groups;
        Ok(ansible)
    }

    /// All groups of the recipe's inventory: the box is every host of the stage at once.
    fn inventory_groups(&self) -> Result<Vec<String>> {
        let Some(inventory) = &self.recipe.inventory else {
            return Ok(Vec::new());
        };
        let mut command = self.command();
        command
            .args(["-m", "ansible", "inventory", "--list", "-i"])
            .arg(inventory);
        let out = command.output().map_err(|source| Error::Spawn {
            program: "ansible-inventory".into(),
            source,
        })?;
        if !out.status.success() {
            return Err(Error::Playbook {
                layer: "inventory".into(),
                task: format!("reading {}", inventory.display()),
                output: String::from_utf8_lossy(&out.stderr).into_owned(),
                command: format!("ansible-inventory --list -i {}", inventory.display()),
                hint: None,
            });
        }
        let listed: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        let groups = listed
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone());
        Ok(groups
            .filter(|name| !["_meta", "all", "ungrouped"].contains(&name.as_str()))
            .collect())
    }

    fn directory(&self) -> &Path {
        self.recipe.playbook.parent().unwrap_or(Path::new("/"))
    }

    fn environment(&self) -> BTreeMap<&'static str, String> {
        let local = self.dir.join("local").display().to_string();
        BTreeMap::from([
            (
                "ANSIBLE_CONNECTION_PLUGINS",
                self.dir.join("connection").display().to_string(),
            ),
            ("ANSIBLE_LOCAL_TEMP", local),
            ("ANSIBLE_REMOTE_TEMP", "/tmp/.ansible".into()),
            ("ANSIBLE_PIPELINING", "True".into()),
            ("ANSIBLE_RETRY_FILES_ENABLED", "False".into()),
            ("ANSIBLE_NOCOLOR", "True".into()),
            ("ANSIBLE_DEPRECATION_WARNINGS", "False".into()),
            ("ANSIBLE_BECOME_METHOD", "su".into()),
            ("PYTHONDONTWRITEBYTECODE", "1".into()),
            ("PYTHONUNBUFFERED", "1".into()),
            // Sets of Ansible's own come in the same order every time.
            ("PYTHONHASHSEED", "0".into()),
            // Ansible refuses to start under a locale that is not UTF-8.
            ("LC_ALL", "C.UTF-8".into()),
        ])
    }

    fn arguments(&self, layer: &Layer) -> Vec<String> {
        let mut arguments = vec![self.recipe.playbook.display().to_string()];
        for inventory in &self.inventories {
            arguments.extend(["--inventory".into(), inventory.display().to_string()]);
        }
        arguments.extend(["--limit".into(), HOST.into()]);
        arguments.extend([
            "--extra-vars".into(),
            format!("@{}", self.variables.display()),
        ]);
        if !layer.tags.is_empty() {
            arguments.extend(["--tags".into(), layer.tags.join(",")]);
        }
        if !layer.skip_tags.is_empty() {
            arguments.extend(["--skip-tags".into(), layer.skip_tags.join(",")]);
        }
        arguments
    }

    /// Ansible's Python, in whose environment a play finds no password of the vendor's.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.python);
        command
            .env_remove("TIFFIN_SIGN_PASSWORD")
            .envs(self.environment())
            .current_dir(self.directory());
        command
    }

    /// The roles whose tasks a layer runs, `None` when only running it could tell; and what
    /// Ansible read to know.
    pub fn roles(
        &self,
        layer: &Layer,
        inputs: &[PathBuf],
    ) -> Result<(Option<BTreeSet<String>>, reads::Record)> {
        let record = self.dir.join("list-reads");
        let _ = fs::remove_file(&record);
        let roles = self.listed(layer, inputs, &record);
        Ok((roles, reads::Record::read(&record)?))
    }

    fn listed(&self, layer: &Layer, inputs: &[PathBuf], record: &Path) -> Option<BTreeSet<String>> {
        let out = self
            .command()
            .env("TIFFIN_READS", record)
            .env("TIFFIN_INPUTS", joined(inputs))
            .arg(self.dir.join("tiffin_reads.py"))
            .args(["playbook", "--list-tasks"])
            .args(self.arguments(layer))
            .stdin(Stdio::null())
            .output()
            .ok()?;
        if !out.status.success() {
            return None;
        }
        roles_of_list(&String::from_utf8_lossy(&out.stdout))
    }

    /// Runs a layer's tags in the sandbox. Records of what tasks did are appended to `events`.
    pub fn play(&self, layer: &Layer, run: &Run, progress: &dyn Progress) -> Result<()> {
        if let Some(own) = self.inventories.last() {
            let text = inventory(&self.groups, run.python).to_string();
            fs::write(own, text).map_err(Error::io("write", own))?;
        }
        let mut command = self.command();
        if run.offline {
            // Lookups and delegated tasks have no network either.
            command = within(&command, run.pid);
        }
        command
            .arg(self.dir.join("launcher.py"))
            .args(self.arguments(layer));
        let own = [
            ("TIFFIN_SANDBOX_PID", run.pid.to_string()),
            (
                "TIFFIN_SANDBOX_ENV",
                serde_json::to_string(run.environment).expect("strings are JSON"),
            ),
            ("TIFFIN_EVENTS", run.events.display().to_string()),
            ("TIFFIN_READS", run.reads.display().to_string()),
            ("TIFFIN_INPUTS", joined(run.inputs)),
            (
                "TIFFIN_EXPRESSIONS",
                serde_json::to_string(run.expressions).expect("strings are JSON"),
            ),
            (
                "TIFFIN_PUBLIC",
                serde_json::to_string(&self.recipe.public).expect("strings are JSON"),
            ),
            (
                "TIFFIN_LOOKUPS",
                Value::from(computed_lookups()).to_string(),
            ),
        ];
        command.envs(own);
        if let Some(path) = run.carried {
            command.env("TIFFIN_CARRIED", path);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let pasted = shown(self.directory(), &self.arguments(layer));
        let mut child = command.spawn().map_err(|source| Error::Spawn {
            program: self.python.display().to_string(),
            source,
        })?;
        let _group = interrupt::Group::of(&child);

        let stderr = child.stderr.take().expect("piped above");
        let complaints = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = BufReader::new(stderr).read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut transcript = Transcript::default();
        let stdout = BufReader::new(child.stdout.take().expect("piped above"));
        for line in stdout.split(b'\n').map_while(std::result::Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if let Some(task) = transcript.line(&line) {
                progress.task(&task);
            }
            progress.output(&line);
        }
        let status = child.wait().map_err(|source| Error::Spawn {
            program: "ansible-playbook".into(),
            source,
        })?;
        let complaints = complaints.join().unwrap_or_default();
        interrupt::check()?;
        if status.success() {
            return Ok(());
        }
        let later = self
            .recipe
            .layers
            .iter()
            .skip_while(|other| other.name != layer.name);
        let later: Vec<&str> = later.skip(1).map(|layer| &*layer.name).collect();
        let (task, mut output) = transcript.failure();
        let hint = task
            .starts_with(HANDLER)
            .then(|| when_a_handler_fails(&layer.name, &later));
        if !complaints.trim().is_empty() {
            output.push_str(complaints.trim_end());
        }
        Err(Error::Playbook {
            layer: layer.name.clone(),
            task,
            output,
            command: pasted,
            hint: hint.flatten(),
        })
    }
}

/// How a handler begins where a task is named that failed.
const HANDLER: &str = "handler ";

/// What is known of it besides its own words: it ran without what later layers bring.
fn when_a_handler_fails(layer: &str, later: &[&str]) -> Option<String> {
    let (first, more) = later.split_first()?;
    let names = more.iter().fold(format!("`{first}`"), |names, name| {
        format!("{names}, `{name}`")
    });
    Some(format!(
        "handlers run at the end of the layer that notified them, here `{layer}`: where this one needs what a later layer ({names}) brings, notify it from a task of that layer, or give both the same layer"
    ))
}

/// The same in the sandbox's network, which has no way out.
fn within(command: &Command, pid: u32) -> Command {
    let mut entered = Command::new("nsenter");
    entered
        .args(["--target", &pid.to_string(), "--net", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => entered.env(name, value),
            None => entered.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        entered.current_dir(dir);
    }
    entered
}

fn joined(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    names.join(":")
}

/// Lookups that a start makes anew.
pub fn computed_lookups() -> Vec<String> {
    let all = jinja::supported().into_iter();
    all.filter(|(kind, _)| *kind == "lookup")
        .map(|(_, name)| name)
        .collect()
}

/// The roles in what `--list-tasks` says; `None` where it does not say all.
fn roles_of_list(text: &str) -> Option<BTreeSet<String>> {
    let mut roles = BTreeSet::new();
    for line in text
        .lines()
        .filter(|l| l.starts_with("      ") && l.contains("TAGS: ["))
    {
        let task = line.split("TAGS: [").next().unwrap_or_default().trim();
        if task.contains("include_role") {
            return None;
        }
        match task.split_once(" : ") {
            Some((role, _)) => drop(roles.insert(role.to_owned())),
            // A task without a name is listed by its module alone, whatever role it is of.
            None if !task.contains(' ') => return None,
            None => {}
        }
    }
    Some(roles)
}

/// One layer's run.
pub struct Run<'a> {
    pub pid: u32,
    /// The box's, see [`python`].
    pub python: &'a str,
    pub environment: &'a BTreeMap<String, String>,
    pub events: &'a Path,
    /// Where it is noted what the play reads, and the directories of which all is input.
    pub reads: &'a Path,
    pub inputs: &'a [PathBuf],
    pub expressions: &'a [String],
    /// In the sandbox's own network.
    pub offline: bool,
    /// What the layers below left in Ansible's memory, as a file of the launcher's own form.
    pub carried: Option<&'a Path>,
}

/// Ansible's default output, cut into tasks.
#[derive(Default)]
struct Transcript {
    /// What it is, and its name.
    current: String,
    lines: VecDeque<String>,
    /// Which line of them tells the task's first failure, and whether the playbook expects it.
    failure: Option<usize>,
    ignored: bool,
    failed: Option<(String, String)>,
}

impl Transcript {
    /// Takes a line; answers the task that begins with it.
    fn line(&mut self, line: &str) -> Option<String> {
        let header = [("TASK [", "task "), ("RUNNING HANDLER [", HANDLER)]
            .iter()
            .find_map(|(header, what)| Some((line.strip_prefix(header)?, what)));
        let begins =
            header.and_then(|(rest, what)| Some((what, rest[..rest.rfind(']')?].to_owned())));
        if begins.is_some() || line.starts_with("PLAY ") {
            self.close();
            self.lines.clear();
            (self.failure, self.ignored) = (None, false);
        }
        if let Some((what, name)) = &begins {
            self.current = format!("{what}`{name}`");
        }
        self.ignored |= line.trim() == "...ignoring";
        if self.failure.is_none() && ["fatal: ", "failed: "].iter().any(|f| line.starts_with(f)) {
            self.failure = Some(self.lines.len());
        }
        // What comes before a failure goes first, and nothing of it for what comes after.
        if self.lines.len() < OUTPUT_LINES {
            self.lines.push_back(line.to_owned());
        } else if self.failure != Some(0) {
            self.lines.pop_front();
            self.failure = self.failure.map(|at| at - 1);
            self.lines.push_back(line.to_owned());
        }
        begins.map(|(_, name)| name)
    }

    fn close(&mut self) {
        // `...ignoring` follows a failure that the playbook expects.
        if self.failure.is_some() && !self.ignored {
            self.failed = Some((self.current.clone(), self.text()));
        }
    }

    fn text(&self) -> String {
        let lines = self.lines.iter();
        lines.fold(String::new(), |text, line| text + line + "\n")
    }

    fn failure(mut self) -> (String, String) {
        self.close();
        let failed = self.failed.take();
        failed.unwrap_or_else(|| ("ansible-playbook".into(), self.text()))
    }
}

fn inventory(groups: &[String], python: &str) -> Value {
    let host = serde_json::json!({
        "ansible_connection": "tiffin",
        "ansible_user": "root",
        "ansible_python_interpreter": python,
    });
    let mut children = serde_json::Map::new();
    for group in groups {
        children.insert(group.clone(), serde_json::json!({"hosts": {HOST: {}}}));
    }
    serde_json::json!({"all": {"hosts": {HOST: host}, "children": children}})
}

pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|p| p.is_file())
}

/// The interpreter in a script's first line.
fn interpreter(script: &Path) -> Result<PathBuf> {
    let text = fs::read(script).map_err(Error::io("read", script))?;
    let first = text.split(|b| *b == b'\n').next().unwrap_or_default();
    let words = String::from_utf8_lossy(first)
        .trim_start_matches("#!")
        .trim()
        .to_owned();
    let python = words
        .split_whitespace()
        .find(|w| w.contains("python"))
        .unwrap_or("/usr/bin/python3")
        .to_owned();
    Ok(PathBuf::from(python))
}

/// The playbook's command as it would be typed on a host, without the sandbox around it.
fn shown(directory: &Path, arguments: &[String]) -> String {
    let words: Vec<String> = arguments.iter().map(|a| quote(a)).collect();
    format!(
        "cd {} && ansible-playbook {}",
        quote(&directory.to_string_lossy()),
        words.join(" ")
    )
}

/// One word for a shell.
pub(crate) fn quote(text: &str) -> String {
    let plain = !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-./=:@,+".contains(c));
    if plain {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_whose_tasks_have_no_names_counts() {
        let list = |tasks: &str| {
            roles_of_list(&format!(
                "playbook: site.yml\n\n  play #1 (all): all\tTAGS: []\n    tasks:\n{tasks}"
            ))
        };
        let named = "      web : Install it\tTAGS: [web]\n      Say it\tTAGS: []\n";
        assert_eq!(list(named), Some(BTreeSet::from(["web".to_owned()])));
        assert_eq!(list(&format!("{named}      copy\tTAGS: [web]\n")), None);
        assert_eq!(list("      web : include_role\tTAGS: []\n"), None);
    }

    /// By the interpreter that Ansible is installed for; what is compiled then would raise.
    #[test]
    fn modules_reach_the_box_compiled_and_only_what_was_compiled_from_the_same_source() {
        const SCRIPT: &str = r#"
import builtins, os, sys, tempfile, zipfile
import tiffin_compiled
from ansible.executor import module_common
tiffin_compiled.install()
assert getattr(module_common.zipfile, "ZIP_DEFLATED") == zipfile.ZIP_DEFLATED
name = "ansible/module_utils/six/__init__.py"
source = open(os.path.join(tiffin_compiled.ROOT, name), "rb").read()
place = os.path.join(tempfile.mkdtemp(), "module.zip")
with module_common.zipfile.ZipFile(place, "w") as archive:
    for package in ("ansible", "ansible/module_utils"):
        archive.writestr(package + "/__init__.py", b"")
    archive.writestr(name, source)
    archive.writestr("ansible/module_utils/_text.py", b"CHANGED = True\n")
with zipfile.ZipFile(place) as archive:
    names = archive.namelist()
assert name + "c" in names and "ansible/module_utils/_text.pyc" not in names, names
for module in [m for m in sys.modules if m.partition(".")[0] == "ansible"]:
    del sys.modules[module]
sys.path.insert(0, place)
import ansible.module_utils._text as changed
assert changed.CHANGED
builtins.compile = None
import ansible.module_utils.six as six
assert six.PY3 and six.__file__.startswith(place)
os.remove(place)
os.rmdir(os.path.dirname(place))
"#;
        let Some(program) = find_program("ansible-playbook") else {
            panic!("ci/setup installs Ansible");
        };
        let out = Command::new(interpreter(&program).unwrap())
            .args(["-c", SCRIPT])
            .env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/assets"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
    }

    #[test]
    fn a_failure_is_the_task_that_nobody_ignored() {
        let mut transcript = Transcript::default();
        for line in [
            "TASK [a : may fail] ****",
            "fatal: [box]: FAILED! => {}",
            "...ignoring",
            "",
            "TASK [a : real] ***",
            "fatal: [box]: FAILED! => no",
            "PLAY RECAP ***",
        ] {
            transcript.line(line);
        }
        let (task, output) = transcript.failure();
        assert_eq!(task, "task `a : real`");
        assert!(output.contains("=> no") && !output.contains("may fail"));
    }

    /// Lines of the items after it took its place.
    #[test]
    fn the_item_that_failed_is_shown_however_many_come_after_it() {
        for before in [0, 10, 1000] {
            let mut transcript = Transcript::default();
            transcript.line("TASK [a : loop] ***");
            for at in 0..before {
                transcript.line(&format!("ok: [box] => (item={at})"));
            }
            transcript.line("failed: [box] (item=wrong) => {");
            transcript.line("    \"msg\": \"why\"");
            for at in 0..1000 {
                transcript.line(&format!("ok: [box] => (item=later {at})"));
            }
            transcript.line("PLAY RECAP ***");
            let (task, output) = transcript.failure();
            assert_eq!(task, "task `a : loop`");
            assert!(
                output.contains("(item=wrong) => {\n    \"msg\": \"why\"\n"),
                "{output}"
            );
            assert_eq!(output.lines().count(), OUTPUT_LINES);
        }
    }
}
