"""Draw docs/images/layout.svg, the layers of the package and their imports: ``python -m tests.draw_layout``."""

from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path as Curve

from tests.test_architecture import MODULES, import_graph

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "layout.svg"
COLORS = {"torch": "#fbdcb4", "astropy or specutils": "#cfe3f7", "neither": "#ececec"}
# Nearly everything imports these, and they next to nothing.
EVERYWHERE = {"errors", "flags", "conf"}
# Widths of a box and of an arrow that passes a row, height of a box and of a row; rounds of sorting.
BOX, LANE, HEIGHT, ROW, ROUNDS = 1.75, 0.4, 0.46, 1.15, 60


def layers(modules=MODULES):
    """
    What every layer needs, without `EVERYWHERE`, and the arrows (pairs of layers) that do not follow from others.

    Imports within functions count for modules that nothing imports, which load what they need when they are called.
    """
    needs = {module.layer: set() for module in modules if module.name and module.layer not in EVERYWHERE}
    for name, targets in import_graph(modules).items():
        layer = name.partition(".")[0]
        if layer in needs:
            needs[layer] |= ({target.partition(".")[0] for target in targets} & needs.keys()) - {layer}
    imported = set().union(*needs.values())
    for module in modules:
        if module.layer in needs.keys() - imported:
            found = {i.name.partition(".")[0] for i in module.internal}
            needs[module.layer] |= (found & needs.keys()) - {module.layer}

    def all_below(layer):
        return needs[layer].union(*(all_below(other) for other in needs[layer]))

    return needs, {(a, b) for a in needs for b in needs[a] if not any(b in all_below(c) for c in needs[a] - {b})}


def _places(needs, arrows):
    """
    Places of all layers, and the ways of the arrows.

    Every layer lies one row above the highest that it needs.  An arrow has a lane of its own in the rows that it
    passes, and rows are sorted so that what is linked is near.
    """
    height = {}
    while len(height) < len(needs):
        height |= {a: 1 + max((height[b] for b in needs[a]), default=-1) for a in needs if needs[a] <= height.keys()}
    ways = {(a, b): [a, *((a, b, k) for k in range(height[a] - 1, height[b], -1)), b] for a, b in sorted(arrows)}
    rows, linked = [[] for _ in range(max(height.values()) + 1)], {}
    for item in sorted(needs) + [lane for way in ways.values() for lane in way[1:-1]]:
        rows[height[item] if item in height else item[2]].append(item)
    for way in ways.values():
        for upper, lower in pairwise(way):
            linked.setdefault(upper, []).append(lower)
            linked.setdefault(lower, []).append(upper)
    place = {}

    def spread(row):
        widths = np.array([BOX if item in height else LANE for item in row])
        place.update(zip(row, np.cumsum(widths) - widths / 2 - widths.sum() / 2, strict=True))

    for row in rows:
        spread(row)
    for _ in range(ROUNDS):
        for row in [*rows, *reversed(rows)]:
            row.sort(key=lambda item: np.mean([place[other] for other in linked.get(item, [item])]))
            spread(row)
    points = {item: (x, ROW * (height[item] if item in height else item[2])) for item, x in place.items()}
    return {a: points[a] for a in needs}, {arrow: [points[item] for item in way] for arrow, way in ways.items()}


def _curve(way):
    """From the lower end of the first box past all lanes to the upper end of the last."""
    ends = []
    for k, (x, y) in enumerate(way):
        ends += [(x, y + HEIGHT / 2)] * (k > 0) + [(x, y - HEIGHT / 2)] * (k < len(way) - 1)
    vertices, codes = [ends[0]], [Curve.MOVETO]
    for k, ((x0, y0), (x1, y1)) in enumerate(pairwise(ends)):
        bent = k % 2 == 0  # between rows
        vertices += [(x0, y0 - 0.4), (x1, y1 + 0.4), (x1, y1)] if bent else [(x1, y1)]
        codes += [Curve.CURVE4] * 3 if bent else [Curve.LINETO]
    return Curve(vertices, codes)


def _kind(layer):
    used = {i.top for module in MODULES if module.layer == layer for i in module.third_party if not i.in_function}
    return "torch" if "torch" in used else "astropy or specutils" if used & {"astropy", "specutils"} else "neither"


def draw(path=PICTURE):
    """Draw the picture; every arrow is named ``upper>lower`` in the file, by which a test knows if it is up to date."""
    place, ways = _places(*layers())
    x, y = np.transpose([point for way in ways.values() for point in way])
    fig, ax = plt.subplots(figsize=((np.ptp(x) + 2) * 0.68, (np.ptp(y) + 1.5) * 0.68), layout="constrained")
    for (upper, lower), way in ways.items():
        ax.add_patch(FancyArrowPatch(path=_curve(way), arrowstyle="-|>", mutation_scale=9, color="#666666", lw=0.8,
                                     zorder=1, gid=f"{upper}>{lower}"))  # fmt: skip
    for name, (x0, y0) in place.items():
        is_folder = any(module.name.startswith(name + ".") for module in MODULES)
        box = {"boxstyle": "round,pad=0.3", "fc": COLORS[_kind(name)], "ec": "black", "lw": 1.6 if is_folder else 0.7}
        ax.text(x0, y0, name + "/" * is_folder, ha="center", va="center", bbox=box, fontsize=10, zorder=2)
    for kind, color in COLORS.items():
        ax.plot([], [], "s", ms=11, mfc=color, mec="black", label=f"imports {kind}" + " of them" * (kind == "neither"))
    ax.legend(loc="upper left", frameon=False, fontsize=10)
    ax.set(xlim=(x.min() - 1, x.max() + 1), ylim=(y.min() - 0.5, y.max() + 0.5))
    ax.axis("off")
    with plt.rc_context({"svg.hashsalt": "layout"}):
        fig.savefig(path, metadata={"Date": None} if str(path).endswith("svg") else None)
    plt.close(fig)


if __name__ == "__main__":
    draw()
