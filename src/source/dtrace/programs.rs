//! The D programs, part of the binary, and the private files through which dtrace(1) gets them.
//!
//! They go by `-s FILE`: this is how dtrace(1) takes macro arguments ($1, $2) and `#pragma` lines on every release, and
//! its compile errors name lines. `-n TEXT` would put the whole text into ps(1) and into every error message.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::consumers::{CONSUMER, CONSUMER_11, clauses};
use super::{BufferSize, Switchrate};
use crate::model::Pid;

const PROC: &str = include_str!("../../../d-scripts/proc.d");
const PROC_XSTAT: &str = include_str!("../../../d-scripts/proc-xstat.d");
const CAUSES: &str = include_str!("../../../d-scripts/causes.d");

/// The probe of the reader's marks.
const MARKS: &str = "\nsyscall::getpriority:entry\n";

/// The programs by generation of kernels, the newest first: 12 and later, 11, and 9 and 10. Those of a generation go
/// together: its proc program with its clauses of consumers.
pub(crate) const PLAIN: [Program; 3] = [
    Program { name: "proc.d", parts: &[PROC], consumer: CONSUMER },
    Program { name: "proc-11.d", parts: &[PROC], consumer: CONSUMER_11 },
    Program { name: "proc-xstat.d", parts: &[PROC_XSTAT], consumer: CONSUMER_11 },
];

/// The first of them with the cause probes, which need a kernel of that generation and do not compile on each of those.
pub(crate) const WITH_CAUSES: Program =
    Program { name: "proc-causes.d", parts: &[CAUSES, PROC], consumer: CONSUMER };

/// Finds the processes that use EVFILT_PROC.
pub(crate) const CONSUMERS: Program = Program {
    name: "consumers.d",
    parts: &[include_str!("../../../d-scripts/consumers.d")],
    consumer: "",
};

/// Tells which kernel it is. Only a command runs it: the keeper's kernel is ours.
pub(super) const KERNEL: Program = Program {
    name: "kernel.d",
    parts: &[include_str!("../../../d-scripts/kernel.d")],
    consumer: "",
};

/// All that a keeper runs.
pub(crate) const ALL: [Program; 5] = [WITH_CAUSES, PLAIN[0], PLAIN[1], PLAIN[2], CONSUMERS];

/// A D program of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Program {
    /// The file in which dtrace(1) gets it, and its errors name it.
    pub name: &'static str,
    /// The texts of d-scripts/ that it is made of.
    parts: &'static [&'static str],
    /// The program of d-scripts/ with the clauses of consumers.
    consumer: &'static str,
}

impl Program {
    /// Its place in [`ALL`].
    pub(crate) fn place(&self) -> u8 {
        ALL.iter().zip(0..).find_map(|(p, place)| (p == self).then_some(place)).unwrap_or(u8::MAX)
    }

    pub(crate) fn text(&self) -> String {
        self.parts.join("\n")
    }

    /// Its text as dtrace gets it: with the clause of the reader's marks, if a kqueue of our own is read, and the clauses of
    /// these consumers.
    pub(crate) fn tuned(
        &self,
        bufsize: &BufferSize,
        switchrate: &Switchrate,
        marks: bool,
        consumers: &[Pid],
    ) -> String {
        let text = if marks { self.text() } else { without_marks(&self.text()) };
        let text = text + &clauses(self.consumer, consumers);
        with_options(&text, &[("switchrate", switchrate.as_str()), ("bufsize", bufsize.as_str())])
    }
}

/// A program without the paragraph of the clause that prints the reader's marks.
fn without_marks(program: &str) -> String {
    let others = program.split("\n\n").filter(|paragraph| !paragraph.contains(MARKS));
    others.collect::<Vec<_>>().join("\n\n")
}

