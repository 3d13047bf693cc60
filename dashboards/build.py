#!/usr/bin/env python3
"""Writes host.json and fleet.json, the Grafana dashboards: dashboards/build.py [DIRECTORY]

The panels are a table here; the JSON is what Grafana is provisioned with. tests/deploy/dashboards.rs holds the JSON against
dashboard-linter's rules and against this script.
"""

import json
import pathlib
import sys

HERE = 'job=~"$job",instance=~"$instance"'
TREE = HERE + ',tree=~"$tree"'
LOST = 'verdict=~"lost_.+"'
CORRUPT = 'verdict="corrupt"'
DECIDED = 'verdict!="undecided"'
WIDE, HALF, THIRD = 24, 12, 8

# The colours of the report's page (LAYERS in src/report/page/html.rs): what is well is green, what kqueue got wrong is
# warm, what cannot be judged is grey. The first colour of a palette, green, must not stand for trouble.
AGREED, OVERWRITTEN, CORRUPT_COLOUR, LOST_COLOUR, GREY = "#3fa15c", "#e38b1b", "#8d62d4", "#d64545", "#939ca6"
BLUE, PINK, TROUBLE = "#3d7dd8", "#d85aa6", "#c9a227"
VERDICTS = {
    "agreed": AGREED,
    "overwritten": OVERWRITTEN,
    "corrupt": CORRUPT_COLOUR,
    "lost_reported": "#a83232",
    "lost_silent": LOST_COLOUR,
    "lost_inherited": "#e89090",
    "kqueue_only": "#6c757f",
    "undecided": GREY,
}
FACTS = {"births": BLUE, "deaths": PINK}
DAMAGE = {
    "wrong_parent": OVERWRITTEN,
    "adopted_by_nobody": LOST_COLOUR,
    "cut_off": CORRUPT_COLOUR,
    "unknown": BLUE,
    "ghost": PINK,
    "wrong_status": GREY,
}
NOTES = {"p99 child": BLUE, "p50 child": "#8ab4ec", "p99 exit": PINK, "p50 exit": "#e9a3cd"}
PROCESSES = {"tracked": AGREED, "lost": LOST_COLOUR, "ghosts": "#e89090"}


# Where the exporter of the one instance that is chosen above is found: see URL.
EXPORTER = "${url:raw}"


def page(title, path="/"):
    """A link from a series to a page of the chosen exporter."""
    return [{"title": title, "url": EXPORTER + path, "targetBlank": True}]


INCIDENTS = page("Incidents: ${__field.labels.verdict}", "/incidents?verdict=${__field.labels.verdict}")
LOSSES = page("Losses", "/incidents?verdict=lost")
TREE_LOSSES = page("Losses of ${__field.labels.tree}", "/incidents?verdict=lost&tree=${__field.labels.tree:percentencode}")
STATUS = page("Status page")
# From a series of the fleet to the dashboard of its host.
DRILL_DOWN = [{
    "title": "${__field.labels.instance}", "targetBlank": True,
    "url": "/d/kqproc-host?var-instance=${__field.labels.instance:percentencode}&${__url_time_range}",
}]


def rate(metric, labels=HERE):
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def by(labels, expr, function="sum"):
    return f"{function} by ({labels}) ({expr})"


def quantile(q, metric, labels=HERE, keep=""):
    le = f"le, {keep}" if keep else "le"
    return f"histogram_quantile({q}, {by(le, rate(metric + '_bucket', labels))})"


def by_release(expr, labels="osrelease"):
    """Sums a vector with the labels job, instance and host (and more) by the release of the kernel that it came from."""
    return by(
        labels,
        f"{expr} * on (job, instance, host) group_left (osrelease) "
        f"max by (job, instance, host, osrelease) (kqproc_kernel_info{{{HERE}}})",
    )


def facts(labels, keep="instance"):
    """Births and deaths together."""
    births, deaths = (by(keep, rate(f"kqproc_{fact}_total", labels)) for fact in ("births", "deaths"))
    return f"{births} + {deaths}"


