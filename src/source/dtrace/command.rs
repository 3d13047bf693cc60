//! A command line that runs dtrace(1), on another host as a rule: `ssh -T root@old-host dtrace`.
//!
//! The D program goes over stdin, by `-s /dev/stdin`. As `-n TEXT` it would be a word of the remote login shell, which is
//! csh(1) for root up to FreeBSD 13 and takes no quoting for newlines and `!`, and ps(1) and every message would show all
//! of it. The arguments are digits: ssh(1) joins its words with blanks, and no shell reads digits in another way.

use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use nix::sys::signal::Signal;

use super::DtraceOptions;
use super::link::Link;
use super::programs::{CONSUMERS, KERNEL, Program};
use crate::model::Pid;
use crate::source::keeper::process::{self, ProcessEnd, Script, Supervised};
use crate::source::keeper::{KeeperError, Started};
use crate::source::sysctl::KernelInfo;

/// How dtrace(1) begins a message about a program that it does not understand (`dtrace.c`, `compile_file`).
const REFUSED: &str = "dtrace: failed to compile";

/// The words of a command line, as a shell would split it; no shell expands anything in them.
///
/// # Errors
/// It has none, or a quote that does not end.
pub fn words(line: &str) -> Result<Vec<String>, &'static str> {
    const FORM: &str = "give a command that runs dtrace, such as 'ssh -T root@HOST dtrace'";
    shlex::split(line).filter(|words| !words.is_empty()).ok_or(FORM)
}

/// What runs dtrace(1) by a command. Clones are the same; with the last, what it has started ends.
#[derive(Clone)]
pub(super) struct CommandRunner(Arc<CommandInner>);

struct CommandInner {
    words: Vec<String>,
    options: DtraceOptions,
    /// The one that was started last.
    running: Mutex<Option<Supervised>>,
    link: Link,
}

impl fmt::Debug for CommandRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CommandRunner").field(&self.0.words).finish()
    }
}

impl CommandRunner {
    /// `host` is how the log calls it; empty for the only one.
    pub(super) fn new(words: &[String], options: &DtraceOptions, host: &str) -> CommandRunner {
        let (words, options) = (words.to_vec(), options.clone());
        let (running, link) = (Mutex::default(), Link::new(host));
        CommandRunner(Arc::new(CommandInner { words, options, running, link }))
    }

    /// Its output that is not dtrace(1)'s.
    pub(super) fn link(&self) -> Link {
        self.0.link.clone()
    }

    /// Compiles a program without running it, as long as that is `wanted`.
    ///
    /// # Errors
    /// [`KeeperError::Refused`] with dtrace's message; [`KeeperError::Failed`]: dtrace(1) was not reached.
    pub(super) fn compile(
        &self,
        program: &Program,
        consumers: &[Pid],
        wanted: impl Fn() -> bool,
    ) -> Result<(), KeeperError> {
        let ended = self.run_to_end(&["-e"], self.text(program, consumers), wanted)?;
        let refused = ended.stderr.lines().find(|line| line.starts_with(REFUSED));
        match refused {
            _ if ended.status.success() => Ok(()),
            Some(why) => Err(KeeperError::Refused(why.to_owned())),
            None => Err(self.unreached(&ended)),
        }
    }

    /// The kernel that dtrace(1) runs on, by its own variables; the default if they cannot be read.
    pub(super) fn kernel(&self, wanted: &dyn Fn() -> bool) -> KernelInfo {
        let ended = self.run_to_end(&[], self.text(&KERNEL, &[]), wanted);
        ended.ok().and_then(|ended| kernel_of(&ended.stdout)).unwrap_or_default()
    }

    /// Runs a program for these consumers. A dtrace that runs still is ended.
    pub(super) fn start(
        &self,
        program: &Program,
        consumers: &[Pid],
    ) -> Result<Started, KeeperError> {
        self.start_text(self.text(program, consumers))
    }

    /// Runs consumers.d, for so many seconds: over a link it cannot be asked to end and print its sums.
    pub(super) fn start_survey(&self, seconds: u64) -> Result<Started, KeeperError> {
        let end = format!("\ntick-{seconds}s\n{{\n\texit(0);\n}}\n");
        self.start_text(self.text(&CONSUMERS, &[]) + &end)
    }

