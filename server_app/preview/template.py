"""The page of a preview, a Jinja2 template that takes style and bars from the report of a run.

Autoescape is on: every value is escaped except the style sheets. The policy in the head lets the page load nothing;
the picture is part of it.
"""

from server_app.report.template import MACROS

STYLE = """
.picture { max-height: none; } .picture img { display: block; }
.scroll:has(.heat) { width: fit-content; max-width: 100%; }
.heat { width: auto; } .heat td, .heat th { padding: .2rem .5rem; border-bottom: 0; }
.heat td.wide { padding-right: 1rem; }
.heat tbody th { position: sticky; left: 0; background: #fff; }
.cell { min-width: 2.2rem; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.count { background: rgb(95 174 143 / var(--shade)); } .share { background: rgb(217 143 99 / var(--shade)); }
@media (max-width: 40rem) { .heat .bar { display: none; } }
"""

TEMPLATE = (
    MACROS
    + """\
{% macro cells(row, kind) %}
{% for cell in row %}
<td class="num cell {{ kind }}" style="--shade:{{ cell.shade }}">{{ cell.text }}</td>
{%- endfor %}
{% endmacro -%}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }} - Winnow preview</title>
<style>{{ style | safe }}</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">Winnow preview: what the clients hold before training</p>
<h1>{{ title }}</h1>
{% for remark in remarks %}
<p class="lead stopped">Warning: {{ remark }}.</p>
{% endfor %}
</header>
<dl class="figures">
{% for figure in figures %}
<div><dt>{{ figure.name }}</dt><dd class="big">{{ figure.text }}</dd><dd class="small">{{ figure.note }}</dd></div>
{% endfor %}
</dl>

<section>
<h2>At a glance</h2>
<div class="scroll picture" tabindex="0" role="region" aria-label="Picture of all clients">
<img src="data:image/png;base64,{{ picture }}" alt="Heat map of classes and clients, sizes, wrong labels, transitions" \
style="width:100%; min-width:{{ picture_width }}px">
</div>
</section>

<section>
<h2>Clients</h2>
<p>{{ clients_note }}</p>
<div class="scroll" tabindex="0" role="region" aria-label="Clients">
<table class="heat">
<thead><tr><th scope="col" class="num">Client</th><th scope="col" class="num">Examples</th>
{%- if has_wanted %}<th scope="col" class="num">Wanted</th>{% endif %}<th scope="col" class="num">Wrong labels</th>
{%- for name in class_names %}<th scope="col" class="num">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for client in clients %}
<tr><th scope="row" class="num">{{ client.number }}</th>\
<td class="num">{{ client.examples }}{{ bar(client.size, "weight") }}</td>
{%- if has_wanted %}<td class="num">{{ client.wanted }}</td>{% endif %}
<td class="num wide">{{ client.realised }}{{ bar(client.rate, "noise") }}</td>
{{- cells(client.cells, "count") }}</tr>
{% endfor %}
</tbody>
</table>
</div>
</section>

<section>
<h2>Given labels of each true class</h2>
<p>{{ transitions_note }}</p>
<div class="scroll" tabindex="0" role="region" aria-label="Given labels of each true class">
<table class="heat">
<thead><tr><th scope="col">True</th><th scope="col" class="num">Labels</th>
{%- for name in class_names %}<th scope="col" class="num">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in transitions %}
<tr><th scope="row">{{ row.name }}</th><td class="num wide">{{ row.total }}</td>{{ cells(row.cells, "share") }}</tr>
{% endfor %}
</tbody>
</table>
</div>
</section>

<section>
<h2>Settings of the data</h2>
<div class="scroll facts" tabindex="0" role="region" aria-label="Settings of the data">
<table>
<tbody>
{% for name, text in choices %}
<tr><th scope="row">{{ name }}</th><td>{{ text }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
</section>
</main>
</body>
</html>
"""
)
