/** The jobs of a slide, asked for again and again: often while one is under way, not at all while nobody looks. */

import { ApiError, fetchJobs } from "./api.js";
import { isActive } from "./jobwords.js";

/** @typedef {import("./jobwords.js").Job} Job */

/** Options with their defaults. */
export const FEED_OPTIONS = {
  /** Milliseconds between two looks while a job is queued or running. */
  activeMs: 1000,
  /** The same while none is: another tab or the command line may start one. */
  idleMs: 15_000,
  /** Wait after the first look in vain; doubled each time up to the idle pace. */
  failedMs: 2000,
};

/** Fires `change` when jobs or error changed, and `ended` (detail: the job) when one seen under way has ended. */
export class JobFeed extends EventTarget {
  /** @param {string} slideId @param {Partial<typeof FEED_OPTIONS>} [options] */
  constructor(slideId, options = {}) {
    super();
    this.slideId = slideId;
    this.options = { ...FEED_OPTIONS, ...options };
    /** @type {Job[]} newest first */
    this.jobs = [];
    this.error = "";
    this.etag = "";
    this.failures = 0;
    document.addEventListener("visibilitychange", () => this.look());
    this.look();
  }

  get anyActive() {
    return this.jobs.some(isActive);
  }

  /** Ask now, unless nobody looks. */
  look() {
    clearTimeout(this.timer);
    this.abort?.abort();
    if (!document.hidden) this.ask();
  }

  async ask() {
    const abort = (this.abort = new AbortController());
    try {
      const answer = await fetchJobs(this.slideId, this.etag, abort.signal);
      if (abort.signal.aborted) return;
      this.failures = 0;
      this.take(answer);
    } catch (error) {
      if (abort.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      this.failures += 1;
      this.fail(error.message);
    }
    this.timer = setTimeout(() => this.look(), this.pause());
  }

  pause() {
    const { activeMs, idleMs, failedMs } = this.options;
    if (this.failures) return Math.min(idleMs, failedMs * 2 ** (this.failures - 1));
    return this.anyActive ? activeMs : idleMs;
  }

  /** @param {{jobs: Job[], etag: string} | null} answer null: as before */
  take(answer) {
    const changed = answer !== null || this.error !== "";
    this.error = "";
    const before = new Map(this.jobs.map((job) => [job.id, job]));
    if (answer !== null) Object.assign(this, answer);
    if (changed) this.dispatchEvent(new Event("change"));
    for (const job of this.jobs) {
      const was = before.get(job.id);
      if (was !== undefined && isActive(was) && !isActive(job)) this.dispatchEvent(new CustomEvent("ended", { detail: job }));
    }
  }

  /** @param {string} message */
  fail(message) {
    // One look in vain may be a lost packet.
    if (this.failures < 2 || this.error === message) return;
    this.error = message;
    this.dispatchEvent(new Event("change"));
  }

  /** A job that this page has started or stopped: shown at once, then looked at. @param {Job} job */
  put(job) {
    const known = this.jobs.some((each) => each.id === job.id);
    this.jobs = known ? this.jobs.map((each) => (each.id === job.id ? job : each)) : [job, ...this.jobs];
    this.etag = "";
    this.dispatchEvent(new Event("change"));
    this.look();
  }
}
