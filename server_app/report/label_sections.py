"""The parts of the page about labels: clients taken for noisy, and the label audits. See ``template``."""

ROLES = """\
{% if role_rows %}
<section>
<h2>Clients with noisy labels</h2>
{% for note in role_notes %}<p>{{ note }}</p>
{% endfor %}
<div class="charts">
{% for chart in role_charts %}
{{ drawing(chart) }}
{% endfor %}
</div>
<div class="scroll" tabindex="0" role="region" aria-label="Clients with noisy labels">
<table>
<thead><tr><th scope="col" class="num">Client</th><th scope="col">Taken for</th>
{%- if has_posterior %}<th scope="col" class="num">Probability of being noisy</th>{% endif %}
{%- if has_level %}<th scope="col" class="num">Wrong labels, estimated</th>{% endif %}
<th scope="col" class="num">Wrong labels</th>
<th scope="col" class="num">Right labels, given</th>
<th scope="col" class="num">Right labels, corrected</th></tr></thead>
<tbody>
{% for row in role_rows %}
<tr><th scope="row" class="num">{{ row.client }}</th>
<td{% if row.noisy %} class="taken"{% endif %}>{{ row.role }}</td>
{%- if has_posterior %}<td class="num">{{ row.posterior }}</td>{% endif %}
{%- if has_level %}<td class="num">{{ row.level }}</td>{% endif %}
<td class="num">{{ row.noise }}{{ bar(row.noise_bar, "noise") }}</td>
<td class="num">{{ row.before }}</td><td class="num">{{ row.after }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
</section>
{% endif %}
"""

AUDIT = """\
{% if audit_rows %}
<section>
<h2>Label audit</h2>
<div class="charts">
{% for chart in audit_charts %}
{{ drawing(chart) }}
{% endfor %}
<div>
{% for note in audit_notes %}<p>{{ note }}</p>
{% endfor %}
</div>
</div>
<div class="scroll" tabindex="0" role="region" aria-label="Label audit">
<table>
<thead><tr><th scope="col" class="num">Client</th><th scope="col" class="num">Examples</th>
<th scope="col" class="num">Wrong labels</th><th scope="col" class="num">Estimated</th>
<th scope="col" class="num">AUC</th><th scope="col" class="num">Wrong at the top</th>
<th scope="col" class="num">Right, given</th>
<th scope="col" class="num">Right, suggested</th>
{%- if has_corrected %}<th scope="col" class="num">Right, changed</th>{% endif %}
<th scope="col" class="num">Fixed</th><th scope="col" class="num">Spoiled</th></tr></thead>
<tbody>
{% for row in audit_rows %}
<tr><th scope="row" class="num">{{ row.client }}</th><td class="num">{{ row.examples }}</td>
<td class="num">{{ row.noise }}{{ bar(row.noise_bar, "noise") }}</td><td class="num">{{ row.estimate }}</td>
<td class="num">{{ row.auc }}</td><td class="num">{{ row.at_wrong }}</td>
<td class="num">{{ row.given }}</td><td class="num">{{ row.suggested }}</td>
{%- if has_corrected %}<td class="num">{{ row.corrected }}</td>{% endif %}
<td class="num">{{ row.fixed }}</td><td class="num">{{ row.spoiled }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
</section>
{% endif %}
"""
