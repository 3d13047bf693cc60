//! From a kernel that loses processes to an alert at a webhook, with a real Prometheus, the rules that operators load, and a
//! real Alertmanager; the same from a supervisor that is watched as a consumer. The same losses inside a blind window fire no alert.

use std::net::SocketAddr;

use kqproc_exporter::model::Regime;
use kqproc_exporter::sim::{Options, Shape};
use serde_json::Value;

use crate::common::eventually;
use crate::common::exporter::{Exporter, serve, simulate};
use crate::common::played_consumer::{ConsumerRun, Sleeper};
use crate::common::stand_in_ssh::StandInSsh;
use crate::project::read;
use crate::stack::{Daemon, get, webhook};

/// The rules that operators load, with half a second instead of every minute.
fn hurried(file: &str) -> String {
    let text = read(&format!("deploy/prometheus/{file}"));
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let digits = rest[start..].find(|c: char| !c.is_ascii_digit());
        let end = digits.map_or(rest.len(), |i| start + i);
        let (before, number, after) = (&rest[..start], &rest[start..end], &rest[end..]);
        let is_duration = ["[", "for: ", "offset "].iter().any(|start| before.ends_with(start));
        out += before;
        (out, rest) = match after.strip_prefix('m') {
            Some(after) if is_duration => {
                (out + &format!("{}ms", 500 * number.parse::<u64>().unwrap()), after)
            }
            _ => (out + number, after),
        };
    }
    out + rest
}

/// A Prometheus with the hurried rules that scrapes these exporters.
fn prometheus(exporters: &[SocketAddr], alertmanager: &Daemon) -> Daemon {
    let targets: Vec<String> = exporters.iter().map(|exporter| format!("'{exporter}'")).collect();
    let config = format!(
        "global: {{scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms}}\n\
         rule_files: [recording.yml, alerts.yml]\n\
         scrape_configs: [{{job_name: kqproc, static_configs: [{{targets: [{}]}}]}}]\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}']}}]}}]}}\n",
        targets.join(", "),
        alertmanager.address
    );
    let rules = ["recording.yml", "alerts.yml"].map(|file| (file, hurried(file)));
    let files = rules.each_ref().map(|(name, text)| (*name, text.as_str()));
    Daemon::prometheus(&config, &files)
}

/// A supervisor that a real kernel did not give two ends of 10,833, as DTrace saw it.
#[test]
fn an_end_that_a_supervisor_did_not_receive_pages() {
    let supervisor = Sleeper::start();
    let run = ConsumerRun::of_recording("consumer-15.1-lost-exit");
    let stand_in = run.played_by("ticks-late", supervisor.pid());
    let exporter = Exporter::start(serve([
        format!("--consumer=nosh=pid:{}", supervisor.pid()),
        format!("--dtrace.path={}", stand_in.path.display()),
    ]));
    let (hook, alerts) = webhook();
    let alertmanager = Daemon::alertmanager(hook);
    let prometheus = prometheus(&[exporter.addr], &alertmanager);
    eventually("a clear sight", || {
        let answer = prometheus.query("instance:kqproc_clear_sight:bool8m == 1");
        (!answer.is_empty()).then_some(())
    });
    std::fs::write(stand_in.file("go"), "").unwrap();
    let page = eventually("the page", || {
        alerts.try_iter().find(|alert| alert["labels"]["severity"] == "critical")
    });
    assert_eq!(page["status"], "firing");
    assert_eq!(page["labels"]["alertname"], "KqprocConsumerLost");
    assert_eq!(page["labels"]["tree"], "nosh");
    let evidence = page["annotations"]["incidents_url"].as_str().unwrap();
    let of_tree = evidence.strip_prefix(&format!("http://{}", exporter.addr)).unwrap();
    assert!(get(exporter.addr, of_tree).unwrap().contains("lost_silent"));
    let status = exporter.request("GET", "/", "Accept: text/html\r\n");
    for lost in [6712, 8541] {
        let pid = supervisor.pid();
        let not_received = format!("nosh, pid {pid}, did not receive NOTE_EXIT of {lost}");
        assert!(status.text().contains(&not_received), "{not_received}");
    }
}

