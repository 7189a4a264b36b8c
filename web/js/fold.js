/** The node's plain sliders, folded away while the panel under the head shows those of one region at a time. */
import { element } from "./dom.js"
import { GROUPS } from "./regions.js"
import { isLinked } from "./values.js"

const SHOWN = "all sliders" // a property of the node, so that a workflow keeps it
const NAMES = new Set(GROUPS.flatMap((g) => g.widgets))

/** Folds the sliders and puts a button for them under the live head. @param {any} node @param {HTMLElement} live */
export function fold(node, live) {
  const button = element("button", { type: "button", className: "f3d-fold", onclick: () => {
    node.properties[SHOWN] = !node.properties[SHOWN]
    arrange(node, button)
    node.setSize([node.size[0], node.computeSize()[1]])
  } })
  live.append(button)
  node.properties[SHOWN] ??= false
  arrange(node, button)
  for (const event of ["onConfigure", "onConnectionsChange", "onPropertyChanged"])
    chained(node, event, () => arrange(node, button))
}

/** A slider that another node feeds stays, with its socket. */
function arrange(node, button) {
  for (const widget of node.widgets) {
    if (!NAMES.has(widget.name)) continue
    widget.hidden = !node.properties[SHOWN] && !isLinked(node, widget.name)
    if (widget.hidden) widget.computeSize = () => [0, -4] // LiteGraph adds 4 to every widget
    else delete widget.computeSize
  }
  button.textContent = node.properties[SHOWN] ? "Fewer sliders ▴" : "All sliders ▾"
  button.setAttribute("aria-expanded", String(!!node.properties[SHOWN]))
  node.setDirtyCanvas(true, true)
}

/** @param {any} node @param {string} name of a callback @param {(...told: any[]) => void} also called after it */
export function chained(node, name, also) {
  const before = node[name]
  node[name] = function (...told) {
    const result = before?.apply(this, told)
    also(...told)
    return result
  }
}
