//! The FreeBSD port, as far as other systems can check it: the rc.d script, under a stand-in for rc.subr(8), and the port's
//! lists of crates and files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use nix::unistd::geteuid;

use crate::common::exporter::{Exporter, PROGRAM};
use crate::project::{path, read, run};

const PORT: &str = "deploy/freebsd/sysutils/kqproc_exporter";

/// A stand-in for rc.subr(8): what it does with the variables that the script sets.
const RC_SUBR: &str = r#"
load_rc_config() { . "$RC_CONF"; }
pkill() { echo "pkill $*"; }
pgrep() { [ -z "${EXPORTER-}" ] || echo "$EXPORTER"; [ -n "${EXPORTER-}" ]; }
wait_for_pids() { echo "waiting for $*"; }
run_rc_command() {
    [ -z "${flags-}" ] || { echo "would start $command $flags"; exit 1; }
    [ -z "${kqproc_exporter_user-}" ] || { echo "would start as $kqproc_exporter_user"; exit 1; }
    case $1 in
    start|reload) precmd=$(eval "echo \$${1}_precmd"); $precmd || { echo "refused"; exit 1; } ;;
    esac
    case $1 in
    start) [ -r "$required_files" ] || exit 1; echo "$command ${flags:-${kqproc_exporter_flags-}} $command_args" ;;
    stop) $stop_precmd || exit 1; echo "kill $pidfile"; $stop_postcmd ;;
    reload) $reload_cmd ;;
    configtest) $configtest_cmd ;;
    esac
}
"#;

/// Runs the rc.d script with `rc_conf`, installed below `prefix`. The exporter is a script that prints its arguments and accepts
/// a configuration file that contains "good".
fn rc(prefix: &Path, rc_conf: &str, command: &str) -> Result<String, String> {
    let exporter = "#!/bin/sh\necho \"$@\"\ngrep -q good \"$3\"\n";
    rc_of(exporter, prefix, rc_conf, command)
}

/// The same with another script as exporter.
fn rc_of(exporter: &str, prefix: &Path, rc_conf: &str, command: &str) -> Result<String, String> {
    let write = |name: &str, text: &str| fs::write(prefix.join(name), text).unwrap();
    fs::create_dir_all(prefix.join("sbin")).unwrap();
    write("sbin/kqproc_exporter", exporter);
    run(Command::new("chmod").arg("+x").arg(prefix.join("sbin/kqproc_exporter"))).unwrap();
    write("rc.subr", RC_SUBR);
    write("rc.conf", rc_conf);
    let script = read(&format!("{PORT}/files/kqproc_exporter.in"))
        .replace("%%PREFIX%%", prefix.to_str().unwrap())
        .replace("/etc/rc.subr", prefix.join("rc.subr").to_str().unwrap());
    assert!(!script.contains("%%"), "a variable that the port does not know");
    write("script", &script);
    run(Command::new("sh")
        .args(["-eu".as_ref(), prefix.join("script").as_os_str(), command.as_ref()])
        .env("RC_CONF", prefix.join("rc.conf")))
}

#[test]
fn the_rc_script_starts_the_exporter_under_daemon_and_names_its_user() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path();
    let config = prefix.join("c.toml");
    fs::write(&config, "good").unwrap();
    let conf = format!(
        "kqproc_exporter_config={}\nkqproc_exporter_user=www\nkqproc_exporter_args=\"--log.level debug\"\n",
        config.display()
    );
    let (prefix_text, config) = (prefix.display(), config.display());
    let flags = format!("--config.file {config} --user www --log.level debug");
    let check = format!("serve {flags} --config.check\n");
    assert_eq!(
        rc(prefix, &conf, "start").unwrap(),
        format!(
            "{check}/usr/sbin/daemon  -f -R 10 -P /var/run/kqproc_exporter.pid \
             -p /var/run/kqproc_exporter_serve.pid -T kqproc_exporter -l daemon \
             {prefix_text}/sbin/kqproc_exporter serve {flags}\n"
        )
    );
    assert_eq!(rc(prefix, &conf, "configtest").unwrap(), check);
    assert_eq!(
        rc(prefix, &conf, "reload").unwrap(),
        format!("{check}pkill -HUP -x -F /var/run/kqproc_exporter_serve.pid kqproc_exporter\n")
    );
}