    fn start_text(&self, text: String) -> Result<Started, KeeperError> {
        let mut running = self.running();
        *running = None;
        let (dtrace, descriptors) =
            Supervised::start(&mut self.command(&[], &text), Script::Stdin(text))
                .map_err(|error| self.unstartable(&error))?;
        Started::of(running.insert(dtrace).pid(), descriptors)
    }

    /// To the command: it ends, and dtrace(1) on the other side with its next write into the closed pipe.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(dtrace) = &*self.running() {
            dtrace.signal(signal);
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Supervised>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self, program: &Program, consumers: &[Pid]) -> String {
        let DtraceOptions { bufsize, switchrate, .. } = &self.0.options;
        // No reader of ours runs on that host.
        program.tuned(bufsize, switchrate, false, consumers)
    }

    fn command(&self, flags: &[&str], text: &str) -> Command {
        let (program, words) = self.0.words.split_first().map_or(("", &[][..]), |(p, w)| (p, w));
        let mut command = Command::new(program);
        command.args(words).args(flags).args(["-s", "/dev/stdin"]);
        // The process that consumers.d leaves out: none. An argument that a program does not use is an error (libdtrace,
        // dt_cc.c, D_MACRO_UNUSED).
        if text.contains("$1") {
            command.arg("0");
        }
        command
    }

    fn run_to_end(
        &self,
        flags: &[&str],
        text: String,
        wanted: impl Fn() -> bool,
    ) -> Result<ProcessEnd, KeeperError> {
        let ran = process::run(
            &mut self.command(flags, &text),
            Script::Stdin(text),
            self.0.options.compile,
            wanted,
        );
        let ended = ran.map_err(|error| self.unstartable(&error))?;
        ended.stderr.lines().for_each(|line| self.0.link.take(line.as_bytes()));
        Ok(ended)
    }

    fn unstartable(&self, error: &io::Error) -> KeeperError {
        let program = self.0.words.first().map_or("", String::as_str);
        KeeperError::Failed(format!("cannot run {program}: {error}; see --dtrace.command"))
    }

    /// It ended without a message of dtrace's about the program.
    fn unreached(&self, ended: &ProcessEnd) -> KeeperError {
        let line = ended.stderr.lines().map(str::trim).rfind(|line| !line.is_empty());
        let line = line.unwrap_or("it printed nothing");
        KeeperError::Failed(format!("no answer of dtrace's ({}): {line}", ended.status))
    }
}

/// What kernel.d printed: `K osreldate osrelease`, behind the text that a login shell may print.
fn kernel_of(stdout: &str) -> Option<KernelInfo> {
    let line = stdout.lines().find_map(|line| line.strip_prefix("K "))?;
    let (osreldate, osrelease) = line.trim().split_once(' ')?;
    let osreldate = osreldate.parse().ok()?;
    let plain = |c: char| c.is_ascii_graphic();
    if osrelease.is_empty() || osrelease.len() > 64 || !osrelease.chars().all(plain) {
        return None;
    }
    Some(KernelInfo {
        uname: format!("FreeBSD {osrelease}"),
        osrelease: osrelease.to_owned(),
        osreldate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_split_as_a_shell_splits_it_and_nothing_is_expanded() {
        assert_eq!(
            words("ssh -T -o 'ProxyCommand=nc %h 22' root@\"old host\" ~/$HOME/dtrace").unwrap(),
            ["ssh", "-T", "-o", "ProxyCommand=nc %h 22", "root@old host", "~/$HOME/dtrace"]
        );
        for bad in ["", "  ", "ssh 'root@host"] {
            assert!(words(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_kernel_is_known_by_its_own_record_alone() {
        let kernel = kernel_of("Willkommen\nK 903000 9.3-RELEASE\n").expect("a kernel");
        assert_eq!((kernel.osreldate, kernel.osrelease.as_str()), (903_000, "9.3-RELEASE"));
        for bad in ["", "K", "K 9 ", "K x 9.3", "K 9 a b", "K 9 \u{9b}", "K 99999999999 9.3"] {
            assert_eq!(kernel_of(bad), None, "{bad:?}");
        }
    }
}
