//! The figures in README.md, docs/findings.md and docs/kernels.md: every figure in a row that names a recording is counted
//! again, every other figure has a source, and every link leads to a file.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::{fs, iter};

use crate::common::played::replay;
use crate::common::{path, read, recording};
use kqproc_exporter::check::stats::Stats;
use kqproc_exporter::model::{Fact, Shape, Verdict, note};
use kqproc_exporter::recording::Meta;
use kqproc_exporter::report::card::{Card, Loaded};
use kqproc_exporter::report::kernel::KernelVersion;
use kqproc_exporter::report::stress::Run;

/// The first section of README.md.
fn opening(readme: &str) -> &str {
    let (_, rest) = readme.split_once("## What your kernel loses\n").expect("the first section");
    rest.split_once("\n## ").expect("further sections").0
}

/// A number as the documents write it.
fn figure(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|g| str::from_utf8(g).unwrap()).collect();
    groups.join(",")
}

/// The figures that a table may have about a recording, by the heading of the column.
fn figures(stats: &Stats) -> BTreeMap<&'static str, String> {
    let sum = |fact: Fact, wanted: &dyn Fn(Verdict) -> bool| -> u64 {
        let verdicts = || Verdict::ALL.iter().filter(|v| wanted(**v));
        stats.trees.iter().map(|t| verdicts().map(|v| t.of(fact)[v.index()]).sum::<u64>()).sum()
    };
    let (births, exits) = (sum(Fact::Birth, &|_| true), sum(Fact::Death, &|_| true));
    let lost = sum(Fact::Death, &Verdict::is_lost);
    let seen = sum(Fact::Death, &|v| v == Verdict::Agreed);
    let repeated: u64 = stats.trees.iter().map(|t| t.duplicate_child_notes).sum();
    BTreeMap::from([
        ("births", figure(births)),
        ("exits", figure(exits)),
        ("exits seen", format!("{} of {}", figure(seen), figure(exits))),
        ("lost", figure(lost)),
        ("lost exits", figure(lost)),
        ("repeated NOTE_CHILD", figure(repeated)),
        ("extra NOTE_CHILD per child", format!("{:.2}", repeated as f64 / births as f64)),
    ])
}

/// The cells of a row of a table; empty for another line.
fn cells(line: &str) -> Vec<&str> {
    match line.strip_prefix('|') {
        Some(rest) => rest.trim_end_matches('|').split('|').map(str::trim).collect(),
        None => Vec::new(),
    }
}

/// The path of the recording that this line links to, from the root.
fn linked_recording(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("recordings/")?;
    let (path, _) = rest.split_once(".kqr)")?;
    Some(path)
}

/// Compares each row that names a recording with that recording; returns how many figures were compared.
fn hold(document: &str, text: &str) -> usize {
    let mut compared = 0;
    let mut head = Vec::new();
    for (line, next) in text.lines().zip(text.lines().skip(1).chain(iter::once(""))) {
        if next.starts_with("|---") {
            head = cells(line);
        }
        let (row, Some(name)) = (cells(line), linked_recording(line)) else { continue };
        if row.is_empty() {
            continue;
        }
        let (stats, Meta { uname: kernel, .. }) = replay(&recording(name));
        let figures = figures(&stats);
        for (column, cell) in head.iter().zip(&row) {
            if *column == "kernel" {
                assert!(kernel.contains(cell), "{document}: {name} is of {kernel}: {line}");
            } else if let Some(expected) = figures.get(column) {
                assert_eq!(cell, expected, "{document}: {column} of {name}");
                compared += 1;
            }
        }
    }
    compared
}

#[test]
fn every_figure_is_that_of_the_recording_beside_it() {
    assert!(hold("README.md", opening(&read("README.md"))) >= 9);
    assert!(hold("docs/findings.md", &read("docs/findings.md")) >= 10);
}

