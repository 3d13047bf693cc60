//! The dependencies between modules that docs/ARCHITECTURE.md allows, which no lint can check. The lints are in src/lib.rs and
//! clippy.toml.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every module and the modules that it may use: those below it, so that there are no cycles.
const KNOWS: [(&str, &[&str]); 15] = [
    ("duration", &[]),
    ("plain_file", &[]),
    ("model", &[]),
    ("input", &["model"]),
    ("wire", &["model"]),
    ("recording", &["input", "model"]),
    ("check", &["input", "model", "wire"]),
    ("pipeline", &["check", "input", "model", "wire"]),
    ("sim", &["check", "input", "model", "pipeline", "wire"]),
    ("load", &["model"]),
    ("source", &["input", "model", "plain_file", "recording", "wire"]),
    ("report", &["check", "input", "model", "pipeline", "wire"]),
    ("metrics", &["check", "model", "source", "wire"]),
    ("http", &["check", "duration", "metrics", "model", "plain_file", "report"]),
    (
        "cli",
        &[
            "check",
            "duration",
            "http",
            "input",
            "load",
            "metrics",
            "model",
            "pipeline",
            "plain_file",
            "recording",
            "report",
            "sim",
            "source",
        ],
    ),
];

/// Crates that reach the operating system or the network, and the modules that may use them.
const WORLDLY: [&str; 6] = ["hyper", "libc", "nix", "socket2", "tokio", "tracing"];
const IN_THE_WORLD: [&str; 6] = ["cli", "http", "load", "metrics", "plain_file", "source"];

/// The code of a module, a file at a time, without its tests and comments.
fn code(module: &str) -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut queue = vec![src.join(module), src.join(format!("{module}.rs"))];
    let mut found = vec![];
    while let Some(path) = queue.pop() {
        if path.is_dir() {
            queue.extend(fs::read_dir(&path).expect("a folder").map(|e| e.expect("a file").path()));
        } else if path.is_file() && path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            if !path.ends_with("tests.rs") {
                found.push((path, lines.collect::<Vec<_>>().join("\n")));
            }
        }
    }
    assert!(!found.is_empty(), "{module} has moved");
    found
}

/// The names that begin a path behind `before`.
fn names<'a>(code: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    code.split(before).skip(1).filter_map(move |rest| rest.split(|c| !is_name(c)).next())
}

#[test]
fn a_module_knows_only_those_below_it() {
    for (module, below) in KNOWS {
        for (path, code) in code(module) {
            for name in names(&code, "crate::").filter(|name| !name.is_empty()) {
                let may = name == module || below.contains(&name);
                assert!(may, "{}: {module} knows {name}", path.display());
            }
        }
    }
    for (i, (module, below)) in KNOWS.iter().enumerate() {
        let lower = |name: &&str| KNOWS[..i].iter().any(|(m, _)| m == name);
        assert!(below.iter().all(lower), "{module}: a circle");
    }
}

#[test]
fn every_module_has_its_place() {
    let root = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"));
    let root = root.expect("the library");
    for module in names(&root, "pub mod ") {
        assert!(KNOWS.iter().any(|(name, _)| *name == module), "{module}");
    }
}

#[test]
fn what_reaches_the_world_is_kept_out_of_the_pure_modules() {
    for (module, _) in KNOWS.iter().filter(|(module, _)| !IN_THE_WORLD.contains(module)) {
        for (path, code) in code(module) {
            for name in WORLDLY {
                assert!(!code.contains(&format!("{name}::")), "{}: {name}", path.display());
            }
        }
    }
}

/// The type that a line of code defines. An indented `type` is an associated one.
fn defined_type(line: &str) -> Option<&str> {
    let item = line.trim_start();
    let item = match item.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.trim_start(),
        None => item,
    };
    let (keyword, name) = item.split_once(' ')?;
    let is_type = matches!(keyword, "struct" | "enum" | "trait")
        || keyword == "type" && !line.starts_with(' ');
    name.split(|c: char| !c.is_alphanumeric()).next().filter(|_| is_type)
}

#[test]
fn a_type_name_exists_once() {
    let mut places = BTreeMap::<String, Vec<PathBuf>>::new();
    for (module, _) in KNOWS {
        for (path, code) in code(module) {
            for name in code.lines().filter_map(defined_type) {
                places.entry(name.to_owned()).or_default().push(path.clone());
            }
        }
    }
    assert!(places.contains_key("Verdict") && places.contains_key("LifeTable"), "types are found");
    places.retain(|_, paths| paths.len() > 1);
    assert!(places.is_empty(), "{places:#?}");
}
