//! What `--help` shows at its end. A test runs the command lines through the parser.

pub(super) const ALL: &str = "\
On FreeBSD, as root:
  kqproc_exporter check                what is missing here, and how to get it
  kqproc_exporter stress               can a process tracker trust this kernel?
  kqproc_exporter serve -- COMMAND     watch it, on http://127.0.0.1:10180/
  kqproc_exporter replay FILE          what a recording says
Elsewhere:
  kqproc_exporter serve                the same with recordings of three kernels

Exit statuses are those of sysexits(3), but for stress, which answers with its
own. The manual is kqproc_exporter(8).";

pub(super) const SERVE: &str = "\
Examples:
  kqproc_exporter serve -- /usr/sbin/cron -n
  kqproc_exporter serve --kqueue.target pg=pidfile:/var/run/postgres.pid
  kqproc_exporter serve --consumer supervisor=pidfile:/var/run/supervisor.pid
  kqproc_exporter serve --config.file /usr/local/etc/kqproc_exporter/config.toml
  kqproc_exporter serve --source replay --recording run.kqr --loop

To watch this kernel takes root and dtrace(1); kqproc_exporter check looks for
them. SIGHUP and POST /-/reload read the configuration files again.";

pub(super) const CHECK: &str = "\
Examples:
  kqproc_exporter check
  kqproc_exporter check --config.file /usr/local/etc/kqproc_exporter/config.toml
  kqproc_exporter check --cost --seconds 60

Exit status 0: serve would work; with --cost: it was measured. Otherwise that of
the first failing line: 69 (something is missing), 77 (a permission is), 78 (a
configuration is wrong).";

pub(super) const CONSUMERS: &str = "\
Examples:
  kqproc_exporter consumers
  kqproc_exporter consumers --seconds 60 --format json

It watches by dtrace(1), as root. Never look for them by procstat kqueue: on
FreeBSD 15.1 that makes the kernel lose events of the process looked at.";

pub(super) const STRESS: &str = "\
Examples:
  kqproc_exporter stress
  kqproc_exporter stress --shape orphan --stall 20ms
  kqproc_exporter stress --count 100000 --format html >kernel.html

Exit status 0: sound, kqueue was right. 1: unsound, it was wrong. 2:
undecided. Others: the run failed, as sysexits(3) has it.";

pub(super) const RECORD: &str = "\
Examples:
  kqproc_exporter record --output run.kqr -- make -j4
  kqproc_exporter record --output cron.kqr --kqueue.target cron=pid:812
  kqproc_exporter record --output s6.kqr --consumer s6=pid:812
  kqproc_exporter record --output run.kqr --import /var/tmp/run

With a command it ends after the command; otherwise SIGINT (^C) or SIGTERM ends
it. A recording holds pids, times and statuses of every process of the host; no
names of programs, no arguments.";

pub(super) const REPLAY: &str = "\
Examples:
  kqproc_exporter replay run.kqr
  kqproc_exporter replay run.kqr run.1.kqr run.2.kqr --format json";

pub(super) const EXPLAIN: &str = "\
Examples:
  kqproc_exporter explain              the latest incidents of the exporter here
  kqproc_exporter explain --tree pg --verdict lost
  kqproc_exporter explain 812          what it knows of pid 812
  kqproc_exporter explain --incident 3
  kqproc_exporter explain 812 --recording run.kqr run.1.kqr
  kqproc_exporter explain 4463 --bundled

An exporter with TLS and a password: add --url https://HOST:10180 --ca-file FILE
--user NAME --password-file FILE.";

pub(super) const REPORT: &str = "\
Examples:
  kqproc_exporter report run.kqr --output run.html
  kqproc_exporter report run.kqr run.1.kqr --output run.html
  kqproc_exporter report run.kqr --format markdown";

pub(super) const SIMULATE: &str = "\
Examples:
  kqproc_exporter simulate --regime merged-status --shape orphan --set stall-ms=40
  kqproc_exporter simulate --seed 7 --output simulated.kqr
  kqproc_exporter simulate --quality
  kqproc_exporter simulate --serve --regime merged-status

Exit status 70: a verdict was wrong; please report the line that says so.";

pub(super) const LOAD: &str = "\
Examples:
  kqproc_exporter load exit --count 100
  kqproc_exporter load chain --depth 8 --rate 10

stress runs the same load and watches it.";

pub(super) const COMPLETIONS: &str = "\
For this session, or as a line of the shell's start-up file:
  bash  source <(kqproc_exporter completions bash)
  zsh   source <(kqproc_exporter completions zsh)
  fish  kqproc_exporter completions fish | source

The FreeBSD port installs the completions of these three.";
