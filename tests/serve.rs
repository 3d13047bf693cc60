//! `serve` as an operator sees it: the real binary, a real socket, Prometheus's own checker.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// A running exporter; killed when dropped.
struct Exporter {
    child: Child,
    address: String,
}

impl Exporter {
    fn start(args: &[&str]) -> Exporter {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kqproc_exporter"))
            .args(["serve", "--web.listen-address=127.0.0.1:0"])
            .args(args)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the exporter starts");
        let mut log = BufReader::new(child.stderr.take().expect("its log")).lines();
        let address = log
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("msg=listening address=")?.1.to_owned()))
            .expect("it listens");
        // Keep the pipe open, or the exporter could not log any more.
        std::thread::spawn(move || log.for_each(drop));
        Exporter { child, address }
    }

    fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.address).expect("a connection");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        (head.to_owned(), body.to_owned())
    }

    /// Scrapes until `ready` says so.
    fn scrape_until(
        &self,
        ready: impl Fn(&BTreeMap<String, f64>) -> bool,
    ) -> BTreeMap<String, f64> {
        loop {
            let samples = samples(&self.get("/metrics").1);
            if ready(&samples) {
                return samples;
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The samples of a page by their name and labels.
fn samples(page: &str) -> BTreeMap<String, f64> {
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
        .collect()
}

fn births(samples: &BTreeMap<String, f64>) -> f64 {
    sum(samples, "kqproc_births_total")
}

fn sum(samples: &BTreeMap<String, f64>, name: &str) -> f64 {
    samples.iter().filter(|(k, _)| k.starts_with(name)).map(|(_, v)| v).sum()
}

#[test]
fn prometheus_accepts_the_page() {
    let exporter = Exporter::start(&["--source=replay", "--speed=0"]);
    exporter.scrape_until(|s| births(s) == 400.0);
    let (head, page) = exporter.get("/metrics");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, from Debian's package prometheus");
    promtool.stdin.take().expect("its input").write_all(page.as_bytes()).expect("taken");
    let said = promtool.wait_with_output().expect("it ends");
    let said = (String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr))
        .into_owned();
    assert_eq!(said, "");
}

#[test]
fn counters_only_grow_and_parts_sum_to_totals() {
    let exporter = Exporter::start(&["--source=replay", "--speed=50", "--loop"]);
    let first = exporter.scrape_until(|s| births(s) > 100.0);
    let second = exporter.scrape_until(|s| births(s) > 1000.0);
    for (name, value) in first.iter().filter(|(name, _)| name.contains("_total")) {
        assert!(second[name] >= *value, "{name} fell from {value} to {}", second[name]);
    }
    for samples in [&first, &second] {
        let collisions = sum(samples, "kqproc_collisions_total");
        let overwritten = samples[r#"kqproc_births_total{tree="default",verdict="overwritten"}"#];
        assert_eq!(collisions, overwritten);
        let decided = births(samples) + sum(samples, "kqproc_deaths_total");
        assert_eq!(samples["kqproc_verdict_delay_seconds_count"], decided);
    }
}

#[test]
fn the_endpoints_that_a_probe_asks() {
    let exporter = Exporter::start(&["--source=replay", "--speed=0"]);
    exporter.scrape_until(|s| births(s) == 400.0);
    for path in ["/-/healthy", "/-/ready", "/"] {
        assert!(exporter.get(path).0.starts_with("HTTP/1.1 200"), "{path}");
    }
    assert!(exporter.get("/nothing").0.starts_with("HTTP/1.1 404"));
}

#[test]
fn a_hangup_reloads_and_does_not_end_it() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    const RELOADED: &str = "kqproc_config_last_reload_success_timestamp_seconds";
    let exporter = Exporter::start(&["--source=replay", "--speed=0"]);
    let before = exporter.scrape_until(|s| s.contains_key(RELOADED))[RELOADED];
    let pid = Pid::from_raw(exporter.child.id().try_into().expect("a pid"));
    kill(pid, Signal::SIGHUP).expect("sent");
    exporter.scrape_until(|s| s[RELOADED] > before);
}
