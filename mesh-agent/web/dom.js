// Elements, and lists of them that follow data. Whatever comes from the agent becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Attributes that are null or false are left out; children are nodes or text. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) set(element, name, value);
  element.append(...children.filter((child) => child != null));
  return element;
}

/** One of the shapes in index.html. */
export function icon(name) {
  return svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#${name}` }));
}

/** Gives an icon another shape. */
export function turn(icon, name) {
  set(icon.firstChild, "href", `#${name}`);
}

/** Sets, or removes, an attribute that is not so already. */
export function set(element, name, value) {
  if (value == null || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Sets the text of an element that does not say it already. */
export function say(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

/** Keeps the children of a list in step with items: each has one, by its key, that is made once and updated only when
 * its item is another than before. */
export class List {
  constructor(parent, key, make, update) {
    Object.assign(this, { parent, key, make, update });
    this.shown = new Map();
  }

  show(items) {
    const before = this.shown;
    this.shown = new Map();
    let next = this.parent.firstElementChild;
    for (const item of items) {
      const key = this.key(item);
      const entry = before.get(key) ?? { element: this.make(item), told: null };
      before.delete(key);
      this.shown.set(key, entry);
      const told = JSON.stringify(item);
      if (entry.told !== told) {
        entry.told = told;
        this.update(entry.element, item);
      }
      if (entry.element === next) next = next.nextElementSibling;
      else this.parent.insertBefore(entry.element, next);
    }
    for (const { element } of before.values()) element.remove();
  }

  element(key) {
    return this.shown.get(key)?.element;
  }
}
