//! A stand-in for ssh(1) and the dtrace(1) behind it: the script `tests/fixtures/stand-in-ssh.sh`. It plays what a real dtrace
//! printed of a real consumer.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use flate2::read::GzDecoder;
use tempfile::TempDir;

use super::exporter::{self, Exporter};
use super::fixture;

/// A link to a host, in a folder of its own, where it leaves notes about its runs.
pub struct StandInSsh {
    folder: TempDir,
    program: PathBuf,
    /// The consumer's pid on that host.
    pub pid: String,
}

impl StandInSsh {
    /// A link over which the output of `tests/fixtures/consumer/RUN` comes, and then ticks.
    pub fn plays(run: &str) -> StandInSsh {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("ssh");
        symlink(fixture("stand-in-ssh.sh"), &program).expect("a link");
        let run = fixture("consumer").join(run);
        let mut text = String::new();
        match File::open(run.join("dtrace.txt.gz")) {
            Ok(packed) => GzDecoder::new(packed).read_to_string(&mut text),
            Err(_) => File::open(run.join("dtrace.txt"))
                .and_then(|mut plain| plain.read_to_string(&mut text)),
        }
        .expect("a run");
        let time = |line: &str| line.split(' ').nth(1)?.parse::<u64>().ok();
        let last = text.lines().filter_map(time).max().expect("a time");
        // What was printed last is decided once something later was printed.
        text += &format!("T {} 1\n", last + 60_000_000_000);
        fs::write(folder.path().join("stdout"), text.trim_start()).expect("written");
        let pid = fs::read_to_string(run.join("pid.txt")).expect("its pid").trim().to_owned();
        StandInSsh { folder, program, pid }
    }

    /// The link is cut once, within a line in the middle of the run; after it the rest comes, from a dtrace on the same host.
    pub fn is_cut_once(&self) {
        let text = fs::read_to_string(self.file("stdout")).expect("a run");
        let numbers = |line: &str| -> Vec<u64> {
            line.split(' ').skip(1).filter_map(|field| field.parse().ok()).collect()
        };
        let begin = numbers(text.lines().next().expect("a line"));
        let (first, rest) = text.split_at(text.len() / 2);
        let (half, rest) = rest.split_once('\n').expect("a line");
        let at = numbers(rest.lines().next().expect("a line"))[0];
        let wall = begin[1] + (at - begin[0]);
        let first = format!("{first}{}", &half[..half.len() / 2]);
        fs::write(self.file("stdout"), first).expect("written");
        fs::write(self.file("again"), format!("B {at} {wall}\n{rest}")).expect("written");
    }

    /// A file of its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command that reaches dtrace(1) on `host`.
    pub fn command(&self, host: &str) -> String {
        format!("{} -T root@{host} dtrace", self.program.display())
    }

    /// An exporter that watches the consumer there, as tree `old`.
    pub fn serve(&self, host: &str) -> Exporter {
        Exporter::start(exporter::serve([
            "--dtrace.command".to_owned(),
            self.command(host),
            format!("--consumer=old=pid:{}", self.pid),
        ]))
    }
}
