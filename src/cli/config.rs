//! The configuration file of `serve`: which trees it watches, and how. It is strict: an error names its line.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::{self, Deserialize, Deserializer, Error as _, Visitor};
use toml::Spanned;

use super::live_args::LiveArgs;
use crate::check;
use crate::duration::up_to_a_day;
use crate::plain_file;
use crate::source::dtrace;
use crate::source::kqueue::Notes;
use crate::source::live;
use crate::source::target::{Root, Target, is_name, root_pid};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or is none that should be.
    #[error("cannot read {}: {error}; give one that can be read with --config.file", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The file cannot be understood.
    #[error("{}, line {line}: {what}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// Where in it, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// It does not go with the flags.
    #[error(
        "two trees are named {0:?}: rename one, in the configuration file or on the command line"
    )]
    Twice(String),
}

/// Everything that the configuration file decides.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Settings {
    /// What is watched on this kernel, and how.
    pub live: live::Config,
    /// How patient the cross-checker is. Its `switch_ns` is the live source's to say.
    pub check: check::Config,
}

impl Settings {
    /// What runs with these flags and this file, if there is one: its trees and those of the flags; else a flag that
    /// was given before the file, and the file before the defaults.
    ///
    /// # Errors
    /// The file cannot be used, or two trees have one name.
    pub fn load(file: Option<&Path>, flags: &LiveArgs) -> Result<Settings, ConfigError> {
        let settings = file.map(Settings::read).transpose()?.unwrap_or_default();
        let settings = Settings { live: flags.over(settings.live), ..settings };
        let trees = settings.live.targets.iter().chain(&settings.live.consumers);
        let names: Vec<&str> = trees.map(|t| t.name.as_str()).collect();
        match first_twice(&names) {
            Some(at) => Err(ConfigError::Twice(names[at].to_owned())),
            None => Ok(settings),
        }
    }

    /// A file on its own, over the defaults.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn read(path: &Path) -> Result<Settings, ConfigError> {
        let bytes = plain_file::read(path)
            .map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        let bad = |at: usize, what: String| {
            let line = 1 + bytes[..at].iter().filter(|&&byte| byte == b'\n').count();
            ConfigError::Bad { path: path.to_owned(), line, what }
        };
        let text = str::from_utf8(&bytes).map_err(|e| {
            bad(e.valid_up_to(), "this is no text: a TOML file is UTF-8".to_owned())
        })?;
        let file: File = toml::from_str(text).map_err(|e| {
            let at = e.span().map_or(0, |span| span.start.min(bytes.len()));
            bad(at, one_line(e.message()))
        })?;
        let trees: Vec<&Spanned<Tree>> = file.tree.iter().chain(&file.consumer).collect();
        let names: Vec<&str> = trees.iter().map(|t| t.get_ref().0.name.as_str()).collect();
        match first_twice(&names) {
            Some(at) => Err(bad(
                trees[at].span().start,
                format!("a second tree is named {:?}: give it another name", names[at]),
            )),
            None => Ok(file.settings()),
        }
    }
}

/// The place of the first name that was there before.
fn first_twice(names: &[&str]) -> Option<usize> {
    let mut seen = HashSet::new();
    names.iter().position(|name| !seen.insert(*name))
}

/// Messages are logged, a line each.
fn one_line(message: &str) -> String {
    message.trim().lines().collect::<Vec<_>>().join(": ")
}

/// The file as it is written.
#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct File {
    tree: Vec<Spanned<Tree>>,
    consumer: Vec<Spanned<Tree>>,
    kqueue: Kqueue,
    dtrace: Dtrace,
    check: Check,
}

