"""
Tables (markdown) and figures (SVG) from the numbers in a results file (runs.py says what is in it).

Seeds are added up: three seeds of 70 trials each make a line of 210. A cell is a rate of success in % with
its 95 % interval, "90 [85, 93]".
"""
import math
from collections import Counter

import numpy as np

from eval import wilson
from study.suites import EMERGENT

RECIPES = {"cofine": "co-fine-tuning", "fine": "fine-tuning", "scratch": "from scratch",
           "web first": "the same samples, all of the web first",
           "fine, slow": "fine-tuning after all of the web, a third of the rates",
           "palm-e": "co-fine-tuning, PaLM-E-like",
           "where": "co-fine-tuning, the web is told no instruction",
           # "no place": of earlier presets, which said places before an action
           "no place": "co-fine-tuning, no places before the action",
           "no place, goals": "no places, the web asked the robot's question",
           "no place, ways": "no places, the web asked for ways",
           "no place, fine": "no places, fine-tuning from that web model",
           "words": "co-fine-tuning, the web in words only"}
# "place": of earlier presets
LINKS = {"where": "where is it?", "way": "which way from the gripper?",
         "place": "where the action says it goes", "action": "dx, dy of the action",
         "expert": "the expert goes that way"}
THREE = ("cofine", "fine", "scratch")               # the paper's table 6; the small size has no others
MISSING = "not yet run"


# ----------------------------------------------------------------------------------------------------------
# rows: what eval.measure returns, one for each line, driver and seed

def runs_of(results, recipe):
    """all seeds of "large/cofine" """
    return [run for name, run in results["runs"].items() if name.rpartition("/")[0] == recipe]


def rows_of(run, driver="policy"):
    return [row for row in run.get("rows", ()) if row["driver"] == driver]


def pooled(results, recipe, driver="policy"):
    """the rows of a recipe ("large/cofine"), the trials of all its seeds added up"""
    return pool([row for run in runs_of(results, recipe) for row in rows_of(run, driver)])


def controls(results, name, driver):
    """the same of what needs no recipe: "drivers" (random, expert), or "untrained" on wishes (policy)"""
    rows = [row for of_seed in results["controls"].values() for row in of_seed.get(name, ())]
    return pool([row for row in rows if row["driver"] == driver])


def pool(rows):
    """one row a line. Example: 50 successes of 70 and 60 of 70 become 110 of 140"""
    added = {}
    for row in rows:
        kept = added.setdefault(row["line"], {**row, "success": 0, "n": 0, "outcomes": {}, "counts": {}})
        for key in ("success", "n"):
            kept[key] += row[key]
        for key in ("outcomes", "counts"):
            for name, n in row[key].items():
                kept[key][name] = kept[key].get(name, 0) + n
    return [{**row, "interval": wilson(row["success"], row["n"])} for row in added.values()]


def of_line(rows, line):
    return next((row for row in rows if row["line"] == line), None)


def by_group(rows, table):
    """group -> its rows; "seen" is no part of an average"""
    found = {}
    for row in rows:
        if row["table"] == table and row["group"] != "seen" and row["n"]:
            found.setdefault(row["group"], []).append(row)
    return found


def mean_of_groups(groups):
    """as the paper averages: the mean of the lines of a group, then of the groups; nan of none"""
    means = [np.mean([row["success"] / row["n"] for row in rows]) for rows in groups.values()]
    return float(np.mean(means)) if means else math.nan


def average(rows, table):
    """
    The mean of a table's groups and its 95 % interval, or None. The interval adds up the binomial variance of
    every line, taken at (k + 2) / (n + 4), where it is never 0. It counts the trials of these models. Other
    seeds make other models, and that is not in it.
    """
    groups = by_group(rows, table)
    if not groups:
        return None
    variance = 0
    for lines in groups.values():
        for row in lines:
            p, weight = (row["success"] + 2) / (row["n"] + 4), 1 / (len(lines) * len(groups))
            variance += p * (1 - p) / (row["n"] + 4) * weight ** 2
    mean, half = mean_of_groups(groups), 1.96 * math.sqrt(variance)
    return mean, (max(0, mean - half), min(1, mean + half))


# ----------------------------------------------------------------------------------------------------------
# cells

def cell(mean, interval):
    """Example: cell(.9, (.85, .934)) -> "90 [85, 93]" """
    return f"{100 * mean:.0f} [{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]"


def rate(row):
    return cell(row["success"] / row["n"], row["interval"]) if row and row["n"] else "-"


def mean_cell(rows, table):
    found = average(rows, table)
    return cell(*found) if found else MISSING


def share(pairs):
    """[(right, asked), ...] -> % of all. Example: share([(3, 10), (4, 10)]) -> "35" """
    right, asked = np.sum(pairs, 0) if pairs else (0, 0)
    return f"{100 * right / asked:.0f}" if asked else "-"


