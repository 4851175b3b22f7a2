/** The list of a slide's jobs, updated in place: a button that has the focus keeps it while numbers run. */

import { button, write } from "./controls.js";
import { make } from "./dom.js";
import { isActive, percentOf, stateText, targetText } from "./jobwords.js";

/** @typedef {import("./jobwords.js").Job} Job */
/** @typedef {{cancel: (job: Job) => void, retry: (job: Job) => void, show: (job: Job) => void,
 *   hasLayer: (id: string) => boolean}} Actions */

/** Jobs that have ended and are still listed. */
const ENDED = 10;

export class JobList {
  /** @param {import("./jobfeed.js").JobFeed} feed @param {number | null} mpp µm per base-plane pixel @param {Actions} actions */
  constructor(feed, mpp, actions) {
    this.feed = feed;
    this.mpp = mpp;
    this.actions = actions;
    /** @type {Map<string, JobRow>} */
    this.rows = new Map();
    this.items = make("ul", { class: "jobs" });
    this.state = make("p", { class: "quiet" });
    this.root = make("div", {}, [this.state, this.items]);
    feed.addEventListener("change", () => this.update());
    this.update();
  }

  update() {
    const active = this.feed.jobs.filter(isActive);
    const listed = [...active, ...this.feed.jobs.filter((job) => !isActive(job)).slice(0, ENDED)];
    for (const [id, row] of this.rows) {
      if (listed.some((job) => job.id === id)) continue;
      row.root.remove();
      this.rows.delete(id);
    }
    listed.forEach((job, at) => {
      const row = this.rows.get(job.id) ?? new JobRow(this.actions);
      this.rows.set(job.id, row);
      row.show(job, this.mpp);
      this.settle(row.root, at);
    });
    const trouble = this.feed.error && `The state of the jobs is not known: ${this.feed.error} Asking again.`;
    write(this.state, trouble || (listed.length ? "" : "None yet."));
    this.state.classList.toggle("warning", trouble !== "");
  }

  /** Put a row at its place; a row with the focus stays and the others go around it. @param {Element} row @param {number} at */
  settle(row, at) {
    if (this.items.children[at] === row) return;
    if (row.contains(document.activeElement)) {
      while (this.items.children[at] !== row) this.items.append(this.items.children[at]);
    } else {
      this.items.insertBefore(row, this.items.children[at] ?? null);
    }
  }
}

class JobRow {
  /** @param {Actions} actions */
  constructor(actions) {
    /** @type {Job} */
    this.job = /** @type {any} */ (null);
    this.actions = actions;
    this.title = make("strong");
    this.state = make("p", { class: "job-state" });
    this.bar = /** @type {HTMLProgressElement} */ (make("progress", { max: "100" }));
    this.act = button("", () => this.press());
    this.root = make("li", { class: "job" }, [make("div", { class: "job-head" }, [this.title, this.act]), this.bar, this.state]);
  }

  /** @param {Job} job @param {number | null} mpp */
  show(job, mpp) {
    this.job = job;
    const what = `${job.model} · ${targetText(job, mpp)}`;
    write(this.title, what);
    write(this.state, stateText(job));
    this.state.className = `job-state ${job.state === "failed" ? "warning" : "quiet"}`;
    this.showBar(job, what);
    const words = this.action();
    write(this.act, words);
    this.act.setAttribute("aria-label", `${words}: ${what}`);
    this.act.hidden = words === "";
  }

  /** @param {Job} job @param {string} what */
  showBar(job, what) {
    this.bar.hidden = !isActive(job);
    this.bar.setAttribute("aria-label", what);
    if (job.state === "running" && job.progress?.total) this.bar.value = percentOf(job.progress);
    else if (job.state === "queued") this.bar.value = 0;
    else this.bar.removeAttribute("value");
  }

  /** What the button does now; empty when there is nothing to do. */
  action() {
    const { state, layer } = this.job;
    if (isActive(this.job)) return this.job.cancelling ? "" : "Cancel";
    if (state === "failed" || state === "cancelled") return "Try again";
    return layer && this.actions.hasLayer(layer) ? "Show" : "";
  }

  press() {
    const { job } = this;
    if (isActive(job)) this.actions.cancel(job);
    else if (job.state === "done") this.actions.show(job);
    else this.actions.retry(job);
  }
}