class Panel:
    """`colours` are by the name of the series, `shades` is the one colour of which each series has a shade."""

    def __init__(self, kind, width, title, unit, description, *targets, height=8, options=None, colours=None, shades=None,
                 **defaults):
        self.kind, self.width, self.height, self.title, self.description = kind, width, height, title, description
        self.targets, self.options, self.colours = targets, options or {}, colours or {}
        colour = {"mode": "shades", "fixedColor": shades} if shades else {"mode": "palette-classic"}
        self.defaults = {"unit": unit, "color": colour, **defaults}

    def json(self, number, x, y):
        instant = self.kind == "bargauge"
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": {"type": "prometheus", "uid": "$datasource"},
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "fieldConfig": {
                "defaults": self.defaults,
                "overrides": [
                    {
                        "matcher": {"id": "byName", "options": name},
                        "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
                    }
                    for name, colour in self.colours.items()
                ],
            },
            "options": {**OPTIONS[self.kind], **self.options},
            "targets": [
                {
                    "refId": chr(ord("A") + i),
                    "datasource": {"type": "prometheus", "uid": "$datasource"},
                    "expr": expr,
                    "legendFormat": legend,
                    "instant": instant,
                    "range": not instant,
                }
                for i, (legend, expr) in enumerate(self.targets)
            ],
        }


OPTIONS = {
    "timeseries": {
        "legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "colorMode": "background",
        "graphMode": "none",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "auto",
    },
    "bargauge": {
        "displayMode": "basic",
        "orientation": "horizontal",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    },
}


def steps(*pairs):
    """Colours by value: the first from minus infinity."""
    return {"mode": "absolute", "steps": [{"color": c, "value": v} for v, c in pairs]}


GREEN_TO_RED = {"color": {"mode": "thresholds"}, "thresholds": steps((None, "green"), (1, "red"))}
UP_OR_DOWN = {
    "color": {"mode": "thresholds"},
    "thresholds": steps((None, "red"), (1, "green")),
    "mappings": [
        {"type": "value", "options": {"0": {"text": "down", "index": 0}, "1": {"text": "up", "index": 1}}}
    ],
}
STACKED = {"custom": {"fillOpacity": 60, "lineWidth": 1, "stacking": {"mode": "normal", "group": "A"}}}
LINE = {"custom": {"fillOpacity": 8, "lineWidth": 2}}
NAME_ONLY = {"textMode": "name", "colorMode": "none"}


def series(width, title, unit, description, *targets, **more):
    return Panel("timeseries", width, title, unit, description, *targets, **{**LINE, **more})


