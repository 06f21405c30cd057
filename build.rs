//! Embeds the shipped labs: a table of every file below `scenarios/`, `manifests/` and `Dockerfiles/`.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

const FOLDERS: [&str; 3] = ["scenarios", "manifests", "Dockerfiles"];

#[expect(
    clippy::disallowed_methods,
    reason = "cargo tells a build script its folders through the environment"
)]
fn folder(variable: &str) -> PathBuf {
    PathBuf::from(env::var(variable).unwrap_or_else(|_| panic!("cargo sets `{variable}`")))
}

fn collect(below: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(below)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let root = folder("CARGO_MANIFEST_DIR");
    let mut table = String::from("&[\n");
    for name in FOLDERS {
        println!("cargo::rerun-if-changed={name}");
        let mut found = Vec::new();
        collect(&root.join(name), &mut found)?;
        found.sort();
        for path in found {
            let shown = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
            table.push_str(&format!(
                "    ({shown:?}, include_str!({:?})),\n",
                path.display().to_string()
            ));
        }
    }
    table.push(']');
    fs::write(folder("OUT_DIR").join("shipped.rs"), table)
}
