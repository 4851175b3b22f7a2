/** Every command of the viewer, its keys and its sentence in the help: one table for keyboard, buttons and help. */

import { make } from "./dom.js";

/** @typedef {{name: string, keys: string[], help: string, group: string, repeats?: boolean}} Command */

/** @type {Command[]} */
export const COMMANDS = [
  { name: "left", keys: ["ArrowLeft"], help: "pan; with Shift by half a view", group: "Move", repeats: true },
  { name: "right", keys: ["ArrowRight"], help: "", group: "Move", repeats: true },
  { name: "up", keys: ["ArrowUp"], help: "", group: "Move", repeats: true },
  { name: "down", keys: ["ArrowDown"], help: "", group: "Move", repeats: true },
  { name: "zoom-in", keys: ["+", "="], help: "zoom in", group: "Move", repeats: true },
  { name: "zoom-out", keys: ["-", "_"], help: "zoom out", group: "Move", repeats: true },
  { name: "preset", keys: ["1", "2", "3", "4", "5", "6", "7"], help: "×1.25, ×2.5, ×5, ×10, ×20, ×40, ×80", group: "Move" },
  { name: "fit", keys: ["0", "Home"], help: "fit the slide", group: "Move" },
  { name: "rotate-right", keys: ["r", "]"], help: "turn right by 90°; with Shift left", group: "Move" },
  { name: "rotate-left", keys: ["["], help: "", group: "Move" },
  { name: "turn-left", keys: [","], help: "turn by 5°", group: "Move", repeats: true },
  { name: "turn-right", keys: ["."], help: "", group: "Move", repeats: true },
  { name: "mirror", keys: ["x"], help: "mirror", group: "Move" },
  { name: "source", keys: ["s"], help: "next source of ×40 pixels; with Shift the one before", group: "Pixels" },
  { name: "model", keys: ["k"], help: "card of the model in use", group: "Pixels" },
  { name: "frames", keys: ["t"], help: "frame every tile with its origin", group: "Pixels" },
  { name: "crisp", keys: ["c"], help: "crisp or smooth pixels when enlarged", group: "Pixels" },
  { name: "layers", keys: ["l"], help: "layers panel", group: "Layers" },
  { name: "hide-layers", keys: ["h"], help: "hide or show all layers", group: "Layers" },
  { name: "style", keys: ["o"], help: "outline, fill or both", group: "Layers" },
  { name: "threshold-down", keys: ["<"], help: "score threshold down or up by 0.05", group: "Layers", repeats: true },
  { name: "threshold-up", keys: [">"], help: "", group: "Layers", repeats: true },
  { name: "read", keys: ["e"], help: "read what lies in the middle", group: "Layers" },
  { name: "jobs", keys: ["j"], help: "predict panel", group: "Predict and compare" },
  { name: "preview", keys: ["p"], help: "preview here with the chosen model", group: "Predict and compare" },
  { name: "compare", keys: ["m"], help: "compare panel", group: "Predict and compare" },
  { name: "colors", keys: ["v"], help: "colours by match, or by class", group: "Predict and compare" },
  { name: "next-error", keys: ["d"], help: "next error; with Shift the one before", group: "Predict and compare" },
  { name: "navigator", keys: ["n"], help: "overview", group: "Panels" },
  { name: "facts", keys: ["i"], help: "slide card", group: "Panels" },
  { name: "fullscreen", keys: ["f"], help: "full screen", group: "Panels" },
  { name: "gallery", keys: ["g"], help: "all slides", group: "Panels" },
  { name: "help", keys: ["?"], help: "this list", group: "Panels" },
  { name: "close", keys: ["Escape"], help: "close what is open", group: "Panels" },
];

const GLYPHS = { ArrowLeft: "← → ↑ ↓", Escape: "Esc" };
const SHORT = { preset: "1 – 7", "zoom-in": "+", "turn-left": ", .", "threshold-down": "< >" };

/**
 * Call `run` with the command of each key pressed outside of fields and open dialogs.
 * @param {(name: string, event: KeyboardEvent) => void} run
 */
export function listenToKeys(run) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTaken(event)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const command = COMMANDS.find((each) => each.keys.includes(key));
    if (command === undefined || (event.repeat && !command.repeats)) return;
    if (command.name !== "close") event.preventDefault();
    run(command.name, event);
  });
}

/** Whether a field or dialog with the focus has its own use for the key. @param {KeyboardEvent} event */
function isTaken(event) {
  if (document.querySelector("dialog[open]")) return true;
  const target = event.target;
  const field = target instanceof Element ? target.closest("input, select, textarea") : null;
  if (field === null) return false;
  const type = field.getAttribute("type");
  if (type === "checkbox") return event.key === " ";
  if (type === "radio" || type === "range") return /^(Arrow|Page|Home|End| )/.test(event.key);
  return true;
}

/** The list for the help dialog. @returns {HTMLElement[]} */
export function keyHelp() {
  const groups = Map.groupBy(COMMANDS.filter((each) => each.help), (each) => each.group);
  return [...groups].map(([title, commands]) => make("section", {}, [
    make("h3", { text: title }),
    make("dl", { class: "keys" }, commands.flatMap((each) => [
      make("dt", {}, [make("kbd", { text: keyText(each) })]),
      make("dd", { text: each.help }),
    ])),
  ]));
}

/** @param {Command} command */
function keyText(command) {
  const key = command.keys[0];
  return SHORT[command.name] ?? GLYPHS[key] ?? (key.length === 1 ? key.toUpperCase() : key);
}
