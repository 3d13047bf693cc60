//! What the dependencies run on the machine that builds: nothing that nobody has decided on.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::project::{path, read, run};

/// The crates that are compiler plug-ins. Those with a build script are in deny.toml.
const PROC_MACROS: [&str; 13] = [
    "asn1-rs-derive",
    "asn1-rs-impl",
    "clap_derive",
    "displaydoc",
    "divan-macros",
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
