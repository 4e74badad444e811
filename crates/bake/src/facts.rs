//! Facts about the machine that a box computes anew at each start: a container is another
//! machine than the one that built it.

use contract::{Value, Variables};
use recipe::Frozen;

/// Without their `ansible_`, as in `ansible_facts`; [`IDENTITY`] are computed too.
const SIZE: &[&str] = &[
    "processor_vcpus",
    "processor_cores",
    "processor_count",
    "processor_nproc",
    "processor_threads_per_core",
    "memtotal_mb",
    "memfree_mb",
    "swaptotal_mb",
    "swapfree_mb",
    "memory_mb",
];
const ALL: &str = "ansible_facts";
/// Of these the build's own values say which machine built the box.
const IDENTITY: &[&str] = &[
    "hostname",
    "fqdn",
    "nodename",
    "domain",
    "default_ipv4",
    "default_ipv6",
    "all_ipv4_addresses",
    "all_ipv6_addresses",
];

fn computed() -> impl Iterator<Item = &'static str> {
    SIZE.iter().chain(IDENTITY).copied()
}

/// Names in the contract's variables that the start computes: `ansible_hostname`, and
/// `ansible_facts.hostname` where a template says it that way. `missing` are those that
/// templates ask for and the build machine does not have.
pub fn at_start<'a>(
    maps: impl Iterator<Item = &'a Variables>,
    missing: impl Iterator<Item = &'a String>,
    frozen: &Frozen,
) -> Vec<String> {
    let is_host = |name: &&String| {
        let fact = name
            .strip_prefix("ansible_facts.")
            .or(name.strip_prefix("ansible_"));
        fact.is_some_and(|fact| computed().any(|name| name == fact))
    };
    let mut names: Vec<String> = missing.filter(is_host).cloned().collect();
    if *frozen == Frozen::All {
        return Vec::new();
    }
    for variables in maps {
        let flat = computed().map(|fact| format!("ansible_{fact}"));
        names.extend(flat.filter(|name| variables.contains_key(name)));
        if let Some(Value::Object(facts)) = variables.get(ALL) {
            let known = computed().filter(|fact| facts.contains_key(*fact));
            names.extend(known.map(|fact| format!("{ALL}.{fact}")));
        }
    }
    if let Frozen::Named(kept) = frozen {
        names.retain(|name| !kept.contains(name));
    }
    names.sort();
    names.dedup();
    names
}

/// Whether one of the facts is among what a template needs.
pub fn uses(facts: &[String], variables: &Variables, missing: &[String]) -> bool {
    let has = |fact: &String| match fact.strip_prefix("ansible_facts.") {
        Some(key) => {
            matches!(variables.get(ALL), Some(Value::Object(map)) if map.contains_key(key))
        }
        None => variables.contains_key(fact),
    };
    facts.iter().any(|fact| has(fact) || missing.contains(fact))
}

/// Empties those of `names` that tell the build machine's name and addresses: each start
/// puts its own in their place.
pub fn forget(names: &[String], variables: &mut Variables) {
    for fact in IDENTITY {
        let flat = format!("ansible_{fact}");
        if names.contains(&flat)
            && let Some(value) = variables.get_mut(&flat)
        {
            *value = Value::Null;
        }
        if names.contains(&format!("{ALL}.{fact}"))
            && let Some(Value::Object(facts)) = variables.get_mut(ALL)
            && let Some(value) = facts.get_mut(*fact)
        {
            *value = Value::Null;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn facts_of_the_machine_are_listed_by_the_name_that_templates_use() {
        let value = json!({
            "ansible_processor_vcpus": 2, "ansible_os_family": "Debian", "port": 1,
            "ansible_facts": {"memtotal_mb": 9, "os_family": "Debian"},
        });
        let variables = value.as_object().unwrap();
        let missing = ["ansible_default_ipv4", "ansible_local"].map(str::to_owned);
        let names = |frozen: &Frozen| at_start([variables].into_iter(), missing.iter(), frozen);
        assert_eq!(
            names(&Frozen::None),
            [
                "ansible_default_ipv4",
                "ansible_facts.memtotal_mb",
                "ansible_processor_vcpus"
            ]
        );
        let kept = Frozen::Named(vec!["ansible_processor_vcpus".into()]);
        assert_eq!(
            names(&kept),
            ["ansible_default_ipv4", "ansible_facts.memtotal_mb"]
        );
        assert!(names(&Frozen::All).is_empty());
    }

    #[test]
    fn the_build_machine_is_not_described_but_where_the_recipe_freezes_it() {
        let value = json!({
            "ansible_hostname": "builder", "ansible_processor_vcpus": 2,
            "ansible_facts": {"fqdn": "builder.example", "domain": "example"},
        });
        let mut variables = value.as_object().unwrap().clone();
        let kept = Frozen::Named(vec!["ansible_facts.domain".into()]);
        let names = at_start([&variables].into_iter(), [].iter(), &kept);
        forget(&names, &mut variables);
        let expected = json!({
            "ansible_hostname": null, "ansible_processor_vcpus": 2,
            "ansible_facts": {"fqdn": null, "domain": "example"},
        });
        assert_eq!(Value::Object(variables), expected);
    }
}