def markdown(head, rows):
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def line_rows(columns, table):
    """columns: heading -> rows. One row for each line of a table: its name, then a cell for each column"""
    lines = dict.fromkeys(row["line"] for rows in columns.values() for row in rows if row["table"] == table)
    return [[line, *(rate(of_line(rows, line)) for rows in columns.values())] for line in lines]


# ----------------------------------------------------------------------------------------------------------
# tables, each a function: results -> markdown

def without_a_model(results):
    return {driver: controls(results, "drivers", driver) for driver in ("random", "expert")}


def main_columns(results):
    """heading -> rows: three recipes, the first of them under two other instructions, random and expert"""
    return {"co-fine": pooled(results, "large/cofine"), "fine": pooled(results, "large/fine"),
            "scratch": pooled(results, "large/scratch"),
            "blank": pooled(results, "large/cofine", "blank instruction"),
            "swapped": pooled(results, "large/cofine", "swapped instruction"),
            **without_a_model(results)}


def generalisation_table(results):
    columns = main_columns(results)
    means = [mean_cell(rows, "generalisation") for rows in columns.values()]
    return markdown(["", *columns], [*line_rows(columns, "generalisation"), ["**unseen, average**", *means]])


def emergent_table(results):
    columns = main_columns(results)
    rows = [[*row, web_share(results, "large/cofine", row[0])] for row in line_rows(columns, "emergent")]
    means = [mean_cell(found, "emergent") for found in columns.values()]
    rows.append(["**average of the three groups**", *means, ""])
    return markdown(["", *columns, "asked on the web"], rows)


def web_share(results, recipe, line, when="web"):
    """right answers to the questions behind an emergent line, in %"""
    return share([run[when][line] for run in runs_of(results, recipe) if line in run.get(when, ())])


def web_mean(results, recipe, when):
    """the mean of the emergent lines; when: "web before" (after the web stage) or "web" (in the end)"""
    lines = [line for group in EMERGENT.values() for line in group]
    shares = [web_share(results, recipe, line, when) for line in lines]
    values = [float(value) for value in shares if value != "-"]
    return f"{np.mean(values):.0f}" if values else "-"


def recipes_table(results):
    rows = []
    for size in ("large", "small"):
        for name in RECIPES if size == "large" else THREE:
            recipe = f"{size}/{name}"
            if not runs_of(results, recipe):
                continue
            found = pooled(results, recipe)
            seen = of_line(found, "seen")
            unseen = mean_cell(found, "generalisation") if seen or not found else "-"
            seeds = [mean_of_groups(by_group(rows_of(run), "emergent")) for run in runs_of(results, recipe)]
            # whose web stage a run began from: its own, or the one of another recipe
            start = runs_of(results, recipe)[0]["settings"].get("init_from", "")
            of_web = start.rsplit("/", 2)[0] if start.endswith("/web.pt") else recipe
            rows.append([f"{size}, {RECIPES[name]}", rate(seen), unseen, mean_cell(found, "emergent"),
                         " / ".join(f"{100 * mean:.0f}" for mean in seeds if not math.isnan(mean)),
                         web_mean(results, of_web, "web before"), web_mean(results, recipe, "web")])
    return markdown(["model, recipe", "seen", "unseen, average", "emergent, average", "by seed", "web before",
                     "web after"], rows or [[MISSING, *"-" * 6]])


def links_table(results):
    """measure.where_it_breaks"""
    found, rows = [run["links"] for run in results["runs"].values() if "links" in run], []
    links = [link for link in LINKS if any(link in of_line for run in found for of_line in run.values())]
    for line in dict.fromkeys(line for run in found for line in run):
        of_seeds = [run[line] for run in found if line in run]
        shares = [share([of_seed[link] for of_seed in of_seeds]) for link in links]
        rows.append([line, *shares, str(sum(of_seed["where"][1] for of_seed in of_seeds))])
    return markdown(["", *(LINKS[link] for link in links), "n"], rows)


def thought_table(results):
    """the last three columns: measure.printed_plans"""
    columns = {"with a plan": pooled(results, "large/plan"), "without": pooled(results, "large/no plan"),
               "never trained on wishes": controls(results, "untrained", "policy"),
               "blank": pooled(results, "large/plan", "blank instruction"),
               "swapped": pooled(results, "large/plan", "swapped instruction"),
               **without_a_model(results)}
    plans = [run["plans"] for run in results["runs"].values() if "plans" in run]
    rows = [[*row, *(share([found[row[0]][what] for found in plans]) for what in ("plan", "web", "name"))]
            for row in line_rows(columns, "thought")]
    return markdown(["", *columns, "plan right", "on the web", "named"], rows or [[MISSING, *"-" * 10]])


def outcomes_table(results):
    rows = pooled(results, "large/cofine")
    outcomes = [name for name, _ in sum((Counter(row["outcomes"]) for row in rows), Counter()).most_common()]
    return markdown(["large, co-fine-tuning", "trials", *outcomes],
                    [[row["line"], str(row["n"]), *(str(row["outcomes"].get(name, 0)) for name in outcomes)]
                     for row in rows])


