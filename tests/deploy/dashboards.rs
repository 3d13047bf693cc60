//! The dashboards: they keep the rules of grafana/dashboard-linter, after which the tests are named, and are what
//! dashboards/build.py writes.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use kqproc_exporter::model::Verdict;

use crate::project::{path, read, run};
use crate::promql::{Selector, selectors};
use serde_json::Value;

const BOARDS: [(&str, &str); 2] = [("host", "kqproc-host"), ("fleet", "kqproc-fleet")];

fn board(name: &str) -> Value {
    serde_json::from_str(&read(&format!("dashboards/{name}.json"))).expect(name)
}

/// Calls `check` with every panel that shows something, and with how a message should name it.
fn each_panel(check: impl Fn(&str, &Value)) {
    for (name, _) in BOARDS {
        for panel in board(name)["panels"].as_array().unwrap() {
            if panel["type"] != "row" {
                check(&format!("{name}: panel {}", panel["title"]), panel);
            }
        }
    }
}

/// Calls `check` with every query of every panel.
fn each_query(check: impl Fn(&str, &str)) {
    each_panel(|name, panel| {
        for target in panel["targets"].as_array().unwrap() {
            check(name, target["expr"].as_str().unwrap());
        }
    });
}

fn each_selector(check: impl Fn(&str, &Selector<'_>)) {
    each_query(|panel, query| {
        let found = selectors(query);
        assert!(!found.is_empty(), "{panel}: {query} selects nothing of ours");
        found.iter().for_each(|selector| check(&format!("{panel}: {}", selector.name), selector));
    });
}

fn template<'a>(board: &'a Value, name: &str) -> &'a Value {
    let list = board["templating"]["list"].as_array().unwrap();
    list.iter().find(|t| t["name"] == name).unwrap_or_else(|| panic!("no variable {name}"))
}

#[test]
fn template_datasource_rule() {
    for (name, _) in BOARDS {
        let board = board(name);
        let list = board["templating"]["list"].as_array().unwrap();
        let sources: Vec<_> = list.iter().filter(|t| t["type"] == "datasource").collect();
        assert_eq!(sources.len(), 1, "{name}");
        assert_eq!(sources[0]["name"], "datasource");
        assert_eq!(sources[0]["label"], "Data Source");
        assert_eq!(sources[0]["query"], "prometheus");
    }
}

#[test]
fn template_job_instance_and_on_time_change_reload_rules() {
    for (name, _) in BOARDS {
        let board = board(name);
        for (variable, label) in [("job", "Job"), ("instance", "Instance")] {
            let template = template(&board, variable);
            assert_eq!(template["label"], label, "{name}");
            assert_eq!(template["multi"], true, "{name}: {variable}");
            assert_eq!(template["allValue"], ".+", "{name}: {variable}");
        }
        let list = board["templating"]["list"].as_array().unwrap();
        for template in list.iter().filter(|t| t["type"] == "query") {
            assert_eq!(template["datasource"]["uid"], "$datasource", "{name}");
            assert_eq!(template["refresh"], 2, "{name}: {}", template["name"]);
        }
    }
}

#[test]
fn uneditable_dashboard_rule_and_a_fixed_uid() {
    for (name, uid) in BOARDS {
        let board = board(name);
        assert_eq!(board["editable"], false, "{name}");
        assert_eq!(board["uid"], uid);
        assert!(board["id"].is_null(), "{name}: an id is Grafana's to give");
    }
}

#[test]
fn panel_datasource_rule() {
    each_panel(|name, panel| {
        assert_eq!(panel["datasource"]["uid"], "$datasource", "{name}");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "$datasource", "{name}");
        }
    });
}

#[test]
fn panel_title_description_rule() {
    each_panel(|name, panel| {
        assert!(!panel["title"].as_str().unwrap().is_empty(), "{name}");
        assert!(panel["description"].as_str().unwrap().ends_with('.'), "{name}: a sentence");
    });
}

