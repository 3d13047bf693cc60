//! The configuration file: what `serve`, `serve --config.check`, `check` and a reload accept and refuse, with messages and exit
//! statuses.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::common::client::Reply;
use crate::common::exporter::{self, Exporter};
use tempfile::TempDir;

const TREE: &str = "[[tree]]\nname = \"cron\"\npidfile = \"/var/run/cron.pid\"\n";

/// A folder with a configuration.
struct Folder(TempDir);

impl Folder {
    fn with(config: &str) -> Folder {
        let folder = Folder(tempfile::tempdir().expect("a folder"));
        folder.write("config.toml", config);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    fn config(&self) -> String {
        format!("--config.file={}", self.path("config.toml").display())
    }

    /// `serve` with this configuration and these flags.
    fn serve(&self, flags: &[&str]) -> Command {
        exporter::serve([self.config().as_str()].iter().chain(flags))
    }

    /// `--config.check`: the exit status and all output.
    fn check(&self, flags: &[&str]) -> (Option<i32>, String) {
        outcome(&self.serve(&["--config.check"]).args(flags).output().expect("it runs"))
    }
}

/// The exit status, and stdout followed by stderr.
fn outcome(output: &Output) -> (Option<i32>, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn a_good_configuration_is_called_so() {
    let good = (Some(0), "configuration is good\n".to_owned());
    assert_eq!(Folder::with(TREE).check(&[]), good);
    let folder = Folder::with("# nothing but a comment\n[check]\nsettle = \"1s\"\n");
    assert_eq!(folder.check(&["--source=replay"]), good);
    folder.write("web.yml", "rate_limit: {interval: 1s, burst: 5}\n");
    let web = folder.path("web.yml");
    let flag = format!("--web.config.file={}", web.display());
    assert_eq!(folder.check(&["--source=replay", &flag]), good);
}

#[test]
fn a_bad_one_is_refused_with_its_file_and_line_checked_or_served() {
    for (config, line, why) in [
        (format!("{TREE}[dtrace]\nbufsiz = \"8m\"\n"), 5, "unknown field `bufsiz`"),
        ("[check]\nsettle = \"fast\"\n".to_owned(), 2, "\"fast\": give a number with its unit"),
        (format!("{TREE}pid = 812\n"), 1, "tree \"cron\" has both pid and pidfile"),
        (format!("{TREE}\n{TREE}"), 5, "a second tree is named \"cron\""),
        ("[check\n".to_owned(), 1, "unclosed table"),
    ] {
        let folder = Folder::with(&config);
        let expected = format!("kqproc_exporter: {}, ", folder.path("config.toml").display());
        let served = folder.serve(&[]).output().expect("it runs");
        for (status, text) in [folder.check(&[]), outcome(&served)] {
            assert_eq!(status, Some(78), "{text}");
            assert!(text.starts_with(&format!("{expected}line {line}: {why}")), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }
}

#[test]
fn what_is_no_text_file_is_refused() {
    let folder = Folder::with("");
    fs::write(folder.path("config.toml"), b"\x7fELF\n\xff\xfe").expect("written");
    let (status, text) = folder.check(&[]);
    assert!(status == Some(78) && text.contains("line 2: this is no text"), "{text}");
    fs::remove_file(folder.path("config.toml")).expect("removed");
    let (status, text) = folder.check(&[]);
    assert!(status == Some(78) && text.contains("cannot read"), "{text}");
    fs::create_dir(folder.path("config.toml")).expect("a directory");
    let (status, text) = folder.check(&[]);
    assert!(status == Some(78) && text.contains("is a directory"), "{text}");
}

#[test]
fn what_does_not_go_together_is_refused() {
    let folder = Folder::with(TREE);
    let (status, text) = folder.check(&["--kqueue.target=cron=pid:812"]);
    assert!(status == Some(78) && text.contains("two trees are named \"cron\""), "{text}");
    folder.write("web.yml", "basic_auth: {}\n");
    let flag = format!("--web.config.file={}", folder.path("web.yml").display());
    let (status, text) = folder.check(&[&flag]);
    assert!(
        status == Some(78) && text.contains("web.yml") && text.contains("basic_auth"),
        "{text}"
    );
    folder.write("config.toml", "");
    let (status, text) = folder.check(&["--source=live"]);
    assert!(status == Some(78) && text.contains("nothing to watch"), "{text}");
}

#[test]
fn a_tree_in_the_file_asks_for_this_kernel() {
    let folder = Folder::with(&format!("{TREE}[dtrace]\npath = \"/nonexistent/dtrace\"\n"));
    let (status, text) = outcome(&folder.serve(&[]).output().expect("it runs"));
    let missing = match cfg!(target_os = "freebsd") {
        true => "cannot run /nonexistent/dtrace",
        false => "this is not FreeBSD",
    };
    assert!(status == Some(69) && text.contains(missing), "{text}");
}

#[test]
fn check_reports_it_too() {
    let folder = Folder::with("[check]\ncapacity = 0\n");
    let check = || {
        let flags = ["--web.listen-address=127.0.0.1:0", &folder.config()];
        let output = Command::new(exporter::PROGRAM).arg("check").args(flags).output();
        outcome(&output.expect("it runs")).1
    };
    let printed = check();
    let line = printed.lines().find(|line| line.starts_with("fail  config")).expect(&printed);
    assert!(line.contains("config.toml, line 2: 0: give a number from 1024"), "{printed}");
    folder.write("config.toml", TREE);
    let printed = check();
    assert!(
        printed.lines().any(|l| l.starts_with("ok    config") && l.ends_with("valid")),
        "{printed}"
    );
}

fn reload(exporter: &Exporter) -> Reply {
    exporter.request("POST", "/-/reload", "")
}

#[test]
fn a_reload_takes_nothing_up_in_silence() {
    let folder = Folder::with(TREE);
    let exporter = Exporter::start(folder.serve(&["--source=replay", "--speed=0"]));
    assert_eq!(reload(&exporter).status, 200);
    folder.write("config.toml", &format!("# only a comment\n{TREE}"));
    assert_eq!(reload(&exporter).status, 200, "the same configuration");
    folder.write("config.toml", &format!("{TREE}[kqueue]\nnote_fork = true\n"));
    let refused = reload(&exporter);
    assert_eq!(refused.status, 500);
    let why = refused.text();
    assert!(why.contains("restart for its changes to take effect"), "{why}");
    exporter.scrape_until(|s| s["kqproc_config_last_reload_successful"] == 0.0);
    folder.write("config.toml", &format!("{TREE}[kqeue]\n"));
    let refused = reload(&exporter);
    assert!(refused.text().contains("line 4: unknown field `kqeue`"), "{}", refused.text());
    folder.write("config.toml", TREE);
    assert_eq!(reload(&exporter).status, 200);
}
