//! The status page and the incidents, as HTML and as JSON.

use kqproc_exporter::check::finding::{
    Clues, Delivered, DtraceEvidence, Finding, KqueueEvidence, Observer,
};
use kqproc_exporter::metrics::{Origin, Source};
use kqproc_exporter::model::{
    Fact, KernelTime, Kevent, Pid, Regime, TreeId, Verdict, WaitStatus, note,
};
use serde_json::{Value, json};

use crate::support::{Exporter, about, some_stats, with_consumer};

/// A NOTE_CHILD whose parent was overwritten, as a merged kernel gives it.
fn collision(pid: u64) -> Finding {
    let event = Kevent {
        ident: pid,
        flags: note::EV_CLEAR,
        fflags: note::CHILD | note::EXIT,
        data: 32512,
        udata: TreeId(0).cookie(),
    };
    let both = Some(Delivered { event, batch: 7, at: KernelTime(3_000_000) });
    Finding {
        tree: TreeId(0),
        pid: Pid::new(pid).unwrap(),
        consumer: None,
        fact: Fact::Birth,
        verdict: Verdict::Overwritten,
        dtrace: DtraceEvidence {
            created: Some(KernelTime(1_000_000)),
            forker: Pid::new(4242),
            exited: Some(KernelTime(2_000_000)),
            status: Some(WaitStatus(32512)),
        },
        kqueue: KqueueEvidence { child: both, exit: both, trackerr: false },
        clues: Clues::default(),
        decided: KernelTime(4_000_000),
    }
}

pub(crate) fn lost(pid: u64) -> Finding {
    let kqueue = KqueueEvidence::default();
    Finding { verdict: Verdict::LostSilent, fact: Fact::Death, kqueue, ..collision(pid) }
}

fn exporter() -> Exporter {
    let exporter = Exporter::start(&[]);
    let mut stats = some_stats();
    stats.regime = Regime::MergedStatus;
    stats.wall = Some((KernelTime(1_000_000), 1_735_689_599_000_000_000));
    exporter.state.publish(0, stats);
    let mut incidents = exporter.state.incidents();
    incidents.finding(&collision(100));
    incidents.finding(&lost(101));
    exporter
}

