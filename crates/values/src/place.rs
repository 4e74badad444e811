//! Places on the volumes.

/// A directory that a service keeps a database in: absolute and below one of `volumes`, but
/// no volume as a whole, which is more than one service's. The path comes back without
/// doubled slashes; the error is for "cannot be `PATH`: …".
pub fn data_directory<P: AsRef<str>>(text: &str, volumes: &[P]) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err("it is not an absolute path".to_owned());
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| matches!(*part, "." | "..")) {
        return Err("it has `.` or `..` in it".to_owned());
    }
    if text.contains(char::is_control) {
        return Err("it has a control character in it".to_owned());
    }
    let path = format!("/{}", parts.join("/"));
    let bare = |volume: &P| volume.as_ref().trim_end_matches('/').to_owned();
    let below = volumes.iter().map(bare).any(|volume| {
        path.strip_prefix(&volume)
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|rest| rest.split('/').next() != Some(".tiffin"))
    });
    let is_volume = volumes.iter().map(bare).any(|volume| volume == path);
    match below && !is_volume {
        true => Ok(path),
        false => Err(format!(
            "it is no directory below a volume ({})",
            volumes.iter().map(bare).collect::<Vec<_>>().join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_lies_below_a_volume() {
        let volumes = ["/data", "/data/files/", "/srv"];
        let ok = |text| data_directory(text, &volumes);
        assert_eq!(ok("/data/mongodb").unwrap(), "/data/mongodb");
        assert_eq!(ok("/data//a///b/").unwrap(), "/data/a/b");
        assert_eq!(ok("/srv/x").unwrap(), "/srv/x");
        for wrong in [
            "",
            "data/x",
            "/data",
            "/data/",
            "/data/files",
            "/database",
            "/var/lib/x",
            "/",
            "/data/../etc",
            "/data/./x",
            "/data/.tiffin",
            "/data/.tiffin/copies",
            "/data/a\nb",
        ] {
            assert!(ok(wrong).is_err(), "`{wrong}` is taken");
        }
    }
}