/// Runs the command line that the script gives to daemon(8), with the real exporter and the sample configuration.
#[test]
fn what_the_rc_script_starts_serves() {
    let dir = tempfile::tempdir().unwrap();
    let config = path("deploy/freebsd/config.toml.sample");
    let conf = format!(
        "kqproc_exporter_config={}\nkqproc_exporter_user={}\n\
         kqproc_exporter_args=\"--source replay --web.listen-address 127.0.0.1:0\"\n",
        config.display(),
        geteuid()
    );
    let exporter = format!("#!/bin/sh\nexec '{PROGRAM}' \"$@\"\n");
    let started = rc_of(&exporter, dir.path(), &conf, "start").unwrap();
    let (check, daemon) = started.split_once('\n').unwrap();
    assert_eq!(check, "configuration is good");
    let (_, serve) = daemon.split_once(" -l daemon ").unwrap();
    let mut parts = serve.split_whitespace();
    let mut command = Command::new(parts.next().unwrap());
    command.args(parts);
    let exporter = Exporter::start(command);
    assert_eq!(exporter.get("/-/healthy").status, 200);
    assert!(exporter.stop().success());
}

#[test]
fn the_rc_script_stops_daemon_and_waits_for_the_exporter() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = "kill /var/run/kqproc_exporter.pid\n";
    assert_eq!(rc(dir.path(), "", "stop").unwrap(), daemon, "it has ended already");
    let printed = rc(dir.path(), "EXPORTER=4711", "stop").unwrap();
    assert_eq!(printed, format!("{daemon}waiting for 4711\n"));
}

#[test]
fn the_rc_script_refuses_a_bad_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path();
    fs::create_dir_all(prefix.join("etc/kqproc_exporter")).unwrap();
    fs::write(prefix.join("etc/kqproc_exporter/config.toml"), "bad").unwrap();
    for command in ["start", "reload"] {
        assert!(rc(prefix, "", command).unwrap_err().ends_with("refused\n"), "{command}");
    }
    assert!(rc(prefix, "", "start").unwrap_err().contains(" --user nobody "));
    assert!(rc(prefix, "", "configtest").is_err());
}

#[test]
fn the_list_of_crates_is_that_of_the_lock_file() {
    let crates = run(Command::new("sh").arg(path("deploy/freebsd/make-crates"))).unwrap();
    assert!(crates == read(&format!("{PORT}/Makefile.crates")), "run scripts/generate");
    assert!(crates.starts_with("CARGO_CRATES=\t") && !crates.trim_end().ends_with('\\'));
    assert!(!crates.contains("kqproc_exporter"), "our own package is not fetched");
}

#[test]
fn the_port_has_this_version() {
    let makefile = read(&format!("{PORT}/Makefile"));
    assert!(makefile.contains(concat!("DISTVERSION=\t", env!("CARGO_PKG_VERSION"), "\n")));
}

#[test]
fn the_packing_list_has_every_example_and_no_other() {
    let plist = read(&format!("{PORT}/pkg-plist"));
    let listed: BTreeSet<_> =
        plist.lines().filter_map(|l| l.strip_prefix("%%PORTEXAMPLES%%%%EXAMPLESDIR%%/")).collect();
    let files = |dir: &str, extension: &str| -> Vec<String> {
        let entries =
            fs::read_dir(path(dir)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        entries.filter(|name| name.ends_with(extension)).collect()
    };
    let mut there = files("deploy/prometheus", ".yml");
    there.extend(files("dashboards", ".json"));
    there.extend(files("deploy/freebsd", ".rules"));
    assert_eq!(listed, there.iter().map(String::as_str).collect());
}

#[test]
fn the_completions_that_are_packed_are_those_that_the_program_made() {
    let (makefile, plist) = (read(&format!("{PORT}/Makefile")), read(&format!("{PORT}/pkg-plist")));
    for (shell, folder, file) in [
        ("bash", "share/bash-completion/completions", "kqproc_exporter"),
        ("fish", "share/fish/vendor_completions.d", "kqproc_exporter.fish"),
        ("zsh", "share/zsh/site-functions", "_kqproc_exporter"),
    ] {
        let name = file.replace("kqproc_exporter", "${PORTNAME}");
        let variable = format!("{}_DIR", shell.to_uppercase());
        assert!(makefile.contains(&format!("{variable}=\t${{STAGEDIR}}${{PREFIX}}/{folder}\n")));
        assert!(makefile.contains(&format!("${{COMPLETIONS}} {shell} >${{{variable}}}/{name}\n")));
        assert!(plist.contains(&format!("{folder}/{file}\n")), "{shell}");
    }
}

#[test]
fn log_and_pid_file_are_where_the_runbook_looks() {
    let runbook = read("docs/runbook.md");
    for file in ["newsyslog.conf", "syslog.conf"] {
        assert!(
            read(&format!("{PORT}/files/{file}")).contains("/var/log/kqproc_exporter.log"),
            "{file}"
        );
    }
    for file in runbook.split([' ', '\n', '"', ')', '`']).filter(|w| w.starts_with("/var/")) {
        let known = [
            "/var/log/kqproc_exporter.log",
            "/var/run/kqproc_exporter_serve.pid",
            "/var/run/NAME.pid",
        ];
        assert!(known.contains(&file), "{file}");
    }
}