#[derive(serde::Deserialize)]
#[serde(try_from = "TreeTable")]
struct Tree(Target);

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TreeTable {
    name: String,
    pid: Option<i64>,
    pidfile: Option<PathBuf>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Kqueue {
    note_fork: bool,
    note_exec: bool,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Dtrace {
    path: Option<PathBuf>,
    #[serde(deserialize_with = "size")]
    bufsize: Option<String>,
    #[serde(deserialize_with = "rate")]
    switchrate: Option<String>,
    causes: Option<bool>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Check {
    #[serde(deserialize_with = "nanoseconds")]
    settle: Option<u64>,
    #[serde(deserialize_with = "nanoseconds")]
    reorder: Option<u64>,
    #[serde(deserialize_with = "capacity")]
    capacity: Option<usize>,
}

impl TryFrom<TreeTable> for Tree {
    type Error = String;

    fn try_from(TreeTable { name, pid, pidfile }: TreeTable) -> Result<Tree, String> {
        if !is_name(&name) {
            return Err("a tree needs a name that can be printed".to_owned());
        }
        let root = match (pid, pidfile) {
            (Some(number), None) => {
                let pid = u64::try_from(number).ok().and_then(root_pid);
                Root::Pid(pid.ok_or_else(|| format!("tree {name:?}: {number} is no pid"))?)
            }
            (None, Some(path)) if !path.as_os_str().is_empty() => Root::PidFile(path),
            (None, Some(_)) => return Err(format!("tree {name:?}: the pidfile has no path")),
            (Some(_), Some(_)) => {
                return Err(format!("tree {name:?} has both pid and pidfile: remove one"));
            }
            (None, None) => return Err(format!("tree {name:?} needs a pid or a pidfile")),
        };
        Ok(Tree(Target { name, root }))
    }
}

impl File {
    fn settings(self) -> Settings {
        let File { tree, consumer, kqueue, dtrace: given, check } = self;
        let targets =
            |trees: Vec<Spanned<Tree>>| trees.into_iter().map(|tree| tree.into_inner().0).collect();
        let defaults = Settings::default();
        let of_dtrace = defaults.live.dtrace;
        Settings {
            live: live::Config {
                targets: targets(tree),
                consumers: targets(consumer),
                notes: Notes { fork: kqueue.note_fork, exec: kqueue.note_exec },
                dtrace: dtrace::Options {
                    path: given.path.filter(|path| path != Path::new(dtrace::DTRACE)),
                    bufsize: given.bufsize.unwrap_or(of_dtrace.bufsize),
                    switchrate: given.switchrate.unwrap_or(of_dtrace.switchrate),
                    causes: given.causes.unwrap_or(of_dtrace.causes),
                    ..of_dtrace
                },
                ..defaults.live
            },
            check: check::Config {
                settle_ns: check.settle.unwrap_or(defaults.check.settle_ns),
                reorder_ns: check.reorder.unwrap_or(defaults.check.reorder_ns),
                capacity: check.capacity.unwrap_or(defaults.check.capacity),
                ..defaults.check
            },
        }
    }
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let size = |text: &str| dtrace::size(text).map_err(str::to_owned);
    deserializer.deserialize_str(Quoted("a size in quotes, such as \"8m\"", size)).map(Some)
}

fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let rate = |text: &str| dtrace::rate(text).map_err(str::to_owned);
    deserializer.deserialize_str(Quoted("a rate in quotes, such as \"10hz\"", rate)).map(Some)
}

fn nanoseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let nanoseconds = |text: &str| match up_to_a_day(text)?.as_nanos().try_into() {
        Ok(0) => Err("give more than 0".to_owned()),
        other => other.map_err(|_| "give less".to_owned()),
    };
    let form = "a duration in quotes, such as \"500ms\"";
    deserializer.deserialize_str(Quoted(form, nanoseconds)).map(Some)
}

/// What is to be written, and what it means.
struct Quoted<P>(&'static str, P);

impl<T, P: Fn(&str) -> Result<T, String>> Visitor<'_> for Quoted<P> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        self.1(text).map_err(|why| E::custom(format!("{text:?}: {why}")))
    }
}

