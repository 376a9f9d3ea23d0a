// Quality of the live model and its references, over event time.
import { useMemo, useState } from "./vendor/hooks.mjs";
import { Chart } from "./chart.js";
import { Empty, Panel, count, html } from "./ui.js";

const METRICS = {
  log_loss: { title: "log-loss", unit: "log-loss, nats", show: (v) => `${v.toFixed(4)} nats`, of: (v) => v },
  accuracy: { title: "accuracy", unit: "accuracy, %", show: (v) => `${v.toFixed(1)} %`, of: (v) => 100 * (1 - v) },
  squared_error: { title: "squared error", unit: "mean squared error", show: (v) => v.toPrecision(4), of: (v) => v },
};
const MARKS = [["run", "▼", "run"], ["drift", "●", "run started by drift"], ["operator", "■", "change by hand"]];

export function Quality({ quality }) {
  const [chosen, choose] = useState(null);
  const metrics = (quality?.metrics ?? []).filter((name) => METRICS[name]);
  const name = metrics.includes(chosen) ? chosen : metrics[0];
  const metric = METRICS[name];
  const curves = useMemo(
    () => metric && quality.models.map((model) => ({
      name: model.name, label: model.label, values: model.curves[name].map((v) => (v == null ? null : metric.of(v))),
    })),
    [quality, name],
  );
  const tools = metrics.length > 1 && html`<div class="choice" role="group" aria-label="Metric">
    ${metrics.map((one) => html`<button aria-pressed=${one === name} onClick=${() => choose(one)}>${METRICS[one].title}</button>`)}
  </div>`;
  return html`<${Panel} area="quality" title="Champion against references" tools=${tools}
      note=${quality && `mean over the newest ${count(quality.window)} labelled events`}>
    ${metric ? html`
      <${Chart} at=${quality.at} curves=${curves} marks=${quality.marks} unit=${metric.unit}
        label=${`${metric.title} over time. Now: ${quality.models.map((m) => summary(m, name, metric)).join("; ")}`} />
      <ul class="legend">
        ${quality.models.map((model) => html`<li key=${model.name}><span class=${`key ${model.name}`} aria-hidden="true"></span>
          ${model.label} <strong>${now(model, name, metric)}</strong></li>`)}
        ${MARKS.map(([kind, sign, text]) => html`<li class="mark"><span class=${`sign ${kind}`} aria-hidden="true">${sign}</span>${text}</li>`)}
      </ul>` : html`<${Empty}>No label yet. Quality is measured when labels arrive.<//>`}
  <//>`;
}

const now = (model, name, metric) => (model.now ? metric.show(metric.of(model.now[name])) : "–");
const summary = (model, name, metric) => `${model.label} ${now(model, name, metric)}`;
