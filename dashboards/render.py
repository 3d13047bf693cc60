#!/usr/bin/env python3
"""Draws the dashboards as SVG from what a Prometheus answers: dashboards/render.py URL MINUTES INSTANCE DIRECTORY

Not Grafana's own picture, but its panels, queries and layout: what one gets, without a browser. The host's dashboard
shows INSTANCE, the fleet's all there are.
"""

import html
import json
import math
import pathlib
import sys
import time
import urllib.parse
import urllib.request

COLUMN, ROW, GAP = 50, 26, 8
WIDTH = 24 * COLUMN
POINTS = 120
PAGE, PANEL, EDGE, TEXT, DIM = "#111217", "#181b1f", "#2c2f36", "#d5d6de", "#9194a0"
PALETTE = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff9830", "#f2495c", "#5794f2", "#b877d9", "#37872d", "#fade2a", "#c4162a"]
COLOURS = {"green": "#37872d", "red": "#c4162a"}


class Prometheus:
    def __init__(self, url, minutes, instance):
        self.url, self.instance, self.end, self.span = url, instance, time.time(), 60 * minutes
        self.step = max(1, self.span // POINTS)

    def ask(self, path, **parameters):
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}") as answer:
            return json.load(answer)["data"]["result"]

    def fill_in(self, query):
        for variable, value in (("$job", ".+"), ("$tree", ".+"), ("$instance", self.instance)):
            query = query.replace(variable, value)
        return query.replace("$__rate_interval", f"{max(4 * self.step, 10)}s")

    def range(self, query):
        answer = self.ask("query_range", query=self.fill_in(query), start=self.end - self.span, end=self.end, step=self.step)
        return [(s["metric"], [(t, float(v)) for t, v in s["values"]]) for s in answer]

    def now(self, query):
        return [(s["metric"], float(s["value"][1])) for s in self.ask("query", query=self.fill_in(query), time=self.end)]


def legend(template, labels):
    for name, value in labels.items():
        template = template.replace("{{%s}}" % name, value)
    return template


def text(x, y, words, size=12, colour=TEXT, anchor="start", weight="normal"):
    return (f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{html.escape(words)}</text>')


def rectangle(x, y, w, h, fill, edge="none"):
    return f'<rect x="{x:.0f}" y="{y:.0f}" width="{w:.0f}" height="{h:.0f}" rx="2" fill="{fill}" stroke="{edge}"/>'


def scaled(value, steps, base):
    for suffix in steps:
        if abs(value) < base or suffix == steps[-1]:
            return f"{value:.3g}{suffix}" if abs(value) < 1000 else f"{value:.0f}{suffix}"
        value /= base


def shown(value, unit):
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s" and value < 1:
        return f"{1000 * value:.3g} ms" if value >= 0.001 or value == 0 else f"{1e6 * value:.3g} µs"
    if unit == "s":
        return f"{value:.3g} s"
    if unit == "bytes":
        return scaled(value, [" B", " KiB", " MiB", " GiB"], 1024)
    if unit == "ops":
        return scaled(value, ["", " K", " Mil"], 1000) + "/s"
    if unit.startswith("bool_on"):
        return "up" if value else "down"
    if unit.startswith("bool_yes"):
        return "Yes" if value else "No"
    return scaled(value, ["", " K", " Mil"], 1000)


def nice_top(value):
    """The next of 1, 2, 5 times a power of ten."""
    if value <= 0:
        return 1
    power = 10 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= value * 0.999)


def threshold_colour(defaults, value):
    colour = "green"
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    return COLOURS[colour]


def mixed(colour, other, share):
    """`share` of `other` in `colour`."""
    channels = zip(bytes.fromhex(colour[1:]), bytes.fromhex(other[1:]))
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in channels)


def series_colours(panel, names):
    """A colour for each name: its own, or a shade of the panel's, or the next of the palette."""
    field = panel["fieldConfig"]
    own = {o["matcher"]["options"]: o["properties"][0]["value"]["fixedColor"] for o in field["overrides"]}
    shade = field["defaults"]["color"].get("fixedColor")
    shades = PALETTE
    if shade:
        shades = [shade] + [mixed(shade, other, share) for share in (0.3, 0.55) for other in ("#ffffff", "#000000")]
    return [own.get(name, shades[i % len(shades)]) for i, name in enumerate(names)]


