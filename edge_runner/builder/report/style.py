"""How the report looks: colours and typefaces, for the page and its plots alike, and the page's style sheet."""

from __future__ import annotations

COLORS = {
    "paper": "#ffffff",
    "wash": "#f6f7f8",
    "hairline": "#dfe2e6",
    "faint": "#8b939c",
    "quiet": "#59616a",
    "ink": "#1b1f24",
    "accent": "#1f5f8b",
    "good": "#1a7346",
    "good-wash": "#edf7f1",
    "caveat": "#8a5a00",
    "caveat-wash": "#fdf6e7",
    "bad": "#b3261e",
    "bad-wash": "#fdf0ef",
}
FONTS = ("Segoe UI", "Roboto", "Helvetica Neue", "Noto Sans", "Liberation Sans", "Arial", "DejaVu Sans")
MONOSPACED = ("SF Mono", "Cascadia Mono", "Menlo", "Consolas", "Liberation Mono", "DejaVu Sans Mono")

_RULES = """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, var(--fonts), sans-serif; }
main { max-width: 968px; margin: 0 auto; padding: 56px 24px 72px; }
h1, h2, h3, p, dl, dd, figure, pre { margin: 0; }
h1 { font-size: 34px; line-height: 1.2; font-weight: 650; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 20px; line-height: 1.3; font-weight: 650; margin: 56px 0 16px; }
h3 { font-size: 15px; line-height: 1.4; font-weight: 600; }
p { max-width: 72ch; }
p + p { margin-top: 8px; }
.quiet { color: var(--quiet); font-size: 14px; max-width: 84ch; }
.whole { white-space: nowrap; }
section > * + .quiet { margin-top: 10px; }
table:has(th:nth-child(6)) { width: 100%; }
section > dl + p, section > .scroll + p { margin-top: 20px; }
section > .plots + p { margin-top: 32px; }
section > * + .scroll, section > * + dl, section > * + .plots, section > * + .cards, section > * + pre { margin-top: 16px; }
.over { color: var(--quiet); font-size: 13px; letter-spacing: .06em; text-transform: uppercase; margin-bottom: 4px; }
.under { color: var(--quiet); margin-top: 6px; overflow-wrap: anywhere; }
code, pre { font-family: ui-monospace, var(--monospaced), monospace; font-size: .9em; }
code { overflow-wrap: anywhere; }
pre { background: var(--wash); border: 1px solid var(--hairline); border-radius: 6px; padding: 14px 16px; line-height: 1.6;
  white-space: pre-wrap; overflow-wrap: anywhere; }

.verdict { display: grid; grid-template-columns: 44px 1fr; gap: 0 18px; margin-top: 28px; padding: 22px 26px 24px 22px;
  border-left: 6px solid var(--tone); border-radius: 6px; background: var(--wash); print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }
.verdict .sign { width: 44px; height: 44px; border-radius: 50%; background: var(--tone); }
.verdict .sign svg { display: block; width: 44px; height: 44px; fill: none; stroke: #fff; stroke-width: 3.5;
  stroke-linecap: round; stroke-linejoin: round; }
.verdict strong { display: block; color: var(--tone); font-size: 25px; font-weight: 650; line-height: 44px; }
.verdict p { margin-top: 6px; }
.good { --tone: var(--good); --wash: var(--good-wash); }
.caveat { --tone: var(--caveat); --wash: var(--caveat-wash); }
.bad { --tone: var(--bad); --wash: var(--bad-wash); }

.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(205px, 1fr)); gap: 24px; margin-top: 32px; }
.tiles dt { color: var(--quiet); font-size: 13px; }
.tiles .value { font-size: 20px; font-weight: 600; line-height: 1.4; font-variant-numeric: tabular-nums; }
.tiles .note { color: var(--quiet); font-size: 13px; }
.tiles .value.good, .tiles .value.caveat, .tiles .value.bad { color: var(--tone); }

.facts { display: grid; grid-template-columns: 172px 1fr; font-size: 15px; }
.facts dt, .facts dd { padding: 6px 0; border-bottom: 1px solid var(--hairline); }
.facts dt { color: var(--quiet); padding-right: 20px; }
.facts dd { overflow-wrap: anywhere; }

.scroll { overflow-x: auto; background:
  linear-gradient(90deg, var(--paper) 30%, transparent) 0 / 36px 100% no-repeat local,
  linear-gradient(270deg, var(--paper) 30%, transparent) 100% / 36px 100% no-repeat local,
  linear-gradient(90deg, rgb(0 0 0 / .13), transparent) 0 / 12px 100% no-repeat scroll,
  linear-gradient(270deg, rgb(0 0 0 / .13), transparent) 100% / 12px 100% no-repeat scroll; }
table { border-collapse: collapse; min-width: min(100%, 600px);
  font-size: 14px; line-height: 1.45; font-variant-numeric: tabular-nums; }
th { color: var(--quiet); font-weight: 500; font-size: 13px; text-align: left; vertical-align: bottom; }
th, td { padding: 7px 12px; border-bottom: 1px solid var(--hairline); white-space: nowrap; }
th:first-child, td:first-child { padding-left: 8px; }
td { vertical-align: top; }
td.wide { white-space: normal; min-width: 200px; overflow-wrap: anywhere; }
table:has(tbody tr:nth-child(13)) td { padding-top: 3px; padding-bottom: 3px; }
thead th { border-bottom: 1px solid var(--faint); }
.n { text-align: right; }
tr.on td { font-weight: 600; }
tr.on { background: rgb(31 95 139 / .07); }
.tag { display: inline-block; margin-left: 8px; padding: 0 8px; border-radius: 9px; background: var(--wash);
  color: var(--tone, var(--accent)); font-size: 12px; font-weight: 600; line-height: 18px;
  border: 1px solid currentcolor; white-space: nowrap; }

.plots { display: flex; flex-wrap: wrap; gap: 16px 40px; }
.plots figure { flex: 0 1 440px; }
.plots img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--quiet); font-size: 13px; line-height: 1.4; margin-top: 6px; }

.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr)); gap: 24px; }
.card { border: 1px solid var(--hairline); border-radius: 8px; padding: 14px 16px 16px; break-inside: avoid; }
.card.bad { border-color: var(--tone); box-shadow: 0 0 0 1px var(--tone); }
.card h3 { margin: 0 0 10px; }
.card:has(figure:nth-child(3)) { grid-column: 1 / -1; }
.pair { display: flex; gap: 12px; align-items: flex-start; }
.pair figure { flex: var(--form) 1 0; min-width: 0; }
.pair img { display: block; width: 100%; height: auto; border-radius: 3px; background: var(--wash); }
.pixelated { image-rendering: pixelated; }
.answers { display: grid; grid-template-columns: 1fr 1fr; gap: 28px; margin-top: 14px; font-size: 14px; }
.answers h4 { margin: 0 0 4px; padding-bottom: 4px; border-bottom: 1px solid var(--hairline); color: var(--quiet);
  font-size: 13px; font-weight: 500; }
.answers ol { margin: 0; padding: 0; list-style: none; font-variant-numeric: tabular-nums; }
.answers li { display: flex; justify-content: space-between; gap: 10px; color: var(--quiet); }
.answers li span:first-child { overflow-wrap: anywhere; }
.answers li:first-child { color: var(--ink); font-weight: 600; }
.card.bad .answers li:first-child { color: var(--tone); }
footer.quiet { max-width: none; margin-top: 64px; padding-top: 16px; border-top: 1px solid var(--hairline); }

@media (max-width: 560px) {
  main { padding: 28px 16px 48px; }
  h1 { font-size: 27px; }
  h2 { margin-top: 44px; }
  .verdict { grid-template-columns: 36px 1fr; gap: 0 14px; padding: 16px 16px 18px 14px; }
  .verdict .sign, .verdict .sign svg { width: 36px; height: 36px; }
  .verdict strong { font-size: 21px; line-height: 36px; }
  .verdict .words { grid-column: 1 / -1; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 20px 16px; }
  .tiles .value { font-size: 17px; }
  .facts { grid-template-columns: 1fr; }
  .facts dt { border: 0; padding: 8px 0 0; font-size: 13px; }
  .facts dd { padding: 0 0 8px; }
}
@media print {
  @page { margin: 15mm 14mm; }
  body { font-size: 9.5pt; }
  main { max-width: none; padding: 0; }
  h1 { font-size: 22pt; }
  h2 { font-size: 13pt; margin: 22pt 0 8pt; break-after: avoid; }
  .verdict { margin-top: 12pt; padding: 12pt; }
  .tiles { grid-template-columns: repeat(4, 1fr); gap: 10pt; margin-top: 14pt; }
  .tiles .value { font-size: 12pt; }
  .facts { grid-template-columns: 100pt 1fr; font-size: 9pt; }
  .facts dt, .facts dd { padding: 2.5pt 0; break-inside: avoid; }
  .quiet, .under, .answers { font-size: 8.5pt; }
  .over, .tiles dt, .tiles .note, figcaption, .answers h4 { font-size: 8pt; }
  .scroll { overflow: visible; background: none; }
  table { font-size: 8.5pt; }
  th { font-size: 8pt; }
  th, td { padding: 3pt 6pt; }
  td code { white-space: normal; }
  thead { display: table-header-group; }
  tr, figure, pre, .verdict, .tiles { break-inside: avoid; }
  section > p { break-after: avoid; }
  .plots { flex-wrap: nowrap; }
  .plots figure { flex: 1 1 0; }
  .cards { grid-template-columns: 1fr 1fr; gap: 10pt; }
  .pair:not(:has(figure:nth-child(3))) { max-width: 70mm; }
  tr.on, .tag, .pair img { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  footer.quiet { margin-top: 16pt; padding-top: 6pt; }
}
"""


def style_sheet() -> str:
    """The page's CSS; it names no file and no address."""
    named = [f"--{name}: {value};" for name, value in COLORS.items()]
    for name, faces in (("fonts", FONTS), ("monospaced", MONOSPACED)):
        named.append(f"--{name}: {', '.join(repr(face) for face in faces)};")
    return f":root {{ {' '.join(named)} }}{_RULES}"