TABLES = {"recipes": recipes_table, "generalisation": generalisation_table, "emergent": emergent_table,
          "outcomes": outcomes_table, "links": links_table, "thought": thought_table}


def tables(results):
    """name -> markdown, in the order of RESULTS.md; what is not measured yet says so"""
    return {name: make(results) for name, make in TABLES.items()}


# ----------------------------------------------------------------------------------------------------------
# figures, as SVG: text that a browser draws

COLOURS = {"co-fine-tuning": "#2f6db5", "fine-tuning": "#e08a2e", "from scratch": "#9a9a9a"}
HEIGHT = 320                                        # of both figures; y = 40 is 100 %, HEIGHT - 60 is 0 %


def up(value):
    """the y of a rate from 0 to 1"""
    return HEIGHT - 60 - value * (HEIGHT - 100)


def text(x, y, words, more=' text-anchor="middle"'):
    return f'<text x="{x}" y="{y}"{more}>{words}</text>'


def frame(width, body, title):
    """a canvas with an axis in % and the colours of the recipes; the plot is from x = 50 to width - 10"""
    grid, legend, above = "", "", text(50, 15, title, ' font-size="13"')
    for value in range(0, 101, 25):
        y = up(value / 100)
        grid += f'<line x1="50" x2="{width - 10}" y1="{y}" y2="{y}" stroke="#ddd"/>'
        grid += text(44, y + 4, value, ' text-anchor="end"')
    for i, (name, colour) in enumerate(COLOURS.items()):
        legend += f'<rect x="{60 + 150 * i}" y="24" width="10" height="10" fill="{colour}"/>'
        legend += text(75 + 150 * i, 33, name, "")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" '
            f'font-family="sans-serif" font-size="11"><rect width="{width}" height="{HEIGHT}" fill="white"/>'
            f'{above}{legend}{grid}{body}</svg>\n')


def recipes_figure(results):
    """success of each recipe in each column of table 4 and each group of table 5, with 95 % intervals"""
    of = {RECIPES[name]: pooled(results, f"large/{name}") for name in THREE}
    first, step, body = of["co-fine-tuning"], 92, ""
    places = [("generalisation", "line", row["line"]) for row in first if row["table"] == "generalisation"]
    groups = dict.fromkeys(row["group"] for row in first if row["table"] == "emergent")
    places += [("emergent", "group", group) for group in groups]
    for i, (table, key, name) in enumerate(places):
        for k, (recipe, rows) in enumerate(of.items()):
            rows = [row for row in rows if row["table"] == table and row[key] == name]
            if not rows:
                continue
            won, n = sum(row["success"] for row in rows), sum(row["n"] for row in rows)
            x, y, (low, high) = 58 + i * step + 26 * k, up(won / n), wilson(won, n)
            bar = f'width="24" height="{up(0) - y:.1f}" fill="{COLOURS[recipe]}"'
            body += (f'<rect x="{x}" y="{y:.1f}" {bar}/><line x1="{x + 12}" x2="{x + 12}" '
                     f'y1="{up(low):.1f}" y2="{up(high):.1f}" stroke="black"/>')
        above, _, below = name.partition(", ")
        body += text(97 + i * step, HEIGHT - 42, above) + text(97 + i * step, HEIGHT - 28, below)
    return frame(60 + step * len(places), body, "success in closed loop, %")


def samples_figure(results):
    """emergent success by robot samples trained on; "" if no recipe was trained on a part of them"""
    body, width, points = "", 460, {}               # points: recipe -> [(robot samples, mean, interval)]
    for name, run in results["runs"].items():
        size, recipe, seed = name.split("/")
        recipe = recipe.partition("-")[0]
        found = average(pool(rows_of(run)), "emergent")
        if size == "large" and recipe in THREE and seed == "0" and found:
            points.setdefault(RECIPES[recipe], []).append((run["training"]["robot_samples"], *found))
    if all(len(found) < 2 for found in points.values()):
        return ""
    samples = sorted({x for found in points.values() for x, *_ in found})

    def across(x):
        return f"{50 + x / samples[-1] * (width - 90):.1f}"
    for recipe, found in points.items():
        colour = COLOURS[recipe]
        line = " ".join(f"{across(x)},{up(mean):.1f}" for x, mean, _ in sorted(found))
        body += f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for x, mean, (low, high) in sorted(found):
            body += (f'<circle cx="{across(x)}" cy="{up(mean):.1f}" r="3.5" fill="{colour}"/>'
                     f'<line x1="{across(x)}" x2="{across(x)}" y1="{up(low):.1f}" y2="{up(high):.1f}" '
                     f'stroke="{colour}"/>')
    for x in samples:
        body += text(across(x), HEIGHT - 42, f"{x:,}")
    body += text(width / 2, HEIGHT - 22, "robot samples")
    return frame(width, body, "emergent skills, average, % (seed 0)")
