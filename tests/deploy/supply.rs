//! The dependencies: one set of versions for the program and the fuzz targets, and no build script or compiler plug-in that
//! was not reviewed.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::project::{path, read, run};

/// The crates that are compiler plug-ins. Those with a build script are in deny.toml.
const PROC_MACROS: [&str; 14] = [
    "asn1-rs-derive",
    "asn1-rs-impl",
    "clap_derive",
    "displaydoc",
    "divan-macros",
    "maud_macros",
    "multiversion_no_op",
    "pest_derive",
    "rustversion",
    "serde_derive",
    "thiserror-impl",
    "time-macros",
    "tokio-macros",
    "tracing-attributes",
];

/// The crates of Cargo.lock that are used on this system and have a target of this kind.
fn crates_with(kind: &str) -> BTreeSet<String> {
    let system = run(Command::new("rustc").args(["--print", "host-tuple"])).expect("rustc");
    let arguments = ["metadata", "--format-version=1", "--locked", "--filter-platform"];
    let metadata =
        run(Command::new("cargo").args(arguments).arg(system.trim()).current_dir(path(".")))
            .expect("cargo");
    let metadata: Value = serde_json::from_str(&metadata).expect("json");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let used: Vec<Value> =
        list(&metadata["resolve"]["nodes"]).iter().map(|node| node["id"].clone()).collect();
    let has = |package: &Value| {
        list(&package["targets"]).iter().any(|target| list(&target["kind"]).contains(&kind.into()))
    };
    list(&metadata["packages"])
        .iter()
        .filter(|package| used.contains(&package["id"]) && has(package))
        .map(|package| package["name"].as_str().expect("a name").to_owned())
        .collect()
}

fn assert_decided(kind: &str, decided: &[String]) {
    let found = crates_with(kind);
    assert!(!found.is_empty());
    for name in &found {
        assert!(decided.contains(name), "{name} runs code at build time ({kind}): read it first");
    }
    let lock = read("Cargo.lock");
    for name in decided {
        assert!(lock.contains(&format!("\nname = \"{name}\"\n")), "{name} is not used any more");
    }
}

/// The packages of a lock file: name and version, and the names of what each needs.
fn locked(file: &str) -> BTreeMap<(String, String), BTreeSet<String>> {
    let lock: toml::Table = read(file).parse().expect("toml");
    let text = |value: &toml::Value| value.as_str().expect("text").to_owned();
    let of = |package: &toml::Value| {
        let needs = package.get("dependencies").and_then(|needs| needs.as_array());
        let names = needs.into_iter().flatten().map(text);
        let names = names.filter_map(|need| need.split(' ').next().map(str::to_owned)).collect();
        ((text(&package["name"]), text(&package["version"])), names)
    };
    lock["package"].as_array().expect("a list").iter().map(of).collect()
}

#[test]
fn the_fuzz_targets_are_built_from_what_the_program_is_built_from() {
    let (ours, fuzz) = (locked("Cargo.lock"), locked("fuzz/Cargo.lock"));
    let known: BTreeSet<&String> = ours.keys().map(|(name, _)| name).collect();
    for package in fuzz.keys().filter(|(name, _)| known.contains(name)) {
        assert!(ours.contains_key(package), "{package:?} is not ours: scripts/generate");
    }
    let manifest: toml::Table = read("Cargo.toml").parse().expect("toml");
    let own =
        ("kqproc_exporter".to_owned(), manifest["package"]["version"].as_str().unwrap().to_owned());
    let system = manifest["target"].as_table().expect("systems").values();
    let tables =
        system.filter_map(|system| system.get("dependencies")).chain([&manifest["dependencies"]]);
    let needs: BTreeSet<String> =
        tables.flat_map(|table| table.as_table().expect("a table").keys().cloned()).collect();
    assert_eq!(fuzz.get(&own), Some(&needs), "scripts/generate");
}

#[test]
fn no_build_script_is_new() {
    let deny: toml::Table = read("deny.toml").parse().expect("toml");
    let names = deny["bans"]["build"]["allow-build-scripts"].as_array().expect("a list");
    let names: Vec<String> =
        names.iter().map(|name| name.as_str().expect("a name").to_owned()).collect();
    assert_decided("custom-build", &names);
}

#[test]
fn no_compiler_plug_in_is_new() {
    assert_decided("proc-macro", &PROC_MACROS.map(str::to_owned));
}