HOST = [
    ("At a glance", [
        Panel("stat", THIRD, "Kernel", "none",
              "The release of the kernel under test, how it delivers NOTE_CHILD and NOTE_EXIT as its kevents show it, "
              "and whether the numbers are live, from a recording or from a simulated kernel.",
              ("{{osrelease}} {{regime}} ({{origin}})",
               by("osrelease, regime, origin", f"kqproc_kernel_info{{{HERE}}}", "max")),
              height=4, options=NAME_ONLY),
        Panel("stat", THIRD, "Witnesses", "bool_on_off",
              "Whether each source is attached and has delivered something. Nothing can be judged while kqueue or dtrace is down.",
              ("{{source}}", by("source", f"kqproc_source_up{{{HERE}}}", "min")), height=4, **UP_OR_DOWN),
        Panel("stat", THIRD, "Lost and ghost processes now", "short",
              "Lost: alive and unknown to kqueue. Ghosts: dead, and kqueue will believe them alive for ever.",
              ("lost", f"sum(kqproc_lost_processes{{{TREE}}})"),
              ("ghosts", f"sum(kqproc_ghost_processes{{{TREE}}})"), height=4, links=LOSSES, **GREEN_TO_RED),
    ]),
    ("What kqueue got wrong", [
        series(HALF, "Births not agreed, by verdict", "ops",
               "Births that kqueue lost, reported wrongly, or that are undecided because a witness was blind.",
               ("{{verdict}}", by("verdict", rate("kqproc_births_total", TREE + ',verdict!="agreed"'))),
               colours=VERDICTS, links=INCIDENTS, **STACKED),
        series(HALF, "Deaths not agreed, by verdict", "ops",
               "Deaths that kqueue lost, reported wrongly, or that are undecided because a witness was blind.",
               ("{{verdict}}", by("verdict", rate("kqproc_deaths_total", TREE + ',verdict!="agreed"'))),
               colours=VERDICTS, links=INCIDENTS, **STACKED),
        series(HALF, "Share of facts lost, by tree", "percentunit",
               "Births and deaths that kqueue never reported, of those that could be decided.",
               ("{{tree}}",
                f"({facts(TREE + ',' + LOST, keep='tree')}) / "
                f"(({facts(TREE + ',' + DECIDED, keep='tree')}) > 0)"),
               shades=LOST_COLOUR, links=TREE_LOSSES, min=0),
        series(HALF, "Collisions, by the value that won", "ops",
               "Kevents that carried NOTE_CHILD and NOTE_EXIT at once (PR 180385): one of the two values is gone.",
               ("{{winner}}", by("winner", rate("kqproc_collisions_total", TREE))), shades=OVERWRITTEN),
        series(HALF, "Duplicate NOTE_CHILD", "ops",
               "NOTE_CHILD for a process that had been announced already. From FreeBSD 12.3 on the copies double with "
               "each generation that forks before the reader drains.",
               ("{{tree}}", by("tree", rate("kqproc_duplicate_child_notes_total", TREE))), shades=TROUBLE),
        series(HALF, "NOTE_TRACKERR and its causes", "ops",
               "Reports of the kernel that it could not track a child: each hides one or more. The errno and the in-flux "
               "skips come from the optional cause probes.",
               ("reports, {{tree}}", by("tree", rate("kqproc_trackerr_reports_total", TREE))),
               ("errno {{errno}}", by("errno", rate("kqproc_trackerr_causes_total"))),
               ("in-flux skips", f"sum({rate('kqproc_influx_skips_total')})"), shades=LOST_COLOUR),
        series(HALF, "What a naive tracker would believe wrong", "short",
               "Entries of a process table that is built from kevents alone: wrong parents, parents that do not exist, "
               "subtrees cut off, processes unknown, ghosts, wrong exit statuses.",
               ("{{kind}}", by("kind", f"kqproc_tree_damage{{{TREE}}}")), colours=DAMAGE, min=0),
        series(HALF, "What another strategy would have saved", "ops",
               "Facts that a tracker gets wrong with one kqueue alone and would have got right with this strategy.",
               ("{{strategy}}", by("strategy", rate("kqproc_strategy_recovered_total", TREE))), shades=AGREED),
        series(HALF, "Events out of order, by kind", "ops",
               "Orders of events that the kernel should not give.",
               ("{{kind}}", by("kind", rate("kqproc_order_violations_total", TREE))), shades=TROUBLE),
        series(HALF, "Processes, as kqueue sees them", "short",
               "Tracked: believed alive. Lost: alive and unknown. Ghosts: dead and believed alive.",
               ("tracked", f"sum(kqproc_tracked_processes{{{TREE}}})"),
               ("lost", f"sum(kqproc_lost_processes{{{TREE}}})"),
               ("ghosts", f"sum(kqproc_ghost_processes{{{TREE}}})"), colours=PROCESSES, links=LOSSES, min=0),
    ]),
    ("Consumers: your own supervisors", [
        series(HALF, "For how long a supervisor has not taken what waits for it", "s",
               "The oldest birth or death that the supervisor has asked for and not been given. It grows while the supervisor "
               "does not call kevent(2), or sleeps in it and kqueue has lost the event.",
               ("{{tree}}", by("tree", f"kqproc_consumer_lag_seconds{{{TREE}}}", "max")), links=STATUS, min=0),
        series(HALF, "Births and deaths that wait for a supervisor", "short",
               "What the supervisor has asked for and not been given.",
               ("{{tree}}", by("tree", f"kqproc_consumer_pending_facts{{{TREE}}}")), links=STATUS, min=0),
        series(HALF, "What was lost to a supervisor", "ops",
               "Births and deaths that kqueue never gave to the supervisor: each is a process that it does not know, or "
               "believes alive.",
               ("{{tree}}", f"({facts(TREE + ',' + LOST, keep='tree')}) and on (tree) kqproc_tree_info{{{TREE},mode=\"consumer\"}}"),
               shades=LOST_COLOUR, links=TREE_LOSSES),
        series(THIRD, "Registrations refused to a supervisor", "ops",
               "Changes of knotes that kevent(2) refused, by errno. ESRCH: the process had ended before it was registered.",
               ("{{tree}} {{errno}}", by("tree, errno", rate("kqproc_consumer_registrations_refused_total", TREE))),
               shades=TROUBLE),
        Panel("stat", 4, "Runs", "bool_on_off", "Whether the supervisor has a process.",
              ("{{tree}}", by("tree", f"kqproc_consumer_up{{{TREE}}}", "min")), links=STATUS, **UP_OR_DOWN),
    ]),
    ("Can the witnesses be trusted", [
        series(HALF, "Share of time blind, by witness and reason", "percentunit",
               "Seconds per second in which a witness may have missed something: facts of that time are undecided.",
               ("{{witness}}: {{reason}}", by("witness, reason", rate("kqproc_blind_seconds_total"))),
               shades=GREY, min=0, **STACKED),
        series(HALF, "DTrace drops and restarts", "ops",
               "What dtrace reported as dropped, by kind, and how often it was started again.",
               ("{{kind}}", by("kind", rate("kqproc_dtrace_drops_total"))),
               ("restarts", f"sum({rate('kqproc_dtrace_restarts_total')})"), shades=TROUBLE),
        series(HALF, "Forks that DTrace did not show", "short",
               "Forks that sysctl vm.stats.vm counted beyond DTrace's creates. Noise around a level is fine, growth is not.",
               ("{{instance}}", f"kqproc_fork_reconcile_delta{{{HERE}}}"), shades=TROUBLE, links=STATUS),
        series(HALF, "Lines not decoded, entries evicted", "ops",
               "Lines of dtrace's output that are not what the D program prints, by stream and reason, and entries that a "
               "full table dropped.",
               ("{{source}}: {{reason}}", by("source, reason", rate("kqproc_decode_errors_total"))),
               ("evicted from {{table}}", by("table", rate("kqproc_evictions_total"))), shades=TROUBLE),
    ]),
    ("Load and latency", [
        series(HALF, "Births and deaths", "ops",
               "How much the tracked trees fork and exit.",
               ("births", f"sum({rate('kqproc_births_total', TREE)})"),
               ("deaths", f"sum({rate('kqproc_deaths_total', TREE)})"), colours=FACTS),
        series(HALF, "Kevents by note, DTrace records by kind", "ops",
               "What both witnesses reported. A kevent with two notes counts under both.",
               ("kqueue {{note}}", by("note", rate("kqproc_kevents_total"))),
               ("dtrace {{kind}}", by("kind", rate("kqproc_dtrace_records_total")))),
        series(HALF, "Delivery latency", "s",
               "From DTrace's probe to the return of the kevent(2) call that delivered the note.",
               ("p50 {{note}}", quantile(0.5, "kqproc_delivery_latency_seconds", TREE, "note")),
               ("p99 {{note}}", quantile(0.99, "kqproc_delivery_latency_seconds", TREE, "note")),
               colours=NOTES, min=0),
        series(HALF, "Verdict delay", "s",
               "From a fact to its verdict, on DTrace's clock: settle time and one switch of DTrace's buffers at least.",
               ("p50", quantile(0.5, "kqproc_verdict_delay_seconds")),
               ("p99", quantile(0.99, "kqproc_verdict_delay_seconds")), min=0),
        series(HALF, "Kevents per call", "short",
               "How many events one kevent(2) call of the reader returned. Large batches mean that the reader is late.",
               ("p50", quantile(0.5, "kqproc_kevent_batch_size")),
               ("p99", quantile(0.99, "kqproc_kevent_batch_size")), min=0),
        series(HALF, "Tables, how full", "percentunit",
               "Processes that live or are not settled, records and events that wait. A full table drops its oldest entry.",
               ("{{table}}", f"kqproc_table_entries{{{HERE}}} / kqproc_table_capacity{{{HERE}}}"), min=0),
    ]),
    ("The exporter", [
        series(THIRD, "What watching costs", "percentunit",
               "CPU time per second of the exporter, of its keeper, which runs dtrace as root, and of dtrace. What the probes "
               "cost other processes is not in it: kqproc_exporter check --cost measures that.",
               ("{{process}}", by("process", rate("kqproc_self_cpu_seconds_total"))), min=0, **STACKED),
        series(THIRD, "Memory", "bytes", "Resident memory of the exporter.",
               ("{{instance}}", f"process_resident_memory_bytes{{{HERE}}}"), min=0),
        series(THIRD, "File descriptors", "percentunit", "Open file descriptors of the exporter, of those that it may open.",
               ("{{instance}}", f"process_open_fds{{{HERE}}} / process_max_fds{{{HERE}}}"), min=0),
        Panel("stat", THIRD, "Scraped", "bool_on_off", "Whether Prometheus reaches the exporter.",
              ("{{instance}}", by("instance", f"up{{{HERE}}}", "min")), height=4, links=STATUS, **UP_OR_DOWN),
        Panel("stat", THIRD, "Configuration", "bool_yes_no", "Whether the last reload of the configuration succeeded.",
              ("{{instance}}", by("instance", f"kqproc_config_last_reload_successful{{{HERE}}}", "min")), height=4,
              color={"mode": "thresholds"}, thresholds=steps((None, "red"), (1, "green"))),
        Panel("stat", THIRD, "Version", "none", "The exporter's version and platform.",
              ("{{version}} {{os}}/{{arch}}", by("version, os, arch", f"kqproc_build_info{{{HERE}}}", "max")),
              height=4, options=NAME_ONLY),
    ]),
]


