// Drift of each feature: population stability index against the most similar earlier window.
import { Empty, Panel, Scroll, count, html, percent } from "./ui.js";

export function Drift({ drift }) {
  const rows = drift?.rows ?? [];
  const largest = Math.max(1.25, ...rows.map(share));
  return html`<${Panel} area="drift" title="Drift by feature"
      note=${drift && `newest ${count(drift.window)} labelled events against the most similar earlier window`}>
    ${rows.length ? html`<${Scroll} label="Features by drift"><table>
      <caption class="unseen">Population stability index by feature, and its threshold</caption>
      <thead><tr><th scope="col">feature</th><th scope="col" class="wide">share of threshold</th><th scope="col">index (PSI), nats</th></tr></thead>
      <tbody>${rows.map((row) => html`<tr key=${row.feature}>
        <th scope="row">${row.feature}</th>
        <td class="wide"><span class="track" aria-hidden="true"><span class=${`bar ${share(row) > 1 ? "large" : ""}`} style=${{ width: `${(100 * share(row)) / largest}%` }}></span>
          <span class="limit" style=${{ left: `${100 / largest}%` }}></span></span><span class="unseen">${percent(share(row))}</span></td>
        <td class="num">${row.index.toFixed(3)} <span class="soft">of ${row.threshold.toFixed(3)}</span>${share(row) > 1 ? html` <span class="badge refused">drift</span>` : ""}</td>
      </tr>`)}</tbody>
    </table><//>`
    : html`<${Empty}>Measured after ${count(drift?.first ?? 6000)} labelled events; ${count(drift?.seen ?? 0)} so far.<//>`}
  <//>`;
}

const share = (row) => (row.threshold ? row.index / row.threshold : 0);
