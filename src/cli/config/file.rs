//! The configuration file as it is written: its tables and keys, and what each may hold.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{self, Deserialize, Deserializer, Error as _, Visitor};
use toml::Spanned;

use super::Settings;
use crate::check;
use crate::duration::up_to_a_day;
use crate::source::dtrace::{self, command::words};
use crate::source::kqueue::Notes;
use crate::source::live::{self, RemoteConfig};
use crate::source::target::{Root, Target, is_name, root_pid};

/// The file as it is written.
#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ConfigFile {
    tree: Vec<Spanned<TreeEntry>>,
    consumer: Vec<Spanned<TreeEntry>>,
    remote: Vec<Spanned<RemoteEntry>>,
    kqueue: KqueueTable,
    dtrace: DtraceTable,
    check: Check,
}

#[derive(serde::Deserialize)]
#[serde(try_from = "TreeTable")]
struct TreeEntry(Target);

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TreeTable {
    name: String,
    pid: Option<i64>,
    pidfile: Option<PathBuf>,
}

/// A host that is watched over a command. Its consumers are named HOST/NAME.
#[derive(serde::Deserialize)]
#[serde(try_from = "RemoteTable")]
struct RemoteEntry {
    host: String,
    command: Vec<String>,
    consumers: Vec<Target>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoteTable {
    host: String,
    command: String,
    #[serde(default)]
    consumer: Vec<TreeEntry>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct KqueueTable {
    note_fork: bool,
    note_exec: bool,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct DtraceTable {
    path: Option<PathBuf>,
    #[serde(deserialize_with = "size")]
    bufsize: Option<dtrace::BufferSize>,
    #[serde(deserialize_with = "rate")]
    switchrate: Option<dtrace::Switchrate>,
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

impl TryFrom<TreeTable> for TreeEntry {
    type Error = String;

    fn try_from(TreeTable { name, pid, pidfile }: TreeTable) -> Result<TreeEntry, String> {
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
        Ok(TreeEntry(Target { name, root }))
    }
}

impl TryFrom<RemoteTable> for RemoteEntry {
    type Error = String;

    fn try_from(
        RemoteTable { host, command, consumer }: RemoteTable,
    ) -> Result<RemoteEntry, String> {
        if !is_name(&host) {
            return Err("a remote needs a host that can be printed".to_owned());
        }
        let command = words(&command).map_err(|why| format!("remote {host:?}: {why}"))?;
        if consumer.is_empty() {
            return Err(format!(
                "remote {host:?} has no [[remote.consumer]] with a name and a pid"
            ));
        }
        let of_host = |TreeEntry(target)| match target.root {
            Root::Pid(_) => Ok(Target { name: format!("{host}/{}", target.name), ..target }),
            _ => Err(format!(
                "remote {host:?}, consumer {:?}: give its pid there: nothing here can read a file of that host",
                target.name
            )),
        };
        let consumers = consumer.into_iter().map(of_host).collect::<Result<_, _>>()?;
        Ok(RemoteEntry { host, command, consumers })
    }
}

impl ConfigFile {
    /// Whether it says which program is run.
    pub(super) fn names_a_program(&self) -> bool {
        self.dtrace.path.is_some() || !self.remote.is_empty()
    }

    /// Where in the text a tree or a remote begins that has the name of another one before it, and what to do about that.
    pub(super) fn second_of_one_name(&self) -> Option<(usize, String)> {
        let trees = self.tree.iter().chain(&self.consumer);
        let trees = trees.map(|tree| (tree.span().start, &tree.get_ref().0.name));
        let remotes = self.remote.iter().map(|remote| (remote.span().start, remote.get_ref()));
        let of_remotes = remotes.clone().flat_map(|(at, remote)| {
            remote.consumers.iter().map(move |consumer| (at, &consumer.name))
        });
        if let Some((at, name)) = second(trees.chain(of_remotes)) {
            return Some((at, format!("a second tree is named {name:?}: give it another name")));
        }
        let (at, host) = second(remotes.map(|(at, remote)| (at, &remote.host)))?;
        Some((at, format!("a second [[remote]] has the host {host:?}: give it another name")))
    }

    pub(super) fn settings(self) -> Settings {
        let ConfigFile { tree, consumer, remote: remotes, kqueue, dtrace: given, check } = self;
        let targets = |trees: Vec<Spanned<TreeEntry>>| {
            trees.into_iter().map(|tree| tree.into_inner().0).collect()
        };
        let defaults = Settings::default();
        let of_dtrace = defaults.live.dtrace;
        let remote = |remote: Spanned<RemoteEntry>| {
            let RemoteEntry { host, command, consumers } = remote.into_inner();
            RemoteConfig { host, command, consumers, dtrace: dtrace::DtraceOptions::default() }
        };
        Settings {
            remotes: remotes.into_iter().map(remote).collect(),
            live: live::LiveConfig {
                targets: targets(tree),
                consumers: targets(consumer),
                notes: Notes { fork: kqueue.note_fork, exec: kqueue.note_exec },
                dtrace: dtrace::DtraceOptions {
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

/// The first that has the name of one before it.
fn second<'a>(mut named: impl Iterator<Item = (usize, &'a String)>) -> Option<(usize, &'a String)> {
    let mut seen = HashSet::new();
    named.find(|(_, name)| !seen.insert(*name))
}

fn size<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<dtrace::BufferSize>, D::Error> {
    let size = |text: &str| text.parse().map_err(str::to_owned);
    deserializer.deserialize_str(Quoted("a size in quotes, such as \"8m\"", size)).map(Some)
}

fn rate<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<dtrace::Switchrate>, D::Error> {
    let rate = |text: &str| text.parse().map_err(str::to_owned);
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