def per_release(metric, labels=HERE):
    return by_release(by("job, instance, host", rate(metric, labels)))


def per_release_and(label, metric):
    return by_release(by(f"job, instance, host, {label}", rate(metric)), f"osrelease, {label}")


RELEASE_FACTS = by_release(f"({facts(HERE, keep='job, instance, host')})")
RELEASE_DECIDED = by_release(f"({facts(HERE + ',' + DECIDED, keep='job, instance, host')})")
RELEASE_LOST = by_release(f"({facts(HERE + ',' + LOST, keep='job, instance, host')})")

FLEET = [
    ("At a glance", [
        Panel("bargauge", THIRD, "Hosts by kernel", "short",
              "How many exporters run on which release, and how its kernel delivers NOTE_CHILD and NOTE_EXIT.",
              ("{{osrelease}} {{regime}}",
               by("osrelease, regime", by("instance, host, osrelease, regime", f"kqproc_kernel_info{{{HERE}}}", "max"), "count")),
              height=6, min=0),
        Panel("bargauge", THIRD, "Lost processes now, worst hosts", "short",
              "Processes that are alive and that kqueue does not know.",
              ("{{instance}}", f"topk(10, {by('instance', f'kqproc_lost_processes{{{HERE}}}')})"),
              height=6, min=0, links=DRILL_DOWN, **GREEN_TO_RED),
        Panel("bargauge", THIRD, "Exporters by version", "short", "How many exporters run which version.",
              ("{{version}}", by("version", by("instance, version", f"kqproc_build_info{{{HERE}}}", "max"), "count")),
              height=6, min=0),
    ]),
    ("Which releases lose what", [
        series(HALF, "Share of facts lost, by release", "percentunit",
               "Births and deaths that kqueue never reported, of those that could be decided.",
               ("{{osrelease}}", f"{RELEASE_LOST} / ({RELEASE_DECIDED} > 0)"), shades=LOST_COLOUR, min=0),
        series(HALF, "Collisions, by release", "ops",
               "Kevents that carried NOTE_CHILD and NOTE_EXIT at once. Only 7.0 to 10.3 should show any.",
               ("{{osrelease}} {{winner}}", per_release_and("winner", "kqproc_collisions_total")), shades=OVERWRITTEN),
        series(HALF, "Duplicate NOTE_CHILD per birth, by release", "short",
               "Copies of NOTE_CHILD for each process born.",
               ("{{osrelease}}",
                f"{per_release('kqproc_duplicate_child_notes_total')} / ({per_release('kqproc_births_total')} > 0)"),
               shades=TROUBLE, min=0),
        series(HALF, "NOTE_TRACKERR reports, by release", "ops",
               "Reports that a child could not be tracked: each hides one or more.",
               ("{{osrelease}}", per_release("kqproc_trackerr_reports_total")), shades=LOST_COLOUR),
        series(HALF, "Corrupt values, by release", "ops",
               "Notes that came alone with a value that is neither the parent's pid nor the wait status.",
               ("{{osrelease}}",
                by_release(f"({facts(HERE + ',' + CORRUPT, keep='job, instance, host')})")), shades=CORRUPT_COLOUR),
        series(HALF, "Births and deaths, by release", "ops",
               "How much the tracked trees fork and exit.", ("{{osrelease}}", RELEASE_FACTS), shades=BLUE),
    ]),
    ("Which hosts need a look", [
        series(HALF, "Facts lost, worst hosts", "ops", "Births and deaths that kqueue never reported.",
               ("{{instance}}", f"topk(10, {facts(HERE + ',' + LOST)})"), shades=LOST_COLOUR, links=DRILL_DOWN),
        series(HALF, "Share of time blind, worst hosts", "percentunit",
               "Seconds per second in which a witness may have missed something. A host that is blind reports no losses.",
               ("{{instance}} {{witness}}",
                f"topk(10, {by('instance, witness', rate('kqproc_blind_seconds_total'))})"),
               shades=GREY, links=DRILL_DOWN, min=0),
        series(HALF, "DTrace drops, worst hosts", "ops", "What dtrace reported as dropped.",
               ("{{instance}}", f"topk(10, {by('instance', rate('kqproc_dtrace_drops_total'))})"),
               shades=TROUBLE, links=DRILL_DOWN),
        series(HALF, "Forks that DTrace did not show, worst hosts", "short",
               "Forks that sysctl vm.stats.vm counted beyond DTrace's creates.",
               ("{{instance}}", f"topk(10, kqproc_fork_reconcile_delta{{{HERE}}})"),
               shades=TROUBLE, links=DRILL_DOWN),
        series(HALF, "Delivery latency p99, worst hosts", "s",
               "From DTrace's probe to the return of the kevent(2) call that delivered the note.",
               ("{{instance}}",
                f"topk(10, {quantile(0.99, 'kqproc_delivery_latency_seconds', HERE, 'instance')})"),
               links=DRILL_DOWN, min=0),
        series(HALF, "Witnesses and exporters down", "short",
               "Sources that are not attached, and exporters that Prometheus cannot scrape.",
               ("{{source}} down", by("source", f"1 - kqproc_source_up{{{HERE}}}")),
               ("exporters down", f"sum(1 - up{{{HERE}}})"), shades=LOST_COLOUR, min=0),
    ]),
]


