//! What `replay` prints: the verdicts and counts of a run, as a table for a person or an object for a program.

use std::fmt::Write as _;

use serde::Serialize;

use super::advice::consumer_advice;
use super::answer::{Soundness, sentence};
use super::by_name::ByName;
use super::format::{Hue, Paint, count_of, printable, thousands};
use crate::check::damage::Damage;
use crate::check::stats::{BlindReason, ConsumerStats, Order, Refusal, Stats, TreeStats};
use crate::check::strategies::Strategy;
use crate::model::{Named, Pid, Regime, Verdict, VerdictClass, Winner, note};
use crate::wire::drops::DropKind;

/// The whole run.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Summary {
    /// One sentence.
    pub answer: String,
    /// Sound, unsound or undecided.
    pub decision: Soundness,
    /// What the kevents have shown of the kernel.
    pub regime: Regime,
    /// The sum over all trees.
    pub totals: Totals,
    /// By tree name.
    pub trees: ByName<Totals>,
    /// How well DTrace saw.
    pub dtrace: DtraceSummary,
    /// Seconds in which either witness may have missed something.
    pub blind_seconds: f64,
}

/// The counts of one tree, or of all.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Totals {
    /// What only a consumer has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<ConsumerSummary>,
    /// Births of descendants of the root, by verdict.
    pub births: ByName<u64>,
    /// Deaths of the root and its descendants, by verdict.
    pub deaths: ByName<u64>,
    /// Kevents with NOTE_CHILD and NOTE_EXIT, by which value won.
    pub collisions: ByName<u64>,
    /// NOTE_CHILD for a process that had been announced.
    pub duplicate_child_notes: u64,
    /// Kevents with NOTE_TRACKERR.
    pub trackerr_reports: u64,
    /// Orders of events that the kernel should not give, by kind.
    pub order_violations: ByName<u64>,
    /// What is wrong in the table of a tracker that believes every kevent, by kind.
    pub(crate) tree_damage: ByName<u64>,
    /// Facts that a tracker would have got right with each strategy, and gets wrong with one kqueue alone.
    pub recovered: ByName<u64>,
}

/// What only a consumer has.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ConsumerSummary {
    /// Its process; `None` once that has ended.
    pub pid: Option<Pid>,
    /// Changes of EVFILT_PROC knotes that kevent(2) refused, by errno.
    pub refused: ByName<u64>,
    /// What it should do about what it asks for.
    pub advice: Option<String>,
}

impl ConsumerSummary {
    fn of(consumer: &ConsumerStats) -> ConsumerSummary {
        ConsumerSummary {
            pid: consumer.pid,
            refused: ByName::each(|why: Refusal| consumer.refused[why.index()]),
            advice: consumer_advice(consumer),
        }
    }
}

/// How well DTrace saw.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DtraceSummary {
    /// Records decoded.
    pub records: u64,
    /// Lines of stdout that were no record.
    pub(crate) decode_errors: u64,
    /// What dtrace reported that it dropped, by kind.
    pub drops: ByName<u64>,
    /// Seconds in which it may have missed something, by reason.
    pub blind_seconds: ByName<f64>,
}

impl Summary {
    pub(crate) fn of(stats: &Stats) -> Summary {
        Summary {
            answer: sentence(stats),
            decision: Soundness::of(stats),
            regime: stats.regime,
            totals: Totals::of(&stats.totals()),
            trees: ByName::new(stats.trees.iter().map(|t| (t.name.as_str(), Totals::of(t)))),
            dtrace: DtraceSummary {
                records: stats.records.iter().sum(),
                decode_errors: stats.bad_lines.iter().sum(),
                drops: ByName::each(|kind: DropKind| stats.drops[kind.index()]),
                blind_seconds: ByName::each(|reason: BlindReason| {
                    stats.dtrace_blind_ns[reason.index()] as f64 / 1e9
                }),
            },
            blind_seconds: stats.blind_seconds(),
        }
    }
}

impl Totals {
    pub(crate) fn of(tree: &TreeStats) -> Totals {
        Totals {
            consumer: tree.consumer.as_ref().map(ConsumerSummary::of),
            births: ByName::each(|verdict: Verdict| tree.births[verdict.index()]),
            deaths: ByName::each(|verdict: Verdict| tree.deaths[verdict.index()]),
            collisions: ByName::each(|winner: Winner| tree.collisions[winner.index()]),
            duplicate_child_notes: tree.duplicate_child_notes,
            trackerr_reports: tree.trackerr_reports,
            order_violations: ByName::each(|order: Order| tree.order_violations[order.index()]),
            tree_damage: ByName::each(|damage: Damage| tree.damage[damage.index()]),
            recovered: ByName::new(
                Strategy::BETTER.iter().map(|s| (s.as_str(), tree.recovered(*s))),
            ),
        }
    }
}

