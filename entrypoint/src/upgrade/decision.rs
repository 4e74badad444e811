//! What a box does with data that another version wrote: decided from names of versions
//! alone, before anything is touched.

use std::cmp::Ordering;

use values::compare;

use crate::exit::{Code, Failure};

/// How a box stands to its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The volume has no data yet.
    New,
    Same,
    Forward {
        /// Nobody can tell which of the two is later.
        unclear: bool,
    },
    /// The data is older than this box takes: that release goes first.
    Through(String),
    /// The data is a later version's.
    Backward,
}

/// `data` is the version that wrote the data.
pub fn decide(data: &str, own: &str, rules: Option<&contract::Upgrade>) -> Decision {
    match compare(data, own) {
        Some(Ordering::Equal) => return Decision::Same,
        Some(Ordering::Greater) => return Decision::Backward,
        Some(Ordering::Less) => {}
        None => return Decision::Forward { unclear: true },
    }
    let Some(rules) = rules else {
        return Decision::Forward { unclear: false };
    };
    let between = |stop: &&String| {
        compare(data, stop) == Some(Ordering::Less) && compare(stop, own) == Some(Ordering::Less)
    };
    // The recipe's stops are in order, the oldest first.
    if let Some(stop) = rules.stops.iter().find(between) {
        return Decision::Through(stop.clone());
    }
    match rules.from.iter().find(between) {
        Some(from) => Decision::Through(from.clone()),
        None => Decision::Forward { unclear: false },
    }
}

/// In words, for a start that is refused.
pub fn refused(decision: &Decision, data: &str, own: &str, name: &str) -> Option<Failure> {
    match decision {
        Decision::Through(stop) => Some(
            Failure::new(
                Code::Config,
                format!(
                    "cannot start {own}: the data was written by {data}, and {stop} may not be skipped on the way; \
                     nothing was touched"
                ),
            )
            .hint(format!(
                "run {name}:{stop} with this volume until `tiffin health` says that all is ready, then {own} again"
            )),
        ),
        Decision::Backward => Some(
            Failure::new(
                Code::Config,
                format!(
                    "cannot start {own}: the data was written by {data}, which is later; nothing was touched"
                ),
            )
            .hint(format!(
                "run {name}:{data}; to go back to {own}, put back the copy that was kept before the upgrade: \
                 docker run --rm -v VOLUME:/data {name}:{data} rollback --list"
            )),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(data: &str, own: &str) -> Decision {
        let rules = contract::Upgrade {
            from: Some("v40.0.0".to_owned()),
            stops: vec!["v41.0.0".to_owned(), "v43.0.0".to_owned()],
        };
        decide(data, own, Some(&rules))
    }

    #[test]
    fn each_release_is_taken_or_told_what_goes_first() {
        let through = |stop: &str| Decision::Through(stop.to_owned());
        let forward = Decision::Forward { unclear: false };
        for (data, own, expected) in [
            ("v43.4.4", "v43.4.4", Decision::Same),
            ("v43.4", "43.4.0", Decision::Same),
            ("v43.4.4", "v43.4.5", forward.clone()),
            ("v43.4.4", "v43.4.4-3-gabcdef0", forward.clone()),
            ("v43.4.4-3-gabcdef0", "v43.4.4", Decision::Backward),
            ("v44.0.0", "v43.4.4", Decision::Backward),
            ("v44.0.0", "v44.0.0-rc1", Decision::Backward),
            // A stop that this box itself is, or that the data has behind it, is none.
            ("v41.0.0", "v43.0.0", forward.clone()),
            ("v41.0.0", "v43.0.1", through("v43.0.0")),
            ("v40.0.0", "v43.0.1", through("v41.0.0")),
            ("v40.0.0", "v41.0.0", forward.clone()),
            ("v39.0.0", "v43.4.4", through("v41.0.0")),
            ("v39.0.0", "v40.5.0", through("v40.0.0")),
            ("dev", "v43.4.4", Decision::Forward { unclear: true }),
            ("v43.4.4", "dev", Decision::Forward { unclear: true }),
        ] {
            assert_eq!(told(data, own), expected, "{data} to {own}");
        }
        assert_eq!(decide("v1", "v99", None), forward);
    }

    #[test]
    fn a_refusal_names_the_release_and_the_way_on() {
        let told = refused(&told("v40.0.0", "v44.0.0"), "v40.0.0", "v44.0.0", "acme/x").unwrap();
        assert_eq!(told.code, Code::Config);
        assert!(told.message.contains("written by v40.0.0"), "{told}");
        assert!(told.hint.unwrap().contains("run acme/x:v41.0.0"));
        let back = refused(&Decision::Backward, "v2", "v1", "acme/x").unwrap();
        assert!(back.hint.unwrap().contains("acme/x:v2 rollback"));
        assert!(refused(&Decision::Same, "v1", "v1", "acme/x").is_none());
    }
}
