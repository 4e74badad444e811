//! Each `errors/*.yaml` is a recipe with one mistake. It begins with the error as comment
//! lines, the message and then the hint when there is one, which are not part of it: lines
//! count from after them. `TIFFIN_ACCEPT=1` rewrites them.

use std::fs;
use std::path::Path;

#[test]
fn every_mistake_is_told_as_its_file_says() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("site.yml"), "").unwrap();
    let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors");
    let mut wrong = Vec::new();
    let mut names: Vec<_> = fs::read_dir(inputs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    assert!(names.len() > 40, "the inputs are missing");
    for input in names {
        let text = fs::read_to_string(&input).unwrap();
        let expected: Vec<&str> = text
            .lines()
            .map_while(|line| line.strip_prefix("# "))
            .collect();
        let recipe: String = text
            .lines()
            .skip(expected.len())
            .map(|line| format!("{line}\n"))
            .collect();
        let origin = home.path().join("tiffin.yaml");
        let told = match recipe::parse(&recipe, &origin) {
            Ok(_) => "(accepted)".to_owned(),
            Err(error) => match error.hint() {
                Some(hint) => format!("{error}\nhint: {hint}"),
                None => error.to_string(),
            },
        };
        let told = told
            .replace(&format!("{}/", home.path().display()), "")
            .replace(&home.path().display().to_string(), "HOME");
        if told != expected.join("\n") {
            let name = input.file_name().unwrap().to_string_lossy().into_owned();
            wrong.push(format!(
                "{name}\n  expected: {}\n  told:     {told}",
                expected.join("\n            ")
            ));
            if std::env::var_os("TIFFIN_ACCEPT").is_some() {
                let head = told.lines().map(|line| format!("# {line}\n"));
                fs::write(&input, head.chain([recipe]).collect::<String>()).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
