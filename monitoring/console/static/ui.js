// Shared parts of the page: markup, panels, and formats of numbers, durations and times.
import { h } from "./vendor/preact.mjs";
import htm from "./vendor/htm.mjs";

export const html = htm.bind(h);

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const moment = new Intl.DateTimeFormat("en-GB", {
  timeZone: "UTC", day: "2-digit", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit",
});

const dayTime = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", hour: "2-digit", minute: "2-digit" });
const dayTimeSeconds = new Intl.DateTimeFormat("en-GB", {
  timeZone: "UTC", hour: "2-digit", minute: "2-digit", second: "2-digit",
});
const day = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", day: "numeric", month: "short" });
const month = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", month: "short", year: "numeric" });

export const count = (n) => (n == null ? "–" : whole.format(n));
export const number = (n) => (n == null ? "–" : short.format(n));
export const percent = (p) => (p == null ? "–" : `${(100 * p).toFixed(1)} %`);
export const perSecond = (n) => (n == null ? "–" : n < 10 ? short.format(n) : whole.format(n));
export const timeOfDay = (at) => clock.format(new Date(at * 1000));
export const eventTime = (at) => `${moment.format(new Date(at * 1000)).replace(",", "")} UTC`;
export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

export function duration(seconds) {
  if (seconds == null) return "–";
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
    if (seconds >= size) return `${number(seconds / size)} ${unit}`;
  }
  return seconds >= 0.001 ? `${number(1000 * seconds)} ms` : `${number(1e6 * seconds)} µs`;
}

export const ago = (at) => {
  const seconds = Math.max(0, Date.now() / 1000 - at);
  return seconds < 1 ? "now" : `${duration(Math.floor(seconds))} ago`;
};

export function bytes(n) {
  if (n == null) return "–";
  for (const [unit, size] of [["MB", 1e6], ["kB", 1e3]]) if (n >= size) return `${number(n / size)} ${unit}`;
  return `${n} B`;
}

// Labels of a time axis. `ticks` and their distance `step` are in seconds; a tick at midnight shows the day.
export function timeLabels(ticks, step) {
  if (step >= 28 * 86400) return ticks.map((at) => month.format(new Date(at * 1000)));
  if (step >= 86400) return ticks.map((at) => day.format(new Date(at * 1000)));
  const format = step < 60 ? dayTimeSeconds : dayTime;
  return ticks.map((at) => (at % 86400 === 0 ? day : format).format(new Date(at * 1000)));
}

// A titled part of the page. `area` is its place in the grid; `tools` stand beside the title.
export function Panel({ area, title, note, tools, children }) {
  const id = `title-${area}`;
  return html`<section class=${`panel ${area}`} aria-labelledby=${id}>
    <div class="head"><h2 id=${id}>${title}</h2>${note && html`<p class="note">${note}</p>`}${tools}</div>
    ${children}
  </section>`;
}

export const Empty = ({ children }) => html`<p class="empty">${children}</p>`;

// A part that scrolls on its own; it can be reached with the keyboard.
export const Scroll = ({ label, children }) =>
  html`<div class="scroll" tabindex="0" role="region" aria-label=${label}>${children}</div>`;