/// The table: the answer, then one block for each tree, then how well DTrace saw.
pub fn text(stats: &Stats, paint: Paint) -> String {
    let mut out = paint.dye(Soundness::of(stats).hue(), &sentence(stats));
    out.push('\n');
    for tree in &stats.trees {
        block(&mut out, tree, paint);
    }
    if stats.trees.len() > 1 {
        block(&mut out, &stats.totals(), paint);
    }
    out.push('\n');
    witness(&mut out, stats);
    out
}

/// One tree: births and deaths by verdict side by side, then what is counted by event.
fn block(out: &mut String, tree: &TreeStats, paint: Paint) {
    // A recording may name its trees as it likes: no escape sequence of its gets to the terminal.
    let name = printable(&tree.name);
    let title = paint.dye(Hue::Title, &format!("{name:<24}{:>14}{:>14}", "births", "deaths"));
    let _ = writeln!(out, "\n{title}");
    for verdict in Verdict::ALL {
        let (births, deaths) = (tree.births[verdict.index()], tree.deaths[verdict.index()]);
        let line = format!("  {verdict:<22}{:>14}{:>14}", thousands(births), thousands(deaths));
        let _ = writeln!(out, "{}", paint.dye(row_hue(*verdict, births + deaths), &line));
    }
    let (births, deaths) = (tree.births.iter().sum(), tree.deaths.iter().sum());
    let _ = writeln!(out, "  {:<22}{:>14}{:>14}", "total", thousands(births), thousands(deaths));
    let collided: u64 = tree.collisions.iter().sum();
    let _ = writeln!(
        out,
        "  {} (NOTE_CHILD and NOTE_EXIT in one kevent){}",
        count_of(collided, "collision"),
        listed::<Winner>(" won by: ", &tree.collisions)
    );
    let _ = writeln!(
        out,
        "  {}, {}",
        count_of(tree.duplicate_child_notes, "duplicate NOTE_CHILD note"),
        count_of(tree.trackerr_reports, "NOTE_TRACKERR report")
    );
    let _ = writeln!(
        out,
        "  {}{}",
        count_of(tree.order_violations.iter().sum(), "order violation"),
        listed::<Order>(": ", &tree.order_violations)
    );
    if let Some(consumer) = &tree.consumer {
        consumer_lines(out, consumer);
    }
    for (bit, facts) in [(note::TRACK, "births"), (note::EXIT, "deaths")] {
        if tree.notes != 0 && tree.notes & bit == 0 {
            let _ =
                writeln!(out, "  {} was not asked for: its {facts} are no facts", note::names(bit));
        }
    }
    for line in [
        listed::<Damage>("  a tracker that believes every kevent is wrong about: ", &tree.damage),
        listed::<Strategy>(
            "  other strategies would recover: ",
            &Strategy::ALL.iter().map(|strategy| tree.recovered(*strategy)).collect::<Vec<_>>(),
        ),
    ] {
        out.push_str(&line);
        out.push_str(if line.is_empty() { "" } else { "\n" });
    }
}

/// What only a consumer has.
fn consumer_lines(out: &mut String, consumer: &ConsumerStats) {
    let _ = writeln!(
        out,
        "  a consumer: {}{}",
        count_of(consumer.refused.iter().sum(), "refused registration"),
        listed::<Refusal>(": ", &consumer.refused)
    );
    if let Some(advice) = consumer_advice(consumer) {
        let _ = writeln!(out, "  {advice}");
    }
}

pub(super) const fn row_hue(verdict: Verdict, n: u64) -> Hue {
    match verdict.class() {
        _ if n == 0 => Hue::Dim,
        VerdictClass::Good => Hue::Good,
        VerdictClass::Open => Hue::Doubt,
        VerdictClass::Wrong | VerdictClass::Lost => Hue::Bad,
    }
}

/// How well DTrace saw, and what the kevents have shown of the kernel.
fn witness(out: &mut String, stats: &Stats) {
    let _ = writeln!(out, "regime    {}", stats.regime);
    let _ = writeln!(
        out,
        "dtrace    {}, {}, {}{}",
        count_of(stats.records.iter().sum(), "record"),
        count_of(stats.bad_lines.iter().sum(), "undecodable line"),
        count_of(stats.drops.iter().sum(), "drop"),
        listed::<DropKind>(": ", &stats.drops)
    );
    let _ = writeln!(
        out,
        "blind     {:.3} s{}",
        stats.blind_seconds(),
        if stats.dtrace_blind_now { ", and DTrace still is" } else { "" }
    );
}

