"""The page of the report, a Jinja2 template. A Python string, because Flower's app bundle carries no HTML files.

Autoescape is on: every value is escaped except the style sheet and the charts, which this package makes itself.
The policy in the head keeps the page from loading or running anything, whatever a text in it contains.
"""

from server_app.report.label_sections import AUDIT, ROLES

MACROS = """\
{% macro bar(share, kind) %}
{% if share is not none %}
<span class="bar {{ kind }}"><i style="width:{{ '%.1f' % (100 * share) }}%"></i></span>
{% endif %}
{% endmacro -%}
{% macro drawing(chart) %}
<figure>
<h3>{{ chart.title }}</h3>
{{ chart.svg | safe }}
<figcaption class="note">{{ chart.note }}</figcaption>
</figure>
{% endmacro -%}
"""

TEMPLATE = (
    MACROS
    + """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ record.label }} - Winnow run report</title>
<style>{{ style | safe }}</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">Winnow run report</p>
<h1>{{ record.label }} <span class="badge {{ record.status }}">{{ record.status }}</span></h1>
<p class="lead {{ record.status }}">{{ headline }}</p>
{% if whole_reason %}<pre>{{ whole_reason }}</pre>{% endif %}
</header>
{% if figures %}
<dl class="figures">
{% for figure in figures %}
<div><dt>{{ figure.name }}</dt><dd class="big">{{ figure.text }}</dd><dd class="small">{{ figure.note }}</dd></div>
{% endfor %}
</dl>
{% endif %}

{% if progress or no_charts %}
<section>
<h2>Progress</h2>
{% if no_charts %}<p class="note">{{ no_charts }}</p>{% endif %}
<div class="charts">
{% for chart in progress %}
{{ drawing(chart) }}
{% endfor %}
</div>
</section>
{% endif %}

{% if clients %}
<section>
<h2>Clients</h2>
<div class="charts">
{% if trust %}{{ drawing(trust) }}{% endif %}
<div>
{% for note in notes %}<p>{{ note }}</p>
{% endfor %}
</div>
</div>
<div class="scroll" tabindex="0" role="region" aria-label="Clients">
<table>
<thead><tr><th scope="col" class="num">Client</th><th scope="col" class="num">Examples</th>
{%- if has_classes %}<th scope="col" class="num">Classes held</th>{% endif %}
{%- if has_noise %}<th scope="col" class="num">Wrong labels</th>{% endif %}
{%- if has_weights %}<th scope="col" class="num">Weight, mean</th>
<th scope="col" class="num">Weight, last</th>{% endif %}
{%- if has_distances %}<th scope="col" class="num">Distance to result, median</th>{% endif %}
<th scope="col" class="num">Rounds asked</th><th scope="col">Quarantined</th></tr></thead>
<tbody>
{% for client in clients %}
<tr><th scope="row" class="num">{% if client.attacker %}<span class="mark skip">hostile</span> {% endif %}
{{ client.client }}</th><td class="num">{{ client.examples }}</td>
{%- if has_classes %}<td class="num">{{ client.classes }}</td>{% endif %}
{%- if has_noise %}<td class="num">{{ client.noise }}{{ bar(client.noise_bar, "noise") }}</td>{% endif %}
{% if has_weights %}<td class="num">{{ client.mean_weight }}{{ bar(client.weight_bar, "weight") }}</td>
<td class="num">{{ client.last_weight }}</td>{% endif %}
{%- if has_distances %}<td class="num">{{ client.distance }}</td>{% endif %}
<td class="num">{{ client.times_asked }}</td>
<td{% if client.quarantines %} class="reason"{% endif %}>
{%- for line in client.quarantines %}<div><bdi>{{ line.reason }}</bdi>
<span class="note">({{ line.rounds }})</span></div>
{%- else %}-{% endfor %}
{%- if client.has_more %}<div>and {{ client.more_quarantines }}</div>{% endif %}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
</section>
{% endif %}
"""
    + ROLES
    + AUDIT
    + """\

<section>
<h2>Details</h2>
{% if rounds %}
<details>
<summary>All rounds ({{ rounds | length }})</summary>
<div class="scroll" tabindex="0" role="region" aria-label="All rounds">
<table>
<thead><tr><th scope="col" class="num">Round</th>
{%- for name in columns %}<th scope="col" class="num">{{ name }}</th>{% endfor %}<th scope="col"></th></tr></thead>
<tbody>
{% for entry in rounds %}
<tr><th scope="row" class="num">{{ entry.number }}</th>
{%- for text in entry.cells %}<td class="num">{{ text }}</td>{% endfor %}<td>
{%- if entry.best %}<span class="mark">best model</span>{% endif %}
{%- if entry.skipped %}<span class="mark skip">skipped</span>{% endif %}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
</details>
{% endif %}
{% if settings %}
<details>
<summary>All settings ({{ settings | length }})</summary>
<p class="note">Bold: differs from the default.</p>
<div class="scroll facts" tabindex="0" role="region" aria-label="All settings">
<table>
<thead><tr><th scope="col">Key</th><th scope="col">Value</th></tr></thead>
<tbody>
{% for setting in settings %}
<tr{% if setting.changed %} class="changed"{% endif %}><td><code>{{ setting.key }}</code></td>\
<td><code>{{ setting.text }}</code></td></tr>
{% endfor %}
</tbody>
</table>
</div>
</details>
{% endif %}
</section>

<section>
<h2>Repeat this run</h2>
{% if record.command %}<pre><code>{{ record.command }}</code></pre>{% endif %}
<div class="scroll facts" tabindex="0" role="region" aria-label="Where, when and with which versions this ran">
<table>
<tbody>
{% for name, text in facts %}
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
