//! The one place that calls the template engine.

use contract::{Contract, Template, Value, Variables};

pub struct Engine<'a> {
    scope: jinja::Scope<'a>,
}

impl<'a> Engine<'a> {
    /// `settings` are literal and win over the contract's variables.
    pub fn new(contract: &'a Contract, settings: &'a Variables) -> Self {
        Engine {
            scope: jinja::Scope::new(settings, &[&contract.variables]),
        }
    }

    pub fn render(&self, template: &Template) -> Result<String, String> {
        jinja::render(template, &self.scope).map_err(|error| error.to_string())
    }

    /// Text with expressions, such as `127.0.0.1:{{ port }}`.
    pub fn text(&self, text: &str) -> Result<String, String> {
        jinja::render_text(text, &self.scope).map_err(|error| error.to_string())
    }

    /// A condition, by Jinja's rules of what is true.
    pub fn holds(&self, expression: &str) -> Result<bool, String> {
        let value = jinja::evaluate(expression, &self.scope).map_err(|error| error.to_string())?;
        Ok(match value {
            Value::Null => false,
            Value::Bool(value) => value,
            Value::Number(number) => number.as_f64() != Some(0.0),
            // What a variable from an inventory often is.
            Value::String(text) => !matches!(
                text.to_ascii_lowercase().as_str(),
                "" | "false" | "no" | "off" | "0"
            ),
            Value::Array(items) => !items.is_empty(),
            Value::Object(items) => !items.is_empty(),
        })
    }
}
