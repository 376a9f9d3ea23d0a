// Releases and their origin. With the token they can be promoted and rolled back.
import { Empty, Panel, Scroll, ago, bytes, count, html, plural } from "./ui.js";

export function Releases({ releases, act }) {
  const rows = releases?.rows ?? [];
  const rollback = {
    title: "Roll back", path: "rollback", body: {}, confirm: "Roll back",
    text: "The champion's parent, the release that it was compared with, becomes the champion again.",
  };
  const tools = act && releases?.champion > 0 && html`<button id="rollback" onClick=${() => act(rollback)}>Roll back…</button>`;
  const note = releases && `${plural(releases.runs, "run")}, ${plural(releases.updates, "online update")} seen`;
  return html`<${Panel} area="releases" title="Releases" note=${note} tools=${tools}>
    ${rows.length ? html`<${Scroll} label="List of releases"><table>
      <caption class="unseen">Releases, newest first</caption>
      <thead><tr><th scope="col">release</th><th scope="col">made by</th><th scope="col">examples</th>
        <th scope="col">size</th><th scope="col">published</th>${act && html`<th scope="col"><span class="unseen">action</span></th>`}</tr></thead>
      <tbody>${rows.map((row) => html`<tr key=${row.version} class=${row.kept ? "" : "gone"}>
        <th scope="row" class="num">v${row.version} ${row.aliases.map((alias) => html`<span class="badge passed">${alias}</span>`)}</th>
        <td class="num">${row.made} <span class="soft">after v${row.parent}</span></td>
        <td class="num">${count(row.examples)}</td>
        <td class="num">${bytes(row.bytes)}</td>
        <td class="num">${row.kept ? ago(row.at) : "removed"}</td>
        ${act && html`<td>${row.kept && row.version !== releases.champion && html`<button
          aria-label=${`Promote v${row.version}`} onClick=${() => act(promote(row.version))}>Promote…</button>`}</td>`}
      </tr>`)}</tbody>
    </table><//>` : html`<${Empty}>Release 0, the base rate, serves until the first release.<//>`}
  <//>`;
}

const promote = (version) => ({
  title: `Promote v${version}`, path: "promote", body: { version }, confirm: "Promote",
  text: `Release ${version} becomes the champion; workers swap it in at their next batch.`,
});