/// A program with other values of its `#pragma D option` lines. dtrace(1) reads `-x` first and the program later, so that a
/// pragma would win over the command line (13.2 `cmd/dtrace/dtrace.c`, second and fourth pass).
fn with_options(program: &str, options: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(program.len() + 32);
    for line in program.lines() {
        let option = line.strip_prefix("#pragma D option ").and_then(|o| o.split_once('='));
        let value = |name| options.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        match option.and_then(|(name, _)| Some((name, value(name)?))) {
            Some((name, value)) => text.push_str(&format!("#pragma D option {name}={value}")),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// A D program in a file, alone in a folder that only this user may enter. Both go when it is dropped.
#[derive(Debug)]
pub(crate) struct ProgramFile {
    folder: PathBuf,
    path: PathBuf,
}

impl ProgramFile {
    /// Writes a program under this name, in a new folder below the system's one for temporary files.
    pub(crate) fn write(name: &str, text: &str) -> io::Result<ProgramFile> {
        let template = std::env::temp_dir().join("kqproc_exporter.XXXXXX");
        let folder = nix::unistd::mkdtemp(&template)?;
        let program = ProgramFile { path: folder.join(name), folder };
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.open(&program.path)?.write_all(text.as_bytes())?;
        Ok(program)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ProgramFile {
    fn drop(&mut self) {
        // If the file cannot be removed, the folder cannot either.
        let _ = std::fs::remove_file(&self.path);
        if let Err(error) = std::fs::remove_dir(&self.folder) {
            tracing::warn!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

/// Every printf of a program: its format and how many arguments follow it.
#[cfg(test)]
pub(super) fn printfs(text: &str) -> Vec<(&str, usize)> {
    text.split("printf(\"")
        .skip(1)
        .map(|rest| {
            let (format, rest) = rest.split_once('"').expect("the format ends");
            let (arguments, _) = rest.split_once(";").expect("the statement ends");
            (format, arguments.matches(',').count())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::dtrace::DtraceOptions;
    use crate::wire::schema::SCHEMA;

    /// Those that watch trees and consumers.
    const MAIN: [Program; 4] = [WITH_CAUSES, PLAIN[0], PLAIN[1], PLAIN[2]];

    fn tuned(program: &Program, marks: bool, consumers: &[Pid]) -> String {
        let DtraceOptions { bufsize, switchrate, .. } = DtraceOptions::default();
        program.tuned(&bufsize, &switchrate, marks, consumers)
    }

    fn letters(text: &str) -> String {
        printfs(text).iter().map(|(format, _)| &format[..1]).collect()
    }

    #[test]
    fn every_printf_is_as_the_wire_defines_it() {
        for program in &MAIN {
            let text = program.text();
            for (format, arguments) in printfs(&text) {
                let place = format!("{}: {format}", program.name);
                let layout = SCHEMA.layouts(format.as_bytes()[0]).first().expect(&place);
                let conversions = layout.fields.iter().map(|f| if f.hex { " %x" } else { " %d" });
                let expected = format!("{}{}\\n", &format[..1], conversions.collect::<String>());
                assert_eq!(format, expected, "{place}");
                assert_eq!(arguments, layout.fields.len(), "{place}");
            }
        }
        for plain in &PLAIN {
            assert_eq!(letters(&plain.text()), "BCXEFmT", "{}", plain.name);
        }
        assert_eq!(letters(&WITH_CAUSES.text()), "cRSBCXEFmT");
    }

    #[test]
    fn the_two_generations_differ_in_the_status_alone() {
        let new_status = "((this->p->p_xexit & 0xff) << 8) | this->p->p_xsig";
        let clauses = |text: &str| {
            let code = text.split_once("#pragma").expect("pragmas").1;
            let code: String = code.lines().filter(|line| !line.starts_with("/*")).collect();
            code.replace("this->p = curthread->td_proc;", "")
                .replace(new_status, "curthread->td_proc->p_xstat")
                .split_whitespace()
                .collect::<String>()
        };
        assert!(PROC.contains(new_status));
        assert_eq!(clauses(PROC), clauses(PROC_XSTAT));
    }

    #[test]
    fn the_clauses_of_consumers_come_behind_the_program_of_their_generation() {
        let pids = [812, 46].map(|pid| Pid::new(pid).expect("a pid"));
        for program in &MAIN {
            let (alone, both) = (tuned(program, true, &[]), tuned(program, true, &pids));
            let behind = both.strip_prefix(&alone).expect("it begins with the program");
            assert_eq!(letters(behind), "AaNM", "{}", program.name);
            assert!(behind.contains("/pid == 812 || pid == 46/"), "{behind}");
            let is_12 = program.text().contains("p_xexit") && program.name != "proc-11.d";
            assert_eq!(behind.contains("td_sa"), is_12, "{}", program.name);
        }
    }

    /// Every clause of a probe is paid by every process that makes the call, even if its predicate is false.
    #[test]
    fn the_host_pays_for_one_clause_of_one_rare_system_call() {
        for program in &MAIN {
            let text = program.text();
            assert_eq!(text.matches("\nsyscall::").count(), 1, "{}", program.name);
            assert!(
                text.contains("\nsyscall::getpriority:entry\n/pid == $1/\n"),
                "{}",
                program.name
            );
        }
    }

    #[test]
    fn consumers_alone_need_no_marks() {
        let tuned = |program: &Program| tuned(program, false, &[]);
        for plain in &PLAIN {
            assert_eq!(letters(&tuned(plain)), "BCXEFT");
            assert!(!tuned(plain).contains("$1"), "the program has no argument");
        }
        assert_eq!(letters(&tuned(&WITH_CAUSES)), "cRSBCXEFT");
    }

    #[test]
    fn options_replace_pragmas_and_nothing_else() {
        let text = with_options(PROC, &[("bufsize", "4m"), ("switchrate", "20hz")]);
        assert!(text.contains("\n#pragma D option bufsize=4m\n"));
        assert!(text.contains("\n#pragma D option switchrate=20hz\n"));
        assert_eq!(with_options(&text, &[("bufsize", "8m"), ("switchrate", "10hz")]), PROC);
        for program in &MAIN {
            assert_eq!(program.text().matches("option bufsize=").count(), 1, "{}", program.name);
        }
    }

    #[test]
    fn a_program_file_is_private_and_goes_with_its_folder() {
        use std::os::unix::fs::PermissionsExt;
        let file = ProgramFile::write("x.d", "BEGIN {}").expect("a file");
        let folder = file.path().parent().expect("a folder").to_owned();
        let mode = |p: &Path| p.metadata().expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(file.path())), (0o700, 0o600));
        drop(file);
        assert!(!folder.exists());
    }
}