#[test]
fn a_loss_in_sight_reaches_the_webhook_and_one_inside_a_blind_window_does_not() {
    // Threads that fork at once: a kernel of today passes over knotes in flux and does not report it.
    let kernel = Options { regime: Regime::Split, shape: Shape::Threads, ..Options::default() };
    // The same kernel under the same load, watched by a DTrace whose buffers are too small.
    let unwatched = Options { buffer: 8192, ..kernel.clone() };
    let exporters =
        [kernel, unwatched].map(|kernel| Exporter::start(simulate(kernel.to_string().split(' '))));
    let [seeing, blind] = exporters.each_ref().map(|exporter| exporter.addr);
    let (hook, alerts) = webhook();
    let alertmanager = Daemon::alertmanager(hook);
    let prometheus = prometheus(&[seeing, blind], &alertmanager);

    let mut received: Vec<Value> = Vec::new();
    let page = eventually("the page", || {
        received.extend(alerts.try_iter());
        received.iter().find(|a| a["labels"]["severity"] == "critical").cloned()
    });
    assert_eq!(page["status"], "firing");
    assert_eq!(page["labels"]["alertname"], "KqprocTrackingLost");
    assert_eq!(page["labels"]["instance"], seeing.to_string());
    assert_eq!(page["labels"]["tree"], "threads");
    assert!(page["annotations"]["runbook_url"].as_str().unwrap().ends_with("#kqproctrackinglost"));
    let evidence = page["annotations"]["incidents_url"].as_str().unwrap();
    let of_tree = evidence.strip_prefix(&format!("http://{seeing}")).unwrap();
    let of_tree = get(seeing, of_tree).unwrap();
    assert!(of_tree.contains("lost_silent"), "{of_tree}");

    let seen = |instance: SocketAddr, state: &str| {
        let labels = r#"alertname="KqprocTrackingLost",severity="critical""#;
        let alert = format!(r#"ALERTS{{{labels},instance="{instance}",alertstate="{state}"}}"#);
        !prometheus.query(&format!("count_over_time({alert}[5m])")).is_empty()
    };
    assert!(seen(seeing, "pending"), "it was pending before it fired");
    assert!(!seen(blind, "pending") && !seen(blind, "firing"), "nothing was lost in sight there");
    let drops = format!(r#"sum(kqproc_dtrace_drops_total{{instance="{blind}"}}) > 0"#);
    assert!(
        !prometheus.query(&drops).is_empty(),
        "the same kernel ran there, and DTrace was blind"
    );
    received.extend(alerts.try_iter());
    let of_loss = |alert: &&Value| alert["labels"]["alertname"] == "KqprocTrackingLost";
    let all_seen =
        received.iter().filter(of_loss).all(|a| a["labels"]["instance"] == seeing.to_string());
    assert!(all_seen, "{received:?}");
}

/// A consumer of a host with one knote a child, on which nothing runs but dtrace(1).
#[test]
fn collisions_of_an_old_host_reach_the_webhook_over_a_command() {
    let link = StandInSsh::plays("merged-attached-chain-stall");
    std::fs::write(link.file("wait"), "").expect("written");
    let exporter = link.serve("old-host");
    let (hook, alerts) = webhook();
    let alertmanager = Daemon::alertmanager(hook);
    let prometheus = prometheus(&[exporter.addr], &alertmanager);
    // An increase is seen from the second value on.
    eventually("a scrape", || {
        let collisions = prometheus.query("sum(kqproc_collisions_total) > 0");
        (!collisions.is_empty()).then_some(())
    });
    std::fs::remove_file(link.file("wait")).expect("it waits");
    let alert = eventually("the alert", || {
        alerts.try_iter().find(|a| a["labels"]["alertname"] == "KqprocCollisionKnown")
    });
    assert_eq!(alert["status"], "firing");
    assert_eq!(alert["labels"]["osrelease"], "10.1-RELEASE");
    assert_eq!(alert["labels"]["instance"], exporter.addr.to_string());
}