#[test]
fn panel_units_rule() {
    // The unit ids of Grafana that the dashboards use.
    let units = ["none", "short", "ops", "percentunit", "s", "bytes", "bool_on_off", "bool_yes_no"];
    each_panel(|name, panel| {
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap();
        assert!(units.contains(&unit), "{name}: {unit}");
    });
}

#[test]
fn panel_no_targets_rule() {
    each_panel(|name, panel| {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{name}");
        let ids: BTreeSet<_> = targets.iter().map(|t| t["refId"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), targets.len(), "{name}: refIds");
        assert!(
            targets.iter().all(|t| !t["legendFormat"].as_str().unwrap().is_empty()),
            "{name}: legend"
        );
    });
}

#[test]
fn target_job_and_target_instance_rules() {
    each_selector(|name, selector| {
        let labels = selector.labels;
        assert!(labels.contains(r#"job=~"$job""#), "{name}: no matcher for the job");
        assert!(labels.contains(r#"instance=~"$instance""#), "{name}: no matcher for the instance");
    });
}

#[test]
fn target_rate_interval_and_target_counter_agg_rules() {
    each_selector(|name, selector| {
        let counter = selector.name.ends_with("_total") || selector.name.ends_with("_bucket");
        if counter {
            assert_eq!(selector.range, Some("$__rate_interval"), "{name}");
            assert!(
                ["rate", "increase"].contains(&selector.function.unwrap()),
                "{name}: a counter needs rate"
            );
        } else {
            assert_eq!(selector.range, None, "{name}: a gauge has no rate");
        }
    });
}

#[test]
fn target_promql_rule() {
    let rules = std::cell::RefCell::new(String::from("groups:\n- name: dashboards\n  rules:\n"));
    each_query(|panel, query| {
        let expr = query.replace("$__rate_interval", "5m");
        *rules.borrow_mut() +=
            &format!("  # {panel}\n  - record: a\n    expr: {}\n", Value::from(expr));
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.yml");
    fs::write(&file, rules.into_inner()).unwrap();
    run(Command::new("promtool").args(["check", "rules", "--lint=none"]).arg(file)).unwrap();
}

#[test]
fn panels_lie_side_by_side() {
    for (name, _) in BOARDS {
        let mut cells = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for panel in board(name)["panels"].as_array().unwrap() {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: two panels with one id");
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{name}: {} is too far right", panel["title"]);
            for (x, y) in (0..at("w")).flat_map(|i| (0..at("h")).map(move |j| (i, j))) {
                assert!(
                    cells.insert((at("x") + x, at("y") + y)),
                    "{name}: {} overlaps",
                    panel["title"]
                );
            }
        }
    }
}

/// The colours of the report's page, which its source has as constants: `const RED: RGBColor = RGBColor(0xd6, 0x45, 0x45);`
/// and `VerdictClass::Lost => ("lost", RED),`.
fn colour_on_the_page(verdict: Verdict) -> String {
    let page = read("src/report/page/sections.rs");
    let class = format!("VerdictClass::{:?} => (\"", verdict.class());
    let (_, layer) = page.split_once(&class).expect("each has a layer");
    let (_, name) = layer.split_once("\", ").unwrap();
    let (name, _) = name.split_once(')').unwrap();
    let (_, constant) = page.split_once(&format!("const {name}: RGBColor = RGBColor(")).unwrap();
    "#".to_owned() + &constant.split(");").next().unwrap().replace("0x", "").replace(", ", "")
}

/// Red is the strongest part of a warm colour.
fn is_warm(colour: &str) -> bool {
    let parts = [1, 3, 5].map(|at| u8::from_str_radix(&colour[at..at + 2], 16).unwrap());
    parts[0] > parts[1] && parts[0] > parts[2]
}

#[test]
fn a_verdict_has_one_colour_everywhere() {
    each_panel(|name, panel| {
        let by_verdict =
            |t: &Value| t["legendFormat"].as_str().is_some_and(|l| l.contains("{{verdict}}"));
        if !panel["targets"].as_array().unwrap().iter().any(by_verdict) {
            return;
        }
        let overrides = panel["fieldConfig"]["overrides"].as_array().unwrap();
        let colour = |verdict: Verdict| {
            let own = overrides.iter().find(|o| o["matcher"]["options"] == verdict.as_str());
            let own = own.unwrap_or_else(|| panic!("{name}: {verdict} has no colour"));
            own["properties"][0]["value"]["fixedColor"].as_str().unwrap()
        };
        // The page has a colour for each class: that of its commonest verdict.
        let commonest =
            [Verdict::Agreed, Verdict::Overwritten, Verdict::LostSilent, Verdict::Undecided];
        for verdict in commonest {
            assert_eq!(colour(verdict), colour_on_the_page(verdict), "{name}: {verdict}");
        }
        let all: BTreeSet<&str> = Verdict::ALL.iter().map(|v| colour(*v)).collect();
        assert_eq!(all.len(), Verdict::COUNT, "{name}: two verdicts look the same");
        assert!(Verdict::ALL.iter().filter(|v| v.is_lost()).all(|v| is_warm(colour(*v))), "{name}");
    });
}

/// Grafana's palette begins with green.
#[test]
fn nothing_wrong_is_drawn_in_the_colour_of_a_palette() {
    let wrong = ["lost", "corrupt", "collisions", "trackerr", "duplicate", "ghost", "violations"];
    each_panel(|name, panel| {
        let of_wrong =
            |t: &Value| wrong.iter().any(|word| t["expr"].as_str().unwrap().contains(word));
        let palette = panel["fieldConfig"]["defaults"]["color"]["mode"] == "palette-classic";
        if palette && panel["targets"].as_array().unwrap().iter().any(of_wrong) {
            let overrides = panel["fieldConfig"]["overrides"].as_array().unwrap();
            assert!(!overrides.is_empty(), "{name}");
        }
    });
}

/// The exporter knows where browsers find it, or else it is found where Prometheus scrapes it. A series of the fleet leads to
/// the dashboard of its host.
#[test]
fn a_series_leads_to_the_exporter_that_it_comes_from() {
    let pages = [
        "${url:raw}/",
        "${url:raw}/incidents?verdict=lost",
        "${url:raw}/incidents?verdict=lost&tree=${__field.labels.tree:percentencode}",
        "${url:raw}/incidents?verdict=${__field.labels.verdict}",
    ];
    let host =
        "/d/kqproc-host?var-instance=${__field.labels.instance:percentencode}&${__url_time_range}";
    let leading = Cell::new(0);
    each_panel(|name, panel| {
        for link in panel["fieldConfig"]["defaults"]["links"].as_array().into_iter().flatten() {
            let url = link["url"].as_str().unwrap();
            let is_known = match name.starts_with("fleet") {
                true => url == host,
                false => pages.contains(&url),
            };
            assert!(is_known, "{name}: {url}");
            leading.set(leading.get() + 1);
        }
    });
    assert!(leading.get() > 10, "{leading:?}");
    let host = board("host");
    assert!(host["links"].as_array().unwrap().iter().any(|link| link["url"] == pages[0]));
    let variable = template(&host, "url");
    assert_eq!(variable["hide"], 2);
    let query = variable["query"]["query"].as_str().unwrap();
    assert!(
        query.contains("kqproc_external_url_info") && query.contains("\"http://$1\""),
        "{query}"
    );
}

#[test]
fn the_json_is_what_the_script_writes() {
    let dir = tempfile::tempdir().unwrap();
    run(Command::new("python3").arg(path("dashboards/build.py")).arg(dir.path())).unwrap();
    for (name, _) in BOARDS {
        let written = fs::read_to_string(dir.path().join(format!("{name}.json"))).unwrap();
        assert!(
            written == read(&format!("dashboards/{name}.json")),
            "{name}.json: run scripts/generate"
        );
    }
}
