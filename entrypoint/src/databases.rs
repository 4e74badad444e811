//! Where services keep databases: files that change in place. While such a service runs, a
//! copy of its files is worth nothing.

use contract::Contract;

use crate::engine::Engine;
use crate::exit::{Code, Failure, Result};

/// One directory, below a volume; it need not exist.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Database {
    pub path: String,
    pub service: String,
}

/// All of them, also those of services that do not start with these settings: their data
/// may lie there from before. Parents come first.
///
/// # Errors
///
/// When an expression cannot be rendered, or makes something else than a directory below a
/// volume.
pub fn all(contract: &Contract, engine: &Engine<'_>) -> Result<Vec<Database>> {
    let volumes: Vec<&str> = contract.volumes.iter().map(|v| v.path.as_str()).collect();
    let mut found = Vec::new();
    for (service, said) in &contract.services {
        for text in &said.data {
            let path = engine
                .text(text)
                .and_then(|path| values::data_directory(&path, &volumes))
                .map_err(|reason| {
                    Failure::new(
                        Code::Config,
                        format!("cannot start {service}: its `data` {text}: {reason}"),
                    )
                })?;
            found.push(Database {
                path,
                service: service.clone(),
            });
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_lies_where_the_settings_say_and_never_outside_a_volume() {
        let contract = |data: &str| -> Contract {
            serde_json::from_value(serde_json::json!({
                "format": contract::FORMAT,
                "product": {"name": "acme/x", "title": "X", "version": "v1"},
                "variables": {"mongo_dir": "{{ base }}/mongo"},
                "services": {"mongod": {"data": [data]}, "redis": {"data": ["/data/redis"]}},
                "volumes": [{"path": "/data"}]
            }))
            .unwrap()
        };
        let asked = |data: &str, base: &str| {
            let contract = contract(data);
            let mut settings = contract::Variables::new();
            settings.insert("base".to_owned(), base.into());
            all(&contract, &Engine::new(&contract, &settings))
        };
        let paths: Vec<String> = asked("{{ mongo_dir }}", "/data/db")
            .unwrap()
            .into_iter()
            .map(|database| database.path)
            .collect();
        assert_eq!(paths, ["/data/db/mongo", "/data/redis"]);
        for (data, base) in [
            ("{{ mongo_dir }}", "/var/lib"),
            ("{{ mongo_dir }}", "/data/../etc"),
            ("{{ mongo_dir }}", ""),
            ("{{ nothing }}", ""),
        ] {
            let failure = asked(data, base).unwrap_err();
            assert_eq!(failure.code, Code::Config, "{failure}");
        }
    }
}
