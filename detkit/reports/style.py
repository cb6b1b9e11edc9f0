"""How a data report looks: the style sheet that stands in the file itself."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d1d24; --faint: #6b6b76; --paper: #fbfbfd; --card: #fff; --line: #e2e2ea;
  --error: #c62f3b; --repaired: #b86e00; --notice: #3a6ea8; --good: #2b8a57 }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ee; --faint: #9a9aa6; --paper: #16161a; --card: #1f1f25;
  --line: #33333c; --error: #ff7a84; --repaired: #f0b050; --notice: #86b8f0; --good: #62cf94 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 60px }
h1 { font-size: 24px; margin: 0 0 12px } h2 { font-size: 18px; margin: 32px 0 10px }
.verdict { padding: 10px 14px; border-left: 4px solid; background: var(--card); margin: 0 0 16px }
.verdict.good { border-color: var(--good) } .verdict.error { border-color: var(--error) }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; background: var(--card) }
th, td { text-align: left; padding: 7px 10px; border-bottom: 1px solid var(--line); vertical-align: top }
th { font-weight: 600; font-size: 13px; color: var(--faint) }
.summary th:nth-child(n+2), td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
td.error { color: var(--error); font-weight: 700 }
td.repaired { color: var(--repaired) } td.notice { color: var(--notice) }
.path { display: block; color: var(--faint); overflow-wrap: anywhere }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px }
.keys span { margin-right: 18px } small { color: var(--faint) }
details { background: var(--card); border: 1px solid var(--line); border-left: 4px solid var(--notice);
  padding: 8px 14px; margin: 8px 0; border-radius: 4px }
details.error { border-left-color: var(--error) } details.repaired { border-left-color: var(--repaired) }
summary { cursor: pointer } details p { margin: 6px 0 }
.badge { font-size: 12px; font-weight: 700; color: var(--notice) }
.error .badge { color: var(--error) } .repaired .badge { color: var(--repaired) }
code { color: var(--faint); font-size: 12px; margin-left: 6px }
ul { margin: 6px 0; padding-left: 20px; max-height: 220px; overflow-y: auto; font-size: 13px }
li, figcaption, td { overflow-wrap: anywhere } .more { color: var(--faint); font-size: 13px }
.strip { display: flex; flex-wrap: wrap; gap: 12px; margin: 10px 0 }
figure { margin: 0; width: calc(25% - 9px); min-width: 200px }
figure img { display: block; max-width: 100%; height: auto; border-radius: 3px }
figcaption { font-size: 12px; color: var(--faint); margin-top: 4px; max-height: 7.5em; overflow-y: auto }
.missing { width: 240px; padding: 30px 12px; background: var(--line); font-size: 12px; overflow-wrap: anywhere }
.map img { width: 220px }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(380px, 1fr)); gap: 16px }
svg { width: 100%; background: var(--card); border: 1px solid var(--line); border-radius: 4px }
svg text { font-family: system-ui, sans-serif; fill: var(--faint) }
svg text.title { font-weight: 600; fill: var(--ink) }
svg .mark { stroke-dasharray: 3 3 } svg line { stroke: var(--faint) } svg text.mark { stroke: none }
.classes td:first-child { width: 28% } .bar span { display: inline-block; min-width: 64px; text-align: right;
  margin-right: 10px; font-variant-numeric: tabular-nums }
.bar { white-space: nowrap }
.bar i { display: inline-block; height: 11px; max-width: calc(100% - 80px); border-radius: 2px }
.bar.none { color: var(--error) }
"""