def variable(name, query, **more):
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "$datasource"},
        "definition": query,
        "query": {"query": query, "refId": name},
        "allValue": ".+",
        "includeAll": True,
        "multi": True,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "refresh": 2,
        "sort": 1,
        **more,
    }


DATASOURCE = {
    "name": "datasource",
    "label": "Data Source",
    "type": "datasource",
    "query": "prometheus",
    "current": {},
    "refresh": 1,
}
VARIABLES = [
    DATASOURCE,
    variable("job", "label_values(kqproc_build_info, job)"),
    variable("instance", 'label_values(kqproc_build_info{job=~"$job"}, instance)'),
]
# An exporter that does not know its address is found where Prometheus scrapes it.
URL = variable(
    "url",
    f'query_result(kqproc_external_url_info{{{HERE},url!=""}} or on (job, instance)'
    f' label_replace(kqproc_build_info{{{HERE}}}, "url", "http://$1", "instance", "(.+)"))',
    hide=2, regex='/[{,]url="([^"]+)"/', multi=False, includeAll=False,
)
TREES = variable("tree", f"label_values(kqproc_births_total{{{HERE}}}, tree)")


def layout(rows):
    """Rows of panels, from left to right and from top to bottom."""
    panels, y = [], 0
    for title, row in rows:
        panels.append({
            "id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "panels": [],
            "gridPos": {"h": 1, "w": WIDE, "x": 0, "y": y},
        })
        x, y, height = 0, y + 1, 0
        for panel in row:
            if x + panel.width > WIDE:
                x, y, height = 0, y + height, 0
            panels.append(panel.json(len(panels) + 1, x, y))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return panels


