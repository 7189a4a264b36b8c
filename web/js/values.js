/**
 * The node's ordinary widgets as the edits they mean, frame by frame. They are all that the live head reads and writes.
 * @typedef {{name: string, value: any, options: any, callback?: Function}} Widget
 */
import { length, parsed, sampled } from "./keyframes.js"

/** @param {any} node @param {string} name @returns {Widget | undefined} */
export const widgetOf = (node, name) => node.widgets?.find((w) => w.name === name)

/** Whether another node gives the input its value: then it is not known here. */
export const isLinked = (node, name) => node.inputs?.find((i) => i.name === name)?.link != null

/** Write a widget as a hand would. @param {any} node @param {string} name @param {any} value */
export function write(node, name, value) {
  const widget = widgetOf(node, name)
  if (!widget || isLinked(node, name)) return
  if (typeof value === "number") {
    const { min = -Infinity, max = Infinity } = widget.options ?? {}
    value = Number(Math.min(Math.max(value, min), max).toFixed(4))
  }
  if (widget.value === value) return
  widget.value = value
  widget.callback?.(value, undefined, node)
  node.setDirtyCanvas?.(true, false)
}

/** What a slider is reset to. @param {any} node @param {string} name */
export const restOf = (node, name) => widgetOf(node, name)?.options?.default ?? (name.endsWith("Gain") ? 1 : 0)

/**
 * @param {any} node @param {any} tables the head's @returns {{at: (frame: number) => Record<string, number>, frames: number,
 *   fixed: boolean, settings: import("./keyframes.js").Settings, fault: string}} how many the keyframes ask for, or the
 *   widget `frames`, which fixes it
 */
export function read(node, tables) {
  const sliders = tables.edits.flatMap((name) => {
    const value = isLinked(node, name) ? undefined : widgetOf(node, name)?.value
    return typeof value === "number" && Number.isFinite(value) && value !== (name in tables.gains ? 1 : 0) ? [[name, value]] : []
  })
  sliders.sort((a, b) => node.widgets.findIndex((w) => w.name === a[0]) - node.widgets.findIndex((w) => w.name === b[0]))
  const text = (name) => (isLinked(node, name) ? "" : String(widgetOf(node, name)?.value ?? ""))
  const more = parsed(text("more")), keys = parsed(text("keyframes"))
  const settings = { curves: [...more.curves, ...keys.curves], constants: [...more.constants, ...keys.constants], fault: "" }
  const said = [...settings.constants.map(([n]) => n), ...settings.curves.map((c) => c.name)]
  const unknown = said.find((n) => !tables.edits.includes(n))
  const at = (frame) => {
    const values = Object.fromEntries(sliders)
    const put = (name, value) => {
      if (!tables.edits.includes(name)) return
      values[name] = !(name in values) ? value : name in tables.gains ? values[name] * value : values[name] + value
    }
    for (const [name, value] of settings.constants) put(name, value)
    for (const curve of settings.curves) put(curve.name, sampled(curve, frame))
    return values
  }
  const asked = isLinked(node, "frames") ? 0 : Number(widgetOf(node, "frames")?.value ?? 0)
  const frames = asked || length(settings)
  return { at, frames, fixed: !!asked, settings, fault: unknown ? `no edit '${unknown}'` : more.fault || keys.fault }
}
