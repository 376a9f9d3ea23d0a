// Timeline of the model: runs with their reasons and gate results, online updates, actions of operators.
import { Empty, Panel, Scroll, ago, count, duration, html, plural, timeOfDay } from "./ui.js";

export function Timeline({ entries }) {
  return html`<${Panel} area="timeline" title="Retraining" note="newest first, local time">
    ${entries?.length ? html`<${Scroll} label="Retraining timeline"><ol class="entries">
      ${entries.map((entry) => html`<${Entry} key=${`${entry.kind}-${entry.first ?? entry.at}`} entry=${entry} />`)}
    </ol><//>` : html`<${Empty}>No run and no online update yet.<//>`}
  <//>`;
}

function Entry({ entry }) {
  if (entry.kind === "updates") {
    const range = entry.count === 1 ? `v${entry.last}` : `v${entry.first} to v${entry.last}`;
    return html`<li class="updates"><${When} at=${entry.at} />
      <p><strong>${plural(entry.count, "online update")}</strong> ${range}, ${plural(entry.labels, "label")}</p></li>`;
  }
  return html`<li class=${`${entry.kind} ${entry.outcome ?? ""} ${entry.trigger === "drift" ? "drift" : ""}`}><${When} at=${entry.at} />
    <p><strong>${entry.title}</strong>
      ${entry.gate && html` <span class=${`badge ${entry.gate}`}>gate ${entry.gate}</span>`}
      <span class="why">${entry.kind === "run" ? "because of " : ""}${entry.reason}</span>
      ${entry.detail && html`<span class="detail">${entry.detail}</span>`}
      ${entry.examples != null && html`<span class="detail">${count(entry.examples)} examples in ${duration(entry.seconds)}</span>`}
    </p></li>`;
}

const When = ({ at }) => html`<time datetime=${new Date(at * 1000).toISOString()} title=${ago(at)}>${timeOfDay(at)}</time>`;
