//! The lines of a manifest, and what several platforms say alike.

use super::describe::{Description, Line, Value};
use super::quote::{comment, compose};

/// Lines, indented.
#[derive(Default)]
pub struct Text(String);

impl Text {
    pub fn line(&mut self, line: &str) -> &mut Self {
        self.0.push_str(line);
        self.0.push('\n');
        self
    }

    pub fn lines<'t>(&mut self, lines: impl IntoIterator<Item = &'t str>) -> &mut Self {
        for line in lines {
            self.line(line);
        }
        self
    }

    pub fn end(self) -> String {
        self.0
    }
}

/// The first lines of every manifest, each after `mark`.
pub fn head(d: &Description, platform: &str, verb: &str, file: &str, mark: &str) -> Text {
    let mut text = Text::default();
    text.line(&format!(
        "{mark} {} {}, {platform}.",
        comment(&d.title),
        comment(&d.version)
    ));
    text.line(&format!(
        "{mark} Made by: docker run --rm {} manifest {verb} >{file}",
        comment(&d.image)
    ));
    text
}

/// `NAME: "value"` for Compose and Swarm, under a key of `indent` spaces.
pub fn environment(text: &mut Text, settings: &[Line], indent: &str) {
    for line in settings {
        let (name, note) = (&line.name, after(&line.note));
        text.line(&match &line.value {
            Value::Given(value) => format!("{indent}{name}: {}{note}", compose(value)),
            // Compose and `docker stack` refuse to go on without it.
            Value::Required => format!("{indent}{name}: \"${{{name}:?required}}\"{note}"),
            Value::Default(value) => format!("{indent}# {name}: {}{note}", compose(value)),
        });
    }
}

/// Names of what else may be set, for platforms whose words leave no room for comments.
pub fn more(text: &mut Text, d: &Description) {
    let free = |line: &&Line| matches!(line.value, Value::Default(_));
    let names: Vec<&str> = d
        .settings
        .iter()
        .filter(free)
        .map(|line| line.name.as_str())
        .collect();
    if !names.is_empty() {
        text.line(&format!(
            "# More can be set by --env (docker run --rm {} settings):",
            comment(&d.image)
        ));
    }
    for names in names.chunks(4) {
        text.line(&format!("#   {}", names.join(", ")));
    }
}

/// As a comment at the end of a line.
pub fn after(note: &str) -> String {
    match comment(note) {
        note if note.is_empty() => note,
        note => format!("  # {note}"),
    }
}