def draw_series(panel, prometheus, x, y, w, h):
    defaults = panel["fieldConfig"]["defaults"]
    stacked = "stacking" in defaults.get("custom", {})
    lines = []
    for target in panel["targets"]:
        for labels, values in prometheus.range(target["expr"]):
            values = [(t, v) for t, v in values if math.isfinite(v)]
            if values:
                lines.append((legend(target["legendFormat"], labels), values))
    # What is not 0 is drawn and named first.
    lines.sort(key=lambda line: -max(abs(v) for _, v in line[1]))
    base, drawn, floors = {}, [], []
    for name, values in lines:
        floors.append([(t, base.get(t, 0)) for t, _ in values])
        if stacked:
            values = [(t, v + base.get(t, 0)) for t, v in values]
            base.update(values)
        drawn.append((name, values))
    peak = max((v for _, values in drawn for _, v in values), default=0)
    low = min((v for _, values in drawn for _, v in values), default=0)
    top, bottom = nice_top(peak), -nice_top(-low) if low < 0 else 0
    left, right, above, below = x + 62, x + w - 12, y + 6, y + h - 46
    at_x = lambda t: left + (t - prometheus.end + prometheus.span) / prometheus.span * (right - left)
    at_y = lambda v: below - (v - bottom) / (top - bottom) * (below - above)
    out = []
    for i in range(5):
        value = bottom + (top - bottom) * i / 4
        out.append(f'<path d="M{left} {at_y(value):.0f}H{right}" stroke="{EDGE}"/>')
        out.append(text(left - 6, at_y(value) + 4, shown(value, defaults["unit"]), 10, DIM, "end"))
    for i in range(5):
        t = prometheus.end - prometheus.span * (1 - i / 4)
        anchor = "end" if i == 4 else "middle"
        out.append(text(at_x(t), below + 14, time.strftime("%H:%M:%S", time.gmtime(t)), 10, DIM, anchor))
    colours = series_colours(panel, [name for name, _ in drawn])
    along = lambda values: "L".join(f"{at_x(t):.0f} {at_y(v):.1f}" for t, v in values)
    for colour, floor, (_, values) in reversed(list(zip(colours, floors, drawn))):
        path = along(values)
        # What adds nothing would only paint its line over the one below it.
        if stacked and floor == values and floor is not floors[0]:
            continue
        if stacked:
            area = f"M{path}L{along(reversed(floor))}Z"
            out.append(f'<path d="{area}" fill="{colour}" fill-opacity="0.6"/>')
        out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    at = left
    for i, (name, values) in enumerate(drawn):
        words = name if len(name) < 34 else name[:33] + "…"
        if at + 16 + 6.6 * len(words) > right - (50 if i < len(drawn) - 1 else 0):
            out.append(text(at, y + h - 10, f"+ {len(drawn) - i} more", 11, DIM))
            break
        out.append(f'<rect x="{at:.0f}" y="{y + h - 15:.0f}" width="12" height="3" fill="{colours[i]}"/>')
        out.append(text(at + 16, y + h - 10, words, 11, DIM))
        at += 16 + 6.6 * len(words) + 14
    return out


def draw_stat(panel, prometheus, x, y, w, h):
    defaults, options = panel["fieldConfig"]["defaults"], panel["options"]
    values = [
        (legend(target["legendFormat"], labels), value)
        for target in panel["targets"] for labels, value in prometheus.now(target["expr"])
    ]
    if not values:
        return [text(x + w / 2, y + h / 2, "No data", 14, DIM, "middle")]
    cell, out = w / len(values), []
    for i, (name, value) in enumerate(values):
        middle = x + cell * (i + 0.5)
        if options["textMode"] == "name":
            out.append(text(middle, y + h / 2 + 5, name, min(17, 1.7 * cell / len(name)), TEXT, "middle", "bold"))
            continue
        out.append(rectangle(x + cell * i + 2, y + 2, cell - 4, h - 6, threshold_colour(defaults, value)))
        out.append(text(middle, y + 20, name, min(12, 1.7 * cell / len(name)), TEXT, "middle"))
        out.append(text(middle, y + h / 2 + 18, shown(value, defaults["unit"]), 24, "#ffffff", "middle", "bold"))
    return out


def draw_bars(panel, prometheus, x, y, w, h):
    defaults = panel["fieldConfig"]["defaults"]
    values = [
        (legend(target["legendFormat"], labels), value)
        for target in panel["targets"] for labels, value in prometheus.now(target["expr"])
    ]
    top, out = max([v for _, v in values] + [1]), []
    step = min(26, (h - 10) / max(len(values), 1))
    for i, (name, value) in enumerate(values):
        at = y + 6 + i * step
        colour = threshold_colour(defaults, value) if "thresholds" in defaults else PALETTE[i % len(PALETTE)]
        out.append(text(x + 8, at + step / 2 + 4, name, 11, TEXT))
        out.append(rectangle(x + w * 0.55, at + 2, w * 0.36, step - 6, EDGE))
        out.append(rectangle(x + w * 0.55, at + 2, w * 0.36 * value / top, step - 6, colour))
        out.append(text(x + w - 8, at + step / 2 + 4, shown(value, defaults["unit"]), 11, TEXT, "end", "bold"))
    return out


DRAW = {"timeseries": draw_series, "stat": draw_stat, "bargauge": draw_bars}


def draw(board, prometheus):
    out, bottom = [text(14, 30, board["title"], 20, TEXT, weight="bold")], 0
    for panel in board["panels"]:
        at = panel["gridPos"]
        x, y, w, h = at["x"] * COLUMN, 44 + at["y"] * ROW, at["w"] * COLUMN, at["h"] * ROW
        bottom = max(bottom, y + h)
        if panel["type"] == "row":
            out.append(text(14, y + 19, "▾ " + panel["title"], 14, TEXT, weight="bold"))
            continue
        out.append(rectangle(x + GAP / 2, y + GAP / 2, w - GAP, h - GAP, PANEL, EDGE))
        out.append(text(x + 14, y + 22, panel["title"], 13, TEXT, weight="bold"))
        out += DRAW[panel["type"]](panel, prometheus, x + GAP, y + 30, w - 2 * GAP, h - 34)
    height = bottom + GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="Inter, Helvetica, Arial, sans-serif">\n{rectangle(0, 0, WIDTH, height, PAGE)}\n'
        + "\n".join(out) + "\n</svg>\n"
    )


def main():
    url, minutes, instance, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3], pathlib.Path(sys.argv[4])
    for name, instances in (("host", instance), ("fleet", ".+")):
        board = json.loads((pathlib.Path(__file__).parent / f"{name}.json").read_text())
        (directory / f"dashboard-{name}.svg").write_text(draw(board, Prometheus(url, minutes, instances)))


if __name__ == "__main__":
    main()
