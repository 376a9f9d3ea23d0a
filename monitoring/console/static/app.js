// The page: sections arrive as server-sent events, and each change draws the page again.
import { render } from "./vendor/preact.mjs";
import { useCallback, useState } from "./vendor/hooks.mjs";
import { ActionDialog } from "./action_dialog.js";
import { Costs } from "./costs.js";
import { DeadLetters } from "./dead_letters.js";
import { Drift } from "./drift.js";
import { Flow } from "./flow.js";
import { Quality } from "./quality.js";
import { Releases } from "./releases.js";
import { Tail } from "./tail.js";
import { Timeline } from "./timeline.js";
import { eventTime, html } from "./ui.js";

const SECTIONS = [
  "about", "status", "flow", "tail", "quality", "drift", "timeline", "releases", "dead_letters", "costs",
];
const sections = {};
let connected = null;
let scheduled = false;

function draw() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    render(html`<${Page} ...${sections} connected=${connected} />`, document.getElementById("page"));
  });
}

function Page({ about, status, flow, tail, quality, drift, timeline, releases, dead_letters, costs, connected }) {
  const [action, setAction] = useState(null);
  const act = about?.writable ? setAction : null;
  const close = useCallback(() => setAction(null), []);
  const state = connected === false ? "lost" : status?.state ?? "waiting";
  return html`
    <header>
      <div class="name">
        <h1>${about?.pipeline ?? "Tailrace"}</h1>
        <p class="note">
          ${about?.pipeline && html`<span>Tailrace ${about.version}</span>`}
          ${flow?.clock && html`<span>event time ${eventTime(flow.clock)}</span>`}
          <span>${about?.writable ? "changes need the token" : "read-only"}</span>
          ${about?.masked?.length > 0 && html`<span>hidden: ${about.masked.join(", ")}</span>`}
        </p>
      </div>
      <p class=${`status ${state}`}><span class="dot" aria-hidden="true"></span>${sentence(state, status)}</p>
      <p class="unseen" role="status">${`State of the pipeline: ${state}`}</p>
    </header>
    <main>
      <${Flow} flow=${flow} releases=${releases} pause=${costs?.swap_pause_s} />
      <${Quality} quality=${quality} />
      <${Timeline} entries=${timeline} />
      <${Tail} tail=${tail} label=${about?.label} kind=${about?.kind} />
      <${Releases} releases=${releases} act=${act} />
      <${Drift} drift=${drift} />
      <${Costs} costs=${costs} />
      <${DeadLetters} deadLetters=${dead_letters} act=${act} />
    </main>
    <${ActionDialog} action=${action} close=${close} />`;
}

function sentence(state, status) {
  if (state === "lost") return "The console has stopped; the page shows its last state.";
  return status?.text ?? "starting: the page fills as data arrives";
}

const stream = new EventSource("/api/stream");
for (const name of SECTIONS) {
  stream.addEventListener(name, (event) => {
    sections[name] = JSON.parse(event.data);
    connected = true;
    draw();
  });
}
stream.onerror = () => {
  connected = false;
  draw();
};
setInterval(draw, 1000); // so that ages grow
draw();
