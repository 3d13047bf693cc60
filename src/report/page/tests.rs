//! Tests of the report page in its formats.

use std::path::Path;

use super::*;
use crate::check::Config;
use crate::pipeline::Pipeline;
use crate::report::format::Paint;
use crate::source::replay::Replay;

/// The page on one of the project's recordings.
fn page(recording: &str) -> ReportPage {
    let name = format!("{recording}.kqr");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings").join(&name);
    let replay = Replay::open(&path).expect("a recording");
    let meta = replay.meta();
    let mut pipeline = Pipeline::new(Config::default(), Chronicle::default());
    replay.play(&mut pipeline).expect("an undamaged recording");
    let kernel = KernelVersion { uname: meta.uname, osreldate: meta.osreldate };
    let origin = RunOrigin {
        source: name,
        note: meta.note,
        start_real_ns: meta.start_real_ns,
        program: meta.program,
    };
    ReportPage::of(pipeline.stats(), pipeline.observer(), kernel, Run::default(), origin)
}

#[test]
fn the_page_answers_first_and_has_every_section() {
    let html = page("merged-orphan").html();
    let places: Vec<usize> = [
        "<h1><span class=\"badge\">Unsound</span> Of 400 births and 401 deaths, kqueue lost 1 birth",
        "<h2>Verdicts</h2>",
        "<h2>Delivery latency</h2>",
        "<h2>Repeated NOTE_CHILD</h2>",
        "<h2>Tree damage</h2>",
        "<h2>What would have helped</h2>",
        "<h2>Incidents</h2>",
        "<h2>Environment</h2>",
    ]
    .iter()
    .map(|section| html.find(section).unwrap_or_else(|| panic!("no {section}")))
    .collect();
    assert!(places.is_sorted());
    assert_eq!(html.matches("<svg").count(), 4, "verdicts, two of latency, damage");
    assert!(html.contains("filt_proc (10.1 kern_event.c:436)"));
}

#[test]
fn the_page_needs_nothing_else() {
    for recording in ["merged-orphan", "split-13.2-chain-stall", "merged-drops"] {
        let html = page(recording).html();
        let html = html.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for reference in ["http:", "https:", "src=", "href=", "url(", "@import", "<script"] {
            assert!(!html.contains(reference), "{recording}: {reference}");
        }
    }
}

/// Whether every element is closed in its turn.
fn well_formed(html: &str) -> Result<(), String> {
    const VOID: [&str; 2] = ["!DOCTYPE", "meta"];
    let mut open: Vec<&str> = vec![];
    for tag in html.split('<').skip(1) {
        let (inside, _) = tag.split_once('>').ok_or_else(|| format!("<{tag}"))?;
        let name = inside.split([' ', '\n']).next().unwrap_or_default().trim_start_matches('/');
        if VOID.contains(&name) || inside.ends_with('/') {
            continue;
        }
        match inside.starts_with('/') {
            true if open.pop() == Some(name) => {}
            true => return Err(format!("</{name}> closes nothing, in {open:?}")),
            false => open.push(name),
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("{open:?} stay open")) }
}

#[test]
fn hostile_text_stays_text() {
    let hostile = "</td></style><script>alert(1)</script>\"'&\u{202e}\x1b[2J|`*[a](b)";
    let mut page = page("merged-orphan");
    page.origin.source = hostile.to_owned();
    page.origin.note = hostile.to_owned();
    page.origin.program = hostile.to_owned();
    page.report.kernel.uname = hostile.to_owned();
    page.report.run.load = hostile.to_owned();
    page.incidents.iter_mut().for_each(|incident| incident.tree = hostile.to_owned());
    let html = page.html();
    assert!(!html.contains("<script") && !html.contains("\x1b"));
    assert_eq!(html.matches("</style>").count(), 1);
    well_formed(&html).expect("well-formed");
    let markdown = page.markdown();
    assert!(!markdown.contains("<script") && !markdown.contains('\x1b'));
    assert!(markdown.contains("\\|\\`\\*\\[a\\](b)"));
}

#[test]
fn every_page_is_well_formed() {
    for recording in ["merged-orphan", "split-13.2-chain-stall", "split-13.2-drops"] {
        well_formed(&page(recording).html()).unwrap_or_else(|why| panic!("{recording}: {why}"));
    }
}

#[test]
fn repeats_are_counted_by_generation() {
    let page = page("split-13.2-chain-stall");
    let births: Vec<u64> = page.generations.iter().map(|g| g.births).collect();
    assert_eq!(births, [60, 60, 60, 60, 60, 60, 60]);
    let repeats: u64 = page.generations.iter().map(|g| g.notes - g.births).sum();
    assert_eq!(repeats, 5691);
    assert!(page.html().contains("5,691 too many"));
}

/// The section said how many there were, above an empty table.
#[test]
fn repeats_of_a_consumer_are_counted_by_generation_too() {
    let page = page("consumer-15.1-one-lost-exit");
    let repeats: u64 = page.generations.iter().map(|g| g.notes - g.births).sum();
    assert_eq!(repeats, page.totals.duplicate_child_notes);
    assert!(repeats > 0);
}

#[test]
fn the_object_has_the_keys_of_stress_and_more() {
    let page = page("merged-exit-stall");
    let json = serde_json::to_value(&page).expect("json");
    assert_eq!(json["decision"], "unsound");
    assert_eq!(json["damage"]["wrong_parent"], 564);
    assert_eq!(json["strategies"]["two_kqueues"]["recovered"], 564);
    assert_eq!(json["strategies"]["two_kqueues"]["parents"], 600);
    assert_eq!(json["incidents_total"], 564);
    assert_eq!(json["incidents"][0]["path"]["sure"], "certain");
    let overwritten = json["over_time"]["verdicts"]["overwritten"].as_array().expect("bins");
    assert_eq!(overwritten.iter().filter_map(|n| n.as_u64()).sum::<u64>(), 564);
    let damage = json["over_time"]["damage"]["wrong_parent"].as_array().expect("bins");
    assert_eq!(damage.last().and_then(|n| n.as_u64()), Some(564));
}

#[test]
fn the_tables_read_well() {
    let markdown = page("merged-orphan").markdown();
    for line in [
        "| overwritten | 184 | 46.0 % ",
        "| cut_off | 60 |",
        "| two_kqueues | 399 of 400 | 398 of 400 | 400 of 401 | 0 | 243 |",
        "12 of 186 facts that are not agreed",
        "### Birth overwritten",
    ] {
        assert!(markdown.lines().any(|l| l.starts_with(line)), "{line} is not in\n{markdown}");
    }
}

#[test]
fn a_recording_of_nothing_has_a_page() {
    let page = ReportPage::of(
        &Stats::default(),
        &Chronicle::default(),
        KernelVersion::default(),
        Run::default(),
        RunOrigin::default(),
    );
    well_formed(&page.html()).expect("well-formed");
    assert!(page.html().contains(">Undecided</span> Neither witness reported"));
    assert!(page.markdown().contains("Undecided: "));
    assert!(page.details(Paint::Plain).contains("No note could be timed."));
}
