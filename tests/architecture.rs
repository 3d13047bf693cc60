//! The invariants of docs/ARCHITECTURE.md that can be read off the source.

use std::fs;
use std::path::{Path, PathBuf};

/// Every source file below these, without its tests.
fn sources(places: &[&str]) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = vec![];
    let mut queue: Vec<PathBuf> = places.iter().map(|place| root.join(place)).collect();
    while let Some(path) = queue.pop() {
        if path.is_dir() {
            queue.extend(fs::read_dir(&path).expect("a folder").map(|e| e.expect("a file").path()));
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).expect("text");
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            found.push((path, code.to_owned()));
        }
    }
    assert!(!found.is_empty(), "{places:?} have moved");
    found
}

#[test]
fn the_pure_modules_read_no_clock_open_nothing_and_start_no_thread() {
    let pure = ["model.rs", "input.rs", "pipeline.rs", "wire", "check", "recording", "sim"];
    let impure = [
        "std::fs",
        "std::net",
        "std::thread",
        "std::process",
        "Instant",
        "SystemTime",
        "File::open",
    ];
    for (path, code) in sources(&pure) {
        for word in impure {
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            assert!(!lines.clone().any(|l| l.contains(word)), "{}: {word}", path.display());
        }
    }
}

#[test]
fn unsafe_code_is_in_the_sources_and_the_load_only() {
    let allowed =
        ["source", "load"].map(|p| Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(p));
    for (path, code) in sources(&[""]) {
        let is_unsafe = code.contains("unsafe {") || code.contains("unsafe fn");
        let may = allowed.iter().any(|folder| path.starts_with(folder));
        assert!(may || !is_unsafe, "{}", path.display());
    }
}

#[test]
fn nothing_panics_on_input() {
    for (path, code) in
        sources(&["model.rs", "pipeline.rs", "wire", "check", "recording", "source", "http"])
    {
        for word in [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!("] {
            assert!(!code.contains(word), "{}: {word}", path.display());
        }
    }
}
