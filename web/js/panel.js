/** The sliders of the chosen region, bound to the node's ordinary widgets. */
import { element } from "./dom.js"
import { GROUPS, spoken } from "./regions.js"
import { isLinked, restOf, widgetOf, write } from "./values.js"

export class Panel {
  /**
   * @param {any} node @param {{choose: (id: string) => void, key: (name: string) => void, done: () => void}} listener
   */
  constructor(node, listener) {
    this.node = node
    this.listener = listener
    this.tabs = GROUPS.map(({ id, title }) =>
      element("button", { type: "button", role: "tab", textContent: title, onclick: () => listener.choose(id) }))
    this.rows = element("div", { className: "f3d-rows" })
    this.element = element("div", { className: "f3d-panel" },
      element("div", { className: "f3d-tabs", role: "tablist" }, ...this.tabs), this.rows)
  }

  /** @param {string} chosen a group's id @param {Set<string>} keyed sliders that have keyframes @param {boolean} onKey */
  show(chosen, keyed) {
    const group = GROUPS.find((g) => g.id === chosen) ?? GROUPS[0]
    if (this.group !== group) {
      this.group = group
      this.tabs.forEach((tab, i) => tab.setAttribute("aria-selected", String(GROUPS[i] === group)))
      this.sliders = group.widgets.filter((n) => widgetOf(this.node, n)).map((name) => this.#row(name))
      this.rows.replaceChildren(...this.sliders.map((s) => s.row))
      this.rows.scrollTop = 0
    }
    for (const { name, input, number, key, row } of this.sliders) {
      const value = Number(widgetOf(this.node, name).value)
      input.disabled = key.disabled = isLinked(this.node, name)
      if (Number(input.value) !== value) input.value = String(value)
      const [low, high] = [Number(input.min), Number(input.max)]
      const [zero, here] = [restOf(this.node, name), value].map((x) => (100 * (x - low)) / (high - low))
      row.style.setProperty("--from", `${Math.min(zero, here)}%`)
      row.style.setProperty("--to", `${Math.max(zero, here)}%`)
      number.textContent = input.disabled ? "linked" : value.toFixed(Number(input.step) < 0.1 ? 2 : 1)
      key.setAttribute("aria-pressed", String(keyed.has(name)))
    }
  }

  #row(name) {
    const { options } = widgetOf(this.node, name)
    const input = element("input", {
      type: "range", min: options.min, max: options.max, step: options.step2 ?? 0.01, ariaLabel: spoken(name),
      oninput: () => write(this.node, name, Number(input.value)), onchange: () => this.listener.done(),
    })
    const back = () => (write(this.node, name, restOf(this.node, name)), this.listener.done())
    input.addEventListener("keydown", (e) => {
      if (e.key !== "Home" && e.key !== "Delete" && e.key !== "k") return e.stopPropagation()
      e.preventDefault()
      e.stopPropagation()
      if (e.key === "k") this.listener.key(name)
      else back()
    })
    const key = element("button", {
      type: "button", className: "f3d-key", title: "Set a keyframe here", ariaLabel: `keyframe of ${spoken(name)}`,
      onclick: () => this.listener.key(name),
    })
    const number = element("output", {})
    const row = element("label", { className: "f3d-row", title: "Double-click to reset", ondblclick: back },
      element("span", { textContent: spoken(name) }), input, number, key)
    return { name, input, number, key, row }
  }
}
