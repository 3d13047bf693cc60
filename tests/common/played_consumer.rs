//! A real consumer's run that the stand-in for dtrace(1) prints again, as if it were that of a process of ours.

use std::fs;
use std::ops::ControlFlow;
use std::process::{Child, Command, ExitStatus};

use kqproc_exporter::input::Input;
use kqproc_exporter::model::Pid;
use kqproc_exporter::source::replay::Replay;
use nix::sys::signal::{Signal, kill};

use super::played::dtrace_output;
use super::stand_in_dtrace::StandInDtrace;
use super::{fixture, recording};

/// A process that sleeps, and is killed when dropped.
pub struct Sleeper(pub Child);

impl Sleeper {
    pub fn start() -> Sleeper {
        Sleeper(Command::new("sleep").arg("1000").spawn().expect("it starts"))
    }

    pub fn pid(&self) -> Pid {
        Pid::new(self.0.id().into()).expect("a pid")
    }

    /// Ends it as somebody does at a terminal.
    pub fn interrupt(&mut self) -> ExitStatus {
        kill(nix::unistd::Pid::from_raw(self.0.id() as i32), Signal::SIGINT).expect("it runs");
        self.0.wait().expect("it ends")
    }

    pub fn end(&mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What dtrace(1) printed about a consumer, and its pid then.
pub struct ConsumerRun {
    pub text: String,
    pub pid: Pid,
}

impl ConsumerRun {
    /// A run of `tests/fixtures/consumer`.
    pub fn of_fixture(name: &str) -> ConsumerRun {
        let folder = fixture("consumer").join(name);
        let pid = fs::read_to_string(folder.join("pid.txt")).expect("its pid");
        let pid = Pid::new(pid.trim().parse().expect("a number")).expect("a pid");
        ConsumerRun { text: dtrace_output(&folder), pid }
    }

    /// One of the project's recordings.
    pub fn of_recording(name: &str) -> ConsumerRun {
        let (mut stdout, mut consumer) = (Vec::new(), None);
        let replay = Replay::open(&recording(name)).expect("a recording");
        let played = replay.play(&mut |input: Input<'_>| {
            match input {
                Input::Stdout { bytes, .. } => stdout.extend_from_slice(bytes),
                Input::Consumer { pid: Some(pid), .. } => consumer = Some(pid),
                _ => {}
            }
            ControlFlow::Continue(())
        });
        played.expect("an undamaged recording");
        let text = String::from_utf8(stdout).expect("text");
        ConsumerRun { text, pid: consumer.expect("a consumer") }
    }

    /// A stand-in with this behaviour that prints the run as if it were that of process `pid`.
    pub fn played_by(&self, behaviour: &str, pid: Pid) -> StandInDtrace {
        let stand_in = StandInDtrace::new(behaviour);
        let (own, recorded) = (pid.to_string(), self.pid.to_string());
        // The two change places: a process of the run may have had the pid of ours.
        let exchanged = |field| match field {
            field if field == recorded => own.as_str(),
            field if field == own => recorded.as_str(),
            field => field,
        };
        let mut played = String::new();
        for line in self.text.lines() {
            played += &line.split(' ').map(exchanged).collect::<Vec<_>>().join(" ");
            played.push('\n');
        }
        // The last records are decided when something later is printed.
        let times = played.lines().filter_map(|line| line.split(' ').nth(1)?.parse::<u64>().ok());
        let last = times.max().expect("a time");
        for seconds in [5, 10] {
            played += &format!("T {} 1\n", last + seconds * 1_000_000_000);
        }
        fs::write(stand_in.file("stdout"), played).expect("written");
        stand_in
    }
}
