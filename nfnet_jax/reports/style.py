"""The style sheet of a page."""

LIGHT = {
    "page": "#f6f7f9",
    "card": "#ffffff",
    "text": "#1b1f24",
    "muted": "#59636e",
    "grid": "#d9dee4",
    "good": "#0072b2",
    "bad": "#d55e00",
    "c0": "#0072b2",
    "c1": "#d55e00",
    "c2": "#00805f",
    "c3": "#b3528f",
    "c4": "#946500",
    "c5": "#5a5fd0",
}
"""Okabe and Ito's colours, darkened where they would be faint on white."""
DARK = {
    "page": "#0f1216",
    "card": "#181c22",
    "text": "#e6eaef",
    "muted": "#9aa5b1",
    "grid": "#323a44",
    "good": "#4aa8e0",
    "bad": "#ff8b3d",
    "c0": "#56b4e9",
    "c1": "#ff8b3d",
    "c2": "#2ec79d",
    "c3": "#e39ac6",
    "c4": "#f0c23c",
    "c5": "#a3a7ff",
}
"""The same hues, light enough for a dark page."""

_RULES = """
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100% }
body { margin: 0; background: var(--page); color: var(--text); overflow-wrap: anywhere;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
main, header, footer { max-width: 1240px; margin: 0 auto; padding: 0 16px }
header { padding-top: 28px }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px }
h2 { font-size: 19px; margin: 36px 0 10px }
h3 { font-size: 15px; margin: 22px 0 8px }
p { margin: 6px 0; max-width: 75ch }
code { font: 13px/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
a { color: var(--c0) }
.note { color: var(--muted); font-size: 13px }
.warning { border-left: 4px solid var(--bad); border-radius: 4px; padding: 6px 12px;
  background: var(--card) }
.runs { list-style: none; margin: 12px 0 0; padding: 0; font-size: 14px }
.runs li { margin-top: 6px; padding-left: 20px; position: relative }
.runs li::before { content: ""; position: absolute; left: 0; top: .35em; width: 12px;
  height: 12px; border-radius: 50%; background: var(--c) }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(158px, 1fr));
  gap: 12px; margin: 18px 0 0; padding: 0 }
.tiles div, .chart, details, .panel { background: var(--card); border-radius: 10px;
  border: 1px solid var(--grid); padding: 12px 14px }
.tiles dt { color: var(--muted); font-size: 12.5px }
.tiles dd { margin: 0; font-size: 21px; font-weight: 650; line-height: 1.25;
  font-variant-numeric: tabular-nums }
.tiles small { display: block; font-size: 12px; font-weight: 400; color: var(--muted) }
.charts { display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)) }
.pair { display: grid; gap: 14px; align-items: start; margin-top: 14px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)) }
.pair > *, .charts > * { min-width: 0 }
figure { margin: 0 }
.chart figcaption { font-weight: 600; margin-bottom: 4px }
.chart svg { display: block; width: 100%; height: auto }
.chart text { fill: var(--muted); font-size: 12px; font-variant-numeric: tabular-nums }
.end { text-anchor: end }
.middle { text-anchor: middle }
.grid { stroke: var(--grid); fill: none }
.line { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-linejoin: round }
.meaning { max-width: 56ch; color: var(--muted) }
.faint { stroke-opacity: .65; stroke-width: 1.3 }
.dashed { stroke-dasharray: 5 4; stroke-width: 1.4 }
.dot { fill: var(--c) }
.band { fill: var(--c); fill-opacity: .18 }
.ink { --c: var(--text) }
.strip { fill: transparent }
.tip { display: none; pointer-events: none }
.strip:hover + .tip { display: block }
.tip rect { fill: var(--card); stroke: var(--grid); rx: 4px }
.tip circle { fill: var(--card); stroke: var(--text); stroke-width: 1.5 }
.tip text { fill: var(--text) }
.tip .grid { stroke: var(--muted) }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 14px; padding: 0;
  margin: 4px 0 0; font-size: 12.5px; color: var(--muted) }
.legend svg { display: inline-block; width: 24px; height: 8px; margin-right: 6px;
  vertical-align: middle }
.scroll { overflow-x: auto; max-width: 100% }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--c0);
  outline-offset: 2px }
table { border-collapse: collapse; font-size: 13.5px;
  font-variant-numeric: tabular-nums }
caption { text-align: left; color: var(--muted); font-size: 13px; padding: 0 0 6px }
th, td { overflow-wrap: normal; text-align: left; padding: 5px 14px 5px 0;
  vertical-align: top;  border-bottom: 1px solid var(--grid) }
th { font-weight: 500 }
thead th { color: var(--muted); font-size: 12.5px; overflow-wrap: anywhere;
  min-width: 84px; max-width: 260px }
.facts td { white-space: nowrap }
td strong::after { content: " ★"; color: var(--c4) }
.confusion { font-size: 12px }
.confusion th, .confusion td { min-width: 0; padding: 4px 2px; border: 0;
  text-align: center; white-space: nowrap }
.confusion tbody th { text-align: right; padding-right: 6px; color: var(--muted) }
.long thead th { writing-mode: vertical-rl; transform: rotate(180deg) }
.long thead th:first-child { writing-mode: initial; transform: none;
  text-align: right; vertical-align: bottom }
.confusion td { min-width: 25px; border-radius: 3px }
.right { --c: var(--good) }
.wrong { --c: var(--bad) }
.s0 { color: var(--muted) }
.matrix { width: min(100%, 480px); image-rendering: pixelated;
  border: 1px solid var(--grid) }
.gallery { list-style: none; display: grid; gap: 14px 12px; margin: 0; padding: 0;
  grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)) }
.gallery li { display: flex; flex-direction: column; font-size: 12.5px;
  line-height: 1.35 }
.gallery img { width: 96px; height: auto; border-radius: 6px; margin-bottom: 4px }
.pixels { image-rendering: pixelated }
details { margin-top: 12px }
summary { cursor: pointer; font-weight: 600 }
footer { padding: 28px 16px 40px }
@media (max-width: 700px) {
  .wide { display: none }
  th, td { padding-right: 8px }
  code { font-size: 12px }
  .confusion { font-size: 10.5px }
  .confusion th, .confusion td { padding: 4px 1px }
  .confusion td { min-width: 22px } }
@media (min-width: 700px) { .confusion td { min-width: 34px } }
@media print { .chart, .panel, details { break-inside: avoid } }
"""


def style_sheet() -> str:
    """Colours of light and dark pages, and the rules that use them."""
    colours = [f".c{i} {{ --c: var(--c{i}) }}" for i in range(6)]
    shades = [
        f".s{i} {{ background: color-mix(in srgb, var(--c) {9 * i}%, transparent) }}"
        for i in range(1, 11)
    ]
    return "\n".join(
        [
            f":root {{ color-scheme: light dark; {_variables(LIGHT)} }}",
            f"@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}",
            _RULES.strip(),
            *colours,
            *shades,
            ".s8, .s9, .s10 { color: var(--card) }",
            "",
        ]
    )


def _variables(colours: dict[str, str]) -> str:
    return "; ".join(f"--{name}: {value}" for name, value in colours.items())
