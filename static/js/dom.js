/** Making elements with text as text, never as markup. */

/**
 * @param {string} tag
 * @param {Record<string, string | boolean | EventListener>} [options] attributes; `text` is the content, `on…` a listener
 * @param {(Node | string)[]} [children]
 * @returns {HTMLElement}
 */
export function make(tag, options = {}, children = []) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "text") made.textContent = String(value);
    else if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") made.toggleAttribute(name, value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** The element of that id, which the page is known to hold. @param {string} id @returns {any} */
export function byId(id) {
  return document.getElementById(id);
}