/// Whether this text has a number of four digits or more, as a count of processes has.
fn has_figure(line: &str) -> bool {
    let bytes = line.as_bytes();
    bytes
        .windows(5)
        .any(|w| w[0].is_ascii_digit() && w[1] == b',' && w[2..].iter().all(u8::is_ascii_digit))
}

#[test]
fn no_figure_stands_without_its_source() {
    let readme = read("README.md");
    let loose = opening(&readme).lines().find(|l| has_figure(l) && linked_recording(l).is_none());
    assert_eq!(loose, None, "README.md: a figure without a recording");
    let (findings, kernels) = (read("docs/findings.md"), read("docs/kernels.md"));
    let (kernels, _) = kernels.split_once("## Add your kernel").expect("the last section");
    let mut other_runs = false;
    for line in findings.lines().chain(kernels.lines()) {
        other_runs &= !line.starts_with("**") && !line.starts_with('#');
        other_runs |= line.to_lowercase().contains("other runs");
        assert!(
            !has_figure(line) || linked_recording(line).is_some() || other_runs,
            "no source: {line}"
        );
    }
}

#[test]
fn every_link_of_the_findings_leads_somewhere() {
    for name in [
        "docs/findings.md",
        "docs/kernels.md",
        "docs/upstream/README.md",
        "docs/upstream/lost-exit.md",
        "docs/upstream/repeated-child.md",
        "docs/upstream/kq-sysctl-loss.md",
    ] {
        let folder = path(name).parent().expect("a folder").to_owned();
        let text = read(name);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|l| !l.starts_with("https://") && !l.starts_with('#')) {
            assert!(folder.join(link).exists(), "{name}: {link}");
        }
        let plain = |c: char| c.is_ascii_lowercase() || "-_.".contains(c);
        let words = text.split(|c| !plain(c)).map(|word| word.trim_matches('.'));
        for file in words.filter(|w| w.ends_with(".patch") || w.ends_with("_track.c")) {
            assert!(path("docs/upstream").join(file).exists(), "{name}: {file}");
        }
    }
}

/// Runs scripts/kernel-row on this text; its stdout, or its stderr if it fails.
fn kernel_row(name: &str, json: &str) -> Result<String, String> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&file, json).expect("a file");
    let output = Command::new(path("scripts/kernel-row")).arg(&file).output().expect("python3");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[test]
fn a_report_card_becomes_rows_of_the_last_table_of_kernels() {
    let loaded = |shape, name, notes, stall_ms| {
        let (mut stats, _) = replay(&recording(name));
        stats.trees[0].notes = notes;
        Loaded { shape, run: Run { stall_ms, ..Run::default() }, stats }
    };
    let kernel = KernelVersion { uname: "FreeBSD 15.1 | amd64\n".to_owned(), osreldate: 1_501_000 };
    let both = note::FORK | note::EXEC;
    let runs = vec![
        loaded(Shape::Chain, "split-13.2-chain-stall", both, 40),
        loaded(Shape::Forkexit, "lost-exit-15.1", note::FORK, 0),
    ];
    let card = serde_json::to_string(&Card::of(kernel, runs)).expect("JSON");
    let rows = kernel_row("card.json", &card).expect("rows");
    let kernel = "FreeBSD 15.1 / amd64 | split";
    assert_eq!(
        rows,
        format!(
            "| {kernel} | chain | NOTE_FORK NOTE_EXEC | 40 ms | 420 | 0 | 0 | 421 | 0 | 5,691 | sound |\n\
             | {kernel} | forkexit | NOTE_FORK | 0 ms | 16,001 | 0 | 0 | 16,002 | 4 | 3,499 | unsound |\n"
        )
    );
    let kernels = read("docs/kernels.md");
    let last = kernels.lines().rfind(|l| l.starts_with("|---")).expect("a table");
    assert_eq!(
        cells(last).len(),
        cells(rows.lines().next().unwrap()).len(),
        "columns of the last table"
    );
    assert!(kernels.ends_with("|\n"), "rows can be appended");
    let error = kernel_row("other.json", "{}").expect_err("no report");
    assert!(error.contains("stress --format json"), "{error}");
}