/// `lead` and then `name n` for each count that is not zero, or nothing at all.
fn listed<E: Named>(lead: &str, counts: &[u64]) -> String {
    let parts: Vec<String> = (E::VALUES.iter().zip(counts))
        .filter(|(_, n)| **n > 0)
        .map(|(name, n)| format!("{} {}", name.name(), thousands(*n)))
        .collect();
    if parts.is_empty() { String::new() } else { format!("{lead}{}", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::super::answer::tests::stats;
    use super::*;

    fn merged() -> Stats {
        let mut stats = stats(
            &[(Verdict::Agreed, 478), (Verdict::Overwritten, 122)],
            &[(Verdict::Agreed, 601)],
        );
        stats.trees[0].collisions[Winner::Status.index()] = 122;
        stats.trees[0].duplicate_child_notes = 5691;
        stats.trees[0].damage[Damage::WrongParent.index()] = 122;
        stats.regime = Regime::MergedStatus;
        stats.records[0] = 1;
        stats.bad_lines[0] = 2;
        stats.drops[DropKind::Principal.index()] = 106;
        stats.dtrace_blind_ns[BlindReason::Drops.index()] = 1_500_000_000;
        stats
    }

    #[test]
    fn the_object_has_the_promised_keys() {
        let json = serde_json::to_value(Summary::of(&merged())).expect("json");
        assert_eq!(json["regime"], "merged-status");
        assert_eq!(json["decision"], "unsound");
        for place in [&json["totals"], &json["trees"]["work"]] {
            for fact in ["births", "deaths"] {
                let by = place[fact].as_object().expect("object");
                assert_eq!(by.len(), Verdict::COUNT, "{fact}");
            }
            assert_eq!(place["births"]["overwritten"], 122);
            assert_eq!(place["deaths"]["agreed"], 601);
            assert_eq!(
                place["collisions"],
                serde_json::json!({"status": 122, "ppid": 0, "other": 0})
            );
            assert_eq!(place["duplicate_child_notes"], 5691);
            assert_eq!(place["trackerr_reports"], 0);
        }
        assert_eq!(json["dtrace"]["records"], 1);
        assert_eq!(json["dtrace"]["decode_errors"], 2);
        assert_eq!(json["dtrace"]["drops"]["principal"], 106);
        assert_eq!(json["dtrace"]["drops"].as_object().expect("object").len(), DropKind::COUNT);
        assert_eq!(json["blind_seconds"], 1.5);
    }

    #[test]
    fn the_table_reads_well() {
        assert_eq!(
            text(&merged(), Paint::Plain),
            "\
Unsound: of 600 births and 601 deaths, kqueue overwrote 122 births.

work                            births        deaths
  agreed                           478           601
  overwritten                      122             0
  corrupt                            0             0
  lost_reported                      0             0
  lost_silent                        0             0
  lost_inherited                     0             0
  kqueue_only                        0             0
  undecided                          0             0
  total                            600           601
  122 collisions (NOTE_CHILD and NOTE_EXIT in one kevent) won by: status 122
  5,691 duplicate NOTE_CHILD notes, 0 NOTE_TRACKERR reports
  0 order violations
  a tracker that believes every kevent is wrong about: wrong_parent 122
  other strategies would recover: dedupe 5,691

regime    merged-status
dtrace    1 record, 2 undecodable lines, 106 drops: principal 106
blind     1.500 s
"
        );
    }

    #[test]
    fn several_trees_get_a_sum() {
        let mut two = merged();
        let mut other = two.trees[0].clone();
        other.name = "other".to_owned();
        two.trees.push(other);
        let table = text(&two, Paint::Plain);
        let sum = table.split("all trees").nth(1).expect("a block for the sum");
        assert!(sum.contains("244 collisions"), "{sum}");
        assert!(!text(&merged(), Paint::Plain).contains("all trees"));
    }

    #[test]
    fn a_name_from_a_recording_does_not_steer_the_terminal() {
        let mut stats = merged();
        stats.trees[0].name = "a\x1b[2J".to_owned();
        assert!(!text(&stats, Paint::Plain).contains('\x1b'));
    }

    #[test]
    fn colour_is_asked_for() {
        assert!(!text(&merged(), Paint::Plain).contains('\x1b'));
        assert!(text(&merged(), Paint::Ansi).starts_with("\x1b[31mUnsound"));
    }

    #[test]
    fn a_consumer_is_shown_what_it_was_refused_and_what_to_ask_for() {
        let mut stats = stats(&[], &[(Verdict::Agreed, 1)]);
        let consumer = stats.trees[0].consumer.insert(ConsumerStats::default());
        consumer.beside_exit = note::FORK;
        consumer.refused[Refusal::Esrch.index()] = 30;
        let text = text(&stats, Paint::Plain);
        let expected = "  a consumer: 30 refused registrations: ESRCH 30\n  it asks for NOTE_FORK beside NOTE_EXIT: \
                        from FreeBSD 12.3 on it may lose ends; ask for them on another kqueue\n";
        assert!(text.contains(expected), "{text}");
        let json = serde_json::to_value(Summary::of(&stats)).expect("JSON");
        assert_eq!(json["trees"]["work"]["consumer"]["refused"]["ESRCH"], 30);
        assert!(json["totals"].get("consumer").is_none());
    }
}
