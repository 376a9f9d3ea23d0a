// The page: one stream of sections, one picture of them.
import { render } from "./vendor/preact.mjs";
import { useCallback, useState } from "./vendor/hooks.mjs";
import { Costs } from "./costs.js";
import { Act } from "./act.js";
import { Drift } from "./drift.js";
import { Flow } from "./flow.js";
import { Letters } from "./letters.js";
import { Quality } from "./quality.js";
import { Releases } from "./releases.js";
import { Tail } from "./tail.js";
import { Timeline } from "./timeline.js";
import { eventTime, html } from "./ui.js";

const SECTIONS = ["about", "verdict", "flow", "tail", "quality", "drift", "timeline", "releases", "letters", "costs"];
const board = {};
let connected = null;
let asked = false;

function draw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    render(html`<${Page} ...${board} connected=${connected} />`, document.getElementById("page"));
  });
}

function Page({ about, verdict, flow, tail, quality, drift, timeline, releases, letters, costs, connected }) {
  const [action, setAction] = useState(null);
  const act = about?.writable ? setAction : null;
  const close = useCallback(() => setAction(null), []);
  const state = connected === false ? "lost" : verdict?.state ?? "waiting";
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
      <p class=${`verdict ${state}`}><span class="dot" aria-hidden="true"></span>${sentence(state, verdict)}</p>
      <p class="unseen" role="status">${`The pipeline's state: ${state}`}</p>
    </header>
    <main>
      <${Flow} flow=${flow} releases=${releases} pause=${costs?.swap_pause_s} />
      <${Quality} quality=${quality} />
      <${Timeline} entries=${timeline} />
      <${Tail} tail=${tail} label=${about?.label} kind=${about?.kind} />
      <${Releases} releases=${releases} act=${act} />
      <${Drift} drift=${drift} />
      <${Costs} costs=${costs} />
      <${Letters} letters=${letters} act=${act} />
    </main>
    <${Act} action=${action} close=${close} />`;
}

function sentence(state, verdict) {
  if (state === "lost") return "The console has stopped: this is what it showed last.";
  return verdict?.text ?? "starting: the page fills as data comes";
}

const stream = new EventSource("/api/stream");
for (const name of SECTIONS) {
  stream.addEventListener(name, (event) => {
    board[name] = JSON.parse(event.data);
    connected = true;
    draw();
  });
}
stream.onerror = () => {
  connected = false;
  draw();
};
setInterval(draw, 1000); // ages grow
draw();
