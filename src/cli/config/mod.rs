//! The configuration file of `serve`: which trees it watches, and how. It is strict: an error names its line.

mod file;

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use self::file::ConfigFile;
use super::live_args::LiveArgs;
use crate::check;
use crate::plain_file;
use crate::source::live::{self, RemoteConfig};

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
    /// It names a program, and not its owner alone decides which.
    #[error(
        "{}: it names a program to be run, and others may write to it: let root or the exporter's user own it, and take \
         the others' right away (chmod go-w)",
        .0.display()
    )]
    Writable(PathBuf),
    /// It does not go with the flags.
    #[error(
        "two trees are named {0:?}: rename one, in the configuration file or on the command line"
    )]
    Twice(String),
}

/// Everything that the configuration file decides.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Settings {
    /// What is watched on this kernel, and how; or on another one, with `--dtrace.command`.
    pub live: live::LiveConfig,
    /// The hosts of the file that are watched over commands.
    pub remotes: Vec<RemoteConfig>,
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
        let mut settings = Settings { live: flags.over(settings.live), ..settings };
        for remote in &mut settings.remotes {
            remote.dtrace.clone_from(&settings.live.dtrace);
        }
        let trees = settings.live.targets.iter().chain(&settings.live.consumers);
        let trees = trees.chain(settings.remotes.iter().flat_map(|remote| &remote.consumers));
        let mut seen = HashSet::new();
        match trees.map(|tree| &tree.name).find(|name| !seen.insert(*name)) {
            Some(twice) => Err(ConfigError::Twice(twice.clone())),
            None => Ok(settings),
        }
    }

    /// The hosts that are watched over commands.
    pub fn remotes(&self) -> impl Iterator<Item = RemoteConfig> {
        self.live.remote().into_iter().chain(self.remotes.iter().cloned())
    }

    /// Whether anything is named that is to be watched.
    pub(crate) fn names_anything(&self) -> bool {
        !self.live.is_empty() || !self.remotes.is_empty()
    }

    /// Whether processes of this host are to be watched, or nothing is named.
    pub(crate) fn watches_this_host(&self) -> bool {
        self.live.dtrace.command.is_none() && (!self.live.is_empty() || self.remotes.is_empty())
    }

    /// A file on its own, over the defaults.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn read(path: &Path) -> Result<Settings, ConfigError> {
        let unreadable = |error| ConfigError::Read { path: path.to_owned(), error };
        let bytes = plain_file::read(path).map_err(unreadable)?;
        let bad = |at: usize, what: String| {
            let line = 1 + bytes[..at].iter().filter(|&&byte| byte == b'\n').count();
            ConfigError::Bad { path: path.to_owned(), line, what }
        };
        let text = str::from_utf8(&bytes).map_err(|e| {
            bad(e.valid_up_to(), "this is no text: a TOML file is UTF-8".to_owned())
        })?;
        let file: ConfigFile = toml::from_str(text).map_err(|e| {
            let at = e.span().map_or(0, |span| span.start.min(bytes.len()));
            bad(at, one_line(e.message()))
        })?;
        if file.names_a_program() && others_may_write(path).map_err(unreadable)? {
            return Err(ConfigError::Writable(path.to_owned()));
        }
        match file.second_of_one_name() {
            Some((at, what)) => Err(bad(at, what)),
            None => Ok(file.settings()),
        }
    }
}

/// Whether another user than root and this process's own can change a file.
fn others_may_write(path: &Path) -> io::Result<bool> {
    let metadata = std::fs::metadata(path)?;
    let owner = metadata.uid();
    Ok(metadata.mode() & 0o022 != 0 || (owner != 0 && owner != geteuid().as_raw()))
}

/// Messages are logged, a line each.
fn one_line(message: &str) -> String {
    message.trim().lines().collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;
    use crate::source::kqueue::Notes;

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
        let sample = include_str!("../../../deploy/freebsd/config.toml.sample");
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
        let live = live::LiveConfig { targets: Vec::new(), consumers: Vec::new(), ..shown.live };
        let [remote] = shown.remotes.as_slice() else { panic!("one remote is shown") };
        assert_eq!(remote.command, ["ssh", "-o", "BatchMode=yes", "-T", "root@old-host", "dtrace"]);
        assert_eq!(remote.consumers, ["old-host/s6=pid:812".parse().expect("a consumer")]);
        assert_eq!(Settings { live, remotes: Vec::new(), ..shown }, Settings::default());
        for key in ["pid", "pidfile", "note_fork", "note_exec", "bufsize", "switchrate", "causes"]
            .iter()
            .chain(&["path", "settle", "reorder", "capacity", "host", "command"])
        {
            assert!(sample().lines().any(|l| l.starts_with(&format!("{key} = "))), "{key}");
        }
    }

    #[test]
    fn a_flag_comes_before_the_file_and_the_file_before_the_default() {
        let text = "[dtrace]\nbufsize = \"4m\"\nswitchrate = \"2hz\"\ncauses = false\n\
                    [kqueue]\nnote_fork = true\n[check]\nsettle = \"2s\"\ncapacity = 4096\n";
        let by_file = load(text, &[]).expect("good");
        assert_eq!(by_file.live.dtrace.bufsize.as_str(), "4m");
        assert!(!by_file.live.dtrace.causes);
        assert_eq!(by_file.live.notes, Notes { fork: true, exec: false });
        assert_eq!((by_file.check.settle_ns, by_file.check.capacity), (2_000_000_000, 4096));
        assert_eq!(by_file.check.reorder_ns, check::Config::default().reorder_ns);
        let flags = ["--dtrace.bufsize=8m", "--kqueue.notes=exec"];
        let by_flag = load(text, &flags).expect("good");
        assert_eq!(by_flag.live.dtrace.bufsize.as_str(), "8m", "given, though it is the default");
        assert_eq!(by_flag.live.dtrace.switchrate.as_str(), "2hz");
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
    fn what_is_wrong_is_reported_with_its_line() {
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
            (
                "[[remote]]\nhost = \"a\"\ncommand = \"ssh 'a\"",
                "1: remote \"a\": give a command that runs dtrace",
            ),
            ("[[remote]]\nhost = \"a\"\ncommand = \"ssh\"", "1: remote \"a\" has no"),
            (
                "[[remote]]\nhost = \"a\"\ncommand = \"ssh\"\n[[remote.consumer]]\nname = \"b\"\npidfile = \"/c\"",
                "1: remote \"a\", consumer \"b\": give its pid there",
            ),
            (
                "[[tree]]\nname = \"a/b\"\npid = 1\n[[remote]]\nhost = \"a\"\ncommand = \"ssh\"\n\
                 [[remote.consumer]]\nname = \"b\"\npid = 2",
                "4: a second tree is named \"a/b\"",
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
