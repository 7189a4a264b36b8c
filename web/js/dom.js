/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag @param {Record<string, any>} set properties and attributes @param {...(Node | string)} inside
 */
export function element(tag, set, ...inside) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(set)) {
    if (name in made) made[name] = value
    else made.setAttribute(name, value)
  }
  made.append(...inside)
  return made
}

/** @param {string} tag of SVG @param {Record<string, any>} set */
export function drawn(tag, set) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag)
  for (const [name, value] of Object.entries(set)) made.setAttribute(name, String(value))
  return made
}
