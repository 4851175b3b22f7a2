/** The model card: a dialog that says of any model at hand what it does, on what it was trained and how well it did. */

import { ApiError, fetchModels } from "./api.js";
import { write } from "./controls.js";
import { byId, make } from "./dom.js";
import { dataRows, factRows, isUpscaler, kindText, scoreTable, trainingRows } from "./modelwords.js";

/** @typedef {import("./modelwords.js").ModelCard} ModelCard */
/** @typedef {import("./modelwords.js").Table} Table */

const GROUPS = [
  { title: "×40 pixels", holds: isUpscaler },
  { title: "Predictions", holds: (/** @type {ModelCard} */ card) => !isUpscaler(card) },
];

/** Opened by any element with `data-model-card="name"`, or by `open`. */
export class ModelSheet {
  /** @param {import("./stage.js").Stage} stage */
  constructor(stage) {
    this.stage = stage;
    /** @type {ModelCard[]} */
    this.models = [];
    this.dialog = byId("model");
    this.choice = /** @type {HTMLSelectElement} */ (make("select", { id: "model-choice", onchange: () => this.show(this.choice.value) }));
    this.state = make("p", { class: "quiet", role: "status" });
    this.body = make("div", { class: "sheet-body", "aria-live": "polite" });
    const chooser = make("p", { class: "model-chooser" }, [make("label", { for: "model-choice", text: "Model" }), this.choice]);
    byId("model-body").append(chooser, this.state, this.body);
    document.addEventListener("click", (event) => {
      const asked = event.target instanceof Element ? event.target.closest("[data-model-card]") : null;
      if (asked instanceof HTMLElement) this.open(asked.dataset.modelCard ?? "");
    });
  }

  /** The model whose pixels are chosen; where none are, the one that would be seen at ×40. */
  get inUse() {
    const { active, sources } = this.stage;
    const auto = sources.find((each) => each.kind === "auto");
    return active.model?.name ?? auto?.model?.name ?? "bicubic";
  }

  /** Show the card of a model. @param {string} [name] by default the one in use */
  async open(name = this.inUse) {
    if (!this.dialog.open) this.dialog.showModal();
    this.body.replaceChildren();
    write(this.state, "Asking which models there are …");
    try {
      this.models = await fetchModels();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      write(this.state, `The models are not known: ${error.message}`);
      return;
    }
    write(this.state, "");
    this.choice.replaceChildren(...GROUPS.map(({ title, holds }) => this.group(title, this.models.filter(holds))));
    this.show(name);
  }

  /** @param {string} title @param {ModelCard[]} models */
  group(title, models) {
    return make("optgroup", { label: title }, models.map((each) => (
      make("option", { value: each.name, text: each.research_only ? `${each.name} (research only)` : each.name })
    )));
  }

  /** @param {string} name */
  show(name) {
    const card = this.models.find((each) => each.name === name);
    this.choice.value = card?.name ?? "";
    write(this.state, card ? "" : `There is no card of ${name}: its files are no longer at hand.`);
    this.body.replaceChildren(...(card ? cardSections(card, this.stage.card.stored.mpp) : []));
    byId("model-body").scrollTop = 0;
  }
}

/** @param {ModelCard} card @param {number | null} storedMpp of the slide */
function cardSections(card, storedMpp) {
  const table = scoreTable(card);
  const learnt = dataRows(card);
  return [
    make("h3", { class: "model-name" }, [card.name, make("span", { class: "quiet", text: kindText(card) })]),
    listOf("Facts", factRows(card, storedMpp).filter(([name]) => name !== "Does")),
    ...(table ? [make("section", {}, [make("h3", { text: "Scores" }), tableOf(table)])] : []),
    ...(learnt.length ? [listOf("Training data", learnt, "wide")] : []),
    ...(trainingRows(card).length ? [listOf("Training", trainingRows(card))] : []),
    ...(card.notes ? [make("section", {}, [make("h3", { text: "Notes" }), make("p", { text: card.notes })])] : []),
  ];
}

/** @param {string} title @param {[string, string][]} rows @param {string} [look] */
function listOf(title, rows, look = "") {
  const pairs = rows.flatMap(([name, value]) => [make("dt", { text: name }), make("dd", { text: value })]);
  return make("section", {}, [make("h3", { text: title }), make("dl", { class: look }, pairs)]);
}

/** @param {Table} table */
function tableOf({ caption, head, rows }) {
  const cells = (/** @type {string} */ text) => text.split("\n").flatMap((line, at) => (at ? [make("br"), line] : [line]));
  // Beside the table, not in it: a caption is as wide as the table, which may scroll.
  const told = make("p", { id: "scores-of", class: "quiet", text: caption });
  const frame = { class: "score-frame", tabindex: "0", role: "region", "aria-labelledby": "scores-of" };
  return make("div", {}, [told, make("div", frame, [make("table", { class: "scores", "aria-labelledby": "scores-of" }, [
    make("thead", {}, [make("tr", {}, head.map((text) => make("th", { scope: "col", text })))]),
    make("tbody", {}, rows.map(({ name, more, cells: values }) => make("tr", {}, [
      make("th", { scope: "row" }, [name, make("span", { class: "quiet", text: more })]),
      ...values.map((value) => make("td", {}, cells(value))),
    ]))),
  ])])]);
}