STATUS_PAGE = {
    "type": "link", "title": "Status page", "icon": "external link", "url": EXPORTER + "/", "targetBlank": True,
    "tooltip": "What the exporter itself shows, with its latest incidents. Choose one instance first.",
}


def dashboard(uid, title, description, variables, rows, links=()):
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["kqproc", "freebsd", "kqueue", "dtrace"],
        "editable": False,
        "graphTooltip": 1,
        "links": [{
            "type": "dashboards", "title": "kqproc", "tags": ["kqproc"], "asDropdown": False,
            "includeVars": True, "keepTime": True, "targetBlank": False,
        }, *links],
        "panels": layout(rows),
        "refresh": "30s",
        "schemaVersion": 39,
        "templating": {"list": variables},
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
    }


def main():
    directory = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    boards = {
        "host.json": dashboard(
            "kqproc-host", "kqproc / Host",
            "Does kqueue lose the processes of this host? Two witnesses, event by event.", VARIABLES + [TREES, URL], HOST,
            [STATUS_PAGE]),
        "fleet.json": dashboard(
            "kqproc-fleet", "kqproc / Fleet", "Which kernel releases lose what, and which hosts need a look.",
            VARIABLES, FLEET),
    }
    for name, board in boards.items():
        (directory / name).write_text(json.dumps(board, indent=2) + "\n")


if __name__ == "__main__":
    main()
