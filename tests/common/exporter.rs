//! A running exporter: the real binary, started and stopped as an operator does.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use super::client::Client;
use super::{PATIENCE, eventually};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_kqproc_exporter");

/// The program with this command, an address, and these flags. It serves as the user who runs the tests, because it must
/// read that user's files.
fn command<I: IntoIterator<Item: AsRef<OsStr>>>(name: &[&str], flags: I) -> Command {
    let mut command = Command::new(PROGRAM);
    let user = format!("--user={}", geteuid());
    command.args(name).args(["--web.listen-address=127.0.0.1:0", &user]).args(flags);
    command
}

/// The command line of `serve`.
pub fn serve<I: IntoIterator<Item: AsRef<OsStr>>>(flags: I) -> Command {
    command(&["serve"], flags)
}

/// The command line that serves a simulated kernel.
pub fn simulate<I: IntoIterator<Item: AsRef<OsStr>>>(flags: I) -> Command {
    command(&["simulate", "--serve"], flags)
}

/// An exporter that listens. Killed when dropped.
pub struct Exporter {
    child: Child,
    client: Client,
    log: Receiver<String>,
}

impl Deref for Exporter {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Exporter {
    /// Starts it and waits until it listens.
    pub fn start(mut command: Command) -> Exporter {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the exporter starts");
        let lines = BufReader::new(child.stderr.take().expect("its log")).lines();
        let (sender, log) = channel();
        // To the end, even if the receiver is gone: a full pipe would stop the exporter.
        thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        let addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let mut exporter = Exporter { child, client: Client { addr }, log };
        let line = exporter.logs("msg=listening address=");
        let (_, addr) = line.split_once("address=").expect("an address");
        exporter.client.addr = addr.parse().expect("an address");
        exporter
    }

    /// An exporter that a test has started itself, and whose log is elsewhere.
    pub fn of(child: Child, addr: SocketAddr) -> Exporter {
        Exporter { child, client: Client { addr }, log: channel().1 }
    }

    /// Waits for a line of its log that contains `text`.
    pub fn logs(&self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen += &(line + "\n"),
                Err(_) => panic!("never logged: {text}\n{seen}"),
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().try_into().expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("it runs");
    }

    /// Sends SIGTERM and waits for the end: its exit status.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        eventually("its end", || self.child.try_wait().expect("a child"))
    }

    /// Scrapes until `ready` returns true.
    pub fn scrape_until(
        &self,
        ready: impl Fn(&BTreeMap<String, f64>) -> bool,
    ) -> BTreeMap<String, f64> {
        eventually("the samples", || Some(self.samples()).filter(&ready))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
