//! A running exporter: the real binary, as an operator starts it.

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

/// The program with this command, the flags of every exporter that a test starts, and these. It stays the user that
/// runs the tests, whose files it is to read.
fn command<I: IntoIterator<Item: AsRef<OsStr>>>(words: &[&str], flags: I) -> Command {
    let mut command = Command::new(PROGRAM);
    let user = format!("--user={}", geteuid());
    command.args(words).args(["--web.listen-address=127.0.0.1:0", &user]).args(flags);
    command
}

/// The command line of `serve`.
pub fn serve<I: IntoIterator<Item: AsRef<OsStr>>>(flags: I) -> Command {
    command(&["serve"], flags)
}

/// The command line of a simulated kernel that is served.
pub fn simulate<I: IntoIterator<Item: AsRef<OsStr>>>(flags: I) -> Command {
    command(&["simulate", "--serve"], flags)
}

/// Killed when dropped; asked as any server is.
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
        // To its end, whoever listens: a full pipe would stop the exporter.
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

    /// One that was started otherwise, and logs elsewhere.
    pub fn of(child: Child, addr: SocketAddr) -> Exporter {
        Exporter { child, client: Client { addr }, log: channel().1 }
    }

    /// Waits for a line of its log with these words.
    pub fn logs(&self, words: &str) -> String {
        let mut heard = String::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(words) => return line,
                Ok(line) => heard += &(line + "\n"),
                Err(_) => panic!("never logged: {words}\n{heard}"),
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

    /// Tells it to stop, and waits until it has: its exit status.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        eventually("its end", || self.child.try_wait().expect("a child"))
    }

    /// Scrapes until `ready` says so.
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