fn capacity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let number = i64::deserialize(deserializer)?;
    let given =
        usize::try_from(number).ok().filter(|given| check::Config::CAPACITY.contains(given));
    let (least, most) = (check::Config::CAPACITY.start(), check::Config::CAPACITY.end());
    let wrong = || D::Error::custom(format!("{number}: give a number from {least} to {most}"));
    given.map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        live: LiveArgs,
    }

    fn read(text: &str) -> Result<Settings, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.toml");
        fs::write(&path, text).expect("written");
        let folder = format!("{}/", folder.path().display());
        Settings::read(&path).map_err(|error| error.to_string().replace(&folder, ""))
    }

    fn load(text: &str, flags: &[&str]) -> Result<Settings, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.toml");
        fs::write(&path, text).expect("written");
        let flags = Line::parse_from(["test"].iter().chain(flags)).live;
        Settings::load(Some(&path), &flags).map_err(|error| error.to_string())
    }

    /// The sample with its keys and tables no longer commented out.
    fn sample() -> String {
        let sample = include_str!("../../deploy/freebsd/config.toml.sample");
        let line = |line: &'static str| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') || rest.contains(" = ") => rest,
            _ => line,
        };
        sample.lines().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_sample_shows_every_key_with_its_default() {
        let shown = read(&sample()).expect("it is good");
        let names: Vec<&str> = shown.live.targets.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["cron", "session"]);
        assert_eq!(
            shown.live.consumers,
            ["s6=pidfile:/var/run/s6.pid".parse().expect("a consumer")]
        );
        let live = live::Config { targets: Vec::new(), consumers: Vec::new(), ..shown.live };
        assert_eq!(Settings { live, ..shown }, Settings::default());
        for key in ["pid", "pidfile", "note_fork", "note_exec", "bufsize", "switchrate", "causes"]
            .iter()
            .chain(&["path", "settle", "reorder", "capacity"])
        {
            assert!(sample().lines().any(|l| l.starts_with(&format!("{key} = "))), "{key}");
        }
    }

    #[test]
    fn a_flag_comes_before_the_file_and_the_file_before_the_default() {
        let text = "[dtrace]\nbufsize = \"4m\"\nswitchrate = \"2hz\"\ncauses = false\n\
                    [kqueue]\nnote_fork = true\n[check]\nsettle = \"2s\"\ncapacity = 4096\n";
        let by_file = load(text, &[]).expect("good");
        assert_eq!(by_file.live.dtrace.bufsize, "4m");
        assert!(!by_file.live.dtrace.causes);
        assert_eq!(by_file.live.notes, Notes { fork: true, exec: false });
        assert_eq!((by_file.check.settle_ns, by_file.check.capacity), (2_000_000_000, 4096));
        assert_eq!(by_file.check.reorder_ns, check::Config::default().reorder_ns);
        let flags = ["--dtrace.bufsize=8m", "--kqueue.notes=exec"];
        let by_flag = load(text, &flags).expect("good");
        assert_eq!(by_flag.live.dtrace.bufsize, "8m", "given, though it is the default");
        assert_eq!(by_flag.live.dtrace.switchrate, "2hz");
        assert_eq!(by_flag.live.notes, Notes { fork: false, exec: true });
    }

    #[test]
    fn the_trees_of_the_file_come_before_those_of_the_flags() {
        let text = "[[tree]]\nname = \"a\"\npid = 1\n";
        let both = load(text, &["--kqueue.target=b=pid:2", "--", "make"]).expect("good");
        let names: Vec<&str> = both.live.targets.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "command"]);
        for flag in ["--kqueue.target=a=pid:2", "--consumer=a=pid:2"] {
            let twice = load(text, &[flag]).expect_err("two of one name");
            assert!(twice.contains("two trees are named \"a\""), "{twice}");
        }
        let text = "[[consumer]]\nname = \"b\"\npid = 1\n";
        let both = load(text, &["--consumer=c=pid:2"]).expect("good").live;
        let expected = ["b=pid:1", "c=pid:2"].map(|text| text.parse().expect("a consumer"));
        assert_eq!((both.targets, both.consumers), (Vec::new(), expected.to_vec()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, error) in [
            ("\n[dtrace]\nbufsiz = 1", "3: unknown field `bufsiz`, expected one of `path`"),
            ("[dtrace]\nbufsize = \"8x\"", "2: \"8x\": give a size for dtrace, such as 8m"),
            ("[dtrace]\nswitchrate = \"10\"", "2: \"10\": give a rate for dtrace"),
            ("[kqueue]\nnote_fork = 1", "2: invalid type: integer `1`, expected a boolean"),
            ("[check]\nsettle = 500", "2: invalid type: integer `500`, expected a duration in"),
            ("[check]\nreorder = \"0s\"", "2: \"0s\": give more than 0"),
            ("[check]\nsettle = \"25h\"", "2: \"25h\": give a number with its unit"),
            ("[check]\ncapacity = -1", "2: -1: give a number from 1024 to 16777216"),
            ("[[tree]]\npid = 1", "1: missing field `name`"),
            ("[[tree]]\nname = \"\"\npid = 1", "1: a tree needs a name"),
            ("[[tree]]\nname = \"a\"", "1: tree \"a\" needs a pid or a pidfile"),
            ("[[tree]]\nname = \"a\"\npid = 0", "1: tree \"a\": 0 is no pid"),
            ("[[tree]]\nname = \"a\"\npidfile = \"\"", "1: tree \"a\": the pidfile has no path"),
            (
                "[[tree]]\nname = \"a\"\npid = 1\n[[consumer]]\nname = \"a\"\npid = 2",
                "4: a second tree is named \"a\"",
            ),
            ("\n\0", "2: "),
        ] {
            let message = read(text).expect_err(text);
            assert!(
                message.starts_with(&format!("config.toml, line {error}")),
                "{text:?}: {message}"
            );
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }
}
