// Newest predictions, each with its label when it comes, and newest labels. It can be held still.
import { useRef, useState } from "./vendor/hooks.mjs";
import { Empty, Panel, Scroll, duration, eventTime, html } from "./ui.js";

const FIELDS = 5;

export function Tail({ tail, label, kind }) {
  const [held, hold] = useState(false);
  const shown = useRef(tail);
  if (!held) shown.current = tail;
  const { predicted = [], labelled = [] } = shown.current ?? {};
  const tools = html`<button aria-pressed=${held} onClick=${() => hold(!held)}>${held ? "Go on" : "Hold"}</button>`;
  return html`
    <${Panel} area="tail" title="Live tail" note="a sample of what is predicted now" tools=${tools}>
      ${predicted.length ? html`<${Scroll} label="Newest predictions"><table>
        <caption class="unseen">Newest predictions, each with its label when it has come</caption>
        <thead><tr><th scope="col">event</th><th scope="col">prediction</th><th scope="col">by</th><th scope="col">label</th></tr></thead>
        <tbody>${predicted.map((row) => html`<tr key=${row.id}>
          <td><${Event} row=${row} /></td><td class="said"><${Said} row=${row} label=${label} kind=${kind} /></td>
          <td class="num">v${row.release}</td><td>${"label" in row ? html`<${Truth} row=${row} />` : html`<span class="soft">waiting</span>`}</td>
        </tr>`)}</tbody>
      </table><//>` : html`<${Empty}>No prediction yet.<//>`}
    <//>
    <${Panel} area="labels" title="Labels, as they come" note="what was predicted, and what it was">
      ${labelled.length ? html`<${Scroll} label="Newest labels"><table>
        <caption class="unseen">Newest labels with their predictions</caption>
        <thead><tr><th scope="col">id</th><th scope="col">prediction</th><th scope="col">label</th><th scope="col">came after</th></tr></thead>
        <tbody>${labelled.map((row) => html`<tr key=${row.id}>
          <th scope="row" class="id">${row.id}</th><td class="num">${row.said}</td>
          <td><${Truth} row=${row} /></td><td class="num">${duration(row.after)}</td>
        </tr>`)}</tbody>
      </table><//>` : html`<${Empty}>No label yet.<//>`}
    <//>`;
}

function Event({ row }) {
  const fields = Object.entries(row.event ?? {}).filter(([, value]) => value != null && typeof value !== "object");
  return html`<div class="event"><span class="id">${row.id}</span> <span class="soft">${eventTime(row.time)}</span>
    <span class="fields">${fields.slice(0, FIELDS + 2).filter(([, v]) => v !== row.id && !looksLikeTime(v, row.time)).slice(0, FIELDS)
      .map(([name, value]) => html`<span><span class="soft">${name}</span> ${String(value)} </span>`)}</span></div>`;
}

const looksLikeTime = (value, time) => value === time || (typeof value === "string" && Math.abs(Date.parse(value) / 1000 - time) < 1);

function Said({ row, label, kind }) {
  if (kind !== "binary") return html`<strong>${row.said}</strong>`;
  return html`<span class="gauge" aria-hidden="true"><span style=${{ width: `${100 * row.scores[0]}%` }}></span></span>
    <strong>${row.said}</strong> <span class="soft">${label}</span>`;
}

function Truth({ row }) {
  const sign = row.right == null ? "" : row.right ? "✓" : "✗";
  const words = row.right == null ? "" : row.right ? "as predicted" : "not as predicted";
  return html`<span class=${row.right === false ? "wrong" : "right"}>${JSON.stringify(row.label)}
    ${sign && html` <span aria-hidden="true">${sign}</span><span class="unseen">${words}</span>`}</span>`;
}