fn incidents(exporter: &Exporter, query: &str) -> Vec<Value> {
    let reply = exporter.get(&format!("/incidents{query}"));
    assert_eq!(reply.status, 200, "{query}: {}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let mut json: Value = serde_json::from_slice(&reply.body).unwrap();
    serde_json::from_value(json["incidents"].take()).unwrap()
}

#[test]
fn incidents_have_the_evidence_of_both_witnesses() {
    let exporter = exporter();
    let all = incidents(&exporter, "");
    assert_eq!([&all[0]["id"], &all[1]["id"]], [&json!(2), &json!(1)], "newest first");
    let kevent = json!({
        "fflags": "NOTE_CHILD|NOTE_EXIT", "flags": "0x20", "data": 32512, "batch": 7, "at": 3_000_000
    });
    assert_eq!(
        all[1],
        json!({
            "id": 1,
            "time": "2024-12-31T23:59:59.000Z",
            "at": 1_000_000,
            "tree": "postgres",
            "pid": 100,
            "fact": "birth",
            "verdict": "overwritten",
            "dtrace": { "created": 1_000_000, "forker": 4242, "exited": 2_000_000, "status": 32512 },
            "kqueue": { "child": kevent, "exit": kevent, "trackerr": false },
            "clues": { "named_forker": null, "scanned_at_exit": false, "influx": false, "errno": null },
            "kernel_path": all[1]["kernel_path"],
            "runbook": "runbook#verdict-overwritten",
        })
    );
    assert!(all[1]["kernel_path"]["function"].as_str().unwrap().contains("filt_proc"));
    assert_eq!(all[1]["kernel_path"]["sure"], "certain");
}

/// A loss is the kernel's, and the supervisor is named that did not receive the event.
#[test]
fn of_a_consumer_the_pages_say_what_it_did_not_receive() {
    let exporter = Exporter::start(&[]);
    let mut stats = with_consumer();
    stats.trees[1].consumer.as_mut().unwrap().beside_exit = note::FORK;
    exporter.state.publish(0, stats);
    let lost = Finding { tree: TreeId(1), consumer: Pid::new(812), ..lost(6712) };
    exporter.state.incidents().finding(&lost);
    let not_received = "nosh, pid 812, did not receive NOTE_EXIT of 6712";
    let status = exporter.request("GET", "/", BROWSER).text().to_owned();
    for text in [
        "<td>mirror</td>",
        "<td>consumer, pid 812</td>",
        "Not given to <b>nosh</b> yet: 3 facts. The oldest has waited for 2.5 s.",
        "it asks for NOTE_FORK beside NOTE_EXIT",
        not_received,
    ] {
        assert!(status.contains(text), "{text}: {status}");
    }
    assert!(exporter.request("GET", "/incidents/1", BROWSER).text().contains(not_received));
    let json: Value = serde_json::from_str(exporter.get("/incidents/1").text()).unwrap();
    assert_eq!(json["consumer"], 812);
    let verdict = json["timeline"].as_array().unwrap().last().unwrap();
    assert_eq!(verdict["text"], format!("death lost_silent: {not_received}"));
}

#[test]
fn incidents_are_filtered() {
    let exporter = exporter();
    for (query, ids) in [
        ("?verdict=overwritten", vec![1]),
        ("?fact=death", vec![2]),
        ("?pid=100", vec![1]),
        ("?tree=postgres", vec![2, 1]),
        ("?tree=postgres&limit=1", vec![2]),
        ("?tree=nginx", vec![]),
        ("?verdict=corrupt", vec![]),
        ("?verdict=lost", vec![2]),
        ("?tree=&verdict=&fact=&pid=&limit=", vec![2, 1]),
    ] {
        let found = incidents(&exporter, query);
        let found: Vec<u64> = found.iter().map(|i| i["id"].as_u64().unwrap()).collect();
        assert_eq!(found, ids, "{query}");
    }
    assert_eq!(exporter.get("/incidents?verdict=gone").status, 400);
}

pub(crate) const BROWSER: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";

#[test]
fn incidents_are_a_page_for_browsers_and_json_for_others() {
    let exporter = exporter();
    let of = |path: &str, accept: &str| {
        let reply = exporter.request("GET", path, accept);
        assert_eq!((reply.status, reply.header("vary")), (200, Some("Accept")), "{path}");
        reply.header("content-type").expect("a type").to_owned()
    };
    let (html, json) = ("text/html; charset=utf-8", "application/json");
    for path in ["/incidents", "/incidents/1"] {
        assert_eq!(of(path, BROWSER), html);
        assert_eq!(of(path, ""), json);
        assert_eq!(of(path, "Accept: application/json, text/html;q=0.5\r\n"), json);
        assert_eq!(of(&format!("{path}?format=html"), ""), html);
        assert_eq!(of(&format!("{path}?format=json"), BROWSER), json);
    }
}

#[test]
fn the_list_of_incidents_can_be_read_filtered_and_followed() {
    let exporter = exporter();
    let page = |query: &str| {
        let reply = exporter.request("GET", &format!("/incidents{query}"), BROWSER);
        assert_eq!(reply.status, 200, "{query}");
        let policy = reply.header("content-security-policy").expect("a policy");
        assert!(policy.contains("form-action 'self'"), "the form can be sent");
        reply.text().to_owned()
    };
    for shown in [
        "This is not the host you are on",
        "<form class=\"filter\" action=\"./incidents\">",
        "<option value=\"lost\">",
        "<option value=\"postgres\">",
        "2 incidents, newest first.",
        "<a href=\"./incidents/1\">1</a>",
        "<a href=\"./incidents?pid=100\">100</a>",
        "<time>2024-12-31T23:59:59.000Z</time>",
    ] {
        assert!(page("").contains(shown), "{shown}");
    }
    let lost = page("?verdict=lost&tree=postgres&limit=7");
    assert!(lost.contains("/incidents/2\"") && !lost.contains("/incidents/1\""), "{lost}");
    for kept in [
        "<option value=\"lost\" selected>",
        "<option value=\"postgres\" selected>",
        "name=\"limit\" inputmode=\"numeric\" size=\"6\" value=\"7\"",
        "/incidents?tree=postgres&amp;verdict=lost&amp;limit=7&amp;format=json",
    ] {
        assert!(lost.contains(kept), "{kept}");
    }
    assert!(page("?limit=1").contains("The newest 1; there are more."));
    assert!(page("?tree=nginx").contains("<option value=\"nginx\" selected>"));
    let mut incidents = exporter.state.incidents();
    (0..500).for_each(|pid| incidents.finding(&lost_once(pid)));
    assert!(page("").contains("since the start were not."), "skipped ones are counted");
}

fn lost_once(pid: u64) -> Finding {
    Finding { verdict: Verdict::LostInherited, ..lost(pid) }
}

#[test]
fn a_list_has_time_lines_on_request_and_names_its_origin() {
    let exporter = exporter();
    assert!(incidents(&exporter, "?pid=100")[0].get("timeline").is_none());
    let with = incidents(&exporter, "?pid=100&timeline=true");
    let mut one: Value = serde_json::from_slice(&exporter.get("/incidents/1").body).unwrap();
    one["runbook"] = with[0]["runbook"].clone();
    assert_eq!(with, [one]);
    let list: Value = serde_json::from_slice(&exporter.get("/incidents").body).unwrap();
    assert_eq!([&list["origin"], &list["detail"]], ["replay", "merged.kqr"]);
}

#[test]
fn one_incident_has_its_time_line_as_json_and_as_a_page() {
    let exporter = exporter();
    let reply = exporter.get("/incidents/1");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let incident: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(incident["pid"], 100);
    let events: Vec<&str> = incident["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["text"].as_str().unwrap())
        .collect();
    assert_eq!(events[0], "create, forked by 4242");
    assert_eq!(events.len(), 4);

    let page = exporter.request("GET", "/incidents/1", BROWSER);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    for shown in ["Time line", "forked by 4242", "../runbook#verdict-overwritten", "exit 127"] {
        assert!(page.text().contains(shown), "{shown}");
    }
    let json = exporter.request("GET", "/incidents/1?format=json", BROWSER);
    assert_eq!(json.body, reply.body);
    for path in ["/incidents/3", "/incidents/", "/incidents/x", "/incidents/1/x"] {
        assert_eq!(exporter.get(path).status, 404, "{path}");
    }
}

#[test]
fn the_status_page_shows_verdicts_sources_and_incidents() {
    let exporter = exporter();
    let page = exporter.get("/");
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'self'; script-src 'self'"));
    for shown in [
        "Unsound: of 45 births and 41 deaths, kqueue overwrote 4 births.",
        "This is not the host you are on",
        "merged.kqr",
        "Regime merged-status",
        "Down: kqueue, dtrace, sysctl",
        "href=\"./incidents?tree=postgres\"",
        "NOTE_CHILD|NOTE_EXIT, data 32512 (exit 127)",
        "href=\"./incidents/2\"",
        "http-equiv=\"refresh\"",
    ] {
        assert!(page.text().contains(shown), "{shown}");
    }
    for file in ["/status.css", "/status.js", "/runbook"] {
        assert_eq!(exporter.get(file).status, 200, "{file}");
    }
}

#[test]
fn what_is_wrong_now_is_seen_at_once() {
    let exporter = exporter();
    for &source in Source::ALL {
        exporter.state.set_source(0, source, true);
    }
    assert!(exporter.get("/").text().contains("Both see"));
    let mut stats = some_stats();
    stats.dtrace_blind_now = true;
    stats.trees[0].lost_alive = 3;
    stats.trees[0].attached = false;
    exporter.state.publish(0, stats);
    let page = exporter.get("/");
    for shown in ["DTrace is blind", "3 alive that kqueue does not know", "(no process)"] {
        assert!(page.text().contains(shown), "{shown}");
    }
}

#[test]
fn a_hostile_name_is_only_text() {
    let name = "</b><script>alert(1)</script>\"'&\u{202e}\n";
    let about = kqproc_exporter::http::About {
        detail: name.into(),
        osrelease: name.into(),
        origin: Origin::Simulate,
        ..about()
    };
    let exporter = Exporter::start_about(about);
    let mut stats = some_stats();
    stats.trees[0].name = name.into();
    exporter.state.publish(0, stats);
    exporter.state.incidents().finding(&lost(5));
    let page = exporter.get("/");
    let incident = exporter.request("GET", "/incidents/1", "Accept: text/html\r\n");
    let list = exporter.request("GET", "/incidents", "Accept: text/html\r\n");
    for page in [page.text(), incident.text(), list.text()] {
        assert!(!page.contains("<script>alert"));
        assert!(!page.contains('\u{202e}'));
        assert!(page.contains("&lt;/b&gt;&lt;script&gt;alert(1)&lt;/script&gt;&quot;'&amp;"));
    }
    assert!(page.text().contains("/incidents?tree=%3C%2Fb%3E%3Cscript%3E"));
    let encoded = "%3C%2Fb%3E%3Cscript%3Ealert%281%29%3C%2Fscript%3E%22%27%26%E2%80%AE%0A";
    assert_eq!(incidents(&exporter, &format!("?tree={encoded}")).len(), 1);
}

#[test]
fn a_live_page_has_no_remark_about_its_origin() {
    let exporter =
        Exporter::start_about(kqproc_exporter::http::About { origin: Origin::Live, ..about() });
    assert!(!exporter.get("/").text().contains("not the host you are on"));
}
