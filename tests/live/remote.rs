//! Consumers of other hosts, whose dtrace(1) a command reaches. A stand-in for ssh(1) plays what a real dtrace printed of a
//! real consumer, on a kernel that delivers NOTE_CHILD and NOTE_EXIT in one kevent.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::sync::mpsc::channel;

use crate::common::exporter::{self, Exporter, PROGRAM};
use crate::common::stand_in_ssh::StandInSsh;
use crate::common::{eventually, is_root};

type Samples = BTreeMap<String, f64>;

fn facts(samples: &Samples, fact: &str, tree: &str) -> Vec<(String, f64)> {
    let begin = format!("kqproc_{fact}_total{{tree=\"{tree}\"");
    let of = samples.iter().filter(|(name, n)| name.starts_with(&begin) && **n > 0.0);
    let verdict = |name: &str| name.split('"').rev().nth(1).expect("a verdict").to_owned();
    of.map(|(name, n)| (verdict(name), *n)).collect()
}

fn sum(samples: &Samples, metric: &str) -> f64 {
    samples.iter().filter(|(name, _)| name.starts_with(metric)).map(|(_, n)| n).sum()
}

fn deaths_are(count: f64) -> impl Fn(&Samples) -> bool {
    move |samples| sum(samples, r#"kqproc_deaths_total{tree="old""#) == count
}

/// The figures are those of an independent check of the same runs.
#[test]
fn a_merged_kernel_is_judged_over_a_command_as_its_recording_is() {
    for (run, agreed, overwritten, deaths) in [
        ("merged-attached-enoent", 144.0, 56.0, 201.0),
        ("merged-attached-chain-stall", 55.0, 65.0, 121.0),
        ("merged-attached-parallel-stall", 24.0, 176.0, 201.0),
        ("merged-exit-only", 0.0, 0.0, 270.0),
    ] {
        let link = StandInSsh::plays(run);
        let exporter = link.serve("old-host");
        let samples = exporter.scrape_until(deaths_are(deaths));
        let mut births =
            vec![("agreed".to_owned(), agreed), ("overwritten".to_owned(), overwritten)];
        births.retain(|(_, count)| *count > 0.0);
        assert_eq!(facts(&samples, "births", "old"), births, "{run}");
        assert_eq!(facts(&samples, "deaths", "old"), [("agreed".to_owned(), deaths)], "{run}");
        assert_eq!(sum(&samples, "kqproc_collisions_total"), overwritten, "{run}");
        for nothing in ["kqproc_decode_errors_total", "kqproc_dtrace_drops_total"] {
            assert_eq!(sum(&samples, nothing), 0.0, "{run}: {nothing}");
        }
        assert_eq!(samples[r#"kqproc_source_up{source="dtrace"}"#], 1.0);
        // The fork counters of that host are not read: there is no figure of them, and the regime is seen from the events.
        let is_of_counters =
            |name: &&String| name.contains("fork_reconcile") || name.contains("\"sysctl\"");
        assert_eq!(samples.keys().find(is_of_counters), None, "{run}");
        let regime = if overwritten > 0.0 { "merged-status" } else { "unknown" };
        let kernel = format!(r#"osrelease="10.1-RELEASE",osreldate="1001000",regime="{regime}""#);
        let kernel = format!(r#"kqproc_kernel_info{{{kernel},origin="live"}}"#);
        assert_eq!(samples.get(&kernel), Some(&1.0), "{run}: {samples:?}");
        assert_eq!(exporter.stop().code(), Some(0));
        // The oldest generation alone compiles there, and its clauses of consumers go with it.
        let program = fs::read_to_string(link.file("program")).expect("it was run");
        assert!(program.contains("p_xstat") && program.contains("self->nevents"), "{program}");
        assert_eq!(fs::read_to_string(link.file("started")).unwrap(), "old-host -s /dev/stdin\n");
    }
}

#[test]
fn a_link_that_is_cut_makes_a_witness_blind_and_loses_nothing() {
    let link = StandInSsh::plays("merged-attached-chain-stall");
    link.is_cut_once();
    let exporter = link.serve("old-host");
    exporter.logs("closed by remote host.; the link is cut");
    eventually("the rest is played", || link.file("played").exists().then_some(()));
    // What is printed last has not been published as soon as it is printed.
    let is_decided =
        |s: &Samples| sum(s, "kqproc_pending_facts") == 0.0 && facts(s, "deaths", "old").len() > 1;
    let samples = exporter.scrape_until(is_decided);
    for fact in ["births", "deaths"] {
        let facts = facts(&samples, fact, "old");
        let is_lost =
            |(verdict, _): &(String, f64)| verdict.starts_with("lost") || verdict == "corrupt";
        assert!(!facts.iter().any(is_lost) && facts.len() > 1, "{facts:?}");
    }
    assert_eq!(samples["kqproc_dtrace_restarts_total"], 1.0);
    assert!(samples[r#"kqproc_blind_seconds_total{witness="dtrace",reason="outage"}"#] > 0.0);
    assert_eq!(sum(&samples, "kqproc_dtrace_drops_total"), 0.0);
    // The half line alone, and nothing that ssh has printed.
    assert_eq!(sum(&samples, "kqproc_decode_errors_total"), 1.0, "{samples:?}");
    assert_eq!(samples[r#"kqproc_decode_errors_total{source="stdout",reason="cut_short"}"#], 1.0);
}

/// Its clock begins anew: what is traced then is judged at once, and not only when that clock has caught up.
#[test]
fn a_host_that_is_booted_is_judged_again_from_its_first_record_on() {
    let link = StandInSsh::plays("merged-attached-enoent");
    let text = fs::read_to_string(link.file("stdout")).expect("a run");
    fs::write(link.file("stdout"), "B 900000000000000 1790000000000000000\nT 900001000000000 1\n")
        .expect("written");
    fs::write(link.file("again"), text).expect("written");
    let exporter = link.serve("old-host");
    exporter.logs("that host was booted");
    let samples = exporter.scrape_until(deaths_are(201.0));
    let births = [("agreed".to_owned(), 144.0), ("overwritten".to_owned(), 56.0)];
    assert_eq!(facts(&samples, "births", "old"), births);
    assert_eq!(sum(&samples, "kqproc_decode_errors_total"), 0.0);
}

/// What a configuration file says of these links.
fn remotes(links: &[(&str, &StandInSsh)]) -> String {
    let remote = |(host, link): &(&str, &StandInSsh)| {
        let (command, pid) = (link.command(host), &link.pid);
        format!(
            "[[remote]]\nhost = \"{host}\"\ncommand = \"{command}\"\n[[remote.consumer]]\nname = \"sv\"\npid = {pid}\n"
        )
    };
    links.iter().map(remote).collect()
}

#[test]
fn a_dead_link_is_an_outage_of_one_witness_alone() {
    let one = StandInSsh::plays("merged-attached-enoent");
    let two = StandInSsh::plays("merged-exit-only");
    fs::write(one.file("wait"), "").expect("written");
    let config = one.file("config.toml");
    fs::write(&config, remotes(&[("one", &one), ("two", &two)])).expect("written");
    let exporter =
        Exporter::start(exporter::serve([format!("--config.file={}", config.display())]));
    let up = |host: &str| format!(r#"kqproc_source_up{{source="dtrace",host="{host}"}}"#);
    exporter.scrape_until(|s| [up("one"), up("two")].iter().all(|up| s[up] == 1.0));
    fs::write(two.file("cut"), "").expect("written");
    exporter.logs("link to two: Connection to two closed");
    exporter.scrape_until(|s| s[&up("two")] == 0.0);
    let before = exporter.samples();
    assert!(sum(&before, r#"kqproc_births_total{tree="one/sv""#) < 200.0, "{before:?}");
    fs::remove_file(one.file("wait")).expect("there");
    let all = |s: &Samples| sum(s, r#"kqproc_deaths_total{tree="one/sv""#) == 201.0;
    let samples = exporter.scrape_until(all);
    let of =
        |verdict| format!(r#"kqproc_births_total{{tree="one/sv",verdict="{verdict}",host="one"}}"#);
    assert_eq!((samples[&of("agreed")], samples[&of("overwritten")]), (144.0, 56.0));
    assert_eq!((samples[&up("one")], samples[&up("two")]), (1.0, 0.0));
    let blind = r#"kqproc_blind_seconds_total{witness="dtrace",reason="outage",host="one"}"#;
    assert_eq!(samples[blind], 0.0);
    let kernel = |regime: &str, host: &str| {
        let of = format!(r#"osrelease="10.1-RELEASE",osreldate="1001000",regime="{regime}""#);
        samples.get(&format!(r#"kqproc_kernel_info{{{of},origin="live",host="{host}"}}"#)).copied()
    };
    assert_eq!(kernel("merged-status", "one"), Some(1.0), "{samples:?}");
    assert_eq!(sum(&samples, "kqproc_kernel_info"), 2.0);
}

#[test]
fn a_file_that_others_may_write_names_no_command() {
    let link = StandInSsh::plays("merged-exit-only");
    let config = link.file("config.toml");
    fs::write(&config, remotes(&[("one", &link)])).expect("written");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o666)).expect("ours");
    let file = format!("--config.file={}", config.display());
    let (status, text) = output(&["serve", "--config.check", &file]);
    assert!(status == Some(78) && text.contains("others may write to it"), "{status:?} {text}");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).expect("ours");
    let user = format!("--user={}", nix::unistd::geteuid());
    let (status, text) = output(&["serve", "--config.check", &file, &user]);
    assert_eq!(status, Some(0), "{text}");
}

/// No root is needed here, and an exporter that root starts does not keep it for this.
#[test]
fn the_command_runs_as_the_user_that_serves() {
    if !is_root() {
        return;
    }
    let nobody = nix::unistd::User::from_name("nobody").expect("users").expect("nobody");
    let link = StandInSsh::plays("merged-exit-only");
    let folder = link.file("");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("ours");
    let mut serve = Command::new(PROGRAM);
    serve.args(["serve", "--web.listen-address=127.0.0.1:0", "--user=nobody"]);
    serve.args([
        "--dtrace.command",
        &link.command("old"),
        &format!("--consumer=old=pid:{}", link.pid),
    ]);
    let exporter = Exporter::start(serve);
    let run_by = || Some(fs::metadata(link.file("started")).ok()?.uid());
    assert_eq!(eventually("dtrace is started", run_by), nobody.uid.as_raw());
    assert_eq!(exporter.stop().code(), Some(0));
}

/// As somebody runs it by hand: `ssh old-host dtrace -s consumer.d PID 2>&1 | kqproc_exporter serve --source stdin ...`.
#[test]
fn a_stream_on_stdin_is_judged_and_its_end_is_an_outage() {
    let link = StandInSsh::plays("merged-attached-chain-stall");
    let pipe = link.file("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let mut command =
        exporter::serve(["--source=stdin", &format!("--consumer=old=pid:{}", link.pid)]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" <\"$PIPE\""]).env("PIPE", &pipe);
    shell.arg(command.get_program()).args(command.get_args());
    std::mem::swap(&mut command, &mut shell);
    let text = fs::read_to_string(link.file("stdout")).expect("a run");
    let (goes_on, ends) = channel::<()>();
    let writer = std::thread::spawn(move || {
        let mut to = fs::File::options().write(true).open(pipe).expect("opened");
        let text = format!("last login: never\ndtrace: buffer size lowered to 4m\n{text}");
        text.as_bytes().chunks(1000).for_each(|part| to.write_all(part).expect("written"));
        // It stalls here: what it printed last is published all the same.
        let _ = ends.recv();
    });
    let exporter = Exporter::start(command);
    let samples = exporter.scrape_until(deaths_are(121.0));
    let births = [("agreed".to_owned(), 55.0), ("overwritten".to_owned(), 65.0)];
    assert_eq!(facts(&samples, "births", "old"), births);
    assert_eq!(sum(&samples, "kqproc_decode_errors_total"), 0.0);
    assert_eq!(samples[r#"kqproc_source_up{source="dtrace"}"#], 1.0);
    drop(goes_on);
    writer.join().expect("all was written");
    exporter.logs("stdin has ended");
    let samples = exporter.scrape_until(|s| s[r#"kqproc_source_up{source="dtrace"}"#] == 0.0);
    assert_eq!(facts(&samples, "births", "old"), births, "they stay");
    assert_eq!(exporter.stop().code(), Some(0));
}

/// The exporter serves, says why, and tries again.
#[test]
fn what_keeps_a_command_from_dtrace_is_logged_with_what_to_do() {
    let link = StandInSsh::plays("merged-exit-only");
    for (host, said) in [
        ("down", "Connection refused; that host, or the way to it, is down"),
        ("stranger", "Permission denied (publickey).; give the exporter's user a key"),
        ("asks", "Host key verification failed.; "),
        ("bare", "dtrace: Command not found.; name dtrace by its path"),
        ("refuses", "dtrace: failed to initialize dtrace: DTrace device not available on system"),
    ] {
        let exporter = link.serve(host);
        exporter.logs(said);
        let samples = exporter.samples();
        assert_eq!(samples[r#"kqproc_source_up{source="dtrace"}"#], 0.0, "{host}");
        assert_eq!(sum(&samples, "kqproc_decode_errors_total"), 0.0, "{host}");
        assert_eq!(exporter.stop().code(), Some(0), "{host}");
    }
}

/// How the program ends with these arguments, and all that it prints.
pub fn output(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(PROGRAM).args(args).output().expect("it starts");
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.code(), text.concat())
}

#[test]
fn what_does_not_go_with_a_command_is_refused() {
    for (flags, said) in [
        (&["--kqueue.target=a=pid:1", "--consumer=b=pid:1"][..], "is a process of this one"),
        (&["--consumer=b=pidfile:/run/b.pid"], "nothing here can read /run/b.pid of that host"),
        (&["--dtrace.path=/usr/sbin/dtrace", "--consumer=b=pid:1"], "cannot be used with"),
    ] {
        for command in [&["serve"][..], &["record", "--output=/dev/null"]] {
            let (status, text) =
                output(&[command, &["--dtrace.command=ssh old dtrace"], flags].concat());
            let refused = matches!(status, Some(64 | 78));
            assert!(refused && text.contains(said), "{command:?} {flags:?}: {status:?} {text}");
        }
    }
    let (status, text) = output(&["serve", "--dtrace.command=ssh 'old", "--consumer=b=pid:1"]);
    assert!(status == Some(64) && text.contains("give a command that runs dtrace"), "{text}");
}

/// A pid file of the host on which the other dtrace runs is out of reach here.
#[test]
fn a_pid_file_of_another_host_is_refused_with_what_to_give_instead() {
    let stdin = output(&["serve", "--source=stdin", "--consumer=b=pidfile:/run/b.pid"]);
    let command = ["--dtrace.command=ssh old dtrace", "--consumer=b=pidfile:/run/b.pid"];
    for (status, text) in [stdin, output(&[&["serve"][..], &command].concat())] {
        assert_eq!(status, Some(78), "{text}");
        assert!(text.contains("give the pid that is in it, b=pid:NUMBER"), "{text}");
    }
}
