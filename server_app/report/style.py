"""The style sheet of the report: dark on light, for wide screens, phones and paper."""

STYLE = """
:root { color-scheme: light; --ink: #1c2430; --soft: #566071; --rule: #dfe3e8; --panel: #f6f7f9;
  --good: #0b6e4f; --warm: #b4582a; --bad: #a4262c; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1.5rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .8rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .4rem; }
h3 { font-size: 1rem; margin: 0 0 .3rem; }
p { margin: 0 0 .7rem; max-width: 48rem; }
.eyebrow { color: var(--soft); font-size: .85rem; margin: 0 0 .2rem; }
.note { color: var(--soft); font-size: .92rem; }
.badge { display: inline-block; vertical-align: .2em; margin-left: .4rem; padding: .1rem .6rem; border-radius: 1rem;
  font-size: .8rem; font-weight: 600; color: var(--soft); border: 1px solid currentColor; }
.badge.completed { color: var(--good); } .badge.failed { color: var(--bad); } .badge.stopped { color: var(--warm); }
.lead { font-size: 1.15rem; padding: .8rem 1.1rem; max-width: none; background: var(--panel);
  border-left: 4px solid var(--soft); overflow-wrap: anywhere; }
.lead.completed { border-color: var(--good); } .lead.stopped { border-color: var(--warm); }
.lead.failed { border-color: var(--bad); background: #fdf3f3; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.8rem, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.figures div { border: 1px solid var(--rule); border-radius: .4rem; padding: .6rem .9rem; }
.figures dt { color: var(--soft); font-size: .85rem; } .figures dd { margin: 0; }
.figures .big { font-size: 1.45rem; font-weight: 600; white-space: nowrap; }
.figures .small { color: var(--soft); font-size: .85rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.6rem 2rem; }
figure { margin: 0; max-width: 36rem; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
figure svg text { font-family: inherit !important; }
.scroll { overflow: auto; max-height: 52rem; border: 1px solid var(--rule); border-radius: .4rem; margin: .6rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule); }
tbody tr:last-child > * { border-bottom: 0; }
thead th { position: sticky; top: 0; background: var(--panel); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 600; }
tbody th.num { position: sticky; left: 0; background: #fff; }
thead th:first-child { left: 0; z-index: 1; }
.num { text-align: right; white-space: nowrap; }
thead .num { white-space: normal; }
.bar { display: inline-block; width: 3.5rem; height: .55rem; margin-left: .5rem; background: var(--rule);
  border-radius: .2rem; overflow: hidden; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.bar i { display: block; height: 100%; background: var(--good); }
.bar.noise i { background: var(--warm); }
.reason { min-width: 18rem; overflow-wrap: anywhere; }
.reason div + div { margin-top: .3rem; }
.mark { white-space: nowrap; font-size: .78rem; font-weight: 600; color: var(--good); margin-left: .4rem; }
.mark.skip { color: var(--bad); }
.taken { color: var(--warm); font-weight: 600; }
details { border-top: 1px solid var(--rule); padding: .7rem 0; }
details:last-of-type { border-bottom: 1px solid var(--rule); }
summary { cursor: pointer; font-weight: 600; }
pre { background: var(--panel); border: 1px solid var(--rule); border-radius: .4rem; padding: .7rem 1rem;
  margin: .6rem 0; font-size: .88rem; white-space: pre-wrap; overflow-wrap: anywhere; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.changed td { font-weight: 600; } .facts td { overflow-wrap: anywhere; }
.facts tbody th { width: 11rem; }
@media (max-width: 40rem) {
  main { padding: 1.2rem 1rem 2rem; } h1 { font-size: 1.4rem; } .lead { font-size: 1.05rem; }
  .figures { grid-template-columns: repeat(2, 1fr); } th, td { padding: .35rem .55rem; }
}
@media print {
  main { max-width: none; padding: 0; } .scroll { overflow: visible; max-height: none; border: 0; }
  thead th, tbody th.num { position: static; } table { font-size: 9pt; }
  tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
"""
